"""What a network takes on a CPU before a compiler runs: trips of kernels, each times its price.

:mod:`edgebnn.kernels.trips` says what a trip is. Prices are in ``<target>.json``, with the compiler
that they are true of; ``edgebnn bench prices`` makes the files. A CPU without one has none.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.kernels.base import Kernel, Trips, Values, View
from edgebnn.kernels.trips import UNKNOWN, special
from edgebnn.targets.base import Cpu

Counted = NDArray[np.float64]
"""(N,) instructions, one an input."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Instructions a trip, by its name, in the code of ``compiler``."""

    compiler: str
    of: Mapping[str, float]

    def sum(self, trips: Trips, inputs: int) -> Counted:
        """What ``trips`` take for each of ``inputs``.

        A name with brackets says what a part has beside the usual, and counts 0 if nobody has
        measured it.
        """
        found = np.zeros(inputs)
        for name, count in trips.items():
            found += self.of.get(name, 0.0) * np.asarray(count, np.float64)
        return np.maximum(found, 1.0)

    def layer(
        self, kernel: Kernel, view: View, values: tuple[Values, ...], cpu: Cpu
    ) -> Counted | None:
        """What a layer takes on ``values``, those of the tensors that it reads; None: unknown."""
        if kernel.trips is None:
            return None
        trips = kernel.trips(view, values, cpu)
        return None if UNKNOWN in trips else self.sum(trips, len(values[0]))


def network_trips(layers: int, scores: int) -> Trips:
    """What is beside the layers: functions that call them, and the search for the best score."""
    few = special("network", scores)
    return {"network": 1, "network.layer": layers, "network.score": scores, few: 1}


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
    return Prices(content["compiler"], content["instructions"])


def text(compiler: str, found: Mapping[str, float]) -> str:
    """Prices as a file, a line each, so that a change is seen in review."""
    rows = {name: round(price, 2) for name, price in found.items() if abs(price) >= 0.005}
    return json.dumps({"compiler": compiler, "instructions": rows}, indent=1) + "\n"
