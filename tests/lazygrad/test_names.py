"""docs/names.md says what the code has, and its list of names is PyTorch's."""

from __future__ import annotations

import json
import re

import pytest

from tests.lazygrad import names


def test_the_page_is_what_the_code_says():
    have = names.PAGE.read_text(encoding="utf-8")
    assert have == names.page(), "run: python -m tests.lazygrad.names"


def test_the_list_is_torchs():
    torch = pytest.importorskip("torch")
    listed = json.loads(names.LIST.read_text(encoding="utf-8"))
    if not torch.__version__.startswith(listed["version"]):
        pytest.skip(f"the list is of PyTorch {listed['version']}")
    assert listed == names._list_torch(), "run: python -m tests.lazygrad.names --torch"


def test_the_list_is_not_short():
    """Names that everyone uses are in it: a filter that drops too much would hide gaps."""
    listed = json.loads(names.LIST.read_text(encoding="utf-8"))["names"]
    assert set(listed) == set(names.NAMESPACES)
    for path, expected in {
        "torch": "abs matmul float32 no_grad save unique stft Tensor Generator from_dlpack",
        "torch.Tensor": "add_ T mT numpy backward requires_grad index_put_ data",
        "torch.nn": "Linear Module Parameter LSTM ModuleList",
        "torch.nn.functional": "relu conv2d cross_entropy pad scaled_dot_product_attention",
        "torch.linalg": "solve svd eigh norm", "torch.fft": "fft rfftn fftshift",
        "torch.special": "erf gammaln", "torch.optim": "SGD AdamW LBFGS",
        "torch.utils.data": "DataLoader Dataset", "torch.autograd": "grad Function gradcheck",
        "torch.func": "vmap grad jacrev",
    }.items():
        assert set(expected.split()) <= set(listed[path]), path


def test_reasons_do_not_hide_ordinary_names():
    """Nothing of linalg, fft and special is "not planned"."""
    listed = json.loads(names.LIST.read_text(encoding="utf-8"))["names"]
    for path in ("torch.linalg", "torch.fft", "torch.special"):
        assert not [name for name in listed[path] if names._reason(path, name)]


def test_states_are_seen(monkeypatch):
    """A name that goes away turns up as missing."""
    import lazygrad
    before = dict(names.states())
    assert before["torch.Tensor"]["matmul"] == "present"
    monkeypatch.delattr(lazygrad.Tensor, "matmul")
    assert dict(names.states())["torch.Tensor"]["matmul"] == "missing"
    section = names.page().split("## torch.Tensor\n")[1]
    assert re.search(r"### Missing: [^#]*`matmul`", section)
