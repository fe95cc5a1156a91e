"""Nulls against simulated updates, tests against walks that have nothing to do with each other, intervals against series whose mean is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance, procrustes

from analysis import nulls, uncertainty
from analysis.uncertainty import Interval, block_bootstrap, calibration, circular_shift_test, interval_over_seeds, interval_over_updates


def _random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def _chain(random: np.random.Generator, count: int, phi: float, *rest: int) -> np.ndarray:
    """A first-order series, one step after another, variance 1."""
    series = [random.standard_normal(rest)]
    for _ in range(count - 1):
        series.append(phi * series[-1] + np.sqrt(1 - phi**2) * random.standard_normal(rest))
    return np.array(series)


# --- one cosine ------------------------------------------------------------------------------------


def test_random_directions_spread_as_said() -> None:
    random = _random()
    found = [_cosine(random.standard_normal(30), random.standard_normal(30)) for _ in range(5000)]
    assert np.std(found) == pytest.approx(nulls.full_null_sd(30), rel=0.04)


def test_random_updates_of_a_fresh_adapter_spread_as_said() -> None:
    """Whole matrices, with A drawn anew each time and shared; and with two A's, where the spread falls to 1 / sqrt(m n)."""
    random, m, n, rank = _random(1), 24, 40, 6
    shared, apart = [], []
    for _ in range(4000):
        a, b, other = random.standard_normal((rank, n)), random.standard_normal((m, rank)), random.standard_normal((m, rank))
        shared.append(_cosine(b @ a, other @ a))
        apart.append(_cosine(b @ a, other @ random.standard_normal((rank, n))))
    assert np.std(shared) == pytest.approx(nulls.adapter_null_sd(m, n, rank), rel=0.05)
    assert np.std(shared) > 1.03 / np.sqrt(rank * m)  # the rows of A are not orthogonal, and it shows
    assert np.std(apart) == pytest.approx(1 / np.sqrt(m * n), rel=0.05)


@pytest.mark.slow
def test_random_updates_of_a_real_adapter_spread_as_said() -> None:
    random, m, rank = _random(2), 576, 16
    found = []
    for _ in range(3000):
        a = random.uniform(-1, 1, (rank, m)).astype(np.float32)
        gram = a @ a.T
        b, other = random.standard_normal((2, m, rank), dtype=np.float32)
        found.append(np.sum(b.T @ other * gram) / np.sqrt(np.sum(b.T @ b * gram) * np.sum(other.T @ other * gram)))
    assert np.std(found) == pytest.approx(nulls.adapter_null_sd(m, m, rank), rel=0.04)


def test_the_null_of_a_real_adapter_is_what_was_measured() -> None:
    """0.0107 in the laboratory; 1 / sqrt(m n) would say 0.0017."""
    assert 0.0104 < nulls.adapter_null_sd(576, 576, 16) < 0.0107
    assert nulls.full_null_sd(576 * 576) == pytest.approx(0.0017, abs=1e-4)


def test_cosines_over_modules_spread_as_composed() -> None:
    random, sizes, own, other = _random(3), (10, 40, 200), (3.0, 1.0, 5.0), (2.0, 0.1, 7.0)
    found = []
    for _ in range(4000):
        first, second = (np.concatenate([norm * _unit(random.standard_normal(n)) for n, norm in zip(sizes, norms, strict=True)]) for norms in (own, other))
        found.append(_cosine(first, second))
    sd = nulls.null_sd([nulls.full_null_sd(n) for n in sizes], own, other)
    assert np.std(found) == pytest.approx(float(sd), rel=0.05)
    low, high = nulls.null_band(sd)
    assert np.mean((found > low) & (found < high)) == pytest.approx(0.95, abs=0.015)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def test_one_module_keeps_its_own_null_and_leading_axes_stay() -> None:
    sd, own, other = _random(4).uniform(0.1, 1, (3, 2, 5, 4))
    found = nulls.null_sd(sd, own, other)
    assert found.shape == (2, 5)
    for u in range(2):
        for v in range(5):
            squares = sum((sd[u, v, t] * own[u, v, t] * other[u, v, t]) ** 2 for t in range(4))
            length = np.linalg.norm(own[u, v]) * np.linalg.norm(other[u, v])
            assert found[u, v] == pytest.approx(np.sqrt(squares) / length)
    assert nulls.null_sd(0.2, 3.0, 7.0) == pytest.approx(0.2)


