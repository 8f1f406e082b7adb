"""Frozen views: every number, name and line of a table that a template prints, computed here."""

import zlib
from dataclasses import dataclass

from edgebnn.bits import image_words, own_bits, sum_bits, words
from edgebnn.codegen.prepare import PrepareView
from edgebnn.ir import (
    Add,
    Binarize,
    Bits,
    Conv,
    Dense,
    DepthwiseConv,
    Ints,
    MaxPool,
    Op,
    Quantize,
    Score,
    ScoreVector,
    Sides,
    Sums,
    Tensor,
    infer,
    pairs,
)
from edgebnn.kernels import Table, View
from edgebnn.plan import Step, step_words
from edgebnn.targets.base import Cpu

_LINE = 96


@dataclass(frozen=True, slots=True)
class ElementView:
    """The C type of a table's elements, and the cast that makes numbers from 0 on of their bits."""

    name: str  # "int16"
    ctype: str
    cast: str  # "" where they are
    bits: int


@dataclass(frozen=True, slots=True)
class ArrayView:
    """A constant table, its initializer already broken into lines, and what its CRC is made of."""

    ctype: str
    name: str
    dimensions: str  # "[256][8]"
    lines: tuple[str, ...]
    first: str  # the address of its first element: "&digits_dense1_weights[0][0]"
    numbers: tuple[str, ...]  # that stand in the lines
    element: ElementView


@dataclass(frozen=True, slots=True)
class OpView:
    """One layer: its name in C, its comment, its kernel's view, and the call that runs it.

    The layer reads words of ``in_type``, of which ``source_type`` are those of the tensor itself,
    and writes words of ``out_type``; ``in_cast`` and ``out_cast`` make them of the CPU's words, ""
    where they are these. ``ends`` are words of the arena that its result does not fill.
    ``reason`` is why it has this kernel; "" where the rules have it so.
    """

    name: str
    comment: str
    template: str
    arrays: tuple[ArrayView, ...]
    view: View
    in_type: str
    in_cast: str
    source_type: str
    out_type: str
    out_cast: str
    ends: tuple[str, ...]
    call: str
    reason: str


@dataclass(frozen=True, slots=True)
class SelfTestView:
    """How a library checks its own tables: the types that are in them, and the CRC-32 of all."""

    elements: tuple[ElementView, ...]
    crc: str


@dataclass(frozen=True, slots=True)
class LibraryView:
    """All that the library's files print beside what they say of the model."""

    name: str
    prefix: str  # of every name in C
    macro: str
    target: str
    language: str
    prepare: PrepareView | None
    ops: tuple[OpView, ...]
    sums: bool  # some op gives sums
    narrow: bool  # some op reads or writes words narrower than the CPU's
    helpers: tuple[str, ...]
    self_test: SelfTestView | None
    arena_words: int
    arena_bytes: int
    caller_arena: bool  # each call is given its scratch memory, else it is static
    arena_parameter: str  # behind the others; "" where it is static
    constant_bytes: str
    ram: str
    time: str  # "" where it is not known, and so are the next two
    most: str
    sizes: str
    reentrant: str  # a sentence


def spaced(number: int) -> str:
    """33612 -> "33 612"."""
    return f"{number:,}".replace(",", " ")


def array_view(op_name: str, table: Table, cpu: Cpu) -> ArrayView:
    """The table ``<op>_<suffix>``: one initializer line a row, longer rows wrapped."""
    digits = 2 * table.values.dtype.itemsize if table.words else 0
    texts = [f"0x{v:0{digits}x}u" if digits else str(v) for v in table.values.ravel()]
    row_length = table.values.shape[-1]
    lines: list[str] = []
    if table.values.ndim == 1:
        lines += _wrap(texts, "    ", ",")
    else:
        for i in range(0, len(texts), row_length):
            row = texts[i : i + row_length]
            whole = f"    {{ {', '.join(row)} }},"
            if len(whole) <= _LINE:
                lines.append(whole)
            else:
                lines += ["    {", *_wrap(row, "        ", ","), "    },"]
    name = f"{op_name}_{table.suffix}"
    return ArrayView(
        ctype=table.ctype,
        name=name,
        dimensions="".join(f"[{size}]" for size in table.values.shape),
        lines=tuple(lines),
        first=f"&{name}{'[0]' * table.values.ndim}",
        numbers=tuple(texts),
        element=_element_view(table),
    )


def _element_view(table: Table) -> ElementView:
    bits = 8 * table.bytes // table.values.size
    cast = "" if table.ctype.startswith("u") else f"(uint{bits}_t)"
    return ElementView(table.ctype.removesuffix("_t"), table.ctype, cast, bits)


def self_test_view(ops: tuple[OpView, ...]) -> SelfTestView:
    """The check of the tables of ``ops``, in the order in which they are printed.

    What counts is each number as it is printed, in as many bytes as it has in C, the least
    significant first.
    """
    arrays = [array for op in ops for array in op.arrays]
    crc = 0
    for array in arrays:
        size = array.element.bits // 8
        values = (int(number.removesuffix("u"), 0) % 256**size for number in array.numbers)
        crc = zlib.crc32(b"".join(value.to_bytes(size, "little") for value in values), crc)
    return SelfTestView(tuple(dict.fromkeys(array.element for array in arrays)), f"0x{crc:08X}")


