"""The bench of this computer: what it times is the network, and what it prints is what it timed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_model
from typer.testing import CliRunner

from edgebnn import api, measure, speed
from edgebnn.cli import app
from edgebnn.codegen import c
from edgebnn.device import toolchain
from edgebnn.device.shared import SharedLibrary
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import TARGETS

MODEL = Path(__file__).resolve().parent.parent / "examples" / "models" / "mnist_tiny.pt"


def trial_of(model: torch.nn.Module) -> measure.Trial:
    network = lower(model)
    return measure.trial(model, network, measure.noise(network, 8))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_shared_object_computes_what_torch_does(seed: int, tmp_path: Path) -> None:
    given = trial_of(random_model(seed))
    compiler = toolchain.find_compiler(TARGETS["host"])
    library = c.generate(plan(given.network, TARGETS["host"]), "net")
    built = SharedLibrary(library, tmp_path, ("-O3", "-march=native"), compiler)
    outputs = built.run(given.inputs)
    np.testing.assert_array_equal(outputs.scores, given.expected.scores)
    np.testing.assert_array_equal(outputs.classes, given.expected.classes)
    assert built.seconds(given.inputs, 1000) > built.seconds(given.inputs, 1) > 0.0


def test_other_outputs_are_counted_and_threads_are_given_back(tmp_path: Path) -> None:
    model = api.load(MODEL)
    given = trial_of(model)
    scores = given.expected.scores.copy()
    scores[3, 0] += 1
    wrong = replace(given, expected=replace(given.expected, scores=scores))
    threads = torch.get_num_threads()
    found = speed.against_torch(model, wrong, tmp_path, flags=("-O1",), rounds=10)
    assert (found.differing, found.inputs, found.flags) == (1, 8, "-O1")
    assert torch.get_num_threads() == threads


def test_the_command_prints_what_it_records() -> None:
    arguments = ["bench", "host", str(MODEL), "--rounds", "10", "--flags", "-O2 -march=native"]
    text = CliRunner().invoke(app, arguments).stdout
    assert re.search(r"\| mnist_tiny \| [\d.]+ µs \| [\d.]+ µs \| [\d.]+ \| 0/4 \|", text)
    assert re.search(r"(gcc|clang) [\d.]+ -O2 -march=native; torch", text)
    (one,) = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (one["differing"], one["inputs"], one["rounds"]) == (0, 4, 10)
    assert one["c_seconds"] > 0.0
    assert one["torch_seconds"] > 0.0
    assert one["cpu"]


def test_flags_that_no_compiler_knows(tmp_path: Path) -> None:
    model = api.load(MODEL)
    with pytest.raises(EdgebnnError, match=r"compiling model\.c: .*nonsense"):
        speed.against_torch(model, trial_of(model), tmp_path, flags=("--nonsense",), rounds=10)
