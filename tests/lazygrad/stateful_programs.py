"""Random programs with state: views, writes, leaves, hooks, optimisers, compiled functions.

A program is a list of statements in Python over names `v0`, `v1`, … and `torch`.  It is written
while PyTorch runs it, since what fits next depends on what is there; then it is run again with
lazygrad as `torch`, and everything that can be seen is compared.  Statements may fail, in both or
in neither; where only PyTorch fails, it is for the sake of its bookkeeping (`BOOKKEEPING`), and the
program ends.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

BOOKKEEPING = (
    "modified by an inplace operation",
    "backward through the graph a second time",
    "a view of a leaf Variable that requires grad is being used in an in-place",
    "Output 0 of UnbindBackward",
    "modified inplace",
    "expected dtype",
    "more than one element of the written-to tensor refers to a single memory",
    "some elements of the input tensor and the written-to tensor refer to a single memory",
    "unsupported operation",
    "Can't detach views in-place",
    # Copies keep the order of strides in PyTorch.
    "view size is not compatible with input tensor's size and stride",
)
"""Of messages of PyTorch where lazygrad computes what is meant."""

STRICTER = (
    # PyTorch may go a second time through operations whose gradients need no values.
    "backward through the graph a second time",
    # PyTorch takes a few more operations on them than `fill_` and `zero_`.
    "several elements of an expanded view are one element",
    "is not laid out as",
    # of a gradient that is zeros in PyTorch
    "'NoneType' object has no attribute",
)
"""Of messages of lazygrad where PyTorch computes something."""

PRELUDE = """
import copy, pickle
def compile(function):
    return torch.compile(function)
m = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.BatchNorm1d(3), torch.nn.Tanh(),
                        torch.nn.Linear(3, 2))
with torch.no_grad():
    for number, parameter in enumerate(m.parameters()):
        parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape).float().mul(0.7)
                        .add(number).sin())
