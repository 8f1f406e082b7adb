"""Frames of the wire: what is encoded comes back, and nothing else is ever taken for a frame."""

import struct
import zlib

import numpy as np
import pytest
from cobs import cobs
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgebnn.device import wire
from edgebnn.device.wire import Damaged, Frame, Info, Kind, Status, Unit
from edgebnn.errors import EdgebnnError

# COBS counts in blocks of 254 bytes; a frame has 8 bytes beside its body.
BORDERS = sorted({n + d for n in (254, 508, 762) for d in range(-12, 6)})
BODIES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(BORDERS).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
    st.sampled_from(BORDERS).map(lambda n: b"\1" * n),
    st.sampled_from(BORDERS).map(bytes),
)
FRAMES = st.builds(Frame, st.integers(0, 255), st.integers(0, 0xFFFF), BODIES, st.integers(0, 255))
NOISE = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"\1"))
LIMIT = 2000
INFO = Info(Unit.CYCLES, 16_000_000, 784, 1568, 10, 255, 20, "0123abcd" * 8, "t", "n", "gcc")


def pieces_of(stream: bytes, cuts: list[int], limit: int = LIMIT) -> list[bytes]:
    """All that :func:`wire.split` finds where ``stream`` comes in chunks of these sizes."""
    pending, found, at, turn = b"", [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        pieces, pending = wire.split(pending, stream[at : at + size], limit)
        assert len(pending) <= limit + 1
        found += pieces
        at, turn = at + size, turn + 1
    return found


def decoded(piece: bytes) -> Frame | None:
    try:
        return wire.decode(piece)
    except Damaged:
        return None


def body_of(info: Info) -> bytes:
    numbers = (info.unit, info.hz, info.input_bytes, info.arena_bytes)
    body = struct.pack("<BIIIHBb", *numbers, info.num_classes, info.input_max, info.fraction_bits)
    for text in (info.sha256, info.target, info.name, info.compiler):
        body += bytes([len(text.encode())]) + text.encode()
    return body


@pytest.mark.parametrize("fill", [0, 1, 255])
def test_bodies_of_every_length_come_back(fill: int) -> None:
    for length in (*range(20), *range(236, 275), *range(490, 530), 784, 3072, 65536):
        frame = Frame(Kind.SCORES, length % 65536, bytes([fill]) * length)
        data = wire.encode(frame)
        assert (data[0], data[-1], data[1:-1].count(0)) == (0, 0, 0)
        assert len(data) <= wire.transmitted(length)
        assert wire.decode(data[1:-1]) == frame


def test_a_frame_is_what_the_page_says() -> None:
    content = bytes([1, 4, 0x34, 0x12, 9, 0, 9])
    content += struct.pack("<I", zlib.crc32(content))
    assert wire.encode(Frame(Kind.SCORES, 0x1234, b"\x09\x00\x09")) == (
        b"\0" + cobs.encode(content) + b"\0"
    )


@given(frame=FRAMES)
def test_any_frame_comes_back(frame: Frame) -> None:
    assert wire.decode(wire.encode(frame)[1:-1]) == frame


@given(
    frames=st.lists(FRAMES, max_size=6),
    noise=st.lists(NOISE, min_size=7, max_size=7),
    cuts=st.lists(st.integers(1, 700), min_size=1, max_size=5),
)
def test_frames_are_found_in_noise_whatever_the_chunks(
    frames: list[Frame], noise: list[bytes], cuts: list[int]
) -> None:
    stream = noise[-1]
    for frame, before in zip(frames, noise, strict=False):
        stream += before + wire.encode(frame)
    assert [f for p in pieces_of(stream, cuts) if (f := decoded(p))] == frames
    assert pieces_of(stream, cuts) == pieces_of(stream, [len(stream) or 1])


@given(frame=FRAMES, data=st.data())
@settings(max_examples=300)
def test_flipped_bits_are_never_accepted(frame: Frame, data: st.DataObject) -> None:
    sent = bytearray(wire.encode(frame))
    bits = data.draw(st.lists(st.integers(0, 8 * len(sent) - 1), min_size=1, max_size=6))
    for bit in bits:
        sent[bit // 8] ^= 1 << bit % 8
    found = [f for p in pieces_of(bytes(sent) + b"\0", [64]) if (f := decoded(p))]
    assert found in ([], [frame])
    if found:  # flips of the zeros around it, or flips that took each other back
        assert wire.encode(frame)[1:-1] in bytes(sent).split(b"\0")


@pytest.mark.parametrize("length", [0, 12, 246, 247, 500])
def test_no_single_bit_makes_another_frame(length: int) -> None:
    body = np.random.default_rng(length).integers(0, 256, length, np.uint8).tobytes()
    sent = wire.encode(Frame(Kind.SCORES, 77, body))[1:-1]
    for bit in range(8 * len(sent)):
        flipped = bytearray(sent)
        flipped[bit // 8] ^= 1 << bit % 8
        for piece in bytes(flipped).split(b"\0"):
            assert decoded(piece) is None


@given(piece=st.binary(max_size=300))
@example(piece=b"")
@example(piece=b"\xff")
@example(piece=b"\x09\1\1\1\1\1\1\1\1")
def test_any_bytes_are_no_frame_and_no_surprise(piece: bytes) -> None:
    assert decoded(piece) is None


def test_a_stream_without_a_zero_takes_no_memory() -> None:
    pending = b""
    for _ in range(1000):
        pieces, pending = wire.split(pending, b"x" * 4096, 100)
        assert pieces == []
        assert len(pending) == 101
    frame = Frame(Kind.INFO, 3)
    pieces, pending = wire.split(pending, wire.encode(frame), 100)
    assert [decoded(piece) for piece in pieces] == [None, frame]
    assert pending == b""


def test_a_piece_that_is_too_long_is_not_a_frame_cut_off_there() -> None:
    data = wire.encode(Frame(Kind.SCORES, 1, b"\1" * 50))[1:-1]
    pieces, _ = wire.split(b"", data + b"\0", len(data))
    assert decoded(pieces[0]) is not None
    pieces, _ = wire.split(b"", data + b"\1\1\0", len(data))
    assert decoded(pieces[0]) is None


@pytest.mark.parametrize("classes", [0, 1, 10, 300, 65535])
def test_the_longest_answer_has_room(classes: int) -> None:
    info = Info(Unit.NONE, 0, 1, 1, max(classes, 1), 1, 0, "0" * 64, *("x" * 255,) * 3)
    bodies = [body_of(info), b"\1" * (6 + 4 * classes), bytes(6 + 4 * classes)]
    for body in bodies:
        data = wire.encode(wire.answer(Kind.SCORES, 1, Status.OK, body))
        pieces, _ = wire.split(b"", data, wire.longest(classes))
        assert decoded(pieces[0]) is not None


@given(
    kind=st.sampled_from(Kind),
    number=st.integers(0, 0xFFFF),
    status=st.integers(0, 255),
    body=BODIES,
)
def test_an_answer_comes_back(kind: Kind, number: int, status: int, body: bytes) -> None:
    frame = wire.decode(wire.encode(wire.answer(kind, number, status, body))[1:-1])
    assert wire.is_answer(frame)
    assert wire.answer_of(frame) == wire.Answer(kind, number, status, body)
    assert not wire.is_answer(Frame(kind, number, body))


def test_answers_without_their_numbers_are_damaged() -> None:
    with pytest.raises(Damaged, match="without a status"):
        wire.answer_of(Frame(0x81, 1))
    for body in (b"", b"123", b"12345"):
        with pytest.raises(Damaged, match="a refusal of"):
            _ = wire.Answer(Kind.NONE, 1, Status.SIZE, body).detail
    assert wire.Answer(Kind.NONE, 1, Status.SIZE, b"\1\2\0\0").detail == 513


# --- bodies -------------------------------------------------------------------------------------


def test_info_comes_back() -> None:
    assert wire.info_of(body_of(INFO)) == INFO
    assert len(body_of(INFO)) == 17 + 65 + 2 + 2 + 4


@given(data=st.binary(max_size=200))
def test_any_bytes_are_no_info(data: bytes) -> None:
    with pytest.raises(Damaged):
        wire.info_of(data)


@given(at=st.integers(0, 90), size=st.integers(0, 255), cut=st.integers(0, 91))
def test_an_info_with_hostile_lengths(at: int, size: int, cut: int) -> None:
    body = bytearray(body_of(INFO))
    body[min(at, len(body) - 1)] = size
    try:
        info = wire.info_of(bytes(body[:cut]))
    except Damaged:
        return
    texts = (info.sha256, info.target, info.name, info.compiler)
    assert 17 + sum(1 + len(text) for text in texts) == len(body[:cut])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda b: b[:-1], "cut off"),
        (lambda b: b[:17], "cut off"),
        (lambda b: b[:16], "info of 16 bytes"),
        (lambda b: b + b"\0", "behind it"),
        (lambda b: b"\5" + b[1:], "unknown unit of time, 5"),
        (lambda b: b[:5] + bytes(4) + b[9:], "without inputs"),
        (lambda b: b[:13] + bytes(2) + b[15:], "without inputs or classes"),
        (lambda b: b.replace(b"0123abcd", b"0123ABCD"), "without a sha256"),
        (lambda b: b.replace(b"0123abcd", b"0123abc\x1b"), "without a sha256"),
    ],
)
def test_an_info_that_makes_no_sense(change, why: str) -> None:
    with pytest.raises(Damaged, match=why):
        wire.info_of(change(body_of(INFO)))


