"""DGSA: both sets with their weights, styles of the same speaker, and the ablations as settings."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from slmlab.corpus import pairs as table
from slmlab.corpus.pairs import Pair
from slmlab.errors import LabError
from slmlab.models.lm import LMConfig, SpeechLM
from slmlab.preference import dgsa
from slmlab.preference.dgsa import DGSAConfig, Recording, weigh
from slmlab.preference.jury import Hearing, Jury
from slmlab.preference.tune import PairBatches, PreferenceConfig, fingerprint
from slmlab.speech.sampling import SamplingConfig
from slmlab.training.loop import TrainConfig
from slmlab.training.presets import ALPHABET

CONFIG = LMConfig(ALPHABET, ("vi",), width=32, layers=1, heads=2, kv_heads=2, ffn=48)
TUNE = PreferenceConfig(TrainConfig(steps=3, lr=1e-3, muon_lr=0.0, warmup=1), batch=400)
HOW = DGSAConfig(TUNE, sampling=SamplingConfig(temperature=1.0, longest=1.0))
SPEECH = [
    Recording("một hai", (1, 2, 3), "anh"),
    Recording("ba bốn", (4, 5, 6), "anh"),
    Recording("năm", (7, 8), "chị"),
    Recording("sáu bảy", (9, 9, 9), "chị"),
    Recording("tám", (10, 11), "em"),
]


def judge(codes: Sequence[Sequence[int]]) -> list[Hearing]:
    """Understands recordings, but the one that says 9."""
    words = {recording.tokens: recording.text for recording in SPEECH if 9 not in recording.tokens}
    return [Hearing(words.get(tuple(row), "")) for row in codes]


JURY = Jury("vi", judge, ("chín mười",))


def a_model() -> SpeechLM:
    torch.manual_seed(0)
    return SpeechLM(CONFIG).eval()


def made(folder: Path, how: DGSAConfig = HOW) -> list[Pair]:
    dgsa.align(a_model(), SPEECH, how, folder, JURY)
    return table.read(folder / "pairs.parquet")


@pytest.mark.parametrize(
    ("alpha", "weights"), [(0.3, (1, 0)), (0.5, (1, 0)), (0.8, (0.4, 0.6)), (1.0, (0, 1))]
)
def test_the_schedule_follows_alpha(alpha: float, weights: tuple[float, float]) -> None:
    assert dataclasses.replace(HOW, alpha=alpha).weights() == pytest.approx(weights)


def test_the_ablations_are_settings() -> None:
    variants = {name: dgsa.variant(name, HOW) for name in dgsa.VARIANTS}
    weights = {name: how.weights() for name, how in variants.items()}
    assert weights["dgsa"] == weights["dgsa.random-speaker"] == pytest.approx((0.4, 0.6))
    assert weights["dpo"] == (0, 1)
    assert weights["dgsa.no-expressivity"] == pytest.approx((0.4, 0))
    assert weights["dgsa.no-stability"] == pytest.approx((0, 0.6))
    assert weights["dgsa.fixed-weights"] == (0.5, 0.5)
    assert variants["dgsa.no-preference"] == dataclasses.replace(HOW, tune=dataclasses.replace(TUNE, beta=0))
    assert variants["dgsa.no-sft-term"].tune.sft == 0
    with pytest.raises(LabError, match=r"alpha_star=1\.0"):
        dataclasses.replace(HOW, alpha_star=1.0)


def test_the_mean_over_weighted_pairs_is_the_paper_s_sum() -> None:
    """Three pairs of loss 1 and one of loss 5: 0.4 · 1 + 0.6 · 5 = 3.4."""
    one = Pair("0", "vi", "một", (1,), (2,), "real", (), "stability")
    many = [
        *(dataclasses.replace(one, id=str(i)) for i in range(3)),
        dataclasses.replace(one, id="e", group="expressivity"),
    ]
    weighted = weigh(many, 0.4, 0.6)
    assert sum(p.weight * loss for p, loss in zip(weighted, (1, 1, 1, 5), strict=True)) / 4 == pytest.approx(
        3.4
    )
    assert [pair.id for pair in weigh(many, 0.0, 0.6)] == ["e"]
    assert weigh(many[:3], 0.0, 0.6) == []


def test_styles_do_not_move_the_weights() -> None:
    """A step is a mean over its batch: over an epoch each set must still get its λ, styles or none."""
    pairs = [
        Pair(f"{group}-{i}", "vi", "một hai", (1,) * (5 + i), (2,), "real", style, group)
        for i in range(60)
        for group, style in (("stability", (3,) * 40), ("expressivity", ()))
    ]
    batches = PairBatches(a_model(), weigh(pairs, 0.4, 0.6), 300, 0)
    shares, steps = {"stability": 0.0, "expressivity": 0.0}, 0
    seen: set[int] = set()
    while len(seen) < len(pairs):
        rows = batches.rows(steps)
        seen, steps = seen | set(rows), steps + 1
        for i in rows:
            shares[batches.pairs[i].group] += batches.pairs[i].weight / len(rows)
    assert steps > 5
    assert {name: share / steps for name, share in shares.items()} == pytest.approx(
        {"stability": 0.4, "expressivity": 0.6}, abs=0.02
    )


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed among the samples and again while learning: the end is that of a run left alone."""
    monkeypatch.setattr(dgsa, "CHUNK", 2)
    whole = dgsa.align(a_model(), SPEECH, HOW, tmp_path / "whole", JURY)

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    calls: list[int] = []

    def once(codes: Sequence[Sequence[int]]) -> list[Hearing]:
        calls.append(1)
        if len(calls) == 2:
            die()
        return judge(codes)

    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        dgsa.align(a_model(), SPEECH, HOW, folder, dataclasses.replace(JURY, judge=once))
    assert len([*(folder / "samples").glob("*.jsonl")]) == 1
    with monkeypatch.context() as patched:
        patched.setattr("slmlab.preference.tune.train", die)
        with pytest.raises(Killed):
            dgsa.align(a_model(), SPEECH, HOW, folder, JURY)
    again = dgsa.align(a_model(), SPEECH, HOW, folder, JURY)
    assert fingerprint(again) == fingerprint(whole) != fingerprint(a_model())


