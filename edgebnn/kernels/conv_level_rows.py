"""Convolutions on bits of several planes, a row of weights an output, window by window.

Each plane of a window is copied to a row of its own. A dot is the largest one less twice the sum of
``m[p] << p``, as in ``dense_level_rows.py``; zeros around the image are counted twice, as in
``conv_rows.py``, in each plane.
"""

from dataclasses import dataclass

from edgebnn.bits import Layout, plane_words
from edgebnn.ir import Bits, Conv, Op, dot_bound, fan_in, infer
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
class ConvLevelRows:
    """What ``conv_level_rows.c.j2`` prints; ``most`` is the largest dot.

    Planes are ``plane_words`` of the image's apart, and ``patch_words`` in the copy of a window.
    """

    word: str
    planes: int
    plane_words: int
    most: int
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
    def patch_words(self) -> int:
        return self.row_words * (2 if self.window.zero_padded else 1)

    @property
    def scratch_words(self) -> int:
        return self.planes * self.patch_words

    @property
    def parameters(self) -> str:
        return f"const {self.word} *patch" + (", int crosses" if self.window.zero_padded else "")

    @property
    def arguments(self) -> str:
        return "patch" + (", crosses" if self.window.zero_padded else "")


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvLevelRows | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Conv) or not isinstance(source, Bits):
        return None
    if not counts(fan_in(op), cpu):
        return None
    most = dot_bound(fan_in(op), source)
    weights = packed_rows("weights", op.weights, source, cpu)
    windows = window(op, source)
    limits = mismatch_limits(op.head, most, doubled=windows.zero_padded)
    return ConvLevelRows(
        word=cpu.word,
        planes=source.planes,
        plane_words=plane_words(source, cpu.word_bits),
        most=most,
        row_words=weights.values.shape[1],
        window=windows,
        pixel=bit_pixel(source, cpu),
        weights=weights,
        head=head_view(op.head, infer(op, source), limits, "<=", cpu),
        ends=ends(source, windows.taps, source.planes * (2 if windows.zero_padded else 1), cpu),
    )


def trips(view: ConvLevelRows, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    w, name = view.window, "conv_level_rows"
    windows = w.out_height * w.out_width
    outputs = windows * view.head.outputs
    taps = view.planes * sum(parts.taps(w))
    words = taps * view.pixel.words * (view.pixel.words > 1)
    sign = (w.pad_value > 0) - (w.pad_value < 0)
    kind = f"{name}[{'-0+'[sign + 1] if w.padded else 'whole'}]"
    few = parts.special(f"{name}.words", view.pixel.words)
    rows = parts.times(parts.mismatches(view.row_words, "[planes]"), outputs * view.planes)
    if w.zero_padded:
        high = parts.crossing(w) * view.head.outputs * view.planes
        twice = parts.times(parts.mismatches(view.row_words, "[high planes]"), high)
        rows = parts.total(rows, twice, {f"{name}.crosses": outputs * view.planes})
    return parts.total(
        {
            name: 1,
            f"{name}.pixel": windows,
            f"{name}.output": outputs,
            f"{name}.plane": outputs * view.planes,
            f"{parts.special(f'{name}[{view.planes}]', view.row_words)}.plane": outputs
            * view.planes,
            f"{name}.words": taps * (view.pixel.words > 1),
            f"{name}.word": words,
            few: taps,
            f"{kind}.window": view.planes * windows,
            f"{kind}.tap": taps,
            f"{kind}.word": words,
        },
        rows,
        parts.times(parts.head(view.head), windows),
        parts.times(parts.window_loops(w, name), view.planes),
    )


KERNEL = Kernel(
    "conv_level_rows",
    "level_rows",
    ((Conv,),),
    frozenset({Layout.PLANES}),
    fit,
    trips=trips,
)
