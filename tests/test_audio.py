"""Every odd thing a person may hand over as a sound: read as 16 kHz mono, or refused in one sentence."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slmlab import files
from slmlab.errors import LabError
from slmlab.sound import audio


def tone(seconds: float = 1.0, rate: int = 16_000, hz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def hiss(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, int(seconds * 16_000))


def save(path: Path, samples: np.ndarray, rate: int = 16_000, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.mark.parametrize(
    ("name", "rate", "subtype"),
    [
        ("a.wav", 8_000, "PCM_16"),
        ("a.wav", 48_000, "PCM_24"),
        ("a.wav", 16_000, "FLOAT"),
        ("a.wav", 16_000, "PCM_U8"),
        ("a.flac", 44_100, "PCM_16"),
        ("a.mp3", 22_050, None),
        ("a.ogg", 16_000, None),
    ],
)
def test_any_rate_depth_and_container_becomes_the_same_tone(tmp_path, name, rate, subtype):
    wave, info = audio.read(save(tmp_path / name, tone(1.0, rate), rate, subtype))
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    assert len(wave) == pytest.approx(16_000, abs=1_700)  # an MP3 begins and ends with padding of its own
    assert info.sample_rate == rate
    assert np.abs(np.fft.rfft(wave, 16_000)).argmax() == 440
    middle = wave[4_000:12_000]
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)


def test_stereo_is_averaged(tmp_path):
    both = np.stack([tone(level=0.6), tone(level=0.2)], axis=1)
    wave, _ = audio.read(save(tmp_path / "a.wav", both))
    np.testing.assert_allclose(wave, tone(level=0.4), atol=1e-4)


def test_a_tenth_of_a_second_is_read(tmp_path):
    wave, info = audio.read(save(tmp_path / "a.wav", tone(0.1)))
    assert len(wave) == 1_600
    assert info.seconds == pytest.approx(0.1)


def test_ten_minutes_are_read_unless_bounded(tmp_path):
    path = save(tmp_path / "long.wav", np.tile(tone(1.0, 8_000), 600), 8_000)
    wave, info = audio.read(path)
    assert info.seconds == 600
    assert len(wave) == 600 * 16_000
    with pytest.raises(LabError, match=r"long\.wav lasts 600\.0 s, at most 30 s"):
        audio.read(path, max_seconds=30)


def test_clipping_is_reported(tmp_path):
    _, clean = audio.read(save(tmp_path / "clean.wav", tone()))
    _, clipped = audio.read(save(tmp_path / "clipped.wav", np.clip(3 * tone(), -1, 1)))
    assert clean.clipped == 0
    assert clipped.clipped == pytest.approx(1 - 2 / np.pi * np.arcsin(1 / 1.5), abs=0.01)


def test_float_files_beyond_full_scale_are_scaled_down(tmp_path):
    wave, info = audio.read(save(tmp_path / "a.wav", 8 * tone(), subtype="FLOAT"))
    assert info.clipped > 0.8
    assert np.abs(wave).max() == pytest.approx(1.0, rel=1e-3)


def cut(path: Path, n_bytes: int) -> Path:
    path.write_bytes(path.read_bytes()[:n_bytes])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "absent.wav", "absent.wav does not exist"),
        (lambda p: p, "is a folder"),
        (lambda p: cut(save(p / "a.wav", tone()), 0), r"a.wav is empty \(0 bytes\)"),
        (lambda p: cut(save(p / "a.wav", tone()), 20), "a.wav is cut off: 20 of 32044 bytes"),
        (lambda p: cut(save(p / "a.wav", tone()), 9_000), "a.wav is cut off: 9000 of 32044 bytes"),
        (lambda p: cut(save(p / "a.flac", tone()), 30), "a.flac could not be decoded"),
        (lambda p: cut(save(p / "a.mp3", tone(3.0)), 2_000), "a.mp3 is cut off"),
        (lambda p: cut(save(p / "a.ogg", hiss(3.0)), 9_000), "a.ogg is cut off"),
        (lambda p: cut(save(p / "a.ogg", hiss(3.0)), -1), "a.ogg is cut off"),
        (lambda p: Path("/dev/null"), "is a pipe or a device"),
        (lambda p: save(p / "a.wav", np.zeros(0)), "holds no samples"),
        (lambda p: save(p / "a.wav", np.zeros(16_000)), "a.wav is silent"),
        (
            lambda p: save(p / "a.wav", np.stack([tone(), -tone()], 1)),
            "average of the channels of .* is silent",
        ),
        (lambda p: save(p / "a.wav", np.array([0.1, np.nan]), subtype="FLOAT"), "not numbers"),
        (lambda p: save(p / "a.wav", np.array([0.1, np.inf]), subtype="FLOAT"), "not numbers"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path, make, message):
    with pytest.raises(LabError, match=message) as raised:
        audio.read(make(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"hello, I am text", b"\x00" * 5_000, b"RIFF", bytes(range(256)) * 40])
def test_what_is_no_sound_is_refused(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(LabError, match=r"a\.wav"):
        audio.read(path)


def test_a_cut_off_flac_is_refused(tmp_path):
    with pytest.raises(LabError, match=r"a.flac"):
        audio.read(cut(save(tmp_path / "a.flac", hiss(4.0)), 60_000))


def test_a_streamed_wav_without_a_known_length_is_read(tmp_path):
    content = io.BytesIO()
    soundfile.write(content, tone(), 16_000, format="WAV", subtype="PCM_16")
    streamed = bytearray(content.getvalue())
    streamed[4:8] = streamed[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(streamed)
    assert len(audio.read(tmp_path / "a.wav")[0]) == 16_000


def test_written_sound_returns_and_carries_its_mark(tmp_path):
    path = tmp_path / "new" / "a.wav"
    audio.write(path, tone())
    wave, info = audio.read(path)
    np.testing.assert_allclose(wave, tone(), atol=1e-4)
    assert soundfile.info(path).subtype == "PCM_16"
    assert info.generated
    assert audio.read(path)[1].generated
    assert b"generated by slmlab" in path.read_bytes()[:200]


def test_recordings_are_written_without_the_mark(tmp_path):
    audio.write(tmp_path / "a.wav", tone(), generated=False)
    assert not audio.read(tmp_path / "a.wav")[1].generated


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    audio.write(path, tone())
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(LabError, match=r"a\.wav could not be written \(.*No space left on device"):
        audio.write(path, tone(2.0))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros((2, 5)), np.array([0.0, np.nan])])
def test_a_wave_that_is_none_is_not_written(tmp_path, wave):
    with pytest.raises(LabError, match="cannot write"):
        audio.write(tmp_path / "a.wav", wave)


def test_resampling_keeps_the_tone_and_removes_what_would_alias():
    kept = audio.resample(tone(1.0, 48_000, 1_000), 48_000)
    np.testing.assert_allclose(kept[1_000:-1_000], tone(1.0, 16_000, 1_000)[1_000:-1_000], atol=1e-3)
    removed = audio.resample(tone(1.0, 48_000, 11_000), 48_000)
    assert np.abs(removed[1_000:-1_000]).max() < 1e-3


def test_loudness_of_a_sine_and_its_independence_of_pauses():
    sine = tone(level=0.5, hz=500)
    expected = 20 * np.log10(0.5 / np.sqrt(2))
    assert audio.loudness(sine) == pytest.approx(expected, abs=0.01)
    assert audio.loudness(np.concatenate([sine, np.zeros(32_000)])) == pytest.approx(expected, abs=0.01)
    assert audio.loudness(audio.with_loudness(sine, -30)) == pytest.approx(-30, abs=0.01)
    assert np.abs(audio.with_loudness(sine, 0)).max() == pytest.approx(0.97, abs=0.01)
