"""Probes on data whose answer is known."""

import numpy as np
import torch

from slmlab.study import ground


def test_probe_finds_what_is_there_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 30)
    telling = np.eye(5)[labels] * 3 + draw.normal(size=(150, 5))
    silent = draw.normal(size=(150, 5))
    assert ground.probe_accuracy(telling, labels) > 0.85
    assert ground.probe_accuracy(silent, labels) < 0.4


def test_code_use_of_a_worked_example() -> None:
    digits = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, 1.0]])
    numbers = ground.describe_code_use(digits)
    # levels -1, 0, 1 of both digits, then variance, covariance, variance (n - 1 = 3)
    np.testing.assert_allclose(numbers, [0.5, 0.5, 0, 0, 0.5, 0.5, 4 / 3, 0, 4 / 3], atol=1e-6)


def test_mel_description_is_mean_and_covariance() -> None:
    mel = torch.tensor([[0.0, 2.0], [2.0, 2.0]])
    np.testing.assert_allclose(ground.describe_mel(mel), [1, 2, 2, 0, 0])


class Ears:
    """A chain that hears what it is told."""

    def hear(self, waves: list[torch.Tensor], which: str) -> list[str]:
        return [{"a": "mama anapika", "b": "mama anapiga"}[which] for _ in waves]

    def encode(self, wave: torch.Tensor) -> list[int]:
        return [7] * 10 + list(range(40))

    def timbre(self, wave: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, float(wave.abs().max() > 0.25), 9.0])


def test_impressions_of_a_quieter_copy() -> None:
    seconds = np.arange(24_000) / 16_000
    swell = 0.2 + 0.1 * np.sin(2 * np.pi * 3 * seconds)
    loud = (swell * np.sign(np.sin(2 * np.pi * (150 + 20 * seconds) * seconds))).astype(np.float32)
    found = ground.impressions(Ears(), loud / 2, "mama anapika", loud)  # type: ignore[arg-type]
    assert found["CER, judge A"] == 0
    assert found["CER, judge B"] == 1 / 12
    assert found["F0 correlation"] > 0.99
    assert abs(found["mel distance, dB"] - 20 * np.log10(2)) < 0.2
    assert abs(found["SIM"] - 0.5**0.5) < 1e-6  # register, the last number, does not count
    assert found["repetition"] == 6 / 46
    assert found["entropy, bits"] < np.log2(25)
