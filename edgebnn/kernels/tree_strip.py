"""What of an image ``conv_tree`` has in scratch memory, and where the taps of windows lie in it.

A word is two pixels, one of each window of a pair: what is in both windows is in two words.
"""

from dataclasses import dataclass, replace

from edgebnn.kernels.base import Window

Places = tuple[int, ...]
"""Of the taps in the strip, from the first window of a pair on."""


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


def transposed(w: Window) -> Window:
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


def strip_of(w: Window, channels: int, pool: tuple[int, int]) -> Strip:
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


def places_of(w: Window, strip: Strip, row: int) -> Places:
    """Where the taps lie, from the first word of a pair of windows; ``row`` is that of a pool."""
    return tuple(
        x * strip.column + (row * w.stride_y + y) * strip.channels + channel
        for y in range(w.kernel_height)
        for x in range(w.kernel_width)
        for channel in range(strip.channels)
    )


def cover_of(w: Window, strip: Strip, places: list[Places]) -> tuple[int, ...]:
    """Words that have each pixel of a pair of windows, as the left or as the right one."""
    wanted = {x + right for x in range(w.kernel_width) for right in (0, w.stride_x)}
    columns: set[int] = set()
    for x in sorted(wanted):
        if not {x, x - w.stride_x} & columns:
            columns.add(x if x < w.kernel_width else x - w.stride_x)
    words = {word for row in places for word in row}
    return tuple(word for word in sorted(words) if word // strip.column in columns)
