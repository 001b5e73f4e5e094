"""Loader: turns a relocatable object into callable addresses.

In: the bytes of an object file that `TargetMachine.emit_object` made, and addresses for the symbols
that it leaves open.  Out: a `LoadedCode`, from which functions are asked for by name.
No optimiser and no code generator runs here; an object from the disk cache is linked as it is.

One LLJIT instance serves the process and every object gets a library of its own in it, so two
objects may both define `kernel`. Linking goes through JITLink, which lays one object out in one
slab of memory: code and constants stay within reach of 32-bit relative addresses.

Measured once per load of a 1.3 KB object, median of 100 (LLVM 22.1, x86-64): shared LLJIT with
RuntimeDyld 120 us, shared LLJIT with JITLink 145 us, one MCJIT engine per object 270 to 350 us, one
LLJIT per object 510 us. JITLink is kept for its layout guarantee. A dropped object gives its pages
back.
"""

from __future__ import annotations

import itertools
import struct
import sys
from collections.abc import Mapping

import llvmlite.binding as llvm

from lazygrad_compiler import forks

# ELF `e_machine`, at byte 18 of the header, for the machines that we run on.
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}

_lock = forks.lock(forks.LOADER)
forks.know_llvmlite(llvm)
_library_numbers = itertools.count()
_linker: llvm.LLJIT | None = None
_target_ready = False


class LoadError(RuntimeError):
    """An object cannot be loaded: not an object for this machine, or a symbol stays undefined."""


def initialize_target() -> None:
    """Makes LLVM's target for this machine known. Cheap when done already."""
    global _target_ready
    if not _target_ready:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        _target_ready = True


def _shared_linker() -> llvm.LLJIT:
    """The LLJIT instance of the process. Call with `_lock` held."""
    global _linker
    if _linker is None:
        initialize_target()
        _linker = llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)
    return _linker


def _check_machine(object_bytes: bytes) -> None:
    """Refuses an ELF object of another machine: linking one would end in wild relocations."""
    if not sys.platform.startswith("linux"):
        return
    if len(object_bytes) < 64 or object_bytes[:4] != b"\x7fELF":
        raise LoadError(
            f"[load] {len(object_bytes)} bytes are not an ELF object "
            f"(they start with {object_bytes[:4]!r}). Compile again for this machine."
        )
    (machine,) = struct.unpack_from("<H", object_bytes, 18)
    architecture = llvm.get_process_triple().split("-")[0]
    expected = ELF_MACHINES.get(architecture, machine)
    if machine != expected:
        raise LoadError(
            f"[load] the object is for ELF machine {machine}, this machine ({architecture}) "
            f"is {expected}. Compile again for this machine."
        )


class LoadedCode:
    """Native code that stays in memory as long as this object lives.

    Addresses taken from it must not be called after the last reference is gone.
    """

    __slots__ = ("_addresses", "_library_name", "_linker", "_lookups", "_tracker", "__weakref__")

    def __init__(self, linker: llvm.LLJIT, library_name: str, tracker: llvm.ResourceTracker):
        self._linker = linker
        self._library_name = library_name
        self._tracker = tracker
        self._addresses: dict[str, int] = {}
        self._lookups: list[llvm.ResourceTracker] = []

    def address(self, name: str) -> int:
        """Address of the function or variable `name`.

        Raises LoadError when the object does not define it or refers to a symbol nobody defines.
        """
        known = self._addresses.get(name)
        if known is not None:
            return known
        try:
            lookup = self._linker.lookup(self._library_name, name)
        except RuntimeError as error:
            raise LoadError(
                f"[load] no address for {name!r}: {error}. Either the object does not define it "
                "or it calls a function that is neither in libc nor among the given symbols."
            ) from None
        address = int(lookup[name])
        self._lookups.append(lookup)
        self._addresses[name] = address
        return address


def load_object(object_bytes: bytes, symbols: Mapping[str, int] | None = None) -> LoadedCode:
    """Links one relocatable object into this process.

    `symbols` gives addresses for names that the object leaves undefined; anything else is looked up
    in the process itself (libc and libm: `memcpy`, `memset`, `syscall`, ...).
    Raises LoadError for bytes that are no object for this machine. Thread-safe.
    """
    _check_machine(object_bytes)
    builder = llvm.JITLibraryBuilder().add_object_img(object_bytes)
    for name, address in (symbols or {}).items():
        builder.import_symbol(name, address)
    builder.add_current_process()
    with _lock:
        linker = _shared_linker()
        library_name = f"object{next(_library_numbers)}"
        try:
            tracker = builder.link(linker, library_name)
        except RuntimeError as error:
            raise LoadError(f"[load] the object cannot be linked: {error}") from None
    return LoadedCode(linker, library_name, tracker)
