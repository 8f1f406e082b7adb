"""What the training loop tells its caller, who alone prints."""

from dataclasses import dataclass


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


def ignore(event: Event) -> None:
    """For a caller who does not want to know."""
