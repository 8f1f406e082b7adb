"""What a kernel is, and the parts that kernels share: tables, windows over an image, heads.

A kernel is one file of this package and one template of ``templates/c/kernels/`` of its name. Its
``fit`` looks at a run of ops and gives a view of its own: every number and table that the template
prints, or None where the kernel cannot. Layers with weights are made of parts, each a C function:

    ``<op>_window``   copies the inputs of the window at (y, x), side by side
    ``<op>_value``    what output o counts: a dot, or what a threshold on it can be compared with
    ``<op>_outputs``  the head: turns the values of all outputs into bits, sums or scores
    ``<op>``          the layer, over the whole image
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import Layout, pixel_words, sum_bits, tail_mask, words
from edgebnn.ir import (
    Bits,
    Conv,
    DepthwiseConv,
    Head,
    Int32Array,
    Ints,
    MaxPool,
    Op,
    Raw,
    Scores,
    ScoreVector,
    Sums,
    Tensor,
    Threshold,
    infer,
)
from edgebnn.targets.base import Cpu

Inputs = tuple[Tensor, ...]
#: How often parts of code run: "<kernel or helper>.<part>" -> trips.
Trips = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Table:
    """A constant of the emitted C: ``static const <ctype> <op>_<suffix>[...]``."""

    suffix: str
    ctype: str
    values: NDArray[Any]

    @property
    def bytes(self) -> int:
        sizes = {"uint8_t": 1, "int16_t": 2, "int32_t": 4, "uint32_t": 4}
        return int(self.values.size) * sizes[self.ctype]


class View(Protocol):
    """All that a kernel's template prints of one op, numbers and tables."""

    @property
    def tables(self) -> tuple[Table, ...]: ...

    @property
    def helpers(self) -> tuple[str, ...]:
        """Templates under ``templates/c/helpers/`` that it calls."""

    @property
    def scratch_words(self) -> int:
        """Words of scratch memory while the op runs."""

    def trips(self) -> Trips:
        """How often each part of the code runs in one call, by the names that ``prices/`` has."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One way to compute a run of ops.

    ``name`` is that of its template, ``way`` what targets and users call it: kernels for several
    ops may go the same way. ``fit`` takes the run, the tensors that its first op reads, and the
    CPU. A kernel that works ``in_place`` may write its result over a source of the same size.
    """

    name: str
    way: str
    ops: tuple[type[Op], ...]
    reads: frozenset[Layout]
    fit: Callable[[tuple[Op, ...], Inputs, Cpu], View | None]
    in_place: bool = False


# --- tables ---------------------------------------------------------------------------------------


def smallest(suffix: str, values: Int32Array) -> Table:
    """The values as int16 where they fit, else as int32.

    An odd number of int16 gets a zero at its end, where a linker would put a gap: so the plan of
    the flash is exact.
    """
    if values.min() < -(2**15) or values.max() >= 2**15:
        return Table(suffix, "int32_t", values)
    return Table(suffix, "int16_t", np.pad(values, (0, len(values) % 2)))


# --- windows --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """Windows over an image: sizes, strides and padding are (vertical, horizontal) in turn."""

    height: int
    width: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    pad_y: int
    pad_x: int
    pad_value: int

    @property
    def padded(self) -> bool:
        """Whether a window can leave the image."""
        return bool(self.pad_y or self.pad_x)

    @property
    def zero_padded(self) -> bool:
        """Whether zeros lie around the image, which are no bits."""
        return self.padded and self.pad_value == 0

    @property
    def pixels(self) -> int:
        """Places of the window."""
        return self.out_height * self.out_width

    @property
    def taps(self) -> int:
        return self.kernel_height * self.kernel_width

    @property
    def inside(self) -> int:
        """Taps inside the image, over all places."""
        rows = _inside(self.height, self.out_height, self.kernel_height, self.stride_y, self.pad_y)
        columns = _inside(self.width, self.out_width, self.kernel_width, self.stride_x, self.pad_x)
        return sum(rows) * sum(columns)

    @property
    def crossing(self) -> int:
        """Places where the window is not all inside the image."""
        rows = _inside(self.height, self.out_height, self.kernel_height, self.stride_y, self.pad_y)
        columns = _inside(self.width, self.out_width, self.kernel_width, self.stride_x, self.pad_x)
        whole = rows.count(self.kernel_height) * columns.count(self.kernel_width)
        return self.pixels - whole

    def trips(self, name: str, words: int) -> Trips:
        """Of the function that copies windows, ``words`` a tap."""
        kind = "zero" if self.zero_padded else "padded" if self.padded else "plain"
        taps = self.pixels * self.taps
        return {
            f"{name}.pixel": self.pixels,
            f"{name}.line": self.pixels * self.kernel_height,
            f"{name}.tap_{kind}": taps,
            f"{name}.word_{kind}": taps * words if words > 1 else 0,
        }


def _inside(size: int, places: int, kernel: int, stride: int, pad: int) -> list[int]:
    """For each place along one axis how many taps lie inside the image."""
    starts = [place * stride - pad for place in range(places)]
    return [max(0, min(start + kernel, size) - max(start, 0)) for start in starts]


