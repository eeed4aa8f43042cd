"""The vocoder: filters and sources a person can check, what it says untrained, and that it learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from einops import reduce
from torch import Tensor

from slmlab.models import vocoder
from slmlab.models.vocoder import (
    GATE,
    SMOOTHING,
    Vocoder,
    VocoderConfig,
    energy_distance,
    glide,
    pitch_loss,
    pulse_train,
    spectral_distance,
    vocoder_loss,
)
from slmlab.sound import SAMPLE_RATE, features
from slmlab.sound.mel import HOP, LOG_FLOOR, istft, stft
from slmlab.study.griffin_lim import griffin_lim

SMALL = VocoderConfig(width=32, layers=2, pitch_width=32, pitch_layers=2)


def hum(hertz: float = 150.0, frames: int = 24) -> dict[str, Tensor]:
    """A segment of steady voice: ten harmonics falling by half, in the form of a batch of one."""
    time = torch.arange(frames * HOP) / SAMPLE_RATE
    wave = sum(0.2 * 0.5**k * torch.cos(2 * math.pi * hertz * (k + 1) * time) for k in range(10))
    wave = torch.as_tensor(wave)[None]
    return {"wave": wave, "mel": features.log_mel(wave), "f0": torch.full((1, frames), hertz)}


@pytest.fixture(scope="module")
def learnt() -> tuple[Vocoder, list[float]]:
    """A small vocoder after 150 steps on one segment, and its losses."""
    torch.manual_seed(0)
    model, batch = Vocoder(SMALL), hum()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(150):
        loss, _ = vocoder_loss(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return model.eval(), losses


def test_glide_draws_straight_lines_and_holds_the_end() -> None:
    x = torch.tensor([[[0.0], [2.0], [1.0]]])
    assert glide(x, 2).flatten().tolist() == [0.0, 1.0, 2.0, 1.5, 1.0, 1.0]


def test_pulses_are_the_sum_of_their_harmonics() -> None:
    f0 = torch.full((1, 5), 250.0)
    n = torch.arange(1, 5 * HOP + 1)
    phase = 2 * math.pi * 250.0 / 16_000 * n.double()
    harmonics = sum(
        torch.cos(k * phase) for k in range(1, 32)
    )  # 31 · 250 = 7750 Hz; the 32nd would be at 8 kHz
    share = (8000 - vocoder.GAP) / 250 - 31
    wanted = (harmonics + share * torch.cos(32 * phase)) * math.sqrt(4 * 250 / 16_000)
    torch.testing.assert_close(
        pulse_train(f0, torch.zeros(1))[0].double(), torch.as_tensor(wanted), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("hertz", [60.0, 130.0, 420.0])
def test_pulses_are_as_strong_as_noise_of_variance_one(hertz: float) -> None:
    pulses = pulse_train(torch.full((1, 100), hertz), torch.zeros(1))
    assert pulses.square().mean().item() == pytest.approx(1.0, abs=0.05)


def test_pulses_follow_a_moving_pitch() -> None:
    f0 = torch.linspace(120, 240, 50)
    heard = features.f0(pulse_train(f0[None], torch.zeros(1)))
    torch.testing.assert_close(heard[3:-3], f0[3:-3], rtol=0.03, atol=0)


def test_unshaped_short_time_spectrum_gives_the_wave_back() -> None:
    wave = torch.randn(2, 7 * HOP)
    back = istft(stft(wave, SMALL.window, SMALL.step), 7 * HOP, SMALL.window, SMALL.step)
    torch.testing.assert_close(back, wave, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 2, 33])
def test_a_frame_is_320_samples(frames: int) -> None:
    wave = Vocoder(SMALL).eval()(torch.full((2, frames, 80), -4.0))
    assert wave.shape == (2, frames * HOP)
    assert wave.isfinite().all()


def test_alone_or_in_a_batch_the_same_wave(learnt: tuple[Vocoder, list[float]]) -> None:
    """Rounding of F0 grows with the phase summed from it, so F0 is compared first and the wave at equal
    F0.
    """
    model = learnt[0]
    mels = torch.cat([hum(hertz)["mel"] for hertz in (140.0, 150.0, 160.0)])
    with torch.no_grad():
        scores, voicing = model.pitch(mels)
        pitch = model.pitch.f0(scores)
        together = model.synthesise(mels, pitch, voicing)[0]
        for i, wave in enumerate(together):
            alone = model.pitch(mels[i : i + 1])
            torch.testing.assert_close(model.pitch.f0(alone[0])[0], pitch[i], atol=0, rtol=1e-5)
            torch.testing.assert_close(alone[1][0], voicing[i], atol=1e-4, rtol=1e-4)
            said = model.synthesise(mels[i : i + 1], pitch[i : i + 1], voicing[i : i + 1])[0, 0]
            torch.testing.assert_close(said, wave, atol=1e-4, rtol=1e-4)


def test_closed_loop_gives_the_mel_that_was_asked_for() -> None:
    torch.manual_seed(0)
    mel = features.log_mel(torch.randn(1, 100 * HOP) * 0.1)
    lacking = []
    for rounds in (0, 1, 3):
        model = Vocoder(replace(SMALL, rounds=rounds)).eval()
        with torch.no_grad():
            lacking.append((features.log_mel(model(mel)) - mel).abs().mean().item())
    assert lacking[0] > 2 * lacking[1] > 2 * lacking[2]
    assert lacking[2] < 0.2


def test_smoothing_closes_the_loop_on_the_envelope_alone() -> None:
    """Bands of ten bins come near what was asked for, single bins do not."""
    torch.manual_seed(0)
    mel, model = features.log_mel(torch.randn(1, 100 * HOP) * 0.1), Vocoder(SMALL).eval()
    with torch.no_grad():
        open_loop = Vocoder(replace(SMALL, rounds=0)).eval()(mel)
        lack = {
            k: mel - features.log_mel(w) for k, w in {0: open_loop, 1: model(mel), 5: model(mel, 5)}.items()
        }
    bands = {k: reduce(x, "b f (band m) -> b f band", "mean", m=10).abs().mean() for k, x in lack.items()}
    single = {k: x.abs().mean() for k, x in lack.items()}
    assert bands[5] < 0.5 * bands[0]
    assert single[5] > 2 * single[1]


def test_of_a_networks_mel_the_recorded_voicing_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder's mel is too smooth to read voicing from: in use, the codes say where the voice sounds."""
    model, batch = Vocoder(SMALL), hum()
    batch["f0"][:, 12:] = 0
    gates = []

    def synthesise(mel: Tensor, f0: Tensor, voicing: Tensor, draws: int, smoothing: int) -> Tensor:
        gates.append(voicing)
        return Vocoder.synthesise(model, mel, f0, voicing, draws, smoothing)

    monkeypatch.setattr(model, "synthesise", synthesise)
    vocoder_loss(model, batch, smoothing=SMOOTHING)
    assert ((gates[0] > 0) == (batch["f0"] > 0)).all()
    assert gates[0].abs().unique().tolist() == [GATE]


