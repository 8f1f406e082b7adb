"""How often the parts of kernels run: what a layer takes is the sum of these, each times its price.

A *trip* is one execution of a part whose code is the same for all layers: a call of a helper, a
word that it reads, a bit that it lists, a block of columns that it adds. Trips are counted on the
values of sample inputs, so they are exact; :mod:`edgebnn.prices` has what a trip takes on a CPU.
A part whose code depends on a shape has a name that says how.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.kernels.base import (
    BitsHead,
    HeadView,
    LevelsHead,
    ScoresHead,
    Table,
    Trips,
    Values,
    Window,
)
from edgebnn.targets.base import Cpu

_WORD = 32
Counts = NDArray[Any]


def total(*parts: Trips) -> Trips:
    """All trips of the parts together."""
    found: Trips = {}
    for part in parts:
        for name, count in part.items():
            found[name] = found[name] + count if name in found else count
    return found


def times(part: Trips, number: Any) -> Trips:
    """The trips of a part that runs ``number`` times."""
    return {name: count * number for name, count in part.items()}


def in_words(bits: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """(..., n) bits -> (..., words, width), with zeros in the tail."""
    gap = -bits.shape[-1] % width
    padded = np.pad(bits, [*[(0, 0)] * (bits.ndim - 1), (0, gap)])
    return padded.reshape(*bits.shape[:-1], -1, width)


def steps(words: NDArray[np.bool_], cpu: Cpu) -> Counts:
    """(..., words, width) bits -> (...) steps in which a CPU looks for set ones.

    One that counts no zeros looks at some bits at a time, up to the highest set one. Of 16 bits it
    is two steps, since each bit has code of its own.
    """
    size = _step(cpu, words.shape[-1])
    there = words.reshape(*words.shape[:-1], -1, size).any(axis=-1)
    places = np.arange(1, there.shape[-1] + 1)
    return np.asarray(_parts(size) * (there * places).max(axis=-1).sum(axis=-1))


def most_steps(bits: int, width: int, rows: int, cpu: Cpu) -> Counts:
    """(rows * bits + 1) the most :func:`steps` in rows of bits in words, by how many are set.

    A word takes all of its own where its last bit is set.
    """
    words = [width] * (bits // width) + [bits % width] * (bits % width > 0)
    size = _step(cpu, width)
    each = np.sort([_parts(size) * -(-word // size) for word in words * rows])[::-1]
    found = np.concatenate([[0], np.cumsum(each)])
    return np.asarray(found[np.minimum(np.arange(rows * bits + 1), len(each))])


def _step(cpu: Cpu, width: int) -> int:
    """Bits of a word of ``width`` that ``list_columns.c.j2`` looks at in a step."""
    if "thumb1" in cpu.features:
        return 4
    return min(width, 16 if "mul" in cpu.features else 8)


def _parts(size: int) -> int:
    return max(size // 8, 1)


def per_input(counts: Counts) -> Counts:
    """The sum of all but the first axis, which is that of the inputs."""
    return np.asarray(counts.reshape(len(counts), -1).sum(axis=1))


def ones(number: int, digits: int) -> int:
    """Set bits among the lowest ``digits`` of a number."""
    return (number & ((1 << digits) - 1)).bit_count()


def set_bits(table: Table) -> int:
    """Set bits of a table of words: weights of +1, whose products some code has a branch for."""
    return sum(int(word).bit_count() for word in table.values.flat)


def below(limits: Counts, digits: int) -> Counts:
    """Set bits among the lowest ``digits`` of each of ``limits``."""
    found = np.zeros_like(limits)
    for digit in range(digits):
        found = found + (limits >> digit & 1)
    return np.asarray(found)


# --- helpers --------------------------------------------------------------------------------------


def list_columns(calls: Any, words: Any, bits: Counts, steps: Counts, cpu: Cpu) -> Trips:
    """Calls of ``list_columns``; CPUs that do not count zeros look at some bits at a time."""
    found: Trips = {
        "list_columns": calls,
        "list_columns.word": words,
        "list_columns.bit": bits,
    }
    if "clz" not in cpu.features:
        found["list_columns.step"] = steps
    return found


def columns_reach(columns: Counts, digits: int, limits: Counts) -> Trips:
    """A call of ``columns_reach`` for each of the lists of so many ``columns``, (N, lists)."""
    blocks, half = columns // 16, columns % 16 // 8
    left, carries = blocks + half, np.zeros_like(blocks)
    for _ in range(digits - 3):
        left = (left + 1) // 2
        carries = carries + left
    return {
        "columns_reach": columns[0].size,
        "columns_reach.block16": per_input(blocks),
        "columns_reach.block8": per_input(half),
        "columns_reach.carry": per_input(carries),
        "columns_reach.digit": columns[0].size * digits,
        "columns_reach.limit": per_input(below(limits, digits)),
    }


def at_once(adding: Trips, words: int) -> Trips:
    """Trips of adding a word of outputs, where so many words are computed at once.

    Code that does so is other code, and its parts have prices of their own.
    """
    if words == 1:
        return adding
    parts = (name.partition(".") for name in adding)
    names = (f"{first}_two{dot}{rest}" for first, dot, rest in parts)
    return dict(zip(names, adding.values(), strict=True))


def mismatches(row_words: int, kind: str = "") -> Trips:
    """One row of ``row_words`` words: the compiler knows their number."""
    blocks, left = divmod(row_words, 8)
    some = "blocks" if blocks > 1 else f"{blocks}"
    return {
        "mismatches": 1,
        "mismatches.block": blocks,
        "mismatches.word": left,
        f"mismatches[{left} beside {some}]": 1,
        f"mismatches{kind}[{some}]": 1,
        f"mismatches{kind}[{some}].word": left,
    }


# --- heads and windows ----------------------------------------------------------------------------


def special(name: str, number: int, most: int = 4) -> str:
    """A name for loops of a few trips, which compilers unroll, and one for all others."""
    return f"{name}[{number}]" if number <= most else f"{name}[many]"


def head(h: HeadView) -> Trips:
    """The head of a layer, for one pixel of its result."""
    if isinstance(h, LevelsHead):
        return _levels(h)
    if isinstance(h, BitsHead):
        few = special("bits", h.outputs)
        words = -(-h.outputs // _WORD)  # narrower ones take about as much, together
        several = "words" if words > 1 else "word"
        found: Trips = {"bits": 1, "bits.output": h.outputs, "bits.word": words}
        found |= {few: 1, f"{few}.output": h.outputs}
        found[f"bits[{several}].output"] = h.outputs
        found["bits[ragged].output"] = h.outputs * (words > 1 and h.outputs % _WORD > 0)
        found[f"bits[{h.tables[0].ctype}]"] = h.outputs
        found["bits[inverted]"] = words * h.inverted
        found["bits[place]"] = h.outputs * bool(h.place)
        return found
    few = "few" if h.outputs <= 4 else "many"
    if isinstance(h, ScoresHead):
        forms = ("product", "factors", "zero_factors", "shifts", "shift", "offsets")
        form = next((one for one in forms if getattr(h, one)), "plain")
        found = {"scores": 1, "scores.output": h.outputs, f"scores[{form}]": h.outputs}
    else:
        found = {"sums": 1, f"sums{h.bits}.output": h.outputs}
    few = special(h.kind, h.outputs)
    return found | {few: 1, f"{few}.output": h.outputs}


def _levels(h: LevelsHead) -> Trips:
    """The head of a layer whose result has several planes, for one pixel of it."""
    name = f"levels{h.planes}"
    words = -(-h.outputs // _WORD)
    several = "words" if words > 1 else "word"
    limits = h.outputs * len(h.rows)
    few = special(name, h.outputs)
    return {
        name: 1,
        f"{name}.output": h.outputs,
        f"{name}.word": h.words,
        few: 1,
        f"{few}.output": h.outputs,
        f"{name}[{several}].output": h.outputs,
        f"{name}[ragged].output": h.outputs * (words > 1 and h.outputs % _WORD > 0),
        f"levels[{h.tables[0].ctype}].limit": limits,
        f"levels[{h.compare}].limit": limits,
        f"{name}[inverted]": h.words * h.inverted,
        f"{name}[place].output": h.outputs * bool(h.place),
    }


def taps(w: Window) -> tuple[int, int, int]:
    """Taps of all windows: inside, in rows outside, and in columns outside of rows inside."""
    tops = np.arange(w.out_height)[:, None] * w.stride_y - w.pad_top + np.arange(w.kernel_height)
    lefts = np.arange(w.out_width)[:, None] * w.stride_x - w.pad_left + np.arange(w.kernel_width)
    rows = int(((tops >= 0) & (tops < w.height)).sum())
    columns = int(((lefts >= 0) & (lefts < w.width)).sum())
    return rows * columns, (tops.size - rows) * lefts.size, rows * (lefts.size - columns)


def window_loops(w: Window, name: str) -> Trips:
    """The loops over all windows and their taps."""
    windows = w.out_height * w.out_width
    inside, above, beside = taps(w)
    all_taps = inside + above + beside
    kind = f"{name}[{'padded' if w.padded else 'whole'}]"
    shape = f"{name}[{w.kernel_height}x{w.kernel_width}]"
    return {
        f"{name}.window": windows,
        f"{name}.line": w.out_height,
        f"{name}.row": windows * w.kernel_height,
        f"{name}.tap": all_taps,
        f"{name}.above": above * w.padded,
        f"{name}.beside": beside * w.padded,
        f"{kind}.window": windows,
        f"{kind}.row": windows * w.kernel_height,
        f"{kind}.tap": all_taps,
        shape: windows,
        f"{special(name, w.kernel_width)}.row": windows * w.kernel_height,
        f"{special(name, w.kernel_width)}.tap": all_taps,
        f"{name}[line]": windows * (w.out_height == 1),
        f"{name}[column]": windows * (w.out_width == 1),
    }


def crossing(w: Window) -> int:
    """Windows that leave the image."""
    tops = np.arange(w.out_height) * w.stride_y - w.pad_top
    lefts = np.arange(w.out_width) * w.stride_x - w.pad_left
    down = int(((tops >= 0) & (tops + w.kernel_height <= w.height)).sum())
    across = int(((lefts >= 0) & (lefts + w.kernel_width <= w.width)).sum())
    return w.out_height * w.out_width - down * across


def is_set(values: Values) -> NDArray[np.bool_]:
    """+1 and -1 as bits."""
    return np.asarray(values > 0)
