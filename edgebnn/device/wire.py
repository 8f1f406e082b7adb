"""The wire between a computer and a board, as bytes: docs/protocol.md, and nothing more.

Functions of bytes and plain values. Whatever has come in from a board is looked at before it is
believed: sizes and numbers are checked, and texts lose what a terminal would obey.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from edgebnn.errors import EdgebnnError
from edgebnn.ir import told_apart

VERSION = 1
"""Of the protocol; the first byte of every frame."""

INSTALL = "boards need pyserial and cobs: pip install 'edgebnn[board]'"

LAST_ID = 0xFFFF
"""Requests have the ids from 1 to here; an answer with id 0 is to no request."""

_ANSWER = 0x80  # set in the kind of an answer
_HEAD = struct.Struct("<BBH")
_CRC = struct.Struct("<I")
_DETAIL = struct.Struct("<I")
_INFO = struct.Struct("<BIIIHBb")
_TEXTS = 4
_INFERENCE = struct.Struct("<IH")


class Kind(IntEnum):
    """What a frame asks; ``NONE`` is what a board answers that has not understood."""

    INFO = 1
    SELF_TEST = 2
    CLASSIFY = 3
    SCORES = 4
    NONE = 0x7F


class Status(IntEnum):
    """How a board took a request."""

    OK = 0
    BAD_FRAME = 1
    TOO_LONG = 2
    VERSION = 3
    KIND = 4
    SIZE = 5
    INPUT = 6
    DAMAGED = 7


class Unit(IntEnum):
    """What a tick of a board's clock is."""

    NONE = 0
    CYCLES = 1
    TIMER = 2
    INSTRUCTIONS = 3
    SIMULATED = 4


