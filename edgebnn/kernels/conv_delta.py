"""Convolutions on bits by columns, from one window to the next below it: 32 outputs in a word.

Vertical neighbours are alike, so going down a column of pixels only the bits that change are
counted. Let n bits of a window of K be set, a[o] of them where row o of the weights has +1, as
p[o] of all K weights are. Then dot[o] = K - 2 * n - 2 * p[o] + 4 * a[o]. With t[o] rounded up to a
dot that there can be, dot[o] >= t[o] is 2 * a[o] - n >= l[o] = (t[o] + 2 * p[o] - K) / 2, or

    floor((l[o] + n - 1) / 2) - a[o] < 0

What stands on the left is what the lanes count, in two's complement: their signs are the output.
The column of a bit that is set is taken away, that of a bit that is cleared is added. When n
becomes m, (m >> 1) - (n >> 1) is added to all lanes, as so many columns of ones, and in the lanes
with an even l[o] one more while the number is odd. Where an image is padded with +1, n = K and
a = p before the first window, else both are 0; nothing else differs.

The row of a window is compared with the row above it once, for all windows that it is in: where its
columns lie is linear in y, and tables move up by a row of the kernel from one window to the next.

A max-pool behind it is an OR of what its windows give. In channels that take the AND, the outputs
are inverted before, which is one of weights and thresholds here, and after it.
"""

from dataclasses import dataclass

import numpy as np

from edgebnn.bits import Layout, pack, words
from edgebnn.ir import Bits, Conv, MaxPool, Op, Threshold, fan_in, infer
from edgebnn.kernels.base import (
    COLUMN_BYTES,
    LANES,
    OFFSETS,
    BitPixel,
    Inputs,
    Kernel,
    Table,
    Window,
    bit_pixel,
    column_table,
    in_lanes,
    lane_digits,
    lane_limits,
    window,
)
from edgebnn.targets.base import Cpu

_BLOCK = 16  # columns: a list has whole blocks, and then none, 4 or 8 columns more
_MOST_HALVES = 16  # columns of ones: more are added as a number
_LEAST_OUTPUTS = 12
_DE_BRUIJN = 0x077CB531  # all its 32 runs of five bits differ


