"""One score tells two classes apart: class 1 where it is at least 0, everywhere."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import virtual_board
from PIL import Image
from test_cli import output_here
from test_equality import device_inputs
from test_model_files import refusal
from torch import Tensor, nn
from torch.nn import functional as F
from virtual_board import on_socket

import edgebnn
import edgebnn.nn as bnn
from edgebnn import api, checkpoint, golden, measure, reference
from edgebnn.codegen import c
from edgebnn.data import Dataset, load_dataset
from edgebnn.device import build, host, qemu, simavr, unicorn, wire
from edgebnn.ir import Network
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import get_target
from edgebnn.train import Recipe, evaluate, step_ratio, train
from edgebnn.wording import counted

NAMES = ("left", "right")


def tie() -> nn.Sequential:
    """The score is x - y: below, at and above 0."""
    model = bnn.Sequential(bnn.Input((2,), bits=3), bnn.BinaryLinear(2, 1))
    with torch.no_grad():
        model[1].latent_weight.copy_(torch.tensor([[1.0, -1.0]]))
    return model.eval()


def net() -> nn.Sequential:
    """Its scores are near enough to 0 for both classes."""
    torch.manual_seed(3)
    hidden = (bnn.BinaryLinear(33, 31), bnn.BatchNorm(31), bnn.Sign())
    model = bnn.Sequential(
        bnn.Input((33,), bits=4), *hidden, bnn.BinaryLinear(31, 1), bnn.OutputNorm(1, bound=31)
    )
    with torch.no_grad():
        model[2].running_mean.normal_(0.0, 20.0)
        model[5].weight.fill_(-1.5)
        model[5].bias.fill_(0.25)
    return model.eval()


def image_net() -> nn.Sequential:
    """The scores of a convolution, which is what the network ends in."""
    torch.manual_seed(5)
    conv = (bnn.BinaryConv2d(1, 2, 3, padding=1), bnn.BatchNorm(2), bnn.Sign())
    last = (bnn.BinaryConv2d(2, 1, 4), bnn.Flatten())
    return bnn.Sequential(bnn.Input((1, 4, 4), bits=2), *conv, *last).eval()


def shortcut() -> nn.Sequential:
    """Scores of sums that are stored."""
    torch.manual_seed(6)
    block = bnn.Residual(bnn.Sign(), bnn.BinaryLinear(1, 1))
    return bnn.Sequential(bnn.Input((9,), bits=2), bnn.BinaryLinear(9, 1), block).eval()


def coarse() -> nn.Sequential:
    """Logits so large that a score stands for many: its binary point is behind it."""
    layers = (bnn.Input((9,), bits=2), bnn.BinaryLinear(9, 1), bnn.OutputNorm(1, bound=27))
    model = bnn.Sequential(*layers)
    with torch.no_grad():
        model[1].latent_weight.copy_(torch.tensor([[1.0, -1.0] * 4 + [1.0]]))
        model[2].weight.fill_(1e12)
    assert lower(model).scores.fraction_bits < 0
    return model.eval()


NETS = (tie, net, image_net, shortcut, coarse)


def images(model: nn.Module, count: int = 60) -> Tensor:
    first = model[0]  # type: ignore[index]
    rng = np.random.default_rng(8)
    drawn = rng.integers(0, 2**first.bits, (count, *first.shape), dtype=np.uint8)
    return torch.from_numpy(drawn)


def given(build_net) -> tuple[Network, np.ndarray, np.ndarray, np.ndarray]:
    """A network, its inputs, and torch's own scores and decisions, in plain words."""
    model = build_net()
    x = images(model)
    with torch.no_grad():
        logits = model(x).double().reshape(len(x))
    network = lower(model)
    scores = logits.numpy() * 2.0**network.scores.fraction_bits
    wanted = np.array([1 if score >= 0 else 0 for score in scores])
    assert set(wanted) == {0, 1}
    return network, device_inputs(x), scores, wanted


@pytest.mark.parametrize("build_net", NETS)
def test_every_backend_decides_by_the_sign(build_net, tmp_path: Path) -> None:
    network, inputs, scores, wanted = given(build_net)
    with torch.no_grad():
        found = bnn.predict(build_net()(images(build_net())))
    np.testing.assert_array_equal(found.numpy(), wanted)
    oracle = reference.run(network, inputs)
    np.testing.assert_array_equal(oracle.scores[:, 0], scores)
    np.testing.assert_array_equal(oracle.classes, wanted)
    library = c.generate(plan(network, get_target("host")), "net")
    assert library.num_classes == 1
    on_host = host.run(build.build_host(library, tmp_path / "host", sanitize=True), inputs)
    np.testing.assert_array_equal(on_host.scores, oracle.scores)
    np.testing.assert_array_equal(on_host.classes, wanted)


