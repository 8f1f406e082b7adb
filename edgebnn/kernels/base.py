"""What a kernel is, and the parts that kernels share: tables, windows over an image, heads.

A kernel is one file of this package and one template of ``templates/c/kernels/`` of its name. Its
``fit`` looks at a run of ops and gives a view of its own: every number and table that the template
prints, or None where the kernel cannot. Layers with weights are made of parts, each a C function:

    ``<op>_window``   copies the inputs of the window at (y, x), side by side
    ``<op>_value``    what output o counts: a dot, or what a threshold on it can be compared with
    ``<op>_outputs``  the head: turns the values of all outputs into bits, sums or scores
    ``<op>``          the layer, over the whole image
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import Layout, own_bits, pack, pixel_words, plane_words, sum_bits
from edgebnn.ir import (
    Bits,
    BoolArray,
    Conv,
    DepthwiseConv,
    Head,
    Int32Array,
    Levels,
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
Values = NDArray[np.int64]
"""(N, height, width, channels): what a tensor is for each of N inputs of the network."""
Trips = dict[str, Any]
"""How often parts of a kernel run, by their names: a number, or (N,) one an input."""
Price = Callable[[Trips], NDArray[np.float64]]
"""(N,) instructions that trips take."""


_SIZES = {
    "int8_t": 1,
    "uint8_t": 1,
    "int16_t": 2,
    "uint16_t": 2,
    "int32_t": 4,
    "uint32_t": 4,
    "float": 4,
}


@dataclass(frozen=True, slots=True)
class Table:
    """A constant of the emitted C: ``static <constant> <ctype> <op>_<suffix>[...]``."""

    suffix: str
    ctype: str
    values: NDArray[Any]
    words: bool = False  # of bits, rather than numbers

    def reshaped(self, *shape: int) -> "Table":
        """The same numbers in another shape."""
        return replace(self, values=self.values.reshape(*shape))

    @property
    def bytes(self) -> int:
        return int(self.values.size) * _SIZES[self.ctype]


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


class Reading(enum.Enum):
    """By which words a kernel reads an image of bits; see :func:`edgebnn.bits.own_bits`."""

    OWN = "own"  # those of the image
    ALIKE = "alike"  # those that its result has as well
    ROW = "row"  # the CPU's: all pixels are a row
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One way to compute an op, or a run of ops of which each reads what the one before makes.

    ``name`` is that of its template, ``way`` what targets and users call it: kernels for several
    ops may go the same way. ``runs`` are the kinds of ops that it may compute. ``fit`` takes the
    ops, the tensors that the first of them reads, and the CPU. A kernel that works ``in_place`` may
    write its result over a source of the same size. Of kernels that fit, one for more ops is taken,
    then the one of the least ``rank``. One that is only sometimes better says of its view whether
    it ``pays``; where its way is preferred nobody asks. All inputs take the same time where it is
    ``constant_time``: no branch and no trip of a loop depends on them. ``trips`` takes a view, the
    values of the tensors that the ops read, and the CPU; :mod:`edgebnn.kernels.trips` says what it
    gives. None: nobody knows what the kernel takes. ``most`` takes a view, the CPU and what trips
    take there; it gives the instructions that no input exceeds. None: those of any input, since all
    take the same trips. ``printed`` says of a view what its template prints once for each of
    something, by names, and ``held`` what code without loops has at once, on its stack; None: its
    stack is that of all that is printed. ``code`` says of a view how many bytes of code stand for
    what others have in tables, about. ``reading`` is how it reads bits.
    """

    name: str
    way: str
    runs: tuple[tuple[type[Op], ...], ...]
    reads: frozenset[Layout]
    fit: Callable[[tuple[Op, ...], Inputs, Cpu], View | None]
    in_place: bool = False
    rank: int = 0
    pays: Callable[[Any], bool] = lambda _view: True
    constant_time: bool = True
    trips: Callable[[Any, tuple[Values, ...], Cpu], Trips] | None = None
    most: Callable[[Any, Cpu, Price], float] | None = None
    printed: Callable[[Any], Trips] = lambda _view: {}
    held: Callable[[Any], Trips] | None = None
    code: Callable[[Any], int] = lambda _view: 0
    reading: Reading = Reading.OWN


# --- tables ---------------------------------------------------------------------------------------


def packed(suffix: str, bits: BoolArray, cpu: Cpu) -> Table:
    """Rows of bits in words."""
    return Table(suffix, cpu.word, pack(bits, cpu.word_bits), words=True)


