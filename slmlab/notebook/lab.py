"""What every notebook begins with: the style of figures, the preset, and the lab to work in."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import DisplayHandle, display
from torch import Tensor

from slmlab import files, metrics
from slmlab.corpus.build import Corpus
from slmlab.notebook import plots
from slmlab.preference.jury import Codes, Judge
from slmlab.preference.tune import name_of
from slmlab.sound.audio import Wave
from slmlab.speech import score
from slmlab.speech.chain import Chain, open_chain
from slmlab.training import shelf
from slmlab.training.presets import Preset, preset

SETUP = """\
REPOSITORY = ""  # on Colab: the https address of this notebook's git repository; elsewhere leave it empty
if REPOSITORY:
    !git clone --depth 1 $REPOSITORY slmlab-copy
    %cd slmlab-copy
    %pip install --quiet --constraint constraints.txt --editable .

from slmlab import notebook

lab = notebook.start()"""
"""The first code cell of every notebook, word for word."""


@dataclass(frozen=True)
class Lab:
    """What a notebook works with; nothing is loaded before it is asked for."""

    preset_name: str
    """Which size: `tiny`, or what the environment variable PRESET says."""

    @property
    def preset(self) -> Preset:
        """All numbers of this size."""
        return preset(self.preset_name)

    @cached_property
    def chain(self) -> Chain:
        """Text to wave: made here, shipped, or trained now."""
        return open_chain(self.preset_name)

    @cached_property
    def people(self) -> Chain | None:
        """The chain of `human`, which has heard people, if it is shipped or was trained here."""
        return open_chain("human") if shelf.at_hand("human") else None

    @property
    def understood(self) -> bool:
        """Whether what the chain says can be understood: not at `smoke`, which only proves that all runs."""
        return self.preset_name != "smoke"

    @property
    def recorded(self) -> str:
        """The language whose model learnt from recordings: Vietnamese stand-ins, or people's Swahili."""
        return next(language for language in self.preset.languages if self.preset.has_recordings(language))

    def timbre(self, language: str) -> Tensor:
        """`(c,)` of the voice that usually speaks a language."""
        return self.chain.named_timbre(self.chain.usual_voice(language))

    def sound(self, codes: Sequence[int], voice: str = "", seed: int = 0) -> Wave:
        """Speech tokens `(t,)` to a wave `(s,)` in a named voice; no tokens make the shortest sound."""
        timbre = self.chain.named_timbre(voice or self.chain.usual_voice("sw"))
        return self.chain.to_sounds([list(codes) or [0]], timbre[None], [seed])[0].numpy()

    def recordings(self, language: str, split: str = "dev") -> Corpus:
        """Held-out recordings, of `tiny` stand-ins: `dev` to look at; `test` and `unseen` only to score."""
        return score.held_out(shelf.make(self.preset_name, "corpus.held_out"), split, language)


def start() -> Lab:
    """Set the style of figures, read PRESET, find the exercises, and hand over the lab."""
    plots.use_style()
    sys.path.append(str(files.ROOT / "notebooks"))  # `tasks`, wherever a copy of the notebook lies
    lab = Lab(os.environ.get("PRESET", "tiny"))
    print(f"slmlab, preset {lab.preset.name}")
    if not lab.understood:
        print("smoke proves that everything runs: its networks hardly trained, so its speech is noise.")
    return lab


class Live:
    """What a `Jury` may be given as `watch`: keeps one picture under a notebook's cell up to date."""

    def __init__(self) -> None:
        self.name = ""
        self.handle: DisplayHandle | None = None

    def __call__(self, name: str, rows: pd.DataFrame) -> None:
        """Show the tuning in the folder `name` as far as it is; another one begins another picture."""
        picture = plots.tuning(rows, name_of(Path(name)))
        if name != self.name:
            self.name, self.handle = name, display(picture, display_id=True)
        elif self.handle:  # there is none outside a notebook
            self.handle.update(picture)


def figures(systems: Mapping[str, Codes], texts: Sequence[str], judge: Judge) -> pd.DataFrame:
    """What systems say to the same texts, in figures: a row a system, judged from the tokens.

    F0 spread is a mean over what is clearly said (`metrics.CLEAR`), as broken speech looks lively; H_p is
    taken at equal token counts.
    """
    rows, entropies = {}, metrics.matched_entropies(list(systems.values()))
    for (name, codes), entropy in zip(systems.items(), entropies, strict=True):
        hearings = judge(codes)
        spreads = [
            hearing.f0_spread
            for text, hearing in zip(texts, hearings, strict=True)
            if metrics.cer(text, hearing.text) <= metrics.CLEAR and not np.isnan(hearing.f0_spread)
        ]
        rows[name] = {
            "wer": metrics.corpus_wer(texts, [hearing.text for hearing in hearings]),
            "F0 spread": float(np.mean(spreads)) if spreads else float("nan"),
            "H_p": entropy,
            "repetition": float(np.mean(np.nan_to_num([metrics.repetition_rate(row) for row in codes]))),
        }
    return pd.DataFrame(rows).T.rename_axis("system")
