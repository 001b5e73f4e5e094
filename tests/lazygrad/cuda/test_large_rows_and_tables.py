"""Kernels that only large inputs take, through the whole of lazygrad: gradients of tables and sums
of segments by sorted places, medians and quantiles by selection.  The CPU's bits.
"""

from __future__ import annotations

import numpy as np

import lazygrad as lg
from lazygrad_compiler.ptx import scatter_ordered, sort

PLACES = 20_000


def results(device: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    count = scatter_ordered.FEWEST_POSITIONS + 7

    def normal(*shape: int) -> lg.Tensor:
        return lg.tensor(generator.standard_normal(shape).astype(np.float32), device=device)

    index = lg.tensor(generator.integers(0, PLACES, count), device=device)
    weight, upstream = normal(PLACES, 3).requires_grad_(), normal(count, 3)
    (lg.nn.functional.embedding(index, weight) * upstream).sum().backward()
    rows = normal(2, 2 * sort.TILE + 5)
    median = rows.median(dim=1)
    found = {
        "gradient of a table": weight.grad,
        "sums": lg.zeros(PLACES, device=device).index_add(0, index, upstream[:, 0]),
        "last written": lg.zeros(PLACES, device=device).index_put((index,), upstream[:, 1]),
        "medians": median.values,
        "places of medians": median.indices,
        "quantiles": lg.quantile(rows, lg.tensor([0.1, 0.5], device=device), dim=1),
        "the third": rows.kthvalue(3, dim=1).values,
    }
    return {name: tensor.cpu().numpy() for name, tensor in found.items()}


def test_they_have_the_bits_of_the_cpu(where: str) -> None:
    here, there = results("cpu"), results("cuda")
    for name, wanted in here.items():
        assert there[name].tobytes() == wanted.tobytes(), name
