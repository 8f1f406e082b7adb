"""Variants of recipes under one budget and one set of seeds.

A :class:`Comparison` is kept in a JSON file that is written after every run. What such a file has
is not trained again, and a file of another comparison is refused, not overwritten. Runs go seed by
seed, so that one that is interrupted has as many runs of each variant, give or take one.
"""

import dataclasses
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from edgebnn._version import __version__
from edgebnn.data import Dataset, fingerprint
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.study.comparison import FLASH_TARGET, Comparison, Entry, Run
from edgebnn.study.variants import BASE, Variant, default_variants, parse_variant
from edgebnn.targets import get_target
from edgebnn.train.events import Epoch, Event, Started
from edgebnn.train.loop import train
from edgebnn.train.processes import Device
from edgebnn.train.recipes import Recipe, from_mapping

_SAME_MACHINE = ("torch", "threads", "device", "processor")
_SAME_DATA = ("dataset", "fingerprint", "train_images", "test_images")


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
        "processor": processor(),
    }


def processor() -> str:
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
