"""The paper's 3D U-Net: from the density of tracers to the velocity of matter.

Down: a block, then max-pooling by 2, ``depth`` times. Up: upsampling by 2, the skip from the same size beside it, a
block. A block is two 3³ convolutions with normalisation and PReLU and, as the paper's *Conv Add Block*, the block's
own input added before the last PReLU (through a 1³ convolution where the number of channels changes). A linear 1³
convolution gives the three components. Channels double at each level: width, 2·width, 4·width, ...

A velocity depends on tracers far away, so the reach of the network matters: 2·(3·2ᵈ − 2) cells on each side at depth
d, that is 20 at depth 2 and 44 at depth 3 (and up to 2ᵈ − 1 more, by the cell's place in a pooled one), before the
normalisation, which sees the whole box.

With ``condition`` the network is given some numbers that hold for a whole box. Two small layers make features of them,
and in each block a linear layer makes from these a factor and a shift for each channel after its second normalisation
(feature-wise linear modulation, Perez et al. 2018, AAAI 32). These layers begin at zero: an untrained network is the
one without.

With ``std`` a second, small head reads the last block's features: 1³ convolution, PReLU, 1³ convolution give the
logarithm of each component's variance, in further channels behind the components.

Any size of box works: it is padded to a multiple of 2ᵈ, evenly on both sides, and the result cropped back.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from velfield.errors import VelfieldError

NORMS = ("group", "batch")
UPSAMPLINGS = ("nearest", "trilinear")
PADDINGS = ("zeros", "replicate", "circular")
DEEPEST = 7  # 128 cells beneath one; a deeper network is a mistake
CONDITION_WIDTH = 16  # features that are made of the condition
SPREAD_WIDTH = 2  # inner channels of the head of ln σ², in units of the width
Padding = Literal["zeros", "replicate", "circular"]


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Everything that fixes the network's shape.

    Parameters
    ----------
    in_channels, out_channels : int
        Kinds of density in, and with a guide its components last, three a tracer; components of the velocity out.
    width : int
        Channels of the first block; doubles at each level down.
    depth : int
        Number of poolings.
    norm : {"group", "batch"}
        The paper found GroupNorm clearly better than BatchNorm.
    groups : int
        Groups of the GroupNorm; must divide ``width``.
    conv_add : bool
        Blocks with the addition (the paper's Conv Add Block), or plain ones.
    upsample : {"nearest", "trilinear"}
        How a level's result is doubled before the block above it.
    padding : {"zeros", "replicate", "circular"}
        What lies beyond the box, for convolutions and for the padding to a multiple of 2ᵈ.
    dropout : float
        Share of a block's inner activations that are dropped while training; 0.2 in the paper's survey models.
    guide : int
        How many velocities [σ_v] of a guide are the last inputs, three components each. The network adds to their sum,
        each times a learned factor. The last convolution begins at zero, the first velocity's factor at one and the
        others' at zero, so that an untrained network gives the first.
    std : bool
        Also give ln σ² of each component, σ in units of σ_v: ``out_channels`` more channels.
    condition : int
        Numbers that the network is given beside its inputs; 0 for none.
    """

    in_channels: int
    out_channels: int = 3
    width: int = 8
    depth: int = 3
    norm: str = "group"
    groups: int = 4
    conv_add: bool = True
    upsample: str = "nearest"
    padding: Padding = "zeros"
    dropout: float = 0.0
    guide: int = 0
    std: bool = False
    condition: int = 0

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("norm", self.norm, NORMS),
            ("upsample", self.upsample, UPSAMPLINGS),
            ("padding", self.padding, PADDINGS),
        ):
            if value not in choices:
                raise VelfieldError(f"unknown {name} of the U-Net: {name}={value!r}; choose {', '.join(choices)}")
        if min(self.in_channels, self.out_channels, self.width, self.groups) < 1 or not 0 <= self.depth <= DEEPEST:
            raise VelfieldError(
                f"no such U-Net: in_channels={self.in_channels}, out_channels={self.out_channels}, width={self.width}, "
                f"groups={self.groups}, depth={self.depth}; all must be at least 1, the depth from 0 to {DEEPEST}"
            )
        if self.norm == "group" and self.width % self.groups:
            raise VelfieldError(
                f"groups do not divide the width: width={self.width}, groups={self.groups}; "
                "choose a width that is a multiple of groups"
            )
        if not 0 <= self.guide < self.in_channels / 3:
            raise VelfieldError(
                f"a guide and nothing else: in_channels={self.in_channels}, guide={int(self.guide)}; give the density "
                "that it is of, too"
            )
        if self.condition < 0:
            raise VelfieldError(f"no such condition: condition={self.condition}; give how many numbers, 0 for none")
        if not 0 <= self.dropout < 1:
            raise VelfieldError(f"no such dropout: dropout={self.dropout}; give a share from 0 up to, not including, 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> UNetConfig:
        """Rebuild what `to_dict` wrote."""
        return cls(**values)


class Block(nn.Module):
    """Two convolutions with normalisation and PReLU, with the block's input added before the last PReLU."""

    def __init__(self, channels_in: int, channels: int, config: UNetConfig) -> None:
        super().__init__()
        # no bias: the normalisation that follows would take it out again
        self.conv1 = nn.Conv3d(channels_in, channels, 3, padding=1, padding_mode=config.padding, bias=False)
        self.norm1 = _norm(channels, config)
        self.act1 = nn.PReLU(channels)
        self.drop = nn.Dropout(config.dropout) if config.dropout else None
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1, padding_mode=config.padding, bias=False)
        self.norm2 = _norm(channels, config)
        self.act2 = nn.PReLU(channels)
        self.skip: nn.Module | None = None
        if config.conv_add:
            self.skip = nn.Conv3d(channels_in, channels, 1) if channels_in != channels else nn.Identity()
        self.modulation: nn.Linear | None = None
        if config.condition:
            with torch.random.fork_rng(devices=[]):
                self.modulation = nn.Linear(CONDITION_WIDTH, 2 * channels)
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        """(box, channels_in, x, y, z) → (box, channels, x, y, z); ``told`` (box, n) are the condition's features."""
        y = self.act1(self.norm1(self.conv1(x)))
        if self.drop is not None:
            y = self.drop(y)
        y = self.norm2(self.conv2(y))
        if self.modulation is not None and told is not None:
            factor, shift = self.modulation(told)[..., None, None, None].chunk(2, dim=1)
            y = y * (1 + factor.float()).to(y.dtype) + shift  # in bfloat16 1 + 0.003 is 1
        if self.skip is not None:
            y = y + self.skip(x)
        return self.act2(y)


