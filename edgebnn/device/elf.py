"""What an ELF file says: sizes, symbols, and the bytes that lie in memory."""

from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the library occupies in a linked image, in bytes; the harness is not counted."""

    code_bytes: int
    constant_bytes: int
    arena_bytes: int


@dataclass(frozen=True, slots=True)
class Memory:
    """An image as it lies in memory after start-up."""

    entry: int
    segments: tuple[tuple[int, bytes], ...]  # address and content
    symbols: dict[str, int]


def footprint(image: Path) -> Footprint:
    """The sizes of the sections that ``link.ld`` gives the library in a bare-metal image."""
    with image.open("rb") as file:
        sizes = {section.name: section["sh_size"] for section in ELFFile(file).iter_sections()}
    return Footprint(
        code_bytes=sizes.get(".model_text", 0),
        constant_bytes=sizes.get(".model_rodata", 0),
        arena_bytes=sizes.get(".model_bss", 0),
    )


# What avr-gcc asks of start-up code when an object has variables: to set them.
_STARTUP = {"__do_clear_bss", "__do_copy_data"}


def undefined_symbols(built: Path) -> tuple[str, ...]:
    """What an object file asks others for, sorted, like ``nm -u``; a library's is nothing.

    That variables are to be set, which every program does that is started, is not among it.
    """
    with built.open("rb") as file:
        names = {
            symbol.name
            for section in ELFFile(file).iter_sections()
            if isinstance(section, SymbolTableSection)
            for symbol in section.iter_symbols()
            if symbol.name and symbol["st_shndx"] == "SHN_UNDEF"
        }
    return tuple(sorted(names - _STARTUP))


def read_flash(image: Path) -> bytes:
    """What is programmed into a flash from address 0 on, initial values of variables included."""
    with image.open("rb") as file:
        segments = [
            (int(segment["p_paddr"]), bytes(segment.data()))
            for segment in ELFFile(file).iter_segments()
            if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]
        ]
    flash = bytearray(max(start + len(content) for start, content in segments))
    for start, content in segments:
        flash[start : start + len(content)] = content
    return bytes(flash)


def read_memory(image: Path) -> Memory:
    """The loaded segments of ``image``, its entry point and the addresses of all symbols."""
    with image.open("rb") as file:
        elf = ELFFile(file)
        segments = tuple(
            (int(segment["p_vaddr"]), bytes(segment.data()))
            for segment in elf.iter_segments()
            if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]
        )
        symbols = {
            symbol.name: int(symbol["st_value"])
            for section in elf.iter_sections()
            if isinstance(section, SymbolTableSection)
            for symbol in section.iter_symbols()
        }
        return Memory(int(elf.header["e_entry"]), segments, symbols)
