"""Eval mode keeps its promises: integers in, exact sums under autocast and on every backend."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_inputs, random_model, random_residual_model
from test_model_files import plain
from torch import Tensor, nn
from torch.nn import functional as F

import edgebnn
import edgebnn.nn as bnn
from edgebnn import measure
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.measure import integer_scores

# --- what Input takes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "values", "reason"),
    [
        (8, [0.0, 0.5, 1.0], "fractions from 0 to 1; give 0 to 255: multiply by 255 and round"),
        (4, [0.0, 0.5, 0.25], "give 0 to 15: multiply by 15 and round"),
        (8, [-1.5, 0.0, 2.0], "before mean and deviation, which the first norm learns"),
        (8, [-1, 0, 2], "integers from -1 to 2; give what comes before mean"),
        (4, [0, 16, 255], "shift 8-bit values right by 4"),
        (1, [0, 1, 2], "shift 8-bit values right by 7"),
        (8, [0, 1, 256], "integers from 0 to 256; round or scale"),
        (8, [0.0, 100.5, 200.0], "fractions from 0 to 200; round or scale"),
        (8, [0.0, 1.0, float("nan")], "NaN or infinity"),
        (8, [0.0, 1.0, float("inf")], "NaN or infinity"),
        (8, [0.0, 1.0, 1.0 + 2.0**-23], "fractions"),
        (8, [0j, 1j, 2.0], "torch.complex64"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_other_values_than_integers_of_the_range_are_refused(
    bits: int, values: list[Any], reason: str, training: bool
) -> None:
    layer = bnn.Input((3,), bits=bits).train(training)
    with pytest.raises(EdgebnnError) as caught:
        layer(torch.tensor([values]))
    assert str(caught.value).startswith(f"Input takes integers from 0 to {2**bits - 1}, not ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.float32, torch.float64]
)
@pytest.mark.parametrize("bits", range(1, 9))
def test_integers_of_the_range_pass(dtype: torch.dtype, bits: int) -> None:
    values = torch.arange(2**bits).reshape(1, -1)
    result = bnn.Input((2**bits,), bits=bits).eval()(values.to(dtype))
    assert result.dtype == torch.float32
    assert torch.equal(result, values.float())


def test_booleans_are_integers_and_nothing_is_fine() -> None:
    layer = bnn.Input((2,), bits=1).eval()
    assert torch.equal(layer(torch.tensor([[True, False]])), torch.tensor([[1.0, 0.0]]))
    assert layer(torch.empty(0, 2)).shape == (0, 2)


def test_training_checks_the_first_batch_alone() -> None:
    """Later batches come from where the first one did; eval mode looks at each."""
    layer = bnn.Input((2,))
    layer(torch.tensor([[0, 255]]))
    layer(torch.tensor([[0.5, 0.5]]))
    with pytest.raises(EdgebnnError, match="multiply by 255"):
        layer.eval()(torch.tensor([[0.5, 0.5]]))
    with pytest.raises(EdgebnnError, match="multiply by 255"):
        bnn.Input((2,))(torch.tensor([[0.5, 0.5]]))


def test_a_refused_batch_is_not_the_first_one() -> None:
    layer = bnn.Input((2,))
    for _ in range(2):
        with pytest.raises(EdgebnnError):
            layer(torch.tensor([[0.5, 0.5]]))


# --- exact whatever computes it -------------------------------------------------------------------


def deep(channels: int) -> nn.Module:
    """8-bit inputs of many channels, whose sums take 20 bits."""
    torch.manual_seed(5)
    return bnn.Sequential(
        bnn.Input((channels, 12, 12), bits=8),
        bnn.BinaryConv2d(channels, 8, 3, padding=1),
        bnn.BatchNorm(8),
        bnn.Sign(),
        bnn.Flatten(),
        bnn.BinaryLinear(8 * 144, 4),
        bnn.OutputNorm(4),
    ).eval()


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("nnpack", [True, False])
@pytest.mark.parametrize("channels", [1, 64, 512])
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # what the flag itself says
def test_sums_are_exact_on_every_backend(onednn: bool, nnpack: bool, channels: int) -> None:
    layer = deep(channels)[1]
    generator = torch.Generator().manual_seed(channels)
    x = torch.randint(0, 256, (16, channels, 12, 12), generator=generator).float()
    x[1::2] = (x[1::2] > 127) * 255.0
    weight = torch.where(layer.latent_weight >= 0, 1.0, -1.0).double()
    expected = F.conv2d(x.double(), weight, padding=1)
    with (
        torch.no_grad(),
        torch.backends.mkldnn.flags(enabled=onednn),
        torch.backends.nnpack.flags(enabled=nnpack),
    ):
        assert torch.equal(layer(x).double(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(12))
def test_eval_mode_is_exact_under_autocast(seed: int, dtype: torch.dtype) -> None:
    model = random_model(seed) if seed % 2 else random_residual_model(seed)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.PReLU):  # torch's own, which autocast takes to half precision
            parent, _, child = name.rpartition(".")
            setattr(
                model.get_submodule(parent), child, nn.LeakyReLU(float(module.weight[0].detach()))
            )
    inputs = random_inputs(model, 24, seed)
    network = lower(model)
    expected = integer_scores(model, inputs, network)
    with torch.autocast("cpu", dtype=dtype):
        np.testing.assert_array_equal(integer_scores(model, inputs, network), expected)


def test_autocast_within_a_forward_is_left_in_eval_mode(tmp_path: Path) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = deep(64)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                result: Tensor = self.net(x)
            return result

    edgebnn.save(Half(), tmp_path / "model.pt")
    loaded = edgebnn.load(tmp_path / "model.pt")
    inputs = random_inputs(loaded, 24, 1)
    network = lower(loaded)
    np.testing.assert_array_equal(
        integer_scores(Half().eval(), inputs, network), integer_scores(loaded, inputs, network)
    )


def test_training_under_autocast_is_still_in_half_precision() -> None:
    """Eval mode alone pays for exactness."""
    layer = bnn.BinaryConv2d(1, 2, 3)
    x = torch.ones(1, 1, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.train()(x).dtype == torch.bfloat16
        assert layer.eval()(x).dtype == torch.float32


# --- what a file says of its accuracy -------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "correct", "count"),
    [(None, 3, 7), (0.8875, 8875, 10000), (2 / 3, 2, 3), (0.6667, 2, 3), (1.0, 5, 5), (0.0, 0, 9)],
)
def test_accuracies_that_agree(recorded: float | None, correct: int, count: int) -> None:
    measure.check_accuracy(recorded, correct, count)


@pytest.mark.parametrize(
    ("recorded", "correct", "count"),
    [
        (0.9130, 8245, 10000),
        (0.8875, 8874, 10000),
        (0.67, 2, 3),
        (1.0, 9999, 10000),
        (0.6666, 2, 3),
    ],
)
def test_accuracies_that_differ(recorded: float, correct: int, count: int) -> None:
    with pytest.raises(EdgebnnError, match=f"{correct} of {count} test inputs"):
        measure.check_accuracy(recorded, correct, count)


@pytest.mark.parametrize("accuracy", [-0.01, 1.01, 97.5, float("nan"), "high"])
def test_an_accuracy_is_a_fraction(accuracy: Any, tmp_path: Path) -> None:
    with pytest.raises(EdgebnnError, match="give a fraction, as"):
        edgebnn.save(deep(1), tmp_path / "model.pt", test_accuracy=accuracy)
    assert not list(tmp_path.iterdir())


def test_numpy_scalars_and_paths_become_plain(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    edgebnn.save(
        deep(1),
        path,
        test_accuracy=np.float64(0.5),
        right_shift=np.int64(0),  # type: ignore[arg-type]
        seed=np.int64(3),  # type: ignore[arg-type]
        class_names=[np.str_(name) for name in "abcd"],
        recipe={"rate": np.float32(0.25), "data": Path("set"), "epochs": np.int32(4)},  # type: ignore[dict-item]
    )
    found = edgebnn.read(path).metadata
    assert (found.test_accuracy, found.seed, found.class_names) == (0.5, 3, ("a", "b", "c", "d"))
    assert found.recipe == {"rate": 0.25, "data": "set", "epochs": 4}
    assert type(plain(path)["metadata"]["seed"]) is int


def test_metadata_that_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgebnnError, match="recipe's layers is a list"):
        edgebnn.save(deep(1), tmp_path / "model.pt", recipe={"layers": [1, 2]})  # type: ignore[dict-item]
    assert not list(tmp_path.iterdir())
