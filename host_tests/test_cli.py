"""The command line as its users meet it: each mistake is one line, each good path works.

Everything runs in an empty folder, without the data of this machine. The promised refusals,
training and proofs run in a process of their own; the rest calls ``main`` in this one, to be quick.
"""

import contextlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import typer.main
from networks import save_unproven
from PIL import Image
from test_model_files import _Code, mlp, plain

import edgebnn
import edgebnn.nn as bnn
from edgebnn import __version__, api, samples
from edgebnn.cli import app, main
from edgebnn.cli.inputs import open_model
from edgebnn.codegen.names import check_prefix
from edgebnn.codegen.views import spaced
from edgebnn.cost import cost
from edgebnn.plan import plan
from edgebnn.samples import device_rows
from edgebnn.targets import TARGETS, get_target
from edgebnn.train import get_recipe, recipe_names

COMMAND = [sys.executable, "-m", "edgebnn"]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
TRAIN = ["train", "digits", "--recipe", "mlp-16k"]


def environment(folder: Path) -> dict[str, str]:
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    changed = {
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(temporary),
        "XDG_CACHE_HOME": str(temporary / "cache"),
    }
    return {k: v for k, v in os.environ.items() if k != "EDGEBNN_DATA"} | changed


def run(
    folder: Path, *arguments: str | Path, command: list[str] = COMMAND
) -> subprocess.CompletedProcess[str]:
    """Runs in a process of its own."""
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_here(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs in this process; what ``main`` lets pass is the test's failure."""
    command = ["edgebnn", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, environment(folder), clear=True),
        mock.patch.object(sys, "argv", command),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as exit_,
    ):
        main()
    status = exit_.value.code
    assert isinstance(status, int)
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


