"""The native way through a call of a compiled function: `emit` writes it, as LLVM IR.

    called(self, arguments, count, names)   is `CompiledFunction.__call__`: tries the plans of
                                            `self.plans`, else calls `self.call_slowly`
    replayed(plan, arguments)               the result of a plan; null where it does not fit

A plan (`_core.plans`) is one recording as words: modes, arguments, guards, inputs, outputs.  All is
compared by identity, which is enough to be right: whatever is only equal takes the Python path.

In the middle, from the look at the guards to the native entry, nothing may run but this code: no
other thread, no finalizer.  The interpreter's lock is held throughout, and between these points
nothing is done that makes a container (which could start the garbage collector).  So the kernel
sees the values that the guards saw, and no kernel of another thread is writing over one: the pool's
lock is free, and so is that of the cells.  Only programs of short kernels get here; long ones
let go of the interpreter's lock, in Python.
"""

from __future__ import annotations

from lazygrad._core.native_modes import mode, unless_computing, unless_default
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_runtime.native import WORD, NativeFunction, NativeModule
from lazygrad_runtime.native_memory import NULL, RUN_INPUTS, RUN_LISTS, RUN_OUTPUTS, RUN_TABLE

MOST_ARGUMENTS = 16
MOST_OUTPUTS = 8

(PLAN_COUNT, PLAN_ARGUMENTS, PLAN_GRAD, PLAN_AUTOCAST, PLAN_DTYPE, PLAN_TF32, PLAN_CHECK_COUNT,
 PLAN_CHECKS, PLAN_SOURCES, PLAN_RUN, PLAN_KINDS, PLAN_RESULT, PLAN_BUILDER, PLAN_WORDS) = range(14)
"""Places in a plan: arguments and their records; modes; guards; inputs; the program; dtype, shape
and line of each output; which output is the result, or -1 and what builds it.
"""

ARGUMENT_TENSOR, ARGUMENT_SAME, ARGUMENT_WORDS = 0, 1, 3
"""Records (kind, dtype, shape) of a tensor, or (kind, object, -) of anything else."""

SOURCE_ARGUMENT, SOURCE_CELL, SOURCE_BUFFER, SOURCE_WORDS = 0, 1, 2, 2
"""Records (kind, number of the argument, cell or buffer)."""

(CHECK_ITEM, CHECK_ENCLOSED, CHECK_HANDLE, CHECK_VALUES, CHECK_LIST, CHECK_EMPTY, CHECK_LEAF,
 CHECK_LEAF_AND_GRADIENT, CHECK_WORDS) = (*range(8), 4)
"""Records (kind, object, a, b):
    item        dict[a] is b
    enclosed    a closure's cell holds a
    handle      a tensor's cell is a
    values      a dict has a values, those at address b, in order
    list        the same of a list
    empty       a dict is empty
    leaf        what a weak reference leads to is gone, or a tensor whose cell is a
    leaf and gradient    the same, and whether its gradient is None is b (True or False)
"""


def emit(module: NativeModule) -> None:
    """Needs `native_memory.emit` and `native_modes.emit` in the same module."""
    _leaf_of(module)
    _tensor_of(module)
    _modes_hold(module)
    _same_items(module)
    _leaf_holds(module)
    _check_holds(module)
    _arguments_fit(module)
    _gathered(module)
    _result_of(module)
    _replayed(module)
    _called(module)


def _leaf_of(module: NativeModule) -> None:
    """`fresh_input(dtype, shape, line)` with a buffer attached, whose reference is taken over; null
    with an error set.
    """
    f = module.native("leaf_of", "ptr", [("ptr", "kind"), ("ptr", "buffer")])
    kind, buffer = f.parameters
    failed = f.new_block("failed")
    dtype, shape, location = (f.word("ptr", kind, place) for place in range(3))
    node = f.api("PyType_GenericAlloc", f.given("Node"), const("i64", 0))
    f.where(f.is_null(node), failed)
    f.fill(node, "Node", "payload", buffer)
    index = f.api("PyIter_Next", f.given("input numbers"))
    serial = f.api("PyIter_Next", f.given("serials"))
    attrs = f.api("PyTuple_New", const("i64", 3))
    f.where(f.is_null(attrs), failed)
    for place, value in enumerate((index, f.own(dtype), f.own(shape))):
        f.api("PyTuple_SetItem", attrs, const("i64", place), value)
    for name, value in (
        ("op", f.own(f.given(".input"))), ("inputs", f.own(f.given("()"))), ("attrs", attrs),
        ("identity", f.own(attrs)), ("dtype", f.own(dtype)), ("shape", f.own(shape)),
        ("location", f.own(location)), ("differentiable", f.own(f.given("False"))),
        ("call", f.own(f.none())), ("serial", serial),
    ):
        f.fill(node, "Node", name, value)
    f.ret(node)
    f.start_block(failed)
    f.stop(None)


