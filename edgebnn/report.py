"""Tables for people; every figure comes in, none is computed or judged here."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from edgebnn.checkpoint import Checkpoint
from edgebnn.codegen.views import spaced
from edgebnn.cost import Cost, cost, weight_bits
from edgebnn.device.ports import Port
from edgebnn.device.wire import Info, SelfTest, Unit
from edgebnn.errors import EdgebnnError
from edgebnn.filters import Repeats
from edgebnn.ir import Network, told_apart
from edgebnn.measure import Backend, OnBoard, OnTarget
from edgebnn.plan import plan
from edgebnn.targets import TARGETS
from edgebnn.wishes import Wishes
from edgebnn.wording import counted, without_figures

_FEW_CLASSES = 20
_WIDE = 1000
_NOT_MEASURED = "not measured"  # not every emulator can


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table


def _unfolded(table: Table) -> Table:
    """``table`` with a line for each row, however narrow the terminal: a cut number is another."""
    table.box, table.padding, table.show_edge, table.pad_edge = (
        box.SIMPLE_HEAD,
        (0, 1, 0, 0),
        False,
        False,
    )
    wide = Console(width=_WIDE)
    table.width = Measurement.get(wide, wide.options, table).maximum
    return table


def kilobytes(count: int) -> str:
    """33612 -> "33.6 kB" (1000 bytes to the kB)."""
    return f"{count / 1000:.1f} kB"


def model_table(path: str, checkpoint: Checkpoint, network: Network) -> Table:
    """What a model is and where it comes from."""
    metadata = checkpoint.metadata
    shape = network.input
    table = _table(path, "model", "")
    table.add_row("form", checkpoint.form)
    pixels = f"{shape.height} x {shape.width} x {shape.channels}"
    zero = f", {checkpoint.zero_point} stands for 0" if checkpoint.zero_point else ""
    table.add_row("input", f"{pixels}, {counted(shape.bits, 'bit')} each{zero}")
    classes = ", ".join(metadata.class_names) or str(told_apart(network.num_classes))
    one = (
        " (one score: the second class where it is at least 0)" if network.num_classes == 1 else ""
    )
    table.add_row("classes", classes + one)
    if metadata.columns:
        count = f"{counted(len(metadata.columns), 'column')} of numbers, each scaled to a byte"
        table.add_row("preprocessing of a table", count)
    if metadata.input_steps:
        table.add_row("preprocessing of 8-bit pixels", ", then ".join(metadata.input_steps))
        if metadata.image is not None:
            channels, height, width = metadata.image
            table.add_row("images before it", f"{height} x {width} x {channels}")
    table.add_row("binary weights", counted(weight_bits(network), "bit"))
    accuracy = metadata.test_accuracy
    known = "not recorded" if accuracy is None else f"{100 * accuracy:.2f} % on the test set"
    table.add_row("accuracy", known)
    if metadata.dataset:
        table.add_row("data set", metadata.set_name)
    if metadata.origin.path:
        table.add_row("its path", metadata.origin.path)
    kept = len(checkpoint.samples)
    table.add_row("sample inputs", str(kept) if kept else "none; edgebnn calibrate records some")
    settings = dict(metadata.recipe)
    if "summary" in settings:
        settings["summary"] = without_figures(str(settings["summary"]))
    recipe = ", ".join(f"{key} {value}" for key, value in settings.items() if value != "")
    table.add_row("recipe", recipe or "not recorded")
    table.add_row("seed", "not recorded" if metadata.seed is None else str(metadata.seed))
    return table


def layer_table(costs: Cost) -> Table:
    """Every op with its size and kernel."""
    table = _table(
        "Layers (instructions: predicted; at most, for any input)",
        *("op", "weights\n(bits)", "constants\n(bytes)", "MACs", "predicted", "at most", "kernel"),
    )
    for op in costs.ops:
        numbers = (op.weight_bits, op.constant_bytes, op.macs)
        cells = (spaced(n) if n else "-" for n in numbers)
        table.add_row(op.name, *cells, _predicted(op.instructions), bound(op.most), op.kernel)
    return _unfolded(table)


def target_table(
    network: Network,
    prefer: tuple[str, ...] = (),
    wishes: Wishes = Wishes(),  # noqa: B008 - frozen
    samples: NDArray[np.uint8] | None = None,
) -> Table:
    """Flash and RAM on every target, before any compiler runs, and instructions where predicted."""
    table = _table(
        "Targets (bytes; instructions)",
        *("target", "constants", "RAM", "code", "stack", "predicted", "at most"),
    )
    for target in TARGETS.values():
        try:
            scheduled = plan(network, target, prefer, wishes=wishes, samples=samples)
        except EdgebnnError:  # of what the target has no kernel for, the others may have
            table.add_row(target.name, _none(wishes), *"-----")
            continue
        known = cost(scheduled)
        constants, ram = spaced(known.constant_bytes), spaced(known.ram_bytes)
        code, stack = (bound(n) for n in (known.code_bytes, known.stack_bytes))
        counts = (_predicted(known.instructions), bound(known.most))
        table.add_row(target.name, constants, ram, code, stack, *counts)
    table.caption = "constants and RAM: exact; code: about; stack and at most: for any input, -O2"
    if samples is not None and len(samples):
        table.caption += (
            f"\npredicted: instructions, the mean of the {len(samples)} recorded samples"
        )
    return _unfolded(table)


def _none(wishes: Wishes) -> str:
    return "no such kernel" if wishes.ram is None and wishes.flash is None else "does not fit"


def _predicted(count: float | None) -> str:
    return "-" if count is None else spaced(round(count))


def bound(count: float | None) -> str:
    """What is not exceeded, up to the next whole number."""
    return "-" if count is None else spaced(math.ceil(count))


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
    table = _table(
        f"Outputs on {counted(count, 'input')}", "backend", "accuracy", "differing outputs"
    )
    for backend in (torch_backend, *others):
        accuracy = "-"
        if labels is not None:
            correct = backend.correct(labels)
            accuracy = f"{100 * correct / count:.2f} % ({correct}/{count})"
        table.add_row(backend.name, accuracy, str(backend.differing))
    return table


def confusion_table(matrix: NDArray[np.int64], names: Sequence[str]) -> Table:
    """Which classes are taken for which: all of a few, the most frequent mistakes of many."""
    labels = tuple(names) or tuple(map(str, range(len(matrix))))
    if len(matrix) <= _FEW_CLASSES:
        table = _table("Confusion: rows are right, columns came out", "class", *labels)
        for name, row in zip(labels, matrix, strict=True):
            table.add_row(name, *(str(count) if count else "." for count in row))
        return table
    table = _table("The most frequent mistakes", "right", "came out", "inputs")
    wrong = matrix - np.diag(np.diag(matrix))
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_FEW_CLASSES]:
        right, best = divmod(int(place), len(matrix))
        if wrong[right, best]:
            table.add_row(labels[right], labels[best], str(wrong[right, best]))
    return table


def instructions(chip: OnTarget) -> str:
    """What an inference takes, which is cycles where the number says so."""
    return f"{_counts(chip.cycles)} cycles" if chip.cycles else _counts(chip.instructions)


def _counts(counts: tuple[int, ...]) -> str:
    """The count if it is the same for all inputs, else mean and range."""
    if not counts:
        return _NOT_MEASURED
    least, most = min(counts), max(counts)
    if least == most:
        return spaced(least)
    mean = round(sum(counts) / len(counts))
    return f"{spaced(mean)} ({spaced(least)} to {spaced(most)})"


def size(count: int | None, unit: str) -> str:
    """A number of bytes; ``unit`` is how to write them."""
    if count is None:
        return _NOT_MEASURED
    return counted(count, "byte") if unit == "bytes" else f"{spaced(count)} {unit}"


def chip_table(chip: OnTarget) -> Table:
    """What an emulated run cost."""
    table = _table(chip.name, "cost", "")
    what, counts, layers = (
        ("cycles an inference (simulated, simavr)", chip.cycles, chip.layer_cycles)
        if chip.cycles
        else ("instructions an inference (exact)", chip.instructions, chip.layer_instructions)
    )
    table.add_row(what, _counts(counts))
    table.add_row("  counted on", counted(len(counts), "input"))
    for name, count in layers.items():
        share = 100 * count * len(counts) / sum(counts)
        table.add_row(f"  {name}", f"{spaced(count)} ({share:.1f} %)")
    table.add_row("flash", size(chip.flash_bytes, "bytes"))
    if chip.footprint is not None:
        table.add_row("  weights and thresholds", size(chip.footprint.constant_bytes, "bytes"))
        table.add_row("  code", size(chip.footprint.code_bytes, "bytes"))
    table.add_row("static RAM", size(chip.arena_bytes, "bytes"))
    table.add_row("stack (measured high-water mark)", size(chip.stack_bytes, "bytes"))
    table.add_row("compiler", f"{chip.compiler}")
    table.add_row("  flags", chip.flags)
    return table


def clock(info: Info) -> str:
    """What counts the ticks of a board."""
    rate = f"{info.hz / 1e6:g} MHz"
    match info.unit:
        case Unit.NONE:
            return "none; only the round trip is known"
        case Unit.CYCLES:
            return f"cycles, by the CPU's own counter at {rate}"
        case Unit.TIMER:
            return f"ticks of a timer at {rate}"
        case Unit.INSTRUCTIONS:
            return "instructions, counted by an emulator: no time"
        case Unit.SIMULATED:
            return f"cycles at {rate}, as an emulator times them"


def latency(ticks: int, info: Info) -> str:
    """Ticks with their unit, and in milliseconds where they are a time."""
    names = {
        Unit.CYCLES: "cycles",
        Unit.INSTRUCTIONS: "instructions",
        Unit.SIMULATED: "cycles (simulated)",
    }
    text = f"{spaced(ticks)} {names.get(info.unit, 'ticks')}"
    return f"{text}, {1000 * ticks / info.hz:.3f} ms" if info.hz else text


def board_latency(board: OnBoard) -> str:
    """The median of what an inference takes, by the board's clock."""
    _, median, _ = _spread(sorted(board.ticks))
    return _NOT_MEASURED if median is None else latency(int(median), board.info)


