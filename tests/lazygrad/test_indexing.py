"""Indexing, views and in-place writes: aliasing programs as torch runs them."""

from __future__ import annotations

import numpy
import pytest
import torch

import lazygrad as lg
from lazygrad._core.tensor import node_of

INDICES = {
    "number": lambda t: 1,
    "negative": lambda t: -1,
    "pair": lambda t: (0, -2),
    "slice": lambda t: slice(1, None),
    "step": lambda t: (slice(None), slice(0, 4, 2)),
    "none": lambda t: (None, 0),
    "dots": lambda t: (..., 1),
    "dots middle": lambda t: (0, ..., 2),
    "new last": lambda t: (slice(None), None, ..., None),
    "empty": lambda t: slice(2, 1),
    "list": lambda t: [0, 2, 1],
    "tensor": lambda t: t.tensor([[0, 1], [2, 2]]),
    "negative tensor": lambda t: t.tensor([-1, 0]),
    "second axis": lambda t: (slice(None), t.tensor([0, 3])),
    "both": lambda t: (t.tensor([0, 1]), t.tensor([1, 2])),
    "apart": lambda t: (t.tensor([0, 1]), slice(None), t.tensor([1, 0])),
    "broadcast": lambda t: (t.tensor([[0], [1]]), t.tensor([1, 2])),
    "with number": lambda t: (1, slice(None), t.tensor([1, 0])),
    "with slice": lambda t: (slice(1, 3), t.tensor([1, 0])),
    "mask": lambda t: t.tensor([True, False, True]),
    "mask 2": lambda t: (slice(None), t.tensor([True, False, True, True])),
    "mask and number": lambda t: (t.tensor([True, False, True]), 1),
    "dots and tensor": lambda t: (..., t.tensor([1, 0, 1])),
    "0-d tensor": lambda t: t.tensor(1),
    "none and tensor": lambda t: (None, t.tensor([1, 0])),
    "numpy": lambda t: numpy.array([2, 0]),
}


@pytest.mark.parametrize("name", INDICES)
def test_read(name):
    array = numpy.arange(24.0, dtype=numpy.float32).reshape(3, 4, 2)
    grads = []
    for t in (torch, lg):
        x = t.tensor(array, requires_grad=True)
        index = INDICES[name](t)
        if name == "dots middle":
            index = (0, ..., 1)
        y = x[index]
        (y * y).sum().backward()
        grads.append((y.detach().numpy(), x.grad.numpy()))
    numpy.testing.assert_array_equal(grads[1][0], grads[0][0])
    numpy.testing.assert_array_equal(grads[1][1], grads[0][1])


@pytest.mark.parametrize("name", INDICES)
def test_write(name):
    array = numpy.arange(24.0, dtype=numpy.float32).reshape(3, 4, 2)
    results = []
    for t in (torch, lg):
        x = t.tensor(array)
        index = INDICES[name](t)
        if name == "dots middle":
            index = (0, ..., 1)
        shape = x[index].shape
        x[index] = 5.0
        x[index] = t.arange(float(numpy.prod(shape))).reshape(shape)
        if name not in ("tensor",):
            x[index] += 1
        results.append(x.numpy())
    numpy.testing.assert_array_equal(results[1], results[0])


def test_mask_writes():
    for program in (
        lambda t, x: x.__setitem__(x > 3, 0.0),
        lambda t, x: x.__setitem__(x > 3, t.tensor([7.0])),
        lambda t, x: x.__setitem__(x[:, 0] > 3, t.tensor([1.0, 2.0])),
        lambda t, x: x.__setitem__(x > 9, t.arange(2.0)),
        lambda t, x: x.masked_fill_(x > 2, 9),
        lambda t, x: x.__setitem__((x[:, 0] > 3, 1), t.tensor(8.0)),
    ):
        results = []
        for t in (torch, lg):
            x = t.arange(12.0).reshape(6, 2)
            program(t, x)
            results.append(x.numpy())
        numpy.testing.assert_array_equal(results[1], results[0])


def aliases(t):
    """Writes through views of views, seen by all."""
    base = t.arange(24.0).reshape(2, 3, 4)
    turned = base.permute(2, 0, 1)
    row = turned[1]
    flat = base.view(-1)
    strided = flat[1::5]
    row.mul_(10)
    strided += 100
    turned[2:, 1].zero_()
    base[0, 1:, ::2] = t.tensor([[1.0, 2.0], [3.0, 4.0]])
    merged = base.view(6, 4)[2:5].t()[1]
    merged.copy_(t.tensor([-1, -2, -3]))
    base.transpose(0, 1).unsqueeze(0).squeeze(0)[2].fill_(7)
    first, second = base.chunk(2)
    second.sub_(first)
    return base, turned, row, flat, strided, merged, first, second


def test_aliasing():
    want, have = aliases(torch), aliases(lg)
    for a, b in zip(want, have):
        numpy.testing.assert_array_equal(b.numpy(), a.numpy())


def test_strides_and_views_follow_torch():
    for function in (
        lambda x: x.permute(2, 0, 1),
        lambda x: x[:, 1],
        lambda x: x[..., ::2],
        lambda x: x.view(6, 4)[1:3],
        lambda x: x.unsqueeze(1),
        lambda x: x[:, :1].squeeze(1),
        lambda x: x[0].t(),
        lambda x: x[0, :1].expand(3, 4),
        lambda x: x.view(2, 12)[:, 2:8].view(2, 2, 3),
        lambda x: x.transpose(0, 1).reshape(3, 8),
    ):
        want, have = (function(t.zeros(2, 3, 4)) for t in (torch, lg))
        assert tuple(want.shape) == tuple(have.shape)
        assert want.stride() == have.stride() and want.is_contiguous() == have.is_contiguous()


