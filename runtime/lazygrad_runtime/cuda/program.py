"""Programs on a device: an artifact's kernels, launched in order, with one call from Python.

A run allocates outputs and arena, brings inputs that lie on the host to the device, fills the table
of addresses and launches (`launcher.py`).  Nothing is waited for, with two exceptions: a program
that checks indices is read back its error block, and a library call (LAPACK, FFT: NumPy on the
host) takes its operands out and puts its results back.

Launches after one that found a bad index run, too, on whatever it left.  So where outputs are
written over inputs, the error block is looked at before those are written: a failed step leaves its
inputs as they were.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lazygrad_compiler import forks
from lazygrad_compiler.artifact import Artifact, GridLaunch
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_runtime import program as programs
from lazygrad_runtime.cuda.context import Device, blocking
from lazygrad_runtime.cuda.errors import CudaError, LaunchFailed
from lazygrad_runtime.cuda.launcher import RUNS_ONE_BY_ONE, LaunchTable
from lazygrad_runtime.cuda.memory import DeviceBuffer
from lazygrad_runtime.cuda.stream import current_stream
from lazygrad_runtime.library_calls import LibraryCaller
from lazygrad_runtime.memory import Buffer

ERROR_BYTES = 8 * programs.ERROR_WORDS


class CudaProgram:
    """A compiled graph on one device; `run` is that of `program.Program`."""

    places: Sequence[str | None] | None = None

    def __init__(self, artifact: Artifact, device: Device) -> None:
        self.artifact = artifact
        self.device = device
        self.input_count = artifact.inputs
        self._sizes = [_bytes(name, shape) for name, shape in artifact.outputs]
        self._lock = forks.rlock()
        self._era = -1
        self._library: LibraryCaller | None = None
        if artifact.library:
            self._library = LibraryCaller(artifact.library, artifact.launches)
        self._by_number = {launch.launch: launch for launch in artifact.library}
        self._last_check = max(
            (place for place, launch in enumerate(artifact.grid) if launch.checks), default=-1
        )
        slots = self.input_count + len(self._sizes) + 1
        self._table = (ctypes.c_int64 * slots)()
        self._about = artifact.launches[-1][1:] if artifact.launches else ("nothing", ())
        self._runs_one_by_one = RUNS_ONE_BY_ONE

    def graph_at_once(self) -> None:
        """From the next run on rows of launches are graphs: it is known that there will be many."""
        with self._lock:
            self._runs_one_by_one, self._era = 0, -1

    def _load(self) -> None:
        """Functions, and an error block of zeros.  Once for each context of the device."""
        device = self.device
        device.activate()
        functions = device.modules.functions(self.artifact.objects)
        for launch in self.artifact.grid:
            if launch.shared and launch.kernel in functions:
                device.modules.allow_shared(launch.kernel, launch.shared)
        stream = current_stream(device).handle
        self._error = device.pool.allocate(ERROR_BYTES, stream)
        device.driver.cuMemsetD8Async(self._error.address, 0, ERROR_BYTES, stream)
        self._parts = list(self._divided(functions))
        self._era = device.era

    def _divided(self, functions: dict[str, int]) -> Iterator[LaunchTable | int]:
        """Rows of kernel launches, and places in `grid` of library calls between them.  A row ends
        after the last launch that checks indices.
        """
        row: list[tuple[int, GridLaunch]] = []
        for place, launch in enumerate(self.artifact.grid):
            library = launch.number in self._by_number
            if not library:
                row.append((place, launch))
            if row and (library or place == self._last_check or blocking()):
                yield self._row(row, functions)
                row = []
            if library:
                yield place
        if row:
            yield self._row(row, functions)

    def _row(self, row: list[tuple[int, GridLaunch]], functions: dict[str, int]) -> LaunchTable:
        return LaunchTable(
            self.device, row, functions, self._error.address, self._runs_one_by_one
        )

    def run(
        self,
        inputs: Sequence[Buffer | DeviceBuffer],
        donated: Mapping[int, DeviceBuffer] | None = None,
    ) -> list[DeviceBuffer]:
        """See `Program.run`.  Inputs may lie on the host; outputs lie on the device.

        Raises besides: CudaError where the driver reports one, perhaps for an earlier program.
        """
        if len(inputs) != self.input_count:
            raise ValueError(f"[program] takes {self.input_count} inputs, not {len(inputs)}")
        for callback in programs.run_callbacks:
            callback(self)
        device = self.device
        device.activate()
        with self._lock:
            if self._era != device.era:
                self._load()
            stream = current_stream(device).handle
            pool, table = device.pool, self._table
            resident = [
                buffer if buffer.device is device else self._brought(buffer) for buffer in inputs
            ]
            given = donated or {}
            outputs = [
                given[number] if number in given else pool.allocate(size, stream)
                for number, size in enumerate(self._sizes)
            ]
            need = self.artifact.arena_bytes
            arena = pool.allocate(need, stream) if need else None
            position = 0
            if self._last_check >= 0 and self._error.stream != stream:
                self._error.written_on(stream)
            for buffer in (*resident, *outputs):
                if buffer.stream != stream or buffer.era != device.era:
                    buffer.check()
                    buffer.used_on(stream)
                table[position] = buffer.address
                position += 1
            for buffer in given.values():
                buffer.written_on(stream)
            table[position] = arena.address if arena is not None else 0
            device.recent.append(self._about)
            checked = self._last_check < 0
            for part in self._parts:
                if isinstance(part, int):
                    self._call_library(part, (*resident, *outputs, arena))
                    continue
                code, number = part.launch(table, stream)
                if code or blocking():
                    self._settle(code, number, part)
                if not checked and given and part.launches[-1:] and \
                        part.launches[-1][0] >= self._last_check:
                    self._check(stream)
                    checked = True
            if not checked:
                self._check(stream)
        return outputs

    def _brought(self, buffer: Buffer | DeviceBuffer) -> DeviceBuffer:
        """A copy of a value that lies on the host; one on another device is a mistake."""
        if isinstance(buffer, DeviceBuffer):
            raise ValueError(
                f"[program] a program of {self.device.label} was given {buffer!r}"
            )
        return self.device.staging.upload(buffer)

    def _settle(self, code: int, number: int, part: LaunchTable) -> None:
        """Raises for a launch that was refused; waits for it where launches are waited for."""
        driver = self.device.driver
        if not code:
            code = driver.raw("cuCtxSynchronize")()
            number = part.launches[-1][1].number if part.launches else -1
        if code:
            call = "cuLaunchKernel" if number >= 0 else "cuGraphLaunch"
            error = driver.error(call, code)
            if number >= 0 and isinstance(error, CudaError):
                raise LaunchFailed(error, number, self.artifact.launches)
            raise error

    def _check(self, stream: int) -> None:
        """Reads the error block.  IndexOutOfRange where a launch reported."""
        device = self.device
        report = self.device.staging.download(
            self._error, np.dtype(np.int64), (programs.ERROR_WORDS,)
        )
        if report[0]:
            device.driver.cuMemsetD8Async(self._error.address, 0, ERROR_BYTES, stream)
            raise programs.IndexOutOfRange(report.tolist(), self.artifact.launches)

    def _call_library(self, at: int, buffers: Sequence[Any]) -> None:
        """Takes the operands to the host, runs the row of `LIBRARY`, brings the results back."""
        assert self._library is not None
        bound = self.artifact.grid[at]
        launch = self._by_number[bound.number]
        device, stream = self.device, current_stream(self.device)
        count = len(launch.arguments) - len(launch.parts)
        arrays = []
        for place, (dtype, shape) in enumerate(launch.arguments):
            kind = DTYPES[dtype].numpy
            slot, offset = bound.arguments[place]
            if place < count:
                nbytes = _bytes(dtype, shape)
                part = DeviceBuffer(
                    device, buffers[slot].address + offset, nbytes, stream.handle, buffers[slot]
                )
                arrays.append(device.staging.download(part, np.dtype(kind), shape))
            else:
                arrays.append(np.empty(shape, kind))
        addresses = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        self._library.call(launch, ctypes.addressof(addresses))
        for array, (slot, offset) in zip(arrays[count:], bound.arguments[count:], strict=True):
            made = device.staging.upload(Buffer.from_numpy(array))
            device.driver.cuMemcpyDtoDAsync_v2(
                buffers[slot].address + offset, made.address, array.nbytes, stream.handle
            )


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    size = DTYPES[dtype].itemsize
    for extent in shape:
        size *= extent
    return size
