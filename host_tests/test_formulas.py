"""What is trained with: estimators, AP2, shift norms, regularizers, each held to its formula.

Gradients are compared with autograd of the surrogate that the docstring states, in float64.
"""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edgebnn.nn as bnn
from edgebnn.lower import lower
from edgebnn.nn.functional import (
    ACTIVATION_ESTIMATORS,
    WEIGHT_ESTIMATORS,
    binarize_weight_magnitude,
    binarize_weight_stochastic,
    sign_polynomial,
    sign_stochastic,
    sign_swish,
)
from edgebnn.train import recalibrate

DRAWS = 40_000


def points(count: int = 4001, reach: float = 4.0) -> Tensor:
    return torch.linspace(-reach, reach, count, dtype=torch.float64)


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_(True)
    function(x).sum().backward()
    assert x.grad is not None
    return x.grad


def swish_sign(x: Tensor, beta: Tensor | float) -> Tensor:
    """SS of BNN+, as the paper writes it."""
    s = torch.sigmoid(beta * x)
    return 2 * s * (1 + beta * x * (1 - s)) - 1


# --- AP2 ----------------------------------------------------------------------------------------


def test_ap2_values() -> None:
    x = [0.0, 1.0, 1.4, 1.42, 2.0, 2.8, 2.9, 3.0, 0.75, 0.7, 0.72, 5.0, 6.0, 100.0, 1e-3]
    wanted = [0.0, 1.0, 1.0, 2.0, 2.0, 2.0, 4.0, 4.0, 1.0, 0.5, 1.0, 4.0, 8.0, 128.0, 2.0**-10]
    assert bnn.ap2(torch.tensor(x)).tolist() == wanted
    assert bnn.ap2(-torch.tensor(x)).tolist() == [-w for w in wanted]


