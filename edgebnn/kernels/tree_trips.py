"""How often the parts of ``conv_tree`` run: pairs of windows without a pixel are passed over."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Price, Trips, Values
from edgebnn.targets.base import Cpu

_REGISTERS = 4  # for values: if there are more, some are on the stack
_HELD = (0, 4, 9, 12, 18, 27)  # words at once: of few, some are in registers
_NEAR = 31  # words that an instruction of Thumb-1 reaches; offsets of others are values as well
_SHARED = 128  # filters of one tap; they share what they shift

if TYPE_CHECKING:
    from edgebnn.kernels.conv_tree import ConvTree


def trips(view: "ConvTree", values: tuple[Values, ...], cpu: Cpu) -> Trips:
    s, w = view.strip, view.window
    images = values[0].reshape(len(values[0]), w.height, w.width, s.channels) != view.blank
    height = max(w.pad_top + w.height, (view.out_height - 1) * s.step + s.rows)
    seen = np.zeros((len(images), height, s.columns + s.apart, s.channels), bool)
    seen[:, w.pad_top : w.pad_top + w.height, s.before : s.before + s.pixels] = images[
        :, :, : s.pixels
    ]
    words = seen[:, :, : s.columns] | seen[:, :, s.apart :]  # of the strip: two pixels each
    blank = np.ones((len(images), view.out_height, view.pairs), bool)
    checks = np.zeros(len(images))
    for word in view.cover:
        column, rest = divmod(word, s.column)
        row, channel = divmod(rest, s.channels)
        first = s.lead + column
        checks += parts.per_input(blank)
        blank &= ~words[
            :,
            row : row + s.step * (view.out_height - 1) + 1 : s.step,
            first : first + 2 * s.apart * (view.pairs - 1) + 1 : 2 * s.apart,
            channel,
        ]
    pairs = view.out_height * view.pairs
    return parts.total(
        _strip_trips(view),
        parts.times(_window_trips(view), pairs - parts.per_input(blank)),
        parts.times(_blank_trips(view), parts.per_input(blank)),
        {"conv_tree.pair": pairs, "conv_tree.check": checks},
    )


def most(view: "ConvTree", cpu: Cpu, price: Price) -> float:
    """A pair of windows is looked at for pixels, in the last place at last, then it is computed."""
    looked = {"conv_tree.pair": 1, "conv_tree.check": len(view.cover)}
    blank = parts.total(looked, _blank_trips(view))
    computed = parts.total(looked, _window_trips(view))
    pair = max(price(blank)[0], price(computed)[0])
    return float(price(_strip_trips(view))[0] + view.out_height * view.pairs * pair)


def printed(view: "ConvTree") -> Trips:
    """The code of all filters; "places" are the words of a strip that it reads."""
    sums = [one for word in view.words for each in word.filters for one in each.sums]
    terms = {term.word for one in sums for term in one.terms}
    places = terms.union(*(one.words for one in view.totals))
    return _window_trips(view) | {
        "conv_tree.places": len(places),
        "conv_tree.totals": len(view.totals),
    }


def held(view: "ConvTree") -> Trips:
    """What the code of all filters has at once.

    Compilers load a word of the strip once, and hold it until the last filter that adds it: nearly
    all of them end on the stack, a word each. So do values of filters that others are made from.
    """
    reads = Counter([*view.common, *(word for one in view.totals for word in one.words)])
    filters = [one for word in view.words for one in word.filters]
    reads.update(term.word for each in filters for one in each.sums for term in one.terms)
    words = sum(count > 1 for count in reads.values())
    kind = next((str(end) for end in _HELD if words <= end), "many")
    return {
        "conv_tree.held": words,
        f"conv_tree.held[{kind}]": 1,
        "conv_tree.values": len(view.variables.split(",")) + len(view.digits),
        "conv_tree.planes": len(view.planes),
        "conv_tree.words": min(len(view.words), 4) - 1,
        "conv_tree.far": max(len(view.cover) - _NEAR, 0),
        "conv_tree.shared": min(len(filters), _SHARED) * (words == 0),
        f"conv_tree.form[{len(view.totals)}, {'joined' if view.joined else 'apart'}]": 1,
    }


def _strip_trips(view: "ConvTree") -> Trips:
    s, w = view.strip, view.window
    tops = np.arange(view.out_height) * s.step - w.pad_top
    rows = (tops[:, None] + np.arange(s.rows))[np.arange(view.out_height) > 0, s.kept_rows :]
    rows = np.concatenate([tops[0] + np.arange(s.rows), rows.ravel()])
    inside = int(((rows >= 0) & (rows < w.height)).sum())
    few = parts.special("conv_tree.channels", s.channels)
    several = s.channels > 1
    pads = inside * (s.before + s.behind) + (len(rows) - inside) * s.columns
    moves = (view.out_height - 1) * (s.kept_rows > 0)
    return {
        "conv_tree": 1,
        "conv_tree.line": view.out_height,
        "conv_tree.row": inside,
        "conv_tree.outside": len(rows) - inside,
        "conv_tree.pixel": inside * s.pixels,
        "conv_tree.value": inside * s.pixels * s.channels * several,
        few: inside * s.pixels,
        "conv_tree.pad": pads,
        "conv_tree.pads": pads * s.channels * several,
        f"{few}.pad": pads,
        "conv_tree[blank]": inside * s.pixels * s.channels * (view.blank > 0),
        "conv_tree.move": moves * s.columns,
        "conv_tree.moved": moves * s.columns * s.kept_rows * s.channels,
    }


def _blank_trips(view: "ConvTree") -> Trips:
    """A pair of windows without a pixel."""
    words = len(view.words)
    more = {"conv_tree.blank.plane": words * len(view.higher)} if view.higher else {}
    return {"conv_tree.blank": words} | more


def _level_trips(view: "ConvTree", counts: dict[str, int]) -> Trips:
    """What several thresholds take beside one: numbers added, digits put to lanes, and planes.

    ``counts`` are those of all else, in whose code fewer values are on the stack, as compilers
    compute filter by filter.
    """
    filters = [one for word in view.words for one in word.filters]
    digits = [digit for each in filters for digit in each.digits]
    reached = [one for digit in digits for one in digit.reached if one.sign]
    rows = f"conv_tree.rows{len(view.totals)}"
    form = f"conv_tree[{len(view.totals)}, {'joined' if view.joined else 'apart'}]"
    large = sum(one.number > 255 * 0x10001 for one in reached)
    return {
        f"{rows}.level": len(reached),
        f"{rows}.level[large]": large,
        f"{rows}.digit": len(digits) - len(filters),
        f"{form}.plane": len(view.words) * len(view.higher),
        **{f"{rows}[levels].{name}": count for name, count in counts.items()},
    }


def _window_trips(view: "ConvTree") -> Trips:
    """The code of all filters, once."""
    filters = [one for word in view.words for one in word.filters]
    sums = [one for each in filters for one in each.sums]
    rows = f"conv_tree.rows{len(view.totals)}"
    form = f"conv_tree[{len(view.totals)}, {'joined' if view.joined else 'apart'}]"
    words = len(view.words)
    counts = {
        "total": len(view.common) + sum(len(one.words) for one in view.totals),
        "filter": len(filters),
        "sum": len(sums),
        "addition": sum(len(one.terms) for one in sums),
        "copy": sum(one.name != one.origin for one in sums),
        "shifted": sum(one.shift > 0 for one in filters),
        "spilled": len(filters) * max(len(view.variables.split(",")) - _REGISTERS, 0),
        "number": sum(0 < one.number <= 255 * 0x10001 for one in sums),
        "large": sum(one.number > 255 * 0x10001 for one in sums),
        "word": words,
    }
    return {
        "conv_tree.windows": 1,
        rows: 1,
        f"{form}.word": words,
        "conv_tree[single].word": words * view.single,
        "conv_tree.halves": sum(word.halves for word in view.words),
        "conv_tree[padded totals]": bool(view.bias),
        **{f"conv_tree.{name}": count for name, count in counts.items()},
        **{f"{rows}.{name}": count for name, count in counts.items()},
        **(_level_trips(view, counts) if view.higher else {}),
    }
