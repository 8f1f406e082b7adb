"""Inputs that stand for signed numbers, and padding with the pixel that stands for 0."""

from itertools import product
from pathlib import Path

import batches
import numpy as np
import pytest
import torch
from networks import random_inputs, random_model
from test_cli import output_here
from test_equality import check_equal, device_inputs

import edgebnn
import edgebnn.nn as bnn
from edgebnn import api, ir, reference
from edgebnn.device import build, host, simavr, unicorn
from edgebnn.lower import lower
from edgebnn.nn.record import connect
from edgebnn.plan import plan
from edgebnn.proof import prove
from edgebnn.targets import get_target


def shifted(seed: int) -> torch.nn.Module:
    """A random network whose input has a zero point, as often as not the middle or an end."""
    model = random_model(seed)
    (first,) = (module for module in model.modules() if isinstance(module, bnn.Input))
    top = 2**first.bits - 1
    choices = (top, (top + 1) // 2, 1, int(np.random.default_rng(seed).integers(0, top + 1)))
    first.zero_point = choices[seed % 4]
    return model


@pytest.mark.parametrize("start", range(0, 40, 20))
def test_random_networks_with_a_zero_point(start: int, tmp_path: Path) -> None:
    check_equal({seed: shifted(seed) for seed in range(start, start + 20)}, tmp_path)


@pytest.mark.parametrize("target_name", ["cortex-m0", "avr"])
def test_zero_points_on_other_cpus(target_name: str, tmp_path: Path) -> None:
    """As many as there is room for."""
    target, given = get_target(target_name), {}
    constants = arena = 0
    for seed in range(100, 160):
        model = shifted(seed)
        network = lower(model)
        inputs = device_inputs(random_inputs(model, 4, seed))
        scheduled = plan(network, target)
        if scheduled.constant_bytes > 8_000 or scheduled.arena_bytes > 400 or inputs[0].size > 400:
            continue
        constants, arena = constants + scheduled.constant_bytes, arena + scheduled.arena_bytes
        if constants > 48_000 or arena > 3_000:  # of an AVR's tables, and of its RAM
            break
        given[seed] = network, inputs
    assert len(given) >= 10
    library, wanted = batches.of_networks(given, target)
    machine = target.emulators[-1].machine if target_name == "avr" else None
    image = build.build_firmware(library, target, tmp_path, machine=machine)
    run = simavr.run if target_name == "avr" else unicorn.run
    assert batches.differing(run(image, wanted.records, counted=0), wanted) == []


PADS = [1, (2, 1), (0, 2, 1, 0), "same"]


def conv(zero_point: int, padding, stride: int, groups: int = 1) -> torch.nn.Module:
    torch.manual_seed(7)
    channels = 6 if groups == 1 else groups
    layers = (
        bnn.Input((groups, 6, 7), bits=8, zero_point=zero_point),
        bnn.BinaryConv2d(groups, channels, 3, stride, padding, pad_value=0, groups=groups),
        bnn.BatchNorm(channels),
        bnn.Sign(),
        bnn.Flatten(),
    )
    with torch.no_grad():
        flat = torch.nn.Sequential(*layers)(torch.zeros(2, groups, 6, 7)).shape[1]
    output = bnn.BinaryLinear(flat, 3)
    model = bnn.Sequential(*layers, output, bnn.OutputNorm(3, bound=flat))
    with torch.no_grad():
        model[2].bias.normal_(0.0, 0.5)
        model[2].running_var.fill_(40_000.0)
    return model.eval()


FIRST = [(1, "tree"), (1, "subset-sums"), (1, "bit-planes"), (3, "auto")]


@pytest.mark.parametrize(("groups", "first_layer"), FIRST)
def test_padding_is_the_pixel_of_zero(groups: int, first_layer: str, tmp_path: Path) -> None:
    """Nothing but the border is looked at: all pixels stand for 0, and one next to it does not."""
    images = np.full((40, groups, 6, 7), 131, np.uint8)
    random = np.random.default_rng(1)
    for image in images[1:]:
        image[random.integers(groups), random.integers(6), random.integers(7)] = random.integers(
            256
        )
    inputs = device_inputs(torch.from_numpy(images))
    libraries, outputs = {}, {}
    for number, (padding, stride) in enumerate(product(PADS, (1, 2))):
        model = conv(131, padding, stride, groups)
        outputs[number] = reference.run(lower(model), inputs)
        with torch.no_grad():
            own = model(torch.from_numpy(images)).argmax(1).tolist()
        assert outputs[number].classes.tolist() == own
        libraries[number] = api.generate(model, name=f"k{number}", first_layer=first_layer)
    wanted = batches.expected({n: (inputs, outputs[n]) for n in outputs})
    image = build.build_host(batches.program(libraries, "host"), tmp_path, sanitize=True)
    assert batches.differing(host.run(image, wanted.records), wanted) == []


class Sums(torch.nn.Module):
    """Additions of sums of the input: of two, and of one with sums of bits."""

    def __init__(self) -> None:
        super().__init__()
        self.input = bnn.Input((2, 5, 5), bits=8, zero_point=100)
        self.left = bnn.BinaryConv2d(2, 4, 3, padding=1, pad_value=0)
        self.right = bnn.BinaryConv2d(2, 4, 1)
        self.norm, self.sign = bnn.BatchNorm(4), bnn.Sign()
        self.deeper = bnn.BinaryConv2d(4, 4, 3, padding=1)
        self.last, self.flatten = bnn.BatchNorm(4), bnn.Flatten()
        self.scores = bnn.BinaryLinear(100, 3)
        for norm in (self.norm, self.last):
            norm.running_var.fill_(90_000.0)
            torch.nn.init.normal_(norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.input(x)
        y = self.left(x) + self.right(x)
        z = y + self.deeper(self.sign(self.norm(y)))
        return self.scores(self.flatten(self.sign(self.last(z))))


@pytest.mark.parametrize("seed", range(5))
def test_sums_that_are_added_keep_their_offsets(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    check_equal({seed: Sums().eval()}, tmp_path)


def test_module_gives_numbers_less_the_zero_point() -> None:
    first = bnn.Input((3,), bits=8, zero_point=128)
    assert first(torch.tensor([[0, 128, 255]])).tolist() == [[-128.0, 0.0, 127.0]]
    assert first.config()["zero_point"] == 128
    assert "zero_point=128" in repr(first)
    for wrong in (-1, 256, 1.5, True):
        with pytest.raises(ValueError, match="zero_point must be 0 to 255"):
            bnn.Input((3,), bits=8, zero_point=wrong)
    with pytest.raises(ValueError, match="round it: a pixel of that value pads"):
        bnn.Input((3,), bits=8, zero_point=33.3)
    with pytest.raises(ValueError, match="zero_point must be 0 to 3"):
        bnn.Input((3,), bits=2, zero_point=4)


def test_files_and_headers_know_the_zero_point(tmp_path: Path) -> None:
    model = conv(128, 1, 1)
    for form in ("training", "release"):
        edgebnn.save(model, tmp_path / "net.pt", form=form)
        (first,) = (
            m for m in edgebnn.load(tmp_path / "net.pt").modules() if isinstance(m, bnn.Input)
        )
        assert first.zero_point == 128
    header = api.generate(tmp_path / "net.pt").files["src/net.h"]
    assert "#define NET_INPUT_ZERO_POINT 128u\n" in header
    assert "ZERO_POINT" not in api.generate(conv(0, 1, 1), name="net").files["src/net.h"]
    text = output_here(tmp_path, "verify", "net.pt", "--random", "50")
    assert "every output is equal" in text
    assert "128 stands for 0" in output_here(tmp_path, "info", "net.pt")


def test_files_of_before_have_none(tmp_path: Path) -> None:
    layers = prove(conv(0, 1, 1)).layers
    del layers[0]["config"]["zero_point"]
    (first,) = (m for m in connect(layers).modules() if isinstance(m, bnn.Input))
    assert first.zero_point == 0


def test_digest_knows_the_padding() -> None:
    digests = {ir.sha256(lower(conv(zero, 1, 1))) for zero in (0, 5, 128)}
    assert len(digests) == 3
