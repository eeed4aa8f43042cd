"""What votes say: known preferences are found again, careless listeners are named, intervals are honest."""

import contextlib
import io

import numpy as np
import pandas as pd
import pytest
from bench import listeners
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import stats

from slmlab.errors import LabError
from slmlab.people import ranking, simulated
from slmlab.people.design import Rules

SYSTEMS = ("a", "b", "c")


def votes_from(counts: dict[tuple[str, str], tuple[int, int, int]], n_listeners: int = 4) -> pd.DataFrame:
    """Main votes: for (first, second) so many A, B and ties, dealt to listeners in turn."""
    rows = [
        {"first_system": one, "second_system": other, "decision": decision}
        for (one, other), numbers in counts.items()
        for decision, n in zip(("A", "B", "tie"), numbers, strict=True)
        for _ in range(n)
    ]
    frame = pd.DataFrame(rows)
    frame["listener"] = [f"L{i % n_listeners}" for i in range(len(frame))]
    return frame


def test_two_systems_have_the_log_odds_of_their_votes() -> None:
    board = ranking.leaderboard(votes_from({("a", "b"): (62, 38, 0)}), ("a", "b"), 50)
    assert list(board["system"]) == ["a", "b"]
    expected = np.log(62.25 / 38.25) / 2  # half a tie is given beforehand
    assert board["strength"].tolist() == pytest.approx([expected, -expected], abs=1e-4)
    assert board["votes"].tolist() == [100, 100]


def test_strengths_are_the_maximum_of_the_likelihood() -> None:
    counts = np.array([30, 10, 0, 25, 5, 0, 12, 18, 0], dtype=float)
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    fitted = ranking.strengths(counts, pairs, SYSTEMS)
    # At the maximum of the likelihood, expected wins equal wins (ties are half a win, half a tie is given).
    wins = {name: 0.0 for name in SYSTEMS}
    expected = dict(wins)
    strength = dict(zip(SYSTEMS, fitted, strict=True))
    for (one, other), (won, lost, _) in zip(pairs, counts.reshape(3, 3), strict=True):
        wins[one] += won + 0.25
        wins[other] += lost + 0.25
        share = 1 / (1 + np.exp(strength[other] - strength[one]))
        expected[one] += (won + lost + 0.5) * share
        expected[other] += (won + lost + 0.5) * (1 - share)
    assert wins == pytest.approx(expected, abs=1e-3)
    assert fitted.sum() == pytest.approx(0, abs=1e-9)


def test_sides_do_not_matter_and_ties_are_half() -> None:
    straight = ranking.leaderboard(votes_from({("a", "b"): (20, 10, 4)}), ("a", "b"), 20)
    turned = ranking.leaderboard(votes_from({("b", "a"): (10, 20, 4)}), ("a", "b"), 20)
    pd.testing.assert_series_equal(straight["strength"], turned["strength"])


def test_a_system_that_never_lost_has_a_finite_strength() -> None:
    board = ranking.leaderboard(votes_from({("a", "b"): (40, 0, 0)}), ("a", "b"), 20)
    assert np.isfinite(board[["strength", "low", "high"]].to_numpy()).all()


def test_intervals_follow_the_listeners_not_the_votes() -> None:
    """Ten listeners of one mind each: 400 votes are worth ten, and the interval says so."""
    said = [("A" if who < 6 else "B") for who in range(10) for _ in range(40)]
    votes = pd.DataFrame({"first_system": "a", "second_system": "b", "decision": said})
    alike = votes.assign(listener=[f"L{i // 40}" for i in range(400)])
    mixed = votes.assign(listener=[f"L{i % 10}" for i in range(400)])
    width = {}
    for name, frame in (("alike", alike), ("mixed", mixed)):
        row = ranking.leaderboard(frame, ("a", "b"), 300).iloc[0]
        width[name] = row["high"] - row["low"]
    assert width["alike"] > 3 * width["mixed"]


def test_no_votes_no_ranking() -> None:
    with pytest.raises(LabError, match="no vote"):
        ranking.leaderboard(votes_from({("a", "b"): (1, 0, 0)}).iloc[:0], SYSTEMS)


def test_a_known_order_is_found_again() -> None:
    recovered, _ = listeners.ranks(simulations=3, resamples=40)
    assert recovered[:2] == ("rank.recovered", 100)


def test_krippendorffs_alpha_of_the_textbook() -> None:
    """Krippendorff (2011), the example with four observers: nominal α = 0.743, ordinal 0.815."""
    table = """1 2 3 3 2 1 4 1 2 . . .
               1 2 3 3 2 2 4 1 2 5 . 3
               . 3 3 3 2 3 4 2 2 5 1 .
               1 2 3 3 2 4 4 1 2 5 1 ."""
    rows = [
        {"listener": f"L{o}", "item": f"u{u}", "decision": value}
        for o, line in enumerate(table.splitlines())
        for u, value in enumerate(line.split())
        if value != "."
    ]
    found = ranking.agreement(pd.DataFrame(rows), "nmos", resamples=200)
    assert found["alpha"] == pytest.approx(0.815, abs=5e-4)
    assert found["low"] < found["alpha"] < found["high"]


