"""Convolutions on bits, a row of weights an output: XNOR and popcount over a copy of the window.

Zeros around the image are counted twice: a dot product is linear, so with -1 and then with +1 out
there 2 * dot = (n - 2 * low) + (n - 2 * high), and dot = n - low - high.
"""

from dataclasses import dataclass

from edgebnn.bits import Layout
from edgebnn.ir import Bits, Conv, Op, fan_in, infer
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import (
    HeadView,
    Inputs,
    Kernel,
    Table,
    Trips,
    Values,
    Window,
    counts,
    head_view,
    mismatch_limits,
    window,
)
from edgebnn.kernels.pixels import BitPixel, bit_pixel, ends, packed_rows
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class ConvRows:
    """What ``conv_rows.c.j2`` prints."""

    word: str
    inputs: int
    row_words: int
    window: Window
    pixel: BitPixel
    weights: Table
    head: HeadView
    ends: tuple[int, ...]  # words of the copies of a window that have a tail

    @property
    def helpers(self) -> tuple[str, ...]:
        return ("popcount", "mismatches", *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.weights, *self.head.tables)

    @property
    def scratch_words(self) -> int:
        return self.row_words * (2 if self.window.zero_padded else 1)

    @property
    def parameters(self) -> str:
        return f"const {self.word} *patch" + (", int crosses" if self.window.zero_padded else "")

    @property
    def arguments(self) -> str:
        return "patch" + (", crosses" if self.window.zero_padded else "")


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvRows | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Conv) or not isinstance(source, Bits):
        return None
    count = fan_in(op)
    if not counts(count, cpu):
        return None
    weights = packed_rows("weights", op.weights, source, cpu)
    windows = window(op, source)
    limits = mismatch_limits(op.head, count, doubled=windows.zero_padded)
    return ConvRows(
        word=cpu.word,
        inputs=count,
        row_words=weights.values.shape[1],
        window=windows,
        pixel=bit_pixel(source, cpu),
        weights=weights,
        head=head_view(op.head, infer(op, source), limits, "<=", cpu),
        ends=ends(source, windows.taps, 2 if windows.zero_padded else 1, cpu),
    )


def trips(view: ConvRows, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    w, outputs = view.window, view.head.outputs
    windows = w.out_height * w.out_width
    taps = sum(parts.taps(w)) * (view.pixel.words > 1)
    kind = f"conv_rows[{'-0+'[w.pad_value + 1] if w.padded else 'whole'}]"
    few = parts.special("conv_rows.words", view.pixel.words)
    rows = parts.times(parts.mismatches(view.row_words, "[window]"), windows * outputs)
    if w.zero_padded:
        high = parts.times(parts.mismatches(view.row_words, "[high]"), parts.crossing(w) * outputs)
        rows = parts.total(rows, high, {"conv_rows.crosses": windows * outputs})
    return parts.total(
        {"conv_rows": 1, "conv_rows.words": taps, "conv_rows.word": taps * view.pixel.words},
        {f"{kind}.window": windows, f"{kind}.words": taps, f"{few}": taps},
        {f"{kind}.tap": sum(parts.taps(w)), f"{kind}.word": taps * view.pixel.words},
        rows,
        parts.times(parts.head(view.head), windows),
        parts.window_loops(w, "conv_rows"),
    )


KERNEL = Kernel("conv_rows", "rows", ((Conv,),), frozenset({Layout.ROWS}), fit, trips=trips)
