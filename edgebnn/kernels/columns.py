"""What kernels share whose weights lie in columns: lanes, limits, and strips of an image.

A column is the weights that :data:`LANES` outputs have for one input, one lane of a word each.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import pack, pixel_words, words
from edgebnn.ir import (
    Bits,
    BoolArray,
    Conv,
    Dense,
    Int32Array,
    MaxPool,
    Op,
    Scores,
    Sums,
    infer,
)
from edgebnn.kernels.base import Inputs, Table, Trips, Window, dot_limits, window
from edgebnn.kernels.pixels import BitPixel, bit_pixel, own_table
from edgebnn.targets.base import Cpu

LANES = 32
COLUMN_BYTES = LANES // 8
OFFSETS = 2**16
"""Bytes that a list of halfwords can tell apart."""
BLOCK = 16
"""Columns of a list that leave a pair of carries."""
FILLED = 3
"""Columns of zeros, at most, that a list ends in."""
_VECTOR = 4  # words, where a CPU has "helium"
_DE_BRUIJN = 0x077CB531  # all its 32 runs of five bits differ


def in_lanes(rows: BoolArray, min_dot: Int32Array) -> tuple[BoolArray, NDArray[np.int64]]:
    """Rows and thresholds for all lanes of whole words, those without an output never set.

    Thresholds are dots that there can be, or one more than the largest.
    """
    lanes, count = LANES * words(len(rows), LANES), rows.shape[1]
    weights = np.zeros((lanes, count), bool)
    weights[: len(rows)] = rows
    least = np.full(lanes, count + 2, np.int64)
    least[: len(rows)] = np.clip(min_dot, -count, count + 1)
    return weights, least + (least + count) % 2


def lane_limits(weights: BoolArray, min_dot: NDArray[np.int64]) -> NDArray[np.int64]:
    """(lanes,) what 2 * a - n has to reach: n columns are listed, and a of their weights are +1."""
    return np.asarray((min_dot + 2 * weights.sum(axis=1) - weights.shape[1]) // 2)


def lane_digits(numbers: NDArray[np.int64], slices: int) -> NDArray[np.unsignedinteger]:
    """(..., lanes) numbers -> (..., words, slices) of their digits, the least significant first."""
    digits = (numbers[..., None, :] >> np.arange(slices)[:, None] & 1).astype(bool)
    return pack(digits, LANES).swapaxes(-1, -2)


def words_at_once(outputs: int, cpu: Cpu) -> int:
    """Words of outputs that are computed at once: two, where there are registers for them.

    An odd number of words is computed one by one.
    """
    return 2 if "two" in cpu.features and words(outputs, LANES) % 2 == 0 else 1


def two_words(at_once: int) -> tuple[str, ...]:
    """The helpers of two words at once."""
    return ("two_words",) if at_once == 2 else ()


def side_by_side(values: NDArray[np.unsignedinteger], at_once: int) -> NDArray[np.unsignedinteger]:
    """(words, n) -> (words / at_once, n * at_once): rows of words at once have these in turn."""
    rows = values.reshape(-1, at_once, values.shape[-1]).swapaxes(1, 2)
    return rows.reshape(len(rows), -1)


@dataclass(frozen=True, slots=True)
class Abreast:
    """How words of outputs are added up: ``words`` at once, in each of ``groups``.

    An input has their columns side by side. Where a CPU has registers for the counters of two words
    there are two; where it has vectors of words, up to four are ``wide``: counters have a vector a
    digit, and what stands behind the columns is loaded with them, into lanes that nobody reads.
    Then lists are those of columns of one word, and the adder multiplies their offsets.
    """

    words: int
    groups: int
    wide: bool = False

    @property
    def at_once(self) -> int:
        """Words from the column of an input to that of the next, as lists have it."""
        return 1 if self.wide else self.words

    @property
    def two(self) -> str:
        """The end of names of helpers for as many words at once."""
        return "_two" if self.at_once == 2 else ""

    @property
    def column_bytes(self) -> int:
        """From the column of an input to that of the next, as lists have it."""
        return COLUMN_BYTES * self.at_once

    @property
    def size(self) -> int:
        """Words that a digit of counters takes."""
        return _VECTOR if self.wide else self.words

    @property
    def lanes(self) -> int:
        return LANES * self.words

    @property
    def _behind(self) -> int:
        """Inputs without weights behind the others, for the load of the last one."""
        return int(self.wide and self.words < _VECTOR)

    def columns(self, weights: BoolArray) -> Table:
        """(inputs, lanes) in columns: a row a group of words; where these are wide, a row an input.

        Then each group has all inputs, and those behind.
        """
        columns = pack(weights, LANES)
        if not self.wide:
            return column_table("columns", side_by_side(columns.T, self.words))
        groups = columns.reshape(len(weights), self.groups, self.words).swapaxes(0, 1)
        padded = np.pad(groups, ((0, 0), (0, self._behind), (0, 0)))
        return column_table("columns", padded.reshape(-1, self.words))

    def group_rows(self, table: Table) -> int:
        """From the first row of a group to that of the next, in columns."""
        return len(table.values) // self.groups

    def start(self, digits: NDArray[np.unsignedinteger]) -> Table:
        """(..., words, slices) of what lanes begin with: a row a group; where it is wide, a digit.

        Then rows are vectors, and each group has all of its digits.
        """
        slices = digits.shape[-1]
        if not self.wide:
            return column_table("start", side_by_side(digits.reshape(-1, slices), self.words))
        groups = digits.reshape(-1, self.words, slices).swapaxes(1, 2)
        padded = np.pad(groups, ((0, 0), (0, 0), (0, self.size - self.words)))
        return column_table("start", padded.reshape(-1, self.size))


def abreast(outputs: int, cpu: Cpu) -> Abreast:
    """How so many outputs are added up; 5 or 7 words have no groups that are alike."""
    count = words(outputs, LANES)
    if "helium" not in cpu.features:
        at_once = words_at_once(outputs, cpu)
        return Abreast(at_once, count // at_once)
    most = next(most for most in range(_VECTOR, 0, -1) if count % most == 0)
    return Abreast(most, count // most, wide=most > 1)


def column_table(suffix: str, values: NDArray[np.unsignedinteger]) -> Table:
    """Words of 32 lanes."""
    return Table(suffix, "uint32_t", np.ascontiguousarray(values), words=True)


def bit_places(at_once: int = 1) -> Table:
    """The offset of a bit's column, where the top five bits of its product by the sequence say."""
    places = np.zeros(LANES, np.int32)
    for place in range(LANES):
        places[(_DE_BRUIJN << place) % 2**32 >> 27] = COLUMN_BYTES * at_once * place
    return Table("places", "uint8_t", places)


