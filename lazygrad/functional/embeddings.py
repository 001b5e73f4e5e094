"""Tables of vectors looked up by number: embedding and embedding_bag."""

from __future__ import annotations

from operator import index as whole_number

from lazygrad._core import graph
from lazygrad._core.context import fail, operation
from lazygrad._core.modes import no_grad
from lazygrad._core.tensor import Tensor, node_of, wrap, write
from lazygrad.functional._operands import as_node
from lazygrad.functional.gathering import index_node
from lazygrad.functional.norms import norm_node
from lazygrad_compiler.ir import dtypes, requirements
from lazygrad_compiler.ir.node import Node
from lazygrad_compiler.ir.ops import listed

__all__ = ["embedding", "embedding_bag"]


def _padding(name: str, padding_idx: int | None, rows: int) -> int | None:
    if padding_idx is None:
        return None
    if not -rows <= whole_number(padding_idx) < rows:
        raise fail(name, f"padding_idx {padding_idx} is not within the {rows} rows of the weight")
    return padding_idx % rows


def _renormalize(name: str, weight: Tensor, places: Node, max_norm: float,
                 norm_type: float) -> None:
    """Scales the rows that are looked up, where their norm is larger, in place."""
    with no_grad():
        rows = node_of(weight)
        picked = graph.make("scatter", graph.const(False, dtypes.bool_, (rows.shape[0],)),
                            graph.const(True, dtypes.bool_, places.shape), places,
                            attrs=((0,), "set"))
        size = norm_node(rows, norm_type, (1,), False)
        long = graph.make("and", picked, graph.binary("lt", graph.like(max_norm, size), size))
        # 1e-7 is PyTorch's guard against a norm of 0.
        factor = graph.div(graph.like(max_norm, size), graph.add(size, 1e-7))
        write(weight, name, graph.mul(rows, graph.unsqueeze(graph.where(long, factor, 1), 1)))


def _by_frequency(gathered: Node, places: Node, rows: int) -> Node:
    """The same values; gradients are divided by how often their row occurs in the batch."""
    ones = graph.const(1, gathered.dtype, places.shape)
    counts = graph.make("scatter", graph.const(0, gathered.dtype, (rows,)), ones, places,
                        attrs=((0,), "add"))
    often = graph.make("gather", counts, places, attrs=((0,),))
    share = graph.div(gathered, graph.unsqueeze(often, often.ndim))
    return graph.add(graph.stop_gradient(graph.sub(gathered, share)), share)


def _check_table(name: str, places: Node, rows: Node) -> None:
    if rows.ndim != 2:
        raise fail(name, f"the weight is (rows, features), not {listed(rows.shape)}",
                   kind=ValueError)


def _looked_up(name: str, places: Node, weight: Tensor, padding: int | None,
               max_norm: float | None, norm_type: float, scale_grad_by_freq: bool) -> Node:
    """weight[places], with the row `padding` getting no gradient."""
    if max_norm is not None:
        _renormalize(name, weight, places, float(max_norm), float(norm_type))
    rows = node_of(weight)
    result = graph.make("gather", rows, places, attrs=((0,),))
    if not result.differentiable:
        return result
    if scale_grad_by_freq:
        result = _by_frequency(result, places, rows.shape[0])
    if padding is not None:
        at_padding = graph.unsqueeze(graph.binary("eq", places, padding), places.ndim)
        result = graph.where(at_padding, graph.stop_gradient(result), result)
    return result


