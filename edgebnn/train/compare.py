"""Variants of recipes under one budget and one set of seeds, and what came out of each run.

A :class:`Comparison` is all that a table or a plot of it needs, and is kept in a JSON file that is
written after every run. What such a file has is not trained again, and a file of another
comparison is refused, not overwritten. Runs go seed by seed, so that one that is interrupted has
as many runs of each variant, give or take one.
"""

import dataclasses
import json
import os
import platform
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from edgebnn._version import __version__
from edgebnn.data import Dataset
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import get_target
from edgebnn.train.loop import Device, Epoch, Event, Started, fingerprint, train
from edgebnn.train.recipes import Recipe, from_mapping, parse_setting

FORMAT, VERSION = "edgebnn comparison", 1
BASE = "base"
FLASH_TARGET = "cortex-m4"
_SAME_MACHINE = ("torch", "threads", "device", "processor")
_SAME_DATA = ("dataset", "fingerprint", "train_images", "test_images")


@dataclass(frozen=True, slots=True)
class Variant:
    """A recipe with some settings changed; the one without any is the base."""

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def default_variants(recipe: Recipe) -> tuple[Variant, ...]:
    """What a paper or an implementation of binarized networks proposes, one change at a time.

    Rates and strengths that do not carry over are set to what each method asks for.
    """
    rate = recipe.learning_rate
    kd = {"loss": "cross_entropy", "teacher": recipe.network, "teacher_epochs": recipe.epochs}
    # A float network wants a smaller step than latent weights, of which only the signs count.
    twin = {"binary": False, "learning_rate": 0.3 * rate}
    return (
        Variant(BASE),
        Variant("swish gradient", {"sign": "swish"}),
        Variant("swish gradient, trained beta", {"sign": "swish_trained"}),
        Variant("polynomial gradient", {"sign": "polynomial"}),
        Variant("stochastic activations", {"sign": "stochastic"}),
        Variant("stochastic weights", {"weights": "stochastic"}),
        Variant("magnitude-aware weights", {"weights": "magnitude"}),
        Variant("learned shift (RSign)", {"learned_shift": True}),
        Variant("shift norm", {"norm": "shift"}),
        Variant("shift-AdaMax", {"optimizer": "shift-adamax", "learning_rate": 2.0**-6}),
        Variant("Bop", {"optimizer": "bop"}),
        # gamma_k is 26 for 784 -> 256, 18 for 256 -> 256: about the same steps, layer by layer.
        Variant("Glorot rates", {"glorot_rates": True, "learning_rate": rate / 16}),
        # BNN+ sums over the weights where these average: 0.1 is its 5e-7 for 200 000 weights.
        Variant("R1 regularizer", {"regularizer": "r1", "regularization": 0.1}),
        Variant("R2 regularizer", {"regularizer": "r2", "regularization": 0.1}),
        Variant("exponential schedule", {"schedule": "exponential"}),
        Variant("cross-entropy", {"loss": "cross_entropy"}),
        Variant("dropout 0.2", {"dropout_hidden": 0.2}),
        Variant("two stages", {"stages": 2}),
        Variant("cross-entropy, float teacher", kd),
        Variant("float twin", twin),
        Variant("float twin, dropout 0.2", {**twin, "dropout_hidden": 0.2}),
    )


def parse_variant(text: str, recipe: Recipe) -> Variant:
    """``label: key=value, key=value``, or the label of a default variant.

    Raises:
        EdgebnnError: the text is neither.
    """
    label, colon, settings = text.partition(":")
    label = " ".join(label.split())
    if not label:
        raise EdgebnnError(f"variant '{text}' has no label; write 'label: key=value, key=value'")
    if not colon:
        known = {variant.label: variant for variant in default_variants(recipe)}
        if label not in known:
            raise EdgebnnError(
                f"'{label}' is no variant; write 'label: key=value, key=value', or one of: "
                + "; ".join(known)
            )
        return known[label]
    try:
        pairs = [parse_setting(part.strip()) for part in settings.split(",")]
    except EdgebnnError as error:
        raise EdgebnnError(f"variant '{label}': {error}") from None
    if len(dict(pairs)) != len(pairs):
        raise EdgebnnError(f"variant '{label}' has a setting twice; write each once")
    return Variant(label, dict(pairs))


# --- what came out ------------------------------------------------------------------------------


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


