"""Mel against librosa and nnAudio, F0 against melodies that are known, energy against sines."""

import warnings

import librosa
import numpy as np
import pytest
import torch

from slmlab.errors import LabError
from slmlab.sound import features
from slmlab.sound.mel import mel_bin, mel_filters, mel_interpolation, mel_peaks
from slmlab.sound.pitch import semitones

torch.set_num_threads(1)


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> np.ndarray:
    samples = level * np.random.default_rng(seed).standard_normal(int(16_000 * seconds))
    return samples.astype(np.float32)


def vowel(melody: np.ndarray, hiss: float = 0.003) -> np.ndarray:
    """A sung 'a': harmonics of the melody (s) in Hz under two formants, and a little hiss."""
    phase = 2 * np.pi * np.cumsum(melody) / 16_000
    wave = np.zeros_like(melody)
    for h in range(1, 60):
        formants = (
            1
            + 3 * np.exp(-(((h * melody - 700) / 150) ** 2))
            + 2 * np.exp(-(((h * melody - 1_200) / 200) ** 2))
        )
        wave += np.where(h * melody < 7_500, formants / h, 0) * np.sin(h * phase + h)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32) + noise(len(wave) / 16_000, hiss)


def glide(low: float, high: float, seconds: float = 3.0, turns_per_second: float = 1.0) -> np.ndarray:
    time = np.arange(int(16_000 * seconds)) / 16_000
    return low * (high / low) ** (0.5 - 0.5 * np.cos(2 * np.pi * turns_per_second * time))


def test_mel_equals_librosa():
    wave = vowel(glide(120, 240)) + noise(3.0, 0.02)
    ours = features.log_mel(wave)[0].exp().numpy()
    theirs = librosa.feature.melspectrogram(
        y=wave, sr=16_000, n_fft=1024, hop_length=320, n_mels=80, power=1.0
    )
    np.testing.assert_allclose(ours, theirs.T[: len(ours)], rtol=1e-3, atol=1e-5)


def test_mel_equals_nnaudio_own_spectrogram():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nnAudio.features import MelSpectrogram

        layer = MelSpectrogram(
            sr=16_000, n_fft=1024, hop_length=320, n_mels=80, power=1.0, pad_mode="constant", verbose=False
        )
    wave = torch.as_tensor(noise(1.0))
    theirs = layer(wave)[0].T[:50]
    torch.testing.assert_close(features.log_mel(wave)[0].exp(), theirs, rtol=1e-3, atol=1e-5)


def test_mel_filters_are_librosas():
    theirs = librosa.filters.mel(sr=16_000, n_fft=1024, n_mels=80)
    np.testing.assert_allclose(mel_filters().numpy(), theirs, atol=1e-7)


def test_a_filters_peak_is_its_own_bin():
    peaks = mel_peaks()
    assert peaks[[0, 1]].tolist() == pytest.approx([37.24, 74.47], abs=0.01)
    assert [mel_bin(peaks[m].item()) for m in (0, 40, 79)] == pytest.approx([0, 40, 79], abs=1e-4)


def test_a_line_over_the_mel_bins_is_read_as_that_line():
    centres = mel_filters() @ torch.linspace(0, 8000, 513) / mel_filters().sum(1)
    hertz = torch.tensor([100.0, 440.0, 1234.5, 6000.0])
    torch.testing.assert_close(mel_interpolation(hertz) @ centres, hertz, rtol=1e-4, atol=0)


def test_shapes_and_floor():
    waves = torch.zeros(2, 16_100)
    waves[1] = torch.as_tensor(noise(2.0)[:16_100])
    mel = features.log_mel(waves)
    assert mel.shape == (2, 50, 80)
    assert (mel[0] == np.log(np.float32(1e-5))).all()
    torch.testing.assert_close(mel[1:], features.log_mel(waves[1]), rtol=1e-4, atol=1e-4)
    assert [tuple(part.shape) for part in features.extract(waves[1])] == [(50, 80), (50,), (50,)]


def test_mel_has_finite_gradients_even_in_digital_silence():
    wave = torch.as_tensor(noise(0.5)).clone()
    wave[2_000:6_000] = 0
    wave.requires_grad_()
    with torch.inference_mode():
        features.log_mel(wave)  # what is kept from this call must not spoil the next
    features.log_mel(wave).sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()
    assert wave.grad.abs().max() > 0


def test_a_click_appears_in_the_frame_it_belongs_to():
    wave = np.zeros(16_000, dtype=np.float32)
    wave[320 * 20] = 1.0
    assert features.log_mel(wave)[0].mean(1).argmax() == 20
    level = features.energy(wave)
    assert set(torch.nonzero(level > -79).flatten().tolist()) <= {19, 20, 21}


@pytest.mark.parametrize("level", [0.5, 0.01])
def test_energy_is_the_rms_level(level):
    wave = level * np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    np.testing.assert_allclose(features.energy(wave), 20 * np.log10(level / np.sqrt(2)), atol=0.02)
    assert (features.energy(np.zeros(1_600, dtype=np.float32)) == -80).all()


@pytest.mark.parametrize(("low", "high"), [(65, 90), (80, 140), (120, 240), (200, 420)])
def test_f0_follows_a_known_melody(low, high):
    melody = glide(low, high)
    found, truth = features.f0(vowel(melody)).numpy(), melody[::320]
    assert (found > 0).mean() > 0.98
    cents = 1200 * np.log2(found[found > 0] / truth[found > 0])
    assert np.abs(cents).max() < 50
    assert np.median(np.abs(cents)) < 5


def test_f0_survives_noise_and_a_fast_glide():
    melody = glide(100, 200, turns_per_second=2.5)  # 5 octaves a second, as quick as a Vietnamese tone
    wave = vowel(melody)
    found = features.f0(wave + noise(3.0, 0.3 * wave.std())).numpy()
    voiced = found > 0
    assert voiced.mean() > 0.9
    assert (np.abs(found[voiced] / melody[::320][voiced] - 1) > 0.2).mean() < 0.01


def test_f0_knows_voice_from_noise_and_silence():
    parts = [
        vowel(glide(110, 180, 0.6)),
        noise(0.6, 0.05),
        np.zeros(9_600, dtype=np.float32),
        vowel(glide(220, 300, 0.6)),
    ]
    truth = np.repeat([True, False, False, True], 30)
    found = features.f0(np.concatenate(parts)).numpy() > 0
    assert (found != truth).mean() < 0.04
    assert (features.f0(noise(2.0)) == 0).float().mean() > 0.97
    assert (features.f0(np.zeros(16_000, dtype=np.float32)) == 0).all()


def test_semitones_forget_the_register():
    melody = torch.tensor([0.0, 100, 200, 400, 0])
    torch.testing.assert_close(
        semitones(melody), torch.tensor([torch.nan, -12, 0, 12, torch.nan]), equal_nan=True
    )
    torch.testing.assert_close(semitones(melody), semitones(1.7 * melody), equal_nan=True)
    assert semitones(torch.zeros(3)).isnan().all()


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.zeros(100, dtype=np.float32), "100 samples where one frame needs 320"),
        (np.zeros((2, 3, 400), dtype=np.float32), "found shape"),
        (np.zeros(4_000, dtype=np.int16), "int16"),
        (np.full(4_000, np.nan, dtype=np.float32), "not numbers"),
        (np.zeros((2, 4_000), dtype=np.float32), "found 2 waves"),
    ],
)
def test_what_is_no_wave_is_refused(wave, message):
    with pytest.raises(LabError, match=message):
        features.extract(wave)
