"""The native way through the recording of an operation: `emit` writes it, as LLVM IR.

    recorded(recipes, arguments)   the tensor that the operation gives, or None where that takes
                                   Python

What an operation records follows from its signature: dtypes, shapes, which tensors are
differentiable, plain arguments, modes.  A recipe (`_core.recipes`) is one signature and the node
that it leads to: a call of a template, or an op on arguments and constants.  The node is interned
as in Python, gets the user's line, and a cell and handle of its own.
"""

from __future__ import annotations

from lazygrad._core.native_modes import mode, unless_default
from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_runtime.native import WORD, NativeFunction, NativeModule
from lazygrad_runtime.native_memory import NULL

MOST_ARGUMENTS = 8

(RECIPE_COUNT, RECIPE_ARGUMENTS, RECIPE_GRAD, RECIPE_DTYPE, RECIPE_REFUSED, RECIPE_TEMPLATE,
 RECIPE_INPUT_COUNT, RECIPE_INPUTS, RECIPE_OP, RECIPE_ATTRS, RECIPE_IDENTITY, RECIPE_RESULT_DTYPE,
 RECIPE_SHAPE, RECIPE_DIFFERENTIABLE, RECIPE_TRACKED, RECIPE_LINES, RECIPE_CODE, RECIPE_PLACE,
 RECIPE_LOCATION, RECIPE_WORDS) = range(20)
"""Places in a recipe: arguments and their records; modes; an op that the first argument must not
be, or null; the template, or null; inputs of the node; what it is; whether its cell is tracked;
the list that keeps the last user's line, its code object, the place in it, and its location.
"""

ARGUMENT_TENSOR, ARGUMENT_SAME, ARGUMENT_WORDS = 0, 1, 5
"""Records (kind, type, dtype, shape, differentiable) of a tensor, or (kind, object, -, -, -)."""

INPUT_ARGUMENT, INPUT_NODE, INPUT_WORDS = 0, 1, 2
"""Records (kind, number of the argument or a node)."""

PENDING_CHECKED = 256
"""After so many cells registered, and as many again, it is looked whether too much is pending."""

NODE_FIELDS = (("op", RECIPE_OP), ("attrs", RECIPE_ATTRS), ("identity", RECIPE_IDENTITY),
               ("dtype", RECIPE_RESULT_DTYPE), ("shape", RECIPE_SHAPE),
               ("differentiable", RECIPE_DIFFERENTIABLE))


def emit(module: NativeModule) -> None:
    """Needs `native_modes.emit` and `native_replay.emit` in the same module."""
    _node_of(module)
    _signature_fits(module)
    _user_line(module)
    _inputs_of(module)
    _numbers_of(module)
    _key_of(module)
    _made(module)
    _remembered(module)
    _interned(module)
    _registered(module)
    _recorded_by(module)
    _recorded(module)


def _node_of(module: NativeModule) -> None:
    """The node that a tensor stands for, borrowed; null where it would have to be made."""
    f = module.native("node_of", "ptr", [("ptr", "tensor"), ("ptr", "grad")])
    tensor, grad = f.parameters
    no, clear = f.new_block("no"), f.new_block("clear")
    whole, seen, history = f.new_block("whole"), f.new_block("seen"), f.new_block("history")
    cell, view = f.slot(tensor, "Tensor", "_cell"), f.slot(tensor, "Tensor", "_view")
    f.where(f.is_null(cell), no)
    f.branch_if(f.same(view, f.none()), whole, seen)
    f.start_block(seen)  # only the leaf marker of a parameter, which the cell remembers
    f.where(f.same(f.slot(view, "View", "uid"), f.none()), no)
    cache = f.slot(cell, "Cell", "cache")
    f.where(f.same(cache, f.none()), no)
    marked = f.api("PyDict_GetItemWithError", cache, view)
    f.where(f.is_null(marked), clear)
    f.ret(marked)
    f.start_block(whole)
    node = f.slot(cell, "Cell", "node")
    counts = f.and_(f.same(f.slot(node, "Node", "differentiable"), f.given("True")),
                    f.same(grad, f.given("True")))
    plain = f.new_block("plain")
    f.branch_if(counts, history, plain)
    f.start_block(history)
    f.unless(f.same(f.slot(cell, "Cell", "tracked"), f.given("True")), no)
    f.unless(f.same(f.slot(tensor, "Tensor", "_detached"), f.given("False")), no)
    f.ret(node)
    f.start_block(plain)
    f.ret(node)
    f.start_refusal(clear, no)
    f.stop(None)


