"""A computer and a board: the real code of both ends, and boards that misbehave in every way."""

import contextlib
import itertools
import os
import queue
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import fuzz_wire
import numpy as np
import pytest
import serial
import virtual_board
from test_cli import COMMAND, environment, mistake, output_here, run_here
from test_model_files import mlp
from test_wire import INFO, body_of
from virtual_board import Line, line_to, on_socket, on_terminal, running, serving, terminal

import edgebnn
from edgebnn import golden, ir, reference
from edgebnn.device import ports, wire
from edgebnn.device.serial import Board, Patience
from edgebnn.device.wire import Answer, Frame, Kind, Status, Unit
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower

HASTE = Patience(first=0.6, least=0.1, quiet=0.02, tries=3)
CALM = Patience(least=10.0, quiet=2.0)  # where nothing may have to be sent again
NETWORK = lower(mlp())  # 16 inputs of 4 bits, 3 classes
INPUTS = golden.inputs(NETWORK, 200)
EXPECTED = reference.run(NETWORK, INPUTS)
Handler = Callable[[Frame], bytes]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The firmware of :data:`NETWORK`, for this computer."""
    return virtual_board.build(mlp(), tmp_path_factory.mktemp("board"))


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    edgebnn.save(mlp(), tmp_path / "model.pt", class_names=("a", "b", "c"))
    return tmp_path / "model.pt"


def good(frame: Frame, info: wire.Info = INFO) -> bytes:
    """What a board with 10 classes answers."""
    match frame.kind:
        case Kind.INFO:
            body = body_of(info)
        case Kind.SELF_TEST:
            body = b"\x08\0"
        case Kind.CLASSIFY:
            body = struct.pack("<IH", 1000, 3)
        case _:
            body = struct.pack("<IH10i", 1000, 3, *range(10))
    return wire.encode(wire.answer(frame.kind, frame.id, Status.OK, body))


def requests(line: socket.socket) -> Iterator[Frame]:
    """What comes in."""
    pending = b""
    while chunk := line.recv(4096):
        pieces, pending = wire.split(pending, chunk, 1 << 16)
        for piece in pieces:
            yield wire.decode(piece)


@contextlib.contextmanager
def fake(handler: Handler) -> Iterator[str]:
    """A port at which each request is answered with what ``handler`` gives."""

    def serve(line: socket.socket) -> None:
        for frame in requests(line):
            line.sendall(handler(frame))

    with serving(serve) as url:
        yield url


def failure(port: str, patience: Patience = HASTE, **options: int) -> str:
    """The error of opening ``port`` and asking for scores."""
    with (
        pytest.raises(EdgebnnError) as caught,
        Board(port, patience=patience, **options) as board,
    ):
        board.scores(np.zeros(16, np.uint8))
    message = str(caught.value)
    assert message.isprintable()
    assert port in message
    return message


# --- the real code of both ends -----------------------------------------------------------------


@pytest.mark.parametrize("way", [on_socket, on_terminal])
def test_a_board_computes_what_the_oracle_does(way, program: Path) -> None:
    assert len(set(EXPECTED.classes)) > 1, "the network tells nothing apart"
    with way(program) as port, Board(port, patience=CALM) as board:
        info = board.info()
        assert (info.unit, info.hz, info.target, info.name) == (Unit.TIMER, 10**6, "host", "tiny")
        assert (info.input_bytes, info.num_classes, info.input_max) == (16, 3, 15)
        assert info.sha256 == ir.sha256(NETWORK)
        assert info.fraction_bits == NETWORK.scores.fraction_bits
        assert info.compiler.startswith("gcc ")
        assert board.self_test() == wire.SelfTest(golden.COUNT, 0)
        for values, scores, best in zip(INPUTS, EXPECTED.scores, EXPECTED.classes, strict=True):
            found = board.scores(values)
            np.testing.assert_array_equal(found.scores, scores)
            assert (found.best, found.ticks) == (best, virtual_board.TICKS)
            assert 0 < found.seconds < 10
            short = board.classify(values)
            assert (short.best, short.scores.size) == (best, 0)
        assert board.retries == 0


@pytest.mark.parametrize("wrong", [1, 3])
def test_wrong_golden_vectors_are_counted(wrong: int, tmp_path: Path) -> None:
    def change(text: str) -> str:
        return re.sub(r"0x(\w{8})u,", lambda m: f"0x{int(m[1], 16) ^ 1:08X}u,", text, count=wrong)

    changed = virtual_board.build(mlp(), tmp_path, change)
    with on_socket(changed) as port, Board(port) as board:
        assert board.self_test() == wire.SelfTest(golden.COUNT, wrong)


def test_one_session_after_another(program: Path) -> None:
    with on_terminal(program) as port:
        for _ in range(3):
            with Board(port) as board:
                assert board.scores(INPUTS[0]).best == EXPECTED.classes[0]


@pytest.mark.parametrize(
    ("size", "why"),
    [
        (0, "takes a request of 16 bytes"),
        (15, "takes a request of 16 bytes"),
        (17, "takes a request of 16 bytes"),
        (248, "takes a request of 16 bytes"),
        (249, "too long a frame, the board has room for 256 bytes"),
        (5000, "too long a frame, the board has room for 256 bytes"),
    ],
)
def test_inputs_of_another_size_are_refused(size: int, why: str, program: Path) -> None:
    with on_socket(program) as port, Board(port, patience=HASTE) as board:
        for ask in (board.scores, board.classify):
            with pytest.raises(EdgebnnError, match=why):
                ask(np.zeros(size, np.uint8))
        assert board.scores(INPUTS[1]).best == EXPECTED.classes[1]


@pytest.mark.parametrize("place", [0, 7, 15])
def test_values_beyond_the_range_are_refused(place: int, program: Path) -> None:
    values = np.full(16, 15, np.uint8)
    with on_socket(program) as port, Board(port) as board:
        board.scores(values)
        values[place] = 16
        why = f"takes values from 0 to 15, and value {place} of the input is larger; shift"
        with pytest.raises(EdgebnnError, match=why):
            board.scores(values)
        assert board.scores(INPUTS[2]).best == EXPECTED.classes[2]


def exchange(line: Line, sent: bytes) -> tuple[Answer, int]:
    """What is answered to these bytes, and how many pieces that are no frames came before."""
    found: list[Answer] = []

    def wanted(piece: bytes) -> bool:
        with contextlib.suppress(wire.Damaged):
            found.append(wire.answer_of(wire.decode(piece)))
        return bool(found)

    before = line.send(sent, wanted)
    return found[0], before


def test_what_is_wrong_with_a_frame_is_answered(program: Path) -> None:
    content = wire.encode(Frame(Kind.INFO, 5))
    bad = bytearray(content)
    bad[4] ^= 1
    long = wire.encode(Frame(Kind.SCORES, 5, bytes(249)))
    # The last block promises one byte more than there is; what is there has the right CRC.
    place = next(i for i in range(len(content)) if i + content[i] == len(content) - 1 and i)
    short = bytearray(content)
    short[place] += 1

    def refused(sent: bytes) -> tuple[int, int, int, int]:
        answer, _ = exchange(line, sent)
        return answer.kind, answer.id, answer.status, answer.detail

    with line_to(program) as line:
        assert exchange(line, content)[1] == 1  # the greeting
        for _ in range(2):
            assert refused(bytes(bad)) == (Kind.NONE, 0, Status.BAD_FRAME, 0)
            assert refused(bytes(short)) == (Kind.NONE, 0, Status.BAD_FRAME, 0)
            assert refused(b"\0x\0") == (Kind.NONE, 0, Status.BAD_FRAME, 0)
            assert refused(long) == (Kind.NONE, 0, Status.TOO_LONG, 256)
            assert refused(b"\1" * 10**5 + b"\0") == (Kind.NONE, 0, Status.TOO_LONG, 256)
            for version in (0, 2, 255):
                frame = Frame(Kind.INFO, 7, version=version)
                assert refused(wire.encode(frame)) == (Kind.NONE, 7, Status.VERSION, wire.VERSION)
            for kind in (0, 5, 0x7F):
                frame = Frame(kind, 0xFFFF)
                assert refused(wire.encode(frame)) == (Kind.NONE, 0xFFFF, Status.KIND, kind)
            for kind in (Kind.INFO, Kind.SELF_TEST):
                frame = Frame(kind, 8, b"\0")
                assert refused(wire.encode(frame)) == (kind, 8, Status.SIZE, 0)
        answer, _ = exchange(line, content)
        assert (answer.kind, answer.id, answer.status) == (Kind.INFO, 5, Status.OK)


def test_a_board_does_not_answer_answers(program: Path) -> None:
    """Else a line that echoes, or a second board, would have it talk for good."""
    with line_to(program) as line:
        exchange(line, wire.encode(Frame(Kind.INFO, 1)))
        for kind in (Kind.INFO, Kind.SCORES, Kind.NONE):
            own = wire.encode(wire.answer(kind, 2, Status.OK, bytes(6)))
            answer, before = exchange(line, own + b"\0\0\0" + wire.encode(Frame(Kind.INFO, 3)))
            assert (answer.id, before) == (3, 0)


def last_number_changed(text: str) -> str:
    """The C of a model with another number at the end of its last table."""
    before, end, after = text.rpartition(",\n};\n/* clang-format on */")
    return f"{before[:-1]}{int(before[-1]) ^ 1}{end}{after}"


def test_a_board_with_damaged_weights_computes_nothing(model_file: Path, tmp_path: Path) -> None:
    program = virtual_board.build(mlp(), tmp_path / "board", damage=last_number_changed)
    with line_to(program) as line:
        for number in (1, 2):
            answer, before = exchange(line, wire.encode(Frame(Kind.INFO, number)))
            assert (answer.status, before) == (Status.OK, 2 - number)  # the greeting
            for kind in (Kind.CLASSIFY, Kind.SCORES, Kind.SELF_TEST):
                body = b"" if kind == Kind.SELF_TEST else INPUTS[0].tobytes()
                answer, _ = exchange(line, wire.encode(Frame(kind, number, body)))
                assert (answer.kind, answer.status, answer.detail) == (kind, Status.DAMAGED, 0)
            answer, _ = exchange(line, wire.encode(Frame(Kind.SCORES, 9)))
            assert (answer.status, answer.detail) == (Status.SIZE, 16)
    with on_socket(program) as port:
        for command in ("check", "monitor"):
            options = ("--port", port, "--random", "3", "--images", "3")
            assert mistake(tmp_path, command, model_file, *options) == (
                f"edgebnn: {port}: the board has damaged weights in its memory; flash it again: "
                f"edgebnn generate MODEL --target BOARD --project DIR, then pio run -d DIR -t "
                f"upload\n"
            )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            last_number_changed,
            "but its weights in flash are damaged; flash it again: pio run -t upload",
        ),
        (str, "close this monitor and run: edgebnn check MODEL --port PORT"),
    ],
)
def test_a_board_that_starts_says_how_it_is(
    damage: Callable[[str], str], said: str, tmp_path: Path
) -> None:
    program = virtual_board.build(mlp(), tmp_path / "board", damage=damage)
    done = subprocess.run([program], input=b"", capture_output=True, timeout=60, check=True)
    text = f"\r\nedgebnn: this board runs tiny[;,] {said}\r\n\0"
    assert re.fullmatch(text.encode(), done.stdout)


def test_a_self_test_looks_at_the_weights_again(tmp_path: Path) -> None:
    """They may be damaged while a board runs: here from the second look on, until the third."""

    def change(text: str) -> str:
        looks = "{ static int looks; looks++; return looks != 2; }"
        begin = "static EDGEBNN_FLASH struct"
        text = text.replace(begin, f"static int look(void) {looks}\n{begin}")
        return text.replace(".intact = tiny_intact", ".intact = look")

    program = virtual_board.build(mlp(), tmp_path / "board", change)
    score = wire.encode(Frame(Kind.SCORES, 7, INPUTS[0].tobytes()))
    test = wire.encode(Frame(Kind.SELF_TEST, 8))
    with line_to(program) as line:
        asked = [exchange(line, one)[0].status for one in (score, test, score, test, score)]
    assert asked == [Status.OK, Status.DAMAGED, Status.DAMAGED, Status.OK, Status.OK]


def test_a_board_without_the_check_answers(tmp_path: Path) -> None:
    """As ever, the number that is changed here being a filler that no score is made of."""

    def change(text: str) -> str:
        assert ".intact = tiny_intact,\n" in text
        return text.replace(".intact = tiny_intact,\n", "")

    program = virtual_board.build(mlp(), tmp_path / "board", change, damage=last_number_changed)
    with on_socket(program) as port, Board(port, patience=CALM) as board:
        assert board.self_test() == wire.SelfTest(8, 0)


ECHO = r"""
#include "edgebnn_link.h"
#include "edgebnn_port.h"

