"""A board on a serial port, or an emulated one on a socket: asks it, and believes it nothing.

:mod:`edgebnn.device.wire` says what the bytes are, :mod:`edgebnn.device.ports` opens the port. Here
is what takes time: sending a request again after noise or silence, giving up, and saying in one
line how to mend it.
"""

import itertools
import random
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgebnn import golden
from edgebnn.device import wire
from edgebnn.device.ports import opened, shown, socket_of
from edgebnn.device.wire import Kind, Status, Unit
from edgebnn.errors import EdgebnnError

if TYPE_CHECKING:
    import serial

BAUD = 115200

_T = TypeVar("_T")
_SLICE = 0.01  # seconds that one read waits at most
_CHUNK = 4096  # bytes that one read takes at most
_BIT_TIMES = 10  # of a byte on the wire: 8N1
_INFO_SECONDS = 0.5
_WRITE_SECONDS = 10.0
_OF_LATE = 31
_SAMPLE = 32  # bytes of a stranger's that an error shows


def flashing(model: str = "MODEL") -> str:
    """The commands that put a model on a board."""
    return f"edgebnn generate {model} --target BOARD --project DIR, then pio run -d DIR -t upload"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, and how often to ask again.

    Nothing is known of a board at first: it gets ``first`` seconds to say what it runs, and as many
    for each inference until one was answered. From then on it gets ``factor`` times the median of
    late, but from ``least`` to ``first`` seconds. The time on the wire comes on top. ``quiet`` is
    how long an adapter may keep what it has got; ``tries`` is how often a request is sent.
    """

    first: float = 10.0
    least: float = 0.25
    factor: float = 4.0
    quiet: float = 0.05
    tries: int = 5


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What a board made of an input, and how long that took.

    ``scores`` are int32, one a class, or none where none were asked for. ``ticks`` is None where
    the board has no clock, or where its clock may have started again meanwhile. ``seconds`` is the
    round trip of the request that was answered.
    """

    best: int
    scores: NDArray[np.int32]
    ticks: int | None
    seconds: float