def _tensor_of(module: NativeModule) -> None:
    """`known_tensor(leaf)`, which takes the reference over."""
    f = module.native("tensor_of", "ptr", [("ptr", "leaf")])
    leaf = f.parameters[0]
    failed, half = f.new_block("failed"), f.new_block("half")
    cell = f.api("PyType_GenericAlloc", f.given("Cell"), const("i64", 0))
    f.where(f.is_null(cell), failed)
    f.fill(cell, "Cell", "node", leaf)
    f.fill(cell, "Cell", "tracked", f.own(f.given("False")))
    for name in ("cache", "places", "settled"):
        f.fill(cell, "Cell", name, f.own(f.none()))
    f.fill(cell, "Cell", "version", f.own(f.given("0")))
    tensor = f.api("PyType_GenericAlloc", f.given("Tensor"), const("i64", 0))
    f.where(f.is_null(tensor), half)
    f.fill(tensor, "Tensor", "_cell", cell)
    f.fill(tensor, "Tensor", "_view", f.own(f.none()))
    f.fill(tensor, "Tensor", "_detached", f.own(f.given("False")))
    f.ret(tensor)
    f.start_block(half)
    f.drop(cell)
    f.stop(None)
    f.start_block(failed)
    f.drop(leaf)
    f.stop(None)


def _modes_hold(module: NativeModule) -> None:
    """Whether nothing is recorded or traced in this thread, and modes are the recording's."""
    f = module.native("modes_hold", "i1", [("ptr", "plan")])
    plan = f.parameters[0]
    no = f.new_block("no")
    modes = f.call("thread_modes", "ptr")
    f.where(f.is_null(modes), no)
    unless_default(f, modes, ("recording", "traced"), no)
    for name, place in (("grad", PLAN_GRAD), ("autocast", PLAN_AUTOCAST)):
        f.unless(f.same(mode(f, modes, name), f.word("ptr", plan, place)), no)
    dtype = f.slot(f.given("default"), "_Default", "dtype")
    tf32 = f.slot(f.given("precision"), "Precision", "tf32")
    for value, place in ((dtype, PLAN_DTYPE), (tf32, PLAN_TF32)):
        f.unless(f.same(value, f.word("ptr", plan, place)), no)
    watching = f.api("PyList_Size", f.given("run callbacks"))
    f.ret(f.icmp("eq", watching, 0))
    f.start_block(no)
    f.stop(False)


def _same_items(module: NativeModule) -> None:
    """Whether a dict has `count` values, the very ones at an address, in order."""
    f = module.native("same_items", "i1", [("ptr", "dict"), ("i64", "count"), ("ptr", "expected")])
    holder, count, expected = f.parameters
    no = f.new_block("no")
    place, value = f.alloca("i64", 1, WORD), f.alloca("ptr", 1, WORD)
    f.unless(f.icmp("eq", f.api("PyDict_Size", holder), count), no)
    f.put(const("i64", 0), place, 0)
    with f.loop(const("i64", 0), count) as loop:
        more = f.api("PyDict_Next", holder, place, NULL, value)
        f.where(f.icmp("eq", more, 0), no)
        f.unless(f.same(f.word("ptr", value, 0), f.word("ptr", expected, loop.index)), no)
    f.stop(True)
    f.start_block(no)
    f.stop(False)


def _leaf_holds(module: NativeModule) -> None:
    """Whether a weakly known tensor is gone or has its cell; absent: null, or whether its gradient
    is to be None.
    """
    f = module.native("leaf_holds", "i1", [("ptr", "weak"), ("ptr", "cell"), ("ptr", "absent")])
    weak, cell, absent = f.parameters
    no, gone, other = f.new_block("no"), f.new_block("gone"), f.new_block("other")
    clear, fine = f.new_block("clear"), f.new_block("fine")
    tensor = f.api("PyObject_CallNoArgs", weak)
    f.where(f.is_null(tensor), clear)
    f.where(f.same(tensor, f.none()), gone)
    f.unless(f.same(f.slot(tensor, "Tensor", "_cell"), cell), other)
    f.where(f.is_null(absent), fine)
    gradient = f.attribute(tensor, "_grad", other)
    missing = f.select(f.same(gradient, f.none()), f.given("True"), f.given("False"))
    f.unless(f.same(missing, absent), other)
    f.branch(fine)
    f.start_block(fine)
    f.drop(tensor)
    f.stop(True)
    f.start_block(gone)
    f.drop(tensor)
    f.stop(True)
    f.start_block(other)
    f.drop(tensor)
    f.branch(no)
    f.start_refusal(clear, no)
    f.stop(False)


