"""Passes over images without a gradient: how many are right, and what the norms measure."""

import torch
from torch import Tensor, nn

import edgebnn.nn as bnn

_EVALUATION_BATCH = 500


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many of ``images`` the model, put into eval mode, gives their label.

    Args:
        model: on the device of the images.
        images: ``(N, C, H, W)`` integers of the model's input bits.
        labels: ``(N,)`` int64.
    """
    model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    for start in range(0, len(images), _EVALUATION_BATCH):
        part = slice(start, start + _EVALUATION_BATCH)
        correct += (bnn.predict(model(images[part])) == labels[part]).sum()
    return int(correct)


@torch.no_grad()
def recalibrate(model: nn.Module, images: Tensor, batch_size: int = 128) -> None:
    """Set every norm's mean and variance to their averages over ``images``, weights unchanged.

    A running average lags behind the last steps' weights. Each norm here averages its batches
    evenly, while everything else (dropout) is in eval mode. A last batch that is not full is left
    out.

    Args:
        model: on the device of the images; left in eval mode.
        images: ``(N, C, H, W)`` integers of the model's input bits.
        batch_size: images at a time, as in training.
    """
    norms = [module for module in model.modules() if isinstance(module, bnn.BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
    try:
        for step in range(max(1, len(images) // batch_size)):
            for norm in norms:
                norm.momentum = 1.0 / (step + 1)
            model(images[step * batch_size : (step + 1) * batch_size])
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
