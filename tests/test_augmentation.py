"""Changed speech is the speech it should be, and padding stays out of it."""

import pytest
import torch

from slmlab.models.augmentation import (
    Augmentation,
    add_noise,
    augment,
    random_stretches,
    stretch,
)


def ramp(frames: int, bins: int) -> torch.Tensor:
    """(1 f m): 100 a frame, 1 a bin."""
    return (100.0 * torch.arange(frames)[:, None] + torch.arange(bins))[None]


def test_nothing_changes_when_nothing_is_asked_for() -> None:
    still = Augmentation(tract=0, speed=0, noise=0, bands=0, gaps=0)
    mel = torch.randn(2, 9, 8)
    changed, frames = augment(mel, torch.tensor([9, 9]), still)
    torch.testing.assert_close(changed, mel, atol=1e-5, rtol=1e-5)
    assert frames.tolist() == [9, 9]


def test_stretch_moves_frequencies_and_times_as_far_as_told() -> None:
    mel, frames = stretch(ramp(20, 41), torch.tensor([20]), torch.tensor([1.25]), torch.tensor([0.5]))
    assert frames.tolist() == [40]
    assert mel[0, 10, 30].item() == pytest.approx(100 * 5 + 24, abs=1e-2)


def test_stretch_of_a_padded_utterance_ends_with_its_own_last_frame() -> None:
    mel = torch.cat([ramp(10, 8), torch.full((1, 10, 8), 1e6)], 1)
    changed, frames = stretch(mel, torch.tensor([10]), torch.ones(1), torch.tensor([0.8]))
    assert frames.tolist() == [12]
    assert changed.max() <= 907.01


def test_noise_adds_power_and_only_where_it_is_chosen() -> None:
    torch.manual_seed(0)
    mel, mask = torch.full((200, 20, 8), -11.0), torch.ones(200, 20, 1)
    mel[:, 0] = 0.0
    noisy = add_noise(mel, mask, 0.5, (-4.0, -4.0))
    chosen = (noisy != mel).flatten(1).any(1)
    assert 70 < chosen.sum() < 130
    assert (noisy >= mel - 1e-5).all()
    assert noisy[chosen][:, 1:].mean().item() == pytest.approx(-4.0, abs=0.2)


def test_missing_stretches_are_no_longer_than_their_share_and_lie_inside() -> None:
    torch.manual_seed(0)
    missing = random_stretches(torch.tensor([100, 40]), 100, 1, 0.2)
    for _ in range(50):
        missing = random_stretches(torch.tensor([100, 40]), 100, 1, 0.2)
        assert missing[0].sum() <= 21
        assert missing[1].sum() <= 9
        assert not missing[1, 40:].any()


def test_missing_parts_take_the_mean_of_the_utterance() -> None:
    torch.manual_seed(3)
    mel, frames = torch.randn(1, 60, 12), torch.tensor([60])
    changed, _ = augment(mel, frames, Augmentation(tract=0, speed=0, noise=0, bands=0, gaps=2))
    gone = (changed - mel).abs().amax(-1)[0] > 1e-3
    assert 0 < gone.sum() < 14
    torch.testing.assert_close(
        changed[0, gone], mel.mean(1).expand(int(gone.sum()), -1), atol=1e-4, rtol=1e-4
    )
