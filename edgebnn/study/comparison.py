"""What came out of a comparison's runs: all that a table or a plot needs, and its JSON form."""

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from typing import Any, Self

from edgebnn.errors import EdgebnnError
from edgebnn.study.variants import BASE

FORMAT, VERSION = "edgebnn comparison", 1
FLASH_TARGET = "cortex-m4"


@dataclass(frozen=True, slots=True)
class Run:
    """One seed of one variant; accuracies are fractions, times are wall times.

    ``flash_bytes`` are the planned constants for :data:`FLASH_TARGET`; None for a float network and
    where ``flash_error`` says what stands in the way. ``error`` says why there is nothing at all.
    """

    seed: int
    test_correct: int = 0
    test_images: int = 0
    validation_accuracy: float | None = None
    seconds: float = 0.0
    epoch_seconds: tuple[float, ...] = ()
    steps_per_epoch: int = 0
    flash_bytes: int | None = None
    flash_error: str = ""
    error: str = ""

    @property
    def test_accuracy(self) -> float:
        return self.test_correct / self.test_images


@dataclass(slots=True)
class Entry:
    """A variant of a recipe, all settings of the two, and its runs, by seed."""

    recipe: str
    label: str
    changes: dict[str, Any]
    settings: dict[str, Any]
    epochs: int
    runs: dict[int, Run] = field(default_factory=dict)

    @property
    def binary(self) -> bool:
        return bool(self.settings["binary"])

    @property
    def finished(self) -> list[Run]:
        """Runs that came to an end, by seed."""
        return [self.runs[seed] for seed in sorted(self.runs) if not self.runs[seed].error]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracies by seed, as fractions."""
        return [run.test_accuracy for run in self.finished]

    @property
    def error(self) -> str:
        """Why a run failed; empty where none did."""
        return next((run.error for run in self.runs.values() if run.error), "")

    @property
    def epoch_seconds(self) -> float | None:
        """The median over all epochs of all seeds."""
        times = [seconds for run in self.finished for seconds in run.epoch_seconds]
        return statistics.median(times) if times else None

    def difference(self, base: "Entry") -> float | None:
        """Mean difference of test accuracy over the seeds that both have."""
        theirs = {run.seed: run.test_accuracy for run in base.finished}
        pairs = [(r.test_accuracy, theirs[r.seed]) for r in self.finished if r.seed in theirs]
        return statistics.fmean(own - other for own, other in pairs) if pairs else None

    def ratio(self, base: "Entry") -> float | None:
        """How much longer an epoch took than one of ``base``."""
        own, other = self.epoch_seconds, base.epoch_seconds
        return own / other if own is not None and other else None


@dataclass(slots=True)
class Comparison:
    """Variants, in their order, by recipe; the base of each recipe comes first."""

    title: str
    data: dict[str, Any]
    environment: dict[str, Any]
    seeds: tuple[int, ...]
    entries: list[Entry]

    @property
    def recipes(self) -> list[str]:
        """Their names, each once."""
        return list(dict.fromkeys(entry.recipe for entry in self.entries))

    @property
    def total(self) -> int:
        return len(self.entries) * len(self.seeds)

    @property
    def missing(self) -> list[tuple[int, Entry]]:
        """Runs that are still to be done, in order; those that failed are tried again."""
        return [
            (seed, entry)
            for seed in self.seeds
            for entry in self.entries
            if seed not in entry.runs or entry.runs[seed].error
        ]

    @property
    def done(self) -> int:
        return sum(len(entry.runs) for entry in self.entries)

    def base(self, recipe: str) -> Entry:
        return next(e for e in self.entries if (e.recipe, e.label) == (recipe, BASE))

    def ranked(self, recipe: str) -> list[Entry]:
        """A recipe's entries, the best mean test accuracy first, those without any last."""

        def key(entry: Entry) -> tuple[bool, float]:
            return not entry.finished, -statistics.fmean(entry.accuracies or [0.0])

        return sorted((e for e in self.entries if e.recipe == recipe), key=key)

    def to_json(self) -> str:
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        for entry in content["entries"]:
            runs = [run | {"test_accuracy": None} for run in entry["runs"].values()]
            for run in runs:
                if run["test_images"]:
                    run["test_accuracy"] = run["test_correct"] / run["test_images"]
            entry["runs"] = sorted(runs, key=lambda run: int(run["seed"]))
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: object) -> Self:
        """Raises EdgebnnError where ``text``, the content of file ``where``, is none."""
        try:
            content = json.loads(text)
            if content.pop("format") != FORMAT:
                raise ValueError("another format")
            version = content.pop("version")
            entries = []
            for entry in content.pop("entries"):
                runs = {}
                for run in entry.pop("runs"):
                    run.pop("test_accuracy")
                    run["epoch_seconds"] = tuple(run["epoch_seconds"])
                    runs[run["seed"]] = Run(**run)
                entries.append(Entry(**entry, runs=runs))
            seeds = tuple(content.pop("seeds"))
            comparison = cls(**content, seeds=seeds, entries=entries)
            for name in comparison.recipes:
                comparison.base(name)
        except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
            raise EdgebnnError(
                f"{where} is no comparison of this edgebnn; give another -o, or delete it"
            ) from None
        if version != VERSION:
            raise EdgebnnError(
                f"{where} has format version {version}, this edgebnn reads {VERSION}"
            )
        return comparison