def _signature_fits(module: NativeModule) -> None:
    """Whether arguments have a recipe's signature; the tensors' nodes go into `nodes`."""
    f = module.native("signature_fits", "i1", [("ptr", "recipe"), ("ptr", "arguments"),
                                               ("ptr", "nodes"), ("ptr", "grad")])
    recipe, arguments, nodes, grad = f.parameters
    no, clear = f.new_block("no"), f.new_block("clear")
    refused = f.word("ptr", recipe, RECIPE_REFUSED)
    with f.loop(const("i64", 0), f.word("i64", recipe, RECIPE_COUNT)) as loop:
        record = f.offset(f.word("ptr", recipe, RECIPE_ARGUMENTS),
                          f.mul(loop.index, ARGUMENT_WORDS), "i64")
        argument, first = f.word("ptr", arguments, loop.index), f.word("ptr", record, 1)
        is_tensor, plain, after = f.new_block("tensor"), f.new_block("plain"), f.new_block("after")
        f.branch_if(f.icmp("eq", f.word("i64", record, 0), ARGUMENT_TENSOR), is_tensor, plain)
        f.start_block(plain)
        f.unless(f.same(argument, first), no)
        f.branch(after)
        f.start_block(is_tensor)
        f.unless(f.same(f.type_of(argument), first), no)
        node = f.call("node_of", "ptr", argument, grad)
        f.where(f.is_null(node), no)
        op = f.slot(node, "Node", "op")
        f.where(f.same(op, f.given("const")), no)
        f.where(f.same(op, refused), no)
        f.unless(f.same(f.slot(node, "Node", "dtype"), f.word("ptr", record, 2)), no)
        f.unless(f.same(f.slot(node, "Node", "differentiable"), f.word("ptr", record, 4)), no)
        shape, expected = f.slot(node, "Node", "shape"), f.word("ptr", record, 3)
        f.unless_equal(shape, expected, no, clear)
        f.put(node, nodes, loop.index)
        f.branch(after)
        f.start_block(after)
    f.stop(True)
    f.start_refusal(clear, no)
    f.stop(False)


