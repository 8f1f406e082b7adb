"""Tables for people; every figure comes in, none is computed or judged here."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from edgebnn.checkpoint import Checkpoint
from edgebnn.codegen.views import spaced
from edgebnn.cost import Cost, cost, weight_bits
from edgebnn.filters import Repeats
from edgebnn.ir import Network
from edgebnn.plan import plan
from edgebnn.targets import TARGETS
from edgebnn.verify import Backend, OnChip

if TYPE_CHECKING:
    from edgebnn.frontier import Frontier
    from edgebnn.plots import Group, Series
    from edgebnn.train.compare import Comparison, Entry


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table


def kilobytes(count: int) -> str:
    """33612 -> "33.6 kB" (1000 bytes to the kB)."""
    return f"{count / 1000:.1f} kB"


def markdown(rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A Markdown table; the first row is its head, the first ``names`` columns are not numbers."""
    head, *body = rows
    rule = [*["---"] * names, *["---:"] * (len(head) - names)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def model_table(path: str, checkpoint: Checkpoint, network: Network) -> Table:
    """What a model is and where it comes from."""
    metadata = checkpoint.metadata
    shape = network.input
    table = _table(path, "model", "")
    table.add_row("form", checkpoint.form)
    pixels = f"{shape.height} x {shape.width} x {shape.channels}"
    table.add_row("input", f"{pixels}, {shape.bits} bits each")
    table.add_row("classes", ", ".join(metadata.class_names) or str(network.num_classes))
    if metadata.input_steps:
        table.add_row("preprocessing of 8-bit pixels", ", then ".join(metadata.input_steps))
    table.add_row("binary weights", f"{spaced(weight_bits(network))} bits")
    accuracy = metadata.test_accuracy
    known = "not recorded" if accuracy is None else f"{100 * accuracy:.2f} % on the test set"
    table.add_row("accuracy", known)
    if metadata.dataset:
        table.add_row("data set", metadata.dataset)
    recipe = ", ".join(f"{key} {value}" for key, value in metadata.recipe.items())
    table.add_row("recipe", recipe or "not recorded")
    table.add_row("seed", "not recorded" if metadata.seed is None else str(metadata.seed))
    return table


def layer_table(costs: Cost) -> Table:
    """Every op with its size and kernel."""
    table = _table("Layers", "op", "weights (bits)", "constants (bytes)", "MACs", "kernel")
    for op in costs.ops:
        numbers = (op.weight_bits, op.constant_bytes, op.macs)
        table.add_row(op.name, *(spaced(n) if n else "-" for n in numbers), op.kernel)
    return table


def target_table(network: Network, prefer: tuple[str, ...] = ()) -> Table:
    """Flash and RAM on every target, before any compiler runs."""
    table = _table(
        "Targets (exact; code and stack come on top)", "target", "flash constants", "static RAM"
    )
    for target in TARGETS.values():
        known = cost(plan(network, target, prefer))
        constants, arena = spaced(known.constant_bytes), spaced(known.arena_bytes)
        table.add_row(target.name, f"{constants} bytes", f"{arena} bytes")
    return table


def filter_table(layers: Sequence[Repeats]) -> Table:
    """How often the filters of each convolution repeat."""
    counts = ("2-D kernels", "unique", "inverses merged", "fraction")
    table = _table("Repeated filters", "op", "size", *counts, "3-D filters", "copies")
    for layer in layers:
        table.add_row(
            layer.name,
            f"{layer.height}x{layer.width}",
            *(spaced(n) for n in (layer.kernels, layer.distinct, layer.merged)),
            f"{100 * layer.fraction:.1f} %",
            spaced(layer.filters),
            spaced(layer.copies),
        )
    return table


def equality_table(
    torch_backend: Backend, others: Sequence[Backend], labels: NDArray[np.int64] | None
) -> Table:
    """One row a backend: accuracy and how many outputs differ from torch's."""
    count = len(torch_backend.outputs.classes)
    table = _table(f"Outputs on {spaced(count)} inputs", "backend", "accuracy", "differing outputs")
    for backend in (torch_backend, *others):
        accuracy = "-"
        if labels is not None:
            correct = backend.correct(labels)
            accuracy = f"{100 * correct / count:.2f} % ({correct}/{count})"
        table.add_row(backend.name, accuracy, str(backend.differing))
    return table


def instructions(chip: OnChip) -> str:
    """The count if it is the same for all inputs, else mean and range."""
    least, most = min(chip.instructions), max(chip.instructions)
    if least == most:
        return spaced(least)
    mean = round(sum(chip.instructions) / len(chip.instructions))
    return f"{spaced(mean)} ({spaced(least)} to {spaced(most)})"


def chip_table(chip: OnChip) -> Table:
    """What an emulated run cost."""
    footprint = chip.footprint
    table = _table(chip.backend.name, "cost", "")
    table.add_row("instructions an inference (exact)", instructions(chip))
    table.add_row("  counted on", f"{len(chip.instructions)} inputs")
    flash = footprint.constant_bytes + footprint.code_bytes
    table.add_row("flash", f"{spaced(flash)} bytes")
    table.add_row("  weights and thresholds", f"{spaced(footprint.constant_bytes)} bytes")
    table.add_row("  code", f"{spaced(footprint.code_bytes)} bytes")
    table.add_row("static RAM", f"{spaced(footprint.arena_bytes)} bytes")
    table.add_row("stack (measured high-water mark)", f"{spaced(chip.stack_bytes)} bytes")
    table.add_row("compiler", f"{chip.compiler}")
    table.add_row("  flags", chip.flags)
    return table


# --- comparisons --------------------------------------------------------------------------------

_NOTHING = "–"


def _cell(text: str) -> str:
    """Text that a Markdown table shows as it is."""
    return text.replace("|", "\\|")


def comparison_markdown(comparison: "Comparison") -> str:
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


def _title(entry: "Entry", several: bool) -> str:
    return f"{entry.recipe}, {entry.label}" if several else entry.label


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _comparison_cells(entry: "Entry", base: "Entry") -> tuple[str, ...]:
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


def _conditions(comparison: "Comparison") -> list[str]:
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


def _state(comparison: "Comparison") -> str:
    """What is missing, if anything."""
    failed = sum(1 for entry in comparison.entries for run in entry.runs.values() if run.error)
    parts = []
    if comparison.done < comparison.total:
        parts.append(f"Unfinished: {comparison.done} of {comparison.total} runs.")
    if failed:
        parts.append(f"Failed: {failed} of {comparison.total} runs.")
    return " ".join(parts)


def comparison_groups(comparison: "Comparison") -> "list[Group]":
    """The rows of :func:`edgebnn.plots.dot_plot`: one group a recipe, best first."""
    from edgebnn.plots import Dots, Group

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


def comparison_note(comparison: "Comparison") -> str:
    """The small print of the plot."""
    count = len(comparison.seeds)
    epochs = " or ".join(str(n) for n in sorted({entry.epochs for entry in comparison.entries}))
    what = f"Circles: {count} seeds; bars and numbers: their mean" if count > 1 else "One seed"
    note = f"{what}. Epochs: {epochs}. Dashed line: the base."
    state = _state(comparison)
    if state:
        note += f" {state}"
    return note


# --- frontiers ----------------------------------------------------------------------------------


def frontier_markdown(frontier: "Frontier") -> str:
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
        "weights, thresholds and scales in flash. Instructions: a whole predict call on "
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


def frontier_series(frontier: "Frontier") -> "list[Series]":
    """The points of :func:`edgebnn.plots.frontier_plot`, published ones by kind of network."""
    from edgebnn.plots import Point, Series

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


def frontier_axes(frontier: "Frontier") -> tuple[str, str]:
    """Honest about units: ours are instructions, theirs may not be."""
    theirs = "".join(f";\n{one.label}: {one.costs}" for one in frontier.published)
    return (
        "weights and other constants (bytes)",
        f"edgebnn: instructions on {frontier.target}{theirs}",
    )


def frontier_note(frontier: "Frontier") -> str:
    """The small print of the plot."""
    inputs = "; ".join(dict.fromkeys(model.inputs for model in frontier.models))
    lines = [f"Instructions: a whole predict call, counted in an emulator, on {inputs}."]
    lines += [f"{one.label}: {one.source}." for one in frontier.published]
    return "\n".join(lines)
