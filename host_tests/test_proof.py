"""The proof starts at the user's module: what its layers alone do not compute is refused.

Each refusal is of a network that traces, chains and lowers, and whose module computes something
else; each acceptance is compared with the module on inputs of its own.
"""

import copy
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import random_inputs, random_model, random_residual_model
from test_equality import device_inputs
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, weight_norm
from torch.optim.swa_utils import AveragedModel

import edgebnn
import edgebnn.nn as bnn
from edgebnn import api, proof, reference
from edgebnn.errors import EdgebnnError
from edgebnn.ir import sha256
from edgebnn.lower import lower
from edgebnn.measure import integer_scores
from edgebnn.nn import trace

WAYS = ("save", "release", "generate")


class Net(nn.Module):
    """Two convolutions, whose sums a forward of one's own may add, and a dense layer."""

    def __init__(self, function: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.input = bnn.Input((2, 6, 6), bits=4)
        self.first = bnn.BinaryConv2d(2, 8, 3, padding=1)
        self.norm = bnn.BatchNorm(8)
        self.sign = bnn.Sign()
        self.second = bnn.BinaryConv2d(8, 8, 3, padding=1)
        self.third = bnn.BinaryConv2d(8, 8, 3, padding=1)
        self.norm2 = bnn.BatchNorm(8)
        self.dense = bnn.BinaryLinear(8 * 36, 5)
        self.drop = nn.Dropout(0.3)
        self.same = nn.Identity()
        self.flat = nn.Flatten()
        self.function = function
        with torch.no_grad():  # rising and falling norms, near enough to 0 for signs of both kinds
            for norm in (self.norm, self.norm2):
                norm.running_mean.normal_(0.0, 4.0)
                norm.weight.normal_()

    def head(self, sums: Tensor) -> Tensor:
        result: Tensor = self.dense(self.flat(self.sign(self.norm2(sums))))
        return result

    def start(self, x: Tensor) -> Tensor:
        """The sums of the first convolution."""
        result: Tensor = self.first(self.input(x))
        return result

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def chain(net: Net, x: Tensor) -> Tensor:
    return net.head(net.second(net.sign(net.norm(net.start(x)))))


def use(way: str, model: nn.Module, path: Path) -> None:
    if way == "generate":
        api.generate(model)
    else:
        edgebnn.save(model, path, form="release" if way == "release" else "training")


def refusal(way: str, model: nn.Module, folder: Path) -> str:
    """The one line that each way of using ``model`` ends in; nothing is written or changed."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with pytest.raises(EdgebnnError) as caught:
        use(way, model, folder / "model.pt")
    assert not list(folder.iterdir())
    assert modes == [module.training for module in model.modules()]
    after = model.state_dict()
    assert state.keys() == after.keys()
    assert all(value.is_meta or torch.equal(value, after[k]) for k, value in state.items())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_accepted(model: nn.Module, path: Path) -> None:
    """The module, the file and the oracle agree."""
    edgebnn.save(model, path)
    network = lower(model)
    inputs = random_inputs(model, 40, seed=9)
    with torch.no_grad():
        own = copy.deepcopy(trace.unwrap(model)).eval()
        expected = integer_scores(own, inputs, network)
    expected = expected.reshape(len(inputs), -1)
    loaded = integer_scores(edgebnn.load(path), inputs, network).reshape(len(inputs), -1)
    np.testing.assert_array_equal(loaded, expected)
    np.testing.assert_array_equal(reference.run(network, device_inputs(inputs)).scores, expected)
    assert api.generate(model) == api.generate(edgebnn.load(path))


# --- what a user puts around layers ---------------------------------------------------------------


def hook_on(name: str) -> nn.Module:
    net = Net(chain)
    net.get_submodule(name).register_forward_hook(lambda m, x, y: -y)
    return net


def pre_hook_on(name: str) -> nn.Module:
    net = Net(chain)
    net.get_submodule(name).register_forward_pre_hook(lambda m, x: (-x[0],))
    return net


def replaced_forward(name: str) -> nn.Module:
    net = Net(chain)
    layer = net.get_submodule(name)
    before = layer.forward
    layer.forward = lambda x: -before(x)  # type: ignore[method-assign]
    return net


def replaced_root_forward() -> nn.Module:
    net = Net(chain)
    net.forward = lambda x: -chain(net, x)  # type: ignore[method-assign]
    return net


class NegatedConv(bnn.BinaryConv2d):
    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


class NegatedShift(bnn.Sign):
    def shifted(self, x: Tensor) -> Tensor:
        return -super().shifted(x)


class OtherScale(bnn.BatchNorm):
    def affine(self) -> tuple[Tensor, Tensor]:
        scale, shift = super().affine()
        return -scale, shift


def with_layer(**layers: nn.Module) -> nn.Module:
    net = Net(chain)
    for name, layer in layers.items():
        net.add_module(name, layer)
    return net


def parametrized(wrap: Callable[[nn.Module], object]) -> nn.Module:
    net = Net(chain)
    wrap(net.second)
    return net


def adds_to_itself(view: Callable[[Net, Tensor], Tensor]) -> nn.Module:
    """The first sums are read again, after something was added to what they passed through."""

    def function(net: Net, x: Tensor) -> Tensor:
        sums = net.start(x)
        y = view(net, sums)
        y += net.second(net.sign(net.norm(sums)))
        return net.head(y + net.third(net.sign(sums)))

    return Net(function)


def counts_twice(net: Net, x: Tensor) -> Tensor:
    sums = net.start(x)
    return net.head(torch.add(sums, 2, net.second(net.sign(sums))))  # type: ignore[call-overload]


class Views(nn.Module):
    """Dense layers whose sums are read after something was added to a view of them."""

    def __init__(self, view: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.input = bnn.Input((9,), bits=4)
        self.a, self.b = bnn.BinaryLinear(9, 16), bnn.BinaryLinear(16, 16)
        self.c, self.d = bnn.BinaryLinear(16, 16), bnn.BinaryLinear(16, 3)
        self.sign = bnn.Sign()
        self.view = view

    def forward(self, x: Tensor) -> Tensor:
        sums = self.a(self.input(x))
        y = self.view(sums)
        y += self.b(self.sign(sums))
        result: Tensor = self.d(self.sign(y + self.c(self.sign(sums))))
        return result


def norm_that_stays_in_training() -> nn.Module:
    class Stubborn(bnn.BatchNorm):
        def train(self, mode: bool = True) -> "Stubborn":
            super().train(True)
            return self

    return with_layer(norm=Stubborn(8))


def train_without_a_mode() -> nn.Module:
    class Old(Net):
        def train(self) -> "Old":  # type: ignore[override]
            super().train()
            return self

    return Old(chain)


def edited(name: str, attribute: str, value: Any) -> nn.Module:
    net = Net(chain)
    setattr(net.get_submodule(name), attribute, value)
    return net


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "hook": (lambda: hook_on("second"), "layer 'second' (BinaryConv2d): a forward hook"),
    "hook on a norm": (lambda: hook_on("norm"), "layer 'norm' (BatchNorm): a forward hook"),
    "hook on Input": (lambda: hook_on("input"), "layer 'input' (Input): a forward hook"),
    "hook on Dropout": (lambda: hook_on("flat"), "layer 'flat' (Flatten): a forward hook"),
    "hook on the model": (lambda: hook_on(""), "the model has a forward hook"),
    "pre-hook": (lambda: pre_hook_on("second"), "'second' (BinaryConv2d): a"),
    "pre-hook on the model": (lambda: pre_hook_on(""), "the model fails on inputs of shape"),
    "forward replaced": (
        lambda: replaced_forward("second"),
        "'second' (BinaryConv2d): its forward",
    ),
    "forward of Sign replaced": (lambda: replaced_forward("sign"), "layer 'sign' (Sign): its"),
    "forward of the model replaced": (replaced_root_forward, "its forward was replaced"),
    "subclass with a forward": (
        lambda: with_layer(second=NegatedConv(8, 8, 3, padding=1)),
        "layer 'second' (NegatedConv) is not supported; its forward is not BinaryConv2d's",
    ),
    "subclass with another part": (lambda: with_layer(sign=NegatedShift()), "gives other"),
    "subclass with another scale": (
        lambda: with_layer(norm2=OtherScale(8)),
        "layer 'norm2' (OtherScale) gives other values",
    ),
    "weight_norm": (
        lambda: parametrized(lambda m: weight_norm(m, "latent_weight")),
        "layer 'second' (BinaryConv2d) computes its 'latent_weight' from something else",
    ),
    "spectral_norm": (
        lambda: parametrized(lambda m: torch.nn.utils.spectral_norm(m, "latent_weight")),
        "layer 'second' (BinaryConv2d) computes its 'latent_weight' from something else",
    ),
    "spectral_norm as a parametrization": (
        lambda: parametrized(lambda m: parametrizations.spectral_norm(m, "latent_weight")),
        "remove_parametrizations(layer, 'latent_weight')",
    ),
    "pruning": (
        lambda: parametrized(lambda m: prune.l1_unstructured(m, "latent_weight", 0.5)),
        "prune.remove(layer, 'latent_weight')",
    ),
    "a buffer of one's own": (
        lambda: parametrized(lambda m: m.register_buffer("extra", torch.zeros(2))),
        "layer 'second' (BinaryConv2d) holds 'extra'",
    ),
    "+= on a value with a reader": (lambda: adds_to_itself(lambda net, y: y), "+="),
    "+= through Dropout": (lambda: adds_to_itself(lambda net, y: net.drop(y)), "+="),
    "+= through Identity": (lambda: adds_to_itself(lambda net, y: net.same(y)), "+="),
    "+= through contiguous": (lambda: adds_to_itself(lambda net, y: y.contiguous()), "+="),
    "+= on a view": (lambda: Views(lambda y: y.view(y.size(0), -1)), "+="),
    "+= on what was flattened": (lambda: Views(lambda y: y.flatten(1)), "+="),
    "torch.add(a, 2, b)": (lambda: Net(counts_twice), "add"),
    "training mode in eval": (norm_that_stays_in_training, "leaves 'norm' (Stubborn) in training"),
    "train() of the past": (train_without_a_mode, "model.eval() fails"),
    "stride edited": (lambda: edited("second", "stride", "two"), "layer 'second' (BinaryConv2d)"),
    "padding edited": (lambda: edited("second", "padding", "valid"), "layer 'second'"),
    "channels edited": (lambda: edited("second", "out_channels", 9), "layer 'norm2'"),
    "norm edited": (lambda: edited("norm", "eps", None), "layer 'norm'"),
    "norm's width edited": (lambda: edited("norm", "num_features", 4), "layer 'norm'"),
    "estimator edited": (lambda: edited("sign", "estimator", 5), "layer 'sign'"),
    "attribute deleted": (lambda: _without(Net(chain), "second", "groups"), "layer 'second'"),
    "meta": (lambda: Net(chain).to("meta"), "has no values"),
    "half": (lambda: Net(chain).half(), "call model.float() first"),
    "dropout that stays": (
        lambda: Net(lambda net, x: net.head(F.dropout(net.start(x), 0.5))),
        "training=self.training",
    ),
    "two results": (lambda: Net(lambda net, x: (chain(net, x),) * 2), "its last layer alone"),  # type: ignore[arg-type, return-value]
    "fails": (
        lambda: Net(lambda net, x: _raises(chain(net, x))),
        "cannot be traced by torch.fx: no such luck",
    ),
}


def _without(net: Net, layer: str, attribute: str) -> Net:
    delattr(net.get_submodule(layer), attribute)
    return net


def _raises(x: Tensor) -> Tensor:
    raise KeyError("no such luck")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_the_layers_alone_do_not_compute_is_refused(
    case: str, way: str, tmp_path: Path
) -> None:
    build, reason = REFUSED[case]
    assert reason in refusal(way, build(), tmp_path)


# --- what is equal and works ----------------------------------------------------------------------


def branches_by_mode(net: Net, x: Tensor) -> Tensor:
    """In training without the shortcut."""
    sums = net.start(x)
    y = net.second(net.sign(sums))
    return net.head(y if net.training else y + sums)


def flattened(flatten: Callable[[Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    def function(net: Net, x: Tensor) -> Tensor:
        y = net.sign(net.norm2(net.second(net.sign(net.start(x)))))
        result: Tensor = net.dense(flatten(y))
        return result

    return function


def pooled(pool: Callable[[Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    def function(net: Net, x: Tensor) -> Tensor:
        y = net.sign(net.norm(pool(net.start(x))))
        result: Tensor = net.last(net.flat(y))
        return result

    return function


def pooling(pool: Callable[[Tensor], Tensor], pixels: int = 9) -> nn.Module:
    net = Net(pooled(pool))
    if isinstance(pool, nn.Module):
        net.pool = pool
    net.last = bnn.BinaryLinear(8 * pixels, 3)
    return net


def read_once(net: Net, x: Tensor) -> Tensor:
    """An in-place addition that nobody else sees."""
    sums = net.start(x)
    y = net.second(net.sign(sums))
    y += sums
    return net.head(y)


def looks_on() -> nn.Module:
    """Hooks that change nothing."""
    net = Net(chain)
    for module in net.modules():
        module.register_forward_hook(lambda m, x, y: None)
    return net


class OurConv(bnn.BinaryConv2d):
    """Nothing of its own but its name."""


class OurPool(nn.MaxPool2d):
    pass


class OurSign(bnn.Sign):
    def extra_repr(self) -> str:
        return "ours"


def _compiled(net: Net) -> Net:
    net.compile()
    return net


ACCEPTED: dict[str, Callable[[], nn.Module]] = {
    "chain": lambda: Net(chain),
    "branches by mode": lambda: Net(branches_by_mode),
    "+= that nobody else sees": lambda: Net(read_once),
    "x.view(x.size(0), -1)": lambda: Net(flattened(lambda y: y.view(y.size(0), -1))),
    "x.view(x.shape[0], -1)": lambda: Net(flattened(lambda y: y.view(y.shape[0], -1))),
    "x.view(x.size()[0], -1)": lambda: Net(flattened(lambda y: y.view(y.size()[0], -1))),
    "x.view(-1, 288)": lambda: Net(flattened(lambda y: y.view(-1, 288))),
    "x.view(x.size(0), 288)": lambda: Net(flattened(lambda y: y.view(y.size(0), 288))),
    "x.view((x.size(0), -1))": lambda: Net(flattened(lambda y: y.view((y.size(0), -1)))),
    "x.reshape(x.size(0), -1)": lambda: Net(flattened(lambda y: y.reshape(y.size(0), -1))),
    "torch.reshape": lambda: Net(flattened(lambda y: torch.reshape(y, (y.size(0), -1)))),
    "x.flatten(1, -1)": lambda: Net(flattened(lambda y: y.flatten(1, -1))),
    "x.flatten(start_dim=1, end_dim=-1)": lambda: Net(
        flattened(lambda y: y.flatten(start_dim=1, end_dim=-1))
    ),
    "x.contiguous().flatten(1)": lambda: Net(flattened(lambda y: y.contiguous().flatten(1))),
    "F.dropout": lambda: Net(
        lambda net, x: net.head(F.dropout(net.start(x), 0.5, training=net.training))
    ),
    "F.max_pool2d(x, 2)": lambda: pooling(lambda y: F.max_pool2d(y, 2)),
    "F.max_pool2d(x, kernel_size=(2, 2))": lambda: pooling(
        lambda y: F.max_pool2d(y, kernel_size=(2, 2))
    ),
    "F.max_pool2d(x, 2, 1)": lambda: pooling(lambda y: F.max_pool2d(y, 2, 1), pixels=25),
    "torch.max_pool2d": lambda: pooling(lambda y: torch.max_pool2d(y, 2)),
    "sign of one's own": lambda: Net(lambda net, x: net.head(net.second(bnn.sign(net.start(x))))),
    "one Sign twice": lambda: Net(chain),
    "sum": lambda: Net(
        lambda net, x: (lambda s: net.head(sum([s, net.second(net.sign(s))])))(net.start(x))  # type: ignore[arg-type]
    ),
    "operator.add": lambda: Net(
        lambda net, x: (lambda s: net.head(operator.add(s, net.second(net.sign(s)))))(net.start(x))
    ),
    "empty subclasses": lambda: with_layer(
        second=OurConv(8, 8, 3, padding=1),
        sign=OurSign(),
        flat=type("OurFlat", (nn.Flatten,), {})(),
    ),
    "subclass of MaxPool2d": lambda: pooling(OurPool(2)),
    "stride edited": lambda: edited("second", "padding", [1, 1]),
    "hooks that look on": looks_on,
    "torch.compile": lambda: torch.compile(Net(chain)),  # type: ignore[return-value]
    "compiled in place": lambda: _compiled(Net(chain)),
    "DataParallel": lambda: nn.DataParallel(Net(chain)),
    "AveragedModel": lambda: AveragedModel(Net(chain)),
    "DataParallel around AveragedModel": lambda: nn.DataParallel(AveragedModel(Net(chain))),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("mode", ["training", "eval"])
@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_equal_is_accepted(case: str, mode: str, tmp_path: Path) -> None:
    model = ACCEPTED[case]().train(mode == "training")
    modes = [module.training for module in model.modules()]
    check_accepted(model, tmp_path / "model.pt")
    assert modes == [module.training for module in model.modules()]


def test_wrapper_with_a_hook_is_refused(tmp_path: Path) -> None:
    model = nn.DataParallel(Net(chain))
    model.register_forward_hook(lambda m, x, y: -y)
    assert "the DataParallel around the model has a hook" in refusal("save", model, tmp_path)


def test_autocast_around_save_does_not_matter(tmp_path: Path) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        edgebnn.save(Net(chain), tmp_path / "model.pt")
    check_accepted(Net(chain), tmp_path / "model.pt")


def test_a_wrong_weight_read_back_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each step between the module and the network is under the comparison."""
    record = proof.record

    def flipped(*arguments: Any) -> Any:
        layers = record(*arguments)
        layers[4]["tensors"]["latent_weight"][3, 2, 1, 1] *= -1.0
        return layers

    monkeypatch.setattr(proof, "record", flipped)
    message = refusal("save", Net(chain), tmp_path)
    assert "layer 'second' (BinaryConv2d) gives other values" in message


def test_a_wrong_threshold_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edgebnn import lower as lowering

    thresholds = lowering.thresholds

    def raised(*arguments: Any) -> Any:
        minimum, falling = thresholds(*arguments)
        return minimum + 3, falling

    monkeypatch.setattr(lowering, "thresholds", raised)
    assert "torch and the lowered network differ on" in refusal("save", Net(chain), tmp_path)


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_random_networks_are_proven(seed: int) -> None:
    for model in (random_model(seed), random_residual_model(seed)):
        assert sha256(proof.prove(model).network) == sha256(lower(model))


@pytest.mark.parametrize("bits", range(1, 9))
def test_samples_cover_the_range(bits: int) -> None:
    images = proof.sample((1, 8, 8), bits, 32)
    assert images.dtype == np.uint8
    assert not images[0].any()
    assert (images[1] == 2**bits - 1).all()
    assert len(np.unique(images[4::4])) > 0.8 * 2**bits
    np.testing.assert_array_equal(images, proof.sample((1, 8, 8), bits, 32))
