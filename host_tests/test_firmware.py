"""The PlatformIO project of a model builds, and its firmware answers as docs/protocol.md says.

PlatformIO is cut off from all networks. A stand-in for its platform builds the real board without a
framework, which then runs on the machine of QEMU that is nearest to it. Everything is compiled
under the warnings of the emitted C.
"""

import contextlib
import functools
import io
import re
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fuzz_wire
import numpy as np
import pytest
import serial
import torch
import virtual_board
from cobs import cobs
from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray
from pio_offline import set_up
from platformio.project.config import ProjectConfig
from test_cli import mistake, output_here
from test_intact import flipped
from test_model_files import mlp
from torch import nn

import edgebnn
import edgebnn.nn as bnn
from edgebnn import api, reference
from edgebnn.checkpoint import read
from edgebnn.device import simavr, unicorn
from edgebnn.device.build import build_firmware
from edgebnn.device.toolchain import WARNINGS
from edgebnn.ir import Network
from edgebnn.lower import lower
from edgebnn.proof import prove
from edgebnn.targets import BOARDS, get_target
from edgebnn.targets.base import Cross

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples" / "models" / "fashion_mlp.pt"
TINY = ROOT / "examples" / "models" / "mnist_tiny.pt"
STAND_INS = Path(__file__).resolve().parent / "stand_ins"
FIRMWARE = ROOT / "firmware"
PORT = FIRMWARE / "lib" / "edgebnn_port" / "src"
VIRTUAL = ("native", "qemu_m0", "qemu_m4", "qemu_rv32", "simavr_uno")
TESTS = (
    "crc",
    "weights",
    "golden_vectors",
    "clock_does_not_go_back",
    "info_is_answered",
    "broken_request_is_refused",
)
SECONDS = 60.0

INFO, SCORES = 1, 4
CYCLES, TIMER, INSTRUCTIONS, SIMULATED = 1, 2, 3, 4


sys.path.append(str(FIRMWARE / "platforms" / "edgebnn_emu" / "builder"))
import board_process  # noqa: E402
import emulators  # noqa: E402


