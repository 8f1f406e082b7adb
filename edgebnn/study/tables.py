"""Comparisons and frontiers as Markdown, and as what their plots draw; all figures come in."""

import statistics

from edgebnn.codegen.views import spaced
from edgebnn.study.comparison import Comparison, Entry
from edgebnn.study.frontier import Frontier
from edgebnn.study.plots import Dots, Group, Point, Series
from edgebnn.wording import markdown

_NOTHING = "–"


def _cell(text: str) -> str:
    """Text that a Markdown table shows as it is."""
    return text.replace("|", "\\|")


def comparison_markdown(comparison: Comparison) -> str:
    """One table over all recipes and variants, and what it was measured with."""
    columns = ("test accuracy", "min to max", "difference", "epoch time", "flash")
    several = len(comparison.recipes) > 1
    rows: list[tuple[str, ...]] = [(*(("recipe",) if several else ()), "variant", *columns)]
    for name in comparison.recipes:
        base = comparison.base(name)
        for entry in comparison.ranked(name):
            cells = _comparison_cells(entry, base)
            rows.append((name, *cells) if several else cells)
    parts = [
        f"# {comparison.title}",
        markdown(rows, names=2 if several else 1),
        *_conditions(comparison),
    ]
    changes = [
        f"- {_title(entry, several)}: "
        + ", ".join(f"`{key}` = {_setting(value)}" for key, value in entry.changes.items())
        for entry in comparison.entries
        if entry.changes
    ]
    if changes:
        parts.append("Settings that differ from the base:\n\n" + "\n".join(changes))
    failures = [
        f"- {_title(entry, several)}, seed {seed}: {run.error or run.flash_error}"
        for entry in comparison.entries
        for seed, run in entry.runs.items()
        if run.error or run.flash_error
    ]
    if failures:
        head = "What failed, or trained but has no C:"
        parts.append(f"{head}\n\n" + "\n".join(failures))
    return "\n\n".join(parts) + "\n"


def _title(entry: Entry, several: bool) -> str:
    return f"{entry.recipe}, {entry.label}" if several else entry.label


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _comparison_cells(entry: Entry, base: Entry) -> tuple[str, ...]:
    mark = "**" if entry is base else ""
    label = f"{mark}{_cell(entry.label)}{mark}"
    values = [100 * accuracy for accuracy in entry.accuracies]
    if not values:
        state = "failed" if entry.error else "not yet"
        return (label, state, *[_NOTHING] * 4)
    difference, ratio = entry.difference(base), entry.ratio(base)
    sizes = sorted({r.flash_bytes for r in entry.finished if r.flash_bytes is not None})
    flash = " to ".join(spaced(size) for size in dict.fromkeys((*sizes[:1], *sizes[-1:])))
    return (
        label,
        f"{mark}{statistics.fmean(values):.2f} %{mark}",
        f"{min(values):.2f} to {max(values):.2f}",
        _NOTHING if entry is base or difference is None else f"{100 * difference:+.2f}",
        _NOTHING if ratio is None else f"{ratio:.2f}",
        f"{flash} B" if flash else _NOTHING,
    )


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _conditions(comparison: Comparison) -> list[str]:
    data, machine = comparison.data, comparison.environment
    seeds = ", ".join(map(str, comparison.seeds))
    budgets = {entry.recipe: entry.epochs for entry in comparison.entries}
    if len(set(budgets.values())) == 1:
        epochs = _count(next(iter(budgets.values())), "epoch")
    else:
        epochs = ", ".join(f"{_count(count, 'epoch')} of {name}" for name, count in budgets.items())
    of_seeds = f"the mean over seeds {seeds}" if len(comparison.seeds) > 1 else "of seed 0 alone,"
    held_out, tested = data["validation_images"], spaced(data["test_images"])
    trained = spaced(data["train_images"] - held_out)
    text = (
        f"Accuracy is {of_seeds} on the {tested} test images of "
        f"{data['dataset']}, which are used once, after the last epoch. All variants train for "
        f"{epochs} on {trained} images; {spaced(held_out)} more are held out. Difference: "
        "percentage points over the base with the same seeds. Epoch time: wall time of an epoch "
        "in these runs, beside whatever else ran, as a ratio to the base (medians); a teacher's "
        "own training is not in it. Flash: weights, thresholds and scales on a Cortex-M4, "
        "planned; a float network has none here."
    )
    device = "" if machine["device"] == "cpu" else f"{machine['device']}, "
    where = (
        f"edgebnn {machine['edgebnn']}, torch {machine['torch']}, {device}"
        f"{_count(machine['threads'], 'thread')}, {machine['processor']}."
    )
    parts = [text, where]
    state = _state(comparison)
    if state:
        parts.insert(0, f"**{state}**")
    return parts


