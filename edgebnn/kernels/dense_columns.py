"""Dense layers on bits, a column of weights an input: 32 outputs add up in the lanes of a word.

Listed are the set bits of the input, or the clear ones if they are fewer. Let n be how many, a[o]
how many of them have the weight +1 in row o, and p[o] how many of all K inputs have it. The dot is

    2 * (2 * a[o] - n) - (2 * p[o] - K)    where the set bits are listed, and
    (2 * p[o] - K) - 2 * (2 * a[o] - n)    where the clear ones are,

the opposite of what it would be if they were set. With t[o] rounded up to a dot that there can be,
dot[o] >= t[o] is 2 * a[o] - n >= l[o] = (t[o] + 2 * p[o] - K) / 2. Where clear bits are listed, it
is not the same with 2 - t[o] for t[o].

If n is odd, n = 2 * h + 1, and l[o] is rounded up to an odd number, that is
a[o] - (l[o] + 1) / 2 >= h. If n is even, one more column is listed, whose weight is +1 where l[o]
is even; then the same holds for n + 1. What differs between outputs, their lanes begin with; so
all are compared with one number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import Layout, pack, tail_mask, words
from edgebnn.ir import Bits, BoolArray, Dense, Int32Array, Op, Threshold, fan_in
from edgebnn.kernels.base import Inputs, Kernel, Table
from edgebnn.targets.base import Cpu

_LANES = 32
_COLUMN_BYTES = _LANES // 8
_BLOCK = 8  # columns: a list has whole blocks


@dataclass(frozen=True, slots=True)
class DenseColumns:
    """What ``dense_columns.c.j2`` prints.

    ``columns`` has a row a word of outputs: a column an input, one of zeros at the offset
    ``zeros``, and those beside an even number of set and of clear bits. ``start`` is what lanes
    begin with where set bits are listed, then where clear ones are. ``least`` is what sums have to
    reach, in ``slices`` digits, if no bit is listed. Inputs are the bits of ``pixels`` rows.
    """

    inputs: int
    outputs: int
    pixels: int
    pixel_words: int
    tail_mask: int
    out_words: int
    slices: int
    least: int
    columns: Table
    start: Table
    helpers: tuple[str, ...] = ("popcount", "columns")

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.columns, self.start)

    @property
    def in_words(self) -> int:
        return self.pixels * self.pixel_words

    @property
    def zeros(self) -> int:
        """Bytes from the first column to the one of zeros."""
        return _COLUMN_BYTES * self.inputs

    @property
    def even_set(self) -> int:
        """The offset of the column that is listed beside an even number of set bits."""
        return self.zeros + _COLUMN_BYTES

    @property
    def even_clear(self) -> int:
        """And of the one beside an even number of clear bits."""
        return self.even_set + _COLUMN_BYTES

    @property
    def half(self) -> int:
        """As many set bits are listed themselves."""
        return self.inputs // 2

    @property
    def pixel_bytes(self) -> int:
        """From the first column of a pixel to that of the next."""
        return self.zeros // self.pixels

    @property
    def most(self) -> int:
        """The longest list that any input makes."""
        return _BLOCK * words(self.half | 1, _BLOCK)

    @property
    def carry_words(self) -> int:
        """Two bits of 16 columns each, and as much behind the last."""
        return 2 * (words(self.most, 16) + 1)

    @property
    def list_place(self) -> int:
        """Where the list begins in scratch memory: behind the sums and their carries."""
        return self.slices + self.carry_words

    @property
    def scratch_words(self) -> int:
        return self.list_place + self.most


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseColumns | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Dense) or not isinstance(source, Bits):
        return None
    count = fan_in(op)
    if not isinstance(op.head, Threshold) or cpu.word_bits != _LANES:
        return None
    weights, min_dot = _in_lanes(op.weights.reshape(len(op.weights), -1), op.head.min_dot)
    limits = [_limits(weights, least_dot) for least_dot in (min_dot, 2 - min_dot)]
    # With at most 2 * most + 1 columns, limits beyond these are reached always or never.
    most = count // 4
    needed = np.clip([(limit | 1) + 1 for limit in limits], -2 * most, 2 * most + 4) // 2
    least = max(int(needed.max()), 0)
    start = least - needed
    slices = max(3, int(start.max() + 2 * most + 1).bit_length())
    even = [limit % 2 == 0 for limit in limits]
    columns = pack(np.concatenate([weights.T, np.zeros((1, len(weights)), bool), even]), _LANES)
    digits = (start[:, None] >> np.arange(slices)[:, None] & 1).astype(bool)
    pixels = 1 if source.channels % _LANES == 0 else source.height * source.width
    return DenseColumns(
        inputs=count,
        outputs=len(op.weights),
        pixels=pixels,
        pixel_words=words(count // pixels, _LANES),
        tail_mask=tail_mask(source.channels, _LANES),
        out_words=columns.shape[1],
        slices=slices,
        least=least,
        columns=_table("columns", columns.T),
        start=_table("start", pack(digits, _LANES).swapaxes(1, 2).reshape(-1, slices)),
    )


def _in_lanes(rows: BoolArray, min_dot: Int32Array) -> tuple[BoolArray, NDArray[np.int64]]:
    """Rows and thresholds for all lanes of whole words, those without an output never set.

    Thresholds are dots that there can be, or one more than the largest.
    """
    lanes, count = _LANES * words(len(rows), _LANES), rows.shape[1]
    weights = np.zeros((lanes, count), bool)
    weights[: len(rows)] = rows
    least = np.full(lanes, count + 2, np.int64)
    least[: len(rows)] = np.clip(min_dot, -count, count + 1)
    return weights, least + (least + count) % 2


def _limits(weights: BoolArray, min_dot: NDArray[np.int64]) -> NDArray[np.int64]:
    """(lanes,) what 2 * a - n has to reach."""
    return np.asarray((min_dot + 2 * weights.sum(axis=1) - weights.shape[1]) // 2)


def _table(suffix: str, values: NDArray[np.unsignedinteger]) -> Table:
    return Table(suffix, "uint32_t", np.ascontiguousarray(values), words=True)


def pays(view: DenseColumns) -> bool:
    """Whether rows would take more instructions, counted on random inputs, half of their bits set.

    A word of outputs costs about as much as 12 rows, and the list of the input once more. Rows of
    less than eight words, which have no carry-save tree, are dearer: then it is 9. Measured on
    Cortex-M4, Cortex-M0 and RV32IMC, for 16 to 1024 inputs; docs/kernels.md has the table.
    """
    rows = 12 if view.in_words >= 8 else 9
    return view.outputs >= rows * (view.out_words + 1)


KERNEL = Kernel(
    "dense_columns", "columns", ((Dense,),), frozenset({Layout.ROWS}), fit, rank=-1, pays=pays
)
