"""What the votes say, and how surely: Bradley-Terry strengths, agreement, consistency, mean scores.

People differ, so a listener's votes are not independent: every interval here resamples listeners, never
single votes. Exclusions follow the rules fixed in the test. Functions take a table of votes, so that votes of
any other origin can be ranked too.
"""

import hashlib
from collections.abc import Collection, Sequence
from itertools import combinations
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal

import evalica
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from slmlab.errors import LabError
from slmlab.metrics.statistics import holm, varies
from slmlab.people.design import ANSWERS, BOTH_BAD, LEFT, RIGHT, SCORES, SKIP, TIE, ListeningTest, Rules
from slmlab.people.schedule import GOLD, HIGH, LOW, MAIN, REPEAT
from slmlab.people.store import Store

WIN, LOSS, DRAW = 0, 1, 2
HALF_A_TIE = 0.5  # given to each pair of systems, so that one that never lost has a finite strength
OUTCOMES = (evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw)
Kind = type | UnionType
NAME = str | Integral
"""Of a listener or an item."""
SAID = {answer for answers in ANSWERS.values() for answer in answers}
PREFERENCES = set(ANSWERS["pair"]) - {SKIP}
RIGHT_ANSWERS = {LEFT: LEFT, RIGHT: RIGHT, LOW: "12", HIGH: "45"}
TAIL = 0.025
"""Left out at either end of every interval: they hold 95 %."""


def votes_of(store: Store, task: str = "pair") -> pd.DataFrame:
    """All votes of a task, with the columns of `with_systems`."""
    votes = store.votes()
    return with_systems(votes[votes["task"] == task].reset_index(drop=True), store.test)


def with_systems(votes: pd.DataFrame, test: ListeningTest) -> pd.DataFrame:
    """Votes with the columns first_system, second_system, sentence, and system: the one that was rated."""
    clips = test.by_name
    votes = usable(votes, first=clips.keys(), second={"", *clips}, item=NAME)
    system = {"": ""} | {name: clip.system for name, clip in clips.items()}
    last = votes["second"].where(votes["second"] != "", votes["first"])
    return votes.assign(
        first_system=votes["first"].map(system),
        second_system=votes["second"].map(system),
        sentence=[clips[name].sentence for name in last],
        system=[system.get(item, "") for item in votes["item"]],
    )


def usable(votes: pd.DataFrame, **expected: Collection[str] | Kind) -> pd.DataFrame:
    """The votes that have in each column one of the values expected, or some value of that type; how many do
    not is printed. LabError: a column is missing.
    """
    if missing := expected.keys() - set(votes):
        raise LabError(f"the votes lack the columns {', '.join(sorted(missing))}: export them again")
    columns = [[_is_of(value, of) for value in votes[name]] for name, of in expected.items()]
    fits = np.array(columns, dtype=bool).all(axis=0)
    if not fits.all():
        print(f"{(~fits).sum()} of {len(votes)} votes left out: not what stands in {', '.join(expected)}")
    return votes[fits].infer_objects()


def _is_of(value: Any, of: Collection[str] | Kind) -> bool:
    if isinstance(of, Kind):
        return isinstance(value, of) and bool(value == value)  # as NaN is not
    return isinstance(value, NAME) and value in of


def counting(votes: pd.DataFrame, excluded: Collection[str] = ()) -> pd.DataFrame:
    """The votes that count: main trials of listeners not excluded, without skips."""
    votes = usable(votes, decision=SAID, listener=NAME, kind=str)
    keep = (votes["kind"] == MAIN) & (votes["decision"] != SKIP) & ~votes["listener"].isin(list(excluded))
    return votes[keep].reset_index(drop=True)


