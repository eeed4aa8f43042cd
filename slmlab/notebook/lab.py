"""What every notebook begins with: the style of figures, the preset, and the lab to work in."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from slmlab.corpus.build import Corpus
from slmlab.notebook import plots
from slmlab.speech import score
from slmlab.speech.chain import Chain
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
        return Chain(shelf.checkpoint_folder(self.preset_name))

    @property
    def understood(self) -> bool:
        """Whether what the chain says can be understood: not at `smoke`, which only proves that all runs."""
        return self.preset_name != "smoke"

    def sound(self, codes: Sequence[int], voice: str = "mid", seed: int = 0) -> NDArray[np.float32]:
        """Speech tokens `(t,)` to a wave `(s,)` in a named voice; no tokens make the shortest sound."""
        timbre = self.chain.named_timbre(voice)
        return self.chain.to_sounds([list(codes) or [0]], timbre[None], [seed])[0].numpy()

    def recordings(self, language: str, split: str = "dev") -> Corpus:
        """Held-out stand-in recordings: `dev` to look at; `test` and `unseen` only to score."""
        return score.held_out(shelf.held_out_folder(self.preset_name), split, language)


def start() -> Lab:
    """Set the style of figures, read PRESET, and hand over the lab."""
    plots.use_style()
    lab = Lab(os.environ.get("PRESET", "tiny"))
    print(f"slmlab, preset {lab.preset.name}")
    if not lab.understood:
        print("smoke proves that everything runs: its networks hardly trained, so its speech is noise.")
    return lab
