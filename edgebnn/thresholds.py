"""Steps between integer sums and a sign, and the thresholds that they come to.

A step looks at one value at a time and rises or falls with it, rounding included, so with the sign
it is a threshold, found by bisection on the model's own float32 arithmetic: no formula, no rounding
of ours, no tolerance; negative and zero scales and exact ties come out as torch has them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgebnn.errors import EdgebnnError
from edgebnn.ir import BoolArray, Int32Array
from edgebnn.nn.constants import Bias, Scale
from edgebnn.nn.layers import Sign
from edgebnn.nn.norm import BatchNorm
from edgebnn.nn.weights import BinaryConv, BinaryLinear

#: What rises or falls with each value alone, rounding included; a slope has to be at least 0.
MONOTONE = (BatchNorm, Scale, Bias, nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.PReLU)


@dataclass(frozen=True, slots=True)
class Step:
    """A layer of :data:`MONOTONE`, and how many axes of what it sees are behind the channels.

    Flat values, (N, C), have none, signals, (N, C, T), one, and images two.
    """

    module: nn.Module
    axes: int


def bias_steps(module: BinaryLinear | BinaryConv) -> tuple[Step, ...]:
    """What ``module`` adds to its sums."""
    if module.bias is None:
        return ()
    axes = module.axes if isinstance(module, BinaryConv) else 0
    added = Bias(shape=(*module.bias.shape, *[1] * axes))
    added.load_state_dict({"value": module.bias.detach().reshape(added.shape)})
    return (Step(added, axes),)


def differs_by_channel(module: nn.Module) -> bool:
    """Whether it treats channels in different ways."""
    match module:
        case nn.PReLU():
            return module.num_parameters > 1
        case Scale() | Bias():
            return max(module.shape, default=1) > 1
    return isinstance(module, BatchNorm)


def check_slope(module: nn.Module) -> None:
    """Check that it rises below 0 as it does above."""
    match module:
        case nn.LeakyReLU():
            slope = float(module.negative_slope)
        case nn.PReLU():
            slope = float(module.weight.detach().min())
        case _:
            return
    if slope < 0:
        raise EdgebnnError(
            f"its slope below 0 is {slope:.4g}: it falls there and rises above, so that no "
            f"threshold is what follows; keep its slope at 0 or more"
        )


def falls(module: nn.Module, channels: int) -> BoolArray:
    """(channels,) where a step of a channel falls; it may be constant where it is said to rise."""
    match module:
        case BatchNorm():
            scale = module.affine()[0]
        case Scale():
            scale = torch.as_tensor(module.constant()).detach().reshape(-1).expand(channels)
        case _:
            return np.zeros(channels, dtype=np.bool_)
    down: BoolArray = (scale < 0).numpy()
    return down


@torch.no_grad()
def thresholds(
    steps: tuple[Step, ...], sign: Step, low: int, high: int, offset: NDArray[np.int64]
) -> tuple[Int32Array, BoolArray]:
    """(threshold, falling) of each level of ``sign(steps(x + offset))``, for x in [low, high].

    They are (levels, C) and (C,). ``offset`` is one a channel, (C,). A sign's shift is part of the
    step, and so are its own thresholds: a sum with a constant is monotone after rounding, too.

    The step fires where ``x >= threshold``, or ``-x >= threshold`` in channels where it falls.
    A step that always fires gets the least argument, one that never does the largest plus one.
    """
    assert isinstance(sign.module, Sign)
    module, shape = sign.module, (sign.module.levels, len(offset))

    def fires(x: NDArray[np.int64]) -> BoolArray:
        """Row i of ``x`` meets the threshold of level i."""
        y = torch.from_numpy(x + offset).to(torch.float32)
        for step in steps:
            y = step.module(_seen(y, step))
        each = module.differences(_seen(y, sign))
        y = torch.stack([values[level] for level, values in enumerate(each)])
        if bool(torch.isnan(y).any()):
            raise EdgebnnError("what comes before it gives NaN; train it again")
        fired: BoolArray = (y >= 0).numpy().reshape(shape)
        return fired

    at_low = fires(np.full(shape, low))
    at_high = fires(np.full(shape, high))
    # Some of a channel's levels may be constant where it falls.
    falling: BoolArray = np.any(at_low & ~at_high, axis=0)
    direction = np.where(falling, -1, 1)
    never = ~at_low & ~at_high
    # Invariant where the step is neither constant: it does not fire at `below` and fires at `at`.
    least = np.broadcast_to(np.where(falling, -high, low), shape)
    most = np.broadcast_to(np.where(falling, -low, high), shape)
    below, at = least, most
    while np.any(at - below > 1):
        middle = (at + below) // 2
        fired = fires(direction * middle)
        at = np.where(fired, middle, at)
        below = np.where(fired, below, middle)
    threshold = np.where(at_low & at_high, least, np.where(never, most + 1, at))
    return threshold.astype(np.int32), falling


def _seen(y: torch.Tensor, step: Step) -> torch.Tensor:
    """Rows of a value a channel as ``step`` sees inputs: its constants spread as they do there."""
    return y.reshape(len(y), -1, *[1] * step.axes)
