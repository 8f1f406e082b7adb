"""Programs whose one call is counted: a binary layer by one of its kernels, or its twins.

A program is a :class:`Library` with the functions of any other: every compiler and emulator takes
it. Each record says whether ``bench_predict`` calls the layer or a function that does nothing. The
difference of two such calls is what the layer takes on every emulator, also on those that count
whole calls only. ``bench_scores`` gives the whole result of the layer, as it lies in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bench import twins
from edgebnn.bits import own_bits, pack_pixels, tensor_words
from edgebnn.codegen import c, views
from edgebnn.codegen.env import render
from edgebnn.codegen.indent import indented
from edgebnn.codegen.library import Library, header_path, source_path
from edgebnn.errors import TooLarge
from edgebnn.ir import Bits, Ints
from edgebnn.plan import Plan
from edgebnn.targets.base import Cpu

HEAD_BYTES = 4
"""The word in front of a record: 1 if the layer is to be called."""

_NAME = "bench"
_LAYER = f"{_NAME}_layer"


@dataclass(frozen=True, slots=True)
class ProgramView:
    """What ``templates/bench/program.c.j2`` prints, and those that extend it.

    ``source`` is where what the layer reads is copied to, "" where it reads it from the record;
    ``result`` is where its result lies.
    """

    what: str
    source_bytes: int
    record_bytes: int
    result_bytes: int
    result_words: int
    source: str
    result: str
    calls: tuple[str, ...] = ()
    layers: tuple[twins.LayerView, ...] = ()
    dsp: bool = False
    saturates: bool = False
    shifts: bool = False

    @property
    def head_bytes(self) -> int:
        return HEAD_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A library that is counted, what its layer reads and the bytes that have to come out.

    ``scale`` is what its count is multiplied with: a twin may have a part of the outputs only.
    """

    library: Library
    source: NDArray[np.uint8]  # (N, bytes)
    result: NDArray[np.uint8]  # (N, bytes)
    scale: float = 1.0


def kernel_program(
    plan: Plan,
    names: Sequence[str],
    source: NDArray[np.int64],
    result: NDArray[np.int64],
) -> Program:
    """The ops ``names`` of ``plan``, which are whole steps of it.

    Args:
        source: (N, height, width, channels) of what the first of them reads.
        result: the same of what the last one makes, which is bits.
    """
    cpu = plan.target.cpu
    steps = [step for step in plan.steps if step.op.name in names]
    first, last = steps[0], steps[-1]
    emitted = c.generate(plan, _LAYER)
    calls = tuple(views.op_view(step, f"{_LAYER}_", f"{_LAYER}_arena", cpu).call for step in steps)
    given = _in_memory(first.source, source, cpu)
    wanted = _in_memory(last.result, result, cpu)
    place = first.source_offsets[0]
    code = emitted.files[source_path(_LAYER)]
    files = {
        header_path(_LAYER): emitted.files[header_path(_LAYER)],
        source_path(_LAYER): code,
    }
    view = _view(
        ", ".join(names),
        given,
        wanted,
        source="" if place is None else f"&{_LAYER}_arena[{place}]",
        result=f"&{_LAYER}_arena[{last.result_offset}]",
        calls=calls,
    )
    return Program(_library(view, "kernel", plan.target.name, cpu, files), given, wanted)


def _in_memory(tensor: object, values: NDArray[np.int64], cpu: Cpu) -> NDArray[np.uint8]:
    """(N, bytes) of ``values`` as ``tensor`` lies in memory."""
    if isinstance(tensor, Ints):
        return values.astype(np.uint8).reshape(len(values), -1)
    assert isinstance(tensor, Bits)
    assert tensor.planes == 1
    stored = pack_pixels(values > 0, own_bits(tensor, cpu.word_bits), cpu.word_bits)
    assert stored.shape[1] == tensor_words(tensor, cpu.word_bits)
    little = stored.astype(stored.dtype.newbyteorder("<"))
    return np.ascontiguousarray(little).view(np.uint8).reshape(len(values), -1)