class Damaged(ValueError):
    """Bytes that are no frame, or a frame whose body makes no sense; says why in a few words."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands between two zeros; ``kind`` has bit 7 set in an answer."""

    kind: int
    id: int
    body: bytes = b""
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` is one of :class:`Status` or unknown, ``kind`` that of the request."""

    kind: int
    id: int
    status: int
    body: bytes

    @property
    def detail(self) -> int:
        """The number that comes with a refusal.

        Raises:
            Damaged: there is none.
        """
        return int(_unpack(_DETAIL, self.body, "a refusal")[0])


@dataclass(frozen=True, slots=True)
class Info:
    """What a board runs, as it says itself.

    ``hz`` is how many ticks of ``unit`` there are in a second, 0 where that means nothing.
    """

    unit: Unit
    hz: int
    input_bytes: int
    arena_bytes: int
    num_classes: int
    input_max: int
    fraction_bits: int
    sha256: str
    target: str
    name: str
    compiler: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """``failed`` of ``vectors`` golden vectors gave other scores than Python's."""

    vectors: int
    failed: int


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """``best`` is the class, ``scores`` are int32, one a class, or none where none were asked."""

    ticks: int
    best: int
    scores: NDArray[np.int32]


def longest(num_classes: int = 0) -> int:
    """Bytes between two zeros that an answer of a board with so many classes takes at most."""
    info = _HEAD.size + 1 + _INFO.size + _TEXTS * 256 + _CRC.size
    scores = _HEAD.size + 1 + _INFERENCE.size + 4 * num_classes + _CRC.size
    return _stuffed(max(info, scores))


def transmitted(body_bytes: int) -> int:
    """Bytes on the wire of a frame with such a body, zeros and all, at most."""
    return _stuffed(_HEAD.size + body_bytes + _CRC.size) + 2


def encode(frame: Frame) -> bytes:
    """The bytes of ``frame``, with a zero before and behind.

    Raises:
        EdgebnnError: cobs is not installed.
    """
    content = _HEAD.pack(frame.version, frame.kind, frame.id) + frame.body
    content += _CRC.pack(zlib.crc32(content))
    stuff, _ = _cobs()
    return b"\0" + stuff(content) + b"\0"


def split(pending: bytes, chunk: bytes, limit: int) -> tuple[list[bytes], bytes]:
    """What lies between zeros in ``pending`` and ``chunk``, and what is pending behind the last.

    The first call gets b"" as ``pending``, each other one what the one before gave. Neither result
    holds pieces of more than ``limit`` + 1 bytes: longer ones are cut off there, and are no frames.
    Empty pieces mean nothing and are left out.
    """
    *pieces, rest = (pending + chunk).split(b"\0")
    return [piece[: limit + 1] for piece in pieces if piece], rest[: limit + 1]


def decode(piece: bytes) -> Frame:
    """The frame that a piece of :func:`split` is.

    Raises:
        Damaged: it is none.
        EdgebnnError: cobs is not installed.
    """
    _, unstuff = _cobs()
    content = unstuff(piece)
    if content is None:
        raise Damaged("no COBS")
    if len(content) < _HEAD.size + _CRC.size:
        raise Damaged("too short for a frame")
    content, crc = content[: -_CRC.size], content[-_CRC.size :]
    if _CRC.pack(zlib.crc32(content)) != crc:
        raise Damaged("wrong CRC")
    version, kind, number = _HEAD.unpack_from(content)
    return Frame(kind, number, content[_HEAD.size :], version)


def is_answer(frame: Frame) -> bool:
    """Whether it comes from a board, and is not our own that has come back."""
    return bool(frame.kind & _ANSWER)


def answer_of(frame: Frame) -> Answer:
    """``frame``, an answer, taken apart.

    Raises:
        Damaged: it has no status.
    """
    if not frame.body:
        raise Damaged("an answer without a status")
    return Answer(frame.kind & ~_ANSWER, frame.id, frame.body[0], frame.body[1:])


def answer(kind: int, number: int, status: int, body: bytes = b"") -> Frame:
    """The answer that a board gives to the request ``number`` of ``kind``."""
    return Frame(kind | _ANSWER, number, bytes([status]) + body)


def info_of(body: bytes) -> Info:
    """The body of a good answer to :attr:`Kind.INFO`, behind the status.

    Raises:
        Damaged: it makes no sense.
    """
    head, rest = body[: _INFO.size], body[_INFO.size :]
    unit, *numbers = _unpack(_INFO, head, "info")
    texts = []
    for _ in range(_TEXTS):
        if not rest or len(rest) <= rest[0]:
            raise Damaged("info with a text that is cut off")
        texts.append(printable(rest[1 : 1 + rest[0]]))
        rest = rest[1 + rest[0] :]
    if rest:
        raise Damaged("info with something behind it")
    if unit not in set(Unit):
        raise Damaged(f"info with an unknown unit of time, {unit}")
    hz, input_bytes, arena_bytes, num_classes, input_max, fraction_bits = numbers
    sha256, target, name, compiler = texts
    info = Info(
        unit=Unit(unit),
        hz=hz,
        input_bytes=input_bytes,
        arena_bytes=arena_bytes,
        num_classes=num_classes,
        input_max=input_max,
        fraction_bits=fraction_bits,
        sha256=sha256,
        target=target,
        name=name,
        compiler=compiler,
    )
    if not (info.input_bytes and info.num_classes):
        raise Damaged("info without inputs or classes")
    if len(info.sha256) != 64 or set(info.sha256) - set("0123456789abcdef"):
        raise Damaged("info without a sha256")
    return info


def self_test_of(body: bytes) -> SelfTest:
    """The body of a good answer to :attr:`Kind.SELF_TEST`, behind the status.

    Raises:
        Damaged: it makes no sense.
    """
    if len(body) != 2 or body[1] > body[0]:
        raise Damaged("a self-test that makes no sense")
    return SelfTest(body[0], body[1])


def inference_of(body: bytes, num_classes: int, scores: int) -> Inference:
    """The body of a good answer to an input, behind the status, with so many ``scores``.

    Raises:
        Damaged: it makes no sense.
    """
    if len(body) != _INFERENCE.size + 4 * scores:
        raise Damaged(f"an answer of {len(body)} bytes to an input")
    ticks, best = _INFERENCE.unpack_from(body)
    if best >= told_apart(num_classes):
        raise Damaged(f"class {best} of {told_apart(num_classes)}")
    values = np.frombuffer(body, "<i4", offset=_INFERENCE.size).astype(np.int32)
    return Inference(ticks, best, values)


def printable(text: bytes) -> str:
    """Text from outside, for a terminal: one line, and nothing in it that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in text.decode("utf-8", "replace"))


def _unpack(form: struct.Struct, body: bytes, what: str) -> tuple[int, ...]:
    if len(body) != form.size:
        raise Damaged(f"{what} of {len(body)} bytes")
    return form.unpack(body)


def _stuffed(content: int) -> int:
    """Bytes that COBS makes of so many, at most."""
    return content + content // 254 + 1


def _cobs() -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes | None]]:
    """COBS and its inverse, which gives None for what is no COBS."""
    try:
        from cobs import cobs
    except ModuleNotFoundError:
        raise EdgebnnError(INSTALL) from None

    def unstuff(piece: bytes) -> bytes | None:
        try:
            return bytes(cobs.decode(piece))
        except cobs.DecodeError:
            return None

    return cobs.encode, unstuff