def smallest(suffix: str, values: Int32Array, cpu: Cpu) -> Table:
    """The values as int16 where they fit, else as int32."""
    if values.min() < -(2**15) or values.max() >= 2**15:
        return Table(suffix, "int32_t", values)
    return Table(suffix, "int16_t", _filled(values, 2, cpu))


def _filled(values: Int32Array, size: int, cpu: Cpu) -> Int32Array:
    """Rows of numbers of ``size`` bytes with zeros behind them, where a linker would put a gap.

    So the plan of the flash is exact.
    """
    gap = -values.shape[-1] % max(1, cpu.word_bits // 8 // size)
    return np.pad(values, [*[(0, 0)] * (values.ndim - 1), (0, gap)])


# --- sums in memory -------------------------------------------------------------------------------


def load(sums: Sums, cpu: Cpu) -> str:
    """The helper that reads one of ``sums``; "" where it is a word."""
    return "" if sum_bits(sums) == cpu.word_bits else f"sum{sum_bits(sums)}"


def store(sums: Sums, cpu: Cpu) -> str:
    """The helper that writes one of ``sums``; "" where it is a word."""
    return "" if sum_bits(sums) == cpu.word_bits else f"put_sum{sum_bits(sums)}"


def counts(most: int, cpu: Cpu) -> bool:
    """Whether the CPU's index holds all numbers up to ``most``."""
    return most <= 2 * cpu.largest_array + 1


# --- windows --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """Windows over an image: sizes and strides are (vertical, horizontal) in turn.

    The pads are how far a window may leave the image on each side.
    """

    height: int
    width: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int
    pad_value: int

    @property
    def padded(self) -> bool:
        """Whether a window can leave the image."""
        return bool(self.pad_top or self.pad_bottom or self.pad_left or self.pad_right)

    @property
    def zero_padded(self) -> bool:
        """Whether zeros lie around the image, which are no bits."""
        return self.padded and self.pad_value == 0

    @property
    def taps(self) -> int:
        return self.kernel_height * self.kernel_width


def window(op: Conv | DepthwiseConv | MaxPool, source: Tensor) -> Window:
    """The windows of ``op`` over ``source``."""
    assert not isinstance(source, ScoreVector)
    out = infer(op, source)
    out_height, out_width = (1, 1) if isinstance(out, ScoreVector) else (out.height, out.width)
    kernel = op.kernel if isinstance(op, MaxPool) else op.weights.shape[-3:-1]
    padding = (0, 0, 0, 0) if isinstance(op, MaxPool) else op.padding
    return Window(
        height=source.height,
        width=source.width,
        out_height=out_height,
        out_width=out_width,
        kernel_height=kernel[0],
        kernel_width=kernel[1],
        stride_y=op.stride[0],
        stride_x=op.stride[1],
        pad_top=padding[0],
        pad_bottom=padding[1],
        pad_left=padding[2],
        pad_right=padding[3],
        pad_value=0 if isinstance(op, MaxPool) else op.pad_value,
    )


# --- heads ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BitsHead:
    """bit[o] = value[o] <compare> limits[o], packed; inverted where ``inverted`` is a table.

    A pixel has ``words`` of ``own_bits`` bits. ``place`` is "[pixel]" where the tables have a row
    for each, else "".
    """

    outputs: int
    words: int
    own_bits: int
    compare: str  # "<=" for what counts mismatches, ">=" for dots
    tables: tuple[Table, ...]
    inverted: bool = False
    place: str = ""
    kind: str = "bits"
    helpers: tuple[str, ...] = ()

    @property
    def own_shift(self) -> int:
        """2 to this power is the number of bits in a word."""
        return self.own_bits.bit_length() - 1


@dataclass(frozen=True, slots=True)
class LevelsHead:
    """As :class:`BitsHead`, of several planes.

    The binary digits of how many limits a value meets go to the planes, which are ``plane_words``
    apart. ``rows`` index the limits of each level: "[0]", or "[pixel]", "[pixel + 9u]" and so on.
    """

    outputs: int
    words: int  # of a pixel
    own_bits: int  # of a word
    rows: tuple[str, ...]
    planes: int
    plane_words: int
    compare: str
    tables: tuple[Table, ...]
    inverted: bool = False
    place: str = ""
    kind: str = "levels"
    helpers: tuple[str, ...] = ()

    @property
    def own_shift(self) -> int:
        """2 to this power is the number of bits in a word."""
        return self.own_bits.bit_length() - 1


@dataclass(frozen=True, slots=True)
class SumsHead:
    """The values themselves, which are dots, in two's complement of ``bits`` bits.

    ``store`` is the function that writes one; "" where it is a word.
    """

    outputs: int
    words: int
    bits: int
    store: str
    tables: tuple[Table, ...] = ()
    kind: str = "sums"

    @property
    def helpers(self) -> tuple[str, ...]:
        return (self.store,) if self.store else ()


@dataclass(frozen=True, slots=True)
class ScoresHead:
    """score[o] = factor[o] * value[o] + offset[o]; the values are dots.

    ``shift`` is what all dots are shifted by, where their factors are one power of two; with
    ``shifts`` each has its own in a table, in which 32 stands for the factor 0 (``zero_factors``).
    ``product`` is the function that multiplies by other factors; "" where the CPU does.
    """

    outputs: int
    tables: tuple[Table, ...]
    factors: bool
    shifts: bool
    shift: int
    zero_factors: bool
    offsets: bool
    product: str = ""
    kind: str = "scores"
    words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        return (self.product,) if self.product else ()


HeadView = BitsHead | LevelsHead | SumsHead | ScoresHead


def head_view(
    head: Head, result: Tensor, limits: Int32Array | None, compare: str, cpu: Cpu
) -> HeadView:
    """The head of a layer whose result is ``result``.

    Args:
        limits: (outputs,) or (levels, outputs) what values are compared with; None where the head
            has no thresholds.
        compare: how: "<=" or ">=".
    """
    match head, result:
        case Threshold(), Bits():
            assert limits is not None
            return bits_head(result, (smallest("limits", limits, cpu),), compare, cpu)
        case Levels(), Bits():
            assert limits is not None
            return levels_head(result, (smallest("limits", limits, cpu),), compare, cpu)
        case Raw(), Sums():
            return sums_head(result, cpu)
        case Scores(), ScoreVector():
            return scores_head(head, cpu)
    raise AssertionError(f"{type(head).__name__} does not give {type(result).__name__}")


def bits_head(result: Bits, tables: tuple[Table, ...], compare: str, cpu: Cpu) -> BitsHead:
    """The head that compares a value with its limit in the first of ``tables``."""
    size = pixel_words(result, cpu.word_bits)
    return BitsHead(result.channels, size, own_bits(result, cpu.word_bits), compare, tables)


def levels_head(result: Bits, tables: tuple[Table, ...], compare: str, cpu: Cpu) -> LevelsHead:
    """The head that counts the limits, in the first of ``tables``, that a value reaches."""
    return LevelsHead(
        outputs=result.channels,
        words=pixel_words(result, cpu.word_bits),
        own_bits=own_bits(result, cpu.word_bits),
        rows=tuple(f"[{level}]" for level in range(result.levels)),
        planes=result.planes,
        plane_words=plane_words(result, cpu.word_bits),
        compare=compare,
        tables=tables,
    )


def sums_head(result: Sums, cpu: Cpu) -> SumsHead:
    """The head that keeps dots; a single one is all of a word, where that holds it."""
    size = pixel_words(result, cpu.word_bits)
    writes = store(result, cpu) if result.channels > 1 or cpu.narrow else ""
    return SumsHead(result.channels, size, sum_bits(result), writes)


def scores_head(head: Scores, cpu: Cpu) -> ScoresHead:
    """The head that turns dots into scores: by shifts where factors are powers of two."""
    outputs = len(head.factor)
    if np.all(head.factor == 1) and np.all(head.offset == 0):
        return ScoresHead(outputs, (), False, False, 0, False, False)
    offset = smallest("offset", head.offset, cpu)
    shifts = score_shifts(head)
    if shifts is None:
        tables = (smallest("factor", head.factor, cpu), offset)
        product = "" if "mul" in cpu.features else "product"
        return ScoresHead(outputs, tables, True, False, 0, False, True, product)
    if shifts[0] < 32 and np.all(shifts == shifts[0]):
        return ScoresHead(outputs, (offset,), False, False, int(shifts[0]), False, True)
    table = Table("shift", "uint8_t", _filled(shifts, 1, cpu))
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


def mismatch_limits(head: Head, inputs: int, *, doubled: bool = False) -> Int32Array | None:
    """Most mismatches at which a bit is set: inputs - 2 * m >= min_dot; -1 never is.

    Of several planes ``inputs`` is the largest dot, and m counts those of plane p ``2**p`` times.

    With ``doubled`` counts are of both paddings: inputs - (m_low + m_high) >= min_dot.
    """
    if not isinstance(head, Threshold | Levels):
        return None
    slack = inputs - head.min_dot
    return (slack if doubled else slack // 2).astype(np.int32)


def dot_limits(head: Head) -> Int32Array | None:
    return head.min_dot if isinstance(head, Threshold | Levels) else None
