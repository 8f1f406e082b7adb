"""A virtual board: a program on this computer or in an emulator, its serial line a TCP socket.

:func:`start` leaves a process behind, this file, which runs the program and holds a named pipe in
the build folder; :func:`stop` writes to that pipe. So nobody has to know process numbers, which
may be another process's by then, and a board whose build folder is deleted ends by itself.

A program on this computer is started anew for each connection, with the socket as its standard
input and output. An emulator gets the socket, starts its machine with the first connection and
runs on when one ends; what the machine sends to nobody is lost, as on a wire.
"""

import argparse
import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HOST = "127.0.0.1"
LINE = "{line}"  # in an emulator's command: the number of the listening socket

_PIPE = "virtual_board.control"
_LOG = "virtual_board.log"
_TICK = 0.1  # seconds; how late a board may notice that its program has ended
_STARTED = 0.3  # seconds after which an emulator has understood its arguments
_PATIENCE = 10.0  # seconds in which a board is stopped


class BoardError(Exception):
    """A virtual board cannot be started or stopped; one line that names the fix."""


def start(command, folder, port, *, emulated=False, test_seconds=0):
    """Start the board of a build folder, in place of the one that it may have.

    Args:
        command: the program and its arguments; of an emulator, with :data:`LINE`.
        folder: the build folder, for the pipe and a log.
        port: TCP port of the serial line.
        emulated: whether it is an emulator; else the program of the board runs by itself.
        test_seconds: not 0: the board ends after the first connection, or after this time.

    Raises:
        BoardError: the port is taken, or an emulator does not start.
    """
    stop(folder)
    with socket.socket() as line:
        command = [part.replace(LINE, str(line.fileno())) for part in command]
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            line.bind((HOST, port))
        except OSError as error:
            raise BoardError(
                f"{HOST}:{port} cannot be used ({os.strerror(error.errno)}); stop what uses it, "
                "or give another upload_port in platformio.ini"
            ) from None
        line.listen(1)
        os.mkfifo(folder / _PIPE)
        board = [sys.executable, __file__, "--folder", str(folder), "--line", str(line.fileno())]
        board += ["--test-seconds", str(test_seconds), *(["--emulator"] if emulated else [])]
        with (folder / _LOG).open("wb") as log:
            process = subprocess.Popen(
                [*board, "--", *command],
                pass_fds=[line.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
    with process.stdout as ready:  # which it closes once the board runs
        problem = ready.read().decode().strip()
    if problem:
        raise BoardError(problem)


def stop(folder):
    """End the board of a build folder, if it runs, and wait until it has ended.

    Raises:
        BoardError: it does not end.
    """
    pipe = folder / _PIPE
    try:
        control = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        pipe.unlink()  # the board was killed
        return
    os.write(control, b".")
    os.close(control)
    patience = time.monotonic() + _PATIENCE
    while pipe.exists():
        if time.monotonic() > patience:
            raise BoardError(f"the board does not end; see {folder / _LOG}")
        time.sleep(_TICK / 2)


class _Ended(Exception):
    """The board has to end."""


class _Board:
    """What the process does that :func:`start` leaves behind."""

    def __init__(self, folder, test_seconds):
        self.pipe = folder / _PIPE
        self.control = os.open(self.pipe, os.O_RDWR | os.O_NONBLOCK)
        self.end = time.monotonic() + test_seconds if test_seconds else None

    def run_emulator(self, command, line):
        """Run an emulator that has the listening socket ``line``."""
        ends = {"stdin": subprocess.DEVNULL, "stdout": sys.stderr}
        with _running(command, pass_fds=[line.fileno()], **ends) as process:
            line.close()  # whoever connects when the emulator has ended is refused
            try:
                process.wait(_STARTED)
                print(f"{command[0]} did not start; see {self.pipe.with_name(_LOG)}")
            except subprocess.TimeoutExpired:
                pass
            _say_ready()
            self.outlast(process)

    def run_program(self, command, line):
        """Run a program for each connection to ``line``, one after another; for a test only one."""
        _say_ready()
        while True:
            while not self.wait(line):
                pass
            connection, _ = line.accept()
            if self.end is not None:
                line.close()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with _running(command, stdin=connection, stdout=connection) as process:
                connection.close()
                self.outlast(process)
            if self.end is not None:
                return

    def outlast(self, process):
        while process.poll() is None:
            self.wait()

    def wait(self, *sockets):
        """Wait for a tick, or until there is something on one of ``sockets``; whether there is.

        Raises:
            _Ended: it was told to end, its build folder is gone, or its time is over.
        """
        ready, _, _ = select.select([self.control, *sockets], [], [], _TICK)
        late = self.end is not None and time.monotonic() > self.end
        if late or self.control in ready or not self.owns_pipe():
            raise _Ended
        return bool(ready)

    def owns_pipe(self):
        try:
            return self.pipe.stat().st_ino == os.fstat(self.control).st_ino
        except OSError:
            return False

    def close(self):
        if self.owns_pipe():
            self.pipe.unlink()
        os.close(self.control)


@contextlib.contextmanager
def _running(command, **how):
    """A process that ends with the block."""
    process = subprocess.Popen(command, **how)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE / 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _say_ready():
    """Let :func:`start` return: nobody else has the other end of standard output."""
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _end(signum, frame):
    raise _Ended


def _main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--line", type=int, required=True)
    parser.add_argument("--test-seconds", type=int, required=True)
    parser.add_argument("--emulator", action="store_true")
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args()

    signal.signal(signal.SIGTERM, _end)
    board = _Board(chosen.folder, chosen.test_seconds)
    try:
        with socket.socket(fileno=chosen.line) as line:
            run = board.run_emulator if chosen.emulator else board.run_program
            run(chosen.command, line)
    except _Ended:
        pass
    finally:
        board.close()


if __name__ == "__main__":
    _main()
