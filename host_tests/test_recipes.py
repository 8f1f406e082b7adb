"""Recipes and network notation: every file builds and fits its budget, every slip is one line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import mistake, output_here
from torch import nn

import edgebnn
import edgebnn.nn as bnn
from edgebnn import reference
from edgebnn.codegen.views import spaced
from edgebnn.cost import table_bytes
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.measure import integer_scores
from edgebnn.targets import get_target
from edgebnn.train import (
    Recipe,
    first_recipe,
    get_recipe,
    networks,
    parse_setting,
    read_recipe,
    recipe_names,
)
from edgebnn.train.recipes import from_mapping

SHAPES = {
    "mnist": (1, 28, 28),
    "fashion": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "svhn": (3, 32, 32),
    "speech": (1, 32, 32),
}
SIGNAL = (3, 128, 1)
BUDGETS = [name for name in recipe_names() if re.fullmatch(r"[a-z0-9]+-\d+k", name)]


def shape_for(recipe: Recipe) -> tuple[int, int, int]:
    """(channels, height, width) of the images of the set that the recipe is named after."""
    if recipe.name.startswith("signal"):
        return SIGNAL
    shape = SHAPES.get(recipe.name.split("-")[0], (1, 28, 28))
    return (shape[0], recipe.image_size, recipe.image_size) if recipe.image_size else shape


@torch.no_grad()
def as_trained(model: nn.Module) -> nn.Module:
    """``model`` with norms of either direction, which need the most tables."""
    torch.manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, bnn.BatchNorm):
            norm.weight.copy_(torch.randn(norm.num_features))
            norm.bias.copy_(torch.randn(norm.num_features))
            norm.running_mean.copy_(20 * torch.randn(norm.num_features))
            norm.running_var.copy_(1 + 400 * torch.rand(norm.num_features))
    return model.eval()


def constants(recipe: Recipe) -> int:
    torch.manual_seed(1)
    model = as_trained(recipe.build(shape_for(recipe), 10))
    return table_bytes(lower(model), get_target("cortex-m4"))


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(EdgebnnError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- the files ----------------------------------------------------------------------------------


def test_each_set_has_a_recipe_for_each_budget() -> None:
    budgets = (8, 16, 32, 64, 256)
    wanted = {f"{name}-{k}k" for name in SHAPES if name != "svhn" for k in budgets}
    wanted |= {f"mnist-{k}k" for k in (3, 4, 5, 7, 11)} | {"fashion-4k"}
    assert wanted | {"mlp-16k", "mlp-32k", "conv-4k", "conv-16k", "signal-2k"} == set(BUDGETS)


@pytest.mark.parametrize(
    ("shape", "size", "name"),
    [
        ((1, 28, 28), 0, "conv-4k"),
        ((3, 16, 40), 0, "conv-4k"),
        ((3, 48, 64), 12, "mlp-32k"),
        ((1, 8, 8), 0, "mlp-32k"),
        ((6, 128, 1), 0, "signal-2k"),
        ((1, 16, 1), 0, "signal-2k"),
        ((3, 15, 1), 0, "mlp-32k"),
        ((30, 1, 1), 0, "mlp-32k"),
    ],
)
def test_first_recipe_fits(shape: tuple[int, int, int], size: int, name: str) -> None:
    assert first_recipe(shape, size) == name
    seen = (shape[0], size, size) if size else shape
    lower(get_recipe(name).build(seen, 3).eval())


def test_the_recipe_of_signals_is_that_of_the_example() -> None:
    """As examples/sensor/README.md says."""
    example = Path(__file__).parents[1] / "examples" / "sensor" / "sensor.toml"
    mine, there = get_recipe("signal-2k").plain(), read_recipe(example).plain()
    assert {**mine, "name": "", "summary": ""} == {**there, "name": "", "summary": ""}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_and_lowers(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    model = recipe.build(shape_for(recipe), 10)
    network = lower(model.eval())
    assert (network.input.channels, network.input.height, network.input.width) == shape_for(recipe)
    assert network.num_classes == 10
    assert from_mapping(recipe.plain(), "again") == recipe
    weights = sum(p.numel() for n, p in model.named_parameters() if n.endswith("latent_weight"))
    if stated := re.search(r"([\d.]+) kB of weights", recipe.summary):
        assert stated[1] == f"{weights / 8000:.1f}"
    if stated := re.search(r"([\d.]+) MB of weights", recipe.summary):
        assert stated[1] == f"{weights / 8e6:.2f}"


@pytest.mark.parametrize("name", [name for name in BUDGETS if name.split("-")[0] in SHAPES])
def test_constants_are_within_the_budget(name: str) -> None:
    recipe = get_recipe(name)
    size = constants(recipe)
    assert size <= 1024 * int(name.split("-")[1][:-1])
    assert f"about {spaced(size)} bytes" in recipe.summary
    widths = [int(width) for width in re.findall(r"(\d+)C", recipe.network)]
    assert all(width % 32 == 0 for width in widths)


@pytest.mark.parametrize("name", ["mlp-32k", "conv-4k", "conv-16k"])
@pytest.mark.parametrize(("shape", "classes"), [((1, 28, 28), 10), ((3, 32, 32), 4)])
def test_recipes_fit_other_data(name: str, shape: tuple[int, int, int], classes: int) -> None:
    model = get_recipe(name).build(shape, classes)
    images = torch.randint(0, 256, (4, *shape), dtype=torch.uint8)
    assert model(images).shape == (4, classes)
    assert model.eval()(images).dtype == torch.float64


def test_published_settings() -> None:
    theano, torch7 = get_recipe("mnist-paper-theano"), get_recipe("mnist-paper-torch7")
    assert (theano.dropout_input, theano.dropout_hidden, theano.epochs) == (0.2, 0.5, 1000)
    assert (theano.learning_rate, theano.final_rate, theano.batch_size) == (0.003, 3e-7, 100)
    assert (torch7.norm, torch7.optimizer, torch7.learning_rate) == ("shift", "shift-adamax", 2**-6)
    cifar, cifar7 = get_recipe("cifar10-paper"), get_recipe("cifar10-paper-torch7")
    assert cifar.network == cifar7.network
    assert (cifar.pad_value, cifar7.pad_value, cifar.whiten, cifar7.whiten) == (0, 0, "none", "zca")
    assert (cifar.batch_size, cifar7.batch_size, cifar7.halve_every) == (50, 200, 50)
    for recipe in (theano, torch7, cifar, cifar7, get_recipe("svhn-paper")):
        assert recipe.loss == "square_hinge"
    norms = [m for m in cifar.build((3, 32, 32), 10).modules() if isinstance(m, bnn.BatchNorm)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-4, 0.1)}
    norms = [m for m in cifar7.build((3, 32, 32), 10).modules() if isinstance(m, bnn.BatchNorm)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.125)}


# --- the notation -------------------------------------------------------------------------------


def test_notation_repeats_layers() -> None:
    layers = [match[0] for match in networks.parse("2x32C3-MP2-1x64C5S2-D3-3x128FC")]
    assert layers == ["32C3", "32C3", "MP2", "64C5S2", "D3", "128FC", "128FC", "128FC"]
    assert len(networks.parse("32C3-2xR3")) == 3


def test_pooling_stands_between_convolution_and_norm() -> None:
    style = networks.Style(dropout_input=0.1, dropout_hidden=0.2, bits=4, pad_value=1)
    model = networks.build("32C3-MP2-64C3S2-D3-16C3V-40FC", (2, 16, 16), 3, style)
    block = ["BinaryConv2d", "BatchNorm", "Sign", "Dropout"]
    assert [type(layer).__name__ for layer in model] == [
        *("Input", "Dropout", "BinaryConv2d", "MaxPool2d", "BatchNorm", "Sign", "Dropout"),
        *(3 * block),
        *("Flatten", "BinaryLinear", "BatchNorm", "Sign", "Dropout"),
        *("BinaryLinear", "OutputNorm"),
    ]
    convolutions = [layer for layer in model if isinstance(layer, bnn.BinaryConv2d)]
    assert [layer.pad_value for layer in convolutions] == [0, 1, 1, 1]
    assert [layer.padding[0] for layer in convolutions] == [1, 1, 1, 0]
    assert [layer.stride[0] for layer in convolutions] == [1, 2, 1, 1]
    assert [layer.groups for layer in convolutions] == [1, 1, 64, 1]
    assert model[0].bits == 4
    assert model[-1].bound == 40
    assert model.eval()(torch.zeros(2, 2, 16, 16, dtype=torch.uint8)).shape == (2, 3)
    lower(model)


def test_residual_blocks_are_exact() -> None:
    """Two shortcuts, shift norms and learned shifts: torch in eval mode = the reference."""
    style = networks.Style(norm="shift", learned_shift=True)
    torch.manual_seed(1)
    model = as_trained(networks.build("9C3-MP2-33C3-2xR3-MP2-40FC", (2, 9, 8), 5, style))
    assert sum(isinstance(module, bnn.Residual) for module in model) == 2
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, bnn.Sign):
                module.shift.normal_()
    network = lower(model)
    images = torch.randint(0, 256, (30, 2, 9, 8), dtype=torch.uint8)
    inputs = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    expected = integer_scores(model.eval(), images, network)
    np.testing.assert_array_equal(reference.run(network, inputs).scores, expected)


def test_style_reaches_every_layer() -> None:
    style = networks.Style("swish", 3.0, True, "magnitude", "shift", -1)
    model = networks.build("32C3-64FC", (1, 4, 4), 3, style)
    signs = [layer for layer in model if isinstance(layer, bnn.Sign)]
    assert [(s.estimator, s.initial_beta, s.num_features) for s in signs] == [
        ("swish", 3.0, 32),
        ("swish", 3.0, 64),
    ]
    weighted = [x for x in model if isinstance(x, bnn.BinaryLinear | bnn.BinaryConv2d)]
    assert {layer.estimator for layer in weighted} == {"magnitude"}
    norms = [type(layer) for layer in model if isinstance(layer, bnn.BatchNorm)]
    assert norms == [bnn.ShiftBatchNorm, bnn.ShiftBatchNorm, bnn.OutputNorm]
    lower(model.eval())


@pytest.mark.parametrize(
    "notation",
    [
        *("", "-", "32C3-", "32C", "C3", "FC", "32fc", "MP", "0FC", "32C0", "0C3", "32C3S0", "R"),
        *("MP0", "32C3 -MP2", "2x", "x3FC", "-3FC", "32C3V2", "2x2x32FC", "3.5FC", "D", "٣FC"),
        *(
            "32C3\n",
            "128FC\n-MP2",
            "32C3S2S2",
            "1e3FC",
            "00FC",
            "032FC",
            "100000FC",
            "9" * 5000 + "FC",
        ),
    ],
)
def test_parts_that_are_no_layers(notation: str) -> None:
    message = refusal(lambda: networks.parse(notation))
    assert "is no layer; write layers as in 32C3-MP2" in message


@pytest.mark.parametrize("count", ["0", "1001", "99999999999"])
def test_repetitions_are_limited(count: str) -> None:
    message = refusal(lambda: networks.parse(f"{count}x32FC"))
    assert f"repeats {count} times" in message


@pytest.mark.parametrize(
    ("notation", "reason"),
    [
        ("32FC-32C3", "'32C3' follows a dense layer"),
        ("32FC-MP2", "'MP2' follows a dense layer"),
        ("32FC-D3", "'D3' follows a dense layer"),
        ("32C3-MP2-MP2-MP2-MP2", "'MP2' in '32C3-MP2-MP2-MP2-MP2' does not fit into 1x1"),
        ("32C9V", "'32C9V' in '32C9V' does not fit into 8x8; the images are too small"),
        ("R3", "needs a convolution of bits right before it"),
        ("32C3-R3", "the first layer reads integers"),
        ("32C3-32C3-MP2-R3", "pool after it"),
        ("32C3-64FC-R3", "needs a convolution"),
        ("32C3-32C3-R2", "'R2' in '32C3-32C3-R2' changes the size"),
    ],
)
def test_networks_that_cannot_be(notation: str, reason: str) -> None:
    assert reason in refusal(lambda: networks.build(notation, (1, 8, 8), 10))


# --- settings -----------------------------------------------------------------------------------


def read(text: str | bytes, folder: Path) -> Recipe:
    path = folder / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recipe(path)


def test_own_file_has_its_stem_for_a_name(tmp_path: Path) -> None:
    recipe = read('network = "64FC"\nepochs = 3\nname = "other"\nlearning_rate = 1\n', tmp_path)
    assert recipe == Recipe("mine", "", "64FC", epochs=3, learning_rate=1.0)
    assert get_recipe(str(tmp_path / "mine.toml")) == recipe


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epochs = ", "mine.toml is not TOML"),
        (b"\xff\xfe\x00", "mine.toml is not TOML"),
        (b"\x00" * 100, "mine.toml is not TOML"),
        ("", "recipe 'mine' does not say its network"),
        ('network = "64FC"\nepoch = 3', "unknown setting 'epoch'; do you mean epochs?"),
        ('network = "64FC"\nqqqq = 3', "unknown setting 'qqqq'; there are: name, summary"),
        ('network = "64FC"\n[epochs]\na = 3', "epochs is {'a': 3}; give an integer"),
        ('network = "64FC"\nepochs = 3.0', "epochs is 3.0; give an integer"),
        ('network = "64FC"\nepochs = true', "epochs is True; give an integer"),
        ('network = "64FC"\nbinary = 1', "binary is 1; give true or false"),
        ('network = "64FC"\nlearning_rate = "fast"', "learning_rate is 'fast'; give a number"),
        ('network = "64FC"\nlearning_rate = true', "learning_rate is True; give a number"),
        ('network = "64FC"\nlearning_rate = nan', "learning_rate is nan; give 1e-09 to 1 000"),
        ('network = "64FC"\nlearning_rate = inf', "learning_rate is inf; give 1e-09 to 1 000"),
        ('network = "64FC"\nepochs = 0', "epochs is 0; give 1 to 1 000 000"),
        ('network = "64FC"\ninput_bits = 9', "input_bits is 9; give 1 to 8"),
        ('network = "64FC"\ndropout_input = 1', "dropout_input is 1.0; give 0 to 0.99"),
        ('network = "64FC"\npad_value = 2', "pad_value is 2; pick of: -1, 0, 1"),
        ('network = "64FC"\nsign = "relu"', "sign is 'relu'; pick of: ste, stochastic, swish"),
        ('network = "64FC"\nloss = "mse"', "loss is 'mse'; pick of: square_hinge"),
        ("network = 64", "network is 64; give a text"),
        ('network = "64"', "'64' in network '64' is no layer"),
        ('network = "64FC"\nteacher = "big"', "'big' in network 'big' is no layer"),
        ('network = "64FC"\nsummary = 2020-01-01', "summary is datetime.date"),
    ],
)
def test_broken_files(text: str | bytes, reason: str, tmp_path: Path) -> None:
    assert reason in refusal(lambda: read(text, tmp_path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    for name in ("missing.toml", "folder.toml"):
        message = refusal(lambda name=name: get_recipe(str(tmp_path / name)))
        assert f"cannot read {tmp_path / name}" in message


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("epochs=40", ("epochs", 40)),
        (" learning_rate = 1e-3 ", ("learning_rate", 1e-3)),
        ("binary=false", ("binary", False)),
        ("sign=swish", ("sign", "swish")),
        ('sign="swish"', ("sign", "swish")),
        ("network=32C3-MP2-64FC", ("network", "32C3-MP2-64FC")),
        ("network=2x64FC", ("network", "2x64FC")),
        ("summary=a = b", ("summary", "a = b")),
        ("pad_value=-1", ("pad_value", -1)),
    ],
)
def test_settings_on_the_command_line(text: str, setting: tuple[str, Any]) -> None:
    assert parse_setting(text) == setting


@pytest.mark.parametrize("text", ["", "epochs", "epochs=", "=3", "=", "epochs 3"])
def test_settings_that_are_none(text: str) -> None:
    assert "write key=value, as in epochs=40" in refusal(lambda: parse_setting(text))


def test_changed_recipe_is_checked_again() -> None:
    recipe = get_recipe("mlp-16k")
    assert recipe.changed({"epochs": 3, "name": "x"}) == recipe.changed({"epochs": 3})
    assert recipe.changed({}, "other").name == "other"
    assert "do you mean learning_rate" in refusal(lambda: recipe.changed({"learnin_rate": 1.0}))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--set", "epochs"), "'epochs' is no setting"),
        (("--set", "epoch=3"), "do you mean epochs?"),
        (("--set", "epochs=three"), "epochs is 'three'; give an integer"),
        (("--set", "epochs=0"), "epochs is 0; give 1 to 1 000 000"),
        (("--set", "epochs=3", "--set", "loss=mse"), "loss is 'mse'; pick of"),
        (("--set", "network=64"), "network is 64; give a text"),
        (("--set", "network=64F"), "'64F' in network '64F' is no layer"),
        (("--set", "network=32C3-5xMP2"), "the images are too small for it"),
        (("--set", "image_size=9"), "cannot resize 8x8 images to 9x9"),
        (("--set", "binary=false"), "a float twin has no model file"),
        (("--recipe", "missing.toml"), "cannot read missing.toml"),
        (("--recipe", "tmp/x"), "unknown recipe 'tmp/x'"),
    ],
)
def test_settings_that_are_refused(arguments: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    assert reason in mistake(tmp_path, "train", "digits", *arguments)


def test_own_recipe_trains_with_changes(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('network = "32FC"\nimage_size = 4\nepochs = 9\n')
    changes = ("--set", "epochs=2", "--set", "input_bits=4", "--set", "batch_size=256")
    text = output_here(tmp_path, "train", "digits", "--recipe", "own.toml", *changes)
    assert "own on digits" in text
    saved = edgebnn.read(tmp_path / "model.pt").metadata
    wanted = {"name": "own", "network": "32FC", "epochs": 2, "input_bits": 4, "image_size": 4}
    assert wanted.items() <= saved.recipe.items()
    assert (saved.preprocessing, saved.right_shift) == (("resize 4",), 4)
