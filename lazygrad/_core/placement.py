"""Devices: where tensors are computed, how they get from one to another, what may meet.

Nodes note their devices (`device_of`) from the moment that a program first uses another device than
the CPU: `start` switches it on, so that programs without one pay nothing.  A tensor's device is its
node's.  Only `transfer` nodes lead from device to device; the runtime makes one program for each
device of what lies between them.

What has no device of its own (numbers, random draws, arrays of the host inside an operation) is
made where it is used.  `now.device` is the device of the operation under way: results that depend
on no operand's values, such as `zeros_like(x)`, are put there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lazygrad._core import context, graph
from lazygrad._core.context import fail, now
from lazygrad._core.values import CPU, Device
from lazygrad_compiler.ir import node as nodes
from lazygrad_compiler.ir.node import Node, device_of

if TYPE_CHECKING:
    from lazygrad._core.tensor import Tensor

FREE = frozenset((
    "to", "cuda", "cpu", "to_device", "copy_", "type", "type_as", "tensor", "as_tensor", "asarray",
    "new_tensor", "backward", "grad", "synchronize", "register_hook",
    "register_post_accumulate_grad_hook", "set_", "is_set_to", "jvp", "vjp", "jacrev", "jacfwd",
    "hessian", "vmap", "linearize", "functional_call", "checkpoint", "get_state", "set_state",
))
"""Operations whose tensors may be on several devices."""

INDEXING = frozenset((
    "getitem", "setitem", "__getitem__", "__setitem__", "index_put", "index_put_", "index",
    "tensor_split", "repeat_interleave",
))
"""Operations that take indices from the CPU for a tensor elsewhere."""

_devices: dict[str, Device] = {"cpu": CPU}


def start() -> None:
    """From now on nodes note their devices."""
    from lazygrad._core import tensor, values
    from lazygrad.functional import elementwise

    nodes.placing = context.placing = tensor.placing = values.placing = True
    elementwise.placing = True


def label(where: Any, name: str) -> str:
    """The label of a device that is there: "cpu", "cuda:0", ….  TensorError where it is not."""
    found = parsed(where, name)
    if found.type == "cpu":
        return "cpu"
    if found.type == "meta":
        raise fail(name, "there is no device meta",
                   "Leave it out: tensors have shapes and dtypes at once, and no values, nor "
                   "memory for them, before something looks.")
    if found.type != "cuda":
        raise fail(name, f"there is no device {where} for tensors",
                   "Tensors live on 'cpu' and 'cuda'.")
    from lazygrad_runtime.cuda.context import device_at
    from lazygrad_runtime.cuda.errors import NoDevice

    index = current_index() if found.index is None else found.index
    try:
        device = device_at(f"cuda:{index}")
    except NoDevice as error:
        said = str(error).removeprefix("[cuda] ")
        raise fail(name, f"there is no device {where} for tensors: {said}",
                   "Tensors live on 'cpu' here.") from None
    if not nodes.placing:
        start()
    return device.label


def runtime_device(where: Any, name: str) -> Any:
    """The runtime's CUDA device: the current one, or that of a name or number.  TensorError where
    it is not there.
    """
    from lazygrad_runtime.cuda.context import device_at

    place = label("cuda" if where is None else where, name)
    if place == "cpu":
        raise fail(name, "takes a CUDA device, not 'cpu'", kind=ValueError)
    return device_at(place)


def is_there(kind: str) -> bool:
    """Whether there is a device of a type."""
    if kind != "cuda":
        return kind == "cpu"
    from lazygrad_runtime.cuda.driver import device_count

    return device_count() > 0


def in_use() -> bool:
    """Whether another device than the CPU was used."""
    return nodes.placing


def parsed(where: Any, name: str) -> Device:
    """A device from a `Device`, a name, or a number of a CUDA device."""
    from lazygrad._core.values import device

    if isinstance(where, int) and not isinstance(where, bool):
        return Device("cuda", where)
    return device(where)


class _Index:
    current = 0


def current_index() -> int:
    """The CUDA device that "cuda" stands for."""
    return _Index.current


def set_current_index(index: int) -> None:
    _Index.current = index


def as_device(text: str) -> Device:
    """The `Device` of a label."""
    found = _devices.get(text)
    if found is None:
        kind, _, number = text.partition(":")
        found = _devices[text] = Device(kind, int(number))
    return found


def label_of(tensor: Tensor) -> str:
    return device_of(tensor._cell.node) or "cpu"


# ---- the default


_outer: list[Any] = []


def set_default(where: Any) -> None:
    """Tensors are made there from now on, where nothing else is said.  None: on the CPU."""
    text = "cpu" if where is None else label(where, "set_default_device")
    now.default_device = None if text == "cpu" else text


def enter_default(where: Any) -> None:
    before = now.default_device
    set_default(where)
    _outer.append(before)


def leave_default() -> None:
    now.default_device = _outer.pop()


# ---- nodes


def moved(node: Node, device: str) -> Node:
    """The node's value on a device: a copy, which gradients follow back."""
    source = device_of(node) or "cpu"
    if source == device:
        return node
    return graph.make("transfer", node, attrs=(device, source))


