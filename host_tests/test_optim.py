"""Optimizers, rates per layer and schedules: numbers worked out by hand, compared exactly."""

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, StepLR

import edgebnn.nn as bnn
from edgebnn.nn.functional import ap2


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def set_grad(weight: nn.Parameter, *values: float) -> None:
    weight.grad = torch.tensor(values)


def small_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return bnn.Sequential(
        bnn.Input((2, 4, 4)),
        bnn.BinaryConv2d(2, 3, 3, padding=1),
        bnn.BatchNorm(3),
        bnn.Sign(),
        bnn.Flatten(),
        bnn.BinaryLinear(48, 5),
        bnn.OutputNorm(5),
    )


def backward(model: nn.Module, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (8, 2, 4, 4), generator=generator)
    labels = torch.randint(0, 5, (8,), generator=generator)
    model.zero_grad()
    loss = bnn.square_hinge(model(images), labels)
    loss.backward()
    return loss


def bits(model: nn.Module) -> list[Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


# --- powers of two ------------------------------------------------------------------------------


def nearest_power(x: float) -> float:
    """AP2 by rational arithmetic: 2**k with 2**(2k - 1) < x**2 < 2**(2k + 1)."""
    if x == 0:
        return 0.0
    square = Fraction(x) ** 2
    exponent = math.frexp(x)[1] - 1
    if square > Fraction(2) ** (2 * exponent + 1):
        exponent += 1
    return math.copysign(2.0**exponent, x)


@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1))
def test_ap2_is_exact(values: list[float]) -> None:
    assert ap2(torch.tensor(values)).tolist() == [nearest_power(x) for x in values]


@given(st.floats(1e-300, 1e300))
def test_ap2_is_exact_in_double(x: float) -> None:
    assert ap2(torch.tensor([x], dtype=torch.float64)).item() == nearest_power(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ap2_at_powers_of_two_and_beside_their_middle(dtype: torch.dtype) -> None:
    least, most = (-149, 127) if dtype == torch.float32 else (-1074, 1023)
    powers = torch.tensor([2.0**k for k in range(least, most + 1)], dtype=dtype)
    assert torch.equal(ap2(powers), powers)
    assert torch.equal(ap2(-powers), -powers)
    near = torch.tensor(math.sqrt(2), dtype=dtype)
    up, down = torch.tensor(2.0, dtype=dtype), torch.tensor(1.0, dtype=dtype)
    around = torch.stack([torch.nextafter(near, down), near, torch.nextafter(near, up)])
    assert nearest_power(around[0].item()) == 1.0
    assert nearest_power(around[2].item()) == 2.0
    for exponent in range(-20, 20):
        scaled = around * 2.0**exponent
        assert ap2(scaled).tolist() == [nearest_power(x) for x in scaled.tolist()]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ap2_of_short_floats(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -1.4140625, 1.421875, 3.0, -0.3], dtype=dtype)
    assert ap2(values).tolist() == [0.0, 0.0, 1.0, -1.0, 2.0, 4.0, -0.25]
    assert ap2(values).dtype == dtype


# --- shift-based AdaMax -------------------------------------------------------------------------


