"""The native way through a flush of one operation: `emit` writes it, as LLVM IR.

    flushed(required)   True where it has computed what `cells.flush(*required)` is to compute

Whoever looks after each operation, as scripts for PyTorch do, flushes one node over known values
each time.  Its program is then found by what makes it: the template and number of a call's result,
or op, attributes, and dtypes and shapes of the inputs (`_core.plans.Single`); no graph is walked.

As in `native_replay`, nothing else runs from the last look at the pending cells to the entry.
"""

from __future__ import annotations

from lazygrad._core.native_modes import unless_computing, unless_default
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_runtime.native import WORD, NativeFunction, NativeModule
from lazygrad_runtime.native_memory import NULL, RUN_LISTS, RUN_TABLE

SINGLE_RUN, SINGLE_COUNT, SINGLE_READ, SINGLE_WORDS = 0, 1, 2, 10
"""Places in what is known of a program for one node: the program, how many inputs it reads, and
which of the node's.
"""

MOST_INPUTS = SINGLE_WORDS - SINGLE_READ


def emit(module: NativeModule) -> None:
    """Needs `native_memory.emit`, `native_modes.emit` and `native_replay.emit` in the same module.
    """
    _only_pending(module)
    _first_place(module)
    _key_of(module)
    _computed(module)
    _flushed(module)


def _only_pending(module: NativeModule) -> None:
    """The one living cell among the pending ones, a new reference; null where there is none, or
    more than one.
    """
    f = module.native("only_pending", "ptr", [("ptr", "pending"), ("i64", "count")])
    pending, count = f.parameters
    several, failed = f.new_block("several"), f.new_block("failed")
    found = f.alloca("ptr", 1, WORD)
    f.put(NULL, found, 0)
    with f.loop(const("i64", 0), count) as loop:
        cell = f.api("PyObject_CallNoArgs", f.api("PyList_GetItem", pending, loop.index))
        f.where(f.is_null(cell), failed)
        alive, after = f.new_block("alive"), f.new_block("after")
        dropped, first = f.new_block("dropped"), f.new_block("first")
        f.branch_if(f.same(cell, f.none()), dropped, alive)
        f.start_block(alive)
        before = f.word("ptr", found, 0)
        another = f.new_block("another")
        f.branch_if(f.is_null(before), first, another)
        f.start_block(another)
        f.drop(cell)
        f.unless(f.same(before, cell), several)
        f.branch(after)
        f.start_block(first)
        f.put(cell, found, 0)
        f.branch(after)
        f.start_block(dropped)
        f.drop(cell)
        f.branch(after)
        f.start_block(after)
    f.ret(f.word("ptr", found, 0))
    f.start_block(failed)
    f.api("PyErr_Clear")
    f.branch(several)
    f.start_block(several)
    last = f.word("ptr", found, 0)
    with f.when(f.not_(f.is_null(last))):
        f.drop(last)
    f.stop(None)


def _first_place(module: NativeModule) -> None:
    """Where in a tuple an object is first."""
    f = module.native("first_place", "i64", [("ptr", "tuple"), ("ptr", "thing")])
    things, thing = f.parameters
    found = f.new_block("found")
    with f.loop(const("i64", 0), f.api("PyTuple_Size", things)) as loop:
        f.where(f.same(f.api("PyTuple_GetItem", things, loop.index), thing), found)
    f.stop(-1)
    f.start_block(found)
    f.ret(loop.index)