class Board:
    """A board that runs a model; ``with Board("/dev/ttyACM0") as board`` waits until it answers.

    ``port`` is a device, ``COM3``, or ``socket://HOST:PORT``. ``retries`` counts what had to be
    sent again so far.

    Raises:
        EdgebnnError: in any method: the port cannot be used, or what is there does not answer, or
            answers something else. No answer is taken whose CRC, id, kind or size is wrong.
    """

    def __init__(self, port: str, *, baud: int = BAUD, patience: Patience | None = None) -> None:
        self.port = shown(port)
        self.retries = 0
        self._address = port
        self._baud = baud
        self._patience = Patience() if patience is None else patience
        self._line: serial.Serial | None = None
        self._info: wire.Info | None = None
        # Ids begin anywhere, so that an answer to somebody before us is to no request of ours.
        self._ids = itertools.count(random.randrange(wire.LAST_ID))
        # Seconds of inferences of late. An answer that was kept back, as by a closing zero that got
        # lost, must not make the next limit longer.
        self._took: deque[float] = deque(maxlen=_OF_LATE)
        self._pending = b""
        self._heard = 0  # bytes
        self._sample = b""
        self._met = False  # a frame of edgebnn came
        self._echoes = False

    def __enter__(self) -> Self:
        patience = self._patience
        read, write = min(_SLICE, patience.quiet / 2), max(patience.first, _WRITE_SECONDS)
        self._line = opened(self._address, self._baud, read, write)
        try:
            until = time.monotonic() + patience.first
            self._info, _ = self._ask(
                Kind.INFO, b"", wire.info_of, _INFO_SECONDS, wire.longest(), until
            )
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the port back."""
        line, self._line = self._line, None
        if line is not None:
            below = socket_of(line)
            line.close()
            if below is not None:
                below.close()  # pyserial forgets one whose other end is closed

    def info(self) -> wire.Info:
        """What the board runs, as it said when it was opened."""
        assert self._info is not None, "use it in a with statement"
        return self._info

    def self_test(self) -> wire.SelfTest:
        """Have the board compute its golden vectors."""
        limit = golden.COUNT * self._limit()
        result, seconds = self._ask(
            Kind.SELF_TEST, b"", wire.self_test_of, limit, wire.transmitted(3)
        )
        if result.vectors:
            self._took.append(seconds / result.vectors)
        return result

    def classify(self, values: NDArray[np.uint8]) -> Reply:
        """The class of an input, uint8 (input_bytes,)."""
        return self._infer(Kind.CLASSIFY, values, 0)

    def scores(self, values: NDArray[np.uint8]) -> Reply:
        """The class of an input, uint8 (input_bytes,), and the scores of all classes."""
        return self._infer(Kind.SCORES, values, self.info().num_classes)

    def _infer(self, kind: Kind, values: NDArray[np.uint8], scores: int) -> Reply:
        info = self.info()

        def parse(body: bytes) -> wire.Inference:
            return wire.inference_of(body, info.num_classes, scores)

        body = np.asarray(values, np.uint8).tobytes()
        answer_bytes = wire.transmitted(7 + 4 * scores)
        found, seconds = self._ask(kind, body, parse, self._limit(), answer_bytes)
        self._took.append(seconds)
        known = info.unit is not Unit.NONE and (not info.hz or seconds < 2**32 / info.hz)
        return Reply(found.best, found.scores, found.ticks if known else None, seconds)

    def _limit(self) -> float:
        """Seconds for an inference."""
        patience = self._patience
        if not self._took:
            return patience.first
        learnt = patience.factor * statistics.median(self._took)
        return min(max(patience.least, learnt), patience.first)

    def _ask(
        self,
        kind: Kind,
        body: bytes,
        parse: Callable[[bytes], _T],
        limit: float,
        answer_bytes: int,
        until: float = 0.0,
    ) -> tuple[_T, float]:
        """The answer to a request, and how long it took; asks until then, and as often as it may.

        The board gets ``limit`` seconds, and what an answer of so many bytes takes on the wire. An
        answer to an earlier try is as good: all of them ask the same.
        """
        asked: dict[int, float] = {}
        heard, trouble = self._heard, ""
        for tries in itertools.count(1):
            number = 1 + next(self._ids) % wire.LAST_ID
            sent = self._write(wire.encode(wire.Frame(kind, number, body)))
            asked[number] = time.monotonic()
            back = self._patience.quiet + _BIT_TIMES * answer_bytes / self._baud
            found, said = self._listen(kind, parse, asked, sent + limit + back, (sent, back))
            if found is not None:
                return found
            trouble = said or trouble
            if tries >= self._patience.tries and time.monotonic() >= until:
                raise self._gave_up(tries, self._heard - heard, trouble)
            self.retries += 1
            # A board that polls hears nothing while it answers. What it has taken for the begin of
            # a frame ends with this zero, and what it says to that before the next request.
            sent = self._write(b"\0")
            back = self._patience.quiet + _BIT_TIMES * wire.transmitted(5) / self._baud
            found, _ = self._listen(kind, parse, asked, sent + back, (sent, back))
            if found is not None:
                return found
        raise AssertionError

    def _listen(
        self,
        kind: Kind,
        parse: Callable[[bytes], _T],
        asked: dict[int, float],
        limit: float,
        wires: tuple[float, float],
    ) -> tuple[tuple[_T, float] | None, str]:
        """The first good answer to one of ``asked`` within ``limit`` seconds, or what came instead.

        After a damaged frame it is not waited for longer than it can be on its way; ``wires`` are
        the seconds that our own frame takes on the wire, and an answer.
        """
        there, back = wires
        begin = time.monotonic()
        end, trouble = begin + limit, ""
        while time.monotonic() < end:
            for piece in self._read():
                try:
                    answer = self._answer(piece, asked)
                    if answer is not None and answer.kind == kind:
                        seconds = time.monotonic() - asked[answer.id]
                        return (parse(answer.body), seconds), ""
                except wire.Damaged as error:
                    trouble = str(error)
                    end = min(end, max(begin + there, time.monotonic()) + back)
        return None, trouble

    def _answer(self, piece: bytes, asked: dict[int, float]) -> wire.Answer | None:
        """A good answer to one of ``asked``; None for another frame.

        Raises:
            Damaged: it is no frame, or the board has not got ours.
            EdgebnnError: the board refuses what was asked.
        """
        frame = wire.decode(piece)
        if not wire.is_answer(frame):
            self._echoes = True
            return None
        if frame.version != wire.VERSION:
            raise self._other_version(frame.version)
        answer = wire.answer_of(frame)
        self._met = True
        if answer.kind == Kind.NONE and answer.status == Status.BAD_FRAME:
            raise wire.Damaged("the board heard noise")
        if answer.kind == Kind.NONE and answer.status == Status.TOO_LONG:
            raise wire.Damaged(f"too long a frame, the board has room for {answer.detail} bytes")
        if answer.id not in asked:
            return None
        if answer.status == Status.OK:
            return answer
        raise self._refused(answer)

    def _refused(self, answer: wire.Answer) -> EdgebnnError:
        info = self._info
        match answer.status:
            case Status.VERSION:
                return self._other_version(answer.detail)
            case Status.KIND:
                why = (
                    f"does not know requests of kind {answer.detail}; flash it again: {flashing()}"
                )
            case Status.SIZE:
                why = f"takes a request of {answer.detail} bytes; give it an input of its own model"
            case Status.INPUT:
                most = "its input_max" if info is None else str(info.input_max)
                why = (
                    f"takes values from 0 to {most}, and value {answer.detail} of the input is "
                    f"larger; shift 8-bit pixels right as the model's header says"
                )
            case Status.DAMAGED:
                why = f"has damaged weights in its memory; flash it again: {flashing()}"
            case status:
                why = f"answers with an unknown status, {status}; update edgebnn"
        return EdgebnnError(f"{self.port}: the board {why}")

    def _other_version(self, version: int) -> EdgebnnError:
        fix = f"flash it again: {flashing()}" if version < wire.VERSION else "update edgebnn"
        return EdgebnnError(
            f"{self.port}: the board speaks version {version} of the protocol, this edgebnn "
            f"version {wire.VERSION}; {fix}"
        )

    def _gave_up(self, tries: int, heard: int, trouble: str) -> EdgebnnError:
        where = f"{self.port} at {self._baud} baud"
        if self._met and trouble:
            return EdgebnnError(
                f"{where}: noise on the line, {tries} tries and no good answer ({trouble}); "
                f"take a shorter cable, or build and check with a lower --baud"
            )
        if self._met:
            return EdgebnnError(
                f"{where}: the board has stopped answering, {tries} tries; reset it, or give it "
                f"more time with --timeout"
            )
        if self._echoes:
            return EdgebnnError(
                f"{self.port} sends back what it is sent, so there is no board; name another "
                f"--port (edgebnn ports lists them)"
            )
        if heard:
            return EdgebnnError(
                f"{where}: what answers is not edgebnn, {heard} bytes such as "
                f"'{wire.printable(self._sample)}'; flash the board ({flashing()}), or give its "
                f"--baud"
            )
        return EdgebnnError(
            f"{where}: nothing answers; flash the board ({flashing()}), or name another --port"
        )

    def _room(self) -> int:
        """Bytes between two zeros that an answer has at most."""
        return wire.longest(0 if self._info is None else self._info.num_classes)

    def _read(self) -> list[bytes]:
        """What has come between zeros, after a moment."""
        assert self._line is not None, "use it in a with statement"
        try:
            chunk = self._line.read(min(max(1, self._line.in_waiting), _CHUNK))
        except OSError as error:
            raise self._gone(error) from None
        self._heard += len(chunk)
        self._sample = (self._sample + chunk)[:_SAMPLE]
        pieces, self._pending = wire.split(self._pending, chunk, self._room())
        return pieces

    def _write(self, data: bytes) -> float:
        """Send; returns how long the wire takes for it, in seconds."""
        import serial

        assert self._line is not None, "use it in a with statement"
        try:
            self._line.write(data)
        except serial.SerialTimeoutException:
            pass  # nobody takes it, so nobody answers, which is said in time
        except OSError as error:
            raise self._gone(error) from None
        return _BIT_TIMES * len(data) / self._baud

    def _gone(self, error: OSError) -> EdgebnnError:
        return EdgebnnError(
            f"{self.port}: the board is gone ({shown(error)}); plug it in "
            f"again, or start it again, and repeat"
        )
