"""How fast the emitted C is on this computer, beside the float twin of the network in torch.

Both classify one input at a time on one thread, in turns of about a millisecond, so that what else
the machine does meets both; the ratio is the median of the turns' ratios. Time is that of the
thread: what others take from it in between does not count.
"""

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import edgebnn.nn as bnn
from edgebnn.codegen import c
from edgebnn.device import toolchain
from edgebnn.device.shared import SharedLibrary
from edgebnn.measure import Trial, differing
from edgebnn.plan import plan
from edgebnn.targets import TARGETS
from edgebnn.train.twin import float_twin

_TURN = 1e-3  # seconds


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians over ``rounds`` turns of each; ``ratio`` says how many times as fast the C is."""

    rounds: int
    inputs: int
    differing: int  # outputs of the C that are not those of the network in torch
    c_seconds: float  # an input
    torch_seconds: float
    ratio: float
    compiler: str
    flags: str
    torch: str


def against_torch(
    model: nn.Module, given: Trial, folder: Path, *, flags: tuple[str, ...], rounds: int = 200
) -> Speed:
    """Time the C of a network beside torch's float layers of the same shapes, in eval mode.

    The twin is given float32, and what is a convolution in it the layout that suits it.

    Args:
        model: the network as a module.
        given: the network as integers, inputs, and the outputs that the C has to give.
        folder: where the C is compiled, with ``flags``.
        rounds: turns that are timed of each, after a tenth as many that are not.

    Raises:
        EdgebnnError: there is no compiler, or it does not take the flags.
    """
    compiler = toolchain.find_compiler(TARGETS["host"])
    library = c.generate(plan(given.network, TARGETS["host"]), "model")
    built = SharedLibrary(library, folder, flags, compiler)
    shape = given.network.input
    images = given.inputs.reshape(-1, shape.height, shape.width, shape.channels)
    twin = _Twin(model, torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kinds = (lambda calls: built.seconds(given.inputs, calls), twin.seconds)
        times = _in_turns(kinds, rounds)
    finally:
        torch.set_num_threads(threads)
    count = len(given.inputs)
    return Speed(
        rounds=rounds,
        inputs=count,
        differing=differing(built.run(given.inputs), given.expected),
        c_seconds=statistics.median(own for own, _ in times) / count,
        torch_seconds=statistics.median(other for _, other in times) / count,
        ratio=statistics.median(other / own for own, other in times),
        compiler=compiler.version,
        flags=" ".join(flags),
        torch=torch.__version__,
    )


class _Twin:
    """The float twin, and inputs that it is given one by one."""

    def __init__(self, model: nn.Module, images: torch.Tensor) -> None:
        twin = float_twin(copy.deepcopy(model)).eval()
        flat = next(part for part in twin.modules() if isinstance(part, bnn.Input)).shape
        inputs = list(images.reshape(len(images), 1, *flat))
        for name, part in list(twin.named_modules()):
            if isinstance(part, bnn.Input):  # the inputs are numbers as it makes them
                parent, _, child = name.rpartition(".")
                setattr(twin.get_submodule(parent), child, nn.Identity())
        if any(isinstance(part, nn.Conv2d) for part in twin.modules()):
            twin = twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            inputs = [one.to(memory_format=torch.channels_last) for one in inputs]
        self._twin, self._inputs = twin, inputs

    @torch.inference_mode()
    def seconds(self, rounds: int) -> float:
        """The thread's time for all inputs, ``rounds`` times."""
        started = time.thread_time()
        for _ in range(rounds):
            for one in self._inputs:
                self._twin(one)
        return time.thread_time() - started


def _in_turns(
    kinds: tuple[Callable[[int], float], Callable[[int], float]], rounds: int
) -> list[tuple[float, float]]:
    """Seconds a call of either kind, for each of ``rounds`` turns, which are many quick calls."""
    calls = [max(1, round(_TURN / min(kind(1) for _ in range(5)))) for kind in kinds]
    times = []
    for number in range(-(rounds // 10), rounds):
        taken = [0.0, 0.0]
        for which in (number % 2, 1 - number % 2):  # neither always follows the other
            taken[which] = kinds[which](calls[which]) / calls[which]
        if number >= 0:
            times.append((taken[0], taken[1]))
    return times