def _user_line(module: NativeModule) -> None:
    """`here()`, a new reference; null where a file is new.  The last line of a recipe is kept."""
    f = module.native("user_line", "ptr", [("ptr", "recipe")])
    recipe = f.parameters[0]
    step, no, clear, found = (f.new_block(name) for name in ("step", "no", "clear", "found"))
    last, unknown, lost = f.new_block("last"), f.new_block("unknown"), f.new_block("lost")
    frame, code = f.alloca("ptr", 1, WORD), f.alloca("ptr", 1, WORD)
    first = f.api("PyEval_GetFrame")
    f.where(f.is_null(first), no)
    f.put(f.own(first), frame, 0)
    f.branch(step)
    f.start_block(step)
    here = f.word("ptr", frame, 0)
    known = f.api("PyFrame_GetCode", here)
    place = f.convert("sext", f.api("PyFrame_GetLasti", here), "i64")
    again = f.and_(f.same(known, f.word("ptr", recipe, RECIPE_CODE)),
                   f.icmp("eq", place, f.word("i64", recipe, RECIPE_PLACE)))
    f.branch_if(again, last, unknown)
    f.start_block(last)
    f.drop(known)
    f.drop(here)
    f.ret(f.own(f.word("ptr", recipe, RECIPE_LOCATION)))
    f.start_block(unknown)
    f.put(known, code, 0)
    file = f.attribute(known, "co_filename", lost)
    inside = f.api("PyDict_GetItemWithError", f.given("files inside"), file)
    f.where(f.is_null(inside), clear)
    f.where(f.same(inside, f.given("False")), found)
    f.drop(known)
    back = f.api("PyFrame_GetBack", here)
    f.drop(here)
    f.where(f.is_null(back), no)
    f.put(back, frame, 0)
    f.branch(step)
    f.start_block(found)
    line = f.convert("sext", f.api("PyFrame_GetLineNumber", here), "i64")
    f.drop(here)
    pair, made = f.api("PyTuple_New", const("i64", 2)), f.api("PyTuple_New", const("i64", 1))
    f.api("PyTuple_SetItem", pair, const("i64", 0), f.own(file))
    f.api("PyTuple_SetItem", pair, const("i64", 1), f.api("PyLong_FromLong", line))
    f.api("PyTuple_SetItem", made, const("i64", 0), pair)
    lines = f.word("ptr", recipe, RECIPE_LINES)
    f.put(known, recipe, RECIPE_CODE)
    f.put(place, recipe, RECIPE_PLACE)
    f.put(made, recipe, RECIPE_LOCATION)
    f.api("PyList_SetItem", lines, const("i64", 0), known)
    f.api("PyList_SetItem", lines, const("i64", 1), f.own(made))
    f.ret(made)
    f.start_block(clear)
    f.api("PyErr_Clear")
    f.branch(lost)
    f.start_block(lost)
    f.drop(f.word("ptr", frame, 0))
    f.drop(f.word("ptr", code, 0))
    f.branch(no)
    f.start_block(no)
    f.stop(None)


def _input(f: NativeFunction, recipe: Value, nodes: Value, index: Value) -> Value:
    """An input of the node, borrowed."""
    record = f.offset(f.word("ptr", recipe, RECIPE_INPUTS), f.mul(index, INPUT_WORDS), "i64")
    argument, fixed, both = f.new_block("argument"), f.new_block("fixed"), f.new_block("both")
    f.branch_if(f.icmp("eq", f.word("i64", record, 0), INPUT_ARGUMENT), argument, fixed)
    f.start_block(argument)
    given = f.word("ptr", nodes, f.word("i64", record, 1))
    f.branch(both)
    f.start_block(fixed)
    known = f.word("ptr", record, 1)
    f.branch(both)
    f.start_block(both)
    return f.phi("ptr", [(given, argument), (known, fixed)])


def _inputs_of(module: NativeModule) -> None:
    """The node's inputs as a tuple, a new reference; null with an error set."""
    f = module.native("inputs_of", "ptr", [("ptr", "recipe"), ("ptr", "nodes")])
    recipe, nodes = f.parameters
    failed = f.new_block("failed")
    count = f.word("i64", recipe, RECIPE_INPUT_COUNT)
    made = f.api("PyTuple_New", count)
    f.where(f.is_null(made), failed)
    with f.loop(const("i64", 0), count) as loop:
        f.api("PyTuple_SetItem", made, loop.index, f.own(_input(f, recipe, nodes, loop.index)))
    f.ret(made)
    f.start_block(failed)
    f.stop(None)


def _numbers_of(module: NativeModule) -> None:
    """The identities of a tuple's objects, a new reference; null with an error set."""
    f = module.native("numbers_of", "ptr", [("ptr", "things")])
    things = f.parameters[0]
    failed = f.new_block("failed")
    count = f.api("PyTuple_Size", things)
    made = f.api("PyTuple_New", count)
    f.where(f.is_null(made), failed)
    with f.loop(const("i64", 0), count) as loop:
        f.api("PyTuple_SetItem", made, loop.index,
              f.api("PyLong_FromVoidPtr", f.api("PyTuple_GetItem", things, loop.index)))
    f.ret(made)
    f.start_block(failed)
    f.stop(None)