#include <stdlib.h>
#include <string.h>

static uint8_t buffer[4096];
static int32_t scores[1024];
static struct edgebnn_link line;
static struct edgebnn_model model;

static void echo(const uint8_t *input, int32_t *to)
{
    memcpy(to, input, 4u * model.num_classes);
}

static int best(const int32_t *from)
{
    (void)from;
    return 0;
}

void app_start(void)
{
    const uint32_t classes = (uint32_t)atoi(getenv("CLASSES"));

    model = (struct edgebnn_model){
        .name = getenv("NAME"), .sha256 = SHA, .target = "host", .input_bytes = 4u * classes,
        .num_classes = (uint16_t)classes, .input_max = 255u, .scores = echo, .best = best,
    };
    edgebnn_link_start(&line, &model, buffer,
        EDGEBNN_LINK_BUFFER_BYTES(model.input_bytes, model.num_classes), scores);
}

void app_receive(uint8_t byte)
{
    edgebnn_link_receive(&line, byte);
}
"""


@pytest.fixture(scope="module")
def echo(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The link with a "model" whose scores are its input, so that any bytes go both ways."""
    folder = tmp_path_factory.mktemp("echo")
    (folder / "echo.c").write_text(ECHO)
    link = program.parent / "project" / "lib" / "edgebnn_link" / "src"
    port = program.parent / "project" / "lib" / "edgebnn_port" / "src"
    sources = [folder / "echo.c", program.parent / "port.c", link / "edgebnn_link.c"]
    flags = [*virtual_board.FLAGS, *virtual_board.SANITIZE, f"-I{link}", f"-I{port}"]
    sha = f'-DSHA="{INFO.sha256}"'
    command = ["gcc", *flags, sha, *map(str, sources), "-o", str(folder / "echo")]
    subprocess.run(command, check=True)
    return folder / "echo"


