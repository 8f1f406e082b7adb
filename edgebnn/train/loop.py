"""The training loop: a recipe and a data set in, a model file out, repeatable to the bit on CPU.

One step is the paper's Algorithm 1 (arXiv 1602.02830): forward and backward through the signs, an
optimizer step on the latent weights, then their clipping to [-1, 1]. After the last epoch the
norms' statistics are measured anew with the final weights, and the test images are used once.

A recipe may ask for a float teacher, which is trained first and kept in the cache folder, or for
two stages, of which the first has real weights (AdamBNN, Liu et al., arXiv 2106.11309).

Everything random follows from ``(seed, epoch, rank)`` alone, so that a resumed run needs no saved
generator and ends with the same bits as one that was never interrupted, on the same machine with
the same number of threads. Nothing is printed: the loop reports :data:`Event` values.

Under ``torchrun`` (``WORLD_SIZE`` above 1) the processes share each batch by
DistributedDataParallel; rank 0 alone reports and saves.
"""

import ctypes
import hashlib
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
from edgebnn.data import Dataset, cache_dir, quantize, transforms
from edgebnn.errors import EdgebnnError
from edgebnn.files import replacing
from edgebnn.train.augment import augment
from edgebnn.train.recipes import Recipe
from edgebnn.train.twin import float_twin

Device = Literal["auto", "cpu", "cuda"]
Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {"square_hinge": bnn.square_hinge, "cross_entropy": F.cross_entropy}
BOP_GAMMA, BOP_THRESHOLD = 1e-3, 1e-8
_SILENT = ("recipe's name", "recipe's summary", "recipe's epochs")
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
    output: Path | None
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
    output: Path | None,
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
        output: the model file; written after every epoch in training form, whole or not at all;
            None keeps nothing.
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
    if output is None and resume:
        raise EdgebnnError("nothing to resume; name the model file")
    if output is not None and not recipe.binary:
        raise EdgebnnError("a float twin has no model file; train it with edgebnn compare")
    if output is not None and not output.parent.is_dir():
        raise EdgebnnError(f"no folder {output.parent} to write {output.name} in; make it first")
    if output is not None and output.is_dir():
        raise EdgebnnError(f"{output} is a folder; give the model file a name of its own")
    keep_memory()
    with _processes(device) as process, _own_generators(process.device):
        tell = report if process.rank == 0 else _ignore
        dataset = transforms.apply(dataset, recipe.preprocessing)
        teacher = _teacher(recipe, dataset, process, seed, held_out, tell)
        job = _Job.prepare(
            recipe, dataset, process, seed, epochs, held_out, output, resume, teacher
        )
        job.run(tell)
        return job.finish(started, tell)


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


# --- the teacher --------------------------------------------------------------------------------


def _teacher(
    recipe: Recipe,
    dataset: Dataset,
    process: _Process,
    seed: int,
    held_out: int,
    report: Callable[[Event], None],
) -> nn.Module | None:
    """The recipe's float teacher in eval mode, from the cache folder or trained now."""
    if not recipe.teacher:
        return None
    theirs = Recipe(
        name=f"teacher {recipe.teacher}",
        summary="",
        network=recipe.teacher,
        binary=False,
        epochs=recipe.teacher_epochs,
        batch_size=recipe.batch_size,
        learning_rate=3e-3,
        loss="cross_entropy",
        input_bits=recipe.input_bits,
        image_size=recipe.image_size,
        whiten=recipe.whiten,
        augment_shift=recipe.augment_shift,
        augment_flip=recipe.augment_flip,
        augment_rotate=recipe.augment_rotate,
        augment_scale=recipe.augment_scale,
        precision=recipe.precision,
    )
    identity = sorted(_identity(theirs, dataset, seed, held_out).items())
    key = hashlib.sha256(repr((identity, theirs.epochs)).encode()).hexdigest()[:16]
    path = cache_dir() / "teachers" / f"{key}.pt"
    job = _Job.prepare(theirs, dataset, process, seed, None, held_out, None, False)
    try:
        job.model.load_state_dict(torch.load(path, map_location=process.device, weights_only=True))
    except Exception:  # not there, or not whole: whatever it is, train it
        job.run(report)
        if process.rank == 0:
            _keep(job.model, path)
    return job.model.eval().requires_grad_(False)