def listeners(votes: pd.DataFrame) -> pd.DataFrame:
    """How each listener did: gold right, repeats the same, the left side taken of pairs decided with its p
    (two-sided binomial), and the shares of the commonest answer in main trials and of trials unheard.
    """
    columns = dict.fromkeys(("session", "kind", "answer", "first", "second"), str)
    votes = usable(votes, decision=SAID, listener=NAME, **columns, trial=Real, repeats=Real, heard=Real)
    rows = []
    for name, own in votes.groupby("listener", sort=True):
        answered = own[own["decision"] != SKIP]
        gold, main = (answered[answered["kind"] == kind] for kind in (GOLD, MAIN))
        same = _repeats_same(answered)
        decided, left = main["decision"].isin([LEFT, RIGHT]).sum(), (main["decision"] == LEFT).sum()
        known = zip(gold["answer"], gold["decision"], strict=True)
        row = {"listener": name, "trials": len(own), "gold": len(gold)}
        row |= {"gold_right": sum(said in RIGHT_ANSWERS.get(answer, ()) for answer, said in known)}
        row |= {"repeats": len(same), "repeats_same": sum(same), "decided": decided, "left": left}
        row |= {"left_p": stats.binomtest(left, decided).pvalue if decided else 1.0}
        row |= {"same_score": main["decision"].value_counts(normalize=True).max() if len(main) else 0.0}
        rows.append(row | {"unheard": (own["heard"] == 0).mean()})
    return pd.DataFrame(rows)


def exclusions(votes: pd.DataFrame, rules: Rules, task: str = "pair") -> dict[str, str]:
    """Listeners whose votes do not count, each with the rule broken and the figures."""
    reasons = {}
    for row in listeners(votes).itertuples():
        broken = []
        if row.gold >= rules.gold_least and row.gold_right < rules.gold_share * row.gold:
            broken.append(
                f"gold {row.gold_right} of {row.gold} right, at least {rules.gold_share:.0%} needed"
            )
        if task == "pair" and row.left_p < rules.side_p:
            broken.append(f"left {row.left} of {row.decided} times, p = {row.left_p:.1g}")
        if task != "pair" and row.trials >= 2 * rules.gold_least and row.same_score > rules.same_score:
            broken.append(f"one score in {row.same_score:.0%} of trials")
        if row.unheard > rules.unheard_share:
            broken.append(f"voted without hearing in {row.unheard:.0%} of trials")
        if broken:
            reasons[str(row.listener)] = "; ".join(broken)
    return reasons


def conditions(rules: Rules, task: str = "pair") -> str:
    """What `exclusions` asks of a listener, in words."""
    one_score = f"one score in more than {rules.same_score:.0%} of trials (from {2 * rules.gold_least} on)"
    one_side = f"one side so often that chance does it more rarely than p = {rules.side_p:g}"
    return (
        f"The votes of a listener do not count if fewer than {rules.gold_share:.0%} of the checks are right "
        f"(from {rules.gold_least} checks on), if they chose {one_side if task == 'pair' else one_score}, "
        f"or if they voted without hearing in more than {rules.unheard_share:.0%} of trials."
    )


