"""L-BFGS (Liu and Nocedal 1989): a quasi-Newton method that evaluates the loss several times in a
step.

The two-loop recursion runs on coefficients, not on vectors (Chen et al. 2014, "Large-scale L-BFGS
using MapReduce"): a direction is a combination of the kept changes of parameters and gradients and
the gradient, and all that the recursion asks is inner products among them.  So an iteration is a
few programs of fixed shape, however long the history: the new change, its inner products, the
direction.  The history has room for a power of two of changes; only growing makes new programs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

import lazygrad as lg
from lazygrad._core.context import now
from lazygrad.optim.line_search import Trial, strong_wolfe
from lazygrad.optim.optimizer import Optimizer, _scalar, check_not_negative
from lazygrad.optim.optimizer_hooks import GLOBAL_POST_HOOKS, GLOBAL_PRE_HOOKS
from lazygrad_compiler.ir.dtypes import DType, float64

FIRST_ROOM = 4
LEAST_CURVATURE = 1e-10
"""A change is kept where its curvature is above this."""


class _History:
    """The last changes of parameters (`steps`) and gradients (`turns`), a row each, and their inner
    products in float64.
    """

    def __init__(self, most: int, length: int, dtype: DType, device: Any = "cpu") -> None:
        self.most = most
        self.rows: list[int] = []
        none = lg.zeros((0, length), dtype=dtype, device=device)
        self._make_room(min(most, FIRST_ROOM), none, none)

    def _make_room(self, room: int, steps: lg.Tensor, turns: lg.Tensor) -> None:
        added = numpy.zeros((room - steps.shape[0], steps.shape[1]), steps.dtype.numpy)
        place = steps.device
        self.steps = lg.cat([steps, lg.from_numpy(added).to(place)])
        self.turns = lg.cat([turns, lg.from_numpy(added.copy()).to(place)])
        self.room = room
        self.steps_by_turns = _grown(getattr(self, "steps_by_turns", None), room)
        self.turns_by_turns = _grown(getattr(self, "turns_by_turns", None), room)
        lg.synchronize()

    def keep(self, step: lg.Tensor, turn: lg.Tensor) -> None:
        """Adds a change, in place of the oldest one where the history is full."""
        if len(self.rows) < self.most:
            row = len(self.rows)
            if row == self.room:
                self._make_room(min(2 * self.room, self.most), self.steps, self.turns)
        else:
            row = self.rows.pop(0)
        self.rows.append(row)
        here = (lg.arange(self.room).reshape(-1, 1) == lg.from_numpy(numpy.array(row))).to(
            step.device)
        self.steps = lg.where(here, step, self.steps)
        self.turns = lg.where(here, turn, self.turns)
        products = [_products(self.steps, turn), _products(self.turns, turn),
                    _products(self.turns, step)]
        with_turn, turns, with_step = (product.numpy(force=True) for product in products)
        self.steps_by_turns[:, row], self.steps_by_turns[row, :] = with_turn, with_step
        self.turns_by_turns[:, row] = self.turns_by_turns[row, :] = turns

    def direction(self, gradient: lg.Tensor, scale: float) -> lg.Tensor:
        """-H @ gradient, H being the inverse Hessian that the changes tell of; `scale`: its
        diagonal before the first of them.
        """
        by_steps, by_turns = _products(self.steps, gradient), _products(self.turns, gradient)
        step_products, turn_products = by_steps.numpy(force=True), by_turns.numpy(force=True)
        of_steps, of_turns = numpy.zeros(self.room), numpy.zeros(self.room)
        inverse = {row: 1.0 / self.steps_by_turns[row, row] for row in self.rows}
        first = {}
        for row in reversed(self.rows):
            along = self.steps_by_turns[row] @ of_turns - step_products[row]
            first[row] = along * inverse[row]
            of_turns[row] -= first[row]
        of_turns *= scale
        for row in self.rows:
            along = (self.turns_by_turns[row] @ of_turns + self.steps_by_turns[:, row] @ of_steps
                     - scale * turn_products[row])
            of_steps[row] += first[row] - along * inverse[row]
        combined = (_combination(self.steps, of_steps) + _combination(self.turns, of_turns)
                    - gradient.to(float64) * _scalar(scale, float64))
        return combined.to(gradient.dtype)

    def kept(self) -> tuple[list[lg.Tensor], list[lg.Tensor], list[float]]:
        """Changes of gradients, of parameters, and inverse curvatures, the oldest first."""
        return ([self.turns[row].clone() for row in self.rows],
                [self.steps[row].clone() for row in self.rows],
                [float(1.0 / self.steps_by_turns[row, row]) for row in self.rows])


def _grown(matrix: numpy.ndarray | None, room: int) -> numpy.ndarray:
    grown = numpy.zeros((room, room))
    if matrix is not None:
        grown[:len(matrix), :len(matrix)] = matrix
    return grown


def _products(rows: lg.Tensor, vector: lg.Tensor) -> lg.Tensor:
    """The inner product of each row with a vector, in float64."""
    return (rows.to(float64) * vector.to(float64)).sum(1)


def _combination(rows: lg.Tensor, factors: numpy.ndarray) -> lg.Tensor:
    return (rows.to(float64) * lg.from_numpy(factors.reshape(-1, 1)).to(rows.device)).sum(0)


def _largest(vector: lg.Tensor) -> float:
    return float(vector.abs().max())


def _dot(a: lg.Tensor, b: lg.Tensor) -> lg.Tensor:
    return (a.to(float64) * b.to(float64)).sum()


class LBFGS(Optimizer):
    """`step(closure)` moves all parameters by up to max_iter iterations; closure computes the loss
    and its gradients.

    line_search_fn: None (every step is lr long) or "strong_wolfe".  There is one parameter group.
    """

    def __init__(self, params: Any, lr: Any = 1, max_iter: int = 20, max_eval: int | None = None,
                 tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9,
                 history_size: int = 100, line_search_fn: str | None = None) -> None:
        check_not_negative("LBFGS", lr=lr)
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError(f"LBFGS: line_search_fn {line_search_fn!r} is not supported; it is "
                             "None or 'strong_wolfe'")
        if history_size < 1:
            raise ValueError(f"LBFGS: history_size must be at least 1, and it is {history_size}")
        self._history: _History | None = None
        super().__init__(params,
                         {"lr": lr, "max_iter": max_iter,
                          "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                          "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
                          "history_size": history_size, "line_search_fn": line_search_fn})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.param_groups:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        super().add_param_group(param_group)

    # ---- stepping

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Up to max_iter iterations; the loss before them."""
        if now.recording is not None:
            now.recording.refuse("LBFGS.step looks at the loss to decide how to go on; call it "
                                 "outside the compiled function")
        for hook in [*GLOBAL_PRE_HOOKS.values(), *self._step_pre_hooks.values()]:
            closure = self._changed_closure(hook, closure)
        if closure is None:
            raise TypeError("LBFGS.step needs a closure that computes the loss and its gradients; "
                            "pass step(closure)")
        with lg.no_grad():
            loss = self._iterate(closure)
        self._count()
        for hook in [*self._step_post_hooks.values(), *GLOBAL_POST_HOOKS.values()]:
            hook(self, (closure,), {})
        return loss

    def _iterate(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        rate = float(group["lr"])
        state = self.state[group["params"][0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first_loss, gradient = self._evaluate(closure)
        loss = float(first_loss)
        evaluations = 1
        state["func_evals"] += 1
        if _largest(gradient) <= group["tolerance_grad"]:
            return first_loss
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(state, gradient, group["history_size"])
            state["d"], state["prev_flat_grad"], state["prev_loss"] = direction, gradient, loss
            length = rate
            if state["n_iter"] == 1:
                length = min(1.0, 1.0 / float(gradient.abs().sum())) * rate
            state["t"] = length
            slope = float(_dot(gradient, direction))
            if slope > -group["tolerance_change"]:
                break
            used = 0
            if group["line_search_fn"] is not None:
                trial, used = self._search(closure, direction, length,
                                           Trial(0.0, loss, gradient, slope),
                                           group["max_eval"] - evaluations)
                loss, gradient, length = trial.loss, trial.gradient, trial.step
                state["t"] = length
                self._move(direction, length)
            else:
                self._move(direction, length)
                if iteration != group["max_iter"]:
                    found, gradient = self._evaluate(closure)
                    loss, used = float(found), 1
            evaluations += used
            state["func_evals"] += used
            if iteration == group["max_iter"] or evaluations >= group["max_eval"] \
                    or _largest(gradient) <= group["tolerance_grad"] \
                    or _largest(direction) * abs(length) <= group["tolerance_change"] \
                    or abs(loss - state["prev_loss"]) < group["tolerance_change"]:
                break
        lg.synchronize()
        return first_loss

    def _direction(self, state: dict[str, Any], gradient: lg.Tensor, most: int) -> lg.Tensor:
        """Where to go from here; takes the last move into the history."""
        if state["n_iter"] == 1 or self._history is None:
            self._history = _History(most, gradient.shape[0], gradient.dtype, gradient.device)
            state["H_diag"] = 1.0
            return -gradient
        turn = gradient - state["prev_flat_grad"]
        step = state["d"] * _scalar(state["t"], gradient.dtype)
        curvature, square = _dot(turn, step), _dot(turn, turn)
        if float(curvature) > LEAST_CURVATURE:
            self._history.keep(step, turn)
            state["H_diag"] = float(curvature) / float(square)
        return self._history.direction(gradient, float(state["H_diag"]))

    def _search(self, closure: Callable[[], Any], direction: lg.Tensor, length: float, start: Trial,
                most: int) -> tuple[Trial, int]:
        parameters = self.param_groups[0]["params"]
        before = [parameter.detach().clone() for parameter in parameters]

        def evaluate(step: float) -> Trial:
            self._move(direction, step)
            found, gradient = self._evaluate(closure)
            slope = float(_dot(gradient, direction))
            for parameter, value in zip(parameters, before):
                parameter.copy_(value)
            return Trial(step, float(found), gradient, slope)

        return strong_wolfe(evaluate, start, length, _largest(direction), most)

    def _evaluate(self, closure: Callable[[], Any]) -> tuple[Any, lg.Tensor]:
        """The loss, and the gradient of all parameters as one vector."""
        with lg.enable_grad():
            loss = closure()
        parts = []
        for parameter in self.param_groups[0]["params"]:
            gradient = parameter.grad
            if gradient is None:
                gradient = lg.zeros_like(parameter)
            gradient = gradient.detach()
            if gradient.dtype.is_complex:
                gradient = lg.view_as_real(gradient)
            parts.append(gradient.reshape(-1))
        flat = lg.cat(parts)
        return loss, flat.to(lg.float32) if flat.dtype.bits == 16 else flat.clone()

    def _move(self, direction: lg.Tensor, length: float) -> None:
        """Adds length * direction to the parameters."""
        factor = _scalar(length, direction.dtype)
        offset = 0
        for parameter in self.param_groups[0]["params"]:
            real = lg.view_as_real(parameter.detach()) if parameter.dtype.is_complex \
                else parameter.detach()
            part = direction[offset:offset + real.numel()].reshape(real.shape)
            real.add_((part * factor).to(real.dtype))
            offset += real.numel()

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """PyTorch's layout: the history as lists of vectors in the state of parameter 0."""
        found = super().state_dict()
        if self._history is not None:
            turns, steps, inverse = self._history.kept()
            found["state"][0].update(old_dirs=turns, old_stps=steps, ro=inverse)
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over settings, state and history."""
        super().load_state_dict(state_dict)
        state = self.state[self.param_groups[0]["params"][0]]
        turns, steps = state.pop("old_dirs", None) or [], state.pop("old_stps", None) or []
        state.pop("ro", None)
        state.pop("al", None)
        self._history = None
        with lg.no_grad():
            if state.get("d") is not None:
                self._history = _History(self.param_groups[0]["history_size"],
                                         state["d"].shape[0], state["d"].dtype)
                for step, turn in zip(steps, turns):
                    self._history.keep(step, turn)
                lg.synchronize()

    def _loaded(self, name: str, value: Any, parameter: lg.Tensor) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._loaded(name, inner, parameter) for inner in value]
        if not isinstance(value, lg.Tensor):
            return value
        if value.ndim == 0:
            return value.item()
        total = sum(one.numel() * (2 if one.dtype.is_complex else 1)
                    for one in self.param_groups[0]["params"])
        if tuple(value.shape) != (total,):
            raise ValueError(f"loaded state {name!r} has shape {tuple(value.shape)}, and all "
                             f"parameters together have {total} elements")
        return value.detach().clone()