def test_texts_cannot_command_a_terminal() -> None:
    hostile = b"\x1b]0;x\x07\x9b2J\r\n\xff\xe2\x80\xae\xc2\x9b"
    body = body_of(INFO)[:-4] + bytes([len(hostile)]) + hostile
    text = wire.info_of(body).compiler
    assert text.isprintable()
    assert text.startswith("?]0;x?")
    assert wire.printable("Größe ✓".encode()) == "Größe ✓"


@given(text=st.binary(max_size=80))
def test_any_text_is_printable_and_no_longer(text: bytes) -> None:
    shown = wire.printable(text)
    assert shown == "" or shown.isprintable()
    assert len(shown) <= len(text)


def test_an_inference_comes_back() -> None:
    body = struct.pack("<IH3i", 0xFFFFFFFF, 2, -(2**31), 0, 2**31 - 1)
    found = wire.inference_of(body, 3, 3)
    assert (found.ticks, found.best, found.scores.dtype) == (0xFFFFFFFF, 2, np.int32)
    assert found.scores.tolist() == [-(2**31), 0, 2**31 - 1]
    assert wire.inference_of(body[:6], 3, 0).scores.tolist() == []


@pytest.mark.parametrize("size", [0, 5, 7, 17, 19])
def test_an_inference_of_another_size_is_damaged(size: int) -> None:
    with pytest.raises(Damaged, match=f"an answer of {size} bytes"):
        wire.inference_of(bytes(size), 3, 3)


def test_a_class_that_there_is_not_is_damaged() -> None:
    with pytest.raises(Damaged, match="class 3 of 3"):
        wire.inference_of(struct.pack("<IH", 1, 3), 3, 0)


def test_a_self_test_comes_back() -> None:
    assert wire.self_test_of(b"\x08\x01") == wire.SelfTest(8, 1)
    for body in (b"", b"\x08", b"\x08\x09", b"\x08\x01\x00"):
        with pytest.raises(Damaged):
            wire.self_test_of(body)


def test_cobs_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cobs", None)
    with pytest.raises(EdgebnnError, match=r"pip install 'edgebnn\[board\]'"):
        wire.encode(Frame(Kind.INFO, 1))
