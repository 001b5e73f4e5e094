"""Training steps: forward, backward and Adam's update, plainly and through each compiler.

torch runs its fastest Adam (fused=True).  "torch.compile" compiles the model with the loss, which
makes its backward too; JAX compiles the whole step and gives its old state away.  The digits
network is that of docs/examples/train_digits.py without dropout, so that values can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks.contestants import compiled, framework, from_numpy, normal
from tests.benchmarks.registry import Benchmark, Run, register

LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.1


@dataclass(frozen=True, slots=True)
class Task:
    """model: makes the module from a namespace like torch's.  shapes: of its parameters by name, in
    order.  image: shape of one example.  jax_logits: (jax, parameters, statistics, x) -> (logits,
    statistics).  channels: those of the batch norms, whose running statistics JAX keeps.  flops: of
    one step."""

    model: Callable[[Any], Any]
    shapes: dict[str, tuple[int, ...]]
    image: tuple[int, ...]
    batch: int
    jax_logits: Callable[..., Any]
    channels: Sequence[int]
    flops: int

    def weights(self) -> dict[str, np.ndarray]:
        """The same first weights for everyone; scales (one-dimensional weights) around 1."""
        made = {}
        for number, (name, shape) in enumerate(self.shapes.items()):
            if len(shape) > 1:
                made[name] = normal(*shape, seed=number) / math.sqrt(math.prod(shape[1:]))
            else:
                scale = name.endswith("weight")
                made[name] = normal(*shape, seed=number) * np.float32(0.1) + np.float32(scale)
        return made

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Examples (batch, *image) float32 and labels (batch,) int64."""
        labels = np.random.default_rng(1).integers(0, 10, self.batch)
        return normal(self.batch, *self.image, seed=100), labels


def make_step(task: Task, contestant: str, replay: bool = False) -> Run:
    """A callable that takes one step and returns the loss before it."""
    if contestant == "jax":
        return _jax_step(task)
    torch = framework(contestant)
    model = task.model(torch)
    state = {name: from_numpy(contestant, array) for name, array in task.weights().items()}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert not [name for name in missing if "running" not in name and "batches" not in name]
    fused = {} if contestant == "lazygrad" else {"fused": True}
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, **fused)
    x, labels = (from_numpy(contestant, array) for array in task.data())
    loss_of = compiled(contestant, lambda x, labels: torch.nn.functional.cross_entropy(
        model(x), labels))

    def step(x: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(x, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if contestant != "lazygrad":
        return lambda: step(x, labels)
    if replay:
        step = torch.compile(step)

    def run() -> Any:
        loss = step(x, labels)
        torch.synchronize()
        return loss

    return run


def _jax_step(task: Task) -> Run:
    jax = framework("jax")
    numpy = jax.numpy
    x, labels = (from_numpy("jax", array) for array in task.data())

    def loss_of(parameters: Any, statistics: Any, x: Any, labels: Any) -> Any:
        logits, statistics = task.jax_logits(jax, parameters, statistics, x)
        picked = numpy.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
        return -picked.mean(), statistics

    def step(state: Any, x: Any, labels: Any) -> Any:
        parameters, first, second, count, statistics = state
        (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            parameters, statistics, x, labels)
        count = count + 1
        tree = jax.tree.map
        first = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradients)
        second = tree(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradients)
        rate = LEARNING_RATE / (1 - BETA1**count)
        correction = numpy.sqrt(1 - BETA2**count)
        parameters = tree(lambda p, m, v: p - rate * m / (numpy.sqrt(v) / correction + EPSILON),
                          parameters, first, second)
        return (parameters, first, second, count, statistics), loss

    parameters = {name: from_numpy("jax", array) for name, array in task.weights().items()}
    statistics = [(numpy.zeros(count), numpy.ones(count)) for count in task.channels]
    first, second = (jax.tree.map(numpy.zeros_like, parameters) for _ in range(2))
    state = (parameters, first, second, numpy.float32(0), statistics)
    compiled_step = jax.jit(step, donate_argnums=0)

    def run() -> Any:
        nonlocal state
        state, loss = compiled_step(state, x, labels)
        jax.block_until_ready(state)
        return loss

    return run


def _mlp(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
                         nn.Linear(512, 10))


def _jax_mlp(jax: Any, parameters: Any, statistics: Any, x: Any) -> Any:
    for number in (0, 2, 4):
        x = x @ parameters[f"{number}.weight"].T + parameters[f"{number}.bias"]
        if number < 4:
            x = jax.nn.relu(x)
    return x, statistics


def _digits(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 4 * 4, 10),
    )


