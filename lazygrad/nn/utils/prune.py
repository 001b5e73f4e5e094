"""Pruning: parameters multiplied by masks, as torch.nn.utils.prune has it.

`name` of a module becomes a plain attribute, computed before each forward as `name_orig` (the
parameter) times `name_mask` (a buffer of zeros and ones).  The state dict holds these two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import lazygrad as lg
from lazygrad.nn.module import Module
from lazygrad.nn.parameter import Parameter

__all__ = ["BasePruningMethod", "CustomFromMask", "Identity", "L1Unstructured", "LnStructured",
           "PruningContainer", "RandomStructured", "RandomUnstructured", "custom_from_mask",
           "global_unstructured", "identity", "is_pruned", "l1_unstructured", "ln_structured",
           "random_structured", "random_unstructured", "remove"]

UNSTRUCTURED, STRUCTURED, GLOBAL = "unstructured", "structured", "global"


class BasePruningMethod(ABC):
    """A way to choose what is pruned: subclasses define `compute_mask` and PRUNING_TYPE."""

    PRUNING_TYPE: str = GLOBAL
    _tensor_name: str

    @abstractmethod
    def compute_mask(self, t: lg.Tensor, default_mask: lg.Tensor) -> lg.Tensor:
        """The mask of `t`: zeros where it is pruned, which includes those of `default_mask`."""

    def __call__(self, module: Module, inputs: Any) -> None:
        """The hook ahead of forward: computes the pruned tensor anew."""
        setattr(module, self._tensor_name, self.apply_mask(module))

    def apply_mask(self, module: Module) -> lg.Tensor:
        """The parameter times its mask."""
        original = getattr(module, self._tensor_name + "_orig")
        mask: lg.Tensor = getattr(module, self._tensor_name + "_mask")
        return mask.to(original.dtype) * original

    @classmethod
    def apply(cls, module: Module, name: str, *args: Any, importance_scores: Any = None,
              **kwargs: Any) -> BasePruningMethod:
        """Prunes `name` of a module, on top of what is pruned already."""
        method: BasePruningMethod = cls(*args, **kwargs)
        method._tensor_name = name
        former = _method_of(module, name)
        if former is not None:
            key, pruned = former
            del module._forward_pre_hooks[key]
            if isinstance(pruned, PruningContainer):
                pruned.add_pruning_method(method)
                combined = pruned
            else:
                combined = PruningContainer(pruned)
                combined.add_pruning_method(method)
            method = combined
        tensor = getattr(module, name)
        if importance_scores is not None and importance_scores.shape != tensor.shape:
            raise ValueError(f"[prune] importance scores {tuple(importance_scores.shape)} for "
                             f"{name} {tuple(tensor.shape)}")
        scores = tensor if importance_scores is None else importance_scores
        if former is None:
            original = module._parameters.pop(name)
            module.register_parameter(name + "_orig", original)
            mask = lg.ones_like(original)
        else:
            mask = getattr(module, name + "_mask").detach().clone()
        with lg.no_grad():
            mask = method.compute_mask(scores, mask)
        module.register_buffer(name + "_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(self, t: lg.Tensor, default_mask: lg.Tensor | None = None,
              importance_scores: lg.Tensor | None = None) -> lg.Tensor:
        """A pruned copy of a tensor that belongs to no module."""
        scores = t if importance_scores is None else importance_scores
        mask = lg.ones_like(t) if default_mask is None else default_mask
        return t * self.compute_mask(scores, mask)

    def remove(self, module: Module) -> None:
        """Makes the pruning permanent: the parameter is what it was times the mask."""
        name = self._tensor_name
        value = self.apply_mask(module)
        original = module._parameters.pop(name + "_orig")
        assert isinstance(original, Parameter)
        with lg.no_grad():
            original.copy_(value.detach())
        del module._buffers[name + "_mask"]
        delattr(module, name)
        module.register_parameter(name, original)


class PruningContainer(BasePruningMethod):
    """Several methods after another; each sees what the ones before left over."""

    def __init__(self, *args: Any) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        if args and isinstance(args[0], BasePruningMethod):
            self._tensor_name = args[0]._tensor_name
        found = args[0] if len(args) == 1 and isinstance(args[0], Iterable) else args
        for method in found:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod | None) -> None:
        if not isinstance(method, BasePruningMethod) and method is not None:
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        if method is not None and method._tensor_name != self._tensor_name:
            raise ValueError(f"[prune] this container prunes {self._tensor_name!r}, the method "
                             f"{method._tensor_name!r}")
        assert method is not None
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Any:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: lg.Tensor, default_mask: lg.Tensor) -> lg.Tensor:
        """The newest method on what is left, within the mask so far."""
        method = self._pruning_methods[-1]
        if method.PRUNING_TYPE == UNSTRUCTURED:
            left = default_mask.reshape(-1).nonzero().reshape(-1)
            part = method.compute_mask(t.reshape(-1)[left], default_mask.reshape(-1)[left])
            mask = default_mask.reshape(-1).clone()
            mask[left] = part.to(default_mask.dtype)
            return mask.reshape(default_mask.shape)
        if method.PRUNING_TYPE == STRUCTURED:
            axis = method.dim  # type: ignore[attr-defined]
            others = [other for other in range(t.ndim) if other != axis % t.ndim]
            left = (t.abs() * default_mask).sum(others).nonzero().reshape(-1)
            kept = method.compute_mask(t.index_select(axis, left),
                                       default_mask.index_select(axis, left))
            return default_mask.index_copy(axis, left, kept.to(default_mask.dtype))
        return method.compute_mask(t, default_mask)


class Identity(BasePruningMethod):
    """Prunes nothing."""

    PRUNING_TYPE = UNSTRUCTURED

    def compute_mask(self, t: lg.Tensor, default_mask: lg.Tensor) -> lg.Tensor:
        return default_mask


class _Amount(BasePruningMethod):
    """Methods that prune a share (a float in 0..1) or a number of elements or channels."""

    def __init__(self, amount: float) -> None:
        _check_amount(amount)
        self.amount = amount

    def _count(self, size: int) -> int:
        return _count_of(self.amount, size)


class RandomUnstructured(_Amount):
    """Prunes elements by chance."""

    PRUNING_TYPE = UNSTRUCTURED

    def compute_mask(self, t: lg.Tensor, default_mask: lg.Tensor) -> lg.Tensor:
        count = self._count(t.numel())
        mask = default_mask.clone().reshape(-1)
        if count:
            mask[lg.rand(t.numel()).topk(count).indices] = 0
        return mask.reshape(default_mask.shape)


class L1Unstructured(_Amount):
    """Prunes the elements of the smallest size."""

    PRUNING_TYPE = UNSTRUCTURED

    def compute_mask(self, t: lg.Tensor, default_mask: lg.Tensor) -> lg.Tensor:
        count = self._count(t.numel())
        mask = default_mask.clone().reshape(-1)
        if count:
            mask[t.abs().reshape(-1).topk(count, largest=False).indices] = 0
        return mask.reshape(default_mask.shape)


class RandomStructured(_Amount):
    """Prunes channels along an axis by chance."""

    PRUNING_TYPE = STRUCTURED

    def __init__(self, amount: float, dim: int = -1) -> None:
        super().__init__(amount)
        self.dim = dim

    def _scores(self, t: lg.Tensor, axis: int) -> lg.Tensor:
        return lg.rand(t.shape[axis])

    def compute_mask(self, t: lg.Tensor, default_mask: lg.Tensor) -> lg.Tensor:
        if t.ndim < 2:
            raise ValueError(f"[prune] channels of a tensor of {t.ndim} axes; structured pruning "
                             "needs at least 2")
        axis = self.dim % t.ndim
        size = t.shape[axis]
        count = self._count(size)
        if not count:
            return default_mask
        kept = lg.ones(size, dtype=default_mask.dtype)
        kept[self._scores(t, axis).topk(count, largest=False).indices] = 0
        shape = [1] * t.ndim
        shape[axis] = size
        return default_mask * kept.reshape(shape)


class LnStructured(RandomStructured):
    """Prunes the channels along an axis of the smallest n-norm."""

    def __init__(self, amount: float, n: Any, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def _scores(self, t: lg.Tensor, axis: int) -> lg.Tensor:
        others = [other for other in range(t.ndim) if other != axis]
        return t.norm(p=self.n, dim=others)


class CustomFromMask(BasePruningMethod):
    """Prunes what a mask given says."""

    PRUNING_TYPE = GLOBAL

    def __init__(self, mask: lg.Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: lg.Tensor, default_mask: lg.Tensor) -> lg.Tensor:
        return default_mask * self.mask.to(default_mask.dtype)


def _check_amount(amount: Any) -> None:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise TypeError(f"[prune] amount={amount!r} is a number")
    if (isinstance(amount, int) and amount < 0) or (
            isinstance(amount, float) and not 0.0 <= amount <= 1.0):
        raise ValueError(f"[prune] amount={amount} is a share in 0..1 or a whole number from 0 on")


def _count_of(amount: float, size: int) -> int:
    """How many of `size` things: a whole number, or that share of them, rounded."""
    count = amount if isinstance(amount, int) else round(amount * size)
    if count > size:
        raise ValueError(f"[prune] amount={amount} is more than the {size} there are to prune")
    return count


def _method_of(module: Module, name: str) -> tuple[int, BasePruningMethod] | None:
    """The hook that prunes `name`, with its key."""
    for key, (hook, _) in module._forward_pre_hooks.items():
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            return key, hook
    return None


def identity(module: Module, name: str) -> Module:
    """Prepares `name` for pruning without pruning anything."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: Module, name: str, amount: float) -> Module:
    """Prunes a share or number of elements by chance."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: Module, name: str, amount: float,
                    importance_scores: lg.Tensor | None = None) -> Module:
    """Prunes the share or number of elements of the smallest size."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: Module, name: str, amount: float, dim: int) -> Module:
    """Prunes a share or number of channels along an axis by chance."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(module: Module, name: str, amount: float, n: Any, dim: int,
                  importance_scores: lg.Tensor | None = None) -> Module:
    """Prunes the share or number of channels along an axis of the smallest n-norm."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: Module, name: str, mask: lg.Tensor) -> Module:
    """Prunes what the mask says."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(parameters: Iterable[tuple[Module, str]], pruning_method: Any,
                        importance_scores: dict[tuple[Module, str], lg.Tensor] | None = None,
                        **kwargs: Any) -> None:
    """Prunes elements of several parameters as if they were one tensor."""
    if not isinstance(parameters, Iterable):
        raise TypeError("global_unstructured(): parameters is not an Iterable")
    pairs: Sequence[tuple[Module, str]] = list(parameters)
    given = importance_scores or {}
    scores = lg.cat([given.get(pair, getattr(*pair)).reshape(-1) for pair in pairs])
    masks = [getattr(module, name + "_mask", None) for module, name in pairs]
    mask = lg.cat([lg.ones_like(getattr(*pair)).reshape(-1) if known is None
                   else known.reshape(-1) for pair, known in zip(pairs, masks, strict=True)])
    container = PruningContainer()
    container._tensor_name = "temp"
    method = pruning_method(**kwargs)
    method._tensor_name = "temp"
    if method.PRUNING_TYPE != UNSTRUCTURED:
        raise TypeError("[prune] only unstructured methods prune globally, not "
                        f"{type(method).__name__}")
    container.add_pruning_method(method)
    with lg.no_grad():
        final = container.compute_mask(scores, mask)
    start = 0
    for module, name in pairs:
        size = getattr(module, name).numel()
        part = final[start : start + size].reshape(getattr(module, name).shape)
        custom_from_mask(module, name, part.clone())
        start += size


def remove(module: Module, name: str) -> Module:
    """Makes the pruning of `name` permanent and takes the hook off."""
    found = _method_of(module, name)
    if found is None:
        raise ValueError(f"Parameter '{name}' of module {module} has to be pruned before pruning "
                         "can be removed")
    key, method = found
    method.remove(module)
    del module._forward_pre_hooks[key]
    return module


def is_pruned(module: Module) -> bool:
    """Whether the module or one of its parts has something pruned."""
    return any(isinstance(hook, BasePruningMethod) for part in module.modules()
               for hook, _ in part._forward_pre_hooks.values())