def test_modules_without_a_null_are_left_out_as_they_are_of_the_cosine() -> None:
    assert nulls.null_sd([0.1, np.nan], [1.0, 5.0], [1.0, 5.0]) == pytest.approx(0.1)
    assert nulls.null_sd([0.1, 0.2], [1.0, np.inf], [1.0, 5.0]) == pytest.approx(0.1)
    undefined = nulls.null_sd([[np.nan, np.nan], [0.1, 0.1]], [[1.0, 1.0], [0.0, 0.0]], [1.0, 1.0])
    assert np.isnan(undefined).all()
    assert np.isnan(nulls.null_sd([], [], []))
    assert np.isnan([nulls.full_null_sd(0), nulls.adapter_null_sd(0, 4, 4), nulls.adapter_null_sd(4, 4, 0), *nulls.null_band(np.nan)]).all()


def test_no_band_reaches_beyond_what_a_cosine_can_be() -> None:
    assert [float(end) for end in nulls.null_band(0.8)] == [-1.0, 1.0]


# --- the mean of many cosines ----------------------------------------------------------------------


def test_the_spread_of_a_mean_is_the_double_sum_over_pairs() -> None:
    random, count = _random(5), 12
    sd, own, other = random.uniform(0.1, 1, count), random.uniform(-0.2, 0.5, 8), random.uniform(-0.2, 0.5, 20)
    own_at, other_at = [1.0, *own, 0.0, 0.0, 0.0], [1.0, *other]
    variance = sum(sd[t] * sd[s] * own_at[abs(t - s)] * other_at[abs(t - s)] for t in range(count) for s in range(count)) / count**2
    assert nulls.null_sd_of_mean(sd, own, other) == pytest.approx(np.sqrt(variance))


def test_independent_cosines_average_as_usual() -> None:
    assert nulls.null_sd_of_mean([0.1, 0.2, np.nan, 0.2]) == pytest.approx(0.3 / 3)
    assert nulls.effective_number(50, 0.0, 0.9) == pytest.approx(50)
    assert nulls.effective_number(50, 1.0, 1.0) == pytest.approx(1)
    assert nulls.effective_number(100_000, 0.9, 0.9) == pytest.approx(100_000 * 0.19 / 1.81, rel=1e-3)  # (1 - q) / (1 + q), q = 0.9^2
    assert nulls.effective_number(1, 0.9, 0.9) == pytest.approx(1)


@pytest.mark.parametrize(("own", "other"), [(0.0, 0.9), (0.8, 0.8), (0.9, -0.5)])
def test_the_mean_cosine_of_persistent_updates_spreads_as_bartlett_says(own: float, other: float) -> None:
    random, steps, walks, dimensions = _random(6), 30, 300, 60
    first, second = (_chain(random, steps, phi, walks, dimensions) for phi in (own, other))
    cosines = np.sum(first * second, axis=2) / np.linalg.norm(first, axis=2) / np.linalg.norm(second, axis=2)
    said = nulls.null_sd_of_mean(np.full(steps, nulls.full_null_sd(dimensions)), own, other)
    assert np.std(cosines.mean(axis=0)) == pytest.approx(said, rel=0.15)  # four standard errors of an SD over 300 walks


def test_a_mean_of_nothing_has_no_spread() -> None:
    assert np.isnan(nulls.null_sd_of_mean([]))
    assert np.isnan(nulls.null_sd_of_mean([np.nan, np.nan]))
    assert np.isnan(nulls.null_sd_of_mean([1.0, 1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]))
    assert np.isnan(nulls.effective_number(0, 0.5, 0.5))


# --- sketches --------------------------------------------------------------------------------------


def _places(size: int, k: int) -> np.ndarray:
    """Which sum each element falls into: (e mod P) mod k, P the smallest prime above 4k."""
    prime = next(p for p in range(4 * k + 1, 8 * k) if all(p % d for d in range(2, int(p**0.5) + 1)))
    return np.arange(size) % prime % k