def _check_holds(module: NativeModule) -> None:
    """Whether one guard holds."""
    f = module.native("check_holds", "i1", [("ptr", "check")])
    check = f.parameters[0]
    kind = f.word("i64", check, 0)
    thing, first, second = (f.word("ptr", check, place) for place in (1, 2, 3))
    count = f.word("i64", check, 2)
    no, clear = f.new_block("no"), f.new_block("clear")

    def case(number: int) -> str:
        """Starts the code of one kind; the label to go on at for all others."""
        this, others = f.new_block("case"), f.new_block("others")
        f.branch_if(f.icmp("eq", kind, number), this, others)
        f.start_block(this)
        return others

    others = case(CHECK_ITEM)
    found = f.api("PyDict_GetItemWithError", thing, first)
    f.where(f.is_null(found), clear)
    f.ret(f.same(found, second))
    f.start_block(others)
    others = case(CHECK_ENCLOSED)
    held = f.api("PyCell_Get", thing)
    f.where(f.is_null(held), clear)
    f.drop(held)
    f.ret(f.same(held, first))
    f.start_block(others)
    others = case(CHECK_HANDLE)
    f.ret(f.same(f.slot(thing, "Tensor", "_cell"), first))
    f.start_block(others)
    others = case(CHECK_VALUES)
    f.ret(f.call("same_items", "i1", thing, count, second))
    f.start_block(others)
    others = case(CHECK_LIST)
    f.unless(f.icmp("eq", f.api("PyList_Size", thing), count), no)
    with f.loop(const("i64", 0), count) as loop:
        item = f.api("PyList_GetItem", thing, loop.index)
        f.unless(f.same(item, f.word("ptr", second, loop.index)), no)
    f.stop(True)
    f.start_block(others)
    others = case(CHECK_EMPTY)
    f.ret(f.icmp("eq", f.api("PyDict_Size", thing), 0))
    f.start_block(others)
    others = case(CHECK_LEAF)
    f.ret(f.call("leaf_holds", "i1", thing, first, NULL))
    f.start_block(others)
    f.ret(f.call("leaf_holds", "i1", thing, first, second))
    f.start_refusal(clear, no)
    f.stop(False)


def _arguments_fit(module: NativeModule) -> None:
    """Whether the arguments have the plan's signature; the tensors' cells go into `cells`.  Two
    arguments of one cell do not.
    """
    f = module.native("arguments_fit", "i1",
                      [("ptr", "plan"), ("ptr", "arguments"), ("ptr", "cells")])
    plan, arguments, cells = f.parameters
    no, clear = f.new_block("no"), f.new_block("clear")
    with f.loop(const("i64", 0), f.word("i64", plan, PLAN_COUNT)) as loop:
        record = f.offset(f.word("ptr", plan, PLAN_ARGUMENTS),
                          f.mul(loop.index, ARGUMENT_WORDS), "i64")
        argument = f.word("ptr", arguments, loop.index)
        is_tensor, plain, after = f.new_block("tensor"), f.new_block("plain"), f.new_block("after")
        first = f.word("ptr", record, 1)
        f.put(NULL, cells, loop.index)
        f.branch_if(f.icmp("eq", f.word("i64", record, 0), ARGUMENT_TENSOR), is_tensor, plain)
        f.start_block(plain)
        f.unless(f.same(argument, first), no)
        f.branch(after)
        f.start_block(is_tensor)
        f.unless(f.same(f.type_of(argument), f.given("Tensor")), no)
        f.unless(f.same(f.slot(argument, "Tensor", "_view"), f.none()), no)
        cell = f.slot(argument, "Tensor", "_cell")
        f.where(f.is_null(cell), no)
        f.unless(f.same(f.slot(cell, "Cell", "tracked"), f.given("False")), no)
        node = f.slot(cell, "Cell", "node")
        f.unless(f.same(f.slot(node, "Node", "dtype"), first), no)
        shape, expected = f.slot(node, "Node", "shape"), f.word("ptr", record, 2)
        f.unless_equal(shape, expected, no, clear)
        with f.loop(const("i64", 0), loop.index) as earlier:
            f.where(f.same(f.word("ptr", cells, earlier.index), cell), no)
        f.put(cell, cells, loop.index)
        f.branch(after)
        f.start_block(after)
    f.stop(True)
    f.start_refusal(clear, no)
    f.stop(False)


