"""Judge C hears by an encoder: it is trained, kept and asked by its name, and never mistaken for B."""

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from slmlab import files
from slmlab.cli import main
from slmlab.corpus.build import CorpusSpec, build
from slmlab.corpus.utterances import Utterances
from slmlab.errors import LabError
from slmlab.language.text import alphabet_of
from slmlab.metrics import instruments
from slmlab.models.judges import EncodedConfig, EncodedJudge
from slmlab.sound.audio import Wave
from slmlab.speech.chain import Chain
from slmlab.training import checkpoints, recipes, shelf
from slmlab.training.cache import Stage, run_stages, stage_folders
from slmlab.training.checkpoints import Card
from slmlab.training.loop import TrainConfig
from slmlab.training.presets import Part, preset

CONFIG = EncodedConfig(alphabet_of(["sw"]), "e" * 64, ("sw",), features=4, width=16, blocks=1, heads=2)


class FakeEncoder:
    """An encoder whose features of a frame are four of its samples."""

    def __init__(self, place: str = "", sha256: str = "e" * 64) -> None:
        self.place, self.sha256 = place, sha256

    def __call__(self, wave: Wave) -> Tensor:
        """`(s,)` to `(f 4)`."""
        n = len(wave) // 320
        return torch.as_tensor(wave[: n * 320]).reshape(n, 320)[:, ::80].clone()


@pytest.fixture
def with_judge_c(random_chain: Path, tmp_path: Path) -> Path:
    """A folder of what was taught later, with judge C in it."""
    torch.manual_seed(0)
    checkpoints.save(tmp_path / "adopted" / "judge_c", EncodedJudge(CONFIG), Card(config=CONFIG), small=True)
    return tmp_path / "adopted"


def test_who_scores_is_said_by_the_chain(random_chain: Path, with_judge_c: Path) -> None:
    waves = [0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))]
    alone, by_ear = Chain(random_chain), Chain(random_chain, None, with_judge_c, FakeEncoder())  # type: ignore[arg-type]
    assert (alone.scorer, by_ear.scorer) == ("b", "c")
    assert alone.hear(waves) == alone.hear(waves, "b") == by_ear.hear(waves, "b")
    assert by_ear.hear(waves, language="sw") == by_ear.hear(waves, "c") != alone.hear(waves)
    with pytest.raises(LabError, match="judge C has heard sw, and not 'vi': let judge b score it"):
        by_ear.hear(waves, language="vi")
    with pytest.raises(LabError, match="judge C hears by Whisper's encoder: open the chain with one"):
        alone.hear(waves, "c")


def test_another_encoder_than_that_of_the_training_is_refused(random_chain: Path, with_judge_c: Path) -> None:
    chain = Chain(random_chain, None, with_judge_c, FakeEncoder(sha256="f" * 64))  # type: ignore[arg-type]
    with pytest.raises(LabError, match=r"judge_c was taught with another encoder \(sha256 eeeeeeee…, this"):
        chain.hear([torch.zeros(16_000)])


