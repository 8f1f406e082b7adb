"""Binarization and its gradient, the square hinge loss and the clipping of latent weights."""

from typing import Any

import torch
from torch import Tensor, nn

_ONE = torch.ones(())


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
    result: Tensor = _SignSTE.apply(x)  # type: ignore[no-untyped-call]
    return result


def binarize_weight(latent: Tensor) -> Tensor:
    """The signs of latent weights, +1.0 or -1.0; the gradient is that of the signs.

    Latent weights are clipped to [-1, 1] after every step, so the mask of the straight-through
    estimator would never bite (arXiv 1602.02830, Algorithm 1).
    """
    result: Tensor = _WeightSign.apply(latent)  # type: ignore[no-untyped-call]
    return result


def square_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """Square hinge (L2-SVM) loss: mean of ``max(0, 1 - t * y)**2`` with targets ``t = +-1``.

    Args:
        logits: (N, classes), floating point.
        labels: (N,), int64 class indices.

    Source: arXiv 1602.02830, section 2.1; ``t`` is +1 for the labelled class, -1 for the others.
    """
    margins = 1.0 + logits
    own = logits.gather(1, labels.unsqueeze(1))
    margins = margins.scatter(1, labels.unsqueeze(1), 1.0 - own)
    return margins.clamp(min=0.0).square().mean()


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
