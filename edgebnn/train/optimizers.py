"""A recipe's loss, optimizer and learning rates."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import edgebnn.nn as bnn
from edgebnn.train.recipes import Recipe

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {"square_hinge": bnn.square_hinge, "cross_entropy": bnn.cross_entropy}
BOP_GAMMA, BOP_THRESHOLD = 1e-3, 1e-8
ADAMAX_BETA1 = 1 - 2**-3  # as published


def make_optimizer(
    model: nn.Module, recipe: Recipe, regularizer: nn.Module | None = None
) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters; it clips latent weights after each step."""
    rate = recipe.learning_rate
    extra = list(regularizer.parameters()) if regularizer is not None else []
    groups: list[dict[str, Any]]
    if recipe.optimizer == "bop":
        latent, rest = bnn.split_parameters(model)
        bop = bnn.Bop(latent, gamma=BOP_GAMMA, threshold=BOP_THRESHOLD)
        adam = torch.optim.Adam(rest + extra, lr=rate)
        return bnn.CombinedOptimizer(bop, adam)
    groups = [{"params": list(model.parameters())}]
    if recipe.glorot_rates:
        groups = bnn.glorot_groups(model, rate)
    if extra:
        groups.append({"params": extra})
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9)
    elif recipe.optimizer == "shift-adamax":
        optimizer = bnn.ShiftAdaMax(groups, lr=rate, betas=(ADAMAX_BETA1, recipe.adamax_beta2))
    else:
        optimizer = torch.optim.Adam(groups, lr=rate, fused=True)
    bnn.clip_latent_after_step(optimizer, model)
    return optimizer


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """What the learning rate is multiplied by before ``step`` (from 0) of ``steps``.

    In two stages each has a schedule of its own.
    """
    if recipe.stages == 2:
        half = steps // 2
        step, steps = (step, half) if step < half else (step - half, steps - half)
    match recipe.schedule:
        case "cosine":
            return bnn.cosine(step, steps)
        case "exponential":
            return bnn.exponential(step, steps, recipe.final_rate / recipe.learning_rate)
        case "halving":
            every = max(1, round(steps * recipe.halve_every / recipe.epochs))
            return bnn.halving(step, steps, every)
        case _:
            return bnn.constant(step, steps)