@dataclass(frozen=True, slots=True)
class Project:
    """The generated project of a board; ``port`` is that of the virtual board."""

    folder: Path
    board: str
    port: int
    environment: dict[str, str]

    def pio(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "platformio", *arguments, "-e", self.board],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )

    def upload(self) -> None:
        uploaded = self.pio("run", "-t", "upload")
        assert uploaded.returncode == 0, uploaded.stdout
        assert f"socket://127.0.0.1:{self.port}" in uploaded.stdout

    def change(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables under which PlatformIO runs."""
    return set_up(tmp_path_factory.mktemp("core"))


def warnings_for(board: str) -> dict[str, str]:
    """The variable that has everything compiled under the contract of the emitted C."""
    toolchain = get_target(board).toolchain
    dialect = toolchain.dialect if isinstance(toolchain, Cross) else ()
    return {"PLATFORMIO_BUILD_FLAGS": " ".join([*WARNINGS, *dialect])}


def model_of(board: str) -> Path:
    """The model that a board runs."""
    return TINY if get_target(board).name == "avr" else MODEL


@functools.cache
def network_of(board: str) -> Network:
    """The network that a board runs."""
    return prove(read(model_of(board)).model).network


@pytest.fixture
def make(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., Project]]:
    """Makes the project of a board, and ends the board after the test."""
    made: list[Project] = []

    def project(board: str, model: nn.Module | Path | None = None) -> Project:
        folder, port = tmp_path / board, free_port()
        api.write(api.generate(model or model_of(board), target=board, project=True), folder)
        ini = folder / "platformio.ini"
        text, count = re.subn(r"(socket://127\.0\.0\.1):\d+", rf"\1:{port}", ini.read_text())
        assert count == len(VIRTUAL)
        ini.write_text(text)
        made.append(Project(folder, board, port, environment | warnings_for(board)))
        return made[-1]

    yield project
    for one in made:
        board_process.stop(one.folder / ".pio" / "build" / one.board)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def wait_for_end(port: int) -> None:
    """Wait until no virtual board is there any more."""
    patience = time.monotonic() + SECONDS
    while listens(port):
        assert time.monotonic() < patience
        time.sleep(0.1)


def frame(kind: int, number: int, body: bytes = b"") -> bytes:
    content = bytes([1, kind, *number.to_bytes(2, "little")]) + body
    content += zlib.crc32(content).to_bytes(4, "little")
    return b"\0" + cobs.encode(content) + b"\0"


def answer(line: serial.SerialBase | io.BytesIO, kind: int, number: int) -> bytes | None:
    """The body of an answer, behind its status, which is that all is well; None if none comes.

    What else comes in is dropped: the text of a board that has just started, the answer to a
    request of which an earlier connection has sent only a part.
    """
    while True:
        received = b""
        while not received.endswith(b"\0"):
            byte = line.read(1)
            if not byte:
                return None
            received += byte
        with contextlib.suppress(cobs.DecodeError):
            content = cobs.decode(received[:-1])
            if content[2:4] == number.to_bytes(2, "little"):
                assert zlib.crc32(content[:-4]).to_bytes(4, "little") == content[-4:]
                assert content[:5] == bytes([1, kind | 0x80, *number.to_bytes(2, "little"), 0])
                return content[5:-4]


@contextlib.contextmanager
def connected(port: int) -> Iterator[serial.SerialBase]:
    with serial.serial_for_url(f"socket://127.0.0.1:{port}", timeout=SECONDS) as line:
        yield line


def check_info(line: serial.SerialBase, unit: int, hz: int, board: str, network: Network) -> None:
    line.timeout = 1.0
    body, number = None, 0x100
    while body is None and number < 0x120:  # a UART that is not on yet hears nothing
        number += 1
        line.write(frame(INFO, number))
        body = answer(line, INFO, number)
    line.timeout = SECONDS
    assert body is not None
    assert body[0] == unit
    assert int.from_bytes(body[1:5], "little") == hz
    assert int.from_bytes(body[5:9], "little") == network.input_bytes
    texts, rest = [], body[17:]
    while rest:
        texts.append(rest[1 : 1 + rest[0]].decode())
        rest = rest[1 + rest[0] :]
    assert len(texts[0]) == 64
    assert texts[1:3] == [get_target(board).name, model_of(board).stem]
    assert texts[3].startswith(("gcc ", "clang "))


def random_inputs(network: Network) -> NDArray[np.uint8]:
    random = np.random.default_rng(20)
    return random.integers(0, 256, (4, network.input_bytes), dtype=np.uint8)


def check_scores(line: serial.SerialBase, network: Network) -> list[int]:
    """Compare the answers of random inputs with the reference; returns the ticks they took.

    All requests are sent at once. A board that runs at the speed of its serial line would lose
    some, but these must not: an emulator waits for its machine.
    """
    inputs = random_inputs(network)
    wanted = reference.run(network, inputs)
    line.write(b"".join(frame(SCORES, i, row.tobytes()) for i, row in enumerate(inputs)))
    ticks = []
    for i in range(len(inputs)):
        body = answer(line, SCORES, i)
        assert body is not None
        ticks.append(int.from_bytes(body[:4], "little"))
        assert int.from_bytes(body[4:6], "little") == wanted.classes[i]
        scores: NDArray[np.int32] = np.frombuffer(body[6:], "<i4")
        assert scores.tolist() == wanted.scores[i].tolist()
    return ticks


def test_environments_are_the_boards(make: Callable[[str], Project]) -> None:
    ini = make("nucleo_f446re").folder / "platformio.ini"
    assert ProjectConfig.lint(str(ini)) == {"errors": [], "warnings": []}
    config = ProjectConfig(str(ini))
    assert config.envs() == list(BOARDS)
    assert config.default_envs() == ["nucleo_f446re"]
    for board in BOARDS:
        options = config.items(env=board, as_dict=True)
        assert options["build_unflags"] == ["-Os"]
        assert "-O2 -Wall -Wextra" in options["build_flags"][0]


@pytest.mark.parametrize("board", VIRTUAL)
def test_golden_vectors_on_the_board(board: str, make: Callable[[str], Project]) -> None:
    project = make(board)
    done = project.pio("test")
    assert done.returncode == 0, done.stdout
    for name in TESTS:
        assert re.search(rf"test_main\.c:\d+: test_{name}\t\[PASSED\]", done.stdout), done.stdout
    assert f"{len(TESTS)} test cases: {len(TESTS)} succeeded" in done.stdout
    wait_for_end(project.port)


def test_wrong_golden_vector_fails(make: Callable[[str], Project]) -> None:
    project = make("qemu_m4")
    header = (project.folder / "include" / "edgebnn_model.h").read_text()
    value = re.findall(r"0x[0-9A-F]{8}u", header)[-1]
    project.change("include/edgebnn_model.h", value, f"0x{int(value[:-1], 16) ^ 1:08X}u")
    done = project.pio("test")
    assert done.returncode != 0
    assert re.search(r"test_golden_vectors: Expected 0x0+ Was 0x0+1\t\[FAILED\]", done.stdout)
    assert f"{len(TESTS)} test cases: 1 failed, {len(TESTS) - 1} succeeded" in done.stdout


def test_wrong_weight_fails(make: Callable[..., Project]) -> None:
    project = make("qemu_m4", mlp())
    project.change("lib/model/src/model.h", "_TABLES_CRC32 0x", "_TABLES_CRC32 1u + 0x")
    done = project.pio("test")
    assert done.returncode != 0
    assert re.search(r"test_weights: Expected 0x0+1 Was 0x0+\t\[FAILED\]", done.stdout)
    assert f"{len(TESTS)} test cases: 1 failed, {len(TESTS) - 1} succeeded" in done.stdout


@pytest.mark.parametrize(
    ("board", "way"),
    [
        ("native", "port_stop(0);"),
        ("qemu_m0", "port_stop(0);"),
        ("qemu_m4", "for (;;) { }"),
        ("qemu_rv32", "port_stop(0);"),
        ("simavr_uno", "port_stop(0);"),
    ],
)
def test_board_without_results_fails(board: str, way: str, make: Callable[[str], Project]) -> None:
    """One that ends early and one that hangs, and is ended when its time is over."""
    project = make(board)
    project.change("platformio.ini", "custom_test_seconds = 120", "custom_test_seconds = 3")
    run = "    RUN_TEST(test_info"
    project.change("test/test_model/test_main.c", run, f"    {way}\n{run}")
    done = project.pio("test")
    assert done.returncode != 0
    assert "The board has not sent all results" in done.stdout


@pytest.mark.parametrize("board", VIRTUAL)
def test_virtual_board_answers(
    board: str,
    make: Callable[[str], Project],
    tmp_path: Path,
) -> None:
    project, model, network = make(board), model_of(board), network_of(board)
    project.upload()
    target = get_target(board)
    clocks = {"native": (TIMER, 10**9), "simavr_uno": (SIMULATED, 16 * 10**6)}
    unit, hz = clocks.get(board, (INSTRUCTIONS, 0))
    for _ in range(2):  # the second connection finds the board as the first has left it
        with connected(project.port) as line:
            check_info(line, unit, hz, board, network)
            ticks = check_scores(line, network)
            line.write(
                frame(SCORES, 9, bytes(network.input_bytes))[:200]
            )  # goes away within a request
        if unit == INSTRUCTIONS:  # exactly those, and a few of the link, the clock, its interrupt
            image = build_firmware(api.generate(model, target=board), target, tmp_path / "image")
            exact = unicorn.run(image, random_inputs(network), counted=len(ticks)).instructions
            assert all(0 <= ours - its < 64 for ours, its in zip(ticks, exact, strict=True))
        if unit == SIMULATED:  # the same, with an interrupt every 65536 cycles
            image = build_firmware(api.generate(model, target=board), target, tmp_path / "image")
            exact = simavr.run(image, random_inputs(network), counted=len(ticks)).cycles
            for ours, its in zip(ticks, exact, strict=True):
                assert 0 <= ours - its < 400 + its // 65536 * 50
    assert not listens(project.port, "127.0.0.2")  # nor any other address of this computer
    stopped = project.pio("run", "-t", "stop")
    assert stopped.returncode == 0, stopped.stdout
    assert not listens(project.port)


@dataclass(frozen=True, slots=True)
class Likeness:
    """The emulated machine that is nearest to a real board; a test says what differs.

    ``emulator`` is as in the manifest of a virtual board.
    """

    unit: int
    emulator: dict[str, str]


LIKENESSES = {
    # An STM32F405, whose cycle counter stands still, so that SysTick takes over; the board's line
    # is the second one.
    "nucleo_f446re": Likeness(
        TIMER, {"program": "qemu-system-arm", "options": "-M netduinoplus2 -serial null"}
    ),
    # Its cycles are made up.
    "hifive1-revb": Likeness(
        CYCLES, {"program": "qemu-system-riscv32", "options": "-M sifive_e,revb=on"}
    ),
    # It waits for the other side, as no real one does.
    "uno": Likeness(CYCLES, {"mcu": "atmega328p", "frequency": "16000000"}),
}


@contextlib.contextmanager
def machine(emulator: dict[str, str], program: Path, folder: Path) -> Iterator[int]:
    """Runs a program, its serial line on a port of this computer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        command = [
            part.replace(board_process.LINE, str(listener.fileno()))
            for part in emulators.command(emulator, str(program), folder)
        ]
        quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, pass_fds=[listener.fileno()], **quiet) as running:
            try:
                yield listener.getsockname()[1]
            finally:
                running.terminate()
                running.wait(SECONDS)


