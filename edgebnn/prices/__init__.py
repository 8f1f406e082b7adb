"""What a network takes on a CPU before a compiler runs: trips of kernels, each times its price.

:mod:`edgebnn.kernels.trips` says what a trip is. Prices are in ``<target>.json``, with the compiler
that they are true of; ``edgebnn bench prices`` makes the files. A CPU without one has none.
"""

import functools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.kernels.base import Inputs, Kernel, Trips, Values, View
from edgebnn.kernels.trips import special
from edgebnn.prices.printed import zeros
from edgebnn.targets.base import Cpu

Counted = NDArray[np.float64]
"""(N,) instructions, one an input."""
LIGHT = 60
"""Instructions: a layer of less may be off by as much of a part."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Instructions a trip, by its name, in the code of ``compiler``.

    ``above`` is by how much layers took more than predicted, at most, as a part of that, by their
    kernels. ``code`` and ``stack`` are bytes of what is printed, by kernels and names of parts:
    those of code fit best, those of the stack from above.
    """

    compiler: str
    of: Mapping[str, float]
    above: Mapping[str, float]
    code: Mapping[str, Mapping[str, float]]
    stack: Mapping[str, Mapping[str, float]]

    def sum(self, trips: Trips, inputs: int) -> Counted:
        """What ``trips`` take for each of ``inputs``.

        A name with brackets says what a part has beside the usual, and counts 0 if nobody has
        measured it.
        """
        return np.maximum(np.broadcast_to(self.each(trips), inputs), 1.0)

    def each(self, trips: Trips) -> Counted:
        """The same, of parts of a layer: for as many inputs as are counted, one where all are."""
        return total(self.of, trips)

    def layer(
        self, kernel: Kernel, view: View, values: tuple[Values, ...], cpu: Cpu
    ) -> Counted | None:
        """What a layer takes on ``values``, those of the tensors that it reads; None: unknown.

        Of a kernel without trips, and of one with parts that no layer had which prices were fitted
        on.
        """
        if kernel.trips is None or kernel.name not in self.above:
            return None
        trips = kernel.trips(view, values, cpu)
        usual = {_part(name) for name, count in trips.items() if "[" not in name and np.any(count)}
        if usual - {_part(name) for name in self.of} - set(self.above):
            return None
        return self.sum(trips, len(values[0]))

    def most(self, kernel: Kernel, view: View, inputs: Inputs, cpu: Cpu) -> float | None:
        """What a layer that reads tensors of these kinds takes at most; None: unknown.

        Predictions are not exact, so it is raised by what layers of the kernel took more than was
        predicted for them: the largest part of all layers that prices were fitted on. Of a shape
        that none of these had, prices below 0 may take away what it does take; so where all inputs
        take the same trips it is no less than what prices above 0 come to.
        """
        if kernel.trips is None or kernel.name not in self.above:
            return None
        if kernel.most is not None:
            return self.raised(kernel.name, kernel.most(view, cpu, self.each))
        trips = kernel.trips(view, tuple(zeros(one) for one in inputs), cpu)
        added = total({name: price for name, price in self.of.items() if price > 0}, trips)
        return self.raised(kernel.name, max(float(self.sum(trips, 1)[0]), float(added[0])))

    def raised(self, name: str, predicted: float) -> float:
        """The most that was counted where so many instructions were predicted."""
        return predicted + self.above.get(name, 0.0) * (predicted + LIGHT)

    def stack_of(self, name: str, parts: Trips) -> float | None:
        """Bytes of stack that such parts of a kernel of this name take at most; None: unknown."""
        if name not in self.stack:
            return None
        return max(float(total(self.stack[name], parts)[0]), 0.0)

    def code_of(self, name: str, parts: Trips) -> float | None:
        """Bytes of code of such parts of a kernel of this name, about; None: unknown."""
        if name not in self.code:
            return None
        return max(float(total(self.code[name], parts)[0]), 0.0)


def _part(name: str) -> str:
    """The part of a kernel, such as its head, that a trip is of."""
    return name.partition(".")[0].partition("[")[0]


def total(prices: Mapping[str, float], trips: Trips) -> Counted:
    """Prices times trips: for as many inputs as are counted, one where all are."""
    found = np.zeros(1)
    for name, count in trips.items():
        found = found + prices.get(name, 0.0) * np.asarray(count, np.float64)
    return found


def network_trips(layers: int, scores: int) -> Trips:
    """What is beside the layers: functions that call them, and the search for the best score."""
    few = special("network", scores)
    return {"network": 1, "network.layer": layers, "network.score": scores, few: 1}


def network_parts(layers: int, scores: int, helpers: Iterable[str]) -> Trips:
    """What is printed beside the layers, with helpers, which a library has once."""
    found = network_trips(layers, scores) | {special("network.layers", layers, 8): 1}
    return found | {f"helper {name}": 1 for name in helpers}


@functools.cache
def prices_of(target: str) -> Prices | None:
    """The prices of the target of this name; None where there are none."""
    file = resources.files(__name__) / f"{target}.json"
    if not file.is_file():
        return None
    return parse(file.read_text(encoding="utf-8"))


def parse(text: str) -> Prices:
    """The content of a file of prices."""
    content: dict[str, Any] = json.loads(text)
    sizes = (content[name] for name in ("above", "code", "stack"))
    return Prices(content["compiler"], content["instructions"], *sizes)


def text(known: Prices) -> str:
    """Prices as a file, a line each, so that a change is seen in review."""
    content = {
        "compiler": known.compiler,
        "instructions": _rounded(known.of, 2),
        "above": {
            name: math.ceil(1000 * part) / 1000 for name, part in sorted(known.above.items())
        },
        "code": {name: _rounded(prices, 1) for name, prices in sorted(known.code.items())},
        "stack": {name: _rounded(prices, 1) for name, prices in sorted(known.stack.items())},
    }
    return json.dumps(content, indent=1) + "\n"


def _rounded(prices: Mapping[str, float], digits: int) -> dict[str, float]:
    """Without those that are nothing."""
    rounded = {name: round(price, digits) for name, price in prices.items()}
    return {name: price for name, price in rounded.items() if price}
