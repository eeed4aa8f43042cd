"""TDSC: who is accepted, who wins, what each variant does, and rounds that survive a kill at any moment."""

import dataclasses
import math
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from slmlab.errors import LabError
from slmlab.models.lm import LMConfig, SpeechLM
from slmlab.preference import tdsc
from slmlab.preference.jury import Hearing, Jury
from slmlab.preference.tdsc import Candidate, TDSCConfig, decide
from slmlab.preference.tune import PreferenceConfig
from slmlab.speech.sampling import SamplingConfig
from slmlab.training import checkpoints
from slmlab.training.loop import TrainConfig
from slmlab.training.presets import ALPHABET

FORK: Any = multiprocessing.get_context("fork")
CONFIG = LMConfig(ALPHABET, ("sw",), width=32, layers=1, heads=2, kv_heads=2, ffn=48)
TRAIN = TrainConfig(steps=4, lr=1e-3, muon_lr=0.0, warmup=1, save_every=0.0)
FREE = SamplingConfig(top_k=20, window=0, longest=1.0)
HOW = TDSCConfig(
    TRAIN, PreferenceConfig(TRAIN, batch=400), rounds=2, prompts=3, candidates=6, sampling=FREE, batch=400
)
TEXTS = ("moja mbili tatu", "moja mbili nne", "moja mbili tano", "moja mbili sita")


def judge(codes: Sequence[Sequence[int]]) -> list[Hearing]:
    return [Hearing("moja mbili tatu" if sum(row) % 2 else "", 1.0) for row in codes]


JURY = Jury("sw", judge, TEXTS[:2], FREE)


def a_model() -> SpeechLM:
    torch.manual_seed(0)
    return SpeechLM(CONFIG).eval()


def tried(wer: float, repetition: float = 0.0, length: float = 1.0, seed: int = 0) -> Candidate:
    return Candidate(0, 0, "moja", 1.0, seed, (1,), "", wer, repetition, length)


def fates(*candidates: Candidate, **settings: Any) -> list[str]:
    return [c.fate for c in decide(candidates, dataclasses.replace(HOW, **settings))]


def test_the_best_accepted_wins_and_the_worst_of_equal_length_loses() -> None:
    assert fates(tried(0.2), tried(0.1), tried(0.5), tried(0.9), tried(1.0, length=2.1)) == [
        "accepted", "winner", "words", "loser", "length",
    ]  # fmt: skip


def test_limits_are_the_paper_s() -> None:
    """WER < 40 %, repetition < 10 %, length in [0.5, 2.0]."""
    assert fates(tried(0.4), tried(0.0, 0.1), tried(0.0, 0.0, 0.5), tried(0.1, 0.09, 2.0)) == [
        "loser", "repetition", "winner", "accepted",
    ]  # fmt: skip
    assert fates(tried(0.0, 1.0), max_repetition=math.inf) == ["winner"]
    assert fates(tried(0.0, 0.0, 9.0), longest=math.inf) == ["winner"]


def test_without_a_winner_there_is_no_loser() -> None:
    assert fates(tried(0.9), tried(0.0, length=0.1)) == ["words", "length"]


def test_chance_decides_between_equals() -> None:
    assert fates(tried(0.0, seed=2), tried(0.0, seed=1)) == ["accepted", "winner"]


def test_both_schedules_and_every_variant_can_be_asked_for() -> None:
    variants = {name: dataclasses.replace(HOW, **change) for name, change in tdsc.VARIANTS.items()}
    hottest = {name: [how.schedule(k)[-1] for k in range(5)] for name, how in variants.items()}
    assert hottest["tdsc"] == [0.8, 0.9, 1.0, 1.1, 1.2]
    assert hottest["tdsc.hot"] == [1.3, 1.4, 1.5, 1.6, 1.7]
    assert hottest["tdsc.fixed-temperature"] == [0.8] * 5
    assert hottest["tdsc.one-temperature"] == hottest["self-training"] == [1.0] * 5
    assert variants["tdsc.no-dpo"].dpo is None
    freest = variants["tdsc.open"]
    assert (freest.schedule(4), freest.sampling.top_k, freest.sampling.top_p) == ((1.0,), 0, 1.0)
    with pytest.raises(LabError, match="candidates=7 at 3 temperatures"):
        dataclasses.replace(HOW, candidates=7)


def test_every_try_has_its_fate(tmp_path: Path) -> None:
    model = a_model()
    tuned = tdsc.align(model, TEXTS, HOW, tmp_path, JURY)
    rows = tdsc.tries(tmp_path)
    assert len(rows) == 2 * 3 * 6
    assert rows["seed"].nunique() == len(rows)
    assert list(rows.groupby(["round", "place", "temperature"]).size()) == [2] * 18
    for row in rows.itertuples():
        assert row.heard == ("moja mbili tatu" if sum(row.tokens) % 2 else "")
        assert row.fate in ("winner", "accepted") if row.heard else row.fate in ("words", "loser")
    summary = tdsc.rounds(tmp_path)
    assert list(summary["hottest"]) == [1.0, 1.0]
    assert summary.loc[0, "pass_rate"] == (rows[rows["round"] == 0]["heard"] != "").mean()
    table = tdsc.by_temperature(rows)
    assert list(table.index) == [0.7, 0.8, 0.9, 1.0]
    assert table["share"].sum() == pytest.approx(1)
    assert not torch.equal(tuned.embed_codes, model.embed_codes)
    same = checkpoints.load(tmp_path / "round-1" / "model", SpeechLM)[0]
    assert torch.equal(same.embed_codes, tuned.embed_codes)