def printed(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that succeeds prints; nothing on stderr."""
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def output(folder: Path, *arguments: str | Path) -> str:
    return printed(run(folder, *arguments))


def output_here(folder: Path, *arguments: str | Path) -> str:
    return printed(run_here(folder, *arguments))


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def mistake(folder: Path, *arguments: str | Path, command: list[str] | None = None) -> str:
    """The one line on stderr that a mistake gives; nothing else is printed, nothing is written.

    It runs in this process where no ``command`` is given.
    """
    environment(folder)
    before = tree(folder)
    if command is None:
        done = run_here(folder, *arguments)
    else:
        done = run(folder, *arguments, command=command)
    assert done.returncode > 0
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("edgebnn: ")
    assert tree(folder) == before
    assert done.stdout == ""
    return done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of digits after two epochs, and what its training printed beside it."""
    folder = tmp_path_factory.mktemp("trained")
    text = output(folder, *TRAIN, "--epochs", "2", "--seed", "3", "-o", "model.pt")
    (folder / "printed").write_text(text)
    return folder / "model.pt"


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    edgebnn.save(mlp(), tmp_path / "model.pt", class_names=("a", "b", "c"))
    return tmp_path / "model.pt"


# --- good paths ---------------------------------------------------------------------------------


def test_train_reports_epochs_and_accuracy(trained: Path) -> None:
    text = trained.with_name("printed").read_text()
    assert "mlp-16k on digits: 25 856 binary weights" in text
    assert re.findall(r"epoch +(\d)/2 ", text) == ["1", "2"]
    printed = re.search(r"test accuracy ([\d.]+) % \((\d+)/(\d+)\)", text)
    assert printed
    saved = edgebnn.read(trained).metadata
    assert saved.test_accuracy == int(printed[2]) / int(printed[3])
    assert saved.test_accuracy > 0.8
    assert (saved.seed, saved.dataset, saved.recipe["epochs"]) == (3, "digits", 2)


def test_info_shows_layers_accuracy_and_targets(trained: Path, tmp_path: Path) -> None:
    text = output_here(tmp_path, "info", trained)
    accuracy = edgebnn.read(trained).metadata.test_accuracy
    assert accuracy is not None
    for wanted in (f"{100 * accuracy:.2f} %", "8 x 8 x 1, 8 bits", "25 856", "dense3", "mlp-16k"):
        assert wanted in text
    for target in TARGETS:
        assert re.search(rf"^{target} +\d[\d ]+  +\d[\d ]*  ", text, re.MULTILINE)
    tables = text[text.index("Layers") :].splitlines()
    assert max(map(len, tables)) <= 80  # and no number, name or head is cut in two
    rows = {line.split()[0] for line in tables if line}
    assert rows >= {"dense1", "dense2", "dense3", *TARGETS}
    assert "digit_columns" in tables[4]


def test_a_bound_is_the_same_wherever_it_is_said(trained: Path, tmp_path: Path) -> None:
    """A whole number, rounded up: what is at most 7 784.3 is not at most 7 784."""
    content, network = open_model(trained)
    samples = device_rows(content.samples, network.input.channels)
    known = cost(plan(network, get_target("cortex-m4"), samples=samples))
    assert known.most is not None
    assert known.stack_bytes is not None
    most, stack = math.ceil(known.most), math.ceil(known.stack_bytes)
    said = output_here(tmp_path, "generate", trained, "-o", "c")
    assert f"at most {spaced(most)} instructions" in said
    assert f"stack at most {stack} bytes" in said
    assert re.search(
        rf"^cortex-m4 .* {stack} .* {spaced(most)}$", output_here(tmp_path, "info", trained), re.M
    )
    found = json.loads(output_here(tmp_path, "info", trained, "--json"))
    (there,) = (one for one in found["targets"] if one["target"] == "cortex-m4")
    assert (there["most_instructions"], there["stack_bytes"]) == (most, stack)
    figures = [one for row in (*found["targets"], *found["layers"]) for one in row.values()]
    assert not any(isinstance(one, float) for one in figures)


def test_first_layer_is_a_choice(trained: Path, tmp_path: Path) -> None:
    ways = {"auto": "digit_columns", "subset-sums": "subset_sums", "bit-planes": "bit_planes"}
    for choice, kernel in ways.items():
        option = f"--first-layer={choice}"
        assert re.search(rf"dense1 .* {kernel}\n", output_here(tmp_path, "info", trained, option))
        where = ("-o", choice, "--name", "net", "--target", "cortex-m4")
        output_here(tmp_path, "generate", trained, *where, option)
        text = (tmp_path / choice / "src" / "net.c").read_text()
        assert f"[{kernel}]" in text
        proof = ("--images", "5", option)
        for command in (("verify",), ("simulate", "-t", "cortex-m7")):
            text = output_here(tmp_path, command[0], trained, *command[1:], *proof)
            assert "every output is equal, bit for bit" in text


def test_filters_counts_what_repeats(model_file: Path, tmp_path: Path) -> None:
    example = Path(__file__).resolve().parent.parent / "examples" / "models" / "fashion_conv.pt"
    text = output_here(tmp_path, "filters", example)
    # 512 kernels of 3x3 bits there are, in 256 pairs; 8 192 cannot miss many.
    assert re.search(r"conv3 │ +3x3 │ +8 192 │ +512 │ +256 │ +3\.1 % │ +128 │ +0 ", text)
    assert len(re.findall(r"conv\d", text)) == 3
    text = output_here(tmp_path, "filters", model_file)
    assert text == f"{model_file} has no convolutions, so it has no filters to count\n"


def test_release_is_small_and_as_good(trained: Path, tmp_path: Path) -> None:
    model = tmp_path / "digits.pt"
    model.write_bytes(trained.read_bytes())
    assert "digits_release.pt" in output_here(tmp_path, "release", model)
    assert "small.pt" in output_here(tmp_path, "release", "digits_release.pt", "-o", "small.pt")
    for name in ("digits_release.pt", "small.pt"):
        released = tmp_path / name
        assert 20 * released.stat().st_size < model.stat().st_size
        assert edgebnn.read(released).form == "release"
        assert api.generate(released, name="n") == api.generate(model, name="n")
        assert "release" in output_here(tmp_path, "info", released)


def test_generate_writes_the_library(trained: Path, tmp_path: Path) -> None:
    library = api.generate(trained, target="cortex-m0", name="digits")
    arguments = ("generate", trained, "-t", "cortex-m0", "--name", "digits", "-o", "out/digits")
    printed = output_here(tmp_path, *arguments)
    root = tmp_path / "out" / "digits"
    written = {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}
    assert written == dict(library.files)
    for name in written:
        assert f"out/digits/{name}" in printed
    before = tree(tmp_path)
    output_here(tmp_path, *arguments, "--force")
    assert tree(tmp_path) == before


def test_verify_compares_the_whole_test_set(trained: Path, tmp_path: Path) -> None:
    text = output(tmp_path, "verify", trained, "--target", "host")
    assert re.search(r"reference \(NumPy\) .*\(\d+/355\) +│ +0 │", text)
    assert re.search(r"host C .*\(\d+/355\) +│ +0 │", text)
    assert "every output is equal, bit for bit" in text
    assert not list((tmp_path / "tmp").glob("edgebnn-*"))


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "rv32imc", "rv32ec", "avr"])
def test_simulate_reports_what_a_run_costs(target: str, trained: Path, tmp_path: Path) -> None:
    simulate = output if target == "cortex-m4" else output_here
    text = simulate(tmp_path, "simulate", trained, "-t", target, "--images", "20", "--counted", "5")
    cpu = r"(Cortex-M\d|RV32IMC|RV32EC|ATmega328P)"
    assert re.search(rf"emulated {cpu} .*\(\d+/20\) +│ +0 │", text)
    counted = "cycles an inference (simulated, simavr)"
    counted = counted if target == "avr" else "instructions an inference (exact)"
    assert ("instructions" in text) == (target != "avr")
    for wanted in (counted, "static RAM", "stack", "compiler", "flags"):
        assert wanted in text
    assert "every output is equal, bit for bit" in text