@pytest.mark.parametrize("classes", [1, 58, 59, 60, 61, 62, 63, 64, 122, 123, 124, 125, 126, 900])
def test_blocks_of_cobs_are_the_same_on_both_ends(
    classes: int, echo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are 4 n + 8 bytes and answers 4 n + 15, around one and two blocks of 254."""
    monkeypatch.setenv("CLASSES", str(classes))
    monkeypatch.setenv("NAME", "echo")
    rng = np.random.default_rng(classes)
    rows = [np.full(4 * classes, fill, np.uint8) for fill in (0, 1, 255)]
    rows += [rng.integers(low, high, 4 * classes, np.uint8) for low, high in ((1, 255), (0, 3))]
    for _ in range(30):  # one zero somewhere
        rows.append(rng.integers(1, 256, 4 * classes, np.uint8))
        rows[-1][rng.integers(4 * classes)] = 0
    with on_terminal(echo) as port, Board(port, baud=4_000_000, patience=CALM) as board:
        for row in rows:
            assert board.scores(row).scores.tobytes() == row.tobytes()
        assert board.retries == 0


@pytest.mark.parametrize(("classes", "kept"), [(1, 200), (900, 255)])
def test_texts_that_are_too_long_are_cut_off(
    classes: int, kept: int, echo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is always room for what follows, and a length byte holds no more than 255."""
    monkeypatch.setenv("CLASSES", str(classes))
    monkeypatch.setenv("NAME", "n" * 300)
    with on_terminal(echo) as port, Board(port, patience=HASTE) as board:
        info = board.info()
        assert set(info.name) == {"n"}
        assert len(info.name) == 255 if kept == 255 else 100 < len(info.name) < kept
        assert info.sha256 == INFO.sha256
        assert info.compiler == "" if classes == 1 else info.compiler.startswith("gcc ")


# --- noise on the line --------------------------------------------------------------------------


@contextlib.contextmanager
def noisy(program: Path, rate: float, seed: int, clean: int = 0) -> Iterator[str]:
    """A port to ``program`` behind a line that changes a part of the bytes, both ways.

    The first ``clean`` chunks stay as they are.
    """

    def serve(line: socket.socket) -> None:
        near, far = socket.socketpair()
        with near, far, running(program, far.fileno()):
            ways = {line: (near, random.Random(seed)), near: (line, random.Random(seed + 1))}
            for chunk in itertools.count():
                for one in select.select([line, near], [], [])[0]:
                    other, rng = ways[one]
                    data = bytearray(one.recv(4096))
                    if not data:
                        return
                    for place in range(len(data)):
                        if chunk >= clean and rng.random() < rate:
                            data[place] ^= rng.randrange(1, 256)
                    other.sendall(data)

    with serving(serve) as url:
        yield url


def test_no_wrong_answer_survives_a_noisy_line(program: Path) -> None:
    """One byte in a hundred is another one; about half of the tries fail."""
    patience = Patience(first=5.0, least=0.02, quiet=0.004, tries=40)
    again = 0
    with (
        noisy(program, 0.01, seed=1) as port,
        Board(port, baud=4_000_000, patience=patience) as board,
    ):
        for count in range(1000):
            before, place = board.retries, count % len(INPUTS)
            ask = board.scores if count % 2 else board.classify
            found = ask(INPUTS[place])
            assert found.best == EXPECTED.classes[place]
            assert found.scores.tolist() == (EXPECTED.scores[place].tolist() if count % 2 else [])
            again += board.retries > before
    print(f"{again} of 1000 calls needed {board.retries} retries")
    assert again > 250


def test_noise_that_does_not_end(program: Path) -> None:
    why = r"noise on the line, 3 tries and no good answer \(.+\); take a shorter cable"

    def ask_on(board: Board) -> None:
        for values in INPUTS:
            board.scores(values)

    with (
        noisy(program, 0.3, seed=2, clean=20) as port,
        Board(port, patience=HASTE) as board,
        pytest.raises(EdgebnnError, match=why),
    ):
        ask_on(board)


SLOW_BAUD = 9600


@contextlib.contextmanager
def polled(noise: bytes) -> Iterator[tuple[str, list[int]]]:
    """A board that hears nothing while it answers, on a line as slow as :data:`SLOW_BAUD`.

    Once it has said what it runs, ``noise`` comes, between two zeros or not. The list holds how
    many bytes were lost.
    """
    byte_seconds = 10 / SLOW_BAUD
    lost = [0]

    def serve(line: socket.socket) -> None:
        chunks: queue.Queue[tuple[float, bytes]] = queue.Queue()

        def receive() -> None:
            data = b"x"
            with contextlib.suppress(OSError):
                while data:
                    data = line.recv(4096)
                    chunks.put((time.monotonic(), data))
            chunks.put((0.0, b""))

        thread = threading.Thread(target=receive)
        thread.start()
        arrived, busy, pending = 0.0, 0.0, b""
        while True:
            came, chunk = chunks.get()
            if not chunk:
                break
            for byte in chunk:
                arrived = max(arrived, came) + byte_seconds
                if arrived < busy:
                    lost[0] += 1
                    continue
                if byte:
                    pending += bytes([byte])
                    continue
                piece, pending = pending, b""
                if not piece:
                    continue
                said = wire.encode(wire.answer(Kind.NONE, 0, Status.BAD_FRAME, bytes(4)))
                with contextlib.suppress(wire.Damaged):
                    frame = wire.decode(piece)
                    said = good(frame)
                    pending = noise if frame.kind == Kind.INFO else b""
                busy = arrived + len(said) * byte_seconds
                time.sleep(max(0.0, busy - time.monotonic()))
                with contextlib.suppress(OSError):
                    line.sendall(said)
        thread.join(10)

    with serving(serve) as url:
        yield url, lost


@pytest.mark.parametrize("size", [1, 60])
def test_noise_before_a_request_does_not_cost_the_next_one_too(size: int) -> None:
    """A board that answers noise does not hear the request behind it; the one after it does."""
    with polled(b"\x55" * size) as (port, lost), Board(port, baud=SLOW_BAUD) as board:
        found = board.scores(np.zeros(100, np.uint8))
        assert found.scores.tolist() == list(range(10))
        assert board.retries == 1
    assert lost[0] > 5


def test_random_frames_do_not_stop_a_board(program: Path) -> None:
    with virtual_board.line_to(program) as line:
        assert fuzz_wire.fuzz(line, NETWORK, 100_000, seed=1) == 2000


# --- boards that misbehave ----------------------------------------------------------------------


def test_silence() -> None:
    with fake(lambda frame: b"") as port:
        begin = time.monotonic()
        message = failure(port)
        assert 0.5 < time.monotonic() - begin < 5
    assert "nothing answers; flash the board (edgebnn generate MODEL --target" in message


def test_echo() -> None:
    with fake(wire.encode) as port:
        assert "sends back what it is sent, so there is no board" in failure(port)
    assert "sends back what it is sent" in failure("loop://")


def test_other_firmware() -> None:
    with fake(lambda frame: b"\x1b[2JHello, world!\r\n") as port:
        message = failure(port)
    assert re.search(
        r"what answers is not edgebnn, \d+ bytes such as '\?\[2JHello, world!", message
    )
    assert "or give its --baud" in message


@pytest.mark.parametrize("zeros", [False, True])
def test_endless_bytes(zeros: bool) -> None:
    """They take neither more time nor more memory than silence."""
    block = os.urandom(4096) if zeros else b"\xaa" * 4096

    def serve(line: socket.socket) -> None:
        while True:
            line.sendall(block)

    held: list[int] = []
    split = wire.split

    def spied(pending: bytes, chunk: bytes, limit: int) -> tuple[list[bytes], bytes]:
        held.append(len(pending))
        return split(pending, chunk, limit)

    with serving(serve) as port, mock.patch.object(wire, "split", spied):
        begin = time.monotonic()
        assert "what answers is not edgebnn" in failure(port)
        assert time.monotonic() - begin < 5
    assert len(held) > 100
    assert max(held) <= wire.longest() + 1


def test_garbage_then_silence_then_a_board() -> None:
    """As a board does that starts while the port is opened: it hears nothing in its boot loader."""
    count = itertools.count()

    def handler(frame: Frame) -> bytes:
        return (b"\xf0boot\0", b"", b"hello\0", good(frame))[min(next(count), 3)]

    with fake(handler) as port, Board(port, patience=Patience(tries=1)) as board:
        assert board.scores(np.zeros(16, np.uint8)).scores.tolist() == list(range(10))
        assert board.retries >= 3


def test_answers_with_wrong_ids() -> None:
    def handler(frame: Frame) -> bytes:
        number = frame.id if frame.kind == Kind.INFO else (frame.id + 1000) % 65536
        return good(Frame(frame.kind, number))

    with fake(handler) as port:
        assert "the board has stopped answering, 3 tries" in failure(port)


def test_answers_of_wrong_kinds() -> None:
    def handler(frame: Frame) -> bytes:
        kind = Kind.INFO if frame.kind == Kind.INFO else Kind.CLASSIFY
        return good(Frame(kind, frame.id))

    with fake(handler) as port:
        assert "the board has stopped answering, 3 tries" in failure(port)


def test_old_answers_again() -> None:
    """All that were ever given, before the right one."""
    old: list[bytes] = []

    def handler(frame: Frame) -> bytes:
        score = len(old)
        body = struct.pack("<IH10i", 1, 3, *[score] * 10)
        answer = wire.encode(wire.answer(frame.kind, frame.id, Status.OK, body))
        old.append(good(frame) if frame.kind == Kind.INFO else answer)
        return b"".join(old)

    with fake(handler) as port, Board(port, patience=CALM) as board:
        for count in range(1, 20):
            assert board.scores(np.zeros(16, np.uint8)).scores.tolist() == [count] * 10
        assert board.retries == 0


def test_answers_that_come_late_are_good_for_their_own_request() -> None:
    """And for no other: the board answers each request when it has got the next one."""
    kept: list[Frame] = []

    def handler(frame: Frame) -> bytes:
        if frame.kind == Kind.INFO:
            return good(frame)
        kept.append(frame)
        if len(kept) == 1:
            return b""
        late = kept[-2]
        body = struct.pack("<IH10i", 1, 3, *[late.body[0]] * 10)
        return wire.encode(wire.answer(late.kind, late.id, Status.OK, body))

    with fake(handler) as port, Board(port, patience=HASTE) as board:
        for value in range(5):
            found = board.scores(np.full(16, value, np.uint8))
            assert found.scores.tolist() == [value] * 10
        assert board.retries >= 5


@pytest.mark.parametrize("reset", [False, True])
def test_half_an_answer_and_gone(reset: bool) -> None:
    def serve(line: socket.socket) -> None:
        for frame in requests(line):
            data = good(frame)
            if frame.kind != Kind.INFO:
                line.sendall(data[: len(data) // 2])
                if reset:  # the connection, when it is closed
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            line.sendall(data)

    with serving(serve) as port:
        message = failure(port)
    assert re.search(r"the board is gone \(.*\); plug it in again, or start it again", message)


def test_unplugged() -> None:
    with terminal() as (end, path):

        def serve() -> None:
            pending = b""
            while True:
                pieces, pending = wire.split(pending, os.read(end, 4096), 1 << 16)
                for frame in map(wire.decode, pieces):
                    if frame.kind != Kind.INFO:
                        os.close(end)
                        return
                    os.write(end, good(frame))

        thread = threading.Thread(target=serve)
        thread.start()
        message = failure(path)
        thread.join(10)
    assert re.search(r"the board is gone \(.*\); plug it in again, or start it again", message)


@pytest.mark.parametrize(
    ("version", "fix"), [(0, "flash it again"), (2, "update edgebnn"), (200, "update edgebnn")]
)
def test_another_version(version: int, fix: str) -> None:
    def frames(frame: Frame) -> bytes:
        return wire.encode(Frame(frame.kind | 0x80, frame.id, b"\0", version))

    def refusals(frame: Frame) -> bytes:
        detail = struct.pack("<I", version)
        return wire.encode(wire.answer(Kind.NONE, frame.id, Status.VERSION, detail))

    for handler in (frames, refusals):
        with fake(handler) as port:
            message = failure(port)
        assert f"the board speaks version {version} of the protocol, this edgebnn" in message
        assert fix in message


@pytest.mark.parametrize(
    ("status", "detail", "why"),
    [
        (Status.KIND, 4, "does not know requests of kind 4; flash it again"),
        (Status.SIZE, 784, "takes a request of 784 bytes"),
        (Status.INPUT, 3, "takes values from 0 to 255, and value 3 of the input is larger"),
        (Status.DAMAGED, 0, "has damaged weights in its memory; flash it again: edgebnn generate"),
        (99, 0, "answers with an unknown status, 99; update edgebnn"),
        (Status.BAD_FRAME, 0, r"noise on the line, 3 tries and no good answer \(the board heard"),
        (Status.TOO_LONG, 9, r"no good answer \(too long a frame, the board has room for 9 bytes"),
    ],
)
def test_refusals(status: int, detail: int, why: str) -> None:
    def handler(frame: Frame) -> bytes:
        if frame.kind == Kind.INFO:
            return good(frame)
        own = status >= Status.SIZE
        kind, number = (frame.kind, frame.id) if own else (Kind.NONE, frame.id)
        if status in (Status.BAD_FRAME, Status.TOO_LONG):
            number = 0
        return wire.encode(wire.answer(kind, number, status, struct.pack("<I", detail)))

    with fake(handler) as port:
        assert re.search(why, failure(port))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "info of 0 bytes"),
        (body_of(INFO)[:-1], "a text that is cut off"),
        (b"\x09" + body_of(INFO)[1:], "an unknown unit of time, 9"),
        (body_of(INFO)[:17] + b"\xff" * 5, "a text that is cut off"),
    ],
)
def test_info_that_makes_no_sense(body: bytes, why: str) -> None:
    with fake(lambda f: wire.encode(wire.answer(f.kind, f.id, Status.OK, body))) as port:
        message = failure(port)
    assert "no good answer" in message
    assert why in message


