"""``edgebnn bench``: the measurements that the documentation quotes."""

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from edgebnn.cli.console import Json, err, out, print_json, progress_on, work_folder
from edgebnn.cli.inputs import open_model
from edgebnn.device.serial import Board
from edgebnn.errors import EdgebnnError, TooLarge
from edgebnn.files import write_text
from edgebnn.targets import TARGETS, get_target
from edgebnn.wording import markdown

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
    """Measure models on emulated CPUs, or one on a board, and print one Markdown table."""
    from edgebnn import measure, records, report

    if port is not None and len(models) > 1:
        raise EdgebnnError("a board runs one model; with --port, name that one alone")
    names = target or [t.name for t in TARGETS.values() if t.emulators and port is None]
    chosen = [get_target(name) for name in names]
    for one in chosen:
        if not one.emulators:
            raise EdgebnnError(f"target '{one.name}' has no emulator")
    head = ("model", "test accuracy", "target", "instructions", "flash", "RAM", "stack", "differ")
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
                    (chip,) = measure.run_on(trial, (one,), place, counted=count)
                except TooLarge as error:
                    rows.append((model.stem, known, one.name, "does not fit", *4 * ("-",)))
                    too_large.append(f"{model}: {error}")
                    found.append({**start, "target": one.name, "error": str(error)})
                    continue
                finally:
                    progress.advance(task)
                found.append({**start, "differing": chip.differing, **records.on_target(chip)})
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
                rows.append((model.stem, known, there.name, spent, "-", arena, "-", differ))
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
    for row in gpu.run(bench, case, compiled=compiled):
        found.append(row)
        if not as_json:
            out.print(gpu_times.line(row))
    text = f"{bench.machine}\n\n{gpu_times.tables(found)}\n"
    record = gpu_times.record(bench.machine, found)
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