def test_agreement_looks_at_clips_not_at_sides() -> None:
    rows = []
    for u in range(20):
        best, worst = f"x{u}", f"y{u}"
        for o, turned in enumerate((False, True)):
            first, second = (worst, best) if turned else (best, worst)
            decision = "B" if turned else "A"
            rows.append(
                {"listener": f"L{o}", "item": f"u{u}", "first": first, "second": second, "decision": decision}
            )
    assert ranking.agreement(pd.DataFrame(rows), resamples=50)["alpha"] == pytest.approx(1.0)


def clicks(answers: np.ndarray, sides: np.random.Generator) -> pd.DataFrame:
    """Votes (listeners, items) given as x, y, tie or both_bad, each pair shown on sides of chance."""
    rows = []
    for o, line in enumerate(answers):
        for u, meant in enumerate(line):
            shown = [f"x{u}", f"y{u}"] if sides.random() < 0.5 else [f"y{u}", f"x{u}"]
            decision = "AB"[shown.index(f"{meant}{u}")] if meant in "xy" else meant
            rows.append(
                {"listener": f"L{o}", "item": f"u{u}", "first": shown[0], "second": shown[1]}
                | {"decision": decision}
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "shares", [(0.5, 0.5, 0, 0), (0.4, 0.4, 0.2, 0), (0.9, 0.1, 0, 0), (0.25, 0.25, 0.25, 0.25)]
)
def test_listeners_who_click_anywhere_agree_by_chance(shares: tuple[float, ...]) -> None:
    """Two listeners without ears on 1000 items: α is 0, whatever their shares."""
    rng = np.random.default_rng(1)
    answers = rng.choice(["x", "y", "tie", "both_bad"], size=(2, 1000), p=shares)
    if shares[0] == 0.9:  # a habit, of the side and not of the clip
        votes = clicks(answers, rng).assign(decision=["A" if a == "x" else "B" for a in answers.ravel()])
    else:
        votes = clicks(answers, rng)
    assert abs(ranking.agreement(votes, resamples=20)["alpha"]) < 0.1


def test_perfect_agreement_is_one_even_when_one_system_always_wins() -> None:
    rng = np.random.default_rng(2)
    for meant in ("x", "y"):
        votes = clicks(np.full((3, 100), meant), rng)
        assert ranking.agreement(votes, resamples=20)["alpha"] == pytest.approx(1.0)


def test_agreement_takes_ties_and_both_bad_for_two_opinions() -> None:
    said = np.array([["x", "y", "tie", "both_bad"] * 10, ["x", "y", "both_bad", "tie"] * 10])
    votes = clicks(said, np.random.default_rng(3))
    codes = ranking._coded(votes)
    assert set(codes) == {0.0, 1.0, 2.0, 3.0}
    found = ranking.agreement(votes, resamples=20)
    counts = np.array([(codes == c).sum() for c in range(4)])
    expected = 1 - (counts * (counts - 1)).sum() / (80 * 79)
    assert found["alpha"] == pytest.approx(1 - 0.5 / expected, abs=1e-6)


def test_one_answer_throughout_says_nothing_of_agreement() -> None:
    votes = clicks(np.full((2, 10), "tie"), np.random.default_rng(4))
    assert np.isnan(ranking.agreement(votes, resamples=20)["alpha"])


def test_careless_listeners_are_named_with_the_rule_they_broke() -> None:
    test = simulated.paper_test(5, 40)
    crowd = [kind for k in simulated.KINDS for kind in simulated.crowd(6, {"a": 1.0}, k, seed=5)]
    votes = simulated.simulated_votes(test, crowd)
    out = ranking.exclusions(votes, Rules())
    assert {name.split()[1] for name in out} == {"lazy", "left"}
    assert len(out) == 12
    assert all("gold" in reason for name, reason in out.items() if "lazy" in name)
    assert all("left" in reason for name, reason in out.items() if "left" in name)
    kept = ranking.counting(votes, out)
    assert kept["listener"].nunique() == 6
    assert set(kept["kind"]) == {"main"}


def test_consistency_counts_repeats_by_the_clip_chosen() -> None:
    base = {"session": "s", "listener": "L", "item": "p", "answer": "", "heard": 1}
    rows = [
        base | {"trial": 0, "kind": "main", "first": "x", "second": "y", "repeats": -1, "decision": "A"},
        base | {"trial": 1, "kind": "main", "first": "u", "second": "v", "repeats": -1, "decision": "tie"},
        base | {"trial": 2, "kind": "repeat", "first": "y", "second": "x", "repeats": 0, "decision": "B"},
        base | {"trial": 3, "kind": "repeat", "first": "v", "second": "u", "repeats": 1, "decision": "A"},
    ]
    (row,) = ranking.listeners(pd.DataFrame(rows)).to_dict("records")
    assert (row["repeats"], row["repeats_same"]) == (2, 1)
    assert (row["decided"], row["left"]) == (1, 1)


