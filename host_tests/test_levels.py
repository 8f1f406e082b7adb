"""Activations of several levels and integer heads: formulas, torch = oracle = C, and refusals."""

from collections import Counter
from pathlib import Path

import batches
import numpy as np
import pytest
import torch
from networks import random_inputs, random_levels_model
from test_equality import check_equal, device_inputs
from torch import Tensor, nn

import edgebnn.nn as bnn
from edgebnn import checkpoint
from edgebnn.device import build, elf, unicorn
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Bits, Conv, Dense, DepthwiseConv, Levels, MaxPool, Quantize, Sums, tensors
from edgebnn.lower import lower
from edgebnn.nn.functional import ACTIVATION_ESTIMATORS
from edgebnn.proof import prove
from edgebnn.targets import get_target
from edgebnn.train import networks, recipes

NETWORKS, ON_CHIP = 120, 16
CHUNK = 20


# --- equality -----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", range(0, NETWORKS, CHUNK))
def test_random_networks(start: int, tmp_path: Path) -> None:
    check_equal({seed: random_levels_model(seed) for seed in range(start, start + CHUNK)}, tmp_path)


@pytest.mark.parametrize("target_name", ["cortex-m0", "cortex-m4"])
def test_random_networks_on_chip(target_name: str, tmp_path: Path) -> None:
    target, given = get_target(target_name), {}
    for seed in range(1000, 1000 + ON_CHIP):
        model = random_levels_model(seed)
        given[seed] = lower(model), device_inputs(random_inputs(model, 8, seed))
    library, wanted = batches.of_networks(given, target)
    image = build.build_firmware(library, target, tmp_path)
    assert elf.undefined_symbols(image.model_object) == ()
    assert batches.differing(unicorn.run(image, wanted.records, counted=0), wanted) == []


def test_random_networks_are_various() -> None:
    """Every op on every kind of tensor that it takes, planes, heads and pads of each kind."""
    seen: Counter[str] = Counter()
    for seed in range(NETWORKS):
        network = lower(random_levels_model(seed))
        shapes = tensors(network)
        for op in network.ops:
            source, result = shapes[op.source], shapes[op.name]
            kind = type(source).__name__
            if isinstance(source, Bits):
                kind += f" {source.planes}"
            seen[f"{type(op).__name__} on {kind}"] += 1
            if isinstance(result, Bits):
                seen[f"{type(op).__name__} to {result.planes}"] += 1
            if isinstance(op, Conv | DepthwiseConv) and any(op.padding):
                seen[f"pad {op.pad_value}" if isinstance(source, Bits) else "pad integers"] += 1
            if isinstance(op, MaxPool) and kind in ("Bits 2", "Bits 3"):
                seen["least"] += bool(op.all_set.any())
            if isinstance(op, Quantize):
                seen["falling"] += bool(op.inverted.any())
    wanted = [f"{op} on Bits {n}" for op in ("Conv", "Dense", "MaxPool") for n in (1, 2, 3)]
    wanted += [f"{op} to {n}" for op in ("Conv", "Dense") for n in (1, 2, 3)]
    wanted += [f"pad {sign * levels}" for sign in (-1, 1) for levels in (1, 3, 7)] + ["pad 0"]
    wanted += ["Quantize on Ints", "Quantize on Sums", "Dense on Sums", "MaxPool on Sums"]
    wanted += ["DepthwiseConv on Bits 2", "DepthwiseConv on Bits 3", "least", "falling"]
    assert {what for what in wanted if not seen[what]} == set()


