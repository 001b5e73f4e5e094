"""Recording computes nothing; one flush computes everything, once; equal steps are one program."""

import os
import subprocess
import sys
import threading
import warnings

import numpy
import pytest

import lazygrad as lg
from lazygrad import nn, optim
from lazygrad._core import cell as cells
from lazygrad.nn import functional
from lazygrad_runtime import program, store


class Watch:
    """Programs run, and programs new to this process, since it was made or `reset`."""

    def __init__(self):
        self.ran = []
        self.reset()

    def reset(self):
        self.ran.clear()
        self._before = self._new()

    def _new(self):
        return store.counters.compiles + store.counters.disk_hits

    @property
    def runs(self):
        return len(self.ran)

    @property
    def new(self):
        return self._new() - self._before


@pytest.fixture
def watch(monkeypatch):
    lg.synchronize()
    made = Watch()
    monkeypatch.setattr(program, "run_callbacks", [made.ran.append])
    return made


# ---- one flush


def test_recording_computes_nothing(watch):
    x = lg.from_numpy(numpy.ones((4, 4), numpy.float32)).requires_grad_()
    y = (x @ x + lg.rand(4, 4)).softmax(-1)
    y[0] = 3
    y.sum().backward()
    shapes = [y.shape, y.dtype, y.T.shape, len(y), x.grad.shape, y.requires_grad, y.stride()]
    assert shapes and watch.runs == 0


def test_one_look_computes_all_that_is_alive_in_one_program(watch):
    x = lg.from_numpy(numpy.arange(4, dtype=numpy.float32))
    first, second, third = x + 1, x * 2, x.exp()
    view = third[1:]
    assert first.tolist() == [1, 2, 3, 4]
    assert watch.runs == 1 and len(watch.ran[0].artifact.outputs) == 3
    assert second.tolist() == [0, 2, 4, 6]
    numpy.testing.assert_allclose(view.numpy(), numpy.exp([1, 2, 3]), rtol=1e-6)
    assert watch.runs == 1


def test_dead_tensors_are_not_computed(watch):
    x = lg.from_numpy(numpy.arange(4, dtype=numpy.float32))
    (x + 1).exp().sum()
    kept = x * 3
    lg.synchronize()
    assert watch.runs == 1 and len(watch.ran[0].artifact.outputs) == 1
    assert kept.tolist() == [0, 3, 6, 9] and watch.runs == 1


def test_nothing_runs_twice(watch):
    x = lg.from_numpy(numpy.arange(6, dtype=numpy.float32))
    noise = lg.rand(6)
    first = noise.tolist()
    y = noise * x
    assert noise.tolist() == first
    numpy.testing.assert_allclose(y.numpy(), noise.numpy() * x.numpy(), rtol=1e-6)
    for _ in range(3):
        y.sum(), y.tolist(), repr(y), y.numpy()
    assert watch.runs == 2


def test_the_loss_looked_at_before_backward_is_not_computed_again(watch):
    weight = lg.from_numpy(numpy.ones(8, numpy.float32)).requires_grad_()
    noise = lg.rand(8)
    loss = ((weight * noise).exp() * noise).sum()
    loss.item()
    assert watch.runs == 1
    loss.backward()
    weight.grad.tolist()
    assert watch.runs == 2
    expected = numpy.exp(noise.numpy()) * noise.numpy() ** 2
    numpy.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-5)


def test_looking_at_constants_runs_nothing(watch):
    assert lg.zeros(2, 3).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert lg.full((2,), 7).sum().item() == 14
    assert watch.runs <= 1
    x = lg.tensor([1.0, 2.0])
    before = watch.runs
    assert x.tolist() == [1, 2] and x[1].item() == 2 and x.view(2, 1).T.tolist() == [[1, 2]]
    assert watch.runs == before


# ---- training steps


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
}
SCHEDULES = {
    "none": lambda o: None,
    "step": lambda o: optim.lr_scheduler.StepLR(o, 2, 0.5),
    "cosine": lambda o: optim.lr_scheduler.CosineAnnealingLR(o, 10),
    "warmup": lambda o: optim.lr_scheduler.LambdaLR(o, lambda step: (step + 1) / 10),
    "one cycle": lambda o: optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
}


