"""Binarization, the estimators of its gradient, AP2 and the clipping of latent weights.

:data:`ACTIVATION_ESTIMATORS` and :data:`WEIGHT_ESTIMATORS` list what :class:`edgebnn.nn.Sign` and
the layers with weights take as ``estimator``. All agree in eval mode: +1 where ``x >= 0``, else -1.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary


def predict(scores: Tensor) -> Tensor:
    """The class (N,), int64, of scores (N, classes): the index of the largest, the first of equals.

    Of a single score, 1 where it is at least 0, else 0: as the emitted C decides, whose scores are
    those of eval mode.
    """
    scores = scores.flatten(1)
    if scores.shape[1] == 1:
        return (scores[:, 0] >= 0).long()
    return scores.argmax(1)


_ONE = torch.ones(())
BETA = 5.0
"""The usual steepness of SwishSign (arXiv 1812.11800)."""
# The least number of the format above sqrt(1/2), which is irrational: log2 rounds up from here.
_ROUNDS_UP = {torch.float32: 0.7071068286895752, torch.float64: 0.7071067811865476}


class _SignSTE(torch.autograd.Function):
    """sign with the straight-through estimator; both directions are one or two fused passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign_bit(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # It passes the gradient strictly inside its bounds; one ulp further makes |x| <= 1.
        bound = 1.0 + torch.finfo(x.dtype).eps
        passed: Tensor = torch.ops.aten.hardtanh_backward(grad_outputs[0], x, -bound, bound)
        return passed


class _WeightSign(torch.autograd.Function):
    """sign whose gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor) -> Tensor:
        return sign_bit(latent)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]


class _SignStochastic(_SignSTE):
    """A random sign with the straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _random_sign(x)


class _WeightSignStochastic(_WeightSign):
    """A random sign whose gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor) -> Tensor:
        return _random_sign(latent)


class _SignSwish(torch.autograd.Function):
    """sign with the gradients of SwishSign in x and beta."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor) -> Tensor:
        ctx.save_for_backward(x, beta)
        return sign_bit(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        x, beta = ctx.saved_tensors
        slope = grad_outputs[0] * _swish_slope(beta * x)
        return slope * beta, (slope * x).sum() if ctx.needs_input_grad[1] else None


class _SignPolynomial(torch.autograd.Function):
    """sign with the gradient of a piecewise quadratic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign_bit(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient: Tensor = grad_outputs[0] * (2.0 - 2.0 * x.abs()).clamp(min=0.0)
        return gradient


class _WeightSignMagnitude(torch.autograd.Function):
    """sign whose gradient is scaled by the mean magnitude of each filter."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor) -> Tensor:
        ctx.save_for_backward(latent.abs().mean(dim=tuple(range(1, latent.dim())), keepdim=True))
        return sign_bit(latent)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (alpha,) = ctx.saved_tensors
        scaled: Tensor = grad_outputs[0] * alpha
        return scaled


class _AP2(torch.autograd.Function):
    """The nearest power of two in log2, with a gradient that passes unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # |x| = mantissa * 2**e with mantissa in [1/2, 1), and log2(mantissa) rounds to 0 or -1.
        wide = x if x.dtype in _ROUNDS_UP else x.float()
        mantissa = torch.frexp(wide).mantissa.abs()
        mantissa = torch.where(mantissa >= _ROUNDS_UP[wide.dtype], mantissa, 2.0 * mantissa)
        # The quotient is a power of two, so the division does not round.
        return torch.where((wide == 0.0) | wide.isinf(), wide, wide / mantissa).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]


def _random_sign(x: Tensor) -> Tensor:
    """+1.0 with probability clip((x + 1) / 2, 0, 1), else -1.0."""
    # rand is in [0, 1): below 1 always, below 0 never, so the probability needs no clipping.
    above = torch.rand_like(x) < (x + 1.0) / 2.0
    return torch.where(above, 1.0, -1.0).to(x.dtype)


def _swish_slope(z: Tensor) -> Tensor:
    """(2 - z * tanh(z / 2)) / (1 + cosh(z)), the derivative of SwishSign in z = beta * x.

    Even in z; with p = sigmoid(-|z|) it is 2 * p * (1 - p) * (2 - |z| * (1 - 2 * p)), which does
    not overflow as cosh does. The clamp keeps infinity from making NaN; p is 0 long before.
    """
    z = z.abs().clamp(max=1000.0)
    p = torch.sigmoid(-z)
    return 2.0 * p * (1.0 - p) * (2.0 - z * (1.0 - 2.0 * p))


def sign_bit(x: Tensor) -> Tensor:
    """+1.0 where ``x >= 0``, else -1.0, without a gradient; sign(0) = sign(-0.0) = +1.

    Adding +0.0 turns -0.0 into +0.0, which makes ``copysign`` agree with ``x >= 0``.
    """
    y = x + 0.0
    return y if y.is_meta else torch.copysign(_ONE, y, out=y)


def sign(x: Tensor) -> Tensor:
    """Deterministic binarization: +1.0 where ``x >= 0``, else -1.0, in ``x``'s shape and dtype.

    The gradient is the straight-through estimator ``g * 1{|x| <= 1}``
    (Hubara et al., arXiv 1602.02830, section 1.3, eq. 4).
    """
    if has_torch_function_unary(x):  # torch.fx: the operation is one, not what it is made of
        overridden: Tensor = handle_torch_function(sign, (x,), x)
        return overridden
    result: Tensor = _SignSTE.apply(x)  # type: ignore[no-untyped-call]
    return result


def binarize_weight(latent: Tensor) -> Tensor:
    """The signs of latent weights, +1.0 or -1.0; the gradient is that of the signs.

    Latent weights are clipped to [-1, 1] after every step, so the mask of the straight-through
    estimator would never bite (arXiv 1602.02830, Algorithm 1).
    """
    result: Tensor = _WeightSign.apply(latent)  # type: ignore[no-untyped-call]
    return result


def sign_stochastic(x: Tensor) -> Tensor:
    """Stochastic binarization: +1.0 with probability clip((x + 1) / 2, 0, 1), else -1.0.

    Drawn from torch's global generator. The gradient is the straight-through estimator
    ``g * 1{|x| <= 1}`` (arXiv 1602.02830, section 1.1, eq. 2, and section 1.3).
    """
    result: Tensor = _SignStochastic.apply(x)  # type: ignore[no-untyped-call]
    return result


def sign_swish(x: Tensor, beta: Tensor | float = BETA) -> Tensor:
    """sign with the gradients of SwishSign, in ``x`` and, where it is a tensor, in ``beta``.

    ``SS(x) = 2 * s * (1 + z * (1 - s)) - 1`` with ``z = beta * x`` and ``s = sigmoid(z)``;
    ``dSS/dx = beta * (2 - z * tanh(z / 2)) / (1 + cosh(z))``, negative for |z| > 2.3994, and
    ``dSS/dbeta`` is the same with ``x`` in the place of the leading ``beta``.

    Args:
        beta: the steepness; () in ``x``'s dtype if it is a tensor.

    Source: BNN+, arXiv 1812.11800, section 3.
    """
    if not isinstance(beta, Tensor):
        beta = torch.tensor(beta, dtype=x.dtype, device=x.device)
    result: Tensor = _SignSwish.apply(x, beta)  # type: ignore[no-untyped-call]
    return result


def sign_polynomial(x: Tensor) -> Tensor:
    """sign with the gradient ``g * max(0, 2 - 2 * |x|)``.

    It is that of ``2x + x**2`` on [-1, 0) and ``2x - x**2`` on [0, 1), -1 and +1 outside
    (ApproxSign, Bi-Real Net, arXiv 1808.00278, section 3.3).
    """
    result: Tensor = _SignPolynomial.apply(x)  # type: ignore[no-untyped-call]
    return result


def binarize_weight_stochastic(latent: Tensor) -> Tensor:
    """+1.0 with probability clip((w + 1) / 2, 0, 1), else -1.0; the gradient is that of the signs.

    Drawn from torch's global generator (arXiv 1602.02830, section 1.1, eq. 2, and Algorithm 1).
    """
    result: Tensor = _WeightSignStochastic.apply(latent)  # type: ignore[no-untyped-call]
    return result


def binarize_weight_magnitude(latent: Tensor) -> Tensor:
    """The signs of latent weights; the gradient is ``g * mean|w|``, the mean over each filter.

    It is the gradient of ``alpha * w`` with ``alpha = mean|w|`` held constant: weights that are
    large change as slowly in sign as they did in training with real values (magnitude-aware
    gradient, Bi-Real Net, arXiv 1808.00278, section 3.3; there the forward pass carries alpha too,
    here the norm that follows does).

    Args:
        latent: (outputs, ...).
    """
    result: Tensor = _WeightSignMagnitude.apply(latent)  # type: ignore[no-untyped-call]
    return result


#: ``Sign(estimator=...)``: from ``x`` and ``beta`` to the signs, as in training.
ACTIVATION_ESTIMATORS: Mapping[str, Callable[[Tensor, Tensor | float], Tensor]] = {
    "ste": lambda x, beta: sign(x),
    "stochastic": lambda x, beta: sign_stochastic(x),
    "swish": sign_swish,
    "swish_trained": sign_swish,
    "polynomial": lambda x, beta: sign_polynomial(x),
}

#: ``BinaryLinear(..., estimator=...)``: from latent weights to their signs, as in training.
WEIGHT_ESTIMATORS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "identity": binarize_weight,
    "stochastic": binarize_weight_stochastic,
    "magnitude": binarize_weight_magnitude,
    "swish": sign_swish,
}


def ap2(x: Tensor) -> Tensor:
    """``sign(x) * 2**round(log2|x|)``, the power of two nearest in log2.

    0, infinity and NaN stay what they are, and what rounds beyond the largest power of two of the
    format is infinity.

    Exact, with no logarithm taken: halves of log2 are irrational and so never met. The gradient is
    straight-through, ``g`` unchanged (arXiv 1602.02830, Algorithm 2: AP2).
    """
    result: Tensor = _AP2.apply(x)  # type: ignore[no-untyped-call]
    return result


@torch.no_grad()
def clip_latent_(model: nn.Module) -> None:
    """Clip every latent weight of ``model`` to [-1, 1] in place; call it after an optimizer step.

    Beyond +-1 a latent weight would keep its sign whatever the gradient says (arXiv 1602.02830,
    Algorithm 1: ``W <- clip(Update(...), -1, 1)``).
    """
    for module in model.modules():
        latent = getattr(module, "latent_weight", None)
        if isinstance(latent, nn.Parameter):
            latent.clamp_(-1.0, 1.0)
