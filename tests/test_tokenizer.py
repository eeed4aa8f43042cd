"""The speech tokenizer: shapes, padding, what its codes may hold, and that it learns."""

import pytest
import torch

from slmlab.language.text import Alphabet
from slmlab.models.fsq import digits_to_codes
from slmlab.models.tokenizer import (
    SpeechTokenizer,
    TokenizerConfig,
    frozen,
    prosody_features,
    tokenizer_loss,
    warp,
)

CONFIG = TokenizerConfig(Alphabet(tuple("abcdefghijk")), timbre_width=5, width=32, layers=2, n_speakers=3)


def batch_of(b: int = 2, f: int = 24) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    f0 = torch.where(torch.rand(f) < 0.7, 100 + 50 * torch.rand(f), 0.0)
    prosody = prosody_features(f0, -30 + 5 * torch.randn(f))
    return {
        "mel": torch.randn(b, f, 80) - 5,
        "prosody": prosody.expand(b, f, 3).clone(),
        "frames": torch.full((b,), f),
        "text": torch.randint(1, 12, (b, 4)),
        "symbols": torch.full((b,), 4),
        "timbre": torch.randn(b, 5),
        "speaker": torch.arange(b),
        "clean": torch.ones(b),
        "ear": torch.tensor(1.0),
    }


def test_codes_of_an_utterance_do_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    model = SpeechTokenizer(CONFIG).eval()
    batch = batch_of()
    together = torch.cat([batch["mel"], torch.randn(2, 6, 80)], dim=1)
    prosody = torch.cat([batch["prosody"], torch.randn(2, 6, 3)], dim=1)
    alone = model.encode(batch["mel"][:1], batch["prosody"][:1], batch["frames"][:1])
    padded = model.encode(together, prosody, batch["frames"])[:1, :12]
    assert torch.equal(digits_to_codes(alone), digits_to_codes(padded))


def test_louder_recording_gives_the_same_codes() -> None:
    torch.manual_seed(0)
    model = SpeechTokenizer(CONFIG).eval()
    batch = batch_of()
    quiet = model.encode(batch["mel"], batch["prosody"], batch["frames"])
    loud = model.encode(batch["mel"] + 1.5, batch["prosody"], batch["frames"])
    assert (digits_to_codes(quiet) == digits_to_codes(loud)).float().mean() > 0.95


def test_reading_and_mel_have_two_frames_a_token() -> None:
    model = SpeechTokenizer(CONFIG).eval()
    batch = batch_of()
    digits = model.encode(batch["mel"], batch["prosody"], batch["frames"])
    reading, mel = model.decode(digits, batch["timbre"], batch["frames"])
    assert digits.shape == (2, 12, 8)
    assert reading.log_probs.shape == (2, 24, 12)
    assert reading.prosody.shape == (2, 24, 3)
    assert mel.shape == (2, 24, 80)
    torch.testing.assert_close(reading.log_probs.exp().sum(-1), torch.ones(2, 24))
    for ours, theirs in zip(reading, model.read(digits, batch["frames"]), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_prosody_has_no_register_and_no_loudness() -> None:
    f0 = torch.tensor([0.0, 100.0, 200.0, 100.0])
    level = torch.tensor([-60.0, -20.0, -25.0, -30.0])
    low, high = prosody_features(f0, level), prosody_features(2 * f0, level + 6)
    torch.testing.assert_close(low, high)
    assert low[:, 1].tolist() == [0, 1, 1, 1]
    torch.testing.assert_close(low[2, 0], torch.tensor(3.0))  # an octave is 12 semitones, in units of 4


def test_warp_by_one_changes_nothing_and_by_two_stretches() -> None:
    mel = torch.arange(80.0).expand(1, 3, 80)
    torch.testing.assert_close(warp(mel, torch.ones(1))[..., :78], mel[..., :78])
    torch.testing.assert_close(warp(mel, torch.full((1,), 0.5))[0, 0, :10], torch.arange(10) / 2)


def test_what_it_hears_of_itself_teaches_the_mel_and_not_the_ear() -> None:
    model, batch = SpeechTokenizer(CONFIG), batch_of()
    mel = batch["mel"].requires_grad_()
    with frozen(model):
        _, read = model.understand(mel, batch["prosody"], batch["frames"])
    read[..., 1].sum().backward()
    assert mel.grad is not None
    assert mel.grad.abs().sum().item() > 0
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("ear", [0.0, 1.0])
def test_a_noisy_utterance_is_read_and_only_to_be_understood_rebuilt(ear: float) -> None:
    model, batch = SpeechTokenizer(CONFIG), batch_of()
    loss, _ = tokenizer_loss(model, batch | {"clean": torch.zeros(2), "ear": torch.tensor(ear)})
    loss.backward()
    assert model.symbols.weight.grad is not None
    assert model.mel.weight.grad is not None
    assert (model.mel.weight.grad.abs().sum().item() > 0) == bool(ear)


def test_learns_a_batch_by_heart_and_moves_every_parameter() -> None:
    torch.manual_seed(0)
    model = SpeechTokenizer(CONFIG)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = batch_of()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, parts = tokenizer_loss(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(parts["ctc"])
    assert losses[-1] < 0.5 * losses[0]
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