def _key_of(module: NativeModule) -> None:
    """What a node's program is found by, a new reference: (template, part) of a call's result, else
    (op, attributes, dtype, shape, …), with an input's number for the dtype where it is there again.
    """
    f = module.native("key_of", "ptr", [("ptr", "node"), ("ptr", "call"), ("ptr", "inputs")])
    node, call, inputs = f.parameters
    failed = f.new_block("failed")
    folded, plain = f.new_block("folded"), f.new_block("plain")

    def of(pairs: list[Value], key: Value) -> None:
        for place, value in enumerate(pairs):
            f.api("PyTuple_SetItem", key, const("i64", place), f.own(value))

    f.branch_if(f.same(call, f.none()), plain, folded)
    f.start_block(folded)
    key = f.api("PyTuple_New", const("i64", 2))
    f.where(f.is_null(key), failed)
    of([f.slot(call, "Call", "template"), f.slot(node, "Node", "part")], key)
    f.ret(key)
    f.start_block(plain)
    count = f.api("PyTuple_Size", inputs)
    key = f.api("PyTuple_New", f.add(f.mul(count, 2), 2))
    f.where(f.is_null(key), failed)
    of([f.slot(node, "Node", "op"), f.slot(node, "Node", "identity")], key)
    with f.loop(const("i64", 0), count) as loop:
        each = f.api("PyTuple_GetItem", inputs, loop.index)
        place = f.add(f.mul(loop.index, 2), 2)
        repeated, fresh, both = (f.new_block(name) for name in ("repeated", "fresh", "both"))
        earlier = f.call("first_place", "i64", inputs, each)
        f.branch_if(f.icmp("slt", earlier, loop.index), repeated, fresh)
        f.start_block(repeated)
        number = f.api("PyLong_FromVoidPtr", f.convert("inttoptr", earlier, "ptr"))
        f.branch(both)
        f.start_block(fresh)
        dtype = f.own(f.slot(each, "Node", "dtype"))
        f.branch(both)
        f.start_block(both)
        first = f.phi("ptr", [(number, repeated), (dtype, fresh)])
        f.api("PyTuple_SetItem", key, place, first)
        f.api("PyTuple_SetItem", key, f.add(place, 1), f.own(f.slot(each, "Node", "shape")))
    f.ret(key)
    f.start_block(failed)
    f.api("PyErr_Clear")
    f.stop(None)


def _computed(module: NativeModule) -> None:
    """Computes one node over known values into a buffer, a new reference; null where that takes
    Python.  count, last: how many cells were pending, and the last of their references.
    """
    f = module.native("computed", "ptr", [("ptr", "node"), ("i64", "count"), ("ptr", "last")])
    node, waiting, last = f.parameters
    no, clear, back = f.new_block("no"), f.new_block("clear"), f.new_block("back")
    call = f.slot(node, "Node", "call")
    folded, plain, both = f.new_block("folded"), f.new_block("plain"), f.new_block("both")
    f.branch_if(f.same(call, f.none()), plain, folded)
    f.start_block(folded)
    below = f.slot(call, "Call", "inputs")
    f.branch(both)
    f.start_block(plain)
    own = f.slot(node, "Node", "inputs")
    f.branch(both)
    f.start_block(both)
    inputs = f.phi("ptr", [(below, folded), (own, plain)])
    count = f.api("PyTuple_Size", inputs)
    f.where(f.icmp("sgt", count, MOST_INPUTS), no)
    f.where(f.icmp("slt", count, 1), no)
    key = f.call("key_of", "ptr", node, call, inputs)
    f.where(f.is_null(key), no)
    single = f.api("PyDict_GetItemWithError", f.given("singles"), key)
    f.drop(key)
    f.where(f.is_null(single), clear)
    words = f.api("PyLong_AsVoidPtr", single)
    run = f.word("ptr", words, SINGLE_RUN)
    lists = f.word("ptr", run, RUN_LISTS)
    made = f.call("take_block", "ptr", f.word("ptr", lists, 0), f.word("ptr", lists, 1))
    f.where(f.is_null(made), clear)
    # From here to the entry nothing else runs; what ran so far may have computed it.
    unless_computing(f, back)
    f.unless(f.same(f.slot(node, "Node", "payload"), f.none()), back)
    f.where(f.icmp("slt", f.api("PyList_Size", f.given("pending")), waiting), back)
    still = f.api("PyList_GetItem", f.given("pending"), f.sub(waiting, 1))
    f.unless(f.same(still, last), back)
    table = f.word("ptr", run, RUN_TABLE)
    read = f.word("i64", words, SINGLE_COUNT)
    with f.loop(const("i64", 0), count) as loop:
        each = f.api("PyTuple_GetItem", inputs, loop.index)
        buffer = f.slot(each, "Node", "payload")
        f.unless(f.same(f.type_of(buffer), f.given("Buffer")), back)
        with f.when(f.not_(f.same(call, f.none()))):  # whose key tells of no repetition
            f.where(f.icmp("slt", f.call("first_place", "i64", inputs, each), loop.index), back)
    with f.loop(const("i64", 0), read) as loop:
        place = f.word("i64", words, f.add(loop.index, SINGLE_READ))
        each = f.api("PyTuple_GetItem", inputs, place)
        buffer = f.slot(each, "Node", "payload")
        f.put(f.api("PyLong_AsVoidPtr", f.slot(buffer, "Buffer", "pointer")), table, loop.index)
    f.put(f.api("PyLong_AsVoidPtr", f.slot(made, "Buffer", "pointer")), table, read)
    f.unless(f.call("enter", "i1", run), back)
    f.ret(made)
    f.start_block(back)
    f.drop(made)
    f.branch(no)
    f.start_refusal(clear, no)
    f.stop(None)


