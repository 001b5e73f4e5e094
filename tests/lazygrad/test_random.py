"""Random numbers: distributions, states, reproducibility.  Seeds are fixed, so nothing flickers."""

from __future__ import annotations

import math

import numpy
import pytest

import lazygrad as lg
from lazygrad_compiler.ir import reference_special

COUNT = 20_000


def kolmogorov(sample: numpy.ndarray, distribution) -> float:
    """sqrt(n) times the distance of the empirical distribution function from the true one."""
    ordered = numpy.sort(sample.astype(numpy.float64))
    truth, count = distribution(ordered), len(ordered)
    steps = numpy.arange(count + 1) / count
    return math.sqrt(count) * max(numpy.max(truth - steps[:-1]), numpy.max(steps[1:] - truth))


def chi_square(counts: numpy.ndarray, chances: numpy.ndarray) -> float:
    """The statistic less its degrees of freedom, over their standard deviation."""
    expected = chances * counts.sum()
    freedom = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float((statistic - freedom) / math.sqrt(2 * freedom))


normal_distribution = numpy.vectorize(lambda x: math.erfc(-x / math.sqrt(2)) / 2)

FILLED = {
    "uniform_": ((-1.0, 3.0), lambda x: (x + 1) / 4),
    "normal_": ((1.0, 2.0), lambda x: normal_distribution((x - 1) / 2)),
    "exponential_": ((2.0,), lambda x: -numpy.expm1(-2 * x)),
    "cauchy_": ((1.0, 2.0), lambda x: 0.5 + numpy.arctan((x - 1) / 2) / math.pi),
    "log_normal_": ((0.5, 0.7), lambda x: normal_distribution((numpy.log(x) - 0.5) / 0.7)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FILLED)
def test_filled_tensors_follow_their_distribution(name, dtype):
    arguments, distribution = FILLED[name]
    lg.manual_seed(1)
    drawn = getattr(lg.empty(COUNT, dtype=getattr(lg, dtype)), name)(*arguments).numpy()
    assert drawn.dtype == dtype
    assert kolmogorov(drawn, distribution) < 1.63  # one in a hundred


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_uniform_numbers_use_every_bit_of_their_dtype(dtype):
    lg.manual_seed(2)
    kind = getattr(lg, dtype)
    drawn = lg.rand(COUNT, dtype=kind).double().numpy()
    assert (drawn >= 0).all() and (drawn < 1).all()
    digits = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[dtype]
    whole = drawn * 2.0**digits
    assert (whole == numpy.floor(whole)).all()
    assert 0.45 < (whole % 2).mean() < 0.55
    assert abs(drawn.mean() - 0.5) < 0.01


def test_complex_numbers_have_variance_one():
    lg.manual_seed(3)
    drawn = lg.randn(COUNT, dtype=lg.complex64).numpy()
    assert abs((abs(drawn) ** 2).mean() - 1) < 0.03
    assert abs((drawn.real * drawn.imag).mean()) < 0.02


@pytest.mark.parametrize("rate", [0.3, 4.0, 30.0, 100.0, 3000.0])
def test_poisson(rate):
    lg.manual_seed(4)
    drawn = lg.poisson(lg.full((COUNT,), rate, dtype=lg.float64)).numpy()
    width = math.sqrt(rate)
    assert abs(drawn.mean() - rate) < 4 * width / math.sqrt(COUNT)
    assert abs(drawn.var() / rate - 1) < 0.05
    low, high = max(int(rate - 2 * width), 0), int(rate + 2 * width) + 1
    chances = [math.exp(k * math.log(rate) - rate - math.lgamma(k + 1)) for k in range(low, high)]
    counts = [(drawn == k).sum() for k in range(low, high)]
    rest = COUNT - sum(counts)
    assert abs(chi_square(numpy.asarray([*counts, rest]),
                          numpy.asarray([*chances, 1 - sum(chances)]))) < 4


def test_poisson_of_odd_rates():
    assert lg.poisson(lg.tensor([0.0, 1e-30])).tolist() == [0.0, 0.0]
    for rate in (-1.0, math.nan):
        with pytest.raises(ValueError, match="poisson.*a rate"):
            lg.poisson(lg.tensor([1.0, rate])).numpy()
    with pytest.raises(RuntimeError, match="poisson"):
        lg.poisson(lg.tensor([1, 2]))


def test_the_expansion_of_large_poisson_quantiles():
    """How often it differs from the exact quantile, found by adding up probabilities."""
    rate, count = 64.0, 4000
    u = (numpy.arange(count) + 0.5) / count
    terms = [math.exp(k * math.log(rate) - rate - math.lgamma(k + 1)) for k in range(200)]
    exact = numpy.searchsorted(numpy.cumsum(terms), u, side="right")
    rates = numpy.full(count, rate)
    expanded = reference_special.FUNCTIONS["poisson_quantile"](rates, u)
    assert (exact != expanded).sum() <= 1


def test_geometric_and_random_integers():
    lg.manual_seed(5)
    trials = lg.empty(COUNT).geometric_(0.3).numpy()
    counts = numpy.asarray([(trials == k).sum() for k in range(1, 11)] + [(trials > 10).sum()])
    chances = numpy.asarray([0.7 ** (k - 1) * 0.3 for k in range(1, 11)] + [0.7**10])
    assert abs(chi_square(counts, chances)) < 4
    dice = lg.randint(1, 7, (COUNT,)).numpy()
    assert abs(chi_square(numpy.bincount(dice, minlength=7)[1:], numpy.full(6, 1 / 6))) < 4
    small = lg.empty(COUNT, dtype=lg.uint8).random_().numpy()
    assert small.min() == 0 and small.max() == 255
    assert set(lg.empty(200, dtype=lg.int32).random_(-2, 2).tolist()) == {-2, -1, 0, 1}
    with pytest.raises(RuntimeError, match="random_"):
        lg.empty(2, dtype=lg.int8).random_(0, 1000)


def test_multinomial():
    lg.manual_seed(6)
    weights = lg.tensor([[1.0, 2.0, 0.0, 5.0], [0.0, 0.0, 3.0, 1.0]])
    drawn = lg.multinomial(weights, COUNT, replacement=True).numpy()
    first = numpy.bincount(drawn[0], minlength=4)
    assert first[2] == 0
    assert abs(chi_square(first[[0, 1, 3]], numpy.asarray([1, 2, 5]) / 8)) < 4
    assert set(drawn[1]) == {2, 3}
    both = lg.multinomial(weights[0].expand(COUNT, 4), 2).numpy()
    assert (both[:, 0] != both[:, 1]).all() and not (both == 2).any()
    # first 3, then 1: 5/8 * 2/3
    assert abs(((both[:, 0] == 3) & (both[:, 1] == 1)).mean() - 5 / 12) < 0.015
    for arguments in ((3, False), (0, True)):
        with pytest.raises(RuntimeError, match="multinomial"):
            lg.multinomial(lg.ones(2), *arguments)


def test_bernoulli_with_a_chance_for_each_place():
    lg.manual_seed(7)
    chances = lg.tensor([0.0, 0.25, 1.0]).expand(COUNT, 3)
    drawn = lg.bernoulli(chances).mean(0).numpy()
    assert drawn[0] == 0 and drawn[2] == 1 and abs(drawn[1] - 0.25) < 0.012
    assert abs(lg.empty(COUNT).bernoulli_(lg.tensor(0.25)).mean().item() - 0.25) < 0.012
    with pytest.raises(RuntimeError, match="probability"):
        lg.empty(2).bernoulli_(1.5)


def test_normal_with_tensors_of_means_and_deviations():
    lg.manual_seed(8)
    mean = lg.tensor([0.0, 100.0], dtype=lg.float64, requires_grad=True)
    drawn = lg.normal(mean.expand(COUNT, 2), lg.tensor([1.0, 5.0], dtype=lg.float64))
    assert drawn.dtype == lg.float64 and not drawn.requires_grad
    assert kolmogorov(drawn[:, 1].numpy(), lambda x: normal_distribution((x - 100) / 5)) < 1.63


def test_a_seed_gives_the_same_numbers_again():
    lg.manual_seed(9)
    first = lg.rand(5).tolist()
    second = lg.rand(5).tolist()
    lg.manual_seed(9)
    assert lg.rand(5).tolist() == first != second
    assert lg.rand(5).tolist() == second
    assert lg.initial_seed() == 9


def test_a_generator_that_nobody_seeded_starts_as_pytorchs_does():
    torch = pytest.importorskip("torch")
    one, other = lg.Generator(), lg.Generator()
    assert one.initial_seed() == torch.Generator().initial_seed()
    assert lg.rand(5, generator=one).tolist() == lg.rand(5, generator=other).tolist()
    assert lg.random.default_generator is not one
    lg.seed()
    assert lg.initial_seed() != one.initial_seed()
    for library in (torch, lg):
        assert library.manual_seed(1.5).initial_seed() == 1
        with pytest.raises((TypeError, RuntimeError), match="manual_seed"):
            library.Generator().manual_seed(1.5)


def test_states_are_saved_and_restored():
    source = lg.Generator().manual_seed(11)
    lg.rand(7, generator=source)
    state = source.get_state()
    wanted = lg.randn(4, generator=source).tolist()
    assert state.dtype == lg.uint8
    other = lg.Generator()
    other.set_state(state)
    assert lg.randn(4, generator=other).tolist() == wanted
    with pytest.raises(RuntimeError, match="set_state"):
        other.set_state(lg.zeros(3))
    saved = lg.get_rng_state()
    wanted = lg.rand(3).tolist()
    lg.set_rng_state(saved)
    assert lg.rand(3).tolist() == wanted
    with lg.random.fork_rng():
        inside = lg.rand(3).tolist()
        lg.manual_seed(1)
    assert lg.rand(3).tolist() == inside


def test_draws_do_not_depend_on_how_they_are_computed():
    """Together or one by one, on their own or fused: the numbers of a call are its own."""
    lg.manual_seed(12)
    a, b = lg.rand(8), lg.randn(8)
    together = (a + b).tolist()
    lg.manual_seed(12)
    a = lg.rand(8).tolist()
    b = lg.randn(8).tolist()
    assert together == pytest.approx([x + y for x, y in zip(a, b, strict=True)])
    lg.manual_seed(12)
    assert [*lg.rand(4).tolist(), *lg.rand(4).tolist()] == a


def test_consecutive_calls_are_independent():
    lg.manual_seed(13)
    first, second = lg.rand(COUNT).numpy(), lg.rand(COUNT).numpy()
    assert abs(numpy.corrcoef(first, second)[0, 1]) < 0.02
    assert abs(numpy.corrcoef(first[:-1], first[1:])[0, 1]) < 0.02


def test_replays_draw_other_numbers():
    @lg.compile
    def drawn(rate):
        return lg.poisson(rate) + lg.rand(rate.shape)

    lg.manual_seed(14)
    rate = lg.full((6,), 5.0)
    first, second, third = (drawn(rate).tolist() for _ in range(3))
    assert first != second != third != first
    lg.manual_seed(14)
    assert drawn(rate).tolist() == first


def test_dropouts():
    lg.manual_seed(15)
    functional = lg.nn.functional
    ones = lg.ones(40, 50, 2)
    kept = functional.dropout(ones, 0.25).numpy()
    assert set(numpy.unique(kept)) == {0, numpy.float32(1 / 0.75)}
    assert abs((kept > 0).mean() - 0.75) < 0.02
    channels = functional.dropout1d(ones, 0.5).numpy()
    assert (channels[..., 0] == channels[..., 1]).all() and len(numpy.unique(channels)) == 2
    flat = functional.dropout1d(lg.ones(64, 3), 0.5).numpy()  # (C, L): channels are the first axis
    assert (flat == flat[:, :1]).all()
    mixed = functional.alpha_dropout(lg.randn(COUNT), 0.2, training=True).numpy()
    assert abs(mixed.mean()) < 0.03 and abs(mixed.std() - 1) < 0.03
    assert functional.dropout(ones, 0.5, training=False) is ones
    result, mask = lg.native_dropout(ones, 0.5, True)
    assert ((result.numpy() > 0) == mask.numpy()).all()
    with pytest.raises(RuntimeError, match="probability"):
        functional.dropout(ones, 1.5)


def test_what_is_refused():
    with pytest.raises(RuntimeError, match="uniform_"):
        lg.empty(3, dtype=lg.int64).uniform_()
    with pytest.raises(TypeError, match="generator"):
        lg.rand(3, generator=5)
    with pytest.raises(TypeError, match="size"):
        lg.normal(0.0, 1.0)
    for name, argument in (("exponential_", 0.0), ("geometric_", 1.5)):
        with pytest.raises(RuntimeError, match=name):
            getattr(lg.empty(3), name)(argument)


def test_a_refused_call_draws_nothing() -> None:
    generator = lg.Generator().manual_seed(3)
    for sizes in ((-3,), (2**40, 2**40)):
        with pytest.raises((RuntimeError, ValueError)):
            lg.rand(*sizes, generator=generator)
        assert generator.get_offset() == 0
    with pytest.raises(ValueError, match="no place in the sequence"):
        generator.set_offset(-1)
