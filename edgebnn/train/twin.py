"""The float twin of a binarized network: what binarization is compared with, and its teacher."""

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

import edgebnn.nn as bnn
from edgebnn.nn.weights import BinaryConv


class _PaddedConv1d(nn.Conv1d):
    """A convolution with zeros where ``like`` has its padding, which may be of two sides."""

    def __init__(self, like: BinaryConv, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._sides = like.sides

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self._sides(x.shape[-1])))


class _PaddedConv2d(nn.Conv2d):
    """A convolution with zeros where ``like`` has its padding, which may be of four sides."""

    def __init__(self, like: BinaryConv, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._sides = like.sides

    def forward(self, x: Tensor) -> Tensor:
        top, bottom, left, right = self._sides(x.shape[-2], x.shape[-1])
        if (top, left) == (bottom, right):
            self.padding = (top, left)
        else:
            x = F.pad(x, (left, right, top, bottom))
        return super().forward(x)


def float_twin(model: nn.Module, activation: type[nn.Module] = nn.Hardtanh) -> nn.Module:
    """A network of the same shapes from torch's float layers, ``activation`` in place of Sign.

    Layers are taken in the order of ``model.named_modules()``, as a ``Sequential`` runs them.
    """
    twin = copy.deepcopy(model)
    spatial = False
    for name, module in list(twin.named_modules()):
        replacement: nn.Module
        match module:
            case bnn.BinaryLinear():
                spatial = False
                replacement = nn.Linear(
                    module.in_features, module.out_features, bias=module.bias is not None
                )
            case BinaryConv():
                spatial = module.axes == 2
                replacement = (_PaddedConv2d if spatial else _PaddedConv1d)(
                    module,
                    module.in_channels,
                    module.out_channels,
                    module.kernel_size,
                    stride=module.stride,
                    groups=module.groups,
                    bias=module.bias is not None,
                )
            case bnn.BatchNorm():
                norm = nn.BatchNorm2d if spatial else nn.BatchNorm1d
                replacement = norm(module.num_features, module.eps, module.momentum)
            case bnn.Sign():
                replacement = activation()
            case _:
                continue
        parent, _, child = name.rpartition(".")
        setattr(twin.get_submodule(parent), child, replacement)
    return twin