def test_scores_that_make_no_sense() -> None:
    def handler(frame: Frame) -> bytes:
        if frame.kind == Kind.INFO:
            return good(frame)
        body = struct.pack("<IH10i", 1, 10, *range(10))
        return wire.encode(wire.answer(frame.kind, frame.id, Status.OK, body))

    with fake(handler) as port:
        assert "no good answer (class 10 of 10)" in failure(port)


def test_noise_is_no_reason_to_wait() -> None:
    """Whoever hears noise does not compute; the limit is 10 seconds here."""

    def handler(frame: Frame) -> bytes:
        if frame.kind == Kind.INFO:
            return good(frame)
        return wire.encode(wire.answer(Kind.NONE, 0, Status.BAD_FRAME, bytes(4)))

    with fake(handler) as port:
        begin = time.monotonic()
        assert "no good answer (the board heard noise)" in failure(port, Patience(tries=3))
        assert time.monotonic() - begin < 5


def test_a_board_that_takes_nothing() -> None:
    with (
        fake(good) as port,
        Board(port, patience=HASTE) as board,
        mock.patch.object(
            type(board._line), "write", side_effect=serial.SerialTimeoutException("full")
        ),
        pytest.raises(EdgebnnError, match="the board has stopped answering"),
    ):
        board.scores(np.zeros(16, np.uint8))


