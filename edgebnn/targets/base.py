"""What describes a target: plain values, which :mod:`edgebnn.device` turns into tools.

Nothing here needs the compiler or the emulator that it names.
"""

from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor core; ``name`` is what people call it.

    ``arch`` is the folder of its test harness below ``templates/harness``, ``word_bits`` the width
    of the words that kernels pack bits into, and ``features`` are what its instructions can that
    not every CPU's can: "mul" is a multiplication of 32 bits, "clz" counts leading zeros and
    "popcount" set bits, "thumb1" or "thumb2" is the instruction set that helpers may have assembly
    in, "two" is room in registers for the counters of two words of outputs by columns, "vectors"
    compute many words at once, and "helium" are vectors of four, of which columns make use.
    ``index`` is the C type that counts and addresses, ``constant`` what qualifies a table: where
    constants are not in one address space with variables, it names theirs.
    ``constants_in_ram``: a start copies them there.
    """

    name: str
    arch: str
    word_bits: int
    index: str = "uint32_t"
    constant: str = "const"
    constants_in_ram: bool = False
    features: frozenset[str] = frozenset()

    @property
    def one_by_one(self) -> "Cpu":
        """The same, for kernels that are to add up a word of outputs after the other.

        That takes more instructions and less RAM.
        """
        return replace(self, features=self.features - {"two", "helium"})

    @property
    def word(self) -> str:
        """The C type of a word."""
        return f"uint{self.word_bits}_t"

    @property
    def word_shift(self) -> int:
        """2 to this power is the number of bits in a word."""
        return self.word_bits.bit_length() - 1

    @property
    def narrow(self) -> bool:
        """Whether C computes with words in int, and a result has to be made a word again."""
        return self.word_bits < 32

    @property
    def place(self) -> str:
        """The C type of a row or column, which may lie before the first one."""
        return "int32_t" if self.index == "uint32_t" else "int"

    @property
    def largest_array(self) -> int:
        """Bytes: the difference of two pointers is as wide as an index, and signed."""
        return 2 ** (15 if self.index == "uint16_t" else 31) - 1

    @property
    def ones(self) -> str:
        """A word of ones."""
        return self.literal(2**self.word_bits - 1)

    def literal(self, word: int) -> str:
        """A word as C spells it."""
        return f"0x{word:0{self.word_bits // 4}x}u"

    def inverted(self, word: str) -> str:
        """The C expression ``word`` with every bit the other way."""
        return f"({self.word})~{word}" if self.narrow else f"~{word}"


@dataclass(frozen=True, slots=True)
class Native:
    """The toolchain of the computer that this runs on: ``$CC``, else the first of ``programs``."""

    programs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cross:
    """Cross compilers for one CPU.

    ``gcc`` is the program's name on PATH, ``gcc_package`` the system package that brings it, if one
    does, and ``gcc_wheel`` a Python module that does. ``zig_flags`` are for clang as shipped in the
    ``ziglang`` wheel; none: it cannot compile for this CPU. ``dialect`` are flags that follow those
    of warnings: where code is emitted in more than C99, or a warning is mistaken.
    ``runtime_flags`` are those by which gcc finds its own library, where it has none for
    ``gcc_flags``.
    """

    gcc: str
    gcc_package: str
    gcc_flags: tuple[str, ...]
    gcc_wheel: str | None = None
    zig_flags: tuple[str, ...] = ()
    dialect: tuple[str, ...] = ()
    runtime_flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Abi:
    """How code of an architecture is called, in Unicorn's names for things.

    ``arch`` and ``modes`` create a CPU; ``constants`` is the module of its registers' numbers,
    which begin with ``prefix``. ``arguments`` take the first two integers or pointers. A callee
    leaves the stack pointer, a multiple of ``stack_align`` bytes, and ``kept``, each a letter and
    a number, as they were. ``code_bit`` is set in addresses of code that are jumped to. An
    instruction takes four bytes if the bits ``wide_mask`` of its first halfword, little-endian,
    are one of ``wide``, else two.
    """

    arch: str
    modes: tuple[str, ...]
    constants: str
    prefix: str
    arguments: tuple[str, str]
    result: str
    stack: str
    stack_align: int
    back: str
    pc: str
    kept: tuple[str, ...]
    code_bit: int
    wide_mask: int
    wide: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """``size`` bytes of memory from address ``start`` on."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """The address behind the last byte."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Machine:
    """A bare-metal memory map that an emulator offers and test programs are linked for.

    ``name`` is QEMU's where QEMU has it. Records are placed in ``inputs`` before the program
    starts. Results leave through a UART at ``uart_base`` whose driver the harness of the
    architecture knows by ``uart``. ``clock_hz`` is that of the clock that the harness reads; 0: it
    counts instructions. Where an emulator writes each record into the RAM of the program, and reads
    its results from there, there is none of these. ``stack`` is the least number of bytes that a
    program must leave for its stack.
    """

    name: str
    flash: Region
    ram: Region
    inputs: Region = Region(0, 0)
    uart: str = ""
    uart_base: int = 0
    clock_hz: int = 0
    stack: int = 1024


@dataclass(frozen=True, slots=True)
class Unicorn:
    """Unicorn, in this process: it counts instructions and measures the stack.

    ``cpu`` is its name of the CPU model. It has whatever memory ``machine`` says.
    """

    cpu: str
    abi: Abi
    machine: Machine

    title: ClassVar[str] = "Unicorn"


@dataclass(frozen=True, slots=True)
class Qemu:
    """QEMU, which runs an image from reset to exit.

    ``package`` is the system package of ``program``; ``options`` are what it needs beside the
    name of the ``machine``, so that the image can end it with an exit status.
    """

    program: str
    package: str
    machine: Machine
    options: tuple[str, ...] = ()

    title: ClassVar[str] = "QEMU"


@dataclass(frozen=True, slots=True)
class Simavr:
    """simavr, a program of its own: it counts cycles and measures the stack.

    ``mcu`` is its name of the microcontroller, which runs at ``frequency`` Hz.
    """

    mcu: str
    frequency: int
    machine: Machine

    title: ClassVar[str] = "simavr"


Emulated = Unicorn | Qemu | Simavr


@dataclass(frozen=True, slots=True)
class Target:
    """Something that edgebnn emits code for.

    Being this computer is a matter of its toolchain; a target without emulators is still another
    machine. Of its ``emulators``, the one that measures most comes first. ``flash`` and ``ram``
    are what the device has, in bytes; None for a CPU core, which comes with any amount. ``doubt``
    says what nobody has checked of a target without emulators. ``alike`` is the target by whose
    prices kernels are chosen where there are none of this one: its code is much the same.
    """

    name: str
    title: str
    cpu: Cpu
    toolchain: Native | Cross
    emulators: tuple[Emulated, ...] = ()
    flash: int | None = None
    ram: int | None = None
    doubt: str = ""
    alike: str = ""

    @property
    def is_host(self) -> bool:
        """Whether it is the computer that this runs on."""
        return isinstance(self.toolchain, Native)
