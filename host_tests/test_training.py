"""Training: repeats to the bit, resumes to the bit, learns, and says what it refuses."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgebnn.nn as bnn
from edgebnn import checkpoint
from edgebnn.errors import EdgebnnError
from edgebnn.train import (
    Batch,
    Dataset,
    Epoch,
    Event,
    Finished,
    Recipe,
    Started,
    evaluate,
    get_recipe,
    load_dataset,
    recalibrate,
    step_ratio,
    train,
)
from edgebnn.train.augment import augment
from edgebnn.train.processes import keep_memory, permutation, stream
from edgebnn.train.twin import float_twin

MLP = get_recipe("mlp-16k")


SMALL = Recipe(
    "small",
    "every kind of layer, dropout included, to show what is random",
    "32C3-MP2",
    dropout_hidden=0.2,
    epochs=3,
    batch_size=64,
    input_bits=4,
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_bits(first: nn.Module, second: nn.Module) -> None:
    one, other = state(first), state(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_digits_are_learned(digits: Dataset, tmp_path: Path) -> None:
    events: list[Event] = []
    result = train(MLP, digits, output=tmp_path / "m.pt", epochs=25, report=events.append)
    assert result.test_accuracy > 0.95
    assert result.test_images == len(digits.test_images)
    assert not result.model.training

    assert isinstance(events[0], Started)
    assert events[0].weight_bits == 64 * 128 + 128 * 128 + 128 * 10
    assert events[0].train_images + events[0].validation_images == len(digits.train_images)
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert [event.epoch for event in epochs] == list(range(1, 26))
    assert epochs[-1].loss < epochs[0].loss
    batches = [event for event in events if isinstance(event, Batch) and event.epoch == 25]
    assert batches[-1].step == batches[-1].steps == events[0].steps_per_epoch
    assert isinstance(events[-1], Finished)
    assert events[-1].test_accuracy == result.test_accuracy

    saved = checkpoint.read(tmp_path / "m.pt")
    assert saved.metadata.test_accuracy == result.test_accuracy
    assert saved.metadata.dataset == "digits"
    assert saved.metadata.class_names == digits.class_names
    assert saved.metadata.recipe["name"] == "mlp-16k"
    assert_same_bits(saved.model, result.model)
    images, labels = torch.from_numpy(digits.test_images), torch.from_numpy(digits.test_labels)
    assert evaluate(saved.model, images, labels) == result.test_correct


@pytest.mark.parametrize("recipe", [replace(MLP, epochs=3), SMALL], ids=lambda r: r.name)
def test_a_seed_repeats_to_the_bit(recipe: Recipe, digits: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train(recipe, digits, output=tmp_path / "a.pt", seed=7)
    torch.manual_seed(2)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    second = train(recipe, digits, output=tmp_path / "b.pt", seed=7)
    assert torch.equal(torch.rand(1), drawn)  # the caller's generator is left alone
    assert_same_bits(first.model, second.model)
    assert first.test_correct == second.test_correct
    other = train(recipe, digits, output=tmp_path / "c.pt", seed=8)
    assert any(
        not torch.equal(value, state(other.model)[name])
        for name, value in state(first.model).items()
    )


def interrupt_after(epoch: int, batch: bool = False) -> object:
    def report(event: Event) -> None:
        if batch and isinstance(event, Batch) and event.epoch == epoch + 1:
            raise KeyboardInterrupt
        if not batch and isinstance(event, Epoch) and event.epoch == epoch:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize("recipe", [replace(MLP, epochs=3), SMALL], ids=lambda r: r.name)
@pytest.mark.parametrize(("epoch", "batch"), [(1, False), (2, True), (3, False)])
def test_resume_ends_with_the_same_bits(
    recipe: Recipe, epoch: int, batch: bool, digits: Dataset, tmp_path: Path
) -> None:
    whole = train(recipe, digits, output=tmp_path / "whole.pt", seed=3)
    output = tmp_path / "parts.pt"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, digits, output=output, seed=3, report=interrupt_after(epoch, batch))
    saved = checkpoint.read(output)
    assert saved.training is not None
    assert saved.training["done_epochs"] == epoch
    assert saved.metadata.test_accuracy is None
    events: list[Event] = []
    parts = train(recipe, digits, output=output, seed=3, resume=True, report=events.append)
    assert isinstance(events[0], Started)
    assert events[0].done_epochs == epoch
    assert_same_bits(whole.model, parts.model)
    assert whole.test_correct == parts.test_correct


def test_resume_takes_the_epochs_it_was_started_with(digits: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "m.pt"
    with pytest.raises(KeyboardInterrupt):
        train(MLP, digits, output=output, epochs=2, report=interrupt_after(1))
    assert train(MLP, digits, output=output, resume=True).epochs == 2


def refusal(*args: object, **options: object) -> str:
    with pytest.raises(EdgebnnError) as caught:
        train(*args, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_resume_refuses_another_run(digits: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "m.pt"
    with pytest.raises(KeyboardInterrupt):
        train(MLP, digits, output=output, epochs=2, report=interrupt_after(1))
    again = {"output": output, "resume": True}
    content = output.read_bytes()
    assert "recipe mlp-16k, not mlp-32k" in refusal(get_recipe("mlp-32k"), digits, **again)
    assert "seed 0, not 1" in refusal(MLP, digits, seed=1, **again)
    assert "epochs 2, not 5" in refusal(MLP, digits, epochs=5, **again)
    assert "recipe's batch_size" in refusal(replace(MLP, batch_size=32), digits, **again)
    assert "validation" in refusal(MLP, digits, validation=10, **again)
    other = replace(digits, train_images=digits.train_images[::-1].copy())
    assert "data set" in refusal(MLP, other, **again)
    assert output.read_bytes() == content

    train(MLP, digits, **again)  # type: ignore[arg-type]
    assert "is finished" in refusal(MLP, digits, **again)
    assert "no such file" in refusal(MLP, digits, output=tmp_path / "none.pt", resume=True)
    model = checkpoint.load(output)
    checkpoint.save(model, output, form="release")
    assert "no training state" in refusal(MLP, digits, **again)


def test_what_train_refuses(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no folder" in refusal(MLP, digits, output=tmp_path / "none" / "m.pt")
    assert "is a folder" in refusal(MLP, digits, output=tmp_path)
    assert "leave some" in refusal(MLP, digits, output=tmp_path / "m.pt", validation=10**6)
    assert "no epochs" in refusal(MLP, digits, output=tmp_path / "m.pt", epochs=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cpu" in refusal(MLP, digits, output=tmp_path / "m.pt", device="cuda")
    assert not list(tmp_path.iterdir())
    with pytest.raises(EdgebnnError, match="unknown recipe 'x'"):
        get_recipe("x")


def test_latent_weights_stay_in_bounds(digits: Dataset, tmp_path: Path) -> None:
    result = train(replace(MLP, learning_rate=0.5), digits, output=tmp_path / "m.pt", epochs=1)
    weights = [v for name, v in state(result.model).items() if name.endswith("latent_weight")]
    assert len(weights) == 3
    assert all(weight.abs().max() == 1 for weight in weights)


def test_tiny_sets_train_without_validation(tmp_path: Path) -> None:
    images = np.arange(6 * 64, dtype=np.uint8).reshape(6, 1, 8, 8)
    labels = np.array([0, 1] * 3)
    data = Dataset("tiny", images, labels, images, labels, ("a", "b"))
    result = train(MLP, data, output=tmp_path / "m.pt", epochs=2, validation=0)
    assert result.validation_accuracy is None
    assert result.test_images == 6


def test_cross_entropy(digits: Dataset, tmp_path: Path) -> None:
    recipe = replace(MLP, loss="cross_entropy")
    assert train(recipe, digits, output=tmp_path / "m.pt", epochs=10).test_accuracy > 0.9


def test_recalibration_is_the_plain_average() -> None:
    torch.manual_seed(0)
    model = bnn.Sequential(
        bnn.Input((4,)), bnn.Dropout(0.5), bnn.BinaryLinear(4, 3), bnn.OutputNorm(3)
    )
    images = torch.randint(0, 256, (70, 4), dtype=torch.uint8)
    recalibrate(model, images, batch_size=20)
    norm = model[3]
    sums = model[2](images[:60].float()).reshape(3, 20, 3)
    assert torch.allclose(norm.running_mean, sums.mean(1).mean(0))
    assert torch.allclose(norm.running_var, sums.var(1).mean(0))
    assert norm.momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_recalibration_takes_batches_and_their_labels() -> None:
    torch.manual_seed(0)
    hidden = (bnn.BinaryLinear(4, 8), bnn.BatchNorm(8), bnn.Sign())
    model = bnn.Sequential(bnn.Input((4,)), *hidden, bnn.BinaryLinear(8, 3), bnn.OutputNorm(3))
    images = torch.randint(0, 256, (60, 4), dtype=torch.uint8)
    bnn.recalibrate(model, images, batch_size=20)
    expected = state(model)
    assert not torch.equal(expected["2.running_mean"], torch.zeros(8))
    data = torch.utils.data.TensorDataset(images, torch.zeros(60))
    for batches in (images.split(20), torch.utils.data.DataLoader(data, batch_size=20)):
        bnn.recalibrate(model.train(), batches)
        assert not any(module.training for module in model.modules())
        for name, value in state(model).items():
            assert torch.equal(value, expected[name]) or name.endswith("tracked")
    for nothing in (images[:0], []):
        with pytest.raises(EdgebnnError, match="no images"):
            bnn.recalibrate(model, nothing)


def test_last_norms_measure_changed_images(digits: Dataset) -> None:
    """As the last weights saw them; in an order and by changes that follow from the seed."""
    recipe = replace(MLP, augment_shift=2)
    model = train(recipe, digits, output=None, epochs=1, seed=3, validation=0).model
    images = torch.from_numpy(digits.train_images)
    images = images[permutation(len(images), 3, "recalibrate")]
    size = recipe.batch_size
    whole = [images[n : n + size] for n in range(0, len(images) - size + 1, size)]
    torch.manual_seed(stream(3, "changes"))
    changed = [augment(batch, recipe.augmentation) for batch in whole]
    found, again = state(model), []
    for batches in (changed, whole):
        bnn.recalibrate(model, batches)
        again.append(
            all(
                torch.equal(value, found[name])
                for name, value in state(model).items()
                if "running" in name
            )
        )
    assert again == [True, False]


def test_conv_refuses_images_that_are_too_small() -> None:
    with pytest.raises(EdgebnnError, match="does not fit into 1x2; the images are too"):
        get_recipe("conv-16k").build((1, 8, 7), 10)


@pytest.mark.parametrize("name", ["mlp-32k", "conv-16k", "mnist-tiny-3k", "fashion-8k"])
@pytest.mark.parametrize("activation", [nn.Hardtanh, nn.ReLU])
def test_float_twin_has_the_same_shapes(name: str, activation: type[nn.Module]) -> None:
    model = get_recipe(name).build((1, 28, 28), 10)
    twin = float_twin(model, activation)
    assert any(isinstance(module, activation) for module in twin.modules())
    assert not any(
        isinstance(module, bnn.BinaryLinear | bnn.BinaryConv2d | bnn.Sign | bnn.BatchNorm)
        for module in twin.modules()
    )
    count = [sum(p.numel() for p in net.parameters()) for net in (model, twin)]
    assert count[0] == count[1]
    assert twin(torch.zeros((2, 1, 28, 28), dtype=torch.uint8)).shape == (2, 10)


def test_step_ratio_measures() -> None:
    result = step_ratio(MLP, (1, 8, 8), rounds=5, warmup=1)
    assert result.rounds == 5
    assert 0 < result.ratio < 20
    assert result.binary_seconds > 0 < result.float_seconds


def test_keep_memory_may_be_called_again() -> None:
    keep_memory()
    keep_memory()


_TWO_PROCESSES = """
import hashlib, json, os, sys
from pathlib import Path
import torch
from edgebnn.train import get_recipe, load_dataset, train

events = []
result = train(get_recipe("mlp-16k"), load_dataset("digits"), output=Path(sys.argv[1]) / "m.pt",
               epochs=12, device="cpu", report=events.append)
digest = hashlib.sha256()
for value in result.model.state_dict().values():
    digest.update(value.numpy().tobytes())
rank = os.environ["RANK"]
summary = [digest.hexdigest(), result.test_correct, result.test_images, len(events)]
(Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(summary))
assert not torch.distributed.is_initialized()
"""


def test_two_processes_end_with_one_model(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_TWO_PROCESSES)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    run = subprocess.run(
        [*launcher, "--nproc-per-node", "2", str(script), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first[:3] == second[:3]
    assert first[1] / first[2] > 0.85
    assert first[3] > 0
    assert second[3] == 0  # rank 0 alone reports
    saved = checkpoint.read(tmp_path / "m.pt")
    assert saved.metadata.test_accuracy == first[1] / first[2]
