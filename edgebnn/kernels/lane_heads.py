"""Heads of layers by columns beyond one bit: levels, sums, and bits made of levels.

Of K inputs in P planes let n[p] bits of plane p be set, a[p, o] of them where row o of the weights
has +1, as w[o] of all its weights are. With m = 2**P - 1, n the sum of ``n[p] << p`` and a[o] that
of ``a[p, o] << p``, which lanes count,

    dot[o] = 2 * (2 * a[o] + u) - m * (K + 2 * w[o]),  where u = m * K - n >= 0

So x[o] = 2 * a[o] + u says all, a number of one binary digit that all lanes share, above it the
digits of a[o] + (u >> 1). A threshold t is x[o] >= ceil((t + m * (K + 2 * w[o])) / 2), which is
between 0 and 2 * m * K + 1 wherever it matters. Thresholds rise, so they are reached one after the
other, and the digits of how many are XORs: of all, of every second one, of every fourth one.

A pool takes the largest numbers lane by lane, of levels in their planes and of sums in x. Sums come
in pairs: the lanes of two neighbours are 16 apart, so that both are made at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import pack, plane_words, sum_bits
from edgebnn.ir import Bits, Sums
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Table, Trips
from edgebnn.kernels.columns import (
    LANES,
    Strips,
    StripsConv,
    column_table,
    lane_digits,
    result_trips,
)
from edgebnn.kernels.trips import Counts
from edgebnn.targets.base import Cpu

_PAIRS = LANES // 2


@dataclass(frozen=True, slots=True)
class LaneHead:
    """What ``lane_head.c.j2`` prints.

    Lanes count in ``digits``; ``most`` is m * K. ``kind`` is "bits", "levels" or "sums". Planes of
    the result are ``plane_words`` of its own apart; ``planes`` says of each which levels decide.
    ``pairs`` are those of sums that a pixel has for 32 lanes, in the last word ``last_pairs``.
    """

    kind: str
    digits: int
    most: int
    levels: int
    planes: tuple[tuple[int, ...], ...]
    plane_words: int
    pairs: int
    last_pairs: int
    pooled: bool
    tables: tuple[Table, ...]

    @property
    def numbers(self) -> int:
        """Digits of x, the one that all lanes share among them."""
        return self.digits + 1

    @property
    def helpers(self) -> tuple[str, ...]:
        if self.kind != "sums":
            return ("lane_numbers", "lanes_reach")
        return ("lane_numbers", *(("larger_numbers",) if self.pooled else ()), "lane_sums")

    def bits_of(self, plane: int) -> str:
        """C: the bits of a plane of the result."""
        return " ^ ".join(f"reach{level}" for level in self.planes[plane])

    def limits_of(self, level: int) -> str:
        """C: the row of a level, of those of word w."""
        row = level - 1
        if len(self.tables[0].values) == self.levels:
            return f"{row}"
        first = f"{self.levels}u * w" if self.levels > 1 else "w"
        return f"{first} + {row}u" if row else first

    def place(self, word: int | str, plane: int) -> str:
        """C: the index of a word of a pixel in a plane of the result."""
        beyond = plane * self.plane_words
        if isinstance(word, int):
            return f"{word + beyond}"
        return f"{word} + {beyond}u" if beyond else word


def lane_head(conv: StripsConv, cpu: Cpu) -> LaneHead | None:
    """The head of a layer that does more than to tell signs; None where it cannot be by columns."""
    count, source, result, s = conv.rows.shape[1], conv.source, conv.result, conv.strips
    levels, most = len(conv.min_dots), source.levels * count
    digits = max(most.bit_length(), 2 + source.planes)
    pairs = last_pairs = 0
    if isinstance(result, Sums):
        last_pairs = (len(conv.rows) - 1) % LANES // 2 + 1
        pairs = _PAIRS if s.out_words > 1 else last_pairs
        if sum_bits(result) != 16 or (s.pooled and last_pairs <= digits):
            return None  # a pool keeps x where its sums will be
        if conv.all_set.any():
            return None
        kind = "sums"
    else:
        kind = "levels" if result.planes > 1 else "bits"
    return LaneHead(
        kind=kind,
        digits=digits,
        most=most,
        levels=levels,
        planes=_planes(levels),
        plane_words=plane_words(result, cpu.word_bits) if isinstance(result, Bits) else 0,
        pairs=pairs,
        last_pairs=last_pairs,
        pooled=s.pooled,
        tables=(_offsets(conv),) if kind == "sums" else (_limits(conv, digits + 1),),
    )


def _planes(levels: int) -> tuple[tuple[int, ...], ...]:
    """Of each binary digit of how many levels are reached those that change it."""
    every = [2**plane for plane in range(levels.bit_length())]
    return tuple(tuple(range(step, levels + 1, step)) for step in every)


def _limits(conv: StripsConv, digits: int) -> Table:
    """(words * levels, digits) what x has to reach; lanes without an output never do."""
    count, m = conv.rows.shape[1], conv.source.levels
    beside = m * (count + 2 * conv.rows.sum(axis=1))
    needed = -(-(conv.min_dots.astype(np.int64) + beside) // 2)
    never = 2 * m * count + 1
    limits = np.full((len(needed), LANES * conv.strips.out_words), never, np.int64)
    limits[:, : len(conv.rows)] = np.clip(needed, 0, never)
    table = lane_digits(limits, digits).swapaxes(0, 1)  # (words, levels, digits)
    return column_table("limits", table.reshape(-1, digits))


def _offsets(conv: StripsConv) -> Table:
    """(words, pairs) what 2 * x has more than sums, the opposite of it, two in a word."""
    count, m = conv.rows.shape[1], conv.source.levels
    offsets = np.zeros(LANES * conv.strips.out_words, np.int64)
    offsets[: len(conv.rows)] = -m * (count + 2 * conv.rows.sum(axis=1))
    low, high = (offsets[part::2] % 2**16 for part in (0, 1))
    return column_table("offsets", (low | high << 16).astype(np.uint32).reshape(-1, _PAIRS))


def lane_columns(conv: StripsConv) -> Table:
    """A row a word of outputs: a column an input, and one of zeros.

    Weights are where lanes are, those of sums 16 apart from their neighbours.
    """
    lanes, count = LANES * conv.strips.out_words, conv.rows.shape[1]
    weights = np.zeros((lanes, count + 1), bool)
    weights[: len(conv.rows), :count] = conv.rows
    if isinstance(conv.result, Sums):
        paired = weights.reshape(-1, _PAIRS, 2, count + 1).swapaxes(1, 2)
        weights = paired.reshape(lanes, count + 1)
    return column_table("columns", pack(weights.T, LANES).T)


def head_trips(head: LaneHead, strips: Strips, set_bits: Counts, all_set: bool) -> Trips:
    """The trips of the head for all windows, in which (N, windows) bits are set, weighted."""
    words, windows = strips.out_words, strips.rows * strips.columns
    there = words * windows
    pixels = there // (strips.pool_height * strips.pool_width)
    kind = f"lane_head[{head.kind}{', pooled' * head.pooled}]"
    carries = parts.below((head.most - set_bits) >> 1, head.digits)
    found: Trips = {
        "lane_head": there,
        kind: there,
        "lane_head.digit": there * head.digits,
        "lane_head.carry": words * parts.per_input(carries),
        "lane_head.level": there * head.levels,
        "lane_head.level.digit": there * head.levels * head.numbers,
    }
    if head.kind == "bits":
        return parts.total(found, result_trips(strips, all_set, "lane_head"))
    if head.kind == "levels":
        inverted = all_set * there * len(head.planes)
        return found | {f"{kind}.plane": there * len(head.planes), "lane_head.all_set": inverted}
    pairs = pixels // words * ((words - 1) * _PAIRS + head.last_pairs)
    return found | {
        "lane_head.sums": pixels,
        "lane_head.pair": pairs,
        "lane_head.pair.digit": pairs * head.numbers,
        "lane_head.kept": there * head.pooled,
        "lane_head.kept.digit": there * head.numbers * head.pooled,
        "lane_head.larger.digit": (there - pixels) * head.numbers * head.pooled,
    }


def printed(head: LaneHead) -> Trips:
    """What the template prints for each level or plane."""
    planes = len(head.planes) * (head.kind == "levels")
    return {
        "lane_head": 1,
        f"lane_head[{head.kind}]": 1,
        "lane_head.levels": head.levels,
        "lane_head.planes": planes,
        "lane_head.pooled": planes * head.pooled,
    }


def plane_bits(values: NDArray[np.int64], planes: int) -> list[NDArray[np.bool_]]:
    """The bits of each plane of levels."""
    reached = (values + (2**planes - 1)) // 2
    return [(reached >> plane & 1).astype(bool) for plane in range(planes)]
