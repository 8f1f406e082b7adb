"""What kernels share that go down an image and list how each row differs from the one above it.

:mod:`edgebnn.kernels.conv_delta` says why.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import pack
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Price, Table, Trips, Window
from edgebnn.kernels.columns import BLOCK, FILLED, Strips, in_strips
from edgebnn.kernels.pixels import own_table
from edgebnn.kernels.trips import Counts
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class Differences:
    """What ``delta_row.c.j2`` and ``delta_carries.c.j2`` print: lists of columns, and counters.

    ``ones`` is how many bits are set before the first window: all or none.
    """

    outputs: int
    inputs: int
    strips: Strips
    slices: int  # digits of counters
    ones: int
    places: bool

    @property
    def window(self) -> Window:
        return self.strips.window

    @property
    def outside_value(self) -> str:
        return "+1" if self.ones else "-1"

    @property
    def zeros(self) -> int:
        """Bytes from the first column to the one of zeros."""
        return self.strips.column_bytes * self.inputs

    @property
    def kept(self) -> int:
        """Rows of the first window that are listed as they are: at most one is in the image."""
        return min(self.window.pad_top + 1, self.window.kernel_height)

    @property
    def relisted(self) -> int:
        return self.window.kernel_height - self.kept

    @property
    def upper_slices(self) -> tuple[int, ...]:
        """Digits that columns reach by carries alone."""
        return tuple(range(3, self.slices))

    @property
    def room(self) -> int:
        """Entries that a row may need, and what both lists end in."""
        return self.window.kernel_width * self.strips.channels + 2 * FILLED

    @property
    def capacity(self) -> int:
        """Entries of both lists; each bit of a window is in one of them at most."""
        return self.inputs + 2 * FILLED

    @property
    def carry_words(self) -> int:
        """Two bits of a block each, abreast, and as much of what is left in each list."""
        return 2 * self.strips.abreast.size * (self.capacity // BLOCK + 2)


def goes_down(strips: Strips) -> bool:
    """Whether windows below each other share rows, and what lies around the image is bits."""
    w = strips.window
    return w.stride_y == 1 and w.kernel_height > 1 and strips.rows > 1 and not w.zero_padded


def outside(strips: Strips, plus: bool, cpu: Cpu) -> Table:
    """A row of a window outside the image."""
    line = np.full((strips.window.kernel_width, strips.channels), plus)
    return own_table("outside", pack(line, strips.pixel.bits).reshape(-1), cpu)


# --- trips ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """The lists of all windows of one plane, (N, strips, rows), and what it takes to make them."""

    added: Counts
    taken: Counts
    trips: Trips


def listed(view: Differences, bits: NDArray[np.bool_]) -> Listed:
    """What is listed of (N, height, width, channels) bits."""
    s, w = view.strips, view.window
    tall = w.kernel_height
    sides = ((0, 0), (w.pad_top, w.pad_bottom), (0, 0), (0, 0))
    rows = np.pad(bits, sides, constant_values=bool(view.ones))
    above = np.pad(rows, ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=bool(view.ones))[:, :-1]
    inner = _across(s)
    added = in_strips((rows & ~above).sum(axis=3), inner)
    taken = in_strips((above & ~rows).sum(axis=3), inner)
    first_added = in_strips((rows & (not view.ones)).sum(axis=3), inner)[:, :, :tall]
    first_taken = in_strips((~rows & bool(view.ones)).sum(axis=3), inner)[:, :, :tall]
    pixels = int(in_strips(np.ones((1, 1, w.width), np.int64), inner).sum())  # of a row

    number = s.rows - 1 + tall + view.relisted  # rows of each strip
    calls = s.columns if s.in_one_piece else pixels
    low, high = 0, view.capacity
    # Ends of the lists, as places in the memory that they share.
    a, a_end = np.zeros(added.shape[:2], np.int64), first_added.sum(axis=2)
    t, t_end = high - first_taken.sum(axis=2), np.full_like(a, high)
    bits_listed = parts.per_input(first_added) + parts.per_input(first_taken)
    moved, moves = np.zeros(len(bits), np.int64), np.zeros(len(bits), np.int64)
    lengths = []
    for row in range(s.rows):
        if row:
            old = row - 1
            a, t_end = a + added[:, :, old], t_end - taken[:, :, old]
            full = t - a_end < view.room
            moved += parts.per_input((a_end - a + t_end - t) * full)
            moves += parts.per_input(full)
            a, a_end = np.where(full, low, a), np.where(full, low + a_end - a, a_end)
            t, t_end = np.where(full, high - (t_end - t), t), np.where(full, high, t_end)
            new = row + tall - 1
            a_end, t = a_end + added[:, :, new], t - taken[:, :, new]
            bits_listed += parts.per_input(added[:, :, new] + taken[:, :, new])
        lengths.append((a_end - a, t_end - t))
        if not row:
            kept = slice(0, view.kept)
            again = slice(view.kept, tall)
            a_end = a + added[:, :, kept].sum(axis=2) + added[:, :, again].sum(axis=2)
            t = t_end - taken[:, :, kept].sum(axis=2) - taken[:, :, again].sum(axis=2)
            bits_listed += parts.per_input(added[:, :, again] + taken[:, :, again])
    edges = f"{'left' * bool(w.pad_left)}{'right' * bool(w.pad_right)}"
    edges += "pieces" * (not s.in_one_piece)
    found: Trips = {
        parts.special("conv_delta.first", tall): s.columns * tall,
        "conv_delta.row": s.columns * number,
        f"conv_delta[{edges}].row": s.columns * number,
        "conv_delta.outside": s.columns * (w.pad_top + w.pad_bottom),
        "conv_delta.pixel": 0 if s.in_one_piece else pixels * number,
        "list_changes": calls * number,
        "list_changes.word": pixels * s.pixel.words * number,
        "list_changes.bit": bits_listed,
        "drop_row": s.columns * (s.rows - 1),
        "drop_row.move": moves,
        "drop_row.moved": moved,
    }
    both = [np.stack(lists, axis=2) for lists in zip(*lengths, strict=True)]
    return Listed(both[0], both[1], found)


def added_up(view: Differences, lists: Counts, pair: str) -> Trips:
    """Of adding (N, ...) lists to the counters; ``pair`` is what a block of one leaves."""
    words, whole = view.strips.out_words, lists + -lists % 4
    pairs = words * parts.per_input(-(-whole // BLOCK))
    found: Trips = {pair: pairs, "conv_delta.digit": (view.slices - 5) * pairs}
    for columns in (16, 12, 8, 4):
        blocks = whole // 16 if columns == 16 else whole % 16 == columns
        found[f"add_lists.block{columns}"] = words * parts.per_input(blocks)
    return parts.at_once(found, view.strips.at_once)


# --- the most -------------------------------------------------------------------------------------


def longest(view: Differences) -> tuple[Trips, Counts]:
    """What lists of one plane take at most, and (rows, strips) how many entries they may have.

    At most all bits of a row differ from those of the row above it, as in stripes across. So no
    list is longer, none is moved more often or sooner.
    """
    s, w = view.strips, view.window
    line = in_strips(np.full((1, 1, w.width), s.channels), _across(s))[0]  # bits of a row
    place = np.arange(s.rows + w.kernel_height - 1) - w.pad_top
    caps = line * ((place >= 0) & (place <= w.height))  # the row below the image differs as well
    listed, moves, moved = 0, 0, 0
    # Set bits of the first window are listed, then where its rows differ: most if rows take turns.
    first = min(w.height, w.kernel_height - w.pad_top)
    listed += (line * (first + (first - 1) // 2)).sum() + caps[:, w.pad_top + first :].sum()
    used = caps[:, : w.kernel_height].sum(axis=1)
    entries = [used]
    for row in range(1, s.rows):
        live = caps[:, row : row + w.kernel_height - 1].sum(axis=1)
        full = view.capacity - used < view.room
        moves, moved = moves + int(full.sum()), moved + int((live * full).sum())
        used = np.where(full, live, used) + caps[:, row + w.kernel_height - 1]
        entries.append(live + caps[:, row + w.kernel_height - 1])
    changes = {"list_changes.bit": listed, "drop_row.move": moves, "drop_row.moved": moved}
    return changes, np.stack(entries)


def dearest(view: Differences, price: Price, beside: float) -> NDArray[np.float64]:
    """What a window takes beside its lists, at most, by how many entries they may have.

    What it adds up may take more with an entry less, or if entries are shared out otherwise between
    the two lists: of all that there can be the dearest is taken. ``beside`` is what it takes where
    there is an entry at all.
    """
    number = np.arange(view.inputs + 1)[:, None]
    added, taken = (
        price(added_up(view, number, f"conv_delta.{pair}")) for pair in ("carry", "borrow")
    )
    # Sixteen entries cost the same wherever they are, so one list has all but a few.
    few = number[:BLOCK]
    rest = number[:, 0] - few
    there = np.where(
        rest < 0, -np.inf, np.maximum(added[few] + taken[rest], added[rest] + taken[few])
    )
    each = np.maximum(there.max(axis=0) + beside, 0)
    each[0] = 0
    return np.asarray(np.maximum.accumulate(each))


def _across(s: Strips) -> Strips:
    """The same strips, without rows above and below the image."""
    return replace(s, window=replace(s.window, pad_top=0, pad_bottom=0))