def board_table(board: OnBoard, self_test: SelfTest) -> Table:
    """What a board runs, and what it took there."""
    info = board.info
    table = _table(board.name, "board", "")
    table.add_row("model", f"{info.name}, sha256 {info.sha256[:12]}...")
    table.add_row("code for", info.target)
    table.add_row("compiler", info.compiler)
    table.add_row("static RAM of the network", size(info.arena_bytes, "bytes"))
    passed = self_test.vectors - self_test.failed
    table.add_row("self-test", f"{passed} of {counted(self_test.vectors, 'golden vector')}")
    table.add_row("clock", clock(info))
    ticks = sorted(board.ticks)
    for name, value in zip(("least", "median", "most"), _spread(ticks), strict=True):
        shown = _NOT_MEASURED if value is None else latency(int(value), info)
        table.add_row(f"  an inference, {name}", shown)
    least, median, most = (1000 * (value or 0.0) for value in _spread(sorted(board.seconds)))
    table.add_row("round trip", f"{median:.1f} ms ({least:.1f} to {most:.1f})")
    table.add_row("sent again", counted(board.retries, "request"))
    return table


def _spread(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """The first, the middle and the last of sorted values."""
    if not values:
        return None, None, None
    return values[0], values[(len(values) - 1) // 2], values[-1]


def port_table(ports: Sequence[Port]) -> Table:
    """The serial ports of this computer."""
    table = _table("Serial ports", "port", "what it is", "USB", "serial number")
    for port in ports:
        usb = "-" if port.vid is None or port.pid is None else f"{port.vid:04X}:{port.pid:04X}"
        table.add_row(port.device, port.title or "-", usb, port.serial_number or "-")
    return table
