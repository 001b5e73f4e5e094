"""Every public operation against PyTorch, driven by the records in `operations/`.

One test for each record and check, named family-operation-check: `-k linalg` runs a family, `-k
"lerp and second"` one check of one operation.  What is checked stands in `operations/checks.py`.
"""

from __future__ import annotations

import importlib
import pathlib
from typing import Any

import pytest
import torch

from tests.lazygrad.operations.checks import CHECKS, gradient_program, samples_of, with_leaves
from tests.lazygrad.operations.libraries import TORCH
from tests.lazygrad.operations.record import OperationRecord

NOT_FAMILIES = {"__init__", "record", "checks", "libraries", "finite_differences", "defects"}
FOLDER = pathlib.Path(__file__).parent / "operations"
FAMILIES = sorted(path.stem for path in FOLDER.glob("*.py")
                  if path.stem not in NOT_FAMILIES and not path.stem.startswith("_"))


def load(family: str) -> tuple[list[OperationRecord], str]:
    """The records of a family file, or why there are none."""
    try:
        module: Any = importlib.import_module(f"tests.lazygrad.operations.{family}")
        return list(module.RECORDS), ""
    except Exception as error:
        return [], f"{type(error).__name__}: {error}"


LOADED = {family: load(family) for family in FAMILIES}
CASES = [
    pytest.param(check, record, id=f"{family}-{record.identity}-{name}")
    for family, (records, _) in LOADED.items()
    for record in records
    for name, (check, applies) in CHECKS.items()
    if applies(record)
]


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family):
    """A family file loads, has records, and each identity is there once."""
    records, error = LOADED[family]
    assert not error, error
    assert records
    identities = [record.identity for record in records]
    assert sorted(set(identities)) == sorted(identities)


WRONG_IN_PYTORCH = {"nn.functional.silu[inplace]"}
"""The gradient lacks a conjugate; out of place, PyTorch refuses."""


def test_gradients_are_checked_where_pytorch_has_them():
    """In complex128 as in float64: some record of each name, if PyTorch has such a gradient."""
    records = [record for records, _ in LOADED.values() for record in records]
    checked = {record.name for record in records if "complex128" in record.gradients}
    lacking = {record.identity for record in records
               if record.gradients and record.name not in checked and differentiable(record)}
    assert not lacking - WRONG_IN_PYTORCH


def differentiable(record):
    """Whether PyTorch differentiates every sample in complex128."""
    try:
        samples = samples_of(record, "complex128")
        leaves = [each for sample in samples for each in with_leaves(TORCH, sample)[2]]
        for sample in samples:
            gradient_program(record, False)(TORCH, sample)
    except (AssertionError, RuntimeError, ValueError, TypeError):
        return False
    return any(leaf.is_complex() for leaf in leaves)


@pytest.mark.parametrize("check, record", CASES)
def test_operation(check, record):
    found = check(record)
    if found:
        pytest.fail("\n\n".join(found[:6]) + f"\n\n{len(found)} problems", pytrace=False)
