"""Padding of four sides, and "same" as Keras has it: torch = oracle = C, pad value by pad value."""

from itertools import product
from pathlib import Path
from typing import Any

import batches
import pytest
import torch
from networks import random_inputs
from test_equality import check_equal, device_inputs
from test_model_files import plain, refusal
from torch import nn
from torch.nn import functional as F

import edgebnn
import edgebnn.nn as bnn
from edgebnn import api, kernels, reference
from edgebnn.codegen import c
from edgebnn.device import build, host, qemu, simavr, unicorn
from edgebnn.ir import Conv, DepthwiseConv, sha256
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import get_target
from edgebnn.train.twin import float_twin

SIDES = ((0, 1, 0, 1), (1, 0, 2, 0), (0, 0, 0, 1), (2, 1, 0, 3), (3, 0, 0, 0), (0, 2, 0, 0))


def keras_windows(size: int, kernel: int, stride: int) -> list[list[int]]:
    """Where the taps of each window are, by the rule of Keras' documentation alone."""
    outputs = 0
    while outputs * stride < size:
        outputs += 1
    missing = 0  # of the last window, if the first one began at 0
    while (outputs - 1) * stride + kernel > size + missing:
        missing += 1
    before = missing // 2
    return [[o * stride + tap - before for tap in range(kernel)] for o in range(outputs)]


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
def test_same_is_as_in_keras(kernel: int, stride: int) -> None:
    for size in (*range(1, 14), 32, 33, 224):
        layer = bnn.BinaryConv2d(1, 1, (kernel, 1), stride=(stride, 1), padding="same").eval()
        windows = keras_windows(size, kernel, stride)
        top, bottom, left, right = layer.sides(size, 5)
        assert (left, right) == (0, 0)
        assert -top == windows[0][0]
        assert 0 <= bottom - top <= 1
        x = torch.randint(0, 256, (1, 1, size, 5)).float()
        with torch.no_grad():
            layer.latent_weight.fill_(1.0)
            y = layer(x)
        assert y.shape == (1, 1, len(windows), 5)
        wanted = [
            sum(float(x[0, 0, row, 2]) for row in rows if 0 <= row < size) for rows in windows
        ]
        assert y[0, 0, :, 2].tolist() == wanted


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "sides"),
    [
        ((224, 224), 3, 2, (0, 1, 0, 1)),
        ((224, 224), 7, 2, (2, 3, 2, 3)),
        ((225, 224), 3, 2, (1, 1, 0, 1)),
        ((32, 32), 3, 1, (1, 1, 1, 1)),
        ((32, 32), 2, 1, (0, 1, 0, 1)),
        ((8, 9), (4, 1), (2, 3), (1, 1, 0, 0)),
    ],
)
def test_what_is_known_of_keras(size: Any, kernel: Any, stride: Any, sides: Any) -> None:
    assert bnn.BinaryConv2d(1, 1, kernel, stride=stride, padding="same").sides(*size) == sides


@pytest.mark.parametrize("mode", ["training", "eval"])
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("padding", [*SIDES, 2, (1, 2), (1, 1, 2, 2), "same"])
def test_the_layer_is_its_formula(padding: Any, pad_value: int, mode: str) -> None:
    torch.manual_seed(2)
    layer = bnn.BinaryConv2d(3, 4, (3, 2), (2, 1), padding, pad_value).train(mode == "training")
    x = bnn.sign(torch.randn(5, 3, 6, 7))
    top, bottom, left, right = {
        2: (2, 2, 2, 2),
        (1, 2): (1, 1, 2, 2),
        "same": (0, 1, 0, 1),
    }.get(padding, padding)
    padded = F.pad(x.double(), (left, right, top, bottom), value=float(pad_value))
    weight = torch.where(layer.latent_weight >= 0, 1.0, -1.0).double()
    with torch.no_grad():
        assert torch.equal(layer(x).double(), F.conv2d(padded, weight, stride=(2, 1)))