@dataclass(frozen=True, slots=True)
class Strips:
    """How a convolution goes down strips of an image, a window's width each, and what it writes.

    ``rows`` times ``columns`` windows are computed, without those that a pool of ``pool_height``
    times ``pool_width`` behind it drops. Windows of one pool are next to each other. A pixel of the
    result is ``out``; its outputs are computed in ``out_words`` words of the CPU's, ``abreast``.
    """

    window: Window
    pixel: BitPixel
    channels: int
    out: BitPixel
    out_words: int
    abreast: Abreast
    pool_height: int
    pool_width: int
    rows: int
    columns: int

    @property
    def at_once(self) -> int:
        return self.abreast.at_once

    @property
    def two(self) -> str:
        return self.abreast.two

    @property
    def column_bytes(self) -> int:
        return self.abreast.column_bytes

    @property
    def pooled(self) -> bool:
        return self.pool_height * self.pool_width > 1

    @property
    def begin_x(self) -> int:
        return -self.window.pad_left

    @property
    def end_x(self) -> int:
        return self.begin_x + self.columns * self.window.stride_x

    @property
    def begin_y(self) -> int:
        return -self.window.pad_top

    @property
    def end_y(self) -> int:
        return self.begin_y + self.rows * self.window.stride_y

    @property
    def last_whole(self) -> int:
        """The last x whose window does not leave the image on the right."""
        return self.window.width - self.window.kernel_width

    @property
    def line_words(self) -> int:
        """From a pixel to the one below it, in words of the image's."""
        return self.window.width * self.pixel.words

    @property
    def line_out_words(self) -> int:
        """The same of the result."""
        return self.columns // self.pool_width * self.out.words

    @property
    def pixel_bytes(self) -> int:
        """From the first column of a pixel to that of the next."""
        return self.column_bytes * self.channels

    @property
    def row_bytes(self) -> int:
        return self.window.kernel_width * self.pixel_bytes

    @property
    def own(self) -> str:
        """The end of names of helpers for words as wide as those of the image."""
        return f"{self.pixel.bits}" if self.pixel.narrow else ""

    @property
    def in_one_piece(self) -> bool:
        """Whether the columns of the words of a row follow each other without a gap."""
        return self.channels % self.pixel.bits == 0 or self.window.kernel_width == 1

    @property
    def row_words(self) -> str:
        """C: words of a row of a window that are in the image."""
        w = self.window
        if not w.pad_left and not w.pad_right:
            return f"{w.kernel_width * self.pixel.words}u"
        begin, end = "begin" if w.pad_left else "", "end" if w.pad_right else str(w.kernel_width)
        pixels = f"(uint32_t)({end} - {begin})" if begin else f"(uint32_t){end}"
        return pixels if self.pixel.words == 1 else f"{pixels} * {self.pixel.words}u"

    @property
    def first_offset(self) -> str:
        """C: the offset of the first column of a row."""
        w = self.window
        y = f"(uint32_t)(y + {w.pad_top})" if w.pad_top else "(uint32_t)y"
        begin = f" + (uint32_t)begin * {self.pixel_bytes}u" if w.pad_left else ""
        return f"{y} * {self.row_bytes}u{begin}"

    @property
    def first_of_pool(self) -> str:
        """C: whether a window is the first of a pool's."""
        return self._of_pool("down == 0u", "across == 0u")

    @property
    def last_of_pool(self) -> str:
        return self._of_pool(
            f"down == {self.pool_height - 1}u", f"across == {self.pool_width - 1}u"
        )

    def _of_pool(self, down: str, across: str) -> str:
        if self.pool_height > 1 and self.pool_width > 1:
            return f"({down}) && ({across})"
        return down if self.pool_height > 1 else across


