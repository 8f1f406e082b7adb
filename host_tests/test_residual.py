"""Shortcuts: torch = oracle = C to the bit, what is refused, and model files that branch."""

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_inputs, random_residual_model
from test_contract import sources as source_file
from test_contract import undefined
from test_equality import check_equal, device_inputs
from test_model_files import Function, pixels, plain, refusal
from torch import Tensor, nn

import edgebnn
import edgebnn.nn as bnn
from edgebnn import api, reference
from edgebnn.bits import sum_bits
from edgebnn.codegen import c
from edgebnn.device import build, elf, host, toolchain, unicorn
from edgebnn.ir import Add, Binarize, Conv, Raw, Sums, sources, tensors
from edgebnn.ir import Tensor as IrTensor
from edgebnn.lower import lower
from edgebnn.measure import integer_scores
from edgebnn.nn.graph import LayerGraph
from edgebnn.plan import plan
from edgebnn.targets import get_target

SEEDS = (*range(18), 41, 58)  # the last two for what the first have not
CHUNK = 10
ON_CHIP = 4


class AllWidths(nn.Module):
    """Additions of sums of 16 and of 32 bits in every combination."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.input = bnn.Input((100,))
        self.a = bnn.BinaryLinear(100, 33)
        self.b = bnn.BinaryLinear(100, 33)
        self.c = nn.Sequential(bnn.BatchNorm(33), bnn.Sign(), bnn.BinaryLinear(33, 33))
        self.d = nn.Sequential(bnn.Sign(), bnn.BinaryLinear(33, 33))
        self.norm = bnn.OutputNorm(33, bound=2**18)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input(x)
        a, b = self.a(x), self.b(x)
        wide = a + b
        x = wide + self.c(wide)
        x = x + wide
        return self.norm(self.d(x) + x)


# --- equality -----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", range(0, len(SEEDS), CHUNK))
def test_random_networks(start: int, tmp_path: Path) -> None:
    seeds = SEEDS[start : start + CHUNK]
    check_equal(
        {seed: random_residual_model(seed) if seed else AllWidths().eval() for seed in seeds},
        tmp_path,
    )


@pytest.mark.parametrize("target_name", ["cortex-m0", "cortex-m4"])
def test_random_networks_on_chip(target_name: str, tmp_path: Path) -> None:
    target = get_target(target_name)
    for seed in range(1000, 1000 + ON_CHIP):
        model = random_residual_model(seed) if seed > 1000 else AllWidths().eval()
        inputs = device_inputs(random_inputs(model, 6, seed))
        network = lower(model)
        expected = reference.run(network, inputs)
        library = c.generate(plan(network, target), "net")
        firmware = build.build_firmware(library, target, tmp_path / str(seed))
        outputs = unicorn.run(firmware, inputs, counted=1)
        np.testing.assert_array_equal(outputs.scores, expected.scores, f"network {seed}")
        footprint = elf.footprint(firmware.path)
        assert footprint.constant_bytes <= library.constant_bytes
        assert footprint.arena_bytes == library.arena_bytes


def _kind(tensor: IrTensor) -> str:
    return f"Sums{sum_bits(tensor)}" if isinstance(tensor, Sums) else type(tensor).__name__


def test_random_networks_are_various() -> None:
    """Every kernel that reads or gives sums, in every width, is in the sample."""
    kinds: set[str] = set()
    for seed in SEEDS:
        network = lower(random_residual_model(seed) if seed else AllWidths())
        known = tensors(network)
        for op in network.ops:
            read = [_kind(known[name]) for name in sources(op)]
            kinds.add(f"{type(op).__name__}({', '.join(read)}) -> {_kind(known[op.name])}")
    assert kinds >= {
        "Add(Sums16, Sums16) -> Sums16",
        "Add(Sums16, Sums16) -> Sums32",
        "Add(Sums16, Sums32) -> Sums32",
        "Add(Sums32, Sums16) -> Sums32",
        "Add(Sums32, Sums32) -> Sums32",
        "Binarize(Sums16) -> Bits",
        "Binarize(Sums32) -> Bits",
        "Conv(Bits) -> Sums16",
        "Conv(Ints) -> Sums16",
        "Conv(Ints) -> Sums32",
        "Dense(Bits) -> Sums16",
        "Dense(Ints) -> Sums16",
        "Dense(Ints) -> Sums32",
        "DepthwiseConv(Bits) -> Sums16",
        "DepthwiseConv(Ints) -> Sums16",
        "Score(Sums16) -> ScoreVector",
        "Score(Sums32) -> ScoreVector",
    }


@pytest.mark.parametrize("low", [-40000, -32769, -32768, -9, 0])
@pytest.mark.parametrize("high", [0, 9, 32767, 32768, 40000])
def test_sums_take_the_width_that_holds_them(low: int, high: int) -> None:
    fits = np.iinfo(np.int16).min <= low and high <= np.iinfo(np.int16).max
    assert sum_bits(Sums(1, 1, 1, low, high)) == (16 if fits else 32)


def test_sums_at_the_ends_of_16_bits_add_up(tmp_path: Path) -> None:
    """All 128 products of 255 have one sign: 32640 + 127, and its negative, are the last to fit."""
    model = bnn.Sequential(
        bnn.Input((128,)),
        bnn.BinaryLinear(128, 127),
        bnn.Residual(bnn.Sign(), bnn.BinaryLinear(127, 127)),
        bnn.BatchNorm(127),
        bnn.Sign(),
        bnn.BinaryLinear(127, 2),
    ).eval()
    with torch.no_grad():
        model[1].latent_weight.copy_(1.0 - 2.0 * (torch.arange(127) % 2)[:, None].expand(127, 128))
        signs = 1.0 - 2.0 * (torch.arange(127) % 2)
        model[2][1].latent_weight.copy_(signs[:, None] * signs[None, :])
        model[3].running_mean.copy_(32766.5 * signs)
    network = lower(model)
    result = tensors(network)["add1"]
    assert isinstance(result, Sums)
    assert (result.low, result.high, sum_bits(result)) == (-32767, 32767, 16)
    x = torch.full((3, 128), 255, dtype=torch.uint8)
    x[1, 0] = 254
    x[2] = 0
    expected = integer_scores(model, x, network)
    library = c.generate(plan(network, get_target("host")), "net")
    outputs = host.run(build.build_host(library, tmp_path, sanitize=True), x.numpy())
    np.testing.assert_array_equal(outputs.scores, expected)
    bits = reference.trace(network, reference.check_inputs(network, x.numpy()))["binarize2"]
    assert (bits[0, 0, 0] == signs.numpy()).all()
    assert (bits[1, 0, 0] != bits[0, 0, 0]).any()


def test_shared_sums_are_formed_once() -> None:
    network = lower(blocks())
    raw = [op.name for op in network.ops if isinstance(op, Conv) and isinstance(op.head, Raw)]
    adds = [op for op in network.ops if isinstance(op, Add)]
    assert raw == ["conv1", "conv2", "conv3"]
    assert [sources(op) for op in adds] == [("conv1", "conv2"), ("add1", "conv3")]
    binarized = [op.source for op in network.ops if isinstance(op, Binarize)]
    assert binarized == ["conv1", "add1", "add2"]


def test_chains_store_no_sums() -> None:
    model = bnn.Sequential(bnn.Input((8,)), bnn.BinaryLinear(8, 4), bnn.Sign())
    network = lower(bnn.Sequential(model, bnn.BinaryLinear(4, 2)))
    assert not any(isinstance(tensor, Sums) for tensor in tensors(network).values())


# --- what is promised of the emitted C ----------------------------------------------------------


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compiles_clean_as_c99_and_cpp17(compiler: str, tmp_path: Path) -> None:
    cpp = [flag for flag in toolchain.WARNINGS if flag not in ("-std=c99", "-Wmissing-prototypes")]
    for seed in range(2000, 2003):
        model = random_residual_model(seed) if seed > 2000 else AllWidths()
        library = api.generate(model, name="net")
        source = source_file(library, tmp_path / str(seed))
        for flags in (toolchain.WARNINGS, ("-x", "c++", "-std=c++17", *cpp)):
            command = [compiler, *flags, "-O2", "-c", str(source), "-o", str(tmp_path / "net.o")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4"])
def test_needs_nothing_from_outside(target: str, tmp_path: Path) -> None:
    for seed in range(2000, 2003):
        model = random_residual_model(seed) if seed > 2000 else AllWidths()
        library = api.generate(model, target=target, name="net")
        source = source_file(library, tmp_path / str(seed))
        for level in ("-Os", "-O3"):
            assert undefined(source, target, level, "-ffreestanding") == ""


# --- model files --------------------------------------------------------------------------------


def blocks() -> nn.Sequential:
    """Two residual blocks of convolutions."""
    torch.manual_seed(5)
    first = bnn.Residual(bnn.BatchNorm(5), bnn.Sign(), bnn.BinaryConv2d(5, 5, 3, padding=1))
    second = bnn.Residual(bnn.Sign(), bnn.BinaryConv2d(5, 5, (1, 3), padding=(0, 1)))
    output = (bnn.BatchNorm(5), bnn.Sign(), bnn.Flatten(), bnn.BinaryLinear(60, 3))
    return bnn.Sequential(
        bnn.Input((1, 4, 3), bits=4), bnn.BinaryConv2d(1, 5, 3, padding=1), first, second, *output
    )


class AwkwardNames(nn.Module):
    """Layers named as operations, as attributes of the loaded module, and alike but for a dot."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.input = bnn.Input((9,), bits=3)
        self.sources = bnn.BinaryLinear(9, 9)
        self.a = nn.Sequential(bnn.Sign())
        self.a_0 = bnn.BinaryLinear(9, 9)
        self.add = bnn.Sign()
        self.insert = bnn.BinaryLinear(9, 9)

    def forward(self, x: Tensor) -> Tensor:
        x = self.sources(self.input(x))
        y = self.a_0(self.a(x))
        x = x + y
        return x + self.insert(self.add(x))