@pytest.mark.parametrize("build_net", NETS)
@pytest.mark.parametrize("name", ["cortex-m0", "cortex-m4", "rv32imc", "avr"])
def test_emulated_cpus_decide_by_the_sign(name: str, build_net, tmp_path: Path) -> None:
    network, inputs, _, wanted = given(build_net)
    target = get_target(name)
    image = build.build_firmware(c.generate(plan(network, target), "net"), target, tmp_path)
    runners = {"avr": (simavr,), "cortex-m0": (unicorn,)}  # qemu's has another machine
    for runner in runners.get(name, (unicorn, qemu)):
        outputs = runner.run(image, inputs, counted=0)
        np.testing.assert_array_equal(outputs.classes, wanted)
        np.testing.assert_array_equal(outputs.scores, reference.run(network, inputs).scores)


def test_a_score_of_0_is_class_1() -> None:
    network = lower(tie())
    outputs = reference.run(network, np.array([[3, 3], [0, 0], [2, 3], [3, 2]], np.uint8))
    assert outputs.scores.tolist() == [[0], [0], [-1], [1]]
    assert outputs.classes.tolist() == [1, 1, 0, 1]
    assert bnn.predict(torch.tensor([[0.0], [-0.0], [-1e-30], [1e-30]])).tolist() == [1, 1, 0, 1]
    assert bnn.predict(torch.tensor([[[[-2.0]]], [[[2.0]]]])).tolist() == [0, 1]
    assert bnn.predict(torch.tensor([[1.0, 3.0, 3.0], [2.0, 1.0, 0.0]])).tolist() == [1, 0]


def test_torch_is_measured_by_the_sign() -> None:
    model = net()
    x = images(model)
    network = lower(model)
    *_, labels = given(net)
    assert evaluate(model, x, torch.from_numpy(labels)) == len(x)
    assert evaluate(model, x, torch.from_numpy(1 - labels)) == 0
    four = x.numpy().reshape(len(x), -1, 1, 1)
    outputs = measure.run_torch(model, network, four)
    np.testing.assert_array_equal(outputs.classes, labels)
    trial = measure.trial(model, network, four)
    assert measure.run_reference(trial).differing == 0
    assert measure.run_reference(trial).correct(labels) == len(x)


def test_the_header_says_what_the_result_means() -> None:
    header = api.generate(net(), name="net").files["src/net.h"]
    assert "#define NET_NUM_CLASSES 1u" in header
    assert "33 inputs to one score, which tells two classes apart." in header
    assert header.count("1 where the score is at least 0, else 0") == 2
    assert "The class is 1 where it is at least 0" in header
    for word in ("index of the", "best class", "1 classes", "for every class"):
        assert word not in header
    paragraph = api.generate(net(), name="net").files["library.properties"]
    assert "33 bytes in, 2 classes out" in paragraph


# --- names ----------------------------------------------------------------------------------------


