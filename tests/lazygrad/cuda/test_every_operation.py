"""Every public operation on a device: values in each dtype, first and second gradients.

The records of `tests/lazygrad/operations` say what is called; what the CPU gives is what is wanted.
All of it is slow; by default a call or two of a few records stand for the kinds of kernels.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import lazygrad as lg
from tests.lazygrad.operations.checks import (
    Case,
    gradient_program,
    plain_program,
    samples_of,
    show_sample,
)
from tests.lazygrad.operations.libraries import (
    LAZY,
    Leaf,
    Library,
    differences,
    leaves_of,
    tensors_in,
)
from tests.lazygrad.operations.record import OperationRecord
from tests.lazygrad.test_operations import FAMILIES, LOADED

DEVICE = Library("a device", lg, lambda array: lg.tensor(array, device="cuda"), lg)
ON_THE_HOST = {"frombuffer"}
"""What does not follow the default device, as in PyTorch."""
SOME = (
    "addcmul", "cumprod", "topk", "scatter_reduce", "linalg.solve", "fft.rfft",
    "nn.functional.conv2d", "nn.functional.embedding_bag", "nn.functional.cross_entropy",
)  # fmt: skip


def few_cases(record: OperationRecord) -> Iterator[Case]:
    for number, sample in enumerate(samples_of(record, record.dtypes[0])[:2]):
        yield Case(f"sample {number}", record.dtypes[0], sample, plain_program(record))
    for dtype in record.gradients[:1]:
        yield Case("gradient", dtype, samples_of(record, dtype)[0], gradient_program(record, False))


def all_cases(record: OperationRecord) -> Iterator[Case]:
    for dtype in record.dtypes:
        for number, sample in enumerate(samples_of(record, dtype)):
            yield Case(f"sample {number}", dtype, sample, plain_program(record))
    for dtype in record.gradients:
        for number, sample in enumerate(samples_of(record, dtype)):
            for second in (False, True) if record.second else (False,):
                label = f"{'second ' if second else ''}gradient {number}"
                yield Case(label, dtype, sample, gradient_program(record, second))


def result_of(case: Case, library: Library) -> tuple[dict[str, Leaf], str]:
    """Leaves, or the error's text."""
    lg.manual_seed(3)
    try:
        result = case.program(library, case.sample)
        away = [each for each in tensors_in(result) if not each.is_cuda]
        if library is DEVICE and away:
            return {}, "a result is not on the device"
        return leaves_of(result), ""
    except Exception as error:  # the comparison says whether it is right to raise
        error.__traceback__ = None
        return {}, f"{type(error).__name__}: {error}"


def check(cases: list[tuple[OperationRecord, Case]]) -> None:
    wanted = [result_of(case, LAZY) for _, case in cases]
    lg.set_default_device("cuda")
    found = []
    for (record, case), (want, refusal) in zip(cases, wanted, strict=True):
        have, error = result_of(case, DEVICE)
        if bool(error) != bool(refusal):
            texts = [f"on the device: {error or have}; on the CPU: {refusal or want}"]
        else:
            texts = differences(have, want, case.dtype, record.tolerance)
        title = f"{record.identity} {case.label} {case.dtype} {show_sample(case.sample)}"
        found += [f"{title}\n{text}" for text in texts]
    if found:
        pytest.fail("\n\n".join(found[:6]) + f"\n\n{len(found)} problems", pytrace=False)


@pytest.mark.parametrize("name", SOME)
def test_some_operations(name: str, where: str) -> None:
    record = next(each for records, _ in LOADED.values() for each in records if each.name == name)
    check([(record, case) for case in few_cases(record)])


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_operations_of(family: str, where: str) -> None:
    check([(record, case) for record in LOADED[family][0] if record.name not in ON_THE_HOST
           for case in all_cases(record)])