def _key_of(module: NativeModule) -> None:
    """What the node is interned under, a new reference: (template, 0, (identities of inputs)) or
    (op, attributes, identities of inputs …); null with an error set.
    """
    f = module.native("interned_key", "ptr", [("ptr", "recipe"), ("ptr", "inputs")])
    recipe, inputs = f.parameters
    failed, folded, plain = f.new_block("failed"), f.new_block("folded"), f.new_block("plain")
    template = f.word("ptr", recipe, RECIPE_TEMPLATE)
    count = f.api("PyTuple_Size", inputs)
    f.branch_if(f.is_null(template), plain, folded)
    f.start_block(folded)
    numbers = f.call("numbers_of", "ptr", inputs)
    key = f.api("PyTuple_New", const("i64", 3))
    f.where(f.or_(f.is_null(key), f.is_null(numbers)), failed)
    for place, value in enumerate((f.own(template), f.own(f.given("0")), numbers)):
        f.api("PyTuple_SetItem", key, const("i64", place), value)
    f.ret(key)
    f.start_block(plain)
    flat = f.api("PyTuple_New", f.add(count, 2))
    f.where(f.is_null(flat), failed)
    for place, word in enumerate((RECIPE_OP, RECIPE_IDENTITY)):
        f.api("PyTuple_SetItem", flat, const("i64", place), f.own(f.word("ptr", recipe, word)))
    with f.loop(const("i64", 0), count) as loop:
        f.api("PyTuple_SetItem", flat, f.add(loop.index, 2),
              f.api("PyLong_FromVoidPtr", f.api("PyTuple_GetItem", inputs, loop.index)))
    f.ret(flat)
    f.start_block(failed)
    f.stop(None)


def _made(module: NativeModule) -> None:
    """The node, not interned yet; takes the location over.  Null with an error set."""
    f = module.native("made_node", "ptr", [("ptr", "recipe"), ("ptr", "inputs"),
                                           ("ptr", "location")])
    recipe, inputs, location = f.parameters
    failed, folded, plain, both = (f.new_block(name) for name in
                                   ("failed", "folded", "plain", "both"))
    template = f.word("ptr", recipe, RECIPE_TEMPLATE)
    f.branch_if(f.is_null(template), plain, folded)
    f.start_block(plain)
    op = f.api("PyType_GenericAlloc", f.given("Node"), const("i64", 0))
    f.where(f.is_null(op), failed)
    f.fill(op, "Node", "inputs", f.own(inputs))
    f.fill(op, "Node", "call", f.own(f.none()))
    before = f.label
    f.branch(both)
    f.start_block(folded)
    call = f.api("PyType_GenericAlloc", f.given("Call"), const("i64", 0))
    f.where(f.is_null(call), failed)
    for name, value in (("template", template), ("inputs", inputs), ("inside", f.given("()")),
                        ("folded", f.given("1")), ("built", f.none())):
        f.fill(call, "Call", name, f.own(value))
    result = f.api("PyType_GenericAlloc", f.given("Folded"), const("i64", 0))
    f.where(f.is_null(result), failed)
    f.fill(result, "Node", "call", call)
    f.fill(result, "Node", "part", f.own(f.given("0")))
    after = f.label
    f.branch(both)
    f.start_block(both)
    node = f.phi("ptr", [(op, before), (result, after)])
    for name, place in NODE_FIELDS:
        f.fill(node, "Node", name, f.own(f.word("ptr", recipe, place)))
    f.fill(node, "Node", "location", location)
    f.fill(node, "Node", "payload", f.own(f.none()))
    f.fill(node, "Node", "serial", f.api("PyIter_Next", f.given("serials")))
    f.ret(node)
    f.start_block(failed)
    f.drop(location)
    f.stop(None)


