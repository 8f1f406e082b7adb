"""Layers of a binarized network; each is an ordinary ``torch.nn.Module``.

Every layer offers ``config()``: the plain constructor arguments that a model file stores.
Latent weights are the real-valued parameters that the optimizer moves; the network only ever
multiplies by their signs.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebnn.errors import EdgebnnError
from edgebnn.nn.functional import (
    ACTIVATION_ESTIMATORS,
    BETA,
    WEIGHT_ESTIMATORS,
    binarize_weight,
    sign,
    sign_bit,
)

Pair = int | tuple[int] | tuple[int, int]
Padding = int | tuple[int, int] | tuple[int, int, int, int] | Literal["same"]
Padding1d = int | tuple[int, int] | Literal["same", "causal"]


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


def _positive(value: int, what: str) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{what} must be a positive integer, not {value!r}")
    return value


def _estimator(value: str, known: Mapping[str, object]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"estimator must be one of {', '.join(known)}; not {value!r}")
    return value


class Input(nn.Module):
    """The network's input: integers of ``bits`` bits, 0 to 2**bits - 1.

    Scaling, mean and deviation belong to the first norm, so that the device works on raw pixels.
    Other values raise an EdgebnnError, in eval mode always, in training on the first batch: what a
    network has learned from them is nothing that a device could compute.

    Args:
        shape: (channels, height, width), (channels, samples) for a signal, or (features,) for a
            flat input.
        bits: 1 to 8.
        zero_point: the integer that stands for 0: the layers see ``x - zero_point``, and padding
            is that pixel. 128 is for signed 8-bit values, which are inputs as ``value + 128``;
            the mean pixel is for padding as it is after normalization.

    Shape: (N, \\*shape) of any real dtype in, float32 less zero_point out. Signals may also be
    images of width 1, (N, C, T, 1), as data sets hold them.
    """

    _checked = False  # whether there has been a training batch

    def __init__(self, shape: tuple[int, ...], bits: int = 8, zero_point: int = 0) -> None:
        super().__init__()
        shape = tuple(shape)
        if len(shape) not in (1, 2, 3):
            raise ValueError(f"shape must be (C, H, W), (C, T) or (features,), not {shape!r}")
        self.shape = tuple(_positive(n, "each size of the input shape") for n in shape)
        if type(bits) is not int or not 1 <= bits <= 8:
            raise ValueError(f"bits must be 1 to 8, not {bits!r}")
        self.bits = bits
        if type(zero_point) is not int or not 0 <= zero_point < 2**bits:
            raise ValueError(f"zero_point must be 0 to {2**bits - 1}, not {zero_point!r}")
        self.zero_point = zero_point

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "bits": self.bits, "zero_point": self.zero_point}

    def forward(self, x: Tensor) -> Tensor:
        if len(self.shape) == 2 and tuple(x.shape[1:]) == (*self.shape, 1):
            x = x.squeeze(3)
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"input is {tuple(x.shape[1:])}, the network takes {self.shape}")
        if not (self.training and self._checked):
            self._check(x)
            self._checked = self._checked or self.training
        x = x.to(torch.float32)
        return x - self.zero_point if self.zero_point else x

    def _check(self, x: Tensor) -> None:
        """Check that ``x`` holds integers from 0 to ``2**bits - 1``."""
        top = 2**self.bits - 1
        if x.is_meta or x.numel() == 0 or (x.dtype == torch.uint8 and self.bits == 8):
            return
        if not x.is_complex() and _whole(x) and bool(((x >= 0) & (x <= top)).all()):
            return
        raise EdgebnnError(f"Input takes integers from 0 to {top}, not {_described(x, top)}")

    def extra_repr(self) -> str:
        zero = f", zero_point={self.zero_point}" if self.zero_point else ""
        return f"{self.shape}, bits={self.bits}{zero}"


def _whole(x: Tensor) -> bool:
    return not x.is_floating_point() or bool((x == x.trunc()).all())


def _described(x: Tensor, top: int) -> str:
    """What an input of the wrong kind looks like, and what to do about it."""
    if x.is_complex():
        return f"{x.dtype}; give its integers"
    x = x.detach().double()
    if not bool(torch.isfinite(x).all()):
        return "NaN or infinity; look at how the data are read"
    low, high = float(x.min()), float(x.max())
    whole = _whole(x)
    found = f"{'integers' if whole else 'fractions'} from {low:.4g} to {high:.4g}"
    if whole and low >= 0 and high < 256:
        return f"{found}; shift 8-bit values right by {8 - (top + 1).bit_length() + 1}"
    if low >= 0 and high <= 1:
        return f"{found}; give 0 to {top}: multiply by {top} and round"
    if low < 0:
        return f"{found}; give what comes before mean and deviation, which the first norm learns"
    return f"{found}; round or scale them to that range"


class Sign(nn.Module):
    """Binary activation: +1 where x >= 0, else -1; with ``num_features``, where x + shift >= 0.

    Args:
        estimator: of the gradient g, in training (see :mod:`edgebnn.nn.functional`):
            "ste": ``g * 1{|x| <= 1}``;
            "stochastic": the same, but training draws +1 with probability clip((x + 1) / 2, 0, 1);
            "swish": the derivative of SwishSign, whose steepness is ``beta``;
            "swish_trained": the same with ``beta`` as a trained parameter;
            "polynomial": ``g * max(0, 2 - 2 * |x|)``.
        beta: steepness of SwishSign, its first value where it is trained.
        num_features: C, to learn a ``shift`` (C,) of each channel: RSign (ReActNet, arXiv
            2003.03488, section 4.2), whose alpha is -shift. None for none. The device pays nothing
            for it: it is folded into the thresholds.

    Eval mode is the comparison ``x + shift >= 0``, the sum rounded to float32, for any estimator.

    Shape: (N, C), (N, C, T) or (N, C, H, W), out as in.
    """

    beta: nn.Parameter | None
    shift: nn.Parameter | None

    def __init__(
        self, estimator: str = "ste", beta: float = BETA, num_features: int | None = None
    ) -> None:
        super().__init__()
        self.estimator = _estimator(estimator, ACTIVATION_ESTIMATORS)
        if type(beta) not in (int, float) or not (beta > 0.0 and math.isfinite(beta)):
            raise ValueError(f"beta must be a finite number above 0, not {beta!r}")
        self.initial_beta = float(beta)
        trained = estimator == "swish_trained"
        self.beta = nn.Parameter(torch.tensor(self.initial_beta)) if trained else None
        if num_features is not None:
            _positive(num_features, "num_features")
        self.num_features = num_features
        self.shift = None if num_features is None else nn.Parameter(torch.zeros(num_features))

    def config(self) -> dict[str, Any]:
        return {
            "estimator": self.estimator,
            "beta": self.initial_beta,
            "num_features": self.num_features,
        }

    def shifted(self, x: Tensor) -> Tensor:
        """``x + shift``, of which :meth:`forward` takes the sign."""
        if self.shift is None:
            return x
        return x + self.shift.reshape(1, -1, *([1] * (x.dim() - 2)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.shifted(x)
        if self.estimator == "stochastic" and not self.training:
            return sign(x)
        beta = self.initial_beta if self.beta is None else self.beta
        return ACTIVATION_ESTIMATORS[self.estimator](x, beta)

    def extra_repr(self) -> str:
        parts = [] if self.estimator == "ste" else [f"estimator={self.estimator!r}"]
        if self.estimator.startswith("swish"):
            parts.append(f"beta={self.initial_beta}")
        if self.num_features is not None:
            parts.append(f"num_features={self.num_features}")
        return ", ".join(parts)


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
        self.estimator = _estimator(estimator, WEIGHT_ESTIMATORS)
        self.in_features = _positive(in_features, "in_features")
        self.out_features = _positive(out_features, "out_features")
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
        with _exact_sums(x):
            y = F.linear(x.to(weight.dtype), weight)
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
        self.estimator = _estimator(estimator, WEIGHT_ESTIMATORS)
        self.in_channels = _positive(in_channels, "in_channels")
        self.out_channels = _positive(out_channels, "out_channels")
        self.kernel_size = _sizes(kernel_size, "kernel_size", self.axes)
        self.stride = _sizes(stride, "stride", self.axes)
        self.padding = self._checked_padding(padding)
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
        with _exact_sums(x):
            # Every sum is an integer; rounding keeps it one where a GPU computes by Winograd.
            y = self.convolved(x.to(weight.dtype), weight).round()
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
            exact as the others; -1 and +1 cost the device less at the border.
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


class Add(nn.Module):
    """x + y, of integers: the sums of convolutions or BinaryLinear, or of an addition.

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


@contextmanager
def _exact_sums(x: Tensor) -> Iterator[None]:
    """Sums of integers below 2**24 come out as they are.

    Autocast has 8 bits for them. NNPACK, which torch takes for convolutions where it has no
    oneDNN, computes by Winograd; with many channels of 8 bits that is wrong by more than 1/2.
    """
    kind = x.device.type
    known = torch.amp.is_autocast_available(kind)
    with (
        torch.autocast(kind, enabled=False) if known else nullcontext(),
        torch.backends.nnpack.flags(enabled=False),
    ):
        yield


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
