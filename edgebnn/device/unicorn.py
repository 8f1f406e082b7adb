"""Run a firmware image on a CPU in this process, and measure it.

Unicorn calls the library's functions one by one, under the calling convention that the target
names, and counts their instructions.
"""

import bisect
import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.device.build import Image
from edgebnn.device.elf import read_memory
from edgebnn.device.run import Run, check_inputs
from edgebnn.errors import EdgebnnError
from edgebnn.targets.base import Abi, Unicorn

_PAGE = 0x1000
_PAINT = 0xA5
_UNTOUCHED = 0x5A5A_5A00  # plus the register's number: what the callee finds and must leave


def run(
    image: Image,
    inputs: NDArray[np.uint8],
    *,
    counted: int = 8,
    progress: Callable[[int], None] | None = None,
    seconds: float = 120.0,
) -> Run:
    """Call ``<name>_scores`` and ``<name>_predict`` for each row of ``inputs``, uint8 (N, bytes).

    Instructions are counted, by a slower run of their own, for the first ``counted`` inputs; one
    whose condition does not hold counts too, as it does in the pipeline and in QEMU. Each input
    ends where mapped memory ends and flash is write-protected, so that a read past the input or a
    write into the weights is found. ``progress`` is told the number of inputs done; ``seconds``
    limits each call.

    Raises:
        EdgebnnError: Unicorn is missing or has no such CPU, or a call faulted, did not return in
            time, changed a register that belongs to its caller or used up the stack; with PC and
            address.
    """
    library = image.library
    check_inputs(inputs, library.input_bytes)
    predict = f"{library.name}_predict"
    count = len(inputs)

    # Two CPUs: a hook stays compiled into the blocks it has seen, so it never touches the fast one.
    counting = _Cpu(image, seconds, count_blocks=True)
    counting.paint_stack()
    instructions: list[int] = []
    each_layer: list[tuple[int, ...]] = []
    counted_classes: list[int] = []
    for row in inputs[: max(counted, 1)]:
        counted_classes.append(counting.call(predict, row))
        by_layer = counting.take_instructions()
        instructions.append(sum(by_layer.values()))
        each_layer.append(tuple(by_layer[name] for name in library.layers))
    stack_bytes = counting.painted_over()

    cpu = _Cpu(image, seconds, count_blocks=False)
    classes = np.empty(count, np.int32)
    scores = np.empty((count, library.num_classes), np.int32)
    for index, row in enumerate(inputs):
        cpu.call(f"{library.name}_scores", row)
        scores[index] = cpu.read_scores()
        classes[index] = cpu.call(predict, row)
        if progress is not None:
            progress(index + 1)
    if classes[: len(counted_classes)].tolist() != counted_classes:
        raise EdgebnnError(
            f"{predict} gives another class on the second call; it must not keep state"
        )
    return Run(
        classes=classes,
        scores=scores,
        instructions=tuple(instructions[:counted]),
        each_layer_instructions=tuple(each_layer[:counted]),
        stack_bytes=stack_bytes,
    )


def version() -> str:
    """That of the Unicorn that is installed.

    Raises:
        EdgebnnError: there is none.
    """
    try:
        return str(importlib.import_module("unicorn").__version__)
    except ImportError:
        raise _missing() from None


