"""The flow decoder: what withheld conditions mean, what padding must not do, and that it learns."""

import math
from dataclasses import replace

import torch

from slmlab.models.decoder import DecoderConfig, FlowDecoder, decoder_loss, movements, time_features

CONFIG = DecoderConfig(timbre_width=5, width=32, layers=2)


def batch_of(b: int = 2, t: int = 8) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "mel": torch.randn(b, 2 * t, 80) - 5,
        "prior": torch.full((b, 2 * t, 80), -5.0),
        "digits": torch.randint(-1, 2, (b, t, 8)).float(),
        "timbre": torch.randn(b, 5),
        "frames": torch.full((b,), 2 * t),
        "clean": torch.ones(b),
    }


def learnt(steps: int = 80) -> tuple[FlowDecoder, list[float]]:
    torch.manual_seed(0)
    model, batch = FlowDecoder(CONFIG), batch_of()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for step in range(steps):
        torch.manual_seed(step % 4)
        loss, _ = decoder_loss(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return model.eval(), losses


def test_of_a_noisy_utterance_it_learns_nothing() -> None:
    model, batch = FlowDecoder(CONFIG), batch_of()
    torch.manual_seed(0)
    both = decoder_loss(model, batch)[0]
    torch.manual_seed(0)
    first = decoder_loss(model, batch | {"clean": torch.tensor([1.0, 0.0])})[0]
    torch.manual_seed(0)
    second = decoder_loss(model, batch | {"clean": torch.tensor([0.0, 1.0])})[0]
    torch.testing.assert_close(both, (first + second) / 2)
    assert decoder_loss(model, batch | {"clean": torch.zeros(2)})[0].item() == 0


def test_untrained_it_leads_from_any_noise_back_to_the_prior() -> None:
    batch, model = batch_of(), FlowDecoder(CONFIG)
    noise = torch.full((2, 16, 80), 2.0)
    given = batch["digits"], batch["prior"], batch["timbre"], batch["frames"]
    states = model.decode(*given, noise=noise)
    assert len(states) == 5
    assert (states[0] - batch["prior"]).mean().item() > 0.5
    torch.testing.assert_close(states[-1], batch["prior"])


def test_it_learns_what_the_prior_lacks() -> None:
    """The mel is the prior plus a pattern that the codes tell: after training the sound is nearer to it."""
    model, _ = learnt(120)
    batch = batch_of()
    given = batch["digits"], batch["prior"], batch["timbre"], batch["frames"]
    torch.manual_seed(9)
    said = model.decode(*given, cfg_strength=0.0)[-1]
    assert (said - batch["mel"]).abs().mean() < 0.8 * (batch["prior"] - batch["mel"]).abs().mean()


def test_learns_and_conditions_matter_only_when_given() -> None:
    model, losses = learnt()
    assert losses[-1] < 0.7 * losses[0]
    batch, x, time = batch_of(), torch.randn(2, 16, 80), torch.full((2,), 0.5)

    def end(digits: torch.Tensor, timbre: torch.Tensor, given: float) -> torch.Tensor:
        codes = model.embed_codes(digits, batch["frames"])
        return model(x, time, codes, 0 * x, timbre, batch["frames"], torch.full((2,), given))

    other = -batch["digits"], batch["timbre"] + 1
    same = batch["digits"], batch["timbre"]
    assert not torch.allclose(end(*same, 1.0), end(*other, 1.0))
    torch.testing.assert_close(end(*same, 0.0), end(*other, 0.0))


def test_padding_does_not_reach_real_frames() -> None:
    model, _ = learnt(5)
    batch, x, time = batch_of(1), torch.randn(1, 16, 80), torch.tensor([0.3])
    ones = torch.ones(1)
    codes = model.embed_codes(batch["digits"], batch["frames"])
    alone = model(x, time, codes, 0 * x, batch["timbre"], batch["frames"], ones)
    wide = torch.cat([x, torch.randn(1, 4, 80)], 1)
    digits = torch.cat([batch["digits"], torch.ones(1, 2, 8)], 1)
    codes = model.embed_codes(digits, batch["frames"])
    padded = model(wide, time, codes, 0 * wide, batch["timbre"], batch["frames"], ones)[:, :16]
    torch.testing.assert_close(alone, padded, atol=1e-5, rtol=1e-5)


def test_a_mel_is_the_sum_of_its_movements_and_padding_is_none_of_them() -> None:
    """A swing of half a second is slow, one from frame to frame is quick; by the mean over five frames."""
    frames = torch.arange(40.0)
    slow, quick = torch.sin(2 * torch.pi * frames / 20), 0.5 * (-1) ** frames
    mel = torch.stack([3 + slow, 1 + quick], 1)[None]
    mask = torch.ones(1, 40, 1)
    mean, slowly, quickly = movements(mel, mask)
    torch.testing.assert_close(mean + slowly + quickly, mel)
    torch.testing.assert_close(mean[0, 0], torch.tensor([3.0, 1.0]), atol=1e-5, rtol=0)
    passed = sum(math.cos(2 * math.pi * k / 20) for k in (-2, -1, 0, 1, 2)) / 5
    torch.testing.assert_close(slowly[0, 5:35, 0], passed * slow[5:35], atol=1e-5, rtol=0)
    torch.testing.assert_close(quickly[0, 5:35, 1], 0.8 * quick[5:35], atol=1e-5, rtol=0)
    padded = torch.cat([mel, torch.full((1, 6, 2), 9.0)], 1)
    with_padding = movements(padded, torch.cat([mask, torch.zeros(1, 6, 1)], 1))
    torch.testing.assert_close(with_padding[1][:, :40], slowly)


def test_what_is_decoded_moves_as_recordings_do() -> None:
    """Decoded mels that move half as much, and a third where they are quick, are mended exactly."""
    torch.manual_seed(0)
    recorded = torch.randn(1, 60, 80).cumsum(1)
    mean, slow, quick = movements(recorded, torch.ones(1, 60, 1))
    parts = mean + slow / 2 + quick / 3
    model = FlowDecoder(replace(CONFIG, sharpen=1.0))
    torch.testing.assert_close(model.sharpened(parts, torch.tensor([60])), parts)
    again = movements(parts, torch.ones(1, 60, 1))
    model.fit_spread([parts[0]], [recorded[0]])
    wanted = torch.stack(
        [a.square().mean(1)[0] / b.square().mean(1)[0] for a, b in zip((slow, quick), again[1:], strict=True)]
    ).sqrt()
    torch.testing.assert_close(model.spread, wanted)
    sharp = model.sharpened(parts, torch.tensor([60]))
    assert (sharp - recorded).square().mean() < 0.2 * (parts - recorded).square().mean()
    assert not hasattr(FlowDecoder(CONFIG), "spread")


def test_time_features_are_bounded_and_differ() -> None:
    features = time_features(torch.tensor([0.0, 0.5]), 8)
    assert features.shape == (2, 8)
    assert features[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert features.abs().max() <= 1