# --- the layer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [3, 7])
@pytest.mark.parametrize("channels", [None, 5])
@pytest.mark.parametrize("name", ACTIVATION_ESTIMATORS)
def test_levels_are_the_sum_of_signs(name: str, channels: int | None, levels: int) -> None:
    """Of float32 thresholds, ties included, shifted or not."""
    torch.manual_seed(3)
    layer = bnn.Sign(name, num_features=channels, levels=levels, spacing=0.1).eval()
    t = [0.1 * (i - (levels - 1) / 2) for i in range(levels)]
    assert layer.thresholds == tuple(torch.tensor(t).tolist())
    x = torch.randn(40, 5, 3)
    for i, threshold in enumerate(layer.thresholds):
        x[i] = threshold
        x[8 + i] = torch.nextafter(torch.tensor(threshold), torch.tensor(-9.0))
    seen = x
    if layer.shift is not None:
        nn.init.normal_(layer.shift)
        seen = x + layer.shift.detach().reshape(1, 5, 1)
    reached = sum((seen >= threshold).float() for threshold in torch.tensor(t))
    assert torch.equal(layer(x), 2 * reached - levels)
    assert set(layer(100 * x).unique().tolist()) >= {-levels, levels}


@pytest.mark.parametrize("levels", [3, 7])
@pytest.mark.parametrize("name", [n for n in ACTIVATION_ESTIMATORS if n != "stochastic"])
def test_gradient_is_the_sum_of_those_of_each_step(name: str, levels: int) -> None:
    torch.manual_seed(4)
    layer = bnn.Sign(name, beta=2.0, num_features=3, levels=levels)
    x = torch.randn(50, 3, requires_grad=True)
    weights = torch.randn(50, 3)
    (layer(x) * weights).sum().backward()
    wanted = torch.zeros(50, 3)
    for threshold in layer.thresholds:
        z = (x.detach() - threshold).requires_grad_()
        (ACTIVATION_ESTIMATORS[name](z, 2.0) * weights).sum().backward()
        assert z.grad is not None
        wanted += z.grad
    assert x.grad is not None
    torch.testing.assert_close(x.grad, wanted)
    assert layer.shift is not None
    torch.testing.assert_close(layer.shift.grad, wanted.sum(0))


def test_stochastic_levels_have_the_mean_of_their_steps() -> None:
    torch.manual_seed(5)
    layer = bnn.Sign("stochastic", levels=3, spacing=0.5).train()
    for x in (-1.0, 0.0, 0.25, 0.8):
        drawn = layer(torch.full((20000,), x))
        assert set(drawn.unique().tolist()) <= {-3.0, -1.0, 1.0, 3.0}
        wanted = sum(min(max(x - t, -1.0), 1.0) for t in (-0.5, 0.0, 0.5))
        assert abs(float(drawn.mean()) - wanted) < 0.05


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"levels": 2}, "1, 3 or 7"),
        ({"levels": True}, "1, 3 or 7"),
        ({"levels": "3"}, "1, 3 or 7"),
        ({"levels": 3, "spacing": -0.1}, "spacing must be"),
        ({"levels": 3, "spacing": 0.0}, "spacing is 0.0"),
        ({"levels": 7, "spacing": float("nan")}, "spacing must be"),
        ({"spacing": 0.5}, "give levels=3"),
    ],
)
def test_wrong_levels_are_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        bnn.Sign(**options)


def test_plain_signs_are_recorded_as_ever() -> None:
    assert bnn.Sign().config() == {"estimator": "ste", "beta": 5.0, "num_features": None}
    assert bnn.Sign(levels=7).config()["spacing"] == 0.3
    assert repr(bnn.Sign(levels=3)) == "Sign(levels=3, spacing=0.6)"


@pytest.mark.parametrize("form", ["training", "release"])
def test_model_files_hold_levels(form: str, tmp_path: Path) -> None:
    model = random_levels_model(1)
    signs = [m.config() for m in model.modules() if isinstance(m, bnn.Sign)]
    assert any("levels" in config for config in signs)
    checkpoint.save(model, tmp_path / "m.pt", form=form)
    loaded = checkpoint.read(tmp_path / "m.pt").model
    assert [m.config() for m in loaded.modules() if isinstance(m, bnn.Sign)] == signs
    x = random_inputs(model, 16, 1)
    assert torch.equal(loaded.eval()(x), model(x))


# --- lowering -----------------------------------------------------------------------------------


def sums(*more: nn.Module) -> tuple[nn.Module, ...]:
    return (bnn.Input((1, 6, 6)), bnn.BinaryConv2d(1, 4, 3), *more)