def trainer(optimizer, schedule="none"):
    lg.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3),
                          nn.Linear(8, 2))
    made = OPTIMIZERS[optimizer](model.parameters())
    scheduler = SCHEDULES[schedule](made)

    def step(number, look):
        generator = numpy.random.default_rng(number)
        x = lg.from_numpy(generator.normal(size=(16, 4)).astype(numpy.float32))
        y = lg.from_numpy(generator.integers(0, 2, 16))
        made.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        if look == "before":
            loss.item()
        loss.backward()
        made.step()
        if scheduler is not None:
            scheduler.step()
        return loss.item() if look == "after" else loss

    return step


@pytest.mark.parametrize("look,most_runs", [("before", 2), ("after", 1), ("never", 1)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_second_step_makes_no_program(watch, optimizer, look, most_runs):
    step = trainer(optimizer)
    step(0, look)
    for number in range(1, 5):
        watch.reset()
        step(number, look)
        assert watch.new == 0, f"step {number}"
        assert watch.runs == most_runs, f"step {number}"


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_schedules_make_no_program(watch, optimizer, schedule):
    step = trainer(optimizer, schedule)
    # "one cycle" changes the momentum, too, which is a constant until it changes: one more program.
    first = 2 if schedule == "one cycle" else 1
    for number in range(first):
        step(number, "after")
    watch.reset()
    for number in range(first, 6):
        step(number, "after")
    assert watch.new == 0 and watch.runs == 6 - first


def test_when_the_loss_is_looked_at_does_not_change_the_training():
    losses = []
    for look in ("before", "after", "never"):
        step = trainer("adam", "cosine")
        losses.append([float(step(number, look)) for number in range(4)])
    numpy.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    numpy.testing.assert_allclose(losses[2], losses[0], rtol=1e-5)


def test_evaluation_between_steps_makes_no_more_programs(watch):
    lg.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = optim.Adam(model.parameters())
    x = lg.from_numpy(numpy.ones((6, 4), numpy.float32))
    for number in range(4):
        if number == 1:
            watch.reset()
        model.train()
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        model.eval()
        with lg.no_grad():
            model(x).mean().item()
    assert watch.new == 0 and watch.runs == 6


# ---- loops that never look


def test_a_loop_that_never_looks_is_bounded():
    x = lg.from_numpy(numpy.zeros(4, numpy.float32))
    most = 0
    for _ in range(2 * cells.MOST_PENDING_NODES + 700):
        x = x + 1
        most = max(most, len(cells._pending))
    assert most <= cells.MOST_PENDING_NODES + 256
    assert x.tolist() == [2.0 * cells.MOST_PENDING_NODES + 700] * 4


def test_pending_bytes_are_bounded(monkeypatch, watch):
    monkeypatch.setattr(cells, "MOST_PENDING_BYTES", 1 << 20)
    x = lg.from_numpy(numpy.ones(1 << 10, numpy.float32))
    kept = [x + number for number in range(1000)]
    assert watch.runs >= 1
    assert kept[-1][0].item() == 1000.0


def test_a_training_loop_that_never_looks_is_bounded():
    step = trainer("sgd")
    for number in range(40):
        step(number, "never")
        assert len(cells._pending) <= 256


def test_gradient_accumulation_without_looking():
    weight = lg.from_numpy(numpy.ones(4, numpy.float32)).requires_grad_()
    for _ in range(500):
        (weight * 2).sum().backward()
    assert weight.grad.tolist() == [1000.0] * 4
    assert len(cells._pending) <= cells.MOST_PENDING_NODES + 256


# ---- processes and the cache on disk


PROGRAM = """
import os, sys, warnings
import numpy
warnings.simplefilter("always")
import lazygrad as lg
from lazygrad import nn, optim
from lazygrad.nn import functional
from lazygrad_runtime.store import counters
lg.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
optimizer = optim.AdamW(model.parameters(), lr=0.01)
for number in range(2):
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(lg.ones(6, 4)), lg.zeros(6, dtype=lg.int64))
    loss.backward()
    optimizer.step()
step = lg.compile(lambda x: model(x).sum())
with lg.no_grad():
    total = step(lg.ones(3, 4)).item()
print(f"{loss.item():.7f} {total:.7f} {counters.compiles} {counters.disk_hits}")
"""


def run_python(text, **environment):
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run([sys.executable, "-c", text], env=variables, capture_output=True,
                          text=True, timeout=100, check=False)


def run_program(**environment):
    """(loss, total), compiles, disk hits, and the process."""
    process = run_python(PROGRAM, **environment)
    assert process.returncode == 0, process.stderr
    *values, compiles, hits = process.stdout.split()
    return values, int(compiles), int(hits), process


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return folder, *run_program(LAZYGRAD_CACHE_DIR=str(folder))


def test_a_second_process_compiles_nothing(first_run):
    folder, values, compiles, hits, _ = first_run
    assert compiles > 0 and hits == 0
    again, compiles_again, hits_again, process = run_program(LAZYGRAD_CACHE_DIR=str(folder))
    assert again == values and compiles_again == 0 and hits_again == compiles
    assert process.stderr == ""


def test_without_a_cache(first_run, tmp_path):
    _, values, compiles, _, _ = first_run
    got, compiles_again, hits, process = run_program(LAZYGRAD_CACHE="0",
                                                     LAZYGRAD_CACHE_DIR=str(tmp_path / "unused"))
    assert got == values and compiles_again == compiles and hits == 0
    assert process.stderr == "" and not (tmp_path / "unused").exists()


def test_a_cache_folder_that_cannot_be_made_warns_once(first_run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    got, compiles, _, process = run_program(LAZYGRAD_CACHE_DIR=str(tmp_path / "file" / "cache"))
    assert got == first_run[1] and compiles == first_run[2]
    assert process.stderr.count("RuntimeWarning") == 1 and "uncached" in process.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_cache_folder_warns_once(first_run, tmp_path):
    tmp_path.chmod(0o500)
    try:
        got, compiles, _, process = run_program(LAZYGRAD_CACHE_DIR=str(tmp_path))
    finally:
        tmp_path.chmod(0o700)
    assert got == first_run[1] and compiles == first_run[2]
    assert process.stderr.count("RuntimeWarning") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_fork_after_use(threads):
    process = run_python("""
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy
import lazygrad as lg
x = lg.from_numpy(numpy.ones((300, 300), numpy.float32))
pending = x @ x
other = (x * 2).sum().item()
child = os.fork()
value = (x @ pending + other).sum().item()
if child == 0:
    new = (x.exp() @ x).sum().item()
    print(value, round(new / 300), flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
print(value, os.waitstatus_to_exitcode(status))
""", LAZYGRAD_NUM_THREADS=threads)
    assert process.returncode == 0, process.stderr
    child, parent = process.stdout.split("\n")[:2]
    expected = 300.0 ** 4 + 300 * 300 * 180000.0
    assert numpy.isclose(float(child.split()[0]), expected, rtol=1e-5)
    assert numpy.isclose(float(child.split()[1]), 300 * 300 * numpy.e, rtol=1e-3)
    assert numpy.isclose(float(parent.split()[0]), expected, rtol=1e-5)
    assert parent.split()[1] == "0"


# ---- threads


def test_two_threads_at_once():
    failures = []
    start = threading.Barrier(2)

    def work(number):
        try:
            start.wait(10)
            weight = lg.from_numpy(numpy.full(16, number, numpy.float32)).requires_grad_()
            optimizer = optim.SGD([weight], lr=0.5)
            for _ in range(30):
                optimizer.zero_grad()
                loss = ((weight - 1) ** 2).sum() / 2
                loss.backward()
                optimizer.step()
            numpy.testing.assert_allclose(weight.detach().numpy(), 1 + (number - 1) * 0.5 ** 30,
                                          rtol=1e-6)
            with lg.no_grad():
                assert not (weight * 2).requires_grad
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in (3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_modes_belong_to_threads():
    results = {}

    def work():
        results["grad"] = lg.is_grad_enabled()
        with lg.no_grad():
            results["off"] = lg.is_grad_enabled()

    with lg.no_grad():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
        assert not lg.is_grad_enabled()
    assert results == {"grad": True, "off": False} and lg.is_grad_enabled()


def test_a_flush_in_one_thread_serves_what_another_recorded():
    x = lg.from_numpy(numpy.arange(4, dtype=numpy.float32))
    pending = [x + number for number in range(5)]
    results = []
    threads = [threading.Thread(target=lambda y=y: results.append(y.sum().item()))
               for y in pending]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [6.0 + 4 * number for number in range(5)]


def test_no_warnings_in_ordinary_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step = trainer("adam", "cosine")
        for number in range(2):
            step(number, "after")
