"""Who hears what, in which order, on which side: drawn from the test's seed and the session's number.

The least heard pairs come first, each listener meets all combinations of systems and all sentences about
equally often, each combination stands on both sides equally often, gold trials are spread evenly, and repeats
come with sides swapped, late. A schedule is stored before its first trial is shown and never drawn again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmlab.errors import LabError
from slmlab.people.design import DISTORTED, LEFT, REFERENCES, RIGHT, ListeningTest, Whole

PRACTICE, MAIN, GOLD, REPEAT = "practice", "main", "gold", "repeat"
LEAST_DISTANCE = 5
LOW, HIGH = "low", "high"


@dataclass(frozen=True)
class Trial:
    """One thing asked of one listener: practice, main, gold or repeat of an item, a pair's id or the name of
    the clip rated.

    Clips are shown in this order: A and B; the clip; the reference and the clip. The right answer is A or B,
    low (1 or 2) or high (4 or 5), or nobody knows; `of` is the place of the trial that is repeated, or -1.
    """

    kind: str
    item: str
    shown: tuple[str, ...]
    answer: str = ""
    of: Whole = -1

    def columns(self) -> dict[str, Any]:
        """What a table of votes says of it."""
        first, second = (*self.shown, "")[:2]
        shown = {"kind": self.kind, "item": self.item, "first": first, "second": second}
        return shown | {"answer": self.answer, "repeats": self.of}


def schedule(
    test: ListeningTest, task: str, number: int, coverage: Mapping[str, int], familiar: Collection[str] = ()
) -> tuple[Trial, ...]:
    """The trials of one session; LabError if the test has nothing for the task.

    Args:
        test: what there is to ask.
        task: pair, nmos or smos.
        number: the session's number in the test; with the test's seed it decides everything.
        coverage: how often each item was given to other listeners already.
        familiar: items that this listener met before; they come last.
    """
    rng = np.random.default_rng([test.seed, number])
    every = candidates(test, task)
    if not every:
        missing = "references/ with a recording per sentence" if task == "smos" else "sounds to compare"
        raise LabError(f"this listening test has nothing for '{task}': make it anew with {missing}")
    given = np.array([coverage.get(trial.item, 0) + 1e4 * (trial.item in familiar) for trial in every])
    main = _sided(_choose(every, test, given, rng), test, task, rng)
    gold = _gold(test, task)
    gold = [gold[i] for i in rng.permutation(len(gold))]
    practice = _sided(gold[: test.n_practice], test, task, rng)
    trials = _with_repeats(_apart(main, test), test.n_repeats, task, rng)
    catch = _sided(gold[test.n_practice :][: test.n_gold], test, task, rng)
    trials = [replace(t, kind=PRACTICE) for t in practice] + _spread(trials, catch, rng)
    places = {t.item: i for i, t in enumerate(trials) if t.kind == MAIN}
    return tuple(replace(t, of=places[t.item]) if t.kind == REPEAT else t for t in trials)


def candidates(test: ListeningTest, task: str) -> list[Trial]:
    """A main trial of everything that a task may ask; sides are not drawn yet."""
    if task == "pair":
        return [Trial(MAIN, pair.id, (pair.first, pair.second)) for pair in test.pairs]
    names = [clip.name for clip in test.clips if clip.system not in (REFERENCES, DISTORTED)]
    return _rated(test, task, [Trial(MAIN, name, (name,)) for name in names])


def _rated(test: ListeningTest, task: str, trials: Sequence[Trial]) -> list[Trial]:
    """The same, after their references if voices are compared: those without one are left out."""
    if task == "nmos":
        return list(trials)
    references = [test.references.get(_sentence(test, trial)) for trial in trials]
    both = zip(trials, references, strict=True)
    return [replace(trial, shown=(before, *trial.shown)) for trial, before in both if before]


def _gold(test: ListeningTest, task: str) -> list[Trial]:
    """Pairs whose answer is a clip's name; to be rated, their ruined clips (low) and recordings (high)."""
    if task == "pair":
        return [Trial(GOLD, pair.id, (pair.first, pair.second), pair.answer) for pair in test.gold]
    trials = []
    for i, pair in enumerate(test.gold):
        wrong = pair.second if pair.answer == pair.first else pair.first
        real = test.by_name[pair.answer].system == REFERENCES
        name, answer = (pair.answer, HIGH) if real and i % 2 else (wrong, LOW)
        trials.append(Trial(GOLD, name, (name,), answer))
    return _rated(test, task, trials)


