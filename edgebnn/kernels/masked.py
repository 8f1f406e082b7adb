"""Columns in constant time: each is added, the other way round in lanes where its input is set.

A mismatch is the XOR of a column's bit with the mask of its input, all bits of a word alike. Four
columns a, b, c and d are added by two full adders, one behind the other; z is the sum's lowest
digit before:

    half   = z ^ (a ^ b)
    first  = half ^ ((a ^ b) | (z ^ a))        carries
    second = half ^ (~(c ^ d) & (half ^ c))
    z      = half ^ (c ^ d)

z is itself a XOR of columns, all those before and the digit at the start. So what is in brackets is
linear in the columns, and hence in the weights and in the masks: the table has it of the weights,
one word for each of the four columns, and of the inputs it is made once for all outputs, in 32 of
them at a time. One XOR with a mask puts both together, and it is no more than a column would take.

Carries are passed on as `same`, lanes in which the two are alike, and `clear`, those of the second
one that are 0. Then nothing but XOR and AND is left, and that all CPUs have.
"""

from dataclasses import dataclass

import numpy as np

from edgebnn.bits import own_bits, pack, pack_pixels, pixel_words, words
from edgebnn.ir import Bits, BoolArray, Int32Array
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Table, Trips
from edgebnn.kernels.columns import BLOCK, LANES, column_table, lane_digits
from edgebnn.targets.base import Cpu

HELPERS = ("half", "masked_columns")
_GROUP = 4  # columns that two full adders take


@dataclass(frozen=True, slots=True)
class Masked:
    """Rows of weights as ``blocks`` of 16 columns, and what lanes begin with, in ``slices`` digits.

    A lane begins with so much that it ends below zero where its output is set: ``columns`` and
    ``start`` have a row a word of outputs. An input has ``row_words`` words.
    """

    row_words: int
    blocks: int
    out_words: int
    slices: int
    columns: Table
    start: Table

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.columns, self.start)

    @property
    def masks_place(self) -> int:
        """Words of scratch memory before the masks: sums, a pair a block and one more."""
        return self.slices + 2 * (self.blocks + 1)

    @property
    def scratch_words(self) -> int:
        return self.masks_place + self.row_words

    @property
    def last(self) -> int:
        """The place of the digit that says which outputs are set."""
        return self.slices - 1


def masked(weights: BoolArray, limits: Int32Array, source: Bits, cpu: Cpu) -> Masked | None:
    """Rows of ``weights``, (outputs, ..., channels), which pixels of ``source`` are added up with.

    Args:
        limits: (outputs,) the most mismatches at which a bit is set.

    Returns:
        None where words have no 32 lanes, and where rows take less: an instruction counts bits.
    """
    if cpu.word_bits != LANES or "popcount" in cpu.features:
        return None
    outputs, count = len(weights), weights[0].size
    own = own_bits(source, LANES)
    in_words = pack_pixels(weights, own, LANES)
    gap = pixel_words(source, LANES) * own - source.channels  # behind each pixel, and the last one
    blocks = words(count + gap * (count // source.channels - 1), BLOCK)
    lanes = LANES * words(outputs, LANES)
    rows = np.zeros((lanes, BLOCK * blocks), bool)
    bits = in_words[:, :, None] >> np.arange(LANES, dtype=np.uint32) & 1
    rows[:outputs] = bits.reshape(outputs, -1)[:, : BLOCK * blocks]
    most = np.full(lanes, -1)
    most[:outputs] = np.clip(limits, -1, count)
    slices = max(3, count.bit_length() + 1)
    start = -1 - most
    return Masked(
        row_words=in_words.shape[1],
        blocks=blocks,
        out_words=lanes // LANES,
        slices=slices,
        columns=column_table("columns", pack(linear(rows.T, start % 2 == 1), LANES).T),
        start=column_table("start", lane_digits(start, slices)),
    )


def linear(columns: BoolArray, digit: BoolArray) -> BoolArray:
    """(columns, lanes) of bits, and the lowest ``digit`` of a sum -> what the table has of them.

    Complements of z ^ a and of a ^ b, half ^ c, and the complement of c ^ d.
    """
    before = digit[None, :]
    sums = np.logical_xor.accumulate(np.concatenate([before, columns]), axis=0)[1:]
    made = np.empty_like(columns)
    made[0::_GROUP] = ~sums[0::_GROUP]
    made[2::_GROUP] = sums[2::_GROUP]
    made[1::2] = ~(columns[0::2] ^ columns[1::2])
    return made


def trips(view: Masked, layers: int) -> Trips:
    """So many inputs, or windows, one after the other: all take the same."""
    left, carries = view.blocks, 0
    for _ in range(view.slices - 3):
        left = (left + 1) // 2
        carries += left
    sums = {
        "masked_columns": 1,
        "masked_columns.block": view.blocks,
        "masked_columns.carry": carries,
        "masked_columns.digit": view.slices - 3,
    }
    once = {"column_masks": 1, "column_masks.word": view.row_words}
    return parts.times(parts.total(once, parts.times(sums, view.out_words)), layers)


def pays(view: Masked, outputs: int) -> bool:
    """Whether rows would take more instructions.

    A word of outputs costs as much as about 16 to 24 rows, the most on RV32IMC, and as 18 at most
    where rows have no carry-save tree; docs/kernels.md has the table.
    """
    return outputs >= (24 if view.row_words >= 8 else 18) * view.out_words
