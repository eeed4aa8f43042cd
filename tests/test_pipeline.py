"""Checkpoints are used only where code, config and grammars are still those that made them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from slmlab import __version__, files, metrics
from slmlab.corpus.build import CorpusSpec, build
from slmlab.models.judges import transcribe
from slmlab.models.vocoder import Vocoder, VocoderConfig
from slmlab.sound import features
from slmlab.speech.chain import Chain
from slmlab.speech.sampling import SamplingConfig
from slmlab.study import ground, report
from slmlab.training import checkpoints, recipes, shelf
from slmlab.training.cache import DONE, stage_folders
from slmlab.training.loop import TrainConfig
from slmlab.training.presets import Part, preset
from slmlab.training.shelf import VOICES


@pytest.fixture
def made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RUNS", "SHIPPED", "CACHE"):
        monkeypatch.setattr(files, name, tmp_path / name.lower())
    monkeypatch.setattr(shelf, "make", lambda name: Path("trained anew"))
    stages = shelf._stages("smoke")
    folder = stage_folders(stages.values(), files.CACHE / "smoke")["all"]
    folder.mkdir(parents=True)
    for name in (VOICES, DONE):
        (folder / name).write_text("{}")
    return folder


def test_what_the_code_as_it_is_made_is_used(made_here: Path) -> None:
    assert shelf.checkpoint_folder("smoke") == made_here


def test_what_other_code_made_is_not(made_here: Path) -> None:
    made_here.rename(made_here.with_name("all-0123456789ab"))
    assert shelf.checkpoint_folder("smoke") == Path("trained anew")


def test_what_was_cut_off_is_not(made_here: Path) -> None:
    (made_here / DONE).unlink()
    assert shelf.checkpoint_folder("smoke") == Path("trained anew")


def test_what_is_shipped_comes_before_training(made_here: Path) -> None:
    (made_here / DONE).unlink()
    shipped = files.SHIPPED / "smoke"
    shipped.mkdir(parents=True)
    (shipped / VOICES).write_text("{}")
    assert shelf.checkpoint_folder("smoke") == shipped


def test_a_copy_to_ship_that_was_cut_off_does_not_count(
    made_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(path.name for path in shelf.ship(made_here, "smoke").iterdir()) == [VOICES]
    shipped = files.SHIPPED / "smoke"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shelf.shutil, "copytree", full)
    with pytest.raises(OSError, match="No space"):
        shelf.ship(made_here, "smoke")
    assert not (shipped / VOICES).exists()


def test_without_git_the_version_stands_for_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert report.commit() == __version__


def test_what_has_no_value_is_null_in_the_report(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"sim": np.float32("nan"), "rows": [{"f0_spread": np.nan}]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"sim": None, "rows": [{"f0_spread": None}]}


def test_a_changed_grammar_makes_its_corpora_stale(tmp_path: Path, languages_folder: Path) -> None:
    before = stage_folders(recipes.stages(preset("smoke")), tmp_path)
    with open(languages_folder / "sw" / "grammar.toml", "a", encoding="utf-8") as grammar:
        grammar.write("# another word\n")
    after = stage_folders(recipes.stages(preset("smoke")), tmp_path)
    assert before["corpus.backbone"] == after["corpus.backbone"]
    assert before["corpus.sw"] != after["corpus.sw"]
    assert before["tokenizer"] != after["tokenizer"]


def test_the_quality_filter_takes_clear_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(shelf, "checkpoint_folder", lambda name: files.SHIPPED / "tiny")
    found = ground.filter_corpora("smoke", ("vi", "sw"))
    assert list(found.index) == ["vi, authentic", "vi, synthetic", "sw, synthetic"]
    assert found.loc["sw, synthetic", "acceptance"] > 0.9 > found.loc["vi, authentic", "acceptance"]
    ledger = pd.read_parquet(tmp_path / "runs" / "smoke" / "corpora" / "vi.parquet")
    heard = ledger[(ledger["kind"] == "synthetic") & (ledger["wer"] < 0.4)]["seconds"].sum() / 60
    assert 0 < found.loc["vi, synthetic", "minutes"] <= heard
    assert len(ledger) == found.loc["vi, authentic", "n"] + found.loc["vi, synthetic", "n"]
    assert ledger[["heard", "wer", "cer", "duration_ratio"]].notna().all(axis=None)


def test_speech_is_voiced_where_its_tokens_say_so() -> None:
    chain = Chain(files.SHIPPED / "tiny")
    timbre = chain.named_timbre("mid")
    speech = chain.say(["Mama anapika chakula jikoni."], "sw", timbre[None])[0]
    asked = chain.melody(speech.codes, timbre)[0][0]
    heard = features.extract(speech.wave)[1][: len(asked)]
    blurred = features.extract(chain.to_wave(speech.mel))[1]
    voiced = heard > 0
    assert voiced.float().mean() > max(0.5, 1.2 * float((blurred > 0).float().mean()))
    assert float((12 * (heard[voiced] / asked[voiced]).log2()).abs().median()) < 0.5  # semitones


def test_of_several_tries_the_one_is_said_in_which_the_tokenizer_reads_the_text_best() -> None:
    """And no judge is asked; the first try is what is said alone."""
    chain, text = Chain(files.SHIPPED / "tiny"), "Mama anapika chakula jikoni."
    timbre, hot = chain.named_timbre("mid")[None], SamplingConfig(temperature=1.4, top_k=0, top_p=1.0)
    alone = [chain.say([text], "sw", timbre, hot, seeds=[5 + (k << 40)])[0].codes for k in range(3)]

    def missed(codes: list[int]) -> float:
        digits, frames = chain.digits([codes])
        log_probs = chain.tokenizer.read(digits, frames).log_probs
        return metrics.cer(text, transcribe(log_probs, frames, chain.tokenizer.config.alphabet)[0], "sw")

    assert len(set(map(missed, alone))) > 1
    chosen = chain.say([text], "sw", timbre, replace(hot, tries=3), seeds=[5])[0].codes
    assert chosen == min(alone, key=missed)
    assert not any(name.startswith("judge") for name in chain._networks)


def test_the_vocoder_is_refined_on_what_the_decoder_says(random_chain: Path, tmp_path: Path) -> None:
    parts, timbre = tmp_path / "parts", tmp_path / "tokenizer"
    spec = CorpusSpec("a", "sw", "lively", "parts", 2, "parts", n=4, keep_wave=True)
    build(spec, parts / "a", workers=1)
    inputs = {"corpus.parts": parts}
    for name in ("tokenizer", "decoder"):
        inputs[name] = tmp_path / name
        inputs[name].mkdir()
        for suffix in (".safetensors", ".json"):
            shutil.copy(random_chain / f"{name}{suffix}", inputs[name] / f"model{suffix}")
    save_file({"timbre": torch.zeros(4, 9)}, timbre / "timbre.safetensors")
    part = Part(VocoderConfig(width=32, layers=1, pitch_width=16, pitch_layers=1), TrainConfig(2), 64)

    def trained(refine: Part | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
        folder = tmp_path / ("refined" if refine else "plain")
        recipes.train_vocoder(part, refine, folder, inputs)
        model, card = checkpoints.load(folder / "model", Vocoder)
        return card.facts, model.state_dict()

    plain, refined = trained(None), trained(Part(None, TrainConfig(2, seed=1), 64))
    assert (plain[0].get("refined"), refined[0]["refined"]) == (None, 2)
    assert not torch.equal(plain[1]["gains.head.weight"], refined[1]["gains.head.weight"])


@pytest.mark.parametrize(("language", "voice"), [("sw", "joshua"), ("yo", "yoruba"), ("vi", "mid")])
def test_a_languages_reader_is_its_usual_voice(
    random_chain: Path, tmp_path: Path, language: str, voice: str
) -> None:
    shutil.copytree(random_chain, tmp_path, dirs_exist_ok=True)
    files.write_json(tmp_path / VOICES, {name: [0.0] * 9 for name in ("mid", "joshua", "habari", "yoruba")})
    assert Chain(tmp_path).usual_voice(language) == voice