@operation
def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None,
              max_norm: float | None = None, norm_type: float = 2.0,
              scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Rows of `weight` (rows, features) by number: any shape to (*shape, features).

    The row padding_idx gets no gradient.  max_norm: rows that are looked up are scaled in place to
    a norm of at most that.  scale_grad_by_freq: gradients over the number of a row's occurrences.
    sparse: accepted; gradients are dense.  A number outside the table is an IndexError when the
    value is computed.
    """
    places, rows = index_node("embedding", input), node_of(weight)
    _check_table("embedding", places, rows)
    padding = _padding("embedding", padding_idx, rows.shape[0])
    return wrap(_looked_up("embedding", places, weight, padding, max_norm, norm_type,
                           scale_grad_by_freq))


@operation
def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None,
                  max_norm: float | None = None, norm_type: float = 2,
                  scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Tensor:
    """Sums, means or maxima of looked-up rows: (N, features).

    input: (N, length), a bag a row, or all bags one after the other, offsets (N,) saying where each
    starts (with include_last_offset also where the last ends).  Rows padding_idx do not count; an
    empty bag is 0.  per_sample_weights: a factor for each number, for mode "sum".
    """
    name = "embedding_bag"
    places, rows = index_node(name, input), node_of(weight)
    _check_table(name, places, rows)
    if mode not in ("sum", "mean", "max"):
        raise fail(name, f"mode {mode!r}; there are 'sum', 'mean' and 'max'", kind=ValueError)
    if mode == "max" and (scale_grad_by_freq or sparse):
        raise fail(name, "mode 'max' goes with neither scale_grad_by_freq nor sparse",
                   kind=ValueError)
    factors = None if per_sample_weights is None else as_node(name, per_sample_weights)
    if factors is not None:
        if mode != "sum":
            raise fail(name, f"per_sample_weights go with mode 'sum', not {mode!r}",
                       kind=NotImplementedError)
        if factors.shape != places.shape:
            raise fail(name, f"per_sample_weights {listed(factors.shape)} and input "
                       f"{listed(places.shape)} differ", kind=ValueError)
    padding = _padding(name, padding_idx, rows.shape[0])
    bag, bags = _bags(name, places, offsets, include_last_offset)
    places = graph.reshape(places, (places.size,))
    values = _looked_up(name, places, weight, padding, max_norm, norm_type, scale_grad_by_freq)
    if factors is not None:
        values = graph.mul(values, graph.reshape(factors, (places.size, 1)))
    counts = None if padding is None else graph.binary("ne", places, padding)
    return wrap(_pooled(values, bag, bags, counts, mode))


def _bags(name: str, places: Node, offsets: Tensor | None, with_end: bool) -> tuple[Node, int]:
    """The bag of each number, and how many bags there are."""
    if places.ndim == 2:
        if offsets is not None:
            raise fail(name, "an input of 2 axes has a bag in each row; it takes no offsets",
                       kind=ValueError)
        count = places.shape[0]
        return graph.reshape(graph.iota(0, places.shape), (places.size,)), count
    if places.ndim != 1:
        raise fail(name, f"takes an input of 1 or 2 axes, not {listed(places.shape)}",
                   kind=ValueError)
    if offsets is None:
        raise fail(name, "an input of 1 axis needs offsets", kind=ValueError)
    starts = index_node(name, offsets)
    if starts.ndim != 1:
        raise fail(name, f"offsets have 1 axis, not {listed(starts.shape)}", kind=ValueError)
    count = starts.shape[0] - (1 if with_end else 0)
    if count < 0:
        raise fail(name, "include_last_offset needs at least one offset", kind=ValueError)
    starts = graph.slice_axis(starts, 0, 0, count)
    begins = graph.binary("or", graph.binary("ne", graph.iota(0, starts.shape), 0),
                          graph.binary("eq", starts, 0))
    starts = graph.required(starts, (begins, requirements.OFFSETS))
    shape = (places.size, count)
    # The bag of a number: how many bags start at or before it, less one.
    begun = graph.binary("le", graph.broadcast(graph.unsqueeze(starts, 0), shape),
                         graph.iota(0, shape))
    bag = graph.reduce("sum", graph.cast(begun, dtypes.int64), (1,))
    # A number ahead of the first offset is in no bag: an index error when the value is computed.
    return graph.where(graph.binary("eq", bag, 0), count, graph.sub(bag, 1)), count


def _pooled(values: Node, bag: Node, bags: int, counts: Node | None, mode: str) -> Node:
    """Values (n, features) combined by their bag; `counts`: which take part."""
    shape = (bags, values.shape[1])
    if counts is not None:
        keep = graph.broadcast(graph.unsqueeze(counts, 1), values.shape)
        values = graph.where(keep, values, 0 if mode != "max" else float("-inf"))
    if bags == 0:
        return graph.const(0, values.dtype, shape)
    if mode == "max":
        low = graph.const(float("-inf"), values.dtype, shape)
        best = graph.make("scatter", low, values, bag, attrs=((0,), "max"))
        return graph.where(graph.binary("eq", best, float("-inf")), 0, best)
    total = graph.make("scatter", graph.const(0, values.dtype, shape), values, bag,
                       attrs=((0,), "add"))
    if mode == "sum":
        return total
    ones = graph.const(1, values.dtype, bag.shape) if counts is None \
        else graph.cast(counts, values.dtype)
    sizes = graph.make("scatter", graph.const(0, values.dtype, (bags,)), ones, bag,
                       attrs=((0,), "add"))
    sizes = graph.binary("maximum", sizes, 1)
    return graph.div(total, graph.unsqueeze(sizes, 1))
