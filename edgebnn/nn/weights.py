"""Layers with weights, which are the signs of latent ones: the sums of a binarized network.

Latent weights are the real-valued parameters that the optimizer moves; the network only ever
multiplies by their signs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebnn.nn.functional import WEIGHT_ESTIMATORS, binarize_weight, sign_bit
from edgebnn.nn.layers import SPACINGS, known_estimator, positive

Pair = int | tuple[int] | tuple[int, int]
Padding = int | tuple[int, int] | tuple[int, int, int, int] | Literal["same"]
Padding1d = int | tuple[int, int] | Literal["same", "causal"]

#: What may stand outside an image: 0, or the least or the largest value of a Sign.
PAD_VALUES = (0, *(value for levels in SPACINGS for value in (-levels, levels)))


def _sizes(value: Any, what: str, axes: int) -> tuple[int, ...]:
    sizes = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(sizes) != axes or any(type(v) is not int or v < 1 for v in sizes):
        number = "a number" if axes == 1 else "one or two integers"
        raise ValueError(f"{what} must be {number} of at least 1, not {value!r}")
    return sizes


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What comes before and behind an axis, so that there are size / stride windows, rounded up."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _bias(bias: bool, outputs: int) -> nn.Parameter | None:
    if type(bias) is not bool:
        raise ValueError(f"bias must be True or False, not {bias!r}")
    return nn.Parameter(torch.zeros(outputs)) if bias else None


class BinaryLinear(nn.Module):
    """Linear layer with weights sign(latent) in {-1, +1}.

    Args:
        bias: add a trained number to each output; a norm that follows has one of its own.
        estimator: of the gradient in the latent weights, from that of the signs, g, in training
            (see :mod:`edgebnn.nn.functional`): "identity": g;
            "stochastic": g, but training draws +1 with probability clip((w + 1) / 2, 0, 1);
            "magnitude": g times the mean of |w| over the output's weights;
            "swish": g times the derivative of SwishSign with beta 5.

    Shape: (N, in_features) in, (N, out_features) out. Sums are integers, held exactly by float32
    while they stay below 2**24 (lowering checks that they do); a bias is added to them, rounded.
    """

    real_weights = False  # see use_real_weights

    def __init__(
        self, in_features: int, out_features: int, estimator: str = "identity", bias: bool = False
    ) -> None:
        super().__init__()
        self.estimator = known_estimator(estimator, WEIGHT_ESTIMATORS)
        self.in_features = positive(in_features, "in_features")
        self.out_features = positive(out_features, "out_features")
        self.latent_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = _bias(bias, out_features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if not self.latent_weight.is_meta:
            nn.init.xavier_uniform_(self.latent_weight)

    def config(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "estimator": self.estimator,
            "bias": self.bias is not None,
        }

    def forward(self, x: Tensor) -> Tensor:
        weight = _binary_weight(self)
        if self.training:
            return F.linear(x, weight, self.bias)
        with _exact_sums(x) as dtype:
            y = F.linear(x.to(dtype), weight.to(dtype)).to(weight.dtype)
            return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}{_options_repr(self)}"


class BinaryConv(nn.Module):
    """What convolutions have in common; BinaryConv1d and BinaryConv2d say what it is.

    ``kernel_size`` and ``stride`` are one number an axis, ``padding`` is checked by the class.
    """

    axes: int  # of an input, behind its channels
    real_weights = False  # see use_real_weights

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair,
        padding: Any,
        pad_value: int,
        groups: int,
        estimator: str,
        bias: bool,
    ) -> None:
        super().__init__()
        self.estimator = known_estimator(estimator, WEIGHT_ESTIMATORS)
        self.in_channels = positive(in_channels, "in_channels")
        self.out_channels = positive(out_channels, "out_channels")
        self.kernel_size = _sizes(kernel_size, "kernel_size", self.axes)
        self.stride = _sizes(stride, "stride", self.axes)
        self.padding = self._checked_padding(padding)
        if pad_value not in PAD_VALUES:
            raise ValueError(
                f"pad_value must be -1, 0 or 1, or -3, 3, -7 or 7 behind a Sign of as many levels, "
                f"not {pad_value!r}"
            )
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
        self.bias = _bias(bias, out_channels)
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
            "padding": self.padding if isinstance(self.padding, str) else list(self.padding),
            "pad_value": self.pad_value,
            "groups": self.groups,
            "estimator": self.estimator,
            "bias": self.bias is not None,
        }

    def _checked_padding(self, value: Any) -> tuple[int, ...] | str:
        raise NotImplementedError

    def sides(self, *sizes: int) -> tuple[int, ...]:
        """The padding before and behind each axis, in turn, of an input of those sizes."""
        raise NotImplementedError

    def padded(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """``x`` with the padding that torch cannot do by itself, and what it still has to do."""
        sides = self.sides(*x.shape[-self.axes :])
        before, behind = sides[::2], sides[1::2]
        if not self.pad_value and before == behind:
            return x, before
        if any(sides):
            x = F.pad(x, (*sides[-2:], *sides[:-2]), value=float(self.pad_value))
        return x, (0,) * self.axes

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution of ``x``, padded, with ``weight``."""
        convolve: Callable[..., Tensor] = F.conv1d if self.axes == 1 else F.conv2d
        x, padding = self.padded(x)
        return convolve(x, weight, bias, self.stride, padding, groups=self.groups)

    def forward(self, x: Tensor) -> Tensor:
        weight = _binary_weight(self)
        if self.training:
            return self.convolved(x, weight, self.bias)
        with _exact_sums(x) as dtype:
            # Every sum is an integer; rounding keeps it one where a GPU computes by Winograd.
            y = self.convolved(x.to(dtype), weight.to(dtype)).round().to(weight.dtype)
            return y if self.bias is None else y + self.bias.reshape(-1, *[1] * self.axes)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding!r}, pad_value={self.pad_value}, "
            f"groups={self.groups}{_options_repr(self)}"
        )