def _remembered(module: NativeModule) -> None:
    """`remember(key, made)`, which takes the node over: the one node of the key, a new reference;
    null with an error set.
    """
    f = module.native("remembered", "ptr", [("ptr", "key"), ("ptr", "made")])
    key, made = f.parameters
    table = f.given("interned")
    unentered, entered, another = (f.new_block(name) for name in
                                   ("unentered", "entered", "another"))
    mine, replaced = f.new_block("mine"), f.new_block("replaced")
    again = f.new_block("again")
    pair = f.alloca("ptr", 2, WORD)
    f.put(made, pair, 0)
    f.put(f.given("forget"), pair, 1)
    entry = f.api("PyObject_Vectorcall", f.given("Entry"), pair, const("i64", 2), NULL)
    f.branch_if(f.is_null(entry), unentered, entered)
    f.start_block(unentered)
    f.drop(made)
    f.stop(None)
    f.start_block(entered)
    f.api("PyObject_SetAttr", entry, f.given(".key"), key)
    first = f.api("PyDict_SetDefault", table, key, entry)
    f.branch_if(f.same(first, entry), mine, another)
    f.start_block(another)
    f.where(f.is_null(first), mine)
    other = f.api("PyObject_CallNoArgs", first)
    f.where(f.same(other, f.none()), replaced)
    f.where(f.is_null(other), mine)
    f.branch(again)
    f.start_block(replaced)  # the one before has gone
    f.drop(other)
    f.api("PyDict_SetItem", table, key, entry)
    f.branch(mine)
    f.start_block(again)  # made in the middle of this, by a finalizer or another thread
    f.drop(entry)
    f.drop(made)
    f.ret(other)
    f.start_block(mine)
    f.api("PyErr_Clear")
    f.drop(entry)
    f.ret(made)


def _interned(module: NativeModule) -> None:
    """The one node of the recipe on those inputs, a new reference; null with an error set, or where
    its user's line takes Python.
    """
    f = module.native("interned_node", "ptr", [("ptr", "recipe"), ("ptr", "nodes")])
    recipe, nodes = f.parameters
    no, unkeyed, absent, dead = (f.new_block(name) for name in ("no", "unkeyed", "absent", "dead"))
    lost = f.new_block("lost")
    inputs = f.call("inputs_of", "ptr", recipe, nodes)
    f.where(f.is_null(inputs), no)
    key = f.call("interned_key", "ptr", recipe, inputs)
    f.where(f.is_null(key), unkeyed)
    table = f.given("interned")
    known = f.api("PyDict_GetItemWithError", table, key)
    f.where(f.is_null(known), absent)
    there = f.api("PyObject_CallNoArgs", known)
    f.where(f.is_null(there), lost)
    f.where(f.same(there, f.none()), dead)
    f.drop(key)
    f.drop(inputs)
    f.ret(there)
    f.start_block(dead)
    f.drop(there)
    f.branch(absent)
    f.start_block(absent)
    f.api("PyErr_Clear")
    location = f.call("user_line", "ptr", recipe)
    f.where(f.is_null(location), lost)
    made = f.call("made_node", "ptr", recipe, inputs, location)
    f.where(f.is_null(made), lost)
    one = f.call("remembered", "ptr", key, made)
    f.where(f.is_null(one), lost)
    f.drop(key)
    f.drop(inputs)
    f.ret(one)
    f.start_block(lost)
    f.drop(key)
    f.branch(unkeyed)
    f.start_block(unkeyed)
    f.drop(inputs)
    f.branch(no)
    f.start_block(no)
    f.stop(None)


def _registered(module: NativeModule) -> None:
    """`wrap(node)`, which takes the reference over; null with an error set."""
    f = module.native("registered", "ptr", [("ptr", "node"), ("ptr", "tracked")])
    node, tracked = f.parameters
    failed, done, unbound = f.new_block("failed"), f.new_block("done"), f.new_block("unbound")
    tensor = f.call("tensor_of", "ptr", node)
    f.where(f.is_null(tensor), failed)
    cell = f.slot(tensor, "Tensor", "_cell")
    f.fill(cell, "Cell", "tracked", f.own(tracked))
    f.drop(f.given("False"))
    weak = f.api("PyWeakref_NewRef", cell, NULL)
    f.where(f.is_null(weak), unbound)
    pending = f.given("pending")
    f.api("PyList_Append", pending, weak)
    f.drop(weak)
    count = f.api("PyList_Size", pending)
    f.unless(f.icmp("eq", f.urem(count, PENDING_CHECKED), 0), done)
    bounded = f.api("PyObject_CallNoArgs", f.given("bound pending"))
    f.where(f.is_null(bounded), unbound)
    f.drop(bounded)
    f.branch(done)
    f.start_block(done)
    f.ret(tensor)
    f.start_block(unbound)
    f.drop(tensor)
    f.branch(failed)
    f.start_block(failed)
    f.stop(None)


