"""The code of a board, compiled for this computer under the sanitizers, and ways to reach it.

It is the firmware as it ships, with a port that reads standard input and writes standard output.
Its clock is one of 1 MHz that moves 250 ticks each time that it is looked at.
"""

import contextlib
import os
import pty
import select
import socket
import subprocess
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import nn

from edgebnn import api
from edgebnn.device.host import _environment

TICKS = 250
PORT = r"""
#include "edgebnn_port.h"

#include <unistd.h>

static uint8_t sent[1 << 16];
static size_t count;

static void flush(void)
{
    for (size_t i = 0; i < count;) {
        const ssize_t n = write(1, sent + i, count - i);
        if (n <= 0) {
            _exit(0);
        }
        i += (size_t)n;
    }
    count = 0;
}

void port_put(uint8_t byte)
{
    sent[count++] = byte;
    if (count == sizeof sent) {
        flush();
    }
}

uint32_t port_ticks(void)
{
    static uint32_t now = 0xFFFFFF00u; /* the clock starts again soon */

    return now += 250u;
}

enum port_unit port_unit(void)
{
    return PORT_TIMER;
}

uint32_t port_hz(void)
{
    return 1000000u;
}

int main(void)
{
    static uint8_t got[1 << 16];

    app_start();
    for (;;) {
        flush();
        const ssize_t n = read(0, got, sizeof got);
        if (n <= 0) {
            return 0;
        }
        for (ssize_t i = 0; i < n; i++) {
            app_receive(got[i]);
        }
    }
}
"""
FLAGS = ("-std=c99", "-D_POSIX_C_SOURCE=200809L", "-g", "-O1", "-Wall", "-Wextra", "-Werror")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build(
    model: nn.Module | Path,
    folder: Path,
    change: Callable[[str], str] = lambda text: text,
    flags: tuple[str, ...] = SANITIZE,
    *,
    damage: Callable[[str], str] = lambda text: text,
) -> Path:
    """The program of ``model``.

    ``change`` is done to the header that names the model, ``damage`` to the C of the model.
    """
    project = folder / "project"
    library = api.generate(model, target="host", name="tiny", project=True)
    api.write(library, project)
    header = project / "include" / "edgebnn_model.h"
    header.write_text(change(header.read_text()))
    source = project / "lib" / "tiny" / "src" / "tiny.c"
    source.write_text(damage(source.read_text()))
    (folder / "port.c").write_text(PORT)
    program = folder / "board"
    places = [project / "include", *(project / "lib").glob("*/src")]
    code = ("lib/edgebnn_link/src/edgebnn_link.c", "src/main.c", "lib/tiny/src/tiny.c")
    sources = [project / name for name in code] + [folder / "port.c"]
    includes = [f"-I{place}" for place in places]
    subprocess.run(
        ["gcc", *FLAGS, *flags, *includes, *map(str, sources), "-o", str(program)], check=True
    )
    return program


@contextlib.contextmanager
def running(program: Path, end: int) -> Iterator[subprocess.Popen[bytes]]:
    """``program`` at the file descriptor ``end`` of a line; killed at the end of the block.

    A sanitizer's complaint fails the block.
    """
    with subprocess.Popen(
        [str(program)], stdin=end, stdout=end, stderr=subprocess.PIPE, env=_environment()
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            assert process.stderr is not None
            complaint = process.stderr.read().decode()
            assert not complaint, complaint


@contextlib.contextmanager
def on_socket(program: Path) -> Iterator[str]:
    """The URL of a port of this computer on which ``program`` serves one connection after another.

    Each finds a board that has just been started.
    """

    def serve(line: socket.socket) -> None:
        with running(program, line.fileno()) as process:
            process.wait()

    with serving(serve) as url:
        yield url


@contextlib.contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a socket whose connections ``serve`` handles, one after another, in a thread."""
    failed: list[BaseException] = []
    lines: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def loop() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with line:
                    lines.append(line)
                    try:
                        serve(line)
                    except OSError:
                        pass  # the other end has gone, as it may
                    except BaseException as error:
                        failed.append(error)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield f"socket://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for line in lines:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
            thread.join(20)
    assert not thread.is_alive()
    assert not failed, failed


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: the board's end, and the path of the computer's, a serial port to it."""
    board, computer = pty.openpty()
    try:
        tty.setraw(computer)
        yield board, os.ttyname(computer)
    finally:
        os.close(computer)
        with contextlib.suppress(OSError):
            os.close(board)


@contextlib.contextmanager
def on_terminal(program: Path) -> Iterator[str]:
    """The path of a serial port at which ``program`` is."""
    with terminal() as (board, path), running(program, board):
        yield path


class Line:
    """A line straight to a board, without the computer's end that is to be tested.

    ``near`` is connected to it; ``runs`` says whether it is still there.
    """

    def __init__(self, near: socket.socket, runs: Callable[[], bool] = lambda: True) -> None:
        near.setblocking(False)
        self._near, self._runs = near, runs
        self._pieces: list[bytes] = []
        self._rest = b""

    def send(self, data: bytes, wanted: Callable[[bytes], bool], seconds: float = 20.0) -> int:
        """Send ``data`` and read until ``wanted`` is true of what is between two zeros.

        Returns how many pieces came before it.
        """
        before, deadline, left = 0, time.monotonic() + seconds, memoryview(data)
        while True:
            for place, piece in enumerate(self._pieces):
                if wanted(piece):
                    assert not left, "answered before it was asked"
                    del self._pieces[: place + 1]
                    return before + place
            before += len(self._pieces)
            self._pieces.clear()
            assert self._runs(), "the program has ended"
            assert time.monotonic() < deadline, "no answer"
            readable, writable, _ = select.select(
                [self._near], [self._near] if left else [], [], 1.0
            )
            if writable:
                left = left[self._near.send(left) :]
            if readable:
                chunk = self._near.recv(1 << 16)
                assert chunk, "the program has ended"
                *pieces, self._rest = (self._rest + chunk).split(b"\0")
                self._pieces += [piece for piece in pieces if piece]


@contextlib.contextmanager
def line_to(program: Path) -> Iterator[Line]:
    """A line to ``program``, which runs as long as the block."""
    near, far = socket.socketpair()
    with near, far, running(program, far.fileno()) as process:
        yield Line(near, lambda: process.poll() is None)