def _sketched(x: np.ndarray, signs: np.ndarray, places: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """The signed sums, and the standard error of a cosine near zero."""
    energy = np.bincount(places, x**2, k)
    shares = (np.sum(energy**2) - np.sum(x**4)) / np.sum(energy) ** 2
    return np.bincount(places, x * signs, k), float(np.sqrt(max(shares, 1 / k)))


@pytest.mark.slow
@pytest.mark.parametrize(("tails", "planted"), [("normal", 0.0), ("normal", 0.7), ("heavy", 0.0), ("heavy", 0.7)])
def test_the_interval_of_a_sketched_cosine_covers_the_exact_one(tails: str, planted: float) -> None:
    random, size, k, pairs = _random(7), 6000, 128, 1000
    places, inside = _places(size, k), 0
    for _ in range(pairs):
        x, noise = random.standard_normal((2, size)) if tails == "normal" else random.standard_t(3, (2, size))
        y = planted * x + np.sqrt(1 - planted**2) * noise
        signs = random.integers(2, size=size) * 2 - 1
        (x_sums, x_error), (y_sums, y_error) = (_sketched(part, signs, places, k) for part in (x, y))
        low, high = nulls.sketch_interval(_cosine(x_sums, y_sums), 1 / (x_error * y_error))
        inside += bool(low <= _cosine(x, y) <= high)
    assert 0.93 <= inside / pairs <= 0.97


def test_a_sketch_interval_is_the_standard_error_near_zero_and_stays_a_cosine() -> None:
    low, high = nulls.sketch_interval([0.02, 0.5, 0.999], 400)
    np.testing.assert_allclose((high - low)[:2], 2 * 1.959964 * (1 - np.array([0.02, 0.5]) ** 2) / 20, rtol=5e-3)
    assert high[2] < 1
    assert [float(end) for end in nulls.sketch_interval(1.0, 64)] == [1.0, 1.0]
    assert np.isnan(nulls.sketch_interval([np.nan, 0.1, 0.1, 0.1], [64, np.nan, 0, -3])).all()


# --- p-values --------------------------------------------------------------------------------------


def test_two_sided_p_is_the_tail_of_the_square() -> None:
    values, sd = np.array([-3.0, -0.1, 0.0, 0.7, 12.0]), np.array([1.0, 2.0, 0.5, 0.35, 2.0])
    np.testing.assert_allclose(nulls.two_sided_p(values, sd), stats.chi2.sf((values / sd) ** 2, 1), rtol=1e-12)


def test_two_sided_p_is_undefined_where_the_null_is() -> None:
    assert np.isnan(nulls.two_sided_p([1.0, 1.0, np.nan, np.inf, 1.0, 1.0], [0.0, np.nan, 1.0, 1.0, -1.0, np.inf])).all()


def _holm_in_a_loop(p: list[float]) -> list[float]:
    """Smallest level at which the step-down procedure rejects each hypothesis."""
    known = [value for value in p if not np.isnan(value)]
    adjusted = {value: min(1.0, max((len(known) - i) * smaller for i, smaller in enumerate(sorted(known)) if smaller <= value)) for value in known}
    return [adjusted.get(value, np.nan) for value in p]


def test_holm_is_its_definition() -> None:
    for seed in range(50):
        p = _random(seed).uniform(0, 0.2, 9)
        p[seed % 9] = np.nan
        p[(seed + 3) % 9] = p[(seed + 5) % 9]  # a tie
        np.testing.assert_allclose(nulls.holm(p), _holm_in_a_loop(p.tolist()))


def test_holm_of_known_answers() -> None:
    np.testing.assert_allclose(nulls.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(nulls.holm([0.6, np.nan, 0.7]), [1.0, np.nan, 1.0])
    assert nulls.holm([]).shape == (0,)
    assert np.isnan(nulls.holm([np.nan])).all()


# --- shift tests -----------------------------------------------------------------------------------


def _norms_correlate(x: np.ndarray, y: np.ndarray) -> float:
    a, b = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    return _cosine(a - a.mean(), b - b.mean())


def _distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Squared; covariances as S1 + S2 - 2 S3 of Szekely, Rizzo & Bakirov (2007)."""
    gaps_PTT = np.array([distance.squareform(distance.pdist(path)) for path in (x, y)])
    means_PT = gaps_PTT.mean(axis=2)
    flat, total = gaps_PTT.reshape(2, -1), means_PT.mean(axis=1)
    covariances = flat @ flat.T / flat.shape[1] + np.outer(total, total) - 2 * means_PT @ means_PT.T / len(x)
    return float(covariances[0, 1] / np.sqrt(covariances[0, 0] * covariances[1, 1]))


def _procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """1 - disparity of the paths: the squared nuclear norm of their correlation, a quarter of the time that scipy takes."""
    a, b = (path - path.mean(axis=0) for path in (np.cumsum(x, axis=0), np.cumsum(y, axis=0)))
    return float((np.linalg.svd(a.T @ b, compute_uv=False).sum()) ** 2 / np.vdot(a, a) / np.vdot(b, b))


def _mean_cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(np.sum(x * y, axis=1) / np.sqrt(np.sum(x * x, axis=1) * np.sum(y * y, axis=1))))


STATISTICS: list[Callable[[np.ndarray, np.ndarray], float]] = [_norms_correlate, _distance_correlation, _procrustes, _mean_cosine]


def test_the_statistics_of_these_tests_are_what_they_are_called() -> None:
    x, y = _random(27).standard_normal((2, 30, 3))
    assert _procrustes(x, y) == pytest.approx(1 - procrustes(np.cumsum(x, axis=0), np.cumsum(y, axis=0))[2])
    a, b = (distance.squareform(distance.pdist(part)) for part in (x, y))
    a, b = (gaps - gaps.mean(axis=0) - gaps.mean(axis=1)[:, None] + gaps.mean() for gaps in (a, b))
    assert _distance_correlation(x, y) == pytest.approx(_cosine(a, b))


@pytest.mark.slow
@pytest.mark.parametrize("statistic", STATISTICS)
def test_walks_that_have_nothing_to_do_with_each_other_are_found_out_five_times_in_a_hundred(statistic: Callable[[np.ndarray, np.ndarray], float]) -> None:
    """At 40 steps all 39 shifts are the whole null; at 200, 19 of the 199 are enough for a p-value of 5 %."""
    assert 0.03 <= calibration(statistic, 40, 1000) <= 0.07
    assert 0.03 <= calibration(statistic, 200, 1000, seed=1, draws=19) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("statistic", [_norms_correlate, _procrustes])
def test_persistent_walks_are_not_taken_for_coupled_ones(statistic: Callable[[np.ndarray, np.ndarray], float]) -> None:
    assert 0.03 <= calibration(statistic, 60, 1000, seed=2, persistence=0.8, draws=19) <= 0.07


@pytest.mark.slow
def test_few_very_persistent_steps_mislead_distance_correlation_as_is_said() -> None:
    assert 0.08 <= calibration(_distance_correlation, 40, 400, seed=3, persistence=0.9, draws=19) <= 0.22


def test_permuted_times_would_find_coupling_everywhere() -> None:
    """Why positions are never permuted: smooth walks superimpose better than shuffled ones, coupled or not."""
    random, fires = _random(8), 0
    for _ in range(20):
        x, y = random.standard_normal((2, 40, 3))
        first, second = np.cumsum(x, axis=0), np.cumsum(y, axis=0)
        shuffled = [procrustes(first, random.permutation(second))[2] for _ in range(19)]
        fires += procrustes(first, second)[2] < min(shuffled)
    assert fires >= 18


def test_p_is_counted_over_all_shifts() -> None:
    random = _random(9)
    x, y = random.standard_normal((2, 9))
    found = circular_shift_test(np.dot, x, y)
    turned = [float(sum(x[t] * y[(t - s) % 9] for t in range(9))) for s in range(1, 9)]
    assert found.value == pytest.approx(float(np.dot(x, y)))
    assert found.p == (1 + sum(abs(other) >= abs(found.value) for other in turned)) / 9
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(turned, [0.025, 0.975])))
    assert found.shifts == 8


def test_step_numbers_may_stand_for_long_steps() -> None:
    x, y = _random(24).standard_normal((2, 12, 50))
    cosines = 1 - distance.cdist(x, y, "cosine")
    looked_up = circular_shift_test(lambda i, j: float(cosines[i, j].mean()), np.arange(12), np.arange(12))
    direct = circular_shift_test(_mean_cosine, x, y)
    assert looked_up.p == direct.p
    assert (looked_up.value, looked_up.low, looked_up.high) == pytest.approx((direct.value, direct.low, direct.high))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("shape", [(40,), (40, 5)])
def test_planted_coupling_of_either_sign_is_found(sign: int, shape: tuple[int, ...]) -> None:
    random = _random(10)
    x = random.standard_normal(shape)
    found = circular_shift_test(_cosine, x, sign * (x + 0.3 * random.standard_normal(shape)))
    assert found.p == 1 / 40  # the smallest that 40 steps can give
    assert abs(found.value) > max(abs(found.low), abs(found.high))


def test_what_repeats_itself_is_no_evidence() -> None:
    """A shift by a whole period changes nothing, so it counts as just as large; sums in another order must not hide that."""
    beat = np.tile([0.1, 0.7, -0.3, 0.2], 10)
    assert circular_shift_test(_cosine, beat, beat).p == 10 / 40


def test_few_draws_are_different_shifts_and_repeat_themselves() -> None:
    x, y = _random(11).standard_normal((2, 500))
    one, two = (circular_shift_test(_cosine, x, y, draws=99, seed=3) for _ in range(2))
    assert one == two
    assert one.shifts == 99
    assert one.low != circular_shift_test(_cosine, x, y, draws=99, seed=4).low
    assert len(set(uncertainty._shifts(50, 40, 0).tolist())) == 40
    assert not {0, 50} & set(uncertainty._shifts(50, 40, 0).tolist())


def test_a_shared_schedule_is_found_although_nothing_is_coupled() -> None:
    """The warning in the docstring is true: norms that fall together fire, and those divided by the schedule need not."""
    random, schedule = _random(12), np.linspace(1, 0.05, 60)
    fired = {"as they are": 0, "divided": 0}
    for _ in range(40):
        x, y = random.uniform(0.8, 1.2, (2, 60))
        fired["as they are"] += circular_shift_test(lambda a, b: float(np.corrcoef(a, b)[0, 1]), x * schedule, y * schedule).p <= 0.05
        fired["divided"] += circular_shift_test(lambda a, b: float(np.corrcoef(a, b)[0, 1]), x, y).p <= 0.05
    assert fired["as they are"] == 40
    assert fired["divided"] <= 7


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1.0, 2.0], [2.0, 1.0]),
        ([], []),
        ([1.0, 2.0, np.nan], [1.0, 2.0, 4.0]),
        ([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]),
        (np.ones((5, 2)), np.arange(10.0).reshape(5, 2)),
        (np.zeros((5, 0)), np.zeros((5, 0))),
    ],
)
def test_series_that_say_nothing_have_no_p_value(x: object, y: object) -> None:
    found = circular_shift_test(_cosine, np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    assert np.isnan([found.value, found.p, found.low, found.high]).all()
    assert found.shifts == 0


def test_a_statistic_without_a_value_has_no_p_value() -> None:
    x, y = _random(13).standard_normal((2, 10))
    assert np.isnan(circular_shift_test(lambda a, b: np.nan, x, y).p)
    assert np.isnan(circular_shift_test(lambda a, b: 1.0 if b[0] == y[0] else np.nan, x, y).p)
    assert np.isnan(calibration(lambda a, b: np.nan, 10, 3))


def test_series_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="series of 5 and 4 steps"):
        circular_shift_test(_cosine, np.arange(5.0), np.arange(4.0))


# --- intervals over updates ------------------------------------------------------------------------


def _blocks_in_a_loop(values: np.ndarray, width: int) -> list[float]:
    return [sum(values[(start + i) % len(values)] for i in range(width)) for start in range(len(values))]


def test_drawn_means_are_made_of_blocks_in_a_circle() -> None:
    """11 values in blocks of 4: two whole ones and one of 3. Mean and spread over draws are those of the blocks, exactly."""
    values = _random(14).standard_normal(11)
    means = uncertainty._drawn_means(values, 4, 200_000, 0)
    variance = (2 * np.var(_blocks_in_a_loop(values, 4)) + np.var(_blocks_in_a_loop(values, 3))) / 11**2
    assert means.mean() == pytest.approx(values.mean(), abs=5 * np.sqrt(variance / 200_000))
    assert means.std() == pytest.approx(np.sqrt(variance), rel=0.01)


def test_blocks_of_one_are_the_ordinary_bootstrap_made_wider() -> None:
    values = _random(15).standard_normal(30)
    low, high = block_bootstrap(values, 1, draws=20_000)
    plain = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=_random(16)).confidence_interval
    wider = stats.t.ppf(0.975, 29) / stats.norm.ppf(0.975) * np.sqrt(30 / 29)
    assert high - values.mean() == pytest.approx(wider * (plain.high - values.mean()), rel=0.03)
    assert low - values.mean() == pytest.approx(wider * (plain.low - values.mean()), rel=0.03)
    assert high - values.mean() == pytest.approx(stats.t.ppf(0.975, 29) * stats.sem(values), rel=0.05)  # normal values: close to Student


def test_the_bootstrap_repeats_itself() -> None:
    values = _random(17).standard_normal(40)
    assert block_bootstrap(values, 5) == block_bootstrap(values, 5)
    assert block_bootstrap(values, 5) != block_bootstrap(values, 5, seed=1)


def test_blocks_that_cannot_be() -> None:
    values = _random(18).standard_normal(10)
    for block in (0, 11):
        with pytest.raises(ValueError, match=f"block is {block}; it must be from 1 to 10"):
            block_bootstrap(values, block)
    assert np.isnan(block_bootstrap(values, 6)).all()  # one block and a bit have no spread
    for series in ([], [1.0, 2.0], [3.0] * 10, [1.0, np.nan, 2.0, 5.0]):
        assert np.isnan(block_bootstrap(series, 1)).all()


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.6])
def test_the_estimated_correlation_of_neighbours_is_about_right_on_short_series(phi: float) -> None:
    series = _chain(_random(19), 40, phi, 1000).T
    assert np.mean([uncertainty.autocorrelation(values) for values in series]) == pytest.approx(phi, abs=0.02)


def test_correlation_of_neighbours_in_extreme_series() -> None:
    assert uncertainty.autocorrelation(np.arange(10_000.0)) == 0.99
    assert uncertainty.autocorrelation(np.tile([1.0, -1.0], 5000)) == -0.99
    assert np.isnan(uncertainty.autocorrelation([1.0, 1.0, 1.0]))


@pytest.mark.parametrize("phi", [-0.4, 0.0, 0.3, 0.7, 0.9])
def test_the_block_length_is_politis_and_whites(phi: float) -> None:
    """b = (2 G^2 / D)^(1/3) U^(1/3) with G = sum |k| R(k), D = 4/3 (sum R(k))^2, summed here term by term."""
    lags = np.arange(-500, 501)
    g, total = np.sum(np.abs(lags) * phi ** np.abs(lags)), np.sum(phi ** np.abs(lags))
    best = (2 * g**2 / (4 / 3 * total**2) * 600) ** (1 / 3)
    assert uncertainty.block_length(600, phi) == max(1, np.ceil(best - 1e-9))
    assert uncertainty.block_length(20, 0.95) == 6  # a third
    assert uncertainty.block_length(2, 0.5) == 1


@pytest.mark.slow
@pytest.mark.parametrize("length", [20, 80, 320])
def test_the_table_of_coverage_is_what_is_measured(length: int) -> None:
    """Other draws than the table's; a group holds some 150 series at least, which know a coverage to 0.02."""
    found = np.array(uncertainty.coverage_by_estimate(length, 2000, draws=300, seed=100))
    table = np.array([uncertainty.expected_coverage(length, estimate) for estimate in uncertainty.ESTIMATES])
    known = np.isfinite(found)
    assert known.sum() >= 4
    np.testing.assert_allclose(found[known], table[known], atol=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "least", "most"), [(0.0, 0.93, 0.98), (0.4, 0.92, 0.97), (0.8, 0.91, 0.96), (0.9, 0.83, 0.91)])
def test_the_coverage_at_forty_updates_is_what_is_said(correlation: float, least: float, most: float) -> None:
    assert least <= uncertainty.coverage(40, correlation, 1000, draws=300, seed=100) <= most


@pytest.mark.slow
def test_the_intervals_that_are_given_hold_the_mean_nine_times_in_ten() -> None:
    """A length that is not in the table, correlations nobody knows, series made one step after another."""
    random = _random(20)
    series = [2 + _chain(random, 45, phi) for phi in random.uniform(0, 0.95, 2000)]
    given = [found for found in (interval_over_updates(values, seed) for seed, values in enumerate(series)) if not found.reason]
    assert len(given) > 1000
    assert 0.90 <= np.mean([found.low <= 2 <= found.high for found in given]) <= 0.98


@pytest.mark.parametrize("length", [40, 160])
def test_walks_which_have_no_mean_get_no_interval(length: int) -> None:
    walks = np.cumsum(_random(25).standard_normal((200, length)), axis=1)
    assert np.mean([interval_over_updates(walk).reason == "" for walk in walks]) < 0.25  # one in seven is said


def test_coverage_is_looked_up_at_the_next_shorter_length() -> None:
    table = np.array(uncertainty.COVERAGE)
    assert table.shape == (len(uncertainty.LENGTHS), len(uncertainty.ESTIMATES))
    assert uncertainty.expected_coverage(59, 0.3) == table[2, 2]  # 40 updates, up to 0.4
    assert uncertainty.expected_coverage(60, 0.4) == table[3, 2]
    assert uncertainty.expected_coverage(10**6, -0.7) == table[-1, 0]
    assert np.isnan([uncertainty.expected_coverage(19, 0.0), uncertainty.expected_coverage(1000, 0.91), uncertainty.expected_coverage(100, np.nan)]).all()


def test_the_highest_correlation_is_seldom_too_low() -> None:
    series = _chain(_random(26), 60, 0.6, 1000).T
    above = [uncertainty.highest_correlation(uncertainty.autocorrelation(values), 60) >= 0.6 for values in series]
    assert np.mean(above) == pytest.approx(0.975, abs=0.025)


def test_a_refused_interval_says_why() -> None:
    noise = _random(21).standard_normal(20)
    assert uncertainty.autocorrelation(noise - 0.5 * np.roll(noise, 1)) < 0
    reasons = {
        "2 updates: intervals were measured from 20 on": [1.0, 2.0],
        "0 updates: intervals were measured from 20 on": [],
        "1 of 4 values are not finite": [1.0, np.nan, 2.0, 3.0],
        "the value never changed": [2.0] * 50,
        "5000 updates with neighbours correlated by 0.99: this may be a walk": np.arange(5000.0),
        "an interval would hold the mean 88.6% of the time instead of 95%": noise - 0.5 * np.roll(noise, 1),
    }
    for words, values in reasons.items():
        found = interval_over_updates(values)
        assert words in found.reason
        assert np.isnan([found.low, found.high]).all()


def test_an_interval_is_given_where_it_may_be() -> None:
    values = 3 + _random(22).standard_normal(200)
    found = interval_over_updates(values)
    assert found.reason == ""
    assert found.low < values.mean() < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.25)


# --- intervals over seeds --------------------------------------------------------------------------


def test_the_interval_over_seeds_is_students() -> None:
    values = _random(23).standard_normal(5)
    found = interval_over_seeds([*values[:3], np.nan, *values[3:]])
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 4, values.mean(), stats.sem(values)))


def test_seeds_that_say_nothing() -> None:
    assert interval_over_seeds([1.0, np.nan]).reason == "1 of the seeds have a value: an interval needs two"
    assert interval_over_seeds([1.0, 1.0, 1.0]).reason == "all seeds gave the same value"
    assert np.isnan([Interval().low, Interval().high]).all()
