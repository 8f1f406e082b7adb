"""The command of the emulator that a board's manifest names."""

import shutil
import subprocess
from pathlib import Path

from board_process import LINE, BoardError


def command(emulator, program, folder):
    """Program and arguments of an emulator that runs ``program``, with :data:`LINE`.

    Args:
        emulator: of QEMU the ``program``, the ``package`` that has it and the ``options`` of the
            machine; of simavr its name of the microcontroller, ``mcu``, and its ``frequency``.
        program: path of the board's program.
        folder: the build folder; what drives simavr is compiled into it.

    Raises:
        BoardError: the emulator is not installed.
    """
    if "mcu" in emulator:
        driver = _simavr_driver(Path(folder))
        return [driver, emulator["mcu"], str(emulator["frequency"]), program, LINE]
    path = shutil.which(emulator["program"])
    if path is None:
        raise BoardError(
            f"{emulator['program']} is not on PATH; apt-get install {emulator['package']}"
        )
    return [
        *(path, *emulator["options"].split(), "-kernel", program),
        *("-display", "none", "-monitor", "none"),
        *("-chardev", f"socket,id=line,fd={LINE},server=on,wait=on,nodelay=on"),
        *("-serial", "chardev:line"),
    ]


def _simavr_driver(folder):
    """simavr is a library of C; the program that drives it."""
    driver = folder / "simavr_board"
    source = Path(__file__).with_name("simavr_board.c")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BoardError("cc is not on PATH; apt-get install gcc")
    compile_it = [compiler, "-std=gnu99", "-O2", str(source), "-o", str(driver), "-lsimavr"]
    done = subprocess.run(compile_it, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing = "simavr/" in done.stderr or "-lsimavr" in done.stderr
        why = "simavr is not installed; apt-get install libsimavr-dev"
        raise BoardError(why if missing else f"{source} does not compile:\n{done.stderr}")
    return str(driver)
