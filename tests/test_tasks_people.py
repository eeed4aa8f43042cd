"""The exercises of notebook 08: own answers are right, and likely mistakes are told apart."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from tasks import people as tasks

from slmlab.people import ranking


def alpha(one: str, other: str) -> float:
    counts, n = Counter(one + other), 2 * len(one)
    expected = 1 - sum(c * (c - 1) for c in counts.values()) / (n * (n - 1))
    return 1 - np.mean([a != b for a, b in zip(one, other, strict=True)]) / expected


def test_an_answer_of_ones_own_is_right() -> None:
    assert tasks.alpha.check(alpha).fault == ""
    assert tasks.apart.check(lambda w, lost, t: np.log((w + t / 2 + 0.25) / (lost + t / 2 + 0.25))).right
    assert tasks.same.check(lambda before, again: again == {"A": "B", "B": "A"}.get(before, before)).right


def test_agreement_itself_is_told_from_agreement_beyond_chance() -> None:
    """What α was when names of clips were its categories: no name meets twice, so nothing is by chance."""
    share = tasks.alpha.check(lambda one, other: np.mean([a == b for a, b in zip(one, other, strict=True)]))
    assert "Take chance away" in share.fault


def test_the_check_compares_other_clips_at_each_item(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[pd.DataFrame] = []
    true = ranking.agreement

    def spied(votes: pd.DataFrame, resamples: int) -> dict[str, float]:
        seen.append(votes)
        return true(votes, resamples=resamples)

    monkeypatch.setattr(ranking, "agreement", spied)
    tasks.alpha.check(alpha)
    assert seen
    for votes in seen:
        assert votes.groupby("first")["item"].nunique().max() == 1