@pytest.mark.parametrize("board", LIKENESSES)
def test_real_board_answers(
    board: str,
    make: Callable[[str], Project],
    tmp_path: Path,
) -> None:
    like, project, network = LIKENESSES[board], make(board), network_of(board)
    built = project.pio("run", "-v")
    assert built.returncode == 0, built.stdout
    compiled = [line for line in built.stdout.splitlines() if " -c " in line]
    assert len(compiled) > len(list(PORT.glob("*.c")))
    assert all(" -O2 " in line and " -Os " not in line for line in compiled)
    program = project.folder / f".pio/build/{board}/firmware.elf"
    with machine(like.emulator, program, tmp_path) as port:
        for _ in range(2):
            with connected(port) as line:
                check_info(line, like.unit, 16_000_000, board, network)
                check_scores(line, network)


def test_the_clock_of_an_avr_counts_an_overflow_that_waits(tmp_path: Path) -> None:
    """Whenever the timer starts again, time has gone on by as much as ever, or an interrupt more.

    Interrupts are off while the clock is read: it has to see by itself that one waits, and whether
    the timer started again before it was read or after.
    """
    program = tmp_path / "clock.elf"
    flags = ("-mmcu=atmega328p", "-DF_CPU=16000000u", "-O2", *WARNINGS, "-std=gnu99", f"-I{PORT}")
    source = Path(__file__).resolve().parent / "avr_clock.c"
    subprocess.run(["avr-gcc", *flags, str(source), "-o", str(program)], check=True)
    with (
        machine(LIKENESSES["uno"].emulator, program, tmp_path) as port,
        socket.create_connection(("127.0.0.1", port), SECONDS) as line,
        line.makefile("rb") as sent,
    ):
        readings = np.frombuffer(sent.read(), "<u4").astype(np.int64)
    first, second = readings.reshape(64, 2).T
    took = second - first
    straight = took == took.min()
    assert took.min() > 0
    assert set(took[~straight] - took.min()) <= set(range(40, 50))  # the interrupt
    overflowed = second >> 16 != first >> 16
    assert (overflowed & ~straight).any()
    assert (overflowed & straight).any()  # it waits: nothing but the clock has counted it
    assert (~overflowed & (second % 2**16 == 2**16 - 1)).any()  # the last cycle before


