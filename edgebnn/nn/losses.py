"""Losses, and penalties that are added to them; for training only, no model file holds any."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebnn.nn.weights import BinaryConv, BinaryLinear


def square_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """Square hinge (L2-SVM) loss: mean of ``max(0, 1 - t * y)**2`` with targets ``t = +-1``.

    Args:
        logits: (N, classes), floating point; (N, 1) is one score, which is class 1 where >= 0.
        labels: (N,), int64 class indices.

    Source: arXiv 1602.02830, section 2.1; ``t`` is +1 for the labelled class, -1 for the others.
    For one score it is +1 where the label is 1 and -1 where it is 0.
    """
    if logits.shape[1] == 1:
        signed = torch.cat((-logits, logits), dim=1).gather(1, labels.unsqueeze(1))
        return (1.0 - signed).clamp(min=0.0).square().mean()
    margins = 1.0 + logits
    own = logits.gather(1, labels.unsqueeze(1))
    margins = margins.scatter(1, labels.unsqueeze(1), 1.0 - own)
    return margins.clamp(min=0.0).square().mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the softmax of ``logits``; of one score's sigmoid, that of two classes.

    Args:
        logits: (N, classes), floating point; (N, 1) is one score z, as good as (0, z).
        labels: (N,), int64 class indices.
    """
    return F.cross_entropy(_softmax_ready(logits), labels)


def _softmax_ready(logits: Tensor) -> Tensor:
    """``logits``; where there is one, two whose softmax gives that one's sigmoid to class 1."""
    if logits.shape[1] == 1:
        return torch.cat((torch.zeros_like(logits), logits), dim=1)
    return logits


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """``T**2 * KL(softmax(teacher / T) || softmax(logits / T))``, the mean over the batch.

    ``T**2`` makes the gradient's size independent of T, which makes the sum with another loss easy.
    No gradient goes to the teacher.

    Args:
        logits, teacher_logits: (N, classes), floating point; one score z stands for (0, z).
        temperature: T, above 0.

    Source: Hinton et al., arXiv 1503.02531, section 2.
    """
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be a finite number above 0, not {temperature!r}")
    own = F.log_softmax(_softmax_ready(logits) / temperature, dim=1)
    taught = _softmax_ready(teacher_logits.detach())
    teacher = F.log_softmax(taught / temperature, dim=1)
    return temperature**2 * F.kl_div(own, teacher, reduction="batchmean", log_target=True)


class ScaleRegularizer(nn.Module):
    """Penalty that draws latent weights to +-alpha, with a trained alpha.

    ``R1 = |alpha - |w||`` or ``R2 = (alpha - |w|)**2``, the mean over each layer's weights, summed
    over the layers; the gradient in w is that of the formula, 0 where w is 0. Add
    ``strength * regularizer()`` to the loss and give the regularizer's parameters to the optimizer.
    It is no part of ``model`` and never reaches a model file: only signs of weights count there.

    Args:
        model: its binary layers at this time, on the device where they are trained.
        kind: "r1" or "r2".
        per_filter: an alpha for each output of a layer, not one for the layer.

    Each alpha starts at the mean of |w| that it stands for.

    Source: BNN+, arXiv 1812.11800, section 3.1 (there with one norm over all weights).
    """

    def __init__(self, model: nn.Module, kind: str = "r1", per_filter: bool = False) -> None:
        super().__init__()
        if kind not in ("r1", "r2"):
            raise ValueError(f"kind must be 'r1' or 'r2', not {kind!r}")
        self.kind = kind
        self.per_filter = per_filter
        # A tuple is not searched for modules: the layers' parameters are not the regularizer's.
        self._layers = tuple(
            module for module in model.modules() if isinstance(module, BinaryLinear | BinaryConv)
        )
        if not self._layers:
            raise ValueError("the model has no binary layers; there is nothing to regularize")
        self.alpha = nn.ParameterList(
            nn.Parameter(self._magnitude(layer.latent_weight.detach())) for layer in self._layers
        )

    def _magnitude(self, latent: Tensor) -> Tensor:
        if self.per_filter:
            return latent.abs().mean(dim=tuple(range(1, latent.dim())), keepdim=True)
        return latent.abs().mean()

    def forward(self) -> Tensor:
        penalties = []
        for alpha, layer in zip(self.alpha, self._layers, strict=True):
            distance = alpha - layer.latent_weight.abs()
            distance = distance.abs() if self.kind == "r1" else distance.square()
            penalties.append(distance.mean())
        return torch.stack(penalties).sum()

    def extra_repr(self) -> str:
        return f"{self.kind!r}, per_filter={self.per_filter}"
