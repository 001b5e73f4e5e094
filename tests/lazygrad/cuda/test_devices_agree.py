"""Operations, their gradients and whole models on a device against the CPU.

Each runs over the PTX interpreter, with small sizes, and on a GPU where there is one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lazygrad as lg
from lazygrad import nn
from tests.ptx.support import in_turn, some

F = nn.functional


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + len(shape)).normal(size=shape).astype(np.float32)


def indices(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, count, shape)


OPERATIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "chain": (lambda x, y: (x * y + x).tanh().exp() / (1 + y.abs()), (normal(7, 33), normal(33))),
    "elementary": (lambda x: x.sin() + x.sigmoid() + (x.abs() + 1).log() + lg.erf(x) + x.exp2(),
                   (normal(101),)),
    "powers": (lambda x: (x.abs() + 0.1) ** 1.7 + (x * x).sqrt() + x.square().rsqrt(),
               (normal(65) + 3,)),
    "views": (lambda x: x.T[1:, ::2].flip(0).reshape(-1).unfold(0, 3, 2), (normal(6, 11),)),
    "pad and cat": (lambda x, y: F.pad(lg.cat([x, y], 1), (1, 2)), (normal(3, 4), normal(3, 5))),
    "sums": (lambda x: (x.sum(), x.sum(0), x.mean(1), x.prod(1), x.var(0)), (normal(37, 129),)),
    "long sum": (lambda x: x.sum(), (normal(20_011),)),
    "maxima": (lambda x: (x.max(), x.amin(0), x.argmax(1), x.max(1).values), (normal(17, 41),)),
    "softmax": (lambda x: (x.softmax(1), x.log_softmax(0)), (normal(9, 77),)),
    "norms": (lambda x, w: F.layer_norm(x, (40,), w) + F.rms_norm(x, (40,)),
              (normal(11, 40), normal(40))),
    "losses": (lambda x, y: F.cross_entropy(x, lg.arange(6, device=x.device) % 5)
               + F.mse_loss(x, y), (normal(6, 5), normal(6, 5))),
    "gather": (lambda x, i: x[i] * 2 + x.index_select(0, i), (normal(9, 6), indices(9, 14))),
    "embedding": (lambda w, i: F.embedding(i, w), (normal(12, 7), indices(12, 4, 5))),
    "scatter": (lambda x, i, y: x.index_add(0, i, y),
                (normal(8, 5), indices(8, 20), normal(20, 5))),
    "scan": (lambda x: (x.cumsum(1), x.cumprod(0), x.logcumsumexp(1)), (normal(5, 45),)),
    "sort": (lambda x: (x.sort(1).values, x.argsort(0), x.topk(3).values), (normal(6, 50),)),
    "matmul": (lambda x, y: x @ y, (normal(33, 20), normal(20, 45))),
    "matmul transposed": (lambda x, y: x.T @ y.T + 1, (normal(20, 17), normal(9, 20))),
    "batched matmul": (lambda x, y: (x @ y).relu(), (normal(3, 13, 8), normal(3, 8, 21))),
    "linear": (lambda x, w, b: F.gelu(F.linear(x, w, b)),
               (normal(10, 24), normal(30, 24), normal(30))),
    "conv": (lambda x, w, b: F.conv2d(x, w, b, padding=1, stride=2),
             (normal(2, 3, 9, 9), normal(4, 3, 3, 3), normal(4))),
    "pool": (lambda x: F.max_pool2d(x, 2) + F.avg_pool2d(x, 2), (normal(2, 3, 8, 8),)),
    "attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                  (normal(1, 2, 34, 16), normal(1, 2, 34, 16), normal(1, 2, 34, 16))),
    "linalg": (lambda x: lg.linalg.inv(x @ x.T + 5 * lg.eye(6, device=x.device)), (normal(6, 6),)),
    "fft": (lambda x: lg.fft.rfft(x).abs(), (normal(4, 16),)),
    "empty": (lambda x: (x[:0].sum(), x[:0] * 2), (normal(3, 2),)),
    "0-d": (lambda x: x.sum() * 2 - x.mean(), (normal(1),)),
    "dropout": (lambda x: F.dropout(x, 0.3), (normal(50, 7),)),
    "random": (lambda x: x + lg.randn_like(x) + lg.rand_like(x), (normal(64),)),
}  # fmt: skip
EXACT = {"views", "pad and cat", "gather", "embedding", "dropout", "maxima", "sort"}


def run(function: Callable[..., Any], given: tuple[Any, ...], device: str, dtype: Any) -> list[Any]:
    """Results and gradients as arrays of the host."""
    lg.manual_seed(9)
    tensors = []
    for array in given:
        tensor = lg.from_numpy(array).to(device)
        floating = tensor.is_floating_point()
        tensors.append(tensor.to(dtype).requires_grad_() if floating else tensor)
    results = function(*tensors)
    results = list(results) if isinstance(results, tuple) else [results]
    total = sum((each.float() * (1 + lg.arange(each.numel(), device=device).reshape(each.shape)
                                 % 7)).sum() for each in results if each.requires_grad)
    if isinstance(total, lg.Tensor):
        total.backward()
    leaves = [each.grad for each in tensors if each.grad is not None]
    assert all(each.device.type == device for each in (*results, *leaves))
    return [each.detach().cpu().double().numpy() if each.is_floating_point()
            else each.cpu().numpy() for each in (*results, *leaves)]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name: str, where: str) -> None:
    function, given = OPERATIONS[name]
    expected = run(function, given, "cpu", lg.float32)
    found = run(function, given, "cuda", lg.float32)
    assert len(found) == len(expected)
    for value, want in zip(found, expected, strict=True):
        if name in EXACT and value.dtype == want.dtype:
            np.testing.assert_allclose(value, want, rtol=1e-6, atol=0)
        else:
            np.testing.assert_allclose(value, want, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name, dtype", in_turn(
    ("chain", "sums", "softmax", "matmul", "linear"), (lg.float16, lg.bfloat16, lg.float64)))
def test_other_dtypes(name: str, dtype: Any, where: str) -> None:
    function, given = OPERATIONS[name]
    tolerance = {lg.float16: 2e-2, lg.bfloat16: 1e-1, lg.float64: 1e-9}[dtype]
    expected = run(function, given, "cpu", dtype)
    for value, want in zip(run(function, given, "cuda", dtype), expected, strict=True):
        np.testing.assert_allclose(value, want, rtol=tolerance, atol=tolerance)


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 5))

    def forward(self, x: lg.Tensor) -> lg.Tensor:
        return self.layers(x)


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            # no bias: its gradient is zero but for rounding, which Adam makes as large as any
            nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(4 * 2 * 1, 5))

    def forward(self, x: lg.Tensor) -> lg.Tensor:
        return self.layers(x.reshape(-1, 1, 4, 3))


class Block(nn.Module):
    """A Transformer block over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 16)
        self.norm, self.last = nn.LayerNorm(16), nn.Linear(16, 5)
        self.mix, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: lg.Tensor) -> lg.Tensor:
        number = (x.abs() * 10).long().clamp(0, 10)
        y = self.tokens(number)
        parts = self.mix(self.norm(y)).reshape(*y.shape[:2], 3, 2, 8).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*parts, is_causal=True)
        y = y + self.out(seen.transpose(1, 2).reshape(y.shape))
        return self.last(y.mean(1))