def test_predict_classifies_an_image(trained: Path, tmp_path: Path) -> None:
    from edgebnn.train import load_dataset

    images = load_dataset("digits")
    correct = 0
    for index in range(3):
        Image.fromarray(images.test_images[index, 0]).save(tmp_path / "digit.png")
        lines = output_here(tmp_path, "predict", trained, "digit.png").splitlines()
        assert len(lines) == 5
        scores = [int("".join(line.split()[1:])) for line in lines]
        assert scores == sorted(scores, reverse=True)
        model = edgebnn.load(trained)
        wanted = int(model(torch.from_numpy(images.test_images[index : index + 1])).argmax())
        assert lines[0].split()[0] == str(wanted)
        correct += wanted == images.test_labels[index]
    assert correct >= 2


def test_class_names_are_printed_as_they_are(tmp_path: Path) -> None:
    """Not as markup of the terminal library."""
    model = bnn.Sequential(
        bnn.Input((1, 2, 2)), bnn.Flatten(), bnn.BinaryLinear(4, 2), bnn.OutputNorm(2)
    )
    edgebnn.save(model, tmp_path / "model.pt", class_names=("[/red]", "[bold]cat"))
    Image.fromarray(np.full((2, 2), 7, np.uint8)).save(tmp_path / "image.png")
    for arguments in (("info", "model.pt"), ("predict", "model.pt", "image.png")):
        text = output_here(tmp_path, *arguments)
        assert "[/red]" in text
        assert "[bold]cat" in text


def test_paths_with_brackets_are_printed_as_they_are(model_file: Path, tmp_path: Path) -> None:
    folder = "run[a]/lib[/b]"
    assert f"{folder}/library.json" in output_here(tmp_path, "generate", model_file, "-o", folder)
    (tmp_path / "x[b].pt").write_bytes(model_file.read_bytes())
    assert "x[b].pt" in output_here(tmp_path, "info", "x[b].pt")
    assert "x[b]_release.pt" in output_here(tmp_path, "release", "x[b].pt")


