"""Is the choice of kernels the best? All plans are counted: ``edgebnn bench choice``."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebnn.errors import TooLarge
from edgebnn.plan import Plan, plan, plans
from edgebnn.prices.fit import counted
from edgebnn.prices.networks import layer
from edgebnn.targets import Target
from edgebnn.wishes import Wishes

_FIRST = 200_000  # numbers of networks that no price is fitted on


@dataclass(frozen=True, slots=True)
class Choice:
    """The plan chosen for a network and what it takes, beside the best one: mean instructions.

    ``ram`` is the budget in bytes, None for as much as there is. ``plans`` were counted.
    """

    name: str
    target: str
    ram: int | None
    chosen: str
    instructions: float
    best: str
    least: float
    plans: int

    @property
    def over(self) -> float:
        """The part by which it takes more than the best."""
        return self.instructions / self.least - 1


def choices(target: Target, count: int) -> Iterator[Choice]:
    """The choice for ``count`` random layers, each with two budgets of RAM.

    One is none; the other one is half way from the plan of the least RAM to the one chosen.

    Raises:
        EdgebnnError: there is no compiler, or no Unicorn.
    """
    for number in range(_FIRST, _FIRST + count):
        one = layer(number)
        known: list[tuple[Plan, float]] = []
        for scheduled in plans(one.network, target, one.inputs):
            with contextlib.suppress(TooLarge):
                known.append((scheduled, _spent(scheduled, one.inputs)))
        free = plan(one.network, target, samples=one.inputs)
        least = min(scheduled.arena_bytes for scheduled, _ in known)
        for ram in (None, (least + free.arena_bytes) // 2):
            chosen = plan(one.network, target, wishes=Wishes(ram=ram), samples=one.inputs)
            spent = next(spent for scheduled, spent in known if _same(scheduled, chosen))
            fitting = [pair for pair in known if ram is None or pair[0].arena_bytes <= ram]
            best, fewest = min(fitting, key=lambda pair: pair[1])
            ways, best_ways = _ways(chosen), _ways(best)
            name = f"random {number}"
            yield Choice(name, target.name, ram, ways, spent, best_ways, fewest, len(known))


def _spent(scheduled: Plan, inputs: NDArray[np.uint8]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        rows, *_ = counted(scheduled, inputs, Path(folder))
    return sum(float(row.counts.mean()) for row in rows)


def _ways(scheduled: Plan) -> str:
    return ", ".join(step.kernel.name for step in scheduled.steps)


def _same(one: Plan, other: Plan) -> bool:
    return [step.kernel for step in one.steps] == [step.kernel for step in other.steps]
