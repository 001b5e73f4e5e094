"""The tutorial gives the same as with PyTorch, and beginners' mistakes are named with a way out."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest

import lazygrad

PATH = Path(__file__).parents[2] / "docs" / "examples" / "tutorial.py"


def load_tutorial() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lazygrad_tutorial", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tutorial = load_tutorial()


def plain(value: Any) -> Any:
    """Tensors of either framework as arrays."""
    return value.detach().numpy() if hasattr(value, "detach") else value


@pytest.mark.parametrize("chapter", tutorial.CHAPTERS, ids=lambda chapter: chapter.__name__)
def test_chapter_gives_the_same_as_pytorch(chapter: Any) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = chapter(lazygrad), chapter(torch)
    assert list(ours) == list(theirs)
    for name in theirs:
        mine, expected = plain(ours[name]), plain(theirs[name])
        if isinstance(expected, numpy.ndarray):
            assert mine.dtype == expected.dtype, name
            assert mine.shape == expected.shape, name
        if name in ("names", "missing", "shape"):
            assert mine == expected, name
        else:
            numpy.testing.assert_allclose(mine, expected, rtol=2e-5, atol=1e-6, err_msg=name)


def test_chapters_prove_something() -> None:
    """The comparison above would also hold between two frameworks that do nothing."""
    results = tutorial.linear_layer(lazygrad)
    expected = [[0.51, -0.48, 0.73], [1.11, -0.68, 0.93]]
    numpy.testing.assert_allclose(plain(results["y"]), expected, rtol=1e-5)
    losses = tutorial.step_by_hand(lazygrad)["losses"]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert tutorial.step_by_optimizer(lazygrad)["losses"][-1] < 0.1


def message(error: pytest.ExceptionInfo[BaseException]) -> str:
    return str(error.value)


def line_of(error: pytest.ExceptionInfo[BaseException]) -> str:
    """The line of this file that the traceback passes, as errors name it."""
    return [f"{Path(entry.path).name}:{entry.lineno + 1}" for entry in error.traceback
            if Path(str(entry.path)) == Path(__file__)][-1]


def test_integers_into_a_linear_layer() -> None:
    layer = lazygrad.nn.Linear(2, 3)
    x = lazygrad.tensor([[1, 2], [3, 4]])
    with pytest.raises(RuntimeError) as error:
        layer(x)
    text = message(error)
    assert text.startswith("[Linear]")
    assert "int64" in text and "float32" in text, "the dtypes that met"
    assert "in_features=2, out_features=3" in text, "which layer"
    assert line_of(error) in text
    assert "x.to(lazygrad.float32)" in text, "a way out"
    converted = layer(x.to(lazygrad.float32))
    assert converted.shape == (2, 3), "which works"


def test_integers_into_a_product() -> None:
    with pytest.raises(RuntimeError) as error:
        lazygrad.tensor([[1, 2], [3, 4]]) @ lazygrad.ones(2, 3)
    text = message(error)
    assert text.startswith("[matmul]") and "int64" in text and "float32" in text and ".to(" in text
    assert line_of(error) in text


def test_loss_between_shapes_that_do_not_fit() -> None:
    guess, wanted = lazygrad.zeros(2, 3), lazygrad.zeros(2, 2)
    for make in (lambda: lazygrad.nn.functional.mse_loss(guess, wanted),
                 lambda: ((guess - wanted) ** 2).mean(),
                 lambda: lazygrad.nn.MSELoss()(guess, wanted)):
        with pytest.raises(RuntimeError) as error:
            make()
        text = message(error)
        assert re.match(r"\[(mse_loss|MSELoss|sub)\] ", text), text
        assert "(2, 3)" in text and "(2, 2)" in text
        assert line_of(error) in text
        assert re.search(r"must|reshape|unsqueeze|[Bb]oth", text), "what to do"


def test_backward_where_nothing_requires_gradients() -> None:
    x = lazygrad.ones(2, 3)
    with pytest.raises(RuntimeError) as error:
        (x * 2).sum().backward()
    text = message(error)
    assert text.startswith("[backward]")
    assert "does not require grad" in text
    assert line_of(error) in text
    assert "requires_grad=True" in text, "a way out"


def test_backward_from_more_than_one_number() -> None:
    x = lazygrad.ones(2, 3, requires_grad=True)
    with pytest.raises(RuntimeError) as error:
        (x * 2).backward()
    text = message(error)
    assert text.startswith("[backward]") and "(2, 3)" in text and ".sum()" in text
    assert line_of(error) in text


def test_sizes_that_do_not_fit_into_a_linear_layer() -> None:
    with pytest.raises(RuntimeError) as error:
        lazygrad.nn.Linear(2, 3)(lazygrad.zeros(4, 5))
    text = message(error)
    assert text.startswith("[Linear]")
    assert "expects 2 features" in text and "got 5" in text and "(4, 5)" in text
    assert line_of(error) in text


def test_runs_as_a_program(capsys: pytest.CaptureFixture[str],
                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tutorial.py"])
    tutorial.main()
    printed = capsys.readouterr().out
    assert all(f"== {chapter.__name__}" in printed for chapter in tutorial.CHAPTERS)