def test_a_board_that_is_too_small_is_said_to_be(tmp_path: Path) -> None:
    model = Path(__file__).resolve().parent.parent / "examples" / "models" / "fashion_mlp.pt"
    for target, warning in (
        ("cortex-m0", ""),
        ("nucleo_f030r8", ""),
        (
            "avr",
            "warning: Microchip ATmega328P has 32 768 bytes of flash, the network alone ",
        ),
    ):
        done = run_here(tmp_path, "generate", model, "-t", target, "-o", target)
        assert done.returncode == 0
        assert done.stderr.startswith(warning)
        assert done.stderr.count("\n") == bool(warning)
        assert (tmp_path / target / "src" / "fashion_mlp.c").is_file()


def test_constants_of_an_esp8266_are_in_ram(model_file: Path, tmp_path: Path) -> None:
    sizes = {}
    for target in ("esp8266", "esp32"):
        text = output_here(tmp_path, "generate", model_file, "-t", target, "-o", target)
        flash, ram = re.search(r"flash ([\d ]+) bytes of .* RAM ([\d ]+) bytes", text).groups()
        sizes[target] = int(flash.replace(" ", "")), int(ram.replace(" ", ""))
    constants, arena = sizes["esp32"]
    assert sizes["esp8266"] == (constants, constants + arena)
    table = output_here(tmp_path, "info", model_file)
    for target, (flash, ram) in sizes.items():
        assert re.search(rf"{target} +{flash} +{ram} ", table)


def test_lists_of_recipes_and_targets(tmp_path: Path) -> None:
    listed = output_here(tmp_path, "targets")
    assert "cortex-m0" in listed
    assert re.search(r"esp32 .* not emulated, nor assembled: the C of esp8266\n", listed)
    listed = output_here(tmp_path, "recipes").splitlines()
    names = [line.split()[0] for line in listed]
    assert names == recipe_names()
    assert names.index("fashion-8k") < names.index("fashion-16k") < names.index("fashion-256k")
    for line, name in zip(listed, names, strict=True):
        recipe = get_recipe(name)
        assert f" {recipe.network} " in line
        assert f" {recipe.epochs} epochs  {recipe.summary}" in line


def test_version(tmp_path: Path) -> None:
    assert output(tmp_path, "--version") == f"edgebnn {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_mentions_every_option(name: str, tmp_path: Path) -> None:
    text = output_here(tmp_path, name, "--help")
    for parameter in COMMANDS[name].params:
        for option in parameter.opts:
            shown = option if option.startswith("-") else parameter.metavar or option
            assert shown.lower() in text.lower()
    assert f"edgebnn {name}" in text


def test_help_mentions_every_command(tmp_path: Path) -> None:
    text = output(tmp_path, "--help")
    assert all(name in text for name in COMMANDS)


def test_interrupted_training_goes_on_with_resume(tmp_path: Path) -> None:
    # Small batches: on a busy machine too there is time between the first epoch and the last.
    arguments = [*TRAIN, "--epochs", "40", "--set", "batch_size=16", "-o", "model.pt"]
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if re.match(r"epoch +1/40 ", line):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.count("\n") == 1
    assert "model.pt holds the last finished epoch, --resume goes on" in errors
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "tmp"}
    kept = edgebnn.read(tmp_path / "model.pt")
    assert kept.training is not None
    assert 1 <= kept.training["done_epochs"] < 40
    text = output(tmp_path, *arguments, "--resume")
    assert f"epoch {kept.training['done_epochs'] + 1:3}/40 " in text
    assert "epoch   1/40" not in text
    assert edgebnn.read(tmp_path / "model.pt").metadata.test_accuracy is not None


