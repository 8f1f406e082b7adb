"""Sums that no sign has seen yet, and the layers with weights that form them.

What op such a layer becomes is known where its sums end: a threshold at a sign, scores at the end
of the network, memory where more than one layer reads them. :mod:`edgebnn.lower` walks the network
and says which.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.errors import EdgebnnError
from edgebnn.ir import (
    EXACT_LIMIT,
    Bits,
    BoolArray,
    Conv,
    Dense,
    DepthwiseConv,
    Head,
    Ints,
    Op,
    Scores,
    Sums,
    dot_bound,
    output_size,
)
from edgebnn.nn.norm import BatchNorm
from edgebnn.nn.weights import BinaryConv, BinaryLinear, weight_signs
from edgebnn.thresholds import Step, bias_steps


@dataclass(frozen=True, slots=True)
class Pool:
    """A max pool that sums went through; it is done on the bits that come of them."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    steps_before: int  # how many steps of the pending value come before this pool


@dataclass(frozen=True, slots=True)
class Pending:
    """Integers that no sign has seen yet: the input, or a layer's sums, and what followed them.

    The IR computes with the input as it is, so that ``offset`` is still to be added to each
    channel: what the input's zero point takes from the sums.
    """

    emit: Callable[[Head, BoolArray], Op] | None  # None for the input itself
    low: int
    high: int
    offset: NDArray[np.int64]  # (C,)
    shape: tuple[int, int, int]  # (H, W, C)
    steps: tuple[Step, ...] = ()
    pools: tuple[Pool, ...] = ()
    axes: int = 0  # behind the channels, in torch
    tensor: str | None = None  # sums in the IR, which ``emit`` reads; None where not stored
    convolved: bool = False  # sums of a convolution, which a linear layer may read as they are


