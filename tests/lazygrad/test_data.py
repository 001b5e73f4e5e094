"""Datasets, samplers, collation and the loader, in process and with workers."""

import os
import signal
import time
from collections import namedtuple

import numpy
import pytest
import torch

import lazygrad as lg
from lazygrad.utils import data

Point = namedtuple("Point", "x y")


class Squares(data.Dataset):
    def __init__(self, length=10):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"value": numpy.float32(index**2), "index": index, "name": f"item {index}"}


class Stream(data.IterableDataset):
    def __iter__(self):
        worker = data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return iter(range(first, 10, step))


class Faulty(Squares):
    def __getitem__(self, index):
        if index == 5:
            raise KeyError("bad item")
        return index


class Slow(Squares):
    def __getitem__(self, index):
        time.sleep(0.2 if index == 0 else 0)
        return index


class Dying(Squares):
    def __getitem__(self, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


class Sleeping(Squares):
    def __getitem__(self, index):
        time.sleep(60)


class Seeds(Squares):
    def __getitem__(self, index):
        return int(numpy.random.randint(2**31)), data.get_worker_info().seed


def as_lists(batches):
    return [batch.tolist() for batch in batches]


# ---- datasets and samplers


def test_tensor_dataset():
    x, y = lg.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), lg.tensor([0, 1, 2])
    dataset = data.TensorDataset(x, y)
    first, second = dataset[1]
    assert len(dataset) == 3 and first.tolist() == [3,
                                                    4] and second.item() == 1 and second.ndim == 0
    batches = list(data.DataLoader(dataset, batch_size=2))
    assert batches[0][0].tolist() == [[1, 2], [3, 4]] and batches[1][1].tolist() == [2]
    x.zero_()
    assert dataset[1][0].tolist() == [0, 0]
    with pytest.raises(ValueError, match="size mismatch"):
        data.TensorDataset(x, lg.zeros(2))


def test_combined_datasets():
    both = data.ConcatDataset([range(3), range(10, 12)])
    assert len(both) == 5 and [both[k] for k in range(5)] == [0, 1, 2, 10, 11] and both[-1] == 11
    with pytest.raises(IndexError):
        both[5]
    assert list(data.ChainDataset([Stream(), Stream()])) == [*range(10), *range(10)]
    part = data.Subset(range(10), [2, 4, 6])
    assert len(part) == 3 and part[1] == 4
    assert data.StackDataset(range(3), range(3, 6))[1] == (1, 4)
    assert data.StackDataset(a=range(3), b=range(3, 6))[1] == {"a": 1, "b": 4}
    assert len(Squares(3) + Squares(4)) == 7


def test_random_split():
    generator = lg.Generator().manual_seed(3)
    parts = data.random_split(range(10), [3, 7], generator=generator)
    assert [len(part) for part in parts] == [3, 7]
    assert sorted([*parts[0], *parts[1]]) == list(range(10))
    again = data.random_split(range(10), [3, 7], generator=lg.Generator().manual_seed(3))
    assert list(again[0]) == list(parts[0])
    lengths = [len(part) for part in data.random_split(range(11), [0.3, 0.3, 0.4])]
    assert lengths == [len(part)
                       for part in torch.utils.data.random_split(range(11), [0.3, 0.3, 0.4])]
    with pytest.raises(ValueError, match="does not equal"):
        data.random_split(range(10), [3, 3])


def test_samplers():
    assert list(data.SequentialSampler(range(3))) == [0, 1, 2]
    assert list(data.BatchSampler(range(5), 2, False)) == [[0, 1], [2, 3], [4]]
    assert list(data.BatchSampler(range(5), 2, True)) == [[0, 1], [2, 3]]
    order = list(data.RandomSampler(range(100)))
    assert sorted(order) == list(range(100)) and order != list(range(100))
    assert len(list(data.RandomSampler(range(5), num_samples=12))) == 12
    assert set(data.RandomSampler(range(3), replacement=True, num_samples=50)) == {0, 1, 2}
    assert sorted(data.SubsetRandomSampler([7, 8, 9])) == [7, 8, 9]
    drawn = list(data.WeightedRandomSampler([0.0, 1.0, 3.0], 400))
    assert 0 not in drawn and 250 < drawn.count(2) < 350
    assert sorted(data.WeightedRandomSampler([1.0, 1.0, 1.0], 3, replacement=False)) == [0, 1, 2]


@pytest.mark.parametrize("total, replicas, drop_last",
                         [(10, 3, False), (10, 3, True), (2, 5, False), (8, 4, True),
                          (2, 5, True)])
def test_distributed_sampler(total, replicas, drop_last):
    def parts(library, **settings):
        return [list(library.utils.data.DistributedSampler(range(total), replicas, rank,
                                                           drop_last=drop_last, **settings))
                for rank in range(replicas)]

    assert parts(lg, shuffle=False) == parts(torch, shuffle=False)
    shuffled = parts(lg, seed=3)
    assert [len(part) for part in shuffled] == [len(part) for part in parts(torch)]
    if not drop_last:
        assert {index for part in shuffled for index in part} == set(range(total))