@pytest.mark.parametrize("board", VIRTUAL[1:])
def test_check_classifies_real_images(
    board: str, make: Callable[..., Project], tmp_path: Path
) -> None:
    """The command itself, on 200 images of digits."""
    torch.manual_seed(1)
    hidden = (bnn.BinaryLinear(64, 40), bnn.BatchNorm(40), bnn.Sign())
    output = (bnn.BinaryLinear(40, 10), bnn.OutputNorm(10, bound=40))
    model = bnn.Sequential(bnn.Input((1, 8, 8), bits=8), bnn.Flatten(), *hidden, *output)
    edgebnn.save(model, tmp_path / "digits.pt", dataset="digits")
    project = make(board, tmp_path / "digits.pt")
    project.upload()
    port = f"socket://127.0.0.1:{project.port}"
    text = output_here(tmp_path, "check", "digits.pt", "--port", port, "--images", "200")
    target = get_target(board).name
    assert re.search(rf"{target} on {port} .*\(\d+/200\) +│ +0 │", text)
    assert "8 of 8 golden vectors" in text
    assert "every output is equal, bit for bit" in text


@pytest.mark.parametrize("board", ["qemu_m0", "qemu_m4", "qemu_rv32"])
def test_damaged_weights_are_found_at_boot(
    board: str, make: Callable[..., Project], tmp_path: Path
) -> None:
    """One bit of the image that is loaded; nothing is compiled again."""
    model = tmp_path / "damaged.pt"
    edgebnn.save(mlp(), model)
    project = make(board, model)
    built = project.pio("run")
    assert built.returncode == 0, built.stdout
    program = project.folder / ".pio" / "build" / board / "firmware.elf"
    with program.open("rb") as file:
        names = {one.name for one in ELFFile(file).get_section_by_name(".symtab").iter_symbols()}
    assert "damaged_dense1_weights" in names
    program.write_bytes(flipped(program, "damaged_dense1_weights", -1, 3))
    project.upload()
    port = f"socket://127.0.0.1:{project.port}"
    message = mistake(tmp_path, "check", model, "--port", port, "--random", "3")
    assert message.startswith(
        f"edgebnn: {port}: the board has damaged weights in its memory; flash it again: edgebnn "
    )


