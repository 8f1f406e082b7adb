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

from edgebnn.bits import Layout, image_words, words
from edgebnn.ir import Bits, Dense, Op, Threshold, fan_in
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Price, Reading, Table, Trips, Values
from edgebnn.kernels.columns import (
    LANES,
    Abreast,
    abreast,
    in_lanes,
    lane_digits,
    lane_limits,
    two_words,
)
from edgebnn.kernels.pixels import BitPixel, bit_pixel
from edgebnn.kernels.trips import Counts
from edgebnn.targets.base import Cpu

_BLOCK = 8  # columns: a list has whole blocks


@dataclass(frozen=True, slots=True)
class DenseColumns:
    """What ``dense_columns.c.j2`` prints.

    ``columns`` has a row a group of words that are added up ``abreast``: a column an input, one of
    zeros at the offset ``zeros``, and those beside an even number of set and of clear bits; where
    groups are wide these are its rows, ``group_rows`` in each. ``start`` is what lanes begin with
    where set bits are listed, then where clear ones are. ``least`` is what sums have to reach, in
    ``slices`` digits, if no bit is listed. Inputs are the bits of ``pixels`` rows, in ``in_words``
    words of the CPU's.
    """

    inputs: int
    outputs: int
    pixels: int
    pixel: BitPixel
    in_words: int
    out_words: int
    abreast: Abreast
    slices: int
    least: int
    columns: Table
    start: Table

    @property
    def helpers(self) -> tuple[str, ...]:
        two = self.abreast.two
        listing = ("leading_zeros", f"list_columns{self.own}{two}")
        if self.abreast.wide:
            return ("popcount", "wide", "wide_reach", *listing)
        adding = (f"columns{two}", f"columns_reach{two}")
        return ("popcount", "pairs", *two_words(self.abreast.at_once), *adding, *listing)

    @property
    def own(self) -> str:
        """The end of the name of the helper for words as wide as those of a row."""
        return f"{self.pixel.bits}" if self.pixel.narrow else ""

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.columns, self.start)

    @property
    def group_rows(self) -> int:
        return self.abreast.group_rows(self.columns)

    @property
    def zeros(self) -> int:
        """Bytes from the first column to the one of zeros."""
        return self.abreast.column_bytes * self.inputs

    @property
    def even_set(self) -> int:
        """The offset of the column that is listed beside an even number of set bits."""
        return self.zeros + self.abreast.column_bytes

    @property
    def even_clear(self) -> int:
        """And of the one beside an even number of clear bits."""
        return self.even_set + self.abreast.column_bytes

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
        return 2 * (words(self.most, 16) + 1) * self.abreast.size

    @property
    def list_place(self) -> int:
        """Where the list begins in scratch memory: behind the sums and their carries."""
        return self.slices * self.abreast.size + self.carry_words

    @property
    def scratch_words(self) -> int:
        return self.list_place + self.most


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseColumns | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Dense) or not isinstance(source, Bits):
        return None
    count = fan_in(op)
    if not isinstance(op.head, Threshold) or cpu.word_bits != LANES:
        return None
    weights, min_dot = in_lanes(op.weights.reshape(len(op.weights), -1), op.head.min_dot)
    limits = [lane_limits(weights, least_dot) for least_dot in (min_dot, 2 - min_dot)]
    # With at most 2 * most + 1 columns, limits beyond these are reached always or never.
    most = count // 4
    needed = np.clip([(limit | 1) + 1 for limit in limits], -2 * most, 2 * most + 4) // 2
    least = max(int(needed.max()), 0)
    start = least - needed
    slices = max(3, int(start.max() + 2 * most + 1).bit_length())
    even = [limit % 2 == 0 for limit in limits]
    columns = np.concatenate([weights.T, np.zeros((1, len(weights)), bool), even])
    side = abreast(len(op.weights), cpu)
    image = bit_pixel(source, cpu)
    row = Bits(1, 1, count)  # as which an image is read where no pixel has a tail
    pixels = source.height * source.width if image.tail else 1
    return DenseColumns(
        inputs=count,
        outputs=len(op.weights),
        pixels=pixels,
        pixel=image if pixels > 1 else bit_pixel(row, cpu),
        in_words=image_words(source, cpu.word_bits),
        out_words=side.words * side.groups,
        abreast=side,
        slices=slices,
        least=least,
        columns=side.columns(columns),
        start=side.start(lane_digits(start, slices)),
    )


def pays(view: DenseColumns) -> bool:
    """Whether rows would take more instructions, counted on random inputs, half of their bits set.

    A word of outputs costs about as much as 12 rows, and the list of the input once more. Rows of
    less than eight words, which have no carry-save tree, are dearer: then it is 9. Measured on
    Cortex-M4, Cortex-M0 and RV32IMC, for 16 to 1024 inputs; docs/kernels.md has the table.
    """
    rows = 12 if view.in_words >= 8 else 9
    return view.outputs >= rows * (view.out_words + 1)


def trips(view: DenseColumns, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    bits = parts.is_set(values[0]).reshape(len(values[0]), view.pixels, -1)
    flip = bits.sum(axis=(1, 2)) > view.half
    row_words = parts.in_words(bits ^ flip[:, None, None], view.pixel.bits)
    steps = parts.steps(row_words, cpu).sum(axis=1)
    return _listed_trips(view, row_words.sum(axis=(1, 2, 3)), steps, cpu)


def _listed_trips(view: DenseColumns, listed: Counts, steps: Counts, cpu: Cpu) -> Trips:
    """Of inputs that list so many bits, found in so many steps."""
    columns = listed + (listed % 2 == 0)
    whole = columns + -columns % _BLOCK
    several = view.pixels > 1
    added = parts.columns_reach(whole[:, None], view.slices, view.least + listed[:, None] // 2)
    return parts.total(
        {
            "dense_columns": 1,
            f"dense_columns[{'pixels' if several else 'row'}]": 1,
            "dense_columns.in_word": view.in_words * (view.in_words > 1),
            "dense_columns.pixel": view.pixels * several,
            "dense_columns.pad": whole - columns,
            "dense_columns.word": view.out_words * (view.out_words > 1),
        },
        parts.list_columns(view.pixels, view.pixels * view.pixel.words, listed, steps, cpu),
        parts.times(parts.at_once(added, view.abreast.at_once), view.out_words),
    )


def most(view: DenseColumns, cpu: Cpu, price: Price) -> float:
    """An input lists up to half of its bits: what each number of them takes."""
    steps = parts.most_steps(view.inputs // view.pixels, view.pixel.bits, view.pixels, cpu)
    listed = np.arange(view.half + 1)
    return float(price(_listed_trips(view, listed, steps[listed], cpu)).max())


KERNEL = Kernel(
    "dense_columns",
    "columns",
    ((Dense,),),
    frozenset({Layout.ROWS}),
    fit,
    rank=-1,
    pays=pays,
    constant_time=False,
    trips=trips,
    reading=Reading.ROW,
    most=most,
)
