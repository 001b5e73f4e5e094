"""Library calls of a program at run time: from native code to NumPy and back.

The program's entry calls `lazygrad_library(launch, arguments, error)`, which each program that has
library calls resolves to a callback of its own.  The callback makes arrays over the buffers, runs
the function and writes the results.  It runs on the thread that runs the program, inside the native
call, with the pool locked: it must not run another program, and never does.

Native code has no exceptions: what the function raises is kept, the error block tells the entry to
stop, and `Program.run` raises it when the native call is back.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from lazygrad_compiler.artifact import LibraryLaunch
from lazygrad_compiler.ir.dtypes import DTYPES
from lazygrad_compiler.ir.library_pairs import PAIRED, as_written
from lazygrad_compiler.ir.node import Location
from lazygrad_runtime.memory import reserve

if TYPE_CHECKING:
    from lazygrad_compiler.loops.kernel import Launch

_Callback = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)

SYMBOL = "lazygrad_library"


class LinAlgError(RuntimeError, numpy.linalg.LinAlgError):
    """A library call has no result: the matrix is singular, an iteration does not converge, …"""


class LibraryError(LinAlgError):
    """A library call of a program failed.

    problem: what is wrong and with which operand.  launches: of the artifact; its lines are those
    of the program's first recording, and `recorded` knows the present ones.
    """

    def __init__(self, failed: LibraryLaunch, problem: str, hint: str,
                 launches: Sequence[tuple[str, str, Location]]) -> None:
        self.failed = failed
        self.problem = problem
        self.hint = hint
        super().__init__(self._message(launches[failed.launch][2]))

    def recorded(self, launches: Sequence[Launch]) -> LinAlgError:
        """The error with the lines of the present recording."""
        return LinAlgError(self._message(launches[self.failed.launch].location))

    def _message(self, location: Location) -> str:
        lines = ", ".join(f"{file.rsplit('/', 1)[-1]}:{line}" for file, line in location)
        name = self.failed.call.removesuffix(PAIRED)
        return (f"[{name}] {self.problem}" + (f" ({lines})." if lines else ".")
                + (f" {self.hint}" if self.hint else ""))


def array_at(address: int | None, dtype: str, shape: tuple[int, ...]) -> numpy.ndarray:
    """The array that lies at an address; it must not outlive the memory."""
    kind = DTYPES[dtype].numpy
    nbytes = math.prod(shape) * kind.itemsize
    if not nbytes or not address:
        return numpy.empty(shape, kind)
    memory: Any = (ctypes.c_char * nbytes).from_address(address)
    return numpy.ndarray(shape, kind, memory)


def _working_bytes(
    cores: tuple[int, ...],
    arrays: Sequence[numpy.ndarray],
    operands: Sequence[numpy.ndarray],
) -> int:
    """What a call takes beside its arrays, about: NumPy's results, a copy of the operands, and for
    one matrix at a time what a singular value decomposition works in.
    """
    items = [math.prod(operand.shape[operand.ndim - core :]) * operand.itemsize
             for core, operand in zip(cores, operands)]
    return sum(array.nbytes for array in (*arrays, *operands)) + 6 * max(items, default=0)


class LibraryCaller:
    """The callback of one program, and what its last run raised.

    address: of the native function.  Used with the pool's lock held, so by one run at a time.
    """

    def __init__(self, launches: Sequence[LibraryLaunch],
                 about: Sequence[tuple[str, str, Location]]) -> None:
        self._launches = {launch.launch: launch for launch in launches}
        self._about = about
        self._raised: BaseException | None = None
        self._callback = _Callback(self._call)
        self.address: int = ctypes.cast(self._callback, ctypes.c_void_p).value or 0

    def _call(self, number: int, arguments: int, error: int) -> None:
        try:
            self.call(self._launches[number], arguments)
            ctypes.c_int64.from_address(error).value = 0  # at last: until here it counts as failed
        except BaseException as raised:
            # without tracebacks, whose frames hold arrays over memory that is given back
            raised.__context__ = None
            self._raised = raised.with_traceback(None)

    def call(self, launch: LibraryLaunch, arguments: int) -> None:
        """Runs a call over the arrays at the addresses that lie at `arguments`."""
        from lazygrad_compiler.ir.library import LIBRARY, run_library

        count = len(launch.arguments)
        addresses = (ctypes.c_void_p * count).from_address(arguments)
        arrays = [array_at(addresses[place], *launch.arguments[place]) for place in range(count)]
        operands = tuple(arrays[: count - len(launch.parts)])
        for operand in operands:
            operand.flags.writeable = False
        try:
            reserve(_working_bytes(LIBRARY[launch.call].cores, arrays, operands))
            results = run_library(launch.call, launch.options, operands)
            for part, target in zip(launch.parts, arrays[len(operands) :], strict=True):
                numpy.copyto(target, results[part], casting="same_kind")
        except MemoryError as error:
            raise MemoryError(f"[{launch.call}] memory ran out inside the library call: "
                              f"{error}") from None
        except Exception as error:
            call = LIBRARY[launch.call]
            item: Any = None
            if isinstance(error, numpy.linalg.LinAlgError):
                item = call.failing_item(launch.options, operands)
            raise LibraryError(
                launch, _problem(error, launch, len(operands), item), call.hint, self._about
            ) from None

    def take(self) -> BaseException:
        """What the run raised.  An interrupt can hit where no handler catches it any more; then
        that is all there is to say.
        """
        raised, self._raised = self._raised, None
        return raised if raised is not None else KeyboardInterrupt()


def _problem(error: Exception, launch: LibraryLaunch, operands: int, item: Any) -> str:
    """The error in words, with dtypes and shapes of the operands and the place in the batch."""
    said = str(error).rstrip(".") or type(error).__name__
    if not isinstance(error, numpy.linalg.LinAlgError):
        said = f"{type(error).__name__}: {said}"
    given = " and ".join(
        f"{dtype} ({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
        for dtype, shape in as_written(
            launch.call, launch.options, launch.arguments[:operands])[1]
    )
    place = "" if item is None else f", at batch item {', '.join(map(str, item))}"
    return f"{said}: {given}{place}"