def test_verify_knows_another_accuracy(trained: Path, tmp_path: Path) -> None:
    """All outputs are equal, and the network is not the one that the file speaks of."""
    content = plain(trained)
    measured = content["metadata"]["test_accuracy"]
    content["metadata"]["test_accuracy"] = 0.125
    torch.save(content, tmp_path / "other.pt")
    done = run_here(tmp_path, "verify", "other.pt")
    assert done.returncode == 1
    assert "every output is equal" in done.stdout
    assert done.stderr.startswith("edgebnn: all outputs are equal, but ")
    assert "the model file says 12.50 %" in done.stderr
    assert done.stderr.endswith(f"test_accuracy={measured!r}\n")
    for part in (("--images", "50"), ("--random", "50"), ("--dataset", "digits")):
        assert run_here(tmp_path, "verify", "other.pt", *part).returncode == 0, part


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", "2", "-m", "edgebnn"]
    done = run(tmp_path, *TRAIN, "--epochs", "2", "--device", "cpu", command=command)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert ", 2 processes" in done.stdout
    assert len(re.findall(r"epoch +\d/2 ", done.stdout)) == 2  # rank 0 alone reports
    assert edgebnn.read(tmp_path / "model.pt").metadata.test_accuracy is not None
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt", "tmp"}


def test_calibrate_records_test_images_and_bench_counts_on_them(
    trained: Path, tmp_path: Path
) -> None:
    """Training has recorded others; everything else in the file stays."""
    before = edgebnn.read(trained)
    assert len(before.samples) == samples.MOST
    text = output_here(tmp_path, "calibrate", trained, "-o", "again.pt")
    assert text == "again.pt: 32 sample inputs\n"
    after = edgebnn.read(tmp_path / "again.pt")
    assert not np.array_equal(before.samples, after.samples)
    assert before.metadata == after.metadata
    assert (before.training is None) == (after.training is None)
    assert "sample inputs" in output_here(tmp_path, "info", "again.pt")
    options = ("-t", "cortex-m4", "--inputs", "2")
    typical = output_here(tmp_path, "bench", "models", "again.pt", *options)
    assert "Mean of 2 sample inputs: again." in typical
    noise = output_here(tmp_path, "bench", "models", "again.pt", *options, "--random")
    assert "Mean of 2 random inputs: again." in noise


# --- mistakes with a model file -----------------------------------------------------------------


def test_no_such_file(tmp_path: Path) -> None:
    assert "nothing.pt: no such file" in mistake(tmp_path, "verify", "nothing.pt", command=COMMAND)


def test_truncated_file(model_file: Path, tmp_path: Path) -> None:
    model_file.write_bytes(model_file.read_bytes()[:-100])
    assert "cut short" in mistake(tmp_path, "generate", model_file, "-o", "out", command=COMMAND)


@pytest.mark.parametrize("zipped", [False, True])
def test_pickle_with_code_in_it_is_not_executed(zipped: bool, tmp_path: Path) -> None:
    code = _Code(tmp_path / "executed")
    torch.save(code, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    message = mistake(tmp_path, "info", "model.pt", command=COMMAND if zipped else None)
    assert ("holds code" if zipped else "not an edgebnn model") in message


def _newer(content: dict[str, Any]) -> None:
    content["version"] = 2


def _nan(content: dict[str, Any]) -> None:
    content["layers"][1]["tensors"]["latent_weight"][0, 0] = float("nan")


def _unknown_layer(content: dict[str, Any]) -> None:
    content["layers"][1]["type"] = "Linear"


@pytest.mark.parametrize(
    ("command", "change", "reason"),
    [
        ("release", _newer, "format version 2, this edgebnn reads 1; update edgebnn"),
        ("simulate", _nan, "layer '1' holds NaN"),
        ("info", _unknown_layer, "layer '1' is of unknown type 'Linear'"),
    ],
)
def test_damaged_model(
    command: str,
    change: Callable[[dict[str, Any]], None],
    reason: str,
    model_file: Path,
    tmp_path: Path,
) -> None:
    content = plain(model_file)
    change(content)
    torch.save(content, model_file)
    assert reason in mistake(tmp_path, command, model_file, command=COMMAND)


def test_sums_beyond_float32(tmp_path: Path) -> None:
    model = bnn.Sequential(bnn.Input((65794,)), bnn.BinaryLinear(65794, 2))
    save_unproven(model, tmp_path / "model.pt", form="release")
    message = mistake(tmp_path, "generate", "model.pt", "-o", "out", command=COMMAND)
    assert "layer '1' (BinaryLinear)" in message
    assert "below 2**24" in message


def test_network_that_cannot_be_lowered(tmp_path: Path) -> None:
    model = bnn.Sequential(bnn.Input((8,)), bnn.BinaryLinear(8, 8), bnn.BinaryLinear(8, 2))
    save_unproven(model, tmp_path / "model.pt")
    message = mistake(tmp_path, "generate", "model.pt", "-o", "out")
    assert "layer '2' (BinaryLinear): its input is not binary; put edgebnn.nn.Sign()" in message


def test_released_model_cannot_be_resumed(model_file: Path, tmp_path: Path) -> None:
    message = mistake(tmp_path, *TRAIN, "-o", model_file, "--resume")
    assert "no training state to resume" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("identity", 3),
        ("optimizer", []),
        ("optimizer", {}),
        ("epochs", "two"),
        ("done_epochs", "one"),
        ("done_epochs", -1),
        ("done_epochs", 99),
    ],
)
def test_damaged_training_state(key: str, value: object, trained: Path, tmp_path: Path) -> None:
    content = plain(trained)
    content["training"] |= {"finished": False, "done_epochs": 1, key: value}
    torch.save(content, tmp_path / "model.pt")
    message = mistake(tmp_path, *TRAIN, "--seed", "3", "-o", "model.pt", "--resume")
    assert "model.pt" in message