def test_distributed_sampler_draws_an_order_for_each_epoch():
    sampler = data.DistributedSampler(range(50), 2, 0, seed=1)
    first = list(sampler)
    assert list(sampler) == first and len(sampler) == 25
    sampler.set_epoch(1)
    assert list(sampler) != first
    with pytest.raises(ValueError, match="interval"):
        data.DistributedSampler(range(3), 2, 2)
    with pytest.raises(RuntimeError, match="num_replicas"):
        data.DistributedSampler(range(3))


class Several(Squares):
    """Gives several items at a time, `missing` too few."""

    def __init__(self, missing=0):
        super().__init__()
        self.missing, self.asked = missing, []

    def __getitems__(self, indices):
        self.asked.append(indices)
        return [-index for index in indices[self.missing:]]


def test_datasets_that_give_several_items():
    several = Several()
    assert as_lists(data.DataLoader(data.Subset(several, [4, 2, 9]), batch_size=2)) == [[-4, -2],
                                                                                        [-9]]
    stacked = data.DataLoader(data.StackDataset(a=several, b=range(10)), batch_size=5)
    first = next(iter(stacked))
    assert first["a"].tolist() == [0, -1, -2, -3, -4] and first["b"].tolist() == [0, 1, 2, 3, 4]
    assert several.asked == [[4, 2], [9], [0, 1, 2, 3, 4]]
    pairs = next(iter(data.DataLoader(data.StackDataset(several, range(10)), batch_size=2)))
    assert [part.tolist() for part in pairs] == [[0, -1], [0, 1]]
    with pytest.raises(ValueError, match="gave 1 items for 2 indices"):
        next(iter(data.DataLoader(data.StackDataset(Several(1), range(10)), batch_size=2)))


def test_a_split_that_comes_out_empty_is_warned_of():
    with pytest.warns(UserWarning, match="index 1 is 0"):
        data.random_split(range(3), [0.9, 0.1])


# ---- collation


@pytest.mark.parametrize("batch",
                         [[1, 2], [1.5, 2.5], [True, False], ["a", "b"],
                          [numpy.float32(1), numpy.float32(2)],
                          [numpy.zeros((2, 3), numpy.int16)] * 2, [(1, 2.0), (3, 4.0)],
                          [[1, 2], [3, 4]], [{"a": 1, "b": [2.0]}] * 3,
                          [Point(1, 2.0), Point(3, 4.0)]])
def test_default_collate_gives_what_torch_gives(batch):
    def plain(value):
        if isinstance(value, (lg.Tensor, torch.Tensor)):
            return str(value.dtype).rpartition(".")[2], value.tolist()
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value).__name__, [plain(inner) for inner in value]
        return value

    assert plain(data.default_collate(batch)) == plain(torch.utils.data.default_collate(batch))


def test_collating_tensors_and_mistakes():
    assert data.default_collate([lg.tensor([1, 2]), lg.tensor([3, 4])]).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(RuntimeError, match="differ in shape"):
        data.default_collate([numpy.zeros(2), numpy.zeros(3)])
    with pytest.raises(RuntimeError, match="equal size"):
        data.default_collate([[1, 2], [3]])
    with pytest.raises(TypeError, match="collate_fn"):
        data.default_collate([object()])


# ---- the loader


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order(workers):
    loader = data.DataLoader(Squares(), batch_size=4, num_workers=workers)
    batches = list(loader)
    assert len(loader) == 3 and [batch["index"].tolist() for batch in batches] == [[0, 1, 2, 3],
                                                                                   [4, 5, 6, 7],
                                                                                   [8, 9]]
    assert batches[0]["value"].dtype is lg.float32 and batches[2]["name"] == ["item 8", "item 9"]
    assert len(list(loader)) == 3
    assert len(list(data.DataLoader(Squares(), batch_size=4, num_workers=workers,
                                    drop_last=True))) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_shuffling_is_decided_by_the_generator(workers):
    def orders(seed):
        loader = data.DataLoader(Squares(20), batch_size=20, shuffle=True, num_workers=workers,
                                 generator=lg.Generator().manual_seed(seed))
        return [next(iter(loader))["index"].tolist() for _ in range(2)]

    first = orders(1)
    assert sorted(first[0]) == list(range(20)) and first[0] != first[1]
    assert orders(1) == first and orders(2) != first


def test_manual_seed_decides_the_order():
    def order():
        lg.manual_seed(5)
        return as_lists(data.DataLoader(range(20), batch_size=5, shuffle=True))

    assert order() == order()