def test_shift_adamax_by_hand() -> None:
    weight = parameter(0.5, 0.5, -0.5, 0.25)
    optimizer = bnn.ShiftAdaMax([weight])
    assert optimizer.param_groups[0]["lr"] == 2**-10
    assert optimizer.param_groups[0]["betas"] == (0.875, 1 - 2**-10)

    # t = 1: m = g / 8, v = |g|, AP2(1 / (1 - 7/8)) = 8: the step is lr * g * AP2(1 / |g|)
    set_grad(weight, 1.0, 3.0, -1.25, 0.0)
    optimizer.step()
    assert weight.tolist() == [
        0.5 - 2**-10,  # AP2(1/1) = 1
        0.5 - 3 / 4 * 2**-10,  # AP2(1/3) = 1/4
        -0.5 + 1.25 * 2**-10,  # AP2(1/1.25) = 1
        0.25,  # v = 0: no step
    ]
    state = optimizer.state[weight]
    assert state["step"] == 1
    assert state["mean"].tolist() == [1 / 8, 3 / 8, -1.25 / 8, 0.0]
    assert state["max_norm"].tolist() == [1.0, 3.0, 1.25, 0.0]

    # t = 2: AP2(1 / (1 - 49/64)) = AP2(64/15) = 4
    before = weight.detach().clone()
    set_grad(weight, -1.0, 8.0, 0.0, 2.0)
    optimizer.step()
    assert state["mean"].tolist() == [
        7 / 64 - 1 / 8,
        21 / 64 + 1,
        -1.25 * 7 / 64,
        1 / 4,
    ]
    assert state["max_norm"].tolist() == [1.0, 8.0, 1.25 * (1 - 2**-10), 2.0]
    steps = [4 * 2**-10 * m / v for m, v in zip(state["mean"].tolist(), [1, 8, 1, 2], strict=True)]
    assert weight.tolist() == (before.double() - torch.tensor(steps).double()).float().tolist()


def test_shift_adamax_corrects_the_bias_by_powers_of_two() -> None:
    weight = parameter(0.0)
    optimizer = bnn.ShiftAdaMax([weight], lr=1.0)
    set_grad(weight, 1.0)
    corrections = []
    for t in range(1, 30):
        with torch.no_grad():
            weight.zero_()
        optimizer.step()
        corrections.append(-weight.item() / optimizer.state[weight]["mean"].item())
        assert corrections[-1] == nearest_power(1 / (1 - 0.875**t))
    # 8, 4.27, 3.03, 2.42, 2.05, 1.81, 1.65, 1.52, 1.43, 1.36: the middle is at 1.414
    assert corrections[:10] == [8, 4, 4, 2, 2, 2, 2, 2, 2, 1]
    assert set(corrections[10:]) == {1}


def test_shift_adamax_keeps_the_largest_norm() -> None:
    weight = parameter(0.0, 0.0)
    optimizer = bnn.ShiftAdaMax([weight], betas=(0.0, 0.5))
    for gradient, norm in [(4.0, 4.0), (-1.0, 2.0), (0.0, 1.0), (-3.0, 3.0), (0.0, 1.5)]:
        set_grad(weight, gradient, 0.0)
        optimizer.step()
        assert optimizer.state[weight]["max_norm"].tolist() == [norm, 0.0]
    assert weight[1] == 0


def test_zero_gradients_make_no_step() -> None:
    weight = parameter(0.3, -0.7)
    optimizer = bnn.ShiftAdaMax([weight])
    for _ in range(5):
        set_grad(weight, 0.0, -0.0)
        optimizer.step()
    assert torch.equal(weight, torch.tensor([0.3, -0.7]))
    set_grad(weight, 1.0, 1.0)
    optimizer.step()
    moved = weight.detach().clone()
    set_grad(weight, 0.0, 0.0)  # the mean goes on
    optimizer.step()
    assert (weight < moved).all()


@pytest.mark.parametrize("scale", [1e-41, 1e-30, 1.0, 1e30])
def test_every_step_is_a_shift_of_the_mean(scale: float) -> None:
    torch.manual_seed(3)
    weight = nn.Parameter(torch.zeros(200))
    optimizer = bnn.ShiftAdaMax([weight], lr=2**-6)
    for _ in range(20):
        with torch.no_grad():
            weight.zero_()  # so that the difference shows the step without rounding
        weight.grad = torch.randn(200) * scale
        optimizer.step()
        mean = optimizer.state[weight]["mean"]
        moved = mean != 0
        assert moved.any()
        ratio = (-weight.detach().double() / mean.double())[moved]
        assert torch.equal(torch.frexp(ratio).mantissa, torch.full_like(ratio, 0.5))


