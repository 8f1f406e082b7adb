"""Run a firmware image on an emulated CPU: Unicorn in this process, or QEMU as a whole machine.

Unicorn calls the library's functions one by one and counts instructions; QEMU runs the image from
reset to exit, start-up code and UART included. Both return the same :class:`Outputs`.
"""

import importlib
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from numpy.typing import NDArray

from edgebnn.codegen.library import Library
from edgebnn.device.harness import (
    COUNT_BYTES,
    FAULT_STATUS,
    Firmware,
    check_inputs,
)
from edgebnn.errors import EdgebnnError
from edgebnn.reference import Outputs

_PAGE = 0x1000
_PAINT = 0xA5
_UNTOUCHED = 0x5A5A_5A00  # plus the register's number: what the callee finds and must leave


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """What Unicorn measured.

    ``instructions`` are exact counts of one ``<name>_predict`` call each, from its first
    instruction to its return, for the first inputs in order; a slot that an IT block skips counts,
    as it does in the pipeline and in QEMU. ``stack_bytes`` is how far below the caller's stack
    pointer any of those calls wrote. ``seconds`` is the wall-clock time of it all.
    """

    outputs: Outputs
    instructions: tuple[int, ...]
    stack_bytes: int
    seconds: float


def simulate(
    firmware: Firmware,
    library: Library,
    inputs: NDArray[np.uint8],
    *,
    counted: int = 8,
    progress: Callable[[int], None] | None = None,
    call_seconds: float = 120.0,
) -> Simulation:
    """Call ``<name>_scores`` and ``<name>_predict`` for each row of ``inputs``, uint8 (N, bytes).

    Instructions are counted, by a slower run of their own, for the first ``counted`` inputs. Each
    input ends where mapped memory ends and flash is write-protected, so that a read past the
    input or a write into the weights is found. ``progress`` is told the number of inputs done;
    ``call_seconds`` limits each call.

    Raises:
        EdgebnnError: Unicorn is missing, or a call faulted, did not return in time, changed a
            register that belongs to its caller or used up the stack; with PC and address.
    """
    check_inputs(inputs, library.input_bytes)
    began = time.perf_counter()
    predict = f"{library.name}_predict"
    count = len(inputs)

    # Two CPUs: a hook stays compiled into the blocks it has seen, so it never touches the fast one.
    counting = _Cpu(firmware, library, call_seconds, count_blocks=True)
    counting.paint_stack()
    instructions: list[int] = []
    counted_classes: list[int] = []
    for row in inputs[: max(counted, 1)]:
        counted_classes.append(counting.call(predict, row))
        instructions.append(counting.take_instructions())
    stack_bytes = counting.painted_over()

    cpu = _Cpu(firmware, library, call_seconds, count_blocks=False)
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
    return Simulation(
        outputs=Outputs(classes=classes, scores=scores),
        instructions=tuple(instructions[:counted]),
        stack_bytes=stack_bytes,
        seconds=time.perf_counter() - began,
    )


def simulate_qemu(
    firmware: Firmware, library: Library, inputs: NDArray[np.uint8], *, timeout: float = 120.0
) -> Outputs:
    """Run the image under ``qemu-system-arm`` on ``inputs``, uint8 (N, bytes).

    The machine is started once for each batch that fits its input region; ``timeout``, in
    seconds, limits each batch.

    Raises:
        EdgebnnError: QEMU is missing, the firmware faulted or did not finish, or one record does
            not fit the machine's input region.
    """
    check_inputs(inputs, library.input_bytes)
    qemu = shutil.which("qemu-system-arm")
    if qemu is None:
        raise EdgebnnError("qemu-system-arm is not on PATH; apt-get install qemu-system-arm")
    machine = firmware.machine
    room = (machine.input_bytes - COUNT_BYTES) // library.input_bytes
    if room == 0:
        raise EdgebnnError(
            f"one input of {library.input_bytes} bytes does not fit the {machine.input_bytes} "
            f"bytes that {machine.qemu} has for inputs; use simulate instead"
        )
    tables = [
        _run_qemu(qemu, firmware, library, inputs[start : start + room], timeout)
        for start in range(0, len(inputs), room)
    ]
    table = np.concatenate(tables)
    return Outputs(classes=table[:, 0].copy(), scores=table[:, 1:].copy())


