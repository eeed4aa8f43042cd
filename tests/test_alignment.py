"""The alignment study on small random networks: from the starts to rows, once, and in place of older rows."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bench import studies
from test_sweep import networks

from slmlab import files
from slmlab.errors import LabError
from slmlab.models.lm import SpeechLM
from slmlab.preference.methods import PEOPLE
from slmlab.sound import audio
from slmlab.study import alignment, claims, scaling, tables
from slmlab.study.alignment import CANDIDATES, FOREIGN, STYLE, Unit
from slmlab.training import checkpoints, shelf
from slmlab.training.cache import run_stages
from slmlab.training.checkpoints import Card
from slmlab.training.shelf import VOICES


def unit(language: str, method: str, part: str = "") -> Unit:
    return Unit(language, method, part, 0.8 if language == "vi" else 1.0, 0)


WANTED = [
    *(unit("vi", "sft", part) for part in ("", STYLE)),
    *(unit("vi", "dgsa", part) for part in ("", FOREIGN)),
    unit("vi", PEOPLE),
    unit("sw", "sft"),
    *(unit("sw", "tdsc", part) for part in ("", "1", CANDIDATES, FOREIGN)),
]


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "parts"
    for name, network in networks().items():
        checkpoints.save(folder / name, network, Card(network.config, {}))
    (folder / VOICES).write_text(json.dumps({"mid": [0.0] * 9}))
    few = {"n_test": 4, "n_dev": 4, "n_many": 2, "minutes": (0.1,)}
    whole = scaling.study_of
    monkeypatch.setattr(scaling, "study_of", lambda name, folder=None: replace(whole(name, folder), **few))
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
    return folder


def test_from_starts_to_rows_and_never_twice(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results"
    assert alignment.run("smoke", WANTED, 1, out, parts) == WANTED
    found = alignment.read_results("smoke", out)
    assert found is not None
    assert len(found.runs) == len(WANTED)
    sizes = found.rows.groupby(["language", "method", "part"]).size().to_dict()
    assert sizes[("vi", "dgsa", "")] == sizes[("sw", "tdsc", "1")] == 4
    assert sizes[("vi", "dgsa", FOREIGN)] == 2
    assert found.rows["words"].min() > 0
    assert found.rows["sim"].between(-1, 1).all()
    assert found.candidates["tried"].sum() == 2 * 4 * 12
    assert set(found.sets["set"]) == {"0.7", "0.9", "1", "accepted"}
    assert set(found.recordings["language"]) == {"vi", "sw"}
    runs = found.runs.set_index(["language", "method", "part"])
    assert runs.loc[("vi", "sft", ""), "h_draws"].shape == (scaling.DRAWS,)
    assert runs.loc[("sw", "tdsc", ""), "tuning_seconds"] > 0
    assert runs.loc[("sw", "tdsc", "1"), "tuning_seconds"] == 0
    assert studies.seconds(found, "smoke", "core") > sum(found.seconds.values())
    assert audio.read(out / "smoke-aligned-sw-tdsc.flac")[1].generated
    c1 = next(row for row in claims.ledger(None, found) if row["id"] == "C1")
    assert (c1["seeds"], c1["n"], c1["verdict"]) == ([0], 4, "inconclusive")
    assert tables.alignment_sections(found, [])
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert alignment.run("smoke", WANTED, 1, out, parts) == []
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    monkeypatch.setattr(alignment, "FORMAT", alignment.FORMAT + 1)
    assert alignment.run("smoke", WANTED[:1], 1, out, parts) == WANTED[:1]
    again = pd.read_parquet(out / "smoke-aligned-runs.parquet")
    assert len(again[again["language"] == "vi"]) == 1  # what was made otherwise went
    assert len(again[again["language"] == "sw"]) == 5


def test_what_was_tuned_is_said_to_the_last_bit(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint in few bits would round a tuning away, and the start would be scored in its place."""
    apply, tuned = alignment.methods.apply, []

    def spy(*arguments: object) -> tuple[SpeechLM, dict[str, float]]:
        tuned.append(apply(*arguments))
        return tuned[-1]

    monkeypatch.setattr(alignment.methods, "apply", spy)
    alignment.run("smoke", [unit("vi", "dgsa")], 1, tmp_path / "results", parts)
    (place,) = (tmp_path / "cache" / "smoke").glob("tune.dgsa*/model.safetensors")
    kept = checkpoints.load(place.with_suffix(""), SpeechLM)[0]
    for name, tensor in checkpoints.weights(tuned[0][0]).items():
        assert torch.equal(tensor, checkpoints.weights(kept)[name]), name


