"""Arduino for real: its AVR core, built as the IDE builds it, on a simulated UNO.

The recipes are those of the core's own platform.txt, for what edgebnn writes with all its warnings
as errors.
"""

import io
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from networks import random_inputs, random_model
from test_equality import device_inputs
from test_firmware import INFO, SCORES, TIMER, answer, frame

from edgebnn import api, reference
from edgebnn.codegen import c
from edgebnn.device.elf import read_flash, read_memory
from edgebnn.lower import lower
from edgebnn.packages import platformio, project
from edgebnn.plan import plan
from edgebnn.targets import get_target

AVR = Path("/usr/share/arduino/hardware/arduino/avr")  # of Debian's arduino-core-avr
HERE = Path(__file__).resolve().parent
SECONDS = 60.0
RAM = 0x80_0000  # what a linker adds to addresses of data
HZ = 16_000_000
SELF_TEST = 2
# Of every kind of layer, not always of the same class, and with room for the inputs.
SEEDS = (8, 32, 71, 104)


@dataclass(frozen=True, slots=True)
class Ide:
    """What the IDE does for a UNO; ``settings`` are those of platform.txt and boards.txt."""

    settings: dict[str, str]
    core: Path
    simulator: Path

    def recipe(self, name: str, **values: str) -> list[str]:
        """The words of a recipe, such as "c.o", with all of its settings filled in."""
        line, more = self.settings[f"recipe.{name}.pattern"], self.settings | values
        while filled := re.findall(r"\{([\w.]+)\}", line):
            for key in filled:
                line = line.replace(f"{{{key}}}", more[key])
        return shlex.split(line)

    def compile(self, source: Path, built: Path, folders: Sequence[Path], warnings: str) -> None:
        kind = {".c": "c.o", ".cpp": "cpp.o", ".S": "S.o"}[source.suffix]
        command = self.recipe(
            kind,
            source_file=str(source),
            object_file=str(built),
            includes=" ".join(f"-I{folder}" for folder in (*self.core_folders, *folders)),
            **{"compiler.warning_flags": self.settings[f"compiler.warning_flags.{warnings}"]},
        )
        if warnings == "all":
            command.append("-Werror")
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, done.stderr

    @property
    def core_folders(self) -> tuple[Path, Path]:
        return AVR / "cores" / "arduino", AVR / "variants" / self.settings["build.variant"]

    def build(self, sources: Sequence[Path], folders: Sequence[Path], to: Path) -> Path:
        """The image of a program of ``sources``, in the folder ``to``, if a UNO has room for it."""
        to.mkdir()
        objects = []
        for source in sources:
            objects.append(to / f"{source.name}.o")
            self.compile(source, objects[-1], folders, "all")
        (to / self.core.name).symlink_to(self.core)
        command = self.recipe(
            "c.combine", object_files=shlex.join(map(str, objects)), **self.project(to)
        )
        image = to / "program.elf"
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        for regex, limit in (("regex", "maximum_size"), ("regex.data", "maximum_data_size")):
            taken = self.size(image, regex)
            assert 0 < taken < int(self.settings[f"upload.{limit}"])
        return image

    def project(self, folder: Path) -> dict[str, str]:
        """The settings of the program in ``folder``."""
        names = {"build.path": str(folder), "build.project_name": "program"}
        warnings = self.settings["compiler.warning_flags.all"]
        return {**names, "archive_file": self.core.name, "compiler.warning_flags": warnings}

    def size(self, image: Path, regex: str) -> int:
        """Bytes, as the IDE reads them off the output of avr-size."""
        command = self.recipe("size", **self.project(image.parent))
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
        pattern = re.compile(self.settings[f"recipe.size.{regex}"], re.MULTILINE)
        return sum(int(size) for size in pattern.findall(done.stdout))

    def run(self, image: Path, cycles: int, line: bytes = b"") -> bytes:
        """What a board with the image says; see arduino_uno.c."""
        flash = image.with_suffix(".bin")
        flash.write_bytes(read_flash(image))
        done = subprocess.run(
            [self.simulator, str(flash), str(cycles)],
            input=line,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def settings() -> dict[str, str]:
    """All of the core's, and what else the IDE knows: its own version, and the name of the core."""
    lines = (AVR / "platform.txt").read_text().splitlines()
    board = (AVR / "boards.txt").read_text().splitlines()
    lines += [line.removeprefix("uno.") for line in board if line.startswith("uno.")]
    known = {"runtime.ide.version": "10819", "build.arch": "AVR"}
    # Debian's compiler knows it by its older name.
    return (
        known
        | dict(line.split("=", 1) for line in lines if re.match(r"[\w.]+=", line))
        | {"compiler.cpp.extra_flags": "-DDECIMAL_DIG=__DECIMAL_DIG__"}
    )


@pytest.fixture(scope="module")
def ide(tmp_path_factory: pytest.TempPathFactory) -> Ide:
    """With the core in an archive, and the simulator compiled."""
    folder = tmp_path_factory.mktemp("arduino")
    simulator = folder / "arduino_uno"
    source = str(HERE / "arduino_uno.c")
    flags = ["-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror"]
    command = ["cc", *flags, source, "-o", str(simulator), "-lsimavr"]
    subprocess.run(command, check=True, timeout=SECONDS)
    made = Ide(settings(), folder / "core.a", simulator)
    sources = sorted(
        file for end in ("c", "cpp", "S") for file in AVR.glob(f"cores/arduino/*.{end}")
    )
    for source in sources:
        built = folder / f"{source.name}.o"
        made.compile(source, built, (), "none")
        add = made.recipe("ar", **made.project(folder), object_file=str(built))
        subprocess.run(add, check=True, timeout=SECONDS)
    return made


@pytest.mark.parametrize("seed", SEEDS)
def test_sketch_prints_the_class(seed: int, ide: Ide, tmp_path: Path) -> None:
    """As it is, its input is all zeros; then with values of a sensor instead of them."""
    model = random_model(seed)
    library = api.generate(model, target="avr", name="net", form="arduino")
    api.write(library, tmp_path / "net")
    (path,) = (tmp_path / "net" / "examples").rglob("*.ino")
    sketch = path.read_text()
    inputs = device_inputs(random_inputs(model, 40, seed))
    classes = reference.run(lower(model), inputs).classes
    assert not inputs[0].any()
    other = int(np.argmax(classes != classes[0]))
    assert classes[other] != classes[0]

    values = ", ".join(map(str, inputs[other]))
    filled = re.sub(r"(input\[.*?\]);", rf"\1 = {{{values}}};", sketch, count=1)
    assert filled != sketch
    for text, wanted in ((sketch, classes[0]), (filled, classes[other])):
        folder = tmp_path / f"class_{wanted}"
        source = tmp_path / "sketch.cpp"
        source.write_text(f'#include <Arduino.h>\n#line 1 "{path}"\n{text}')
        image = ide.build(
            [source, *(tmp_path / "net" / "src").glob("*.c")], [tmp_path / "net" / "src"], folder
        )
        said = ide.run(image, cycles=HZ + HZ // 2).decode()
        line = rf"class {wanted}, (\d+) us\r\n"
        assert re.fullmatch(line * 2, said), said
        check_memory(image, {"net_arena"} if library.arena_bytes else set())


def check_memory(image: Path, variables: set[str]) -> None:
    """The library's only variables are these; no text of the sketch is in RAM."""
    memory = read_memory(image)
    names = {name.split(".")[0] for name, at in memory.symbols.items() if at >= RAM}
    assert {name for name in names if name.startswith("net_")} == variables
    with image.open("rb") as file:
        data = ELFFile(file).get_section_by_name(".data").data()
    assert b"class " not in data
    assert b" us" not in data
    assert b"class " in read_flash(image)


@pytest.mark.parametrize("seed", SEEDS)
def test_firmware_answers(seed: int, ide: Ide, tmp_path: Path) -> None:
    """The project of a model, all of it that PlatformIO would compile, over the serial line."""
    model = random_model(seed)
    network = lower(model)
    library = platformio.wrap(c.generate(plan(network, get_target("avr")), "net"))
    api.write(project.wrap(library, network, "uno"), tmp_path / "net")
    folders = [tmp_path / "net" / "include", *(tmp_path / "net" / "lib").glob("*/src")]
    assert len(folders) == 4
    sources = [tmp_path / "net" / "src" / "main.c"]
    sources += [
        file for folder in folders for end in ("c", "cpp") for file in folder.glob(f"*.{end}")
    ]
    image = ide.build(sources, folders, tmp_path / "built")

    inputs = device_inputs(random_inputs(model, 5, seed))
    requests = frame(INFO, 1) + frame(SELF_TEST, 2)
    requests += b"".join(frame(SCORES, 3 + i, row.tobytes()) for i, row in enumerate(inputs))
    said = ide.run(image, 60 * HZ, requests)
    assert said.startswith(b"\r\nedgebnn: this board runs net; ")
    line = io.BytesIO(said)
    info = answer(line, INFO, 1)
    assert info is not None
    assert info[:5] == bytes([TIMER]) + (10**6).to_bytes(4, "little")
    assert info[5:9] == network.input_bytes.to_bytes(4, "little")
    assert b"\3avr\3net" in info
    assert answer(line, SELF_TEST, 2) == bytes([8, 0])
    wanted = reference.run(network, inputs)
    for i in range(len(inputs)):
        body = answer(line, SCORES, 3 + i)
        assert body is not None
        assert int.from_bytes(body[:4], "little") > 0
        assert int.from_bytes(body[4:6], "little") == wanted.classes[i]
        assert np.frombuffer(body[6:], "<i4").tolist() == wanted.scores[i].tolist()
