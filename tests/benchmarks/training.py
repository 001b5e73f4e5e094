"""Training steps: forward, backward and the optimiser's update, plainly and through each compiler.

torch runs its fastest optimisers (fused=True).  "torch.compile" compiles the model with the loss,
which makes its backward too; JAX compiles the whole step and gives its old state away.  The digits
network is that of docs/examples/train_digits.py without dropout, so that values can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.benchmarks import models, models_jax
from tests.benchmarks.contestants import compiled, framework, from_numpy, normal, uniform
from tests.benchmarks.registry import CONTESTANTS, Benchmark, Run, register

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class Task:
    """model: makes the module from a namespace like torch's.  data: the batch, inputs first, then
    what is wanted.  loss: (torch, model, *batch) -> the scalar to minimise.  optimizer: "Adam",
    "AdamW" or "SGD", with `settings`.  jax_loss: (jax, parameters, statistics, *batch) ->
    (loss, statistics); None where JAX takes no part.  flops: of the products of one step.
    """

    model: Callable[[Any], Any]
    data: Callable[[], Sequence[np.ndarray]]
    loss: Callable[..., Any]
    optimizer: str
    settings: dict[str, float]
    jax_loss: Callable[..., Any] | None
    flops: int

    def weights(self, module: Any) -> dict[str, np.ndarray]:
        """The same first weights for everyone, in arrays of the caller's own: matrices uniform with
        the variance 1/n for n inputs (a normal number takes NumPy six times as long), scales
        (one-dimensional weights) around 1.
        """
        made = {}
        for number, (name, parameter) in enumerate(module.named_parameters()):
            shape = tuple(parameter.shape)
            if len(shape) > 1:
                array = uniform(*shape, seed=number)
                array -= 0.5
                array *= math.sqrt(12 / math.prod(shape[1:]))
            else:
                array = normal(*shape, seed=number)
                array *= 0.1
                array += name.endswith("weight")
            made[name] = array
        return made

    def channels(self) -> dict[str, int]:
        """The batch norms by name, with the length of their running statistics."""
        buffers = self.model(namespace("jax")).named_buffers()
        return {name.removesuffix(".running_mean"): len(buffer) for name, buffer in buffers
                if name.endswith("running_mean")}


def namespace(contestant: str) -> Any:
    """Where modules come from; JAX, which has none, takes the names and shapes of lazygrad's."""
    return framework("lazygrad" if contestant == "jax" else contestant)


def make_step(task: Task, contestant: str, replay: bool = False) -> Run:
    """A callable that takes one step and returns the loss before it."""
    if contestant == "jax":
        return _jax_step(task)
    torch = framework(contestant)
    model = task.model(torch)
    state = {name: torch.from_numpy(array) for name, array in task.weights(model).items()}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert not [name for name in missing if "running" not in name and "batches" not in name]
    fused = {} if contestant == "lazygrad" else {"fused": True}
    optimizer = getattr(torch.optim, task.optimizer)(
        model.parameters(), **task.settings, **fused)
    batch = [from_numpy(contestant, array) for array in task.data()]
    loss_of = compiled(contestant, lambda *batch: task.loss(torch, model, *batch))

    def step(*batch: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(*batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    if contestant != "lazygrad":
        return lambda: step(*batch)
    if replay:
        step = torch.compile(step)

    def run() -> Any:
        loss = step(*batch)
        torch.synchronize()
        return loss

    return run


def _jax_step(task: Task) -> Run:
    assert task.jax_loss is not None
    jax_loss = task.jax_loss
    jax = framework("jax")
    numpy, tree = jax.numpy, jax.tree.map
    batch = [from_numpy("jax", array) for array in task.data()]
    rate, decay = task.settings["lr"], task.settings.get("weight_decay", 0.0)

    def adam(parameters: Any, gradients: Any, state: Any) -> Any:
        first, second, count = state
        count = count + 1
        first = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradients)
        second = tree(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradients)
        scaled = rate / (1 - BETA1**count)
        correction = numpy.sqrt(1 - BETA2**count)
        parameters = tree(
            lambda p, m, v: p * (1 - rate * decay)
            - scaled * m / (numpy.sqrt(v) / correction + EPSILON), parameters, first, second)
        return parameters, (first, second, count)

    def sgd(parameters: Any, gradients: Any, state: Any) -> Any:
        momentum = task.settings.get("momentum", 0.0)
        velocity = tree(lambda v, g, p: momentum * v + g + decay * p, state[0], gradients,
                        parameters)
        return tree(lambda p, v: p - rate * v, parameters, velocity), (velocity,)

    update = sgd if task.optimizer == "SGD" else adam

    def step(parameters: Any, statistics: Any, state: Any, batch: Any) -> Any:
        (loss, statistics), gradients = jax.value_and_grad(
            lambda parameters: jax_loss(jax, parameters, statistics, *batch), has_aux=True
        )(parameters)
        parameters, state = update(parameters, gradients, state)
        return parameters, statistics, state, loss

    module = task.model(namespace("jax"))
    parameters = {name: from_numpy("jax", array) for name, array in task.weights(module).items()}
    statistics = {name: (numpy.zeros(count), numpy.ones(count))
                  for name, count in task.channels().items()}
    zeros = [tree(numpy.zeros_like, parameters) for _ in range(2)]
    state: Any = (zeros[0],) if task.optimizer == "SGD" else (*zeros, numpy.float32(0))
    compiled_step = jax.jit(step, donate_argnums=(0, 1, 2))

    def run() -> Any:
        nonlocal parameters, statistics, state
        parameters, statistics, state, loss = compiled_step(parameters, statistics, state, batch)
        jax.block_until_ready(parameters)
        return loss

    return run


def _classes(torch: Any, model: Any, *batch: Any) -> Any:
    *inputs, labels = batch
    logits = model(*inputs)
    return torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def labels(*shape: int, classes: int, seed: int = 1) -> np.ndarray:
    """int64 numbers below `classes`."""
    return np.random.default_rng(seed).integers(0, classes, shape)


def _mlp(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
                         nn.Linear(512, 10))


def _digits(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 4 * 4, 10),
    )


