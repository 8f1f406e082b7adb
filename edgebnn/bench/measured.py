"""Every way to compute a layer on every target, beside its twins in int8 and in float.

Twins are counted once a shape: what they take does not depend on what bits are like. Where a CPU
has no room for all outputs of a twin, or one would take minutes to run, a part of the outputs is
counted and the count is scaled: all outputs cost alike.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgebnn import kernels
from edgebnn.bench import twins
from edgebnn.bench.counting import Counted, count
from edgebnn.bench.programs import Program, float_program, int8_program, kernel_program
from edgebnn.bench.shapes import Shape, Subject
from edgebnn.errors import EdgebnnError, TooLarge
from edgebnn.ir import INPUT, Network
from edgebnn.plan import plan
from edgebnn.targets import Target

TWINS = ("float", "int8")
INPUTS = 3
"""Random inputs that a kernel is counted on."""

_FLOAT_PRODUCTS = 20_000  # of a float twin, each of which may be a hundred instructions


@dataclass(frozen=True, slots=True)
class Row:
    """A layer computed one way on one target.

    ``statistics`` are those of its inputs, ``short`` in a word, "" where there are no others.
    ``way`` is that of a kernel, or "int8" or "float"; ``chosen`` if a plan takes it by itself.
    ``part`` is how much of a twin was counted, 1 for all of it. ``count`` None: there is "no room"
    for it, or "no float" in the compiler's library, as ``note`` says.
    """

    target: str
    shape: str
    statistics: str
    short: str
    way: str
    chosen: bool
    products: int
    unit: str
    counts: tuple[int, ...]
    count: float | None
    part: float = 1.0
    note: str = ""

    @property
    def kernel(self) -> bool:
        """Whether it is one of ours, and no twin."""
        return self.way not in TWINS

    @property
    def per_32(self) -> float | None:
        """Of 32 products."""
        return None if self.count is None else 32 * self.count / self.products


@dataclass(frozen=True, slots=True)
class Tools:
    """What compiled and what counted."""

    target: str
    compiler: str
    emulator: str
    unit: str


def ways(subject: Subject, target: Target) -> tuple[str, ...]:
    """The ways in which kernels of ``target`` can compute the layer, all of its ops or the first.

    They are asked for in the order of :data:`kernels.KERNELS`.
    """
    place = next(i for i, op in enumerate(subject.network.ops) if op.name == subject.names[0])
    run = subject.network.ops[place:]
    scheduled = plan(subject.network, target)
    (step,) = (step for step in scheduled.steps if step.op.name == subject.names[0])
    found: dict[str, None] = {}
    for ops, kernel in kernels.candidates(run, step.sources):
        fits = len(ops) <= len(subject.names) and kernel.fit(ops, step.sources, target.cpu)
        if fits:
            found[kernel.way] = None
    return tuple(found)


def chosen_way(subject: Subject, target: Target) -> str:
    """The way that a plan takes by itself."""
    steps = plan(subject.network, target).steps
    return next(step.kernel.way for step in steps if step.op.name == subject.names[0])


def measure(
    targets: Sequence[Target],
    shapes: Sequence[Shape],
    folder: Path,
    *,
    seed: int = 0,
    only: Sequence[str] = (),
    progress: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Row, Tools | None]]:
    """All rows, target by target, each with its tools where something was counted.

    Args:
        folder: where programs are built.
        only: ways of kernels; all of them if it is empty.
        progress: called once for each shape on each target.

    Raises:
        EdgebnnError: a result is not the oracle's, or a tool is missing.
    """
    place = 0
    for target in targets:
        for shape in shapes:
            for job in _jobs(target, shape, seed, only):
                place += 1
                yield _counted(job, target, folder / str(place))
            progress()


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A row without its count; ``programs`` are tried in turn until one fits."""

    row: Row
    programs: Callable[[], Iterator[Program]]
    slow: bool = False


def int8_of(network: Network, target: Target, folder: Path, seed: int = 0) -> Counted:
    """What the layers of ``network`` take in int8 on ``target``, one after the other.

    Raises:
        EdgebnnError: some layer has no twin; or as :func:`count`.
        TooLarge: there is no room for them.
    """
    layers = twins.twins(network.ops, network.input, seed)
    program = int8_program(layers, target.name, target.cpu, seed)
    return count(program, target, folder, "the twin in int8", slow=True)


def _jobs(target: Target, shape: Shape, seed: int, only: Sequence[str]) -> Iterator[_Job]:
    empty = Row(target.name, shape.name, "", "", "", False, shape.products, "", (), None)
    layers = twins.twins(shape.ops(INPUT, np.random.default_rng(seed)), shape.source, seed)
    for way in TWINS:

        def parts(way: str = way) -> Iterator[Program]:
            return _parts(way, layers, target, seed)

        yield _Job(replace(empty, statistics="-", way=way), parts, slow=True)
    for statistics in shape.statistics:
        subject = shape.subject(statistics, seed, INPUTS)
        own = chosen_way(subject, target)
        for way in ways(subject, target):
            if only and way not in only:
                continue

            def program(subject: Subject = subject, way: str = way) -> Iterator[Program]:
                scheduled = plan(subject.network, target, (way,))
                with contextlib.suppress(TooLarge):
                    yield kernel_program(scheduled, subject.names, subject.source, subject.result)

            drawn = replace(empty, statistics=statistics.title, short=statistics.short)
            yield _Job(replace(drawn, way=way, chosen=way == own), program)


def _parts(
    way: str, layers: tuple[twins.Layer, ...], target: Target, seed: int
) -> Iterator[Program]:
    """The twin with as many outputs as may be, then with half of them, and so on."""
    make = int8_program if way == "int8" else float_program
    first, outputs = layers[0], layers[0].out_shape[2]
    some = outputs
    # Halves, as blocks of outputs divide them if they divide all.
    while way == "float" and some > 1 and first.products * some > _FLOAT_PRODUCTS * outputs:
        some //= 2
    while some:
        part = tuple(layer.first_outputs(some) for layer in layers)
        with contextlib.suppress(TooLarge):
            yield make(part, target.name, target.cpu, seed, outputs / some)
        some //= 2


def _counted(job: _Job, target: Target, folder: Path) -> tuple[Row, Tools | None]:
    row, note = job.row, "no room"
    what = f"{row.way} of {row.shape}"
    for trial, program in enumerate(job.programs()):
        try:
            found: Counted = count(program, target, folder / str(trial), what, slow=job.slow)
        except TooLarge:
            continue
        except EdgebnnError as error:
            # An ESP8266 has them in its ROM, which no emulator has.
            if row.way != "float" or "undefined" not in str(error):
                raise
            note = "no float"
            break
        tools = Tools(target.name, found.compiler, found.emulator, found.unit)
        value = program.scale * found.mean
        return (
            replace(
                row,
                unit=found.unit,
                counts=found.counts,
                count=value,
                part=1 / program.scale,
            ),
            tools,
        )
    return replace(row, note=note), None