@dataclass(frozen=True, slots=True)
class ConvDelta:
    """What ``conv_delta.c.j2`` prints.

    ``columns`` has a row a word of outputs: a column an input of the window, then at the offset
    ``zeros`` those of zeros, of ones, and of odd numbers. ``start`` is what counters begin with,
    inverted. ``rows`` times ``columns`` windows are computed; what a pool drops is
    not among them.
    """

    outputs: int
    inputs: int
    channels: int
    window: Window
    pixel: BitPixel
    pool_height: int
    pool_width: int
    rows: int
    columns: int
    out_words: int
    slices: int
    ones: int
    tables: tuple[Table, ...]
    helpers: tuple[str, ...]
    places: bool
    all_set: bool

    @property
    def outside_value(self) -> str:
        return "+1" if self.ones else "-1"

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
        return self.begin_y + self.rows

    @property
    def last_whole(self) -> int:
        """The last x whose window does not leave the image on the right."""
        return self.window.width - self.window.kernel_width

    @property
    def line_words(self) -> int:
        """From a pixel to the one below it."""
        return self.window.width * self.pixel.words

    @property
    def line_out_words(self) -> int:
        return self.window.out_width // self.pool_width * self.out_words

    @property
    def pixel_bytes(self) -> int:
        """From the first column of a pixel to that of the next."""
        return COLUMN_BYTES * self.channels

    @property
    def row_bytes(self) -> int:
        return self.window.kernel_width * self.pixel_bytes

    @property
    def zeros(self) -> int:
        """Bytes from the first column to the one of zeros."""
        return COLUMN_BYTES * self.inputs

    @property
    def in_one_piece(self) -> bool:
        """Whether the columns of the words of a row follow each other without a gap."""
        return self.channels % LANES == 0 or self.window.kernel_width == 1

    @property
    def words_from_to(self) -> str:
        """C: words of a row that are in the image."""
        w = self.window
        if not w.pad_left and not w.pad_right:
            return f"{w.kernel_width * self.pixel.words}u"
        begin, end = "begin" if w.pad_left else "0", "end" if w.pad_right else str(w.kernel_width)
        pixels = f"(uint32_t)({end} - {begin})" if w.pad_left else f"(uint32_t){end}"
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
        both = ((self.pool_height, down), (self.pool_width, across))
        return " && ".join(f"({test})" for size, test in both if size > 1)

    @property
    def kept(self) -> int:
        """Rows of the first window that are listed as they are: at most one is in the image."""
        return min(self.window.pad_top + 1, self.window.kernel_height)

    @property
    def relisted(self) -> int:
        return self.window.kernel_height - self.kept

    @property
    def upper_slices(self) -> tuple[int, ...]:
        """Digits that a block of columns reaches by carries alone."""
        return tuple(range(3, self.slices))

    @property
    def sign(self) -> int:
        return self.slices - 1

    @property
    def _ends(self) -> int:
        """Entries that a list ends in, and the other one: ones, an odd number, and twice zeros."""
        return _MOST_HALVES + 1 + 2 * (_BLOCK // 2 - 1)

    @property
    def room(self) -> int:
        """Entries that a row may need."""
        return self.window.kernel_width * self.channels + self._ends

    @property
    def capacity(self) -> int:
        """Entries of both lists; each bit of a window is in one of them at most."""
        return self.inputs + self._ends + (self.inputs + self._ends) % 2

    @property
    def carry_words(self) -> int:
        """Two bits of a block each, and as much of what is left in each list."""
        return 2 * (self.capacity // _BLOCK + 2)

    @property
    def counter_words(self) -> int:
        return self.out_words * self.slices

    @property
    def scratch_words(self) -> int:
        return self.carry_words + self.counter_words + self.capacity // 2


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvDelta | None:
    op, source = ops[0], inputs[0]
    if not isinstance(op, Conv) or not isinstance(source, Bits) or cpu.word_bits != LANES:
        return None
    windows = window(op, source)
    if not isinstance(op.head, Threshold) or not _goes_down(windows):
        return None
    rows, columns, pool = windows.out_height, windows.out_width, (1, 1)
    inverted = np.zeros(len(op.weights), bool)
    if len(ops) > 1:
        (_, last) = ops
        if not isinstance(last, MaxPool) or last.kernel != last.stride:
            return None
        pool, inverted = last.kernel, last.all_set
        pooled = infer(last, infer(op, source))
        assert isinstance(pooled, Bits)
        rows, columns = pooled.height * pool[0], pooled.width * pool[1]
    count = fan_in(op)
    last_offset = COLUMN_BYTES * (count + 2 + (rows - 1) * count // windows.kernel_height)
    if rows == 1 or last_offset >= OFFSETS:
        return None
    min_dot = np.where(inverted, 1 - op.head.min_dot, op.head.min_dot)
    signs = op.weights.reshape(len(op.weights), -1) ^ inverted[:, None]
    weights, least = in_lanes(signs, min_dot.astype(np.int32))
    limits = lane_limits(weights, least)
    # The least and the most that a lane can miss: where dots are count and -count.
    low, high = (((least - dot) // 2 - 1) // 2 for dot in (count, -count))
    slices = max(5, 1 + max(int(high.max()).bit_length(), int(~low.min()).bit_length()))
    plus = windows.padded and windows.pad_value > 0
    start = (limits + (count if plus else 0) - 1) // 2 - (weights.sum(axis=1) if plus else 0)
    lanes = len(weights)
    extra = [np.zeros(lanes, bool), np.ones(lanes, bool), limits % 2 == 0]
    pixel = bit_pixel(source, cpu)
    tables = [
        column_table("columns", pack(np.concatenate([weights.T, extra]), LANES).T),
        column_table("start", ~lane_digits(start, slices)),
        _outside(windows.kernel_width, source.channels, plus),
    ]
    places = "clz" not in cpu.features and "mul" in cpu.features
    if places:
        tables.append(_places())
    if inverted.any():
        tables.append(column_table("all_set", pack(inverted, LANES)))
    counting = ("leading_zeros",) if "clz" in cpu.features else ()
    return ConvDelta(
        outputs=len(op.weights),
        inputs=count,
        channels=source.channels,
        window=windows,
        pixel=pixel,
        pool_height=pool[0],
        pool_width=pool[1],
        rows=rows,
        columns=columns,
        out_words=words(len(op.weights), LANES),
        slices=slices,
        ones=count if plus else 0,
        tables=tuple(tables),
        helpers=("columns", *counting, "take_bit", "changes"),
        places=places,
        all_set=bool(inverted.any()),
    )


def _goes_down(windows: Window) -> bool:
    """Whether windows below each other overlap by all rows but one, and none is wholly outside."""
    pads = (windows.pad_top, windows.pad_bottom), (windows.pad_left, windows.pad_right)
    return (
        windows.stride_y == 1
        and windows.kernel_height > 1
        and not windows.zero_padded
        and max(pads[0]) < windows.kernel_height
        and max(pads[1]) < windows.kernel_width
    )


def _outside(width: int, channels: int, plus: bool) -> Table:
    """A row of a window outside the image."""
    line = np.full((width, channels), plus)
    return column_table("outside", pack(line, LANES).reshape(-1))


def _places() -> Table:
    """Four times the place of a bit, by what it makes of a de Bruijn sequence."""
    table = np.zeros(32, np.int32)
    for place in range(32):
        table[(_DE_BRUIJN << place) % 2**32 >> 27] = COLUMN_BYTES * place
    return Table("places", "uint8_t", table)


def pays(view: ConvDelta) -> bool:
    """Whether rows would take more instructions.

    A word of outputs costs about as much as 9 rows where a fifth of the bits change from a row to
    the next, as in trained networks, and as much as 16 where half of them do. Measured on
    Cortex-M4, Cortex-M0 and RV32IMC, for 1 to 128 channels; docs/kernels.md has the table.
    """
    return view.outputs >= _LEAST_OUTPUTS


KERNEL = Kernel(
    "conv_delta",
    "columns",
    ((Conv,), (Conv, MaxPool)),
    frozenset({Layout.ROWS}),
    fit,
    rank=-1,
    pays=pays,
)