def test_halving_the_rate_halves_the_step() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(50)
    steps = []
    for factor in (1.0, bnn.halving(20, 100, every=20)):
        weight = nn.Parameter(torch.zeros(50))
        optimizer = bnn.ShiftAdaMax([weight])
        bnn.scale_rates(optimizer, factor)
        weight.grad = gradient
        optimizer.step()
        steps.append(weight.detach())
    assert torch.equal(steps[0] / 2, steps[1])


def test_groups_have_their_own_rates() -> None:
    one, other, still = parameter(0.0), parameter(0.0), parameter(0.0)
    optimizer = bnn.ShiftAdaMax([{"params": [one, still]}, {"params": [other], "lr": 2**-3}])
    set_grad(one, 1.0)
    set_grad(other, 1.0)
    optimizer.step()
    assert (one.item(), other.item(), still.item()) == (-(2**-10), -(2**-3), 0.0)
    assert still not in optimizer.state
    late = parameter(0.0)
    optimizer.add_param_group({"params": [late], "lr": 0.5})
    set_grad(late, 1.0)
    optimizer.step()
    assert late.item() == -0.5


def test_shift_adamax_keeps_dtype_and_memory_format() -> None:
    weight = nn.Parameter(torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))
    short = nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    optimizer = bnn.ShiftAdaMax([weight, short])
    weight.grad, short.grad = torch.ones_like(weight), torch.ones_like(short)
    optimizer.step()
    assert optimizer.state[weight]["mean"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(short, torch.full_like(short, -(2**-10)))


# --- Bop ----------------------------------------------------------------------------------------


def test_bop_flips_by_hand() -> None:
    # flips, has the other sign, at the threshold, below it, flips; the sign of 0 and -0 is +1
    weight = parameter(1.0, -1.0, 1.0, 1.0, -1.0, 0.0, -0.0)
    optimizer = bnn.Bop([weight], gamma=0.5, threshold=0.25)
    set_grad(weight, 1.0, 1.0, 0.5, 0.25, -2.0, 1.0, -1.0)
    optimizer.step()
    assert optimizer.state[weight]["mean"].tolist() == [0.5, 0.5, 0.25, 0.125, -1.0, 0.5, -0.5]
    assert weight.tolist() == [-1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0]
    set_grad(weight, -2.0, -2.0, 0.5, 1.0, 2.0, 0.0, 0.0)
    optimizer.step()
    means = [-0.75, -0.75, 0.375, 0.5625, 0.5, 0.25, -0.25]
    assert optimizer.state[weight]["mean"].tolist() == means
    assert weight.tolist() == [1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0]


def test_bop_flips_one_ulp_above_the_threshold() -> None:
    weight = parameter(1.0, 1.0, -1.0, -1.0)
    optimizer = bnn.Bop([weight], gamma=1.0)
    assert optimizer.param_groups[0]["threshold"] == 1e-8
    tau = torch.tensor(1e-8)
    above = torch.nextafter(tau, torch.tensor(1.0))
    weight.grad = torch.stack([tau, above, -tau, -above])
    optimizer.step()
    assert weight.tolist() == [1.0, -1.0, -1.0, 1.0]


def test_bop_only_flips_signs() -> None:
    model = small_model()
    latent, rest = bnn.split_parameters(model)
    before = [p.detach().clone() for p in rest]
    signs = [torch.where(p >= 0, 1.0, -1.0) for p in latent]
    optimizer = bnn.Bop(latent, gamma=1e-2)
    assert optimizer.param_groups[0]["lr"] == 1e-2
    backward(model, 0)
    optimizer.step()
    flipped = 0
    for weight, sign in zip(latent, signs, strict=True):
        assert torch.equal(weight.abs(), torch.ones_like(weight))
        flips = weight != sign
        mean = optimizer.state[weight]["mean"]
        assert torch.equal(flips, (mean.abs() > 1e-8) & (mean.sign() == sign))
        flipped += int(flips.sum())
    assert 0 < flipped < sum(p.numel() for p in latent)
    assert same(before, list(rest))


def test_bop_passes_over_what_has_no_gradient() -> None:
    weight = parameter(0.3)
    optimizer = bnn.Bop([weight])
    optimizer.step()
    assert weight.item() == torch.tensor(0.3).item()
    assert not optimizer.state


# --- what all optimizers do ---------------------------------------------------------------------


def combined(model: nn.Module) -> bnn.CombinedOptimizer:
    latent, rest = bnn.split_parameters(model)
    return bnn.CombinedOptimizer(bnn.Bop(latent, gamma=1e-2), Adam(rest, lr=1e-2, fused=True))


MAKERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "ShiftAdaMax": lambda model: bnn.ShiftAdaMax(bnn.glorot_groups(model, 2**-6)),
    "Bop": lambda model: bnn.Bop(bnn.split_parameters(model)[0], gamma=1e-2),
    "combined": combined,
}
every_optimizer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@every_optimizer
def test_a_restored_state_goes_on_with_the_same_bits(
    make: Callable[[nn.Module], Optimizer], tmp_path: Path
) -> None:
    model = small_model()
    optimizer = make(model)
    for step in range(4):
        bnn.scale_rates(optimizer, bnn.cosine(step, 8))
        backward(model, step)
        optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "s")
    saved = torch.load(tmp_path / "s", weights_only=True)
    other = small_model(seed=1)
    other.load_state_dict(saved["model"])
    restored = make(other)
    restored.load_state_dict(saved["optimizer"])
    copied_model, copied = copy.deepcopy((model, optimizer))
    for step in range(4, 8):
        for net, opt in ((model, optimizer), (other, restored), (copied_model, copied)):
            bnn.scale_rates(opt, bnn.cosine(step, 8))
            backward(net, step)
            opt.step()
    assert same(bits(model), bits(other))
    assert same(bits(model), bits(copied_model))
    assert not same(bits(model), list(saved["model"].values()))