def test_the_time_limit_is_learnt() -> None:
    """Once it is known that an inference is quick, silence is noticed soon."""
    count = itertools.count()

    def handler(frame: Frame) -> bytes:
        return good(frame) if frame.kind == Kind.INFO or next(count) == 0 else b""

    with fake(handler) as port, Board(port, patience=Patience(tries=3)) as board:
        board.scores(np.zeros(16, np.uint8))
        begin = time.monotonic()
        with pytest.raises(EdgebnnError, match="has stopped answering, 3 tries; reset it"):
            board.scores(np.zeros(16, np.uint8))
        assert time.monotonic() - begin < 5  # of 30 seconds


def test_an_answer_that_was_kept_back_is_no_measure() -> None:
    """As one whose closing zero was lost: it comes with the next frame."""
    kept: list[bytes] = []

    def handler(frame: Frame) -> bytes:
        if frame.kind == Kind.INFO:
            return good(frame)
        kept.append(good(frame))
        if len(kept) in (1, *range(9, 20)):
            return b""
        return kept[0] if len(kept) == 2 else kept[-1]

    patience = Patience(first=2.0, least=0.05, quiet=0.02, tries=3)
    with fake(handler) as port, Board(port, patience=patience) as board:
        for _ in range(7):
            board.scores(np.zeros(16, np.uint8))
        begin = time.monotonic()
        with pytest.raises(EdgebnnError, match="has stopped answering, 3 tries; reset it"):
            board.scores(np.zeros(16, np.uint8))
        assert time.monotonic() - begin < 2  # of 6 seconds


