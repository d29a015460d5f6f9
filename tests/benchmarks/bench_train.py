"""What a training step costs: loaders, networks, compiler and memory layout against each other in the same run.

python tests/benchmarks/bench_train.py [--cells 32] [--batch 4] [--steps 4] [--repeat 3] [--compile]

A step is that of `velfield train`: forward, loss, backward, clipping, AdamW; boxes of arbitrary values, two inputs.
Cases take turns, and a ratio is that of two turns of the same round, so that a busy machine disturbs both alike. Each
turn begins with steps that are not counted: in them a streaming loader uses up what it read while others had their
turn, or fills its queue and is still.

Loaders: all boxes in memory (the reference), and read from the store by ``--loader-workers`` processes. Networks, with
a batch in memory: velfield's as it trains (the reference; on a GPU in bfloat16), with torch.compile (``--compile``; a
minute or more), without the channels-last layout, on a GPU in float32; and two of MONAI, if it is installed (extra
``peers``): the same levels made of its UnetResBlock, and its own UNet of the width at which it has about as many
parameters, which begins with a strided convolution and so does a fraction of the arithmetic. Operations are counted by
torch, of convolutions and matrix products, forward and backward; the peak is what a large matrix product reaches in the
same precision and run.
"""
# ruff: noqa: T201 - a table for people; the environment before torch

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it; read when torch is loaded

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from velfield.files.progress import Silent
from velfield.geometry.boxes import BoxLayout
from velfield.learning.batches import Batch, Batches, Boxes
from velfield.learning.compiled import Compiled
from velfield.learning.loss import LossConfig, counted_cells, loss_sums
from velfield.learning.ranks import Ranks
from velfield.learning.samples import StepSamples
from velfield.learning.step import gradients
from velfield.learning.train_config import TrainConfig
from velfield.network.model import pick_device
from velfield.network.normalisation import measure
from velfield.network.unet import UNet, UNetConfig, _pad
from velfield.stores import store
from velfield.stores.sources import boxes_of, open_sources, symmetries_of

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_store import arrays_of, spec_of

INPUTS = TrainConfig(steps=1).inputs
SETTLE = 2  # batches that each process of a streaming loader reads ahead (torch's prefetch_factor)
REFERENCE = "velfield, as it trains"
PAPER = 50.0  # minutes of 100 epochs of 800 boxes of 60³ cells on one GPU

Turn = Callable[[], float]  # does the steps of a turn; seconds that those counted took


class Stepper:
    """A network in training, with the memory layout and precision that are asked for."""

    def __init__(
        self,
        net: nn.Module,
        device: torch.device,
        *,
        bfloat16: bool,
        channels_last: bool = True,
        compiled: bool = False,
    ) -> None:
        self.layout = torch.channels_last_3d if channels_last else torch.contiguous_format
        self.net = net.to(device, memory_format=self.layout).train()
        self.forward: Callable[..., Tensor] = Compiled(net, self.noted) if compiled else net
        self.device, self.bfloat16 = device, bfloat16
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
        self.loss, self.notes = LossConfig(), []

    def noted(self, text: str) -> None:
        """Why the network is not compiled."""
        self.notes.append(text)

    def _sums(self, batch: Batch) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            made = self.forward(batch.inputs.contiguous(memory_format=self.layout))
        return loss_sums(made.float(), batch.velocity, counted_cells(batch.flag, self.loss), self.loss)

    def __call__(self, batch: Batch) -> None:
        """One step, as `velfield.learning.train` makes it."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = gradients(self.net, [batch], self._sums, self.loss, Ranks())
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        float(loss)  # waits for the GPU, as a training that notes its losses does


class OfMonai(nn.Module):
    """velfield's network with MONAI's blocks: the same levels, pooling, nearest upsampling and skips."""

    def __init__(self, config: UNetConfig) -> None:
        from monai.networks.blocks.dynunet_block import UnetResBlock
        from monai.networks.blocks.upsample import UpSample

        def block(before: int, width: int) -> nn.Module:
            norm, act = ("group", {"num_groups": config.groups}), ("prelu", {"num_parameters": width})
            return UnetResBlock(3, before, width, 3, 1, norm, act_name=act)

        super().__init__()
        widths = [config.width * 2**level for level in range(config.depth + 1)]
        self.down = nn.ModuleList(map(block, [config.in_channels, *widths[:-1]], widths))
        self.up = nn.ModuleList(block(3 * width, width) for width in reversed(widths[:-1]))
        self.pool = nn.MaxPool3d(2)
        self.upsample = UpSample(3, scale_factor=2, mode="nontrainable", interp_mode="nearest", align_corners=None)
        self.out = nn.Conv3d(config.width, config.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Of boxes whose side is a multiple of 2^depth."""
        skips = []
        for block in self.down[:-1]:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.down[-1](x)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([self.upsample(x), skip], dim=1))
        return self.out(x)