@every_optimizer
def test_closure_runs_once_and_its_loss_comes_back(
    make: Callable[[nn.Module], Optimizer],
) -> None:
    model, twin = small_model(), small_model()
    optimizer, other = make(model), make(twin)
    losses: list[Tensor] = []

    def closure() -> Any:
        assert torch.is_grad_enabled()
        losses.append(backward(model, 0))
        return losses[-1]

    assert optimizer.step(closure) is losses[0]
    assert len(losses) == 1
    backward(twin, 0)
    assert other.step() is None
    assert same(bits(model), bits(twin))


@every_optimizer
def test_torch_schedulers_and_factors_agree(make: Callable[[nn.Module], Optimizer]) -> None:
    first, second = small_model(), small_model()
    optimizer, other = make(first), make(second)
    rates = [group["lr"] for group in optimizer.param_groups]
    scheduler = LambdaLR(optimizer, partial(bnn.exponential, total=6, final=1e-2))
    for step in range(6):
        bnn.scale_rates(other, bnn.exponential(step, 6, 1e-2))
        now = [group["lr"] for group in optimizer.param_groups]
        assert now == [rate * 1e-2 ** (step / 6) for rate in rates]
        assert now == [group["lr"] for group in other.param_groups]
        backward(first, step)
        optimizer.step()
        scheduler.step()
        backward(second, step)
        other.step()
    assert same(bits(first), bits(second))


def test_step_lr_halves_the_shift() -> None:
    weight = parameter(0.0)
    optimizer = bnn.ShiftAdaMax([weight], lr=1.0, betas=(0.0, 0.0))
    scheduler = StepLR(optimizer, step_size=2, gamma=0.5)
    steps = []
    for _ in range(6):
        set_grad(weight, 1.0)
        before = weight.item()
        optimizer.step()
        scheduler.step()
        steps.append(before - weight.item())
    assert steps == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("kind", [bnn.ShiftAdaMax, bnn.Bop])
