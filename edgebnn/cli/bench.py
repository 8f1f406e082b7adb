"""``edgebnn bench``: the measurements that the documentation quotes."""

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgebnn.cli import prices
from edgebnn.cli.console import Json, err, out, print_json, progress_on, work_folder
from edgebnn.cli.inputs import open_model
from edgebnn.device.serial import Board
from edgebnn.errors import EdgebnnError, NoTwin, TooLarge
from edgebnn.files import write_text
from edgebnn.kernels import KERNELS
from edgebnn.targets import TARGETS, get_target
from edgebnn.wording import markdown

if TYPE_CHECKING:
    from edgebnn.ir import Network
    from edgebnn.measure import OnTarget

_INSTRUCTIONS = "Instructions: exact, a whole predict call, counted by the emulator."
_CYCLES = "Cycles: simulated, a whole predict call, by simavr."
_TIMED = 4  # inputs that take turns

app = typer.Typer(help="Measure; every number in the documentation comes from here.")


@app.command("train")
def bench_train(
    recipe: Annotated[str, typer.Option(help="Network.")] = "mlp-32k",
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of steps timed.")] = 100,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Time a training step of a recipe's network against its float twin, in one run."""
    from edgebnn.train import get_recipe, step_ratio

    result = step_ratio(get_recipe(recipe), rounds=rounds, device=device)
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    out.print(
        f"{result.recipe}, batch {result.batch_size}, {result.device}, {result.threads} threads, "
        f"median of {result.rounds} pairs: binary {1000 * result.binary_seconds:.2f} ms, float "
        f"{1000 * result.float_seconds:.2f} ms, ratio {result.ratio:.3f}"
    )


@app.command("models")
def bench_models(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model files.")],
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Repeatable; all emulated targets.")
    ] = None,
    port: Annotated[
        str | None,
        typer.Option("--port", "-p", help="Measure on the board at this port, which runs MODEL."),
    ] = None,
    inputs: Annotated[
        int, typer.Option(min=1, max=10_000, help="At most so many inputs, counted and compared.")
    ] = 10,
    random: Annotated[
        bool, typer.Option("--random", help="Random inputs, not samples from the model file.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure models on emulated CPUs, or one on a board, and print one Markdown table.

    "int8" is what the same layers take in int8 there, "x int8" how many times as many that are;
    docs/benchmarks.md says how they are written.
    """
    from edgebnn import measure, records, report

    if port is not None and len(models) > 1:
        raise EdgebnnError("a board runs one model; with --port, name that one alone")
    names = target or [t.name for t in TARGETS.values() if t.emulators and port is None]
    chosen = [get_target(name) for name in names]
    for one in chosen:
        if not one.emulators:
            raise EdgebnnError(f"target '{one.name}' has no emulator")
    head: tuple[str, ...] = ("model", "test accuracy", "target", "instructions")
    head += ("flash", "RAM", "stack", "differ", "int8", "x int8")
    rows: list[tuple[str, ...]] = [head]
    found: list[records.Record] = []
    compilers, notes, too_large = set(), set(), []
    inputs_of: dict[str, list[str]] = defaultdict(list)
    with progress_on(err) as progress, work_folder() as folder:
        task = progress.add_task(
            "measuring", total=len(models) * (len(chosen) + (port is not None))
        )
        for number, model in enumerate(models):
            content, network = open_model(model)
            recorded = measure.recorded(content, network)
            pixels = measure.samples(content, network)[:inputs]
            typical = len(pixels) > 0 and not random
            if not typical:
                pixels = measure.noise(network, inputs)
            count = len(pixels)
            inputs_of[f"{count} {'sample' if typical else 'random'} inputs"].append(model.stem)
            trial = measure.trial(content.model, network, pixels)
            accuracy = content.metadata.test_accuracy
            start = {"model": str(model), "test_accuracy": accuracy, "inputs": count}
            start["typical"] = typical
            known = "-" if accuracy is None else f"{100 * accuracy:.2f} %"
            for one in chosen:
                place = folder / str(number)
                try:
                    (chip,) = measure.run_on(trial, (one,), place, samples=recorded, counted=count)
                except TooLarge as error:
                    rows.append((model.stem, known, one.name, "does not fit", *6 * ("-",)))
                    too_large.append(f"{model}: {error}")
                    found.append({**start, "target": one.name, "error": str(error)})
                    continue
                finally:
                    progress.advance(task)
                twin = _int8_twin(network, chip, place / f"{one.name}-int8")
                known_twin = {"int8": twin}
                found.append(
                    {
                        **start,
                        "differing": chip.differing,
                        **records.on_target(chip),
                        **known_twin,
                    }
                )
                compilers.add(f"{chip.compiler} {chip.flags}")
                notes.add(_CYCLES if chip.cycles else _INSTRUCTIONS)
                rows.append(
                    (
                        model.stem,
                        known,
                        chip.target.name,
                        report.instructions(chip),
                        report.size(chip.flash_bytes, "B"),
                        report.size(chip.arena_bytes, "B"),
                        report.size(chip.stack_bytes, "B"),
                        f"{chip.differing}/{count}",
                        *_int8_cells(twin),
                    )
                )
            if port is not None:
                with Board(port) as board:
                    there = measure.run_board(trial, board)
                found.append({**start, "differing": there.differing, **records.on_board(there)})
                compilers.add(f"{there.info.target}: {there.info.compiler}, on the board")
                arena = report.size(there.info.arena_bytes, "B")
                differ = f"{there.differing}/{count}"
                spent = report.board_latency(there)
                rows.append(
                    (model.stem, known, there.name, spent, "-", arena, "-", differ, "-", "-")
                )
                notes.add(f"On the board: {report.clock(there.info)}; the median.")
                progress.advance(task)
    if as_json:
        print_json(found)
        return
    out.print(markdown(rows))
    out.print("")
    given = [f"Mean of {what}: {', '.join(stems)}." for what, stems in inputs_of.items()]
    for line in (*given, *sorted(notes, reverse=True), *sorted(compilers), *too_large):
        out.print(line)


def _int8_twin(network: "Network", chip: "OnTarget", folder: Path) -> dict[str, object]:
    """What the twin of a model takes, and how many times as many; or why there is none."""
    from edgebnn.bench import measured

    try:
        twin = measured.int8_of(network, chip.target, folder)
    except TooLarge:
        return {"error": "no room"}
    except NoTwin as error:
        return {"error": str(error)}
    counts = chip.cycles or chip.instructions
    own = sum(counts) / len(counts)
    return {"count": round(twin.mean), "unit": twin.unit, "ratio": twin.mean / own}


def _int8_cells(twin: dict[str, object]) -> tuple[str, str]:
    """The last two cells of a row."""
    from edgebnn.codegen.views import spaced

    count, ratio = twin.get("count"), twin.get("ratio")
    if not isinstance(count, int) or not isinstance(ratio, float):
        return ("no room" if twin["error"] == "no room" else "-"), "-"
    return spaced(count), f"{ratio:.3g}"


@app.command("kernels")
def bench_kernels(
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Repeatable; all emulated targets.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="Repeatable; a layer such as dense-1024-128, dense-784x8-256 (of 8 bits each), "
            "conv-16x16x64-64, conv-28x28x1x8-32-pool or depthwise-16x16x64; those and more."
        ),
    ] = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable; only these ways, such as columns; all that there are."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and inputs.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for table, plot and raw results.")
    ] = Path("build/kernels"),
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Raw results here, too; - prints them alone."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="The plot here, too.")] = None,
) -> None:
    """Count what each kernel takes for a layer, beside the same layer in int8 and in float.

    One Markdown table a target: a row for each way to compute a layer, the one that edgebnn takes
    by itself in bold. "x int8" is how many times as many int8 takes; docs/benchmarks.md says how
    that is written. Every result is compared with NumPy's; a difference is an error. All targets
    and shapes take some minutes; -t cortex-m4 --shape conv-16x16x64-64 takes seconds.
    """
    import json

    from edgebnn.bench import measured, results, shapes
    from edgebnn.study import plots

    names = target or [t.name for t in TARGETS.values() if t.emulators]
    chosen = [get_target(name) for name in dict.fromkeys(names)]
    for one in chosen:
        if not one.emulators:
            raise EdgebnnError(f"target '{one.name}' has no emulator")
    ways = dict.fromkeys(one.way for one in KERNELS)
    for name in kernel or []:
        if name not in ways:
            raise EdgebnnError(f"unknown kernel '{name}'; pick one of: {', '.join(ways)}")
    given = [shapes.shape_of(name) for name in dict.fromkeys(shape or shapes.SHAPES)]
    if plot is not None and not plots.available():
        raise plots.missing()
    for path in (plot, json_file):
        if path is not None and not path.parent.is_dir():
            raise EdgebnnError(f"{path.parent} is no folder; make it, or name another one")
    rows, tools = [], []
    with progress_on(err) as progress, work_folder() as folder:
        task = progress.add_task("counting", total=len(chosen) * len(given))
        found = measured.measure(
            chosen,
            given,
            folder,
            seed=seed,
            only=kernel or (),
            progress=lambda: progress.advance(task),
        )
        for row, by in found:
            rows.append(row)
            tools += [by] if by is not None else []
    if not any(row.kernel for row in rows):
        raise EdgebnnError(f"no such layer has a kernel {' or '.join(kernel or [])}; name others")
    text = f"{results.head(tools, seed)}\n\n{results.tables(rows)}\n"
    record = json.dumps(results.record(rows, tools, seed), indent=2) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "kernels.md", text)
    write_text(output / "kernels.json", record)
    if json_file is not None and str(json_file) != "-":
        write_text(json_file, record)
    drawn = [output / "kernels.png"] if plots.available() else []
    for path in (*drawn, *((plot,) if plot is not None else ())):
        title = "How many times as much a layer takes in int8"
        note = results.head(tools, seed)
        plots.dot_plot(path, results.groups(rows), title=title, axis="times", note=note)
    if str(json_file) == "-":
        print_json(results.record(rows, tools, seed))
    else:
        out.print(f"{text}\n{output} has this, kernels.json and kernels.png")


@app.command("cuda")
def bench_cuda(
    models: Annotated[
        list[Path] | None, typer.Argument(metavar="[MODEL]...", help="Model files, too.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for table, plot and raw results.")
    ] = Path("build/gpu"),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes, in half the time.")] = False,
    part: Annotated[
        list[str] | None,
        typer.Option(help="Repeatable; product, convolution or network; all of them."),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="The float twins by torch.compile, too; slow.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure products of bits, convolutions and networks on a GPU, beside torch's own.

    A line each as it is known, then one Markdown table a part. Needs a GPU of NVIDIA.
    """
    import json

    from edgebnn.study import gpu, gpu_times, plots

    parts = part or list(gpu.PARTS)
    for name in parts:
        if name not in gpu.PARTS:
            raise EdgebnnError(f"unknown part '{name}'; pick one of: {', '.join(gpu.PARTS)}")
    case = gpu.case(parts, models or [], quick=quick)
    bench = gpu.prepare(case)
    if not as_json:
        out.print(f"{bench.machine}\n")
    found: list[gpu_times.Row] = []
    try:
        for row in gpu.run(bench, case, compiled=compiled):
            found.append(row)
            if not as_json:
                out.print(gpu_times.line(row))
    finally:  # whatever stops it, what was measured is kept
        text = f"{bench.machine}\n\n{gpu_times.tables(found)}\n"
        record = gpu_times.record(bench.machine, found)
        if found:
            output.mkdir(parents=True, exist_ok=True)
            write_text(output / "gpu.md", text)
            write_text(output / "gpu.json", json.dumps(record, indent=2) + "\n")
    if plots.available():
        note = f"{bench.machine}. Everything in CUDA graphs."
        plots.line_plot(
            output / "gpu.png", gpu_times.panels(found), title=bench.machine.name, note=note
        )
    if as_json:
        print_json(record)
    else:
        out.print(f"\n{text}\n{output} has this, gpu.json and gpu.png")
    if any(row.note for row in found):
        raise EdgebnnError("some results differ from those of int8; see the table")


@app.command("host")
def bench_host(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model files.")],
    flags: Annotated[str, typer.Option(help="The compiler's options.")] = "-O3 -march=native",
    rounds: Annotated[int, typer.Option(min=10, help="Turns timed of each.")] = 200,
    as_json: Json = False,
) -> None:
    """Time the C of models on this computer beside their float twins in torch, in one run.

    One input at a time, one thread each. Prints one Markdown table.
    """
    import shlex

    from edgebnn import measure, speed
    from edgebnn.study.compare import processor

    rows: list[tuple[str, ...]] = [
        ("model", "C, an input", "torch float32", "times as fast", "differ")
    ]
    found: list[dict[str, object]] = []
    with progress_on(err) as progress, work_folder() as folder:
        task = progress.add_task("measuring", total=len(models))
        for number, model in enumerate(models):
            content, network = open_model(model)
            pixels = measure.samples(content, network)[:_TIMED]
            if not len(pixels):
                pixels = measure.noise(network, _TIMED)
            trial = measure.trial(content.model, network, pixels)
            place = folder / str(number)
            given = tuple(shlex.split(flags))
            one = speed.against_torch(content.model, trial, place, flags=given, rounds=rounds)
            found.append({"model": str(model), "cpu": processor(), **dataclasses.asdict(one)})
            rows.append(
                (
                    model.stem,
                    f"{1e6 * one.c_seconds:.2f} µs",
                    f"{1e6 * one.torch_seconds:.1f} µs",
                    f"{one.ratio:.1f}",
                    f"{one.differing}/{one.inputs}",
                )
            )
            progress.advance(task)
    if as_json:
        print_json(found)
        return
    out.print(markdown(rows))
    out.print("")
    out.print(f"One input at a time, one thread each, in turns; medians of {rounds}.")
    out.print(f"{processor()}; {one.compiler} {one.flags}; torch {one.torch}, in eval mode.")


app.command("prices")(prices.bench_prices)
app.command("choice")(prices.bench_choice)
