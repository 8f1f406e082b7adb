"""What binarization costs in training: a step of a network beside a step of its float twin."""

import statistics
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import edgebnn.nn as bnn
from edgebnn.train.optimizers import LOSSES, make_optimizer
from edgebnn.train.processes import device_kind, keep_memory
from edgebnn.train.recipes import Recipe
from edgebnn.train.twin import float_twin


@dataclass(frozen=True, slots=True)
class StepRatio:
    """Medians over ``rounds`` interleaved steps; ``ratio`` is the median of the rounds' ratios."""

    recipe: str
    batch_size: int
    rounds: int
    device: str
    threads: int
    binary_seconds: float
    float_seconds: float
    ratio: float


def step_ratio(
    recipe: Recipe,
    shape: tuple[int, int, int] = (1, 28, 28),
    *,
    rounds: int = 100,
    warmup: int = 10,
    device: str = "cpu",
) -> StepRatio:
    """Time whole training steps of ``recipe``'s network and of its float twin, one after another.

    A step is forward, loss, backward, optimizer and, in the binarized network, the clipping of
    latent weights, on one batch of random images. Both steps of a round share what else the
    machine does at the time, so the ratio is steadier than the times.

    Args:
        shape: (channels, height, width) of an image.
        rounds: pairs of steps timed, after ``warmup`` pairs that are not.
        device: "cpu", "cuda", or "auto".

    Raises:
        EdgebnnError: there is no such device.
    """
    device = device_kind(device)
    keep_memory()
    classes = 2 if recipe.one_score else 10
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        binary = recipe.build(shape, classes)
        twin = float_twin(binary)
        images = torch.randint(0, 2**recipe.input_bits, (recipe.batch_size, *shape))
        labels = torch.randint(0, classes, (recipe.batch_size,)).to(device)
    images = images.to(torch.uint8).to(device)
    steps = [_Step(model.to(device), recipe) for model in (binary, twin)]
    times: list[tuple[float, float]] = []
    for number in range(warmup + rounds):
        first = number % 2  # neither always runs in the other's warm cache
        taken = [0.0, 0.0]
        for which in (first, 1 - first):
            taken[which] = steps[which].seconds(images, labels)
        if number >= warmup:
            times.append((taken[0], taken[1]))
    return StepRatio(
        recipe=recipe.name,
        batch_size=recipe.batch_size,
        rounds=rounds,
        device=device,
        threads=torch.get_num_threads(),
        binary_seconds=statistics.median(pair[0] for pair in times),
        float_seconds=statistics.median(pair[1] for pair in times),
        ratio=statistics.median(pair[0] / pair[1] for pair in times),
    )


class _Step:
    """One training step of one network, timed."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        if any(isinstance(module, bnn.BinaryConv2d | nn.Conv2d) for module in model.modules()):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model = model.train()
        self._loss = LOSSES[recipe.loss]
        # A rate of next to nothing: times do not change with the weights, and nothing diverges.
        self._optimizer = make_optimizer(model, replace(recipe, learning_rate=1e-6))

    def seconds(self, images: Tensor, labels: Tensor) -> float:
        _wait(images.device)
        started = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self._model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        _wait(images.device)
        return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
