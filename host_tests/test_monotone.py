"""What rises or falls before a Sign is folded into its threshold, exactly; else it is refused.

Also biases, products and sums with constants in a forward, and a Softmax at the end.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_inputs, random_model, random_residual_model, random_steps
from test_equality import check_equal, device_inputs
from test_model_files import plain, refusal
from test_proof import check_accepted
from torch import Tensor, nn
from torch.nn import functional as F

import edgebnn
import edgebnn.nn as bnn
from edgebnn import checkpoint, proof, reference
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Threshold
from edgebnn.lower import lower
from edgebnn.measure import integer_scores
from edgebnn.nn.trace import trace
from edgebnn.train.twin import float_twin

CHANNELS = 9


def every_sum(chain: list[nn.Module], flat: bool) -> tuple[bnn.Sequential, Tensor]:
    """A network whose ``chain`` sees every sum from -255 to 255 in each of its channels."""
    torch.manual_seed(1)
    shape = (2,) if flat else (2, 1, 1)
    layer = bnn.BinaryLinear(2, CHANNELS) if flat else bnn.BinaryConv2d(2, CHANNELS, 1)
    with torch.no_grad():
        layer.latent_weight[:, 0], layer.latent_weight[:, 1] = 1.0, -1.0
    end = () if flat else (bnn.Flatten(),)
    model = bnn.Sequential(
        bnn.Input(shape), layer, *chain, bnn.Sign(), *end, bnn.BinaryLinear(CHANNELS, 3)
    )
    sums = np.arange(-255, 256)
    inputs = np.stack([np.maximum(sums, 0), np.maximum(-sums, 0)], 1).astype(np.uint8)
    return model.eval(), torch.from_numpy(inputs).reshape(-1, *shape)


def check_thresholds(chain: list[nn.Module], flat: bool) -> np.ndarray:
    """Every bit is what torch's own chain and Sign give; returns them, (511, CHANNELS)."""
    model, x = every_sum(chain, flat)
    with torch.no_grad():
        y = x
        for module in model:
            y = module(y)
            if isinstance(module, bnn.Sign):
                break
    wanted = y.reshape(511, CHANNELS).numpy()
    network = lower(model)
    assert isinstance(network.ops[0].head, Threshold)
    found = reference.trace(network, reference.check_inputs(network, device_inputs(x)))
    np.testing.assert_array_equal(found[network.ops[0].name].reshape(511, CHANNELS), wanted)
    return wanted


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("start", range(0, 200, 50))
def test_random_chains_at_every_sum(start: int, flat: bool) -> None:
    varied = 0
    for seed in range(start, start + 50):
        rng = np.random.default_rng([seed, int(flat)])
        chain = random_steps(rng, int(rng.integers(1, 6)), CHANNELS, 0 if flat else 2)
        for place in rng.integers(0, len(chain) + 1, int(rng.integers(0, 3))):
            norm = bnn.BatchNorm(CHANNELS)
            with torch.no_grad():
                norm.weight.normal_()
                norm.bias.normal_()
                norm.running_mean.copy_(torch.randint(-50, 50, (CHANNELS,)))
            chain.insert(int(place), norm)
        wanted = check_thresholds(chain, flat)
        varied += len(np.unique(wanted)) > 1
    assert varied >= 20


def scaled(value: float) -> bnn.Scale:
    return bnn.Scale(value)


def prelu(slope: float) -> nn.PReLU:
    return nn.PReLU(init=slope)