def losses(model: Callable[[], Any], device: str, compiled: bool, steps: int) -> list[float]:
    lg.manual_seed(4)
    net = model().to(device)
    optimizer = lg.optim.AdamW(net.parameters(), lr=1e-2)
    x = lg.from_numpy(normal(6, 12)).to(device)
    y = lg.from_numpy(indices(5, 6)).to(device)

    def step() -> lg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run_step = lg.compile(step) if compiled else step
    found = [run_step().item() for _ in range(steps)]
    found += [float(value.double().sum()) for value in net.state_dict().values()]
    return found


@pytest.mark.parametrize("model, compiled", some(
    itertools.product((MLP, CNN, Block), (False, True)),
    lambda model, compiled: compiled or model is MLP))
def test_training(model: Callable[[], Any], compiled: bool, where: str) -> None:
    expected = losses(model, "cpu", False, 3)
    np.testing.assert_allclose(losses(model, "cuda", compiled, 3), expected, rtol=2e-3, atol=2e-4)


@pytest.mark.cuda
def test_memory_runs_out_on_a_gpu(where: str) -> None:
    if where != "gpu":
        pytest.skip("has a test of its own")
    free, total = lg.cuda.mem_get_info()
    x = lg.ones(1000, device="cuda")
    with pytest.raises(MemoryError, match="bytes asked for on cuda:0"):
        lg.zeros(2 * total // 4, device="cuda").add_(x.sum()).sum().item()
    assert x.sum().item() == 1000 and free > 0
