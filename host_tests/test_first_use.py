"""What somebody meets who has just installed edgebnn: help, JSON, odd environments, Ctrl-C."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import typer.main
from PIL import Image
from rich.console import Console
from test_cli import COMMAND, COMMANDS, environment, mistake, output_here, run, run_here
from test_model_files import mlp

import edgebnn
import edgebnn.nn as bnn
from edgebnn import measure, report
from edgebnn.cli import app, proof
from edgebnn.cli.console import printable
from edgebnn.device import toolchain
from edgebnn.targets import TARGETS
from edgebnn.train import get_recipe, recipe_names
from edgebnn.wording import counted, without_figures

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "models" / "fashion_mlp.pt"


_INSTALLED = "import sys; sys.argv = ['edgebnn']; from edgebnn.__main__ import main; main()"


def two_classes(folder: Path, names: tuple[str, str]) -> Path:
    model = bnn.Sequential(
        bnn.Input((1, 2, 2)), bnn.Flatten(), bnn.BinaryLinear(4, 2), bnn.OutputNorm(2)
    )
    edgebnn.save(model, folder / "model.pt", class_names=names)
    Image.fromarray(np.full((2, 2), 7, np.uint8)).save(folder / "image.png")
    return folder / "model.pt"


def data_set(folder: Path, names: tuple[str, str]) -> Path:
    """An .npz of 30 images for :func:`two_classes`."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 2, 2), dtype=np.uint8)
    labels = np.arange(30) % 2
    arrays = {"train_images": pixels, "train_labels": labels, "class_names": np.array(names)}
    np.savez(folder / "own.npz", **arrays, test_images=pixels, test_labels=labels)
    return folder / "own.npz"


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("bench",), ("bench", "models"), *zip(COMMANDS)])
def test_a_short_h_is_help(arguments: tuple[str, ...], tmp_path: Path) -> None:
    short, long = (output_here(tmp_path, *arguments, option) for option in ("-h", "--help"))
    assert "Usage: " in short
    assert short == long


def test_shells_complete_commands_and_options(tmp_path: Path) -> None:
    assert "--install-completion" in output_here(tmp_path, "--help")
    for words, wanted in (("edgebnn ver", "verify"), ("edgebnn verify --conf", "--confusion")):
        asked = {
            "_EDGEBNN_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                _INSTALLED,
            ],
            env={**environment(tmp_path), **asked},
            capture_output=True,
            text=True,
            check=False,
        )
        assert wanted in done.stdout.split(), done.stderr


def test_dir_shows_what_there_is() -> None:
    shown = dir(edgebnn)
    assert set(edgebnn.__all__) <= set(shown)
    assert "__version__" in shown
    assert shown == sorted(shown)


def test_threads_wait_without_taking_a_core(tmp_path: Path) -> None:
    code = "import edgebnn.nn, os; print(os.environ['OMP_WAIT_POLICY'])"
    for given, wanted in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        known = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env={**known, **given}, capture_output=True, text=True)
        assert done.stdout == f"{wanted}\n", done.stderr
    order = "import sys, edgebnn; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", order], check=True)


# --- JSON ---------------------------------------------------------------------------------------


def test_info_as_json(tmp_path: Path) -> None:
    found = json.loads(output_here(tmp_path, "info", EXAMPLE, "--json"))
    assert found["model"] == str(EXAMPLE)
    assert found["test_accuracy"] == edgebnn.read(EXAMPLE).metadata.test_accuracy
    shape = {"height": 28, "width": 28, "channels": 1}
    assert found["input"] == {**shape, "bits": 8, "zero_point": 0}
    assert [layer["name"] for layer in found["layers"]] == ["dense1", "dense2", "dense3"]
    assert sum(layer["weight_bits"] for layer in found["layers"]) == found["weight_bits"] == 268800
    assert [target["target"] for target in found["targets"]] == list(TARGETS)
    assert found["class_names"][0] == "t-shirt"


