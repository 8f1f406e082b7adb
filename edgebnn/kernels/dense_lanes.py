"""Dense layers on bits for CPUs with vectors: 16 outputs side by side, a lane each.

A block of weights has the same word of 16 rows in a line, word by word. So one loop over the lanes
compares an input word with 16 rows at once, and nothing is ever added up across lanes: what
compilers make vectors of, as wide as the CPU has them, without a word on which CPU that is.
"""

from dataclasses import dataclass

import numpy as np

from edgebnn.bits import Layout, words
from edgebnn.ir import Bits, BoolArray, Dense, Op, Tensor, fan_in, infer
from edgebnn.kernels.base import (
    HeadView,
    Inputs,
    Kernel,
    Reading,
    Table,
    head_view,
    mismatch_limits,
)
from edgebnn.kernels.pixels import packed_rows
from edgebnn.targets.base import Cpu

#: Rows side by side. With words of 32 bits they fill the widest vector that there is.
LANES = 16


@dataclass(frozen=True, slots=True)
class Lanes:
    """Rows of weights in blocks of ``LANES``; those that fill up the last block are zeros."""

    blocks: int
    row_words: int
    weights: Table  # a line for each word of the rows of a block, block by block
    width: int = LANES
    helpers: tuple[str, ...] = ("lanes",)

    @property
    def outputs(self) -> int:
        """With what fills up the last block."""
        return self.blocks * self.width


def fits(cpu: Cpu) -> bool:
    """Whether the CPU has vectors, and words that are a lane of them."""
    return "vectors" in cpu.features and cpu.word_bits == 32


def lanes(rows: BoolArray, source: Tensor, cpu: Cpu) -> Lanes:
    """(outputs, ..., channels) weights, as pixels of ``source`` lie in words."""
    table = packed_rows("weights", rows, source, cpu)
    blocks = words(len(rows), LANES)
    padded = np.pad(table.values, ((0, blocks * LANES - len(rows)), (0, 0)))
    lines = padded.reshape(blocks, LANES, -1).swapaxes(1, 2).reshape(-1, LANES)
    weights = Table("weights", cpu.word, lines, words=True)
    return Lanes(blocks, table.values.shape[1], weights)


@dataclass(frozen=True, slots=True)
class DenseLanes:
    """What ``dense_lanes.c.j2`` prints."""

    inputs: int
    lanes: Lanes
    head: HeadView
    parameters: str = "const uint32_t *counts"
    arguments: str = "counts"
    scratch_words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        return (*self.lanes.helpers, *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.lanes.weights, *self.head.tables)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseLanes | None:
    (op,) = ops
    if not isinstance(op, Dense) or not isinstance(inputs[0], Bits) or not fits(cpu):
        return None
    count = fan_in(op)
    head = head_view(op.head, infer(op, *inputs), mismatch_limits(op.head, count), "<=", cpu)
    return DenseLanes(count, lanes(op.weights, inputs[0], cpu), head)


KERNEL = Kernel(
    "dense_lanes", "lanes", ((Dense,),), frozenset({Layout.ROWS}), fit, rank=-3, reading=Reading.ROW
)
