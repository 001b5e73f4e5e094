"""Solves a differential equation with a network: u'' = -pi^2 sin(pi x), u(-1) = u(1) = 0.

    python docs/examples/pinn.py

The loss asks for the equation at points inside and for the values at both ends; u'' comes from
differentiating the network twice, and the optimiser differentiates that once more (Raissi et al.
2019).  The solution is sin(pi x).

    at first     loss 4.8e+01  largest error 1.1e+00
    after Adam   loss 2.1e-03  largest error 5.6e-04
    after LBFGS  loss 9.4e-06  largest error 1.7e-05
"""

from __future__ import annotations

import math

import lazygrad as lg
from lazygrad import nn, optim


def residual(model: nn.Module, x: lg.Tensor) -> lg.Tensor:
    """u'' + pi^2 sin(pi x), which is to be 0: (n, 1) -> (n, 1)."""
    u = model(x)
    slope, = lg.autograd.grad(u.sum(), x, create_graph=True)
    curvature, = lg.autograd.grad(slope.sum(), x, create_graph=True)
    return curvature + math.pi**2 * lg.sin(math.pi * x)


def main() -> None:
    lg.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(),
                          nn.Linear(24, 1))
    inside = lg.linspace(-1, 1, 64).unsqueeze(1).requires_grad_()
    ends = lg.tensor([[-1.0], [1.0]])
    points = lg.linspace(-1, 1, 201).unsqueeze(1)

    def loss_of() -> lg.Tensor:
        return residual(model, inside).square().mean() + 10 * model(ends).square().mean()

    def report(phase: str) -> None:
        with lg.no_grad():
            error = (model(points) - lg.sin(math.pi * points)).abs().max().item()
        print(f"{phase:<12} loss {loss_of().item():.1e}  largest error {error:.1e}")

    report("at first")
    adam = optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(400):
        loss = loss_of()
        adam.zero_grad()
        loss.backward()
        adam.step()
    report("after Adam")

    lbfgs = optim.LBFGS(model.parameters(), max_iter=150, line_search_fn="strong_wolfe")

    def closure() -> lg.Tensor:
        lbfgs.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    lbfgs.step(closure)
    report("after LBFGS")


if __name__ == "__main__":
    main()