def leaderboard(
    votes: pd.DataFrame, systems: Sequence[str], resamples: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Bradley-Terry strengths with intervals of a bootstrap over listeners, the strongest first.

    A tie counts as half a win for either, "both bad" likewise (it says nothing of which is better), so both
    draw the strengths together; the two stay apart in the tables. Fitted by evalica (Newman 2023).

    Args:
        votes: from `counting`; none is a LabError.
        systems: those to be ranked.
        resamples: of the listeners, with replacement.
        seed: of the resampling.

    Returns:
        system, strength (log-odds, mean 0), low, high, votes, best: how often first among the resamplings.
    """
    sides = {"first_system": systems, "second_system": systems}
    votes = usable(votes, decision=PREFERENCES, listener=NAME, **sides)
    votes = votes[votes["first_system"] != votes["second_system"]]
    if votes.empty:
        raise LabError("there is no vote to rank yet: let somebody compare at least one pair")
    counts, pairs = _counts(votes, systems)
    fitted = strengths(counts.sum(axis=0), pairs, systems)
    rng = np.random.default_rng(seed)
    n = len(counts)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    again = np.array([strengths(w @ counts, pairs, systems) for w in weights.astype(float)])
    low, high = _widened(fitted, again, n)
    first = again.argmax(axis=1)
    table = pd.DataFrame({"system": list(systems), "strength": fitted, "low": low, "high": high})
    table["votes"] = [int((votes[[*sides]] == name).any(axis=1).sum()) for name in systems]
    table["best"] = [(first == i).mean() if n > 1 else np.nan for i in range(len(systems))]
    return table.sort_values("strength", ascending=False, ignore_index=True)


def strengths(
    counts: NDArray[np.float64], pairs: Sequence[tuple[str, str]], systems: Sequence[str]
) -> NDArray[np.float64]:
    """Bradley-Terry log-strengths, mean 0, in the order of the systems, from counts (pairs · 3): wins of the
    first, wins of the second and ties of each pair of systems in turn.
    """
    prior = np.tile([0.0, 0.0, HALF_A_TIE], len(pairs))
    fitted = evalica.bradley_terry(
        [one for one, _ in pairs for _ in OUTCOMES],
        [other for _, other in pairs for _ in OUTCOMES],
        [outcome for _ in pairs for outcome in OUTCOMES],
        weights=list(counts + prior),
        tolerance=1e-8,
        limit=5000,
    )
    logs = np.log(fitted.scores.reindex(list(systems)).to_numpy(dtype=float))
    return logs - np.nanmean(logs)


def agreement(
    votes: pd.DataFrame, task: str = "pair", resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Krippendorff's α over the units, items that at least two listeners judged, with its bootstrap interval.

    1 is perfect, 0 is what listeners who click anywhere reach; NaN where there are fewer than two units, or
    where all answers are one, so that nobody can tell agreement from habit. Pairs are nominal (one clip, the
    other, in an order that `oriented` fixes for each item; a tie; both bad), scores are ordinal.
    """
    if task == "pair":
        votes = usable(votes, decision=PREFERENCES, listener=NAME, item=NAME, first=str, second=str)
    else:
        votes = usable(votes, decision=SCORES, listener=NAME, item=NAME)
    answers = votes.assign(answer=_coded(votes) if task == "pair" else votes["decision"].astype(float))
    grid = answers.pivot_table(index="listener", columns="item", values="answer", aggfunc="first")
    grid = grid.loc[:, grid.notna().sum() >= 2]
    empty = {"alpha": np.nan, "low": np.nan, "high": np.nan, "units": float(grid.shape[1])}
    if grid.shape[1] < 2 or np.unique(grid.to_numpy()[grid.notna().to_numpy()]).size < 2:
        return empty
    distance: Literal["nominal", "ordinal"] = "nominal" if task == "pair" else "ordinal"
    result = evalica.alpha_bootstrap(grid, distance, n_resamples=resamples, random_state=seed)
    return empty | {"alpha": float(result.alpha), "low": float(result.low), "high": float(result.high)}


def oriented(item: str, one: str, other: str) -> tuple[str, str]:
    """The two clips of an item in an order that neither side nor system decides, but a hash of the item.

    Chance needs answers that mean the same over all items: names of clips would never meet twice, so that
    all agreement seemed beyond chance, and an order by system would take a shared taste for a habit.
    """
    low, high = sorted((one, other))
    turned = hashlib.blake2b(str(item).encode(), digest_size=1).digest()[0] % 2
    return (high, low) if turned else (low, high)


def mean_scores(votes: pd.DataFrame) -> pd.DataFrame:
    """Mean opinion scores of n votes on each system, half (1.96 σ/√N over all scores, as the paper reports),
    low and high (of a t-interval over listeners' means, which is wider and the honest one).
    """
    votes, rows = usable(votes, decision=SCORES, listener=NAME, system=str), []
    for system, own in votes.groupby("system", sort=True):
        scores = own["decision"].astype(float)
        by_listener = scores.groupby(own["listener"]).mean().to_numpy()
        half = 1.96 * scores.std() / np.sqrt(len(scores))  # of one score: NaN
        rows.append((system, len(scores), scores.mean(), half, *_t_interval(by_listener)))
    return pd.DataFrame(rows, columns=["system", "n", "mean", "half", "low", "high"])


def paired_tests(votes: pd.DataFrame) -> pd.DataFrame:
    """Paired t-tests between all systems over the means of n listeners who rated both, with Holm's p."""
    votes = usable(votes, decision=SCORES, listener=NAME, system=str)
    scored = votes.assign(score=votes["decision"].astype(float))
    means = scored.pivot_table(index="listener", columns="system", values="score")
    rows = []
    for one, other in combinations(means.columns, 2):
        both = (means[one] - means[other]).dropna().to_numpy()
        t, p = stats.ttest_1samp(both, 0.0) if varies(both) else (np.nan, np.nan)
        difference = both.mean() if len(both) else np.nan
        rows.append((one, other, difference, *_t_interval(both), t, p, len(both)))
    table = pd.DataFrame(rows, columns=["one", "other", "difference", "low", "high", "t", "p", "n"])
    tested = table["p"].notna()
    table.insert(7, "p_holm", pd.Series(holm(table.loc[tested, "p"].tolist()), table.index[tested], float))
    return table


def _counts(votes: pd.DataFrame, systems: Sequence[str]) -> tuple[NDArray[np.float64], list[tuple[str, str]]]:
    """Wins, losses and ties of each pair of systems that met, by listener (listeners, pairs · 3)."""
    rank = {name: i for i, name in enumerate(systems)}
    first, second = (votes[side].map(rank).to_numpy() for side in ("first_system", "second_system"))
    turned = first > second
    low, high = np.where(turned, second, first).astype(int), np.where(turned, first, second).astype(int)
    outcome = np.select([votes["decision"] == LEFT, votes["decision"] == RIGHT], [WIN, LOSS], DRAW)
    outcome = np.where(turned & (outcome != DRAW), 1 - outcome, outcome)
    met, cell = np.unique(low * len(systems) + high, return_inverse=True)
    who = pd.factorize(votes["listener"], sort=True)[0]
    counts = np.zeros((who.max() + 1, len(met) * 3))
    np.add.at(counts, (who, cell * 3 + outcome), 1.0)
    return counts, [(systems[m // len(systems)], systems[m % len(systems)]) for m in met]


def _widened(
    fitted: NDArray[np.float64], again: NDArray[np.float64], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentiles around the estimate, stretched for few listeners (n): a bootstrap of n clusters is too
    narrow by √(n / (n − 1)) and lacks the tails of Student's t (expanded percentiles, Hesterberg 2015).
    """
    stretch = np.sqrt(n / (n - 1)) * stats.t.isf(TAIL, n - 1) / stats.norm.isf(TAIL) if n > 1 else np.nan
    low, high = np.quantile(again, [TAIL, 1 - TAIL], axis=0)
    return fitted + (low - fitted) * stretch, fitted + (high - fitted) * stretch


def _coded(votes: pd.DataFrame) -> NDArray[np.float64]:
    """Each answer to a pair (votes): 0 or 1 for its clips as `oriented`, 2 a tie, 3 both bad, NaN a skip."""
    codes = votes["decision"].map({LEFT: 0.0, RIGHT: 1.0, TIE: 2.0, BOTH_BAD: 3.0}).to_numpy(float)
    pairs = zip(votes["item"], votes["first"], votes["second"], strict=True)
    turned = np.array([oriented(item, one, other)[0] != one for item, one, other in pairs], dtype=bool)
    return np.where(turned & (codes < 2), 1 - codes, codes)


def _t_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    if len(values) < 2:
        return np.nan, np.nan
    half = stats.t.isf(TAIL, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def _repeats_same(votes: pd.DataFrame) -> list[bool]:
    """Whether each repeated trial got the same answer: the same clip, a tie, a score at most 1 apart."""
    pairs = votes[votes["kind"] == REPEAT].merge(
        votes, left_on=["session", "repeats"], right_on=["session", "trial"], suffixes=("", "_before")
    )
    same = []
    for again in pairs.itertuples():
        one = preferred(again.decision_before, again.first_before, again.second_before)
        other = preferred(again.decision, again.first, again.second)
        scores = one in SCORES and other in SCORES
        same.append(abs(int(one) - int(other)) <= 1 if scores else one == other)
    return same


def preferred(decision: str, first: str, second: str) -> str:
    """The clip that a decision prefers, or the decision itself where it prefers none."""
    return {LEFT: first, RIGHT: second}.get(decision, decision)