def int8_program(
    layers: Sequence[twins.Layer], target: str, cpu: Cpu, seed: int, scale: float = 1.0
) -> Program:
    """Layers of int8 on one random image.

    Raises:
        TooLarge: the CPU has no array as large as one of them needs.
    """
    _check_arrays(layers, 1, target, cpu)
    image = np.random.default_rng(seed).integers(-128, 128, layers[0].shape)
    result = twins.values(layers, image)
    kind = "<i4" if layers[-1].scores else "<i1"
    drawn = tuple(twins.int8_view(layer, cpu) for layer in layers)
    return _twin_program(
        "int8", drawn, target, cpu, image.astype("<i1"), result.astype(kind), scale
    )


def float_program(
    layers: Sequence[twins.Layer], target: str, cpu: Cpu, seed: int, scale: float = 1.0
) -> Program:
    """Layers of float on one random image of integers.

    Raises:
        TooLarge: as :func:`int8_program`.
    """
    _check_arrays(layers, 4, target, cpu)
    image = np.random.default_rng(seed).integers(-128, 128, layers[0].shape)
    result = twins.float_values(layers, image)
    drawn = tuple(twins.float_view(layer, cpu) for layer in layers)
    return _twin_program(
        "float", drawn, target, cpu, image.astype("<f4"), result.astype("<f4"), scale
    )


def _check_arrays(layers: Sequence[twins.Layer], size: int, target: str, cpu: Cpu) -> None:
    """Of values of ``size`` bytes, or sums of four."""
    for layer in layers:
        (height, width, channels), around = layer.shape, layer.padding
        image = (height + sum(around[:2])) * (width + sum(around[2:])) * channels
        result = int(np.prod(layer.out_shape)) * (4 if layer.scores else size)
        if max(size * layer.weights.size, size * image, result) > cpu.largest_array:
            raise TooLarge(f"{target} has no array so large as those of '{layer.name}'")


def _twin_program(
    kind: str,
    layers: tuple[twins.LayerView, ...],
    target: str,
    cpu: Cpu,
    image: NDArray[np.generic],
    result: NDArray[np.generic],
    scale: float,
) -> Program:
    given, wanted = (
        np.frombuffer(array.tobytes(), np.uint8).reshape(1, -1) for array in (image, result)
    )
    view = _view(
        f"{', '.join(layer.name for layer in layers)} in {kind}",
        given,
        wanted,
        source="",
        result=f"{_NAME}_{layers[-1].name}_out",
        layers=layers,
        dsp="dsp" in cpu.features,
        saturates=cpu.arch == "arm" and "clz" in cpu.features,  # Armv7-M and later
        shifts=twins.by_shifts(cpu),
    )
    return Program(_library(view, kind, target, cpu, {}), given, wanted, scale)


def _view(
    what: str,
    given: NDArray[np.uint8],
    wanted: NDArray[np.uint8],
    *,
    source: str,
    result: str,
    calls: tuple[str, ...] = (),
    layers: tuple[twins.LayerView, ...] = (),
    dsp: bool = False,
    saturates: bool = False,
    shifts: bool = False,
) -> ProgramView:
    size, result_bytes = given.shape[1], wanted.shape[1]
    return ProgramView(
        what=what,
        source_bytes=size,
        record_bytes=HEAD_BYTES + -(-size // 4) * 4,
        result_bytes=result_bytes,
        result_words=-(-result_bytes // 4),
        source=source,
        result=result,
        calls=calls,
        layers=layers,
        dsp=dsp,
        saturates=saturates,
        shifts=shifts,
    )


def _library(view: ProgramView, kind: str, target: str, cpu: Cpu, files: dict[str, str]) -> Library:
    """``kind`` is that of the template."""
    own = {
        header_path(_NAME): render("bench/program.h.j2", program=view),
        source_path(_NAME): indented(render(f"bench/{kind}.c.j2", program=view, cpu=cpu)),
    }
    return Library(
        name=_NAME,
        target=target,
        files=own | files,
        input_bytes=view.record_bytes,
        num_classes=view.result_words,
        constant_bytes=0,
        arena_bytes=0,
        layers=(),
    )
