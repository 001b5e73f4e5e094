"""Recommends films: two towers, one for what somebody saw, one for the film.

    python docs/examples/recommend.py

Viewers and films have hidden tastes here, and a viewer sees films near the own taste.  A viewer is
the mean of the films seen, an `EmbeddingBag` over lists of several lengths; one of them is taken
out at a time, and the loss asks that it scores above the other films of the batch.  Printed is how
often the last film seen, which is kept out of training, is among the first ten of 500.

    untrained  hits 2.3%
    epoch  10  hits 14.1%  loss 3.85
    epoch  20  hits 19.7%  loss 3.42
    epoch  30  hits 20.0%  loss 3.34
"""

from __future__ import annotations

import numpy as np

import lazygrad as lg
from lazygrad import nn, optim
from lazygrad.nn import functional as F
from lazygrad.utils.data import DataLoader, Dataset

FILMS, VIEWERS = 500, 1500


class Views(Dataset):
    """(films seen, another one) of each viewer; the last film is never among them."""

    def __init__(self) -> None:
        random = self.random = np.random.default_rng(0)
        films, viewers = random.normal(size=(FILMS, 4)), random.normal(size=(VIEWERS, 4))
        films /= np.linalg.norm(films, axis=1, keepdims=True)  # none is liked by everybody
        scores = 3 * viewers @ films.T + random.gumbel(size=(VIEWERS, FILMS))
        order = np.argsort(-scores, axis=1)
        self.seen = [random.permutation(films[:length])
                     for films, length in zip(order, random.integers(8, 20, VIEWERS))]

    def __len__(self) -> int:
        return VIEWERS

    def __getitem__(self, viewer: int) -> tuple[np.ndarray, int]:
        *rest, film = self.random.permutation(self.seen[viewer][:-1])
        return np.array(rest), int(film)


def collate(views: list[tuple[np.ndarray, int]]) -> tuple[lg.Tensor, lg.Tensor, lg.Tensor]:
    """All lists one after the other, where each begins, and the films taken out.

    Padded to one size and joined by NumPy, so that all batches are one program: what lists of ever
    new lengths are joined by is compiled anew for each.
    """
    starts = np.cumsum([0, *(len(seen) for seen, _ in views)])
    flat = np.zeros(20 * len(views), dtype=np.int64)
    flat[:starts[-1]] = np.concatenate([seen for seen, _ in views])
    return lg.from_numpy(flat), lg.from_numpy(starts), lg.tensor([film for _, film in views])


class TwoTowers(nn.Module):
    def __init__(self, size: int = 16) -> None:
        super().__init__()
        self.history = nn.EmbeddingBag(FILMS, size, mode="mean", include_last_offset=True)
        self.film = nn.Embedding(FILMS, size)
        nn.init.normal_(self.history.weight, std=0.1)
        nn.init.normal_(self.film.weight, std=0.1)
        self.viewer = nn.Sequential(nn.Linear(size, 32), nn.ReLU(), nn.Linear(32, size))

    def forward(self, flat: lg.Tensor, starts: lg.Tensor, films: lg.Tensor) -> lg.Tensor:
        """Scores of each viewer (down) for each film (across)."""
        seen = self.history(flat, starts)
        viewers = F.normalize(seen + self.viewer(seen), dim=1)
        return viewers @ F.normalize(self.film(films), dim=1).T / 0.1


def hits(model: TwoTowers, views: Views) -> float:
    """The share of viewers whose last film is among the first ten of those not seen before."""
    seen = np.zeros((VIEWERS, FILMS), dtype=bool)
    for viewer, films in enumerate(views.seen):
        seen[viewer, films[:-1]] = True
    last = lg.tensor([int(films[-1]) for films in views.seen])
    with lg.no_grad():
        flat, starts, _ = collate([(films[:-1], 0) for films in views.seen])
        scores = model(flat, starts, lg.arange(FILMS)).masked_fill(lg.from_numpy(seen), -lg.inf)
        first = scores.topk(10, dim=1).indices
        return (first == last.unsqueeze(1)).any(dim=1).float().mean().item()


def main() -> None:
    lg.manual_seed(0)
    views, model = Views(), TwoTowers()
    loader = DataLoader(views, batch_size=100, shuffle=True, collate_fn=collate, drop_last=True)
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    print(f"untrained  hits {hits(model, views):.1%}")
    for epoch in range(1, 31):
        total = 0.0
        for flat, starts, films in loader:
            loss = F.cross_entropy(model(flat, starts, films), lg.arange(len(films)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        if epoch % 10 == 0:
            print(f"epoch {epoch:3}  hits {hits(model, views):.1%}  loss {total / len(loader):.2f}")


if __name__ == "__main__":
    main()