def parameters(net: nn.Module) -> int:
    """How many there are."""
    return sum(p.numel() for p in net.parameters())


class Padded(nn.Module):
    """A network for boxes of any size, padded as velfield's pads them."""

    def __init__(self, net: nn.Module, multiple: int) -> None:
        super().__init__()
        self.net, self.multiple = net, multiple

    def forward(self, x: Tensor) -> Tensor:
        """Pad, run, crop."""
        x, crop = _pad(x, self.multiple, "zeros")
        return self.net(x)[crop]


def peers(config: UNetConfig) -> dict[str, nn.Module]:
    """MONAI's networks, if it is installed."""
    try:
        from monai.networks.nets import UNet as MonaiUNet
    except ImportError:
        print("MONAI is not installed: pip install velfield[peers]")
        return {}
    strides, multiple = (2,) * config.depth, 2**config.depth

    def own(width: int) -> nn.Module:
        widths = [width * 2**level for level in range(config.depth + 1)]
        return MonaiUNet(3, config.in_channels, config.out_channels, widths, strides, num_res_units=2)

    wanted = parameters(UNet(config))
    nearest = min(range(2, 2 * config.width + 2), key=lambda width: abs(parameters(own(width)) - wanted))
    found = {"of MONAI's UnetResBlock": OfMonai(config), f"MONAI's UNet, width {nearest}": own(nearest)}
    return {name: Padded(net, multiple) for name, net in found.items()}


def write_store(url: str, cells: int, boxes: int) -> None:
    """A field store of ``boxes``³ boxes with arbitrary values, the last for validation."""
    layout = BoxLayout(boxsize=5.0 * cells * boxes, boxes=boxes, cells=cells)
    store.write_fields(url, spec_of(layout), arrays_of(layout))


def loaders(url: str, args: argparse.Namespace, device: torch.device) -> dict[str, Batches]:
    """The two ways to the same batches."""
    sources = open_sources([url], INPUTS)
    which = boxes_of(sources, "train")
    plain = Boxes(sources, INPUTS, which)
    normalisation = measure((plain.raw(box) for box in range(min(len(which), 8))), INPUTS, "linear")
    turns = symmetries_of(sources)
    data = Boxes(sources, INPUTS, which, turns, normalisation)
    found = {}
    for name, resident in (("resident", True), (f"streaming, {args.loader_workers} processes", False)):
        samples = StepSamples(steps=range(10**6), boxes=len(which), symmetries=len(turns), batch=args.batch, seed=1)
        found[name] = Batches(data, samples, device=device, resident=resident, workers=args.loader_workers)
        found[name].load(Silent(), name)
    return found


def cpu_time(work: Callable[[], object], repeat: int = 3) -> float:
    """Least CPU time of a call, in all threads of this process [s]."""
    best = float("inf")
    for _ in range(repeat):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def reading(data: Boxes, samples: StepSamples) -> float:
    """CPU time of reading a box and turning it [s]."""
    some = next(iter(samples))
    return cpu_time(lambda: [data[sample] for sample in some], 5) / len(some)


def turn(step: Stepper, batches: Iterator[Batch], waits: list[float], *, settle: int, steps: int) -> Turn:
    """A turn of ``steps`` counted steps; what it waited for batches goes into ``waits`` [s]."""

    def run() -> float:
        for _ in range(settle):
            step(next(batches))
        began, waited = time.perf_counter(), 0.0
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            step(batch)
        waits.append(waited)
        return time.perf_counter() - began

    return run


def always(batch: Batch) -> Iterator[Batch]:
    """The same batch for ever."""
    while True:
        yield batch


def race(turns: dict[str, Turn], repeat: int) -> dict[str, list[float]]:
    """Seconds of each case's turns, in rounds over all; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for round_ in range(repeat + 1):
        for name, run in turns.items():
            took = run()
            if round_:
                seconds[name].append(took)
    return seconds


def table(title: str, seconds: dict[str, list[float]], boxes: int, more: dict[str, str]) -> None:
    """Boxes/s, and the ratio to the first case round by round; ``more`` are further columns, by case."""
    first = next(iter(seconds.values()))
    head = f"| {title} |{more['']} boxes/s, best | median | × the first, median | least | most |"
    print(f"\n{head}\n{'| --- ' * (head.count('|') - 1)}|")
    for name, took in seconds.items():
        ratios = sorted(reference / mine for reference, mine in zip(first, took, strict=True))
        print(
            f"| {name} |{more.get(name, '')} {boxes / min(took):.2f} | {boxes / statistics.median(took):.2f} "
            f"| {statistics.median(ratios):.3f} | {ratios[0]:.3f} | {ratios[-1]:.3f} |",
            flush=True,
        )


def flops_of(step: Stepper, batch: Batch) -> int:
    """Arithmetic of a step, as torch counts it: products and sums of convolutions, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step(batch)
    return counter.get_total_flops()


