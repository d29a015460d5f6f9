import threading

import pytest
import torch

from velfield.errors import VelfieldError
from velfield.network.parent_norm import observed
from velfield.network.unet import Block, UNet, UNetConfig

SMALL = {"in_channels": 2, "width": 4, "groups": 2, "depth": 2}


def conv(channels_in: int, channels: int) -> int:
    return 27 * channels_in * channels


def test_parameters_as_counted_by_hand():
    # width 8, depth 3, 2 channels in: four blocks down, three up, one output
    down = [(2, 8), (8, 16), (16, 32), (32, 64)]
    blocks = [*down, (64 + 32, 32), (32 + 16, 16), (16 + 8, 8)]
    expected = 8 * 3 + 3
    for before, after in blocks:
        expected += conv(before, after) + conv(after, after)
        expected += 2 * 2 * after  # two norms: scale and shift
        expected += 2 * after  # two PReLU
        expected += before * after + after  # the 1³ skip
    assert UNet(UNetConfig(in_channels=2)).parameters_count == expected == 373_035


def test_plain_blocks_have_no_skip():
    config = UNetConfig(in_channels=2, conv_add=False)
    assert Block(16, 32, config).skip is None
    assert UNet(config).parameters_count < UNet(UNetConfig(in_channels=2)).parameters_count


def test_conv_add_block_adds_its_input():
    # with the second normalisation's scale and shift at zero only the added input is left, through the last PReLU
    config = UNetConfig(**SMALL)
    block = Block(4, 4, config)
    torch.nn.init.zeros_(block.norm2.weight)
    torch.nn.init.zeros_(block.norm2.bias)
    x = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(block(x), block.act2(x))


@pytest.mark.parametrize("upsample", ["nearest", "trilinear"])
@pytest.mark.parametrize("padding", ["zeros", "replicate", "circular"])
@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 9, 10)])
def test_any_size_works(shape, padding, upsample):
    net = UNet(UNetConfig(**SMALL, padding=padding, upsample=upsample))
    out = net(torch.randn(2, 2, *shape))
    assert out.shape == (2, 3, *shape)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize(("depth", "reach"), [(1, 8), (2, 20), (3, 44)])
def test_reach_is_as_documented(depth, reach):
    # positive weights, no shifts, and batch norm in eval mode, which couples nothing: a lone 1 is seen within the reach
    net = UNet(UNetConfig(in_channels=1, width=2, groups=1, depth=depth, norm="batch")).double().eval()
    for name, parameter in net.named_parameters():
        torch.nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 0.5)
    size, cell = 128, 64
    lone = torch.eye(size, dtype=torch.float64)[:, None, :, None, None].expand(-1, 1, -1, 2**depth, 2**depth)
    with torch.inference_mode():
        seen = torch.nonzero(net(lone)[:, 0, cell, 0, 0])
    low, high = cell - int(seen.min()), int(seen.max()) - cell
    assert reach <= min(low, high)
    assert max(low, high) < reach + 2**depth  # the cell's place within a pooled cell of 2ᵈ


def test_circular_padding_is_periodic():
    # a shift by whole pooled cells around the torus shifts the output
    net = UNet(UNetConfig(**SMALL, padding="circular")).double()
    x = torch.randn(1, 2, 16, 16, 16, dtype=torch.float64)
    shifted = net(torch.roll(x, (4, -8, 4), dims=(2, 3, 4)))
    expected = torch.roll(net(x), (4, -8, 4), dims=(2, 3, 4))
    torch.testing.assert_close(shifted, expected, rtol=0, atol=1e-12)  # rounding of sums in another order, float64
    zeros = UNet(UNetConfig(**SMALL)).double()
    assert not torch.allclose(zeros(torch.roll(x, 4, dims=2)), torch.roll(zeros(x), 4, dims=2), atol=1e-3)


def test_group_norm_does_not_mix_boxes_and_batch_norm_does():
    x = torch.randn(3, 2, 8, 8, 8)
    for norm, alone in (("group", True), ("batch", False)):
        net = UNet(UNetConfig(**SMALL, norm=norm))
        same = torch.allclose(net(x)[:1], net(x[:1]), atol=1e-5)  # float32 sums in another order: 1e-7 · channels
        assert same is alone


def test_dropout_only_while_training():
    x = torch.randn(1, 2, 8, 8, 8)
    net = UNet(UNetConfig(**SMALL, dropout=0.5))
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))
    undropped = UNet(UNetConfig(**SMALL))
    assert torch.equal(undropped(x), undropped(x))


def test_gradients_reach_every_parameter():
    net = UNet(UNetConfig(**SMALL | {"depth": 3}))
    net(torch.randn(1, 2, 16, 16, 16)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_linear_output_is_unbounded():
    net = UNet(UNetConfig(**SMALL))
    with torch.no_grad():
        net.out.bias.copy_(torch.tensor([50.0, -50.0, 0.0]))
    mean = net(torch.randn(1, 2, 8, 8, 8)).mean(dim=(0, 2, 3, 4))
    assert mean[0] > 40
    assert mean[1] < -40


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("conv_add", [True, False])
def test_config_goes_through_a_dict(norm, conv_add):
    config = UNetConfig(in_channels=1, norm=norm, conv_add=conv_add, dropout=0.2)
    assert UNetConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"norm": "layer"}, "unknown norm of the U-Net: norm='layer'; choose group, batch"),
        ({"upsample": "deconv"}, "unknown upsample of the U-Net: upsample='deconv'"),
        ({"padding": "mirror"}, "unknown padding of the U-Net: padding='mirror'"),
        ({"width": 10}, "groups do not divide the width: width=10, groups=4"),
        ({"width": 0}, "no such U-Net: in_channels=2, out_channels=3, width=0"),
        ({"depth": -1}, "depth=-1"),
        ({"dropout": 1.0}, "no such dropout: dropout=1.0"),
    ],
)
def test_refuses(wrong, text):
    with pytest.raises(VelfieldError) as error:
        UNetConfig(in_channels=2, **wrong)
    assert text in str(error.value)


def test_statistics_are_those_of_the_thread_that_asks():
    net = UNet(UNetConfig(in_channels=2, width=4, depth=1, groups=2, norm="group")).eval()
    x = torch.randn(1, 2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        with observed(net) as alone:
            net(x)
        with observed(net) as beside:
            net(x)
            other = threading.Thread(target=net, args=(3 * x + 1,))  # a second task of the same worker
            other.start()
            other.join()
    assert beside[0].to_dict() == alone[0].to_dict()