class BinaryConv1d(BinaryConv):
    """1-D convolution with weights sign(latent) in {-1, +1}, over the samples of a signal.

    Args:
        kernel_size, stride: one number.
        padding: one number, (left, right), "same" as in BinaryConv2d, or "causal": all of it, one
            less than the kernel's size, on the left, so that no output sees later samples.
        pad_value, groups, estimator, bias: as in BinaryConv2d.

    Shape: (N, in_channels, T) in, (N, out_channels, T') out; integers, as in BinaryLinear.
    """

    axes = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: Padding1d = 0,
        pad_value: int = 0,
        groups: int = 1,
        estimator: str = "identity",
        bias: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            pad_value,
            groups,
            estimator,
            bias,
        )

    def _checked_padding(self, value: Any) -> tuple[int, ...] | str:
        if value in ("same", "causal"):
            return str(value)
        sides = (value, value) if isinstance(value, int) else tuple(value)
        if len(sides) != 2 or any(type(v) is not int or v < 0 for v in sides):
            raise ValueError(
                f"padding must be one or two integers (left, right) of at least 0, 'same' or "
                f"'causal', not {value!r}"
            )
        return sides

    def sides(self, *sizes: int) -> tuple[int, ...]:
        """The padding (left, right) of a signal of that many samples."""
        (samples,) = sizes
        padding = self._checked_padding(self.padding)
        if padding == "causal":
            return self.kernel_size[0] - 1, 0
        if isinstance(padding, str):
            return _same(samples, self.kernel_size[0], self.stride[0])
        return padding


