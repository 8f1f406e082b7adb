"""Fixtures shared by all tests, and the rule that nothing is skipped."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ["COLUMNS"] = "200"  # of tables, whose width is set when a command is first imported
torch.set_num_threads(1)  # the tests themselves run in parallel
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "models"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.skipped:  # a missing tool must not hide behind a skip
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped; install what it needs (make test does)"
    return report


@pytest.fixture(params=sorted(EXAMPLES.glob("*.pt")), ids=lambda path: path.stem)
def example_model(request: pytest.FixtureRequest) -> Path:
    """Each trained model that the repository ships."""
    path: Path = request.param
    return path