@pytest.mark.parametrize(("dtype", "least", "most"), [
    (torch.float32, -149, 127), (torch.float64, -1074, 1023), (torch.float16, -24, 15),
])  # fmt: skip
def test_ap2_of_powers_of_two_is_themselves(dtype: torch.dtype, least: int, most: int) -> None:
    x = torch.tensor([2.0**e for e in range(least, most + 1)], dtype=dtype)
    assert (x > 0).all()
    assert torch.equal(bnn.ap2(x), x)
    assert torch.equal(bnn.ap2(-x), -x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exponent", [-120, -3, 0, 1, 100])
def test_ap2_at_the_halves_of_log2(dtype: torch.dtype, exponent: int) -> None:
    """2**(k + 1/2) is irrational: its two neighbours in any format go to either side."""
    near = torch.tensor(math.sqrt(2.0), dtype=dtype)
    exact = [torch.nextafter(near, 0 * near), near, torch.nextafter(near, 2 * near)]
    for value in exact:
        squared_above_2 = int(value.item() * 2**60) ** 2 > 2 * 2**120  # in integers, exact
        wanted = 2.0 if squared_above_2 else 1.0
        assert bnn.ap2(value * 2.0**exponent).item() == wanted * 2.0**exponent


def test_ap2_is_its_formula_and_passes_the_gradient() -> None:
    torch.manual_seed(1)
    x = torch.randn(10_000) * 10.0 ** torch.randint(-20, 20, (10_000,))
    formula = x.double().sign() * 2.0 ** x.double().abs().log2().round()
    assert torch.equal(bnn.ap2(x).double(), formula)
    assert torch.equal(gradient(lambda v: 3.0 * bnn.ap2(v), x), torch.full_like(x, 3.0))
    odd = bnn.ap2(torch.tensor([math.inf, -math.inf, math.nan, -0.0]))
    assert odd[0] == math.inf
    assert odd[1] == -math.inf
    assert odd[2].isnan()
    assert math.copysign(1.0, odd[3].item()) == -1.0


# --- estimators of activations ------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATION_ESTIMATORS)
@pytest.mark.parametrize("channels", [None, 5])
def test_every_estimator_is_the_sign_in_eval_mode(name: str, channels: int | None) -> None:
    torch.manual_seed(2)
    layer = bnn.Sign(name, num_features=channels).eval()
    x = torch.randn(40, 5, 3, 2)
    x[0], x[1], x[2], x[3] = 0.0, -0.0, 1e-45, -1e-45
    if layer.shift is not None:
        nn.init.normal_(layer.shift)
        x = torch.where(torch.rand(x.shape) < 0.2, -layer.shift.detach().reshape(5, 1, 1), x)
    wanted = x if layer.shift is None else x + layer.shift.detach().reshape(1, 5, 1, 1)
    assert torch.equal(layer(x), torch.where(wanted >= 0, 1.0, -1.0))


@pytest.mark.parametrize("name", [n for n in ACTIVATION_ESTIMATORS if n != "stochastic"])
def test_only_stochastic_training_is_random(name: str) -> None:
    x = torch.randn(100)
    assert torch.equal(bnn.Sign(name).train()(x), torch.where(x >= 0, 1.0, -1.0))


def test_straight_through_mask_holds_at_one() -> None:
    one = torch.ones((), dtype=torch.float64)
    above = torch.nextafter(one, 2 * one)
    x = torch.stack([-above, -one, one, above])
    for estimator in (bnn.sign, sign_stochastic):
        assert gradient(estimator, x).tolist() == [0.0, 1.0, 1.0, 0.0]


def test_swish_gradient_is_that_of_swish_sign() -> None:
    for beta in (1.0, 5.0, 20.0):
        x = points()
        theirs = gradient(lambda v, b=beta: swish_sign(v, b), x)
        torch.testing.assert_close(gradient(lambda v, b=beta: sign_swish(v, b), x), theirs)
        z = beta * x
        formula = beta * (2 - z * torch.tanh(z / 2)) / (1 + torch.cosh(z))
        torch.testing.assert_close(theirs, formula)


def test_swish_gradient_has_its_peak_and_its_zero() -> None:
    def slope(z: float, dtype: torch.dtype = torch.float64) -> float:
        return gradient(lambda v: sign_swish(v, 5.0), torch.tensor([z / 5.0], dtype=dtype)).item()

    assert slope(0.0) == 5.0
    assert max(slope(z) for z in (0.01, 0.1, 1.0, -0.01)) < 5.0
    assert slope(2.3993) > 0 > slope(2.3995)
    assert slope(-2.3993) > 0 > slope(-2.3995)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_swish_gradient_does_not_overflow(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    x = torch.tensor([min(1e6, most), -min(1e6, most), most, -most], dtype=dtype)
    assert gradient(sign_swish, x).tolist() == [0.0] * 4
    layer = bnn.Sign("swish_trained").to(dtype)
    layer(x).sum().backward()
    assert layer.beta is not None
    assert layer.beta.grad is not None
    assert layer.beta.grad.item() == 0.0


def test_trained_beta_has_the_gradient_of_swish_sign() -> None:
    torch.manual_seed(3)
    x, weights = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    layer = bnn.Sign("swish_trained", beta=3.0).double()
    assert [name for name, _ in layer.named_parameters()] == ["beta"]
    (layer(x) * weights).sum().backward()
    beta = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    (swish_sign(x, beta) * weights).sum().backward()
    assert layer.beta is not None
    torch.testing.assert_close(layer.beta.grad, beta.grad)
    step = 1e-6
    ends = [(swish_sign(x, 3.0 + h) * weights).sum() for h in (step, -step)]
    torch.testing.assert_close(layer.beta.grad, (ends[0] - ends[1]) / (2 * step))
    assert not list(bnn.Sign("swish").parameters())


def test_polynomial_gradient_is_that_of_its_pieces() -> None:
    def pieces(x: Tensor) -> Tensor:
        inner = torch.where(x < 0, 2 * x + x * x, 2 * x - x * x)
        return torch.where((x >= -1) & (x < 1), inner, torch.where(x < 0, -1.0, 1.0))

    x = points()
    torch.testing.assert_close(gradient(sign_polynomial, x), gradient(pieces, x))
    special = torch.tensor([-1.5, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1.5])
    assert gradient(sign_polynomial, special).tolist() == [0, 0, 1, 2, 2, 1, 0, 0]


@pytest.mark.parametrize("binarize", [sign_stochastic, binarize_weight_stochastic])
@pytest.mark.parametrize("x", [-2.0, -1.0, -0.9, -0.3, 0.0, 0.5, 0.99, 1.0, 7.0])
def test_stochastic_frequencies(binarize: Callable[[Tensor], Tensor], x: float) -> None:
    torch.manual_seed(4)
    drawn = binarize(torch.full((DRAWS,), x))
    assert set(drawn.tolist()) <= {-1.0, 1.0}
    p = min(max((x + 1) / 2, 0.0), 1.0)
    ups = int((drawn > 0).sum())
    assert abs(ups - DRAWS * p) <= 4.5 * math.sqrt(DRAWS * p * (1 - p))  # exact for p of 0 and 1
    torch.manual_seed(4)
    assert torch.equal(binarize(torch.full((DRAWS,), x)), drawn)


def test_shifted_sign_is_the_sign_of_the_sum() -> None:
    """RSign: forward, and the gradients of both terms, are those of sign(x + shift)."""
    torch.manual_seed(5)
    for shape in ((7, 3), (7, 3, 4, 2)):
        layer = bnn.Sign(num_features=3)
        assert layer.shift is not None
        nn.init.normal_(layer.shift)
        x = torch.randn(shape, requires_grad=True)
        weights = torch.randn(shape)
        y = layer(x)
        (y * weights).sum().backward()
        total = x.detach() + layer.shift.detach().reshape(1, 3, *[1] * (len(shape) - 2))
        assert torch.equal(y, torch.where(total >= 0, 1.0, -1.0))
        wanted = weights * (total.abs() <= 1)
        assert x.grad is not None
        assert torch.equal(x.grad, wanted)
        axes = [axis for axis in range(len(shape)) if axis != 1]
        torch.testing.assert_close(layer.shift.grad, wanted.sum(axes))


@pytest.mark.parametrize("options", [
    {"estimator": "relu"}, {"estimator": None}, {"beta": 0.0}, {"beta": math.nan}, {"beta": "5"},
    {"num_features": 0}, {"num_features": 2.0},
])  # fmt: skip
def test_wrong_options_of_sign_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        bnn.Sign(**options)


def test_unknown_estimator_names_the_known() -> None:
    with pytest.raises(ValueError, match="ste, stochastic, swish, swish_trained, polynomial"):
        bnn.Sign("tanh")
    for build in (
        lambda e: bnn.BinaryLinear(2, 2, e),
        lambda e: bnn.BinaryConv2d(2, 2, 1, estimator=e),
    ):
        with pytest.raises(ValueError, match="identity, stochastic, magnitude, swish; not 'ste'"):
            build("ste")


# --- estimators of weights ----------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHT_ESTIMATORS)
def test_every_layer_multiplies_by_signs_in_eval_mode(name: str) -> None:
    torch.manual_seed(6)
    linear = bnn.BinaryLinear(12, 4, estimator=name).eval()
    conv = bnn.BinaryConv2d(3, 4, 2, estimator=name).eval()
    plain = {"linear": bnn.BinaryLinear(12, 4).eval(), "conv": bnn.BinaryConv2d(3, 4, 2).eval()}
    plain["linear"].load_state_dict(linear.state_dict())
    plain["conv"].load_state_dict(conv.state_dict())
    x = torch.randint(0, 255, (5, 12)).float()
    assert torch.equal(linear(x), plain["linear"](x))
    assert torch.equal(conv(x.reshape(5, 3, 2, 2)), plain["conv"](x.reshape(5, 3, 2, 2)))


def test_stochastic_weights_are_drawn_in_training_alone() -> None:
    torch.manual_seed(7)
    layer = bnn.BinaryLinear(1000, 1, estimator="stochastic")
    nn.init.zeros_(layer.latent_weight)
    x = torch.ones(1, 1000)
    assert len({layer.train()(x).item() for _ in range(8)}) > 1
    assert {layer.eval()(x).item() for _ in range(8)} == {1000.0}
    layer.train()(x).backward()
    assert layer.latent_weight.grad is not None
    assert torch.equal(layer.latent_weight.grad, x)


@pytest.mark.parametrize("shape", [(3, 8), (3, 4, 2, 5)])
def test_magnitude_gradient_is_that_of_the_scaled_weight(shape: tuple[int, ...]) -> None:
    torch.manual_seed(8)
    latent, weights = torch.randn(shape).double(), torch.randn(shape).double()
    alpha = latent.abs().mean(dim=tuple(range(1, len(shape))), keepdim=True)
    wanted = gradient(lambda w: alpha * w * weights, latent)
    torch.testing.assert_close(
        gradient(lambda w: binarize_weight_magnitude(w) * weights, latent), wanted
    )
    assert torch.equal(
        binarize_weight_magnitude(latent), torch.where(latent >= 0, 1.0, -1.0).double()
    )


# --- shift norms --------------------------------------------------------------------------------


def by_hand(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float):
    """Algorithm 2 for (N, C) in NumPy: (y, mean, var)."""

    def ap2(v: np.ndarray) -> np.ndarray:
        safe = np.where(v == 0, 1.0, np.abs(v))
        return np.sign(v) * 2.0 ** np.round(np.log2(safe))

    mean = x.mean(0)
    centred = x - mean
    var = (centred * ap2(centred)).mean(0)
    return ap2(gamma) * (centred * ap2(1 / np.sqrt(var + eps))) + beta, mean, var


@pytest.mark.parametrize("shape", [(16, 5), (4, 5, 3, 2)])
@pytest.mark.parametrize("build", [bnn.ShiftBatchNorm, bnn.ShiftOutputNorm])
def test_shift_norm_is_algorithm_2(build: type[bnn.ShiftBatchNorm], shape: tuple[int, ...]) -> None:
    torch.manual_seed(9)
    norm = build(5).double().train()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -0.3, 0.0, 2.9, 0.7]))
        norm.bias.normal_()
    x = 30 * torch.randn(shape, dtype=torch.float64) + 7
    rows = x.movedim(1, -1).reshape(-1, 5).numpy()
    y, mean, var = by_hand(rows, norm.weight.detach().numpy(), norm.bias.detach().numpy(), 1e-5)
    mine = norm(x).detach().movedim(1, -1).reshape(-1, 5).numpy()
    np.testing.assert_allclose(mine, y, rtol=1e-12, atol=1e-12)
    n = len(rows)
    np.testing.assert_allclose(norm.running_mean, 0.125 * mean, rtol=1e-12)
    np.testing.assert_allclose(norm.running_var, 0.875 + 0.125 * var * n / (n - 1), rtol=1e-12)
    assert norm.num_batches_tracked == 1