@pytest.mark.parametrize(
    ("chain", "least", "falls"),
    [
        ([nn.ReLU()], -255, False),  # relu(x) >= 0 everywhere, and sign(0) is +1
        ([nn.ReLU(), scaled(-1.0)], 0, True),  # -0.0 >= 0
        ([nn.ReLU(), bnn.Bias(-0.5)], 1, False),
        ([nn.ReLU(), bnn.Bias(-1)], 1, False),
        ([nn.ReLU(), bnn.Bias(-(2.0**-149))], 1, False),
        ([scaled(-1.0), nn.ReLU(), bnn.Bias(-7)], -7, True),
        ([scaled(0.1), bnn.Bias(-0.3)], 3, False),  # float32: 3 * 0.1 - 0.3 is above 0
        ([nn.Hardtanh(), bnn.Bias(-1)], 1, False),
        ([nn.Hardtanh(), bnn.Bias(-1.0000001)], 256, False),  # never
        ([nn.ReLU6(), scaled(-1.0), bnn.Bias(6)], 255, True),  # always
        ([nn.ReLU6(), bnn.Bias(-6)], 6, False),
        ([nn.LeakyReLU(0.0), bnn.Bias(-1)], 1, False),
        ([nn.LeakyReLU(0.5), bnn.Bias(2)], -4, False),
        ([prelu(0.25), bnn.Bias(2)], -8, False),
        ([bnn.Bias(2.0**24), bnn.Bias(-(2.0**24))], -255, False),
    ],
)
def test_plateaus_ties_and_rounding(chain: list[nn.Module], least: int, falls: bool) -> None:
    """The least sum that gives +1, or the largest where it falls."""
    for flat in (True, False):
        if isinstance(chain[-1], bnn.Bias) and chain[-1].number == -(2.0**24):
            check_thresholds(chain, flat)  # what torch has is what counts
            continue
        wanted = check_thresholds(chain, flat)[:, 0]
        sums = np.arange(-255, 256)
        np.testing.assert_array_equal(
            wanted, np.where(sums <= least if falls else sums >= least, 1, -1)
        )


# --- with pools -----------------------------------------------------------------------------------


def step_lists() -> dict[str, Callable[[], list[nn.Module]]]:
    def per_channel(kind: Any) -> nn.Module:
        module = kind(None, (CHANNELS, 1, 1))
        with torch.no_grad():
            module.value.copy_(torch.linspace(-4, 4, CHANNELS).reshape(-1, 1, 1))
        return module

    pool = bnn.MaxPool2d(2, 1)
    return {
        "relu, pool": lambda: [nn.ReLU(), pool, bnn.Bias(-3)],
        "pool, relu": lambda: [pool, nn.ReLU(), bnn.Bias(-3)],
        "relu, pool, falls": lambda: [nn.ReLU(), pool, bnn.Scale(-1.0), bnn.Bias(3)],
        "falls, pool": lambda: [bnn.Scale(-1.0), pool, bnn.Bias(-2)],
        "falls, pool, falls": lambda: [bnn.Scale(-1.0), pool, bnn.Scale(-0.1), bnn.Bias(1)],
        "pool, per channel": lambda: [pool, per_channel(bnn.Scale), per_channel(bnn.Bias)],
        "per channel, pool": lambda: [per_channel(bnn.Scale), per_channel(bnn.Bias), pool],
        "pool, norm, relu, falls": lambda: [
            pool,
            bnn.BatchNorm(CHANNELS),
            nn.ReLU(),
            per_channel(bnn.Scale),
            bnn.Bias(0.5),
        ],
        "two pools": lambda: [pool, bnn.Scale(-1.0), pool, bnn.Scale(-1.0), bnn.Bias(-1)],
        "prelu, pool": lambda: [nn.PReLU(CHANNELS), pool, bnn.Bias(1)],
    }


