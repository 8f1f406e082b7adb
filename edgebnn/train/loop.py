"""The training loop: a recipe and a data set in, a model file out, repeatable to the bit on CPU.

One step is the paper's Algorithm 1 (arXiv 1602.02830): forward and backward through the signs, an
optimizer step on the latent weights, then their clipping to [-1, 1]. After the last epoch the
norms' statistics are measured anew with the final weights, and the test images are used once.

Everything random follows from ``(seed, epoch, rank)`` alone, so that a resumed run needs no saved
generator and ends with the same bits as one that was never interrupted, on the same machine with
the same number of threads. Nothing is printed: the loop reports :data:`Event` values.

Under ``torchrun`` (``WORLD_SIZE`` above 1) the processes share each batch by
DistributedDataParallel; rank 0 alone reports and saves.
"""

import ctypes
import hashlib
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import edgebnn.nn as bnn
from edgebnn import checkpoint
from edgebnn.errors import EdgebnnError
from edgebnn.train.datasets import Dataset, quantize
from edgebnn.train.recipes import Recipe

Device = Literal["auto", "cpu", "cuda"]
Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {"square_hinge": bnn.square_hinge, "cross_entropy": F.cross_entropy}
_EVALUATION_BATCH = 500
_REPORTS_AN_EPOCH = 50


@dataclass(frozen=True, slots=True)
class Started:
    """Training begins, or goes on after ``done_epochs``."""

    recipe: str
    dataset: str
    weight_bits: int
    train_images: int
    validation_images: int
    test_images: int
    epochs: int
    done_epochs: int
    steps_per_epoch: int
    device: str
    processes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """``step`` of ``steps`` of ``epoch`` (from 1) are done; means are over the epoch so far."""

    epoch: int
    step: int
    steps: int
    loss: float
    train_accuracy: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch (from 1) is done and saved. Accuracies are fractions; None: nothing held out."""

    epoch: int
    epochs: int
    loss: float
    train_accuracy: float
    validation_accuracy: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The final model is saved; ``seconds`` of this run, without what a resumed one did before."""

    test_correct: int
    test_images: int
    validation_accuracy: float | None
    seconds: float

    @property
    def test_accuracy(self) -> float:
        """A fraction."""
        return self.test_correct / self.test_images


Event = Started | Batch | Epoch | Finished


@dataclass(frozen=True, slots=True)
class Result:
    """A trained model, in eval mode and on the CPU, and how good it is on the test images."""

    model: nn.Module
    output: Path
    test_correct: int
    test_images: int
    validation_accuracy: float | None
    epochs: int
    seconds: float

    @property
    def test_accuracy(self) -> float:
        """A fraction."""
        return self.test_correct / self.test_images


def _ignore(event: Event) -> None:
    pass


