"""The native way into an operation by its operator: `emit` writes it, as LLVM IR.

    operator_NAME(left, right)   is `Tensor.NAME`, such as `__add__`: records by a recipe
                                 (`native_record`), else calls the method of Python

So `x + y` goes from the interpreter to native code with nothing of Python between, and the first
frame that is looked at for the user's line is the user's.
"""

from __future__ import annotations

from lazygrad_compiler.llvm.builder import Value, const
from lazygrad_runtime.native import METH_NOARGS, METH_O, WORD, NativeModule
from lazygrad_runtime.native_memory import NULL

_BINARY = ("add sub mul truediv floordiv mod pow and or xor lshift rshift radd rsub rmul rtruediv "
           "rfloordiv rmod rpow rand ror rxor rlshift rrshift eq ne lt le gt ge matmul")
_UNARY = "neg abs invert"

OPERATORS = {f"__{name}__": flags for names, flags in ((_BINARY, METH_O), (_UNARY, METH_NOARGS))
             for name in names.split()}
"""Methods of Tensor, and how they are called."""


def emit(module: NativeModule) -> None:
    """Needs `native_record.emit` in the same module."""
    _operated(module)
    for name, flags in OPERATORS.items():
        f = module.native(f"operator{name}", "ptr", [("ptr", "left"), ("ptr", "right")],
                          linkage="")
        left, right = f.parameters
        f.ret(f.call("operated", "ptr", f.given(f"recipes of {name}"), f.given(f"method {name}"),
                     left, right if flags == METH_O else NULL))


def _operated(module: NativeModule) -> None:
    """The result of an operator, given its recipes and its method; right: null where it has one
    operand.
    """
    f = module.native("operated", "ptr", [("ptr", "recipes"), ("ptr", "method"), ("ptr", "left"),
                                          ("ptr", "right")])
    recipes, method, left, right = f.parameters
    slowly, out = f.new_block("slowly"), f.new_block("out")
    operands = f.alloca("ptr", 2, WORD)
    f.put(left, operands, 0)
    f.put(right, operands, 1)
    count: Value = f.select(f.is_null(right), const("i64", 1), const("i64", 2))
    made = f.call("recorded_by", "ptr", recipes, operands, count)
    f.branch_if(f.is_null(made), slowly, out)
    f.start_block(out)
    f.ret(made)
    f.start_block(slowly)
    f.ret(f.api("PyObject_Vectorcall", method, operands, count, NULL))