def settled(node: Node) -> Node:
    """A result of the operation under way; one without a device of its own is put on that of the
    operation.
    """
    device = now.device
    if device is None or device == "cpu" or device_of(node) is not None:
        return node
    return made_on(node, device)


def made_on(node: Node, device: str) -> Node:
    """What has no device yet, on a device: computed there, or copied where the host holds it."""
    source = "cpu" if node.payload is not None else ""
    made = graph.make("transfer", node, attrs=(device, source))
    if made.payload is not None and not made.payload.there:
        made.payload = None  # an equal node's, whose value went with a lost context
    return made


def constant_buffer(node: Node) -> Any:
    """The value of a constant that was placed on a device."""
    import numpy

    from lazygrad_runtime.cuda.context import device_at
    from lazygrad_runtime.cuda.transfer import filled
    from lazygrad_runtime.memory import Buffer

    value, device = node.inputs[0].attrs[0], device_at(node.attrs[0])
    if value == 0 and str(value) != "-0.0":
        return filled(device, node.nbytes, 0)
    full = numpy.full(node.shape, value, node.dtype.numpy)
    return device.staging.upload(Buffer.from_numpy(full))


def onto(node: Node, tensor: Tensor) -> Node:
    """A node on a tensor's device: its gradient, say."""
    return beside(node, tensor._cell.node)


def beside(node: Node, other: Node) -> Node:
    """A node on another one's device."""
    device = device_of(other) or "cpu"
    if device_of(node) is None:
        return node if device == "cpu" else made_on(node, device)
    return moved(node, device)


def for_write(tensor: Tensor, name: str, value: Node) -> Node:
    """A value that is about to be written into a tensor, on the tensor's device."""
    device, source = label_of(tensor), device_of(value)
    if source is not None and source != device and value.shape and name != "copy_":
        raise _apart(name, [device, source])
    return onto(value, tensor)


# ---- operations


def call(function: Callable[..., Any], arguments: Any, keywords: dict[str, Any]) -> Any:
    """An operation on tensors of one device, with that device for what it makes."""
    from lazygrad._core.tensor import Tensor

    labels: dict[str, None] = {}
    for value in (*arguments, *keywords.values()):
        if isinstance(value, Tensor):
            labels[label_of(value)] = None
        elif isinstance(value, (list, tuple)):
            for item in value:
                if isinstance(item, Tensor):
                    labels[label_of(item)] = None
    name = function.__name__
    if len(labels) > 1 and name not in FREE:
        device = _common(name, list(labels), arguments)
        arguments = [_brought(name, value, device, number) for number, value in
                     enumerate(arguments)]
        keywords = {key: _brought(name, value, device, 1) for key, value in keywords.items()}
        now.device = device
    else:
        now.device = next(iter(labels), None) if name not in FREE else None
    return function(*arguments, **keywords)


def operands(name: str, left: Any, right: Any) -> tuple[Any, Any]:
    """The operands of a binary operator, on one device."""
    from lazygrad._core.tensor import Tensor

    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return left, right
    labels = [label_of(left), label_of(right)]
    if labels[0] == labels[1]:
        return left, right
    device = _common(name, labels, ())
    return _brought(name, left, device, 0), _brought(name, right, device, 1)


def _common(name: str, labels: Sequence[str], arguments: Sequence[Any]) -> str:
    """The device that an operation on tensors of several devices happens on."""
    from lazygrad._core.tensor import Tensor

    others = [each for each in labels if each != "cpu"]
    inplace = name.endswith("_") and arguments and isinstance(arguments[0], Tensor)
    if len(others) > 1 or (inplace and label_of(arguments[0]) == "cpu"):
        raise _apart(name, labels)
    return others[0]


def _brought(name: str, value: Any, device: str, number: int) -> Any:
    """An argument on the operation's device: single numbers come over by themselves, and so do
    indices.
    """
    from lazygrad._core.tensor import Tensor, node_of, shape_of, wrap

    if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
        items = [_brought(name, item, device, number) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if not isinstance(value, Tensor) or label_of(value) == device:
        return value
    if shape_of(value) and not (number and name in INDEXING):
        raise _apart(name, [device, label_of(value)])
    return wrap(moved(node_of(value), device))


def _apart(name: str, labels: Sequence[str]) -> Exception:
    other = next(each for each in labels if each != "cpu")
    return fail(name, f"all tensors must be on the same device, and these are on "
                f"{' and '.join(labels)}", f"Copy one of them, for instance with x.to({other!r}).")


def choose(where: Any, name: str) -> None:
    """Notes the device that an operation was asked for by `device=`; None: the default."""
    device = now.default_device if where is None and now.device is None else where
    if device is None:
        return
    text = label(device, name)
    if now.location:
        now.device = text
