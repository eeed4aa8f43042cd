"""Flat speech is flat, lively speech moves as its text asks, recordings are as noisy as their settings
say.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from slmlab.corpus.engines import speak
from slmlab.corpus.prosody import (
    CROWD,
    KINDS,
    LIVELY,
    STUDIO,
    SYNTHETIC,
    Channel,
    Prosody,
    of_kind,
    plan,
    record,
    transcribe,
)
from slmlab.corpus.voices import voice_pool
from slmlab.errors import LabError
from slmlab.language.sentences import focus_words, sentences
from slmlab.sound import features
from slmlab.sound.pitch import semitones

TONE = (0.1 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)).astype(np.float32)


def spread(language: str, kind: str) -> float:
    """Median over utterances of the standard deviation of F0, in semitones."""
    voices = voice_pool("parts", 6)
    found = []
    for i, text in enumerate(sentences(language, "parts", 18, 0)):
        melody = semitones(features.f0(speak(text, language, voices[i % 6], KINDS[kind], i)))
        found.append(float(melody[~melody.isnan()].std()))
    return float(np.median(found))


@pytest.mark.parametrize("language", ["vi", "sw"])
def test_lively_speech_moves_and_synthetic_speech_does_not(language: str):
    assert spread(language, "lively") >= 2.0
    assert spread(language, "synthetic") <= 1.2


def test_a_flat_plan_has_no_movement_at_all():
    planned = plan("Je, Juma anataka chai?", "sw", SYNTHETIC, 3)
    assert {(w.pitch, w.rate, w.gain, w.pause) for w in planned} == {(0.0, 1.0, 0.0, 0.0)}
    assert [w.text for w in planned] == ["Je,", "Juma", "anataka", "chai?"]


def test_questions_rise_and_statements_fall_on_the_last_words():
    tune = Prosody(question_rise=4.0, final_fall=2.0)
    asked = [w.pitch for w in plan("Unataka kunywa chai?", "sw", tune, 0)]
    said = [w.pitch for w in plan("Unataka kunywa chai.", "sw", tune, 0)]
    assert asked == [0.0, 2.0, 4.0]
    assert said == [0.0, -1.0, -2.0]


def test_a_sentence_sinks_by_its_declination():
    pitch = [w.pitch for w in plan("moja mbili tatu", "sw", Prosody(declination=3.0), 0)]
    assert pitch == [1.5, 0.0, -1.5]


def test_names_and_numbers_are_higher_louder_and_slower():
    name = sorted(focus_words("sw"))[0]
    tune = Prosody(focus_rise=3.0, focus_gain=2.0, focus_slowing=1.0)
    plain, focused = plan(f"leo {name.capitalize()}.", "sw", tune, 0)
    assert (plain.pitch, plain.gain, plain.rate) == (0.0, 0.0, 1.0)
    assert (focused.pitch, focused.gain, focused.rate) == (3.0, 2.0, 0.5)


def test_chance_follows_the_seed_and_the_text_decides_the_rest():
    text = "Watoto wanacheza mpira nje ya shule leo jioni."
    assert plan(text, "sw", LIVELY, 5) == plan(text, "sw", LIVELY, 5)
    assert plan(text, "sw", LIVELY, 5) != plan(text, "sw", LIVELY, 6)


def test_a_plan_stays_within_what_people_can_do():
    for seed in range(200):
        for word in plan("Je, Juma na Asha wanataka ndizi tatu?", "sw", LIVELY, seed):
            assert abs(word.pitch) < 16
            assert 0.4 < word.rate < 2.2
            assert abs(word.gain) <= 8
            assert 0 <= word.pause < 1


def test_a_studio_changes_nothing():
    assert record(TONE, STUDIO, 0) is TONE


@pytest.mark.parametrize("snr", [10.0, 20.0, 30.0])
def test_noise_is_as_loud_as_its_setting(snr: float):
    noisy = record(TONE, Channel(noise_snr=(snr, snr)), 4).astype(np.float64)
    scale = (noisy @ TONE) / (TONE.astype(np.float64) @ TONE)
    rest = noisy - scale * TONE
    measured = 10 * math.log10(np.sum((scale * TONE) ** 2) / np.sum(rest**2))
    assert measured == pytest.approx(snr, abs=0.7)


def test_brown_noise_is_deep_and_white_noise_is_not():
    def low_share(colour: float) -> float:
        made = record(TONE, Channel(noise_snr=(0.0, 0.0), noise_colour=(colour, colour)), 1)
        power = np.abs(np.fft.rfft(made)) ** 2
        power[870:890] = 0  # the tone
        return float(power[:1000].sum() / power.sum())

    assert low_share(0.0) == pytest.approx(1000 / 16_000, abs=0.02)
    assert low_share(2.0) > 0.8


def test_a_room_rings_on_and_then_falls_by_sixty_decibels():
    click = np.zeros(16_000, np.float32)
    click[1_000] = 0.5
    heard = record(click, Channel(room_share=1.0, room_seconds=(0.3, 0.3), room_level=(-6.0, -6.0)), 2)
    tail = 20 * np.log10(np.sqrt(np.mean(heard[1_100:1_500] ** 2)))
    later = 20 * np.log10(np.sqrt(np.mean(heard[1_100 + 2_400 : 1_500 + 2_400] ** 2)))
    assert tail - later == pytest.approx(30, abs=3)  # half of the 0.3 s, half of the 60 dB
    assert np.abs(heard[:1_000]).max() < 1e-6


def test_a_recording_keeps_its_length_and_never_clips():
    for seed in range(30):
        made = record(8 * TONE, CROWD, seed)
        assert len(made) == len(TONE)
        assert made.dtype == np.float32
        assert np.abs(made).max() <= 0.971


def test_loudness_varies_between_recordings_as_its_setting_says():
    levels = [np.std(record(TONE, Channel(noise_snr=(60, 60), gain_spread=3.0), s)) for s in range(200)]
    assert np.std(20 * np.log10(levels)) == pytest.approx(3 * 0.88, abs=0.4)  # a normal cut at 2 sigma


def test_four_transcripts_in_a_hundred_are_wrong_by_one_word():
    others = ["ndizi nne sokoni", "habari za asubuhi"]
    text = "Mama alinunua ndizi tatu sokoni."
    made = [transcribe(text, others, CROWD, seed) for seed in range(2_000)]
    wrong = [t for t in made if t != text]
    assert 0.03 < len(wrong) / len(made) < 0.05
    lengths = {len(t.split()) for t in wrong}
    assert lengths == {4, 5, 6}
    assert all(transcribe(text, others, STUDIO, seed) == text for seed in range(50))


def test_the_authentic_arm_is_the_lively_one_recorded_by_a_crowd():
    assert KINDS["authentic"] == replace(KINDS["lively"], recording=CROWD)


def test_unknown_kinds_are_named():
    with pytest.raises(LabError, match="sung"):
        of_kind("sung")
