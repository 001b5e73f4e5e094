from __future__ import annotations

from collections.abc import Iterator

import pytest

from lazygrad_runtime.cuda import driver as drivers
from tests.cuda_fake import fake_cuda, switched_off
from tests.ptx.driver import FakeDriver


@pytest.fixture
def fake() -> Iterator[FakeDriver]:
    with fake_cuda() as driver:
        yield driver


@pytest.fixture(params=["fake", pytest.param("gpu", marks=pytest.mark.cuda)])
def where(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same test over the interpreter and on a GPU, if there is one."""
    if request.param == "fake":
        with fake_cuda():
            yield "fake"
        return
    try:
        devices = drivers.driver().devices
    except drivers.NoDevice as error:
        pytest.skip(str(error))
    if not devices:
        pytest.skip("the driver finds no device")
    with switched_off():
        yield "gpu"
