"""1-D convolutions and pools over signals: torch = oracle = C, files, traces and refusals."""

from collections import Counter
from pathlib import Path
from typing import Any

import batches
import numpy as np
import pytest
import torch
from networks import random_inputs, random_signal_model
from test_cli import mistake, output_here
from test_equality import check_equal, device_inputs
from test_model_files import plain, refusal
from torch import nn
from torch.nn import functional as F

import edgebnn
import edgebnn.nn as bnn
from edgebnn import api, reference
from edgebnn.cli.train import _taken
from edgebnn.codegen import c
from edgebnn.data import load_dataset
from edgebnn.device import build, simavr, unicorn
from edgebnn.ir import Conv, DepthwiseConv, Ints, sha256
from edgebnn.lower import lower
from edgebnn.nn.weights import BinaryConv
from edgebnn.plan import plan
from edgebnn.targets import get_target
from edgebnn.train import get_recipe, networks
from edgebnn.train.augment import Augmentation, augment
from edgebnn.train.twin import float_twin

NETWORKS = 100
PADDINGS = (0, 2, (3, 1), (0, 2), "same", "causal")


# --- random networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("start", range(0, NETWORKS, 20))
def test_random_networks(start: int, tmp_path: Path) -> None:
    check_equal({seed: random_signal_model(seed) for seed in range(start, start + 20)}, tmp_path)


def test_random_networks_are_various() -> None:
    seen: Counter[Any] = Counter()
    for seed in range(NETWORKS):
        model = random_signal_model(seed)
        for module in model.modules():
            if isinstance(module, bnn.BinaryConv1d):
                padding = module.padding
                seen["two sides" if isinstance(padding, tuple) else padding] += 1
                seen["stride"] += module.stride != (1,)
                seen["bias"] += module.bias is not None
            seen[type(module)] += 1
        for op in lower(model).ops:
            if isinstance(op, Conv | DepthwiseConv):
                source = "input" if op.source == "input" else "bits"
                seen[type(op), source] += 1
                assert op.weights.shape[-2] == 1
                assert op.padding[2:] == (0, 0)
                if any(op.padding):
                    seen["pads", op.pad_value if source == "bits" else "input"] += 1
    wanted = ["two sides", "same", "causal", "stride", "bias", bnn.MaxPool1d, bnn.Residual]
    wanted += [bnn.BinaryLinear, bnn.ShiftBatchNorm, bnn.Scale, bnn.PReLU]
    wanted += [(op, source) for op in (Conv, DepthwiseConv) for source in ("input", "bits")]
    wanted += [("pads", value) for value in (-1, 0, 1, "input")]
    assert min(seen[what] for what in wanted) >= 5, seen


@pytest.mark.parametrize("name", ["cortex-m0", "cortex-m4"])
def test_emulated_cpus_are_equal(name: str, tmp_path: Path) -> None:
    target, given = get_target(name), {}
    for seed in range(500, 530):
        model = random_signal_model(seed)
        given[seed] = lower(model), device_inputs(random_inputs(model, 6, seed))
    library, wanted = batches.of_networks(given, target)
    image = build.build_firmware(library, target, tmp_path)
    outputs = unicorn.run(image, wanted.records, counted=1)
    assert batches.differing(outputs, wanted) == []