class UNet(nn.Module):
    """The network: (box, in_channels, x, y, z) → (box, out_channels, x, y, z), any x, y, z."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**level for level in range(config.depth + 1)]
        self.down = nn.ModuleList(
            Block(before, width, config) for before, width in zip([config.in_channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            Block(widths[level + 1] + widths[level], widths[level], config) for level in reversed(range(config.depth))
        )
        self.out = nn.Conv3d(config.width, config.out_channels, 1)
        self.gain: nn.Parameter | None = None
        if config.guide:
            self.gain = nn.Parameter(torch.zeros(int(config.guide)))
            nn.init.ones_(self.gain[:1])
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.told: nn.Module | None = None
        if config.condition:
            with torch.random.fork_rng(devices=[]):
                self.told = nn.Sequential(
                    nn.Linear(config.condition, CONDITION_WIDTH),
                    nn.SiLU(),
                    nn.Linear(CONDITION_WIDTH, CONDITION_WIDTH),
                    nn.SiLU(),
                )
        self.spread: nn.Module | None = None
        if config.std:
            inner = SPREAD_WIDTH * config.width
            with torch.random.fork_rng(devices=[]):  # all else, dropout too, draws what it would draw without it
                self.spread = nn.Sequential(
                    nn.Conv3d(config.width, inner, 1), nn.PReLU(inner), nn.Conv3d(inner, config.out_channels, 1)
                )

    def forward(self, x: Tensor, share: float = 0.0, condition: Tensor | None = None) -> Tensor:
        """Densities, normalised, and a guide [σ_v] if there is one, to velocities [σ_v]; with ``std`` ln σ² behind.

        ``condition`` (box, n) is what a conditioned network is given, and no other. ``share`` is the part of the
        gradient of ln σ² that reaches the features: with 0 what the head learns changes nothing else.
        """
        given = 0 if condition is None else condition.shape[-1]
        if given != self.config.condition:
            raise VelfieldError(f"the condition does not fit the network: numbers={given}, its={self.config.condition}")
        told = None if self.told is None else self.told(condition)
        guides = x[:, x.shape[1] - 3 * self.config.guide :].split(3, dim=1)
        x, crop = _pad(x, 2**self.config.depth, self.config.padding)
        skips = []
        for block in self.down[:-1]:
            x = block(x, told)
            skips.append(x)
            x = functional.max_pool3d(x, 2)
        x = self.down[-1](x, told)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([_double(x, self.config.upsample), skip], dim=1), told)
        velocity = self.out(x)[crop]
        if self.gain is not None:
            for factor, guide in zip(self.gain, guides, strict=True):
                velocity = velocity + factor * guide
        if self.spread is None:
            return velocity
        seen = x.detach() if share == 0 else x.detach() + share * (x - x.detach())
        return torch.cat([velocity, self.spread(seen)[crop]], dim=1)

    def trained_together(self) -> list[list[nn.Parameter]]:
        """Parameters by what drives them: the velocity's, and those of the head of ln σ², if there is one."""
        head = [] if self.spread is None else list(self.spread.parameters())
        apart = {id(p) for p in head}
        rest = [p for p in self.parameters() if id(p) not in apart]
        return [rest, head] if head else [rest]

    @property
    def parameters_count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())


def _norm(channels: int, config: UNetConfig) -> nn.Module:
    return nn.GroupNorm(config.groups, channels) if config.norm == "group" else nn.BatchNorm3d(channels)


def _double(x: Tensor, mode: str) -> Tensor:
    if mode == "trilinear":
        return functional.interpolate(x, scale_factor=2, mode=mode, align_corners=False)
    return functional.interpolate(x, scale_factor=2, mode=mode)


def _pad(x: Tensor, multiple: int, mode: str) -> tuple[Tensor, tuple[slice, ...]]:
    """Pad the last three axes to a multiple, evenly on both sides; also return the slices that take it off again."""
    crop, widths = [slice(None), slice(None)], []
    for size in x.shape[-3:]:
        low = (-size % multiple) // 2
        crop.append(slice(low, low + size))
        widths.append((low, -size % multiple - low))
    if any(low or high for low, high in widths):
        flat = [width for pair in reversed(widths) for width in pair]  # torch counts axes from the last
        x = functional.pad(x, flat, mode="constant" if mode == "zeros" else mode)
    return x, tuple(crop)
