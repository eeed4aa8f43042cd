"""Simulated listeners vote, and their votes become pairs: on the way people's votes go, by programs.

The start says every text twice; of the two the one whose melody moves more is called livelier. Simulated
listeners prefer it as often as their strength says, through the same store, rules and export as people.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slmlab.corpus.pairs import Pair, read
from slmlab.models.lm import SpeechLM
from slmlab.people import export
from slmlab.people import simulated as listeners
from slmlab.people.design import GAP, Clip, ClipPair, ListeningTest
from slmlab.people.store import Store
from slmlab.preference.jury import Jury, seed_of
from slmlab.speech.sampling import SamplingConfig, speak

FREE = SamplingConfig(temperature=1.0, top_k=200)
LIVELY, FLAT = "livelier", "flatter"
STRENGTH = 1.0
"""Log-odds with which a simulated listener prefers the livelier of two."""
LISTENERS, EACH = 12, 40


def simulated(model: SpeechLM, jury: Jury, texts: Sequence[str], seed: int, folder: Path) -> list[Pair]:
    """Pairs of a model's own samples, from the votes of simulated listeners; they are exported to `folder`.

    The jury's judge reads the melody from the tokens; `seed` is of samples and listeners.
    """
    table = folder / "preferences.parquet"
    if not table.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "votes.db").unlink(missing_ok=True)
        store = Store(folder / "votes.db")
        store.set_test(_listening_test(model, jury, texts, seed))
        for listener in listeners.crowd(LISTENERS, {LIVELY: STRENGTH, FLAT: 0.0}, seed=seed):
            listeners.listen(store, listener)
        export.write(store, folder)
    return [pair for pair in read(table, jury.language) if pair.group != "test"]


def _listening_test(model: SpeechLM, jury: Jury, texts: Sequence[str], seed: int) -> ListeningTest:
    """Two samples of each text as clips without sounds, named after which is livelier."""
    said = [
        speak(model, jury.language, texts, FREE, [seed_of(seed, i, side) for i in range(len(texts))])
        for side in (0, 1)
    ]
    spread = [[np.nan_to_num(hearing.f0_spread) for hearing in jury.judge(side)] for side in said]
    clips, pairs = list[Clip](), list[ClipPair]()
    for i, text in enumerate(texts):
        if said[0][i] == said[1][i] or not (said[0][i] and said[1][i]):
            continue
        names = (LIVELY, FLAT) if spread[0][i] > spread[1][i] else (FLAT, LIVELY)
        for side, name in enumerate(names):
            tokens = tuple(said[side][i])
            clips.append(Clip(f"{name}-{i:03d}", name, f"{i:03d}", text, tokens=tokens))
        pairs.append(ClipPair(f"{i:03d}{GAP}{LIVELY}{GAP}{FLAT}", f"{LIVELY}-{i:03d}", f"{FLAT}-{i:03d}"))
    return ListeningTest("simulated", tuple(clips), tuple(pairs), (), n_main=min(EACH, len(pairs)))
