"""Commands on a board: which ports there are, whether it computes what the model does, and live."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from edgebnn.cli.console import (
    DataDir,
    DataSetName,
    Download,
    ImageCount,
    ModelFile,
    RandomCount,
    out,
    progress_on,
)
from edgebnn.cli.inputs import class_names, open_model, read_test_set
from edgebnn.device.ports import only_port
from edgebnn.device.serial import BAUD, Board, Patience
from edgebnn.errors import EdgebnnError

if TYPE_CHECKING:
    from rich.table import Table

    from edgebnn.checkpoint import Checkpoint
    from edgebnn.device.serial import Reply
    from edgebnn.device.wire import Info
    from edgebnn.ir import Network

PortName = Annotated[
    str | None,
    typer.Option(
        "--port",
        "-p",
        help="/dev/ttyACM0, COM3, or socket://127.0.0.1:5552 for an emulated board; "
        "without it, the one board that is plugged in. edgebnn ports lists them.",
    ),
]
Baud = Annotated[
    int,
    typer.Option("--baud", min=300, max=4_000_000, help="Speed that the firmware was built for."),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        min=0.1,
        max=3600.0,
        help="Seconds for the board's first answers; what it takes is known from then on.",
    ),
]
_SECONDS = Patience().first
_TOP = 5  # scores that the monitor shows
_BAR = 30


def ports() -> None:
    """List the serial ports of this computer, where a board may be.

    \b
    A board answers once a project of a model is flashed:
      edgebnn generate model.pt --target nucleo_f446re --project DIR
      pio run -d DIR -t upload
      edgebnn check model.pt --port /dev/ttyACM0
    """
    from edgebnn import report
    from edgebnn.device import ports as serial_ports

    found = serial_ports.ports()
    if found:
        out.print(report.port_table(found))
    if not any(port.plausible for port in found):
        out.print(
            "no board is on USB: plug one in (with a cable that carries data, not power alone), or "
            "start an emulated one with pio run -t upload in a project, and name it: "
            "--port socket://127.0.0.1:5552"
        )


def check(
    model: ModelFile,
    port: PortName = None,
    dataset: DataSetName = None,
    data: DataDir = None,
    images: ImageCount = 200,
    random: RandomCount = None,
    baud: Baud = BAUD,
    timeout: Timeout = _SECONDS,
    download: Download = False,
) -> None:
    """Prove that a board computes what the model does, and show how fast.

    \b
    The board tests itself with the golden vectors in its flash. Then every
    image is sent to it, and all scores that come back are compared with
    torch's, bit for bit. The exit status is 1 where one differs.

    \b
    The board has to run MODEL, and no monitor may hold its port:
      edgebnn generate model.pt --target nucleo_f446re --project DIR
      pio run -d DIR -t upload
      edgebnn check model.pt --port /dev/ttyACM0
    """
    from edgebnn import measure, report

    port = port or only_port()
    content, network = open_model(model)
    with Board(port, baud=baud, patience=Patience(first=timeout)) as board:
        measure.check_board(network, board.info(), port, str(model))
        pixels, labels = _images(content, network, dataset, data, images, random, download)
        with progress_on(out) as progress:
            task = progress.add_task("self-test", total=len(pixels))
            tested = board.self_test()
            progress.update(task, description="torch")
            trial = measure.trial(content.model, network, pixels)
            oracle = measure.run_reference(trial)
            progress.update(task, description=board.info().target)
            there = measure.run_board(
                trial, board, lambda done: progress.update(task, completed=done)
            )
    own = measure.Backend("torch (eval mode)", trial.expected, 0)
    out.print(report.equality_table(own, [oracle, there], labels))
    out.print(report.board_table(there, tested))
    if tested.failed or oracle.differing or there.differing:
        raise EdgebnnError(
            f"outputs differ: {there.differing} of {len(pixels)} inputs on the board, "
            f"{tested.failed} of its {tested.vectors} golden vectors; flash it again, and if it "
            f"stays, report it with the model file"
        )
    out.print("every output is equal, bit for bit")


def monitor(
    model: ModelFile,
    port: PortName = None,
    dataset: DataSetName = None,
    data: DataDir = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, help="End after so many; else with Ctrl-C.")
    ] = None,
    random: RandomCount = None,
    baud: Baud = BAUD,
    timeout: Timeout = _SECONDS,
    download: Download = False,
) -> None:
    """Watch a board classify one image after another, live.

    \b
    Shows the class, whether it is the right one, the best scores, how long
    the board took, and how many images a second come back. The test set
    begins again when all of it was sent. Where the output is no terminal,
    each image is a line. The board has to run MODEL: see edgebnn check.
    """
    from edgebnn import measure

    port = port or only_port()
    content, network = open_model(model)
    names = class_names(content, network)
    with Board(port, baud=baud, patience=Patience(first=timeout)) as board:
        measure.check_board(network, board.info(), port, str(model))
        pixels, labels = _images(content, network, dataset, data, None, random, download)
        inputs = measure.to_device_layout(pixels)
        seen = _watch(board, inputs, labels, names, images)
        if out.is_terminal:
            _show_live(seen)
        else:
            for one in seen:
                out.print(one.line)
                if one.count == images:
                    out.print(one.total)


def _images(
    content: "Checkpoint",
    network: "Network",
    dataset: str | None,
    data: Path | None,
    images: int | None,
    random: int | None,
    download: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Inputs (N, C, H, W), and their labels where they have some."""
    from edgebnn import measure

    if random is not None:
        return measure.noise(network, random), None
    pixels, labels, _ = read_test_set(content, network, dataset, data, download)
    return pixels[:images], labels[:images]


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """One image that a board has classified, and how many there were before."""

    count: int
    right: int
    rate: float
    place: int
    reply: "Reply"
    label: int | None
    names: tuple[str, ...]
    info: "Info"

    @property
    def verdict(self) -> str:
        if self.label is None:
            return "-"
        return "right" if self.reply.best == self.label else f"wrong, {self.names[self.label]}"

    @property
    def took(self) -> str:
        from edgebnn import report

        ticks = self.reply.ticks
        trip = f"round trip {1000 * self.reply.seconds:.1f} ms"
        return trip if ticks is None else f"{report.latency(ticks, self.info)}, {trip}"

    @property
    def line(self) -> str:
        return (
            f"{self.count:6} image {self.place}: {self.names[self.reply.best]} ({self.verdict}), "
            f"{self.took}, {self.rate:.1f} inputs/s"
        )

    @property
    def total(self) -> str:
        known = "" if self.label is None else f", {100 * self.right / self.count:.2f} % right"
        return f"{self.count} sent{known}, {self.rate:.1f} inputs/s"