def test_proofs_as_json(tmp_path: Path) -> None:
    two_classes(tmp_path, ("a", "b"))
    data_set(tmp_path, ("a", "b"))
    options = ("model.pt", "--dataset", "own.npz", "--json")
    for command in (("verify",), ("simulate", "-t", "cortex-m4", "--counted", "3")):
        found = json.loads(output_here(tmp_path, *command, *options))
        assert found["equal"] is True
        assert [one["differing"] for one in found["backends"]] == [0, 0, 0]
        assert [one["inputs"] for one in found["backends"]] == [30, 30, 30]
        confusion = np.array(found["confusion"])
        assert confusion.sum(axis=1).tolist() == [15, 15]
        assert np.trace(confusion) == found["backends"][0]["correct"]
        (target,) = found["targets"]
        assert len(target["instructions"]) == (0 if command == ("verify",) else 3)
    found = json.loads(output_here(tmp_path, "verify", "model.pt", "--random", "1", "--json"))
    assert found["confusion"] is None
    assert found["backends"][0]["correct"] is None


def test_benches_as_json(tmp_path: Path) -> None:
    two_classes(tmp_path, ("a", "b"))
    options = ("-t", "avr", "-t", "cortex-m0", "--inputs", "2", "--json")
    found = json.loads(output_here(tmp_path, "bench", "models", "model.pt", EXAMPLE, *options))
    assert [(Path(one["model"]).name, one["target"]) for one in found] == [
        *(("model.pt", "avr"), ("model.pt", "cortex-m0")),
        *((EXAMPLE.name, "avr"), (EXAMPLE.name, "cortex-m0")),
    ]
    assert "does not fit" in found[2]["error"]
    assert found[0]["cycles"]
    assert found[1]["instructions"]
    assert [one["differing"] for one in (found[0], found[1], found[3])] == [0, 0, 0]
    found = json.loads(output_here(tmp_path, "bench", "train", "--rounds", "1", "--json"))
    assert found["rounds"] == 1
    assert found["ratio"] > 0


def test_json_is_ascii_and_harmless(tmp_path: Path) -> None:
    two_classes(tmp_path, ("größe", "\x1b[2Jx"))
    text = output_here(tmp_path, "info", "model.pt", "--json")
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)["class_names"] == ["größe", "\x1b[2Jx"]


# --- what verify shows --------------------------------------------------------------------------


