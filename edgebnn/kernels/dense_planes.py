"""Dense layers on integers by columns, which digits of the inputs add or take away.

An input is written in digits of -1, 0 and 1, x = sum(d[p] << p), of which no two in turn are not 0.
Random values of 8 bits have three that are not 0, those of images less. Each of them costs a
column, as in ``dense_columns``, that is added to 32 sums, or taken away, from their digit p on.
Digits are made of bit planes, the least significant first, for 32 inputs at once.
Source: Reitwiesner, Binary Arithmetic, 1960 (the non-adjacent form).

With A the sum of the inputs whose weight is +1, and S the sum of all, the dot is 2 * A - S. It is
no less than t[o] if A >= (S + t[o]) / 2, or, with integers, if

    A + (1 if t[o] and S are even, else 0) >= S // 2 + t[o] // 2 + 1

Lanes are all compared with the same number: A is added to what the t[o] // 2 + 1 of its lane lacks
of the largest of them.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import Layout, pack, words
from edgebnn.ir import Dense, Ints, Op, Threshold, dot_bound, fan_in
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Price, Table, Trips, Values
from edgebnn.kernels.columns import (
    BLOCK,
    COLUMN_BYTES,
    FILLED,
    LANES,
    OFFSETS,
    bit_places,
    column_table,
    side_by_side,
    two_words,
    words_at_once,
)
from edgebnn.kernels.trips import Counts
from edgebnn.targets.base import Cpu

#: So many columns can be listed before the first are added. With more, sums are touched less often,
#: and there is more RAM: 784 inputs would take 0.2 kB more for the last 2 % of instructions.
_LISTED = 104
#: Entries of two bytes that have to be free before a word of inputs is listed, beside a quarter of
#: all: its columns, zeros at both ends, and three pairs of carries. Each 16 columns have one
#: pair of 8 bytes, the quarter; both lists may have begun one, and one lies behind the last.
#: With two words at once carries are twice as many: three eighths of all are kept for them.
_SPARE = LANES + 2 * FILLED + 3 * 4
_SPARE_TWO = _SPARE + 3 * 4

#: What differs between inputs, by the names of trips.
_GO = (
    *("list_digits", "list_digits.word", "list_digits.bit", "dense_planes.add", "add_half_lists"),
    *(f"add_half_lists.block{columns}" for columns in (16, 12, 8, 4)),
    *("add_digits.borrow", "join_pairs", "join_pairs.two", "add_digits.carry"),
)


@dataclass(frozen=True, slots=True)
class DensePlanes:
    """What ``dense_planes.c.j2`` prints.

    ``columns`` has a row a word of outputs, or as many as there are ``at_once``, side by side: a
    column an input, and one of zeros at the offset ``zeros``. ``start`` is what is added to sums
    before they are compared with ``least`` and half of the total; in lanes of ``even`` it is one
    more if the total is even. ``places`` say where a bit is, on CPUs that do not count zeros. Sums
    have ``height`` digits from the listed one on.
    """

    inputs: int
    outputs: int
    bits: int
    row_words: int
    out_words: int
    height: int
    least: int
    planes_at: int
    columns: Table
    start: Table
    even: Table
    places: Table | None
    helpers: tuple[str, ...]
    at_once: int

    @property
    def two(self) -> str:
        """The end of names of helpers for as many words at once."""
        return "_two" if self.at_once == 2 else ""

    @property
    def spare(self) -> int:
        """Entries that have to be free before a word is listed, beside a part of all."""
        return _SPARE if self.at_once == 1 else _SPARE_TWO

    @property
    def tables(self) -> tuple[Table, ...]:
        places = (self.places,) if self.places else ()
        return (self.columns, self.start, self.even, *places)

    @property
    def whole_words(self) -> int:
        """Words of 32 inputs."""
        return self.inputs // LANES

    @property
    def whole_inputs(self) -> int:
        return self.whole_words * LANES

    @property
    def tail(self) -> int:
        """Inputs in a word that has less."""
        return self.inputs % LANES

    @property
    def swaps(self) -> tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...]:
        """What transposes 8 x 8 bits: by how much to shift, a mask, and pairs of words."""
        masks = ((4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555))
        return tuple(
            (by, mask, tuple((k, k + by) for k in range(8) if not k & by)) for by, mask in masks
        )

    @property
    def plane_places(self) -> tuple[int, ...]:
        """Where planes of bits begin, behind one of zeros."""
        return tuple(self.row_words * place for place in range(1, self.bits + 1))

    @property
    def last_place(self) -> int:
        """And the one of zeros behind them."""
        return self.row_words * (self.bits + 1)

    @property
    def zeros(self) -> int:
        """Bytes from the first column to the one of zeros."""
        return COLUMN_BYTES * self.at_once * self.inputs

    @property
    def digit_words(self) -> int:
        """Of all sums, from the digit on that is listed."""
        return self.height * self.out_words

    @property
    def begun_words(self) -> int:
        """And without the highest digit."""
        return self.digit_words - self.out_words

    @property
    def digits(self) -> int:
        """Of a sum in the end."""
        return self.bits + self.height

    @property
    def scratch_words(self) -> int:
        return max(self.planes_at + self.last_place + self.row_words, self.out_words * self.digits)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DensePlanes | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Dense) or not isinstance(source, Ints):
        return None
    count = fan_in(op)
    last = COLUMN_BYTES * count
    if not isinstance(op.head, Threshold) or cpu.word_bits != LANES or last >= OFFSETS:
        return None
    at_once = words_at_once(len(op.weights), cpu) if 2 * last < OFFSETS else 1
    two = "_two" if at_once == 2 else ""
    row_words, out_words = words(count, LANES), words(len(op.weights), LANES)
    # Those without an output have no weights, and a threshold that no dot reaches.
    weights = np.zeros((count + 1, LANES * out_words), bool)
    weights[:count, : len(op.weights)] = op.weights.reshape(-1, count).T
    bound = dot_bound(count, source)
    min_dot = np.full(LANES * out_words, bound + 1, np.int64)
    min_dot[: len(op.weights)] = np.clip(op.head.min_dot, -bound, bound + 1)
    needed = min_dot // 2 + 1
    least = max(int(needed.max()), 0)
    start = least - needed
    height = _height(count, source.bits, int(start.max()))
    # Of which a quarter is spare, or three eighths.
    room = words(-(-4 * (_listed(count) + _SPARE) // 3), 2)
    if at_once == 2:
        room = words(-(-8 * (_listed(count) + _SPARE_TWO) // 5), 2)
    digits = start[:, None] >> np.arange(source.bits + height) & 1
    by_table = "clz" not in cpu.features and "mul" in cpu.features
    counting = ("leading_zeros",) if "clz" in cpu.features else ()
    return DensePlanes(
        inputs=count,
        outputs=len(op.weights),
        bits=source.bits,
        row_words=row_words,
        out_words=out_words,
        height=height,
        least=least,
        planes_at=max(
            out_words * (p + height) + room - row_words * p for p in range(source.bits + 1)
        ),
        columns=column_table("columns", side_by_side(pack(weights, LANES).T, at_once)),
        start=column_table("start", pack(digits.T.astype(bool), LANES).T),
        even=column_table("even", pack(min_dot % 2 == 0, LANES)),
        places=bit_places(at_once) if by_table else None,
        helpers=(
            *("half", "pairs", *two_words(at_once), "half_list_ends", f"half_lists{two}"),
            *(*counting, f"take_bit{two}", "signed_columns"),
            *(f"list_digits{two}", f"add_digits{two}"),
        ),
        at_once=at_once,
    )


def _listed(count: int) -> int:
    """Columns of a digit that can be listed before some have to be added."""
    return min(count, _LISTED)


def _height(count: int, bits: int, start: int) -> int:
    """Digits that sums need, from the listed one on, and in the end together with ``start``.

    A digit adds at most ``count`` to sums, and an excess of up to 15 whenever columns are added: if
    more than ``_listed`` are there, and at the end. Those before it add less than it does. In the
    end an input has added 4 / 3 of 2**bits at most, which is the number 10101... in digits, and all
    excess, of digits up to bits - 2, is less than 8 times 2**bits whenever columns are added.
    """
    times = count // _listed(count) + 1
    height = (count + (BLOCK - 1) * times - 1).bit_length() + 1
    most = start + 1 + (4 * count // 3 + 8 * times + 1 << bits)
    return max(height, most.bit_length() - bits)


def pays(view: DensePlanes) -> bool:
    """Whether subset sums would take more instructions, counted on random inputs.

    A word of outputs costs about as much as 3 * bits - 3 outputs by subset sums, and for each digit
    as much as 128 products. Measured on Cortex-M4, Cortex-M0 and RV32IMC, for 16 to 784 inputs of 1
    to 8 bits; docs/kernels.md has a table. Images have less digits than random inputs.
    """
    word = 3 * view.bits - 3 + 128 * (view.bits + 1) // view.inputs
    return view.outputs >= word * view.out_words


def trips(view: DensePlanes, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    rows = values[0].reshape(len(values[0]), -1)
    weights = _weights(view)
    each = [_input_trips(view, weights, row) for row in rows]
    found: Trips = {name: np.array([one[name] for one in each]) for name in each[0]}
    return parts.total(_at_once(view, found), _fixed_trips(view))


def _at_once(view: DensePlanes, found: Trips) -> Trips:
    """With the names of adding two words at once where that is done."""
    adding = {name: count for name, count in found.items() if name.startswith(("add_", "join_"))}
    others = {name: count for name, count in found.items() if name not in adding}
    return others | parts.at_once(adding, view.at_once)


def _fixed_trips(view: DensePlanes) -> Trips:
    """What all inputs have in common."""
    tail = view.tail > 0
    return {
        "dense_planes": 1,
        "dense_planes.transpose": view.whole_words * (view.whole_words > 1) + tail,
        "dense_planes.single": view.whole_words == 1,
        "dense_planes.plane": view.bits * view.row_words,
        "dense_planes.tail": tail,
        "dense_planes.tail_input": view.tail,
        "dense_planes.zero": view.begun_words,
        "dense_planes.digit": view.bits + 1,
        "dense_planes.digit_word": (view.bits + 1) * view.out_words,
        "sums_reach": view.out_words,
        "sums_reach.digit": view.out_words * view.digits,
    }


def _weights(view: DensePlanes) -> NDArray[np.float32]:
    """(lanes, inputs of whole words): 1 for +1. The largest sums are exact."""
    table = np.asarray(view.columns.values).reshape(-1, view.inputs + 1, view.at_once)
    columns = table.swapaxes(1, 2).reshape(view.out_words, -1)[:, : view.inputs]
    lanes = (columns[:, None, :] >> np.arange(LANES, dtype=np.uint32)[:, None] & 1).astype(bool)
    weights = np.zeros((LANES * view.out_words, LANES * view.row_words), np.float32)
    weights[:, : view.inputs] = lanes.reshape(-1, view.inputs)
    return weights


def _input_trips(
    view: DensePlanes, weights: NDArray[np.float32], values: NDArray[np.int64]
) -> dict[str, int]:
    """What one input lists: digits one after the other, in as many goes as memory asks for."""
    found = Counter[str]()
    left = np.pad(values, (0, LANES * view.row_words - len(values)))
    sums = np.zeros(len(weights), np.int64)
    for p in range(view.bits + 1):
        odd, above = left & 1, left >> 1 & 1
        digits = odd * (1 - 2 * above) if p < view.bits else odd
        left = (left - digits) >> 1
        plus = (digits > 0).reshape(-1, LANES).sum(axis=1)
        minus = (digits < 0).reshape(-1, LANES).sum(axis=1)
        room, spare = _room(view, p)
        word = 0
        while word < view.row_words:
            added, taken, first = 0, 0, LANES * word
            found["list_digits"] += 1
            while word < view.row_words and room - added - taken >= spare:
                added, taken, word = added + int(plus[word]), taken + int(minus[word]), word + 1
            go = slice(first, LANES * word)
            change = (weights[:, go] @ digits[go].astype(np.float32)).astype(np.int64)
            sums += _go(found, sums, change, added, taken)
        sums >>= 1  # of this digit nothing changes any more
        found["list_digits.word"] += view.row_words
        found["list_digits.bit"] += int(plus.sum() + minus.sum())
    return {name: found[name] for name in _GO}


def _room(view: DensePlanes, p: int) -> tuple[int, int]:
    """Entries between sums and planes at digit p, and those that are free when a word is listed."""
    room = 2 * (view.planes_at + p * view.row_words - p * view.out_words - view.digit_words)
    return room, view.spare + (room // 4 if view.at_once == 1 else room // 2 * 3 // 4)


def _go(
    found: Counter[str], sums: NDArray[np.int64], change: NDArray[np.int64], added: int, taken: int
) -> NDArray[np.int64]:
    """Adds what ends one go; returns what is added to ``sums``, which is ``change`` and excess."""
    if not added + taken:
        return change
    words = len(sums) // LANES
    found["dense_planes.add"] += 1
    found["add_half_lists"] += words
    for columns in (added, taken):
        found["add_half_lists.block16"] += words * (columns // BLOCK)
        if over := columns % BLOCK:
            found[f"add_half_lists.block{over + -over % 4}"] += words  # 13 to 15 are a whole one
    borrows = -(-taken // BLOCK)
    found["add_digits.borrow"] += words * borrows
    pairs, last = -(-added // BLOCK) + borrows, 3
    while pairs > 1:
        pairs, last = (pairs + 1) // 2, last + 1
        found["join_pairs"] += words
        found["join_pairs.two"] += words * pairs
    change = change + BLOCK * borrows
    flips = ((sums + change) ^ sums) >> (last + 1)  # what a carry beyond the last pair changes
    carries = np.frexp(flips.reshape(words, LANES).max(axis=1))[1]
    found["add_digits.carry"] += int(carries.sum())
    return change


def most(view: DensePlanes, cpu: Cpu, price: Price) -> float:
    """Two digits in turn have no more entries than there are inputs, as one of each is 0.

    The dearest of all numbers of entries that this leaves, from the highest digit to the lowest.
    """
    numbers = np.arange(view.inputs + 1)
    word = {"list_digits.word": view.row_words * (view.bits + 1)}
    above = np.zeros(
        len(numbers)
    )  # what this digit and those above take, if it has so many or less
    for p in range(view.bits, -1, -1):
        above = np.maximum.accumulate(_digit_most(view, p, price) + above[::-1])
    return float(price(_fixed_trips(view) | word)[0] + above[-1])


def _digit_most(view: DensePlanes, p: int, price: Price) -> NDArray[np.float64]:
    """What a digit takes at most, by how many entries it has.

    A go ends when a number of them are listed, with up to a word more. Shared out between both
    lists they are as dear as can be: sixteen of them cost the same wherever they are, so one list
    has all but a few.
    """
    room, spare = _room(view, p)
    full = room - spare + 1
    longest = min(view.inputs, full - 1 + LANES)
    listed = np.arange(longest + 1)[:, None]
    few = np.arange(BLOCK if p < view.bits else 1)  # the highest digit is never -1
    ends = np.concatenate([np.minimum(few, listed), np.maximum(listed - few, 0)], axis=1)
    each = price(_at_once(view, _go_trips(view, ends.ravel(), (listed - ends).ravel())))
    go = each.reshape(ends.shape).max(axis=1)
    found = np.zeros(view.inputs + 1)
    found[: min(full, longest + 1)] = go[:full]
    for number in range(full, view.inputs + 1):
        last = min(number, longest)
        found[number] = (go[full : last + 1] + found[number - last : number - full + 1][::-1]).max()
    return found + price({"list_digits.bit": np.arange(view.inputs + 1)})


def _go_trips(view: DensePlanes, added: Counts, taken: Counts) -> Trips:
    """Of adding up one go of so many entries, each of whose carries runs to the highest digit."""
    words, there = view.out_words, (added + taken > 0).astype(np.int64)
    found: Trips = {"list_digits": 1, "dense_planes.add": there, "add_half_lists": words * there}
    whole = [columns + -columns % 4 for columns in (added, taken)]
    for columns in (16, 12, 8, 4):
        blocks = [one // BLOCK if columns == BLOCK else one % BLOCK == columns for one in whole]
        found[f"add_half_lists.block{columns}"] = words * (blocks[0] + blocks[1].astype(np.int64))
    borrows = -(-taken // BLOCK)
    pairs, last = -(-added // BLOCK) + borrows, 3 * there
    joined, two = np.zeros_like(pairs), np.zeros_like(pairs)
    while np.any(pairs > 1):
        joining = pairs > 1
        pairs = np.where(joining, (pairs + 1) // 2, pairs)
        last, joined, two = last + joining, joined + joining, two + pairs * joining
    found["add_digits.borrow"] = words * borrows
    found["join_pairs"], found["join_pairs.two"] = words * joined, words * two
    found["add_digits.carry"] = words * there * np.maximum(view.height - 1 - last, 0)
    return found


KERNEL = Kernel(
    "dense_planes",
    "digit_columns",
    ((Dense,),),
    frozenset({Layout.BYTES}),
    fit,
    rank=-1,
    pays=pays,
    constant_time=False,
    trips=trips,
    most=most,
    printed=lambda view: {"dense_planes.planes": view.bits},
)
