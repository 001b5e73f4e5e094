"""`Optimizer`: parameter groups, state, and the step that records all updates and computes them
with the gradients.

An update is recorded as graph nodes, not computed: `step()` ends with a flush, so that one program
computes loss, gradients and new parameters.  What changes between steps must therefore not be a
constant of the graph, or every step would compile anew:

- the learning rate is a 0-d tensor, refreshed only when `group["lr"]` changes;
- any other number of a group is a constant until it changes for the first time, and a 0-d tensor
  from then on;
- the step count, and what else is one number that moves with it, are 0-d tensors, advanced in the
  graph and shared by all parameters of a group that have them in common.

`state_dict()` has PyTorch's layout.
"""

from __future__ import annotations

import copy
import functools
import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy

import lazygrad as lg
from lazygrad._core import cell as cells
from lazygrad._core import graph
from lazygrad._core.composite import Composite
from lazygrad._core.context import now, operation
from lazygrad._core.entries import Entry
from lazygrad._core.tensor import raw_node, wrap, write
from lazygrad.optim.arithmetic import compute_dtype
from lazygrad.optim.optimizer_hooks import GLOBAL_POST_HOOKS, GLOBAL_PRE_HOOKS, Hooked
from lazygrad_compiler.ir.dtypes import DType, float32
from lazygrad_compiler.ir.node import Node
from lazygrad_runtime.memory import Buffer

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


def _scalar(value: float, dtype: DType, device: Any = "cpu") -> lg.Tensor:
    """A 0-d tensor over data: an input of the program, never a constant."""
    made = lg.from_numpy(numpy.array(value, dtype.numpy))
    return made if device == "cpu" else made.to(device)


