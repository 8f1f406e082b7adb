"""Fit the prices of trips to counted runs, or check them: ``edgebnn bench prices``.

Random networks are compiled and run in Unicorn, which counts the instructions of every layer on
every input. Prices are the solution of least squares, none below 0, by which the sums of prices
times trips come closest to these counts, each in parts of itself.
"""

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn import prices, reference
from edgebnn.codegen import c
from edgebnn.cost import code_and_stack
from edgebnn.device import elf, unicorn
from edgebnn.device.build import Image, build_firmware
from edgebnn.errors import EdgebnnError, TooLarge
from edgebnn.ir import sources
from edgebnn.kernels.base import Trips
from edgebnn.plan import Plan, plan
from edgebnn.prices import Prices
from edgebnn.prices.leveled import leveled
from edgebnn.prices.networks import Subject, extremes, masked, subject, tree
from edgebnn.prices.sizes import FRAMES, Part, parts
from edgebnn.targets import Target

TARGETS = ("cortex-m4", "cortex-m0", "rv32imc")
SIGNS, LEVELED, MASKED, TREES = 420, 160, 60, 100
NETWORKS = SIGNS + LEVELED + MASKED + TREES
WORD = 4.0  # bytes of stack of a word that is held: known, whatever networks there are to fit on
_FIRST_CHECKED = 100_000  # numbers of networks that no price is fitted on
_ROUNDS, _UPPER_ROUNDS, _OFF = 8, 30, 0.03  # rows that are off by so much count half
_NOISE = 0.03  # of a count, that no trip explains
_USUAL, _SPECIAL = 60.0, 4.0  # instructions of a trip, about: prices are drawn to 0 from there
_FEW, _RARE = 40, 0.1  # kernels of fewer layers may take such a part more
_PRINTED, _PRINTED_SPECIAL = 400.0, 15.0  # and bytes of a part


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What a layer, or what is beside all layers, took on each of N inputs."""

    what: str
    trips: Trips
    counts: NDArray[np.float64]


def counted(
    scheduled: Plan, inputs: NDArray[np.uint8], folder: Path, extra: tuple[str, ...] = ()
) -> tuple[list[Row], Image, int]:
    """The rows of a network on ``inputs``, what was built, with ``extra`` flags, and its stack."""
    target, network = scheduled.target, scheduled.network
    image = build_firmware(c.generate(scheduled, "net"), target, folder, extra=extra)
    run = unicorn.run(image, inputs, counted=len(inputs))
    layers = np.array(run.each_layer_instructions, np.float64)
    values = reference.trace(network, reference.check_inputs(network, inputs))
    rows = []
    for place, step in enumerate(scheduled.steps):
        if step.kernel.trips is None:
            continue
        read = tuple(values[name] for name in sources(step.op))
        trips = step.kernel.trips(step.view, read, target.cpu)
        rows.append(Row(step.kernel.name, trips, layers[:, place]))
    beside = np.array(run.instructions, np.float64) - layers.sum(axis=1)
    trips = prices.network_trips(len(scheduled.steps), network.num_classes)
    rows.append(Row("network", trips, beside))
    assert run.stack_bytes is not None
    return rows, image, run.stack_bytes


def planned(one: Subject, target: Target) -> Plan:
    """The plan by the ways that a subject goes, if its network goes them."""
    with contextlib.suppress(EdgebnnError):
        return plan(one.network, target, one.prefer)
    return plan(one.network, target)


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows of instructions, parts of code and of stack, and the compiler of them."""

    rows: list[Row]
    parts: list[Part]
    compiler: str


def measured(
    target: Target, subjects: Iterable[Subject], progress: Callable[[int], None] = lambda _: None
) -> Measured:
    """Networks on their inputs, by gcc."""
    rows: list[Row] = []
    found: list[Part] = []
    compiler = ""
    for number, one in enumerate(subjects):
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TooLarge):
            inputs = np.concatenate([one.inputs, extremes(one.network.input)])
            scheduled = planned(one, target)
            there, image, _ = counted(scheduled, inputs, Path(folder), (FRAMES,))
            rows += there
            found += parts(scheduled, image)
            compiler = image.compiler.version
        progress(number)
    return Measured(rows, found, compiler)