class BinaryConv2d(BinaryConv):
    """2-D convolution with weights sign(latent) in {-1, +1}.

    Args:
        kernel_size, stride: one number or (vertical, horizontal).
        padding: one number, (vertical, horizontal), (top, bottom, left, right), or "same": as in
            Keras, the output is the input's size divided by the stride, rounded up, and where the
            padding of an axis is odd there is one more at the bottom or the right.
        pad_value: what stands outside the image. 0 is a third value, neither +1 nor -1, and as
            exact as the others; -1 and +1 cost the device less at the border. Behind a Sign of k
            levels it is 0, -k or k.
        groups: 1, or ``in_channels`` for a depthwise convolution (then out_channels must be
            in_channels too).
        estimator, bias: as in BinaryLinear.

    Shape: (N, in_channels, H, W) in, (N, out_channels, H', W') out; integers, as in BinaryLinear.
    """

    axes = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        pad_value: int = 0,
        groups: int = 1,
        estimator: str = "identity",
        bias: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            pad_value,
            groups,
            estimator,
            bias,
        )

    def _checked_padding(self, value: Any) -> tuple[int, ...] | str:
        """(vertical, horizontal) where that says it all, else all four sides, or "same"."""
        if value == "same":
            return "same"
        sides: tuple[int, ...] = (value, value) if isinstance(value, int) else tuple(value)
        if len(sides) not in (2, 4) or any(type(v) is not int or v < 0 for v in sides):
            raise ValueError(
                f"padding must be one, two (vertical, horizontal) or four integers (top, bottom, "
                f"left, right) of at least 0 or 'same', not {value!r}"
            )
        if len(sides) == 4 and sides[::2] == sides[1::2]:
            return sides[::2]
        return sides

    def sides(self, *sizes: int) -> tuple[int, ...]:
        """The padding (top, bottom, left, right) of an image of that height and width."""
        height, width = sizes
        padding = self._checked_padding(self.padding)
        if isinstance(padding, str):
            vertical = _same(height, self.kernel_size[0], self.stride[0])
            return (*vertical, *_same(width, self.kernel_size[1], self.stride[1]))
        rows, columns = padding[: len(padding) // 2], padding[len(padding) // 2 :]
        return rows[0], rows[-1], columns[0], columns[-1]


@contextmanager
def _exact_sums(x: Tensor) -> Iterator[torch.dtype]:
    """Sums of integers below 2**24 come out as they are, in the type that it gives.

    Autocast has 8 bits for them, and TF32, which a user may allow, 11 for what goes in. NNPACK,
    which torch takes for convolutions where it has no oneDNN, and cuDNN compute by Winograd; with
    many channels of 8 bits that is wrong by more than 1/2 in float32. So NNPACK is left, and on an
    NVIDIA GPU it is float64, which has no TF32 and bits to spare.
    """
    kind = x.device.type
    known = torch.amp.is_autocast_available(kind)
    with (
        torch.autocast(kind, enabled=False) if known else nullcontext(),
        torch.backends.nnpack.flags(enabled=False),
    ):
        yield torch.float64 if x.is_cuda else torch.float32


def _binary_weight(layer: BinaryLinear | BinaryConv) -> Tensor:
    """The weights that the layer multiplies by, with the gradient of its estimator."""
    if layer.real_weights and layer.training:
        return layer.latent_weight
    if layer.estimator == "stochastic" and not layer.training:
        return binarize_weight(layer.latent_weight)
    return WEIGHT_ESTIMATORS[layer.estimator](layer.latent_weight)


def use_real_weights(model: nn.Module, real: bool) -> None:
    """Have ``model``'s binary layers multiply by latent weights in training, or by signs again.

    The first of two stages of training; eval mode takes the signs all the time, and model files do
    not know of it. Source: AdamBNN, Liu et al., arXiv 2106.11309, section 4.
    """
    for module in model.modules():
        if isinstance(module, BinaryLinear | BinaryConv):
            module.real_weights = real


def _options_repr(layer: BinaryLinear | BinaryConv) -> str:
    estimator = "" if layer.estimator == "identity" else f", estimator={layer.estimator!r}"
    return estimator if layer.bias is None else f"{estimator}, bias=True"


def weight_signs(layer: BinaryLinear | BinaryConv) -> Tensor:
    """The layer's weights as it multiplies by them: +1.0 or -1.0, detached, on the CPU."""
    return sign_bit(layer.latent_weight.detach().cpu())