del number, parameter
"""


@dataclass(frozen=True)
class Difference:
    """Where two runs of a program differ.  step: the number of the statement."""

    step: int
    what: str


class Writer:
    """Writes one program; PyTorch is run along."""

    def __init__(self, seed: int, length: int) -> None:
        import torch
        self.random = random.Random(seed)
        self.torch = torch
        self.space: dict[str, Any] = {"torch": torch}
        exec(PRELUDE.replace("torch.compile(function)", "function"), self.space)
        self.statements: list[str] = []
        self.count = 0
        # PyTorch loses gradients by views of a leaf that was written: a program has one of both.
        self.leaves_written = self.random.random() < 0.5
        # `grad` adds to the gradients of tensors that retain theirs, in PyTorch.
        self.grads = self.random.random() < 0.5
        self.stopped = False
        kinds = [name for name in dir(self) if name.startswith("write_")]
        weights = [getattr(self, name).__dict__.get("weight", 1) for name in kinds]
        for _ in range(3):
            self.add(self.write_new())
        self.add(self.pick([
            "o = torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9)",
            "o = torch.optim.Adam(m.parameters(), lr=0.05)",
            "o = torch.optim.AdamW(m.parameters(), lr=0.05)",
            "o = torch.optim.RMSprop(m.parameters(), lr=0.01)"]))
        while len(self.statements) < length and not self.stopped:
            kind = self.random.choices(kinds, weights)[0]
            try:
                statement = getattr(self, kind)()
                if statement:
                    self.add(statement)
            except RuntimeError as error:  # of looking at a view of several, once one was written
                if not any(part in str(error) for part in BOOKKEEPING):
                    raise
                self.stopped = True

    # ---- choosing

    def pick(self, things: Sequence[Any]) -> Any:
        return self.random.choice(list(things))

    def tensors(self, fits: Callable[[Any], bool] = lambda tensor: True) -> list[str]:
        return [name for name, value in self.space.items()
                if name[0] == "v" and name[1:].isdigit() and fits(value)]

    def a(self, fits: Callable[[Any], bool] = lambda tensor: True) -> str | None:
        found = self.tensors(fits)
        return self.pick(found) if found else None

    def is_written_leaf(self, tensor: Any) -> bool:
        return tensor.requires_grad and (tensor.is_leaf or (tensor._base is not None
                                                            and tensor._base.is_leaf))

    def may_be_written(self, tensor: Any) -> bool:
        """Whether PyTorch computes gradients when this is written without grad mode."""
        return not self.is_written_leaf(tensor) or (self.leaves_written and tensor._base is None)

    def floating(self, name: str) -> bool:
        return self.space[name].is_floating_point()

    def new(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def add(self, statement: str) -> None:
        self.statements.append(statement)
        error = run_statement(statement, self.space)
        if error is not None and any(part in error for part in BOOKKEEPING):
            self.stopped = True
        for name in self.tensors():
            value = self.space[name]
            if value.numel() > 200:
                del self.space[name]
                self.statements.append(f"del {name}")
        names = self.tensors()
        if len(names) > 12:
            self.add(f"del {self.pick(names)}")

    def number(self) -> float:
        return self.pick([-2.0, -1.0, -0.5, 0.5, 0.75, 1.0, 1.5, 2.0])

    # ---- statements

    def write_new(self) -> str:
        shape = tuple(self.random.randrange(1, 5) for _ in range(self.random.randrange(0, 4)))
        size = math.prod(shape)
        dtype = self.pick(["float32", "float32", "float32", "float32", "float64", "int64"])
        base = f"(torch.arange({size}) * {self.random.randrange(1, 50)} % 17 - 8)"
        grad = ".requires_grad_()" if dtype.startswith("f") and self.random.random() < 0.5 else ""
        scale = " / 4" if dtype.startswith("f") else ""
        return f"{self.new()} = ({base}{scale}).to(torch.{dtype}).reshape({shape}){grad}"

    def view(self, name: str) -> str:
        x = name
        shape = tuple(self.space[x].shape)
        if self.leaves_written and self.is_written_leaf(self.space[x]):
            x = f"{x}.clone()"
        if not shape:
            return self.pick([f"{x}.unsqueeze(0)", f"{x}.reshape(1, 1)", f"{x}.expand(3)",
                              f"{x}[None]", f"{x}[...]", f"{x}.view(())"])
        axis = self.random.randrange(len(shape))
        other = self.random.randrange(len(shape))
        size = shape[axis]
        whole = ", ".join([":"] * axis)
        before = whole + (", " if whole else "")
        start = self.random.randrange(size + 1)
        choices = [
            f"{x}.transpose({axis}, {other})", f"{x}.unsqueeze({axis})", f"{x}.mT",
            f"{x}[{before}{start}:]", f"{x}[{before}::2]", f"{x}.squeeze()",
            f"{x}.narrow({axis}, 0, {size - size // 2})",
            f"{x}.select({axis}, {self.random.randrange(max(size, 1))})",
            f"{x}.unbind({axis})[-1]", f"{x}.chunk(2, {axis})[-1]", f"{x}.split(2, {axis})[0]",
            f"{x}.movedim({axis}, {other})", f"{x}.expand(2, *{x}.shape)", f"{x}[..., -1]",
            f"{x}.view_as({x})", f"{x}.T" if len(shape) == 2 else f"{x}[None]",
            f"{x}.unfold({axis}, {min(2, size)}, 2)",
        ]
        if len(shape) >= 2:
            choices += [f"{x}.diagonal()", f"{x}.diagonal(1)"]
        if self.space[name].is_contiguous():  # which results are, depends on strides in PyTorch
            choices += [f"{x}.view(-1)", f"{x}.reshape(-1)", f"{x}.flatten()"]
            if len(shape) >= 2:
                choices += [f"{x}.flatten(0, 1)"]
        return self.pick(choices)

    def write_view(self) -> str | None:
        x = self.a()
        return x and f"{self.new()} = {self.view(x)}"

    write_view.__dict__["weight"] = 4

    def expression(self) -> str:
        x = self.a()
        assert x is not None
        shape = tuple(self.space[x].shape)
        y = self.a(lambda other: tuple(other.shape) == shape)
        k = self.number()
        choices = [f"{x} * {k}", f"{x} + {y}", f"{x} * {y}", f"{x} - {y}.detach()", f"{x}.clone()",
                   f"{x}.detach()", f"{x}.detach().clone()", f"{x}.sum()", f"{x}.data", f"-{x}",
                   f"torch.where({x} > {k}, {x}, {y})", f"torch.stack([{x}, {y}])",
                   f"{x}.flip(0)" if shape else f"{x}.abs()", f"{x}.clone().detach()",
                   f"{x}.float()", f"{x}.double()", f"torch.zeros_like({x})",
                   f"torch.empty_like({x}).copy_({y})", f"copy.deepcopy({x}.detach())",
                   f"pickle.loads(pickle.dumps({x}.detach()))",
                   f"{x}.index_select(0, torch.tensor([0]))" if shape else f"{x}.square()"]
        if self.floating(x):
            choices += [f"{x}.sin()", f"{x}.tanh() * {y}", f"{x}.exp().clamp(max=50)",
                        f"{x}.mean()", f"torch.nn.Parameter({x}.detach().clone())",
                        f"copy.deepcopy({x})", f"{x}.sigmoid()", f"{x}.relu()"]
            if shape:
                choices += [f"{x}.softmax(-1)", f"{x}.cumsum(0)", f"{x}.max(dim=0).values"]
        return self.pick(choices)

    def write_compute(self) -> str:
        return f"{self.new()} = {self.expression()}"

    write_compute.__dict__["weight"] = 6

    def in_place(self, fits: Callable[[Any], bool] = lambda tensor: True) -> str | None:
        x = self.a(fits)
        if x is None:
            return None
        shape = tuple(self.space[x].shape)
        y = self.a(lambda other: tuple(other.shape) == shape)
        z = self.a(lambda other: other.dim() < len(shape)
                   and other.shape == shape[len(shape) - other.dim():]) or y
        k = self.number() if self.floating(x) else self.random.randrange(-2, 4)
        choices = [f"{x}.add_({k})", f"{x}.mul_({k})", f"{x}.zero_()", f"{x}.fill_({k})",
                   f"{x}.copy_({y})", f"{x}.copy_({z})", f"{x}.add_({z})", f"{x}.mul_({y})",
                   f"{x}.masked_fill_({x} > {k}, -1)", f"{x}.clamp_(-3, 3)", f"{x} += {y}",
                   f"{x} *= {k}", f"{x}.neg_()", f"{x}[...] = {k}", f"{x}[{x} > {k}] = 1",
                   f"{x}.sub_({z}.detach())", f"{x}.detach().mul_({k})",
                   f"{x}.detach().copy_({y})", f"{x}.requires_grad_(False)", f"{x}.abs_()",
                   f"{x}.detach_()", f"{x}.copy_({x}.clone())", f"{x}.add_({x})",
                   f"{x}.lerp_({y}, 0.5)", f"{x}.addcmul_({y}, {y})"]
        if not self.tensors(lambda t: t._base is self.space[x]):  # which PyTorch changes, too
            choices += [f"{x}.requires_grad_()"]
        if self.floating(x):
            choices += [f"{x}.sin_()", f"{x}.tanh_()", f"{x}.div_(2)", f"{x}.sigmoid_()"]
        if shape and shape[0]:
            at = self.random.randrange(shape[0])
            choices += [f"{x}[{at}] = {k}", f"{x}[{at}:] *= {k}", f"{x}[{at}] += {k}",
                        f"{x}[::2] = {x}[0].clone()", f"{x}[torch.tensor([0, -1])] = {k}",
                        f"{x}[{at}] = {x}[-1]",
                        f"{x}.index_add_(0, torch.tensor([0]), {x}[:1].clone())",
                        f"{x}.index_fill_(0, torch.tensor([{at}]), {k})",
                        f"{x}[:] = {x}.flip(0)",
                        f"{x}.index_copy_(0, torch.tensor([{at}]), {y}[:1])",
                        f"{x}.scatter_(0, torch.zeros({(1, *shape[1:])}).long(), {k})",
                        f"{x}[..., 0] = {y}[..., 0]", f"{x}[{at}].copy_({y}[0])",
                        f"{x}[None].add_({k})", f"{x}.view(-1)[0] = {k}", f"{x}.mT.mul_({k})",
                        f"{self.view(x)}.mul_({k})", f"{self.view(x)}.fill_({k})"]
        return self.pick(choices)

    def write_in_place(self) -> str | None:
        return self.in_place()

    write_in_place.__dict__["weight"] = 7

    def write_no_grad(self) -> str | None:
        x = self.a()
        # A view made without grad mode of a tensor with history says it has one, too, in PyTorch.
        body = self.pick([lambda: self.in_place(self.may_be_written), self.write_compute,
                          lambda: x and f"{self.new()} = {self.view(x)}.detach()"])()
        if body is None:
            return None
        kind = self.pick(["no_grad", "no_grad", "enable_grad"])
        tail = self.pick(["", "", "", "\n    raise KeyError('user')"])
        return f"with torch.{kind}():\n    {body}{tail}"

    write_no_grad.__dict__["weight"] = 3

    def write_backward(self) -> str | None:
        x = self.a(lambda t: t.requires_grad)
        if x is None:
            return None
        y = self.a(lambda t: t.requires_grad)
        keep = self.pick(["", "", "retain_graph=True", "retain_graph=True", "create_graph=True"])
        return self.pick([
            f"{x}.sum().backward({keep})", f"({x} * {x}).sum().backward({keep})",
            f"{x}.backward(torch.ones_like({x}){', ' if keep else ''}{keep})",
            f"({x}.sum() * {y}.sum()).backward({keep})", f"{x}.sin().mean().backward({keep})",
            f"(({x} * {x}).sum() + {y}.sum()).backward({keep})",
            f"torch.autograd.backward([{x}.sum(), {y}.mean()])" if x != y
            else f"{x}.sum().backward()",
        ])

    write_backward.__dict__["weight"] = 3

    def write_grad(self) -> str | None:
        x = self.a(lambda t: t.requires_grad)
        y = self.a(lambda t: t.requires_grad and t.is_leaf)
        if x is None or y is None or not self.grads:
            return None
        keep = self.pick(["", ", create_graph=True", ", retain_graph=True"])
        # A copy, since PyTorch's may be an expanded view, which it writes wrongly by index.
        return (f"{self.new()} = torch.autograd.grad(({x} * {x}).sum() + {y}.sum(), {y}{keep})[0]"
                ".clone()")

    def write_gradient_state(self) -> str | None:
        x = self.a(lambda t: t.is_leaf and t.grad is not None and self.may_be_written(t))
        if x is None:
            return None
        return self.pick([f"{x}.grad = None", f"{x}.grad.zero_()", f"{x}.grad.mul_(0.5)",
                          f"{x}.grad = {x}.grad.clone()", f"{self.new()} = {x}.grad",
                          f"{x}.detach().sub_({x}.grad)", f"del {x}.grad", f"{x}.grad.detach_()",
                          f"with torch.no_grad():\n    {x} -= 0.1 * {x}.grad",
                          f"{x}.grad = torch.ones_like({x})"])

    write_gradient_state.__dict__["weight"] = 2

    def write_hook(self) -> str | None:
        # PyTorch 2.13 crashes in register_hook of a view whose base was written without grad mode.
        x = self.a(lambda t: t.requires_grad and t._base is None and t.is_leaf)
        if x is None:
            return None
        keep = f"{x}.requires_grad_()" if self.grads else f"{x}.retain_grad()"
        return self.pick([keep, f"h = {x}.register_hook(lambda g: g * 2)",
                          f"h = {x}.register_hook(lambda g: None)",
                          f"h = {x}.register_hook(lambda g: g.add(1))",
                          "h.remove()" if "h" in self.space else keep])

    def write_data(self) -> str | None:
        # PyTorch takes gradients of what `.data` has become, where the value was used before.
        x = self.a(lambda t: t.is_leaf)
        if x is None or self.tensors(lambda t: t.requires_grad and not t.is_leaf):
            return None
        shape = self.space[x].shape
        dtype = self.space[x].dtype
        y = self.a(lambda t: t.dtype == dtype and t.shape == shape)
        return y and self.pick([f"{x}.data = {y}.data.clone()", f"{x}.data = {y}.detach()",
                                f"{x}.data.mul_(2)", f"{x}.data.copy_({y})"])

    def write_train(self) -> str | None:
        data = "torch.arange(12).reshape(4, 3).float().mul(0.3).cos()"
        return self.pick([
            f"m({data}).square().mean().backward()", "o.step()", "o.step()", "o.zero_grad()",
            "o.zero_grad(set_to_none=False)", "m.eval()", "m.train()",
            f"o.zero_grad()\nl = m({data}).square().mean()\nl.backward()\no.step()",
            f"o.zero_grad()\nl = m({data}).square().mean()\nl.backward()\no.step()",
            f"{self.new()} = m({data})", f"with torch.no_grad():\n    {self.new()} = m({data})",
            "s = copy.deepcopy(m.state_dict())",
            "m.load_state_dict(s)" if "s" in self.space else None,
            "s = copy.deepcopy(o.state_dict())\no.load_state_dict(s)\ns = m.state_dict()",
            f"{self.new()} = m[0].weight", f"{self.new()} = m[0].weight.data",
            f"{self.new()} = m[3].weight.T.clone()", f"{self.new()} = m[1].running_mean",
            f"{self.new()} = m[1].num_batches_tracked",
            "m[1].running_var.fill_(1)", "m[0].weight.requires_grad_(False)",
            "m[0].weight.requires_grad_(True)",
            "torch.nn.utils.clip_grad_norm_(m.parameters(), 0.5)",
            "m = copy.deepcopy(m)", "for g in o.param_groups: g['lr'] *= 0.5",
            "m.zero_grad()", "m[0].weight = torch.nn.Parameter(m[0].weight.detach().clone())",
            "m[1].reset_running_stats()",
            f"m({data}[:1]).sum().backward()",  # a batch norm of one row fails
        ])

    write_train.__dict__["weight"] = 5

    def write_compiled(self) -> str | None:
        x = self.a()
        if x is None:
            return None
        define = self.pick([
            "def f(x):\n    return x * 2 + 1",
            "def f(x):\n    y = x.clone()\n    y[...] = 1\n    return y + x",
            "def f(x):\n    x.add_(1)\n    return x.sum()",
            "def f(x):\n    x.mul_(0.5)\n    return x",
            "def f(x):\n    return x.detach().sin(), x",
            "def f(x):\n    with torch.no_grad():\n        x.add_(1)\n    return x.reshape(-1) * 1",
            "def f(x):\n    return x.T if x.dim() == 2 else x",
            "def f(x):\n    return x.float().sum() * 3",
        ])
        call = f"r = f({x})\n{self.new()} = r[0] if isinstance(r, tuple) else r\ndel r"
        if "f" in self.space and self.random.random() < 0.6:
            return call
        return f"{define}\nf = compile(f)\n{call}"

    write_compiled.__dict__["weight"] = 2

    def write_compiled_step(self) -> str | None:
        data = "torch.arange(12).reshape(4, 3).float().mul(0.3).cos()"
        if "step" in self.space and self.random.random() < 0.8:
            return f"l = step(m, o, {data}); l = float(l)"
        return ("def step(m, o, x):\n    o.zero_grad()\n    l = m(x).square().mean()\n"
                "    l.backward()\n    o.step()\n    return l\n"
                f"step = compile(step)\nl = float(step(m, o, {data}))")

    def write_mistake(self) -> str | None:
        x = self.a()
        return x and self.pick([
            f"{x}.add_(torch.ones(7, 7, 7, 7))", f"{x} @ torch.ones(99)", f"{x}[99]",
            f"{x}.view(7919)", f"{x}.backward()", f"{x}[0] = torch.ones(99)",
            f"{x}.add_(1).undefined()", f"{x}.add_('x')"])

    def write_delete(self) -> str | None:
        x = self.a()
        return x and f"del {x}"

    def write_rebind(self) -> str | None:
        x = self.a()
        return x and f"{x} = {self.expression()}"

    def write_swap(self) -> str | None:
        x, y = self.a(), self.a()
        return f"{x}, {y} = {y}, {x}"


def run_statement(statement: str, space: dict[str, Any]) -> str | None:
    """The error's type and message, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(statement, space)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def seen(space: dict[str, Any]) -> dict[str, Any]:
    """All that can be seen of the state, by name."""
    found: dict[str, Any] = {}
    things = [(name, value) for name, value in space.items()
              if name[0] == "v" and name[1:].isdigit() and value is not None]
    if "m" in space:
        things += [(f"m.{name}", value) for name, value in space["m"].named_parameters()]
        things += [(f"m.{name}", value) for name, value in space["m"].named_buffers()]
    for name, value in things:
        found[f"{name} shape"] = tuple(value.shape)
        found[f"{name} dtype"] = str(value.dtype).split(".")[-1]
        found[f"{name} requires_grad"] = value.requires_grad
        found[f"{name} is_leaf"] = value.is_leaf
        found[f"{name} value"] = value.detach().numpy().copy()
        if value.is_leaf or value.retains_grad:
            gradient = value.grad
            found[f"{name} grad"] = None if gradient is None else gradient.detach().numpy().copy()
    if isinstance(space.get("l"), float):
        found["l value"] = numpy.array(space["l"])
    return found