class Optimizer(Hooked, Entry):
    """Base class.  A subclass passes `defaults` on and defines `_update_group`."""

    step_is_counted = False
    """Whether parameters have a `step` in their state."""

    moving_numbers: Mapping[str, Any] = {}
    """Other 0-d states that parameters with a common step count share, and their first values; the
    name of a setting stands for its value."""

    moved_by_replays = frozenset({"steps_taken"})
    """Attributes that a replay of `step` changes just as a step does: no recording depends on them.
    """

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        super().__init__()
        name = type(self).__name__
        if defaults.get("differentiable"):
            raise NotImplementedError(f"{name}: differentiable=True is not supported; write the "
                                      "update with tensors, which autograd follows")
        if defaults.get("foreach") and defaults.get("fused"):
            raise RuntimeError(f"{name}: `fused` and `foreach` cannot be `True` together; both are "
                               "accepted and change nothing here")
        self.defaults = defaults
        self.state: defaultdict[lg.Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self._numbers: dict[tuple[int, str, DType], _Number] = {}
        self.steps_taken = 0
        if isinstance(params, lg.Tensor):
            raise TypeError("params argument given to the optimizer should be an iterable of "
                            "Tensors or dicts, but got a single Tensor; pass [tensor]")
        if not hasattr(params, "__iter__"):
            raise TypeError("an optimizer takes parameters: tensors, or dicts of them for groups; "
                            f"got {type(params).__name__}"
                            + ("; pass model.parameters()" if hasattr(params, "parameters")
                               else ""))
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
        if "params" not in param_group:
            raise ValueError('a parameter group needs its tensors under "params", and has '
                             f"{', '.join(map(repr, param_group)) or 'nothing'}")
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
        for hook in [*GLOBAL_PRE_HOOKS.values(), *self._step_pre_hooks.values()]:
            closure = self._changed_closure(hook, closure)
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
        for hook in [*self._step_post_hooks.values(), *GLOBAL_POST_HOOKS.values()]:
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

        def changed() -> str:
            """What does not hold any more, for people."""
            return "; ".join(
                f"{type(self).__name__}'s {name}: {value!r} -> {group.get(name)!r}"
                for group, name, value in settings if group.get(name) is not value
                and (isinstance(value, lg.Tensor) or group.get(name) != value)
            ) or f"the parameters or the state of {type(self).__name__}"

        holds.changed = changed  # type: ignore[attr-defined]
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
        fresh: dict[Any, dict[str, lg.Tensor]] = {}  # by device
        active: dict[int, list[lg.Tensor]] = {}
        counts: dict[int, lg.Tensor] = {}
        for parameter in parameters:
            of_parameter = state[parameter]
            count = of_parameter.get("step")
            if count is None:
                place = parameter.device
                if place not in fresh:
                    fresh[place] = self._first_numbers(group, place)
                of_parameter.update(fresh[place])
                count = of_parameter["step"]
            counts[id(count)] = count
            active.setdefault(id(count), []).append(parameter)
        holders: dict[int, int] = defaultdict(int)
        for parameter in group["params"]:
            count = state[parameter].get("step") if parameter in state else None
            if count is not None:
                holders[id(count)] += 1
        for key, count in counts.items():
            if holders[key] != len(active[key]):
                separate = {}
                for name in ("step", *self.moving_numbers):
                    separate[name] = _scalar(0.0, float32, count.device)
                    write(separate[name], name, raw_node(state[active[key][0]][name]))
                for parameter in active[key]:
                    state[parameter].update(separate)
                count = separate["step"]
            write(count, "step", graph.add(raw_node(count), 1.0))

    def _first_numbers(self, group: dict[str, Any], device: Any) -> dict[str, lg.Tensor]:
        """The step count and the numbers that move with it, as they are before the first step."""
        values = {name: group[first] if isinstance(first, str) else first
                  for name, first in self.moving_numbers.items()}
        return {name: _scalar(float(value), float32, device)
                for name, value in {"step": 0.0, **values}.items()}

    def _per_count(self, parameters: Iterable[lg.Tensor],
                   schedule: Callable[[dict[str, Any]], Sequence[Node]]
                   ) -> Iterator[tuple[lg.Tensor, list[Node]]]:
        """Each parameter with the 0-d coefficients of its step count, in the dtype of its update.

        schedule: the coefficients from a parameter's state; called once for each step count.
        """
        made: dict[int, Sequence[Node]] = {}
        converted: dict[tuple[int, DType], list[Node]] = {}
        for parameter in parameters:
            state = self.state[parameter]
            key, dtype = id(state["step"]), compute_dtype(parameter)
            if key not in made:
                made[key] = schedule(state)
            if (key, dtype) not in converted:
                converted[key, dtype] = [graph.cast(node, dtype) for node in made[key]]
            yield parameter, converted[key, dtype]

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

    def _state_tensor(self, parameter: lg.Tensor, name: str, fill: complex = 0.0,
                      shape: Sequence[int] | None = None) -> lg.Tensor:
        """A tensor of the parameter's state, made on first use; shaped as the parameter unless
        told otherwise.

        It holds data, not a constant: folded into the first step, a constant would make that a
        program of its own.
        """
        state = self.state[parameter]
        found = state.get(name)
        if found is None:
            sizes = tuple(parameter.shape if shape is None else shape)
            if parameter.is_cuda:
                found = state[name] = lg.full(sizes, fill, dtype=parameter.dtype,
                                              device=parameter.device)
                cells.hold_as_data(found._cell)
                return found
            if fill:
                leaf = cells.leaf_of_array(numpy.full(sizes, fill, parameter.dtype.numpy))
            else:
                zeros = Buffer.zeros(math.prod(sizes) * parameter.dtype.itemsize)
                leaf = cells.leaf(zeros, parameter.dtype, sizes)
            found = state[name] = wrap(leaf)
        return found

    def _update(self, update: Composite, parameter: lg.Tensor, states: Sequence[str],
                *settings: Any) -> None:
        """Records one parameter's update and writes its results.

        `update(value, gradient, *state values, *settings)` gives the new value and state values.
        Complex ones go in and come out as their parts, along a last axis of size 2.
        """
        assert parameter._grad is not None
        tensors = [parameter, *[self._state_tensor(parameter, state) for state in states]]
        value, *values = [_parts(raw_node(tensor)) for tensor in tensors]
        gradient = _parts(graph.stop_gradient(raw_node(parameter._grad)))
        name = type(self).__name__
        for tensor, node in zip(tensors, update(value, gradient, *values, *settings), strict=True):
            assert node is not None
            write(tensor, name,
                  graph.make("view_as_complex", node) if tensor.dtype.is_complex else node)

    # ---- gradients

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients, or makes them zero."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter._grad is not None:
                    parameter.grad = None if set_to_none else lg.zeros_like(parameter._grad)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """{"state": by number of parameter, "param_groups": settings, "params" as numbers}, as in
        PyTorch.
        """
        for hook in list(self._state_dict_pre_hooks.values()):
            hook(self)
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
        return self._hooked({"state": state, "param_groups": groups}, self._state_dict_post_hooks)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over state and settings of an optimizer over equally many parameters in equal
        groups.
        """
        state_dict = self._hooked(dict(state_dict), self._load_state_dict_pre_hooks)
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
        by_number = {number: (position, parameter) for position, (saved, group)
                     in enumerate(zip(saved_groups, self.param_groups))
                     for number, parameter in zip(saved["params"], group["params"])}
        state: defaultdict[lg.Tensor, dict[str, Any]] = defaultdict(dict)
        shared: dict[tuple, dict[str, lg.Tensor]] = {}
        for number, values in state_dict["state"].items():
            if number not in by_number:
                raise ValueError(f"loaded state dict has state for parameter {number}, which no "
                                 "group lists")
            position, parameter = by_number[number]
            # equal numbers within a group become one shared tensor for each
            moving = {name: float(values[name]) for name in ("step", *self.moving_numbers)
                      if name in values}
            place = parameter.device
            key = (position, place, *moving.values())
            if key not in shared:
                shared[key] = {name: _scalar(value, float32, place)
                               for name, value in moving.items()}
            state[parameter] = {name: shared[key][name] if name in moving
                                else self._loaded(name, value, parameter)
                                for name, value in values.items()}
        self.state = state
        self.param_groups = [{**{name: copy.deepcopy(value) for name, value in saved.items()
                                 if name != "params"}, "params": group["params"],
                              **({"param_names": group["param_names"]} if "param_names" in group
                                 else {})} for saved, group in zip(saved_groups, self.param_groups)]
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)
        for hook in list(self._load_state_dict_post_hooks.values()):
            hook(self)

    def _loaded(self, name: str, value: Any, parameter: lg.Tensor) -> Any:
        """A value of the state as this optimizer keeps it."""
        if not isinstance(value, lg.Tensor):
            return copy.deepcopy(value)
        expected = self._state_shape(name, parameter)
        if tuple(value.shape) not in ((), expected):
            raise ValueError(f"loaded state {name!r} has shape {tuple(value.shape)}, and its "
                             f"parameter of shape {tuple(parameter.shape)} needs {expected}")
        same = not (parameter.is_floating_point() and value.is_floating_point())
        value = value.to(parameter.device)
        return value.detach().clone() if same else value.detach().clone().to(parameter.dtype)

    def _state_shape(self, name: str, parameter: lg.Tensor) -> tuple[int, ...]:
        """The shape of a state of a parameter."""
        return tuple(parameter.shape)

    def __repr__(self) -> str:
        lines = [type(self).__name__ + " ("]
        for position, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {position}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


@operation
def _compute() -> None:
    cells.flush()


def _parts(node: Node) -> Node:
    """A complex node as the float node of its parts; a real one itself."""
    return graph.make("view_as_real", node) if node.dtype.is_complex else node


def check_not_negative(optimizer: str, **numbers: Any) -> None:
    """Raises ValueError for a setting below 0."""
    for name, value in numbers.items():
        if isinstance(value, lg.Tensor) and value.numel() != 1:
            raise ValueError(f"{optimizer}: a Tensor {name} must be 1-element, and it has shape "
                             f"{tuple(value.shape)}")
        if not isinstance(value, lg.Tensor) and not value >= 0.0:
            raise ValueError(f"{optimizer}: invalid {name}: {value}; it must be at least 0")


def check_betas(optimizer: str, betas: Iterable[Any]) -> None:
    """Raises ValueError for a decay rate outside [0, 1)."""
    for position, value in enumerate(betas):
        if not isinstance(value, lg.Tensor) and not 0.0 <= value < 1.0:
            raise ValueError(f"{optimizer}: invalid beta parameter at index {position}: {value}; "
                             "it must be in [0, 1)")