def _step_flops(batch: int, layers: Sequence[int]) -> int:
    """Forward and two products backward per layer of so many multiplications for one example; the
    first layer's inputs want no gradient."""
    return 2 * batch * (3 * sum(layers) - layers[0])


def _attention_flops(batch: int, heads: int, length: int, width: int, layers: int) -> int:
    """Two products forward and five backward in each layer (Dao et al. 2022)."""
    return 7 * 2 * batch * heads * length**2 * width * layers


MLP = Task(
    model=_mlp, data=lambda: (normal(128, 784, seed=100), labels(128, classes=10)), loss=_classes,
    optimizer="Adam", settings={"lr": 1e-3}, jax_loss=models_jax.mlp_loss,
    flops=_step_flops(128, [784 * 512, 512 * 512, 512 * 10]),
)
DIGITS = Task(
    model=_digits, data=lambda: (normal(64, 1, 8, 8, seed=100), labels(64, classes=10)),
    loss=_classes, optimizer="Adam", settings={"lr": 1e-3}, jax_loss=models_jax.digits_loss,
    flops=_step_flops(64, [64 * 32 * 9, 64 * 64 * 32 * 9, 1024 * 10]),
)
RESNET18 = Task(
    model=models.resnet18, loss=_classes,
    data=lambda: (normal(32, 3, 32, 32, seed=100), labels(32, classes=10)),
    optimizer="SGD", settings={"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4},
    jax_loss=models_jax.resnet18_loss, flops=106_527_916_032,
)
GPT = Task(
    model=models.gpt, loss=_classes,
    data=lambda: (labels(8, 256, classes=65), labels(8, 256, classes=65, seed=2)),
    optimizer="AdamW", settings={"lr": 3e-4, "weight_decay": 0.1}, jax_loss=models_jax.gpt_loss,
    flops=130_766_340_096 + _attention_flops(8, 6, 256, 64, 6) // 2,
)
VIT = Task(
    model=models.vit, loss=_classes,
    data=lambda: (normal(8, 3, 224, 224, seed=100), labels(8, classes=1000)),
    optimizer="AdamW", settings={"lr": 1e-4, "weight_decay": 0.05}, jax_loss=None,
    flops=51_130_441_728 + _attention_flops(8, 3, 197, 64, 12),
)
UNET = Task(
    model=models.unet,
    loss=lambda torch, model, x, y: torch.nn.functional.mse_loss(model(x), y),
    data=lambda: (normal(4, 3, 64, 64, seed=100), normal(4, 3, 64, 64, seed=101)),
    optimizer="Adam", settings={"lr": 1e-3}, jax_loss=None, flops=9_528_410_112,
)
DLRM = Task(
    model=models.dlrm,
    loss=lambda torch, model, dense, ids, clicked:
        torch.nn.functional.binary_cross_entropy_with_logits(model(dense, ids), clicked),
    data=lambda: (normal(512, 13, seed=100), labels(512, 26, classes=4000),
                  labels(512, classes=2).astype(np.float32)),
    optimizer="SGD", settings={"lr": 0.1}, jax_loss=None, flops=405_635_072,
)


def register_step(name: str, about: str, task: Task, replay: bool, tolerance: float = 1e-3) -> None:
    """A row for one training step; with four steps' losses compared."""
    def make(contestant: str) -> Run:
        return make_step(task, contestant, replay)

    takes_part = CONTESTANTS if task.jax_loss else CONTESTANTS[:-1]
    register(Benchmark(name=name, about=about, make=make, flops=task.flops, checked_calls=4,
                       tolerance=tolerance, contestants=takes_part))


_MLP = "training step, MLP 784-512-512-10, batch 128, Adam"
_DIGITS = "training step, digits CNN, batch 64, Adam"
register_step("mlp-step", _MLP, MLP, False)
register_step("mlp-step-replay", f"{_MLP}, with lg.compile", MLP, True)
register_step("digits-step", _DIGITS, DIGITS, False)
register_step("digits-step-replay", f"{_DIGITS}, with lg.compile", DIGITS, True)
register_step("resnet18-step-replay", "training step, ResNet-18 for 32x32 images, batch 32, SGD",
              RESNET18, True)
register_step("gpt-step-replay", "training step, GPT 6x384, 6 heads, 8x256 tokens, AdamW", GPT,
              True)
register_step("vit-tiny-step-replay", "training step, ViT-tiny, 8 images of 224x224, AdamW", VIT,
              True)
register_step("unet-step-replay", "training step, U-Net of three levels, 4x3x64x64, Adam", UNET,
              True)
register_step("dlrm-step-replay",
              "training step, recommender with 26 embeddings of 4000x32, batch 512, SGD", DLRM,
              True)
