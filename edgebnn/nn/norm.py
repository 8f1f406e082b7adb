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

SCORE_LIMIT = 2**31 - 1


class BatchNorm(nn.Module):
    """Batch norm over the channels of (N, C) or (N, C, H, W) inputs.

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
        mean, var = self.running_mean.double(), self.running_var.double()
        scale = self.weight.detach().double() / torch.sqrt(var + self.eps)
        shift = self.bias.detach().double() - mean * scale
        return scale.float(), shift.float()

    def _train(self, x: Tensor) -> Tensor:
        self.num_batches_tracked += 1
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / float(self.num_batches_tracked)
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
        mean = self.running_mean.double().cpu()
        var = self.running_var.double().cpu()
        scale = self.weight.detach().double().cpu() / torch.sqrt(var + self.eps)
        shift = self.bias.detach().double().cpu() - mean * scale
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
