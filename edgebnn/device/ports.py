"""Serial ports: which there are, and how one is opened, or a socket of an emulated board.

Why a port does not open is said in one line, with the way to mend it.
"""

import errno
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgebnn.device import wire
from edgebnn.errors import EdgebnnError

if TYPE_CHECKING:
    import serial

_EMULATED = "pio run -t upload starts an emulated board"


@dataclass(frozen=True, slots=True)
class Port:
    """A serial port of this computer; ``vid`` and ``pid`` are None where it is not on USB."""

    device: str
    title: str
    vid: int | None
    pid: int | None
    serial_number: str

    @property
    def plausible(self) -> bool:
        """Whether a board may be there."""
        return self.vid is not None


def ports() -> tuple[Port, ...]:
    """The serial ports of this computer, sorted by name.

    Raises:
        EdgebnnError: pyserial is not installed.
    """
    try:
        from serial.tools import list_ports
    except ModuleNotFoundError:
        raise EdgebnnError(wire.INSTALL) from None

    def clean(text: str | None) -> str:
        return "" if text in (None, "n/a") else shown(text)

    found = (
        Port(one.device, clean(one.description), one.vid, one.pid, clean(one.serial_number))
        for one in list_ports.comports()
    )
    return tuple(sorted(found, key=lambda port: port.device))


def only_port() -> str:
    """The one port that a board may be on.

    Raises:
        EdgebnnError: there is none, or several; the message lists them.
    """
    found = [port.device for port in ports() if port.plausible]
    if len(found) == 1:
        return found[0]
    if found:
        raise EdgebnnError(f"name the board with --port, one of: {', '.join(found)}")
    raise EdgebnnError(
        f"no board is plugged in; plug one in, or {_EMULATED}, and name it: "
        f"--port socket://127.0.0.1:5552"
    )


def opened(port: str, baud: int, read: float, write: float) -> "serial.Serial":
    """The port, which nobody else can open meanwhile.

    Args:
        port: a device, ``COM3``, or ``socket://HOST:PORT``.
        read, write: seconds that one of them waits at most.

    Raises:
        EdgebnnError: it cannot be opened, or pyserial is not installed.
    """
    try:
        import serial
    except ModuleNotFoundError:
        raise EdgebnnError(wire.INSTALL) from None
    try:
        line = serial.serial_for_url(
            port,
            baudrate=baud,
            timeout=read,
            write_timeout=write,
            exclusive=True,
        )
    except Exception as error:  # beside its own, pyserial lets many pass: termios.error, ValueError
        raise _not_opened(port, baud, error) from None
    below = socket_of(line)
    if below is not None:  # a lone zero must not have the next frame wait for its acknowledgement
        below.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def socket_of(line: "serial.Serial") -> socket.socket | None:
    """What pyserial has opened for ``socket://``."""
    below = getattr(line, "_socket", None)
    return below if isinstance(below, socket.socket) else None


def _not_opened(port: str, baud: int, error: Exception) -> EdgebnnError:
    device, port = port, shown(port)
    # pyserial makes its own of the system's, not always with the number.
    number = getattr(error, "errno", None) or getattr(error.__context__, "errno", None)
    if "://" in port:
        if number == errno.ECONNREFUSED:
            return EdgebnnError(f"nothing listens on {port}; {_EMULATED}")
        reason = shown(error.__context__ or error)
        return EdgebnnError(
            f"{port} does not open ({reason}); an emulated board is socket://127.0.0.1:5552, a "
            f"plugged one /dev/ttyACM0 or COM3"
        )
    text = str(error)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO) or "FileNotFoundError" in text:
        there = ", ".join(one.device for one in ports()) or f"none; {_EMULATED}"
        return EdgebnnError(f"there is no port {port}; there are: {there}")
    if number in (errno.EBUSY, errno.EAGAIN) or "PermissionError" in text:
        return EdgebnnError(
            f"{port} is in use{_by_whom(device)}; close what uses it, say a monitor"
        )
    if number in (errno.EACCES, errno.EPERM):
        fix = "sudo usermod -aG dialout $USER, then log in again"
        if not sys.platform.startswith("linux"):
            fix = "close what uses it, say a monitor"
        return EdgebnnError(f"no permission to open {port}; {fix}")
    reason = shown(text)
    return EdgebnnError(
        f"{port} is no serial port that runs at {baud} baud ({reason}); edgebnn ports lists them"
    )


def shown(text: object) -> str:
    """What the system says, or a user, without what a terminal would not print."""
    return wire.printable(str(text).encode(errors="replace"))


def _by_whom(device: str) -> str:
    """Whose open files tell it: " by minicom (process 123)"; else nothing."""
    device, own = os.path.realpath(device), str(os.getpid())
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        process = link.parent.parent
        try:
            if process.name != own and str(link.readlink()) == device:
                name = wire.printable((process / "comm").read_bytes().strip())
                return f" by {name} (process {process.name})"
        except OSError:  # somebody else's, or gone meanwhile
            continue
    return ""