def test_silence_stays_silent(learnt: tuple[Vocoder, list[float]]) -> None:
    silence = torch.full((1, 40, 80), math.log(LOG_FLOOR))
    with torch.no_grad():
        assert Vocoder(SMALL).eval()(silence).abs().max() < 1e-3
        assert learnt[0](silence).abs().max() < 1e-3


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model, batch = Vocoder(SMALL), hum()
    batch["f0"][:, 12:] = 0
    vocoder_loss(model, batch)[0].backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_learns_one_segment(learnt: tuple[Vocoder, list[float]]) -> None:
    model, losses = learnt
    assert np.mean(losses[-10:]) < 0.4 * losses[0]
    batch = hum()
    with torch.no_grad():
        wave = model(batch["mel"])
    heard = features.f0(wave[0])
    assert (heard[3:-3] - 150).abs().max() < 3
    assert spectral_distance(wave, batch["wave"]) < spectral_distance(
        griffin_lim(batch["mel"]), batch["wave"]
    )


def test_distance_to_itself_is_zero_and_grows_with_noise() -> None:
    torch.manual_seed(0)
    wave, noise = hum()["wave"], torch.randn(1, 24 * HOP)
    near, far = (spectral_distance(wave + level * noise, wave).item() for level in (1e-3, 1e-1))
    assert spectral_distance(wave, wave).item() == 0
    assert 0 < near < far


def test_half_the_amplitude_is_half_the_distance_plus_ln_2() -> None:
    wave = torch.randn(1, 8 * HOP, generator=torch.Generator().manual_seed(0))
    assert spectral_distance(wave / 2, wave).item() == pytest.approx(0.5 + math.log(2), abs=1e-2)


def test_energy_distance_lets_noise_be_noise() -> None:
    noises = torch.randn(3, 1, 60 * HOP, generator=torch.Generator().manual_seed(0))
    recorded, first, second = noises
    near = energy_distance(first, second, recorded)
    torch.testing.assert_close(energy_distance(first, first, recorded), spectral_distance(first, recorded))
    assert near < 0.6 * spectral_distance(first, recorded)
    for level in (0.7, 1.4):
        assert near < energy_distance(level * first, level * second, recorded)


def test_pitch_loss_wants_the_bell_and_forgets_unvoiced_frames() -> None:
    grid = torch.arange(4.0)
    f0, scores = torch.tensor([[4.0, 0.0]]), torch.zeros(1, 2, 4)
    assert pitch_loss(scores, f0, grid).item() == pytest.approx(math.log(4))
    scores[0, 0, 2] = 10
    assert pitch_loss(scores, f0, grid) > pitch_loss(-0.5 * (2 - grid).square().expand(1, 2, 4), f0, grid)
    assert pitch_loss(scores, 0 * f0, grid) == 0


def test_griffin_lim_gives_a_tone_back() -> None:
    wave = 0.3 * torch.sin(2 * math.pi * 500 * torch.arange(40 * HOP) / 16_000)[None]
    back = griffin_lim(features.log_mel(wave))
    assert back.shape == wave.shape
    inside = slice(3 * HOP, 37 * HOP)
    spectrum = torch.fft.rfft(back[0, inside]).abs()
    assert spectrum.argmax().item() * 16_000 / (34 * HOP) == pytest.approx(500, abs=10)
    assert back[0, inside].square().mean().sqrt().item() == pytest.approx(0.3 / math.sqrt(2), rel=0.15)
