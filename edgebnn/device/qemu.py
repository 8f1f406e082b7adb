"""Run a firmware image as a whole machine, from reset to exit, start-up code and UART included."""

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebnn.device.build import FAULT_STATUS, HEAD_BYTES, Image
from edgebnn.device.run import Run, check_inputs
from edgebnn.errors import EdgebnnError
from edgebnn.targets.base import Machine, Qemu

_SHIFT = 8  # an instruction takes 2**_SHIFT ns of the time that a clock shows
_NOTHING, _INTERRUPT = 2, 5  # instructions of the harness's functions of these names
_COST_WORDS = 7  # a line of costs: the stack, and twice ticks (high, low) and interrupts


def run(
    image: Image,
    inputs: NDArray[np.uint8],
    *,
    counted: int = 0,
    progress: Callable[[int], None] | None = None,
    seconds: float = 120.0,
) -> Run:
    """Run ``image`` under QEMU on ``inputs``, uint8 (N, input_bytes).

    Instructions are counted for the first ``counted`` inputs: each takes the same time on a clock
    of the machine. The machine is started once for each batch that fits
    its input region; ``progress`` is told the number of inputs done after each, and ``seconds``
    limits each.

    Raises:
        EdgebnnError: QEMU is missing or has no such machine, the firmware faulted or did not
            finish, or one record does not fit the machine's input region.
    """
    library, settings = image.library, _settings(image)
    machine = settings.machine
    check_inputs(inputs, library.input_bytes)
    program = _program(settings)
    room = (machine.inputs.size - HEAD_BYTES) // library.input_bytes
    if room == 0:
        raise EdgebnnError(
            f"one input of {library.input_bytes} bytes does not fit the {machine.inputs.size} "
            f"bytes that {machine.name} has for inputs; use Unicorn instead"
        )
    tables, measured = [], []
    for start in range(0, len(inputs), room):
        batch = inputs[start : start + room]
        wanted = min(max(counted - start, 0), len(batch))
        command = (program, *settings.options, *(_counting(machine) if wanted else ()))
        results, costs = _run_batch(command, image, machine, batch, wanted, seconds)
        tables.append(results)
        measured.append(costs)
        if progress is not None:
            progress(start + len(batch))
    table, costs = np.concatenate(tables), np.concatenate(measured)
    return Run(
        classes=table[:, 0].copy(),
        scores=table[:, 1:].copy(),
        instructions=tuple(_instructions(row.tolist(), machine) for row in costs),
        stack_bytes=int(costs[:, 0].max()) if len(costs) else None,
    )


@functools.cache
def version(settings: Qemu) -> str:
    """That of the program of ``settings``.

    Raises:
        EdgebnnError: it is missing.
    """
    said = subprocess.run(
        (_program(settings), "--version"), capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found.group() if found else "of unknown version"


def _program(settings: Qemu) -> str:
    program = shutil.which(settings.program)
    if program is None:
        raise EdgebnnError(f"{settings.program} is not on PATH; apt-get install {settings.package}")
    return program


def _counting(machine: Machine) -> tuple[str, str]:
    """QEMU's option; a counter of instructions counts nanoseconds in some versions of it."""
    return "-icount", f"shift={_SHIFT if machine.clock_hz else 0},sleep=off"


def _instructions(cost: list[int], machine: Machine) -> int:
    """Of a call, from what the harness measured: see its ``put_time``."""
    _, *words = cost
    ticks = Fraction(machine.clock_hz << _SHIFT, 10**9) if machine.clock_hz else 1
    spent = []
    for high, low, interrupts in (words[:3], words[3:]):
        spent.append((high << 32 | low) / ticks - _INTERRUPT * interrupts)
    nothing, call = spent
    return round(call - nothing) + _NOTHING


def _settings(image: Image) -> Qemu:
    for emulator in image.target.emulators:
        if isinstance(emulator, Qemu) and emulator.machine == image.machine:
            return emulator
    raise EdgebnnError(
        f"{image.path.name} is not linked for a machine of QEMU; build it for one, or use another "
        f"of the emulators of {image.target.name}"
    )


def _run_batch(
    start: tuple[str, ...],
    image: Image,
    machine: Machine,
    batch: NDArray[np.uint8],
    counted: int,
    seconds: float,
) -> tuple[NDArray[np.int32], NDArray[np.uint32]]:
    """The class and the scores, int32 (N, 1 + num_classes), of one run of the machine.

    And costs, uint32 (counted, words), as the harness writes them. ``start`` is the program and
    the options that do not depend on the batch.
    """
    program = Path(start[0]).name
    with tempfile.TemporaryDirectory(prefix="edgebnn-") as folder:
        records = Path(folder) / "inputs.bin"
        records.write_bytes(np.array([len(batch), counted], "<u4").tobytes() + batch.tobytes())
        loader = f"loader,file={records},addr={machine.inputs.start:#x},force-raw=on"
        command = [*start, "-machine", machine.name, "-nographic", "-monitor", "none"]
        command += ["-serial", "stdio", "-kernel", str(image.path), "-device", loader]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise EdgebnnError(
                f"{image.path.name} did not finish {len(batch)} inputs on {machine.name} "
                f"within {seconds:g} s; raise the timeout or look for an endless loop"
            ) from None
    written = result.stdout.splitlines()
    lines = [line for line in written if not line.startswith("#")]
    costs = [line[1:] for line in written if line.startswith("#")]
    if result.returncode != 0:
        reason = f"{program} ended with status {result.returncode}"
        if result.returncode == FAULT_STATUS:
            reason = "the CPU faulted"
        elif result.stderr.strip():
            reason = result.stderr.strip().splitlines()[0]
        raise EdgebnnError(
            f"{image.path.name} on {machine.name}: {reason} after {len(lines)} of "
            f"{len(batch)} inputs"
        )
    table = _hex_table(lines, len(batch), 1 + image.library.num_classes)
    cost = _hex_table(costs, counted, _COST_WORDS)
    if table is None or cost is None:
        raise EdgebnnError(
            f"{image.path.name} on {machine.name} answered {len(batch)} inputs with "
            f"{len(lines)} lines that are not all results; its UART output is garbled"
        )
    return table.view(np.int32), cost


def _hex_table(lines: list[str], rows: int, columns: int) -> NDArray[np.uint32] | None:
    """Lines of hex words as a table; None: they are not one of that size."""
    try:
        words = [[int(word, 16) for word in line.split()] for line in lines]
        table = np.array(words, dtype=np.uint32).reshape(-1, columns)
    except (ValueError, OverflowError):
        return None
    return table if len(table) == rows else None