@dataclass(frozen=True, slots=True)
class StripsConv:
    """A convolution by strips, with its pool where there is one.

    ``rows`` (outputs, K) are its weights and ``min_dots`` (levels, outputs) its thresholds, rising,
    of inverted outputs in the channels ``all_set`` that take the AND of a pool: an OR inverted
    again. What keeps its dots has no levels.
    """

    strips: Strips
    source: Bits
    result: Bits | Sums
    rows: BoolArray
    min_dots: Int32Array
    all_set: BoolArray

    @property
    def signs(self) -> bool:
        """Whether it makes bits of bits, of one plane each."""
        return self.source.planes == 1 and len(self.min_dots) == 1

    @property
    def min_dot(self) -> Int32Array:
        """(outputs,) the only thresholds."""
        (found,) = self.min_dots
        return np.asarray(found)


def strips_conv(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> StripsConv | None:
    """``ops`` as a convolution by strips; None if they are something else.

    No row and no column of a window's pixels is wholly outside, and windows of a pool do not
    overlap. A dense layer is one window.
    """
    op, source = ops[0], inputs[0]
    if isinstance(op, Dense):
        op = Conv(op.name, op.source, op.weights, (1, 1), (0, 0, 0, 0), -1, op.head)
    if not isinstance(op, Conv) or not isinstance(source, Bits) or cpu.word_bits != LANES:
        return None
    w = window(op, source)
    too_far = max(w.pad_top, w.pad_bottom) >= w.kernel_height
    if isinstance(op.head, Scores) or too_far:
        return None
    if max(w.pad_left, w.pad_right) >= w.kernel_width:
        return None
    made = infer(op, source)
    rows, columns, pool = w.out_height, w.out_width, (1, 1)
    all_set = np.zeros(len(op.weights), bool)
    if len(ops) > 1:
        (_, last) = ops
        if not isinstance(last, MaxPool) or last.kernel != last.stride:
            return None
        made = infer(last, made)
        pool = last.kernel
        if pool != (1, 1):  # of a single bit there is neither OR nor AND
            all_set = last.all_set
        assert isinstance(made, Bits | Sums)
        rows, columns = made.height * pool[0], made.width * pool[1]
    assert isinstance(made, Bits | Sums)
    dots = dot_limits(op.head)
    min_dots = np.zeros((0, len(op.weights)), np.int32) if dots is None else np.atleast_2d(dots)
    signs = source.planes == 1 and len(min_dots) == 1
    out_words = words(len(op.weights), LANES)
    strips = Strips(
        window=w,
        pixel=bit_pixel(source, cpu),
        channels=source.channels,
        out=_pixel(made, cpu),
        out_words=out_words,
        abreast=abreast(len(op.weights), cpu) if signs else Abreast(1, out_words),
        pool_height=pool[0],
        pool_width=pool[1],
        rows=rows,
        columns=columns,
    )
    return StripsConv(
        strips=strips,
        source=source,
        result=made,
        rows=op.weights.reshape(len(op.weights), -1) ^ all_set[:, None],
        min_dots=np.sort(np.where(all_set, 1 - min_dots, min_dots), axis=0).astype(np.int32),
        all_set=all_set,
    )


def all_set_tables(conv: StripsConv, cpu: Cpu) -> tuple[Table, ...]:
    """The channels that take the AND of a pool; no table where none does."""
    if not conv.all_set.any():
        return ()
    return (own_table("all_set", pack(conv.all_set, conv.strips.out.bits), cpu),)


def _pixel(result: Bits | Sums, cpu: Cpu) -> BitPixel:
    """A pixel of the result; sums lie in words of the CPU's."""
    if isinstance(result, Bits):
        return bit_pixel(result, cpu)
    return BitPixel(pixel_words(result, cpu.word_bits), cpu.word_bits, 1, False, 0)


def in_strips(counts: NDArray[np.int64], strips: Strips) -> NDArray[np.int64]:
    """(N, height, width) counts of pixels -> (N, strips, rows): of a row of each strip.

    Rows begin with those that pads have; outside nothing is counted.
    """
    w = strips.window
    sides = ((0, 0), (w.pad_top, w.pad_bottom), (w.pad_left, w.pad_right))
    padded = np.pad(counts, sides)
    lefts = [w.stride_x * column for column in range(strips.columns)]
    rows = [padded[:, :, left : left + w.kernel_width].sum(axis=2) for left in lefts]
    return np.stack(rows, axis=1)


def result_trips(strips: Strips, all_set: bool, name: str) -> Trips:
    """The trips of the words of results, for all windows of all strips."""
    windows = strips.rows * strips.columns
    kind = "word" if strips.out_words == 1 else "words"
    found: Trips = {f"{name}.result": windows * strips.out_words}
    found[f"{name}.result[{kind}]"] = windows * strips.out_words
    if strips.pooled:
        kind = f"{min(strips.pool_height, 2)}x{min(strips.pool_width, 2)}"
        found[f"{name}.pooled"] = windows * strips.out_words
        found[f"{name}.pooled[{kind}]"] = windows * strips.out_words
        found[f"{name}.down"] = windows * (strips.pool_height > 1)
    if all_set:
        found[f"{name}.all_set"] = windows * strips.out_words
    return found
