"""What a recipe may ask of the training loop: teachers, stages, optimizers, rates, precision."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import assert_same_bits, interrupt_after, refusal
from torch import nn

import edgebnn
import edgebnn.nn as bnn
from edgebnn import checkpoint, reference
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.measure import integer_scores, to_device_layout
from edgebnn.train import Dataset, Event, Recipe, Started, get_recipe, load_dataset, train
from edgebnn.train.job import Job
from edgebnn.train.optimizers import LOSSES, make_optimizer, rate_factor

BASE = Recipe("base", "", "32C3-MP2-32FC", epochs=2, batch_size=64, loss="cross_entropy")
TAUGHT = replace(BASE, teacher="16C3-MP2-16FC", teacher_epochs=1)
OPTIONS: dict[str, dict[str, Any]] = {
    "teacher": {"teacher": "16C3-MP2-16FC", "teacher_epochs": 1},
    "regularizer": {"regularizer": "r1", "regularization": 0.1},
    "bop": {"optimizer": "bop"},
    "bop with a regularizer": {"optimizer": "bop", "regularizer": "r2"},
    "shift-adamax": {"optimizer": "shift-adamax", "learning_rate": 2**-6, "glorot_rates": True},
    "sgd": {"optimizer": "sgd", "schedule": "halving", "halve_every": 1},
    "two stages": {"stages": 2},
    "shift norm": {"norm": "shift", "schedule": "exponential"},
    "stochastic": {"sign": "stochastic", "weights": "stochastic", "dropout_input": 0.1},
    "trained": {"sign": "swish_trained", "learned_shift": True, "weights": "magnitude"},
    "polynomial": {"sign": "polynomial", "weights": "swish", "pad_value": 0},
    "augmented": {"augment_shift": 1, "augment_flip": True, "augment_rotate": 5.0},
    "bfloat16": {"precision": "bfloat16", "input_bits": 3},
    "preprocessed": {"image_size": 6, "whiten": "zca"},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "edgebnn" / "teachers"


@pytest.fixture(scope="module")
def few() -> Dataset:
    digits = load_dataset("digits")
    return replace(
        digits,
        train_images=digits.train_images[:360],
        train_labels=digits.train_labels[:360],
        test_images=digits.test_images[:100],
        test_labels=digits.test_labels[:100],
    )


def assert_exact(model: nn.Module, images: np.ndarray) -> None:
    """The integer network gives torch's scores."""
    network = lower(model.eval())
    scores = integer_scores(model, torch.from_numpy(images), network)
    assert np.array_equal(reference.run(network, to_device_layout(images)).scores, scores)


def noise(recipe: Recipe, count: int = 64) -> np.ndarray:
    size = recipe.image_size or 8
    rng = np.random.default_rng(0)
    return rng.integers(0, 2**recipe.input_bits, (count, 1, size, size), dtype=np.uint8)


