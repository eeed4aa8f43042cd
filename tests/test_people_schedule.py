"""Who hears what: balanced, blind, and the same again from the same seed."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.errors import LabError
from slmlab.people import simulated
from slmlab.people.design import REFERENCES, Clip, ListeningTest
from slmlab.people.schedule import GOLD, LEAST_DISTANCE, MAIN, PRACTICE, REPEAT, schedule

TEST = simulated.paper_test(5, 40)
SYSTEM = {clip.name: clip.system for clip in TEST.clips}


def test_a_session_holds_what_was_promised() -> None:
    trials = schedule(TEST, "pair", 0, {})
    assert Counter(t.kind for t in trials) == {MAIN: 40, GOLD: 12, REPEAT: 6, PRACTICE: 2}
    assert [t.kind for t in trials[:3]].count(PRACTICE) == 2
    assert len({t.item for t in trials if t.kind != REPEAT}) == 54


@given(st.integers(0, 10**6))
def test_combinations_sides_and_sentences_are_balanced_in_every_session(number: int) -> None:
    main = [t for t in schedule(TEST, "pair", number, {}) if t.kind == MAIN]
    combinations = Counter(frozenset(SYSTEM[name] for name in t.shown) for t in main)
    assert set(combinations.values()) == {4}, "10 combinations of 5 systems, 40 pairs"
    assert max(Counter(t.item.split()[0] for t in main).values()) <= 2, "40 sentences, 40 pairs"
    left = Counter(SYSTEM[t.shown[0]] for t in main)
    assert set(left.values()) == {8}, "each system meets 16 pairs, half of them on the left"


def test_every_pair_is_heard_equally_often_by_a_crowd() -> None:
    coverage: Counter[str] = Counter()
    for number in range(15):
        coverage.update(t.item for t in schedule(TEST, "pair", number, coverage) if t.kind == MAIN)
        counts = [coverage[pair.id] for pair in TEST.pairs]
        assert max(counts) - min(counts) <= 1
    assert counts == [15 * 40 // 400] * 200 + [2] * 200 or sorted(set(counts)) == [1, 2]


def test_the_same_number_gives_the_same_schedule_another_one_another() -> None:
    assert schedule(TEST, "pair", 3, {}) == schedule(TEST, "pair", 3, {})
    assert schedule(TEST, "pair", 3, {}) != schedule(TEST, "pair", 4, {})


@given(st.integers(0, 10**6))
def test_repeats_are_late_swapped_and_known(number: int) -> None:
    trials = schedule(TEST, "pair", number, {})
    for place, trial in enumerate(trials):
        if trial.kind == REPEAT:
            before = trials[trial.of]
            assert before.kind == MAIN
            assert trial.item == before.item
            assert trial.shown == before.shown[::-1]
            assert place - trial.of >= LEAST_DISTANCE


@given(st.integers(0, 10**6))
def test_gold_is_spread_and_its_answer_is_on_both_sides(number: int) -> None:
    trials = schedule(TEST, "pair", number, {})
    places = [i for i, t in enumerate(trials) if t.kind == GOLD]
    assert max(b - a for a, b in pairwise(places)) <= 12
    assert Counter(t.answer for t in trials if t.kind == GOLD) == {"A": 6, "B": 6}
    for trial in trials:
        if trial.kind in (GOLD, PRACTICE):
            assert SYSTEM[trial.shown["AB".index(trial.answer)]] == "a"


def test_a_sentence_does_not_follow_itself() -> None:
    test = simulated.paper_test(3, 5)
    main = [t.item.split()[0] for t in schedule(test, "pair", 1, {}) if t.kind == MAIN]
    assert sum(one == other for one, other in pairwise(main)) <= 1


def test_pairs_a_listener_knows_come_last() -> None:
    known = {pair.id for pair in TEST.pairs[:380]}
    chosen = {t.item for t in schedule(TEST, "pair", 0, {}, known) if t.kind == MAIN}
    assert {pair.id for pair in TEST.pairs[380:]} <= chosen


def test_ratings_are_balanced_over_systems_and_smos_brings_its_reference() -> None:
    references = {f"{s:03d}": f"ref-{s}" for s in range(40)}
    clips = (*TEST.clips, *(Clip(n, REFERENCES, s) for s, n in references.items()))
    test = ListeningTest("t", clips, TEST.pairs, TEST.gold, references, n_main=40)
    for task in ("nmos", "smos"):
        main = [t for t in schedule(test, task, 0, {}) if t.kind == MAIN]
        assert set(Counter(SYSTEM[t.shown[-1]] for t in main).values()) == {8}
    assert all(t.shown[0] == references[t.shown[1].split("-")[1]] for t in main)


def test_smos_needs_references() -> None:
    with pytest.raises(LabError, match="references/"):
        schedule(TEST, "smos", 0, {})


def test_a_tiny_test_still_has_a_schedule() -> None:
    test = simulated.paper_test(2, 1, 1)
    assert Counter(t.kind for t in schedule(test, "pair", 0, {})) == {MAIN: 1, PRACTICE: 1}