def _run_qemu(
    qemu: str, firmware: Firmware, library: Library, batch: NDArray[np.uint8], timeout: float
) -> NDArray[np.int32]:
    """The class and the scores, int32 (N, 1 + num_classes), of one run of the machine."""
    machine = firmware.machine
    with tempfile.TemporaryDirectory(prefix="edgebnn-") as folder:
        records = Path(folder) / "inputs.bin"
        records.write_bytes(len(batch).to_bytes(COUNT_BYTES, "little") + batch.tobytes())
        loader = f"loader,file={records},addr={machine.input_address:#x},force-raw=on"
        command = [qemu, "-machine", machine.qemu, "-nographic", "-monitor", "none"]
        command += ["-serial", "stdio", "-semihosting-config", "enable=on,target=native"]
        command += ["-kernel", str(firmware.elf), "-device", loader]
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise EdgebnnError(
                f"{firmware.elf.name} did not finish {len(batch)} inputs on {machine.qemu} "
                f"within {timeout:g} s; raise the timeout or look for an endless loop"
            ) from None
    lines = result.stdout.splitlines()
    if result.returncode != 0:
        reason = f"qemu-system-arm ended with status {result.returncode}"
        if result.returncode == FAULT_STATUS:
            reason = "the CPU faulted"
        elif result.stderr.strip():
            reason = result.stderr.strip().splitlines()[0]
        raise EdgebnnError(
            f"{firmware.elf.name} on {machine.qemu}: {reason} after {len(lines)} of "
            f"{len(batch)} inputs"
        )
    try:
        words = [[int(word, 16) for word in line.split()] for line in lines]
        table = np.array(words, dtype=np.uint32)
    except ValueError:
        table = np.empty((0, 0), np.uint32)
    if table.shape != (len(batch), 1 + library.num_classes):
        raise EdgebnnError(
            f"{firmware.elf.name} on {machine.qemu} answered {len(batch)} inputs with "
            f"{len(lines)} lines that are not all results; its UART output is garbled"
        )
    return table.view(np.int32)


