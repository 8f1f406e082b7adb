"""A generated library as a shared object in this process: for timing, where a pipe is too slow."""

import ctypes
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgebnn.codegen.env import render
from edgebnn.codegen.library import Library
from edgebnn.device import toolchain
from edgebnn.device.build import write_library
from edgebnn.device.run import Run, check_inputs
from edgebnn.device.toolchain import Compiler
from edgebnn.targets import TARGETS


class SharedLibrary:
    """A network's functions; C stands for nothing that it does with memory that is not its own."""

    def __init__(
        self, library: Library, folder: Path, flags: tuple[str, ...], compiler: Compiler
    ) -> None:
        """Compile ``library`` with ``flags`` below ``folder``, which is created, and load it.

        Raises:
            EdgebnnError: it does not compile clean under :data:`toolchain.WARNINGS`, or with flags
                that the compiler does not know.
        """
        self._input_bytes, self._num_classes = library.input_bytes, library.num_classes
        model = write_library(library, folder)
        repeat = folder / "repeat.c"
        names = {"name": library.name, "macro": library.name.upper()}
        repeat.write_text(render("harness/host/repeat.c.j2", **names), encoding="utf-8")
        built = (folder / "model.o", folder / "repeat.o")
        given = (*toolchain.target_flags(compiler, TARGETS["host"]), *flags, "-fPIC")
        for source, one in zip((model, repeat), built, strict=True):
            toolchain.compile_object(compiler, source, one, (*given, f"-I{model.parent}"))
        path = folder / f"{library.name}.so"
        toolchain.link(compiler, built, path, (*given, "-shared"))
        loaded = ctypes.CDLL(str(path))
        self._scores = loaded[f"{library.name}_scores"]
        self._best = loaded[f"{library.name}_best"]
        self._repeat = loaded[f"{library.name}_repeat"]
        self._repeat.restype = ctypes.c_uint32

    def run(self, inputs: NDArray[np.uint8]) -> Run:
        """The outputs for ``inputs``, uint8 (N, input_bytes)."""
        check_inputs(inputs, self._input_bytes)
        inputs = np.ascontiguousarray(inputs)
        scores = np.zeros((len(inputs), self._num_classes), np.int32)
        classes = np.zeros(len(inputs), np.int32)
        for number, (one, row) in enumerate(zip(inputs, scores, strict=True)):
            self._scores(ctypes.c_void_p(one.ctypes.data), ctypes.c_void_p(row.ctypes.data))
            classes[number] = self._best(ctypes.c_void_p(row.ctypes.data))
        return Run(classes=classes, scores=scores)

    def seconds(self, inputs: NDArray[np.uint8], rounds: int) -> float:
        """The thread's time to classify all ``inputs`` one by one, ``rounds`` times."""
        check_inputs(inputs, self._input_bytes)
        inputs = np.ascontiguousarray(inputs)
        address = ctypes.c_void_p(inputs.ctypes.data)
        started = time.thread_time()
        self._repeat(address, ctypes.c_uint32(len(inputs)), ctypes.c_uint32(rounds))
        return time.thread_time() - started