@every_option
def test_resume_ends_with_the_same_bits(
    options: dict[str, Any], few: Dataset, tmp_path: Path
) -> None:
    recipe = replace(BASE, **options)
    whole = train(recipe, few, output=tmp_path / "whole.pt", seed=3)
    output = tmp_path / "parts.pt"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, few, output=output, seed=3, report=interrupt_after(1))
    saved = checkpoint.read(output)
    assert saved.training is not None
    assert saved.training["done_epochs"] == 1
    assert_exact(saved.model, noise(recipe))
    parts = train(recipe, few, output=output, seed=3, resume=True)
    assert_same_bits(whole.model, parts.model)
    assert whole.test_correct == parts.test_correct
    final = checkpoint.read(output)
    assert_exact(final.model, noise(recipe))
    checkpoint.save(final.model, tmp_path / "release.pt", form="release")
    assert_exact(edgebnn.load(tmp_path / "release.pt"), noise(recipe))
    again = train(recipe, few, output=None, seed=3)
    assert_same_bits(whole.model, again.model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("optimizer", "sgd"), ("sign", "swish"), ("augment_shift", 1), ("precision", "bfloat16")),
        *(("teacher", "16FC"), ("stages", 2), ("network", "32FC"), ("regularizer", "r1")),
    ],
)
def test_resume_refuses_other_settings(key: str, value: Any, few: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "m.pt"
    with pytest.raises(KeyboardInterrupt):
        train(BASE, few, output=output, report=interrupt_after(1))
    message = refusal(replace(BASE, **{key: value}), few, output=output, resume=True)
    assert f"recipe's {key} {getattr(BASE, key)}, not {value}; resume with the same" in message


def test_resume_refuses_settings_that_are_the_default_again(few: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "m.pt"
    with pytest.raises(KeyboardInterrupt):
        train(replace(BASE, augment_shift=1), few, output=output, report=interrupt_after(1))
    message = refusal(BASE, few, output=output, resume=True)
    assert "trained with recipe's augment_shift 1, not 0" in message


# --- teachers -----------------------------------------------------------------------------------


def runs(recipe: Recipe, data: Dataset, **options: Any) -> tuple[nn.Module, list[str]]:
    """The trained model, and what was trained for it."""
    events: list[Event] = []
    result = train(recipe, data, output=None, report=events.append, **options)
    return result.model, [event.recipe for event in events if isinstance(event, Started)]


def test_a_teacher_is_trained_once(few: Dataset, cache: Path) -> None:
    both = ["teacher 16C3-MP2-16FC", "base"]
    first, trained = runs(TAUGHT, few)
    assert trained == both
    (path,) = cache.iterdir()
    kept = path.read_bytes()
    second, trained = runs(TAUGHT, few)
    assert trained == ["base"]
    assert_same_bits(first, second)
    student = replace(TAUGHT, network="16FC", distillation=0.9, name="other")
    assert runs(student, few)[1] == ["other"]
    assert runs(TAUGHT, few, seed=1)[1] == both
    assert runs(replace(TAUGHT, teacher_epochs=2), few)[1] == both
    assert runs(replace(TAUGHT, input_bits=4), few)[1] == both
    assert len(list(cache.iterdir())) == 4
    assert path.read_bytes() == kept


@pytest.mark.parametrize("damage", ["empty", "short", "flip", "text", "code", "other", "folder"])
def test_a_damaged_teacher_is_trained_again(damage: str, few: Dataset, cache: Path) -> None:
    whole, _ = runs(TAUGHT, few)
    (path,) = cache.iterdir()
    content = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "short":
            path.write_bytes(content[: len(content) // 2])
        case "flip":
            middle = len(content) // 2
            path.write_bytes(content[:middle] + b"\x55\xaa" + content[middle + 2 :])
        case "text":
            path.write_text("no model")
        case "code":
            torch.save(nn.Linear(2, 2), path)
        case "other":
            torch.save({"weight": torch.zeros(3)}, path)
        case _:
            path.unlink()
            path.mkdir()
    again, trained = runs(TAUGHT, few)
    assert len(trained) == 2
    assert_same_bits(whole, again)
    if damage != "folder":  # which stays: nothing of the user's is deleted
        assert runs(TAUGHT, few)[1] == ["base"]


def test_a_cache_that_cannot_be_written_only_costs_time(few: Dataset, cache: Path) -> None:
    cache.parent.parent.joinpath("edgebnn").write_text("in the way")
    assert len(runs(TAUGHT, few)[1]) == 2
    assert len(runs(TAUGHT, few)[1]) == 2


def test_the_teacher_teaches(few: Dataset, cache: Path) -> None:
    alone, _ = runs(BASE, few)
    unheard, _ = runs(replace(TAUGHT, distillation=0.0), few)
    assert_same_bits(alone, unheard)
    taught, _ = runs(replace(TAUGHT, distillation=1.0), few)
    assert any(
        not torch.equal(a, b) for a, b in zip(alone.parameters(), taught.parameters(), strict=True)
    )


def test_a_float_twin_has_no_file(few: Dataset, tmp_path: Path) -> None:
    twin = replace(BASE, binary=False)
    assert "float twin has no model file" in refusal(twin, few, output=tmp_path / "m.pt")
    assert not list(tmp_path.iterdir())
    result = train(twin, few, output=None)
    assert result.output is None
    assert not any(isinstance(m, bnn.BinaryLinear | bnn.Sign) for m in result.model.modules())


# --- stages, precision, randomness --------------------------------------------------------------


def test_the_first_stage_has_real_weights(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    step = Job._step

    def watched(job: Any, *arguments: Any) -> Any:
        layers = [m for m in job.model.modules() if isinstance(m, bnn.BinaryLinear)]
        seen.append(all(layer.real_weights and layer.training for layer in layers))
        return step(job, *arguments)

    monkeypatch.setattr(Job, "_step", watched)
    recipe = replace(BASE, stages=2, epochs=4)
    output = tmp_path / "m.pt"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, few, output=output, report=interrupt_after(1))
    half_way = checkpoint.read(output).model
    assert_exact(half_way, noise(recipe))  # in mid-stage, evaluated with signs
    result = train(recipe, few, output=output, resume=True)
    assert seen == (len(seen) // 2) * [True] + (len(seen) // 2) * [False]
    assert not any(getattr(m, "real_weights", False) for m in result.model.modules())
    only = train(recipe, few, output=None, epochs=1)
    assert not any(getattr(m, "real_weights", False) for m in only.model.modules())


def test_real_weights_are_for_training_alone() -> None:
    layer = bnn.BinaryLinear(5, 3)
    x = torch.tensor([[1.0, -1.0, 1.0, 1.0, -1.0]])
    bnn.use_real_weights(layer, True)
    assert torch.equal(layer(x), x @ layer.latent_weight.T)
    signs = bnn.sign(layer.latent_weight)
    assert torch.equal(layer.eval()(x), x @ signs.T)
    bnn.use_real_weights(layer, False)
    assert torch.equal(layer.train()(x), x @ signs.T)


def test_bfloat16_trains_a_model_of_float32(few: Dataset, tmp_path: Path) -> None:
    recipe = replace(BASE, precision="bfloat16", epochs=4)
    result = train(recipe, few, output=tmp_path / "m.pt")
    assert result.test_accuracy > 0.5
    for name, value in checkpoint.load(tmp_path / "m.pt").state_dict().items():
        assert value.dtype in (torch.float32, torch.int64), name
    assert_exact(result.model, few.test_images)
    other = train(replace(recipe, precision="float32"), few, output=None)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(result.model.parameters(), other.model.parameters(), strict=True)
    )


@pytest.mark.parametrize("options", [{"sign": "stochastic"}, {"weights": "stochastic"}])
def test_stochastic_signs_are_random_in_training_alone(options: dict[str, str]) -> None:
    torch.manual_seed(0)
    model = replace(BASE, **options).build((1, 8, 8), 10)
    plain = BASE.build((1, 8, 8), 10)
    plain.load_state_dict(model.state_dict())
    images = torch.from_numpy(noise(BASE))
    assert not torch.equal(model(images), model(images))
    plain.load_state_dict(model.state_dict())
    model.eval()
    state = torch.get_rng_state()
    assert torch.equal(model(images), model(images))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model(images), plain.eval()(images))  # the sign, deterministically


# --- rates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "start", "middle", "end"),
    [
        ("cosine", 1.0, 0.5, 0.0),
        ("exponential", 1.0, 0.1, 0.01),
        ("halving", 1.0, 0.5, 0.5),
        ("constant", 1.0, 1.0, 1.0),
    ],
)
@pytest.mark.parametrize("glorot", [False, True])
def test_rates_of_a_run(
    schedule: str,
    start: float,
    middle: float,
    end: float,
    glorot: bool,
    few: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = replace(
        BASE,
        network="32FC",
        schedule=schedule,
        final_rate=1e-4,
        halve_every=1,
        batch_size=6,
        glorot_rates=glorot,
    )
    rates: list[list[float]] = []
    scale: Callable[..., None] = bnn.scale_rates

    def watched(optimizer: torch.optim.Optimizer, factor: float) -> None:
        scale(optimizer, factor)
        rates.append([group["lr"] for group in optimizer.param_groups])

    monkeypatch.setattr(bnn, "scale_rates", watched)
    train(recipe, few, output=None, validation=0)
    assert len(rates) == 2 * 60
    layers = (1.0,)
    if glorot:
        layers = (math.sqrt((64 + 32) / 1.5), math.sqrt((32 + 10) / 1.5), 1.0)
    last = rate_factor(recipe, 119, 120)  # one step before the end, which no step has
    assert last == pytest.approx(end, abs=0.01)
    for step, factor in ((0, start), (60, middle), (119, last)):
        assert rates[step] == pytest.approx([1e-2 * factor * gamma for gamma in layers])


def test_each_stage_has_its_own_schedule() -> None:
    recipe = replace(BASE, stages=2)
    factors = [rate_factor(recipe, step, 101) for step in range(101)]
    assert factors[0] == factors[50] == 1.0
    assert factors[25] == pytest.approx(0.5)
    assert factors[49] < 0.01
    assert factors[100] < 0.01
    assert rate_factor(recipe, 0, 1) == 1.0


def test_published_rates_are_reached() -> None:
    recipe = get_recipe("mnist-paper-theano")
    ends = [recipe.learning_rate * rate_factor(recipe, step, 500) for step in (0, 500)]
    assert ends == pytest.approx([0.003, 3e-7])
    recipe = get_recipe("mnist-paper-torch7")
    factors = [rate_factor(recipe, step, 200) for step in (0, 19, 20, 39, 40, 199)]
    assert factors == [1.0, 1.0, 0.5, 0.5, 0.25, 2.0**-9]


def test_regularizer_is_given_to_the_optimizer() -> None:
    for options in OPTIONS.values():
        recipe = replace(BASE, **{**options, "regularizer": "r1"})
        model = recipe.build((1, 8, 8), 10)
        regularizer = bnn.ScaleRegularizer(model)
        optimizer = make_optimizer(model, recipe, regularizer)
        given = [id(p) for group in optimizer.param_groups for p in group["params"]]
        wanted = [id(p) for p in (*model.parameters(), *regularizer.parameters())]
        assert sorted(given) == sorted(wanted)


# --- traps of published implementations ---------------------------------------------------------


@pytest.mark.parametrize("estimator", ["ste", "swish", "swish_trained", "polynomial"])
def test_the_sign_of_zero_is_one(estimator: str) -> None:
    zeros = torch.tensor([[0.0, -0.0]])
    layer = bnn.Sign(estimator)
    for mode in (True, False):
        assert layer.train(mode)(zeros).tolist() == [[1.0, 1.0]]
    assert bnn.Sign("stochastic").eval()(zeros).tolist() == [[1.0, 1.0]]


def test_stochastic_weights_are_signs() -> None:
    torch.manual_seed(0)
    layer = bnn.BinaryLinear(1000, 50, estimator="stochastic")
    with torch.no_grad():
        layer.latent_weight.fill_(0.5)
        layer.latent_weight[:, 0], layer.latent_weight[:, 1] = 1.0, -1.0
    weights = layer(torch.eye(1000)).T
    assert set(weights.unique().tolist()) == {-1.0, 1.0}
    assert torch.all(weights[:, 0] == 1.0)
    assert torch.all(weights[:, 1] == -1.0)
    assert float((weights[:, 2:] > 0).float().mean()) == pytest.approx(0.75, abs=0.01)
    assert torch.equal(layer.eval()(torch.eye(1000)).T, bnn.sign(layer.latent_weight))


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "shift-adamax"])
def test_a_step_clips_weights_and_not_biases(optimizer: str) -> None:
    torch.manual_seed(0)
    recipe = replace(BASE, optimizer=optimizer, learning_rate=100.0)
    model = recipe.build((1, 8, 8), 10)
    stepper = make_optimizer(model, recipe)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    stepper.step()
    for name, parameter in model.named_parameters():
        largest = float(parameter.detach().abs().max())
        assert largest == 1.0 if name.endswith("latent_weight") else largest > 10.0, name


@pytest.mark.parametrize("glorot", [False, True])
def test_adamax_forgets_large_gradients_as_the_recipe_says(glorot: bool) -> None:
    recipe = replace(BASE, optimizer="shift-adamax", glorot_rates=glorot)
    model = recipe.build((1, 8, 8), 10)
    published = make_optimizer(model, recipe)
    assert {group["betas"] for group in published.param_groups} == {(1 - 2**-3, 1 - 2**-10)}
    stepper = make_optimizer(model, replace(recipe, adamax_beta2=0.25))
    for gradient in (8.0, 1.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        stepper.step()
    for parameter in model.parameters():
        assert torch.all(stepper.state[parameter]["max_norm"] == 0.25 * 8.0)
    with pytest.raises(EdgebnnError, match=r"adamax_beta2 is 1\.0; give 0 to 0\.999999"):
        replace(recipe, adamax_beta2=1.0)


@pytest.mark.parametrize(
    "norm", [bnn.BatchNorm, bnn.OutputNorm, bnn.ShiftBatchNorm, bnn.ShiftOutputNorm]
)
def test_running_variance_begins_at_one(norm: type[bnn.BatchNorm]) -> None:
    assert norm(3).running_var.tolist() == [1.0, 1.0, 1.0]
    assert norm(3).running_mean.tolist() == [0.0, 0.0, 0.0]


def test_the_hinge_is_squared() -> None:
    logits = torch.tensor([[3.0, -1.0, 0.5]])
    assert bnn.square_hinge(logits, torch.tensor([0])).item() == pytest.approx(1.5**2 / 3)
    assert bnn.square_hinge(logits, torch.tensor([1])).item() == pytest.approx(
        (4.0**2 + 2.0**2 + 1.5**2) / 3
    )
    assert LOSSES["square_hinge"] is bnn.square_hinge