def test_bench_says_what_it_counts_and_what_does_not_fit(trained: Path, tmp_path: Path) -> None:
    large = Path(__file__).resolve().parent.parent / "examples" / "models" / "fashion_mlp.pt"
    targets = ("-t", "avr", "-t", "rv32ec", "--inputs", "2")
    text = output_here(tmp_path, "bench", "models", trained, large, *targets)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert re.search(r"\| avr \| [\d ]+ (\([\d ]+ to [\d ]+\) )?cycles \| .* B \| 0/2 \|", rows[2])
    assert "cycles" not in rows[3]
    assert re.search(r"\| fashion_mlp .*\| avr \| does not fit \| - \| - \| - \| - \|", rows[4])
    assert "Cycles: simulated, a whole predict call, by simavr." in text
    assert "Instructions: exact" in text
    assert re.search(r"fashion_mlp\.pt: .*does not fit avr \(atmega328p\): 32768 bytes of fl", text)


# --- mistakes on the command line ---------------------------------------------------------------


def test_unknown_target(model_file: Path, tmp_path: Path) -> None:
    arguments = ("generate", model_file, "--target", "z80", "-o", "out")
    reason = "unknown target 'z80'; pick one of: host, cortex-m0"
    assert reason in mistake(tmp_path, *arguments, command=COMMAND)
    assert reason in mistake(tmp_path, "verify", model_file, "--target", "z80")
    assert reason in mistake(tmp_path, "simulate", model_file, "--target", "z80")


@pytest.mark.parametrize("command", ["info", "generate", "verify", "simulate"])
def test_unknown_first_layer(command: str, model_file: Path, tmp_path: Path) -> None:
    where = ("-o", "out") if command == "generate" else ()
    arguments = (command, model_file, "--first-layer", "bit_planes", *where)
    reason = "unknown first layer 'bit_planes'; pick one of: auto, tree, columns, subset-sums"
    assert reason in mistake(tmp_path, *arguments)


def test_first_layer_that_the_model_has_not(tmp_path: Path) -> None:
    layers = (bnn.Sign(), bnn.BinaryLinear(8, 2))
    edgebnn.save(bnn.Sequential(bnn.Input((8,)), *layers), tmp_path / "model.pt")
    for command in (("info",), ("generate", "-o", "out"), ("verify", "--random", "2")):
        arguments = (command[0], "model.pt", *command[1:], "--first-layer", "bit-planes")
        reason = (
            "kernel bit_planes is for Conv or Dense on integers, and the network has no such layer"
        )
        assert reason in mistake(tmp_path, *arguments)


