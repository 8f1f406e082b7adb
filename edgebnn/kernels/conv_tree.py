"""Convolutions on integers: each filter is made from another one, two windows at a time.

A word has two windows, side by side, in its halves of 16 bits; where a pool joins rows, a second
word has those below. A strip of the image has 2 * (x - b) of both windows in a word, for each tap,
where b is the integer that stands for 0: pads are 0 then. Additions are modulo 2**32, so on the way
a half may borrow from the other one. In the end each fits its 16 bits, and its sign decides.

A filter has the weights s * u, with s = +1 or -1, and u = +1 or -1 for each tap. Its value is

    32768 + u * x - t        if s = +1; bit 15 is dot >= t
    32768 + u * x + t - 1    if s = -1, where u * x = -dot; bit 15 is dot < t

Two values differ by 2 * x in the taps where u does, and by a number. As s may be chosen, that is in
half of the taps at most. The edges of a minimum spanning tree are such differences; its root is the
sum of all taps, where u is +1 everywhere.

A pool takes the OR of bits, or in some channels the AND; of bits that come out inverted it is the
other one. So rows are joined filter by filter, by OR or AND. Before left and right are joined, some
lanes are inverted, such that it is an OR in all of them.

Weights and thresholds are in the code: there are no tables. Wherever it was measured this takes
less than a third of the instructions of subset sums; docs/kernels.md has the numbers.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from edgebnn.bits import Layout
from edgebnn.ir import Bits, BoolArray, Conv, Ints, MaxPool, Op, Threshold, infer
from edgebnn.kernels.base import Inputs, Kernel, Table, Window, window
from edgebnn.kernels.filter_tree import in_order, spanning_tree
from edgebnn.kernels.pixels import BitPixel, bit_pixel
from edgebnn.kernels.tree_trips import most, printed, trips
from edgebnn.targets.base import Cpu

_LANES = 32
_HALF = _LANES // 2
_BOTH = 0x10001  # times a number: in both halves
_ROWS = {1: ("sum",), 2: ("upper", "lower")}
_ASSIGN = ("=", "|=", "^=")  # the first one, then the others in turns
_ADDITION_BYTES = 6  # of code, 5 to 8
_MOST_ADDITIONS = 3000  # 16 kB of code on a Cortex-M4 or M0, 24 kB in RV32IMC
_Places = tuple[int, ...]  # of the taps in the strip, from the first window of a pair on


@dataclass(frozen=True, slots=True)
class Term:
    """A word of the strip, added or taken away."""

    sign: str
    word: int


@dataclass(frozen=True, slots=True)
class Sum:
    """One row of a filter: ``name = origin``, then the terms and a number in both halves."""

    name: str
    origin: str
    terms: tuple[Term, ...]
    sign: str  # of the number; "" where it is 0
    number: int


@dataclass(frozen=True, slots=True)
class Filter:
    """How the value of a filter is made, and where its bit goes.

    No ``sums``: there is the value already. ``assign`` is how its bits are put to ``lanes``.
    """

    comment: str
    sums: tuple[Sum, ...]
    value: str
    lanes: str
    assign: str
    shift: int


@dataclass(frozen=True, slots=True)
class Part:
    """A word of the result, from bit ``shift`` of the outputs on; what it is where all is blank."""

    place: int
    shift: int
    blank: int


@dataclass(frozen=True, slots=True)
class OutWord:
    """The filters of 32 outputs; ``parts`` are the words of the result that they are in.

    ``inverted`` are the lanes to invert when all are there, ``all_set`` those to invert once left
    and right are joined.
    """

    filters: tuple[Filter, ...]
    inverted: int
    all_set: int
    parts: tuple[Part, ...]

    @property
    def halves(self) -> bool:
        """Whether lanes are spread over two words."""
        return len(self.filters) > _HALF


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of all taps in one row of windows: ``words``, beside those that both rows have."""

    name: str
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """What of the image is in scratch memory, in words: all that a row of results needs.

    A column has ``rows`` of the image with their channels; in each word is a pixel and the one that
    is ``apart`` to its right. The first ``before`` columns begin left of the image, ``pixels`` in
    it, and ``behind`` right of it. The first window begins in column ``lead``.
    """

    rows: int
    channels: int
    lead: int
    before: int
    pixels: int
    behind: int
    apart: int
    step: int  # rows from one strip to the next

    @property
    def columns(self) -> int:
        return self.before + self.pixels + self.behind

    @property
    def column(self) -> int:
        return self.rows * self.channels

    @property
    def first_right(self) -> int:
        """Where the first pixel is the right one."""
        return (self.before - self.apart) * self.column

    @property
    def left(self) -> int:
        """From where a pixel is the right one to where it is the left one."""
        return self.apart * self.column

    @property
    def first_behind(self) -> int:
        return (self.before + self.pixels) * self.column

    @property
    def first_window(self) -> int:
        return self.lead * self.column

    @property
    def next_window(self) -> int:
        """From one pair of windows to the next."""
        return 2 * self.left

    @property
    def kept_rows(self) -> int:
        """Those that the next strip has as well."""
        return max(self.rows - self.step, 0)

    @property
    def kept(self) -> tuple[tuple[int, int], ...]:
        """Words of a column to and from which they are moved."""
        words = range(self.kept_rows * self.channels)
        return tuple((word, word + self.step * self.channels) for word in words)


