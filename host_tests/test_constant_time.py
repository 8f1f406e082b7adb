"""--optimize constant-time: instructions that no input changes, counted in Unicorn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_cases import hostile_inputs
from networks import random_levels_model, random_model, random_residual_model
from test_cli import mistake, output_here
from test_model_files import mlp

import edgebnn
import edgebnn.nn as bnn
from edgebnn import reference
from edgebnn.codegen import c
from edgebnn.device import build, unicorn
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import get_target
from edgebnn.wishes import Wishes


def wide(outputs: int = 64, inputs: int = 70) -> bnn.Sequential:
    """A hidden layer that goes by columns, if it may."""
    torch.manual_seed(1)
    first = (bnn.Input((inputs,), bits=1, zero_point=1), bnn.Sign())
    layers = (*first, bnn.BinaryLinear(inputs, outputs), bnn.Sign())
    return bnn.Sequential(*layers, bnn.BinaryLinear(outputs, 3)).eval()


def wide_image() -> bnn.Sequential:
    """A convolution of as many channels."""
    torch.manual_seed(2)
    first = (bnn.Input((5, 4, 6), bits=1, zero_point=1), bnn.Sign())
    layers = (*first, bnn.BinaryConv2d(5, 40, 3, padding=1), bnn.Sign(), bnn.Flatten())
    return bnn.Sequential(*layers, bnn.BinaryLinear(40 * 24, 3)).eval()


def spread(network: Network, target_name: str, folder: Path, *, constant_time: bool) -> int:
    """The most instructions that an input takes, less the fewest, which compares scores."""
    target = get_target(target_name)
    scheduled = plan(network, target, wishes=Wishes("constant-time" if constant_time else "speed"))
    inputs = hostile_inputs(network.input, np.random.default_rng(1))[:10]
    image = build.build_firmware(c.generate(scheduled, "net"), target, folder)
    run = unicorn.run(image, inputs, counted=len(inputs))
    np.testing.assert_array_equal(run.scores, reference.run(network, inputs).scores)
    return max(run.instructions) - min(run.instructions)


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "rv32imc", "rv32ec"])
def test_all_inputs_take_the_same(target: str, tmp_path: Path) -> None:
    """But for the largest score: two instructions a class at most."""
    models = [random_model(1), random_residual_model(2), random_model(3), random_model(5)]
    models += [random_levels_model(23), random_levels_model(29), wide_image(), wide()]
    for number, model in enumerate(models):
        network = lower(model)
        folder = tmp_path / str(number)
        few = 2 * network.num_classes
        assert spread(network, target, folder, constant_time=True) <= few
    network = lower(models[-1])
    assert spread(network, target, tmp_path / "fast", constant_time=False) > 100


@pytest.mark.parametrize(
    ("inputs", "outputs", "way"),
    [
        (225, 23, "rows"),
        (225, 24, "masks"),
        (225, 47, "rows"),
        (225, 48, "masks"),
        (224, 17, "rows"),
        (224, 18, "masks"),
        (224, 35, "rows"),
        (224, 36, "masks"),
    ],
)
def test_masked_columns_are_taken_where_they_take_fewer(
    inputs: int, outputs: int, way: str
) -> None:
    """Where words are rows of 32 lanes, and no instruction counts bits."""
    network, wishes = lower(wide(outputs, inputs)), Wishes("constant-time")
    for name, there in (("cortex-m4", way), ("rv32ec", way), ("avr", "rows"), ("host", "lanes")):
        step = plan(network, get_target(name), wishes=wishes).steps[1]
        assert step.kernel.way == there, name
    assert plan(network, get_target("rv32imc-zbb"), wishes=wishes).steps[1].kernel.way == "rows"


def test_no_kernel_that_depends_on_data() -> None:
    scheduled = plan(lower(wide()), get_target("cortex-m4"), wishes=Wishes("constant-time"))
    assert all(step.kernel.constant_time for step in scheduled.steps)
    fast = plan(lower(wide()), get_target("cortex-m4"))
    assert not all(step.kernel.constant_time for step in fast.steps)
    with pytest.raises(EdgebnnError, match="columns takes more time for some inputs than for"):
        plan(lower(wide()), get_target("cortex-m4"), ("columns",), wishes=Wishes("constant-time"))
    with pytest.raises(EdgebnnError, match="pick one of: speed, size, constant-time"):
        Wishes("fast")


def test_it_is_an_option(tmp_path: Path) -> None:
    edgebnn.save(wide(), tmp_path / "model.pt")
    steady = ("--optimize", "constant-time")
    assert "columns" in output_here(tmp_path, "info", "model.pt")
    assert "columns" not in output_here(tmp_path, "info", "model.pt", *steady)
    output_here(tmp_path, "generate", "model.pt", "-o", "lib", *steady)
    assert "[columns]" not in (tmp_path / "lib" / "src" / "model.c").read_text()
    text = output_here(tmp_path, "verify", "model.pt", "--random", "20", *steady)
    assert "every output is equal" in text
    edgebnn.save(mlp(), tmp_path / "mlp.pt")
    message = mistake(tmp_path, "info", "mlp.pt", "--optimize", "fast")
    assert "unknown optimization 'fast'; pick one of: speed, size, constant-time" in message