def test_sparse_gradients_are_refused(kind: type[Optimizer]) -> None:
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = kind(table.parameters())  # type: ignore[call-arg]
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="dense gradients only"):
        optimizer.step()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (bnn.ShiftAdaMax, {"lr": -1.0}, "lr must be finite and at least 0, not -1.0"),
        (bnn.ShiftAdaMax, {"lr": math.nan}, "lr must be"),
        (bnn.ShiftAdaMax, {"lr": math.inf}, "lr must be"),
        (bnn.ShiftAdaMax, {"betas": (1.0, 0.5)}, "betas must be two numbers"),
        (bnn.ShiftAdaMax, {"betas": (0.5, -0.1)}, "betas must be two numbers"),
        (bnn.Bop, {"gamma": 1.5}, "gamma .* must be 0 to 1, not 1.5"),
        (bnn.Bop, {"threshold": -1.0}, "threshold must be"),
    ],
)
def test_values_out_of_range_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind([parameter(0.0)], **options)
    group = {("lr" if key == "gamma" else key): value for key, value in options.items()}
    with pytest.raises(ValueError, match=message):
        kind([{"params": [parameter(0.0)], **group}])


def test_bop_groups_name_gamma_lr() -> None:
    with pytest.raises(ValueError, match="rename 'gamma' to 'lr'"):
        bnn.Bop([{"params": [parameter(0.0)], "gamma": 0.1}])


def test_combined_shares_groups_and_state() -> None:
    model = small_model()
    optimizer = combined(model)
    bop, adam = optimizer.optimizers
    with pytest.raises(TypeError, match="before they are combined"):
        optimizer.add_param_group({"params": [parameter(0.0)]})
    for _ in range(2):
        backward(model, 0)
        optimizer.step()
        assert bop.param_groups[0] is optimizer.param_groups[0]
        assert adam.param_groups[0] is optimizer.param_groups[1]
        assert set(optimizer.state) == set(model.parameters())
        optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="at least one"):
        bnn.CombinedOptimizer()
    with pytest.raises(ValueError, match="more than one parameter group"):
        bnn.CombinedOptimizer(bop, bop)


def test_combined_equals_its_members_alone() -> None:
    first, second = small_model(), small_model()
    optimizer = combined(first)
    latent, rest = bnn.split_parameters(second)
    alone = [bnn.Bop(latent, gamma=1e-2), Adam(rest, lr=1e-2, fused=True)]
    for step in range(5):
        backward(first, step)
        optimizer.step()
        backward(second, step)
        for member in alone:
            member.step()
    assert same(bits(first), bits(second))


def test_combined_keeps_the_state_that_members_bring() -> None:
    first, second = small_model(), small_model()
    latent, rest = bnn.split_parameters(first)
    bop, adam = bnn.Bop(latent, gamma=1e-2), Adam(rest, lr=1e-2, fused=True)
    whole = combined(second)
    backward(first, 0)
    bop.step()
    adam.step()
    backward(second, 0)
    whole.step()
    late = bnn.CombinedOptimizer(bop, adam)
    for model, optimizer in ((first, late), (second, whole)):
        backward(model, 1)
        optimizer.step()
    assert same(bits(first), bits(second))


# --- groups by layer ----------------------------------------------------------------------------