@pytest.mark.parametrize("case", step_lists())
def test_pools_between_what_rises_and_falls(case: str, tmp_path: Path) -> None:
    """An OR of bits where all behind the pool rises, an AND where it falls."""
    chain = step_lists()[case]()
    torch.manual_seed(4)
    second = (bnn.BinaryConv2d(CHANNELS, 4, 3, padding=1, pad_value=1), nn.ReLU(), bnn.Bias(-1))
    model = bnn.Sequential(
        bnn.Input((1, 6, 6), bits=2),
        bnn.BinaryConv2d(1, CHANNELS, 3, padding=1, bias=True),
        *chain,
        bnn.Sign(),
        *second,
        bnn.Sign(),
        bnn.Flatten(),
    )
    with torch.no_grad():
        model[1].bias.copy_(torch.linspace(-2.5, 2.5, CHANNELS))
        for norm in (m for m in model if isinstance(m, bnn.BatchNorm)):
            norm.weight.normal_()
        size = model(torch.zeros(1, 1, 6, 6)).shape[1]
    model.append(bnn.BinaryLinear(size, 5))
    network, _ = check_equal({5: model.eval()}, tmp_path)[5]
    if "falls" in case or "per channel" in case:
        masks = [op.all_set for op in network.ops if type(op).__name__ == "MaxPool"]
        if case not in ("falls, pool", "per channel, pool"):
            assert any(mask.any() for mask in masks)


def test_thresholds_of_all_backends_are_those_of_random_networks() -> None:
    """test_equality and test_emulated run networks with these layers; here is that they do."""
    kinds = {type(m) for seed in range(60) for m in random_model(seed).modules()}
    kinds |= {type(m) for seed in range(20) for m in random_residual_model(seed).modules()}
    assert {nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.PReLU, bnn.Scale, bnn.Bias} <= kinds


# --- behind Flatten -------------------------------------------------------------------------------


def flat_steps(rng: np.random.Generator, features: int) -> list[nn.Module]:
    """A norm with scales of either sign, and what else treats each flattened value alone."""
    norm = bnn.BatchNorm(features)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        norm.running_mean.copy_(torch.randint(-5, 5, (features,)))
    chain = random_steps(rng, int(rng.integers(0, 3)), features, 0)
    chain.insert(int(rng.integers(0, len(chain) + 1)), norm)
    sign = bnn.Sign(num_features=features)
    torch.nn.init.normal_(sign.shift)
    return [bnn.Flatten(), *chain, sign]


