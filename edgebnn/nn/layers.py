"""Layers of a binarized network that have no weights; each is an ordinary ``torch.nn.Module``.

Every layer offers ``config()``: the plain constructor arguments that a model file stores. Those
with weights are in :mod:`edgebnn.nn.weights`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgebnn.errors import EdgebnnError
from edgebnn.nn.functional import ACTIVATION_ESTIMATORS, BETA, sign

#: ``Sign(levels=...)``: how many thresholds, and how far apart they are unless one says so.
SPACINGS: Mapping[int, float] = {1: 0.0, 3: 0.6, 7: 0.3}


def positive(value: int, what: str) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{what} must be a positive integer, not {value!r}")
    return value


def known_estimator(value: str, known: Mapping[str, object]) -> str:
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
        self.shape = tuple(positive(n, "each size of the input shape") for n in shape)
        if type(bits) is not int or not 1 <= bits <= 8:
            raise ValueError(f"bits must be 1 to 8, not {bits!r}")
        self.bits = bits
        if type(zero_point) is not int or not 0 <= zero_point < 2**bits:
            whole = "; round it: a pixel of that value pads" if type(zero_point) is float else ""
            raise ValueError(f"zero_point must be 0 to {2**bits - 1}, not {zero_point!r}{whole}")
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

    With ``levels`` k it is the sum of the signs at k thresholds ``t[i]``, an odd integer:

        ``y = sum of sign(x + shift - t[i])`` with ``t[i] = spacing * (i - (k - 1) / 2)``, i < k

    which is -3, -1, 1 or 3 for three of them: activations of 2 bits. The field divides that by k;
    here the norm behind the next layer does, and gradients are the same.

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
        levels: 1, 3 or 7 thresholds; the gradient is the sum of those of each step.
        spacing: from one threshold to the next; None for 0.6 of three and 0.3 of seven.

    Eval mode is the comparison ``x + shift >= 0``, the sum rounded to float32, for any estimator.

    Shape: (N, C), (N, C, T) or (N, C, H, W), out as in.
    """

    beta: nn.Parameter | None
    shift: nn.Parameter | None

    def __init__(
        self,
        estimator: str = "ste",
        beta: float = BETA,
        num_features: int | None = None,
        levels: int = 1,
        spacing: float | None = None,
    ) -> None:
        super().__init__()
        self.estimator = known_estimator(estimator, ACTIVATION_ESTIMATORS)
        if type(beta) not in (int, float) or not (beta > 0.0 and math.isfinite(beta)):
            raise ValueError(f"beta must be a finite number above 0, not {beta!r}")
        self.initial_beta = float(beta)
        trained = estimator == "swish_trained"
        self.beta = nn.Parameter(torch.tensor(self.initial_beta)) if trained else None
        if num_features is not None:
            positive(num_features, "num_features")
        self.num_features = num_features
        self.shift = None if num_features is None else nn.Parameter(torch.zeros(num_features))
        if type(levels) is not int or levels not in SPACINGS:
            raise ValueError(f"levels must be 1, 3 or 7, not {levels!r}")
        self.levels = levels
        if spacing is None:
            spacing = SPACINGS[levels]
        if type(spacing) not in (int, float) or not 0.0 <= spacing < 1e6:
            raise ValueError(f"spacing must be a number from 0 to 1e6, not {spacing!r}")
        if (spacing > 0.0) != (levels > 1):
            raise ValueError(f"spacing is {spacing!r} with {levels} threshold(s); give levels=3")
        self.spacing = float(spacing)

    def config(self) -> dict[str, Any]:
        config = {
            "estimator": self.estimator,
            "beta": self.initial_beta,
            "num_features": self.num_features,
        }
        # Files with plain signs are what they were before there were levels.
        return config | (
            {"levels": self.levels, "spacing": self.spacing} if self.levels > 1 else {}
        )

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds, rising, each a float32 so that every device compares with the same."""
        middle = (self.levels - 1) / 2
        exact = (self.spacing * (i - middle) for i in range(self.levels))
        return tuple(float(np.float32(threshold)) for threshold in exact)

    def shifted(self, x: Tensor) -> Tensor:
        """``x + shift``."""
        if self.shift is None:
            return x
        return x + self.shift.reshape(1, -1, *([1] * (x.dim() - 2)))

    def differences(self, x: Tensor) -> tuple[Tensor, ...]:
        """``x + shift - t`` for each threshold t, of which :meth:`forward` adds up the signs.

        A difference of floats is at least 0 exactly where the first is not below the second.
        """
        x = self.shifted(x)
        return tuple(x - t if t else x for t in self.thresholds)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (self._sign(z) for z in self.differences(x))
        for other in others:
            first = first + other
        return first

    def _sign(self, x: Tensor) -> Tensor:
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
        if self.levels > 1:
            parts.append(f"levels={self.levels}, spacing={self.spacing}")
        return ", ".join(parts)


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
