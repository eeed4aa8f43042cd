"""Intervals against scipy and by simulation, p-values by hand, and what pairing is for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from slmlab.errors import LabError
from slmlab.metrics import statistics
from slmlab.metrics.statistics import (
    DRAWS,
    Estimate,
    all_of,
    average,
    correlation,
    draws_of,
    estimated,
    holm,
    ranks_agree,
    varies,
)


def bootstrap(statistic, n: int, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """A statistic of places of sentences, of all of them and of each draw."""
    return estimated(statistic(np.arange(n)), [statistic(places) for places in draws_of(n, draws, seed)])


def test_interval_of_a_mean_is_that_of_scipys_bootstrap() -> None:
    x = np.random.default_rng(0).exponential(size=200)
    ours = bootstrap(lambda i: float(x[i].mean()), 200, seed=1).interval()
    theirs = stats.bootstrap(
        (x,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(2)
    )
    assert ours == pytest.approx(theirs.confidence_interval, abs=0.01)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Sentences are hard in all seeds alike: 300 imagined studies of two systems, 3 seeds, 80 sentences."""
    draw, covered = np.random.default_rng(3), 0
    seeds = np.array([0.3, -0.2, 0.1])
    for study in range(300):
        hard, answers = draw.normal(size=80), draw.normal(0.5, 0.7, 80)
        base = hard + seeds[:, None] + draw.normal(0, 0.5, (3, 80))
        other = hard + answers + seeds[:, None] + draw.normal(0, 0.5, (3, 80))
        difference = (other - base).mean(0)
        low, high = bootstrap(lambda i, d=difference: float(d[i].mean()), 80, 400, study).interval()
        covered += low <= 0.5 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_pairing_takes_the_sentences_difficulty_out() -> None:
    draw = np.random.default_rng(4)
    hard = draw.normal(0, 10, 100)
    a, b = hard + draw.normal(0, 1, 100), hard + 1 + draw.normal(0, 1, 100)
    paired = bootstrap(lambda i: float(b[i].mean() - a[i].mean()), 100)
    assert paired.p_above() < 0.01
    assert np.diff(paired.interval()) < 1 < np.diff(bootstrap(lambda i: float(b[i].mean()), 100).interval())


def test_equal_seeds_draw_equal_sentences() -> None:
    assert (draws_of(10, 5, 7) == draws_of(10, 5, 7)).all()
    assert (draws_of(10, 5, 7) != draws_of(10, 5, 8)).any()
    x = np.arange(10.0)
    again = [bootstrap(lambda i: float(x[i].mean()), 10, 50, 3).draws for _ in range(2)]
    assert (again[0] == again[1]).all()


def test_draws_are_moved_to_the_estimate_where_asked_and_kept_within_limits() -> None:
    assert estimated(2.0, [0.0, 1.0, 2.0, np.nan]).draws.tolist() == [0, 1, 2]
    assert estimated(2.0, [0.0, 1.0, 2.0], moved=True).draws.tolist() == [1, 2, 3]
    kept = estimated(0.9, [0.0, 0.5, np.nan], moved=True, limits=(-1, 1))
    assert kept.draws.tolist() == pytest.approx([0.65, 1.0])


def test_what_hardly_ever_happens_is_no_sure_difference() -> None:
    """3 of 1050 utterances loop: many draws have none of them, and say that there may be no difference."""
    x = np.zeros(1050)
    x[:3] = 1.0
    none = float((bootstrap(lambda i: float(x[i].mean()), 1050).draws == 0).mean())
    assert bootstrap(lambda i: float(x[i].mean()), 1050).p_above() == pytest.approx(none, abs=0.001)
    assert none == pytest.approx(np.exp(-3), abs=0.02)


def test_one_sided_ps_by_hand() -> None:
    estimate = Estimate(1.0, np.array([-1.0, 0.5, 1.0, 1.5, 3.0, 2.0, 1.0, 0.5, 0.5]))
    assert estimate.p_above() == pytest.approx(2 / 10)  # one draw of nine is not above 0, and one for chance
    assert estimate.p_below() == pytest.approx(9 / 10)
    assert estimate.p_below(2.5) == pytest.approx(2 / 10)
    assert estimate.p_within(2.5) == pytest.approx(max(1 / 10, 2 / 10))


def test_equivalence_is_the_90_percent_interval_inside_the_margin() -> None:
    draw = np.random.default_rng(5)
    for spread in (0.5, 1.0, 1.5):
        estimate = estimated(0.2, draw.normal(0, spread, 3999), moved=True)
        low, high = estimate.interval(0.9)
        for margin in (0.5, 1.0, 1.4, 2.0, 3.0):
            inside = -margin < low and high < margin
            assert (estimate.p_within(margin) < 0.05) == inside


def test_p_follows_the_t_test() -> None:
    x = np.random.default_rng(6).normal(0.25, 1, 120)
    ours = bootstrap(lambda i: float(x[i].mean()), 120, 4000).p_above()
    theirs = stats.ttest_1samp(x, 0, alternative="greater").pvalue
    assert ours == pytest.approx(theirs, abs=0.005)


def test_detectable_difference_by_hand() -> None:
    assert Estimate(0.0, np.array([-1.0, 1.0])).detectable() == pytest.approx(1.95996 + 0.84162, abs=1e-4)


def test_holm_by_hand_and_never_out_of_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 3·, then 2·0.03 twice
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_discovery() -> None:
    ps = np.random.default_rng(7).uniform(size=(2000, 8))
    assert np.mean([min(holm(row)) < 0.05 for row in ps]) < 0.06


def test_a_claim_of_parts_needs_all_and_falls_with_one() -> None:
    assert all_of([(0.01, 0.99), (0.2, 0.8)]) == (0.2, 1.0)
    assert all_of([(0.01, 0.99), (0.999, 0.001)]) == (0.999, 0.002)


def test_correlations_are_scipys() -> None:
    x, y = np.random.default_rng(8).integers(0, 5, (2, 30))
    assert correlation(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert np.isnan([correlation([1, 2, 3], [1, 1, 1]), correlation([1], [2])]).all()
    assert ranks_agree(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert np.isnan(ranks_agree([1, 1, 1], [1, 2, 3]))


@given(st.floats(-1e6, 1e6), st.integers(2, 400))
def test_equal_values_do_not_vary_however_their_deviation_is_rounded(x: float, n: int) -> None:
    assert not varies(np.full(n, x))
    assert np.isnan(correlation(np.full(n, x), np.arange(n)))
    assert varies([x, x + 1])


def test_an_average_is_of_what_is_defined() -> None:
    assert average([1.0, np.nan, 3.0]) == 2
    assert np.isnan(average([]))
    np.testing.assert_array_equal(average([[1.0, 3.0], [np.nan, np.nan]], 1), [2, np.nan])


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(LabError, match="2 or more sentences"):
        bootstrap(lambda i: 0.0, 1)
    with pytest.raises(LabError, match="nan over all sentences"):
        bootstrap(lambda i: float("nan"), 5)
    assert statistics.DRAWS >= 1000  # a smallest p of 0.001 stays below 0.05 in a family of 15
