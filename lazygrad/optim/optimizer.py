"""`Optimizer`: parameter groups, state, and the step that records all updates and computes them
with the gradients.

An update is recorded as graph nodes, not computed: `step()` ends with a flush, so that one program
computes loss, gradients and new parameters.  What changes between steps must therefore not be a
constant of the graph, or every step would compile anew:

- the learning rate is a 0-d tensor, refreshed only when `group["lr"]` changes;
- any other number of a group is a constant until it changes for the first time, and a 0-d tensor
  from then on;
- the step count is a 0-d tensor, counted in the graph and shared by all parameters that have it in
  common.

`state_dict()` has PyTorch's layout.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy

import lazygrad as lg
from lazygrad._core import cell as cells
from lazygrad._core import graph
from lazygrad._core.context import now, operation
from lazygrad._core.tensor import raw_node, write
from lazygrad.nn.module_hooks import HookHandle
from lazygrad_compiler.ir.dtypes import DType, float32
from lazygrad_compiler.ir.node import Node

REQUIRED: Any = object()
"""The default of a setting that has none."""

ALWAYS_TENSORS = frozenset({"lr"})
"""Numbers that are 0-d tensors from the start, since schedules change them."""


class _Number:
    """A number of a group as the graph sees it: a constant, or a tensor once it has changed."""

    __slots__ = ("tensor", "value")

    def __init__(self, value: float, dtype: DType, as_tensor: bool) -> None:
        self.value = value
        self.tensor = _scalar(value, dtype) if as_tensor else None

    def refresh(self, value: float, dtype: DType) -> None:
        """Takes a new value, keeping the tensor's identity: compiled functions hold on to it."""
        self.value = value
        if self.tensor is None:
            self.tensor = _scalar(value, dtype)
        else:
            write(self.tensor, "optimizer", raw_node(_scalar(value, dtype)))


def _scalar(value: float, dtype: DType) -> lg.Tensor:
    """A 0-d tensor over data: an input of the program, never a constant."""
    return lg.from_numpy(numpy.array(value, dtype.numpy))


