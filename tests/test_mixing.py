"""Mixtures hit their alpha by hours, grow by addition, and filters keep what their rules say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slmlab.corpus.mixing import balanced, duration_ratios, loops, mix, quality_filter
from slmlab.errors import LabError

lengths = st.lists(st.floats(0.5, 8.0), min_size=5, max_size=60)


def manifest(seconds: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"seconds": seconds})


@given(real=lengths, alpha=st.floats(0.0, 0.9), seed=st.integers(0, 5))
def test_alpha_is_reached_to_half_an_utterance(real: list[float], alpha: float, seed: int):
    needed = sum(real) * alpha / (1 - alpha)
    made = [3.0] * (int(needed / 3) + 2)
    mixture = mix(manifest(real), manifest(made), alpha, seed)
    synthetic = 3.0 * len(mixture.synthetic)
    assert len(mixture.authentic) == len(real)
    assert abs(synthetic - needed) <= 1.5 + 1e-6
    assert mixture.alpha == pytest.approx(synthetic / (synthetic + sum(real)))
    assert mixture.hours == pytest.approx((synthetic + sum(real)) / 3600)


@given(real=lengths, made=lengths, alpha=st.floats(0.0, 1.0), seed=st.integers(0, 5))
def test_equal_hours_stay_equal_whatever_alpha(real: list[float], made: list[float], alpha: float, seed: int):
    hours = min(sum(real), sum(made)) / 3600
    assume(
        hours * 3600 > max(real) + max(made)
    )  # of less than an utterance nothing can be mixed, and `mix` says so
    mixture = mix(manifest(real), manifest(made), alpha, seed, hours)
    assert abs(mixture.hours - hours) * 3600 <= (max(real) + max(made)) / 2 + 1e-6
    assert abs(mixture.alpha - alpha) * mixture.hours * 3600 <= max(real) + max(made) + 1e-6


@given(low=st.floats(0.0, 0.8), high=st.floats(0.0, 0.8), seed=st.integers(0, 9))
def test_a_larger_alpha_only_adds(low: float, high: float, seed: int):
    low, high = sorted((low, high))
    real, made = manifest([2.0] * 20), manifest([1.5, 2.5] * 60)
    small, large = mix(real, made, low, seed), mix(real, made, high, seed)
    assert set(small.synthetic) <= set(large.synthetic)


def test_half_and_half_by_hand():
    mixture = mix(manifest([2.0, 2.0]), manifest([1.0] * 10), 0.5, 0)
    assert len(mixture.synthetic) == 4
    assert mixture.alpha == 0.5
    assert mix(manifest([2.0]), manifest([1.0]), 0.0, 0).alpha == 0.0
    assert mix(manifest([2.0]), manifest([1.0] * 9), 1.0, 0, hours=5 / 3600).alpha == 1.0


@pytest.mark.parametrize(
    ("alpha", "hours", "named"),
    [
        (1.2, None, "0 to 1"),
        (1.0, None, "hours"),
        (0.9, None, "0.005 h of synthetic"),
        (0.5, 9.0, "authentic"),
    ],
)
def test_impossible_mixtures_are_explained(alpha: float, hours: float | None, named: str):
    with pytest.raises(LabError, match=named):
        mix(manifest([2.0]), manifest([1.0]), alpha, 0, hours)


def scored(**changes: list) -> pd.DataFrame:
    good = {
        "engine": ["a", "a", "b", "b"],
        "language": ["sw"] * 4,
        "text": ["mama anapika wali"] * 4,
        "heard": ["mama anapika wali"] * 4,
        "wer": [0.0] * 4,
        "duration_ratio": [1.0] * 4,
        "seconds": [2.0] * 4,
    }
    return pd.DataFrame(good | changes)


def test_the_filter_keeps_good_speech_and_counts_by_engine():
    rows = scored(
        wer=[0.1, 0.4, 0.39, 0.0],
        duration_ratio=[0.8, 1.0, 1.51, 1.5],
        heard=["mama anapika wali"] * 3 + ["mama mama mama wali"],
    )
    kept, engines = quality_filter(rows)
    assert kept.tolist() == [True, False, False, False]
    table = engines.set_index("engine")
    assert table.loc["a", ["n", "kept", "acceptance", "errors"]].tolist() == [2, 1, 0.5, 0.5]
    assert table.loc["b", ["duration", "loops", "acceptance"]].tolist() == [0.5, 0.5, 0.0]


def test_the_filter_wants_scores():
    with pytest.raises(LabError, match="wer"):
        quality_filter(scored(wer=[None, 0.1, 0.1, 0.1]))


def test_balance_takes_equal_hours_from_each_engine():
    rows = scored(seconds=[2.0, 2.0, 3.0, 1.0])
    chosen = balanced(rows, np.array([True, True, False, True]), 0)
    assert chosen[3]
    assert not chosen[2]
    assert rows["seconds"][chosen & (rows["engine"] == "a")].sum() in (0.0, 2.0)


def test_durations_are_measured_against_a_line_through_trusted_speech():
    trusted = pd.DataFrame({"language": "sw", "text": ["aaaa", "aaaaaaaa"], "seconds": [1.0, 1.5]})
    rows = pd.DataFrame({"language": "sw", "text": ["aa aaaa!", "aaaa"], "seconds": [1.25, 0.5]})
    assert duration_ratios(rows, trusted) == pytest.approx([1.0, 0.5])
    with pytest.raises(LabError, match="'vi'"):
        duration_ratios(rows.assign(language="vi"), trusted)


@pytest.mark.parametrize(
    ("heard", "text", "expected"),
    [
        ("na na na", "na", True),
        ("na na", "na", False),
        ("Mama, anapika mama anapika mama anapika", "mama anapika", True),
        ("ha ha ha", "ha ha ha", False),
        ("", "mama", False),
    ],
)
def test_loops_are_heard(heard: str, text: str, expected: bool):
    assert loops(heard, text) is expected
