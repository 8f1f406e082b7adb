"""What examples/sensor/README.md says, word for word, but for the number of epochs."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_cli import output_here

import edgebnn
from edgebnn import measure
from edgebnn.device import toolchain
from edgebnn.lower import lower
from edgebnn.targets import get_target

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MAIN = """
#include <stdio.h>
int main(void)
{
    int8_t samples[128][3];
    while (fread(samples, sizeof samples, 1u, stdin) == 1u) {
        printf("%d\\n", activity((const int8_t (*)[3])samples));
    }
    return 0;
}
"""


def blocks(language: str) -> list[str]:
    text = (EXAMPLES / "sensor" / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands ran, each of which succeeded."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(EXAMPLES / "sensor", folder / "examples" / "sensor")
    printed = {}
    for line in "".join(blocks("sh")).splitlines():
        name, *words = shlex.split(line)
        if name == "python":
            subprocess.run([sys.executable, *words], cwd=folder, check=True)
            continue
        assert name == "edgebnn"
        few = ("--epochs", "3") if words[0] == "train" else ()
        printed[words[0]] = output_here(folder, *words, *few)
    assert list(printed) == ["train", "verify", "generate", "simulate"]
    assert "5 000 signals of 128 samples, 3 channels, 4 classes" in printed["train"]
    for command in ("verify", "simulate"):
        assert "every output is equal, bit for bit" in printed[command]
    return folder


def test_the_network_learns(folder: Path) -> None:
    metadata = edgebnn.read(folder / "build/sensor/sensor.pt").metadata
    assert metadata.test_accuracy is not None
    assert metadata.test_accuracy > 0.85
    assert metadata.class_names == ("still", "walk", "run", "shake")


def test_windows_are_those_of_the_seed(folder: Path) -> None:
    script = folder / "examples/sensor/make_windows.py"
    subprocess.run([sys.executable, script, "again.npz"], cwd=folder, check=True)
    again = (folder / "again.npz").read_bytes()
    assert again == (folder / "build/sensor/windows.npz").read_bytes()
    with np.load(folder / "again.npz") as file:
        still = file["x_test"][file["y_test"] == 0].astype(np.float64) - 128
    assert (abs(np.sqrt((still.mean(1) ** 2).sum(1)) / 32 - 1) < 0.15).all()  # 1 g


def test_the_snippet_classifies_what_a_sensor_gives(folder: Path) -> None:
    """The C of the README with the C that was generated: signed samples in, torch's classes out."""
    compiler = toolchain.find_compiler(get_target("host"))
    source, program = folder / "main.c", folder / "main"
    source.write_text("".join(blocks("c")) + MAIN)
    code = folder / "build/sensor/c/src"
    strict = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
    command = [*compiler.command, *strict, f"-I{code}", source, code / "sensor.c", "-o", program]
    subprocess.run(command, check=True)
    with np.load(folder / "build/sensor/windows.npz") as file:
        values = file["x_test"]
    given = (values.astype(np.int16) - 128).astype(np.int8).tobytes()
    done = subprocess.run([program], input=given, capture_output=True, check=True)
    model = edgebnn.load(folder / "build/sensor/sensor.pt")
    wanted = measure.run_torch(model, lower(model), values.transpose(0, 2, 1)[..., None])
    assert [int(line) for line in done.stdout.split()] == wanted.classes.tolist()
    assert len(set(wanted.classes.tolist())) == 4
