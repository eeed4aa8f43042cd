"""Tuning learns what it is shown, leaves its reference alone, watches itself, and goes on after a kill."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from slmlab.corpus.pairs import Pair
from slmlab.errors import LabError
from slmlab.models.lm import LMConfig, SpeechLM, log_probs
from slmlab.notebook import lab, plots
from slmlab.preference.jury import Hearing, Jury, Limits, expected_lengths, measure, signs
from slmlab.preference.tune import (
    PairBatches,
    PreferenceConfig,
    fine_tune,
    fingerprint,
    held_out,
    monitor,
    once,
    preference_loss,
    tune,
)
from slmlab.speech.sampling import SamplingConfig
from slmlab.training import checkpoints
from slmlab.training.loop import STATE, TrainConfig, read_log
from slmlab.training.presets import ALPHABET

CONFIG = LMConfig(ALPHABET, ("sw",), width=32, layers=2, heads=2, kv_heads=2, ffn=48)
TRAIN = TrainConfig(steps=12, lr=3e-3, muon_lr=0.0, warmup=1, weight_decay=0.0, validate_every=4)
TEXTS = ("moja mbili tatu", "nne tano", "sita saba nane")
HOW = PreferenceConfig(TRAIN, batch=200)


def a_model(seed: int = 0) -> SpeechLM:
    torch.manual_seed(seed)
    return SpeechLM(CONFIG).eval()


def judge(codes: Sequence[Sequence[int]]) -> list[Hearing]:
    return [Hearing("moja mbili tatu" if sum(row) % 2 else "", 2.0) for row in codes]


JURY = Jury("sw", judge, TEXTS, SamplingConfig(longest=1.2))
PAIRS = [
    Pair(str(i), "sw", f"{text} {'a' * i}", tuple(range(10 * i, 10 * i + 9)), (5, 5, 6 + i), "judge")
    for i, text in enumerate(TEXTS * 4)
]


def test_before_the_first_step_the_loss_is_ln_2() -> None:
    model = a_model()
    batches = PairBatches(model, PAIRS, 200, 0)
    assert len(batches.of(range(12)).tokens) == 24
    for step in range(3):
        loss, figures = preference_loss(model, batches(step), HOW)
        assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
        assert float(figures["margin"]) == pytest.approx(0, abs=1e-5)


def test_policy_and_reference_are_laid_out_alike() -> None:
    """The same prompt before both sides; chosen sides first; one reference number for each row."""
    model = a_model()
    styled = [dataclasses.replace(pair, style=(1, 2)) for pair in PAIRS[:2]]
    batch = PairBatches(model, styled, 400, 0).of([0, 1])
    rows = batch.sequences.ids.tolist()
    heads = [row[: row.index(CONFIG.speech) + 1] for row in rows]
    assert heads[:2] == heads[2:]
    assert heads[0][:4] == [len(ALPHABET), CONFIG.style, CONFIG.first_code + 1, CONFIG.first_code + 2]
    assert batch.tokens.tolist() == [10, 10, 4, 4]
    torch.testing.assert_close(batch.reference, log_probs(model, batch.sequences))


def test_weights_weigh() -> None:
    model, other = a_model(), a_model(1)
    three = PairBatches(model, [dataclasses.replace(p, weight=3.0) for p in PAIRS[:2]], 400, 0).of([0, 1])
    one = PairBatches(model, PAIRS[:2], 400, 0).of([0, 1])
    for how in (HOW, dataclasses.replace(HOW, loss="ipo")):
        loss = preference_loss(other, one, how)[0]
        torch.testing.assert_close(preference_loss(other, three, how)[0], 3 * loss)
    with_sft = preference_loss(other, one, dataclasses.replace(HOW, sft=0.5))[0]
    said = log_probs(other, one.sequences)[:2].sum() / 20
    torch.testing.assert_close(with_sft, preference_loss(other, one, HOW)[0] - 0.5 * said)


def test_ipo_is_of_margins_a_token() -> None:
    """By hand, from the log-probabilities of another policy than the reference."""
    model, other = a_model(), a_model(1)
    batch = PairBatches(model, PAIRS[:3], 600, 0).of([0, 1, 2])
    gained = log_probs(other, batch.sequences) - log_probs(model, batch.sequences)
    a_token = gained / torch.tensor([10, 10, 10, 4, 4, 4])
    ipo = dataclasses.replace(HOW, loss="ipo", beta=0.5)
    by_hand = ((a_token[:3] - a_token[3:]) - 1).square().mean()
    torch.testing.assert_close(preference_loss(other, batch, ipo)[0], by_hand)

    margins = 0.1 * (gained[:3] - gained[3:])
    torch.testing.assert_close(preference_loss(other, batch, HOW)[0], -margins.sigmoid().log().mean())


def test_beta_0_prefers_nothing(tmp_path: Path) -> None:
    """What is left is the SFT term: both sides of other pairs with the same chosen sides teach the same."""
    swapped = [dataclasses.replace(pair, rejected_tokens=pair.rejected_tokens[::-1]) for pair in PAIRS]
    how = dataclasses.replace(HOW, beta=0.0, sft=1.0)
    one, other = (
        tune(a_model(), pairs, how, tmp_path / name) for name, pairs in (("a", PAIRS), ("b", swapped))
    )
    assert fingerprint(one) == fingerprint(other) != fingerprint(a_model())


def test_tuning_learns_the_preference_and_leaves_the_reference_alone(tmp_path: Path) -> None:
    model = a_model()
    before = {name: tensor.clone() for name, tensor in checkpoints.weights(model).items()}
    tuned = tune(model, PAIRS, HOW, tmp_path / "dpo")
    for name, tensor in checkpoints.weights(model).items():
        assert torch.equal(tensor, before[name]), name
    moved = [n for n, t in checkpoints.weights(tuned).items() if not torch.equal(t, before[n])]
    assert set(moved) == set(before) - {"pace"}
    log = read_log(tmp_path / "dpo")
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert log[-1]["loss"] < 0.6
    assert log[-1]["accuracy"] == 1
    assert log[-1]["margin"] > 0.2


def test_the_monitor_measures_and_the_rule_chooses(tmp_path: Path) -> None:
    model = a_model()
    tuned = tune(model, PAIRS, HOW, tmp_path / "dpo", JURY)
    rows = monitor(tmp_path / "dpo")
    assert list(rows.index) == [0, 4, 8, 12]
    start = measure(model, model, JURY)
    assert rows.loc[0, "wer"] == start["wer"]
    assert start["drift"] == 0
    assert rows.loc[12, "drift"] != 0
    later = rows.loc[4:]
    best = later.sort_values(["signs", "wer"], kind="stable").iloc[0]
    assert measure(tuned, model, JURY)["wer"] == best["wer"]
    assert checkpoints.read_header(tmp_path / "dpo" / "best.safetensors")["rank"] == [
        -best["signs"], -best["wer"],
    ]  # fmt: skip


@pytest.mark.parametrize(("choose", "step"), [("melody", 8), ("error", 4)])
def test_what_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choose: str, step: int) -> None:
    """Melody peaks at step 8, errors are least at 4; all is as at the start otherwise."""
    figures = {
        0: (0.5, 1.0), 4: (0.3, 1.0), 8: (0.4, 2.0), 12: (0.4, 1.5),
    }  # fmt: skip
    seen: list[str] = []

    def by_step(model: SpeechLM, reference: SpeechLM, jury: Jury) -> dict[str, float]:
        if (now := fingerprint(model)) not in seen:
            seen.append(now)
        wer, melody = figures[4 * seen.index(now)]
        return {"wer": wer, "f0_spread": melody, "entropy": 8.0, "repetition": 0.0, "length": 1.0}

    monkeypatch.setattr("slmlab.preference.tune.measure", by_step)
    tuned = tune(a_model(), PAIRS, dataclasses.replace(HOW, choose=choose), tmp_path / "dpo", JURY)
    assert fingerprint(tuned) == seen[step // 4]


def test_what_is_looked_at_is_not_learned_from(tmp_path: Path) -> None:
    """Another rejected side in a pair that is looked at: other figures, the very same model."""
    _, watched = held_out(PAIRS)
    assert watched
    changed = [dataclasses.replace(p, rejected_tokens=(9, 9)) if p in watched else p for p in PAIRS]
    for name, pairs in (("0", PAIRS), ("1", changed)):
        tune(a_model(), pairs, HOW, tmp_path / name, JURY)
    one, other = (checkpoints.read(tmp_path / name / STATE)[0] for name in "01")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert monitor(tmp_path / "0").loc[4, "loss"] != monitor(tmp_path / "1").loc[4, "loss"]


def test_a_kept_checkpoint_below_the_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"wer": 0.4, "f0_spread": 1.0, "entropy": 8.0, "repetition": 0.0, "length": 1.0}
    worse = {
        "worse": figures | {"wer": 0.41},
        "hacked": figures | {"wer": 0.9},
        "better": figures | {"wer": 0.3},
    }
    for name, later in worse.items():
        rows = iter([figures, later, later, later])
        monkeypatch.setattr("slmlab.preference.tune.measure", lambda *_, rows=rows: next(rows))
        tune(a_model(), PAIRS, HOW, tmp_path / name / "dpo", JURY)
    said = capsys.readouterr().out
    assert "worse/dpo: even the checkpoint kept has more word errors on dev than the start" in said
    assert "hacked/dpo: every checkpoint looks hacked; the one kept has the fewest signs" in said
    assert "better" not in said


def test_a_tuning_is_watched_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look has all rows so far, the last what the log keeps; one picture is brought up to date."""
    looks: list[tuple[str, pd.DataFrame]] = []
    how = dataclasses.replace(HOW, train=dataclasses.replace(HOW.train, validate_every=5))
    watching = dataclasses.replace(JURY, watch=lambda name, rows: looks.append((name, rows)))
    tune(a_model(), PAIRS, how, tmp_path / "dpo", watching)
    assert [list(rows.index) for _, rows in looks] == [[0, 5], [0, 5, 10], [0, 5, 10, 12]]
    pd.testing.assert_frame_equal(looks[-1][1], monitor(tmp_path / "dpo"), check_like=True)

    shown: list[object] = []
    handle = SimpleNamespace(update=shown.append)
    monkeypatch.setattr(lab, "display", lambda picture, display_id: [shown.append("new"), handle][1])
    watch = lab.Live()
    for name, rows in (*looks, ("another", looks[0][1])):
        watch(name, rows)
    assert [isinstance(each, plots.Picture) for each in shown] == [False, True, True, False]


