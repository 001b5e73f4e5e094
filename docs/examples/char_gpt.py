"""Trains a small Transformer to write like Jane Austen, one character at a time.

    python docs/examples/char_gpt.py

The model is the decoder of "Attention Is All You Need" (Vaswani et al. 2017) with the norms first,
as in GPT-2: each position sees only what stands before it, and predicts the next character.
"""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path

import numpy as np

import lazygrad as lg
import lazygrad.nn.functional as F
from lazygrad import nn, optim

DATA = Path(__file__).parent / "data" / "pride-and-prejudice.txt.gz"
CONTEXT = 64  # characters that the model sees
WIDTH, HEADS, LAYERS = 128, 4, 3
Batch = tuple[lg.Tensor, lg.Tensor]


class Attention(nn.Module):
    """Every position gathers from those up to it."""

    def __init__(self) -> None:
        super().__init__()
        self.queries_keys_values = nn.Linear(WIDTH, 3 * WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: lg.Tensor) -> lg.Tensor:
        batch, length, _ = x.shape
        heads = self.queries_keys_values(x).reshape(batch, length, 3, HEADS, WIDTH // HEADS)
        # each (batch, heads, length, width of a head)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        gathered = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return self.output(gathered.transpose(1, 2).reshape(batch, length, WIDTH))


class Block(nn.Module):
    """Attention, then two layers for each position by itself; both add to what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.second_norm = nn.LayerNorm(WIDTH)
        self.think = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: lg.Tensor) -> lg.Tensor:
        x = x + self.attention(self.first_norm(x))
        return x + self.think(self.second_norm(x))


class CharacterModel(nn.Module):
    """(batch, length) character numbers in, (batch, length, characters) scores of the next out."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.character = nn.Embedding(characters, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.scores = nn.Linear(WIDTH, characters)
        for embedding in (self.character, self.position):
            nn.init.normal_(embedding.weight, std=0.1)

    def forward(self, numbers: lg.Tensor) -> lg.Tensor:
        x = self.character(numbers) + self.position(lg.arange(numbers.shape[1]))
        return self.scores(self.norm(self.blocks(x)))


def sample_batch(text: np.ndarray, size: int, rng: np.random.Generator) -> Batch:
    """Random passages, and the same shifted by one: what comes next."""
    starts = rng.integers(0, len(text) - CONTEXT, size)
    passages = text[starts[:, None] + np.arange(CONTEXT + 1)]
    return lg.from_numpy(passages[:, :-1].copy()), lg.from_numpy(passages[:, 1:].copy())


def loss_of(model: nn.Module, batch: Batch) -> lg.Tensor:
    numbers, following = batch
    return F.cross_entropy(model(numbers).flatten(0, 1), following.flatten())


def continuation(model: nn.Module, prompt: np.ndarray, length: int, rng: np.random.Generator,
                 temperature: float = 0.7) -> list[int]:
    """Characters sampled one after the other.

    The window keeps its length, so that one compiled program serves all of them.
    """
    window, written = list(prompt), []
    with lg.no_grad():
        for _ in range(length):
            scores = model(lg.tensor([window[-CONTEXT:]]))[0, -1]
            chances = lg.softmax(scores / temperature, dim=0).double().numpy()
            written.append(int(rng.choice(len(chances), p=chances / chances.sum())))
            window.append(written[-1])
    return written


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=800, help="training steps")
    parser.add_argument("--batch-size", type=int, default=32, help="passages a step")
    parser.add_argument("--lr", type=float, default=2e-3, help="AdamW's highest learning rate")
    parser.add_argument("--sample", type=int, default=300, help="characters to write at the end")
    parser.add_argument("--seed", type=int, default=0, help="of weights, passages and sampling")
    options = parser.parse_args()

    started = time.perf_counter()
    lg.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    with gzip.open(DATA, "rt", encoding="ascii") as file:
        text = file.read()
    alphabet = sorted(set(text))
    number_of = {character: number for number, character in enumerate(alphabet)}
    numbers = np.array([number_of[character] for character in text])
    training, held_out = numbers[:-len(numbers) // 10], numbers[-len(numbers) // 10:]

    model = CharacterModel(len(alphabet))
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{size:,} parameters, {len(alphabet)} characters")
    optimizer = optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.01)
    schedule = optim.lr_scheduler.OneCycleLR(
        optimizer, options.lr, total_steps=options.steps + 1, pct_start=0.1)
    losses: list[float] = []
    report = max(options.steps // 12, 1)
    for step in range(1, options.steps + 1):
        loss = loss_of(model, sample_batch(training, options.batch_size, rng))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % report == 0:
            seconds = time.perf_counter() - started
            recent = np.mean(losses[-report:])
            print(f"step {step:4}  loss {recent:.3f}  {seconds:.1f} s", flush=True)

    with lg.no_grad():
        print(f"held-out loss {loss_of(model, sample_batch(held_out, 256, rng)).item():.3f}")
    prompt = held_out[:CONTEXT]
    written = continuation(model, prompt, options.sample, rng)
    print(*("".join(alphabet[number] for number in part) for part in (prompt, written)), sep="|")


if __name__ == "__main__":
    main()