def levels(k: int, *more: nn.Module) -> tuple[nn.Module, ...]:
    return sums(bnn.BatchNorm(4), bnn.Sign(levels=k), *more)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (levels(3, bnn.BinaryConv2d(4, 4, 3, padding=1, pad_value=-1)), "use pad_value=-3, 0 or 3"),
        (levels(1, bnn.BinaryConv2d(4, 4, 3, padding=1, pad_value=3)), "use pad_value=-1, 0 or 1"),
        (levels(3, bnn.Sign()), "follows another Sign"),
        (levels(3, bnn.Sign(levels=3)), "follows another Sign"),
        (levels(3, bnn.BatchNorm(4)), "follows a Sign"),
        (sums(bnn.BinaryConv2d(4, 4, 3)), "its input is not binary"),
        (sums(nn.ReLU(), nn.Flatten(), bnn.BinaryLinear(64, 2)), "its input is not binary"),
        (
            (bnn.Input((8,)), bnn.BinaryLinear(8, 4), bnn.BinaryLinear(4, 2)),
            "its input is not binary",
        ),
        (sums(nn.Flatten(), bnn.BinaryLinear(64, 2), bnn.BinaryLinear(2, 2)), "is not binary"),
        (
            (
                *(bnn.Input((8, 16, 16)), bnn.BinaryConv2d(8, 64, 3), nn.Flatten()),
                bnn.BinaryLinear(12544, 2),
            ),
            "float32 is exact only below",
        ),
    ],
)
def test_refusals_name_the_fix(layers: tuple[nn.Module, ...], reason: str) -> None:
    model = bnn.Sequential(*layers).eval()
    if layers[-1].__class__ is not bnn.BinaryLinear:
        with torch.no_grad():
            size = model(torch.zeros(1, *layers[0].shape)).flatten(1).shape[1]
        model = bnn.Sequential(*layers, nn.Flatten(), bnn.BatchNorm(size), bnn.Sign())
        model.append(bnn.BinaryLinear(size, 2))
    with pytest.raises(EdgebnnError, match=reason):
        lower(model.eval())


def test_pad_values_are_those_of_signs() -> None:
    with pytest.raises(ValueError, match="-3, 3, -7 or 7 behind a Sign"):
        bnn.BinaryConv2d(1, 1, 3, padding=1, pad_value=2)


class Fixed(nn.Module):
    """Sums that a head reads beside a norm, of an input whose 0 is another integer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.input = bnn.Input((2, 5, 5), bits=4, zero_point=5)
        self.conv = bnn.BinaryConv2d(2, 3, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = bnn.BinaryLinear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.pool(self.conv(self.input(x))).flatten(1))
        return scores


def test_integer_head_takes_the_zero_point_along(tmp_path: Path) -> None:
    """What an input's zero point takes from the sums of a channel is a part of each score."""
    model = Fixed().eval()
    network, _ = check_equal({0: model, 1: model}, tmp_path)[0]
    assert network.scores.offset.any()
    assert [type(op) for op in network.ops] == [Conv, MaxPool, Dense]
    assert isinstance(tensors(network)["pool1"], Sums)


@pytest.mark.parametrize("k", [3, 7])
def test_each_value_has_thresholds_of_its_own(k: int, tmp_path: Path) -> None:
    """Where the norm comes after Flatten, of sums and of the input."""
    torch.manual_seed(7)
    norms = [bnn.BatchNorm(64), bnn.BatchNorm(36)]
    for norm in norms:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.running_mean, std=9.0)
        nn.init.constant_(norm.running_var, 50.0)
    of_sums = sums(nn.Flatten(), norms[0], bnn.Sign(levels=k), bnn.BinaryLinear(64, 3))
    of_input = (bnn.Input((1, 6, 6), bits=5), nn.Flatten(), norms[1], bnn.Sign(levels=k))
    of_input = (*of_input, bnn.BinaryLinear(36, 3))
    models = [bnn.Sequential(*layers).eval() for layers in (of_sums, of_input)]
    for network, _ in check_equal(dict(enumerate(models)), tmp_path).values():
        (op,) = [op for op in network.ops if isinstance(op, Quantize)]
        assert op.minimum.shape == (k, *op.inverted.shape)
        assert op.inverted.ndim == 3
        assert op.inverted.any()


