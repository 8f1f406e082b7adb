"""``edgebnn bench prices`` and ``bench choice``: what is predicted, against what is counted."""

from pathlib import Path
from typing import Annotated

import typer

from edgebnn.cli.console import err, out, progress_on, work_folder
from edgebnn.cli.inputs import open_model
from edgebnn.files import write_text
from edgebnn.targets import get_target
from edgebnn.wording import markdown


def bench_prices(
    models: Annotated[
        list[Path] | None, typer.Argument(metavar="[MODEL...]", help="Model files to check on.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Repeatable; all that have prices.")
    ] = None,
    check: Annotated[
        int | None,
        typer.Option("--check", min=0, help="Fit nothing; check on MODELs and random networks."),
    ] = None,
) -> None:
    """Fit what the parts of kernels take on a CPU, by which instructions are predicted.

    Takes some minutes a target, and writes edgebnn/prices/TARGET.json beside the code.
    """
    from edgebnn import measure, prices
    from edgebnn.plan import plan
    from edgebnn.prices import fit

    chosen = [get_target(name) for name in target or fit.TARGETS]
    if check is None:
        for one in chosen:
            with progress_on(err) as progress:
                task = progress.add_task(one.name, total=fit.NETWORKS)
                text = fit.fit(one, lambda _, task=task: progress.advance(task))  # type: ignore[misc]
            path = Path(prices.__file__).with_name(f"{one.name}.json")
            write_text(path, text)
            out.print(str(path))
        return
    head = ("network", "target", "predicted", "counted", "off by", "at most", "largest")
    rows: list[tuple[str, ...]] = [(*head, "code", "is", "stack at most", "is")]
    for one in chosen:
        found = list(fit.checks(one, check))
        for model in models or []:
            content, network = open_model(model)
            inputs = measure.recorded(content, network)
            with work_folder() as folder:
                scheduled = plan(network, one, samples=inputs)
                found.append(fit.check(model.stem, scheduled, inputs, folder))
        for row in found:
            counts = (f"{round(row.predicted)}", f"{round(row.counted)}")
            most = "-" if row.most is None else f"{round(row.most)}"
            code, stack = (
                ("-", "-") if row.sizes is None else (f"{round(one)}" for one in row.sizes)
            )
            bounds = (f"{100 * row.error:+.2f} %", most, f"{round(row.largest)}")
            sizes = (code, f"{row.code_bytes}", stack, f"{row.stack_bytes}")
            rows.append((row.name, row.target, *counts, *bounds, *sizes))
    out.print(markdown(rows))


def bench_choice(
    layers: Annotated[int, typer.Option("--layers", min=1, help="How many random ones.")] = 40,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Repeatable; all that have prices.")
    ] = None,
) -> None:
    """Count all plans of random layers, and compare the best with the one that is chosen.

    Once with as much RAM as there is, and once with less. Takes some minutes a target.
    """
    from edgebnn.prices import exhaustive, fit

    rows: list[tuple[str, ...]] = [
        ("network", "target", "plans", "RAM", "chosen", "takes", "best", "takes", "over")
    ]
    for one in [get_target(name) for name in target or fit.TARGETS]:
        with progress_on(err) as progress:
            for row in progress.track(
                exhaustive.choices(one, layers), total=2 * layers, description=one.name
            ):
                budget = "any" if row.ram is None else f"{row.ram}"
                chosen, best = (
                    (row.chosen, f"{row.instructions:.0f}"),
                    (row.best, f"{row.least:.0f}"),
                )
                over = f"{100 * row.over:.1f} %"
                rows.append((row.name, row.target, f"{row.plans}", budget, *chosen, *best, over))
    out.print(markdown(rows))
