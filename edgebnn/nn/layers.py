"""Layers of a binarized network; each is an ordinary ``torch.nn.Module``.

Every layer offers ``config()``: the plain constructor arguments that a model file stores.
Latent weights are the real-valued parameters that the optimizer moves; the network only ever
multiplies by their signs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebnn.nn.functional import binarize_weight, sign, sign_bit

Pair = int | tuple[int, int]


def _pair(value: Pair, what: str, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(type(v) is not int or v < least for v in pair):
        raise ValueError(f"{what} must be one or two integers of at least {least}, not {value!r}")
    return pair[0], pair[1]


def _positive(value: int, what: str) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{what} must be a positive integer, not {value!r}")
    return value


class Input(nn.Module):
    """The network's input: integers of ``bits`` bits, 0 to 2**bits - 1.

    Scaling, mean and deviation belong to the first norm, so that the device works on raw pixels.

    Args:
        shape: (channels, height, width), or (features,) for a flat input.
        bits: 1 to 8.

    Shape: (N, \\*shape) of any dtype in, the same in float32 out.
    """

    def __init__(self, shape: tuple[int, ...], bits: int = 8) -> None:
        super().__init__()
        shape = tuple(shape)
        if len(shape) not in (1, 3):
            raise ValueError(f"shape must be (C, H, W) or (features,), not {shape!r}")
        self.shape = tuple(_positive(n, "each size of the input shape") for n in shape)
        if type(bits) is not int or not 1 <= bits <= 8:
            raise ValueError(f"bits must be 1 to 8, not {bits!r}")
        self.bits = bits

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "bits": self.bits}

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"input is {tuple(x.shape[1:])}, the network takes {self.shape}")
        return x.to(torch.float32)

    def extra_repr(self) -> str:
        return f"{self.shape}, bits={self.bits}"


class Sign(nn.Module):
    """Binary activation: +1 where x >= 0, else -1, with the straight-through estimator."""

    def config(self) -> dict[str, Any]:
        return {}

    def forward(self, x: Tensor) -> Tensor:
        return sign(x)


class BinaryLinear(nn.Module):
    """Linear layer with weights sign(latent) in {-1, +1} and no bias (a norm follows it).

    Shape: (N, in_features) in, (N, out_features) out. Outputs are integers, held exactly by
    float32 while they stay below 2**24 (lowering checks that they do).
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = _positive(in_features, "in_features")
        self.out_features = _positive(out_features, "out_features")
        self.latent_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if not self.latent_weight.is_meta:
            nn.init.xavier_uniform_(self.latent_weight)

    def config(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "out_features": self.out_features}

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, binarize_weight(self.latent_weight))

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


class BinaryConv2d(nn.Module):
    """2-D convolution with weights sign(latent) in {-1, +1} and no bias.

    Args:
        kernel_size, stride, padding: one number or (vertical, horizontal).
        pad_value: what stands outside the image. 0 is a third value, neither +1 nor -1, and as
            exact as the others; -1 and +1 cost the device less at the border.
        groups: 1, or ``in_channels`` for a depthwise convolution (then out_channels must be
            in_channels too).

    Shape: (N, in_channels, H, W) in, (N, out_channels, H', W') out; integers, as in BinaryLinear.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        pad_value: int = 0,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.in_channels = _positive(in_channels, "in_channels")
        self.out_channels = _positive(out_channels, "out_channels")
        self.kernel_size = _pair(kernel_size, "kernel_size", 1)
        self.stride = _pair(stride, "stride", 1)
        self.padding = _pair(padding, "padding", 0)
        if pad_value not in (-1, 0, 1):
            raise ValueError(f"pad_value must be -1, 0 or 1, not {pad_value!r}")
        self.pad_value = int(pad_value)
        if groups != 1 and not groups == in_channels == out_channels:
            raise ValueError(
                f"groups must be 1 or, for a depthwise layer, in_channels = out_channels; "
                f"not {groups!r} with {in_channels} -> {out_channels} channels"
            )
        self.groups = int(groups)
        self.latent_weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, *self.kernel_size)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if not self.latent_weight.is_meta:
            nn.init.xavier_uniform_(self.latent_weight)

    def config(self) -> dict[str, Any]:
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "kernel_size": list(self.kernel_size),
            "stride": list(self.stride),
            "padding": list(self.padding),
            "pad_value": self.pad_value,
            "groups": self.groups,
        }

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.pad_value and any(padding):
            vertical, horizontal = padding
            x = F.pad(x, (horizontal, horizontal, vertical, vertical), value=float(self.pad_value))
            padding = (0, 0)
        weight = binarize_weight(self.latent_weight)
        y = F.conv2d(x, weight, None, self.stride, padding, groups=self.groups)
        # Every sum is an integer; rounding keeps it one where a backend computes by Winograd.
        return y if self.training else y.round()

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, pad_value={self.pad_value}, "
            f"groups={self.groups}"
        )


class Add(nn.Module):
    """x + y, of integers: the sums of BinaryConv2d or BinaryLinear, or of an addition.

    Norms and signs come after it, so that a shortcut carries integers and nothing is rounded.
    Writing ``x + y`` in a forward of one's own is the same.

    Shape: two of the same shape in, one out.
    """

    def config(self) -> dict[str, Any]:
        return {}

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Residual(nn.Sequential):
    """x + body(x), where ``body`` is the layers given, one after the other.

    x must be sums that no norm or sign has seen, and so must what the body ends in::

        bnn.BinaryConv2d(16, 32, 3, padding=1),
        bnn.Residual(bnn.BatchNorm(32), bnn.Sign(), bnn.BinaryConv2d(32, 32, 3, padding=1)),
        bnn.BatchNorm(32), bnn.Sign(),
    """

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self:
            y = layer(y)
        return x + y


def weight_signs(layer: BinaryLinear | BinaryConv2d) -> Tensor:
    """The layer's weights as it multiplies by them: +1.0 or -1.0, detached, on the CPU."""
    return sign_bit(layer.latent_weight.detach().cpu())