def _state(comparison: Comparison) -> str:
    """What is missing, if anything."""
    failed = sum(1 for entry in comparison.entries for run in entry.runs.values() if run.error)
    parts = []
    if comparison.done < comparison.total:
        parts.append(f"Unfinished: {comparison.done} of {comparison.total} runs.")
    if failed:
        parts.append(f"Failed: {failed} of {comparison.total} runs.")
    return " ".join(parts)


def comparison_groups(comparison: Comparison) -> list[Group]:
    """The rows of :func:`edgebnn.study.plots.dot_plot`: one group a recipe, best first."""
    groups = []
    for name in comparison.recipes:
        base = comparison.base(name)
        rows = tuple(
            Dots(entry.label, tuple(100 * value for value in entry.accuracies), entry is base)
            for entry in comparison.ranked(name)
            if entry.accuracies
        )
        groups.append(Group(name if len(comparison.recipes) > 1 else "", rows))
    return groups


def comparison_note(comparison: Comparison) -> str:
    """The small print of the plot."""
    count = len(comparison.seeds)
    epochs = " or ".join(str(n) for n in sorted({entry.epochs for entry in comparison.entries}))
    what = f"Circles: {count} seeds; bars and numbers: their mean" if count > 1 else "One seed"
    note = f"{what}. Epochs: {epochs}. Dashed line: the base."
    state = _state(comparison)
    if state:
        note += f" {state}"
    return note


def frontier_markdown(frontier: Frontier) -> str:
    """A table of the models, one of each set of published points, and how they differ."""
    head = ("model", "recipe", "seed", "test accuracy", "error", "constants", "instructions")
    rows: list[tuple[str, ...]] = [head]
    for model in sorted(frontier.models, key=lambda model: model.constant_bytes):
        count = spaced(model.instructions)
        if model.least != model.most:
            count += f" ({spaced(model.least)} to {spaced(model.most)})"
        rows.append(
            (
                _cell(model.name),
                _cell(model.recipe) or _NOTHING,
                _NOTHING if model.seed is None else str(model.seed),
                f"{100 * model.test_accuracy:.2f} %",
                f"{100 * (1 - model.test_accuracy):.2f} %",
                f"{spaced(model.constant_bytes)} B",
                count,
            )
        )
    inputs = "; ".join(dict.fromkeys(model.inputs for model in frontier.models))
    parts = [
        f"# {frontier.title}",
        markdown(rows, names=2),
        f"Accuracy: {frontier.dataset}'s test images, as the model files record it. Constants: "
        "weights, thresholds and scales in bytes, those that a tree of filters has in its code, "
        "too. Instructions: a whole predict call on "
        f"{frontier.target}, counted in Unicorn, on {inputs}. {frontier.compiler}.",
    ]
    for one in frontier.published:
        table: list[tuple[str, ...]] = [("network", "test accuracy", "error", "bytes", one.costs)]
        for point in sorted(one.points, key=lambda point: point.bytes):
            table.append(
                (
                    _cell(point.network),
                    f"{point.accuracy:g} %",
                    f"{100 - point.accuracy:.2f} %",
                    f"{spaced(point.bytes)} B",
                    spaced(point.cycles),
                )
            )
        parts += [
            f"## {one.label}",
            markdown(table),
            f"As published: {one.source}. An instruction there may take more than one clock cycle.",
        ]
    return "\n\n".join(parts) + "\n"


def frontier_series(frontier: Frontier) -> list[Series]:
    """What :func:`edgebnn.study.plots.frontier_plot` draws, published points by kind of network."""
    series = [
        Series(
            f"{one.label}, {kind}",
            tuple(
                Point(p.network, 100 - p.accuracy, (p.bytes, p.cycles))
                for p in one.points
                if p.network == kind
            ),
        )
        for one in frontier.published
        for kind in dict.fromkeys(point.network for point in one.points)
    ]
    ours = tuple(
        Point(m.name, 100 * (1 - m.test_accuracy), (m.constant_bytes, m.instructions))
        for m in frontier.models
    )
    return [Series("edgebnn, binary", ours, ours=True), *series]


def frontier_axes(frontier: Frontier) -> tuple[str, str]:
    """Honest about units: ours are instructions, theirs may not be."""
    theirs = "".join(f";\n{one.label}: {one.costs}" for one in frontier.published)
    return (
        "weights and other constants (bytes)",
        f"edgebnn: instructions on {frontier.target}{theirs}",
    )


def frontier_note(frontier: Frontier) -> str:
    """The small print of the plot."""
    inputs = "; ".join(dict.fromkeys(model.inputs for model in frontier.models))
    lines = [f"Instructions: a whole predict call, counted in an emulator, on {inputs}."]
    lines += [f"{one.label}: {one.source}." for one in frontier.published]
    return "\n".join(lines)
