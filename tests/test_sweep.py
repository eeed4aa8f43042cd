"""Cells of the study on small random networks: what is mixed, run and kept, and what a kill costs."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from slmlab import files, metrics
from slmlab.errors import LabError
from slmlab.models.decoder import DecoderConfig, FlowDecoder
from slmlab.models.judges import AttentiveConfig, AttentiveJudge, ConvolutionalConfig, ConvolutionalJudge
from slmlab.models.lm import LMConfig, SpeechLM
from slmlab.models.speaker import SpeakerConfig, SpeakerEncoder
from slmlab.models.tokenizer import SpeechTokenizer, TokenizerConfig
from slmlab.models.vocoder import Vocoder, VocoderConfig
from slmlab.sound import audio
from slmlab.study import rows, scaling
from slmlab.study.scaling import CELLS, Cell, Study
from slmlab.training import checkpoints
from slmlab.training.cache import DONE, run_stages, stage_folders
from slmlab.training.checkpoints import Card
from slmlab.training.presets import ALPHABET, LANGUAGES, PRESETS, Part, preset
from slmlab.training.recipes import lm_batches


def networks() -> dict[str, torch.nn.Module]:
    """The chain's parts, small and untrained."""
    speaker = SpeakerConfig(n_speakers=3, width=16, layers=1, width_out=8)
    lm = LMConfig(ALPHABET, LANGUAGES, width=16, layers=1, heads=2, kv_heads=2, ffn=16)
    return {
        "tokenizer": SpeechTokenizer(TokenizerConfig(ALPHABET, 9, width=32, layers=1, n_speakers=3)),
        "decoder": FlowDecoder(DecoderConfig(9, width=16, layers=2)),
        "vocoder": Vocoder(VocoderConfig(width=16, layers=1, rounds=1)),
        "speaker": SpeakerEncoder(speaker),
        "judge_a": AttentiveJudge(AttentiveConfig(ALPHABET, width=16, blocks=1)),
        "judge_b": ConvolutionalJudge(ConvolutionalConfig(ALPHABET, width=16)),
        "lm.backbone": SpeechLM(lm),
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A folder with checkpoints and a cache with everything before the first cell."""
    folder = tmp_path_factory.mktemp("study")
    torch.manual_seed(0)
    for name, network in networks().items():
        checkpoints.save(folder / "parts" / name, network, Card(config=network.config))
    study = replace(scaling.study_of("smoke", folder / "parts"), n_test=4, n_dev=2, n_many=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CACHE", folder / "cache")
        ground = scaling.stages(study, [])
        run_stages(ground, folder / "cache" / "smoke", workers=1)
    return study


@pytest.fixture
def here(world: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(files, "CACHE", Path(world.checkpoints).parent / "cache")
    return world


def table() -> pd.DataFrame:
    """Ten seconds of speech an utterance: 12 authentic, 12 lively, 100 synthetic."""
    kinds = ["authentic"] * 12 + ["lively"] * 12 + ["synthetic"] * 100
    return pd.DataFrame({"kind": kinds, "seconds": 10.0})


def shares(study: Study, cell: Cell) -> dict[str, float]:
    """Minutes of each kind in a cell's mixture."""
    chosen = table().iloc[scaling.mixture(study, cell, table())]
    return {kind: float(part["seconds"].sum()) / 60 for kind, part in chosen.groupby("kind")}


def test_each_arm_mixes_what_it_says() -> None:
    study = Study("tiny", "", "vi", authentic_minutes=1.5, helping_minutes=2.0)
    assert shares(study, Cell("authentic", 0.5, 0)) == {"authentic": 1.5, "synthetic": 1.5}
    assert shares(study, Cell("lively", 0.9, 0)) == {"lively": 1.5, "synthetic": 13.5}
    assert shares(study, Cell("authentic", 1.0, 0)) == {"synthetic": 13.5}
    assert shares(study, Cell("equal-hours", 0.67, 0)) == {"authentic": 0.5, "synthetic": 1.0}
    assert shares(study, Cell("equal-hours", 1.0, 0)) == {"synthetic": 1.5}
    assert shares(study, Cell("alone", 0.5, 0)) == {"authentic": 0.5}
    assert shares(study, Cell("helped-scratch", 0.5, 0)) == {"authentic": 0.5, "synthetic": 2.0}


def test_all_synthetic_is_the_synthetic_part_of_the_point_before() -> None:
    study = Study("tiny", "", "vi", authentic_minutes=1.5)
    before, alone = (set(scaling.mixture(study, Cell("authentic", a, 3), table())) for a in (0.9, 1.0))
    assert alone == {i for i in before if i >= 24}
    assert alone != set(scaling.mixture(study, Cell("authentic", 1.0, 4), table()))


def test_the_plan_is_every_point_of_every_arm_seed_by_seed() -> None:
    study = Study("tiny", "", "vi")
    planned = scaling.plan(study, ["authentic", "alone", "entropy"], [0, 1])
    assert len(planned) == 2 * (8 + 4 + 1)
    assert [cell.seed for cell in planned] == [0] * 13 + [1] * 13
    assert [cell.point for cell in scaling.plan(study, ["lively"], [0], [0.5, 0.8])] == [0.5, 0.8]
    assert len(scaling.plan(study, ["lively"], [0, 0], [0.5])) == 1
    for asked in (["nobody"], [0]), (["lively"], [0], [0.42]), (["lively"], []):
        with pytest.raises(LabError, match="authentic, lively, equal-hours"):
            scaling.plan(study, *asked)


def test_presets_that_nobody_has_trained_are_refused() -> None:
    with pytest.raises(LabError, match="smoke or tiny"):
        scaling.study_of("base")


def test_rates_and_speech_of_the_preset_are_part_of_what_stages_are_known_by(
    here: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folders() -> set[str]:
        made = stage_folders(scaling.stages(here, [Cell("authentic", 0.5, 0)]), Path("cache"))
        return {made[name].name for name in ("study.lively", "train.authentic.0.5.0")}

    before, usual = folders(), preset("smoke")
    other = replace(usual.lm, train=replace(usual.lm.train, lr=1e-3))
    monkeypatch.setitem(PRESETS, "smoke", lambda: replace(usual, lm=other))
    assert len(folders() & before) == 1  # speech stays, the model goes
    corpora = usual.corpora | {"vi": tuple(replace(spec, minutes=0.5) for spec in usual.corpora["vi"])}
    monkeypatch.setitem(PRESETS, "smoke", lambda: replace(usual, corpora=corpora))
    assert not folders() & before


def test_a_voice_that_says_one_thing_gives_no_style() -> None:
    """Its own tokens as a prefix would give the answer away."""
    said = [[7] * 50, *([i] * 50 for i in (1, 2, 3))]
    rows = pd.DataFrame({"text": ["a"] * 4, "language": ["vi"] * 4, "voice": ["one", *["other"] * 3]})
    data, config = scaling.Coded(rows.assign(codes=said)), LMConfig(ALPHABET, LANGUAGES, width=16)
    part = Part(config, preset("smoke").lm.train, 2000)
    batches = lm_batches(config, data, data.codes(), part)  # type: ignore[arg-type]
    ids = torch.cat([batches(step).ids.flatten() for step in range(20)])
    styles = torch.where(ids == config.style)[0]
    assert len(styles) > 10
    assert not (ids[styles + 1] == config.first_code + 7).any()


def test_noise_replaces_its_share_of_the_tokens() -> None:
    codes = list(range(1000))
    assert scaling.noisy(codes, 0.0, 6561, 1) == codes
    assert np.mean(np.array(scaling.noisy(codes, 0.15, 6561, 1)) != codes) == pytest.approx(0.15, abs=0.03)
    assert scaling.noisy([], 0.5, 6561, 1) == []


def test_corpus_entropy_counts_equally_and_draws_alike() -> None:
    draw = np.random.default_rng(0)
    said = [draw.integers(50, size=20).tolist() for _ in range(40)]
    bits, draws = scaling.corpus_entropy(said, 400, frozenset())
    assert metrics.prosodic_entropy(said) - 0.15 < bits < metrics.prosodic_entropy(said)
    longer, others = scaling.corpus_entropy([row * 3 for row in said], 400, frozenset())
    assert longer < bits  # the same codes over and over: 400 tokens now come from a third of the sentences
    assert draws.shape == others.shape == (scaling.DRAWS,)
    without, _ = scaling.corpus_entropy(said, 100, frozenset(range(49)))
    assert without == 0
    assert np.isnan(scaling.corpus_entropy([[1, 1]], 5, frozenset({1}))[0])


def test_a_cell_from_mixture_to_rows_and_never_twice(here: Study, tmp_path: Path) -> None:
    wanted = [Cell("authentic", 0.5, 0), Cell("authentic", 1.0, 0), Cell("entropy", 0.5, 0)]
    assert rows.run(CELLS, here, wanted, 1, tmp_path) == wanted
    found = scaling.read_results("smoke", tmp_path)
    assert found is not None
    plain, many = (found.rows[(found.rows["arm"] == arm)] for arm in ("authentic", "entropy"))
    assert len(plain) == 2 * (2 + 4)
    assert len(many) == 2 * sum(manner.samples for manner in scaling.MANY)
    assert (plain["words"] > 0).all()
    assert plain["seconds"].between(0.1, 30).all()
    row = found.cells.set_index(["arm", "point"]).loc[("authentic", 0.5)]
    assert row["alpha"] == pytest.approx(0.5, abs=0.1)
    assert row["h_draws"].shape == (scaling.DRAWS,)
    assert 0 <= row["h"] <= np.log2(6561)
    assert {"f0_in_tokens", "speaker_in_tokens", "cer_judge_b"} <= found.premises.keys()
    assert set(found.mixture["kind"]) == {"authentic", "lively", "synthetic"}
    assert audio.read(tmp_path / "smoke-authentic.0.5.0.flac")[1].generated
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert rows.run(CELLS, here, wanted, 1, tmp_path) == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_same_seeds_say_the_same_again(here: Study, tmp_path: Path) -> None:
    cell, tables = Cell("lively", 0.25, 1), []
    folders = stage_folders(scaling.stages(here, [cell]), files.CACHE / "smoke")
    for _ in range(2):
        for name in (f"train.{cell.name}", f"say.{cell.name}"):
            (folders[name] / DONE).unlink(missing_ok=True)
        rows.run(CELLS, here, [cell], 1, tmp_path / str(len(tables)))
        tables.append((tmp_path / str(len(tables)) / "smoke-lively-sentences.parquet").read_bytes())
    assert tables[0] == tables[1]


def test_other_checkpoints_or_settings_are_other_cells(here: Study) -> None:
    cell = Cell("authentic", 0.5, 0)
    assert scaling.key(here, cell) == scaling.key(replace(here, minutes=(1.0,)), cell)
    assert scaling.key(here, cell) != scaling.key(replace(here, steps=4), cell)
    assert scaling.key(here, cell) != scaling.key(here, replace(cell, seed=1))


SWEEP = """
import sys
from pathlib import Path
from slmlab import files
from slmlab.study import rows, scaling
from slmlab.study.scaling import CELLS, Cell
from dataclasses import replace

if __name__ == "__main__":
    parts, results = Path(sys.argv[1]), Path(sys.argv[2])
    files.CACHE = parts.parent / "cache"
    study = replace(scaling.study_of("smoke", parts), n_test=4, n_dev=2, n_many=2)
    done = rows.run(CELLS, study, [Cell("equal-hours", 0.5, 0), Cell("equal-hours", 0.8, 0)], 1, results)
    print(len(done))
"""


def test_a_kill_costs_only_the_cell_it_hits(here: Study, tmp_path: Path) -> None:
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP)
    command = [sys.executable, str(script), here.checkpoints, str(tmp_path / "results")]
    wanted = [Cell("equal-hours", 0.5, 0), Cell("equal-hours", 0.8, 0)]
    folders = stage_folders(scaling.stages(here, wanted), files.CACHE / "smoke")
    first, second = (folders[f"say.{cell.name}"] for cell in wanted)
    running = subprocess.Popen(command)
    while not (first / DONE).exists():
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (second / DONE).exists()
    stamp = (first / DONE).stat().st_mtime_ns
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.endswith("2\n")
    assert (first / DONE).stat().st_mtime_ns == stamp
    rows = pd.read_parquet(tmp_path / "results" / "smoke-equal-hours-sentences.parquet")
    assert len(rows) == 2 * (2 + 4)
    assert not rows.duplicated(["point", "split", "sentence"]).any()