def test_shift_norm_has_the_gradient_of_its_formula() -> None:
    """AP2(v) in the place of v + (AP2(v) - v), the second term held constant."""
    torch.manual_seed(10)

    def through(v: Tensor) -> Tensor:
        return v + (bnn.ap2(v) - v).detach()

    norm = bnn.ShiftBatchNorm(4).double()
    nn.init.normal_(norm.weight)
    x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    other = x.detach().clone().requires_grad_(True)
    gamma = norm.weight.detach().clone().requires_grad_(True)
    weights = torch.randn(9, 4, dtype=torch.float64)
    (norm(x) * weights).sum().backward()
    centred = other - other.mean(0)
    var = (centred * through(centred)).mean(0)
    y = through(gamma) * centred * through(1 / torch.sqrt(var + norm.eps))
    (y * weights).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    torch.testing.assert_close(norm.weight.grad, gamma.grad)
    torch.testing.assert_close(norm.bias.grad, weights.sum(0))


def test_shift_norm_in_eval_mode_has_powers_of_two() -> None:
    torch.manual_seed(11)
    norm = bnn.ShiftBatchNorm(200).eval()
    with torch.no_grad():
        norm.weight.copy_(torch.randn(200) * 10.0 ** torch.randint(-9, 9, (200,)))
        norm.weight[:3] = torch.tensor([0.0, -0.0, 1e-30])
        norm.bias.normal_()
        norm.running_mean.normal_(0, 50)
        norm.running_var.uniform_(0, 1000)
    scale, shift = norm.affine()
    assert (scale[:2] == 0).all()
    mantissa = torch.frexp(scale[2:]).mantissa
    assert (mantissa.abs() == 0.5).all()
    assert torch.equal(mantissa > 0, norm.weight[2:] > 0)
    exact = norm.bias.detach().double() - norm.running_mean.double() * scale.double()
    assert torch.equal(shift, exact.float())
    wanted = bnn.ap2(norm.weight.double()) * bnn.ap2(
        1 / torch.sqrt(norm.running_var.double() + norm.eps)
    )
    assert torch.equal(scale.double(), wanted)
    x = torch.randint(-100, 100, (10, 200)).float()
    assert torch.equal(norm(x), x * scale + shift)


