"""The command line: the only place that prints.

A command is a plain function in the module of its group; here they are all named, in the order of
``edgebnn --help``. A command imports torch, and what needs it, when it runs.
"""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from edgebnn._version import __version__
from edgebnn.cli import bench, board, model, proof, study, train
from edgebnn.cli.console import printable
from edgebnn.errors import EdgebnnError, Interrupted

app = typer.Typer(
    name="edgebnn",
    help="Train binarized neural networks, emit bit-packed C for microcontrollers, and prove that "
    "nothing changed on the way.\n\n"
    "A first run: edgebnn demo, or edgebnn train mnist-5k -o model.pt.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and a non-zero status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that a terminal cannot show
    try:
        status = app(standalone_mode=False)
        if status == 130:  # how typer ends after Ctrl-C
            _fail("interrupted", 130)
        raise SystemExit(status if isinstance(status, int) else 0)
    except EdgebnnError as error:
        _fail(str(error), 130 if isinstance(error, Interrupted) else 1)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        _fail("this needs torch: pip install 'edgebnn[train]'", 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", 130)
    except BrokenPipeError:
        raise SystemExit(141) from None
    except OSError as error:
        _fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    except MemoryError as error:
        _fail(f"not enough memory: {error or 'take less at a time'}", 1)
    except Exception as error:
        text = str(error)
        if "allocate memory" in text or "out of memory" in text:  # how torch says so
            _fail(f"not enough memory: {text}", 1)
        message = getattr(error, "format_message", None)  # click's usage errors
        if message is None:
            raise
        _fail(f"{message()} (see edgebnn --help)", 2)


def _fail(message: str, status: int) -> None:
    line = printable(" ".join(message.split()))
    print(f"edgebnn: {line}", file=sys.stderr)
    raise SystemExit(status)


def _version(value: bool) -> None:
    if value:
        print(f"edgebnn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and stop.")
    ] = False,
) -> None:
    pass


for command in (
    train.train,
    train.recipes,
    model.targets,
    model.info,
    model.filters,
    model.release,
    model.calibrate,
    model.generate,
    model.predict,
    proof.verify,
    proof.simulate,
    proof.demo,
    board.ports,
    board.check,
    board.monitor,
    study.compare,
    study.frontier,
    study.redraw,
):
    app.command()(command)
app.add_typer(bench.app, name="bench", no_args_is_help=True)