def images(padding: Any, pad_value: int, depthwise: bool, bits: int = 3) -> bnn.Sequential:
    """A first layer with the padding, one on bits, and one a channel."""
    torch.manual_seed(4)
    kernel, stride, width = (3, 2), (2, 1), 33
    first = bnn.BinaryConv2d(2, width, kernel, stride, padding)
    if depthwise:
        first = bnn.BinaryConv2d(2, 2, kernel, stride, padding, groups=2)
        width = 2
    groups = width if depthwise else 1
    second = bnn.BinaryConv2d(width, width, (2, 3), (1, 2), padding, pad_value, groups=groups)
    layers = [bnn.Input((2, 7, 6), bits=bits), first, bnn.BatchNorm(width), bnn.Sign()]
    layers += [second, bnn.BatchNorm(width), bnn.Sign(), bnn.Flatten()]
    model = bnn.Sequential(*layers)
    with torch.no_grad():
        for norm in (model[2], model[5]):
            norm.running_mean.normal_(0.0, 3.0)
            norm.weight.normal_()
        size = model.eval()(torch.zeros(1, 2, 7, 6)).shape[1]
    model.append(bnn.BinaryLinear(size, 5))
    return model.eval()


KINDS = tuple(product((-1, 0, 1), (False, True)))  # pad values, and whether it is depthwise


@pytest.mark.parametrize("padding", [*SIDES, "same"])
def test_torch_oracle_and_c_are_equal(padding: Any, tmp_path: Path) -> None:
    models = {n: images(padding, *kind) for n, kind in enumerate(KINDS)}
    for number, (network, library) in check_equal(models, tmp_path).items():
        pad_value, depthwise = KINDS[number]
        convs = [op for op in network.ops if isinstance(op, DepthwiseConv if depthwise else Conv)]
        if padding != "same":
            assert [op.padding for op in convs] == [padding, padding]
            assert convs[1].pad_value == pad_value
        names = ("top", "bottom", "left", "right")
        for op in convs:
            sides = " ".join(f"{n} {name}" for n, name in zip(op.padding, names, strict=True) if n)
            text = library.files[f"src/k{number}.c"]
            assert f", padding {sides} of {op.pad_value} [" in text


@pytest.mark.parametrize("padding", [*SIDES, "same"])
def test_each_way_of_a_first_layer_pads_alike(padding: Any, tmp_path: Path) -> None:
    model = images(padding, 0, False)
    network, inputs = lower(model), device_inputs(random_inputs(model, 24, 5))
    outputs, libraries = reference.run(network, inputs), {}
    for number, choice in enumerate(("subset-sums", "bit-planes", "tree")):
        scheduled = plan(network, get_target("host"), kernels.first_layer_ways(choice))
        libraries[number] = c.generate(scheduled, f"k{number}")
    wanted = batches.expected(dict.fromkeys(libraries, (inputs, outputs)))
    image = build.build_host(batches.program(libraries, "host"), tmp_path, sanitize=True)
    assert batches.differing(host.run(image, wanted.records), wanted) == []


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("name", ["cortex-m0", "cortex-m4", "rv32imc", "avr"])
def test_emulated_cpus_are_equal(name: str, depthwise: bool, tmp_path: Path) -> None:
    target, given = get_target(name), {}
    for number, (padding, pad_value) in enumerate(zip(SIDES, (0, 1, -1, 0, 1, 0), strict=True)):
        model = images(padding, pad_value, depthwise)
        given[number] = lower(model), device_inputs(random_inputs(model, 5, 1))
    library, wanted = batches.of_networks(given, target)
    machine = target.emulators[-1].machine if name == "avr" else None
    image = build.build_firmware(library, target, tmp_path, machine=machine)
    runners = {"avr": (simavr,), "cortex-m0": (unicorn,)}  # qemu's has another machine
    for runner in runners.get(name, (unicorn, qemu)):
        outputs = runner.run(image, wanted.records, counted=0)
        assert batches.differing(outputs, wanted) == []


# --- files, digests and errors --------------------------------------------------------------------


def one(padding: Any) -> bnn.Sequential:
    torch.manual_seed(1)
    conv = bnn.BinaryConv2d(1, 2, 3, padding=padding)
    return bnn.Sequential(bnn.Input((1, 4, 4)), conv, bnn.Sign(), bnn.Flatten(), _dense(conv))


