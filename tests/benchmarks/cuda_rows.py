"""The rows of the GPU benchmark: what each computes, on what, and what it must at least move.

`make` takes the library, lazygrad or PyTorch, so that both compute the same.  Rows stand in the
order of their importance, since a machine may be had for minutes only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Row:
    """inputs: arrays for a size.  make: (library, tensors) -> a function without arguments that
    gives a tensor.  nbytes, flops: what it must move and compute, for a size.  tolerance: of the
    result against float64, as norms; a single element may be ten times as far off, of the largest.
    tf32: whether both libraries may round float32 products.  without: instructions that lazygrad
    goes without, to compare templates.  large: whether PyTorch's float64 is a reference for the
    full size; a model that draws its own weights has none.  compiled: the mode of `torch.compile`
    that takes part, too, where operations fuse; "": PyTorch has one kernel for it.
    """

    name: str
    about: str
    size: int
    small: int
    inputs: Callable[[int], Sequence[np.ndarray]]
    make: Callable[[Any, Sequence[Any]], Callable[[], Any]]
    nbytes: Callable[[int], float] = lambda n: 0.0
    flops: Callable[[int], float] = lambda n: 0.0
    tolerance: float = 1e-5
    dtype: str = "float32"
    tf32: bool = False
    without: tuple[str, ...] = ()
    large: bool = True
    compiled: str = ""


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng().standard_normal(shape, np.float32)


def _indices(below: int, *shape: int) -> np.ndarray:
    return np.random.default_rng().integers(0, below, shape)


def _matrices(n: int) -> tuple[np.ndarray, np.ndarray]:
    return _normal(n, n), _normal(n, n)


def _rows(n: int) -> tuple[np.ndarray]:
    return (_normal(n, 4096 if n > 100 else 40),)


def _heads(n: int) -> tuple[np.ndarray, ...]:
    return tuple(_normal(*((4, 16, n, 128) if n > 100 else (1, 2, n, 16))) for _ in range(3))


def _product(library: Any, t: Sequence[Any]) -> Callable[[], Any]:
    return lambda: t[0] @ t[1]


def _embedding_gradient(library: Any, t: Sequence[Any]) -> Callable[[], Any]:
    table = t[0].requires_grad_()
    where = t[1].long()

    def gradient() -> Any:
        taken = library.nn.functional.embedding(where, table)
        return library.autograd.grad((taken * taken).sum(), table)[0]

    return gradient


def _attention(backward: bool) -> Callable[[Any, Sequence[Any]], Callable[[], Any]]:
    def make(library: Any, tensors: Sequence[Any]) -> Callable[[], Any]:
        attend = library.nn.functional.scaled_dot_product_attention
        q, k, v = (each.requires_grad_(backward) for each in tensors)

        def forward() -> Any:
            return attend(q, k, v, is_causal=True)

        def gradient() -> Any:
            return library.autograd.grad(attend(q, k, v, is_causal=True).sum(), (q, k, v))[0]

        return gradient if backward else forward

    return make


def _gpt(library: Any, tensors: Sequence[Any]) -> Callable[[], Any]:
    """A training step of a small GPT in bfloat16 products; gives the loss."""
    nn, functional = library.nn, library.nn.functional
    tokens = tensors[0].long()
    width, heads, layers, words = 768, 12, 12, 50304
    if tokens.shape[1] < 512:  # the small size
        width, heads, layers, words = 32, 2, 1, 64

    class Block(nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            batch, length, _ = x.shape
            parts = self.mix(self.first(x)).reshape(batch, length, 3, heads, width // heads)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
            return x + self.down(functional.gelu(self.up(self.second(x))))

    class Model(nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(words, width)
            self.places = nn.Embedding(tokens.shape[1], width)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.last, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)

        def forward(self, numbers: Any) -> Any:
            place = library.arange(numbers.shape[1], device=numbers.device)
            return self.head(self.last(self.blocks(self.tokens(numbers) + self.places(place))))

    library.manual_seed(0)
    model = Model().to(tokens.device)
    optimizer = library.optim.AdamW(model.parameters(), lr=1e-4)
    inputs, wanted = tokens[:, :-1] % words, tokens[:, 1:] % words

    def step() -> Any:
        optimizer.zero_grad()
        with library.autocast("cuda", library.bfloat16):
            logits = model(inputs)
        loss = functional.cross_entropy(logits.float().reshape(-1, words), wanted.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


MEBI = 1 << 20
ROWS = (
    Row("matmul-bf16", "n x n @ n x n, bfloat16", 8192, 64, _matrices, _product,
        flops=lambda n: 2 * n**3, tolerance=5e-3, dtype="bfloat16"),
    Row("matmul-f32", "n x n @ n x n, float32 without tf32", 8192, 40, _matrices, _product,
        flops=lambda n: 2 * n**3),
    Row("attention", "causal, batch 4, 16 heads of 128, n tokens, bfloat16", 4096, 40, _heads,
        _attention(False), flops=lambda n: 2 * 4 * 16 * 128 * n * n, tolerance=1e-2,
        dtype="bfloat16"),
    Row("attention-grad", "forward and backward of the same", 4096, 40, _heads, _attention(True),
        flops=lambda n: 7 * 4 * 16 * 128 * n * n, tolerance=2e-2, dtype="bfloat16"),
    Row("gpt-step", "training step of GPT-2 small, batch 8, n tokens, bfloat16 products, AdamW",
        1025, 9, lambda n: (_indices(50000, 8 if n > 100 else 2, n).astype(np.float32),), _gpt,
        tolerance=0.05, large=False, compiled="default"),
    Row("chain", "((x y + x) y + 0.5) x + y, float32", 64 * MEBI, 1000,
        lambda n: (_normal(n), _normal(n)),
        lambda library, t: lambda: ((t[0] * t[1] + t[0]) * t[1] + 0.5) * t[0] + t[1],
        nbytes=lambda n: 12 * n, compiled="default"),
    Row("softmax", "softmax over rows of n x 4096, float32", 16384, 8, _rows,
        lambda library, t: lambda: t[0].softmax(1), nbytes=lambda n: 8 * n * 4096,
        compiled="default"),
    Row("layer-norm", "layer normalisation of rows of n x 4096, float32", 16384, 8, _rows,
        lambda library, t: lambda: library.nn.functional.layer_norm(t[0], t[0].shape[1:]),
        nbytes=lambda n: 8 * n * 4096, compiled="default"),
    Row("replay", "tanh(x w + b), 64x64: what a replayed program costs the host", 64, 16,
        lambda n: (_normal(n, n), _normal(n, n), _normal(n)),
        lambda library, t: lambda: (t[0] @ t[1] + t[2]).tanh(), compiled="reduce-overhead"),
    Row("matmul-bf16-mma", "n x n @ n x n, bfloat16, without wgmma", 8192, 48, _matrices,
        _product, flops=lambda n: 2 * n**3, tolerance=5e-3, dtype="bfloat16", without=("wgmma",)),
    Row("matmul-tf32", "n x n @ n x n, float32 rounded to tf32", 8192, 40, _matrices, _product,
        flops=lambda n: 2 * n**3, tolerance=1e-3, tf32=True),
    Row("conv-bf16", "3x3, 256 to 256 channels of 56x56, batch n, bfloat16", 64, 2,
        lambda n: (_normal(n, *((256, 56, 56) if n > 10 else (8, 6, 6))),
                   _normal(*((256, 256, 3, 3) if n > 10 else (8, 8, 3, 3)))),
        lambda library, t: lambda: library.nn.functional.conv2d(t[0], t[1], padding=1),
        flops=lambda n: 2 * n * 56 * 56 * 256 * 256 * 9, tolerance=5e-3, dtype="bfloat16"),
    Row("row-sum", "sum of each row of n x 4096, float32", 16384, 8, _rows,
        lambda library, t: lambda: t[0].sum(1), nbytes=lambda n: 4 * n * 4096),
    Row("column-sum", "sum of each column of n x 4096, float32", 16384, 8, _rows,
        lambda library, t: lambda: t[0].sum(0), nbytes=lambda n: 4 * n * 4096),
    Row("sum", "sum of all, float32", 64 * MEBI, 5000, lambda n: (1 + _normal(n),),
        lambda library, t: lambda: t[0].sum(), nbytes=lambda n: 4 * n),
    Row("histogram", "n weights added to 64 places, float32", 16 * MEBI, 5000,
        lambda n: (_normal(n), _indices(64, n).astype(np.float32), np.zeros(64, np.float32)),
        lambda library, t: (lambda where: lambda: t[2].index_add(0, where, t[0]))(t[1].long()),
        nbytes=lambda n: 12 * n, tolerance=1e-4),
    Row("embedding-grad", "gradient of a table of 50,304 x 768 by n rows, float32", 8192, 30,
        lambda n: (_normal(50304 if n > 100 else 20, 768 if n > 100 else 12),
                   _indices(50304 if n > 100 else 20, n).astype(np.float32)),
        _embedding_gradient, nbytes=lambda n: 4 * 768 * (50304 + 2 * n)),
    Row("top-k", "50 largest of rows of 50,000, n rows, float32", 64, 2,
        lambda n: (_normal(n, 50_000 if n > 10 else 3000),),
        lambda library, t: lambda: t[0].topk(50 if len(t[0]) > 10 else 5).values,
        nbytes=lambda n: 4 * n * 50_000),
    Row("sort", "rows of 1 Mi, n rows, float32", 4, 1,
        lambda n: (_normal(n, MEBI if n > 1 else 3000),),
        lambda library, t: lambda: t[0].sort(1).values, nbytes=lambda n: 8 * n * MEBI),
    Row("cumsum", "running sum of rows of 1 Mi, n rows, float32", 64, 2,
        lambda n: (_normal(n, MEBI if n > 10 else 3000),),
        lambda library, t: lambda: t[0].cumsum(1), nbytes=lambda n: 8 * n * MEBI, tolerance=1e-4),
    Row("chain-gelu", "gelu(x) sigmoid(y) + exp(-x x), float32", 64 * MEBI, 1000,
        lambda n: (_normal(n), _normal(n)),
        lambda library, t: lambda: library.nn.functional.gelu(t[0]) * t[1].sigmoid()
        + (-t[0] * t[0]).exp(), nbytes=lambda n: 12 * n, compiled="default"),
)  # fmt: skip
