"""Random changes to training images that keep their class; never to those that are tested.

Every draw comes from torch's global generator of the images' device.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far an image may be changed; all zero and False: not at all.

    Attributes:
        shift: pixels in each direction, samples of a signal.
        flip: mirror left and right, half of the images.
        rotate: degrees to either side.
        scale: the largest change of size as a fraction, each axis on its own.
        fill: what comes in from outside.
    """

    shift: int = 0
    flip: bool = False
    rotate: float = 0.0
    scale: float = 0.0
    fill: int = 0


def augment(images: Tensor, how: Augmentation) -> Tensor:
    """(N, C, H, W) uint8 images, each changed in its own way."""
    if how.flip:
        mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
    if how.rotate or how.scale:
        images = _affine(images, how)
    if how.shift:
        images = _shift(images, how.shift, how.fill)
    return images


def _shift(images: Tensor, most: int, fill: int) -> Tensor:
    count, _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most), value=fill)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, dy, dx, H, W), a view
    dy, dx = torch.randint(0, 2 * most + 1, (2, count), device=images.device)
    if width == 1:  # a signal, which moves in time alone
        dx.fill_(most)
    return windows[torch.arange(count, device=images.device), :, dy, dx]


def _affine(images: Tensor, how: Augmentation) -> Tensor:
    count = len(images)
    draws = 2.0 * torch.rand(3, count, device=images.device) - 1.0
    angle = draws[0] * math.radians(how.rotate)
    scale_x, scale_y = 1.0 + draws[1] * how.scale, 1.0 + draws[2] * how.scale
    zero = torch.zeros_like(angle)
    matrix = torch.stack(
        [
            torch.stack([angle.cos() * scale_x, -angle.sin() * scale_x, zero], 1),
            torch.stack([angle.sin() * scale_y, angle.cos() * scale_y, zero], 1),
        ],
        1,
    )
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float() - how.fill, grid, align_corners=False) + how.fill
    return moved.round().to(torch.uint8)