def test_the_picture_marks_what_looks_hacked() -> None:
    rows = pd.DataFrame({"signs": [0, 2], "wer": [0.4, 0.6], "margin": [math.nan, 1.0]}, index=[0, 4])
    drawn = plots.tuning(rows)
    assert "crosses) at steps 4" in drawn.alt
    crosses = [line for ax in drawn.figure.axes for line in ax.lines if line.get_marker() == "X"]
    assert [list(line.get_xdata()) for line in crosses] == [[4], [4]]
    assert "hacking" not in plots.tuning(rows.iloc[:1]).alt
    assert plots.tuning(rows, "tdsc/dpo").alt.startswith("tdsc/dpo, at step 4")


def test_a_finished_run_is_read_and_another_one_s_folder_refused(tmp_path: Path) -> None:
    model = a_model()
    tuned = tune(model, PAIRS, HOW, tmp_path / "dpo", JURY)
    again = tune(model, PAIRS, HOW, tmp_path / "dpo", JURY)
    for name, tensor in checkpoints.weights(tuned).items():
        assert torch.equal(tensor, checkpoints.weights(again)[name])
    with pytest.raises(LabError, match="holds a run with other settings, pairs or another start"):
        tune(model, PAIRS[:5], HOW, tmp_path / "dpo", JURY)