def _keep(model: nn.Module, path: Path) -> None:
    """Saves a teacher for later runs; whoever cannot trains it again."""
    with suppress(OSError, EdgebnnError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            torch.save(model.state_dict(), file)


# --- one run ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Job:
    """All that one run needs; ``prepare`` starts or resumes it."""

    recipe: Recipe
    dataset: Dataset  # preprocessed, but not quantized
    process: _Process
    seed: int
    epochs: int
    output: Path | None
    done_epochs: int
    model: nn.Module
    network: nn.Module  # the same model, behind DistributedDataParallel where there are processes
    loss: Loss
    teacher: nn.Module | None
    regularizer: bnn.ScaleRegularizer | None
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
        output: Path | None,
        resume: bool,
        teacher: nn.Module | None = None,
    ) -> "_Job":
        state: dict[str, Any] = {}
        identity = _identity(recipe, dataset, seed, held_out)
        if resume:
            assert output is not None
            saved = checkpoint.read(output)
            state = _resumable(output, saved, identity, epochs)
            model = saved.model
        else:
            torch.manual_seed(_stream(seed, "weights"))
            model = recipe.build(dataset.image_shape, len(dataset.class_names))
            if not recipe.binary:
                model = float_twin(model, nn.ReLU)
        model = model.to(process.device)
        if any(isinstance(module, bnn.BinaryConv2d | nn.Conv2d) for module in model.modules()):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        regularizer = None
        if recipe.regularizer != "none":
            regularizer = bnn.ScaleRegularizer(model, kind=recipe.regularizer).to(process.device)
        optimizer = make_optimizer(model, recipe, regularizer)
        if state:
            try:
                optimizer.load_state_dict(state["optimizer"])
                if regularizer is not None:
                    regularizer.load_state_dict(state["regularizer"])
            except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
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
            loss=LOSSES[recipe.loss],
            teacher=teacher,
            regularizer=regularizer,
            optimizer=optimizer,
            identity=identity,
            train_images=images[first].to(process.device),
            train_labels=labels[first].to(process.device),
            validation_images=images[last].to(process.device),
            validation_labels=labels[last].to(process.device),
        )

    def run(self, report: Callable[[Event], None]) -> None:
        """Trains all epochs that are left."""
        report(self.started())
        for epoch in range(self.done_epochs, self.epochs):
            self.run_epoch(epoch, report)

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
        total_loss = torch.zeros((), device=device)
        total_correct = torch.zeros((), dtype=torch.int64, device=device)
        self.model.train()
        bnn.use_real_weights(self.model, self.recipe.stages == 2 and 2 * epoch < self.epochs)
        every = max(1, steps // _REPORTS_AN_EPOCH)
        for step in range(steps):
            chosen = order[step * size : (step + 1) * size][rank::count]
            loss, correct = self._step(
                self.train_images[chosen], self.train_labels[chosen], epoch * steps + step
            )
            total_loss += loss
            total_correct += correct
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

    def _step(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """One optimizer step; (loss, how many images were right)."""
        recipe = self.recipe
        images = augment(images, recipe.augmentation)
        bnn.scale_rates(self.optimizer, rate_factor(recipe, step, self.epochs * self.steps))
        self.optimizer.zero_grad(set_to_none=True)
        half = recipe.precision == "bfloat16"
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half):
            logits = self.network(images)
        logits = logits.float()
        loss = self.loss(logits, labels)
        if self.teacher is not None:
            with (
                torch.no_grad(),
                torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half),
            ):
                taught = self.teacher(images).float()
            share = recipe.distillation
            distance = bnn.distillation(logits, taught, recipe.temperature)
            loss = (1.0 - share) * loss + share * distance
        if self.regularizer is not None:
            loss = loss + recipe.regularization * self.regularizer()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()  # and clips the latent weights
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()

    def finish(self, started: float, report: Callable[[Event], None]) -> Result:
        """Measures the norms anew, evaluates on the test images, saves the final model."""
        device = self.process.device
        bnn.use_real_weights(self.model, False)
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
        if self.output is None:
            return
        checkpoint.save(
            self.model,
            self.output,
            class_names=self.dataset.class_names,
            test_accuracy=test_accuracy,
            dataset=self.dataset.name,
            right_shift=8 - self.recipe.input_bits,
            preprocessing=self.recipe.preprocessing,
            recipe={
                **self.recipe.plain(),
                "epochs": self.epochs,
                "validation": len(self.validation_images),
            },
            seed=self.seed,
            training={
                "identity": self.identity,
                "epochs": self.epochs,
                "done_epochs": self.done_epochs,
                "finished": test_accuracy is not None,
                "optimizer": self.optimizer.state_dict(),
                "regularizer": self.regularizer.state_dict() if self.regularizer else {},
            },
        )


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
        optimizer = bnn.ShiftAdaMax(groups, lr=rate)
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


def fingerprint(dataset: Dataset) -> str:
    """Tells data sets of one name apart; not meant against an attacker."""
    checksum = zlib.crc32(np.ascontiguousarray(dataset.train_labels).data)
    checksum = zlib.crc32(np.ascontiguousarray(dataset.train_images).data, checksum)
    return f"{len(dataset.train_images)} images, checksum {checksum:08x}"


def _identity(recipe: Recipe, dataset: Dataset, seed: int, held_out: int) -> dict[str, Any]:
    """All that decides a run, but for how long it is."""
    settings = {f"recipe's {key}": value for key, value in recipe.plain().items()}
    settings = {k: v for k, v in settings.items() if k not in _SILENT}
    data = f"{dataset.name} ({fingerprint(dataset)})"
    return {
        "recipe": recipe.name,
        "data set": data,
        "seed": seed,
        "validation": held_out,
        **settings,
    }


def _damaged(output: Path | None) -> EdgebnnError:
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
