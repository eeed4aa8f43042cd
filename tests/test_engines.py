"""Speech is a function of its arguments, voices are apart, pools are disjoint, and errors are sentences."""

import itertools
import json
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slmlab.corpus.engines import Espeak, check, engine_of, speak, trim
from slmlab.corpus.prosody import KINDS, PlannedWord, Prosody, plan
from slmlab.corpus.voices import POOLS, Voice, voice_pool
from slmlab.errors import LabError
from slmlab.sound import features

SENTENCE = "Mama alinunua ndizi tatu sokoni pamoja na Juma leo."
VOICE = Voice("v", pitch=120.0)


def median_f0(wave: np.ndarray) -> float:
    f0 = features.f0(wave)
    return float(f0[f0 > 0].median())


def test_the_same_seed_gives_the_same_bytes_whatever_was_said_before():
    breathy = replace(VOICE, breath=0.9)
    first = speak(SENTENCE, "sw", breathy, KINDS["authentic"], 7)
    speak("Bạn có khoẻ không?", "vi", VOICE, KINDS["lively"], 1)
    assert speak(SENTENCE, "sw", breathy, KINDS["authentic"], 7).tobytes() == first.tobytes()
    assert speak(SENTENCE, "sw", breathy, KINDS["authentic"], 8).tobytes() != first.tobytes()


def test_speech_has_the_promised_level_and_little_silence_around_it():
    wave = speak(SENTENCE, "sw", VOICE, KINDS["synthetic"], 0)
    level = np.abs(wave)
    sounding = np.flatnonzero(level > 0.01 * level.max())
    assert wave.dtype == np.float32
    assert level.max() < 1
    assert sounding[0] <= 0.151 * 16_000
    assert len(wave) - sounding[-1] <= 0.151 * 16_000 + 1
    assert 20 * np.log10(np.sqrt(np.mean(wave[sounding[0] : sounding[-1]] ** 2))) == pytest.approx(-23, abs=2)


@pytest.mark.parametrize("language", ["sw", "vi"])
@pytest.mark.parametrize("hertz", [90.0, 140.0, 250.0])
def test_a_voice_speaks_at_its_register(language: str, hertz: float):
    text = SENTENCE if language == "sw" else "Anh Nam mua ba quả cam ở chợ sáng nay."
    wave = speak(text, language, Voice("v", pitch=hertz), KINDS["synthetic"], 0)
    assert abs(12 * math.log2(median_f0(wave) / hertz)) < 2


def test_the_tract_moves_resonances_but_neither_pitch_nor_pace():
    long, short = (
        speak(SENTENCE, "sw", replace(VOICE, tract=t), KINDS["synthetic"], 0) for t in (0.88, 1.14)
    )
    assert median_f0(short) == pytest.approx(median_f0(long), rel=0.05)
    assert len(short) == pytest.approx(len(long), rel=0.08)
    centres = []
    for wave in (long, short):
        mel = features.log_mel(wave)[0].exp()
        centres.append(float((mel.mean(0) * torch.arange(80)).sum() / mel.mean(0).sum()))
    assert centres[1] > centres[0] + 2


def test_every_word_is_said_even_in_the_liveliest_sentence():
    """espeak-ng's own SSML loses words of sentences like this one."""
    text = "Bác Trang vừa lau bàn vừa nghe đài."
    flat = speak(text, "vi", VOICE, KINDS["synthetic"], 0)
    for seed in range(20):
        lively = speak(text, "vi", VOICE, replace(KINDS["lively"], rate_spread=0.0), seed)
        energy = features.energy(lively)
        spoken = float((energy > energy.max() - 30).sum())
        assert spoken > 0.6 * len(flat) / 320


def test_a_raised_word_is_raised_alone():
    words = ["mama", "alinunua", "ndizi", "tatu"]
    melodies = []
    for rise in (0.0, 8.0):
        planned = tuple(PlannedWord(w, pitch=rise * (w == "alinunua")) for w in words)
        melodies.append(features.f0(engine_of("espeak-ng").say(planned, "sw", VOICE, 0.3, 0))[:140])
    plain, raised = melodies
    change = 12 * torch.log2(raised / plain)[(raised > 0) & (plain > 0)]
    assert change[:10].abs().max() < 0.5
    assert change[25:45].median() > 5
    assert change[-20:].abs().max() < 0.5


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("parts", 60),
        ("judge_a", 30),
        ("judge_b", 30),
        ("backbone", 40),
        ("authentic", 30),
        ("dev", 10),
        ("test", 20),
    ],
)
def test_pools_are_as_large_as_promised_and_always_the_same(name: str, least: int):
    pool = voice_pool(name, least)
    assert len({v.id for v in pool}) == least
    assert pool == voice_pool(name, least)
    assert pool[:5] == voice_pool(name, 5)