def _gathered(module: NativeModule) -> None:
    """Puts the addresses of inputs and outputs into the program's table; False where an input is
    not computed yet, or is no buffer of the CPU.
    """
    f = module.native("gathered", "i1", [("ptr", "plan"), ("ptr", "cells"), ("ptr", "outputs")])
    plan, cells, outputs = f.parameters
    no = f.new_block("no")
    run = f.word("ptr", plan, PLAN_RUN)
    table, inputs = f.word("ptr", run, RUN_TABLE), f.word("i64", run, RUN_INPUTS)
    with f.loop(const("i64", 0), inputs) as loop:
        record = f.offset(f.word("ptr", plan, PLAN_SOURCES),
                          f.mul(loop.index, SOURCE_WORDS), "i64")
        kind = f.word("i64", record, 0)
        known, unknown, after = f.new_block("known"), f.new_block("cell"), f.new_block("after")
        argument, other, value = f.new_block("argument"), f.new_block("other"), f.new_block("value")
        direct = f.word("ptr", record, 1)
        f.branch_if(f.icmp("eq", kind, SOURCE_BUFFER), known, unknown)
        f.start_block(known)
        f.branch(after)
        f.start_block(unknown)
        f.branch_if(f.icmp("eq", kind, SOURCE_ARGUMENT), argument, other)
        f.start_block(argument)
        given = f.word("ptr", cells, f.word("i64", record, 1))
        f.branch(value)
        f.start_block(other)
        f.branch(value)
        f.start_block(value)
        cell = f.phi("ptr", [(given, argument), (direct, other)])
        payload = f.slot(f.slot(cell, "Cell", "node"), "Node", "payload")
        f.branch(after)
        f.start_block(after)
        buffer = f.phi("ptr", [(direct, known), (payload, value)])
        f.unless(f.same(f.type_of(buffer), f.given("Buffer")), no)
        f.put(f.api("PyLong_AsVoidPtr", f.slot(buffer, "Buffer", "pointer")), table, loop.index)
    with f.loop(const("i64", 0), f.word("i64", run, RUN_OUTPUTS)) as loop:
        buffer = f.word("ptr", outputs, loop.index)
        f.put(f.api("PyLong_AsVoidPtr", f.slot(buffer, "Buffer", "pointer")), table,
              f.add(inputs, loop.index))
    f.stop(True)
    f.start_block(no)
    f.stop(False)


def _result_of(module: NativeModule) -> None:
    """What the function gives back; takes over the outputs.  Null with an error set."""
    f = module.native("result_of", "ptr",
                      [("ptr", "plan"), ("ptr", "arguments"), ("ptr", "outputs")])
    plan, arguments, outputs = f.parameters
    failed, several, one = f.new_block("failed"), f.new_block("several"), f.new_block("one")
    kinds = f.word("ptr", plan, PLAN_KINDS)
    result = f.word("i64", plan, PLAN_RESULT)
    f.branch_if(f.icmp("slt", result, 0), several, one)
    f.start_block(one)
    leaf = f.call("leaf_of", "ptr", kinds, f.word("ptr", outputs, 0))
    f.where(f.is_null(leaf), failed)
    f.ret(f.call("tensor_of", "ptr", leaf))
    f.start_block(several)
    leaves = f.api("PyList_New", const("i64", 0))
    tensors = f.api("PyList_New", const("i64", 0))
    f.where(f.or_(f.is_null(leaves), f.is_null(tensors)), failed)
    count = f.word("i64", f.word("ptr", plan, PLAN_RUN), RUN_OUTPUTS)
    with f.loop(const("i64", 0), count) as loop:
        kind = f.offset(kinds, f.mul(loop.index, 3), "i64")
        leaf = f.call("leaf_of", "ptr", kind, f.word("ptr", outputs, loop.index))
        f.where(f.is_null(leaf), failed)
        f.api("PyList_Append", leaves, leaf)
        f.drop(leaf)
    with f.loop(const("i64", 0), f.word("i64", plan, PLAN_COUNT)) as loop:
        record = f.offset(f.word("ptr", plan, PLAN_ARGUMENTS),
                          f.mul(loop.index, ARGUMENT_WORDS), "i64")
        with f.when(f.icmp("eq", f.word("i64", record, 0), ARGUMENT_TENSOR)):
            f.api("PyList_Append", tensors, f.word("ptr", arguments, loop.index))
    both = f.alloca("ptr", 2, WORD)
    f.put(tensors, both, 0)
    f.put(leaves, both, 1)
    built = f.api("PyObject_Vectorcall", f.word("ptr", plan, PLAN_BUILDER), both,
                  const("i64", 2), NULL)
    f.drop(tensors)
    f.drop(leaves)
    f.ret(built)
    f.start_block(failed)
    f.stop(None)