def _combination(test: ListeningTest, trial: Trial) -> str:
    """The systems that meet in a trial."""
    return GOLD if trial.kind == GOLD else "|".join(test.by_name[name].system for name in trial.shown)


def _sentence(test: ListeningTest, trial: Trial) -> str:
    return test.by_name[trial.shown[-1]].sentence


def _choose(
    trials: Sequence[Trial], test: ListeningTest, given: NDArray[np.float64], rng: np.random.Generator
) -> list[Trial]:
    """Those least `given` (trials), then the combination and the sentence least used so far, then by lot."""
    combination = np.unique([_combination(test, t) for t in trials], return_inverse=True)[1]
    sentence = np.unique([_sentence(test, t) for t in trials], return_inverse=True)[1]
    times_met, times_said = np.zeros(combination.max() + 1), np.zeros(sentence.max() + 1)
    fixed = 1e8 * given + rng.random(len(trials))
    session = []
    for _ in range(min(test.n_main, len(trials))):
        best = int(np.argmin(fixed + 1e4 * times_met[combination] + 10 * times_said[sentence]))
        fixed[best] = np.inf
        times_met[combination[best]] += 1
        times_said[sentence[best]] += 1
        session.append(trials[best])
    return [session[i] for i in rng.permutation(len(session))]


def _sided(trials: Sequence[Trial], test: ListeningTest, task: str, rng: np.random.Generator) -> list[Trial]:
    """Give sides: within each combination of systems every other trial is swapped, the first by lot."""
    turns = {_combination(test, trial): int(rng.integers(2)) for trial in trials}
    if task != "pair":
        return list(trials)
    sided = []
    for trial in trials:
        combination = _combination(test, trial)
        shown = trial.shown[::-1] if turns[combination] % 2 else trial.shown
        turns[combination] += 1
        answer = (LEFT, RIGHT)[shown.index(trial.answer)] if trial.answer else ""
        sided.append(replace(trial, shown=shown, answer=answer))
    return sided


def _apart(trials: Sequence[Trial], test: ListeningTest) -> list[Trial]:
    """The same order, but a sentence does not follow itself where another can stand between."""
    rest, ordered, last = list(trials), list[Trial](), ""
    while rest:
        following = next((t for t in rest if _sentence(test, t) != last), rest[0])
        rest.remove(following)
        ordered.append(following)
        last = _sentence(test, following)
    return ordered


def _with_repeats(trials: list[Trial], n: int, task: str, rng: np.random.Generator) -> list[Trial]:
    """Some trials of the first half once more in the last third, with sides swapped."""
    half, third = len(trials) // 2, len(trials) - len(trials) // 3
    if third - half < LEAST_DISTANCE:
        half = max(0, third - LEAST_DISTANCE)
    result = list(trials)
    for i in sorted(rng.permutation(half)[:n]):
        shown = trials[i].shown[::-1] if task == "pair" else trials[i].shown
        place = int(rng.integers(third, len(result) + 1))
        result.insert(place, replace(trials[i], kind=REPEAT, shown=shown))
    return result


def _spread(trials: list[Trial], extra: list[Trial], rng: np.random.Generator) -> list[Trial]:
    """One of `extra` somewhere in each of as many equal stretches."""
    result = list(trials)
    edges = np.linspace(0, len(trials), len(extra) + 1)
    for trial, low, high in reversed(list(zip(extra, edges[:-1], edges[1:], strict=True))):
        result.insert(int(rng.integers(int(low), max(int(high), int(low) + 1))), trial)
    return result