def test_random_frames_do_not_stop_an_emulated_board(make: Callable[..., Project]) -> None:
    model = mlp()
    project = make("qemu_m4", model)
    project.upload()
    with socket.create_connection(("127.0.0.1", project.port), SECONDS) as near:
        line = virtual_board.Line(near)
        assert fuzz_wire.fuzz(line, lower(model), 5000, seed=2) == 100


def test_board_goes_with_its_build_folder(make: Callable[[str], Project]) -> None:
    project = make("native")
    project.upload()
    assert listens(project.port)
    shutil.rmtree(project.folder / ".pio")
    wait_for_end(project.port)


def test_taken_port_is_named(make: Callable[[str], Project]) -> None:
    project = make("qemu_m4")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", project.port))
        listener.listen(1)
        done = project.pio("run", "-t", "upload")
    assert done.returncode != 0
    assert (
        f"Error: 127.0.0.1:{project.port} cannot be used (Address already in use); " in done.stdout
    )


def test_missing_tools_are_named(make: Callable[[str], Project], tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    project = make("qemu_m4")
    done = project.pio("run", PATH=str(tools))
    assert done.returncode != 0
    assert (
        "Error: arm-none-eabi-gcc is not on PATH; apt-get install gcc-arm-none-eabi\n"
        in done.stdout
    )
    for name in ("sh", *(f"arm-none-eabi-{tool}" for tool in ("gcc", "ar", "ranlib", "size"))):
        path = shutil.which(name)
        assert path is not None
        (tools / name).symlink_to(path)
    done = project.pio("run", "-t", "upload", PATH=str(tools))
    assert done.returncode != 0
    assert "Error: qemu-system-arm is not on PATH; apt-get install qemu-system-arm\n" in done.stdout
    done = make("native").pio("run", PATH=str(tools))
    assert done.returncode != 0
    assert "Error: gcc is not on PATH; apt-get install gcc\n" in done.stdout


ARDUINO = ("-DARDUINO=10819", f"-I{STAND_INS / 'arduino'}", f"-I{PORT}")


@pytest.mark.parametrize("cpu", ["cortex-m0", "cortex-m4", "cortex-m7"])
@pytest.mark.parametrize("core", ["-DARDUINO_ARCH_STM32", "-DARDUINO_ARCH_RP2040"])
def test_arduino_port_compiles(cpu: str, core: str) -> None:
    """With the cycle counter, which is of the core, whatever Arduino is."""
    flags = ["-mthumb", f"-mcpu={cpu}", core, "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    command = ["arm-none-eabi-g++", *flags, *ARDUINO, str(PORT / "port_arduino.cpp")]
    subprocess.run(command, check=True, timeout=SECONDS)


def test_arduino_port_answers(tmp_path: Path) -> None:
    """In a core of a few lines, which has standard input and output for a serial line."""
    library = api.generate(MODEL, target="native", project=True)
    api.write(library, tmp_path)
    libraries = [tmp_path / "lib" / name / "src" for name in ("edgebnn_link", "fashion_mlp")]
    folders = [tmp_path / "include", tmp_path / "lib" / "edgebnn_port" / "src", *libraries]
    include = [f"-I{folder}" for folder in folders]
    sources = [
        tmp_path / "src" / "main.c",
        *(file for one in libraries for file in one.glob("*.c")),
    ]
    objects = []
    for source in sources:
        objects.append(str(tmp_path / f"{source.stem}.o"))
        compile_c = ["clang", "-O2", "-c", *include, str(source), "-o", objects[-1]]
        subprocess.run(compile_c, check=True, timeout=SECONDS)
    program = str(tmp_path / "firmware")
    sketch = [str(PORT / "port_arduino.cpp"), str(STAND_INS / "arduino" / "main.cpp")]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    link = ["clang++", "-O2", *warnings, *ARDUINO, *sketch, *objects, "-o", program]
    subprocess.run(link, check=True, timeout=SECONDS)

    network = network_of("native")
    image = random_inputs(network)[:1]
    requests = frame(INFO, 1) + frame(SCORES, 2, image.tobytes())
    done = subprocess.run(
        [program], input=requests, capture_output=True, timeout=SECONDS, check=True
    )
    line = io.BytesIO(done.stdout)
    body = answer(line, INFO, 1)
    assert body is not None
    assert body[:5] == bytes([TIMER]) + (10**6).to_bytes(4, "little")
    body = answer(line, SCORES, 2)
    assert body is not None
    wanted = reference.run(network, image).scores[0].tolist()
    assert np.frombuffer(body[6:], "<i4").tolist() == wanted
