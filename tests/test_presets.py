"""Every preset can be built; the plans that nobody has trained yet have the sizes they speak of."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from slmlab import files
from slmlab.corpus.collections import Clip
from slmlab.corpus.imports import ImportSpec
from slmlab.errors import LabError
from slmlab.models.lm import SpeechLM
from slmlab.training import recipes
from slmlab.training.presets import PRESETS, Part, preset
from slmlab.training.shelf import KINDS

NETWORKS = {
    name: KINDS["lm" if name == "backbone" else name]
    for name in ("judge_a", "judge_b", "speaker", "tokenizer", "decoder", "vocoder", "backbone", "lm")
}


def on_meta(part: Part, network: type[nn.Module]) -> nn.Module:
    """A network of shapes, without a number in it."""
    with torch.device("meta"):
        return network(part.config)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_networks_build_without_memory_and_fit_each_other(name: str) -> None:
    chain = preset(name)
    assert chain.name == name
    for part, network in NETWORKS.items():
        assert {p.device.type for p in on_meta(getattr(chain, part), network).parameters()} == {"meta"}
    timbre = chain.speaker.config.width_out + 1
    assert chain.tokenizer.config.timbre_width == chain.decoder.config.timbre_width == timbre
    assert chain.tokenizer.config.dims == chain.decoder.config.dims == chain.lm.config.code_dims == 8
    assert chain.backbone.config == dataclasses.replace(chain.lm.config, drop=0.0)


def test_the_papers_language_model_is_qwen_without_its_words() -> None:
    model = on_meta(preset("paper").lm, SpeechLM)
    tables = count(model) - count(model.layers) - count(model.norm)
    qwen_half_a_billion, pieces_of_text = 494_032_768, 151_936 * 896
    assert count(model) - tables == qwen_half_a_billion - pieces_of_text
    assert 360e6 < count(model) < 366e6


def test_the_papers_decoder_has_300_million_parameters_in_12_layers() -> None:
    decoder = preset("paper").decoder
    assert decoder.config.layers == 12
    assert count(on_meta(decoder, NETWORKS["decoder"])) == pytest.approx(300e6, rel=0.01)
    narrow = dataclasses.replace(decoder, config=dataclasses.replace(decoder.config, width=512))
    assert count(on_meta(narrow, NETWORKS["decoder"])) == pytest.approx(24e6, rel=0.03)


def test_base_speaks_with_118_million_parameters() -> None:
    model = on_meta(preset("base").lm, SpeechLM)
    block = 4 * 768**2 + 3 * 768 + 3 * 768 * 2048 + 2 * 768
    tables = (model.config.first_code + 8 * 3 + 2 * 81 + 6561) * 768
    assert count(model) == 16 * block + 768 + tables
    assert count(model) == pytest.approx(118e6, rel=0.01)


def test_presets_that_need_recordings_name_the_folder() -> None:
    chain = preset("base")
    collections = [spec for group in chain.corpora.values() for spec in group if isinstance(spec, ImportSpec)]
    assert {spec.language for spec in collections} == {"vi", "sw", "es", "it", "id", "tr"}
    planned = recipes.stages(chain)
    assert {"corpus.parts", "tokenizer", "lm.vi", "lm.sw"} <= {stage.name for stage in planned}
    if not Path(collections[0].folder).exists():
        with pytest.raises(LabError, match=r"recordings.*validated\.tsv does not exist"):
            collections[0].clips()


def test_who_hears_what_is_divided_by_speakers_and_sentences(tmp_path: Path) -> None:
    rows = [f"speaker{i % 50:02d}\tx{i}.mp3\tsentence {i}" for i in range(400)]
    (tmp_path / "validated.tsv").write_text("\n".join(["client_id\tpath\tsentence", *rows]) + "\n")
    spec = ImportSpec("mine", "sw", consent="CC0", folder=str(tmp_path))

    def heard(splits: tuple[str, ...], thirds: tuple[int, ...]) -> list[Clip]:
        return dataclasses.replace(spec, splits=splits, thirds=thirds).clips()

    learnt = [heard(("lm",), (third,)) for third in range(3)]
    assert all(len(clips) > 50 for clips in learnt)
    assert len({clip.speaker for clips in learnt for clip in clips}) == 50
    assert sum(len({clip.speaker for clip in clips}) for clips in learnt) == 50
    everything = [
        *heard(("dev",), (0, 1, 2)),
        *heard(("test",), (0, 1, 2)),
        *(c for part in learnt for c in part),
    ]
    assert sorted(clip.text for clip in everything) == sorted(f"sentence {i}" for i in range(400))


def test_a_changed_collection_is_noticed(tmp_path: Path) -> None:
    collection = ImportSpec("mine", "sw", consent="CC0", folder=str(tmp_path / "sw"))
    assert collection.content() == []
    (tmp_path / "sw" / "clips").mkdir(parents=True)
    (tmp_path / "sw" / "clips" / "x.mp3").write_bytes(b"abc")
    assert collection.content() == [("clips/x.mp3", 3)]


def test_an_unknown_preset_names_the_known() -> None:
    with pytest.raises(LabError, match="'huge': choose one of smoke, tiny, human, base, paper"):
        preset("huge")


def test_the_judges_of_people_share_no_reader_and_nobody_hears_what_is_scored() -> None:
    corpora = preset("human").corpora
    readers = {
        group: {(spec.folder, spec.splits) for spec in specs if isinstance(spec, ImportSpec)}
        for group, specs in corpora.items()
    }
    assert not {folder for folder, _ in readers["judge_a"]} & {folder for folder, _ in readers["judge_b"]}
    assert {splits for _, splits in readers.pop("held_out")} == {("dev",), ("test",)}
    assert {splits for heard in readers.values() for _, splits in heard} == {("lm",)}
    assert preset("human").languages == ("sw", "yo")


def test_recordings_that_were_not_fetched_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RECORDINGS", tmp_path)
    (spec, *_) = preset("human").corpora["sw"]
    assert isinstance(spec, ImportSpec)
    with pytest.raises(LabError, match=r"joshua are not here, or not all: `slmlab fetch joshua`"):
        spec.clips()