def test_recordings_win_in_the_mode_that_made_the_loser(tmp_path: Path) -> None:
    """The judge refuses the one that says 9; the one of a speaker with a single recording has no style."""
    pairs = made(tmp_path / "dgsa")
    assert sorted(pair.id for pair in pairs) == [
        f"{g}-{i}" for g in ("expressivity", "stability") for i in (0, 1, 2)
    ]
    assert {pair.origin for pair in pairs} == {"real"}
    for pair in pairs:
        place = int(pair.id[-1])
        assert (pair.prompt, pair.chosen_tokens) == (SPEECH[place].text, SPEECH[place].tokens)
        other = {0: 1, 1: 0, 2: 3}[place]
        assert pair.style == (SPEECH[other].tokens if pair.group == "stability" else ())


def test_styles_of_random_speakers(tmp_path: Path) -> None:
    strange = made(tmp_path / "a", dataclasses.replace(HOW, same_speaker=False))
    voices = {recording.tokens: recording.voice for recording in SPEECH}
    for pair in strange:
        if pair.group == "stability":
            assert voices[pair.style] != voices[pair.chosen_tokens]


def test_where_both_sets_weigh_nothing_the_model_stays_as_it_is(tmp_path: Path) -> None:
    model = a_model()
    how = dataclasses.replace(HOW, alpha=0.5, stability=0.0)
    assert dgsa.align(model, SPEECH, how, tmp_path, JURY) is model


def test_a_judge_that_accepts_no_recording_is_said(tmp_path: Path) -> None:
    deaf = dataclasses.replace(JURY, judge=lambda codes: [Hearing("")] * len(codes))
    with pytest.raises(LabError, match=r"of 5 recordings the judge accepted 0 .*, and 4 have another"):
        dgsa.align(a_model(), SPEECH, HOW, tmp_path / "deaf", deaf)
    with pytest.raises(LabError, match=r"accepted 1 .*, and 0 have another recording of its speaker"):
        dgsa.align(a_model(), SPEECH[-1:], HOW, tmp_path / "alone", JURY)
