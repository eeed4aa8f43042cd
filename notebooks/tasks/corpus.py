"""Exercises of notebook 01: where the speech comes from."""

import unicodedata
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from slmlab.corpus.mixing import mix
from slmlab.corpus.prosody import LIVELY, STUDIO, Prosody, plan
from slmlab.language.text import normalise
from tasks.exercise import exercise

SENTENCES = ("Juma anasoma kitabu kizuri leo?", "Mama na baba wanaenda sokoni kesho asubuhi.")
LEAST_PITCH = 1.5
"""Semitones that the pitch of words must spread for a melody to be lively."""
PACE = ("rate_spread", "phrase_rate_spread", "focus_slowing")
"""Settings that make the pace move."""
MELODY = (
    *("range", "register_spread", "question_rise", "final_fall", "declination", "focus_rise"),
    *("phrase_words", "phrase_spread", "word_spread"),
)
"""Settings of pitch."""


@exercise(
    difficulty=1,
    minutes=5,
    cases=[
        (pd.DataFrame({"kind": ["authentic", "synthetic", "synthetic"], "seconds": [6.0, 1.0, 2.0]}),),
        (pd.DataFrame({"kind": ["authentic", "authentic", "synthetic"], "seconds": [1.0, 2.0, 9.0]}),),
    ],
    mistakes={
        "You count utterances; alpha goes by hours, and authentic utterances may be longer.": (
            lambda manifest: (manifest["kind"] == "synthetic").mean()
        ),
        "You divide by the authentic seconds; divide by all of them.": (
            lambda manifest: alpha.solution(manifest) / (1 - alpha.solution(manifest))
        ),
        "That is the authentic share; alpha is the synthetic one.": lambda manifest: (
            1 - alpha.solution(manifest)
        ),
        "A share lies between 0 and 1; leave percent for the text.": lambda rows: 100 * alpha.solution(rows),
    },
    package=[mix],
)
def alpha(manifest):
    """Hours, not utterances: otherwise short sentences would weigh as much as long ones."""
    synthetic = manifest.loc[manifest["kind"] == "synthetic", "seconds"]
    return float(synthetic.sum() / manifest["seconds"].sum())


def _melody_fault(answer):
    if not isinstance(answer, Prosody):
        return f"This is a {type(answer).__name__}; give a Prosody, such as replace(LIVELY, rate_spread=0.0)."
    if answer.recording != STUDIO:
        return "The recording adds noise; leave `recording` as it is in LIVELY."
    if moving := [name for name in PACE if getattr(answer, name) != 0]:
        return f"The pace still moves: look at {', '.join(moving)}."
    plans = [plan(text, "sw", answer, seed) for text in SENTENCES for seed in range(20)]
    pitch = float(np.mean([np.std([word.pitch for word in words]) for words in plans]))
    if pitch < LEAST_PITCH:
        spread = f"pitch spreads {pitch:.1f} semitones over a sentence"
        return f"Now the melody is flat too: {spread}, keep at least {LEAST_PITCH}."
    if other := [name for name in MELODY if getattr(answer, name) != getattr(LIVELY, name)]:
        return f"The pace is steady, but the melody is no longer LIVELY's: leave {', '.join(other)}."
    return ""


@exercise(difficulty=2, minutes=8, fault=_melody_fault, package=[Prosody])
def melody_only():
    """Melody and pace are separate settings, so a study can ask which of them listeners miss."""
    return replace(LIVELY, rate_spread=0.0, phrase_rate_spread=0.0, focus_slowing=0.0)


def _leaks(spelling, train, test):
    """Test sentences that are in the training set, if both are spelt so."""
    return sum(spelling(sentence) in map(spelling, train) for sentence in test)


def _compose(sentence):
    return unicodedata.normalize("NFC", sentence)


def _letters(sentence):
    return "".join(c for c in unicodedata.normalize("NFD", sentence.lower()) if c.isalpha())


@exercise(
    difficulty=2,
    minutes=8,
    cases=[
        (["Habari za asubuhi?", "Chị Hà ơi!"], ["habari za asubuhi?", "Mama anapika.", "Chi\u0323 Hà ơi!"]),
        (["Juma anasoma."], ["Juma  anasoma.", "Asha anasoma.", "juma anasoma."]),
        (["Juma anasoma.", "Juma anasoma."], ["Juma anasoma."]),
        (["Bà ốm.", "Juma anasoma vitabu."], ["Ba ôm.", "anasoma vitabu.", "Juma ana soma vitabu."]),
    ],
    mistakes={
        "You compare the spelling as typed: capitals, spaces and the two ways to write ị hide a leak.": (
            partial(_leaks, str)
        ),
        "You count training sentences that are in the test; asked is how many test sentences leak.": (
            lambda train, test: leaks.solution(test, train)
        ),
        "A sentence within another is no leak: compare whole sentences.": (
            lambda train, test: sum(normalise(s) in " ".join(map(normalise, train)) for s in test)
        ),
        "Marks and spaces belong to the words: ôm is not ốm; keep them.": partial(_leaks, _letters),
        "Capitals and spaces are handled; the two ways to write ị still hide a leak (`normalise`).": (
            partial(_leaks, lambda sentence: " ".join(sentence.lower().split()))
        ),
        "Capitals are handled; spaces and the two ways to write ị still hide a leak.": partial(
            _leaks, str.lower
        ),
        "The two ways to write ị are handled; capitals and spaces still hide a leak.": partial(
            _leaks, _compose
        ),
    },
    package=[normalise],
)
def leaks(train, test):
    """A sentence that was trained on tests memory, not reading."""
    known = {normalise(sentence) for sentence in train}
    return sum(normalise(sentence) in known for sentence in test)
