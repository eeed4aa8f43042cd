"""Each way to break a sound does what it says, by how much it says, and nothing at its neutral setting."""

import numpy as np
import pytest
import torch

from slmlab.errors import LabError
from slmlab.models.vocoder import Vocoder, VocoderConfig
from slmlab.notebook import damage
from slmlab.sound import SAMPLE_RATE, audio, features

SECONDS = np.arange(SAMPLE_RATE) / SAMPLE_RATE
TONE = (0.3 * np.sin(2 * np.pi * 200 * SECONDS) + 0.1 * np.sin(2 * np.pi * 5000 * SECONDS)).astype(np.float32)


@pytest.mark.parametrize(
    "untouched",
    [
        damage.noisy(TONE, 80),
        damage.muffled(TONE, 8000),
        damage.overdriven(TONE, 0),
        damage.played_faster(TONE, 1),
        damage.stuck(TONE, 0),
    ],
)
def test_neutral_settings_change_nothing(untouched):
    np.testing.assert_array_equal(untouched, TONE)


@pytest.mark.parametrize("snr", [30.0, 10.0, 0.0])
def test_noise_is_as_far_below_the_speech_as_asked(snr):
    added = damage.noisy(TONE, snr) - TONE
    found = 10 * np.log10(np.mean(TONE**2) / np.mean(added**2))
    assert found == pytest.approx(snr, abs=0.2)


def test_muffling_takes_what_lies_above_and_leaves_what_lies_below():
    spectrum = np.abs(np.fft.rfft(damage.muffled(TONE, 1000))) / len(TONE) * 2
    assert spectrum[200] == pytest.approx(0.3, rel=0.01)
    assert spectrum[5000] < 1e-4


def test_overdriving_cuts_at_so_many_decibels_below_the_peak():
    cut = damage.overdriven(TONE, 6.0)
    assert np.abs(cut).max() == pytest.approx(np.abs(TONE).max() * 10 ** (-6 / 20))
    quiet = np.abs(TONE) < np.abs(cut).max()
    np.testing.assert_array_equal(cut[quiet], TONE[quiet])


def test_a_faster_tape_is_shorter_and_higher():
    fast = damage.played_faster(TONE, 1.25)
    assert len(fast) == pytest.approx(len(TONE) / 1.25, abs=1)
    f0 = features.f0(fast)
    assert float(f0[f0 > 0].median()) == pytest.approx(250, rel=0.01)


def test_a_stuck_sound_says_a_piece_again():
    rising = np.linspace(0.01, 1, SAMPLE_RATE, dtype=np.float32)
    broken = damage.stuck(rising, 2, start=0.5, seconds=0.1)
    assert len(broken) == len(rising) + 2 * 1600
    again, after = broken[9600:11200], broken[11200:12800]
    np.testing.assert_array_equal(again, after)
    np.testing.assert_allclose(again[damage.FADE :], rising[8000 + damage.FADE : 9600])
    assert again[0] == rising[9600]  # it begins where the sound would have gone on
    np.testing.assert_array_equal(broken[12800:], rising[9600:])


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda: damage.played_faster(TONE, 0), "above 0"),
        (lambda: damage.muffled(TONE, 0), "above 0"),
        (lambda: damage.stuck(TONE, 1, start=0.95), "begin earlier"),
        (lambda: damage.noisy(np.zeros(800), 10), "silent"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(broken, sentence):
    with pytest.raises(LabError, match=sentence):
        broken()


def test_loudness_ignores_pauses_so_noise_is_set_against_speech_alone():
    paused = np.concatenate([TONE, np.zeros(SAMPLE_RATE, dtype=np.float32)])
    added = damage.noisy(paused, 20) - paused
    assert audio.loudness(added) == pytest.approx(audio.loudness(TONE) - 20, abs=0.3)


@pytest.fixture
def sung(monkeypatch):
    """A small vocoder, and the F0 and voicing that it was last asked to say."""
    torch.manual_seed(0)
    vocoder = Vocoder(VocoderConfig(width=8, layers=1, pitch_width=8, pitch_layers=1)).eval()
    asked = {}
    synthesise = vocoder.synthesise

    def remember(mel, f0, voicing, draws=1, smoothing=1):
        asked.update(f0=f0, voicing=voicing)
        return synthesise(mel, f0, voicing, draws, smoothing)

    monkeypatch.setattr(vocoder, "synthesise", remember)
    return vocoder, asked


def test_a_bent_sound_has_whole_frames_and_the_melody_that_was_asked_for(sung):
    vocoder, asked = sung
    assert len(damage.bent(TONE[:-7], vocoder)) == (len(TONE) - 7) // 320 * 320
    plain = asked["f0"]
    damage.bent(TONE, vocoder, melody=0.0)
    assert float(asked["f0"].max() / asked["f0"].min()) == pytest.approx(1)
    damage.bent(TONE[:-7], vocoder, semitones=-2, voicing=-10)
    torch.testing.assert_close(asked["f0"], (plain * 2 ** (-2 / 12)).clamp(min=48.0))
    assert float(asked["voicing"].max()) < 0
