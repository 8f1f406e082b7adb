"""Times of a GPU's work beside what it could do, and tables of them.

Times are of CUDA events: the median of many, after a warm-up, of calls that take turns on several
sets of random inputs. Calls are captured in a CUDA graph, several together, so that the GPU is
measured and not Python, except where it says eager.

A limit is the time that the operations of a layer take at the peak of what computes them, at the
clock that the GPU has right after such work, or its bytes at the memory's peak, if that is longer.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from edgebnn.study.plots import Line, Panel
from edgebnn.wording import markdown

# Operations, a product and a sum being two, in a cycle of a multiprocessor. popc: 16 words are
# counted in one, and carry-save adders make 1.87 of each; mma: what was seen at best; bytes: what
# int8 has.
_PEAKS: dict[tuple[int, int], dict[str, float]] = {
    (8, 0): {"mma": 32768, "bytes": 4096, "fp32": 128, "fp16": 2048, "int8": 4096},
    (9, 0): {
        "mma": 35389,
        "wgmma": 65536,
        "bytes": 8192,
        "fp32": 256,
        "fp16": 4096,
        "int8": 8192,
    },
}
_EVERYWHERE = {"popc": 1024 * 1.87, "naive": 1024.0, "fp32": 256.0, "dot4": 512.0}


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. ``limit`` in milliseconds, ``note`` is empty where all is well."""

    part: str
    what: str
    how: str
    output: str
    milliseconds: float
    operations: float
    limit: float | None
    note: str = ""

    @property
    def tops(self) -> float:
        """10**12 operations a second."""
        return self.operations / self.milliseconds / 1e9

    @property
    def of_limit(self) -> float | None:
        """1 where nothing faster is possible."""
        return None if self.limit is None else self.limit / self.milliseconds