def test_a_slow_board_has_time() -> None:
    def handler(frame: Frame) -> bytes:
        if frame.kind != Kind.INFO:
            time.sleep(0.4)
        return good(frame)

    with fake(handler) as port:
        with Board(port, patience=Patience(first=2.0, least=0.1)) as board:
            assert board.scores(np.zeros(16, np.uint8)).seconds > 0.4
            assert board.retries == 0
        with Board(port, patience=Patience(first=0.25, least=0.1)) as board:
            assert board.scores(np.zeros(16, np.uint8)).scores.tolist() == list(range(10))
            assert board.retries >= 1


@pytest.mark.parametrize(
    ("unit", "hz", "ticks"),
    [
        (Unit.NONE, 0, None),
        (Unit.INSTRUCTIONS, 0, 1000),
        (Unit.CYCLES, 10**6, 1000),
        (Unit.CYCLES, 2**32 - 1, None),
    ],
)
def test_ticks_are_ignored_where_the_clock_may_have_started_again(
    unit: Unit, hz: int, ticks: int | None
) -> None:
    info = replace(INFO, unit=unit, hz=hz)

    def handler(frame: Frame) -> bytes:
        if hz > 10**9 and frame.kind != Kind.INFO:
            time.sleep(1.05)
        return good(frame, info)

    with fake(handler) as port, Board(port) as board:
        assert board.scores(np.zeros(16, np.uint8)).ticks == ticks


# --- ports that do not open ---------------------------------------------------------------------


def refusal(port: str) -> str:
    with pytest.raises(EdgebnnError) as caught, Board(port, patience=HASTE):
        pass
    return str(caught.value)


def test_no_such_port() -> None:
    with mock.patch.object(ports, "ports", return_value=(usb("/dev/ttyACM7"), usb("/dev/ttyS0"))):
        message = refusal("/dev/ttyNONE")
    assert message == "there is no port /dev/ttyNONE; there are: /dev/ttyACM7, /dev/ttyS0"
    with mock.patch.object(ports, "ports", return_value=()):
        assert "there are: none; pio run -t upload starts an emulated board" in refusal("COM3")


def test_no_permission() -> None:
    denied = PermissionError(13, "Permission denied")
    with mock.patch("serial.serialposix.os.open", side_effect=denied):
        message = refusal("/dev/ttyACM0")
    assert message == (
        "no permission to open /dev/ttyACM0; sudo usermod -aG dialout $USER, then log in again"
    )


HOLD = "import serial, sys; p = serial.Serial(sys.argv[1], exclusive=True); print(1, flush=True)"


def test_a_port_in_use() -> None:
    with terminal() as (_, path):
        command = [sys.executable, "-c", f"{HOLD}; sys.stdin.read()", path]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, **pipes) as other:
            assert other.stdout is not None
            other.stdout.readline()
            message = refusal(path)
            other.communicate(timeout=20)
    assert re.fullmatch(
        rf"{path} is in use by python\S* \(process {other.pid}\); "
        r"close what uses it, say a monitor",
        message,
    )