@pytest.mark.parametrize("bound", [1, 8, 1000, 2**23])
def test_shift_output_norm_has_factors_that_are_shifts(bound: int) -> None:
    torch.manual_seed(bound)
    for _ in range(50):
        norm = bnn.ShiftOutputNorm(6, bound=bound).eval()
        with torch.no_grad():
            norm.weight.copy_(torch.randn(6) * 10.0 ** torch.randint(-4, 4, (6,)))
            norm.weight[0] = 0.0
            norm.bias.normal_()
            norm.running_mean.normal_(0, 10)
            norm.running_var.uniform_(0, 100)
        factor, offset, fraction_bits = norm.fixed_point()
        assert int((factor.abs() * bound + offset.abs()).max()) <= 2**31 - 1
        assert not bool((factor.abs() & (factor.abs() - 1)).any())
        exact = norm.affine()[0].double() * 2.0**fraction_bits
        large = exact.abs() >= 1
        assert torch.equal(factor[large].double(), exact[large])
        assert not bool(factor[~large].any())


def test_shift_norm_takes_more_than_one_value() -> None:
    with pytest.raises(ValueError, match="more than one value"):
        bnn.ShiftBatchNorm(3)(torch.ones(1, 3))


def test_recalibration_averages_shift_norms_too() -> None:
    torch.manual_seed(12)
    model = bnn.Sequential(
        bnn.Input((6,), bits=4),
        bnn.BinaryLinear(6, 5, estimator="stochastic"),
        bnn.ShiftBatchNorm(5),
        bnn.Sign("stochastic", num_features=5),
        bnn.BinaryLinear(5, 3),
        bnn.ShiftOutputNorm(3, bound=5),
    )
    images = torch.randint(0, 16, (60, 6), dtype=torch.uint8)
    recalibrate(model, images, batch_size=20)
    dots = model[1](model[0](images)).reshape(3, 20, 5)
    means, variances = dots.mean((0, 1)), []
    for batch in dots.double():
        variances.append(
            by_hand(batch.detach().numpy(), np.ones(5), np.zeros(5), 1e-5)[2] * 20 / 19
        )
    torch.testing.assert_close(model[2].running_mean, means.detach())
    np.testing.assert_allclose(model[2].running_var, np.mean(variances, 0), rtol=1e-5)
    assert model[2].momentum == 0.125
    assert not model.training
    lower(model)