def _settle(f: NativeFunction, cell: Value, node: Value, buffer: Value) -> None:
    """The node has its value, and the cell a leaf of its own for it, so that the graph is freed."""
    late = f.new_block("late")
    kind = f.alloca("ptr", 3, WORD)
    for place, name in enumerate(("dtype", "shape", "location")):
        f.put(f.slot(node, "Node", name), kind, place)
    f.fill(node, "Node", "payload", f.own(buffer))
    f.drop(f.none())
    leaf = f.call("leaf_of", "ptr", kind, buffer)
    f.where(f.is_null(leaf), late)
    written = f.new_block("written")
    f.unless(f.same(f.slot(cell, "Cell", "node"), node), written)
    for name, value in (("node", leaf), ("cache", f.own(f.none())), ("settled", f.own(f.none()))):
        before = f.slot(cell, "Cell", name)
        f.fill(cell, "Cell", name, value)
        f.drop(before)
    f.branch(late)
    f.start_block(written)  # by a finalizer, while the leaf was made
    f.drop(leaf)
    f.branch(late)
    f.start_block(late)
    f.api("PyErr_Clear")


def _flushed(module: NativeModule) -> None:
    f = module.native("flushed", "ptr", [("ptr", "self"), ("ptr", "required")], linkage="")
    required = f.parameters[1]
    no, held = f.new_block("no"), f.new_block("held")
    wanted, all_pending = f.new_block("wanted"), f.new_block("all")
    modes = f.call("thread_modes", "ptr")
    f.where(f.is_null(modes), no)
    unless_default(f, modes, ("traced",), no)
    for name in ("observation callbacks", "run callbacks"):
        f.unless(f.icmp("eq", f.api("PyList_Size", f.given(name)), 0), no)
    unless_computing(f, no)
    pending = f.given("pending")
    count = f.api("PyList_Size", pending)
    f.where(f.icmp("slt", count, 1), no)
    cell = f.call("only_pending", "ptr", pending, count)
    f.where(f.is_null(cell), no)
    f.unless(f.same(f.slot(cell, "Cell", "tracked"), f.given("False")), held)
    node = f.own(f.slot(cell, "Cell", "node"))
    unfit = f.new_block("unfit")
    f.unless(f.same(f.slot(node, "Node", "payload"), f.none()), unfit)
    asked = f.api("PyTuple_Size", required)
    f.where(f.icmp("sgt", asked, 1), unfit)
    f.branch_if(f.icmp("eq", asked, 1), wanted, all_pending)
    f.start_block(wanted)
    f.unless(f.same(f.api("PyTuple_GetItem", required, const("i64", 0)), node), unfit)
    f.branch(all_pending)
    f.start_block(all_pending)
    last = f.own(f.api("PyList_GetItem", pending, f.sub(count, 1)))
    buffer = f.call("computed", "ptr", node, count, last)
    f.drop(last)
    f.where(f.is_null(buffer), unfit)
    # What another thread has registered meanwhile stays.
    f.api("PyList_SetSlice", pending, const("i64", 0), count, NULL)
    _settle(f, cell, node, buffer)
    f.drop(node)
    f.drop(cell)
    f.ret(f.own(f.given("True")))
    f.start_block(unfit)
    f.drop(node)
    f.branch(held)
    f.start_block(held)
    f.drop(cell)
    f.branch(no)
    f.start_block(no)
    f.ret(f.own(f.given("False")))
