"""What a collection of recordings is good for: a card that says what there is, and what to listen to first.

Sounds are looked at as they were recorded; a corpus holds them trimmed and at one level.

Axes: f mel frames (50 Hz).
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from slmlab.corpus.build import Corpus
from slmlab.language import languages
from slmlab.progress import bar
from slmlab.sound import SAMPLE_RATE, audio, mel
from slmlab.sound.mel import FRAME_RATE

RARE = 20
"""A letter that is heard less often is hardly learnt."""
SHOWN = 5
"""Files that a line of the card names."""
QUIET = 20.0
"""Speech that is less dB above its own pauses is noisy."""
CLIPPED = 0.001
"""Share of samples at full scale from which on a recording was too loud."""
SILENT = 40.0
"""Frames this many dB below the loudest are silence."""
LONG_SILENCE = 0.5
"""Seconds at an end that are worth cutting off."""
ODD_PACE = 2.0
"""Letters a second over the usual, or under it, by this factor: text and sound may not belong together."""


def card(corpus: Corpus) -> pd.DataFrame:
    """A row for each thing worth knowing: `what`, `found`, and where to `look`, the worst files first."""
    rows, language = corpus.rows, languages.find(str(corpus.rows["language"].iloc[0]))
    names = [name.rpartition("/")[2] for name in rows["file"].str.replace("\\", "/")]
    texts = [language.for_scoring(text) for text in rows["text"]]
    levels, lasting, clipped = list[NDArray[np.float32]](), list[float](), list[float]()
    for file in bar(rows["file"], "listened to"):  # one at a time: a collection may not fit into memory
        wave, info = audio.read(file)
        levels.append(mel.energy(torch.tensor(wave)[None])[0].numpy())
        lasting.append(len(wave) / SAMPLE_RATE)
        clipped.append(info.clipped)
    seconds = rows["seconds"].to_numpy()
    speakers = rows.groupby("voice")["seconds"].sum().sort_values(ascending=False) / 60
    loud, pauses = (np.array([np.quantile(level, share) for level in levels]) for share in (0.95, 0.05))
    silent = np.array([_silence(level) for level in levels])
    sounding = np.array(lasting) - silent.sum(1)
    pace = np.array([len(text) for text in texts]) / np.maximum(sounding, 0.1)
    strange = np.abs(np.log(pace / np.median(pace)))
    sounds = Counter(rows["sha256"])
    said = Counter(texts)
    spoken = ", ".join(f"{name} {minutes:.1f}" for name, minutes in speakers.head(SHOWN).items())
    spoken += f" and {len(speakers) - SHOWN} more" if len(speakers) > SHOWN else ""
    return pd.DataFrame(
        [
            (
                "speech",
                f"{seconds.sum() / 60:.1f} min, {len(rows)} recordings of {np.median(seconds):.1f} s",
                "",
            ),
            ("speakers", f"{len(speakers)}, minutes: {spoken}", ""),
            ("sentences", f"{len(said)} different, {sum(map(len, texts))} letters", ""),
            *_letters(texts, names),
            ("said again", *_beyond([said[text] for text in texts], 2, names)),
            ("equal sounds", *_beyond([sounds[sha256] for sha256 in rows["sha256"]], 2, names)),
            ("loudness, dB", f"{np.median(loud):.0f}, from {loud.min():.0f} to {loud.max():.0f}", ""),
            ("clipped", *_beyond(clipped, CLIPPED, names)),
            (f"pauses less than {QUIET:.0f} dB below speech", *_beyond(pauses - loud, -QUIET, names)),
            (f"over {LONG_SILENCE} s silent at an end", *_beyond(silent.max(1), LONG_SILENCE, names)),
            ("letters a second", f"{np.median(pace):.1f}", ""),
            ("twice, or half, as fast: is it this text?", *_beyond(strange, np.log(ODD_PACE), names)),
        ],
        columns=["what", "found", "look"],
    )


def _letters(texts: Sequence[str], names: Sequence[str]) -> list[tuple[str, str, str]]:
    """How often letters are heard; the rare ones with the recordings that have them."""
    counts = Counter("".join(texts).replace(" ", ""))
    lines = [("letters", f"{len(counts)}: " + " ".join(f"{c} {n}" for c, n in counts.most_common()), "")]
    for letter, n in reversed(counts.most_common()):
        if n < RARE:
            look = [name for name, text in zip(names, texts, strict=True) if letter in text]
            lines.append(("rare", f"{languages.named_character(letter)} {n} times", ", ".join(look[:SHOWN])))
    return lines


def _silence(level: NDArray[np.float32]) -> tuple[float, float]:
    """Seconds before and after what sounds, of levels in dB (f)."""
    sounding = np.flatnonzero(level > level.max() - SILENT)
    return sounding[0] / FRAME_RATE, (len(level) - 1 - sounding[-1]) / FRAME_RATE


def _beyond(
    values: Sequence[float] | NDArray[np.floating], limit: float, names: Sequence[str]
) -> tuple[str, str]:
    """How many values reach a limit, and the names of the highest."""
    array = np.asarray(values, dtype=float)
    order = np.argsort(-array, kind="stable")
    worst = [names[i] for i in order if array[i] >= limit]
    return f"{len(worst)} recordings" if worst else "none", ", ".join(worst[:SHOWN])