@pytest.mark.parametrize("build", [blocks, AwkwardNames])
@pytest.mark.parametrize("form", ["training", "release"])
def test_saved_model_loads_equal(build: Callable[[], nn.Module], form: str, tmp_path: Path) -> None:
    model = build().eval()
    path = tmp_path / "model.pt"
    edgebnn.save(model, path, form=form)
    loaded = edgebnn.load(path)
    assert isinstance(loaded, LayerGraph)
    assert api.generate(loaded) == api.generate(model)
    x = pixels(model)
    assert torch.equal(loaded(x), model(x))
    again = tmp_path / "again.pt"
    edgebnn.save(copy.deepcopy(loaded), again, form=form)
    assert api.generate(edgebnn.load(again)) == api.generate(model)


def test_random_networks_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for seed in range(1, 8):
        model = random_residual_model(seed)
        edgebnn.save(model, path, form="release")
        assert api.generate(edgebnn.load(path)) == api.generate(model), seed


def test_loaded_model_trains_on(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    edgebnn.save(blocks(), path)
    model = edgebnn.load(path).train()
    model(pixels(model).float()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_chain_loads_as_sequential(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    edgebnn.save(bnn.Sequential(bnn.Input((4,)), bnn.BinaryLinear(4, 2)), path)
    assert type(edgebnn.load(path)) is nn.Sequential


def _layer(content: dict[str, Any], kind: str) -> dict[str, Any]:
    entry: dict[str, Any] = next(e for e in content["layers"] if e["type"] == kind)
    return entry


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (["1", "nobody"], "layer 'add' reads 'nobody', which is no layer before it"),
        (["1", "add"], "layer 'add' reads 'add', which is no layer before it"),
        (["1", "add_1"], "layer 'add' reads 'add_1', which is no layer before it"),
        (["1"], "layer 'add' reads 1 layers, not 2"),
        ([], "layer 'add' reads 0 layers, not 2"),
        (["1", "1", "1"], "layer 'add' reads 3 layers, not 2"),
        (["1", "1"], "no layer reads the result of layer '2.2'"),
        (["0", "2.2"], "layer 'add' (Add) adds (1, 4, 3) and (5, 4, 3)"),
        (None, "damaged"),
        (7, "damaged"),
        ([["1"], None], "which is no layer before it"),
        ("1", "layer 'add' reads 1 layers, not 2"),
    ],
)
def test_wrong_inputs_in_a_file_are_refused(inputs: object, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    edgebnn.save(blocks(), path)
    content = plain(path)
    _layer(content, "Add")["inputs"] = inputs
    torch.save(content, path)
    assert reason in refusal(lambda: edgebnn.load(path))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layers: layers[2].update(name="1"), "two layers are named '1'"),
        (lambda layers: layers[0].update(inputs=["1"]), "layer '0' reads '1'"),
        (lambda layers: layers[1].update(inputs=[]), "layer '1' reads 0 layers, not 1"),
        (lambda layers: layers[3].update(inputs=["1", "2.0"]), "reads 2 layers, not 1"),
        (lambda layers: layers[5].update(config={"axis": 1}), "layer 'add' (Add)"),
        (lambda layers: layers.reverse(), "which is no layer before it"),
        (lambda layers: layers.append(dict(layers[0], name="in")), "no layer reads the result"),
    ],
)
def test_wrong_graphs_in_a_file_are_refused(
    change: Callable[[list[dict[str, Any]]], object], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    edgebnn.save(blocks(), path)
    content = plain(path)
    change(content["layers"])
    torch.save(content, path)
    assert reason in refusal(lambda: edgebnn.load(path))


# --- what is refused ----------------------------------------------------------------------------


def layers(**more: nn.Module) -> dict[str, nn.Module]:
    known = {
        "input": bnn.Input((2, 4, 4), bits=2),
        "conv": bnn.BinaryConv2d(2, 2, 3, padding=1),
        "sign": bnn.Sign(),
        "other": bnn.BinaryConv2d(2, 2, 3, padding=1),
    }
    return known | more


def _adds(give: Callable[[Any, Tensor, Tensor], Tensor], **more: nn.Module) -> nn.Module:
    """``give`` the model, the sums of a convolution and those of another on its signs."""

    def forward(m: Any, x: Tensor) -> Tensor:
        r = m.conv(m.input(x))
        return give(m, r, m.other(m.sign(r)))

    return Function(forward, **layers(**more))


@pytest.mark.parametrize(
    ("model", "layer", "reason"),
    [
        (
            _adds(lambda m, r, s: r + m.last(s), last=bnn.Sign()),
            "layer 'add' (Add)",
            "put the Sign after the addition",
        ),
        (
            _adds(lambda m, r, s: m.norm(r) + s, norm=bnn.BatchNorm(2)),
            "layer 'add' (Add)",
            "put the norm after the addition",
        ),
        (
            Function(lambda m, x: (lambda i: i + m.conv(i))(m.input(x)), **layers()),
            "layer 'add' (Add)",
            "adds the input",
        ),
        (
            _adds(
                lambda m, r, s: m.pool(r) + m.pool2(s), pool=nn.MaxPool2d(2), pool2=nn.MaxPool2d(2)
            ),
            "layer 'add' (Add)",
            "put the pool after the addition",
        ),
        (
            _adds(
                lambda m, r, s: m.flatten(s) + m.dense(m.flatten2(m.last(r))),
                flatten=nn.Flatten(),
                flatten2=nn.Flatten(),
                last=bnn.Sign(),
                dense=bnn.BinaryLinear(32, 32),
            ),
            "layer 'add' (Add)",
            "put the addition before Flatten",
        ),
        (
            _adds(lambda m, r, s: m.dense(r + s), dense=bnn.BinaryLinear(4, 4)),
            "layer 'dense' (BinaryLinear)",
            "does not take its input",
        ),
        (
            _adds(lambda m, r, s: m.conv2(r + s), conv2=bnn.BinaryConv2d(2, 2, 1)),
            "layer 'conv2' (BinaryConv2d)",
            "put edgebnn.nn.Sign() before it",
        ),
        (_adds(lambda m, r, s: r + s), "layer 'add' (Add) ends the network", "4x4 scores a class"),
        (_adds(lambda m, r, s: r + 1), "layer 'add' (Bias) ends the network", "4x4 scores a class"),
        (
            _adds(lambda m, r, s: m.plus(r, 1), plus=bnn.Add()),
            "layer 'plus' (Add)",
            "is given more than results of layers",
        ),
        (
            _adds(lambda m, r, s: torch.add(r, s, alpha=2)),
            "operation 'add'",
            "is not supported",
        ),
        (_adds(lambda m, r, s: r.add_(s)), "operation 'add_'", "is not supported"),
        (_adds(lambda m, r, s: r - s), "operation 'sub'", "is not supported"),
        (
            _adds(lambda m, r, s: m.last(r, s), last=bnn.Sign()),
            "layer 'last' (Sign)",
            "takes the results of 1 layer, not of 2",
        ),
        (
            _adds(
                lambda m, r, s: r + m.wide(m.last(s)),
                last=bnn.Sign(),
                wide=bnn.BinaryConv2d(2, 2, 3),
            ),
            "layer 'add' (Add)",
            "adds (2, 4, 4) and (2, 2, 2)",
        ),
        (
            bnn.Sequential(
                bnn.Input((40000,)),
                bnn.BinaryLinear(40000, 1),
                bnn.Residual(),
            ),
            "layer 'add' (Add)",
            f"its sums reach {2 * 255 * 40000}",
        ),
    ],
)
def test_unsupported_addition_names_layer_and_fix(
    model: nn.Module, layer: str, reason: str
) -> None:
    message = refusal(lambda: lower(model))
    assert layer in message
    assert reason in message
