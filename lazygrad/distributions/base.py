"""What distributions share, and `Independent`, which makes batch axes part of the event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lazygrad as lg
from lazygrad._core import graph
from lazygrad._core.context import fail, now, operation
from lazygrad._core.entries import Entry
from lazygrad._core.tensor import node_of, wrap
from lazygrad._core.values import Size
from lazygrad_compiler.ir import requirements

Shape = Sequence[int]


def broadcast(*values: Any) -> tuple[lg.Tensor, ...]:
    """Numbers and tensors as tensors of one shape and one floating dtype."""
    tensors = [each for each in values if isinstance(each, lg.Tensor)]
    dtype = lg.get_default_dtype()
    for position, each in enumerate(tensors):
        dtype = each.dtype if position == 0 else lg.promote_types(dtype, each.dtype)
    if not dtype.is_floating:
        dtype = lg.get_default_dtype()
    made = [each.to(dtype) if isinstance(each, lg.Tensor) else lg.tensor(each, dtype=dtype)
            for each in values]
    return tuple(lg.broadcast_tensors(*made))


@operation
def checked(owner: str, value: lg.Tensor, holds: lg.Tensor, validate_args: bool | None
            ) -> lg.Tensor:
    """A parameter that is a ValueError of the distribution `owner` once values are computed, where
    it does not hold; as it is with validate_args=False.
    """
    if validate_args is False or (validate_args is None and not __debug__):
        return value
    now.operation = owner
    return wrap(graph.required(node_of(value), (node_of(holds), requirements.PARAMETERS)))


def positive(owner: str, value: lg.Tensor, validate_args: bool | None) -> lg.Tensor:
    """A parameter that must be above 0."""
    return checked(owner, value, value > 0, validate_args)


class Distribution(Entry):
    """A batch of distributions.  Subclasses give `_draw` (or `rsample`), `log_prob` and moments."""

    has_rsample = False
    arg_names: tuple[str, ...] = ()
    """The parameters, as attributes; `repr` and `expand` go by them."""

    def __init__(self, batch_shape: Shape = (), event_shape: Shape = (),
                 validate_args: bool | None = None) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)

    @property
    def batch_shape(self) -> Size:
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        return self._event_shape

    def _missing(self, what: str) -> Exception:
        return fail(f"{type(self).__name__}.{what}", "is not known in closed form",
                    kind=NotImplementedError)

    @property
    def mean(self) -> lg.Tensor:
        raise self._missing("mean")

    @property
    def mode(self) -> lg.Tensor:
        raise self._missing("mode")

    @property
    def variance(self) -> lg.Tensor:
        raise self._missing("variance")

    @property
    def stddev(self) -> lg.Tensor:
        return self.variance.sqrt()

    def _extended_shape(self, sample_shape: Shape = ()) -> tuple[int, ...]:
        return (*sample_shape, *self._batch_shape, *self._event_shape)

    def _draw(self, shape: tuple[int, ...]) -> lg.Tensor:
        """A sample of `_extended_shape`."""
        raise self._missing("sample")

    def rsample(self, sample_shape: Shape = ()) -> lg.Tensor:
        """A sample through which gradients reach the parameters."""
        if not self.has_rsample:
            raise fail(f"{type(self).__name__}.rsample", "has no differentiable samples",
                       "Use sample() and log_prob().", NotImplementedError)
        return self._draw(self._extended_shape(tuple(sample_shape)))

    def sample(self, sample_shape: Shape = ()) -> lg.Tensor:
        """A sample of shape sample_shape + batch_shape + event_shape, without history."""
        with lg.no_grad():
            return self._draw(self._extended_shape(tuple(sample_shape)))

    def sample_n(self, n: int) -> lg.Tensor:
        return self.sample((n,))

    def log_prob(self, value: Any) -> lg.Tensor:
        raise self._missing("log_prob")

    def cdf(self, value: Any) -> lg.Tensor:
        raise self._missing("cdf")

    def icdf(self, value: Any) -> lg.Tensor:
        raise self._missing("icdf")

    def entropy(self) -> lg.Tensor:
        raise self._missing("entropy")

    def perplexity(self) -> lg.Tensor:
        return self.entropy().exp()

    def expand(self, batch_shape: Shape) -> Any:
        """The same distribution for a larger batch."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        added = len(tuple(batch_shape)) - len(self._batch_shape)
        for name in self.arg_names:
            own: lg.Tensor = self.__dict__[name]
            rest = own.shape[len(self._batch_shape):]
            made.__dict__[name] = own.reshape((1,) * added + tuple(own.shape)).expand(
                *batch_shape, *rest)
        made._batch_shape = Size(batch_shape)
        return made

    def __repr__(self) -> str:
        parts = []
        for name in self.arg_names:
            value = self.__dict__[name]
            parts.append(f"{name}: {value if value.numel() == 1 else value.size()}")
        return f"{type(self).__name__}({', '.join(parts)})"


def sum_last(value: lg.Tensor, count: int) -> lg.Tensor:
    """The sum over the last `count` axes."""
    return value.sum(tuple(range(-count, 0))) if count else value


class Independent(Distribution):
    """`base_distribution` with its last batch axes taken for one event: densities are summed."""

    def __init__(self, base_distribution: Distribution, reinterpreted_batch_ndims: int,
                 validate_args: bool | None = None) -> None:
        batch, count = base_distribution.batch_shape, reinterpreted_batch_ndims
        if count > len(batch):
            raise fail("Independent", f"{count} axes of a batch of shape {tuple(batch)}",
                       "reinterpreted_batch_ndims is at most the number of batch axes.")
        cut = len(batch) - count
        super().__init__(batch[:cut], (*batch[cut:], *base_distribution.event_shape))
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, count
        self.has_rsample = base_distribution.has_rsample

    @property
    def mean(self) -> lg.Tensor:
        return self.base_dist.mean

    @property
    def mode(self) -> lg.Tensor:
        return self.base_dist.mode

    @property
    def variance(self) -> lg.Tensor:
        return self.base_dist.variance

    def sample(self, sample_shape: Shape = ()) -> lg.Tensor:
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Shape = ()) -> lg.Tensor:
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Any) -> lg.Tensor:
        return sum_last(self.base_dist.log_prob(value), self.reinterpreted_batch_ndims)

    def entropy(self) -> lg.Tensor:
        return sum_last(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    def expand(self, batch_shape: Shape) -> Independent:
        own = self.base_dist.batch_shape[len(self._batch_shape):]
        return Independent(self.base_dist.expand((*batch_shape, *own)),
                           self.reinterpreted_batch_ndims)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist}, {self.reinterpreted_batch_ndims})"
