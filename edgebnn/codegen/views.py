"""Frozen views: every number, name and line of a table that a template prints, computed here."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgebnn.ir import (
    Add,
    Binarize,
    Bits,
    Conv,
    Dense,
    DepthwiseConv,
    Ints,
    MaxPool,
    Score,
    Scores,
    ScoreVector,
    Sums,
    Tensor,
)
from edgebnn.kernels import Array, equal_shift, score_shifts
from edgebnn.plan import Step

_LINE = 96


@dataclass(frozen=True, slots=True)
class ArrayView:
    """A constant table, its initializer already broken into lines."""

    ctype: str
    name: str
    dimensions: str  # "[256][8]"
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpView:
    """One layer's function: its signature, tables, numbers and the call that runs it."""

    name: str
    comment: str
    template: str
    arrays: tuple[ArrayView, ...]
    n: Mapping[str, int]
    has: Mapping[str, bool]  # which optional tables exist
    gives_bits: bool
    sum_bits: int  # 16 or 32 where it gives sums, else 0
    in_type: str
    out_type: str
    lane_test: str
    all_set: str  # word w of the channels that a pool takes the AND of, "" where it has none
    shift: str  # left shift that gives a score of its dot, "" where there is none
    zero_factors: bool  # whether some shift is 32, for a score that its dot does not touch
    call: str


@dataclass(frozen=True, slots=True)
class LibraryView:
    """All that the library's files print."""

    name: str
    macro: str
    version: str
    target: str
    sha256: str
    accuracy: str
    input_steps: str  # "" where pixels are inputs as they are
    classes: tuple[str, ...]
    ops: tuple[OpView, ...]
    sums: bool  # some op gives sums
    helpers: tuple[str, ...]
    input_bytes: int
    input_shape: str
    input_range: str
    num_classes: int
    fraction_bits: int
    arena_words: int
    arena_bytes: int
    constant_bytes: str
    arena_text: str


def spaced(number: int) -> str:
    """33612 -> "33 612"."""
    return f"{number:,}".replace(",", " ")


def array_view(op_name: str, array: Array) -> ArrayView:
    """The table ``<op>_<suffix>``: one initializer line a row, longer rows wrapped."""
    texts = [f"0x{v:08x}u" if array.ctype == "uint32_t" else f"{v}" for v in array.values.ravel()]
    row_length = array.values.shape[-1]
    lines: list[str] = []
    if array.values.ndim == 1:
        lines += _wrap(texts, "    ", ",")
    else:
        for i in range(0, len(texts), row_length):
            row = texts[i : i + row_length]
            whole = f"    {{ {', '.join(row)} }},"
            if len(whole) <= _LINE:
                lines.append(whole)
            else:
                lines += ["    {", *_wrap(row, "        ", ","), "    },"]
    dimensions = "".join(f"[{size}]" for size in array.values.shape)
    return ArrayView(array.ctype, f"{op_name}_{array.suffix}", dimensions, tuple(lines))


def _wrap(texts: list[str], indent: str, end: str) -> list[str]:
    lines, line = [], indent
    for text in texts:
        if len(line) + len(text) + 1 > _LINE:
            lines.append(line.rstrip())
            line = indent
        line += f"{text}{end} "
    return [*lines, line.rstrip()]


def op_view(step: Step) -> OpView:
    """The function that runs ``step``."""
    op = step.op
    outputs = step.layout.numbers.get("outputs", 0)
    if outputs % 32 == 0:
        lane_test = "lane < 32u"
    elif outputs < 32:
        lane_test = f"lane < {outputs}u"
    else:
        lane_test = f"(lane < 32u) && (first + lane < {outputs}u)"
    places = [_place(offset, "input") for offset in step.source_offsets]
    places.append(_place(step.result_offset, "scores"))
    if step.scratch_offset is not None:
        places.append(_place(step.scratch_offset, ""))
    suffixes = {array.suffix for array in step.layout.arrays}
    shift, zero_factors = _shift(step)
    return OpView(
        name=op.name,
        comment=f"{op.name}: {_describe(step)} [{step.kernel.name}]",
        template=f"c/ops/{step.kernel.template}",
        arrays=tuple(array_view(op.name, array) for array in step.layout.arrays),
        n=step.layout.numbers,
        has={s: s in suffixes for s in ("factor", "offset", "inverted")},
        gives_bits=isinstance(step.result, Bits),
        sum_bits=step.result.bits if isinstance(step.result, Sums) else 0,
        in_type="uint8_t" if isinstance(step.source, Ints) else "uint32_t",
        out_type="int32_t" if isinstance(step.result, ScoreVector) else "uint32_t",
        lane_test=lane_test,
        all_set=_all_set(step),
        shift=shift,
        zero_factors=zero_factors,
        call=f"{op.name}({', '.join(places)});",
    )


def _place(offset: int | None, outside: str) -> str:
    return outside if offset is None else f"&arena[{offset}]"


def _all_set(step: Step) -> str:
    if "all_set" in step.layout.numbers:
        return f"0x{step.layout.numbers['all_set']:08x}u"
    tables = {array.suffix for array in step.layout.arrays}
    return f"{step.op.name}_all_set[w]" if "all_set" in tables else ""


def _shift(step: Step) -> tuple[str, bool]:
    """What to shift a dot by, and whether that can be 32."""
    head = getattr(step.op, "head", None)
    shifts = score_shifts(head) if isinstance(head, Scores) else None
    if shifts is None:
        return "", False
    equal = equal_shift(shifts)
    if equal is None:
        return f"{step.op.name}_shift[o]", bool(np.any(shifts == 32))
    return f"{equal}u" if equal else "", False


def _shape(tensor: Tensor) -> str:
    match tensor:
        case ScoreVector():
            return f"{tensor.classes} scores"
        case Ints(height=1, width=1):
            return f"{tensor.channels} x {tensor.bits} bits"
        case Ints():
            return f"{tensor.height}x{tensor.width}x{tensor.channels} x {tensor.bits} bits"
        case Bits(height=1, width=1):
            return f"{tensor.channels} bits"
        case Bits():
            return f"{tensor.height}x{tensor.width}x{tensor.channels} bits"
        case Sums(height=1, width=1):
            return f"{tensor.channels} sums of {tensor.bits} bits"
        case Sums():
            shape = f"{tensor.height}x{tensor.width}x{tensor.channels}"
            return f"{shape} sums of {tensor.bits} bits"


def _describe(step: Step) -> str:
    op = step.op
    text = f"{_shape(step.source)} -> {_shape(step.result)}"
    match op:
        case Dense():
            return text
        case Conv() | DepthwiseConv():
            kernel = op.weights.shape[-3:-1]
            text += f"; {kernel[0]}x{kernel[1]}"
            if op.stride != (1, 1):
                text += f", stride {op.stride[0]}x{op.stride[1]}"
            if any(op.padding):
                text += f", padding {op.padding[0]}x{op.padding[1]} of {op.pad_value}"
            return text
        case MaxPool():
            text += f"; {op.kernel[0]}x{op.kernel[1]}, stride {op.stride[0]}x{op.stride[1]}"
            return text
        case Binarize() | Score():
            return text
        case Add():
            return f"{op.source} + {op.other}; {_shape(step.result)}"