def test_parts_of_a_unit_share_its_tuning(parts: Path) -> None:
    study = alignment.study_of("smoke", "sw", parts)
    names = [stage.name for stage in alignment.stages(study, WANTED[6:])]
    assert names.count("tune.tdsc.1.0") == 1
    assert "train.synthetic.0.4.0" in names
    assert "study.lively" not in names
    keys = [alignment.key(study, each) for each in WANTED[5:]]
    assert len(set(keys)) == len(keys)


def test_rows_depend_on_the_settings_of_their_own_method(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = [unit("vi", name) for name in ("sft", "dgsa", "dpo", "rejection")]
    study, scale = alignment.study_of("smoke", "vi", parts), alignment.SCALES["smoke"]
    before = [alignment.key(study, each) for each in units]
    stronger = replace(scale, dgsa=replace(scale.dgsa, beta=0.2))
    monkeypatch.setitem(alignment.SCALES, "smoke", stronger)
    moved = [alignment.key(study, each) != key for each, key in zip(units, before, strict=True)]
    assert moved == [False, True, True, False]


def test_a_start_of_synthetic_speech_differs_by_seed_and_has_its_minutes(parts: Path) -> None:
    study = alignment.study_of("smoke", "sw", parts)
    table = pd.DataFrame({"kind": ["synthetic"] * 40, "seconds": 3.0})
    first, second = (
        scaling.mixture(study, replace(alignment.start_of(study, unit("sw", "sft")), seed=seed), table)
        for seed in (0, 1)
    )
    assert len(first) == len(second) == 8
    assert list(first) == sorted(first)
    assert set(first) != set(second)


def test_what_cannot_be_planned_is_refused() -> None:
    for asked in (
        ("tiny", "half", [0]),
        ("tiny", "core", []),
        ("tiny", "core", [0], "th"),
    ):
        with pytest.raises(LabError, match="core or full"):
            alignment.plan(*asked)
    with pytest.raises(LabError, match="smoke or tiny, not at preset 'huge'"):
        alignment.plan("huge", "core", [0])
    with pytest.raises(LabError, match=r"core claims need no tdsc, dgsa\.no-stability: sft, dpo"):
        alignment.plan("tiny", "core", [0], "vi", ["sft", "tdsc", "dgsa.no-stability"])
    with pytest.raises(LabError, match="no method 'ppo'"):
        alignment.settle("tiny", unit("sw", "ppo"))
    for asked, rates, said in (
        (unit("de", "tdsc"), {}, "nothing of 'de' for tdsc"),
        (unit("sw", "dgsa"), {}, "nothing of 'sw' for dgsa"),
        (unit("vi", "dgsa"), {"sft_lrs": [1e-4]}, "dgsa has neither rounds nor an SFT of its own"),
        (unit("sw", "tdsc"), {"rounds": -1}, "expected none below 0"),
    ):
        with pytest.raises(LabError, match=said):
            alignment.settle("tiny", asked, **rates)


def test_rates_are_tried_on_dev_alone(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "checkpoint_folder", lambda preset: parts)
    monkeypatch.setattr(alignment, "run_stages", partial(run_stages, workers=1))
    monkeypatch.setattr(scaling.Prompts, "say", lambda *_: pytest.fail("no test sentence may be said"))
    table = alignment.settle("smoke", unit("sw", "tdsc"), lrs=[1e-5, 2e-5], rounds=1)
    assert list(table["dpo lr"]) == [1e-5, 2e-5]
    assert {"wer", "entropy", "seconds"} <= set(table)
    assert np.isfinite(table["wer"]).all()


def test_one_seed_is_timed_with_the_machine_to_itself(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "checkpoint_folder", lambda preset: parts)
    monkeypatch.setattr(studies, "run_stages", partial(run_stages, workers=1))
    [(name, minutes, unit_of_time, *_, how, sure)] = studies.alone("smoke")
    assert (name, unit_of_time, sure) == ("tdsc.minutes", "min", True)
    assert 0 < minutes < 5
    assert how.startswith("2 rounds of 4 texts, 12 candidates each, seed 0 alone")
