"""Who hears what, in which order, on which side: drawn from the study's seed and the listener's number.

The least heard pairs come first, each listener meets all combinations of systems and all sentences about
equally often, each combination stands on both sides equally often, gold trials are spread evenly, and repeats
come with sides swapped, late. A schedule is stored before its first trial is shown and never drawn again.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from slmlab.errors import LabError
from slmlab.people.design import DISTORTED, REFERENCES, Pair, Study

PRACTICE, MAIN, GOLD, REPEAT = "practice", "main", "gold", "repeat"
LEAST_DISTANCE = 5
LOW, HIGH = "low", "high"


@dataclass(frozen=True)
class Trial:
    """One thing asked of one listener."""

    kind: str
    """practice, main, gold or repeat."""
    item: str
    """Id of the pair, or name of the clip rated."""
    shown: tuple[str, ...]
    """Names of the clips in the order shown: A and B; the clip; the reference and the clip."""
    answer: str = ""
    """What is right: A or B, low (1 or 2) or high (4 or 5); empty where nobody knows."""
    of: int = -1
    """Place of the trial that this one repeats; -1 otherwise."""


@dataclass(frozen=True)
class _Unit:
    """Something that may be asked, before it has a place and sides."""

    item: str
    shown: tuple[str, ...]
    combination: str
    sentence: str
    answer: str = ""


def schedule(
    study: Study,
    task: str,
    number: int,
    coverage: Mapping[str, int],
    known: Collection[str] = (),
) -> tuple[Trial, ...]:
    """The trials of one session.

    Args:
        study: what there is to ask.
        task: pair, nmos or smos.
        number: the session's number in the study; with the study's seed it decides everything.
        coverage: how often each item was given to other listeners already.
        known: items that this listener judged before; they come last.

    Raises:
        LabError: the study has nothing for this task.
    """
    rng = np.random.default_rng([study.seed, number])
    units = _units(study, task)
    if not units:
        missing = "references/ with a recording per sentence" if task == "smos" else "sounds to compare"
        raise LabError(f"this study has nothing for '{task}': make it anew with {missing}")
    chosen = _choose(units, study.n_main, coverage, known, rng)
    main = [replace(t, kind=MAIN) for t in _sided(chosen, task, rng)]
    gold = _gold_units(study, task)
    picked = [gold[i] for i in rng.permutation(len(gold))]
    practice = [replace(t, kind=PRACTICE) for t in _sided(picked[: study.n_practice], task, rng)]
    catch = picked[study.n_practice :][: study.n_gold]
    trials = _with_repeats(_apart(main, study), study.n_repeats, task, rng)
    trials = _spread(trials, [replace(t, kind=GOLD) for t in _sided(catch, task, rng)], rng)
    return _numbered(tuple(practice) + tuple(trials))


def _units(study: Study, task: str) -> list[_Unit]:
    clips = study.by_name
    if task == "pair":
        return [
            _Unit(
                pair.id,
                (pair.first, pair.second),
                f"{clips[pair.first].system}|{clips[pair.second].system}",
                clips[pair.first].sentence,
            )
            for pair in study.pairs
        ]
    rated = [clip for clip in study.clips if clip.system not in (REFERENCES, DISTORTED)]
    if task == "nmos":
        return [_Unit(clip.name, (clip.name,), clip.system, clip.sentence) for clip in rated]
    references = study.references
    return [
        _Unit(clip.name, (references[clip.sentence], clip.name), clip.system, clip.sentence)
        for clip in rated
        if clip.sentence in references
    ]


def _gold_units(study: Study, task: str) -> list[_Unit]:
    """Pairs with an answer; for ratings the same clips, the broken ones low and real recordings high."""
    clips = study.by_name
    if task == "pair":
        return [_Unit(g.id, (g.first, g.second), "gold", g.id, g.answer) for g in study.gold]
    known: list[tuple[str, str]] = []
    for i, pair in enumerate(study.gold):
        right, wrong = _right_wrong(pair)
        real = clips[right].system == REFERENCES
        known.append((right, HIGH) if real and i % 2 else (wrong, LOW))
    if task == "nmos":
        return [_Unit(name, (name,), "gold", name, answer) for name, answer in known]
    references = study.references
    return [
        _Unit(name, (references[clips[name].sentence], name), "gold", name, answer)
        for name, answer in known
        if clips[name].sentence in references
    ]


def _right_wrong(pair: Pair) -> tuple[str, str]:
    return (pair.first, pair.second) if pair.answer == pair.first else (pair.second, pair.first)


def _choose(
    units: list[_Unit], n: int, coverage: Mapping[str, int], known: Collection[str], rng: np.random.Generator
) -> list[_Unit]:
    """The least heard, then the combination and the sentence least used in this session, then by lot."""
    combination = np.unique([u.combination for u in units], return_inverse=True)[1]
    sentence = np.unique([u.sentence for u in units], return_inverse=True)[1]
    used, said = np.zeros(combination.max() + 1), np.zeros(sentence.max() + 1)
    heard = np.array([coverage.get(u.item, 0) for u in units], dtype=float)
    met = np.array([u.item in known for u in units], dtype=float)
    fixed = 1e12 * met + 1e8 * heard + rng.random(len(units))
    chosen = []
    for _ in range(min(n, len(units))):
        best = int(np.argmin(fixed + 1e4 * used[combination] + 10 * said[sentence]))
        fixed[best] = np.inf
        used[combination[best]] += 1
        said[sentence[best]] += 1
        chosen.append(units[best])
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _sided(units: list[_Unit], task: str, rng: np.random.Generator) -> list[Trial]:
    """Give sides: within each combination of systems every other trial is swapped, the first by lot."""
    turns: dict[str, int] = {u.combination: int(rng.integers(2)) for u in units}
    trials = []
    for unit in units:
        shown, answer = unit.shown, unit.answer
        if task == "pair":
            shown = shown[::-1] if turns[unit.combination] % 2 else shown
            answer = ("A" if shown[0] == unit.answer else "B") if unit.answer else ""
        turns[unit.combination] += 1
        trials.append(Trial(MAIN, unit.item, shown, answer))
    return trials


def _apart(trials: list[Trial], study: Study) -> list[Trial]:
    """The same order, but a sentence does not follow itself where another can stand between."""
    clips, rest, ordered = study.by_name, list(trials), []
    last = ""
    while rest:
        following = next((t for t in rest if clips[t.shown[-1]].sentence != last), rest[0])
        rest.remove(following)
        ordered.append(following)
        last = clips[following.shown[-1]].sentence
    return ordered


def _with_repeats(trials: list[Trial], n: int, task: str, rng: np.random.Generator) -> list[Trial]:
    """Some trials of the first half once more in the last third, with sides swapped."""
    half, third = len(trials) // 2, len(trials) - len(trials) // 3
    if third - half < LEAST_DISTANCE:
        half = max(0, third - LEAST_DISTANCE)
    picked = sorted(rng.permutation(half)[:n])
    result = list(trials)
    for i in picked:
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


def _numbered(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Repeats point to the place of what they repeat."""
    places = {t.item: i for i, t in enumerate(trials) if t.kind == MAIN}
    return tuple(replace(t, of=places[t.item]) if t.kind == REPEAT else t for t in trials)