def test_inplace_keeps_history():
    def program(t):
        x = t.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        w = t.tensor([2.0, 3.0], requires_grad=True)
        y = x * 2
        y[0] = w * w
        y[1] *= w
        y.add_(x)
        z = t.zeros(3, 2)
        z[1] = w
        z[2] += z[1] * 2
        (y * y).sum().backward(retain_graph=True)
        (z * z).sum().backward()
        assert z.requires_grad
        return x.grad, w.grad, y.detach(), z.detach()

    for want, have in zip(program(torch), program(lg)):
        numpy.testing.assert_allclose(have.numpy(), want.numpy(), 1e-6)


def test_inplace_after_use_is_right():
    x = lg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    z = y * y
    y.add_(100)
    z.sum().backward()
    assert x.grad.tolist() == [8.0, 16.0]


def test_inplace_rules():
    with pytest.raises(RuntimeError, match="expanded"):
        lg.zeros(1, 3).expand(2, 3).add_(1)
    with pytest.raises(RuntimeError, match="int64"):
        lg.arange(3).add_(1.5)
    with pytest.raises(RuntimeError, match="fit"):
        lg.zeros(3).add_(lg.zeros(2, 3))
    x = lg.zeros(3, dtype=lg.int32)
    x += lg.ones(3, dtype=lg.int64)
    assert x.dtype is lg.int32 and x.tolist() == [1, 1, 1]


def test_index_errors():
    x = lg.zeros(3, 4)
    with pytest.raises(IndexError, match="out of range"):
        x[3]
    with pytest.raises(IndexError):
        x[0, 0, 0]
    with pytest.raises(IndexError):
        x[lg.tensor([0.5])]
    with pytest.raises(IndexError):
        x[lg.tensor([7])].tolist()


def test_gather_and_scatter():
    array = numpy.arange(12.0, dtype=numpy.float32).reshape(3, 4)
    index = numpy.array([[0, 2, 1, 0], [2, 1, 0, 0]])

    def program(t):
        x = t.tensor(array, requires_grad=True)
        i = t.tensor(index)
        source = x[:2] * 2
        results = [
            t.gather(x, 0, i),
            t.gather(x, 1, i),
            t.scatter_add(x, 0, i, source),
            x.scatter_add(1, i, source),
            t.index_select(x, 1, i[0]),
            t.index_add(x, 0, i[0, :2], source),
            t.take(x, i),
            t.take_along_dim(x, i.t()[:3, :1], 1),
            x.masked_fill(x > 3, 0),
            t.scatter(t.zeros(3, 4), 0, i, 1.0),
            x.scatter(1, i[:, :3], 5.0),
            t.zeros(3, 4).scatter_reduce(0, i, t.ones(2, 4) * 3, "amax"),
            t.zeros(3, 4).index_fill(0, i[0, :1], 3),
            t.masked_select(x, x > 5),
            x[x > 5],
            t.nonzero(x > 5),
            t.bincount(i.flatten()),
        ]
        total = sum((each * each).sum() for each in results[:9] if each.is_floating_point())
        total.backward()
        return [each.detach() for each in results] + [x.grad]

    for want, have in zip(program(torch), program(lg)):
        numpy.testing.assert_allclose(have.numpy(), want.numpy(), 1e-6)


def draw_basic(random, shape):
    items = []
    for size in shape[:random.integers(0, len(shape) + 1)]:
        kind = random.integers(0, 4)
        if kind == 0 and size:
            items.append(int(random.integers(-size, size)))
        elif kind == 1:
            bounds = [None if random.random() < 0.3 else int(random.integers(-size - 1, size + 2))
                      for _ in range(2)]
            items.append(slice(*bounds, int(random.integers(1, 4))))
        elif kind == 2:
            items += [None, slice(None)]
        else:
            items.append(slice(None))
    if random.random() < 0.3:
        items.append(...)
    return items[0] if len(items) == 1 else tuple(items)


@pytest.mark.parametrize("seed", range(8))
def test_basic_forms_met_before(seed):
    """The second time that a form is met its steps are known; other strides have their own."""
    random = numpy.random.default_rng(seed)
    for _ in range(12):
        shape = tuple(int(size) for size in random.integers(0, 5, random.integers(1, 4)))
        array = random.standard_normal(shape)
        layouts = [(lambda a: a), (lambda a: a.flip(0)), (lambda a: a[::2]), (lambda a: a[1:])]
        for layout in layouts:
            theirs = layout(torch.tensor(array))
            index = draw_basic(random, tuple(theirs.shape))
            for _ in range(3):
                ours = layout(lg.tensor(array))
                found, expected = ours[index], theirs[index]
                assert 0 in expected.shape or all(
                    size == 1 or have == want for size, have, want
                    in zip(expected.shape, found.stride(), expected.stride(), strict=True))
                assert found.numpy().tolist() == expected.numpy().tolist()
                found.mul_(2)
                assert numpy.allclose(ours.numpy()[index], 2 * expected.numpy())


def test_a_known_form_keeps_its_own_line():
    x, y = (lg.tensor(numpy.arange(6.0).reshape(2, 3)) for _ in range(2))
    first = x[:, 1] + 1
    second = y[:, 1] + 1
    lines = [node_of(each).inputs[0].location[0][1] for each in (first, second)]
    assert lines[1] == lines[0] + 1


def test_remembered_forms_are_bounded(monkeypatch):
    from lazygrad.functional import indexing
    monkeypatch.setattr(indexing, "MOST_VIEWS", 10)
    x = lg.tensor(numpy.arange(100.0))
    for start in range(40):
        assert x[start:start + 3].tolist() == [start, start + 1.0, start + 2.0]
    assert len(indexing._views) <= 10
