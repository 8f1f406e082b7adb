"""What norms measure, measured anew when training is over."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from edgebnn.errors import EdgebnnError
from edgebnn.nn.norm import BatchNorm


@torch.no_grad()
def recalibrate(
    model: nn.Module,
    images: Tensor | Iterable[Tensor | Sequence[Tensor]],
    batch_size: int = 128,
) -> None:
    """Set every norm's mean and variance to their averages over ``images``, weights unchanged.

    A running average lags behind the last steps' weights. Each norm here averages its batches
    evenly, while everything else (dropout) is in eval mode. Call it once after the last step, on
    training images, and measure the accuracy after it.

    Args:
        model: on the device of the images; left in eval mode.
        images: ``(N, C, H, W)`` or ``(N, features)`` integers of the model's input bits, in an
            order that mixes the classes; or batches of them, a DataLoader's for example, whose
            labels are not looked at.
        batch_size: images at a time, as in training; a last batch that is not full is left out.
            Batches that come as such are taken as they are.

    Raises:
        EdgebnnError: there are no images.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
    step = 0
    try:
        for batch in _batches(images, batch_size):
            step += 1
            for norm in norms:
                norm.momentum = 1.0 / step
            model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
    if step == 0:
        raise EdgebnnError("there are no images to measure the norms with; give training images")


def _batches(
    images: Tensor | Iterable[Tensor | Sequence[Tensor]], batch_size: int
) -> Iterator[Tensor]:
    if isinstance(images, Tensor):
        whole = max(1, len(images) // batch_size) if len(images) else 0
        for step in range(whole):
            yield images[step * batch_size : (step + 1) * batch_size]
    else:
        for batch in images:
            yield batch if isinstance(batch, Tensor) else batch[0]