@pytest.mark.parametrize("workers", [0, 2])
def test_no_batching_custom_collation_and_batch_samplers(workers):
    assert list(data.DataLoader(range(3), batch_size=None, num_workers=workers)) == [0, 1, 2]
    arrays = list(data.DataLoader([numpy.ones(2), numpy.zeros(2)], batch_size=None,
                                  num_workers=workers))
    assert isinstance(arrays[0], lg.Tensor) and arrays[0].tolist() == [1, 1]
    sums = data.DataLoader(range(4), batch_size=2, collate_fn=sum, num_workers=workers)
    assert list(sums) == [1, 5]
    chosen = data.DataLoader(range(4), batch_sampler=[[3, 1], [0]], num_workers=workers)
    assert as_lists(chosen) == [[3, 1], [0]] and len(chosen) == 2


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_streams(workers):
    batches = as_lists(data.DataLoader(Stream(), batch_size=3, num_workers=workers))
    assert sorted(value for batch in batches for value in batch) == list(range(10))
    single = data.DataLoader(Stream(), batch_size=None, num_workers=workers)
    assert sorted(single) == list(range(10))
    if not workers:
        assert len(as_lists(data.DataLoader(Stream(), batch_size=3, drop_last=True))) == 3


def test_tensor_dataset_with_workers():
    dataset = data.TensorDataset(lg.arange(6).float() * 2, lg.arange(6))
    batches = list(data.DataLoader(dataset, batch_size=4, num_workers=2))
    assert batches[0][0].tolist() == [0, 2, 4, 6] and batches[1][1].tolist() == [4, 5]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_start_methods(method):
    dataset = data.TensorDataset(lg.arange(4))
    loader = data.DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context=method)
    assert [batch[0].tolist() for batch in loader] == [[0, 1], [2, 3]]


def test_slow_workers_do_not_change_the_order():
    assert as_lists(data.DataLoader(Slow(), batch_size=1, num_workers=3)) == [[k]
                                                                              for k in range(10)]


@pytest.mark.parametrize("workers", [0, 2])
def test_exceptions_are_carried_over(workers):
    loader = data.DataLoader(Faulty(), batch_size=2, num_workers=workers)
    seen = []
    with pytest.raises(KeyError, match="bad item") as caught:
        for batch in loader:
            seen.append(batch.tolist())
    assert seen == [[0, 1], [2, 3]]
    if workers:
        assert "in DataLoader worker process" in str(caught.value)
        assert "__getitem__" in str(caught.value)


def test_a_worker_that_dies_is_named():
    with pytest.raises(RuntimeError, match=r"worker \(pid \d+\) was killed by signal 9"):
        list(data.DataLoader(Dying(), batch_size=1, num_workers=2))


def test_timeout():
    with pytest.raises(RuntimeError, match=r"timed out after 0\.3 seconds"):
        list(data.DataLoader(Sleeping(), num_workers=1, timeout=0.3))


def fail_in_init(number):
    raise OSError("no database")


def test_worker_init_fn():
    with pytest.raises(OSError, match="no database"):
        list(data.DataLoader(Squares(), num_workers=1, worker_init_fn=fail_in_init))


def test_workers_have_different_seeds():
    values = list(data.DataLoader(Seeds(4), batch_size=1, num_workers=2,
                                  generator=lg.Generator().manual_seed(0)))
    draws, seeds = [v[0].item() for v in values], [v[1].item() for v in values]
    assert len(set(draws)) == 4 and seeds[1] == seeds[0] + 1 and seeds[2] == seeds[0]
    assert data.get_worker_info() is None


def test_persistent_workers_serve_several_passes():
    loader = data.DataLoader(Squares(6), batch_size=2, num_workers=2, persistent_workers=True)
    assert len(list(loader)) == 3
    pids = [process.pid for process in loader._workers.processes]
    next(iter(loader))
    assert [batch["index"].tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]
    assert [process.pid for process in loader._workers.processes] == pids
    loader._workers.close()


def test_leaving_early_ends_the_workers():
    import multiprocessing
    before = set(multiprocessing.active_children())
    iterator = iter(data.DataLoader(Squares(100), num_workers=2))
    next(iterator)
    assert len(set(multiprocessing.active_children()) - before) == 2
    iterator.close()
    assert set(multiprocessing.active_children()) - before == set()


def test_what_cannot_be_sent_is_explained():
    loader = data.DataLoader(Squares(), num_workers=1, collate_fn=lambda items: lambda: items)
    with pytest.raises(RuntimeError, match="must be picklable"):
        next(iter(loader))


@pytest.mark.parametrize("settings, message",
                         [({"num_workers": -1}, "non-negative"), ({"timeout": -1}, "non-negative"),
                          ({"prefetch_factor": 2}, "num_workers"),
                          ({"sampler": [0], "shuffle": True}, "mutually exclusive"),
                          ({"batch_sampler": [[0]], "batch_size": 2}, "exclusive"),
                          ({"batch_size": None, "drop_last": True}, "exclusive"),
                          ({"persistent_workers": True}, "num_workers"),
                          ({"multiprocessing_context": "fork"}, "num_workers"),
                          ({"batch_size": 0}, "positive")])
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        data.DataLoader(range(3), **settings)