def matrix_peak(device: torch.device, *, bfloat16: bool) -> float:
    """Arithmetic of a large matrix product a second."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if bfloat16 else torch.float32)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


def networks(config: UNetConfig, device: torch.device, compiled: bool) -> dict[str, Stepper]:
    """The cases of the second table, the reference first."""
    gpu = device.type == "cuda"
    plain: dict[str, Any] = {"bfloat16": gpu}
    found = {REFERENCE: Stepper(UNet(config), device, **plain)}
    if compiled:
        found["velfield, compiled"] = Stepper(UNet(config), device, **plain, compiled=True)
    found["velfield, not channels-last"] = Stepper(UNet(config), device, **plain, channels_last=False)
    if gpu:
        found["velfield, float32"] = Stepper(UNet(config), device, bfloat16=False)
    for name, net in peers(config).items():
        found[name] = Stepper(net, device, **plain)
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=32, help="along a box's side")
    parser.add_argument("--boxes", type=int, default=3, help="along the parent's side")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="counted in a turn")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--loader-workers", type=int, default=2)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--compile", action="store_true", help="also compiled: where there is a compiler")
    args = parser.parse_args()
    device = pick_device(args.device)
    gpu = device.type == "cuda"
    config = UNetConfig(in_channels=len(INPUTS), width=args.width, depth=args.depth)
    where = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}; {args.batch} boxes of {args.cells}³ cells a step, torch {torch.__version__}")
    if not gpu:
        print("no GPU: nothing is said of bfloat16 and of the matrix units")
    boxes = args.batch * args.steps
    with tempfile.TemporaryDirectory() as folder:
        write_store(f"{folder}/fields", args.cells, args.boxes)
        ways = loaders(f"{folder}/fields", args, device)
        settle = SETTLE * args.loader_workers
        iterators = {name: iter(batches) for name, batches in ways.items()}
        step = Stepper(UNet(config), device, bfloat16=gpu)
        waits: dict[str, list[float]] = {name: [] for name in ways}
        turns = {n: turn(step, it, waits[n], settle=settle, steps=args.steps) for n, it in iterators.items()}
        seconds = race(turns, args.repeat)
        shares = {n: f" {sum(waits[n][1:]) / sum(took):.1%} |" for n, took in seconds.items()}
        table("loader", seconds, boxes, {"": " of the time, waits for boxes |"} | shares)
        batch = next(iterators["resident"])
        own = cpu_time(lambda: step(batch)) / args.batch
        read = reading(ways["resident"].data, ways["resident"].samples)
        print(f"\nCPU time a box: {own * 1e3:.0f} ms in the step, {read * 1e3:.1f} ms to read and turn it")
        if not gpu:
            print(f"streaming on cores that are all busy can reach {own / (own + read):.3f} of the resident rate")
        iterators.clear()
        del turns, ways
        steppers = networks(config, device, args.compile)
        flops = {}
        for name, stepper in list(steppers.items()):
            began = time.perf_counter()
            stepper(batch)
            if isinstance(stepper.forward, Compiled):
                print(f"\n{name}: {time.perf_counter() - began:.0f} s until the first step is done", *stepper.notes)
                flops[name] = flops[REFERENCE]  # the counter does not see into it
            else:
                flops[name] = flops_of(stepper, batch)
            if stepper.notes:
                del steppers[name]
        turns = {n: turn(stepper, always(batch), [], settle=1, steps=args.steps) for n, stepper in steppers.items()}
        seconds = race(turns, args.repeat)
        counts = {n: f" {parameters(s.net):,} | {flops[n] / args.batch / 1e9:.1f} |" for n, s in steppers.items()}
        table("network", seconds, boxes, {"": " parameters | 10⁹ operations a box |"} | counts)
        peak = matrix_peak(device, bfloat16=gpu)
        fastest = min(seconds[REFERENCE]) / args.steps
        reached = flops[REFERENCE] / fastest
        print(
            f"\n{reached / 1e9:.1f}·10⁹ operations a second; a matrix product of {'bfloat16' if gpu else 'float32'} "
            f"makes {peak / 1e9:.1f}·10⁹: {reached / peak:.0%} of the peak"
        )
        minutes = 100 * 800 / (args.batch / fastest) / 60
        print(
            f"100 epochs of 800 boxes of {args.cells}³ cells: {minutes:.0f} min; "
            f"the paper, with 60³ on its GPU: {PAPER:.0f} min"
        )


if __name__ == "__main__":
    main()
