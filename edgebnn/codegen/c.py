"""The C renderer: a plan goes in, the text of a C99 library comes out; nothing is written."""

import math
from collections.abc import Sequence

from edgebnn import ir
from edgebnn.codegen import views
from edgebnn.codegen.env import render
from edgebnn.codegen.indent import indented
from edgebnn.codegen.library import Library, header_path, source_path
from edgebnn.codegen.model_view import model_view
from edgebnn.codegen.names import check_prefix
from edgebnn.codegen.prepare import Prepare, prepare_view
from edgebnn.codegen.vector import class_names_path, class_names_view, vector_path, vector_view
from edgebnn.cost import code_and_stack
from edgebnn.data.columns import Column
from edgebnn.errors import TooLarge
from edgebnn.plan import Plan, step_words
from edgebnn.prices import prices_of


def generate(
    plan: Plan,
    name: str,
    *,
    class_names: tuple[str, ...] = (),
    test_accuracy: float | None = None,
    input_steps: tuple[str, ...] = (),
    prepare: Prepare | None = None,
    zero_point: int = 0,
    self_test: bool = False,
    caller_arena: bool = False,
    columns: Sequence[Column] = (),
    test_vector: bool = False,
    name_table: bool = False,
) -> Library:
    """The library ``name`` for ``plan``'s network and target, as a header and one C file.

    Args:
        name: C prefix of every public name.
        class_names: for the comment in the header.
        test_accuracy: fraction, as recorded when the model was saved; for the comment.
        columns: how the caller makes bytes of numbers, one an input; printed as a macro.
        input_steps: what is done to pixels before they are inputs; for the comment.
        prepare: add ``<name>_prepare``, which does it.
        zero_point: the input that stands for 0; printed as a macro.
        self_test: add ``<name>_intact``, which compares the tables with their CRC-32.
        caller_arena: functions take their scratch memory as an argument; nothing is static.
        test_vector: add a header with an input, its scores and its class.
        name_table: add a header with ``class_names``.

    Raises:
        EdgebnnError: ``name`` is not usable in C, or there are no class names.
        TooLarge: an array is larger than the CPU can have.
    """
    check_prefix(name)
    _check_addresses(plan)
    network, cpu = plan.network, plan.target.cpu
    prefix = f"{name}_"
    widths = {bits for step in plan.steps for bits in step_words(step, cpu)} - {cpu.word_bits}
    helpers = dict.fromkeys(("half",) if 16 in widths else ())
    helpers |= dict.fromkeys(helper for step in plan.steps for helper in step.view.helpers)
    before = prepare_view(prepare, network, prefix, cpu) if prepare is not None else None
    if before is not None:
        helpers |= dict.fromkeys(before.helpers)
    model = model_view(
        network,
        _built_for(plan, self_test, caller_arena, prepare),
        class_names=class_names,
        test_accuracy=test_accuracy,
        input_steps=input_steps,
        steps_by=_steps_by(name, input_steps, prepare),
        zero_point=zero_point,
        columns=columns,
    )
    arena = "arena" if caller_arena else f"{prefix}arena"
    ops = tuple(views.op_view(step, prefix, arena, cpu) for step in plan.steps)
    view = views.LibraryView(
        name=name,
        prefix=prefix,
        macro=name.upper(),
        target=plan.target.name,
        language="C99" if cpu.constant == "const" else f"C99 and {cpu.constant.split()[-1]}",
        prepare=before,
        ops=ops,
        narrow=bool(widths),
        sums=any(isinstance(step.result, ir.Sums) for step in plan.steps),
        helpers=tuple(f"c/helpers/{helper}.c.j2" for helper in helpers),
        self_test=views.self_test_view(ops) if self_test else None,
        arena_words=plan.arena_words,
        arena_bytes=plan.arena_bytes,
        caller_arena=caller_arena,
        arena_parameter=f",\n    {cpu.word} arena[{name.upper()}_ARENA_WORDS]"
        if caller_arena
        else "",
        constant_bytes=views.spaced(plan.constant_bytes),
        ram=_ram(plan, caller_arena),
        time=_time(plan),
        most=_most(plan),
        sizes=_sizes(plan),
        reentrant=_reentrant(caller_arena),
    )
    files = {
        header_path(name): render("c/model.h.j2", lib=view, model=model, cpu=cpu),
        source_path(name): indented(render("c/model.c.j2", lib=view, model=model, cpu=cpu)),
    }
    if test_vector:
        vector = vector_view(name, network, prepare, cpu)
        files[vector_path(name)] = render("c/vector.h.j2", lib=view, model=model, vector=vector)
    if name_table:
        names = class_names_view(network, class_names, cpu)
        files[class_names_path(name)] = render(
            "c/class_names.h.j2", lib=view, model=model, names=names
        )
    return Library(
        name=name,
        target=plan.target.name,
        files=files,
        input_bytes=network.input_bytes,
        num_classes=network.num_classes,
        constant_bytes=plan.constant_bytes,
        arena_bytes=plan.arena_bytes,
        layers=tuple(op.name for op in ops),
        prepare=before is not None,
        columns=bool(columns),
        self_test=self_test,
        caller_arena=caller_arena,
        instructions=None if plan.instructions is None else float(plan.instructions.mean()),
        most_instructions=plan.most,
        code_and_stack=code_and_stack(plan),
    )