def test_no_voice_is_in_two_pools():
    everybody = [v for name, (_, size) in POOLS.items() for v in voice_pool(name, size)]
    body = {(v.pitch, v.tract) for v in everybody}
    assert len(body) == len(everybody) == sum(size for _, size in POOLS.values())
    ranges = sorted((start, start + size) for start, size in POOLS.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ranges))


def test_the_voices_of_a_pool_lie_apart():
    """Each differs from its nearest neighbour by about a semitone or by 2 % of tract, or by more of one of
    them.
    """
    for name in ("test", "authentic"):
        for a, b in itertools.combinations(voice_pool(name, 20), 2):
            pitch = abs(12 * math.log2(a.pitch / b.pitch))
            tract = abs(math.log(a.tract / b.tract)) * 100
            assert math.hypot(pitch, tract / 2) > 1


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (lambda: voice_pool("nobody", 3), "nobody"),
        (lambda: voice_pool("dev", 500), "500"),
        (lambda: speak("ok", "xx", VOICE, Prosody(), 0), "xx"),
        (lambda: speak("ok", "../vi", VOICE, Prosody(), 0), "../vi"),
        (lambda: speak("?!", "sw", VOICE, Prosody(), 0), "nothing to say"),
        (lambda: speak("", "sw", VOICE, Prosody(), 0), "nothing to say"),
        (lambda: engine_of("hal"), "hal"),
        (lambda: engine_of("mms:/nowhere"), "/nowhere"),
    ],
)
def test_what_cannot_be_spoken_is_named(act, named: str):
    with pytest.raises(LabError, match=named):
        act()


def test_the_engine_reports_itself():
    assert check() == engine_of("espeak-ng").name
    assert check().startswith("espeak-ng 1.")


def test_trim_keeps_at_most_its_margin():
    wave = np.zeros(16_000, np.float32)
    wave[8_000:9_000] = 0.5
    trimmed = trim(wave)
    assert len(trimmed) == 1_000 + 2 * 2_400
    assert trimmed[2_400] == 0.5


@pytest.fixture(scope="module")
def mms_folder(tmp_path_factory: pytest.TempPathFactory):
    """A random VITS of a few thousand weights, saved as a downloaded one would be."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("mms-tts-tiny")
    letters = ["<pad>", *"abcdefghijklmnopqrstuvwxyz", " ", "<unk>"]
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    tokenizer = transformers.VitsTokenizer(
        str(folder / "vocab.json"), language="lao", add_blank=True, normalize=True, phonemize=False
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.VitsConfig(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=16,
        flow_size=16,
        spectrogram_bins=33,
        upsample_initial_channel=32,
        upsample_rates=[8, 8],
        upsample_kernel_sizes=[16, 16],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
        prior_encoder_num_flows=1,
        prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1,
        duration_predictor_num_flows=1,
        sampling_rate=16_000,
    )
    transformers.VitsModel(config).save_pretrained(folder)
    return folder


def test_without_transformers_one_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.json").touch()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(LabError, match="An MMS-TTS model needs transformers: run `pip install transformers`"):
        engine_of(f"mms:{tmp_path}")


def test_an_mms_folder_speaks_and_repeats_itself(mms_folder, languages_folder):
    (languages_folder / "lo").mkdir()
    (languages_folder / "lo" / "language.toml").write_text('name = "Lao"\nwords = "characters"\n')
    engine = engine_of(f"mms:{mms_folder}")
    first = engine.say((PlannedWord("sabaidee"),), "lo", VOICE, 1.0, 3)
    assert first.ndim == 1
    assert len(first) > 100
    assert np.isfinite(first).all()
    assert engine.say((PlannedWord("sabaidee"),), "lo", VOICE, 1.0, 3).tobytes() == first.tobytes()
    assert engine.say((PlannedWord("sabaidee"),), "lo", VOICE, 1.0, 4).tobytes() != first.tobytes()
    assert engine.name.startswith("mms ")


def test_long_paths_are_no_matter_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import espeakng_loader

    long = tmp_path / ("x" * 100) / ("y" * 100)
    long.mkdir(parents=True)
    (long / "data").symlink_to(espeakng_loader.get_data_path())
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: long / "data")
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    engine = Espeak()
    place = Path(engine._scratch.name)
    plain = plan("habari", "sw", Prosody(), 0)
    assert len(engine.say(plain, "sw", Voice("check", pitch=120.0), 1.0, 0)) > 3000
    engine._scratch.cleanup()
    assert not place.exists()
    assert sorted(path.name for path in long.iterdir()) == ["data"]