class _Cpu:
    """A Unicorn CPU with the image in memory, ready for calls.

    The scores array lies at the very top of RAM and the stack right below it. Inputs are placed so
    that they end where the mapped part of the input region ends.
    """

    def __init__(self, image: Image, seconds: float, *, count_blocks: bool) -> None:
        settings = _settings(image)
        self._machine = settings.machine
        self._abi = settings.abi
        self._unicorn, self._constants = _import_unicorn(self._abi)
        self._seconds = seconds
        self._num_classes = image.library.num_classes
        self._name = image.path.name
        self._layer = ""  # which is running; "" before the first one
        self._blocks: Counter[tuple[str, int, int]] = Counter()
        self._sizes: dict[tuple[int, int], int] = {}
        self._fault_address: int | None = None
        self._uc = self._start(image, settings.cpu)
        memory = read_memory(image.path)
        for address, content in memory.segments:  # as they lie after start-up
            self._uc.mem_write(address, content)
        self._symbols = memory.symbols
        prefix = f"{image.library.name}_"
        own = {a & ~self._abi.code_bit: n for n, a in self._symbols.items() if n.startswith(prefix)}
        self._starts = sorted(own)
        self._functions = [own[start] for start in self._starts]
        self._outside = {f"{prefix}predict", f"{prefix}scores"}
        self._inside = set(image.library.layers)
        self._changes: dict[int, str | None] = {}  # block -> layer that it is in, None: as before
        # An address that is executable and that no library function ever reaches by itself.
        self._back = memory.entry & ~self._abi.code_bit
        self._stack_bottom = self._symbols["stack_limit"]
        self._scores = self._machine.ram.end - 4 * self._num_classes
        self._stack_top = self._scores & -self._abi.stack_align
        if count_blocks:
            self._uc.hook_add(self._unicorn.UC_HOOK_BLOCK, self._count_block)
        self._uc.hook_add(self._unicorn.UC_HOOK_MEM_INVALID, self._note_fault)

    def _start(self, image: Image, model: str) -> Any:
        unicorn, machine = self._unicorn, self._machine
        mode = 0
        for name in self._abi.modes:
            mode |= getattr(unicorn, name)
        uc = unicorn.Uc(getattr(unicorn, self._abi.arch), mode)
        uc.ctl_set_cpu_model(getattr(self._constants, model))
        input_bytes = image.library.input_bytes
        mapped = -(-input_bytes // _PAGE) * _PAGE
        read, write, execute = (
            getattr(unicorn, f"UC_PROT_{name}") for name in ("READ", "WRITE", "EXEC")
        )
        uc.mem_map(machine.flash.start, machine.flash.size, read | execute)
        uc.mem_map(machine.ram.start, machine.ram.size, read | write)
        uc.mem_map(machine.inputs.start, mapped, read)
        self._input = machine.inputs.start + mapped - input_bytes
        return uc

    def _register(self, name: str) -> int:
        number: int = getattr(self._constants, self._abi.prefix + name.upper())
        return number

    def call(self, function: str, row: NDArray[np.uint8]) -> int:
        """Call ``function(input, scores)`` and return its int; the second argument may go unused.

        Raises:
            EdgebnnError: the call did not return as the calling convention wants.
        """
        uc, abi = self._uc, self._abi
        uc.mem_write(self._input, row.tobytes())
        first, second = abi.arguments
        given = {
            first: self._input,
            second: self._scores,
            abi.stack: self._stack_top,
            abi.back: self._back | abi.code_bit,
            **{name: _untouched(name) for name in abi.kept},
        }
        for name, value in given.items():
            uc.reg_write(self._register(name), value)
        self._fault_address = None
        try:
            uc.emu_start(
                self._symbols[function] | abi.code_bit,
                self._back,
                timeout=int(self._seconds * 1e6),
            )
        except self._unicorn.UcError as error:
            where = "" if self._fault_address is None else f" of {self._fault_address:#010x}"
            raise EdgebnnError(
                f"{function} in {self._name}: {_reason(error)}{where} at pc {self._pc():#010x}"
            ) from None
        if self._pc() != self._back:
            raise EdgebnnError(
                f"{function} in {self._name} did not return within {self._seconds:g} s; "
                f"stopped at pc {self._pc():#010x}"
            )
        self._check_callee(function)
        result: int = uc.reg_read(self._register(abi.result))
        return result - (1 << 32) if result >> 31 else result

    def read_scores(self) -> NDArray[np.int32]:
        """The scores that the last call of ``<name>_scores`` wrote."""
        data = self._uc.mem_read(self._scores, 4 * self._num_classes)
        return np.frombuffer(bytes(data), dtype="<i4").astype(np.int32)

    def paint_stack(self) -> None:
        """Fill the free RAM below the stack pointer with a pattern."""
        size = self._stack_top - self._stack_bottom
        self._uc.mem_write(self._stack_bottom, bytes([_PAINT]) * size)

    def painted_over(self) -> int:
        """How many bytes below the stack pointer lost their paint, counted to the deepest one.

        Raises:
            EdgebnnError: all of them did, so the stack has probably run into the variables.
        """
        size = self._stack_top - self._stack_bottom
        data = np.frombuffer(bytes(self._uc.mem_read(self._stack_bottom, size)), np.uint8)
        changed = np.flatnonzero(data != _PAINT)
        used = size - int(changed[0]) if changed.size else 0
        if used == size:
            raise EdgebnnError(f"the stack of {self._name} overflows the {size} bytes left for it")
        return used

    def take_instructions(self) -> Counter[str]:
        """Instructions executed since the last time this was asked, by layer; "" is the rest.

        A layer has what it calls, and a part of it that the compiler has made a function.
        """
        total: Counter[str] = Counter()
        for (layer, *block), times in self._blocks.items():
            key = block[0], block[1]
            if key not in self._sizes:
                code = bytes(self._uc.mem_read(*key))
                self._sizes[key] = _instructions(code, self._abi)
            total[layer] += times * self._sizes[key]
        self._blocks.clear()
        self._layer = ""
        return total

    def _count_block(self, _uc: Any, address: int, size: int, _data: Any) -> None:
        if address not in self._changes:
            self._changes[address] = self._layer_at(address)
        layer = self._changes[address]
        if layer is not None:
            self._layer = layer
        self._blocks[self._layer, address, size] += 1

    def _layer_at(self, address: int) -> str | None:
        """The layer whose code is at ``address``, "" for what calls layers, None for helpers."""
        place = bisect.bisect_right(self._starts, address) - 1
        name = self._functions[place] if place >= 0 else ""
        if name in self._outside:
            return ""
        return name if name in self._inside else None

    def _note_fault(
        self, _uc: Any, _access: int, address: int, _size: int, _value: int, _data: Any
    ) -> bool:
        self._fault_address = address
        return False

    def _pc(self) -> int:
        pc: int = self._uc.reg_read(self._register(self._abi.pc))
        return pc & ~self._abi.code_bit

    def _check_callee(self, function: str) -> None:
        kept = {name: _untouched(name) for name in self._abi.kept}
        kept[self._abi.stack] = self._stack_top
        for register, expected in kept.items():
            found = self._uc.reg_read(self._register(register))
            if found != expected:
                raise EdgebnnError(
                    f"{function} in {self._name} returned with {register} = {found:#010x}, "
                    f"which was {expected:#010x} when it was called"
                )


def _settings(image: Image) -> Unicorn:
    for emulator in image.target.emulators:
        if isinstance(emulator, Unicorn) and emulator.machine == image.machine:
            return emulator
    raise EdgebnnError(
        f"{image.path.name} is not linked for Unicorn; build it for that, or use another of the "
        f"emulators of {image.target.name}"
    )


def _import_unicorn(abi: Abi) -> tuple[Any, Any]:
    try:
        unicorn = importlib.import_module("unicorn")
        return unicorn, importlib.import_module(f"unicorn.{abi.constants}")
    except ImportError:
        raise _missing() from None


def _missing() -> EdgebnnError:
    return EdgebnnError("Unicorn is not installed; pip install 'edgebnn[sim]'")


def _untouched(register: str) -> int:
    return _UNTOUCHED + int(register[1:])


def _reason(error: Exception) -> str:
    """Unicorn's message without its code: "Invalid memory write (UC_ERR_WRITE_UNMAPPED)"."""
    return str(error).split(" (UC_ERR")[0].lower()


def _instructions(code: bytes, abi: Abi) -> int:
    """The number of instructions in ``code``, each two or four bytes long."""
    halfwords = np.frombuffer(code, dtype="<u2").tolist()
    count = position = 0
    while position < len(halfwords):
        position += 2 if halfwords[position] & abi.wide_mask in abi.wide else 1
        count += 1
    return count
