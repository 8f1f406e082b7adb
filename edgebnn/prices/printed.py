"""What is printed of a layer, by names: its code and its stack are sums of what these parts take.

A part is there or not, such as a loop, which a compiler leaves out where it has one trip, or an
array behind a number of more bits than an instruction holds. So numbers of a view are told apart by
classes. Trips that all inputs take are parts as well, where a kernel has any. What a kernel prints
once for each of something, it counts by itself.
"""

import dataclasses
from typing import Any

import numpy as np

from edgebnn.ir import ScoreVector, Tensor
from edgebnn.kernels.base import Inputs, Kernel, Table, Trips, Values, View
from edgebnn.targets.base import Cpu

_CLASSES = ((1, "0"), (2, "1"), (8, "few"), (256, "byte"), (4096, "12 bits"))


def printed(kernel: Kernel, view: View, inputs: Inputs, cpu: Cpu) -> Trips | None:
    """The parts of a layer that reads tensors of these kinds; None: nobody knows them."""
    if kernel.trips is None:
        return None
    trips = kernel.trips(view, tuple(zeros(one) for one in inputs), cpu)
    found: Trips = {name: 1 for name, count in trips.items() if np.any(count)}
    return {kernel.name: 1} | found | _classes(view, kernel.name) | kernel.printed(view)


def stacked(kernel: Kernel, view: View, parts: Trips) -> Trips:
    """Of these what its stack depends on; a kernel whose code has no loops says it by itself."""
    return parts if kernel.held is None else {kernel.name: 1} | kernel.held(view)


def zeros(tensor: Tensor) -> Values:
    """Values of a tensor for one input."""
    assert not isinstance(tensor, ScoreVector)
    return np.zeros((1, tensor.height, tensor.width, tensor.channels), np.int64)


def _classes(view: Any, path: str) -> Trips:
    """The fields of a view and of those in it, by classes of their values."""
    found: Trips = {}
    for field in dataclasses.fields(view):
        value, name = getattr(view, field.name), f"{path}.{field.name}"
        if dataclasses.is_dataclass(value) and not isinstance(value, Table):
            found |= _classes(value, name)
        elif value is None or isinstance(value, bool | np.bool_ | str):
            found[f"{name}[{value!s:.12}]"] = 1
        elif isinstance(value, int | np.integer):
            size = abs(int(value))
            kind = next((kind for end, kind in _CLASSES if size < end), "large")
            found[f"{name}[{kind}]"] = 1
    return found