SOURCES: dict[str, tuple[bnn.Input, tuple[nn.Module, ...]]] = {
    "the input": (bnn.Input((3, 4, 5), bits=3, zero_point=2), ()),
    "a convolution": (bnn.Input((2, 4, 5), bits=3), (bnn.BinaryConv2d(2, 35, 3, padding=1),)),
    "behind a ReLU": (bnn.Input((2, 4, 5), bits=3), (bnn.BinaryConv2d(2, 6, 2), nn.ReLU())),
    "a depthwise one": (
        bnn.Input((7, 4, 5), bits=3, zero_point=4),
        (bnn.BinaryConv2d(7, 7, 2, groups=7, padding=1),),
    ),
    "a signal": (bnn.Input((2, 9), bits=8), (bnn.BinaryConv1d(2, 33, 3, padding="causal"),)),
    "an addition": (
        bnn.Input((2, 4, 5), bits=3),
        (
            *(bnn.BinaryConv2d(2, 5, 3, padding=1), bnn.BatchNorm(5), bnn.Sign()),
            *(bnn.BinaryConv2d(5, 5, 3, padding=1),),
            bnn.Residual(bnn.BatchNorm(5), bnn.Sign(), bnn.BinaryConv2d(5, 5, 3, padding=1)),
        ),
    ),
    "one pixel": (bnn.Input((2, 3, 3), bits=3), (bnn.BinaryConv2d(2, 33, 3),)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_each_flattened_value_has_a_threshold_of_its_own(source: str, tmp_path: Path) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        first, layers = copy.deepcopy(SOURCES[source])
        size = bnn.Sequential(first, *layers)(torch.zeros(1, *first.shape)).numel()
        steps = flat_steps(np.random.default_rng(seed), size)
        model = bnn.Sequential(first, *layers, *steps, bnn.BinaryLinear(size, 5)).eval()
        network, _ = check_equal({seed: model}, tmp_path / str(seed))[seed]
        own = [op for op in network.ops if type(op).__name__ == "Binarize" and op.minimum.ndim == 3]
        assert len(own) == (source != "one pixel")
        edgebnn.save(model, tmp_path / "model.pt")


# --- a forward of one's own -----------------------------------------------------------------------


class Own(nn.Module):
    """A convolution, what ``function`` makes of its sums, a sign and a dense layer."""

    def __init__(self, function: Callable[["Own", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(8)
        self.input = bnn.Input((2, 5, 5), bits=3)
        self.conv = bnn.BinaryConv2d(2, 6, 3, padding=1)
        self.sign, self.flat, self.relu = bnn.Sign(), bnn.Flatten(), nn.ReLU()
        self.inplace = nn.ReLU(inplace=True)
        self.pool = bnn.MaxPool2d(2, 1, 0)
        self.dense = bnn.BinaryLinear(150, 3)
        self.factor = nn.Parameter(torch.tensor([1.0, -2.0, 0.3, 0.0, -0.1, 7.0]))
        self.image_factor = nn.Parameter(self.factor.detach().reshape(1, 6, 1, 1).clone())
        self.one = nn.Parameter(torch.tensor(-0.7))
        self.register_buffer("shift", torch.tensor([0.5, -3.0, 1.0, -0.0, 4.0, -8.5]))
        self.plain = 0.3
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(self, self.conv(self.input(x)))
        result: Tensor = self.dense(self.flat(self.sign(y)))
        return result


FORWARDS: dict[str, Callable[[Own, Tensor], Tensor]] = {
    "x * 0.5 + 3": lambda m, x: x * 0.5 + 3,
    "3 - 0.1 * x": lambda m, x: 3 - 0.1 * x,
    "-x - 2.5": lambda m, x: -x - 2.5,
    "x / 4 - 1": lambda m, x: x / 4 - 1,
    "a number of the module": lambda m, x: x * m.plain - 1,
    "a parameter": lambda m, x: x * m.one + 4,
    "a parameter a channel": lambda m, x: x * m.image_factor - 1,
    "a view of a parameter": lambda m, x: m.factor.view(-1, 1, 1) * x + m.shift[:, None, None],
    "what a parameter makes": lambda m, x: (x - 1) * m.factor.abs().reshape(1, -1, 1, 1) - 2,
    "torch.mul": lambda m, x: torch.sub(torch.mul(x, -1.5), m.one),
    "methods": lambda m, x: x.mul(2).sub(m.one).neg().add(3).relu().add(-2),
    "subtracted from a parameter": lambda m, x: m.shift.view(6, 1, 1) - x,
    "torch.tensor": lambda m, x: x * torch.tensor(0.3) + torch.tensor([2.0]),
    "F.relu": lambda m, x: F.relu(x) - 3,
    "F.relu inplace": lambda m, x: F.relu(x, inplace=True) - 3,
    "ReLU(inplace)": lambda m, x: m.inplace(x) - 3,
    "torch.relu": lambda m, x: torch.relu(-x) - 3,
    "F.relu6": lambda m, x: F.relu6(x) - 5.5,
    "F.hardtanh": lambda m, x: F.hardtanh(x, -2.0, 2.5) - 2,
    "clamp": lambda m, x: x.clamp(-3, 3) + 2.5,
    "clamp(min)": lambda m, x: torch.clamp(x, min=2) - 4,
    "clamp(max)": lambda m, x: x.clamp(max=2) + 4,
    "F.leaky_relu": lambda m, x: F.leaky_relu(x, 0.1) + 0.5,
    "F.prelu": lambda m, x: F.prelu(x, m.factor.abs()) + 1,
    "F.prelu of one": lambda m, x: F.prelu(x, m.one.abs().reshape(1)) + 1,
    "+=": lambda m, x: _added(x) + 0,
    "the same one twice": lambda m, x: m.relu(m.relu(x) - 3) - 2,
    "dropout between": lambda m, x: F.dropout(m.relu(x), 0.5, training=m.training) - 2,
}


def _added(x: Tensor) -> Tensor:
    x += 1.5
    x *= -1
    return x


@pytest.mark.parametrize("case", FORWARDS)
def test_a_forward_with_constants_is_accepted(case: str, tmp_path: Path) -> None:
    model = Own(FORWARDS[case])
    before = set(vars(model))
    check_accepted(model, tmp_path / "model.pt")
    assert set(vars(model)) == before
    release = tmp_path / "release.pt"
    edgebnn.save(model, release, form="release")
    inputs = random_inputs(model, 30, 2)
    with torch.no_grad():
        wanted = copy.deepcopy(model).eval()(inputs)
        assert torch.equal(edgebnn.load(release)(inputs).double(), wanted.double())


def test_sums_read_twice_behind_what_rises(tmp_path: Path) -> None:
    """A ReLU that two signs read is folded into the thresholds of both."""

    class Twice(Own):
        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.conv(self.input(x)) * 0.5)
            one, other = self.sign(y - 1), self.sign(3 - y)
            a, b = self.dense(self.flat(one)), self.more(self.flat(other))
            result: Tensor = a + b
            return result

    model = Twice(lambda m, x: x)
    model.more = bnn.BinaryLinear(150, 3)
    check_accepted(model, tmp_path / "model.pt")
    kinds = [type(op).__name__ for op in lower(model).ops]
    assert kinds.count("Binarize") == 2


# --- biases and files -----------------------------------------------------------------------------


def biased() -> bnn.Sequential:
    torch.manual_seed(2)
    model = bnn.Sequential(
        bnn.Input((1, 4, 4), bits=2),
        bnn.BinaryConv2d(1, 5, 3, bias=True),
        nn.PReLU(5),
        bnn.Bias(None, (5, 1, 1)),
        bnn.Scale(None),
        bnn.Sign(),
        bnn.Flatten(),
        bnn.BinaryLinear(20, 7, bias=True),
        nn.Hardtanh(-3, 2),
        nn.LeakyReLU(0.2),
        nn.ReLU6(),
        bnn.Scale(-0.3),
        bnn.Bias(0.2),
        bnn.Sign(),
        bnn.BinaryLinear(7, 3),
        bnn.OutputNorm(3, bound=7),
    )
    with torch.no_grad():
        for parameter in (model[1].bias, model[2].weight, model[3].value, model[7].bias):
            parameter.copy_(torch.linspace(0.1, 2.3, parameter.numel()).reshape(parameter.shape))
        model[4].value.fill_(-1.25)
    return model


@pytest.mark.parametrize("form", ["training", "release"])
def test_files_hold_every_constant(form: Any, tmp_path: Path) -> None:
    model = biased().eval()
    edgebnn.save(model, tmp_path / "model.pt", form=form)
    loaded = edgebnn.load(tmp_path / "model.pt")
    state = loaded.state_dict()
    for name, value in model.state_dict().items():
        if form == "training" or not name.endswith("latent_weight"):
            assert torch.equal(state[name], value), name
    assert [type(m) for m in loaded] == [type(m) for m in model]
    inputs = random_inputs(model, 60, 1)
    with torch.no_grad():
        assert torch.equal(loaded(inputs), model(inputs))
    check_accepted(loaded, tmp_path / "again.pt")


def test_files_of_before_biases_load(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    model = bnn.Sequential(bnn.Input((9,)), bnn.BinaryLinear(9, 3))
    edgebnn.save(model, path)
    content = plain(path)
    del content["layers"][1]["config"]["bias"]
    torch.save(content, path)
    assert edgebnn.load(path)[1].bias is None


@pytest.mark.parametrize(
    ("place", "change", "reason"),
    [
        (2, {"num_parameters": 3}, "'2'"),
        (3, {"shape": [5, 2, 1]}, "differs from pixel to pixel"),
        (3, {"value": float("nan"), "shape": []}, "finite"),
        (8, {"min_val": 3.0, "max_val": 1.0}, "layer '8' (Hardtanh)"),
        (8, {"min_val": "low"}, "layer '8'"),
        (9, {"negative_slope": float("nan")}, "layer '9'"),
        (7, {"bias": 1}, "True or False"),
        (1, {"bias": False}, None),
    ],
)
def test_files_with_other_constants_are_refused(
    place: int, change: dict[str, Any], reason: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    edgebnn.save(biased(), path)
    content = plain(path)
    content["layers"][place]["config"].update(change)
    torch.save(content, path)
    if reason is None:
        assert edgebnn.load(path)[1].bias is None
    else:
        assert reason in refusal(lambda: edgebnn.load(path))


def test_biases_train_and_have_twins() -> None:
    model = biased().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = model[1].bias.detach().clone()
    loss = bnn.square_hinge(model(random_inputs(model, 40, 3)), torch.arange(40) % 3)
    loss.backward()
    optimizer.step()
    assert not torch.equal(before, model[1].bias)
    twin = float_twin(biased())
    assert twin[1].bias is not None
    assert twin[7].bias is not None
    assert twin[14].bias is None


# --- what is refused ------------------------------------------------------------------------------


def negative_prelu() -> nn.PReLU:
    module = nn.PReLU(6)
    with torch.no_grad():
        module.weight[3] = -0.25
    return module


def net(*steps: nn.Module, end: tuple[nn.Module, ...] = ()) -> bnn.Sequential:
    torch.manual_seed(3)
    return bnn.Sequential(bnn.Input((2, 5, 5), bits=3), bnn.BinaryConv2d(2, 6, 3), *steps, *end)


DENSE = (bnn.Sign(), bnn.Flatten(), bnn.BinaryLinear(54, 3))


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        (net(negative_prelu(), end=DENSE), "'2' (PReLU)", "its slope below 0 is -0.25"),
        (net(nn.LeakyReLU(-0.1), end=DENSE), "'2' (LeakyReLU)", "keep its slope at 0 or more"),
        (net(nn.ReLU(), end=DENSE[1:]), "'4' (BinaryLinear)", "put edgebnn.nn.Sign() before it"),
        (net(bnn.Sign(), nn.ReLU(), end=DENSE), "'3' (ReLU)", "put it before the Sign"),
        (
            net(bnn.Scale(None, (6, 1, 1)), bnn.Flatten(), bnn.Bias(None, (54,))),
            "'4' (Bias)",
            "treats what a Scale gives one by one after Flatten",
        ),
        (net(bnn.Bias(None, (3,)), end=DENSE), "'2' (Bias)", "one a channel is (6, 1, 1)"),
        (net(bnn.Scale(None, (6,)), end=DENSE), "'2' (Scale)", "one a channel is (6, 1, 1)"),
        (net(nn.PReLU(3), end=DENSE), "'2' (PReLU)", "num_parameters is 3"),
        (net(end=(*DENSE, nn.ReLU())), "'5' (ReLU) ends", "leave out the ReLU before them"),
        (net(end=(*DENSE, bnn.Scale(2.0))), "'5' (Scale) ends", "leave out the Scale"),
        (
            net(end=(*DENSE[:2], bnn.BinaryLinear(54, 3, bias=True), bnn.OutputNorm(3))),
            "'5' (OutputNorm) ends",
            "leave out the Bias",
        ),
        (net(end=(*DENSE, bnn.OutputNorm(3), nn.ReLU())), "'6' (ReLU)", "follows an OutputNorm"),
        (
            net(bnn.Scale(1e38), bnn.Scale(1e38), bnn.Scale(0.0), end=DENSE),
            "'5' (Sign)",
            "gives NaN",
        ),
    ],
)
def test_what_neither_rises_nor_falls_is_refused(model: nn.Module, name: str, reason: str) -> None:
    message = refusal(lambda: lower(model))
    assert f"layer {name}" in message
    assert reason in message


@pytest.mark.parametrize("between", [(), (bnn.BatchNorm(6),), (bnn.MaxPool2d(1), nn.Dropout(0.1))])
@pytest.mark.parametrize("kind", [nn.Tanh, nn.GELU, nn.ELU])
def test_no_refusal_asks_for_a_sign_that_is_there(kind: Any, between: tuple[Any, ...]) -> None:
    message = refusal(lambda: lower(net(kind(), *between, end=DENSE)))
    assert f"layer '2' ({kind.__name__}) is not supported" in message
    assert "use edgebnn.nn.Sign" not in message
    assert "Sign()" not in message
    if kind is nn.Tanh:
        assert "before a Sign may stand norms, ReLU" in message
        assert "use edgebnn.nn.Sign" in refusal(lambda: lower(net(nn.Tanh(), end=DENSE[1:])))


REFUSED: dict[str, tuple[Callable[[Own, Tensor], Tensor], str]] = {
    "negative slope": (lambda m, x: F.leaky_relu(x, -0.1), "layer 'leaky_relu' (LeakyReLU)"),
    "negative prelu": (lambda m, x: F.prelu(x, m.factor), "layer 'prelu' (PReLU)"),
    "quotient": (lambda m, x: x / 3, "multiply by the inverse"),
    "quotient of a constant": (lambda m, x: 3 / x, "operation 'truediv'"),
    "by a parameter": (lambda m, x: x / m.one, "multiply by the inverse"),
    "a product": (lambda m, x: x * x, "multiply by constants alone"),
    "a difference": (lambda m, x: x - x, "subtract constants alone"),
    "float64": (lambda m, x: x + m.one.double(), "its constant is torch.float64"),
    "integers": (lambda m, x: x + m.one.long(), "its constant is torch.int64"),
    "a factor": (lambda m, x: torch.add(x, 3, alpha=2), "without a factor"),
    "pixel by pixel": (lambda m, x: x + torch.ones(6, 5, 5), "differs from pixel to pixel"),
    "along the width": (lambda m, x: x + torch.ones(5), "layer 'add' (Bias)"),
    "not finite": (lambda m, x: x + float("inf"), "finite"),
    "not finite at all": (lambda m, x: x * (m.one * float("nan")), "holds NaN"),
    "wrong way round": (lambda m, x: x.clamp(3, 1), "the lower one first"),
    "bounds": (lambda m, x: torch.clamp(x, m.one), "operation 'clamp'"),
    "abs": (lambda m, x: x.abs(), "(abs) is not supported"),
    "softmax within": (lambda m, x: x.softmax(1), "at the end of the network"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_forward_that_is_not_monotone_is_refused(case: str) -> None:
    function, reason = REFUSED[case]
    model = Own(function)
    state = copy.deepcopy(model.state_dict())
    assert reason in refusal(lambda: proof.prove(model))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_product_before_input_is_refused() -> None:
    class Scaled(Own):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = super().forward(x / 255)
            return result

    message = refusal(lambda: lower(Scaled(lambda m, x: x)))
    assert "operation 'truediv' (truediv) is not supported; it comes before Input" in message


def test_sums_behind_a_relu_cannot_be_added() -> None:
    class Adds(Own):
        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(self.input(x))
            result: Tensor = self.dense(self.flat(self.sign(self.relu(y) + y)))
            return result

    message = refusal(lambda: lower(Adds(lambda m, x: x)))
    assert "layer 'add' (Add): adds what a ReLU gives; put the ReLU after the addition" in message


# --- a Softmax at the end -------------------------------------------------------------------------


class Ended(nn.Module):
    def __init__(self, ending: Callable[[Tensor], Tensor], classes: int = 4, norm: bool = True):
        super().__init__()
        torch.manual_seed(6)
        norms = (bnn.OutputNorm(classes, bound=90),) if norm else ()
        self.net = bnn.Sequential(bnn.Input((6,), bits=4), bnn.BinaryLinear(6, classes), *norms)
        self.ending = ending

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(self.net(x))


ENDINGS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "Softmax(1)": lambda: nn.Softmax(1),
    "Softmax(-1)": lambda: nn.Softmax(-1),
    "LogSoftmax(1)": lambda: nn.LogSoftmax(dim=1),
    "F.log_softmax": lambda: lambda y: F.log_softmax(y, dim=1),
    "F.softmax": lambda: lambda y: F.softmax(y, 1),
    "x.softmax": lambda: lambda y: y.softmax(-1),
    "torch.log_softmax": lambda: lambda y: torch.log_softmax(y, 1),
}


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("case", ENDINGS)
def test_a_softmax_at_the_end_is_left_out(case: str, norm: bool, tmp_path: Path) -> None:
    """What is saved and lowered gives the scores before it, and with them the class."""
    model = Ended(ENDINGS[case](), norm=norm).eval()
    edgebnn.save(model, tmp_path / "model.pt")
    loaded = edgebnn.load(tmp_path / "model.pt")
    inputs = random_inputs(model, 200, 4)
    with torch.no_grad():
        scores, ended = model.net(inputs), model(inputs)
        assert torch.equal(loaded(inputs), scores)
    network = lower(model)
    outputs = reference.run(network, inputs.numpy())
    np.testing.assert_array_equal(outputs.scores, integer_scores(loaded, inputs, network))
    chosen = ended.gather(1, torch.from_numpy(outputs.classes).long()[:, None])
    assert torch.equal(chosen[:, 0], ended.max(1).values)
    assert all(type(n.module) not in (nn.Softmax, nn.LogSoftmax) for n in trace(model))


def hooked() -> nn.Module:
    model = Ended(nn.Softmax(1))
    model.ending.register_forward_hook(lambda m, x, y: -y)  # type: ignore[union-attr]
    return model


def replaced() -> nn.Module:
    model = Ended(nn.LogSoftmax(1))
    model.ending.forward = lambda y: -y  # type: ignore[union-attr, method-assign]
    return model


class Turned(nn.Softmax):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(-x)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (hooked, "gives other scores than its layers"),
        (replaced, "gives other scores than its layers"),
        (lambda: Ended(lambda y: -F.softmax(y, 1)), "'softmax' (Softmax)"),
        (
            lambda: Ended(nn.Softmax(0)),
            "layer 'ending' (Softmax) is not over the classes; give it dim=1",
        ),
        (lambda: Ended(nn.Softmax(1), classes=1), "class 1 is where the score is at least 0"),
        (lambda: Ended(Turned(1)), "layer 'neg' (Scale): follows an OutputNorm"),
        (lambda: Ended(nn.Sigmoid(), classes=1), "of one score, class 1 is where it is at least 0"),
        (lambda: Ended(lambda y: y.softmax(1, dtype=torch.float64)), "leave out its dtype"),
    ],
)
def test_an_ending_that_changes_the_class_is_refused(
    build: Callable[[], nn.Module], reason: str
) -> None:
    with pytest.raises(EdgebnnError) as caught:
        proof.prove(build())
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_softmax_over_pixels_is_no_ending(tmp_path: Path) -> None:
    conv = (bnn.BinaryConv2d(1, 3, 4), nn.Softmax(-1))
    model = bnn.Sequential(bnn.Input((1, 4, 4)), *conv)
    assert "is not over the classes" in refusal(lambda: lower(model))
    model[2] = nn.Softmax(1)
    edgebnn.save(model, tmp_path / "model.pt")
    assert checkpoint.read(tmp_path / "model.pt").model(torch.zeros(1, 1, 4, 4)).shape == (
        1,
        3,
        1,
        1,
    )
