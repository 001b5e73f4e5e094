"""The native launch loop: one call from Python launches all kernels of a program.

`lazygrad_launch` is generated once and reads what to launch from a table of 64-bit words, so that
no program needs code of its own on the host.  A launch is HEADER words and two for each buffer:

    function, grid x y z, block x y z, shared bytes, number of buffers, number of the launch,
    then slot and offset of each buffer

The kernel's parameters are the buffers' addresses (table[slot] + offset), the address of the error
block, and the launch's number.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from typing import Any

from lazygrad_compiler.artifact import GridLaunch
from lazygrad_runtime import store
from lazygrad_runtime.loader import LoadedCode, load_object

HEADER = 10
NAME = "lazygrad_launch"

LOOP = f"""
define i64 @{NAME}(ptr %launch, ptr %words, i64 %count, ptr %table, i64 %error, ptr %stream,
                   ptr %values, ptr %parameters) nounwind {{
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
                         c_void_p, c_void_p)  # fmt: skip


@functools.cache
def _loaded() -> tuple[LoadedCode, Any]:
    """The loop, from the compile cache where it is there."""
    import llvmlite.binding as llvm

    from lazygrad_compiler.target import host

    target = host()
    fields = {
        "kind": "launcher",
        "text": hashlib.sha256(LOOP.encode()).hexdigest(),
        "triple": target.triple,
        "cpu": target.cpu,
        "features": target.features,
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
    }
    entry = store.disk().lookup(fields, store.fits)
    if entry is not None:
        code = entry.read("object")
    else:
        from lazygrad_compiler.llvm.compile import compile_text

        code = compile_text(LOOP, target).object_code
        store.disk().store(fields, {"object": code}, {"needs": sorted(store.machine_features())})
    loaded = load_object(code)
    return loaded, _Loop(loaded.address(NAME))


class LaunchTable:
    """Kernel launches in a row, as words for the loop.

    launches: (place in the program's `grid`, launch) each.  Not safe for use by two threads at a
    time.
    """

    def __init__(self, launches: Sequence[tuple[int, GridLaunch]],
                 functions: dict[str, int]) -> None:
        self.launches = [(place, each) for place, each in launches if all(each.grid)]
        words: list[int] = []
        most = 0
        for _, launch in self.launches:
            most = max(most, len(launch.arguments))
            words += [functions[launch.kernel], *launch.grid, *launch.block, launch.shared,
                      len(launch.arguments), launch.number]
            for slot, offset in launch.arguments:
                words += [slot, offset]
        self._words = (c_int64 * max(len(words), 1))(*words)
        self._values = (c_int64 * (most + 2))()
        start = ctypes.addressof(self._values)
        self._parameters = (c_void_p * (most + 2))(*(start + 8 * k for k in range(most + 2)))
        self._loop = _loaded()[1]
        self._arguments = (
            ctypes.addressof(self._words), len(self.launches),
            ctypes.addressof(self._values), ctypes.addressof(self._parameters),
        )

    def launch(self, function: int, table: int, error: int, stream: int) -> tuple[int, int]:
        """Launches all.  function: address of cuLaunchKernel.  Given back: the driver's code, and
        the number of the launch that was refused.
        """
        words, count, values, parameters = self._arguments
        result = self._loop(function, words, count, table, error, stream, values, parameters)
        if not result:
            return 0, -1
        return result & 0xFFFFFFFF, self.launches[result >> 32][1].number
