"""Random, truncated, flipped, spliced and replayed frames for the code of a board.

``python host_tests/fuzz_wire.py [FRAMES] [SEED]`` compiles it with the address and the
undefined-behaviour sanitizer; after every few frames a good one has to be answered, rightly.
"""

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import virtual_board

from edgebnn import golden, reference
from edgebnn.device import wire
from edgebnn.device.wire import Damaged, Frame, Kind, Status
from edgebnn.ir import Network

EVERY = 50


def frames(rng: random.Random, network: Network) -> Iterator[bytes]:
    """Hostile bytes without end, made of good frames and of nothing."""
    sent: list[bytes] = []

    def plain() -> bytes:
        """A frame with the right CRC and anything in it."""
        kind = rng.choice((1, 2, 3, 4, 4, rng.randrange(256)))
        size = network.input_bytes if kind in (3, 4) and rng.random() < 0.8 else rng.randrange(300)
        size = 0 if kind in (1, 2) and rng.random() < 0.8 else size
        top = rng.choice((2**network.input.bits, 256))
        body = bytes(rng.randrange(top) for _ in range(size))
        version = wire.VERSION if rng.random() < 0.9 else rng.randrange(256)
        return wire.encode(Frame(kind, rng.randrange(65536), body, version))

    def flipped() -> bytes:
        data = bytearray(plain())
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)

    def truncated() -> bytes:
        data = plain()
        begin, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        return data[begin:end]

    def spliced() -> bytes:
        one, other = plain(), plain()
        return one[: rng.randrange(len(one))] + other[rng.randrange(len(other)) :]

    def noise() -> bytes:
        data = rng.randbytes(rng.choice((1, 8, 60, 600)))
        return data if rng.random() < 0.5 else data.replace(b"\0", b"\xff") + b"\0"

    def blocks() -> bytes:
        """Codes of COBS that promise more or less than there is."""
        codes = [rng.choice((1, 2, 3, 254, 255)) for _ in range(rng.randrange(1, 40))]
        return bytes(codes) + b"\0" * rng.randrange(2)

    def replayed() -> bytes:
        return rng.choice(sent) if sent else plain()

    kinds = (plain, flipped, truncated, spliced, noise, blocks, replayed)
    while True:
        data = rng.choice(kinds)()
        if len(sent) < 1000:
            sent.append(data)
        else:
            sent[rng.randrange(1000)] = data
        yield data


def fuzz(line: virtual_board.Line, network: Network, count: int, seed: int) -> int:
    """Send ``count`` of :func:`frames`; returns how many good ones were answered between them.

    Raises:
        AssertionError: one was not, or the program has ended, or a sanitizer has complained.
    """
    rng = random.Random(seed)
    hostile = frames(rng, network)
    inputs = golden.inputs(network, 64)
    scores = reference.run(network, inputs).scores.astype("<i4")
    checks = 0
    for first in range(0, count, EVERY):
        data = b"".join(next(hostile) for _ in range(min(EVERY, count - first)))
        place, number = rng.randrange(64), 1 + checks % wire.LAST_ID
        request = Frame(Kind.SCORES, number, inputs[place].tobytes())
        wanted = scores[place].tobytes()

        def answered(piece: bytes, number: int = number, wanted: bytes = wanted) -> bool:
            try:
                answer = wire.answer_of(wire.decode(piece))
            except Damaged:  # the greeting
                return False
            if (answer.id, answer.kind, answer.status) != (number, Kind.SCORES, Status.OK):
                return False
            # A hostile frame may have had this id by chance; then its scores are others.
            return answer.body[6:] == wanted

        line.send(data + wire.encode(request), answered)
        checks += 1
    return checks


def main() -> None:
    from test_model_files import mlp

    from edgebnn.lower import lower

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        program = virtual_board.build(mlp(), Path(folder))
        begin = time.monotonic()
        with virtual_board.line_to(program) as line:
            checks = fuzz(line, lower(mlp()), count, seed)
    print(f"{count} frames, {checks} good ones answered, {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
