"""The speaker encoder: what it must not hear, a worked margin, and that it learns."""

import math

import torch

from slmlab.models.speaker import SpeakerConfig, SpeakerEncoder, speaker_loss, with_margin

CONFIG = SpeakerConfig(n_speakers=3, width=24, layers=1, width_out=8)


def test_margin_of_a_right_angle() -> None:
    logits = with_margin(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), 0.2, 10.0)
    torch.testing.assert_close(
        logits, torch.tensor([[10 * math.cos(math.pi / 2 + 0.2), 10.0]]), atol=1e-4, rtol=1e-4
    )


def test_embedding_has_length_one_and_ignores_loudness_and_padding() -> None:
    torch.manual_seed(0)
    model, mel = SpeakerEncoder(CONFIG).eval(), torch.randn(1, 30, 80) - 5
    alone = model(mel, torch.tensor([30]))
    torch.testing.assert_close(alone.norm(), torch.tensor(1.0))
    padded = torch.cat([mel, torch.randn(1, 9, 80)], 1)
    torch.testing.assert_close(model(padded, torch.tensor([30])), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(mel + 2, torch.tensor([30])), alone, atol=1e-5, rtol=1e-5)


def test_learns_three_voices() -> None:
    torch.manual_seed(0)
    model = SpeakerEncoder(CONFIG)
    voices = torch.randn(3, 1, 80)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        speaker = torch.randint(0, 3, (12,))
        batch = {
            "mel": 2 * voices[speaker] + 0.3 * torch.randn(12, 20, 80) - 5,
            "frames": torch.full((12,), 20),
            "speaker": speaker,
        }
        loss, figures = speaker_loss(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert figures["accuracy"] > 0.9
