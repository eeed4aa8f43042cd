"""Voices and manners come from another recording of the same person; what is said is scored in batches."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from slmlab.models.lm import STYLE_TOKENS
from slmlab.speech import score


class Recordings:
    """Five recordings of two voices and a stranger; the wave of each is its number."""

    rows = pd.DataFrame({"voice": ["a", "b", "a", "c", "a"], "spoken": ["w", "x", "y", "z", "v"]})

    def __len__(self) -> int:
        return len(self.rows)

    def wave(self, i: int) -> np.ndarray:
        """`(1,)`."""
        return np.array([i], dtype=np.float32)


class Echo:
    """A chain that gives a recording's number back, and remembers how much it was asked for at a time."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], list[int]]] = []

    def timbre(self, wave: torch.Tensor) -> torch.Tensor:
        """`(c,)`."""
        return wave.expand(3)

    def encode(self, wave: torch.Tensor) -> list[int]:
        """More codes than a style has."""
        return [int(wave)] * (STYLE_TOKENS + 9)

    def say(self, texts: list[str], language: str, timbres: torch.Tensor, *how: object) -> list[object]:
        """Silence."""
        self.asked.append((texts, list(how[2])))  # type: ignore[call-overload]
        return [SimpleNamespace(wave=torch.zeros(1)) for _ in texts]


def test_a_voice_is_the_first_other_recording_s_and_a_manner_the_last_other_s() -> None:
    """Who has but one recording lends it."""
    timbres = score.reference_timbres(Echo(), Recordings(), 4)  # type: ignore[arg-type]
    assert timbres[:, 0].tolist() == [2, 1, 0, 3]
    styles = score.other_styles(Echo(), Recordings(), 4)  # type: ignore[arg-type]
    assert [style[0] for style in styles] == [4, 1, 4, 3]
    assert {len(style) for style in styles} == {STYLE_TOKENS}


def test_a_test_is_said_with_a_seed_a_sentence(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(score, "score_sounds", lambda *asked: list(asked))
    chain = Echo()
    asked = score.speak_test(chain, "sw", Recordings(), 9)  # type: ignore[arg-type]
    assert chain.asked == [(["w", "x", "y", "z", "v"], [0, 1, 2, 3, 4])]
    assert (asked[1], len(asked[4])) == ("chain", 5)  # type: ignore[misc, arg-type]
