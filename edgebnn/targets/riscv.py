"""RISC-V cores of 32 bits, on QEMU's machine ``virt``."""

from dataclasses import replace

from edgebnn.targets.base import (
    Abi,
    Cpu,
    Cross,
    Machine,
    Qemu,
    Region,
    Target,
    Unicorn,
)

# RISC-V ABIs Specification, integer register convention. An instruction has four bytes if its two
# lowest bits are set (The RISC-V Instruction Set Manual, volume I, 1.5).
_ILP32 = Abi(
    arch="UC_ARCH_RISCV",
    modes=("UC_MODE_RISCV32",),
    constants="riscv_const",
    prefix="UC_RISCV_REG_",
    arguments=("a0", "a1"),
    result="a0",
    stack="sp",
    stack_align=16,
    back="ra",
    pc="pc",
    kept=tuple(f"s{n}" for n in range(12)),
    code_bit=0,
    wide_mask=0b11,
    wide=(0b11,),
)
# With half of the registers there are fewer to keep.
_ILP32E = replace(_ILP32, stack_align=4, kept=("s0", "s1"))
# All of it is RAM, from where the reset vector jumps to.
_VIRT = Machine(
    name="virt",
    flash=Region(0x8000_0000, 4 << 20),
    ram=Region(0x8040_0000, 4 << 20),
    inputs=Region(0x8100_0000, 16 << 20),
    uart="16550",
    uart_base=0x1000_0000,
    clock_hz=0,
)


def _core(extensions: str, zig: str, *, unicorn: bool, **qemu: bool) -> Target:
    """The target of a core with ``extensions``, such as "imc_zbb".

    ``qemu`` are properties of QEMU's core that are not as they are by default.
    """
    embedded = extensions.startswith("e")  # RV32E: 16 registers, and here no multiplication
    name = f"rv32{extensions.replace('_', '-')}"
    known_as = f"RV32{extensions.upper()}".replace("_ZBB", " + Zbb")
    properties = "".join(f",{key}={'on' if value else 'off'}" for key, value in qemu.items())
    options = ("-cpu", f"rv32{properties}", "-bios", "none")
    abi = _ILP32E if embedded else _ILP32
    features = {
        "mul": not embedded,
        "two": not embedded,
        "clz": "zbb" in extensions,
        "popcount": "zbb" in extensions,
    }
    measured = (Unicorn("UC_CPU_RISCV32_SIFIVE_E31", abi, _VIRT),) if unicorn else ()
    return Target(
        name=name,
        title=f"RISC-V {known_as}",
        cpu=Cpu(
            known_as,
            arch="riscv",
            word_bits=32,
            features=frozenset(name for name, there in features.items() if there),
        ),
        toolchain=Cross(
            gcc="riscv64-unknown-elf-gcc",
            gcc_package="gcc-riscv64-unknown-elf",
            gcc_flags=(f"-march=rv32{extensions}", f"-mabi={'ilp32e' if embedded else 'ilp32'}"),
            zig_flags=("-target", "riscv32-freestanding-none", f"-mcpu=generic_rv32{zig}"),
            runtime_flags=("-march=rv32im", "-mabi=ilp32") if "zbb" in extensions else (),
        ),
        emulators=(*measured, Qemu("qemu-system-riscv32", "qemu-system-misc", _VIRT, options)),
        alike="" if "zbb" in extensions else "rv32imc",  # where rows count bits
    )


_BARE = {"zba": False, "zbb": False, "zbc": False, "zbs": False}

TARGETS = (
    _core("imc", "+m+c", unicorn=True, **_BARE),
    _core("ec", "+e+c", unicorn=True, **_BARE),
    _core("imc_zbb", "+m+c+zbb", unicorn=False, **_BARE | {"zbb": True}),
)
