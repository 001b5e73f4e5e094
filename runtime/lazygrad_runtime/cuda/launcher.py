"""Launching: one call from Python launches all kernels of a program.

Launches in a row are made one by one, by a native loop, until the row has run a few times; from
then on they are a graph of the driver (`graph.py`), and the row is one launch.

The loop, `lazygrad_launch`, is generated once and reads what to launch from a table of 64-bit
words, so that no program needs code of its own on the host.  A launch is HEADER words and two for
each buffer:

    function, grid x y z, block x y z, shared bytes, number of buffers, number of the launch,
    address of the list of parameters,
    then slot and offset of each buffer

The kernel's parameters are the buffers' addresses (table[slot] + offset), the address of the error
block, the launch's number, and its tensor maps (`tensor_maps.py`).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from typing import Any

from lazygrad_compiler.artifact import GridLaunch
from lazygrad_runtime import store
from lazygrad_runtime.cuda.context import Device, blocking
from lazygrad_runtime.cuda.graph import LaunchGraph
from lazygrad_runtime.cuda.tensor_maps import Table, TensorMaps
from lazygrad_runtime.loader import LoadedCode, load_object

HEADER = 11
NAME = "lazygrad_launch"
RUNS_ONE_BY_ONE = 2
"""Runs before a row of launches becomes a graph: making one takes about as long as some launches,
and many programs run only once."""

LOOP = f"""
define i64 @{NAME}(ptr %launch, ptr %words, i64 %count, ptr %table, i64 %error, ptr %stream,
                   ptr %values) nounwind {{
entry:
  br label %next
next:
  %number = phi i64 [ 0, %entry ], [ %following, %launched ]
  %word = phi ptr [ %words, %entry ], [ %rest, %launched ]
  %more = icmp slt i64 %number, %count
  br i1 %more, label %header, label %done
header:
{"".join(f'''
  %at{n} = getelementptr i64, ptr %word, i64 {n}
  %long{n} = load i64, ptr %at{n}
  %word{n} = trunc i64 %long{n} to i32''' for n in range(HEADER))}
  %function = inttoptr i64 %long0 to ptr
  %parameters = inttoptr i64 %long10 to ptr
  %bindings = getelementptr i64, ptr %word, i64 {HEADER}
  br label %bind
bind:
  %k = phi i64 [ 0, %header ], [ %k1, %bound ]
  %binding = phi ptr [ %bindings, %header ], [ %binding1, %bound ]
  %some = icmp slt i64 %k, %long8
  br i1 %some, label %bound, label %call
bound:
  %slot = load i64, ptr %binding
  %offset.at = getelementptr i64, ptr %binding, i64 1
  %offset = load i64, ptr %offset.at
  %base.at = getelementptr i64, ptr %table, i64 %slot
  %base = load i64, ptr %base.at
  %address = add i64 %base, %offset
  %value.at = getelementptr i64, ptr %values, i64 %k
  store i64 %address, ptr %value.at
  %k1 = add i64 %k, 1
  %binding1 = getelementptr i64, ptr %binding, i64 2
  br label %bind
call:
  %error.at = getelementptr i64, ptr %values, i64 %long8
  store i64 %error, ptr %error.at
  %after = add i64 %long8, 1
  %number.at = getelementptr i64, ptr %values, i64 %after
  store i64 %long9, ptr %number.at
  %code = call i32 %launch(ptr %function, i32 %word1, i32 %word2, i32 %word3, i32 %word4,
                           i32 %word5, i32 %word6, i32 %word7, ptr %stream, ptr %parameters,
                           ptr null)
  %good = icmp eq i32 %code, 0
  br i1 %good, label %launched, label %failed
launched:
  %following = add i64 %number, 1
  %rest = phi ptr [ %binding, %call ]
  br label %next
failed:
  %wide = zext i32 %code to i64
  %place = shl i64 %number, 32
  %both = or i64 %place, %wide
  ret i64 %both
done:
  ret i64 0
}}
"""

_Loop = ctypes.CFUNCTYPE(c_int64, c_void_p, c_void_p, c_int64, c_void_p, c_int64, c_void_p,
                         c_void_p)  # fmt: skip


@functools.cache
def _loaded() -> tuple[LoadedCode, Any]:
    """The loop, from the compile cache where it is there."""
    loaded = load_object(store.native_code("launcher", LOOP))
    return loaded, _Loop(loaded.address(NAME))


class LaunchTable:
    """Kernel launches in a row, for the loop and as a graph.

    launches: (place in the program's `grid`, launch) each.  error: address of the error block.
    runs_one_by_one: before they are a graph.  Not safe for use by two threads at a time.
    """

    def __init__(
        self, device: Device, launches: Sequence[tuple[int, GridLaunch]],
        functions: dict[str, int], error: int, runs_one_by_one: int,
    ) -> None:  # fmt: skip
        self.device, self._error, self._runs_one_by_one = device, error, runs_one_by_one
        self.launches = [(place, each) for place, each in launches if all(each.grid)]
        self._functions = [functions[launch.kernel] for _, launch in self.launches]
        self._maps = [TensorMaps(each) if each.maps else None for _, each in self.launches]
        self._mapped = [maps for maps in self._maps if maps is not None]
        most = max((len(launch.arguments) for _, launch in self.launches), default=0)
        self._values = (c_int64 * (most + 2))()
        start = ctypes.addressof(self._values)
        places = [start + 8 * k for k in range(most + 2)]
        self._parameters: list[Any] = [(c_void_p * len(places))(*places)]
        words: list[int] = []
        for (_, launch), function, maps in zip(
            self.launches, self._functions, self._maps, strict=True
        ):
            parameters = self._parameters[0]
            if maps is not None:
                own = [*places[: len(launch.arguments) + 2], *maps.addresses]
                parameters = (c_void_p * len(own))(*own)
                self._parameters.append(parameters)
            words += [function, *launch.grid, *launch.block, launch.shared,
                      len(launch.arguments), launch.number, ctypes.addressof(parameters)]
            for slot, offset in launch.arguments:
                words += [slot, offset]
        self._words = (c_int64 * max(len(words), 1))(*words)
        self._loop = _loaded()[1]
        self._function = device.driver.address("cuLaunchKernel")
        self._arguments = ctypes.addressof(self._words), len(self.launches), start
        self._runs = 0
        self._known = b""
        self._graph: LaunchGraph | None = None

    def launch(self, table: Table, stream: int) -> tuple[int, int]:
        """Launches all.  Given back: the driver's code, and the number of the launch that was
        refused, or -1.
        """
        addresses = bytes(table)
        moved = addresses != self._known
        if moved:
            for maps in self._mapped:
                maps.encode(self.device.driver, table)
            self._known = addresses
        self._runs += 1
        if self._runs > self._runs_one_by_one and len(self.launches) > 1 and not blocking():
            return self._replay(table, moved).launch(stream), -1
        words, count, values = self._arguments
        result = self._loop(
            self._function, words, count, ctypes.addressof(table), self._error, stream, values
        )
        if not result:
            return 0, -1
        return result & 0xFFFFFFFF, self.launches[result >> 32][1].number

    def _replay(self, table: Table, moved: bool) -> LaunchGraph:
        """The graph for the addresses of this run."""
        graph, self._graph = self._graph, None  # gone where the driver refuses a change to it
        if graph is None:
            launches = [launch for _, launch in self.launches]
            graph = LaunchGraph(
                self.device, launches, self._functions, self._maps, self._error, table
            )
        elif moved:
            graph.update(table)
        self._graph = graph
        return graph
