"""A pass over images without a gradient: how many are right."""

import torch
from torch import Tensor, nn

from edgebnn.nn.functional import predict

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
        correct += (predict(model(images[part])) == labels[part]).sum()
    return int(correct)
