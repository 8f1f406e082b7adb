"""The CUDA renderer: a schedule goes in, the text of a .cu file and its header comes out.

:func:`device_source` is what runs on the GPU, for nvcc and NVRTC alike: it includes nothing. Its
entries are ``extern "C"``, named ``<prefix><op>``, with a suffix where an op has several kernels,
and take one struct ``run``; all else is in the namespace ``<prefix>cuda``. ``<prefix>best`` makes
classes of scores. ``<prefix>level`` writes which of :data:`edgebnn.cuda.layers.LEVELS` the code was
compiled for, as a number.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgebnn.codegen import views
from edgebnn.codegen.env import render
from edgebnn.codegen.library import Library, header_path, source_path
from edgebnn.codegen.model_view import model_view
from edgebnn.codegen.names import check_prefix
from edgebnn.cuda import elementwise
from edgebnn.cuda.layers import LEVELS, Grid, Launch, Layer
from edgebnn.cuda.memory import IMAGES
from edgebnn.cuda.persistent import plane_bytes
from edgebnn.cuda.product import FEW
from edgebnn.cuda.schedule import Place, Schedule, Step
from edgebnn.data.columns import Column
from edgebnn.kernels import Table
from edgebnn.targets import TARGETS
from edgebnn.targets.cuda import CUDA


@dataclass(frozen=True, slots=True)
class KernelView:
    """An entry: a body for the constants of its layer."""

    name: str
    body: str
    bounds: str  # what __launch_bounds__ is given


@dataclass(frozen=True, slots=True)
class LayerView:
    """The constants of a layer, as a struct, and its kernels."""

    name: str
    constants: tuple[str, ...]  # "int WIDTH = 28"
    kernels: tuple[KernelView, ...]


@dataclass(frozen=True, slots=True)
class GroupProductView:
    """An instruction of four warps: a product of 64 rows and some columns, in registers."""

    columns: int
    registers: int
    numbers: tuple[str, ...]  # of the registers as operands, in lines: "%0, %1, "
    operands: tuple[str, ...]  # what they are, in lines
    a: int  # the number of the next operand
    b: int
    accumulate: int


@dataclass(frozen=True, slots=True)
class LaunchView:
    """How the host starts a kernel."""

    kernel: str
    grids: tuple[str, ...]  # initializers, one a level or a single one
    grid: str  # the expression that is the one to take
    condition: str  # on the batch, "" for all
    shared: bool  # there is dynamic shared memory
    source: str
    other: str
    result: str
    weights: str
    limits: str


@dataclass(frozen=True, slots=True)
class StepView:
    """A layer on the host's side."""

    comment: str
    arrays: tuple[views.ArrayView, ...]
    launches: tuple[LaunchView, ...]


@dataclass(frozen=True, slots=True)
class AtOnceView:
    """The kernel of all layers, on the device's side and on the host's."""

    kernel: str
    layers: tuple[str, ...]
    plane_chunks: int  # in shared memory
    blocks: int  # at most
    threads: int
    most: int  # images
    memory: bool  # layers leave something to others
    runs: tuple[LaunchView, ...]


@dataclass(frozen=True, slots=True)
class LibraryView:
    """All that the two files print beside the device's part, and what they say of the model."""

    name: str
    prefix: str
    macro: str
    target: str
    steps: tuple[StepView, ...]
    best: LaunchView
    at_once: "AtOnceView | None"
    shared: bool  # some launch of a step has dynamic shared memory
    most_images: int
    fill: int  # batches are filled up to a multiple of so many images
    image_bytes: int
    table_text: str
    image_text: str


def device_source(schedule: Schedule, prefix: str) -> str:
    """The kernels of ``schedule``, ``<prefix>best`` and ``<prefix>level``, as CUDA C++17.

    It compiles for every GPU from sm_75 on. ``EDGEBNN_LEVEL`` may be defined to have less than what
    the GPU can.
    """
    layers = [(step.op.name, step.layer) for step in schedule.steps]
    best = elementwise.best(schedule.network.num_classes)
    return source_of([*layers, ("best", best)], prefix, _at_once_view(schedule, prefix, ()))