def _watch(
    board: Board,
    inputs: NDArray[np.uint8],
    labels: NDArray[np.int64] | None,
    names: tuple[str, ...],
    images: int | None,
) -> Iterator[_Seen]:
    begin, right = time.monotonic(), 0
    for count in itertools.count(1) if images is None else range(1, images + 1):
        place = (count - 1) % len(inputs)
        reply = board.scores(inputs[place])
        label = None if labels is None else int(labels[place])
        right += reply.best == label
        rate = count / (time.monotonic() - begin)
        yield _Seen(count, right, rate, place, reply, label, names, board.info())


def _show_live(seen: Iterator[_Seen]) -> None:
    from rich.live import Live

    with Live(console=out, auto_refresh=False) as live:
        shown = 0.0
        for one in seen:
            now = time.monotonic()
            last = now - shown < 0.1  # a terminal need not show more than ten a second
            if not last:
                shown = now
            live.update(_panel(one), refresh=not last)
        live.refresh()


def _panel(one: _Seen) -> "Table":
    """The image at hand, and bars of its best scores between the least of them and the most."""
    from rich.table import Table

    from edgebnn.codegen.views import spaced

    scores = one.reply.scores.astype(np.int64)
    table = Table(
        title=f"{one.names[one.reply.best]} ({one.verdict})",
        caption=f"{one.took}\n{one.total}\nCtrl-C ends",
        title_justify="left",
        caption_justify="left",
        show_header=False,
        min_width=60,
    )
    least, most = int(scores.min()), int(scores.max())
    for place in np.argsort(-scores, kind="stable")[:_TOP]:
        score = int(scores[place])
        length = round(_BAR * (score - least) / max(most - least, 1))
        name = one.names[one.reply.best if len(scores) == 1 else place]
        table.add_row(name, "█" * length, spaced(score))
    return table