@dataclass(frozen=True, slots=True)
class ConvTree:
    """What ``conv_tree.c.j2`` prints; a pixel of the result is ``out``.

    ``common`` are the words that are in the sums of both rows, ``variables`` those for values.
    The words of ``cover`` have all pixels of a pair of windows. ``bias`` makes a sum of all taps of
    what is in the strip. There are ``pairs`` a row of results; a row of windows is ``odd`` if the
    last one has no right place, and ``single`` if none has.
    """

    window: Window
    strip: Strip
    blank: int
    bias: int
    common: tuple[int, ...]
    totals: tuple[Total, ...]
    variables: str
    words: tuple[OutWord, ...]
    out: BitPixel
    cover: tuple[int, ...]
    out_height: int
    pairs: int
    joined: bool
    odd: bool
    single: bool
    tables: tuple[Table, ...] = ()
    helpers: tuple[str, ...] = ()

    @property
    def scratch_words(self) -> int:
        return self.strip.columns * self.strip.column

    @property
    def place(self) -> str:
        """For comments: which windows are computed at once."""
        places = ["a window"] + ["the one right of it"] * (not self.single)
        places += ["the one below" if self.single else "those below"] * (len(self.totals) - 1)
        pooled = self.joined or len(self.totals) > 1
        return " and ".join(places) + ", pooled" * pooled

    @property
    def row_bytes(self) -> int:
        return self.window.width * self.strip.channels

    @property
    def image_row(self) -> str:
        """The row of the image that is row ``row`` of strip ``y``; "" where it is the only one."""
        parts = [f"y * {self.strip.step}u"] if self.out_height > 1 else []
        parts += ["row"] if self.strip.rows > 1 else []
        pads = f" - {self.window.pad_top}u" if self.window.pad_top else ""
        return (" + ".join(parts) or (pads and "0u")) + pads

    @property
    def strip_row(self) -> str:
        """Where in the strip that row begins."""
        if self.strip.rows == 1:
            return "strip"
        return f"&strip[row{f' * {self.strip.channels}u' if self.strip.channels > 1 else ''}]"

    @property
    def additions(self) -> int:
        """Of all filters: what the code grows with."""
        filters = [one for word in self.words for one in word.filters]
        return sum(len(one.terms) + bool(one.sign) for each in filters for one in each.sums)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvTree | None:
    op, source = ops[0], inputs[0]
    if not isinstance(op, Conv) or not isinstance(source, Ints) or cpu.word_bits != _LANES:
        return None
    if not isinstance(op.head, Threshold) or not 0 <= op.pad_value < 2**source.bits:
        return None
    pool = (1, 1)
    falls = np.zeros(len(op.weights), bool)
    if len(ops) == 2:
        assert isinstance(ops[1], MaxPool)
        pool, falls = ops[1].kernel, ops[1].all_set
        if ops[1].stride != pool or not set(pool) <= {1, 2}:
            return None
    taps, largest = op.weights[0].size, 2**source.bits - 1
    if taps * largest >= 2**15:  # a dot may be as far from a threshold
        return None
    w = window(op, source)
    if w.width == w.out_width == w.kernel_width == 1:  # side by side is what is below each other
        w, pool = _transposed(w), (pool[1], pool[0])
    strip = _strip(w, source.channels, pool)
    if strip.pixels < 1:
        return None
    places = [_places(w, strip, row) for row in range(pool[0])]
    common = tuple(word for word in places[0] if word in places[-1]) if pool[0] == 2 else ()
    names = _ROWS[pool[0]]
    result = infer(op, source) if len(ops) == 1 else infer(ops[1], infer(op, source))
    assert isinstance(result, Bits)
    out = bit_pixel(result, cpu)
    made = [
        _out_word(op, largest, first, falls, places, pool[1] == 2, out)
        for first in range(0, len(op.weights), _LANES)
    ]
    levels = max(most for _, most in made)
    pairs = -(-(w.out_width // pool[1]) * pool[1] // 2)
    view = ConvTree(
        window=w,
        strip=strip,
        blank=op.pad_value,
        bias=2 * taps * op.pad_value * _BOTH,
        common=common,
        totals=tuple(
            Total(f"{name}_total", tuple(word for word in words if word not in common))
            for name, words in zip(names, places, strict=True)
        ),
        variables=", ".join(f"{name}{level}" for level in range(levels) for name in names),
        words=tuple(word for word, _ in made),
        out=out,
        cover=_cover(w, strip, places),
        out_height=w.out_height // pool[0],
        pairs=pairs,
        joined=pool[1] == 2,
        odd=pool[1] == 1 and w.out_width % 2 == 1 and w.out_width > 1,
        single=w.out_width == 1,
    )
    return view if view.additions <= _MOST_ADDITIONS else None


def _transposed(w: Window) -> Window:
    """A signal, an image of width 1, lies in memory as one of height 1."""
    return replace(
        w,
        height=1,
        width=w.height,
        out_height=1,
        out_width=w.out_height,
        kernel_height=1,
        kernel_width=w.kernel_height,
        stride_y=1,
        stride_x=w.stride_y,
        pad_top=0,
        pad_bottom=0,
        pad_left=w.pad_top,
        pad_right=w.pad_bottom,
    )


def _strip(w: Window, channels: int, pool: tuple[int, int]) -> Strip:
    """The strip for one row of results."""
    places = w.out_width // pool[1] * pool[1]
    last = (places + places % 2 - 2) * w.stride_x + w.kernel_width  # behind the last window
    lead = max(w.stride_x - w.pad_left, 0)
    before = lead + w.pad_left
    pixels = min(w.width, last + w.stride_x - w.pad_left)
    return Strip(
        rows=(pool[0] - 1) * w.stride_y + w.kernel_height,
        channels=channels,
        lead=lead,
        before=before,
        pixels=pixels,
        behind=max(lead + last - before - pixels, 0),
        apart=w.stride_x,
        step=pool[0] * w.stride_y,
    )


def _places(w: Window, strip: Strip, row: int) -> _Places:
    """Where the taps lie, from the first word of a pair of windows; ``row`` is that of a pool."""
    return tuple(
        x * strip.column + (row * w.stride_y + y) * strip.channels + channel
        for y in range(w.kernel_height)
        for x in range(w.kernel_width)
        for channel in range(strip.channels)
    )


def _cover(w: Window, strip: Strip, places: list[_Places]) -> tuple[int, ...]:
    """Words that have each pixel of a pair of windows, as the left or as the right one."""
    wanted = {x + right for x in range(w.kernel_width) for right in (0, w.stride_x)}
    columns: set[int] = set()
    for x in sorted(wanted):
        if not {x, x - w.stride_x} & columns:
            columns.add(x if x < w.kernel_width else x - w.stride_x)
    words = {word for row in places for word in row}
    return tuple(word for word in sorted(words) if word // strip.column in columns)


def _out_word(
    op: Conv,
    largest: int,
    first: int,
    falls: BoolArray,
    places: list[_Places],
    joined: bool,
    out: BitPixel,
) -> tuple[OutWord, int]:
    """The word of the outputs from ``first`` on, and how many values there are at a time.

    Of outputs that ``falls`` names a pool takes the AND. ``places`` are the words of the taps, row
    by row; ``joined``: left and right are pooled.
    """
    assert isinstance(op.head, Threshold)
    root = spanning_tree(op, largest, range(first, min(first + _LANES, len(op.weights))))
    inverted, filters, taken = 0, [], Counter[str]()
    for node, level, above in in_order(root, 0):
        assert node.parent is not None
        value, origin = node.value, node.parent.value
        names = tuple(f"{name}{level}" for name in _ROWS[len(places)])
        origins = tuple(
            f"{name}{above}" if origin.output >= 0 else f"{name}_total"
            for name in _ROWS[len(places)]
        )
        lane = value.output - first
        lanes = "second" if lane >= _HALF else "first"
        ands = (value.sign < 0) != bool(falls[value.output])
        inverted |= ands << lane
        number = value.constant - origin.constant
        sums = tuple(
            Sum(
                name,
                source,
                tuple(
                    Term("+" if value.u[tap] > 0 else "-", words[tap])
                    for tap in np.flatnonzero(value.u != origin.u)
                ),
                "" if number == 0 else "+" if number > 0 else "-",
                abs(number) * _BOTH,
            )
            for name, source, words in zip(names, origins, places, strict=True)
        )
        filters.append(
            Filter(
                comment=f"{value.name}: from {origin.name}",
                sums=() if node.equal else sums,
                value=names[0]
                if len(names) == 1
                else f"({(' & ' if ands else ' | ').join(names)})",
                lanes=lanes,
                assign=_ASSIGN[min(taken[lanes], 2 - taken[lanes] % 2)],
                shift=_HALF - 1 - lane % _HALF,
            )
        )
        taken[lanes] += 1
    mask = sum(1 << lane for lane, one in enumerate(falls[first : first + _LANES]) if one)
    sums_of_weights = 2 * op.weights.reshape(len(op.weights), -1).sum(axis=1) - op.weights[0].size
    blank = op.pad_value * sums_of_weights >= op.head.min_dot
    bits = sum(1 << lane for lane, one in enumerate(blank[first : first + _LANES]) if one)
    word = OutWord(
        filters=tuple(filters),
        inverted=inverted if joined else inverted ^ mask,
        all_set=mask if joined else 0,
        parts=_parts(out, first // _LANES, bits),
    )
    return word, max(child.levels for child in root.children)


def _parts(out: BitPixel, word: int, blank: int) -> tuple[Part, ...]:
    """The words of a pixel that have the outputs of the 32 lanes number ``word``."""
    places = range(out.in_word * word, min(out.in_word * (word + 1), out.words))
    shifts = [out.bits * (place - places[0]) for place in places]
    blanks = [blank >> shift & out.ones for shift in shifts]
    return tuple(map(Part, places, shifts, blanks))


KERNEL = Kernel(
    "conv_tree",
    "tree",
    ((Conv,), (Conv, MaxPool)),
    frozenset({Layout.BYTES}),
    fit,
    rank=-1,
    constant_time=False,
    trips=trips,
    most=most,
    printed=printed,
    code=lambda view: _ADDITION_BYTES * view.additions,
)
