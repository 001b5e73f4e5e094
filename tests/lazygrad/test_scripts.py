"""Ordinary PyTorch scripts run with one import changed: same numbers, same printed text.

Each file of `scripts/` is written for PyTorch.  It runs twice, once as it is and once with every
import of `torch` leading to lazygrad, and leaves what is to be compared in `results`.  Weights and
data come from `shared`, which draws them with NumPy, since random numbers differ.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import io
import re
import sys
import types
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

FOLDER = Path(__file__).parent / "scripts"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
LOOSE = {"arrays": 5e-3, "gpt": 5e-3, "reinforcement": 5e-3, "mixed_precision": 2e-2,
         "training_tricks": 2e-3}
"""Where tolerances are wider: FFTs, many steps, and 16-bit arithmetic."""


def shared(library: Any) -> types.ModuleType:
    """The module that scripts import weights and data from."""
    module = types.ModuleType("shared")

    def draw(shape: tuple[int, ...], seed: int, scale: float) -> Any:
        return numpy.random.default_rng(seed).normal(0, scale, shape).astype(numpy.float32)

    def fill(model: Any, seed: int = 0, scale: float = 0.2) -> Any:
        """Sets all parameters, each by its name."""
        for name, parameter in model.named_parameters():
            values = draw(tuple(parameter.shape), zlib.crc32(name.encode()) + seed, scale)
            if name.endswith("weight") and "bn" in name:
                values += 1
            parameter.data.copy_(library.from_numpy(values))
        return model

    module.fill = fill  # type: ignore[attr-defined]
    module.array = lambda *shape, seed=0, scale=1.0: (  # type: ignore[attr-defined]
        library.from_numpy(draw(shape, seed, scale)))
    module.ints = lambda high, *shape, seed=0: (  # type: ignore[attr-defined]
        library.from_numpy(numpy.random.default_rng(seed).integers(0, high, shape)))
    return module


def run(name: str, library_name: str) -> tuple[dict[str, Any], str]:
    """What the script leaves in `results`, and what it prints."""
    library = importlib.import_module(library_name)
    importer, helpers = builtins.__import__, shared(library)

    def leading_to_library(name: str, globals: Any = None, locals: Any = None,
                           fromlist: Any = (), level: int = 0) -> Any:
        if level == 0 and name == "shared":
            return helpers
        if level == 0 and name.partition(".")[0] == "torch":
            name = library_name + name[len("torch"):]
        return importer(name, globals, locals, fromlist, level)

    path = FOLDER / f"{name}.py"
    module = types.ModuleType(f"{name}_with_{library_name}")
    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": leading_to_library}
    sys.modules[module.__name__] = module  # dataclasses look their module up
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module.__dict__["results"], printed.getvalue()


def leaves(value: Any, place: str = "results") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{place}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for position, each in enumerate(value):
            yield from leaves(each, f"{place}[{position}]")
    else:
        yield place, value


def plain(value: Any) -> Any:
    """(dtype name, array) of a tensor; numbers as they are."""
    if not hasattr(value, "detach"):
        return "", numpy.asarray(value)
    dtype = str(value.dtype).rpartition(".")[2]
    value = value.detach()
    return dtype, (value.float() if dtype == "bfloat16" else value).numpy()


def readable(text: str) -> str:
    """Without the libraries' names, and numbers to four digits: the last ones may differ."""
    text = text.replace("torch.", "").replace("lazygrad.", "")
    return re.sub(r"\d+\.\d{4,}", lambda found: f"{float(found.group()):.3f}", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_does_the_same_as_with_pytorch(name: str) -> None:
    pytest.importorskip("torch")
    theirs, their_text = run(name, "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, our_text = run(name, "lazygrad")
    mine = dict(leaves(ours))
    assert list(mine) == [place for place, _ in leaves(theirs)]
    assert len(mine) > 3, "a script that leaves nothing proves nothing"
    for place, value in leaves(theirs):
        (dtype, expected), (my_dtype, actual) = plain(value), plain(mine[place])
        assert my_dtype == dtype, place
        assert actual.shape == expected.shape, place
        tolerance = LOOSE.get(name, 2e-4)
        numpy.testing.assert_allclose(actual, expected, tolerance, tolerance, err_msg=place)
    assert readable(our_text) == readable(their_text)


def test_the_scripts_reach_lazygrad() -> None:
    """The comparison would also hold if both runs used PyTorch."""
    import lazygrad
    results, _ = run("autograd", "lazygrad")
    assert isinstance(results["wd"], lazygrad.Tensor)