def solve(
    rows: Sequence[Row],
    about: tuple[float, float] = (_USUAL, _SPECIAL),
    trusted: Callable[[Any], Any] | None = None,
    known: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, float]:
    """The prices that fit best: ``about`` so much or less, and those in brackets.

    Those ``known`` stay as they are, and others are what is left of the counts.

    A compiler that knows a result, as of a bit that never is set, leaves its layer out. So rows
    count the less the farther they are off, in a few rounds, or, with ``trusted``, as it says of by
    how much they are predicted too high. Names in brackets say how a part differs from the usual:
    they are drawn to 0, so that what few rows have is not read into them.
    """
    there = {name for row in rows for name, trips in row.trips.items() if np.any(trips)}
    names = sorted(there - set(known))
    if not names:
        return dict(known)
    place = {name: number for number, name in enumerate(names)}
    height = sum(len(row.counts) for row in rows)
    matrix: NDArray[Any] = np.zeros((height, len(names)))
    right: NDArray[Any] = np.zeros(height)
    at = 0
    for row in rows:
        part = slice(at, at + len(row.counts))
        weight: NDArray[Any] = 1 / (row.counts + prices.LIGHT)
        for name, trips in row.trips.items():
            if name in place:
                matrix[part, place[name]] = weight * np.asarray(trips)
        right[part] = weight * (row.counts - prices.total(known, row.trips))
        at += len(row.counts)
    scale: NDArray[Any] = np.linalg.norm(matrix, axis=0)
    matrix = matrix / scale
    usual = np.array([about["[" in name] for name in names])
    drawn = (_NOISE / usual / scale) ** 2
    trust = np.ones(height)
    x = np.zeros(len(names))
    for _ in range(_UPPER_ROUNDS if trusted else _ROUNDS):
        weighted = matrix * trust[:, None]
        x = np.linalg.solve(weighted.T @ matrix + np.diag(drawn), weighted.T @ right)
        off = matrix @ x - right
        trust = trust * trusted(off) if trusted else 1 / (1 + (off / _OFF) ** 2)
        trust = np.clip(trust, 0.05, 1e4) if trusted else trust
    return {**known, **dict(zip(names, (x / scale).tolist(), strict=True))}


def from_above(off: NDArray[Any]) -> NDArray[Any]:
    """Rows that are predicted too low count more from round to round, the others less."""
    return np.asarray(np.where(off < 0, 1 + 30 * np.minimum(-off, 0.2), 0.8))


def excess(
    rows: Sequence[Row], known: Prices, before: Mapping[str, float] = MappingProxyType({})
) -> dict[str, float]:
    """By how much of a part layers took more than predicted, by their kernels, at most.

    It is not less than ``before``. Of kernels that few layers have it is more: prices fit these
    better than others.
    """
    found = dict(before)
    layers = Counter(row.what for row in rows)
    for row in rows:
        predicted = known.sum(row.trips, len(row.counts))
        above = float(((row.counts - predicted) / (predicted + prices.LIGHT)).max())
        spare = _RARE if row.what not in before and layers[row.what] < _FEW else 0.0
        found[row.what] = max(found.get(row.what, 0.0), above + spare)
    return found


def fit(target: Target, progress: Callable[[int], None] = lambda _: None) -> str:
    """The text of the file of prices of ``target``.

    Raises:
        EdgebnnError: there is no compiler, or no Unicorn.
    """
    signs = measured(target, map(subject, range(SIGNS)), progress)
    signs.parts.extend(of_trees(target, progress))
    levels = measured(target, map(leveled, range(LEVELED)), progress)
    known = fitted(levels, fitted(signs))
    return prices.text(fitted(of_masked(target, progress), known))


