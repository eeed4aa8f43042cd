"""Probes on data whose answer is known."""

import numpy as np
import torch

from slmlab import score


def test_probe_finds_what_is_there_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 30)
    telling = np.eye(5)[labels] * 3 + draw.normal(size=(150, 5))
    silent = draw.normal(size=(150, 5))
    assert score.probe_accuracy(telling, labels) > 0.85
    assert score.probe_accuracy(silent, labels) < 0.4


def test_code_use_of_a_worked_example() -> None:
    digits = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, 1.0]])
    numbers = score.describe_code_use(digits)
    # levels -1, 0, 1 of both digits, then variance, covariance, variance (n - 1 = 3)
    np.testing.assert_allclose(numbers, [0.5, 0.5, 0, 0, 0.5, 0.5, 4 / 3, 0, 4 / 3], atol=1e-6)


def test_mel_description_is_mean_and_covariance() -> None:
    mel = torch.tensor([[0.0, 2.0], [2.0, 2.0]])
    np.testing.assert_allclose(score.describe_mel(mel), [1, 2, 2, 0, 0])