def test_two_names_are_what_one_score_takes(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    edgebnn.save(net(), path, class_names=NAMES)
    assert checkpoint.read(path).metadata.class_names == NAMES
    header = api.generate(path).files["src/model.h"]
    assert " * classes   0 left\n *           1 right\n" in header
    for names in (("left",), ("a", "b", "c")):
        message = refusal(lambda names=names: edgebnn.save(net(), path, class_names=names))
        assert message == (
            f"{counted(len(names), 'class name')} for 2 classes, which one score tells "
            "apart; give two"
        )


def test_info_and_predict_name_the_class(tmp_path: Path) -> None:
    model = image_net()
    edgebnn.save(model, tmp_path / "model.pt", class_names=NAMES)
    edgebnn.save(model, tmp_path / "nameless.pt")
    told = "one score: the second class where it is at least 0"
    text = " ".join(output_here(tmp_path, "info", "model.pt").split())
    assert f"left, right ({told})" in text.replace("│ │ ", "")
    assert "2 (one score" in output_here(tmp_path, "info", "nameless.pt")
    _, inputs, scores, wanted = given(image_net)
    for cls in (0, 1):
        at = int(np.argmax(wanted == cls))
        Image.fromarray(inputs[at].reshape(4, 4)).save(tmp_path / "image.png")
        for file, names in (("model.pt", NAMES), ("nameless.pt", ("0", "1"))):
            lines = output_here(tmp_path, "predict", file, "image.png").splitlines()
            assert [line.split() for line in lines] == [[names[cls], str(int(scores[at]))]]


# --- over the wire --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return virtual_board.build(net(), tmp_path_factory.mktemp("board"))


@pytest.fixture
def port(board: Path) -> Iterator[str]:
    with on_socket(board) as port:
        yield port


def test_check_compares_a_board(port: str, tmp_path: Path) -> None:
    edgebnn.save(net(), tmp_path / "model.pt", class_names=NAMES)
    classes = reference.run(lower(net()), golden.inputs(lower(net()), 40)).classes
    assert set(classes) == {0, 1}
    text = output_here(tmp_path, "check", "model.pt", "--port", port, "--random", "40")
    assert "every output is equal, bit for bit" in text
    assert "8 of 8 golden vectors" in text
    text = output_here(
        tmp_path, "monitor", "model.pt", "--port", port, "--random", "40", "--images", "40"
    )
    assert ": left (" in text
    assert ": right (" in text


def test_an_answer_of_class_1_is_none_that_there_is_not() -> None:
    body = b"\0\0\0\0\1\0" + b"\xff\xff\xff\x7f"
    assert wire.inference_of(body, 1, 1).best == 1
    with pytest.raises(wire.Damaged, match="class 2 of 2"):
        wire.inference_of(b"\0\0\0\0\2\0", 1, 0)


# --- training -------------------------------------------------------------------------------------


def test_losses_of_one_score_are_their_formulas() -> None:
    z = torch.tensor([[0.3], [-2.0], [0.0], [1.5], [-0.4]], dtype=torch.float64)
    labels = torch.tensor([1, 1, 0, 0, 0])
    hinge = [(1 - 0.3) ** 2, 3.0**2, 1.0, 2.5**2, (1 - 0.4) ** 2]
    assert bnn.square_hinge(z, labels).item() == pytest.approx(sum(hinge) / 5, rel=1e-12)
    wanted = F.binary_cross_entropy_with_logits(z[:, 0], labels.double())
    torch.testing.assert_close(bnn.cross_entropy(z, labels), wanted)
    for loss in (bnn.square_hinge, bnn.cross_entropy):
        assert torch.autograd.gradcheck(
            lambda x, loss=loss: loss(x, labels), z.clone().requires_grad_()
        )
        with pytest.raises((RuntimeError, IndexError)):
            loss(z, torch.tensor([1, 1, 0, 2, 0]))
    many = torch.randn(5, 4)
    torch.testing.assert_close(bnn.cross_entropy(many, labels), F.cross_entropy(many, labels))
    pair = torch.cat((torch.zeros_like(z), z), 1)
    other = torch.randn(5, 2, dtype=torch.float64)
    both = [bnn.distillation(logits, other, 2.0) for logits in (z, pair)]
    torch.testing.assert_close(*both)
    assert both[0] > 0
    torch.testing.assert_close(bnn.distillation(other, z, 2.0), bnn.distillation(other, pair, 2.0))


def two_classes() -> Dataset:
    """Whether a digit is at least 5."""
    digits = load_dataset("digits")
    return replace(
        digits,
        name="halves",
        train_labels=(digits.train_labels >= 5).astype(np.int64),
        test_labels=(digits.test_labels >= 5).astype(np.int64),
        class_names=("low", "high"),
    )


@pytest.mark.parametrize("loss", ["square_hinge", "cross_entropy"])
def test_a_network_of_one_score_learns_two_classes(loss: str, tmp_path: Path) -> None:
    recipe = Recipe("one", "", "64FC", epochs=8, batch_size=64, loss=loss, one_score=True)
    data = two_classes()
    result = train(recipe, data, output=tmp_path / "model.pt")
    assert result.test_accuracy > 0.85
    saved = checkpoint.read(tmp_path / "model.pt")
    assert saved.metadata.class_names == ("low", "high")
    network = lower(saved.model)
    assert network.num_classes == 1
    outputs = reference.run(network, measure.to_device_layout(data.test_images))
    assert int((outputs.classes == data.test_labels).sum()) == result.test_correct
    pixels, labels = data.test_images[:50], data.test_labels[:50]
    trial = measure.trial(saved.model, network, pixels)
    (emulated,) = measure.run_on(trial, [get_target("cortex-m4")], tmp_path, counted=0)
    assert emulated.differing == 0
    assert emulated.correct(labels) == int((outputs.classes[:50] == labels).sum())


def test_a_teacher_of_two_scores_teaches_one(tmp_path: Path) -> None:
    recipe = Recipe("one", "", "16FC", epochs=2, one_score=True, teacher="16FC", teacher_epochs=2)
    assert train(recipe, two_classes(), output=None).test_accuracy > 0.6


def test_one_score_is_for_two_classes() -> None:
    recipe = Recipe("one", "", "16FC", one_score=True)
    message = refusal(lambda: train(recipe, load_dataset("digits"), output=None))
    assert message == (
        "recipe 'one': one score tells two classes apart, the data have 10; set one_score = false"
    )
    assert step_ratio(recipe, (1, 8, 8), rounds=2, warmup=1).ratio > 0