def _recorded_by(module: NativeModule) -> None:
    """The tensor of an operation on so many arguments, a new reference; null where that takes
    Python.
    """
    f = module.native("recorded_by", "ptr",
                      [("ptr", "recipes"), ("ptr", "arguments"), ("i64", "count")])
    recipes, arguments, taken = f.parameters
    no, clear, fits = f.new_block("no"), f.new_block("clear"), f.new_block("fits")
    known, failed = f.new_block("known"), f.new_block("failed")
    nodes = f.alloca("ptr", MOST_ARGUMENTS, WORD)
    known_recipes = f.api("PyList_Size", recipes)
    f.where(f.icmp("eq", known_recipes, 0), no)
    modes = f.call("thread_modes", "ptr")
    f.where(f.is_null(modes), no)
    unless_default(f, modes, ("recording", "traced", "autocast"), no)
    f.unless(f.icmp("eq", f.api("PyTuple_Size", mode(f, modes, "location")), 0), no)
    grad = mode(f, modes, "grad")
    dtype = f.slot(f.given("default"), "_Default", "dtype")
    with f.loop(const("i64", 0), known_recipes) as loop:
        item = f.api("PyList_GetItem", recipes, loop.index)
        f.where(f.is_null(item), clear)
        recipe = f.api("PyLong_AsVoidPtr", item)
        right = f.and_(f.icmp("eq", f.word("i64", recipe, RECIPE_COUNT), taken), f.and_(
            f.same(f.word("ptr", recipe, RECIPE_GRAD), grad),
            f.same(f.word("ptr", recipe, RECIPE_DTYPE), dtype)))
        with f.when(right):
            matches = f.call("signature_fits", "i1", recipe, arguments, nodes, grad)
            f.where(matches, fits)
    f.branch(no)
    f.start_block(fits)
    f.own(item)  # keeps the recipe, whatever is done meanwhile
    node = f.call("interned_node", "ptr", recipe, nodes)
    f.where(f.is_null(node), failed)
    f.unless(f.same(f.slot(node, "Node", "payload"), f.none()), known)
    tensor = f.call("registered", "ptr", node, f.word("ptr", recipe, RECIPE_TRACKED))
    f.drop(item)
    f.ret(tensor)
    f.start_block(known)
    f.drop(node)
    f.branch(failed)
    f.start_block(failed)
    f.drop(item)
    f.branch(clear)
    f.start_refusal(clear, no)
    f.stop(None)


def _recorded(module: NativeModule) -> None:
    f = module.native("recorded", "ptr", [("ptr", "self"), ("ptr", "given"), ("i64", "count")],
                      linkage="")
    _, given, _ = f.parameters
    no, copied, yes = f.new_block("no"), f.new_block("copied"), f.new_block("yes")
    arguments = f.alloca("ptr", MOST_ARGUMENTS, WORD)
    held = f.word("ptr", given, 1)
    count = f.api("PyTuple_Size", held)
    f.where(f.icmp("sgt", count, MOST_ARGUMENTS), no)
    with f.loop(const("i64", 0), count) as loop:
        f.put(f.api("PyTuple_GetItem", held, loop.index), arguments, loop.index)
    f.branch(copied)
    f.start_block(copied)
    made = f.call("recorded_by", "ptr", f.word("ptr", given, 0), arguments, count)
    f.branch_if(f.is_null(made), no, yes)
    f.start_block(yes)
    f.ret(made)
    f.start_block(no)
    f.ret(f.own(f.none()))
