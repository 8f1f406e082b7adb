"""Run a firmware image as a whole machine, from reset to exit, start-up code and UART included."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebnn.device.build import COUNT_BYTES, FAULT_STATUS, Image
from edgebnn.device.run import Run, check_inputs
from edgebnn.errors import EdgebnnError
from edgebnn.targets.base import Machine, Qemu


def run(
    image: Image,
    inputs: NDArray[np.uint8],
    *,
    counted: int = 0,
    progress: Callable[[int], None] | None = None,
    seconds: float = 120.0,
) -> Run:
    """Run ``image`` under QEMU on ``inputs``, uint8 (N, input_bytes).

    Nothing is measured, whatever is to be ``counted``. The machine is started once for each batch
    that fits its input region; ``progress`` is told the number of inputs done after each, and
    ``seconds`` limits each.

    Raises:
        EdgebnnError: QEMU is missing or has no such machine, the firmware faulted or did not
            finish, or one record does not fit the machine's input region.
    """
    library, settings = image.library, _settings(image)
    machine = settings.machine
    check_inputs(inputs, library.input_bytes)
    program = shutil.which(settings.program)
    if program is None:
        raise EdgebnnError(f"{settings.program} is not on PATH; apt-get install {settings.package}")
    room = (machine.inputs.size - COUNT_BYTES) // library.input_bytes
    if room == 0:
        raise EdgebnnError(
            f"one input of {library.input_bytes} bytes does not fit the {machine.inputs.size} "
            f"bytes that {machine.name} has for inputs; use Unicorn instead"
        )
    tables = []
    for start in range(0, len(inputs), room):
        batch = inputs[start : start + room]
        tables.append(_run_batch((program, *settings.options), image, machine, batch, seconds))
        if progress is not None:
            progress(start + len(batch))
    table = np.concatenate(tables)
    return Run(classes=table[:, 0].copy(), scores=table[:, 1:].copy())


def _settings(image: Image) -> Qemu:
    for emulator in image.target.emulators:
        if isinstance(emulator, Qemu) and emulator.machine == image.machine:
            return emulator
    raise EdgebnnError(
        f"{image.path.name} is not linked for a machine of QEMU; build it for one, or use another "
        f"of the emulators of {image.target.name}"
    )


def _run_batch(
    start: tuple[str, ...], image: Image, machine: Machine, batch: NDArray[np.uint8], seconds: float
) -> NDArray[np.int32]:
    """The class and the scores, int32 (N, 1 + num_classes), of one run of the machine.

    ``start`` is the program and the options that do not depend on the run.
    """
    program = Path(start[0]).name
    with tempfile.TemporaryDirectory(prefix="edgebnn-") as folder:
        records = Path(folder) / "inputs.bin"
        records.write_bytes(len(batch).to_bytes(COUNT_BYTES, "little") + batch.tobytes())
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
    lines = result.stdout.splitlines()
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
    try:
        words = [[int(word, 16) for word in line.split()] for line in lines]
        table = np.array(words, dtype=np.uint32)
    except ValueError:
        table = np.empty((0, 0), np.uint32)
    if table.shape != (len(batch), 1 + image.library.num_classes):
        raise EdgebnnError(
            f"{image.path.name} on {machine.name} answered {len(batch)} inputs with "
            f"{len(lines)} lines that are not all results; its UART output is garbled"
        )
    return table.view(np.int32)