def _wrap(texts: list[str], indent: str, end: str) -> list[str]:
    lines, line = [], indent
    for text in texts:
        if len(line) + len(text) + 1 > _LINE:
            lines.append(line.rstrip())
            line = indent
        line += f"{text}{end} "
    return [*lines, line.rstrip()]


def op_view(step: Step, prefix: str, arena: str, cpu: Cpu) -> OpView:
    """The function that runs ``step``; every name in C begins with ``prefix``.

    ``arena`` is what scratch memory is called where it is called.
    """
    name = prefix + step.op.name
    read, written = step_words(step, cpu)
    in_type, out_type = (_word_type(bits, prefix, cpu) for bits in (read, written))
    in_pointer, out_pointer = (
        f"({kind} *)" if bits < cpu.word_bits else ""
        for kind, bits in ((in_type, read), (out_type, written))
    )
    places = [in_pointer + _place(offset, arena, "input") for offset in step.source_offsets]
    places.append(out_pointer + _place(step.result_offset, arena, "scores"))
    if step.scratch_offset is not None:
        places.append(_place(step.scratch_offset, arena, ""))
    return OpView(
        name=name,
        comment=f"{_described(step)} [{step.kernel.way}]",
        template=f"c/kernels/{step.kernel.name}.c.j2",
        arrays=tuple(array_view(name, table, cpu) for table in step.view.tables),
        view=step.view,
        in_type=in_type,
        in_cast=f"({in_type})" if read < cpu.word_bits else "",
        source_type=_word_type(own_bits(step.source, cpu.word_bits), prefix, cpu),
        out_type="int32_t" if isinstance(step.result, ScoreVector) else out_type,
        out_cast=f"({out_type})" if written < cpu.word_bits else "",
        ends=tuple(_place(place, arena, "")[1:] for place in _ends(step, written, cpu)),
        call=f"{name}({', '.join(places)});",
        reason=step.reason,
    )


def _word_type(bits: int, prefix: str, cpu: Cpu) -> str:
    """The C type of words of ``bits`` bits that also lie in words of the CPU's."""
    return f"{prefix}half" if bits == 16 and bits < cpu.word_bits else f"uint{bits}_t"


def _ends(step: Step, written: int, cpu: Cpu) -> tuple[int, ...]:
    """Words of the arena of which a step writes a part only, in words of ``written`` bits."""
    result, offset = step.result, step.result_offset
    if not isinstance(result, Bits) or offset is None:
        return ()
    used = result.height * result.width * words(result.channels, written) * written
    size = image_words(result, cpu.word_bits)
    planes = range(result.planes if used % cpu.word_bits else 0)
    return tuple(offset + size * (plane + 1) - 1 for plane in planes)


def _described(step: Step) -> str:
    """Names and descriptions of the ops of ``step``."""
    texts, inputs = [], step.sources
    for op in step.ops:
        result = infer(op, *inputs)
        texts.append(f"{op.name}: {describe(op, inputs[0], result)}")
        inputs = (result,)
    return "; ".join(texts)


def _place(offset: int | None, arena: str, outside: str) -> str:
    return outside if offset is None else f"&{arena}[{offset}]"


def _shape(tensor: Tensor, bits: int | None) -> str:
    match tensor:
        case ScoreVector():
            return f"{tensor.classes} score{'s' if tensor.classes > 1 else ''}"
        case Ints(height=1, width=1):
            return f"{tensor.channels} x {tensor.bits} bits"
        case Ints():
            return f"{tensor.height}x{tensor.width}x{tensor.channels} x {tensor.bits} bits"
        case Bits():
            size = (
                ""
                if (tensor.height, tensor.width) == (1, 1)
                else f"{tensor.height}x{tensor.width}x"
            )
            planes = "" if tensor.planes == 1 else f" x {tensor.planes}"
            return f"{size}{tensor.channels}{planes} bits"
        case Sums(height=1, width=1):
            return f"{tensor.channels} sums of {bits or sum_bits(tensor)} bits"
        case Sums():
            shape = f"{tensor.height}x{tensor.width}x{tensor.channels}"
            return f"{shape} sums of {bits or sum_bits(tensor)} bits"


def _padding(padding: Sides) -> str:
    sides = pairs(padding)
    if len(sides) == 2:
        return f"{sides[0]}x{sides[1]}"
    names = ("top", "bottom", "left", "right")
    given = [f"{n} {name}" for n, name in zip(sides, names, strict=True) if n]
    return " ".join(given)


def describe(op: Op, source: Tensor, result: Tensor, bits: int | None = None) -> str:
    """What a layer does, for a comment; sums are of ``bits`` bits in memory, or as few as do."""
    text = f"{_shape(source, bits)} -> {_shape(result, bits)}"
    match op:
        case Dense():
            return text
        case Conv() | DepthwiseConv():
            kernel = op.weights.shape[-3:-1]
            text += f"; {kernel[0]}x{kernel[1]}"
            if op.stride != (1, 1):
                text += f", stride {op.stride[0]}x{op.stride[1]}"
            if any(op.padding):
                text += f", padding {_padding(op.padding)} of {op.pad_value}"
            return text
        case MaxPool():
            text += f"; {op.kernel[0]}x{op.kernel[1]}, stride {op.stride[0]}x{op.stride[1]}"
            return text
        case Binarize() | Quantize() | Score():
            return text
        case Add():
            return f"{op.source} + {op.other}; {_shape(result, bits)}"
