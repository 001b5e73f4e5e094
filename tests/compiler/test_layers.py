"""Imports point one way: lazygrad -> lazygrad_runtime -> lazygrad_compiler."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {
    "lazygrad_compiler": ROOT / "compiler" / "lazygrad_compiler",
    "lazygrad_runtime": ROOT / "runtime" / "lazygrad_runtime",
    "lazygrad": ROOT / "lazygrad",
}
FORBIDDEN = {
    "lazygrad_compiler": {"lazygrad", "lazygrad_runtime", "torch", "jax"},
    "lazygrad_runtime": {"lazygrad", "torch", "jax"},
    "lazygrad": {"torch", "jax"},
}
OUTSIDE = {"numpy", "llvmlite", "ml_dtypes"}
"""The core dependencies."""

OFFLINE = {"elementary_fit.py", "special_fit.py"}
"""Tools that made checked-in tables: part of no program, so they may need more to run."""


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of every import, wherever it stands; of dynamic ones too."""
    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            for alias in item.names:
                yield item.lineno, alias.name.split(".")[0]
        elif isinstance(item, ast.ImportFrom) and item.level == 0 and item.module:
            yield item.lineno, item.module.split(".")[0]
        elif isinstance(item, ast.Call) and item.args:
            name = item.func.attr if isinstance(item.func, ast.Attribute) else item.func
            name = name.id if isinstance(name, ast.Name) else name
            first = item.args[0]
            if name in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield item.lineno, str(first.value).split(".")[0]


def files(layer: str) -> list[Path]:
    found = sorted(LAYERS[layer].rglob("*.py"))
    assert len(found) > 5, f"{layer} has only {len(found)} files: is this the right folder?"
    return found


def test_the_reader_sees_every_kind_of_import() -> None:
    source = (
        "import a.b\nfrom c.d import e\nfrom . import f\n"
        "def g():\n    import h\n    importlib.import_module('i.j')\n    __import__('k')\n"
    )
    assert {name for _, name in imported(ast.parse(source))} == {"a", "c", "h", "i", "k"}


@pytest.mark.parametrize("layer", LAYERS)
def test_no_layer_imports_upwards(layer: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files(layer)
        for line, name in imported(ast.parse(path.read_text()))
        if name in FORBIDDEN[layer]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("layer", ["lazygrad_compiler", "lazygrad_runtime"])
def test_only_core_dependencies(layer: str) -> None:
    allowed = OUTSIDE | set(LAYERS) | set(sys.stdlib_module_names)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files(layer)
        if path.name not in OFFLINE
        for line, name in imported(ast.parse(path.read_text()))
        if name not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_offline_tools() -> None:
    modules = {name.removesuffix(".py") for name in OFFLINE}
    for layer in LAYERS:
        for path in files(layer):
            for item in ast.walk(ast.parse(path.read_text())):
                if isinstance(item, ast.ImportFrom) and path.name not in OFFLINE:
                    names = {*(item.module or "").split("."), *(a.name for a in item.names)}
                    assert not names & modules, f"{path.relative_to(ROOT)}:{item.lineno}"


@pytest.mark.parametrize("layer", ["lazygrad_compiler", "lazygrad_runtime"])
def test_importing_a_layer_loads_nothing_above_it(layer: str) -> None:
    """The same in a live interpreter: what really ends up in sys.modules."""
    names = [
        ".".join(path.relative_to(LAYERS[layer].parent).with_suffix("").parts)
        for path in files(layer)
        if path.name not in {"__main__.py", *OFFLINE}
    ]
    names = [name.removesuffix(".__init__") for name in names]
    code = (
        f"import sys\nsys.path[:0] = {[str(LAYERS[k].parent) for k in LAYERS]!r}\n"
        "import importlib\n"
        f"for name in {names!r}:\n    importlib.import_module(name)\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & FORBIDDEN[layer]
    assert layer in loaded


@pytest.mark.parametrize("layer", LAYERS)
def test_every_module_says_what_it_is_for(layer: str) -> None:
    missing = [
        str(path.relative_to(ROOT))
        for path in files(layer)
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not missing, "\n".join(missing)