# --- the layer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["training", "eval"])
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("padding", PADDINGS)
def test_the_layer_is_its_formula(
    padding: Any, groups: int, stride: int, pad_value: int, mode: str
) -> None:
    torch.manual_seed(2)
    layer = bnn.BinaryConv1d(4, 4, 5, stride, padding, pad_value, groups, bias=True)
    layer.train(mode == "training")
    torch.nn.init.constant_(layer.bias, 7.0)
    x = bnn.sign(torch.randn(3, 4, 11))
    left, right = {
        0: (0, 0),
        2: (2, 2),
        "causal": (4, 0),
        "same": {1: (2, 2), 2: (2, 2), 3: (1, 2)}[stride],
    }.get(padding, padding)
    padded = F.pad(x.double(), (left, right), value=float(pad_value))
    weight = torch.where(layer.latent_weight >= 0, 1.0, -1.0).double()
    sums = F.conv1d(padded, weight, stride=stride, groups=groups)
    with torch.no_grad():
        assert torch.equal(layer(x), sums.float() + layer.bias.reshape(-1, 1))
    assert layer.sides(11) == (left, right)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_causal_outputs_see_no_later_sample(stride: int) -> None:
    torch.manual_seed(0)
    layer = bnn.BinaryConv1d(2, 3, 4, stride, "causal").eval()
    x = torch.randint(0, 256, (1, 2, 20)).float()
    with torch.no_grad():
        y = layer(x)
        assert y.shape == (1, 3, -(-20 // stride))
        for sample in range(20):
            later = x.clone()
            later[:, 0, sample:] += 1.0
            same = -(-sample // stride)  # outputs o with o * stride < sample
            assert torch.equal(layer(later)[:, :, :same], y[:, :, :same])
            changed = same < y.shape[2] and sample == same * stride
            assert not changed or not torch.equal(layer(later)[:, :, same], y[:, :, same])


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_float_twin_is_the_same_convolution(padding: Any) -> None:
    model = bnn.Sequential(
        bnn.Input((2, 9)), bnn.BinaryConv1d(2, 3, 4, 2, padding), bnn.BatchNorm(3), bnn.Sign()
    )
    x = torch.randint(0, 256, (4, 2, 9))
    twin = float_twin(model).eval()
    assert isinstance(twin[2], nn.BatchNorm1d)
    assert twin(x).shape == model(x).shape
    with torch.no_grad():
        twin[1].weight.copy_(bnn.sign(model[1].latent_weight))
        assert torch.equal(twin[:2](x), model.eval()[:2](x))


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("groups", [1, 256])
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # what the flag itself says
def test_sums_are_exact_on_every_backend(groups: int, onednn: bool) -> None:
    torch.manual_seed(5)
    layer = bnn.BinaryConv1d(256, 256, 3, padding="same", groups=groups).eval()
    x = torch.randint(0, 256, (8, 256, 40)).float()
    weight = torch.where(layer.latent_weight >= 0, 1.0, -1.0).double()
    expected = F.conv1d(x.double(), weight, padding=1, groups=groups)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=onednn):
        assert torch.equal(layer(x).double(), expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(layer(x).double(), expected)


@pytest.mark.parametrize(
    "padding", [-1, (1,), (1, 2, 3), (0, -1), "valid", "Causal", 1.5, None, True]
)
def test_other_paddings_are_refused(padding: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises((ValueError, TypeError)):
        bnn.BinaryConv1d(1, 1, 3, padding=padding)
    edgebnn.save(one(1), path)
    content = plain(path)
    content["layers"][1]["config"]["padding"] = padding
    torch.save(content, path)
    assert "layer '1' (BinaryConv1d)" in refusal(lambda: edgebnn.load(path))


@pytest.mark.parametrize("setting", ["kernel_size", "stride"])
@pytest.mark.parametrize("value", [0, (1, 1), (), 1.5, True])
def test_other_sizes_are_refused(setting: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        bnn.BinaryConv1d(1, 1, **{"kernel_size": 3, setting: value})


# --- inputs, files and traces ---------------------------------------------------------------------


def one(padding: Any, pool: nn.Module | None = None) -> bnn.Sequential:
    torch.manual_seed(1)
    conv = bnn.BinaryConv1d(2, 3, 4, 2, padding)
    layers = [bnn.Input((2, 9), zero_point=100), conv, bnn.Sign(), pool or nn.MaxPool1d(2)]
    layers.append(bnn.Flatten())
    with torch.no_grad():
        features = bnn.Sequential(*layers).eval()(torch.zeros(1, 2, 9)).numel()
    return bnn.Sequential(*layers, bnn.BinaryLinear(features, 3)).eval()


@pytest.mark.parametrize(
    ("padding", "kept"), [(1, [1, 1]), ([0, 3], [0, 3]), ("same", "same"), ("causal", "causal")]
)
@pytest.mark.parametrize("form", ["training", "release"])
def test_files_keep_signals(padding: Any, kept: Any, form: Any, tmp_path: Path) -> None:
    path, model = tmp_path / "model.pt", one(padding)
    edgebnn.save(model, path, form=form)
    layers = plain(path)["layers"]
    assert layers[0]["config"] == {"shape": [2, 9], "bits": 8, "zero_point": 100}
    assert layers[1]["config"]["padding"] == kept
    assert layers[3]["config"] == {"kernel_size": [2], "stride": [2]}
    loaded = edgebnn.load(path)
    assert sha256(lower(loaded)) == sha256(lower(model))
    assert repr(loaded[:2]) == repr(model[:2])


def test_a_signal_is_an_image_of_width_1() -> None:
    """The digest is that of the 2-D network, and Input takes such images."""
    model = one("causal")
    conv = bnn.BinaryConv2d(2, 3, (4, 1), (2, 1), (3, 0, 0, 0))
    conv.load_state_dict({"latent_weight": model[1].latent_weight.detach().unsqueeze(3)})
    first = bnn.Input((2, 9, 1), zero_point=100)
    image = bnn.Sequential(first, conv, bnn.Sign(), bnn.MaxPool2d((2, 1)), bnn.Flatten(), model[5])
    assert sha256(lower(model)) == sha256(lower(image.eval()))
    x = torch.randint(0, 256, (5, 2, 9, 1))
    with torch.no_grad():
        assert torch.equal(model(x), image(x))
        assert torch.equal(model(x.squeeze(3)), image(x))
    for wrong in ((5, 2, 1, 9), (5, 2, 9, 2), (5, 9, 2)):
        with pytest.raises(ValueError, match="the network takes"):
            model(torch.zeros(wrong))


class Own(nn.Module):
    """A forward of one's own, and what may stand before a sign."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.input = bnn.Input((3, 24), zero_point=128)
        self.first = bnn.BinaryConv1d(3, 6, 5, padding="causal", bias=True)
        self.second = bnn.BinaryConv1d(6, 6, 3, padding="same", groups=6)
        self.third = bnn.BinaryConv1d(6, 6, 1)
        self.factor = nn.Parameter(torch.randn(6, 1))
        self.norm = bnn.BatchNorm(6)
        self.last = bnn.BinaryLinear(36, 4)
        nn.init.normal_(self.first.bias, 0.0, 300.0)
        self.norm.running_mean.normal_(0.0, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = bnn.sign(F.max_pool1d(self.first(self.input(x)) * self.factor, 2))
        x = self.second(x) + self.third(x)
        x = F.relu(self.norm(x)) * self.factor + self.factor
        return self.last(torch.max_pool1d(bnn.sign(x), 2).view(x.size(0), -1))


def test_a_forward_of_ones_own(tmp_path: Path) -> None:
    model = Own().eval()
    check_equal({1: model}, tmp_path / "host")
    edgebnn.save(model, tmp_path / "own.pt")
    assert sha256(lower(edgebnn.load(tmp_path / "own.pt"))) == sha256(lower(model))


def test_comments_and_sizes_in_the_header(tmp_path: Path) -> None:
    files = api.generate(one("causal"), name="net").files
    layer = "9x1x2 x 8 bits -> 5x1x3 bits; 4x1, stride 2x1, padding 3 top of 100"
    assert layer in files["src/net.c"]
    for size in ("HEIGHT 9u", "WIDTH 1u", "CHANNELS 2u", "ZERO_POINT 100u"):
        assert f"#define NET_INPUT_{size}\n" in files["src/net.h"]


def test_an_avr_computes_a_signal(tmp_path: Path) -> None:
    model, target = Own().eval(), get_target("avr")
    network, inputs = lower(model), device_inputs(random_inputs(model, 4, 1))
    image = build.build_firmware(c.generate(plan(network, target), "net"), target, tmp_path)
    outputs = simavr.run(image, inputs, counted=1)
    wanted = reference.run(network, inputs)
    assert outputs.scores.tolist() == wanted.scores.tolist()


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "layer", "words"),
    [
        ((2, 16), bnn.MaxPool2d(2), "is for images (C, H, W); use edgebnn.nn.MaxPool1d"),
        ((2, 16), bnn.BinaryConv2d(2, 3, 3), "(C, H, W); use edgebnn.nn.BinaryConv1d"),
        ((2, 16, 1), bnn.BinaryConv1d(2, 3, 3), "signals (C, T); use edgebnn.nn.BinaryConv2d"),
        ((2, 16, 1), bnn.MaxPool1d(2), "signals (C, T); use edgebnn.nn.MaxPool2d"),
        ((2,), bnn.BinaryConv1d(2, 3, 1), "is for signals (C, T); give it no flat input"),
        ((2, 16), bnn.BinaryConv1d(2, 3, 17), "does not take its input of shape (2, 16)"),
        ((2, 16), bnn.BinaryConv1d(2, 3, 3, 1, 1, -1), "use pad_value=0 on the first layer"),
        ((2, 16), bnn.MaxPool1d(2, padding=1), "MaxPool1d with padding or dilation"),
        ((2, 16), bnn.MaxPool1d(2, ceil_mode=True), "MaxPool1d with ceil_mode"),
        ((2, 16), bnn.MaxPool1d((2, 2)), "(2, 2) is no integer"),
        ((2, 16), nn.Conv1d(2, 3, 3), "use edgebnn.nn.BinaryConv1d"),
        ((2, 16), nn.AvgPool1d(2), "use edgebnn.nn.MaxPool1d"),
        ((2, 16), nn.AdaptiveAvgPool1d(1), "use edgebnn.nn.MaxPool1d"),
    ],
)
def test_layers_that_do_not_fit(shape: Any, layer: nn.Module, words: str) -> None:
    """Torch takes a batch of signals for the channels of one image, where the numbers agree."""
    model = bnn.Sequential(bnn.Input(shape), layer, bnn.Sign(), bnn.Flatten())
    message = refusal(lambda: lower(model.append(bnn.BinaryLinear(48, 2))))
    assert message.startswith("layer '1'")
    assert words in message


def test_constants_of_signals_have_their_shape() -> None:
    model = one(1)
    model.insert(2, bnn.Scale(shape=(3, 1, 1)))
    assert "one a channel is (3, 1)" in refusal(lambda: lower(model))


# --- data and training ----------------------------------------------------------------------------


def windows(path: Path, **changes: object) -> str:
    """Two classes of 64 samples of 3 channels: quick and slow."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    times = np.arange(64) * np.where(labels, 0.9, 0.2)[:, None] + 6 * rng.random((120, 1))
    waves = np.sin(times)[:, None] * [[1.0], [-0.5], [0.2]] + rng.normal(0, 0.1, (120, 3, 64))
    pixels = (128 + 60 * waves).clip(0, 255).astype(np.uint8)
    np.savez(path, **{"x": pixels, "y": labels, **changes})  # type: ignore[arg-type]
    return str(path)


@pytest.mark.parametrize(
    ("shape", "layout", "wanted", "axes"),
    [
        ((3, 64), None, (3, 64, 1), (0, 1, 2)),
        ((64, 3), None, (3, 64, 1), (0, 2, 1)),
        ((1, 64), None, (1, 64, 1), (0, 1, 2)),
        ((4, 8), None, (4, 8, 1), (0, 1, 2)),
        ((8, 4), None, (4, 8, 1), (0, 2, 1)),
        ((4, 7), None, (1, 4, 7), None),
        ((6, 64), None, (1, 6, 64), None),
        ((6, 64), "NCT", (6, 64, 1), (0, 1, 2)),
        ((64, 6), "NTC", (6, 64, 1), (0, 2, 1)),
        ((3, 64), "NTC", (64, 3, 1), (0, 2, 1)),
        ((3, 64), "NCHW", (1, 3, 64), None),
        ((3, 3), None, (1, 3, 3), None),
        ((8, 9), None, (1, 8, 9), None),
    ],
)
def test_arrays_of_three_axes(
    shape: Any, layout: str | None, wanted: Any, axes: Any, tmp_path: Path
) -> None:
    given = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    parts = {"train_images": given, "test_images": given[:9]}
    parts |= {"train_labels": np.arange(20) % 2, "test_labels": np.arange(9) % 2}
    np.savez(tmp_path / "own.npz", **parts, **({"layout": layout} if layout else {}))
    data = load_dataset(str(tmp_path / "own.npz"))
    assert data.image_shape == wanted
    images = given[:, None] if axes is None else given.transpose(axes)[..., None]
    assert np.array_equal(data.train_images, images)
    assert np.array_equal(data.test_images, images[:9])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": np.zeros((120, 2, 8, 9), np.uint8), "layout": "NCT"}, "three axes, or 'NCHW' or"),
        ({"layout": "NTCH"}, "give 'NCHW', 'NHWC', 'NCT' or 'NTC'"),
        ({"x": np.full((120, 3, 9), -7, np.int8)}, "adding 128, with zero_point = 128 in the rec"),
        (
            {"x": np.full((120, 3, 9), -300, np.int16)},
            "signals are int16 from -300 to -300; give uint8 from 0 to 255, as by "
            "numpy.rint(128 + 127 * x / abs(x).max()), with zero_point = 128 in the recipe",
        ),
        (
            {"x": np.full((120, 3, 9), 1.5)},
            "signals are float64 from 1.5 to 1.5; give uint8 from 0",
        ),
        ({"x": np.full((120, 3, 9), -1.5)}, "as by numpy.rint(128 + 127 * x / abs(x).max())"),
        ({"y": np.arange(119) % 2}, "120 training signals but 119 labels"),
        ({"x": np.full((120, 3, 9), np.inf)}, "a signal has NaN or infinity in it"),
    ],
)
def test_arrays_that_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = windows(tmp_path / "own.npz", **changes)
    assert words in refusal(lambda: load_dataset(path))


def test_notation_of_signals_is_1_d() -> None:
    style = networks.Style(bits=7, zero_point=64, pad_value=1)
    model = networks.build("8C5-MP2-6C3-2xR3-6C3S2-D3-5C3V-9FC", (3, 32, 1), 4, style)
    first, *convolutions = (m for m in model.modules() if isinstance(m, bnn.Input | BinaryConv))
    assert (first.shape, first.bits, first.zero_point) == ((3, 32), 7, 64)
    assert all(isinstance(layer, bnn.BinaryConv1d) for layer in convolutions)
    kernels_and_pads = [(m.kernel_size, m.padding, m.pad_value) for m in convolutions]
    assert kernels_and_pads[0] == ((5,), (2, 2), 0)
    assert kernels_and_pads[-1] == ((3,), (0, 0), 1)
    assert lower(model).input == Ints(32, 1, 3, 7)
    assert "16C3V' in '16C3V' does not fit into 2 samples; the signals are too short" in refusal(
        lambda: networks.build("16C3V", (3, 2, 1), 4)
    )


def test_augmentation_moves_signals_in_time() -> None:
    torch.manual_seed(0)
    before = torch.randint(0, 100, (200, 2, 9, 1), dtype=torch.uint8)
    after = augment(before, Augmentation(shift=2, fill=128))
    offsets = set()
    for one, moved in zip(before, after, strict=True):
        padded = F.pad(one, (0, 0, 2, 2), value=128)
        found = [n for n in range(5) if torch.equal(padded[:, n : n + 9], moved)]
        assert len(found) == 1
        offsets.add(found[0])
    assert offsets == set(range(5))
    still = torch.full((50, 2, 9, 1), 128, dtype=torch.uint8)
    assert torch.equal(augment(still, Augmentation(scale=0.5, fill=128)), still)


def test_recipes_have_a_zero_point() -> None:
    recipe = get_recipe("mlp-16k")
    settings = {"zero_point": 64, "input_bits": 7}
    assert recipe.changed(settings).style.zero_point == 64
    assert recipe.changed(settings).augmentation.fill == 64
    assert "an input of 6 bits is 0 to 63" in refusal(
        lambda: recipe.changed({"zero_point": 64, "input_bits": 6})
    )
    assert "give 0 to 255" in refusal(lambda: recipe.changed({"zero_point": 256}))


def test_signals_from_data_to_c(tmp_path: Path) -> None:
    windows(tmp_path / "own.npz")
    settings = ("network=8C5-MP4-8C3", "zero_point=128", "batch_size=16", "augment_shift=4")
    train = ("train", "own.npz", "--recipe", "mlp-16k", *[f"--set={one}" for one in settings])
    text = output_here(tmp_path, *train, "--epochs", "8", "-o", "model.pt")
    assert "87 training signals, 8 epochs" in text
    assert "120 signals of 64 samples, 3 channels, 2 classes; 96 to train, 24 to test" in text
    model = edgebnn.load(tmp_path / "model.pt")
    assert [type(layer).__name__ for layer in model][:3] == ["Input", "BinaryConv1d", "MaxPool1d"]
    assert (model[0].shape, model[0].zero_point) == ((3, 64), 128)
    assert edgebnn.read(tmp_path / "model.pt").metadata.test_accuracy >= 0.9
    text = output_here(tmp_path, "verify", "model.pt")
    assert "every output is equal" in text
    assert "64 x 1 x 3, 8 bits each, 128 stands for 0" in output_here(tmp_path, "info", "model.pt")
    message = mistake(tmp_path, *train, "--set=augment_flip=true", "-o", "other.pt")
    assert "signals have no left and right" in message
    message = mistake(tmp_path, "predict", "model.pt", "photo.png")
    assert "takes signals of 64 samples, 3 channels, and no images; give edgebnn verify" in message


def test_signals_have_a_first_recipe_of_their_own(tmp_path: Path) -> None:
    """Which is said, and which layout makes signals of what looks like images."""
    windows(tmp_path / "own.npz")
    text = output_here(tmp_path, "train", "own.npz", "--epochs", "1", "-o", "model.pt")
    assert "no --recipe, so signal-2k: signals: two 1-D convolutions and a dense layer" in text
    assert "signal-2k on own: " in text
    with np.load(tmp_path / "own.npz") as file:
        six = np.concatenate([file["x"], file["x"]], axis=1)
        for x, layout in ((six, "NCT"), (six.transpose(0, 2, 1), "NTC")):
            np.savez(tmp_path / "six.npz", x=x, y=file["y"])
            taken = _taken(load_dataset(str(tmp_path / "six.npz")), "six.npz")
            assert f"(if signals of 6 channels, add an array layout='{layout}')" in taken
            np.savez(tmp_path / "six.npz", x=x, y=file["y"], layout=layout)
            taken = _taken(load_dataset(str(tmp_path / "six.npz")), "six.npz")
            assert "120 signals of 64 samples, 6 channels, 2 classes" in taken
