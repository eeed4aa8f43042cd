"""Exercises of notebook 01: where the speech comes from."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from slmlab.corpus.mixing import mix
from slmlab.corpus.prosody import LIVELY, STUDIO, Prosody, plan
from slmlab.language.text import normalise
from slmlab.notebook.exercises import Exercise, like

SENTENCES = ("Juma anasoma kitabu kizuri leo?", "Mama na baba wanaenda sokoni kesho asubuhi.")
LEAST_PITCH = 1.5
"""Semitones that the pitch of words must spread for a melody to be lively."""
MELODY = (
    *("range", "register_spread", "question_rise", "final_fall", "declination", "focus_rise"),
    *("phrase_words", "phrase_spread", "word_spread"),
)
"""Settings of pitch."""


def _share(ledger: pd.DataFrame) -> float:
    synthetic = ledger.loc[ledger["kind"] == "synthetic", "seconds"]
    return float(synthetic.sum() / ledger["seconds"].sum())


def _by_count(rows: pd.DataFrame) -> float:
    return float((rows["kind"] == "synthetic").mean())


def _to_authentic(rows: pd.DataFrame) -> float:
    synthetic = rows["kind"] == "synthetic"
    return float(rows.loc[synthetic, "seconds"].sum() / rows.loc[~synthetic, "seconds"].sum())


LEDGERS = (
    pd.DataFrame({"kind": ["authentic", "synthetic", "synthetic"], "seconds": [6.0, 1.0, 2.0]}),
    pd.DataFrame({"kind": ["authentic", "authentic", "synthetic"], "seconds": [1.0, 2.0, 9.0]}),
)

alpha = Exercise(
    difficulty=1,
    minutes=5,
    fault=like(
        _share,
        [(ledger,) for ledger in LEDGERS],
        {
            "You count utterances; alpha goes by hours, and authentic utterances may be longer.": _by_count,
            "You divide by the authentic seconds; divide by all of them.": _to_authentic,
            "That is the authentic share; alpha is the synthetic one.": lambda ledger: 1 - _share(ledger),
            "A share is between 0 and 1; leave the percent for the text.": lambda ledger: (
                100 * _share(ledger)
            ),
        },
    ),
    solution=(_share, mix),
    why="Hours, not utterances: otherwise short sentences would weigh as much as long ones.",
)


def _melody_only() -> Prosody:
    return replace(LIVELY, rate_spread=0.0, phrase_rate_spread=0.0, focus_slowing=0.0)


def _melody_fault(answer: Prosody) -> str:
    if not isinstance(answer, Prosody):
        return f"This is a {type(answer).__name__}; give a Prosody, such as replace(LIVELY, rate_spread=0.0)."
    if answer.recording != STUDIO:
        return "The recording adds noise; leave `recording` as it is in LIVELY."
    plans = [plan(text, "sw", answer, seed) for text in SENTENCES for seed in range(20)]
    rates = {round(word.rate, 6) for words in plans for word in words}
    pitch = float(np.mean([np.std([word.pitch for word in words]) for words in plans]))
    moving = [
        name for name in ("rate_spread", "phrase_rate_spread", "focus_slowing") if getattr(answer, name) != 0
    ]
    if moving:
        return f"The pace still moves: look at {', '.join(moving)}."
    if len(rates) > 1:
        return "The pace still differs between words."
    if pitch < LEAST_PITCH:
        return (
            f"Now the melody is flat too: pitch spreads {pitch:.1f} semitones over a sentence, "
            f"keep at least {LEAST_PITCH}."
        )
    if other := [name for name in MELODY if getattr(answer, name) != getattr(LIVELY, name)]:
        return f"The pace is steady, but the melody is no longer LIVELY's: leave {', '.join(other)}."
    return ""


melody_only = Exercise(
    difficulty=2,
    minutes=8,
    fault=_melody_fault,
    solution=(_melody_only, Prosody),
    why="Melody and pace are separate settings, so a study can ask which of them listeners miss.",
)


def _leaks(train: Sequence[str], test: Sequence[str]) -> int:
    known = {normalise(sentence) for sentence in train}
    return sum(normalise(sentence) in known for sentence in test)


def _raw_leaks(train: Sequence[str], test: Sequence[str]) -> int:
    return len([sentence for sentence in test if sentence in train])


def _lower_leaks(train: Sequence[str], test: Sequence[str]) -> int:
    known = {sentence.lower() for sentence in train}
    return sum(sentence.lower() in known for sentence in test)


def _composed_leaks(train: Sequence[str], test: Sequence[str]) -> int:
    known = {unicodedata.normalize("NFC", sentence) for sentence in train}
    return sum(unicodedata.normalize("NFC", sentence) in known for sentence in test)


def _bare(sentence: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", sentence.lower()) if c.isalpha())


def _bare_leaks(train: Sequence[str], test: Sequence[str]) -> int:
    return sum(_bare(sentence) in map(_bare, train) for sentence in test)


def _squeezed(sentence: str) -> str:
    return " ".join(sentence.lower().split())


leaks = Exercise(
    difficulty=2,
    minutes=8,
    fault=like(
        _leaks,
        [
            (
                ["Habari za asubuhi?", "Chị Hà ơi!"],
                ["habari za asubuhi?", "Mama anapika.", "Chi\u0323 Hà ơi!"],
            ),
            (["Juma anasoma."], ["Juma  anasoma.", "Asha anasoma."]),
            (["Juma anasoma.", "Juma anasoma."], ["Juma anasoma."]),
            (["Bà ốm.", "Juma anasoma vitabu."], ["Ba ôm.", "anasoma vitabu.", "Juma ana soma vitabu."]),
        ],
        {
            "You compare the spelling as typed: capitals, spaces and the two ways to write ị hide a leak.": (
                _raw_leaks
            ),
            "You count training sentences that are in the test; asked is how many test sentences leak.": (
                lambda train, test: _leaks(test, train)
            ),
            "A sentence within another is no leak: compare whole sentences.": lambda train, test: sum(
                normalise(sentence) in " ".join(map(normalise, train)) for sentence in test
            ),
            "Marks and spaces belong to the words: ôm is not ốm. `normalise` keeps them.": _bare_leaks,
            "Capitals and spaces are handled; the two ways to write ị still hide a leak (`normalise`).": (
                lambda train, test: sum(_squeezed(t) in map(_squeezed, train) for t in test)
            ),
            "Capitals are handled; spaces and the two ways to write ị still hide a leak (`normalise`).": (
                _lower_leaks
            ),
            "The two ways to write ị are handled; capitals and spaces still hide a leak (`normalise`).": (
                _composed_leaks
            ),
        },
    ),
    solution=(_leaks, normalise),
    why="A sentence that was trained on tests memory, not reading.",
)
