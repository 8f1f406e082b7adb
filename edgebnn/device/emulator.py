"""What all emulators have in common, and which one runs the images of a target."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgebnn.device import qemu, simavr, unicorn
from edgebnn.device.build import Image
from edgebnn.device.run import Run
from edgebnn.errors import EdgebnnError
from edgebnn.targets import Target
from edgebnn.targets.base import Emulated, Qemu, Simavr, Unicorn


class Emulator(Protocol):
    """A module that runs images; :mod:`edgebnn.device.host` takes the same call."""

    def run(
        self,
        image: Image,
        inputs: NDArray[np.uint8],
        *,
        counted: int = ...,
        progress: Callable[[int], None] | None = ...,
        seconds: float = ...,
    ) -> Run:
        """Run ``image`` on ``inputs``, uint8 (N, input_bytes).

        Where the emulator can, the instructions, or the cycles, of the first ``counted`` inputs
        are counted.
        ``progress`` is told the number of inputs done; ``seconds`` limits each piece of the run
        that it cannot look into.

        Raises:
            EdgebnnError: the emulator is missing, the program faulted or took too long, or the
                inputs do not fit it.
        """


def emulator_of(target: Target) -> Emulator:
    """The emulator of ``target`` that measures most.

    Raises:
        EdgebnnError: it has none.
    """
    if not target.emulators:
        raise EdgebnnError(f"target '{target.name}' has no emulator")
    return emulator_for(target.emulators[0])


def emulator_for(settings: Emulated) -> Emulator:
    """The emulator that ``settings`` are for."""
    match settings:
        case Unicorn():
            return unicorn
        case Simavr():
            return simavr
        case Qemu():
            return qemu


def version(settings: Emulated) -> str:
    """Name and version of an emulator, for reports: "QEMU 7.2.22".

    Raises:
        EdgebnnError: it is missing.
    """
    match settings:
        case Unicorn():
            return f"{settings.title} {unicorn.version()}"
        case Simavr():
            return f"{settings.title} {simavr.version()}"
        case Qemu():
            return f"{settings.title} {qemu.version(settings)}"
