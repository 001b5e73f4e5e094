"""Native functions for Python: LLVM IR that calls the C API of the interpreter it runs in.

What every call of a compiled function or every block of memory goes through costs more in Python
than its kernel.  `NativeModule` builds such paths as IR; `load` takes the object from the compile
cache or compiles it, and `method` makes a method of a class of one of its functions.

No structure of CPython's is assumed.  Functions of the stable C API are called by address.  The
attributes in `__slots__` of our own classes are read where they lie: `layout` finds out where by
filling an object with marks and looking for them, and gives up where it does not find each exactly
once.  `is_supported` says where none of this is done: on other Pythons than CPython, and without
the interpreter's lock, which all of it relies on.  Every native path has a Python twin that it
leaves whatever it is not sure of to.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lazygrad_compiler.llvm.builder import Function, Module, Value, const
from lazygrad_runtime.loader import LoadedCode, load_object

WORD = 8

METH_NOARGS, METH_O, METH_FASTCALL, METH_KEYWORDS = 0x04, 0x08, 0x80, 0x02

API: dict[str, tuple[str, list[str]]] = {
    "Py_IncRef": ("void", ["ptr"]),
    "Py_DecRef": ("void", ["ptr"]),
    "PyErr_Clear": ("void", []),
    "PyType_GenericAlloc": ("ptr", ["ptr", "i64"]),
    "PyObject_GetAttr": ("ptr", ["ptr", "ptr"]),
    "PyObject_RichCompareBool": ("i32", ["ptr", "ptr", "i32"]),
    "PyObject_Vectorcall": ("ptr", ["ptr", "ptr", "i64", "ptr"]),
    "PyObject_VectorcallMethod": ("ptr", ["ptr", "ptr", "i64", "ptr"]),
    "PyObject_CallNoArgs": ("ptr", ["ptr"]),
    "PyObject_SetAttr": ("i32", ["ptr", "ptr", "ptr"]),
    "PyIter_Next": ("ptr", ["ptr"]),
    "PyLong_AsVoidPtr": ("ptr", ["ptr"]),
    "PyLong_FromLong": ("ptr", ["i64"]),
    "PyLong_FromVoidPtr": ("ptr", ["ptr"]),
    "PyList_New": ("ptr", ["i64"]),
    "PyList_Size": ("i64", ["ptr"]),
    "PyList_GetItem": ("ptr", ["ptr", "i64"]),
    "PyList_SetItem": ("i32", ["ptr", "i64", "ptr"]),
    "PyList_SetSlice": ("i32", ["ptr", "i64", "i64", "ptr"]),
    "PyList_Append": ("i32", ["ptr", "ptr"]),
    "PyTuple_New": ("ptr", ["i64"]),
    "PyTuple_Size": ("i64", ["ptr"]),
    "PyTuple_GetItem": ("ptr", ["ptr", "i64"]),
    "PyTuple_SetItem": ("i32", ["ptr", "i64", "ptr"]),
    "PyDict_Size": ("i64", ["ptr"]),
    "PyDict_GetItemWithError": ("ptr", ["ptr", "ptr"]),
    "PyDict_SetItem": ("i32", ["ptr", "ptr", "ptr"]),
    "PyDict_DelItem": ("i32", ["ptr", "ptr"]),
    "PyDict_SetDefault": ("ptr", ["ptr", "ptr", "ptr"]),
    "PyDict_Next": ("i32", ["ptr", "ptr", "ptr", "ptr"]),
    "PyCell_Get": ("ptr", ["ptr"]),
    "PyWeakref_NewRef": ("ptr", ["ptr", "ptr"]),
    "PyEval_GetFrame": ("ptr", []),
    "PyFrame_GetCode": ("ptr", ["ptr"]),
    "PyFrame_GetBack": ("ptr", ["ptr"]),
    "PyFrame_GetLineNumber": ("i32", ["ptr"]),
    "PyFrame_GetLasti": ("i32", ["ptr"]),
    "PyThreadState_GetDict": ("ptr", []),
}
"""Functions of the C API that native code may call, with their LLVM types."""

PY_EQ = 2
"""The number of == in `PyObject_RichCompareBool`; part of the stable C API."""


def is_supported() -> bool:
    """Whether this interpreter is one that native functions are made for."""
    return (
        sys.implementation.name == "cpython"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and ctypes.sizeof(ctypes.c_void_p) == WORD
        and sys.byteorder == "little"
        and all(hasattr(ctypes.pythonapi, name) for name in API)
    )


class LayoutUnknown(RuntimeError):
    """Where an object's parts lie could not be found out."""


def _words(thing: object, begin: int, end: int) -> list[int | None]:
    return [ctypes.c_void_p.from_address(id(thing) + at).value for at in range(begin, end, WORD)]


