"""The speaker encoder: what it must not hear, a worked margin, and that voices come apart."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from slmlab.models.augmentation import Augmentation
from slmlab.models.speaker import SpeakerConfig, SpeakerEncoder, speaker_loss, with_margin

STILL = Augmentation(tract=0, speed=0, noise=0, bands=0, gaps=0)
CONFIG = SpeakerConfig(n_speakers=3, width=24, layers=1, width_out=8, tracts=(1.0,), augmentation=STILL)


def encoder() -> SpeakerEncoder:
    torch.manual_seed(0)
    return SpeakerEncoder(CONFIG).eval()


def speech(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) - 5


def test_margin_of_a_right_angle() -> None:
    logits = with_margin(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), 0.2, 10.0)
    expected = torch.tensor([[10 * math.cos(math.pi / 2 + 0.2), 10.0]])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_loss_of_a_voice_on_its_centre_worked_by_hand() -> None:
    """Cosines 1 and 0, margin 0.5, scale 2: the loss is ln(1 + exp(-2 cos 0.5))."""

    class Fixed(SpeakerEncoder):
        def forward(self, mel: Tensor, frames: Tensor) -> Tensor:
            return torch.tensor([[1.0, 0.0]])

    model = Fixed(SpeakerConfig(2, width_out=2, margin=0.5, scale=2.0, tracts=(1.0,), augmentation=STILL))
    model.head.weight.data = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
    batch = {"mel": speech(1, 9, 80), "frames": torch.tensor([9]), "speaker": torch.tensor([0])}
    loss, figures = speaker_loss(model, batch)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2 * math.cos(0.5))), abs=1e-3)
    assert figures["accuracy"] == 1


@pytest.mark.parametrize("frames", [1, 2, 30, 31])
def test_embedding_has_length_one_and_ignores_loudness_and_padding(frames: int) -> None:
    model, mel = encoder(), speech(1, frames, 80)
    alone = model(mel, torch.tensor([frames]))
    assert alone.norm().item() == pytest.approx(1)
    padded = torch.cat([mel, speech(1, 9, 80)], 1)
    torch.testing.assert_close(model(padded, torch.tensor([frames])), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(mel + 2, torch.tensor([frames])), alone, atol=1e-5, rtol=1e-5)


def test_digital_silence_counts_as_the_silence_of_a_room() -> None:
    model, mel = encoder(), speech(1, 30, 80)
    mel[:, :5] = mel.max() - 7
    quieter = mel.clone()
    quieter[:, :5] = math.log(1e-5)
    frames = torch.tensor([30])
    torch.testing.assert_close(model(mel, frames), model(quieter, frames), atol=1e-5, rtol=1e-5)


def test_pooling_weighs_real_steps_alone() -> None:
    model = encoder()
    torch.nn.init.zeros_(model.attention[2].weight)
    h = torch.zeros(1, 3, 24)
    h[0, :, 0] = torch.tensor([1.0, 3.0, 50.0])
    pooled = model.pool(h, torch.tensor([[[1.0], [1.0], [0.0]]]))
    assert pooled[0, 0].item() == pytest.approx(2)
    assert pooled[0, 24].item() == pytest.approx(1, abs=1e-4)


def test_voices_come_apart_and_every_weight_moves() -> None:
    config = SpeakerConfig(3, width=24, layers=1, width_out=8, tracts=(0.8, 1.0))
    torch.manual_seed(0)
    model, voices = SpeakerEncoder(config), 2 * torch.randn(3, 1, 80)
    before = [p.detach().clone() for p in model.parameters()]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    correct = []
    for _ in range(100):
        speaker = torch.randint(0, 3, (24,))
        mel = voices[speaker] + torch.randn(24, 20, 80) - 5
        batch = {"mel": mel, "frames": torch.full((24,), 20), "speaker": speaker}
        loss, figures = speaker_loss(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        correct.append(float(figures["accuracy"]))
    assert np.mean(correct[-10:]) > 0.9 > np.mean(correct[:5]) + 0.2
    assert all((p != q).any() for p, q in zip(model.parameters(), before, strict=True))
