"""Run a test program that was built for this computer."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebnn.device.build import Image
from edgebnn.device.run import Run, check_inputs
from edgebnn.errors import EdgebnnError

_PART = 500  # inputs between two calls of progress


def run(
    image: Image,
    inputs: NDArray[np.uint8],
    *,
    counted: int = 0,
    progress: Callable[[int], None] | None = None,
    seconds: float = 600.0,
) -> Run:
    """Feed ``inputs``, uint8 (N, input_bytes), to a program from :func:`build.build_host`.

    Nothing is measured, whatever is to be ``counted``. ``progress`` is told the number of inputs
    that are done, after every few; ``seconds`` limits them together.

    Raises:
        EdgebnnError: the program crashed, a sanitizer stopped it, it took too long, or the
            records do not have the size that it was built for. Its full error output is the
            exception's note.
    """
    check_inputs(inputs)
    if progress is None or len(inputs) <= _PART:
        table = _run(image.path, inputs, seconds)
        if progress is not None:
            progress(len(inputs))
    else:
        end = time.monotonic() + seconds
        parts = []
        for start in range(0, len(inputs), _PART):
            part = inputs[start : start + _PART]
            parts.append(_run(image.path, part, max(0.1, end - time.monotonic())))
            progress(start + len(part))
        table = np.concatenate(parts)
    return Run(classes=table[:, 0].copy(), scores=table[:, 1:].copy())


def _run(executable: Path, inputs: NDArray[np.uint8], seconds: float) -> NDArray[np.int32]:
    """A row an input: the class, then the scores."""
    count, input_bytes = inputs.shape
    try:
        result = subprocess.run(
            [str(executable), str(input_bytes)],
            input=inputs.tobytes(),
            capture_output=True,
            check=False,
            timeout=seconds,
            env=_environment(),
        )
    except OSError as failure:
        raise EdgebnnError(f"{executable} does not start: {failure.strerror}") from None
    except subprocess.TimeoutExpired:
        raise EdgebnnError(f"{executable.name} was stopped after {seconds:g} s") from None
    log = result.stderr.decode(errors="replace").strip()
    if result.returncode != 0:
        error = EdgebnnError(f"{executable.name}: {_reason(log, result.returncode)}")
        error.add_note(log)
        raise error
    words = np.frombuffer(result.stdout, dtype="<i4")
    if words.size < 2 * count or words.size % count != 0:
        raise EdgebnnError(
            f"{executable.name} answered {count} records with {len(result.stdout)} bytes; "
            "build it again with build_host"
        )
    return words.reshape(count, -1).astype(np.int32)


def _environment() -> dict[str, str]:
    # The harness allocates nothing, and the leak checker fails in containers that forbid ptrace.
    given = os.environ.get("ASAN_OPTIONS")
    options = "detect_leaks=0" if given is None else f"detect_leaks=0:{given}"
    return dict(os.environ) | {"ASAN_OPTIONS": options}


def _reason(log: str, status: int) -> str:
    """The line of ``log`` that says what happened, else what the exit ``status`` says."""
    lines = [line.strip() for line in log.splitlines() if line.strip(" =")]
    for line in lines:
        if "runtime error:" in line or "ERROR: AddressSanitizer" in line:
            return line
    if lines:
        return lines[0]
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