@dataclass(frozen=True, slots=True)
class Signs:
    """A tensor of bits in the IR."""

    tensor: str
    shape: tuple[int, int, int]
    axes: int
    planes: int = 1


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of the IR that a layer with weights reads, and what torch adds to its channels."""

    name: str
    tensor: Ints | Bits | Sums
    added: NDArray[np.int64]  # (C,); to an input less its zero point

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.tensor.height, self.tensor.width, self.tensor.channels

    def bound(self, inputs: int) -> int:
        """The largest sum of so many inputs, which float32 has to hold."""
        bound = dot_bound(inputs, self.tensor)
        if bound >= EXACT_LIMIT:
            raise EdgebnnError(
                f"its sums reach {bound}, and float32 is exact only below 2**24; "
                f"use fewer inputs or fewer input bits"
            )
        return bound

    def offset(self, signs: BoolArray) -> NDArray[np.int64]:
        """(O,): what it adds to dots with ``signs``, (O, C, ...) or (O, 1, ...) where depthwise."""
        rows = signs.reshape(*signs.shape[:2], -1)
        sums: NDArray[np.int64] = 2 * rows.sum(axis=2, dtype=np.int64) - rows.shape[2]
        added = self.added if len(self.added) == sums.shape[1] else self.added[:, None]
        offset: NDArray[np.int64] = (sums * added).sum(axis=1)
        return offset


def source_of(x: Pending | Signs, network_input: Source | None) -> Source:
    """What a layer with weights reads where it follows ``x``."""
    if isinstance(x, Signs):
        return Source(x.tensor, Bits(*x.shape, x.planes), np.zeros(x.shape[2], np.int64))
    if x.emit is not None:
        raise EdgebnnError("its input is not binary; put edgebnn.nn.Sign() before it")
    if x.steps or x.pools:
        raise EdgebnnError(
            "its input is neither raw integers nor binary; put edgebnn.nn.Sign() before it, "
            "or this layer right after Input"
        )
    assert network_input is not None
    return network_input


def linear(module: BinaryLinear, source: Source, name: Callable[[str], str]) -> Pending:
    """The sums of a linear layer; ``name`` makes a name for an op of a kind."""
    bound = source.bound(module.in_features)
    height, width, channels = source.shape
    # torch flattens (C, H, W); the IR is (H, W, C).
    signs = (weight_signs(module).numpy() > 0).reshape(-1, channels, height, width)
    weights = signs.transpose(0, 2, 3, 1)

    def emit(head: Head, negated: BoolArray) -> Op:
        flipped = np.ascontiguousarray(weights ^ negated[:, None, None, None])
        return Dense(name("dense"), source.name, flipped, head)

    shape = (1, 1, module.out_features)
    return Pending(emit, -bound, bound, source.offset(signs), shape, bias_steps(module))


def conv(module: BinaryConv, source: Source, name: Callable[[str], str]) -> Pending:
    """The sums of a convolution; ``name`` makes a name for an op of a kind.

    With a single window, the whole image, it is a dense layer, for which there are more kernels.
    """
    height, width, channels = source.shape
    kernel, stride = pair(module.kernel_size), pair(module.stride)
    top, bottom, left, right = (*module.sides(*(height, width)[: module.axes]), 0, 0)[:4]
    padding = (top, bottom, left, right)
    signs = weight_signs(module).numpy() > 0
    signs = signs.reshape(*signs.shape[:2], *kernel)  # (O, C / groups, KH, KW)
    pad_value = _pad_value(module, source, any(padding))
    depthwise = module.groups > 1
    bound = source.bound(kernel[0] * kernel[1] * (1 if depthwise else channels))

    def emit(head: Head, negated: BoolArray) -> Op:
        weights = signs ^ negated[:, None, None, None]
        if not depthwise:
            rows = np.ascontiguousarray(weights.transpose(0, 2, 3, 1))
            if kernel == (height, width) and not any(padding):
                return Dense(name("conv"), source.name, rows, head)
            return Conv(name("conv"), source.name, rows, stride, padding, pad_value, head)
        if isinstance(head, Scores):
            raise EdgebnnError("a depthwise layer cannot give the scores; use BinaryLinear")
        taps = np.ascontiguousarray(weights[:, 0].transpose(1, 2, 0))
        return DepthwiseConv(name("depthwise"), source.name, taps, stride, padding, pad_value, head)

    shape = (
        output_size(height, kernel[0], stride[0], sum(padding[:2])),
        output_size(width, kernel[1], stride[1], sum(padding[2:])),
        module.out_channels,
    )
    steps, offset = bias_steps(module), source.offset(signs)
    return Pending(emit, -bound, bound, offset, shape, steps, axes=module.axes, convolved=True)


def _pad_value(module: BinaryConv, source: Source, padded: bool) -> int:
    """What the IR has outside the image."""
    if isinstance(source.tensor, Ints):
        if padded and module.pad_value != 0:
            raise EdgebnnError("pads integers with -1 or +1; use pad_value=0 on the first layer")
        return -int(source.added[0]) if padded else 0
    assert isinstance(source.tensor, Bits)
    levels = source.tensor.levels
    if not padded:
        return -levels
    if module.pad_value not in (-levels, 0, levels):
        raise EdgebnnError(
            f"pads values from {-levels} to {levels} with {module.pad_value}; "
            f"use pad_value={-levels}, 0 or {levels}"
        )
    return module.pad_value


def addend(x: Pending | Signs) -> str:
    """The stored sums that an addition reads."""
    if isinstance(x, Signs):
        raise EdgebnnError(
            "adds signs; add sums of convolutions or BinaryLinear, and put the Sign after the "
            "addition"
        )
    if x.emit is None:
        raise EdgebnnError("adds the input; put a convolution or BinaryLinear between")
    if x.steps:
        module = x.steps[0].module
        what = "norm" if isinstance(module, BatchNorm) else type(module).__name__
        raise EdgebnnError(f"adds what a {what} gives; put the {what} after the addition")
    if x.pools:
        raise EdgebnnError("adds max-pooled sums; put the pool after the addition or after a Sign")
    assert x.tensor is not None
    return x.tensor


def pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    """(vertical, horizontal); a signal is an image of width 1."""
    vertical, horizontal = (*sizes, 1)[:2]
    return vertical, horizontal
