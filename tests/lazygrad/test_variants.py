"""Whatever PyTorch has as an in-place method or takes `out=` for, lazygrad has, too.

Made from the records: each is called with `out=`, and as a method with an underscore; where PyTorch
does it, ours has to, with the result of the plain call.  (Records that say `inplace` or `out` are
checked in full by `test_operations.py`; here a name that a record forgets is found.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

from tests.lazygrad import names
from tests.lazygrad.operations.checks import _main_dtype, samples_of
from tests.lazygrad.operations.libraries import LAZY, TORCH, Library, leaves_of
from tests.lazygrad.operations.record import OperationRecord, Sample
from tests.lazygrad.test_operations import LOADED

RECORDS = [record for records, _ in LOADED.values() for record in records if record.call is None]

Variant = Callable[[Library, OperationRecord, Sample], tuple[Any, Any]]
"""Gives what the variant wrote, and what the plain call returns."""


def plain(library: Library, record: OperationRecord, sample: Sample, **more: Any) -> Any:
    return library.function(record.name)(
        *library.convert(sample.arguments), **library.convert_keywords(sample.keywords), **more)


def with_out(library: Library, record: OperationRecord, sample: Sample) -> tuple[Any, Any]:
    wanted = plain(library, record, sample)
    if isinstance(wanted, (tuple, list)):
        place: Any = tuple(library.module.zeros_like(each) for each in wanted)
    else:
        place = library.module.zeros_like(wanted)
    plain(library, record, sample, out=place)
    return place, wanted


def in_place(library: Library, record: OperationRecord, sample: Sample) -> tuple[Any, Any]:
    wanted = plain(library, record, sample)
    first, *rest = library.convert(sample.arguments)
    name = record.name.rpartition(".")[2] + "_"
    method = getattr(library.module.Tensor, name)
    wanted = wanted.to(first.dtype)  # comparisons give bool, and write numbers
    return method(first, *rest, **library.convert_keywords(sample.keywords)), wanted


def same(have: Any, wanted: Any) -> bool:
    """In dtype, shape and values, bit by bit."""
    ours, theirs = (list(leaves_of(value).values()) for value in (have, wanted))
    return len(ours) == len(theirs) and all(
        numpy.asarray(a.array).dtype == numpy.asarray(b.array).dtype
        and numpy.array_equal(numpy.asarray(a.array), numpy.asarray(b.array), equal_nan=True)
        for a, b in zip(ours, theirs, strict=True) if a.kind == "tensor")


def lacking(variant: Variant) -> tuple[int, list[str]]:
    """How many records PyTorch has the variant of, and those that lazygrad lacks or gets wrong."""
    seen, found = 0, []
    for record in RECORDS:
        sample = samples_of(record, _main_dtype(record))[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                variant(TORCH, record, sample)
            except Exception:  # not a variant that PyTorch has
                continue
            seen += 1
            try:
                have, wanted = variant(LAZY, record, sample)
                if "empty" not in record.name and not same(have, wanted):
                    found.append(f"{record.identity}: another result")
            except Exception as error:
                found.append(f"{record.identity}: {type(error).__name__}: {error}")
    return seen, found


@pytest.mark.parametrize("variant, fewest", [(with_out, 250), (in_place, 100)])
def test_variants_that_pytorch_has_are_here(variant, fewest):
    seen, found = lacking(variant)
    assert not found, "\n".join(found)
    assert seen > fewest


def test_methods_in_place_are_here_or_listed_with_a_reason():
    have = dict(names.states())["torch.Tensor"]
    methods = [name for name in dir(torch.Tensor) if name.endswith("_") and name[0] != "_"]
    assert len(methods) > 150
    assert not [name for name in methods if have[name] == "missing"]