def test_measure_names_the_judge_who_read(
    random_chain: Path,
    with_judge_c: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shelf, "adopted_folder", lambda name: with_judge_c)
    monkeypatch.setattr(instruments, "Encoder", FakeEncoder)
    sound = tmp_path / "a.wav"
    soundfile.write(sound, 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    given = ["measure", str(sound), "--checkpoints", str(random_chain), "--json"]
    for judge in ("b", "c"):
        assert main([*given, "--judge", judge]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert row["judge"] == judge
    for wrong, said in (
        (["--judge", "d"], "no judge 'd' who scores: choose b or c"),
        (["--whisper", "x"], "nothing here uses: give --judge c or --instruments whisper as well"),
    ):
        assert main([*given, *wrong]) == 2
        assert said in capsys.readouterr().err


def test_judge_c_is_trained_by_its_name_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = tmp_path / "spoken"
    build(CorpusSpec("sw", "sw", "lively", "judge_b", 3, "judge_b", n=6), spoken, workers=1)
    asked = []

    def encode(encoder: object, wave: Wave) -> Tensor:
        asked.append(len(wave))
        return FakeEncoder()(wave)

    monkeypatch.setattr(recipes, "Encoder", type("Counting", (FakeEncoder,), {"__call__": encode}))
    part = Part(
        EncodedConfig(CONFIG.alphabet, width=16, blocks=1, heads=2), TrainConfig(steps=3, warmup=1), 2000
    )
    done = tmp_path / "made" / "encoded"
    done.mkdir(parents=True)
    recipes._encode_twice(FakeEncoder(), Utterances(spoken).wave(0).numpy(), done / "0.safetensors", 0)  # type: ignore[arg-type]
    recipes.train_encoded_judge(part, tmp_path / "made", {"corpus.judge_b": spoken}, "somewhere")
    assert len(asked) == 2 * 5
    assert len(set(asked)) > 6
    judge, card = checkpoints.load(tmp_path / "made" / "model", EncodedJudge)
    found = (judge.config.encoder, judge.config.languages, judge.config.features)
    assert found == ("e" * 64, ("sw",), 4)
    assert card.facts["steps"] == 3
    assert not done.exists()


def test_where_the_encoder_lies_decides_nothing_but_what_it_holds_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"here": "e" * 64, "there": "e" * 64, "another": "f" * 64}
    monkeypatch.setattr(recipes, "Encoder", lambda place: FakeEncoder(place, kept[place]))

    def folder(place: str) -> Path:
        stages = [Stage("corpus.judge_b", (), print), recipes.listening(preset("human"), place)]
        return stage_folders(stages, tmp_path)["judge_c"]

    assert folder("here") == folder("there") != folder("another")


def test_what_is_trained_is_kept_with_what_was_taught_later_or_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RUNS", "CACHE", "SHIPPED"):
        monkeypatch.setattr(files, name, tmp_path / name)
    monkeypatch.setattr(shelf, "run_stages", partial(run_stages, workers=1))
    monkeypatch.setattr(
        recipes, "listening", lambda chain, whisper: Stage("judge_c", (), partial(_save, whisper))
    )
    assert main(["train", "judge_c", "--preset", "human", "--whisper", "x"]) == 0
    kept = tmp_path / "RUNS" / "human" / "adopted" / "judge_c"
    assert f"trained: {kept}\nnext: slmlab measure WAV --judge c --preset human\n" in capsys.readouterr().out
    assert checkpoints.load(kept, EncodedJudge)[1].facts["place"] == "x"
    assert main(["train", "judge_c", "--preset", "human", "--whisper", "x", "--ship"]) == 0
    assert (tmp_path / "SHIPPED" / "human" / "judge_c.safetensors").exists()


def _save(place: str, folder: Path, inputs: dict[str, Path]) -> None:
    checkpoints.save(folder / "model", EncodedJudge(CONFIG), Card(config=CONFIG, facts={"place": place}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["judge_c", "--preset", "tiny"], "preset 'tiny' has no judge C, who hears people: choose human"),
        (["tokenizer", "--whisper", "x"], "--whisper is what judge_c hears by"),
    ],
)
def test_what_cannot_hear_so_is_refused(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *given]) == 2
    assert said in capsys.readouterr().err


def test_the_encoder_hears_windows_of_thirty_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for faster-whisper that gives the number of mel frames it was given as every feature."""

    class Model:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def feature_extractor(self, wave: Wave) -> np.ndarray:
            """`(s,)` to `(m f)`, 100 frames a second and one for what is padded."""
            return np.zeros((80, len(wave) // 160 + 1), np.float32)

        def encode(self, mel: np.ndarray) -> np.ndarray:
            """`(m f)` to `(1 f/2 e)`."""
            return np.full((1, (mel.shape[1] + 1) // 2, 3), mel.shape[1], np.float32)

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Model))
    for name in instruments.WHISPER_FILES[:3]:
        (tmp_path / name).touch()
    encoder = instruments.Encoder(str(tmp_path))
    assert encoder.sha256 == files.sha256_of(tmp_path / "model.bin")
    encoded = encoder(np.zeros(30 * 16_000 + 1_000, np.float32))
    assert encoded.shape == (1500 + 3, 3)
    assert (encoded[0, 0], encoded[-1, 0]) == (3000, 6)
    with pytest.raises(LabError, match="319 samples where one frame needs 320"):
        encoder(np.zeros(319, np.float32))