def scores(rows: dict[str, dict[str, list[int]]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"listener": who, "system": system, "decision": str(score)}
            for who, given in rows.items()
            for system, said in given.items()
            for score in said
        ]
    )


def test_mean_scores_as_the_paper_reports_them() -> None:
    table = ranking.mean_scores(scores({"L1": {"a": [5, 4]}, "L2": {"a": [3, 4]}})).iloc[0]
    assert table["mean"] == 4
    assert table["half"] == pytest.approx(1.96 * np.std([5, 4, 3, 4], ddof=1) / 2)
    assert table["high"] - 4 == pytest.approx(stats.t.ppf(0.975, 1) * np.std([4.5, 3.5], ddof=1) / np.sqrt(2))


def test_paired_tests_are_over_listeners_with_holm() -> None:
    rng = np.random.default_rng(0)
    given = {
        f"L{i}": {
            s: list(rng.integers(low, low + 3, 4)) for s, low in zip("abc", (3, 2, 2), strict=True)
        }
        for i in range(8)
    }  # fmt: skip
    table = ranking.paired_tests(scores(given)).set_index(["one", "other"])
    means = {s: np.array([np.mean(one[s]) for one in given.values()]) for s in "abc"}
    expected = stats.ttest_rel(means["a"], means["b"])
    assert table.loc[("a", "b"), "t"] == pytest.approx(expected.statistic)
    assert table.loc[("a", "b"), "p"] == pytest.approx(expected.pvalue)
    smallest = table["p"].idxmin()
    assert table.loc[smallest, "p_holm"] == pytest.approx(min(1, 3 * table.loc[smallest, "p"]))
    assert (table["p_holm"] >= table["p"]).all()


def test_listeners_who_all_differ_by_the_same_prove_nothing() -> None:
    """Their differences, a third of a point each, have a deviation of rounding alone."""
    given = {f"L{k}": {"a": [k + 1, k + 1, k + 2], "b": [k + 1] * 3} for k in range(3)}
    table = ranking.paired_tests(scores(given)).iloc[0]
    assert table["difference"] == pytest.approx(1 / 3)
    assert np.isnan([table["t"], table["p"], table["p_holm"]]).all()


ODD = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3)),
    *(st.lists(st.none(), max_size=1), st.dictionaries(st.text(max_size=1), st.none(), max_size=1)),
    st.sampled_from(["A", "B", "tie", "both_bad", "skip", "1", "5", "low", "high", "main", "gold", "repeat"]),
)


@settings(max_examples=30, deadline=None, phases=[Phase.generate])
@given(st.data())
def test_any_value_in_any_column_is_counted_or_left_out_in_a_line(data: st.DataObject) -> None:
    test = simulated.paper_test(3, 6)
    votes = simulated.simulated_votes(test, simulated.crowd(2, {"a": 1.0}))[:30]
    kept = [name for name in votes if not name.endswith("system") and name != "sentence"]
    changed = data.draw(
        st.dictionaries(st.sampled_from(kept), st.tuples(st.integers(0, 29), ODD), min_size=1)
    )
    votes = votes[kept].astype(object)
    for name, (row, value) in changed.items():
        votes[name] = [value if i == row else cell for i, cell in enumerate(votes[name])]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        votes = ranking.with_systems(votes, test)
        ranking.exclusions(votes, Rules())
        judged = ranking.counting(votes)
        board = ranking.leaderboard(judged, test.systems, 5)
        ranking.agreement(judged, resamples=5)
    assert 24 <= board["votes"].sum() / 2 + len(votes[votes["kind"] != "main"]) <= 30
    _, answer = changed.get("decision", (0, "A"))
    assert (isinstance(answer, str) and answer in ranking.SAID) or "left out" in said.getvalue()


@settings(max_examples=30, deadline=None, phases=[Phase.generate])
@given(st.lists(st.tuples(ODD, ODD, ODD), min_size=1, max_size=9))
def test_any_score_of_anything_is_counted_or_left_out_in_a_line(rows: list[tuple[object, ...]]) -> None:
    votes = pd.DataFrame(rows, columns=["listener", "system", "decision"], dtype=object).assign(item="i")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        n = ranking.mean_scores(votes)["n"].sum()
        ranking.paired_tests(votes)
        ranking.agreement(votes, "nmos", resamples=5)
    assert n == len(rows) or f"{len(rows) - n} of {len(rows)} votes left out" in said.getvalue()


def test_votes_without_a_column_are_refused() -> None:
    with pytest.raises(LabError, match="lack the columns decision, kind"):
        ranking.counting(pd.DataFrame({"listener": ["a"]}))