def differs(want: Any, have: Any, name: str, view_written: bool) -> str | None:
    """What differs, as text."""
    if isinstance(want, numpy.ndarray) and isinstance(have, numpy.ndarray):
        if want.shape != have.shape or want.dtype != have.dtype:
            return f"{want.shape} {want.dtype} and {have.shape} {have.dtype}"
        with numpy.errstate(all="ignore"):
            good = numpy.allclose(have, want, 1e-3, 1e-3, equal_nan=True)
        return None if good else f"\n{want}\nand\n{have}"
    if name.endswith(" grad") and (want is None) != (have is None):
        # Where all was overwritten PyTorch gives zeros, lazygrad nothing, or the reverse; where a
        # leaf was written through a view without grad mode, gradients by other views get lost.
        other = have if want is None else want
        lost = want is None and view_written
        return None if lost or not other.any() else f"{want}\nand\n{have}"
    return None if want == have else f"{want} and {have}"


def compare(statements: Sequence[str], looks: Sequence[bool]) -> Difference | None:
    """Runs a program in both.  looks: after which statements lazygrad's state is looked at."""
    import torch

    import lazygrad
    one: dict[str, Any] = {"torch": torch}
    other: dict[str, Any] = {"torch": lazygrad}
    exec(PRELUDE.replace("torch.compile(function)", "function"), one)
    exec(PRELUDE, other)
    no_grad = any("no_grad" in statement for statement in statements)
    for step, statement in enumerate(statements):
        wanted = run_statement(statement, one)
        if wanted is not None and any(part in wanted for part in BOOKKEEPING):
            return None
        had = run_statement(statement, other)
        if wanted is None and had is not None and any(part in had for part in STRICTER):
            return None
        if (wanted is None) != (had is None):
            return Difference(step, f"{wanted} and {had}")
        if not (looks[step] or step == len(statements) - 1):
            continue
        try:
            want = seen(one)
        except RuntimeError:  # of a view of several, once one was written
            return None
        have = seen(other)
        if not all(_tame(value) for value in want.values()):
            return None
        if list(want) != list(have):
            return Difference(step, f"{sorted(set(want) ^ set(have))}")
        for name in want:
            told = differs(want[name], have[name], name, no_grad)
            if told is not None:
                return Difference(step, f"{name}: {told}")
    return None


def _tame(value: Any) -> bool:
    """Whether a value is small enough to be compared with a tolerance."""
    if not isinstance(value, numpy.ndarray) or value.dtype.kind != "f":
        return True
    with numpy.errstate(all="ignore"):
        return bool((numpy.abs(value) < 1e6).all())


def program(seed: int, length: int = 40) -> tuple[list[str], list[bool]]:
    """A program and where lazygrad's state is looked at: everywhere, here and there, at the end."""
    written = Writer(seed, length)
    chooser = random.Random(f"looks {seed}")
    share = chooser.choice([0.0, 0.1, 0.3, 1.0])
    return written.statements, [chooser.random() < share for _ in written.statements]


def reduced(statements: list[str], looks: list[bool]) -> tuple[list[str], list[bool]]:
    """A shorter program that still differs."""
    at = len(statements) - 1
    while at >= 0:
        shorter = statements[:at] + statements[at + 1:], looks[:at] + looks[at + 1:]
        if compare(*shorter) is not None:
            statements, looks = shorter
        at -= 1
    return statements, looks