class Optimizer:
    """Base class.  A subclass passes `defaults` on and defines `_update_group`."""

    step_is_counted = False
    """Whether parameters have a `step` in their state."""

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state: defaultdict[lg.Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._numbers: dict[tuple[int, str, DType], _Number] = {}
        self._step_pre_hooks: OrderedDict[int, Any] = OrderedDict()
        self._step_post_hooks: OrderedDict[int, Any] = OrderedDict()
        self.steps_taken = 0
        if isinstance(params, lg.Tensor):
            raise TypeError("params argument given to the optimizer should be an iterable of "
                            "Tensors or dicts, but got a single Tensor; pass [tensor]")
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list; a generator such as "
                             "model.parameters() can be used only once")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)
        for group in self.param_groups:
            for parameter in group["params"]:
                cells.hold_as_data(parameter._cell)
        # Initial values are computed now, so that the first step is the same program as all that
        # follow.
        if now.recording is None:
            _compute()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group: {"params": tensors, "lr": ..., ...}; what it does not set comes from the
        defaults.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group).__name__}")
        given = param_group["params"]
        if isinstance(given, (set, frozenset)):
            raise TypeError("optimizer parameters need to be organized in ordered collections, "
                            "and sets have no order; use a list")
        parameters = [given] if isinstance(given, lg.Tensor) else list(given)
        names = None
        if parameters and isinstance(parameters[0], tuple):
            names = [name for name, _ in parameters]
            parameters = [parameter for _, parameter in parameters]
        for parameter in parameters:
            if not isinstance(parameter, lg.Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is "
                                f"{type(parameter).__name__}")
            if not parameter.is_leaf and not getattr(parameter, "retains_grad", False):
                raise ValueError("can't optimize a non-leaf Tensor: pass the tensors that were "
                                 "created, not ones computed from them")
        if len({id(parameter) for parameter in parameters}) != len(parameters):
            raise ValueError("some parameters appear more than once in a parameter group")
        taken = {id(parameter) for group in self.param_groups for parameter in group["params"]}
        if any(id(parameter) in taken for parameter in parameters):
            raise ValueError("some parameters appear in more than one parameter group")
        group = {**param_group, "params": parameters}
        if names is not None:
            group["param_names"] = names
        for name, default in self.defaults.items():
            if default is REQUIRED and name not in group:
                raise ValueError("parameter group didn't specify a value of required optimization "
                                 f"parameter {name}")
            group.setdefault(name, default)
        self.param_groups.append(group)

    # ---- stepping

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have a gradient.  `closure`: computes the loss anew and is
        called first.
        """
        for hook in list(self._step_pre_hooks.values()):
            hook(self, (closure,), {})
        loss = None
        if closure is not None:
            with lg.enable_grad():
                loss = closure()
        self._record()
        if now.recording is None:
            self._count()
        else:
            self._report(now.recording)
        # While a function is being compiled, its program does the computing.
        if now.recording is None:
            _compute()
        for hook in list(self._step_post_hooks.values()):
            hook(self, (closure,), {})
        return loss

    def _count(self) -> None:
        self.steps_taken += 1

    def _report(self, recorded: Any) -> None:
        """Tells `compile` what a replay takes for granted: the settings but for learning rates that
        are numbers, the groups, and the state.
        """
        groups, state = self.param_groups, self.state
        parameters = [parameter for group in groups for parameter in group["params"]]
        settings = [(group, name, value) for group in groups for name, value in group.items()
                    if name != "params" and (name != "lr" or isinstance(value, lg.Tensor))]
        lists = [(group, list(group["params"])) for group in groups]

        def holds() -> bool:
            if self.param_groups is not groups or len(groups) != len(lists) \
                    or self.state is not state:
                return False
            for group, before in lists:
                present = group["params"]
                if len(present) != len(before) or not all(map(operator.is_, present, before)):
                    return False
            return all(group.get(name) is value or (not isinstance(value, lg.Tensor)
                                                    and group.get(name) == value)
                       for group, name, value in settings)

        recorded.guards.append(holds)
        recorded.parameters += parameters
        recorded.after.append(self._count)

    @operation
    def _record(self) -> None:
        """Records the updates of all groups."""
        with lg.no_grad():
            for index, group in enumerate(self.param_groups):
                parameters = [parameter for parameter in group["params"]
                              if parameter._grad is not None]
                if not parameters:
                    continue
                if self.step_is_counted:
                    self._count_step(group, parameters)
                self._update_group(index, group, parameters)

    def _update_group(self, index: int, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        """Records the update of the group's parameters that have gradients."""
        raise NotImplementedError(f"{type(self).__name__} does not define _update_group")

    def _count_step(self, group: dict[str, Any], parameters: list[lg.Tensor]) -> None:
        """Adds 1 to the step counts, one count for all parameters that share it.

        Parameters that have no gradient this time keep their count: the others get a new one.
        """
        state = self.state
        fresh = None
        active: dict[int, list[lg.Tensor]] = {}
        counts: dict[int, lg.Tensor] = {}
        for parameter in parameters:
            of_parameter = state[parameter]
            count = of_parameter.get("step")
            if count is None:
                if fresh is None:
                    fresh = _scalar(0.0, float32)
                count = of_parameter["step"] = fresh
            counts[id(count)] = count
            active.setdefault(id(count), []).append(parameter)
        holders: dict[int, int] = defaultdict(int)
        for parameter in group["params"]:
            count = state[parameter].get("step") if parameter in state else None
            if count is not None:
                holders[id(count)] += 1
        for key, count in counts.items():
            if holders[key] != len(active[key]):
                separate = _scalar(0.0, float32)
                write(separate, "step", raw_node(count))
                for parameter in active[key]:
                    state[parameter]["step"] = separate
                count = separate
            write(count, "step", graph.add(raw_node(count), 1.0))

    def _number(self, index: int, name: str, value: Any, dtype: DType) -> Any:
        """A number of group `index` for the graph: a float (constant) or a 0-d node."""
        if isinstance(value, lg.Tensor):
            return graph.cast(graph.reshape(raw_node(value), ()), dtype)
        if now.recording is not None:
            if name != "lr":
                return value
            return raw_node(now.recording.mirror(
                (id(self), index, dtype), functools.partial(self._rate, index, dtype)))
        key = (index, name, dtype)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = _Number(value, dtype, name in ALWAYS_TENSORS)
        elif number.value != value:
            number.refresh(value, dtype)
        return number.value if number.tensor is None else raw_node(number.tensor)

    def _rate(self, index: int, dtype: DType) -> lg.Tensor:
        """The tensor of a group's learning rate, brought up to date."""
        self._number(index, "lr", self.param_groups[index]["lr"], dtype)
        tensor = self._numbers[(index, "lr", dtype)].tensor
        assert tensor is not None
        return tensor

    def _state_tensor(self, parameter: lg.Tensor, name: str, fill: float = 0.0) -> lg.Tensor:
        """A tensor of the parameter's state, made on first use.

        It holds data, not a constant: folded into the first step, a constant would make that a
        program of its own.
        """
        state = self.state[parameter]
        found = state.get(name)
        if found is None:
            array = numpy.zeros(tuple(parameter.shape), parameter.dtype.numpy)
            if fill:
                array.fill(fill)
            found = state[name] = lg.from_numpy(array)
        return found

    def _gradient(self, parameter: lg.Tensor, group: dict[str, Any], value: Node,
                  weight_decay: Any = 0) -> Node:
        """The gradient in the dtype the update computes in; negated where maximising, plus weight
        decay.
        """
        assert parameter._grad is not None
        gradient = graph.cast(graph.stop_gradient(raw_node(parameter._grad)), value.dtype)
        if group.get("maximize"):
            gradient = graph.unary("neg", gradient)
        if weight_decay.__class__ is Node or weight_decay != 0:
            gradient = graph.add(gradient, graph.mul(value, weight_decay))
        return gradient

    # ---- gradients

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients, or makes them zero."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter._grad is not None:
                    parameter.grad = None if set_to_none else lg.zeros_like(parameter._grad)

    # ---- hooks

    def register_step_pre_hook(self, hook: Callable) -> HookHandle:
        """`hook(optimizer, args, kwargs)` before each step."""
        return HookHandle(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> HookHandle:
        """`hook(optimizer, args, kwargs)` after each step."""
        return HookHandle(self._step_post_hooks, hook)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """{"state": by number of parameter, "param_groups": settings, "params" as numbers}, as in
        PyTorch.
        """
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for parameter in group["params"]:
                numbers.setdefault(id(parameter), len(numbers))
            packed = {name: value for name, value in group.items() if name != "params"}
            packed["params"] = [numbers[id(parameter)] for parameter in group["params"]]
            groups.append(packed)
        state = {numbers[id(parameter)]: dict(values) for parameter, values in self.state.items()
                 if id(parameter) in numbers}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over state and settings of an optimizer over equally many parameters in equal
        groups.
        """
        saved_groups = state_dict["param_groups"]
        if len(saved_groups) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups: "
                             f"{len(saved_groups)}, and this optimizer has "
                             f"{len(self.param_groups)}")
        for position, (saved, group) in enumerate(zip(saved_groups, self.param_groups)):
            if len(saved["params"]) != len(group["params"]):
                raise ValueError("loaded state dict contains a parameter group that doesn't match "
                                 f"the size of optimizer's group: group {position} has "
                                 f"{len(saved['params'])} parameters, and here it has "
                                 f"{len(group['params'])}")
        by_number = {number: parameter for saved, group in zip(saved_groups, self.param_groups)
                     for number, parameter in zip(saved["params"], group["params"])}
        state: defaultdict[lg.Tensor, dict[str, Any]] = defaultdict(dict)
        steps: dict[float, lg.Tensor] = {}
        for number, values in state_dict["state"].items():
            parameter = by_number.get(number)
            if parameter is None:
                raise ValueError(f"loaded state dict has state for parameter {number}, which no "
                                 "group lists")
            state[parameter] = {name: self._loaded(name, value, parameter, steps) for name,
                                value in values.items()}
        self.state = state
        self.param_groups = [{**{name: copy.deepcopy(value) for name, value in saved.items()
                                 if name != "params"}, "params": group["params"],
                              **({"param_names": group["param_names"]} if "param_names" in group
                                 else {})} for saved, group in zip(saved_groups, self.param_groups)]
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)

    def _loaded(self, name: str, value: Any, parameter: lg.Tensor,
                steps: dict[float, lg.Tensor]) -> Any:
        """A value of the state as this optimizer keeps it; equal step counts become one shared
        count.
        """
        if name == "step":
            count = float(value)
            if count not in steps:
                steps[count] = _scalar(count, float32)
            return steps[count]
        if not isinstance(value, lg.Tensor):
            return copy.deepcopy(value)
        if tuple(value.shape) not in ((), tuple(parameter.shape)):
            raise ValueError(f"loaded state {name!r} has shape {tuple(value.shape)}, and its "
                             f"parameter has {tuple(parameter.shape)}")
        same = not (parameter.is_floating_point() and value.is_floating_point())
        return value.detach().clone() if same else value.detach().clone().to(parameter.dtype)

    def __repr__(self) -> str:
        lines = [type(self).__name__ + " ("]
        for position, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {position}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


@operation
def _compute() -> None:
    cells.flush()


def compute_dtype(parameter: lg.Tensor) -> DType:
    """What an update computes in: 16-bit floats are updated in float32 and rounded once."""
    dtype = parameter.dtype
    return float32 if dtype.bits == 16 else dtype


def value_of(tensor: lg.Tensor, dtype: DType) -> Node:
    """The tensor's node in the dtype of the update."""
    return graph.cast(raw_node(tensor), dtype)


def check_not_negative(optimizer: str, **numbers: Any) -> None:
    """Raises ValueError for a setting below 0."""
    for name, value in numbers.items():
        if not isinstance(value, lg.Tensor) and not value >= 0.0:
            raise ValueError(f"{optimizer}: invalid {name}: {value}; it must be at least 0")


def check_betas(optimizer: str, betas: Iterable[Any]) -> None:
    """Raises ValueError for a decay rate outside [0, 1)."""
    for position, value in enumerate(betas):
        if not isinstance(value, lg.Tensor) and not 0.0 <= value < 1.0:
            raise ValueError(f"{optimizer}: invalid beta parameter at index {position}: {value}; "
                             "it must be in [0, 1)")


def with_values(parameters: Iterable[lg.Tensor]) -> Iterator[tuple[lg.Tensor, DType, Node]]:
    """Each parameter, the dtype of its update, and its value in that dtype."""
    for parameter in parameters:
        dtype = compute_dtype(parameter)
        yield parameter, dtype, value_of(parameter, dtype)
