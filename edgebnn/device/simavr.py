"""Run a firmware image on a simulated AVR, from reset on, and measure it.

simavr is a library of C, and what drives it here is a small program: it is compiled by this
computer's compiler when it is needed.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebnn.codegen.env import resource_dir
from edgebnn.device import toolchain
from edgebnn.device.build import Image
from edgebnn.device.elf import read_flash, read_memory
from edgebnn.device.run import Run, check_inputs
from edgebnn.errors import EdgebnnError
from edgebnn.targets import TARGETS
from edgebnn.targets.base import Simavr

_RAM = 0x80_0000  # what a linker adds to addresses of data
_BATCH = 10  # inputs between two reports of progress
_MOST_CYCLES = 2**31  # of a record, which is two minutes of an ATmega


def run(
    image: Image,
    inputs: NDArray[np.uint8],
    *,
    counted: int = 8,
    progress: Callable[[int], None] | None = None,
    seconds: float = 600.0,
) -> Run:
    """Run ``image`` in simavr on ``inputs``, uint8 (N, input_bytes).

    Cycles are simavr's own, of the first ``counted`` inputs. The machine is started once for each
    few inputs; ``progress`` is told the number of inputs done after each, and ``seconds`` limits
    each.

    Raises:
        EdgebnnError: simavr is missing or has no such microcontroller, or the program stopped, did
            not come to an end, changed a register that belongs to its caller or used up the stack.
    """
    library, settings = image.library, _settings(image)
    check_inputs(inputs, library.input_bytes)
    flash = image.path.with_suffix(".bin")
    flash.write_bytes(read_flash(image.path))
    command = _command(_simulator(image.path.parent), flash, image, settings)
    tables: list[list[int]] = []
    stack_bytes = 0
    for start in range(0, len(inputs), _BATCH):
        batch = inputs[start : start + _BATCH]
        lines = _answers(command, image, batch, seconds)
        tables += lines[:-1]
        stack_bytes = max(stack_bytes, *lines[-1])
        if progress is not None:
            progress(start + len(batch))
    table = np.array(tables, dtype=np.int64)
    spent = table[:counted, 1 + library.num_classes :]
    return Run(
        classes=table[:, 0].astype(np.int32),
        scores=table[:, 1 : 1 + library.num_classes].astype(np.int32),
        cycles=tuple(spent[:, 0].tolist()),
        each_layer_cycles=tuple(map(tuple, spent[:, 1:].tolist())),
        stack_bytes=stack_bytes,
    )


def version() -> str:
    """That of the library, which says so to pkg-config alone."""
    program = shutil.which("pkg-config")
    if program is None:
        return "of unknown version"
    said = subprocess.run(
        (program, "--modversion", "simavr"), capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "of unknown version"


def _settings(image: Image) -> Simavr:
    for emulator in image.target.emulators:
        if isinstance(emulator, Simavr) and emulator.machine == image.machine:
            return emulator
    raise EdgebnnError(
        f"{image.path.name} is not linked for simavr; build it for that, or use another of the "
        f"emulators of {image.target.name}"
    )


def _simulator(folder: Path) -> Path:
    """The program, in ``folder``."""
    program = folder / "simulator"
    if program.exists():
        return program
    compiler = toolchain.find_compiler(TARGETS["host"])
    source = resource_dir("templates") / "harness" / "avr" / "simulator.c"
    arguments = ["-std=gnu99", "-O2", str(source), "-o", str(program), "-lsimavr"]
    try:
        toolchain.run_compiler(compiler, arguments, doing="compiling for simavr")
    except EdgebnnError as error:
        log = "\n".join(getattr(error, "__notes__", ()))
        if "simavr/sim_avr.h" not in log and "-lsimavr" not in log:
            raise
        raise EdgebnnError("simavr is not installed; apt-get install libsimavr-dev") from None
    return program


def _command(program: Path, flash: Path, image: Image, settings: Simavr) -> list[str]:
    """The arguments as ``simulator.c`` has them."""
    library, symbols = image.library, read_memory(image.path).symbols
    names = ("ready", f"{library.name}_scores", f"{library.name}_predict")
    code = [symbols[name] for name in names]
    data = [symbols[name] - _RAM for name in ("record", "scores", "result", "stack_limit")]
    sizes = (library.input_bytes, library.num_classes)
    numbers = (_MOST_CYCLES, *sizes, *code, *data, *_layers(library.layers, symbols))
    start = [str(program), settings.mcu, str(settings.frequency), str(flash)]
    return [*start, *(str(number) for number in numbers)]


def _layers(names: tuple[str, ...], symbols: dict[str, int]) -> list[int]:
    """The address of each layer: a compiler gives a copy that knows its arguments a suffix."""
    known = {name.split(".")[0]: address for name, address in symbols.items()}
    return [known[name] for name in names]


def _answers(
    command: list[str], image: Image, batch: NDArray[np.uint8], seconds: float
) -> list[list[int]]:
    """The numbers of each line."""
    try:
        result = subprocess.run(
            command, input=batch.tobytes(), capture_output=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise EdgebnnError(
            f"{image.path.name} did not finish {len(batch)} inputs in simavr within {seconds:g} s; "
            "raise the timeout or look for an endless loop"
        ) from None
    if result.returncode != 0:
        said = result.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"simavr ended with status {result.returncode}"
        raise EdgebnnError(f"{image.path.name} in simavr: {reason}")
    return [[int(word) for word in line.split()] for line in result.stdout.splitlines()]
