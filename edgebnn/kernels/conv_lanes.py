"""Convolutions on bits for CPUs with vectors, 16 outputs side by side, and the max-pool behind.

A pooled bit is that of the window with the fewest mismatches. In a channel that takes the AND of
its bits, dot >= t in all windows, it is the opposite of -dot >= 1 - t in any of them: there the
weights are the opposite ones, and so is the bit in the end. Zeros around the image are counted
twice, as in ``conv_rows.py``.
"""

from dataclasses import dataclass, replace

import numpy as np

from edgebnn.bits import Layout, pack
from edgebnn.ir import Bits, BoolArray, Conv, MaxPool, Op, Tensor, Threshold, fan_in, infer
from edgebnn.kernels.base import (
    BitsHead,
    HeadView,
    Inputs,
    Kernel,
    Table,
    Window,
    head_view,
    mismatch_limits,
    window,
)
from edgebnn.kernels.dense_lanes import Lanes, fits, lanes
from edgebnn.kernels.pixels import BitPixel, bit_pixel, ends, own_table
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class ConvLanes:
    """What ``conv_lanes.c.j2`` prints; ``pool`` are windows over what ``window`` gives."""

    inputs: int
    lanes: Lanes
    window: Window
    pool: Window | None
    pixel: BitPixel
    head: HeadView
    ends: tuple[int, ...]  # words of the copies of a window that have a tail
    parameters: str = "const uint32_t *counts"
    arguments: str = "counts"

    @property
    def row_words(self) -> int:
        return self.lanes.row_words

    @property
    def most(self) -> int:
        """At least what any output counts."""
        return 2 * self.inputs

    @property
    def helpers(self) -> tuple[str, ...]:
        return (*self.lanes.helpers, *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.lanes.weights, *self.head.tables)

    @property
    def scratch_words(self) -> int:
        return self.row_words * (2 if self.window.zero_padded else 1)

    @property
    def places(self) -> Window:
        """Whose places the result has."""
        return self.pool or self.window


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvLanes | None:
    op, source = ops[0], inputs[0]
    if not isinstance(op, Conv) or not isinstance(source, Bits) or not fits(cpu):
        return None
    pool, op, inverted = pooled(ops, op, infer(op, source))
    if pool is None and len(ops) > 1:
        return None
    count, windows = fan_in(op), window(op, source)
    limits = mismatch_limits(op.head, count, doubled=windows.zero_padded)
    head = head_view(op.head, result_of(ops, source), limits, "<=", cpu)
    return ConvLanes(
        inputs=count,
        lanes=lanes(op.weights, source, cpu),
        window=windows,
        pool=pool,
        pixel=bit_pixel(source, cpu),
        head=inverting(head, inverted, cpu),
        ends=ends(source, windows.taps, 2 if windows.zero_padded else 1, cpu),
    )


def pooled(
    ops: tuple[Op, ...], op: Conv, result: Tensor
) -> tuple[Window | None, Conv, BoolArray | None]:
    """The windows of the max-pool behind ``op``, and ``op`` with the OR for all channels.

    The last are the channels that it inverts. No windows: there is no pool, or windows of it that
    share places, which would be computed more than once; or it is not a pool of bits.
    """
    if len(ops) == 1:
        return None, op, None
    pool = ops[1]
    assert isinstance(pool, MaxPool)
    overlap = pool.stride[0] < pool.kernel[0] or pool.stride[1] < pool.kernel[1]
    if overlap or not isinstance(op.head, Threshold):
        return None, op, None
    opposite = pool.all_set
    bound = np.int32(2**30)  # beyond every dot
    least = np.clip(op.head.min_dot, -bound, bound)
    turned = replace(
        op,
        weights=op.weights ^ opposite[:, None, None, None],
        head=Threshold(np.where(opposite, 1 - least, least).astype(np.int32)),
    )
    return window(pool, result), turned, opposite if opposite.any() else None


def result_of(ops: tuple[Op, ...], source: Tensor) -> Tensor:
    """What the last of ``ops`` makes of what the first one reads."""
    for op in ops:
        source = infer(op, source)
    return source


def inverting(head: HeadView, inverted: BoolArray | None, cpu: Cpu) -> HeadView:
    """``head`` with the bits of some channels the other way."""
    if inverted is None:
        return head
    assert isinstance(head, BitsHead)
    table = own_table("inverted", pack(inverted, head.own_bits), cpu)
    return replace(head, tables=(*head.tables, table), inverted=True)


KERNEL = Kernel(
    "conv_lanes",
    "lanes",
    ((Conv,), (Conv, MaxPool)),
    frozenset({Layout.ROWS}),
    fit,
    rank=-3,
)