# --- losses -------------------------------------------------------------------------------------


def small_model() -> nn.Module:
    torch.manual_seed(13)
    return bnn.Sequential(
        bnn.Input((2, 4, 4)),
        bnn.BinaryConv2d(2, 3, 3),
        bnn.Sign(),
        bnn.Flatten(),
        bnn.BinaryLinear(12, 5),
    ).double()


@pytest.mark.parametrize("per_filter", [False, True])
@pytest.mark.parametrize("kind", ["r1", "r2"])
def test_regularizer_is_its_formula_with_its_gradients(kind: str, per_filter: bool) -> None:
    model = small_model()
    penalty = bnn.ScaleRegularizer(model, kind, per_filter)
    layers = [model[1], model[4]]
    for alpha, layer in zip(penalty.alpha, layers, strict=True):
        rows = layer.latent_weight.detach().abs().flatten(1)
        start = rows.mean(1) if per_filter else rows.mean()
        torch.testing.assert_close(alpha.detach().reshape(start.shape), start)
        with torch.no_grad():
            alpha.mul_(1.25)
    value = penalty()
    value.backward()
    total = 0.0
    for alpha, layer in zip(penalty.alpha, layers, strict=True):
        w = layer.latent_weight.detach()
        off = alpha.detach() - w.abs()
        total += float((off.abs() if kind == "r1" else off**2).mean())
        slope = (off.sign() if kind == "r1" else 2 * off) / w.numel()
        torch.testing.assert_close(layer.latent_weight.grad, -slope * w.sign())
        own = slope.flatten(1).sum(1) if per_filter else slope.sum()
        assert alpha.grad is not None
        torch.testing.assert_close(alpha.grad.reshape(own.shape), own)
    assert value.shape == ()
    assert value.item() == pytest.approx(total, rel=1e-12)