def _release(f: NativeFunction, things: Value, count: Value) -> None:
    with f.loop(const("i64", 0), count) as loop:
        f.drop(f.word("ptr", things, loop.index))


def _replayed(module: NativeModule) -> None:
    """The result of a plan on arguments of its number.  `done` is set where the program has run;
    null then means an error, otherwise that the Python path is to be taken.
    """
    f = module.native("replayed", "ptr", [("ptr", "plan"), ("ptr", "arguments"), ("ptr", "done")])
    plan, arguments, done = f.parameters
    unfit, partly, busy = (f.new_block(name) for name in ("unfit", "partly", "busy"))
    cells = f.alloca("ptr", MOST_ARGUMENTS, WORD)
    outputs = f.alloca("ptr", MOST_OUTPUTS, WORD)
    f.unless(f.call("modes_hold", "i1", plan), unfit)
    run = f.word("ptr", plan, PLAN_RUN)
    count = f.word("i64", run, RUN_OUTPUTS)
    made = f.alloca("i64", 1, WORD)
    f.put(const("i64", 0), made, 0)
    with f.loop(const("i64", 0), count) as loop:
        pair = f.offset(f.word("ptr", run, RUN_LISTS), f.mul(loop.index, 2), "i64")
        buffer = f.call("take_block", "ptr", f.word("ptr", pair, 0), f.word("ptr", pair, 1))
        f.where(f.is_null(buffer), busy)
        f.put(buffer, outputs, loop.index)
        f.put(f.add(loop.index, 1), made, 0)
    # From here to the entry nothing else runs.
    unless_computing(f, partly)
    with f.loop(const("i64", 0), f.word("i64", plan, PLAN_CHECK_COUNT)) as loop:
        check = f.offset(f.word("ptr", plan, PLAN_CHECKS), f.mul(loop.index, CHECK_WORDS), "i64")
        f.unless(f.call("check_holds", "i1", check), partly)
    f.unless(f.call("arguments_fit", "i1", plan, arguments, cells), partly)
    f.unless(f.call("gathered", "i1", plan, cells, outputs), partly)
    f.unless(f.call("enter", "i1", run), partly)
    f.put(const("i64", 1), done, 0)
    f.ret(f.call("result_of", "ptr", plan, arguments, outputs))
    f.start_block(busy)
    f.api("PyErr_Clear")
    f.branch(partly)
    f.start_block(partly)
    _release(f, outputs, f.word("i64", made, 0))
    f.branch(unfit)
    f.start_block(unfit)
    f.stop(None)


def _called(module: NativeModule) -> None:
    """`CompiledFunction.__call__`."""
    f = module.native("called", "ptr", [("ptr", "self"), ("ptr", "arguments"), ("i64", "count"),
                                        ("ptr", "names")], linkage="")
    this, arguments, count, names = f.parameters
    slowly, failed, out = f.new_block("slowly"), f.new_block("failed"), f.new_block("out")
    done = f.alloca("i64", 1, WORD)
    f.put(const("i64", 0), done, 0)
    f.unless(f.is_null(names), slowly)
    plans = f.slot(this, "CompiledFunction", "plans")
    f.where(f.is_null(plans), slowly)
    f.own(plans)  # keeps the plans, whatever is done meanwhile
    with f.loop(const("i64", 0), f.api("PyTuple_Size", plans)) as loop:
        words = f.api("PyLong_AsVoidPtr", f.api("PyTuple_GetItem", plans, loop.index))
        with f.when(f.icmp("eq", f.word("i64", words, PLAN_COUNT), count)):
            result = f.call("replayed", "ptr", words, arguments, done)
            f.where(f.icmp("ne", f.word("i64", done, 0), 0), out)
    f.drop(plans)
    f.branch(slowly)
    f.start_block(out)
    f.drop(plans)
    f.ret(result)
    f.start_block(slowly)
    method = f.api("PyObject_GetAttr", this, f.given(".call_slowly"))
    f.where(f.is_null(method), failed)
    called = f.api("PyObject_Vectorcall", method, arguments, count, names)
    f.drop(method)
    f.ret(called)
    f.start_block(failed)
    f.stop(None)