def test_what_is_no_port(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "file", tmp_path, "/dev/null"):
        message = refusal(str(path))
        assert f"{path} is no serial port" in message
        assert "edgebnn ports lists them" in message


def test_a_port_whose_name_a_terminal_obeys(tmp_path: Path) -> None:
    with terminal() as (_, path):
        link = tmp_path / "tty\x1b[2J"
        link.symlink_to(path)
        message = refusal(str(link))
    assert message.isprintable()
    assert "tty?[2J at 115200 baud: nothing answers" in message


def test_a_socket_that_nobody_listens_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = f"socket://127.0.0.1:{server.getsockname()[1]}"
    assert refusal(port) == f"nothing listens on {port}; pio run -t upload starts an emulated board"


@pytest.mark.parametrize("port", ["socket://127.0.0.1", "socket://", "foo://x", "socket://a:b\x1b"])
def test_addresses_that_are_none(port: str) -> None:
    message = refusal(port)
    assert message.isprintable()
    assert "does not open" in message
    assert "an emulated board is socket://127.0.0.1:5552" in message


def test_pyserial_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    assert refusal("COM3") == "boards need pyserial and cobs: pip install 'edgebnn[board]'"
    monkeypatch.setitem(sys.modules, "serial.tools", None)
    with pytest.raises(EdgebnnError, match=r"pip install 'edgebnn\[board\]'"):
        ports.ports()


def usb(name: str, vid: int | None = 0x0483) -> ports.Port:
    return ports.Port(name, "STLink", vid, vid and 0x374B, "066F")


def test_the_only_board_is_taken() -> None:
    found = (usb("/dev/ttyACM0"), usb("/dev/ttyS0", None))
    with mock.patch.object(ports, "ports", return_value=found):
        assert ports.only_port() == "/dev/ttyACM0"
    for there, why in (
        ((*found, usb("/dev/ttyUSB1")), "--port, one of: /dev/ttyACM0, /dev/ttyUSB1"),
        (found[1:], "no board is plugged in; plug one in, or pio run -t upload starts"),
    ):
        with (
            mock.patch.object(ports, "ports", return_value=there),
            pytest.raises(EdgebnnError, match=why),
        ):
            ports.only_port()


# --- the commands -------------------------------------------------------------------------------


def test_check_compares_a_board(program: Path, model_file: Path, tmp_path: Path) -> None:
    with on_socket(program) as port:
        text = output_here(tmp_path, "check", model_file, "--port", port, "--random", "30")
    assert re.search(rf"host on {port} +│ +- │ +0 │", text)
    assert re.search(r"reference \(NumPy\) +│ +- │ +0 │", text)
    assert "every output is equal, bit for bit" in text
    for wanted in (
        f"tiny, sha256 {ir.sha256(NETWORK)[:12]}...",
        "gcc ",
        "8 of 8 golden vectors",
        "ticks of a timer at 1 MHz",
        "250 ticks, 0.250 ms",
        "round trip",
        "0 requests",
    ):
        assert wanted in text


def test_bench_measures_on_a_board(program: Path, model_file: Path, tmp_path: Path) -> None:
    with on_socket(program) as port:
        options = ("models", model_file, "--port", port, "--inputs", "3")
        text = output_here(tmp_path, "bench", *options)
        assert re.search(rf"\| host on {port} \| 250 ticks, 0.250 ms \| - \| .* \| 0/3 \|", text)
        assert "On the board: ticks of a timer at 1 MHz; the median." in text
        assert re.search(r"^host: gcc .*, on the board$", text, re.MULTILINE)
        message = mistake(tmp_path, "bench", "models", model_file, model_file, "--port", port)
        assert "a board runs one model; with --port, name that one alone" in message


def test_check_needs_no_port_where_there_is_one_board(
    program: Path, model_file: Path, tmp_path: Path
) -> None:
    with (
        on_terminal(program) as port,
        mock.patch.object(ports, "ports", return_value=(usb(port),)),
    ):
        text = output_here(tmp_path, "check", model_file, "--random", "3")
    assert "every output is equal, bit for bit" in text


def test_check_counts_other_outputs(program: Path, model_file: Path, tmp_path: Path) -> None:
    """A board that says that it runs the model, and computes something else now and then."""

    def change(text: str) -> str:
        wrong = "{ tiny_scores(x, s); s[0] += x[0] == 3; }"
        wrong = f"static void wrong(const uint8_t *x, int32_t *s) {wrong}\n"
        text = text.replace("static EDGEBNN_FLASH struct", f"{wrong}static EDGEBNN_FLASH struct")
        return text.replace(".scores = tiny_scores", ".scores = wrong")

    changed = virtual_board.build(mlp(), tmp_path / "other", change)
    from edgebnn import measure

    pixels = measure.noise(NETWORK, 50)
    wrong = int((measure.to_device_layout(pixels)[:, 0] == 3).sum())
    failed = int((golden.inputs(NETWORK)[:, 0] == 3).sum())
    assert wrong
    with on_socket(changed) as port:
        done = run_here(tmp_path, "check", model_file, "--port", port, "--random", "50")
    assert done.returncode == 1
    assert re.search(rf"host on {port} +│ +- │ +{wrong} │", done.stdout)
    assert f"outputs differ: {wrong} of 50 inputs on the board, {failed} of its 8" in done.stderr
    assert done.stderr.count("\n") == 1