class _Cpu:
    """A Unicorn CPU with the image in memory, ready for calls under the Arm procedure call rules.

    The scores array lies at the very top of RAM and the stack right below it. Inputs are placed so
    that they end where the mapped part of the input region ends.
    """

    def __init__(
        self, firmware: Firmware, library: Library, call_seconds: float, *, count_blocks: bool
    ) -> None:
        self._unicorn, self._arm = _import_unicorn()
        self._machine = firmware.machine
        self._call_seconds = call_seconds
        self._num_classes = library.num_classes
        self._name = firmware.elf.name
        self._symbols: dict[str, int] = {}
        self._blocks: Counter[tuple[int, int]] = Counter()
        self._sizes: dict[tuple[int, int], int] = {}
        self._fault_address: int | None = None
        self._uc = self._start(firmware, library)
        self._stack_bottom = self._load(firmware)
        top = self._machine.ram + self._machine.ram_bytes
        self._scores = top - 4 * library.num_classes
        self._stack_top = self._scores & ~7
        if count_blocks:
            self._uc.hook_add(self._unicorn.UC_HOOK_BLOCK, self._count_block)
        self._uc.hook_add(self._unicorn.UC_HOOK_MEM_INVALID, self._note_fault)

    def _start(self, firmware: Firmware, library: Library) -> Any:
        unicorn, machine = self._unicorn, self._machine
        model = firmware.target.unicorn_cpu
        if model is None:
            raise EdgebnnError(f"Unicorn has no {firmware.target.title}; use simulate_qemu")
        uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        uc.ctl_set_cpu_model(getattr(self._arm, model))
        mapped = -(-library.input_bytes // _PAGE) * _PAGE
        uc.mem_map(machine.flash, machine.flash_bytes, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        uc.mem_map(machine.ram, machine.ram_bytes, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        uc.mem_map(machine.input_address, mapped, unicorn.UC_PROT_READ)
        self._input = machine.input_address + mapped - library.input_bytes
        return uc

    def _load(self, firmware: Firmware) -> int:
        """Put the image in place as after start-up; returns where free RAM begins."""
        with firmware.elf.open("rb") as file:
            elf = ELFFile(file)
            for segment in elf.iter_segments():
                if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]:
                    self._uc.mem_write(segment["p_vaddr"], segment.data())
            for section in elf.iter_sections():
                if isinstance(section, SymbolTableSection):
                    for symbol in section.iter_symbols():
                        self._symbols[symbol.name] = int(symbol["st_value"])
        return self._symbols["stack_limit"]

    def call(self, function: str, row: NDArray[np.uint8]) -> int:
        """Call ``function(input, scores)`` and return its int; the second argument may go unused.

        Raises:
            EdgebnnError: the call did not return as the procedure call standard wants.
        """
        uc, arm = self._uc, self._arm
        # An address that is executable and that no library function ever reaches by itself.
        back = self._symbols["Reset_Handler"]
        uc.mem_write(self._input, row.tobytes())
        uc.reg_write(arm.UC_ARM_REG_R0, self._input)
        uc.reg_write(arm.UC_ARM_REG_R1, self._scores)
        uc.reg_write(arm.UC_ARM_REG_SP, self._stack_top)
        uc.reg_write(arm.UC_ARM_REG_LR, back | 1)
        for number in range(4, 12):
            uc.reg_write(arm.UC_ARM_REG_R0 + number, _UNTOUCHED + number)
        self._fault_address = None
        try:
            uc.emu_start(
                self._symbols[function] | 1,
                back & ~1,
                timeout=int(self._call_seconds * 1e6),
            )
        except self._unicorn.UcError as error:
            where = "" if self._fault_address is None else f" of {self._fault_address:#010x}"
            raise EdgebnnError(
                f"{function} in {self._name}: {_reason(error)}{where} at pc {self._pc():#010x}"
            ) from None
        if self._pc() != back & ~1:
            raise EdgebnnError(
                f"{function} in {self._name} did not return within {self._call_seconds:g} s; "
                f"stopped at pc {self._pc():#010x}"
            )
        self._check_callee(function)
        result: int = uc.reg_read(arm.UC_ARM_REG_R0)
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

    def take_instructions(self) -> int:
        """The number of instructions executed since the last time this was asked."""
        total = 0
        for block, times in self._blocks.items():
            if block not in self._sizes:
                address, size = block
                self._sizes[block] = _thumb_instructions(bytes(self._uc.mem_read(address, size)))
            total += times * self._sizes[block]
        self._blocks.clear()
        return total

    def _count_block(self, _uc: Any, address: int, size: int, _data: Any) -> None:
        self._blocks[address, size] += 1

    def _note_fault(
        self, _uc: Any, _access: int, address: int, _size: int, _value: int, _data: Any
    ) -> bool:
        self._fault_address = address
        return False

    def _pc(self) -> int:
        pc: int = self._uc.reg_read(self._arm.UC_ARM_REG_PC)
        return pc & ~1

    def _check_callee(self, function: str) -> None:
        kept = {f"r{n}": (self._arm.UC_ARM_REG_R0 + n, _UNTOUCHED + n) for n in range(4, 12)}
        kept["sp"] = (self._arm.UC_ARM_REG_SP, self._stack_top)
        for register, (number, expected) in kept.items():
            found = self._uc.reg_read(number)
            if found != expected:
                raise EdgebnnError(
                    f"{function} in {self._name} returned with {register} = {found:#010x}, "
                    f"which was {expected:#010x} when it was called"
                )


def _import_unicorn() -> tuple[Any, Any]:
    try:
        return importlib.import_module("unicorn"), importlib.import_module("unicorn.arm_const")
    except ImportError:
        raise EdgebnnError("Unicorn is not installed; pip install 'edgebnn[sim]'") from None


def _reason(error: Exception) -> str:
    """Unicorn's message without its code: "Invalid memory write (UC_ERR_WRITE_UNMAPPED)"."""
    return str(error).split(" (UC_ERR")[0].lower()


def _thumb_instructions(code: bytes) -> int:
    """The number of instructions in ``code``.

    The first halfword of a Thumb instruction tells its length: two halfwords if the top five bits
    are 0b11101, 0b11110 or 0b11111, else one (Armv7-M Architecture Reference Manual, A5.1).
    """
    halfwords = np.frombuffer(code, dtype="<u2").tolist()
    count = position = 0
    while position < len(halfwords):
        position += 2 if halfwords[position] >> 11 in (0b11101, 0b11110, 0b11111) else 1
        count += 1
    return count