def prepare(
    dataset: Dataset,
    recipes: Sequence[Recipe],
    variants: Sequence[str] = (),
    *,
    seeds: int = 2,
    epochs: int | None = None,
    device: Device = "auto",
    title: str = "",
) -> Comparison:
    """The comparison of ``variants`` of each recipe, all settings checked and nothing trained yet.

    Args:
        variants: as :func:`parse_variant` reads them; none stands for the default ones that change
            the recipe. The base is always there.
        seeds: how many, from 0 on.
        epochs: instead of each recipe's.

    Raises:
        EdgebnnError: a variant or a setting that there is not; or more processes than one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise EdgebnnError("a comparison runs in one process; start it without torchrun")
    entries: list[Entry] = []
    for recipe in recipes:
        budget = recipe if epochs is None else recipe.changed({"epochs": epochs})
        if any(entry.recipe == recipe.name for entry in entries):
            raise EdgebnnError(f"recipe '{recipe.name}' is there twice; give each once")
        chosen = [parse_variant(text, budget) for text in variants]
        for variant in _with_base(chosen) if variants else _that_differ(budget):
            _check(variant, [e.label for e in entries if e.recipe == recipe.name])
            changed = _changed(budget, variant)
            entries.append(
                Entry(
                    recipe=recipe.name,
                    label=variant.label,
                    changes=dict(variant.settings),
                    settings=dataclasses.asdict(changed),
                    epochs=budget.epochs,
                )
            )
    names = ", ".join(recipe.name for recipe in recipes)
    return Comparison(
        title=title or f"Variants of {names} on {dataset.name}",
        data={
            "dataset": dataset.name,
            "fingerprint": fingerprint(dataset),
            "train_images": len(dataset.train_images),
            "validation_images": min(5000, len(dataset.train_images) // 10),
            "test_images": len(dataset.test_images),
        },
        environment=_environment(device),
        seeds=tuple(range(seeds)),
        entries=entries,
    )


def _with_base(variants: Sequence[Variant]) -> list[Variant]:
    return [Variant(BASE), *(v for v in variants if v != Variant(BASE))]


def _that_differ(recipe: Recipe) -> Iterator[Variant]:
    """The default variants but for those that ``recipe`` is already."""
    for variant in default_variants(recipe):
        if variant.label == BASE or recipe.changed(variant.settings) != recipe:
            yield variant


def _check(variant: Variant, labels: Iterable[str]) -> None:
    if variant.label in labels:
        raise EdgebnnError(f"variant '{variant.label}' is there twice; give each its own label")
    for key in ("epochs", "name", "summary"):
        if key in variant.settings:
            raise EdgebnnError(
                f"variant '{variant.label}' cannot change {key}; "
                "all variants have one budget, which --epochs sets"
            )


def _changed(recipe: Recipe, variant: Variant) -> Recipe:
    try:
        return recipe.changed(variant.settings)
    except EdgebnnError as error:
        raise EdgebnnError(f"variant '{variant.label}': {error}") from None


def _environment(device: Device) -> dict[str, Any]:
    cuda = device != "cpu" and torch.cuda.is_available()
    return {
        "edgebnn": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "processor": _processor(),
    }


def _processor() -> str:
    """The CPU's own name, as far as the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def resume(comparison: Comparison, path: Path) -> None:
    """Take over the runs in ``path``, if it is there; it may have fewer seeds and variants.

    Raises:
        EdgebnnError: the file is of another comparison; says what differs.
    """
    if not path.exists():
        return
    before = Comparison.from_json(path.read_text(encoding="utf-8"), path)
    _agree(path, {k: before.data.get(k) for k in _SAME_DATA}, comparison.data)
    _agree(path, {k: before.environment.get(k) for k in _SAME_MACHINE}, comparison.environment)
    wanted = {(entry.recipe, entry.label): entry for entry in comparison.entries}
    for old in before.entries:
        entry = wanted.get((old.recipe, old.label))
        if entry is None:
            raise _another(path, f"has {old.recipe}'s variant '{old.label}', this one does not")
        _agree(path, {"epochs": old.epochs}, {"epochs": entry.epochs})
        what = f"{old.recipe}'s '{old.label}' with "
        keys = [key for key in {**old.settings, **entry.settings} if key != "summary"]
        _agree(
            path,
            {what + key: old.settings.get(key) for key in keys},
            {what + key: entry.settings.get(key) for key in keys},
        )
    if before.seeds != comparison.seeds[: len(before.seeds)]:
        raise _another(path, f"has {len(before.seeds)} seeds, this one {len(comparison.seeds)}")
    for old in before.entries:
        wanted[old.recipe, old.label].runs.update(old.runs)


def _agree(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key, value in before.items():
        if now.get(key) != value:
            raise _another(path, f"has {key} {value}, this one {now.get(key)}")


def _another(path: Path, difference: str) -> EdgebnnError:
    return EdgebnnError(
        f"{path} is of another comparison: it {difference}; give another -o, or delete it"
    )


def run(
    comparison: Comparison,
    dataset: Dataset,
    *,
    device: Device = "auto",
    started: Callable[[int, Entry], None] = lambda seed, entry: None,
    report: Callable[[Event], None] = lambda event: None,
    finished: Callable[[Entry, Run], None] = lambda entry, run: None,
) -> None:
    """Train all that ``comparison`` misses; ``finished`` is called with the run already in it.

    A run that fails is recorded with its reason. Ctrl-C passes through between two states that
    are both whole.
    """
    for seed, entry in comparison.missing:
        started(seed, entry)
        result = _run(entry, dataset, seed, device, report)
        entry.runs[seed] = result
        finished(entry, result)


def _run(
    entry: Entry, dataset: Dataset, seed: int, device: Device, report: Callable[[Event], None]
) -> Run:
    seconds: list[float] = []
    steps = 0

    def listen(event: Event) -> None:
        nonlocal steps
        if isinstance(event, Started):  # a teacher's, and then the network's own
            seconds.clear()
            steps = event.steps_per_epoch
        elif isinstance(event, Epoch):
            seconds.append(event.seconds)
        report(event)

    try:
        recipe = from_mapping(entry.settings, entry.recipe)
        result = train(recipe, dataset, output=None, seed=seed, device=device, report=listen)
    except EdgebnnError as error:
        return Run(seed, error=str(error))
    except (ValueError, RuntimeError) as error:  # torch's own, as of sizes that do not fit
        return Run(seed, error=" ".join(f"{type(error).__name__}: {error}".split()))
    flash, reason = None, ""
    if recipe.binary:
        try:
            flash = plan(lower(result.model), get_target(FLASH_TARGET)).constant_bytes
        except EdgebnnError as error:
            reason = str(error)
    return Run(
        seed=seed,
        test_correct=result.test_correct,
        test_images=result.test_images,
        validation_accuracy=result.validation_accuracy,
        seconds=result.seconds,
        epoch_seconds=tuple(seconds),
        steps_per_epoch=steps,
        flash_bytes=flash,
        flash_error=reason,
    )
