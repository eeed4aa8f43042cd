"""Simulated listeners, with a preference and a carelessness that are known: for tests, benches and lessons.

They are programs and no people, and whatever they produce says so: their names begin with "simulated".
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd

from slmlab.errors import LabError
from slmlab.people.design import BOTH_BAD, DISTORTED, GAP, LEFT, RIGHT, TIE, Clip, ClipPair, ListeningTest
from slmlab.people.ranking import with_systems
from slmlab.people.schedule import HIGH, MAIN, Trial, schedule
from slmlab.people.store import SIMULATED, Store, Vote

KINDS = ("honest", "lazy", "left")


@dataclass(frozen=True)
class SimulatedListener:
    """One made-up listener."""

    name: str
    """Beginning with "simulated"."""
    strengths: Mapping[str, float] = field(default_factory=dict)
    """System → log-strength: A is preferred to B with probability 1 / (1 + exp(B − A)); scores lie around
    3 + strength."""
    kind: str = "honest"
    """honest; lazy: clicks anywhere; left: takes the left of nine pairs in ten."""
    lapse: float = 0.03
    """How often an honest listener does not attend at all."""
    ties: float = 0.1
    """How often an honest listener cannot decide."""
    noise: float = 0.8
    """Spread of an honest listener's scores."""
    seed: int = 0
    """Of all their choices."""

    def answers(self, test: ListeningTest, trials: tuple[Trial, ...], task: str) -> list[Vote]:
        """Their vote on each trial."""
        if self.kind not in KINDS:
            raise LabError(f"no listener is '{self.kind}': expected one of {', '.join(KINDS)}")
        rng, votes = np.random.default_rng([self.seed, 7]), list[Vote]()
        for trial in trials:
            systems = [test.by_name[name].system for name in trial.shown]
            decision = (self._pair if task == "pair" else self._score)(trial, systems, rng)
            votes.append(Vote(decision, ms=int(rng.integers(2000, 9000))))
        return votes

    def _pair(self, trial: Trial, systems: list[str], rng: np.random.Generator) -> str:
        if self.kind == "left":
            return LEFT if rng.random() < 0.9 else RIGHT
        if self.kind == "lazy" or rng.random() < self.lapse:
            return str(rng.choice((LEFT, RIGHT)))
        if trial.answer:
            return trial.answer
        if rng.random() < self.ties:
            return str(rng.choice((TIE, TIE, BOTH_BAD)))
        apart = self.strengths.get(systems[1], 0.0) - self.strengths.get(systems[0], 0.0)
        return LEFT if rng.random() < 1 / (1 + math.exp(apart)) else RIGHT

    def _score(self, trial: Trial, systems: list[str], rng: np.random.Generator) -> str:
        if self.kind == "left":
            return "1"
        if self.kind == "lazy" or rng.random() < self.lapse:
            return str(rng.integers(1, 6))
        middle, spread = 3 + self.strengths.get(systems[-1], 0.0), self.noise
        if trial.answer:
            middle, spread = 4.9 if trial.answer == HIGH else 1.1, 0.3
        return str(int(np.clip(round(rng.normal(middle, spread)), 1, 5)))


def listen(store: Store, listener: SimulatedListener, task: str = "pair") -> str:
    """Let a simulated listener do a whole session; its public name is returned."""
    if not listener.name.startswith(SIMULATED):
        raise LabError(f"call '{listener.name}' '{SIMULATED} …': nobody shall take a program for a person")
    token = store.open_session(listener.name, task)
    place = store.place(token)
    for vote in listener.answers(store.test, place.trials, task):
        place = store.vote(token, place.trial, place.attempt, vote)
    return place.session


def crowd(
    n: int,
    strengths: Mapping[str, float],
    kind: str = "honest",
    seed: int = 0,
    lapse: float = SimulatedListener.lapse,
    ties: float = SimulatedListener.ties,
) -> list[SimulatedListener]:
    """Several simulated listeners of one mind and one kind."""
    return [
        SimulatedListener(f"{SIMULATED} {kind} {i + 1}", strengths, kind, lapse, ties, seed=seed * 1000 + i)
        for i in range(n)
    ]


def paper_test(n_systems: int = 5, n_sentences: int = 40, n_gold: int = 14) -> ListeningTest:
    """A test without sounds: names of clips, all pairs of systems at every sentence, and gold pairs."""
    names = [chr(ord("a") + i) for i in range(n_systems)]
    sounds = [(name, s) for name in names for s in range(n_sentences)]
    sounds += [(DISTORTED, s) for s in range(n_gold)]
    clips = [Clip(f"{name}-{s:03d}", name, f"{s:03d}", f"Sentence {s}.") for name, s in sounds]
    pairs = [
        ClipPair(f"{s:03d}{GAP}{one}{GAP}{other}", f"{one}-{s:03d}", f"{other}-{s:03d}")
        for s in range(n_sentences)
        for one, other in combinations(names, 2)
    ]
    gold = [
        ClipPair(f"gold{GAP}{s}", right := f"a-{s % n_sentences:03d}", f"{DISTORTED}-{s:03d}", right)
        for s in range(n_gold)
    ]
    return ListeningTest("bench", tuple(clips), tuple(pairs), tuple(gold), n_main=min(40, len(pairs)))


def simulated_votes(
    test: ListeningTest, listeners: Sequence[SimulatedListener], first: int = 0
) -> pd.DataFrame:
    """What simulated listeners say of pairs, without a store, in the columns of `ranking.votes_of`."""
    coverage, rows = Counter[str](), []
    for number, listener in enumerate(listeners, start=first):
        trials = schedule(test, "pair", number, coverage)
        coverage.update(trial.item for trial in trials if trial.kind == MAIN)
        for i, (trial, vote) in enumerate(zip(trials, listener.answers(test, trials, "pair"), strict=True)):
            said = {"session": listener.name, "listener": listener.name, "trial": i} | trial.columns()
            rows.append(said | {"decision": vote.decision, "heard": 1})
    return with_systems(pd.DataFrame(rows), test)