def test_bad_settings_and_no_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="loss='kto'"):
        dataclasses.replace(HOW, loss="kto")
    for wrong in ({"beta": -0.1}, {"sft": math.nan}, {"loss": "ipo", "beta": 0.0}):
        with pytest.raises(LabError, match="no weight below 0"):
            dataclasses.replace(HOW, **wrong)
    with pytest.raises(LabError, match="holds no pair"):
        tune(a_model(), [], HOW, tmp_path / "dpo")


def test_a_loss_that_is_not_finite_stops_in_a_sentence(tmp_path: Path) -> None:
    model = a_model()
    with torch.no_grad():
        model.embed_codes[5] = math.nan
    with pytest.raises(LabError, match="stopped: at step 1 the loss is nan"):
        tune(model, PAIRS, HOW, tmp_path / "dpo")


def test_fine_tuning_learns_to_say_it(tmp_path: Path) -> None:
    model = a_model()
    codes = [list(pair.chosen_tokens) for pair in PAIRS]
    tuned = fine_tune(model, "sw", [p.prompt for p in PAIRS], codes, TRAIN, 200, tmp_path / "sft")
    batch = PairBatches(model, PAIRS, 200, 0).of(range(12)).sequences
    gained = (log_probs(tuned, batch) - log_probs(model, batch))[:12]
    assert bool((gained > 0).all())


def test_signs_of_reward_hacking() -> None:
    start = {"wer": 0.4, "entropy": 8.0, "repetition": 0.01, "length": 1.0}
    fine = start | {"wer": 0.3, "entropy": 8.2, "rejected": -5.0}
    assert signs(fine, start, Limits()) == []
    assert signs(fine | {"length": 1.5}, start, Limits()) == [
        "the mean length went from 1.00 to 1.50 of the expected"
    ]
    assert signs(fine | {"repetition": 0.2}, start, Limits()) == ["repetition rose to 20.0%"]
    assert signs(fine | {"entropy": 7.0}, start, Limits()) == ["H_p collapsed by 1.00 bits"]
    assert signs(fine | {"rejected": -40.0}, start, Limits()) == ["rejected sides sank by 40 nats"]
    noise = signs(fine | {"entropy": 9.0, "wer": 0.5}, start, Limits())
    assert noise == ["H_p and errors rose together, by 1.00 bits: noise", "the word error rate rose to 50.0%"]


def test_expected_lengths_are_the_pace_of_the_symbols() -> None:
    assert expected_lengths(a_model(), "sw", ["moja", "a"]) == [6.0, 1.5]


def test_rows_are_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> list[dict[str, object]]:
        made.append(1)
        return [{"text": "Hà", "tokens": (1, 2), "wer": math.nan}]

    for _ in range(2):
        (row,) = once(tmp_path / "a" / "rows.jsonl", make)
        assert (row["text"], row["tokens"]) == ("Hà", [1, 2])
        assert math.isnan(row["wer"])
    assert made == [1]
    assert json.loads((tmp_path / "a" / "rows.jsonl").read_text())["tokens"] == [1, 2]
