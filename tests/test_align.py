"""Alignment by name, on a chain of untrained networks: a run is found again, and mistakes are sentences."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from slmlab import files
from slmlab.cli import main
from slmlab.corpus import manifest
from slmlab.corpus.pairs import read
from slmlab.errors import LabError
from slmlab.models.judges import AttentiveConfig, AttentiveJudge
from slmlab.models.lm import LMConfig, SpeechLM
from slmlab.models.tokenizer import SpeechTokenizer, TokenizerConfig
from slmlab.preference import methods, tdsc
from slmlab.preference.dgsa import Recording
from slmlab.preference.jury import CodeJudge
from slmlab.preference.methods import Run
from slmlab.preference.tune import monitor
from slmlab.speech.chain import Chain
from slmlab.training import checkpoints, shelf
from slmlab.training.cache import read_done
from slmlab.training.checkpoints import Card
from slmlab.training.presets import ALPHABET, LANGUAGES
from slmlab.training.shelf import VOICES

CONFIG = LMConfig(ALPHABET, LANGUAGES, width=32, layers=1, heads=2, kv_heads=2, ffn=48)


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    folder = tmp_path / "checkpoints"
    torch.manual_seed(0)
    tokenizer = TokenizerConfig(ALPHABET, timbre_width=5, width=32, layers=1, n_speakers=2)
    networks: dict[str, Any] = {
        "tokenizer": SpeechTokenizer(tokenizer),
        "judge_a": AttentiveJudge(AttentiveConfig(ALPHABET, sketch=4, width=16, blocks=1, heads=2)),
        "lm.sw": SpeechLM(CONFIG),
        "lm.vi": SpeechLM(CONFIG),
    }
    for name in ("lm.sw", "lm.vi"):
        networks[name].pace.fill_(0.3)  # short utterances
    for name, network in networks.items():
        card = Card(network.config, {})
        checkpoints.save(folder / name, network, card)
    (folder / VOICES).write_text(json.dumps({"mid": [0.0] * 5}))
    monkeypatch.setattr(shelf, "checkpoint_folder", lambda preset_name: folder)
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
    return Chain(folder)


def aligned(said: str) -> Path:
    """The folder of the run whose model a command announced."""
    return Path(said.split("aligned: ")[1].splitlines()[0]).parent


def test_a_judge_hears_alike_alone_and_among_others(chain: Chain) -> None:
    judge = CodeJudge(chain, chain.named_timbre("mid"), batch=2)
    codes = [[1, 2, 3, 4] * 5, [], [6000] * 9, [77, 5] * 8]
    together = judge(codes)
    assert together[1].text == ""
    for row, hearing in zip(codes, together, strict=True):
        alone = judge([row])[0]
        assert alone.text == hearing.text
        assert alone.f0_spread == pytest.approx(hearing.f0_spread, abs=1e-4, nan_ok=True)


def test_tdsc_by_name_is_made_once(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", "tdsc", "--preset", "smoke", "--seed", "3"]) == 0
    folder = aligned(capsys.readouterr().out)
    assert folder.name.startswith("align.tdsc.sw.3-")
    assert len(tdsc.tries(folder)) == 2 * 4 * 12
    card = checkpoints.load(folder / "model", SpeechLM)[1]
    assert card.facts["method"] == "tdsc"
    assert {"wer", "entropy", "drift"} <= read_done(folder)["metrics"].keys()
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert methods.align(Run("tdsc", "smoke", 3)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert methods.align(Run("sft", "smoke", 3)) != folder


def test_votes_of_people_train(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vote = {"prompt": "mama anapika", "chosen": "<|s_1|><|s_2|>", "rejected": "<|s_3|>"}
    votes = tmp_path / "preferences.jsonl"
    rows = [vote | {"prompt": f"mama anapika {word}", "split": "train"} for word in ("moja", "mbili", "tatu")]
    others = [vote | {"split": "Test"}, vote | {"split": "validation"}, vote | {"chosen": "<|s_1|>" * 5000}]
    votes.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *others]))
    asked = ["align", "people", "--preset", "smoke", "--language", "sw", "--votes", str(votes)]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "2 votes of other splits than train are kept for testing" in said
    assert re.search(r"left out: .*row 5: A sequence has \d+ positions, more than", said)
    folder = aligned(said)
    rows = monitor(folder / "dpo")
    assert list(rows.index) == [0, 2]
    wer = read_done(folder)["metrics"]["wer"]
    assert f"on dev: word errors {rows.loc[0, 'wer']:.1%} → {wer:.1%}, H_p in bits" in said
    assert f'next: slmlab speak "…" --language sw --preset smoke --lm {folder / "model"}' in said
    assert (
        "warning: 3 votes tell the share that prefers one side to ± 37 points" in said
    )  # Wilson, at one half
    assert "From 93 votes on it is ± 10%." in said
    monkeypatch.setattr(methods, "ENOUGH", 0.4)
    assert "warning" not in methods.summary(folder)
    votes.write_text(json.dumps(vote | {"split": "test"}))
    with pytest.raises(LabError, match=r"all 1 votes in .* are kept for testing"):
        methods.align(Run("people", "smoke", votes=votes, language="sw"))


def test_dgsa_by_name(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [Recording("một hai", (1, 2, 3), "anh"), Recording("ba bốn", (4, 5, 6), "chị")]
    monkeypatch.setattr(methods, "_recordings", lambda *_: said)

    folder = methods.align(Run("dgsa", "smoke"))
    assert folder.name.startswith("align.dgsa.vi.0-")
    assert (folder / "pairs.parquet").exists()


def test_dgsa_learns_from_people_s_recordings(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From sound files to a tuned model: dev and test sentences stay out, another language is no match."""
    words = ("moja", "mbili", "tatu", "nne", "tano", "sita", "saba", "nane", "tisa", "kumi")
    for i, word in enumerate(words):
        place = tmp_path / "own" / ("asha" if i % 2 else "juma")
        place.mkdir(parents=True, exist_ok=True)
        wave = 0.3 * np.sin(np.arange(12_000) * (0.05 + 0.01 * i)).astype(np.float32)
        soundfile.write(place / f"{i}.wav", wave, 16_000)
        (place / f"{i}.txt").write_text(f"mama anapika {word}")
    brought, consent = tmp_path / "corpus", ["--language", "sw", "--consent", "my own"]
    assert main(["import", str(tmp_path / "own"), *consent, "--out", str(brought)]) == 0
    splits = manifest.read(brought / "manifest.parquet")["split"]
    assert set(splits) > {"lm"}

    given = ["align", "dgsa", "--preset", "smoke", "--recordings", str(brought)]
    assert main([*given, "--language", "sw"]) == 0
    said = capsys.readouterr().out
    folder, n = aligned(said), (splits == "lm").sum()
    kept = f"{n} of 10 utterances can teach; {10 - n} are of sentences that are kept for dev and test"
    assert kept in said
    learned = {pair.prompt for pair in read(folder / "pairs.parquet", "sw")}
    assert 0 < len(learned) <= (splits == "lm").sum()
    assert main([*given, "--language", "vi"]) == 2
    said = capsys.readouterr().err
    assert "no authentic speech of 'vi' to learn from" in said
    assert "of 10 utterances 10 are not of 'vi'." in said


