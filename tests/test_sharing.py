"""Voices given away and loaded again."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from slmlab import files
from slmlab.errors import LabError
from slmlab.speech import sharing
from slmlab.speech.chain import open_chain
from slmlab.training import checkpoints


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "voice"
    sharing.save_pretrained(open_chain("tiny"), folder, ["sw"], "| WER | 17 % |")
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "elsewhere"))


def test_what_is_given_says_the_same_bit_for_bit(saved: Path):
    ours, theirs = open_chain("tiny"), sharing.from_pretrained(saved)
    assert theirs.languages == ["sw"]
    text = ["Mama anapika chakula."]
    a, b = (chain.say(text, "sw", chain.named_timbre("mid")[None], seeds=[3])[0] for chain in (ours, theirs))
    assert a.codes == b.codes
    assert torch.equal(a.wave, b.wave)
    assert ours.hear([a.wave], "b") == theirs.hear([b.wave], "b")


def test_its_page_tells_what_it_is_and_nothing_in_it_runs(saved: Path):
    page = (saved / "README.md").read_text(encoding="utf-8")
    card = checkpoints.list_checkpoints(saved)["lm.sw"]
    assert f"| `lm.sw` | {card.parameters / 1e6:.1f} M | {card.seconds / 60:.0f} | {card.licence} |" in page
    assert "| WER | 17 % |" in page
    assert "language: [sw]" in page
    assert {path.suffix for path in saved.iterdir()} == {".safetensors", ".json", ".md"}


def test_a_part_that_is_another_s_missing_or_unlisted_is_named(copy: Path):
    shutil.copyfile(files.SHIPPED / "tiny" / "lm.vi.safetensors", copy / "lm.sw.safetensors")
    with pytest.raises(LabError, match=r"lm.sw.safetensors is another network than parts.json says"):
        sharing.from_pretrained(copy)
    (copy / "lm.sw.safetensors").unlink()
    with pytest.raises(LabError, match=r"There is no checkpoint .*lm.sw.safetensors"):
        sharing.from_pretrained(copy)
    (copy / "parts.json").write_text('{"parts": 3}', encoding="utf-8")
    with pytest.raises(LabError, match="lists no parts"):
        sharing.from_pretrained(copy)
    (copy / "parts.json").unlink()
    with pytest.raises(LabError, match="holds no voice of slmlab"):
        sharing.from_pretrained(copy)


def test_what_cannot_be_given_is_said_before_anything_is_written(saved: Path, tmp_path: Path):
    with pytest.raises(LabError, match="holds something already"):
        sharing.save_pretrained(open_chain("tiny"), saved, ["sw"])
    with pytest.raises(LabError, match="no language model for 'yo'"):
        sharing.save_pretrained(open_chain("tiny"), tmp_path / "new", ["yo"])
    assert not (tmp_path / "new").exists()


def test_a_hub_gives_a_revision_and_takes_a_saved_folder(saved: Path, tmp_path: Path, monkeypatch):
    asked: list[tuple[object, ...]] = []

    def snapshot_download(place: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((place, revision, allow_patterns))
        return str(saved)

    class HfApi:
        def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
            asked.append((name, private, exist_ok))

        def upload_folder(self, repo_id: str, folder_path: Path, allow_patterns: list[str]) -> str:
            if repo_id == "me/full":
                raise OSError("quota")
            return f"https://hub/{repo_id}/commit/1"

    hub = SimpleNamespace(snapshot_download=snapshot_download, HfApi=HfApi)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert sharing.from_pretrained("me/voice", "v1").languages == ["sw"]
    assert asked == [("me/voice", "v1", list(sharing.KEPT))]
    assert sharing.push_to_hub(saved, "me/voice") == "https://hub/me/voice/commit/1"
    assert asked[1] == ("me/voice", True, True), "private unless it is said"
    with pytest.raises(LabError, match=r"the hub did not take me/full \(quota\)"):
        sharing.push_to_hub(saved, "me/full")
    with pytest.raises(LabError, match="holds no voice of slmlab"):
        sharing.push_to_hub(tmp_path, "me/voice")