def _jax_digits(jax: Any, parameters: Any, statistics: Any, x: Any) -> Any:
    lax, numpy, kept = jax.lax, jax.numpy, []
    for number, (running_mean, running_variance) in zip((0, 3), statistics, strict=True):
        x = lax.conv_general_dilated(x, parameters[f"{number}.weight"], (1, 1), "SAME",
                                     dimension_numbers=("NCHW", "OIHW", "NCHW"))
        x = x + parameters[f"{number}.bias"][:, None, None]
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
        unbiased = variance * (x.size / len(mean)) / (x.size / len(mean) - 1)
        kept.append((running_mean + NORM_MOMENTUM * (mean - running_mean),
                     running_variance + NORM_MOMENTUM * (unbiased - running_variance)))
        scale = parameters[f"{number + 1}.weight"] * lax.rsqrt(variance + NORM_EPSILON)
        shift = parameters[f"{number + 1}.bias"] - mean * scale
        x = jax.nn.relu(x * scale[:, None, None] + shift[:, None, None])
    x = lax.reduce_window(x, -numpy.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.reshape(len(x), -1)
    return x @ parameters["8.weight"].T + parameters["8.bias"], kept


def _step_flops(batch: int, layers: Sequence[int]) -> int:
    """Forward and two products backward per layer of so many multiplications for one example; the
    first layer's inputs want no gradient."""
    return 2 * batch * (3 * sum(layers) - layers[0])


MLP = Task(
    model=_mlp, image=(784,), batch=128, jax_logits=_jax_mlp, channels=(),
    shapes={"0.weight": (512, 784), "0.bias": (512,), "2.weight": (512, 512), "2.bias": (512,),
            "4.weight": (10, 512), "4.bias": (10,)},
    flops=_step_flops(128, [784 * 512, 512 * 512, 512 * 10]),
)
DIGITS = Task(
    model=_digits, image=(1, 8, 8), batch=64, jax_logits=_jax_digits, channels=(32, 64),
    shapes={"0.weight": (32, 1, 3, 3), "0.bias": (32,), "1.weight": (32,), "1.bias": (32,),
            "3.weight": (64, 32, 3, 3), "3.bias": (64,), "4.weight": (64,), "4.bias": (64,),
            "8.weight": (10, 1024), "8.bias": (10,)},
    flops=_step_flops(64, [64 * 32 * 9, 64 * 64 * 32 * 9, 1024 * 10]),
)


def _register(name: str, about: str, task: Task, replay: bool) -> None:
    def make(contestant: str) -> Run:
        return make_step(task, contestant, replay)

    register(Benchmark(name=name, about=about, make=make, flops=task.flops, checked_calls=4,
                       tolerance=1e-3))


_MLP = "training step, MLP 784-512-512-10, batch 128, Adam"
_DIGITS = "training step, digits CNN, batch 64, Adam"
_register("mlp-step", _MLP, MLP, False)
_register("mlp-step-replay", f"{_MLP}, with lg.compile", MLP, True)
_register("digits-step", _DIGITS, DIGITS, False)
_register("digits-step-replay", f"{_DIGITS}, with lg.compile", DIGITS, True)