def test_regularizer_holds_nothing_of_the_model() -> None:
    model = small_model()
    before = set(model.state_dict())
    penalty = bnn.ScaleRegularizer(model)
    assert set(model.state_dict()) == before
    assert [name for name, _ in penalty.named_parameters()] == ["alpha.0", "alpha.1"]
    with pytest.raises(ValueError, match="'r1' or 'r2'"):
        bnn.ScaleRegularizer(model, "r3")
    with pytest.raises(ValueError, match="no binary layers"):
        bnn.ScaleRegularizer(nn.Linear(2, 2))


def test_distillation_is_its_formula() -> None:
    torch.manual_seed(14)
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    for temperature in (1.0, 4.0):
        p = torch.softmax(teacher / temperature, 1)
        q = torch.softmax(logits / temperature, 1)
        wanted = temperature**2 * (p * (p / q).log()).sum(1).mean()
        torch.testing.assert_close(bnn.distillation(logits, teacher, temperature), wanted)
    assert bnn.distillation(logits, logits, 3.0).item() == pytest.approx(0.0, abs=1e-12)
    bnn.distillation(logits, teacher, 2.0).backward()
    assert teacher.grad is None
    slope = 2.0 * (torch.softmax(logits / 2, 1) - torch.softmax(teacher / 2, 1)) / 6
    torch.testing.assert_close(logits.grad, slope.detach())
    with pytest.raises(ValueError, match="temperature"):
        bnn.distillation(logits, teacher, 0.0)


# --- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("activations", ACTIVATION_ESTIMATORS)
@pytest.mark.parametrize("weights", WEIGHT_ESTIMATORS)
def test_every_estimator_trains(activations: str, weights: str) -> None:
    """The loss of a small task falls, every parameter gets a gradient, and the result lowers."""
    torch.manual_seed(15)
    model = bnn.Sequential(
        bnn.Input((16,), bits=4),
        bnn.BinaryLinear(16, 32, estimator=weights),
        bnn.ShiftBatchNorm(32),
        bnn.Sign(activations, beta=2.0, num_features=32),
        bnn.BinaryLinear(32, 2, estimator=weights),
        bnn.ShiftOutputNorm(2, bound=32),
    )
    images = torch.randint(0, 16, (128, 16))
    labels = (images[:, :8].sum(1) > images[:, 8:].sum(1)).long()
    penalty = bnn.ScaleRegularizer(model, "r2")
    optimizer = torch.optim.Adam([*model.parameters(), *penalty.parameters()], lr=0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = bnn.square_hinge(model(images), labels)
        (loss + 0.01 * penalty()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        bnn.clip_latent_(model)
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:3])
    lower(copy.deepcopy(model))


def test_shift_norm_trains_under_autocast() -> None:
    """Sums come in bfloat16; statistics and results stay float32."""
    norm = bnn.ShiftBatchNorm(4)
    x = torch.randint(-9, 10, (32, 4)).to(torch.bfloat16)
    expected = bnn.ShiftBatchNorm(4)
    assert torch.equal(norm(x), expected(x.float()))
    assert torch.equal(norm.running_var, expected.running_var)
    assert norm.running_mean.dtype == torch.float32