def window(op: Conv | DepthwiseConv | MaxPool, source: Tensor) -> Window:
    """The windows of ``op`` over ``source``."""
    assert isinstance(source, Ints | Bits)
    out = infer(op, source)
    out_height, out_width = (1, 1) if isinstance(out, ScoreVector) else (out.height, out.width)
    kernel = op.kernel if isinstance(op, MaxPool) else op.weights.shape[-3:-1]
    padding = (0, 0) if isinstance(op, MaxPool) else op.padding
    return Window(
        height=source.height,
        width=source.width,
        out_height=out_height,
        out_width=out_width,
        kernel_height=kernel[0],
        kernel_width=kernel[1],
        stride_y=op.stride[0],
        stride_x=op.stride[1],
        pad_y=padding[0],
        pad_x=padding[1],
        pad_value=0 if isinstance(op, MaxPool) else op.pad_value,
    )


@dataclass(frozen=True, slots=True)
class BitPixel:
    """What a window copies of a pixel of bits: its words, whose last one has a tail of zeros."""

    words: int
    tail_mask: int


def bit_pixel(source: Bits, cpu: Cpu) -> BitPixel:
    return BitPixel(pixel_words(source, cpu.word_bits), tail_mask(source.channels, cpu.word_bits))


# --- heads ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BitsHead:
    """bit[o] = value[o] <compare> limits[o], packed; inverted where ``inverted`` is a table."""

    outputs: int
    words: int
    compare: str  # "<=" for what counts mismatches, ">=" for dots
    tables: tuple[Table, ...]
    inverted: bool = False
    kind: str = "bits"
    helpers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SumsHead:
    """The values themselves, which are dots, in two's complement of ``bits`` bits."""

    outputs: int
    words: int
    bits: int
    tables: tuple[Table, ...] = ()
    kind: str = "sums"

    @property
    def helpers(self) -> tuple[str, ...]:
        return ("put_sum16",) if self.bits == 16 else ()


@dataclass(frozen=True, slots=True)
class ScoresHead:
    """score[o] = factor[o] * value[o] + offset[o]; the values are dots.

    ``shift`` is what all dots are shifted by, where their factors are one power of two; with
    ``shifts`` each has its own in a table, in which 32 stands for the factor 0 (``zero_factors``).
    """

    outputs: int
    tables: tuple[Table, ...]
    factors: bool
    shifts: bool
    shift: int
    zero_factors: bool
    offsets: bool
    kind: str = "scores"
    words: int = 0
    helpers: tuple[str, ...] = ()


HeadView = BitsHead | SumsHead | ScoresHead


def head_view(head: Head, result: Tensor, limits: Int32Array | None, compare: str) -> HeadView:
    """The head of a layer whose result is ``result``.

    Args:
        limits: (outputs,) what values are compared with; None where the head is no threshold.
        compare: how: "<=" or ">=".
    """
    match head, result:
        case Threshold(), Bits():
            assert limits is not None
            tables = (smallest("limits", limits),)
            return BitsHead(result.channels, words(result.channels), compare, tables)
        case Raw(), Sums():
            bits = sum_bits(result)
            return SumsHead(result.channels, words(result.channels * bits), bits)
        case Scores(), ScoreVector():
            return scores_head(head)
    raise AssertionError(f"{type(head).__name__} does not give {type(result).__name__}")


def scores_head(head: Scores) -> ScoresHead:
    """The head that turns dots into scores: by shifts where factors are powers of two."""
    outputs = len(head.factor)
    if np.all(head.factor == 1) and np.all(head.offset == 0):
        return ScoresHead(outputs, (), False, False, 0, False, False)
    offset = smallest("offset", head.offset)
    shifts = score_shifts(head)
    if shifts is None:
        tables = (smallest("factor", head.factor), offset)
        return ScoresHead(outputs, tables, True, False, 0, False, True)
    if shifts[0] < 32 and np.all(shifts == shifts[0]):
        return ScoresHead(outputs, (offset,), False, False, int(shifts[0]), False, True)
    # Whole words, for the same reason as in smallest().
    table = Table("shift", "uint8_t", np.pad(shifts, (0, -len(shifts) % 4)))
    zero_factors = bool(np.any(shifts == 32))
    return ScoresHead(outputs, (table, offset), False, True, 0, zero_factors, True)


def score_shifts(head: Scores) -> Int32Array | None:
    """Left shifts that stand for the factors, 32 for the factor 0; None where some factor is none.

    ``factor * dot`` is ``dot << shift`` in 32 bits; 32 would shift every bit out.
    """
    factor = head.factor
    if np.any(factor < 0) or np.any(factor & (factor - 1)):
        return None
    return np.array([int(f).bit_length() - 1 if f else 32 for f in factor], dtype=np.int32)


def head_trips(name: str, head: HeadView, times: int = 1) -> Trips:
    """Of the head that kernel ``name`` ends in, which runs ``times`` times."""
    return {
        f"{name}.word": times * head.words if head.kind == "bits" and head.outputs > 32 else 0,
        f"{name}.{head.kind}": times * head.outputs,
    }


def mismatches_trips(calls: int, words: int) -> Trips:
    """Of the helper that compares rows of ``words`` words."""
    return {
        "mismatches.call": calls,
        "mismatches.eights": calls * (words // 8),
        "mismatches.words": calls * (words % 8),
    }


def mismatch_limits(head: Head, inputs: int, *, doubled: bool = False) -> Int32Array | None:
    """Most mismatches at which a bit is set: inputs - 2 * m >= min_dot; -1 never is.

    With ``doubled`` counts are of both paddings: inputs - (m_low + m_high) >= min_dot.
    """
    if not isinstance(head, Threshold):
        return None
    slack = inputs - head.min_dot
    return (slack if doubled else slack // 2).astype(np.int32)


def dot_limits(head: Head) -> Int32Array | None:
    return head.min_dot if isinstance(head, Threshold) else None
