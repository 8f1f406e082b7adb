"""Names of libraries: no header of a compiler or a build has them, and ordinary ones stay."""

import shutil
import subprocess
from pathlib import Path

import pytest

from edgebnn.codegen.names import check_prefix, headers
from edgebnn.errors import EdgebnnError

ROOT = Path(__file__).resolve().parent.parent
CROSS = ("arm-none-eabi-gcc", "avr-gcc", "riscv64-unknown-elf-gcc")


def refused(name: str) -> bool:
    """Whether it is; then what is suggested is not."""
    try:
        check_prefix(name)
    except EdgebnnError as error:
        suggestion = str(error).rpartition(" try --name ")[2]
        assert check_prefix(suggestion) == suggestion
        return True
    return False


def headers_of(compiler: str) -> set[str]:
    """Stems, in lower case, of what ``#include <x.h>`` may mean."""
    command = [compiler, "-E", "-v", "-x", "c", "/dev/null"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    listed = said.partition("search starts here:")[2].partition("End of search list")[0]
    folders = [Path(line.strip()) for line in listed.splitlines() if line.startswith(" ")]
    return {path.stem.lower() for folder in folders for path in folder.glob("*.h")}


@pytest.mark.parametrize("compiler", CROSS)
def test_headers_of_cross_compilers_are_not_hidden(compiler: str) -> None:
    assert shutil.which(compiler)
    stems = headers_of(compiler)
    assert len(stems) > 10
    assert [stem for stem in sorted(stems) if not refused(stem)] == []


def test_headers_of_the_standard_are_not_hidden_here() -> None:
    """What glibc has of ISO C and POSIX, by a few that each of them brought."""
    stems = headers_of("gcc") & headers()
    for stem in ("sched", "semaphore", "poll", "stdio", "threads", "limits", "omp", "features"):
        assert stem in stems
        assert refused(stem)


def test_headers_of_the_firmware_are_not_hidden() -> None:
    stems = {path.stem.lower() for path in (ROOT / "firmware").rglob("*.h")} | {"edgebnn_model"}
    assert len(stems) > 4
    assert [stem for stem in sorted(stems) if not refused(stem)] == []


@pytest.mark.parametrize(
    "name",
    [
        *("servo", "wire", "spi", "eeprom", "wifi", "sd", "ethernet", "stepper", "arduino"),
        *("arduinojson", "fastled", "freertos", "task", "queue", "windows", "winsock2", "unity"),
        *("con", "aux", "test", "all", "install", "edgebnn", "for", "class", "main"),
        *("avx99intrin", "stm32f4xx", "arm_math"),
    ],
)
def test_names_that_something_has(name: str) -> None:
    assert refused(name)
    assert not refused(f"{name}_net")


@pytest.mark.parametrize(
    "name",
    [
        *("digits", "fashion_mlp", "fashion_conv", "model", "net", "gestures", "keywords", "m7"),
        *("mnist", "cifar10", "wake_word", "gyro", "sensor", "vibration", "x", "a_b_c", "n2"),
    ],
)
def test_ordinary_names_stay(name: str) -> None:
    assert check_prefix(name) == name


def test_the_way_out_is_always_open() -> None:
    listed = headers()
    assert len(listed) > 400
    assert not any(stem.endswith("_net") for stem in listed)
    assert all(stem == stem.lower() for stem in listed)
    assert all(refused(stem) for stem in listed)
    for compiler in ("gcc", *CROSS):
        assert not any(stem.endswith("_net") for stem in headers_of(compiler))


@pytest.mark.parametrize("name", ["", "x" * 50, "9", "_", "2d-Net", "Servo", "é", "a\n", "sched"])
def test_suggestions_are_usable(name: str) -> None:
    assert refused(name)