def test_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, words in (
        (
            ["ppo"],
            "no method 'ppo' at preset 'tiny': methods are dgsa, dpo, dgsa.no-expressivity",
        ),
        (["tdsc", "--preset", "huge"], "at preset 'huge'"),
        (["people"], "method people needs votes"),
        (["people", "--votes", "a.parquet"], "a.parquet does not exist: export the votes first"),
        (["people", "--votes", __file__], "does not say in which language: give it with --language"),
        (["tdsc", "--votes", "a.parquet"], "method tdsc takes no votes"),
        (["tdsc", "--recordings", "a"], "method tdsc takes no recordings: dgsa, "),
        (["tdsc", "--alpha", "0.5"], "method tdsc takes no alpha: dgsa, "),
        (["dgsa", "--clips", "a"], "method dgsa takes no clips"),
        (["dgsa", "--only", "sft"], "it goes with core or full"),
        (["core", "--alpha", "0.5", "--start", "a"], "what --start, --alpha would say: leave it out"),
        (["core", "--only", "sft,ppo"], "core claims need no ppo: sft, dpo, "),
        (["core", "--language", "th"], "vi, sw or none for both"),
        (["dgsa", "--recordings", "a"], "a is no corpus: make one of your recordings with `slmlab import`"),
    ):
        assert main(["align", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_a_sound_that_is_gone_is_named(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"none of 0 sounds in .* has the sha256 ab"):
        methods._encoder(chain, tmp_path)("ab")


def test_votes_find_their_sounds_by_sha256_in_every_form(chain: Chain, tmp_path: Path) -> None:
    wave = 0.3 * np.sin(np.arange(16_000) * 0.05).astype(np.float32)
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "000.flac", wave, 16_000)
    digest = hashlib.sha256((tmp_path / "a" / "000.flac").read_bytes()).hexdigest()
    assert len(methods._encoder(chain, tmp_path)(digest)) == 25