def test_check_refuses_another_model(program: Path, tmp_path: Path) -> None:
    import torch

    other = mlp()
    with torch.no_grad():
        other[1].latent_weight.neg_()
    edgebnn.save(other, tmp_path / "other.pt")
    with on_socket(program) as port:
        for command in ("check", "monitor"):
            message = mistake(tmp_path, command, "other.pt", "--port", port, "--random", "3")
            assert message == (
                f"edgebnn: {port}: the board runs another model, tiny (sha256 "
                f"{ir.sha256(NETWORK)[:12]}...), not other.pt (sha256 "
                f"{ir.sha256(lower(other))[:12]}...); flash it: edgebnn generate other.pt "
                f"--target BOARD --project DIR, then pio run -d DIR -t upload\n"
            )


def test_check_refuses_a_board_that_lies_about_sizes(model_file: Path, tmp_path: Path) -> None:
    info = replace(INFO, sha256=ir.sha256(NETWORK))
    with fake(lambda frame: good(frame, info)) as port:
        message = mistake(tmp_path, "check", model_file, "--port", port, "--random", "3")
    assert "but with other sizes; flash it again: edgebnn generate" in message


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--port", "socket://127.0.0.1:1"), "nothing listens on socket://127.0.0.1:1; pio run"),
        (("--port", "/dev/ttyNONE"), "there is no port /dev/ttyNONE"),
        (("--baud", "9"), "--baud"),
        (("--timeout", "0"), "--timeout"),
        (("--random", "0"), "--random"),
        (("--images", "x"), "--images"),
        (("--prot", "COM1"), "No such option: --prot"),
    ],
)
def test_wrong_options(
    options: tuple[str, ...], reason: str, model_file: Path, tmp_path: Path
) -> None:
    assert reason in mistake(tmp_path, "check", model_file, *options)


def test_ports_lists_what_there_is(tmp_path: Path) -> None:
    from serial.tools import list_ports

    def port(name: str, **more: object) -> SimpleNamespace:
        usual = {"description": "n/a", "vid": None, "pid": None, "serial_number": None}
        return SimpleNamespace(device=name, **(usual | more))

    st = {"description": "ST\x1b[0mLink", "vid": 0x0483, "pid": 0x374B, "serial_number": "06:6F"}
    with mock.patch.object(list_ports, "comports", return_value=[port("/dev/ttyS0")]):
        text = output_here(tmp_path, "ports")
        assert re.search(r"/dev/ttyS0 +│ +- │ +- │ +- │", text)
        assert "no board is on USB: plug one in" in text
    both = [port("/dev/ttyS0"), port("/dev/ttyACM0", **st)]
    with mock.patch.object(list_ports, "comports", return_value=both):
        text = output_here(tmp_path, "ports")
        assert re.search(r"/dev/ttyACM0 +│ +ST\?\[0mLink │ +0483:374B │ +06:6F │", text)
        assert "no board is on USB" not in text
    with mock.patch.object(list_ports, "comports", return_value=[]):
        assert output_here(tmp_path, "ports").startswith("no board is on USB: plug one in")


def test_monitor_prints_lines(program: Path, model_file: Path, tmp_path: Path) -> None:
    options = ("--random", "4", "--images", "6")
    with on_socket(program) as port:
        text = output_here(tmp_path, "monitor", model_file, "--port", port, *options)
    *lines, total = text.splitlines()
    assert re.fullmatch(r"6 sent, [\d.]+ inputs/s", total)
    assert [line.split(":")[0].split()[-1] for line in lines] == ["0", "1", "2", "3", "0", "1"]
    for line in lines:
        assert re.search(r": [abc] \(-\), 250 ticks, 0\.250 ms, round trip .* inputs/s$", line)


def test_monitor_says_what_is_right(tmp_path: Path) -> None:
    """Images of a test set have labels."""
    import edgebnn.nn as bnn
    from edgebnn.data import load_dataset

    model = bnn.Sequential(
        bnn.Input((1, 8, 8), bits=8),
        bnn.Flatten(),
        bnn.BinaryLinear(64, 10),
        bnn.OutputNorm(10, bound=64 * 255),
    )
    digits = load_dataset("digits")
    edgebnn.save(model, tmp_path / "d.pt", dataset="digits", class_names=digits.class_names)
    network = lower(model)
    inputs = digits.test_images[:20].reshape(20, 64)
    right = reference.run(network, inputs).classes == digits.test_labels[:20]
    with on_socket(virtual_board.build(model, tmp_path / "board")) as port:
        text = output_here(tmp_path, "monitor", "d.pt", "--port", port, "--images", "20")
        *lines, total = text.splitlines()
        assert [("(right)" in line) for line in lines] == right.tolist()
        assert total.startswith(f"20 sent, {5 * right.sum():.2f} % right, ")
        text = output_here(tmp_path, "check", "d.pt", "--port", port, "--images", "20")
        assert re.search(rf"host on {port} +│ +{5 * right.sum():.2f} % \({right.sum()}/20\)", text)


def test_monitor_ends_with_ctrl_c(program: Path, model_file: Path, tmp_path: Path) -> None:
    with on_socket(program) as port, terminal() as (end, path), Path(path).open("wb") as screen:
        command = [*COMMAND, "monitor", str(model_file), "--port", port, "--random", "50"]
        settings = {"env": environment(tmp_path) | {"TERM": "xterm"}, "cwd": tmp_path}
        with subprocess.Popen(command, stdout=screen, stderr=subprocess.PIPE, **settings) as done:
            shown = b""
            while shown.count(b"inputs/s") < 5:
                assert select.select([end], [], [], 60)[0]
                shown += os.read(end, 4096)
            done.send_signal(signal.SIGINT)
            patience = time.monotonic() + 60
            while select.select([end], [], [], 1.0)[0] or done.poll() is None:
                assert time.monotonic() < patience
                shown += os.read(end, 4096) if select.select([end], [], [], 0)[0] else b""
            assert done.stderr is not None
            assert (done.wait(), done.stderr.read()) == (130, b"edgebnn: interrupted\n")
    text = shown.decode()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.rindex("\x1b[?25h") > text.rindex("Ctrl-C ends")
    assert "█" in text