def test_output_folder_not_empty(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.c").write_text("int x;\n")
    message = mistake(tmp_path, "generate", model_file, "-o", "out", command=COMMAND)
    assert "out is not empty; add --force" in message


def test_output_folder_is_a_file(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("text")
    assert "out is a file" in mistake(tmp_path, "generate", model_file, "-o", "out")


@pytest.mark.parametrize(
    "name", ["2d-Net", "for", "Ünïcode", "", "x" * 50, "--name", "_x", "a b\n"]
)
def test_name_that_c_does_not_take(name: str, model_file: Path, tmp_path: Path) -> None:
    message = mistake(tmp_path, "generate", model_file, "-o", "out", f"--name={name}")
    assert "is not usable as a C prefix" in message
    suggestion = message.split("try --name ")[1].strip()
    assert check_prefix(suggestion) == suggestion


def test_image_of_the_wrong_size(trained: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 7), np.uint8)).save(tmp_path / "image.png")
    message = mistake(tmp_path, "predict", trained, "image.png", command=COMMAND)
    assert "image.png is 7x9 pixels" in message
    assert "takes 8x8" in message


def test_image_that_is_none(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_text("no image")
    assert "not a readable image" in mistake(tmp_path, "predict", trained, "image.png")
    assert "cannot read missing.png" in mistake(tmp_path, "predict", trained, "missing.png")


def test_model_that_names_no_data_set(model_file: Path, tmp_path: Path) -> None:
    assert "name a --dataset" in mistake(tmp_path, "verify", model_file)
    message = mistake(tmp_path, "verify", model_file, "--dataset", "digits")
    assert "images of digits are 1x8x8, the model takes 16x1x1" in message


def test_target_without_an_emulator(model_file: Path, tmp_path: Path) -> None:
    message = mistake(tmp_path, "simulate", model_file, "-t", "host")
    assert "use edgebnn verify" in message


def test_existing_output(model_file: Path, tmp_path: Path) -> None:
    message = mistake(tmp_path, *TRAIN, "-o", model_file)
    assert "model.pt exists; add --force to train it anew, --resume to go on with" in message
    message = mistake(tmp_path, "release", model_file, "-o", model_file)
    assert "model.pt exists; give another -o" in message


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("digits", "--recipe", "huge"), "unknown recipe 'huge'; edgebnn recipes lists all"),
        (("digits", "--recipe", "mlp-17k"), "unknown recipe 'mlp-17k'; do you mean mlp-16k?"),
        (("letters",), "letters"),
        (("digits", "--device", "tpu"), "unknown device 'tpu'; pick one of: auto, cpu, cuda"),
        (("digits", "-o", "no/folder/model.pt"), "no folder no/folder to write model.pt in"),
        (("digits", "--resume"), "model.pt: no such file"),
        (("mnist",), "mnist"),
    ],
)
def test_training_that_cannot_begin(
    arguments: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    assert reason in mistake(tmp_path, "train", *arguments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("train", "digits", "--faster"), "No such option: --faster"),
        (("trian", "digits"), "No such command 'trian'"),
        (("bench", "nothing"), "No such command 'nothing'"),
        (("train",), "Missing argument"),
        (("info",), "Missing argument 'MODEL'"),
        (("generate", "model.pt"), "name a folder: -o for a library, or --project"),
        (("train", "digits", "--epochs", "0"), "--epochs"),
        (("train", "digits", "--seed", "x"), "--seed"),
        (("info", "one.pt", "two.pt"), "unexpected extra argument"),
    ],
)
def test_usage_that_is_wrong(arguments: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    message = mistake(tmp_path, *arguments, command=COMMAND)
    assert reason in message
    assert "--help" in message


def test_torch_that_is_missing(model_file: Path, tmp_path: Path) -> None:
    without = "import sys; sys.modules['torch'] = None; from edgebnn.cli import main; main()"
    command = [sys.executable, "-c", without]
    for arguments in (("info", model_file), ("train", "digits")):
        message = mistake(tmp_path, *arguments, command=command)
        assert "pip install 'edgebnn[train]'" in message
    assert run(tmp_path, "targets", command=command).returncode == 0
