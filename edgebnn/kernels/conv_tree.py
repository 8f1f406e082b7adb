"""Convolutions on integers: each filter is made from another one, two windows at a time.

A word has two windows, side by side, in its halves of 16 bits; where a pool joins rows, a second
word has those below. A strip of the image has 2 * (x - b) of both windows in a word, for each tap,
where b is the integer that stands for 0: pads are 0 then. Additions are modulo 2**32, so on the way
a half may borrow from the other one. In the end each fits its 16 bits, and its sign decides.

A filter has the weights s * u, with s = +1 or -1, and u = +1 or -1 for each tap. Its value is

    32768 + u * x - t        if s = +1; bit 15 is dot >= t
    32768 + u * x + t - 1    if s = -1, where u * x = -dot; bit 15 is dot < t

Of several thresholds the one in the middle is t; bit 15 says of the others whether they are
reached, once what they differ from t by is taken away, or added if s = -1. A dot that reaches one
reaches all below it. So digit p of how many it reaches, which goes to plane p, is the XOR of every
``2**p``-th of these bits.

Two values differ by 2 * x in the taps where u does, and by a number. As s may be chosen, that is in
half of the taps at most. The edges of a minimum spanning tree are such differences; its root is the
sum of all taps, where u is +1 everywhere.

A pool takes the OR of bits, or in some channels the AND; of bits that come out inverted it is the
other one. So rows are joined filter by filter, threshold by threshold, by OR or AND. Before left
and right are joined, some lanes are inverted, such that it is an OR in all of them; of numbers, the
larger one.

Weights and thresholds are in the code: there are no tables. Wherever it was measured this takes
less than a third of the instructions of subset sums; docs/kernels.md has the numbers.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import Layout, plane_words
from edgebnn.ir import Bits, BoolArray, Conv, Ints, Levels, MaxPool, Op, Threshold, infer
from edgebnn.kernels.base import Inputs, Kernel, Table, Window, window
from edgebnn.kernels.filter_tree import in_order, limits, spanning_tree
from edgebnn.kernels.pixels import BitPixel, bit_pixel
from edgebnn.kernels.tree_digits import (
    BOTH,
    Digit,
    Plane,
    digits_of,
    number_in_both,
    numbers_of,
    planes_of,
)
from edgebnn.kernels.tree_strip import Places, Strip, cover_of, places_of, strip_of, transposed
from edgebnn.kernels.tree_trips import held, most, printed, trips
from edgebnn.targets.base import Cpu

_LANES = 32
_HALF = _LANES // 2
_ROWS = {1: ("sum",), 2: ("upper", "lower")}
_ASSIGN = ("=", "|=", "^=")  # the first one, then the others in turns
_ADDITION_BYTES = 6  # of code, 5 to 8
_LEVEL_ADDITIONS = 2  # that the code of a threshold more is as long as, a row
_MOST_ADDITIONS = 3000  # 16 kB of code on a Cortex-M4 or M0, 24 kB in RV32IMC


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
    """How the values of a filter are made, a row each, and where its bits go.

    No ``sums``: there are the values already. ``joins`` is how bits of two rows are joined.
    """

    comment: str
    sums: tuple[Sum, ...]
    rows: tuple[str, ...]
    joins: str
    digits: tuple[Digit, ...]
    shift: int


@dataclass(frozen=True, slots=True)
class Part:
    """A word of the result, from bit ``shift`` of a plane of the outputs on.

    ``blank`` is what it is where all is blank.
    """

    plane: str
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
class ConvTree:
    """What ``conv_tree.c.j2`` prints; a pixel of the result is ``out``.

    ``common`` are the words that are in the sums of both rows, ``variables`` those for values and
    ``digits`` those for digits that have one. ``planes`` are how names end that each plane has, the
    highest first; "" where there is one.
    The words of ``cover`` have all pixels of a pair of windows. ``bias`` makes a sum of all taps of
    what is in the strip. There are ``pairs`` a row of results; a row of windows is ``odd`` if the
    last one has no right place, and ``single`` if none has. ``in_order``: a filter is computed when
    those before it are.
    """

    window: Window
    strip: Strip
    blank: int
    bias: int
    common: tuple[int, ...]
    totals: tuple[Total, ...]
    variables: str
    digits: tuple[str, ...]
    planes: tuple[str, ...]
    words: tuple[OutWord, ...]
    out: BitPixel
    cover: tuple[int, ...]
    out_height: int
    pairs: int
    joined: bool
    odd: bool
    single: bool
    in_order: bool
    tables: tuple[Table, ...] = ()

    @property
    def helpers(self) -> tuple[str, ...]:
        return ("in_order",) if self.in_order else ()

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
    def higher(self) -> tuple[str, ...]:
        """The planes but the lowest one, from that on."""
        return self.planes[-2::-1]

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
        """Of all filters: what the code grows with. Numbers of thresholds are large ones."""
        filters = [one for word in self.words for one in word.filters]
        made = sum(len(one.terms) + bool(one.sign) for each in filters for one in each.sums)
        return made + _LEVEL_ADDITIONS * len(self.totals) * self.levels

    @property
    def levels(self) -> int:
        """How often a number is added to values, or taken away, for one more threshold."""
        filters = [one for word in self.words for one in word.filters]
        digits = [digit for each in filters for digit in each.digits]
        return sum(bool(one.sign) for digit in digits for one in digit.reached)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvTree | None:
    op, source = ops[0], inputs[0]
    if not isinstance(op, Conv) or not isinstance(source, Ints) or cpu.word_bits != _LANES:
        return None
    if not isinstance(op.head, Threshold | Levels) or not 0 <= op.pad_value < 2**source.bits:
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
        w, pool = transposed(w), (pool[1], pool[0])
    strip = strip_of(w, source.channels, pool)
    if strip.pixels < 1:
        return None
    places = [places_of(w, strip, row) for row in range(pool[0])]
    common = tuple(word for word in places[0] if word in places[-1]) if pool[0] == 2 else ()
    names = _ROWS[pool[0]]
    result = infer(op, source) if len(ops) == 1 else infer(ops[1], infer(op, source))
    assert isinstance(result, Bits)
    out = bit_pixel(result, cpu)
    planes = planes_of(result, plane_words(result, cpu.word_bits))
    made = [
        _out_word(op, largest, first, falls, places, pool[1] == 2, out, planes)
        for first in range(0, len(op.weights), _LANES)
    ]
    values = max(most for _, most in made)
    digits = {
        digit.name for word, _ in made for one in word.filters for digit in one.digits if digit.name
    }
    pairs = -(-(w.out_width // pool[1]) * pool[1] // 2)
    view = ConvTree(
        window=w,
        strip=strip,
        blank=op.pad_value,
        bias=2 * taps * op.pad_value * BOTH,
        common=common,
        totals=tuple(
            Total(f"{name}_total", tuple(word for word in words if word not in common))
            for name, words in zip(names, places, strict=True)
        ),
        variables=", ".join(f"{name}{level}" for level in range(values) for name in names),
        digits=tuple(sorted(digits, reverse=True)),
        planes=tuple(plane.name for plane in planes),
        words=tuple(word for word, _ in made),
        out=out,
        cover=cover_of(w, strip, places),
        out_height=w.out_height // pool[0],
        pairs=pairs,
        joined=pool[1] == 2,
        odd=pool[1] == 1 and w.out_width % 2 == 1 and w.out_width > 1,
        single=w.out_width == 1,
        in_order=len(planes) > 1 or "thumb1" not in cpu.features,  # there it does not pay for signs
    )
    return view if view.additions <= _MOST_ADDITIONS else None


def _out_word(
    op: Conv,
    largest: int,
    first: int,
    falls: BoolArray,
    places: list[Places],
    joined: bool,
    out: BitPixel,
    planes: tuple[Plane, ...],
) -> tuple[OutWord, int]:
    """The word of the outputs from ``first`` on, and how many values there are at a time.

    Of outputs that ``falls`` names a pool takes the AND. ``places`` are the words of the taps, row
    by row; ``joined``: left and right are pooled.
    """
    assert isinstance(op.head, Threshold | Levels)
    outputs = range(first, min(first + _LANES, len(op.weights)))
    root = spanning_tree(op, largest, outputs)
    thresholds = limits(op, largest)
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
                *number_in_both(number),
            )
            for name, source, words in zip(names, origins, places, strict=True)
        )
        joins = "&" if ands else "|"
        filters.append(
            Filter(
                comment=f"{value.name}: from {origin.name}",
                sums=() if node.equal else sums,
                rows=names,
                joins=joins,
                digits=tuple(
                    digits_of(
                        names[0] if len(names) == 1 else f"({f' {joins} '.join(names)})",
                        numbers_of(value, thresholds[:, value.output].tolist()),
                        planes,
                        len(names) > 1,
                        lanes,
                        _ASSIGN[min(taken[lanes], 2 - taken[lanes] % 2)],
                    )
                ),
                shift=_HALF - 1 - lane % _HALF,
            )
        )
        taken[lanes] += 1
    mask = sum(1 << lane for lane, one in enumerate(falls[first : first + _LANES]) if one)
    sums_of_weights = 2 * op.weights.reshape(len(op.weights), -1).sum(axis=1) - op.weights[0].size
    blank = (op.pad_value * sums_of_weights >= np.atleast_2d(op.head.min_dot)).sum(axis=0)
    parts = [
        part
        for plane in planes
        for part in _parts(out, first // _LANES, plane, blank[outputs] >> plane.digit & 1)
    ]
    word = OutWord(
        filters=tuple(filters),
        inverted=inverted if joined else inverted ^ mask,
        all_set=mask if joined else 0,
        parts=tuple(parts),
    )
    return word, max(child.levels for child in root.children)


def _parts(out: BitPixel, word: int, plane: Plane, bits: NDArray[np.int64]) -> Iterable[Part]:
    """The words of a pixel that have the outputs of the 32 lanes number ``word``.

    ``bits`` are those of these outputs where all is blank.
    """
    blank = sum(int(bit) << lane for lane, bit in enumerate(bits))
    places = range(out.in_word * word, min(out.in_word * (word + 1), out.words))
    for place in places:
        shift = out.bits * (place - places[0])
        yield Part(plane.name, plane.place + place, shift, blank >> shift & out.ones)


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
    held=held,
    code=lambda view: _ADDITION_BYTES * view.additions,
)
