"""What all tests share."""

import gc
from collections.abc import Iterator

import pytest

from lazygrad_compiler.ir import node


@pytest.fixture(scope="module", autouse=True)
def short_collections() -> Iterator[None]:
    """What a module leaves behind (programs, torch's tables) is not walked over by the collections
    of the tests that follow.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def own_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes made in this test are not those of graphs that other tests left: equal nodes are one
    node, with the line that came first.
    """
    monkeypatch.setattr(node, "_interned", {})