def test_thresholds_of_a_falling_norm_with_constant_steps(tmp_path: Path) -> None:
    """Some levels are never reached, some always, and those between on sums that fall."""
    norm = bnn.BatchNorm(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([-1.0, -1e-3, 1e-3, -20.0]))
        norm.bias.copy_(torch.tensor([0.0, 0.4, -0.4, 5.0]))
        norm.running_var.fill_(30.0**2)
    model = bnn.Sequential(
        *(bnn.Input((1, 6, 6), bits=3), bnn.BinaryConv2d(1, 4, 3), bnn.MaxPool2d(2), norm),
        *(bnn.Sign(levels=7), nn.Flatten(), bnn.BinaryLinear(16, 3)),
    ).eval()
    network, _ = check_equal({1: model}, tmp_path)[1]
    head = network.ops[0].head
    assert isinstance(head, Levels)
    assert (np.diff(head.min_dot, axis=0) >= 0).all()
    bound = 9 * 7
    assert (head.min_dot[:, 1] == np.repeat([-bound, bound + 1], [5, 2])).all()
    assert (head.min_dot[:, 2] == np.repeat([-bound, bound + 1], [2, 5])).all()


# --- networks by their notation -----------------------------------------------------------------


@pytest.mark.parametrize("head", ["sign", "integer"])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_styles_build_what_lowers(k: int, head: str) -> None:
    style = networks.Style(levels=k, head=head, pad_value=1, learned_shift=True)
    model = networks.build("5C3V-MP2-6C3-R3-MP2-7C3-D3-MP2", (1, 18, 18), 3, style)
    assert [m.levels for m in model.modules() if isinstance(m, bnn.Sign)] == [k] * (
        5 - (head == "integer")
    )
    last = model[-1]
    assert isinstance(last, bnn.OutputNorm)
    network = prove(model).network
    source = tensors(network)[network.ops[-1].source]
    # 7 channels of 2x2 pixels: sums of 3x3 values of k at most, or such values.
    assert last.bound == 28 * (9 * k if head == "integer" else k)
    assert isinstance(source, Sums if head == "integer" else Bits)
    pads = {op.pad_value for op in network.ops if isinstance(op, Conv) and any(op.padding)}
    assert pads == {k}


def test_bound_of_shortcuts_is_the_sum_of_both() -> None:
    style = networks.Style(levels=3, head="integer")
    model = networks.build("2C3V-4C3V-R3", (1, 6, 6), 2, style)
    assert model[-1].bound == 4 * 2 * 2 * (2 * 9 * 3 + 4 * 9 * 3)
    prove(model)


def test_spacing_reaches_every_sign() -> None:
    model = networks.build("4C3-8FC", (1, 6, 6), 2, networks.Style(levels=3, level_spacing=0.25))
    assert [m.spacing for m in model.modules() if isinstance(m, bnn.Sign)] == [0.25, 0.25]


@pytest.mark.parametrize("notation", ["16FC", "4C3-16FC", "MP2"])
def test_integer_heads_need_a_convolution(notation: str) -> None:
    with pytest.raises(EdgebnnError, match="set head=sign"):
        networks.build(notation, (1, 6, 6), 2, networks.Style(head="integer"))


def test_recipes_have_levels_and_heads() -> None:
    recipe = recipes.get_recipe("mnist-tiny-3k")
    assert (recipe.levels, recipe.head) == (1, "sign")
    changed = recipe.changed({"levels": 3, "head": "integer", "level_spacing": 0.5})
    assert changed.style.levels == 3
    assert changed.style.head == "integer"
    assert changed.style.level_spacing == 0.5
    assert {"levels", "head", "level_spacing"} <= set(changed.plain())
    assert not {"levels", "head", "level_spacing"} & set(recipe.plain())
    for wrong, reason in (
        ({"levels": 2}, "pick of: 1, 3, 7"),
        ({"head": "sums"}, "pick of: sign, integer"),
        ({"level_spacing": 0.5}, "set levels = 3"),
    ):
        with pytest.raises(EdgebnnError, match=reason):
            recipe.changed(wrong)