def test_glorot_groups_by_hand() -> None:
    model = bnn.Sequential(
        bnn.Input((2, 8, 8)),
        bnn.BinaryConv2d(2, 4, (3, 1)),  # fans 2 * 3 and 4 * 3
        bnn.BatchNorm(4),
        bnn.Sign(),
        bnn.BinaryConv2d(4, 4, 5, groups=4),  # fans 25 and 100
        bnn.BatchNorm(4),
        bnn.Sign(),
        bnn.Flatten(),
        bnn.BinaryLinear(14, 10),
        bnn.OutputNorm(10),
    )
    groups = bnn.glorot_groups(model, lr=0.5)
    assert [group["lr"] for group in groups] == pytest.approx(
        [0.5 * math.sqrt(12), 0.5 * math.sqrt(125 / 1.5), 0.5 * 4, 0.5], rel=1e-15
    )
    assert groups[2]["lr"] == 2.0  # 1 / sqrt(1.5 / 24) = 4
    assert all(group["initial_lr"] == group["lr"] for group in groups)
    layers = [model[1], model[4], model[8]]
    for layer, group in zip(layers, groups, strict=False):
        assert group["params"] == [layer.latent_weight]
        # xavier_uniform_ draws from [-bound, bound] with bound = sqrt(6 / fans) = 2 / gamma
        bound = 2 * 0.5 / group["lr"]
        drawn = nn.init.xavier_uniform_(torch.empty_like(layer.latent_weight))
        assert drawn.abs().max() <= bound
    norms = [model[2], model[5], model[9]]
    assert [id(p) for p in groups[3]["params"]] == [id(p) for n in norms for p in n.parameters()]
    optimizer = bnn.ShiftAdaMax(groups)
    bnn.scale_rates(optimizer, 0.25)
    assert optimizer.param_groups[2]["lr"] == 0.5
    bnn.scale_rates(optimizer, 1.0)
    assert optimizer.param_groups[2]["lr"] == 2.0


def test_glorot_groups_of_shared_and_single_layers() -> None:
    layer = bnn.BinaryLinear(4, 4)
    groups = bnn.glorot_groups(bnn.Sequential(layer, bnn.Sign(), layer), lr=1.0)
    assert len(groups) == 1  # once, and no empty rest
    assert len(bnn.glorot_groups(nn.Linear(2, 2), lr=1.0)) == 1
    tied = bnn.Sequential(bnn.BinaryLinear(4, 4), bnn.BinaryLinear(4, 4))
    tied[1].latent_weight = tied[0].latent_weight
    bnn.ShiftAdaMax(bnn.glorot_groups(tied, lr=1.0))


# --- clipping -----------------------------------------------------------------------------------


def spread(model: nn.Module) -> None:
    """Every parameter far beyond 1."""
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.linspace(-5.0, 5.0, value.numel()).view_as(value))


@pytest.mark.parametrize(
    "make", [MAKERS["ShiftAdaMax"], MAKERS["combined"], lambda m: Adam(m.parameters(), fused=True)]
)
def test_clipping_is_part_of_the_step(make: Callable[[nn.Module], Optimizer]) -> None:
    clipped, free = small_model(), small_model()
    for model in (clipped, free):
        model.append(nn.Linear(5, 5))  # an ordinary layer keeps its values, too
        spread(model)
    optimizer, other = make(clipped), make(free)
    handle = bnn.clip_latent_after_step(optimizer, clipped)
    optimizer.load_state_dict(optimizer.state_dict())
    for model, opt in ((clipped, optimizer), (free, other)):
        backward(model, 0)
        opt.step()
    for name, value in clipped.named_parameters():
        plain = dict(free.named_parameters())[name]
        if name.endswith("latent_weight"):
            assert value.abs().max() == 1.0
            assert torch.equal(value, plain.clamp(-1, 1))
        else:
            assert value.abs().max() > 2.0
            assert torch.equal(value, plain)
    handle.remove()
    spread(clipped)
    backward(clipped, 1)
    if not isinstance(optimizer, bnn.CombinedOptimizer):  # Bop's are +-1 by itself
        optimizer.step()
        assert bnn.split_parameters(clipped)[0][0].abs().max() > 2.0


