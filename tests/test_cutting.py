"""Long readings cut by their text."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slmlab import cli
from slmlab.corpus import cutting
from slmlab.corpus.collections import read
from slmlab.corpus.cutting import best_path, cut
from slmlab.corpus.engines import speak
from slmlab.corpus.prosody import of_kind
from slmlab.corpus.voices import voice_pool
from slmlab.errors import LabError
from slmlab.language.sentences import sentences
from slmlab.sound import audio
from slmlab.speech.chain import open_chain


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [symbol for symbol, _ in itertools.groupby(path) if symbol]


@given(st.integers(1, 6), st.lists(st.integers(1, 2), min_size=1, max_size=3), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_path_is_the_best_of_all_that_read_so(frames: int, letters: list[int], seed: int):
    scores = np.log(np.random.default_rng(seed).dirichlet(np.ones(3), frames))
    every = [path for path in itertools.product(range(3), repeat=frames) if collapsed(path) == letters]
    if not every:
        with pytest.raises(LabError, match="The text goes on where the recording ends"):
            best_path(scores, np.array(letters))
        return
    states = best_path(scores, np.array(letters))
    said = tuple(letters[state // 2] if state % 2 else 0 for state in states)
    assert collapsed(said) == letters
    best = max(sum(scores[range(frames), path]) for path in every)
    assert sum(scores[range(frames), said]) == pytest.approx(best)


def test_a_window_that_moves_finds_the_same_path(monkeypatch: pytest.MonkeyPatch):
    letters = np.random.default_rng(0).integers(1, 6, 300)
    scores = np.full((900, 6), -4.0)
    scores[np.arange(300) * 3 + 1, letters] = 0.0
    scores[:, 0] = -1.0
    whole = best_path(scores, letters)
    monkeypatch.setattr(cutting, "WINDOW", 60)
    assert (best_path(scores, letters) == whole).all()
    assert (whole[np.arange(300) * 3 + 1] == 2 * np.arange(300) + 1).all()


@pytest.fixture(scope="module")
def reading() -> tuple[np.ndarray, list[str], np.ndarray]:
    """Twelve sentences of the stand-in, joined as they are, and where each begins and ends, s."""
    texts = sentences("sw", "test", 12, 7)
    voice, kind = voice_pool("test", 1)[0], of_kind("synthetic")
    pieces = [speak(text, "sw", voice, kind, i) for i, text in enumerate(texts)]
    ends = np.cumsum([len(piece) for piece in pieces]) / 16_000
    return np.concatenate(pieces), texts, np.stack([np.append(0, ends[:-1]), ends], 1)


def test_a_joined_reading_comes_apart_where_it_was_joined(reading):
    wave, texts, truth = reading
    judge = open_chain("tiny").judge("b", "sw")
    cuts = cut(torch.tensor(wave), texts, judge, judge.config.alphabet, "sw")
    assert [each.text for each in cuts] == texts
    found = np.array([(each.start, each.end) for each in cuts])
    assert (np.abs(found - truth) <= 0.25).all(1).mean() >= 11 / 12
    assert (found[1:, 0] >= found[:-1, 1]).all()
    assert min(each.confidence for each in cuts) > cutting.DOUBTFUL


def test_a_text_that_was_not_said_is_doubtful_and_its_neighbours_far_off_are_not(reading):
    wave, texts, _ = reading
    judge = open_chain("tiny").judge("b", "sw")
    wrong = [*texts[:5], "Kitabu kizuri kinanunuliwa sokoni.", *texts[6:]]
    cuts = cut(torch.tensor(wave), wrong, judge, judge.config.alphabet, "sw")
    confident = [each.confidence > cutting.DOUBTFUL for each in cuts]
    assert not confident[5]
    assert all(confident[:4] + confident[7:])


def test_the_command_writes_what_import_reads(reading, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    wave, texts, _ = reading
    audio.write(tmp_path / "chapter.wav", wave)
    wrong = [*texts[:5], "Kitabu kizuri kinanunuliwa sokoni.", *texts[6:]]
    (tmp_path / "chapter.txt").write_text("\n\n".join(wrong), encoding="utf-8")
    command = ["cut", str(tmp_path / "chapter.wav"), str(tmp_path / "chapter.txt"), "--language", "sw"]
    assert cli.main([*command, "--preset", "tiny"]) == 0
    said = capsys.readouterr().out
    doubtful = pd.read_csv(tmp_path / "chapter" / "doubtful.tsv", sep="\t")
    assert wrong[5] in list(doubtful["text"])
    assert f"cut: 12 utterances into {tmp_path / 'chapter'}, {len(doubtful)} of them doubtful" in said
    assert f"next: slmlab import {tmp_path / 'chapter'} --language sw" in said
    clips = read(tmp_path / "chapter")
    good = [clip for clip in clips if not clip.fault]
    assert len(good) == 12 - len(doubtful)
    assert {clip.text for clip in good} < set(wrong)
    assert audio.read(good[0].path)[1].generated, "the mark of generated speech is kept"
    assert cli.main([*command, "--preset", "tiny"]) == 2
    assert "holds something already" in capsys.readouterr().err


def test_half_a_recording_is_no_reading_of_the_text(reading):
    wave, texts, _ = reading
    judge = open_chain("tiny").judge("b", "sw")
    with pytest.raises(LabError, match="The text goes on where the recording ends"):
        cut(torch.tensor(wave[:16_000]), texts, judge, judge.config.alphabet, "sw")
    with pytest.raises(LabError, match="outside the alphabet"):
        cut(torch.tensor(wave), ["日本"], judge, judge.config.alphabet, "sw")