def largest_array(plan: Plan) -> int:
    """Bytes of the arena, the input or a table, whichever is the largest."""
    tables = (table.bytes for step in plan.steps for table in step.view.tables)
    return max(plan.arena_bytes, plan.network.input_bytes, *tables)


def _check_addresses(plan: Plan) -> None:
    largest, most = largest_array(plan), plan.target.cpu.largest_array
    if largest > most:
        raise TooLarge(
            f"the network needs an array of {views.spaced(largest)} bytes, and {plan.target.name} "
            f"has none beyond {views.spaced(most)}; make the network smaller"
        )


def _ram(plan: Plan, caller_arena: bool) -> str:
    owner = "the caller's (re-entrant)" if caller_arena else "static (not re-entrant)"
    return f"{views.spaced(plan.arena_bytes)} bytes of scratch, {owner}"


def _time(plan: Plan) -> str:
    """What an inference takes; "" where nobody can say it."""
    found, prices = plan.instructions, prices_of(plan.target.name)
    if found is None or prices is None:
        return ""
    mean = views.spaced(round(float(found.mean())))
    return f"{mean} instructions, predicted for sample inputs and {prices.compiler}"


def _most(plan: Plan) -> str:
    """The same, whatever the input is."""
    found, prices = plan.most, prices_of(plan.target.name)
    if found is None or prices is None:
        return ""
    return f"{views.spaced(math.ceil(found))} instructions for any input, with {prices.compiler}"


def _sizes(plan: Plan) -> str:
    """Code and stack; "" where nobody knows them."""
    sizes = code_and_stack(plan)
    if sizes is None:
        return ""
    code, stack = (views.spaced(math.ceil(size)) for size in sizes)
    return f"about {code} bytes for an inference, and at most {stack} bytes of stack"


def _reentrant(caller_arena: bool) -> str:
    if caller_arena:
        return "Re-entrant: calls with an arena each may run at the same time."
    return "Not re-entrant: calls share static scratch memory."


def _steps_by(name: str, steps: tuple[str, ...], prepare: Prepare | None) -> str:
    if prepare is not None:
        return f"{name}_prepare() does that"
    if "zca" in steps:
        return "that takes the training images; it is for you to do"
    return f"that is for you to do; --image WIDTHxHEIGHT emits {name}_prepare() for it"


def _built_for(plan: Plan, self_test: bool, caller_arena: bool, prepare: Prepare | None) -> str:
    """What header and source are checked to share beside the model: target, memory and options."""
    text = f"{plan.target.name} {plan.arena_bytes}"
    if self_test:
        text += " self-test"
    if caller_arena:
        text += " caller's arena"
    if prepare is not None:
        text += f" {prepare}"
    return text
