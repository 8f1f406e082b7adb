"""Counts what a layer takes: builds a :class:`Program`, runs it, compares every byte of the result.

The counts are the emulator's that measures most: instructions by Unicorn or QEMU, exact, or cycles
by simavr.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgebnn.bench.programs import HEAD_BYTES, Program
from edgebnn.device.build import build_firmware
from edgebnn.device.emulator import emulator_for, version
from edgebnn.errors import EdgebnnError, TooLarge
from edgebnn.targets import Target
from edgebnn.targets.base import Emulated, Qemu

_NOTHING_INSTRUCTIONS = 1  # of the program's function that does nothing: a return
_NOTHING_CYCLES = 4  # of an AVR's ret
_ROOM = 400 << 10  # bytes of RAM that all programs find enough
_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Counted:
    """What one call took, a number an input; ``compiler`` with its flags."""

    counts: tuple[int, ...]
    unit: str
    compiler: str
    emulator: str

    @property
    def mean(self) -> float:
        return sum(self.counts) / len(self.counts)


def count(
    program: Program, target: Target, folder: Path, what: str, *, slow: bool = False
) -> Counted:
    """Run ``program`` on an emulator of ``target``, and count its layer.

    ``what`` names the layer in messages. What is ``slow`` is run by QEMU where that has room for
    it: it counts the same instructions as Unicorn does, sooner.

    Raises:
        EdgebnnError: no compiler or emulator, or its run fails; or its result is not the one that
            NumPy has.
        TooLarge: it does not fit the machine.
    """
    library, emulated = program.library, _emulated(target, slow)
    if max(library.input_bytes, 4 * library.num_classes) > target.cpu.largest_array:
        raise TooLarge(f"{what}: {target.name} has no array so large")
    image = build_firmware(library, target, folder, machine=emulated.machine, runtime=True)
    number, size = program.source.shape
    records = np.zeros((2 * number, library.input_bytes), np.uint8)
    records[1::2, 0] = 1
    records[:, HEAD_BYTES : HEAD_BYTES + size] = np.repeat(program.source, 2, axis=0)
    run = emulator_for(emulated).run(image, records, counted=len(records), seconds=_SECONDS)
    stored = run.scores.astype("<i4").view(np.uint8)[:, : program.result.shape[1]]
    wrong = (stored[::2] != program.result) | (stored[1::2] != program.result)
    if wrong.any():
        raise EdgebnnError(
            f"{what} on {target.name}: {int(wrong.any(axis=0).sum())} of {wrong.shape[1]} bytes of "
            "the result differ from NumPy's"
        )
    unit, nothing, spent = "instructions", _NOTHING_INSTRUCTIONS, run.instructions
    if run.cycles:
        unit, nothing, spent = "cycles", _NOTHING_CYCLES, run.cycles
    if len(spent) != len(records):
        raise EdgebnnError(f"the emulator of {target.name} counts nothing; pick another target")
    taken = (spent[i + 1] - spent[i] + nothing for i in range(0, len(spent), 2))
    compiler = f"{image.compiler.version} {' '.join(image.flags)}"
    return Counted(tuple(taken), unit, compiler, version(emulated))


def _emulated(target: Target, slow: bool) -> Emulated:
    """The emulator, on the machine with the most memory that it has for ``target``."""
    if not target.emulators:
        raise EdgebnnError(f"target '{target.name}' has no emulator")
    first = target.emulators[0]
    same = [one for one in target.emulators if type(one) is type(first)]
    roomy = [
        one for one in target.emulators if isinstance(one, Qemu) and one.machine.ram.size >= _ROOM
    ]
    if slow and roomy:
        return roomy[0]
    return max(same, key=lambda one: one.machine.ram.size)
