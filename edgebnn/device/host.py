"""Run a generated library that was built for this computer."""

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebnn.device.harness import check_inputs
from edgebnn.errors import EdgebnnError
from edgebnn.reference import Outputs


def run(executable: Path, inputs: NDArray[np.uint8], *, timeout: float = 600.0) -> Outputs:
    """Feed ``inputs``, uint8 (N, input_bytes), to a program from :func:`harness.build_host`.

    ``timeout`` is in seconds, for all records together.

    Raises:
        EdgebnnError: the program crashed, a sanitizer stopped it, it took too long, or the
            records do not have the size that it was built for. Its full error output is the
            exception's note.
    """
    check_inputs(inputs)
    count, input_bytes = inputs.shape
    try:
        result = subprocess.run(
            [str(executable), str(input_bytes)],
            input=inputs.tobytes(),
            capture_output=True,
            check=False,
            timeout=timeout,
            env=_environment(),
        )
    except OSError as failure:
        raise EdgebnnError(f"{executable} does not start: {failure.strerror}") from None
    except subprocess.TimeoutExpired:
        raise EdgebnnError(f"{executable.name} was stopped after {timeout:g} s") from None
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
    table = words.reshape(count, -1).astype(np.int32)
    return Outputs(classes=table[:, 0].copy(), scores=table[:, 1:].copy())


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
