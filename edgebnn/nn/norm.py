"""Batch norms whose eval mode is one explicit function, so that lowering can evaluate it exactly.

torch's fused batch norm may differ by an ulp between memory layouts, devices and compiled graphs,
and an ulp flips a sign at a tie. Training uses the fused kernel; eval mode does not.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebnn.errors import EdgebnnError
from edgebnn.nn.functional import ap2

SCORE_LIMIT = 2**31 - 1


class BatchNorm(nn.Module):
    """Batch norm over the channels of (N, C), (N, C, T) or (N, C, H, W) inputs.

    Eval mode is ``x * scale + shift`` in float32: a multiplication, rounded, then an addition,
    rounded. Both are monotone in x, so a sign after it is a threshold on x.

    Args:
        num_features: C.
        eps: added to the variance; 1e-4 as in the paper's code.
        momentum: weight of the newest batch in the running statistics; None for their plain
            average.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-4, momentum: float | None = 0.1) -> None:
        super().__init__()
        if type(num_features) is not int or num_features < 1:
            raise ValueError(f"num_features must be a positive integer, not {num_features!r}")
        if not 0.0 < eps < 1.0:
            raise ValueError(f"eps must be between 0 and 1, not {eps!r}")
        if momentum is not None and not 0.0 < momentum <= 1.0:
            raise ValueError(f"momentum must be None or from 0 to 1, not {momentum!r}")
        self.num_features = num_features
        self.eps = float(eps)
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def config(self) -> dict[str, Any]:
        return {"num_features": self.num_features, "eps": self.eps, "momentum": self.momentum}

    def affine(self) -> tuple[Tensor, Tensor]:
        """``scale`` and ``shift`` of eval mode, each (C,) float32, detached.

        Computed in float64 and rounded once, so that every device gets the same numbers.
        """
        scale = self._scale()
        return scale.float(), self._shift(scale).float()

    def _scale(self) -> Tensor:
        """The scale of eval mode in float64."""
        deviation = torch.sqrt(self.running_var.double() + self.eps)
        return self.weight.detach().double() / deviation

    def _shift(self, scale: Tensor) -> Tensor:
        """The shift that belongs to ``scale``, in float64."""
        return self.bias.detach().double() - self.running_mean.double() * scale

    def _next_momentum(self) -> float:
        """Counts a batch; its weight in the running statistics."""
        self.num_batches_tracked += 1
        if self.momentum is None:
            return 1.0 / float(self.num_batches_tracked)
        return self.momentum

    def _train(self, x: Tensor) -> Tensor:
        momentum = self._next_momentum()
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, True, momentum, self.eps
        )

    def _per_channel(self, values: Tensor, x: Tensor) -> Tensor:
        return values.reshape(1, -1, *([1] * (x.dim() - 2)))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self._train(x)
        scale, shift = self.affine()
        return x * self._per_channel(scale, x) + self._per_channel(shift, x)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class ShiftBatchNorm(BatchNorm):
    """Batch norm by powers of two, products with which are shifts.

    Training, with C = x - mean(x) and means over the batch:
    ``var = mean(C * AP2(C))``, ``x_hat = C * AP2(1 / sqrt(var + eps))`` and
    ``y = AP2(weight) * x_hat + bias``; gradients are those of these formulas with AP2's
    straight-through estimator. Eval mode is ``x * scale + shift`` as in BatchNorm, with
    ``scale = AP2(weight) * AP2(1 / sqrt(running_var + eps))``: a power of two, or 0.

    Args:
        num_features, eps, momentum: as in BatchNorm; the defaults are those of the paper's code.

    Source: arXiv 1602.02830, Algorithm 2; its text drops the bias, its code adds it. The running
    statistics are BatchNorm's, with ``var * n / (n - 1)`` for n values a channel.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.125
    ) -> None:
        super().__init__(num_features, eps, momentum)

    def _scale(self) -> Tensor:
        deviation = torch.sqrt(self.running_var.double() + self.eps)
        return ap2(self.weight.detach().double()) * ap2(1.0 / deviation)

    def _train(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # autocast may have made it less
        axes = [axis for axis in range(x.dim()) if axis != 1]
        count = x.numel() // self.num_features
        if count < 2:
            raise ValueError(f"training takes more than one value a channel, not {tuple(x.shape)}")
        mean = x.mean(axes)
        centred = x - self._per_channel(mean, x)
        var = (centred * ap2(centred)).mean(axes)
        with torch.no_grad():
            momentum = self._next_momentum()
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(var * (count / (count - 1)), momentum)
        factor = ap2(1.0 / torch.sqrt(var + self.eps))
        normal = centred * self._per_channel(factor, x)
        return self._per_channel(ap2(self.weight), x) * normal + self._per_channel(self.bias, x)


class OutputNorm(BatchNorm):
    """The norm that gives the scores; its eval mode *is* the fixed-point form on the device.

    ``score = factor * x + offset`` in 32-bit integers, one factor and offset a class, all sharing
    ``fraction_bits``. Eval mode evaluates exactly that and returns ``score / 2**fraction_bits`` in
    float64, which holds it exactly: the accuracy seen in evaluation is the accuracy on the chip.

    Args:
        num_features: classes.
        bound: largest magnitude of an input, the sum of the layer before. The fixed-point form
            uses the 32 bits in full up to it; lowering refuses a network that can go beyond.
    """

    def __init__(
        self,
        num_features: int,
        bound: int = 2**15,
        eps: float = 1e-4,
        momentum: float | None = 0.1,
    ) -> None:
        super().__init__(num_features, eps, momentum)
        if type(bound) is not int or not 1 <= bound < 2**24:
            raise ValueError(f"bound must be an integer from 1 to 2**24 - 1, not {bound!r}")
        self.bound = bound

    def config(self) -> dict[str, Any]:
        return {**super().config(), "bound": self.bound}

    def fixed_point(self) -> tuple[Tensor, Tensor, int]:
        """(factor, offset, fraction_bits): int64 (C,) twice and the binary point of the scores.

        ``|factor| * bound + |offset| <= 2**31 - 1`` holds for every class by construction.

        Raises:
            EdgebnnError: the scale is not finite, or beyond all use.
        """
        scale = self._scale()
        scale, shift = scale.cpu(), self._shift(scale).cpu()
        # Rounding may add 1/2 to the factor, once for each unit of the bound, and to the offset.
        room = SCORE_LIMIT - (self.bound + 1)
        largest = float((scale.abs() * self.bound + shift.abs()).max())
        if not largest < 2.0**90:
            raise EdgebnnError(f"its scores reach {largest:.1e}, too far to train or to run")
        fraction_bits = 0
        if largest > 0.0:
            # frexp: room / largest = m * 2**e with m in [1/2, 1), so 2**(e-1) is not above it.
            fraction_bits = min(math.frexp(room / largest)[1] - 1, 62)
        unit = 2.0**fraction_bits
        factor = torch.round(scale * unit).to(torch.int64)
        offset = torch.round(shift * unit).to(torch.int64)
        return factor, offset, fraction_bits

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self._train(x)
        factor, offset, fraction_bits = self.fixed_point()
        factor, offset = factor.to(x.device), offset.to(x.device)
        scores = x.to(torch.int64) * self._per_channel(factor, x) + self._per_channel(offset, x)
        return scores.double() * 2.0**-fraction_bits

    def extra_repr(self) -> str:
        return f"{self.num_features}, bound={self.bound}"


class ShiftOutputNorm(ShiftBatchNorm, OutputNorm):
    """The norm that gives the scores by shifts: every factor is a power of two, its negative or 0.

    Training is ShiftBatchNorm's, the fixed-point form OutputNorm's: ``score = factor * x + offset``
    with ``factor = scale * 2**fraction_bits``, which is exact where it is 1 or more; below that it
    is 0, as rounding half to even gives.

    Args:
        num_features, bound: as in OutputNorm.
        eps, momentum: as in ShiftBatchNorm.
    """

    def __init__(
        self,
        num_features: int,
        bound: int = 2**15,
        eps: float = 1e-5,
        momentum: float | None = 0.125,
    ) -> None:
        OutputNorm.__init__(self, num_features, bound, eps, momentum)