def source_of(
    layers: Sequence[tuple[str, Layer]], prefix: str, at_once: AtOnceView | None = None
) -> str:
    """The kernels of named layers, and ``<prefix>level``: what :func:`device_source` is made of."""
    shown = tuple(_layer_view(prefix, name, layer) for name, layer in layers)
    parts = dict.fromkeys(
        part
        for _, layer in layers
        for part in layer.templates or (launch.body for launch in layer.launches)
    )
    if at_once is not None:
        parts["persistent"] = None
    files = tuple(f"cuda/{part}.cuh.j2" for part in parts)
    text = render(
        "cuda/device.cuh.j2",
        prefix=prefix,
        parts=files,
        layers=shown,
        at_once=at_once,
        few=FEW,
        mma_level=LEVELS.index("mma"),
        group_products=[_group_product(columns) for columns in (64, 128, 256)],
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def kernel_name(prefix: str, op: str, launch: Launch) -> str:
    """What the entry of a launch is called."""
    return prefix + "_".join(part for part in (op, launch.suffix) if part)


def generate(
    schedule: Schedule,
    name: str,
    *,
    class_names: tuple[str, ...] = (),
    test_accuracy: float | None = None,
    input_steps: tuple[str, ...] = (),
    zero_point: int = 0,
    columns: Sequence[Column] = (),
) -> Library:
    """The library ``name`` for the network of ``schedule``, as a header and one .cu file.

    Arguments are those of :func:`edgebnn.codegen.c.generate`. The library's ``arena_bytes`` are
    those that an image of a batch takes on the GPU, ``constant_bytes`` are all tables.

    Raises:
        EdgebnnError: ``name`` is not usable in C.
    """
    check_prefix(name)
    network, prefix = schedule.network, f"{name}_"
    image_bytes = schedule.image_bytes + 4 * network.num_classes
    table_bytes = sum(table.bytes for step in schedule.steps for table in _tables(step))
    best = elementwise.best(network.num_classes).launches[0]
    model = model_view(
        network,
        f"{CUDA.name} {image_bytes}",
        class_names=class_names,
        test_accuracy=test_accuracy,
        input_steps=input_steps,
        steps_by="",
        zero_point=zero_point,
        columns=columns,
    )
    steps = tuple(_step_view(step, prefix) for step in schedule.steps)
    view = LibraryView(
        name=name,
        prefix=prefix,
        macro=name.upper(),
        target=CUDA.name,
        steps=steps,
        best=_launch_view(best, "best", prefix, "scores", "nullptr", "classes", ()),
        at_once=_at_once_view(schedule, prefix, steps),
        shared=any(launch.shared for step in steps for launch in step.launches),
        most_images=schedule.most_images,
        fill=IMAGES,
        image_bytes=schedule.image_bytes,
        table_text=views.spaced(table_bytes),
        image_text=views.spaced(image_bytes),
    )
    device = device_source(schedule, prefix)
    return Library(
        name=name,
        target=CUDA.name,
        files={
            header_path(name): render("cuda/model.h.j2", lib=view, model=model),
            source_path(name, CUDA.suffix): render(
                "cuda/model.cu.j2", lib=view, model=model, device=device
            ),
        },
        input_bytes=network.input_bytes,
        num_classes=network.num_classes,
        constant_bytes=table_bytes,
        arena_bytes=image_bytes,
        layers=tuple(prefix + step.op.name for step in schedule.steps),
    )


def _layer_view(prefix: str, name: str, layer: Layer) -> LayerView:
    constants = tuple(
        f"{'bool' if isinstance(value, bool) else 'int'} {key} = {str(value).lower()}"
        for key, value in layer.constants.items()
    )
    kernels = tuple(
        KernelView(kernel_name(prefix, name, launch), launch.body, _bounds(launch.grids))
        for launch in layer.launches
    )
    return LayerView(name, constants, kernels)


def _group_product(columns: int) -> GroupProductView:
    """Of its 64 * ``columns`` sums each of 128 threads has its part, one a register."""
    registers = columns // 2

    def lines(texts: list[str], length: int) -> tuple[str, ...]:
        texts = [*(f"{text}, " for text in texts[:-1]), texts[-1]]
        return tuple("".join(texts[i : i + length]) for i in range(0, registers, length))

    return GroupProductView(
        columns=columns,
        registers=registers,
        numbers=lines([f"%{i}" for i in range(registers)], 16),
        operands=lines([f'"+r"(d[{i}])' for i in range(registers)], 8),
        a=registers,
        b=registers + 1,
        accumulate=registers + 2,
    )


def _bounds(grids: tuple[Grid, ...]) -> str:
    threads = _by_level([grid.threads for grid in grids])
    together = _by_level([grid.together for grid in grids])
    return threads if together == "1" else f"{threads}, {together}"


def _by_level(values: Iterable[int]) -> str:
    """What is ``values[EDGEBNN_LEVEL]``, or ``values[0]`` if there is but one, in C++."""
    *lower, highest = values
    text = str(highest)
    for level, value in reversed(list(enumerate(lower))):
        if str(value) != text:
            text = f"EDGEBNN_LEVEL == {level} ? {value} : {text}"
    return text


def _tables(step: Step) -> tuple[Table, ...]:
    weights, limits = step.layer.weights, step.layer.limits
    tables = []
    if weights is not None:
        rows = weights.reshape(-1, weights.shape[-1]) if weights.ndim > 1 else weights
        tables.append(Table("weights", "uint32_t", rows, words=True))
    if limits is not None:
        tables.append(Table("limits", "int32_t", np.asarray(limits)))
    return tuple(tables)


def _step_view(step: Step, prefix: str) -> StepView:
    source = _memory(step.source_places[0], "inputs")
    other = "nullptr" if len(step.sources) == 1 else _memory(step.source_places[1], "")
    result, scratch = _memory(step.result_place, "scores"), _memory(step.scratch_place, "")
    arrays = tuple(
        views.array_view(step.op.name, table, TARGETS["host"].cpu) for table in _tables(step)
    )
    launches = tuple(
        _launch_view(
            launch,
            step.op.name,
            prefix,
            scratch if launch.reads_scratch else source,
            other,
            scratch if launch.writes_scratch else result,
            arrays,
        )
        for launch in step.layer.launches
    )
    bodies = ", ".join(dict.fromkeys(launch.body for launch in step.layer.launches))
    what = views.describe(step.op, step.sources[0], step.result, bits=32)
    return StepView(f"{step.op.name}: {what} [{bodies}]", arrays, launches)


def _at_once_view(
    schedule: Schedule, prefix: str, steps: tuple[StepView, ...]
) -> AtOnceView | None:
    """``steps``: without them, what the device's side has of it."""
    launch = schedule.at_once
    if launch is None:
        return None
    first, (grid,) = schedule.steps[0].layer, launch.grids
    runs = [
        replace(view.launches[-1], source=_memory(step.source_places[0], "inputs"))
        for step, view in zip(schedule.steps, steps, strict=False)
    ]
    return AtOnceView(
        kernel=kernel_name(prefix, "", launch),
        layers=tuple(step.op.name for step in schedule.steps),
        plane_chunks=(launch.most or 0) * plane_bytes(first) // 16,
        blocks=grid.columns,
        threads=grid.threads,
        most=launch.most or 0,
        memory=len(schedule.steps) > 1,
        runs=tuple(runs),
    )


def _memory(place: Place, outside: str) -> str:
    return outside if place is None else f"memory + {place} * images"


def _launch_view(
    launch: Launch,
    op: str,
    prefix: str,
    source: str,
    other: str,
    result: str,
    arrays: tuple[views.ArrayView, ...],
) -> LaunchView:
    kernel = kernel_name(prefix, op, launch)
    names = [array.name for array in arrays]
    weights, limits = (
        f"tables->{op}_{suffix}" if f"{op}_{suffix}" in names else "nullptr"
        for suffix in ("weights", "limits")
    )
    conditions = []
    if launch.least > 1:
        conditions.append(f"batch >= {launch.least}")
    if launch.most is not None:
        conditions.append(f"batch <= {launch.most}")
    return LaunchView(
        kernel=kernel,
        grids=tuple(_grid(grid) for grid in launch.grids),
        grid=f"{kernel}_grids[model->level]" if len(launch.grids) > 1 else f"{kernel}_grids[0]",
        condition=" && ".join(conditions),
        shared=any(grid.shared for grid in launch.grids),
        source=source,
        other=other,
        result=result,
        weights=weights,
        limits=limits,
    )


def _grid(grid: Grid) -> str:
    """As ``struct grid`` of the emitted file has it."""
    resident = "true" if grid.resident else "false"
    return (
        f"{grid.items}, {grid.per_block}, {grid.columns}, {grid.threads}, {grid.shared}, {resident}"
    )
