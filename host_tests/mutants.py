"""Puts small faults into the C templates and asks whether the cases of test_kernels find them.

    python host_tests/mutants.py [--jobs 2] [template ...]

A mutant is one place of one template where an operator, a number or a statement is another one. Of
the cases whose code it changes some run first, as they are, then all, under sanitizers. A mutant
that no compiler takes is void. Prints what survives, and a table; ends with 1 if anything did that
is not known to be no fault.
"""

import argparse
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import batches
import jinja2
import kernel_cases as enumeration

from edgebnn.codegen.env import resource_dir
from edgebnn.codegen.library import Library
from edgebnn.device import build, host, toolchain
from edgebnn.errors import EdgebnnError
from edgebnn.targets import Target

TARGETS = (enumeration.PLAIN, enumeration.NARROW, enumeration.WIDE)
COLUMNS = ("survived", "killed", "harmless", "void", "unused")  # the worst first
FIRST = 20  # cases of a mutant that run before all do
FOLDERS = ("helpers", "parts", "windows", "heads", "kernels")
CHANGES = (
    (r" < ", " <= "),
    (r" <= ", " < "),
    (r" >= ", " > "),
    (r" > ", " >= "),
    (r" \^ ", " & "),
    (r" & ", " | "),
    (r" \| ", " & "),
    (r" && ", " || "),
    (r" << ", " >> "),
    (r" >> ", " << "),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r" (?:\+|-) (?:1u|lane|w|o|c|k|i|first|kx|ky)\b", ""),
    (r" \+= ", " = "),
    (r" \|= ", " = "),
    (r" \^= ", " = "),
    (r"~", ""),
    (r"\[o\]", "[0]"),
    (r", o\)", ", 0u)"),
    (r"!", ""),
    (r"\b0u\b", "1u"),
    (r"\b1u\b", "2u"),
    (r"\b([2-9]|[1-9]\d+)(u?)\b(?!\.)", r"(\1\2 + 1\2)"),
    (r"\b0x[0-9a-f]*([0-9a-f])u\b", None),  # the last digit
    (r"\b(?:tap|i|out|in)\+\+;", ";"),
    (r"\b(?:out|in) \+= %d", r"(void)out /* %d */"),
    (r" \+ 0x8000|- 0x8000", ""),
)
# Numbers that the view gives, as sizes, indices and arguments.
_TYPES = r"(?!op\.comment|cpu\.(?:word|index|place|constant) )"
GIVEN = rf"(?<=[<*\-,] )\{{\{{ {_TYPES}[\w.]+ \}}\}}u?|(?<=\[)\{{\{{ [\w. *]+ \}}\}}(?=\])"
_PLANES, _SLICED = "c/helpers/bit_planes.c.j2", "c/kernels/depthwise_sliced.c.j2"
_TAIL = "what tail lanes count is never read, and limits of 0 keep their bits at 0"
#: Mutants that are no faults: a template, a part of the changed line, and why nobody can tell.
HARMLESS = {
    (_PLANES, "0x10204081u"): "the additional term ends below the four bits that are kept",
    (_PLANES, "& 0xf0000001u"): "the lowest seven bits of the product are 0",
    ("c/parts/eight_words.c.j2", "left > 8u"): "the last eight words are counted one by one",
    ("c/parts/eight_words.c.j2", "left >= (8u + 1u)"): "the same",
    ("c/kernels/conv_bit_planes.c.j2", "bits }}u + 1)"): (
        "a plane that is never read, over the part of the window that has been read"
    ),
    ("c/kernels/conv_subset_sums.c.j2", "sums_words }} + 1)"): (
        "tables a word further, over the part of the window that has been read"
    ),
    ("c/heads/bits.c.j2", "lane <= {{ cpu.word_bits }}u"): "a ninth bit falls off a word of eight",
    ("c/heads/bits.c.j2", "lane < ({{ cpu.word_bits }}u + 1)"): "the same",
    (_SLICED, "(w < {{ px.words }}u) ?"): _TAIL,
    (_SLICED, "(w + 1u <= {{ px.words }}u) ?"): _TAIL,
    (_SLICED, "(w + 1u < ({{ px.words }}u + 1)) ?"): _TAIL,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    template: str
    line: int
    before: str  # the line, and what stands there instead
    after: str
    text: str


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """Where C stands in a template, and that C: no tags, no comments, strings of expressions."""
    tags = r"\{%.*?%\}|\{#.*?#\}|/\*.*?\*/|\{\{.*?\}\}"
    position = 0
    for tag in re.finditer(tags, text, re.DOTALL):
        yield position, text[position : tag.start()]
        if tag.group().startswith("{{"):
            for string in re.finditer(r'"[^"]*"', tag.group()):
                yield tag.start() + string.start(), string.group()
        position = tag.end()
    yield position, text[position:]


def mutants(name: str) -> Iterator[Mutant]:
    text = (resource_dir("templates") / name).read_text(encoding="utf-8")
    places = []
    for start, piece in pieces(text):
        for pattern, put in CHANGES:
            for match in re.finditer(pattern, piece):
                if put is None:
                    new = f"{match.group()[:-2]}{int(match.group(1), 16) ^ 1:x}u"
                else:
                    new = match.expand(put)
                places.append((start + match.start(), start + match.end(), new))
    for match in re.finditer(GIVEN, text):
        places.append((match.start(), match.end(), f"({match.group()} + 1)"))
    seen = set()
    for start, end, new in sorted(places):
        changed = text[:start] + new + text[end:]
        if changed not in seen:
            seen.add(changed)
            first, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
            line = text.count("\n", 0, start) + 1
            after = text[first:start] + new + text[end:last]
            yield Mutant(name, line, text[first:last].strip(), after.strip(), changed)


def generated(texts: dict[str, str], target: Target, numbers: list[int]) -> dict[int, Library]:
    with enumeration.changed_templates(texts):
        return {n: enumeration.case_library(n, target) for n in numbers}


def users(name: str, target: Target) -> list[int]:
    """The cases whose code has anything of the template in it."""
    text = (resource_dir("templates") / name).read_text(encoding="utf-8")
    numbers = enumeration.meant_for(target)
    marked = generated({name: f"{text}/* marked */\n"}, target, numbers)
    return [n for n in numbers if "marked" in marked[n].files[f"src/k{n}.c"]]


def red(libraries: dict[int, Library], *, sanitize: bool) -> bool | None:
    """Whether a program of ``libraries`` does not give what the oracle gives; None: no program."""
    library = batches.program(libraries, "host")
    wanted = enumeration.expected(list(libraries))
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mock.patch.object(toolchain, "WARNINGS", ("-w",)):
                image = build.build_host(library, Path(folder), sanitize=sanitize, optimize="-O0")
        except EdgebnnError:
            return None
        try:
            outputs = host.run(image, wanted.records, seconds=20.0)
        except EdgebnnError:
            return True
    return bool(enumeration.differing(outputs, wanted))


def outcome(mutant: Mutant, target: Target, plain: dict[int, Library]) -> str:
    try:
        libraries = generated({mutant.template: mutant.text}, target, list(plain))
    except (jinja2.TemplateError, TypeError, ValueError):
        return "void"
    changed = {n: one for n, one in libraries.items() if one.files != plain[n].files}
    if not changed:
        return "unused"
    order = sorted(changed, key=lambda n: (n * 7919 % 1000, n))
    for stage in ({n: changed[n] for n in order[:FIRST]}, changed):
        verdict = red(stage, sanitize=stage is changed)
        if verdict is None:
            return "void"
        if verdict:
            return "killed"
    known = any(mutant.template == name and part in mutant.after for name, part in HARMLESS)
    return "harmless" if known else "survived"


def examine(name: str) -> list[tuple[Mutant, str]]:
    """The worst outcome of each mutant of a template with words of 32 and of 8 bits."""
    plain = [(target, generated({}, target, users(name, target))) for target in TARGETS]
    results = []
    for mutant in mutants(name):
        outcomes = {outcome(mutant, target, libraries) for target, libraries in plain}
        results.append((mutant, next(one for one in COLUMNS if one in outcomes)))
        if results[-1][1] in ("survived", "unused"):
            print(f"{results[-1][1]}: {name}:{mutant.line}\n  {mutant.before}\n  {mutant.after}")
            sys.stdout.flush()
    return results


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("templates", nargs="*", help="such as heads/bits")
    given = parser.parse_args()
    folder = resource_dir("templates")
    names = [
        path.relative_to(folder).as_posix()
        for kind in FOLDERS
        for path in sorted((folder / "c" / kind).glob("*.j2"))
    ]
    if given.templates:
        names = [f"c/{name}.c.j2" for name in given.templates]
    counts: dict[str, Counter[str]] = {}
    with ProcessPoolExecutor(given.jobs) as pool:
        for name, results in zip(names, pool.map(examine, names), strict=True):
            counts[name] = Counter(result for _, result in results)
            print(f"{name}: {dict(counts[name])}")
            sys.stdout.flush()
    print(f"\n{'template':36}" + "".join(f"{column:>10}" for column in COLUMNS))
    for name, count in counts.items():
        print(f"{name:36}" + "".join(f"{count[column]:10}" for column in COLUMNS))
    total = sum(counts.values(), Counter())
    print(f"{'all':36}" + "".join(f"{total[column]:10}" for column in COLUMNS))
    return int(total["survived"] + total["unused"] > 0)


if __name__ == "__main__":
    sys.exit(main())
