"""Tensor: a handle on a storage cell, perhaps through a view.

A handle holds no value.  `node_of` reads the node that it stands for now, cut off from history that
does not count; `wrap` makes a handle for a new node.  The methods that compute are functions of
`lazygrad.functional`, put on the class by `_core.attach`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from lazygrad._core import cell as cells
from lazygrad._core import graph, placement
from lazygrad._core.cell import Cell, View, cell_of, mark, register
from lazygrad._core.context import fail, here, now
from lazygrad._core.observe import Observed, shape_of
from lazygrad._core.observe import array_of as array_of
from lazygrad._core.steps import first_byte, write_back
from lazygrad._core.types import CATEGORY
from lazygrad._core.values import CPU, STRIDED, Device, GradFunction, Size
from lazygrad_compiler.ir.dtypes import DType
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import OPS, listed

_uids = itertools.count(1)
variables: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
"""The leaf tensor of every variable marker, as long as it lives."""

_new = object.__new__

placing = False
"""Whether another device than the CPU is in use (`placement.start`)."""


class Tensor(Observed):
    """An array of one dtype whose value is computed when it is looked at.

    Names and meaning are PyTorch's.  Make one with `lazygrad.tensor`, `zeros`, `from_numpy`, ….
    """

    __slots__ = ("_cell", "_detached", "_view")

    _cell: Cell
    _view: View | None
    _detached: bool
    _grad: Tensor | None = None
    _hooks: dict[int, Callable[..., Any]] | None = None
    _post_hooks: dict[int, Callable[..., Any]] | None = None
    _retains_grad: bool = False
    _origin: Tensor | None = None
    """Of a view of a detached tensor: that tensor, which a write through the view gives history."""
    _version = property(lambda self: self._cell.version)
    __array_priority__ = 1000

    def __new__(cls, *arguments: Any, **keywords: Any) -> Any:
        """`Tensor(2, 3)`: uninitialised (here: zero) of that shape; `Tensor([…])`: a float copy."""
        from lazygrad._core.types import default
        from lazygrad.functional import creation
        if len(arguments) == 1 and not isinstance(arguments[0], int):
            value = arguments[0]
            if isinstance(value, Tensor):
                return value.detach()
            if isinstance(value, Size):
                return creation.empty(value)
            return creation.tensor(value, dtype=default.dtype)
        return creation.empty(arguments or (0,))

    if TYPE_CHECKING:
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...

    # ---- what it is

    @property
    def shape(self) -> Size:
        view = self._view
        return Size(self._cell.node.shape if view is None else view.shape)

    @property
    def dtype(self) -> DType:
        view = self._view
        return self._cell.node.dtype if view is None else view.dtype or self._cell.node.dtype

    @property
    def device(self) -> Device:
        return placement.as_device(placement.label_of(self)) if placing else CPU

    @property
    def ndim(self) -> int:
        return len(shape_of(self))

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.numel() * self.dtype.itemsize

    is_sparse = is_quantized = is_meta = is_nested = property(lambda self: False)
    is_cuda = property(lambda self: self.device.type == "cuda")
    is_cpu = property(lambda self: self.device.type == "cpu")
    layout = property(lambda self: STRIDED)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one size of it."""
        shape = self.shape
        if dim is None:
            return shape
        try:
            return shape[dim]
        except IndexError:
            raise fail("size", f"dim {dim} does not exist in {listed(shape)}",
                       kind=IndexError) from None

    def dim(self) -> int:
        return len(shape_of(self))

    ndimension = dim

    def numel(self) -> int:
        return math.prod(shape_of(self))

    nelement = numel

    def element_size(self) -> int:
        return self.dtype.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Elements to skip in memory for one step along each axis."""
        strides = strides_of(self)
        return strides if dim is None else strides[dim]

    def is_contiguous(self, memory_format: Any = None) -> bool:
        view = self._view
        if view is None or view.strides is None:
            return True
        expected = contiguous_strides(view.shape)
        return all(size == 1 or have == want for size, have, want
                   in zip(view.shape, view.strides, expected, strict=True)) or 0 in view.shape

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating

    def is_complex(self) -> bool:
        return self.dtype.is_complex

    def is_signed(self) -> bool:
        return self.dtype.is_signed

    def data_ptr(self) -> int:
        """The address of the first element.  The value gets computed; a write moves it."""
        start = first_byte(self._cell.node, self._view)
        if not self.numel():
            return 0
        if self.is_cuda:
            buffer: Any = cells.computed(self._cell.node)
            return int(buffer.address) + start
        return cells.cell_values(self._cell).ctypes.data + start

    def storage_offset(self) -> int:
        """Elements of the base tensor before the first one of this view."""
        return first_byte(self._cell.node, self._view) // self.dtype.itemsize

    def __len__(self) -> int:
        shape = shape_of(self)
        if not shape:
            raise fail("len", "a 0-d tensor has no length", "Use .item() for its value.", TypeError)
        return shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not shape_of(self):
            raise fail("iter", "a 0-d tensor has no elements to go over",
                       "Use .item() for its value.", TypeError)
        return iter([self[position] for position in range(len(self))])

    __hash__ = object.__hash__

    # ---- autograd

    @property
    def requires_grad(self) -> bool:
        view = self._view
        return (view is not None and view.uid is not None) or \
            (self._cell.tracked and not self._detached)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Makes a leaf collect gradients in `.grad`, or stop doing so."""
        if requires_grad == self.requires_grad:
            return self
        if not requires_grad:
            if not self.is_leaf:
                raise fail(
                    "requires_grad_",
                    "only leaves can stop requiring gradients; this tensor was computed",
                    "Use x.detach() to cut its history off.",
                )
            view = self._view
            assert view is not None
            self._view = view.unmarked()
            self._detached = True
            return self
        if not self.dtype.is_differentiable:
            raise fail(
                "requires_grad_",
                f"only floating tensors have gradients, not {self.dtype.name}",
                "Convert it with .float() first.",
            )
        steps = self._view.steps if self._view is not None else ()
        uid = next(_uids)
        view = self._view
        self._view = View(steps, shape_of(self), None if view is None else view.strides, uid,
                          len(steps), None if view is None else view.dtype)
        variables[uid] = self
        return self

    @property
    def is_leaf(self) -> bool:
        return not self.requires_grad or self._leaf_uid() is not None

    def _leaf_uid(self) -> int | None:
        view = self._view
        if view is not None and view.uid is not None and variables.get(view.uid) is self:
            return view.uid
        return None

    @property
    def grad_fn(self) -> GradFunction | None:
        if not self.requires_grad or self.is_leaf:
            return None
        return GradFunction(node_of(self))

    @property
    def grad(self) -> Tensor | None:
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise fail("grad", f"a gradient is a tensor or None, not {type(value).__name__}",
                           kind=TypeError)
            if shape_of(value) != shape_of(self):
                raise fail("grad", f"the gradient {listed(value.shape)} does not have the tensor's "
                           f"shape {listed(self.shape)}")
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def data(self) -> Tensor:
        """The same memory without history; writes to it are not tracked."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        """Makes this tensor a handle on the memory of another one."""
        if not isinstance(value, Tensor):
            raise fail("data", f"data is a tensor, not {type(value).__name__}", kind=TypeError)
        view, seen = self._view, value._view
        uid = None if view is None else view.uid
        if uid is not None and not value.dtype.is_differentiable:
            raise fail("data", f"a tensor that requires gradients cannot be {value.dtype.name}",
                       "Say x.requires_grad_(False) first.")
        self._cell, self._detached = value._cell, True
        self._view = None if seen is None else seen.unmarked()
        if uid is not None:
            steps = () if seen is None else seen.steps
            self._view = View(steps, shape_of(value), None if seen is None else seen.strides, uid,
                              len(steps), None if seen is None else seen.dtype)

    def detach(self) -> Tensor:
        """The same memory without history."""
        view = self._view
        return handle(self._cell, None if view is None else view.unmarked(), True)

    def detach_(self) -> Tensor:
        """Drops this tensor's history."""
        if self.requires_grad:
            if self._view is not None and self._view.uid is not None:
                self._view = self._view.unmarked()
            self._detached = True
        return self

    def backward(self, gradient: Tensor | None = None, retain_graph: bool | None = None,
                 create_graph: bool = False, inputs: Any = None) -> None:
        """Adds the gradients of this value to `.grad` of the leaves that it was computed from."""
        from lazygrad._core.engine import backward
        backward([self], [gradient], retain_graph, create_graph, inputs)

    def explain(self) -> str:
        """What computing this tensor would take, as text: kernels with their work and lines, why
        they are not one, and the memory.  Nothing is computed.
        """
        from lazygrad.explain.tensor import explain
        return explain(self)

    def retain_grad(self) -> None:
        """Makes a computed tensor keep its gradient in `.grad`, too."""
        from lazygrad._core.engine import retain_grad
        retain_grad(self)

    @property
    def retains_grad(self) -> bool:
        return self._retains_grad and not self.is_leaf

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Any:
        """Calls `hook(gradient)` in backward; what it returns replaces the gradient."""
        from lazygrad._core.engine import register_hook
        return register_hook(self, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> Any:
        """Calls `hook(tensor)` after a gradient was added to `.grad` of this leaf."""
        from lazygrad._core.engine import register_post_hook
        return register_post_hook(self, hook)

    # ---- copies

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if not self.is_leaf:
            raise fail("deepcopy", "only leaves can be copied deeply; this tensor has history",
                       "Copy x.detach().")
        result: Any = _new(type(self))
        memo[id(self)] = result
        result.__dict__.update({name: value for name, value in self.__dict__.items()
                                if name != "_grad"})
        cell, view = self._cell, self._view
        made = memo.get(id(cell))
        if made is None:  # views of one memory are views of one copy
            made = memo[id(cell)] = cell_of(cell.node)
            register(made)
        result._cell, result._view, result._detached = made, view and view.unmarked(), False
        if self.requires_grad:
            result.requires_grad_()
        if self._grad is not None:
            import copy
            result._grad = copy.deepcopy(self._grad, memo)
        return result

    def __copy__(self) -> Tensor:
        result: Any = _new(type(self))
        result.__dict__.update(self.__dict__)
        result._cell, result._view, result._detached = self._cell, self._view, self._detached
        if self._leaf_uid() is not None:
            result._view, result._detached = None, True
            result.requires_grad_()
        return result

    def as_subclass(self, cls: type) -> Any:
        """A handle of a subclass of Tensor on the same memory, with the same history."""
        if not (isinstance(cls, type) and issubclass(cls, Tensor)):
            raise fail("as_subclass", f"{cls!r} is no subclass of Tensor", kind=TypeError)
        result: Any = _new(cls)
        result._cell, result._view, result._detached = self._cell, self._view, self._detached
        return result

    @staticmethod
    def _make_subclass(cls: type, data: Tensor, require_grad: bool = False) -> Any:
        """A handle of a subclass of Tensor on the memory of `data`."""
        result: Any = _new(cls)
        result._cell, result._detached = data._cell, True
        result._view = data._view and data._view.unmarked()
        if require_grad:
            result.requires_grad_()
        return result


def handle(cell: Cell, view: View | None = None, detached: bool = False) -> Tensor:
    """A tensor for a cell."""
    made = _new(Tensor)
    made._cell = cell
    made._view = view
    made._detached = detached
    return made


def wrap(node: Node) -> Tensor:
    """A tensor for a node just recorded."""
    if placing:
        node = placement.settled(node)
    made = cell_of(node, node.differentiable and now.grad)
    register(made)
    return handle(made)


def known_tensor(leaf: Node) -> Tensor:
    """`wrap` for a node that has its value and no history, outside of recordings and traces."""
    if placing:
        return wrap(leaf)
    return handle(cell_of(leaf))


def node_of(tensor: Tensor) -> Node:
    """The node that a tensor stands for, cut off from history where that does not count."""
    cell = tensor._cell
    view = tensor._view
    node = cell.node if view is None else cell.read(view)
    if node.differentiable and now.grad and (tensor._detached or not cell.tracked) \
            and (view is None or view.uid is None):
        return graph.stop_gradient(node)
    return node


def raw_node(tensor: Tensor) -> Node:
    """The value's node without the leaf's own marker."""
    view = tensor._view
    if view is None:
        return tensor._cell.node
    plain = view if view.uid is None else view.unmarked()
    return tensor._cell.node if plain is None else tensor._cell.read(plain)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements, as PyTorch counts them."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def strides_of(tensor: Tensor) -> tuple[int, ...]:
    view = tensor._view
    if view is None or view.strides is None:
        return contiguous_strides(shape_of(tensor))
    return view.strides


def make_view(tensor: Tensor, step: str, attrs: tuple, shape: tuple[int, ...],
              strides: tuple[int, ...]) -> Tensor:
    """A handle on the same cell, one movement step further."""
    return make_views(tensor, ((OPS[step], attrs, now.location or here()),), shape, strides)


def make_views(tensor: Tensor, entries: tuple, shape: tuple[int, ...],
               strides: tuple[int, ...]) -> Tensor:
    """A handle on the same cell, some steps (definition, attrs, location) further."""
    view = tensor._view
    if view is None:
        seen = View(entries, shape, strides)
    else:
        uid = view.uid if now.grad else None
        seen = View(view.steps + entries, shape, strides, uid, view.depth, view.dtype)
    if not tensor._detached:
        return handle(tensor._cell, seen, not now.grad)
    made = handle(tensor._cell, seen, True)
    if now.grad:
        made._origin = tensor
    return made


def _take_history(tensor: Tensor) -> None:
    """Gives a detached handle, and those it is a view of, a cell whose history is their own."""
    cell, current = tensor._cell, tensor
    made = cells.second_cell(cell)
    while True:
        current._cell, current._detached = made, False
        origin = current._origin
        if origin is None or origin._cell is not cell or not origin._detached:
            return
        current = origin


def write(tensor: Tensor, name: str, value: Node) -> Tensor:
    """Makes `value` (broadcast to the shape, cast to the dtype) the value, for all aliases."""
    cell, view = tensor._cell, tensor._view
    if now.grad and view is not None and view.uid is not None:
        what = "a leaf that requires gradients" if tensor.is_leaf else \
            "a view of a leaf that requires gradients"
        raise fail(
            name,
            f"{what} was changed in place",
            "Do it within `with lazygrad.no_grad():`, or use the operation that returns a new "
            "tensor.",
        )
    shape, dtype = shape_of(tensor), tensor.dtype
    if CATEGORY[value.dtype] > CATEGORY[dtype]:
        raise fail(name, f"a {value.dtype.name} result cannot be put into a {dtype.name} tensor",
                   "Use the operation that returns a new tensor, or convert first.")
    value = graph.cast(value, dtype)
    if value.shape != shape:
        if graph.broadcast_shape(name, value.shape, shape) != shape:
            raise fail(name, f"{listed(value.shape)} does not fit into the tensor's "
                       f"{listed(shape)} in place", "Use the operation that returns a new tensor.")
        value = graph.broadcast(value, shape)
    if placing:
        value = placement.for_write(tensor, name, value)
    if now.grad and value.differentiable and tensor._detached:
        _take_history(tensor)
        cell = tensor._cell
    node = value if view is None or not view.steps else write_back(cell, view, value, name)
    if cell.tracked and (not now.grad or (tensor._detached and not value.differentiable)):
        from lazygrad._core.engine import with_history
        cell.set(with_history(node, cell.node), True)
        return tensor
    if cell.tracked and not node.differentiable and node.dtype.is_differentiable:
        # Overwritten by a constant: the tensor still requires gradients, though none flow further.
        node = mark(node, next(_uids))
    cell.set(node, node.differentiable and now.grad)
    return tensor


def synchronize() -> None:
    """Computes everything that is pending."""
    if cells._pending or now.traced is not None or cells.observation_callbacks:
        cells.flush()
