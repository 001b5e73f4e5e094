from __future__ import annotations

from collections.abc import Iterator

import pytest

from lazygrad_runtime.cuda.context import Device
from tests.cuda_fake import fake_cuda, first_device
from tests.ptx.driver import FakeDriver


@pytest.fixture
def fake() -> Iterator[FakeDriver]:
    with fake_cuda() as driver:
        yield driver


@pytest.fixture
def device(fake: FakeDriver) -> Device:
    return first_device()