def of_trees(target: Target, progress: Callable[[int], None] = lambda _: None) -> list[Part]:
    """Code and stack of trees of all sizes, which few networks of :func:`subject` have."""
    found = measured(target, map(tree, range(TREES)), progress)
    return [part for part in found.parts if part.what == "conv_tree"]


def of_masked(target: Target, progress: Callable[[int], None] = lambda _: None) -> Measured:
    """What networks have of layers by masked columns, and beside all layers."""
    found = measured(target, map(masked, range(MASKED)), progress)
    there = ("conv_masked", "dense_masked")
    rows = [row for row in found.rows if row.what in there]
    sizes = [part for part in found.parts if part.what in (*there, "network")]
    return Measured(rows, sizes, found.compiler)


def fitted(found: Measured, known: Prices | None = None) -> Prices:
    """The prices that fit best; those ``known`` stay as they are, of parts that others have too.

    So what networks of signs take is predicted as before, whatever else there is.
    """
    known = known or Prices("", {}, {}, {}, {})
    code, stack = dict(known.code), dict(known.stack)
    for name in sorted({one.what for one in found.parts}):
        those = [one for one in found.parts if one.what == name]
        sizes = [Row(name, one.code_parts, np.array([one.code], float)) for one in those]
        frames = [Row(name, one.stack_parts, np.array([one.stack], float)) for one in those]
        about = (_PRINTED, _PRINTED_SPECIAL)
        code[name] = solve(sizes, about, known=code.get(name, {}))
        held = {one: WORD for one in (f"{name}.held",) if any(one in row.trips for row in frames)}
        stack[name] = solve(frames, about, from_above, held | dict(stack.get(name, {})))
    of = solve(found.rows, known=known.of)
    made = Prices(f"{found.compiler} -O2", of, {}, code, stack)
    return replace(made, above=excess(found.rows, made, known.above))


@dataclass(frozen=True, slots=True)
class Checked:
    """A network on a target: what was predicted, and what was counted.

    Instructions are means of all inputs; ``most`` are those of none, and ``largest`` those of one.
    """

    name: str
    target: str
    predicted: float
    counted: float
    most: float | None
    largest: float
    sizes: tuple[float, float] | None  # of code, about, and of stack, at most
    code_bytes: int
    stack_bytes: int

    @property
    def error(self) -> float:
        """The part by which instructions were predicted too high."""
        return self.predicted / self.counted - 1


def check(name: str, scheduled: Plan, inputs: NDArray[np.uint8], folder: Path) -> Checked:
    """Count a network on ``inputs``, and compare with what the prices of its target say.

    Raises:
        EdgebnnError: the target has no prices; or there is no compiler, or no Unicorn.
    """
    known = prices.prices_of(scheduled.target.name)
    if known is None:
        raise EdgebnnError(f"target '{scheduled.target.name}' has no prices; fit them first")
    rows, image, stack = counted(scheduled, inputs, folder)
    predicted = sum(float(known.sum(row.trips, len(inputs)).mean()) for row in rows)
    return Checked(
        name=name,
        target=scheduled.target.name,
        predicted=predicted,
        counted=sum(float(row.counts.mean()) for row in rows),
        most=scheduled.most,
        largest=float(np.sum([row.counts for row in rows], axis=0).max()),
        sizes=code_and_stack(scheduled),
        code_bytes=elf.footprint(image.path).code_bytes,
        stack_bytes=stack,
    )


def checks(target: Target, count: int) -> Iterator[Checked]:
    """:func:`check` of random networks on which no price is fitted, as many with levels."""
    numbers = range(_FIRST_CHECKED, _FIRST_CHECKED + count)
    named = [(f"random {number}", subject(number)) for number in numbers]
    named += [(f"levels {number}", leveled(number)) for number in numbers]
    for name, one in named:
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TooLarge):
            yield check(name, planned(one, target), one.inputs, Path(folder))
