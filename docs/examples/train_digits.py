"""Trains a small convolutional network to read handwritten digits.

    python docs/examples/train_digits.py

1,797 grey-scale images of 8x8 pixels; a fifth of them is held out to measure the accuracy.  The
first run compiles the training step and keeps it in the compile cache; later runs find it there.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

import lazygrad as lg
from lazygrad import nn, optim
from lazygrad.utils.data import DataLoader, TensorDataset

DATA = Path(__file__).parent / "data" / "digits.csv.gz"


def load_digits() -> tuple[TensorDataset, TensorDataset]:
    """(training set, held-out fifth): images float32 (n, 1, 8, 8) from 0 to 1, labels int64 (n,).

    The split is shuffled, and always the same.
    """
    with gzip.open(DATA) as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    images = lg.from_numpy(rows[:, :64].reshape(-1, 1, 8, 8) / 16)
    labels = lg.from_numpy(rows[:, 64].astype(np.int64))
    held_out = len(rows) // 5
    return (TensorDataset(images[held_out:], labels[held_out:]),
            TensorDataset(images[:held_out], labels[:held_out]))


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(64 * 4 * 4, 10),
    )


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    """The share of images that the model reads correctly."""
    images, labels = data.tensors
    model.eval()
    with lg.no_grad():
        guesses = model(images).argmax(dim=1)
    model.train()
    return (guesses == labels).float().mean().item()


def progress(batches: Iterable, label: str) -> Iterator:
    """The batches, with a bar on the terminal; where the output is no terminal it stays quiet."""
    total, width = len(batches), 30
    visible = sys.stderr.isatty()
    for number, batch in enumerate(batches, 1):
        yield batch
        if visible:
            filled = width * number // total
            bar = "#" * filled + "." * (width - filled)
            print(f"\r{label} [{bar}] {number}/{total}", end="", file=sys.stderr, flush=True)
    if visible:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="passes over the training images")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step")
    parser.add_argument("--lr", type=float, default=2e-3, help="Adam's first learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of weights, shuffling and dropout")
    options = parser.parse_args()

    started = time.perf_counter()
    lg.manual_seed(options.seed)
    training, held_out = load_digits()
    # drop_last: all batches have one shape, so one compiled program serves every step.
    loader = DataLoader(training, options.batch_size, shuffle=True, drop_last=True)
    if not len(loader):
        parser.error(f"--batch-size {options.batch_size}: there are only {len(training)} images")
    model = make_model()
    optimizer = optim.Adam(model.parameters(), lr=options.lr)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=options.epochs)
    criterion = nn.CrossEntropyLoss()

    for epoch in range(1, options.epochs + 1):
        losses = []
        for images, labels in progress(loader, f"epoch {epoch}"):
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()  # loss, gradients and new weights are computed here, in one program
            losses.append(loss.item())
        schedule.step()
        score = accuracy(model, held_out)
        print(f"epoch {epoch:2}  loss {np.mean(losses):.4f}  held-out accuracy {score:.1%}")
    seconds = time.perf_counter() - started
    print(f"{len(training)} training images, {len(held_out)} held out, {seconds:.1f} s")


if __name__ == "__main__":
    main()