def type_offset() -> int:
    """Where in an object its type is."""
    class Mark:
        __slots__ = ()

    thing = Mark()
    found = [place for place, word in enumerate(_words(thing, 0, object.__basicsize__))
             if word == id(Mark)]
    if len(found) != 1:
        raise LayoutUnknown("the type of an object")
    return found[0] * WORD


def layout(kind: type) -> dict[str, int]:
    """Where in an object of that class its slots lie, by name.  An empty slot is a null pointer."""
    members = {name: vars(owner)[name] for owner in kind.__mro__
               for name in vars(owner).get("__slots__", ())
               if name not in ("__dict__", "__weakref__")}
    thing: Any = object.__new__(kind)
    marks = {name: object() for name in members}
    begin, end = object.__basicsize__, kind.__basicsize__
    empty = _words(thing, begin, end)
    for name, member in members.items():
        member.__set__(thing, marks[name])
    filled = _words(thing, begin, end)
    for member in members.values():
        member.__set__(thing, None)
    cleared = _words(thing, begin, end)
    found = {}
    for name, mark in marks.items():
        places = [place for place, word in enumerate(filled) if word == id(mark)]
        if len(places) != 1 or empty[places[0]] is not None or cleared[places[0]] != id(None):
            raise LayoutUnknown(f"slot {name} of {kind.__name__}")
        found[name] = begin + places[0] * WORD
    return found


class NativeModule(Module):
    """A module whose functions work on Python objects.

    layouts: of the classes whose slots are read, by name.  type_at: `type_offset()`.
    """

    def __init__(self, layouts: Mapping[str, Mapping[str, int]], type_at: int) -> None:
        super().__init__()
        self.layouts = layouts
        self.type_at = type_at
        self.objects: list[str] = []
        """Names of what the loaded code is given: objects and addresses."""

    def native(self, name: str, result: str, parameters: Sequence[tuple[str, str]],
               linkage: str = "private") -> NativeFunction:
        made = NativeFunction(self, name, result, parameters, "nounwind", linkage)
        self.functions.append(made)
        return made

    def given(self, name: str) -> int:
        """The number of an object or address that the code is given when it is loaded."""
        if name not in self.objects:
            self.objects.append(name)
        return self.objects.index(name)

    def text(self) -> str:
        table = f"@given = global [{max(len(self.objects), 1)} x ptr] zeroinitializer, align 8"
        return f"{table}\n\n{super().text()}"


class NativeFunction(Function):
    """Instructions, and what is done with Python objects.  References are counted by hand: `own`
    and `drop`; what a slot or a list gives is borrowed.
    """

    module: NativeModule

    def api(self, name: str, *arguments: Value) -> Value:
        result, types = API[name]
        if [each.type for each in arguments] != types:
            raise TypeError(f"{name} takes {types}, not {arguments}")
        self.module.declare(name, result, types)
        return self.call(name, result, *arguments)

    def given(self, name: str) -> Value:
        """An object or address that the code was given when it was loaded."""
        return self.word("ptr", Value("ptr", "@given"), self.module.given(name))

    def word(self, type_: str, base: Value, index: Value | int) -> Value:
        """The word of that number after an address."""
        return self.load(type_, self.offset(base, index, "i64"), WORD)

    def put(self, value: Value, base: Value, index: Value | int) -> None:
        self.store(value, self.offset(base, index, "i64"), WORD)

    def slot(self, thing: Value, kind: str, name: str) -> Value:
        """What is in a slot: borrowed, null where it is empty."""
        return self.load("ptr", self._slot_address(thing, kind, name), WORD)

    def fill(self, thing: Value, kind: str, name: str, value: Value) -> None:
        """Puts an owned reference into a slot that is empty."""
        self.store(value, self._slot_address(thing, kind, name), WORD)

    def _slot_address(self, thing: Value, kind: str, name: str) -> Value:
        return self.offset(thing, self.module.layouts[kind][name], "i8")

    def type_of(self, thing: Value) -> Value:
        return self.load("ptr", self.offset(thing, self.module.type_at, "i8"), WORD)

    def own(self, thing: Value) -> Value:
        self.api("Py_IncRef", thing)
        return thing

    def drop(self, thing: Value) -> None:
        self.api("Py_DecRef", thing)

    def none(self) -> Value:
        return self.given("None")

    def is_null(self, thing: Value) -> Value:
        return self.icmp("eq", thing, Value("ptr", "null"))

    def same(self, one: Value, other: Value) -> Value:
        return self.icmp("eq", one, other)

    def unless(self, condition: Value, label: str) -> None:
        """Goes on where the condition holds, else to the label."""
        after = self.new_block("holds")
        self.branch_if(condition, after, label)
        self.start_block(after)

    def where(self, condition: Value, label: str) -> None:
        """Goes to the label where the condition holds."""
        after = self.new_block("goes.on")
        self.branch_if(condition, label, after)
        self.start_block(after)

    def unless_equal(self, one: Value, other: Value, label: str, failed: str) -> None:
        """Goes on where the objects are equal, else to the label; where comparing raises, to the
        other one, with the error set.
        """
        equal, differs = self.new_block("equal"), self.new_block("another")
        self.branch_if(self.same(one, other), equal, differs)
        self.start_block(differs)
        compared = self.api("PyObject_RichCompareBool", one, other, const("i32", PY_EQ))
        self.where(self.icmp("slt", compared, 0), failed)
        self.where(self.icmp("eq", compared, 0), label)
        self.branch(equal)
        self.start_block(equal)

    def start_refusal(self, clear: str, no: str) -> None:
        """The end of a function that may refuse: at `clear` the error is cleared, then, and from
        `no`, goes on what follows.
        """
        self.start_block(clear)
        self.api("PyErr_Clear")
        self.branch(no)
        self.start_block(no)

    def attribute(self, thing: Value, name: str, failed: str) -> Value:
        """An attribute that lives on in `thing` or its class: borrowed.  Where there is none, the
        error is cleared.
        """
        found = self.api("PyObject_GetAttr", thing, self.given("." + name))
        bad, good = self.new_block("no.attribute"), self.new_block("attribute")
        self.branch_if(self.is_null(found), bad, good)
        self.start_block(bad)
        self.api("PyErr_Clear")
        self.branch(failed)
        self.start_block(good)
        self.drop(found)
        return found

    def item(self, holder: Value, name: str) -> Value:
        """What a dict holds under a name: borrowed, null where there is nothing."""
        return self.api("PyDict_GetItemWithError", holder, self.given("." + name))

    def call_method(self, name: str, *arguments: Value) -> Value:
        """Calls a method by name, the object first; a new reference, or null with an error set."""
        array = self.alloca("ptr", len(arguments), WORD)
        for number, argument in enumerate(arguments):
            self.put(argument, array, number)
        return self.api("PyObject_VectorcallMethod", self.given("." + name), array,
                        const("i64", len(arguments)), Value("ptr", "null"))

    def stop(self, value: object) -> None:
        """Returns a constant."""
        self.ret(const(self.result, value) if self.result != "ptr" else Value("ptr", "null"))