_TWO_PROCESSES = """
import hashlib, json, os, sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import edgebnn.nn as bnn

dist.init_process_group("gloo")
rank = dist.get_rank()
report = {}
for name in ("shift", "combined"):
    torch.manual_seed(rank)
    model = DistributedDataParallel(bnn.Sequential(
        bnn.Input((20,)), bnn.BinaryLinear(20, 16), bnn.BatchNorm(16), bnn.Sign(),
        bnn.BinaryLinear(16, 5), bnn.OutputNorm(5), torch.nn.Linear(5, 5)))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | bnn.BatchNorm):
                module.weight.fill_(3.0)
    if name == "shift":
        optimizer = bnn.ShiftAdaMax(bnn.glorot_groups(model, lr=2**-4))
    else:
        latent, rest = bnn.split_parameters(model)
        optimizer = bnn.CombinedOptimizer(bnn.Bop(latent, gamma=0.1), torch.optim.Adam(rest))
    bnn.clip_latent_after_step(optimizer, model)
    losses = []
    for step in range(20):
        bnn.scale_rates(optimizer, bnn.cosine(step, 20))
        optimizer.zero_grad()
        images = torch.randint(0, 256, (8, 20))  # other images in each process
        loss = bnn.square_hinge(model(images), torch.randint(0, 5, (8,)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    digest = hashlib.sha256()
    for value in model.parameters():
        digest.update(value.detach().numpy().tobytes())
    latent, rest = bnn.split_parameters(model)
    report[name] = {
        "digest": digest.hexdigest(),
        "losses": losses,
        "latent": [p.abs().max().item() for p in latent],
        "rest": max(p.abs().max().item() for p in rest),
    }
(Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(report))
dist.destroy_process_group()
"""


def test_two_processes_clip_alike(tmp_path: Path) -> None:
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
    for name in ("shift", "combined"):
        assert first[name]["digest"] == second[name]["digest"]
        assert first[name]["losses"] != second[name]["losses"]
        assert first[name]["latent"] == [1.0, 1.0]
        assert first[name]["rest"] > 2.0


# --- schedules ----------------------------------------------------------------------------------


def test_schedules_at_their_ends_and_middle() -> None:
    assert [bnn.constant(step, 100) for step in (0, 50, 100)] == [1.0, 1.0, 1.0]
    assert [bnn.cosine(step, 100) for step in (0, 100, 101)] == [1.0, 0.0, 0.0]
    assert bnn.cosine(50, 100) == pytest.approx(0.5)
    assert bnn.exponential(0, 100, final=1e-4) == 1.0
    assert bnn.exponential(50, 100, final=1e-4) == pytest.approx(1e-2)
    assert bnn.exponential(100, 100, final=1e-4) == bnn.exponential(200, 100, final=1e-4) == 1e-4
    factors = [bnn.halving(step, 100, every=20) for step in (0, 19, 20, 39, 40, 99, 100, 200)]
    assert factors == [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 16, 1 / 32, 1 / 32]


def test_exponential_ends_where_the_paper_does() -> None:
    rates = [0.003 * bnn.exponential(epoch, 1000, final=3e-7 / 0.003) for epoch in (0, 1000)]
    assert rates == pytest.approx([0.003, 3e-7], rel=1e-12)
    ratios = [bnn.exponential(e + 1, 10, 0.5) / bnn.exponential(e, 10, 0.5) for e in range(10)]
    assert ratios == pytest.approx([0.5**0.1] * 10)


def test_schedules_refuse_what_is_out_of_range() -> None:
    for schedule in (bnn.constant, bnn.cosine, partial(bnn.exponential, final=0.1)):
        with pytest.raises(ValueError, match="step must be 0 or more"):
            schedule(-1, 10)
        with pytest.raises(ValueError, match="step must be 0 or more"):
            schedule(0, 0)
    with pytest.raises(ValueError, match="every must be at least 1"):
        bnn.halving(0, 10, every=0)
    with pytest.raises(ValueError, match="above 0"):
        bnn.exponential(0, 10, final=0.0)


def test_shift_adamax_learns() -> None:
    torch.manual_seed(0)
    model = small_model()
    optimizer = bnn.ShiftAdaMax(bnn.glorot_groups(model, lr=2**-8))
    bnn.clip_latent_after_step(optimizer, model)
    images = torch.randint(0, 256, (40, 2, 4, 4))
    labels = torch.arange(40) % 5
    losses = []
    for step in range(100):
        bnn.scale_rates(optimizer, bnn.halving(step, 100, every=25))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