def train(
    recipe: Recipe,
    dataset: Dataset,
    *,
    output: Path,
    seed: int = 0,
    epochs: int | None = None,
    device: Device = "auto",
    resume: bool = False,
    validation: int | None = None,
    report: Callable[[Event], None] = _ignore,
) -> Result:
    """Train ``recipe`` on ``dataset`` and keep ``output`` as the last good model all the time.

    Args:
        recipe: what to train and how.
        dataset: images in uint8; they are all held on the device.
        output: the model file; written after every epoch in training form, whole or not at all.
        seed: of weights, order and whatever else is random.
        epochs: instead of the recipe's; the learning rate reaches 0 at the end of the last.
        device: "auto" takes CUDA where there is one.
        resume: go on from ``output``, which must come from the same recipe, data and seed.
        validation: training images held out for the accuracy of each epoch; the default is 5000
            or a tenth, whichever is less. The test images are used once, at the end.
        report: called with each :data:`Event`, on rank 0 only.

    Raises:
        EdgebnnError: no such device, an output folder that is missing, or nothing that can be
            resumed; the message says what to do.
        KeyboardInterrupt: passes through; ``output`` holds the last finished epoch.
    """
    started = time.monotonic()
    total = len(dataset.train_images)
    held_out = min(5000, total // 10) if validation is None else validation
    if not 0 <= held_out < total:
        raise EdgebnnError(f"{held_out} validation images of {total}; leave some to train on")
    if epochs is not None and epochs < 1:
        raise EdgebnnError("no epochs to train; give 1 or more")
    if not output.parent.is_dir():
        raise EdgebnnError(f"no folder {output.parent} to write {output.name} in; make it first")
    if output.is_dir():
        raise EdgebnnError(f"{output} is a folder; give the model file a name of its own")
    keep_memory()
    with _processes(device) as process, _own_generators(process.device):
        job = _Job.prepare(recipe, dataset, process, seed, epochs, held_out, output, resume)
        if process.rank == 0:
            report(job.started())
        for epoch in range(job.done_epochs, job.epochs):
            job.run_epoch(epoch, report if process.rank == 0 else _ignore)
        return job.finish(started, report if process.rank == 0 else _ignore)


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
        correct += (model(images[part]).argmax(1) == labels[part]).sum()
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


def keep_memory() -> None:
    """Have glibc keep freed memory instead of giving it back to the system after each step.

    A convolution's step frees and asks again for tens of megabytes; the page faults of that take
    longer than the arithmetic. See ``mallopt(3)``; nothing happens where there is no glibc.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  (another libc may have another mallopt)
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 2**26)


# --- processes and random numbers ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Process:
    """This process among those that train together."""

    rank: int
    count: int
    device: torch.device


@contextmanager
def _processes(device: Device) -> Iterator[_Process]:
    """Joins the group that torchrun's environment describes, if any, and leaves it at the end."""
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise EdgebnnError("torch sees no CUDA device; use --device cpu")
    kind = "cuda" if has_cuda and device in ("auto", "cuda") else "cpu"
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield _Process(0, 1, torch.device(kind))
        return
    index = int(os.environ.get("LOCAL_RANK", "0"))
    if kind == "cuda" and index >= torch.cuda.device_count():
        raise EdgebnnError(
            f"{torch.cuda.device_count()} CUDA devices for more processes; "
            "give --nproc-per-node that many, or --device cpu"
        )
    here = torch.device(kind, index) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(here)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield _Process(dist.get_rank(), dist.get_world_size(), here)
    finally:
        dist.destroy_process_group()


@contextmanager
def _own_generators(device: torch.device) -> Iterator[None]:
    """Leaves torch's global generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _stream(*parts: int | str) -> int:
    """A generator seed that belongs to ``parts`` alone."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _permutation(count: int, *parts: int | str) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(_stream(*parts)))


# --- one run ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Job:
    """All that one run needs; ``prepare`` starts or resumes it."""

    recipe: Recipe
    dataset: Dataset
    process: _Process
    seed: int
    epochs: int
    output: Path
    done_epochs: int
    model: nn.Module
    network: nn.Module  # the same model, behind DistributedDataParallel where there are processes
    optimizer: torch.optim.Optimizer
    identity: dict[str, Any]
    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor

    @classmethod
    def prepare(
        cls,
        recipe: Recipe,
        dataset: Dataset,
        process: _Process,
        seed: int,
        epochs: int | None,
        held_out: int,
        output: Path,
        resume: bool,
    ) -> "_Job":
        identity = {
            "recipe": recipe.name,
            "data set": f"{dataset.name} ({_fingerprint(dataset)})",
            "seed": seed,
            "validation": held_out,
            "batch size": recipe.batch_size,
            "learning rate": recipe.learning_rate,
            "loss": recipe.loss,
            "input bits": recipe.input_bits,
        }
        state: dict[str, Any] = {}
        if resume:
            saved = checkpoint.read(output)
            state = _resumable(output, saved, identity, epochs)
            model = saved.model
        else:
            torch.manual_seed(_stream(seed, "weights"))
            model = recipe.build(dataset.image_shape, len(dataset.class_names))
        model = model.to(process.device)
        if any(isinstance(module, bnn.BinaryConv2d) for module in model.modules()):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = make_optimizer(model, recipe.learning_rate)
        if state:
            try:
                optimizer.load_state_dict(state["optimizer"])
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise _damaged(output) from error
        images = torch.from_numpy(quantize(dataset.train_images, recipe.input_bits))
        labels = torch.from_numpy(dataset.train_labels)
        order = _permutation(len(images), seed, "validation")
        last, first = order[:held_out], order[held_out:].sort().values
        return cls(
            recipe=recipe,
            dataset=dataset,
            process=process,
            seed=seed,
            epochs=state.get("epochs", recipe.epochs if epochs is None else epochs),
            output=output,
            done_epochs=state.get("done_epochs", 0),
            model=model,
            network=DistributedDataParallel(model) if process.count > 1 else model,
            optimizer=optimizer,
            identity=identity,
            train_images=images[first].to(process.device),
            train_labels=labels[first].to(process.device),
            validation_images=images[last].to(process.device),
            validation_labels=labels[last].to(process.device),
        )

    @property
    def batch_size(self) -> int:
        """Images a step over all processes, each of which takes the same number."""
        count = self.process.count
        return max(1, min(self.recipe.batch_size, len(self.train_images)) // count) * count

    @property
    def steps(self) -> int:
        """Whole batches an epoch; what is left over differs from epoch to epoch."""
        return len(self.train_images) // self.batch_size

    def started(self) -> Started:
        return Started(
            recipe=self.recipe.name,
            dataset=self.dataset.name,
            weight_bits=sum(
                value.numel()
                for name, value in self.model.named_parameters()
                if name.endswith("latent_weight")
            ),
            train_images=len(self.train_images),
            validation_images=len(self.validation_images),
            test_images=len(self.dataset.test_images),
            epochs=self.epochs,
            done_epochs=self.done_epochs,
            steps_per_epoch=self.steps,
            device=str(self.process.device),
            processes=self.process.count,
        )

    def run_epoch(self, epoch: int, report: Callable[[Event], None]) -> None:
        """Trains epoch ``epoch`` (from 0), evaluates, saves, reports."""
        started = time.monotonic()
        rank, count, device = self.process.rank, self.process.count, self.process.device
        steps, size = self.steps, self.batch_size
        order = _permutation(len(self.train_images), self.seed, "order", epoch).to(device)
        torch.manual_seed(_stream(self.seed, "epoch", epoch, rank))
        loss_function = LOSSES[self.recipe.loss]
        total_loss = torch.zeros((), device=device)
        total_correct = torch.zeros((), dtype=torch.int64, device=device)
        self.model.train()
        every = max(1, steps // _REPORTS_AN_EPOCH)
        for step in range(steps):
            chosen = order[step * size : (step + 1) * size][rank::count]
            labels = self.train_labels[chosen]
            _set_rate(
                self.optimizer,
                cosine(self.recipe.learning_rate, epoch * steps + step, self.epochs * steps),
            )
            self.optimizer.zero_grad(set_to_none=True)
            logits = self.network(self.train_images[chosen])
            loss = loss_function(logits, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            bnn.clip_latent_(self.model)
            total_loss += loss.detach()
            total_correct += (logits.detach().argmax(1) == labels).sum()
            done = step + 1
            if rank == 0 and (done % every == 0 or done == steps):
                seen = done * (size // count)
                report(
                    Batch(
                        epoch + 1,
                        done,
                        steps,
                        total_loss.item() / done,
                        total_correct.item() / seen,
                    )
                )
        self.done_epochs = epoch + 1
        if rank == 0:
            accuracy = self._validate()
            self._save()
            report(
                Epoch(
                    epoch=epoch + 1,
                    epochs=self.epochs,
                    loss=total_loss.item() / steps,
                    train_accuracy=total_correct.item() / (steps * (size // count)),
                    validation_accuracy=accuracy,
                    seconds=time.monotonic() - started,
                )
            )

    def finish(self, started: float, report: Callable[[Event], None]) -> Result:
        """Measures the norms anew, evaluates on the test images, saves the final model."""
        device = self.process.device
        order = _permutation(len(self.train_images), self.seed, "recalibrate").to(device)
        recalibrate(self.model, self.train_images[order], self.recipe.batch_size)
        if self.process.count > 1:  # measured alike by all; make sure that it is equal to the bit
            for value in self.model.state_dict().values():
                dist.broadcast(value, src=0)
        images = torch.from_numpy(quantize(self.dataset.test_images, self.recipe.input_bits))
        labels = torch.from_numpy(self.dataset.test_labels)
        correct = evaluate(self.model, images.to(device), labels.to(device))
        accuracy = self._validate()
        if self.process.rank == 0:
            self._save(test_accuracy=correct / len(images))
        if self.process.count > 1:
            dist.barrier()
        seconds = time.monotonic() - started
        report(Finished(correct, len(images), accuracy, seconds))
        return Result(
            model=self.model.cpu(),
            output=self.output,
            test_correct=correct,
            test_images=len(images),
            validation_accuracy=accuracy,
            epochs=self.epochs,
            seconds=seconds,
        )

    def _validate(self) -> float | None:
        count = len(self.validation_images)
        if not count:
            return None
        return evaluate(self.model, self.validation_images, self.validation_labels) / count

    def _save(self, test_accuracy: float | None = None) -> None:
        checkpoint.save(
            self.model,
            self.output,
            class_names=self.dataset.class_names,
            test_accuracy=test_accuracy,
            dataset=self.dataset.name,
            right_shift=8 - self.recipe.input_bits,
            recipe={
                "name": self.recipe.name,
                "epochs": self.epochs,
                "batch_size": self.recipe.batch_size,
                "learning_rate": self.recipe.learning_rate,
                "loss": self.recipe.loss,
                "input_bits": self.recipe.input_bits,
                "validation": len(self.validation_images),
            },
            seed=self.seed,
            training={
                "identity": self.identity,
                "epochs": self.epochs,
                "done_epochs": self.done_epochs,
                "finished": test_accuracy is not None,
                "optimizer": self.optimizer.state_dict(),
            },
        )


def make_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """Adam in its fused form, over all parameters."""
    return torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)


def cosine(rate: float, step: int, steps: int) -> float:
    """The learning rate before ``step`` (from 0) of ``steps``: half a cosine, ``rate`` to 0."""
    return 0.5 * rate * (1.0 + math.cos(math.pi * step / steps))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _fingerprint(dataset: Dataset) -> str:
    """Tells data sets of one name apart; not meant against an attacker."""
    checksum = zlib.crc32(np.ascontiguousarray(dataset.train_labels).data)
    checksum = zlib.crc32(np.ascontiguousarray(dataset.train_images).data, checksum)
    return f"{len(dataset.train_images)} images, checksum {checksum:08x}"


def _damaged(output: Path) -> EdgebnnError:
    return EdgebnnError(f"{output} has a damaged training state; train without --resume")


def _resumable(
    output: Path, saved: checkpoint.Checkpoint, identity: dict[str, Any], epochs: int | None
) -> dict[str, Any]:
    """The state in ``saved``, which must belong to this very run."""
    state = saved.training
    if not state or not {"identity", "epochs", "done_epochs", "optimizer"} <= state.keys():
        raise EdgebnnError(f"{output} has no training state to resume; train without --resume")
    kinds = {"identity": dict, "epochs": int, "done_epochs": int, "optimizer": dict}
    if any(not isinstance(state[key], kind) for key, kind in kinds.items()):
        raise _damaged(output)
    if not 0 <= state["done_epochs"] <= state["epochs"]:
        raise _damaged(output)
    if state.get("finished"):
        raise EdgebnnError(
            f"{output} is finished after {state['epochs']} epochs; "
            "train without --resume to do it again"
        )
    before = {**state["identity"], "epochs": state["epochs"]}
    now = {**identity, "epochs": state["epochs"] if epochs is None else epochs}
    for what, value in now.items():
        if before.get(what) != value:
            raise EdgebnnError(
                f"{output} was trained with {what} {before.get(what)}, not {value}; "
                "resume with the same, or train without --resume"
            )
    return state