@dataclass(frozen=True, slots=True)
class Machine:
    """A GPU, and what it could do. Clocks in Hz; ``clock`` is what it had after hard work."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    most_clock: float
    clock: float
    bytes_a_second: float
    torch: str
    driver: str

    def peak(self, what: str) -> float | None:
        """Operations a second."""
        known = {**_EVERYWHERE, **_PEAKS.get(self.capability, {})}
        cycle = known.get(what)
        return None if cycle is None else cycle * self.multiprocessors * self.clock

    def limit(self, operations: Mapping[str, float], size: float) -> float | None:
        """Milliseconds for these operations, by what computes them, and ``size`` bytes."""
        peaks = {what: self.peak(what) for what in operations}
        seconds = 0.0
        for what, count in operations.items():
            peak = peaks[what]
            if peak is None:
                return None
            seconds += count / peak
        return 1000 * max(seconds, size / self.bytes_a_second if self.bytes_a_second else 0.0)

    def __str__(self) -> str:
        return (
            f"{self.name}, compute capability {self.capability[0]}.{self.capability[1]}, "
            f"{self.multiprocessors} multiprocessors, {self.clock / 1e6:.0f} MHz after hard work "
            f"of at most {self.most_clock / 1e6:.0f}, {self.bytes_a_second / 1e12:.2f} TB/s; "
            f"driver {self.driver}, torch {self.torch}"
        )


Inputs = Sequence[tuple[Any, ...]]
"""Sets of arguments of a function, which takes them in turns."""


class Timer(Protocol):
    """Measures a function; milliseconds a call."""

    def graph(self, run: Callable[..., object], inputs: Inputs) -> float:
        """Of calls captured together."""

    def eager(self, run: Callable[..., object], inputs: Inputs) -> float:
        """Of calls one after the other from Python."""


class EventTimer:
    """By CUDA events on the current GPU; each measurement takes about ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def graph(self, run: Callable[..., object], inputs: Inputs) -> float:
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(side):
            for each in inputs:
                run(*each)
        side.synchronize()
        calls = self._calls(run, inputs, 0.5)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(calls):
                run(*inputs[i % len(inputs)])
        return self._median(graph.replay) / calls

    def eager(self, run: Callable[..., object], inputs: Inputs) -> float:
        calls = self._calls(run, inputs, 2.0)

        def several() -> None:
            for i in range(calls):
                run(*inputs[i % len(inputs)])

        return self._median(several) / calls

    def _calls(self, run: Callable[..., object], inputs: Inputs, milliseconds: float) -> int:
        """How many to measure at once, all inputs equally often."""
        run(*inputs[0])
        single = max(elapsed(lambda: run(*inputs[-1])), 1e-3)
        sets = len(inputs)
        return sets * max(1, min(200 // sets, round(milliseconds / (single * sets))))

    def _median(self, run: Callable[[], object]) -> float:
        run()
        torch.cuda.synchronize()
        times: list[float] = []
        began, spent = time.perf_counter(), 0.0
        while len(times) < 3 or (spent < self._seconds and len(times) < 200):
            times.append(elapsed(run))
            spent = time.perf_counter() - began
            if spent > 4 * self._seconds:
                break
        return statistics.median(times)


def elapsed(run: Callable[[], object]) -> float:
    """Milliseconds between two events around ``run()``."""
    event: Any = torch.cuda.Event
    begin, end = event(enable_timing=True), event(enable_timing=True)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def tables(rows: Sequence[Row]) -> str:
    """Markdown, one table a part; how many times as fast as fp16 and fp32 torch, and its limit."""
    text = []
    for part in dict.fromkeys(row.part for row in rows):
        head = ("", "", "output", "time", "TOPS", "of its limit", "x fp16", "x fp32")
        lines: list[tuple[str, ...]] = [head]
        chosen = [row for row in rows if row.part == part]
        for row in chosen:
            group = [each for each in chosen if each.what == row.what]
            share = "-" if row.of_limit is None else f"{row.of_limit:.2f}"
            ratios = [_ratio(row, group, f"torch {how}") for how in ("fp16", "fp32")]
            how = f"{row.how} {row.note}".strip()
            spent, tops = _time(row.milliseconds), f"{row.tops:.3g}"
            lines.append((row.what, how, row.output, spent, tops, share, *ratios))
        text.append(markdown(lines, names=3))
    return "\n\n".join(text)


def _ratio(row: Row, group: Sequence[Row], base: str) -> str:
    """To the fastest of that kind."""
    times = [each.milliseconds for each in group if each.how.startswith(base)]
    return f"{min(times) / row.milliseconds:.3g}" if times else "-"


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds >= 1 else f"{1000 * milliseconds:.3g} us"


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Products by their size, and each network's time an image by the batch, of what is fastest."""
    found = []
    chosen = [row for row in rows if row.part == "product"]
    if chosen:
        names = dict.fromkeys((row.how, row.output) for row in chosen)
        lines = [
            Line(
                how if output in how else f"{how}, {output}",
                tuple(
                    (float(row.what.partition("^")[0]), row.tops)
                    for row in chosen
                    if (row.how, row.output) == (how, output)
                ),
                ours=how.startswith("edgebnn"),
            )
            for how, output in names
        ]
        found.append(Panel("n x n by n x n", "n", "10^12 operations a second", tuple(lines)))
    chosen = [row for row in rows if row.part == "network" and "graph" in row.how]
    for name in dict.fromkeys(row.what.rpartition(", batch ")[0] for row in chosen):
        own = [row for row in chosen if row.what.rpartition(", batch ")[0] == name]
        lines = []
        for how in dict.fromkeys(row.how for row in own):
            points = [
                (float(row.what.rpartition(" ")[2]), 1000 * row.milliseconds)
                for row in own
                if row.how == how
            ]
            an_image = tuple((batch, spent / batch) for batch, spent in points)
            lines.append(Line(how, an_image, ours=how.startswith("edgebnn")))
        found.append(Panel(name, "batch", "microseconds an image", tuple(lines)))
    return found


def line(row: Row) -> str:
    """As it is printed when it is known."""
    share = "" if row.of_limit is None else f", {row.of_limit:.2f} of its limit"
    note = f"  {row.note}" if row.note else ""
    how = f"{row.how} ({row.output})"
    spent = _time(row.milliseconds)
    return f"{row.what:34} {how:32} {spent:>10} {row.tops:10.1f} TOPS{share}{note}"


def record(machine: Machine, rows: Sequence[Row]) -> dict[str, Any]:
    """For JSON."""
    return {
        "gpu": machine.name,
        "compute_capability": list(machine.capability),
        "multiprocessors": machine.multiprocessors,
        "clock": machine.clock,
        "most_clock": machine.most_clock,
        "bytes_a_second": machine.bytes_a_second,
        "driver": machine.driver,
        "torch": machine.torch,
        "rows": [
            {
                "part": row.part,
                "what": row.what,
                "how": row.how,
                "output": row.output,
                "milliseconds": row.milliseconds,
                "tops": row.tops,
                "limit_milliseconds": row.limit,
                "note": row.note,
            }
            for row in rows
        ],
    }