class _MethodDefinition(ctypes.Structure):
    """`PyMethodDef` of the stable C API."""

    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p),
                ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))


_kept: list[Any] = []
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_kept))  # finalizers call native code to the very end


def method(kind: type, name: str, address: int, flags: int) -> Any:
    """A method of a class that is a native function."""
    definition = _MethodDefinition(name.encode(), address, flags, None)
    _kept.append(definition)  # Python keeps its address
    make = ctypes.pythonapi.PyDescr_NewMethod
    make.restype, make.argtypes = ctypes.py_object, (ctypes.py_object, ctypes.c_void_p)
    return make(kind, ctypes.addressof(definition))


def function(name: str, address: int, flags: int) -> Any:
    """A native function by itself; its first parameter is null."""
    definition = _MethodDefinition(name.encode(), address, flags, None)
    _kept.append(definition)
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p,) * 3
    return make(ctypes.addressof(definition), None, None)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Native functions in memory.  kept: what they were given, under `names`."""

    code: LoadedCode
    names: list[str]
    kept: list[Any]

    def address(self, name: str) -> int:
        return self.code.address(name)

    def give(self, name: str, thing: Any) -> None:
        """Gives them another object under a name."""
        number = self.names.index(name)
        self.kept[number] = thing
        self.table[number] = id(thing)

    @property
    def table(self) -> Any:
        return (ctypes.c_void_p * max(len(self.names), 1)).from_address(self.address("given"))


class Number(int):
    """A number or an address, where others are objects."""


def words_of(things: Sequence[Any]) -> Any:
    """An array of the objects' addresses, and of `Number`s; who uses it keeps the objects."""
    return (ctypes.c_int64 * max(len(things), 1))(
        *[int(each) if type(each) is Number else id(each) for each in things])


def load(module: NativeModule, given: Mapping[str, Any],
         object_of: Callable[[str], bytes]) -> Loaded:
    """The module's functions, given objects by name: those of `given`, and
    strings for names that start with a dot.  object_of: from the text to object code.
    """
    symbols = {name: ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
               for name in API}
    code = load_object(object_of(module.text()), symbols)
    kept = [sys.intern(name[1:]) if name.startswith(".") else given[name]
            for name in module.objects]
    loaded = Loaded(code, module.objects, kept)
    table = loaded.table
    for number, thing in enumerate(kept):
        table[number] = int(thing) if type(thing) is Number else id(thing)
    _kept.append(loaded)
    return loaded
