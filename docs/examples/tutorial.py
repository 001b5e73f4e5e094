"""First steps: six things that every PyTorch introduction shows, written once for both.

    python docs/examples/tutorial.py            with lazygrad
    python docs/examples/tutorial.py torch      the same lines with PyTorch

Each function takes the framework as `torch` and gives its results by name; the test suite compares
the two.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable
from typing import Any

Results = dict[str, Any]


def tensors(torch: Any) -> Results:
    """Build a tensor, index it, slice it, put tensors side by side."""
    x = torch.tensor([[1, 2, 3],
                      [4, 5, 6],
                      [7, 8, 9]])
    return {"x": x, "shape": tuple(x.shape), "one element": x[1, 2], "a row": x[0],
            "a column": x[:, 1], "a block": x[1:, :2], "where even": x[x % 2 == 0],
            "stacked": torch.cat([x, x], dim=0), "side by side": torch.cat([x, x * 10], dim=1),
            "product": x @ x.T}


def linear_layer(torch: Any) -> Results:
    """A fully connected layer, two numbers in and three out: y = x W^T + b."""
    layer = known_layer(torch)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    return {"y": layer(x), "by hand": x @ layer.weight.T + layer.bias}


def loss_and_gradients(torch: Any) -> Results:
    """How wrong the layer is (mean square), and how each weight should change."""
    layer = known_layer(torch)
    x, wanted = examples(torch)
    loss = torch.nn.functional.mse_loss(layer(x), wanted)
    loss.backward()
    return {"loss": loss, "of the weights": layer.weight.grad, "of the biases": layer.bias.grad}


def step_by_hand(torch: Any) -> Results:
    """Gradient descent: go against the gradient, a little, and the loss falls."""
    layer = known_layer(torch)
    x, wanted = examples(torch)
    losses = []
    for _ in range(5):
        loss = ((layer(x) - wanted) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter -= 0.01 * parameter.grad
                parameter.grad = None
        losses.append(loss.item())
    return {"losses": losses, "weights": layer.weight, "biases": layer.bias}


def step_by_optimizer(torch: Any) -> Results:
    """The same with an optimiser that adapts the step to each weight."""
    layer = known_layer(torch)
    x, wanted = examples(torch)
    criterion = torch.nn.MSELoss()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        loss = criterion(layer(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"losses": losses, "weights": layer.weight, "biases": layer.bias}


def saving(torch: Any) -> Results:
    """Keep what was learnt; a file name does as well as this buffer."""
    layer = known_layer(torch)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = torch.nn.Linear(2, 3)
    report = fresh.load_state_dict(torch.load(file))
    x, _ = examples(torch)
    return {"names": list(layer.state_dict()), "missing": list(report.missing_keys),
            "as before": fresh(x)}


def known_layer(torch: Any) -> Any:
    """nn.Linear(2, 3) with fixed weights, so that results can be compared."""
    layer = torch.nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, 0.2], [0.3, -0.4], [-0.5, 0.6]]))
        layer.bias.copy_(torch.tensor([0.01, 0.02, 0.03]))
    return layer


def examples(torch: Any) -> tuple[Any, Any]:
    """Four inputs and what should come out."""
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [2.0, -1.0]])
    wanted = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [1.0, 1.0, 1.0], [-1.0, 2.0, 0.5]])
    return x, wanted


CHAPTERS: list[Callable[[Any], Results]] = [
    tensors, linear_layer, loss_and_gradients, step_by_hand, step_by_optimizer, saving]


def main() -> None:
    torch = importlib.import_module(sys.argv[1] if len(sys.argv) > 1 else "lazygrad")
    for chapter in CHAPTERS:
        print(f"\n== {chapter.__name__}: {chapter.__doc__}")
        for name, value in chapter(torch).items():
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
