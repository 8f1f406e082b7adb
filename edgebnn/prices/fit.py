"""Fit the prices of trips to counted runs, or check them: ``edgebnn bench prices``.

Random networks are compiled and run in Unicorn, which counts the instructions of every layer on
every input. Prices are the solution of least squares, none below 0, by which the sums of prices
times trips come closest to these counts, each in parts of itself.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn import prices, reference
from edgebnn.codegen import c
from edgebnn.device import unicorn
from edgebnn.device.build import build_firmware
from edgebnn.errors import EdgebnnError, TooLarge
from edgebnn.ir import sources
from edgebnn.kernels.base import Trips
from edgebnn.plan import Plan, plan
from edgebnn.prices import Prices
from edgebnn.prices.networks import Subject, extremes, subject
from edgebnn.targets import Target

TARGETS = ("cortex-m4", "cortex-m0", "rv32imc")
NETWORKS = 420
_FIRST_CHECKED = 100_000  # numbers of networks that no price is fitted on
_ROUNDS, _OFF = 8, 0.03  # rows that are off by so much count half
_NOISE = 0.03  # of a count, that no trip explains
_USUAL, _SPECIAL = 60.0, 4.0  # instructions of a trip, about: prices are drawn to 0 from there


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What a layer, or what is beside all layers, took on each of N inputs."""

    what: str
    trips: Trips
    counts: NDArray[np.float64]


def counted(scheduled: Plan, inputs: NDArray[np.uint8], folder: Path) -> tuple[list[Row], str]:
    """The rows of a network on ``inputs``, and the compiler."""
    target, network = scheduled.target, scheduled.network
    image = build_firmware(c.generate(scheduled, "net"), target, folder)
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
    return rows, image.compiler.version


def planned(one: Subject, target: Target) -> Plan:
    """The plan by the ways that a subject goes, if its network goes them."""
    with contextlib.suppress(EdgebnnError):
        return plan(one.network, target, one.prefer)
    return plan(one.network, target)


def measured(
    target: Target, numbers: Sequence[int], progress: Callable[[int], None] = lambda _: None
) -> tuple[list[Row], str]:
    """The rows of the networks of these numbers, and the compiler."""
    rows: list[Row] = []
    compiler = ""
    for number in numbers:
        one = subject(number)
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TooLarge):
            inputs = np.concatenate([one.inputs, extremes(one.network.input)])
            found, compiler = counted(planned(one, target), inputs, Path(folder))
            rows += found
        progress(number)
    return rows, compiler


def solve(rows: Sequence[Row]) -> dict[str, float]:
    """The prices that fit best.

    A compiler that knows a result, as of a bit that never is set, leaves its layer out. So rows
    count the less the farther they are off, in a few rounds. Names in brackets say how a part
    differs from the usual: they are drawn to 0, so that what few rows have is not read into them.
    """
    names = sorted({name for row in rows for name, trips in row.trips.items() if np.any(trips)})
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
        right[part] = weight * row.counts
        at += len(row.counts)
    scale: NDArray[Any] = np.linalg.norm(matrix, axis=0)
    matrix = matrix / scale
    usual = np.array([_SPECIAL if "[" in name else _USUAL for name in names])
    drawn = (_NOISE / usual / scale) ** 2
    trust = np.ones(height)
    x = np.zeros(len(names))
    for _ in range(_ROUNDS):
        weighted = matrix * trust[:, None]
        x = np.linalg.solve(weighted.T @ matrix + np.diag(drawn), weighted.T @ right)
        trust = 1 / (1 + ((matrix @ x - right) / _OFF) ** 2)
    return dict(zip(names, (x / scale).tolist(), strict=True))


def excess(rows: Sequence[Row], known: Prices) -> dict[str, float]:
    """By how much of a part layers took more than predicted, by their kernels, at most."""
    found: dict[str, float] = {}
    for row in rows:
        predicted = known.sum(row.trips, len(row.counts))
        above = float(((row.counts - predicted) / (predicted + prices.LIGHT)).max())
        found[row.what] = max(found.get(row.what, 0.0), above)
    return found


def fit(target: Target, progress: Callable[[int], None] = lambda _: None) -> str:
    """The text of the file of prices of ``target``.

    Raises:
        EdgebnnError: there is no compiler, or no Unicorn.
    """
    rows, compiler = measured(target, range(NETWORKS), progress)
    return fitted(rows, f"{compiler} -O2")


def fitted(rows: Sequence[Row], compiler: str) -> str:
    """The text of the file of prices that fit ``rows`` best."""
    known = Prices(compiler, solve(rows), {})
    return prices.text(replace(known, above=excess(rows, known)))


@dataclass(frozen=True, slots=True)
class Checked:
    """A network on a target: means of what was predicted, and of what was counted."""

    name: str
    target: str
    predicted: float
    counted: float

    @property
    def error(self) -> float:
        """The part by which it was predicted too high."""
        return self.predicted / self.counted - 1


def check(name: str, scheduled: Plan, inputs: NDArray[np.uint8], folder: Path) -> Checked:
    """Count a network on ``inputs``, and compare with what the prices of its target say.

    Raises:
        EdgebnnError: the target has no prices; or there is no compiler, or no Unicorn.
    """
    known = prices.prices_of(scheduled.target.name)
    if known is None:
        raise EdgebnnError(f"target '{scheduled.target.name}' has no prices; fit them first")
    rows, _ = counted(scheduled, inputs, folder)
    predicted = sum(float(known.sum(row.trips, len(inputs)).mean()) for row in rows)
    spent = sum(float(row.counts.mean()) for row in rows)
    return Checked(name, scheduled.target.name, predicted, spent)


def checks(target: Target, count: int) -> Iterator[Checked]:
    """:func:`check` of random networks on which no price is fitted."""
    for number in range(_FIRST_CHECKED, _FIRST_CHECKED + count):
        one = subject(number)
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TooLarge):
            yield check(f"random {number}", planned(one, target), one.inputs, Path(folder))
