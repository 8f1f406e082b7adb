"""One run of training: epochs of steps, and what is measured and saved at their end."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import edgebnn.nn as bnn
from edgebnn import checkpoint, samples
from edgebnn.data import Dataset, quantize
from edgebnn.errors import EdgebnnError
from edgebnn.files import check_room
from edgebnn.proof import prove
from edgebnn.train.augment import augment
from edgebnn.train.evaluation import evaluate
from edgebnn.train.events import Batch, Epoch, Event, Finished, Started
from edgebnn.train.optimizers import LOSSES, Loss, make_optimizer, rate_factor
from edgebnn.train.processes import Process, permutation, stream
from edgebnn.train.recipes import Recipe
from edgebnn.train.resuming import damaged, identity_of, resumable
from edgebnn.train.twin import float_twin
from edgebnn.wording import counted, kind

_REPORTS_AN_EPOCH = 50


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


@dataclass(slots=True)
class Job:
    """All that one run needs; ``prepare`` starts or resumes it."""

    recipe: Recipe
    dataset: Dataset  # preprocessed, but not quantized
    process: Process
    seed: int
    epochs: int
    output: Path | None
    done_epochs: int
    model: nn.Module
    network: nn.Module  # the same model, behind DistributedDataParallel where there are processes
    loss: Loss
    teacher: nn.Module | None  # given before it runs
    regularizer: bnn.ScaleRegularizer | None
    optimizer: torch.optim.Optimizer
    identity: dict[str, Any]
    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    image: tuple[int, int, int]  # shape before preprocessing

    @classmethod
    def prepare(
        cls,
        recipe: Recipe,
        dataset: Dataset,
        process: Process,
        seed: int,
        epochs: int | None,
        held_out: int,
        output: Path | None,
        resume: bool,
        image: tuple[int, int, int] | None = None,
    ) -> Self:
        """A run from its beginning, or from where ``output`` is if it is to ``resume``.

        ``image`` is the shape of the images before ``dataset`` was preprocessed, if it was.
        """
        state: dict[str, Any] = {}
        identity = identity_of(recipe, dataset, seed, held_out)
        if resume:
            assert output is not None
            saved = checkpoint.read(output)
            state = resumable(output, saved, identity, epochs)
            model = saved.model
        else:
            torch.manual_seed(stream(seed, "weights"))
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
                raise damaged(output) from error
        images = torch.from_numpy(quantize(dataset.train_images, recipe.input_bits))
        labels = torch.from_numpy(dataset.train_labels)
        order = permutation(len(images), seed, "validation")
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
            teacher=None,
            regularizer=regularizer,
            optimizer=optimizer,
            identity=identity,
            train_images=images[first].to(process.device),
            train_labels=labels[first].to(process.device),
            validation_images=images[last].to(process.device),
            validation_labels=labels[last].to(process.device),
            image=image or dataset.image_shape,
        )

    def check(self) -> None:
        """Check what would otherwise be found out in the first epoch, or after it.

        Raises:
            EdgebnnError: the network cannot be lowered, its batches are too small for a norm, or
                there is no room for ``output``.
        """
        each = self.batch_size // self.process.count
        if each < 2:
            noun = kind(self.dataset.image_shape)
            raise EdgebnnError(
                f"batches of {counted(self.batch_size, noun)} on "
                f"{counted(self.process.count, 'process', 'processes')} are {each} each, of which "
                f"a norm cannot take the variance; give batch_size=128, fewer processes or more "
                f"{noun}s"
            )
        if self.recipe.binary:
            prove(self.model)
        if self.output is not None and self.process.rank == 0:
            size = self._most_bytes()
            there = self.output.stat().st_size if self.output.exists() else 0
            check_room(self.output, 2 * size - min(there, size))

    def _most_bytes(self) -> int:
        """What a model file takes, with as much state as an optimizer of two averages has.

        Each save but the first needs it beside the file that it takes the place of.
        """
        values = [*self.model.parameters(), *self.model.buffers()]
        state = 3 * sum(value.numel() * value.element_size() + 2**9 for value in values)
        return state + self._samples().numel() + 2**14

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
        order = permutation(len(self.train_images), self.seed, "order", epoch).to(device)
        torch.manual_seed(stream(self.seed, "epoch", epoch, rank))
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
        return loss.detach(), (bnn.predict(logits.detach()) == labels).sum()

    def finish(self, started: float, report: Callable[[Event], None]) -> Result:
        """Measures the norms anew, evaluates on the test images, saves the final model."""
        device = self.process.device
        bnn.use_real_weights(self.model, False)
        order = permutation(len(self.train_images), self.seed, "recalibrate").to(device)
        bnn.recalibrate(self.model, self._as_seen(order))
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

    def _as_seen(self, order: Tensor) -> Iterator[Tensor]:
        """Batches of the training images in ``order``, changed at random as in training.

        Of images as they are a norm would measure other means than those that the last weights
        were trained for.
        """
        torch.manual_seed(stream(self.seed, "changes"))
        size = max(1, min(self.recipe.batch_size, len(order)))
        for step in range(len(order) // size):
            chosen = order[step * size : (step + 1) * size]
            yield augment(self.train_images[chosen], self.recipe.augmentation)

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
            origin=self.dataset.origin,
            columns=self.dataset.columns,
            image=self.image,
            samples=self._samples(),
            training={
                "identity": self.identity,
                "epochs": self.epochs,
                "done_epochs": self.done_epochs,
                "finished": test_accuracy is not None,
                "optimizer": self.optimizer.state_dict(),
                "regularizer": self.regularizer.state_dict() if self.regularizer else {},
            },
        )

    def _samples(self) -> Tensor:
        """A few of the training images, drawn at random."""
        order = permutation(len(self.train_images), self.seed, "samples")
        count = samples.room(tuple(self.train_images.shape[1:]))
        return self.train_images[order[:count].to(self.train_images.device)]
