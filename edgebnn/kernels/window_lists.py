"""What kernels share that list the set bits of each window, a row of the image once for a strip.

:mod:`edgebnn.kernels.conv_direct` says why.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Trips, Window
from edgebnn.kernels.columns import Strips, in_strips
from edgebnn.kernels.trips import Counts
from edgebnn.targets.base import Cpu

_BLOCK = 8  # columns: a list has whole blocks


@dataclass(frozen=True, slots=True)
class WindowLists:
    """What ``direct_row.c.j2`` and the loops around it print."""

    outputs: int
    inputs: int
    strips: Strips
    slices: int  # digits of sums

    @property
    def window(self) -> Window:
        return self.strips.window

    @property
    def zeros(self) -> int:
        """Bytes from the first column to the one of zeros."""
        return self.strips.column_bytes * self.inputs

    @property
    def overlap(self) -> int:
        """Rows that a window shares with the one above it."""
        return max(self.window.kernel_height - self.window.stride_y, 0)

    @property
    def shift_bytes(self) -> int:
        """From the columns of a window to those of the next."""
        return self.window.stride_y * self.strips.row_bytes

    @property
    def room(self) -> int:
        """Entries that a row may need, and the end of a list."""
        return self.window.kernel_width * self.strips.channels + _BLOCK

    @property
    def capacity(self) -> int:
        """Entries of a list: the set bits of a window, one more, and zeros."""
        return self.inputs + _BLOCK

    @property
    def carry_words(self) -> int:
        """Two bits of 16 columns each, and as much behind the last."""
        return 2 * (-(-self.capacity // 16) + 1) * self.strips.abreast.size


def whole_blocks(listed: Counts) -> Counts:
    """Columns of lists that are filled up with zeros."""
    return np.asarray(listed + -listed % _BLOCK)


def listed(view: WindowLists, bits: NDArray[np.bool_], cpu: Cpu) -> tuple[Counts, Trips]:
    """(N, windows) numbers of bits listed, of (N, height, width, channels), and what that takes."""
    s, w = view.strips, view.window
    set_bits = in_strips(bits.sum(axis=3), s)
    steps = in_strips(parts.steps(parts.in_words(bits, s.pixel.bits), cpu), s)
    pixels = in_strips(np.ones((1, w.height, w.width), np.int64), s)
    inside = (np.arange(-w.pad_top, w.height + w.pad_bottom) >= 0) & (
        np.arange(-w.pad_top, w.height + w.pad_bottom) < w.height
    )
    slots = np.zeros((w.kernel_height, *set_bits.shape[:2]), np.int64)
    begin, end = np.zeros_like(slots[0]), np.zeros_like(slots[0])
    kind = ".overlap" if view.overlap else ".apart"
    sides = f"{'left' * bool(w.pad_left)}{'right' * bool(w.pad_right)}"
    sides += "pieces" * (not s.in_one_piece)
    found: Trips = {}
    columns = []
    moved, moves, slot = np.zeros(len(bits), np.int64), np.zeros(len(bits), np.int64), 0
    for row in range(s.rows):
        top = row * w.stride_y
        if not view.overlap:
            end = np.zeros_like(end)
        for ky in range(view.overlap if row else 0, w.kernel_height):
            if view.overlap:
                if row:
                    begin = begin + slots[slot]
                full = view.capacity - end < view.room
                moved += parts.per_input((end - begin) * full)
                moves += parts.per_input(full)
                begin, end = np.where(full, 0, begin), np.where(full, end - begin, end)
                slots[slot] = set_bits[:, :, top + ky]
                slot = (slot + 1) % w.kernel_height
            end = end + set_bits[:, :, top + ky]
            y = int(inside[top + ky])
            calls = s.columns if s.in_one_piece else int(pixels[0, :, top + ky].sum())
            found = parts.total(
                found,
                {"conv_direct.row": s.columns, "conv_direct.inside": s.columns * y},
                {f"conv_direct{kind}.row": s.columns, f"conv_direct[{sides}].row": s.columns},
                {"conv_direct.pixel": 0 if s.in_one_piece else calls * y},
                parts.list_columns(
                    calls * y,
                    int(pixels[0, :, top + ky].sum()) * s.pixel.words,
                    parts.per_input(set_bits[:, :, top + ky]),
                    parts.per_input(steps[:, :, top + ky]),
                    cpu,
                ),
            )
        columns.append(end - begin)
    both = np.stack(columns, axis=1).reshape(len(bits), -1)
    return both, found | {"conv_direct.move": moves, "conv_direct.moved": moved}


def bits_inside(view: WindowLists) -> NDArray[np.int64]:
    """(rows, strips) bits of windows that lie in the image."""
    s, w = view.strips, view.window
    there = in_strips(np.full((1, w.height, w.width), s.channels, np.int64), s)[0]
    tops = [row * w.stride_y for row in range(s.rows)]
    return np.stack([there[:, top : top + w.kernel_height].sum(axis=1) for top in tops])
