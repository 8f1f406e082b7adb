"""Convolutions on integers for CPUs with vectors: products by +1 and -1, and the max-pool behind.

Outputs lie side by side, as many as fill 64 bytes: 32 where 16 bits hold every dot, else 16. A
pooled bit is that of the largest dot; how a channel takes the AND, ``conv_lanes.py`` says.
"""

from dataclasses import dataclass

import numpy as np

from edgebnn.bits import Layout, words
from edgebnn.ir import Conv, Ints, MaxPool, Op, dot_bound, fan_in, infer
from edgebnn.kernels.base import (
    HeadView,
    Inputs,
    Kernel,
    Table,
    Window,
    dot_limits,
    head_view,
    window,
)
from edgebnn.kernels.conv_lanes import inverting, pooled, result_of
from edgebnn.kernels.dense_lanes import fits
from edgebnn.targets.base import Cpu

_VECTOR_BYTES = 64


@dataclass(frozen=True, slots=True)
class ConvProducts:
    """What ``conv_products.c.j2`` prints; dots are of type ``number``, and at least ``lowest``."""

    channels: int
    inputs: int
    blocks: int
    width: int
    number: str
    lowest: int
    window: Window
    pool: Window | None
    weights: Table
    head: HeadView
    parameters: str
    arguments: str = "dots"

    @property
    def helpers(self) -> tuple[str, ...]:
        return self.head.helpers

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.weights, *self.head.tables)

    @property
    def outputs(self) -> int:
        """With what fills up the last block."""
        return self.blocks * self.width

    @property
    def scratch_words(self) -> int:
        """For a copy of the window."""
        return words(8 * self.inputs, 32)

    @property
    def places(self) -> Window:
        """Whose places the result has."""
        return self.pool or self.window


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvProducts | None:
    op, source = ops[0], inputs[0]
    if not isinstance(op, Conv) or not isinstance(source, Ints) or not fits(cpu):
        return None
    pool, op, inverted = pooled(ops, op, infer(op, source))
    if pool is None and len(ops) > 1:
        return None
    count = fan_in(op)
    bound = dot_bound(count, source)
    number, size = ("int16_t", 2) if bound < 2**15 else ("int32_t", 4)
    width = _VECTOR_BYTES // size
    blocks = words(len(op.weights), width)
    signs = np.where(op.weights.reshape(len(op.weights), -1), 1, -1)
    padded = np.pad(signs, ((0, blocks * width - len(signs)), (0, 0)))
    weights = padded.reshape(blocks, width, count).swapaxes(1, 2).reshape(-1, width)
    head = head_view(op.head, result_of(ops, source), dot_limits(op.head), ">=", cpu)
    return ConvProducts(
        channels=source.channels,
        inputs=count,
        blocks=blocks,
        width=width,
        number=number,
        lowest=-bound,
        window=window(op, source),
        pool=pool,
        weights=Table("weights", number, weights),
        head=inverting(head, inverted, cpu),
        parameters=f"const {number} *dots",
    )


KERNEL = Kernel(
    "conv_products",
    "lanes",
    ((Conv,), (Conv, MaxPool)),
    frozenset({Layout.BYTES}),
    fit,
    rank=-3,
)