def _dense(conv: bnn.BinaryConv2d) -> nn.Module:
    with torch.no_grad():
        return bnn.BinaryLinear(conv(torch.zeros(1, 1, 4, 4)).numel(), 2)


@pytest.mark.parametrize(
    ("padding", "kept"),
    [
        (1, [1, 1]),
        ((1, 2), [1, 2]),
        ((1, 1, 2, 2), [1, 2]),
        ([0, 1, 2, 0], [0, 1, 2, 0]),
        ("same", "same"),
    ],
)
@pytest.mark.parametrize("form", ["training", "release"])
def test_files_keep_the_padding(padding: Any, kept: Any, form: Any, tmp_path: Path) -> None:
    """In the form of before where it can, so that an older edgebnn reads it, too."""
    path = tmp_path / "model.pt"
    model = one(padding)
    edgebnn.save(model, path, form=form)
    assert plain(path)["layers"][1]["config"]["padding"] == kept
    loaded = edgebnn.load(path)
    assert sha256(lower(loaded)) == sha256(lower(model))
    assert repr(loaded[1]) == repr(model[1])
    assert loaded[1].sides(4, 4) == model[1].sides(4, 4)


def test_digests_tell_sides_apart_and_stay_as_they_were() -> None:
    """Equal pads have the digest of when there were no others."""
    assert sha256(lower(one(1))) == sha256(lower(one((1, 1, 1, 1)))) == sha256(lower(one("same")))
    assert sha256(lower(one(1))) == (
        "d818252ff9d62fa74236eaeac89624d58c156e0c3b50a591c3eb9af43ca53cc5"
    )
    digests = {sha256(lower(one(p))) for p in (*SIDES, (1, 0, 1, 0), (1, 1), (1, 2), (0, 1, 1, 0))}
    assert len(digests) == len(SIDES) + 4


def test_comments_name_the_sides() -> None:
    head = api.generate(one((1, 2, 1, 2)), name="net").files["src/net.c"]
    assert "3x3, padding 1 top 2 bottom 1 left 2 right of 0 [" in head
    assert "3x3, padding 1x2 of 0 [" in api.generate(one((1, 2)), name="net").files["src/net.c"]


@pytest.mark.parametrize(
    "padding",
    [-1, (1,), (1, 2, 3), (0, 1, 0, -1), (1, 1, 1, 1, 1), "valid", "Same", 1.5, None, True],
)
def test_other_paddings_are_refused(padding: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises((ValueError, TypeError)):
        bnn.BinaryConv2d(1, 1, 3, padding=padding)
    edgebnn.save(one(1), path)
    content = plain(path)
    content["layers"][1]["config"]["padding"] = padding
    torch.save(content, path)
    assert "layer '1' (BinaryConv2d)" in refusal(lambda: edgebnn.load(path))


def test_padded_integers_are_still_refused() -> None:
    conv = bnn.BinaryConv2d(1, 2, 3, padding=(0, 1, 0, 0), pad_value=1)
    model = bnn.Sequential(bnn.Input((1, 4, 4)), conv, bnn.Sign(), bnn.Flatten())
    message = refusal(lambda: lower(model.append(bnn.BinaryLinear(12, 2))))
    assert "layer '1' (BinaryConv2d): pads integers with -1 or +1" in message


@pytest.mark.parametrize("padding", [1, (0, 1, 2, 0), "same"])
def test_the_float_twin_has_the_same_shapes(padding: Any) -> None:
    model = bnn.Sequential(bnn.Input((1, 7, 6)), bnn.BinaryConv2d(1, 3, 4, (2, 1), padding))
    x = torch.randint(0, 256, (2, 1, 7, 6)).float()
    twin = float_twin(model).eval()
    assert twin(x).shape == model(x).shape
    with torch.no_grad():
        twin[1].weight.copy_(bnn.sign(model[1].latent_weight))
        torch.testing.assert_close(twin(x), model.eval()(x), rtol=0, atol=0)
