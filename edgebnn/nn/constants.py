"""Multiplication by a constant and addition of one, as layers."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class _Constant(nn.Module):
    """A number, or a parameter that is one value or one a channel, and what becomes of x with it.

    Args:
        value: a finite number; None for a parameter, whose first value changes nothing.
        shape: of the parameter, as torch broadcasts it: () for one value, (C,) for channels of
            (N, C), (C, 1) for those of (N, C, T), (C, 1, 1) for those of (N, C, H, W).
    """

    neutral = 0.0
    value: nn.Parameter | None

    def __init__(self, value: float | None = None, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        if any(type(n) is not int or n < 1 for n in shape):
            raise ValueError(f"each size of the shape must be a positive integer, not {shape!r}")
        self.shape = tuple(shape)
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise ValueError(f"value must be a finite number, not {value!r}")
        if value is not None and (self.shape or float(value) != value):
            raise ValueError(f"value {value!r} must be one that a float holds, without a shape")
        if sum(n > 1 for n in self.shape) > 1:
            raise ValueError(f"a constant of shape {self.shape} differs from pixel to pixel")
        self.number = None if value is None else float(value)
        self.value = nn.Parameter(torch.full(self.shape, self.neutral)) if value is None else None

    def config(self) -> dict[str, Any]:
        return {"value": self.number, "shape": list(self.shape)}

    def constant(self) -> Tensor | float:
        """What :meth:`forward` computes with."""
        if self.value is not None:
            return self.value
        assert self.number is not None
        return self.number

    def check(self, x: Tensor) -> None:
        """Check that there is one value, or one a channel of ``x``.

        Raises:
            ValueError: there is not; says which shape would do.
        """
        channels = max(self.shape, default=1)
        axis = x.dim() - len(self.shape) + (self.shape.index(channels) if self.shape else 0)
        if len(self.shape) > x.dim() or (channels > 1 and (axis, channels) != (1, x.shape[1])):
            wanted = (x.shape[1], *[1] * (x.dim() - 2))
            raise ValueError(f"its constant is {self.shape}; one a channel is {tuple(wanted)}")

    def extra_repr(self) -> str:
        return f"shape={self.shape}" if self.number is None else f"{self.number}"


class Scale(_Constant):
    """x * value, rounded to float32: a number, or a parameter.

    Before a Sign, with whatever else rises or falls between them, it is folded into the thresholds;
    a negative value turns them round. Writing ``x * 0.5`` or ``x * self.factor`` in a forward of
    one's own is the same.

    Shape: out as in.
    """

    neutral = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.constant()


class Bias(_Constant):
    """x + value, rounded to float32: a number, or a parameter; folded as :class:`Scale` is.

    Shape: out as in.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x + self.constant()