def test_confusion_is_counted_and_shown(tmp_path: Path) -> None:
    matrix = measure.confusion(np.array([0, 1, 1, 2], np.int32), np.array([0, 1, 2, 2]), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    two_classes(tmp_path, ("cat", "dog"))
    data_set(tmp_path, ("cat", "dog"))
    options = ("verify", "model.pt", "--dataset", "own.npz")
    assert "Confusion" not in output_here(tmp_path, *options)
    text = output_here(tmp_path, *options, "--confusion")
    found = json.loads(output_here(tmp_path, *options, "--json"))["confusion"]
    for name, row in zip(("cat", "dog"), found, strict=True):
        shown = " +│ +".join(str(count) if count else r"\." for count in row)
        assert re.search(rf"│ {name} +│ +{shown} │", text)
    message = mistake(tmp_path, "verify", "model.pt", "--random", "3", "--confusion")
    assert "random inputs have no classes to confuse" in message


def test_confusion_of_many_classes_is_its_mistakes() -> None:
    matrix = np.diag(np.full(50, 9))
    matrix[3, 7], matrix[41, 2] = 5, 6
    console = Console(file=io.StringIO(), width=80)
    console.print(report.confusion_table(matrix, ()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.findall(r"│ (\d+) +│ +(\d+) │ +(\d+) │", text) == [("41", "2", "6"), ("3", "7", "5")]


def test_verify_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path, ("a", "b"))
    seen: dict[str, list[int]] = {}
    shown = proof.progress_on

    def watched(console: Console) -> Any:
        progress = shown(console)
        update = progress.update

        def told(task: Any, **options: Any) -> None:
            seen.setdefault(progress.tasks[task].description, []).append(options["completed"])
            update(task, **options)

        progress.update = told  # type: ignore[method-assign]
        return progress

    monkeypatch.setattr(proof, "progress_on", watched)
    output_here(tmp_path, "verify", "model.pt", "--random", "1200")
    assert seen == {name: [500, 1000, 1200] for name in ("torch", "reference", "host")}


def test_verify_names_options_that_it_has(tmp_path: Path) -> None:
    message = mistake(tmp_path, "verify", EXAMPLE)
    for option in re.findall(r"--[a-z-]+", message):
        assert any(option in parameter.opts for parameter in COMMANDS["verify"].params)
    assert "--download" in message
    assert "--random 100" in message
    assert "mnist-5k" not in message


def test_verify_takes_zig_where_there_is_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_classes(tmp_path, ("a", "b"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    kinds = [compiler.kind for compiler in toolchain.find_compilers(TARGETS["host"])]
    assert kinds == ["zig"]
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", toolchain._cache_folder())
    text = output_here(tmp_path, "verify", "model.pt", "--random", "3")
    assert "host C (zig " in text


# --- odd values and environments ----------------------------------------------------------------


@pytest.mark.parametrize("command", ["verify", "simulate"])
def test_random_inputs_without_end(command: str, tmp_path: Path) -> None:
    two_classes(tmp_path, ("a", "b"))
    message = mistake(tmp_path, command, "model.pt", "--random", "1000000000000")
    assert "Invalid value for '--random': " in message
    assert "1000000 " in message
    wide = bnn.Sequential(bnn.Input((60000,)), bnn.BinaryLinear(60000, 2))
    edgebnn.save(wide, tmp_path / "wide.pt", form="release")
    message = mistake(tmp_path, command, "wide.pt", "--random", "1000000")
    assert "1000000 random inputs are too many to hold; give up to 71582" in message


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 1 TiB"),
        RuntimeError("alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 3 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 3 GiB"),
    ],
)
def test_memory_that_is_not_there(error: Exception, tmp_path: Path) -> None:
    two_classes(tmp_path, ("a", "b"))
    with mock.patch("edgebnn.cli.model.open_model", side_effect=error):
        assert "edgebnn: not enough memory: " in mistake(tmp_path, "info", "model.pt")


def test_names_that_a_terminal_cannot_show(tmp_path: Path) -> None:
    two_classes(tmp_path, ("größe", "猫"))
    (tmp_path / "ö.pt").write_bytes((tmp_path / "model.pt").read_bytes())
    for arguments in (("info", "ö.pt"), ("predict", "ö.pt", "image.png"), ("info", "ä.pt")):
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env={**environment(tmp_path), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
            capture_output=True,
            check=False,
        )
        assert b"Traceback" not in done.stderr
        assert done.stdout.isascii()
        assert done.returncode == (arguments[1] == "ä.pt")
        wanted = rb"\xe4.pt: no such file" if done.returncode else rb"\u732b"
        assert wanted in done.stdout + done.stderr


def test_names_do_not_reach_the_terminal_as_commands(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x9b31m"
    two_classes(tmp_path, (evil, "b"))
    data_set(tmp_path, (evil, "b"))
    (tmp_path / "x\x1by.pt").write_bytes((tmp_path / "model.pt").read_bytes())
    for arguments in (
        ("info", "model.pt"),
        ("predict", "model.pt", "image.png"),
        ("verify", "model.pt", "--dataset", "own.npz", "--confusion"),
        ("info", "x\x1by.pt"),
        ("info", "\x1b[2J.pt"),
        ("bench", "models", "x\x1by.pt", "-t", "cortex-m0", "--inputs", "1"),
    ):
        done = run_here(tmp_path, *arguments)
        text = done.stdout + done.stderr
        assert r"\x1b" in text
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text), arguments
    assert printable("a\tb\nc µ\x1b") == "a\tb\nc µ\\x1b"


def test_numbers_agree_with_their_nouns() -> None:
    assert [counted(n, "byte") for n in (0, 1, 2, 33612)] == [
        *("0 bytes", "1 byte", "2 bytes", "33 612 bytes")
    ]
    assert counted(2, "epoch") == "2 epochs"
    assert report.size(1, "bytes") == "1 byte"
    assert report.size(1, "B") == "1 B"


def test_bounds_are_rounded_up() -> None:
    """Whatever is after the point."""
    assert [report.bound(count) for count in (7784.0, 7784.26, 7784.74)] == [
        *("7 784", "7 785", "7 785")
    ]
    assert report.bound(None) == "-"


def test_a_recipe_is_described_without_another_models_figures() -> None:
    """Every recipe that comes along keeps words, and none has bytes or an accuracy left."""
    summary = "32 channels, 2 bits; 2.8 kB of weights, quick to train, 89.15 % of Fashion-MNIST"
    assert without_figures(summary) == "32 channels, 2 bits; quick to train"
    for recipe in map(get_recipe, recipe_names()):
        left = without_figures(recipe.summary)
        assert left
        assert not re.search(r"%|bytes|\dB|[kM]B", left)


def test_one_is_one(tmp_path: Path) -> None:
    edgebnn.save(mlp(), tmp_path / "model.pt")
    text = output_here(tmp_path, "verify", "model.pt", "--random", "1")
    assert "Outputs on 1 input\n" in text
    one = bnn.Sequential(bnn.Input((1,), bits=1), bnn.BinaryLinear(1, 1))
    edgebnn.save(one, tmp_path / "one.pt")
    text = output_here(tmp_path, "info", "one.pt")
    assert "1 bit each" in text
    assert not re.search(r"\b1 (bits|bytes|inputs)\b", text)


# --- Ctrl-C -------------------------------------------------------------------------------------

_INTERRUPTED = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder())
sys.argv = ["edgebnn", "info", "model.pt"]
import edgebnn.__main__
edgebnn.__main__.main()
"""


@pytest.mark.parametrize("module", ["typer", "rich.console", "edgebnn.cli.bench", "torch"])
def test_interrupt_while_modules_are_imported(module: str, tmp_path: Path) -> None:
    edgebnn.save(mlp(), tmp_path / "model.pt")
    done = run(tmp_path, command=[sys.executable, "-c", _INTERRUPTED.format(module=module)])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "edgebnn: interrupted\n")


@pytest.mark.parametrize("command", ["info", "verify", "generate"])
def test_interrupt_is_130(command: str, tmp_path: Path) -> None:
    edgebnn.save(mlp(), tmp_path / "model.pt")
    options = {"verify": ("--random", "3"), "generate": ("-o", "out")}.get(command, ())
    with (
        mock.patch("edgebnn.checkpoint.read", side_effect=KeyboardInterrupt),
        mock.patch("edgebnn.api.read", side_effect=KeyboardInterrupt),
    ):
        done = run_here(tmp_path, command, "model.pt", *options)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "edgebnn: interrupted\n")
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "tmp"}


def test_an_interrupted_training_anew_says_what_there_is(tmp_path: Path) -> None:
    """Before the first epoch OUTPUT is what it was, and nothing to go on with."""
    edgebnn.save(mlp(), tmp_path / "model.pt")
    before = (tmp_path / "model.pt").read_bytes()
    with mock.patch("edgebnn.train.job.Job.run", side_effect=KeyboardInterrupt):
        done = run_here(tmp_path, "train", "digits", "-o", "model.pt", "--force")
    assert done.returncode == 130
    assert done.stderr == "edgebnn: stopped before the first epoch was finished\n"
    assert (tmp_path / "model.pt").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "tmp"}


def test_every_command_that_proves_takes_json() -> None:
    bench: Any = typer.main.get_command(app)
    commands = {**COMMANDS, **bench.commands["bench"].commands}
    for name in ("info", "verify", "simulate", "models"):
        assert any("--json" in parameter.opts for parameter in commands[name].params)