def test_a_judge_that_rejects_everything_stops_nothing(tmp_path: Path) -> None:
    model = a_model()
    deaf = dataclasses.replace(JURY, judge=lambda codes: [Hearing("")] * len(codes))
    tuned = tdsc.align(model, TEXTS, HOW, tmp_path, deaf)
    assert torch.equal(tuned.embed_codes, model.embed_codes)
    assert list(tdsc.rounds(tmp_path)["pass_rate"]) == [0, 0]


def test_where_no_round_is_done_there_is_nothing_to_read(tmp_path: Path) -> None:
    for read in (tdsc.rounds, tdsc.tries):
        with pytest.raises(LabError, match="has no round of TDSC with a"):
            read(tmp_path)


def test_rejection_learns_from_winners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[list[tuple[int, ...]]] = []

    def hear(model: SpeechLM, language: str, texts: Sequence[str], codes: Any, *_: Any) -> SpeechLM:
        heard.append(list(codes))
        return model

    monkeypatch.setattr(tdsc, "fine_tune", hear)
    for learn_from in ("winner", "accepted"):
        how = dataclasses.replace(HOW, rounds=1, dpo=None, learn_from=learn_from)
        tdsc.align(a_model(), TEXTS, how, tmp_path / learn_from, JURY)
    rows = tdsc.tries(tmp_path / "winner")
    assert heard[0] == [tuple(row) for row in rows[rows["fate"] == "winner"]["tokens"]]
    assert heard[1] == [tuple(row) for row in rows[rows["fate"].isin(tdsc.PASSED)]["tokens"]]
    assert 0 < len(heard[0]) < len(heard[1])


def test_a_judge_that_accepts_everything_leaves_dpo_out(tmp_path: Path) -> None:
    kind = dataclasses.replace(JURY, judge=lambda codes: [Hearing("moja mbili tatu")] * len(codes))
    tdsc.align(a_model(), TEXTS, dataclasses.replace(HOW, rounds=1), tmp_path, kind)
    assert (tmp_path / "round-0" / "sft").exists()
    assert not (tmp_path / "round-0" / "dpo").exists()


def test_too_few_texts_and_another_run_s_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="a round of TDSC has 3 texts, found 2"):
        tdsc.align(a_model(), TEXTS[:2], HOW, tmp_path, JURY)
    none = dataclasses.replace(HOW, rounds=0)
    model = a_model()
    assert tdsc.align(model, TEXTS, none, tmp_path, JURY) is model
    with pytest.raises(LabError, match="holds a run with other settings"):
        tdsc.align(a_model(), TEXTS, HOW, tmp_path, JURY)


def waits_for(file: Path) -> None:
    until = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.001)


def slow(codes: Sequence[Sequence[int]]) -> list[Hearing]:
    time.sleep(0.02)
    return judge(codes)


@pytest.fixture(scope="module")
def task() -> Iterator[tuple[Any, ...]]:
    """A run of six chunks a round, all but its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tdsc, "CHUNK", 1)
        yield a_model(), TEXTS, HOW, dataclasses.replace(JURY, judge=slow)


@pytest.fixture(scope="module")
def whole(task: tuple[Any, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that was never killed."""
    folder = tmp_path_factory.mktemp("whole")
    tdsc.align(*task[:3], folder, task[3])
    return folder


@pytest.mark.parametrize(
    "seen", ["candidates/000001.jsonl", "sft/training.safetensors", "dpo/training.safetensors"]
)
def test_a_round_killed_anywhere_ends_as_one_that_was_not(
    tmp_path: Path, task: tuple[Any, ...], whole: Path, seen: str
) -> None:
    runner = FORK.Process(target=tdsc.align, args=(*task[:3], tmp_path, task[3]))
    runner.start()
    waits_for(tmp_path / "round-0" / seen)
    runner.kill()
    runner.join()
    assert not (tmp_path / "round-1" / "round.json").exists()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("candidates/*.jsonl")}
    assert before
    resumed = tdsc.align(*task[:3], tmp_path, task[3])
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    uncut = checkpoints.load(whole / "round-1" / "model", SpeechLM)[0]
    for name, tensor in checkpoints.weights(uncut).items():
        assert torch.equal(tensor, checkpoints.weights(resumed)[name]), name
    assert tdsc.tries(tmp_path).equals(tdsc.tries(whole))
