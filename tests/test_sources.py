"""Sources of people's recordings: what comes from a home or a folder is what is listed, or one sentence."""

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from slmlab import files
from slmlab.cli import main
from slmlab.corpus import collections, imports, sources
from slmlab.errors import LabError
from slmlab.sound import SAMPLE_RATE, audio
from slmlab.training import shelf

HERE = Path(os.environ.get("SLMLAB_RECORDINGS", files.ROOT.parent / "shared" / "real"))
"""A folder with joshua.tsv beside joshua/ and so on; what needs it is skipped where there is none."""
TEXTS = ("Mama anapika chakula.", "Baba anasoma kitabu.", "Mtoto analala sasa.", "Leo ni siku njema.")
SETTINGS = {
    "language": "sw",
    "sounds": "sound/*/*.wav",
    "form": "linker",
    "transcripts": "sound/*/*.txt",
    "marker": "##",
    "ignore": "|",
    "leave_out": "metadata",
    "licence": "MIT",
    "copyright": "Copyright (c) 2026 Nobody",
    "sentence": "Permission is hereby granted.",
}


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
    done = subprocess.run(("git", "-C", folder, *who, *arguments), capture_output=True, check=True, text=True)
    return done.stdout.strip()


def sha256(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def tone(path: Path, i: int) -> None:
    seconds = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, 0.3 * np.sin(2 * np.pi * (200 + 20 * i) * seconds), generated=False)


def describe(name: str = "tones", **changes: object) -> None:
    """Write a source's toml, with settings changed."""
    settings = SETTINGS | {"ships": True, "readers": {"tones": "a sine"}} | changes
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items() if key != "readers"]
    (sources.SOURCES / f"{name}.toml").write_text("".join(lines) + '[readers]\ntones = "a sine"\n')


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source `tones`: a git home of two sittings of two sounds, in Lig-Aikuma's form, with metadata."""
    monkeypatch.setattr(sources, "SOURCES", tmp_path / "sources")
    monkeypatch.setattr(files, "RECORDINGS", tmp_path / "recordings")
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(sources, "BATCH", 1)
    folder = tmp_path / "home"
    for sitting in (0, 1):
        place = folder / "sound" / f"phone7_{sitting}"
        linked = ""
        for i in (0, 1):
            tone(place / f"phone7_{sitting}_{i}.wav", 2 * sitting + i)
            linked += f"/sd/a.txt (line {i + 1}) ; /sd/rec/phone7_{sitting}/phone7_{sitting}_{i}.wav\n"
            (place / f"phone7_{sitting}_{i}-metadata.json").write_text('{"device": "phone7"}')
        (place / f"phone7_{sitting}_linker.txt").write_text(linked)
        said = TEXTS[2 * sitting : 2 * sitting + 2]
        (place / "Session.txt").write_text(f"##{said[0]}\n##{said[1]} | ##Haya, hapana.\n")
    git(tmp_path, "init", "--quiet", str(folder))
    git(folder, "config", "uploadpack.allowFilter", "true")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "recordings")
    sources.SOURCES.mkdir()
    rows = ["file\tsession\tspeaker\tseconds\tsplit\tsha256"]
    for i, path in enumerate(sorted(folder.glob("sound/*/*.wav"))):
        rows.append(
            f"{i:04d}\t0{i // 2}\ttones\t0.50\t{'lm' if i < 2 else 'test'}\t{sha256(path.read_bytes())}"
        )
    (sources.SOURCES / "tones.tsv").write_text("\n".join(rows) + "\n")
    known = sha256("\n".join(f"{i:04d}\t{text}" for i, text in enumerate(TEXTS)))
    describe(home=folder.as_uri(), commit=git(folder, "rev-parse", "HEAD"), texts=known)
    return folder


@pytest.fixture
def shared(home: Path, tmp_path: Path) -> Path:
    """The same recordings in a folder: tones.tsv beside tones/."""
    folder = tmp_path / "shared"
    rows = ["file\ttext"]
    for i, path in enumerate(sorted(home.glob("sound/*/*.wav"))):
        (folder / "tones").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "tones" / f"{i:04d}.wav")
        rows.append(f"{i:04d}.wav\t{TEXTS[i]}")
    (folder / "tones.tsv").write_text("\n".join(rows) + "\n")
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "recordings.tsv", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def refused(place: Path | None = None, name: str = "tones") -> str:
    with pytest.raises(LabError) as caught:
        sources.fetch(name, place)
    assert str(caught.value).count("\n") == 0
    return str(caught.value)


def test_a_home_becomes_sounds_and_a_table_and_nothing_of_devices(home: Path) -> None:
    with pytest.raises(LabError, match="not here, or not all: `slmlab fetch tones`"):
        sources.recordings("tones")
    folder = sources.fetch("tones")
    assert folder == sources.recordings("tones") == files.RECORDINGS / "tones"
    rows = table(folder)
    assert tuple(row["text"] for row in rows) == TEXTS
    assert [row["split"] for row in rows] == ["lm", "lm", "test", "test"]
    assert {row["consent"] for row in rows} == {
        "MIT, Copyright (c) 2026 Nobody: Permission is hereby granted."
    }
    known = {sha256(path.read_bytes()) for path in home.glob("sound/*/*.wav")}
    assert {sha256((folder / row["file"]).read_bytes()) for row in rows} == known
    assert {path.name for path in folder.iterdir()} == {
        *(row["file"] for row in rows),
        "recordings.tsv",
        "complete.json",
    }
    assert not any("phone7" in path.read_text() for path in folder.glob("*.[tj]s*"))
    assert list((files.CACHE / "homes").iterdir()) == []


def test_only_sounds_and_transcripts_are_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    plain = sources._git

    def spy(*arguments: object, given: object = ()) -> bytes:
        asked.extend(given if "fetch" in arguments else ())
        return plain(*arguments, given=given)

    monkeypatch.setattr(sources, "_git", spy)
    sources.fetch("tones")
    wanted = [path for path in home.rglob("sound/*/*") if path.suffix in (".wav", ".txt")]
    assert sorted(asked) == sorted(git(home, "hash-object", str(path)) for path in wanted)


def test_an_import_keeps_split_and_terms_of_each_recording(home: Path, tmp_path: Path) -> None:
    folder = sources.fetch("tones")
    made = imports.bring_in(
        collections.read(folder), imports.ImportSpec("tones", "sw", ""), tmp_path / "made"
    )
    assert files.read_json(made.folder / "corpus.json")["skipped"] == []
    assert list(made.rows["split"]) == ["lm", "lm", "test", "test"]
    assert made.rows["consent"].str.startswith("MIT, Copyright").all()


def test_a_folder_and_a_clone_give_the_same_table(home: Path, shared: Path, tmp_path: Path) -> None:
    first = table(sources.fetch("tones", shared))
    shutil.rmtree(files.RECORDINGS)
    git(tmp_path, "clone", "--quiet", "--bare", str(home), str(tmp_path / "clone"))
    describe(**settings_now() | {"home": (tmp_path / "gone").as_uri()})
    assert table(sources.fetch("tones", tmp_path / "clone")) == first
    shutil.rmtree(files.RECORDINGS)
    assert table(sources.fetch("tones", home)) == first


def settings_now() -> dict[str, object]:
    source = sources.find("tones")
    return {name: getattr(source, name) for name in ("home", "commit", "texts")}


def test_a_fetch_that_was_cut_off_goes_on_and_asks_for_nothing_twice(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, written = files.whole, []

    def killed(path: Path) -> object:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        return whole(path)

    monkeypatch.setattr(files, "whole", killed)
    with pytest.raises(KeyboardInterrupt):
        sources.fetch("tones")
    monkeypatch.setattr(files, "whole", whole)
    kept = {path: path.stat().st_mtime_ns for path in written}
    assert len(kept) == 2
    assert not (files.RECORDINGS / "tones" / "recordings.tsv").exists()
    (files.CACHE / "homes" / "tones").mkdir(parents=True, exist_ok=True)
    (files.CACHE / "homes" / "tones" / "shallow.lock").touch()
    asked: list[str] = []
    contents = sources._contents

    def spy(*arguments: object) -> object:
        asked.extend(arguments[1])
        return contents(*arguments)

    monkeypatch.setattr(sources, "_contents", spy)
    folder = sources.fetch("tones")
    assert not {sources._blob(path) for path in kept} & set(asked)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(table(folder)) == 4


def test_what_is_complete_needs_no_home_and_what_was_damaged_comes_again(home: Path, shared: Path) -> None:
    folder = sources.fetch("tones")
    home.rename(home.with_name("moved"))
    assert sources.fetch("tones") == folder
    (folder / "0001.wav").write_bytes(b"damaged")
    assert "not all came from" in refused()
    assert not (folder / "0001.wav").exists()
    with pytest.raises(LabError, match="not all"):
        sources.recordings("tones")
    assert len(table(sources.fetch("tones", shared))) == 4


def test_a_file_with_another_sha256_is_named_and_left_out(home: Path, shared: Path) -> None:
    content = bytearray((shared / "tones" / "0002.wav").read_bytes())
    content[500] ^= 1
    (shared / "tones" / "0002.wav").write_bytes(content)
    said = refused(shared)
    assert said.startswith("0002.wav from ")
    assert "another sha256 than tones.tsv lists; such files were left out: 1; 3 of 4 are verified in" in said
    folder = files.RECORDINGS / "tones"
    assert sorted(path.name for path in folder.iterdir()) == ["0000.wav", "0001.wav", "0003.wav"]
    assert len(table(sources.fetch("tones", home))) == 4


def test_a_home_whose_sound_was_changed_lacks_it(home: Path) -> None:
    path = home / "sound" / "phone7_1" / "phone7_1_0.wav"
    path.write_bytes(path.read_bytes() + b"\0\0")
    git(home, "commit", "--quiet", "--all", "--message", "tampered")
    describe(**settings_now() | {"commit": git(home, "rev-parse", "HEAD")})
    assert "lacks recordings of tones or their texts: 1, the first 0002; 3 of 4 are verified" in refused()


def test_a_folder_that_lacks_files_or_texts_says_how_many(home: Path, shared: Path, tmp_path: Path) -> None:
    for i in (1, 3):
        (shared / "tones" / f"000{i}.wav").unlink()
    assert "lacks recordings of tones or their texts: 2, the first 0001; 2 of 4 are verified" in refused(
        shared
    )
    (shared / "tones.tsv").write_text("file\ttext\n0000.wav\tMama anapika chakula.\n")
    assert "texts: 3, the first 0001; 2 of 4" in refused(shared)
    (shared / "tones.tsv").write_text("name\tword\n0000.wav\n")
    assert "tones.tsv lacks the columns file" in refused(shared)
    for place in (tmp_path / "nothing", sources.SOURCES):
        assert "has no tones.tsv beside a folder tones, and is no clone of file:" in refused(place)


def test_texts_of_others_are_refused(home: Path, shared: Path) -> None:
    path = shared / "tones.tsv"
    path.write_text(path.read_text().replace("Mama", "Dada"))
    said = refused(shared)
    assert "are others than tones.toml knows (sha256 " in said
    assert "4 of 4 are verified" in said


def test_an_absent_home_no_git_and_a_full_disk_are_one_sentence(
    home: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(**settings_now() | {"home": (home.parent / "absent").as_uri()})
    said = refused()
    assert f"not all came from file://{home.parent}/absent (fatal: " in said
    assert "Check the connection and run the same command again, or give a folder" in said
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(home))
        assert "git is not here: install it" in refused()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert "0000.wav could not be written" in refused(shared)
    assert list((files.RECORDINGS / "tones").iterdir()) == []
    assert len(table(sources.fetch("tones", shared))) == 4


def full(path: Path, content: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_the_command_says_what_came_and_what_there_is(
    home: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "tones", "--from", str(shared)]) == 0
    folder = files.RECORDINGS / "tones"
    said = capsys.readouterr().out
    assert f"fetched: 4 recordings into {folder} (MIT, Copyright (c) 2026 Nobody)" in said
    assert f"next: slmlab import {folder} --language sw" in said
    assert main(["fetch", "tunes"]) == 2
    assert "there is no source 'tunes'" in capsys.readouterr().err
    describe("odd", shape="round")
    assert main(["fetch", "odd"]) == 2
    assert "odd.toml does not describe a source" in capsys.readouterr().err


def test_what_heard_a_source_that_may_not_be_passed_on_is_not_even_trained_to_be_shipped(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*_: object) -> Path:
        raise LabError("training begins")

    def said(*arguments: str) -> str:
        assert main(["train", "all", "--ship", *arguments]) == 2
        return capsys.readouterr().err

    monkeypatch.setattr(shelf, "make", train)
    clips = collections.read(sources.fetch("tones"))
    made = [tmp_path / "made", tmp_path / "moved"]
    imports.bring_in(clips, imports.ImportSpec("tones", "sw", ""), made[0])
    settings = sources.SOURCES / "tones.toml"
    assert "training begins" in said("--recordings", str(made[0]))
    settings.write_text(settings.read_text().replace("ships = true", "ships = false"))
    monkeypatch.setattr(files, "RECORDINGS", tmp_path / "elsewhere")
    assert "heard tones may not be shipped" in said("--recordings", str(made[0]))  # by its consent
    monkeypatch.setattr(files, "RECORDINGS", tmp_path / "recordings")
    own = [dataclasses.replace(clip, consent="my own voice") for clip in clips]
    imports.bring_in(own, imports.ImportSpec("tones", "sw", ""), made[1])
    assert "heard tones may not be shipped" in said("--recordings", str(made[1]))  # by where it lies
    assert "training begins" in said("--preset", "smoke")
    shutil.copy(settings, sources.SOURCES / "habari.toml")
    describe("joshua")
    describe("yoruba")
    assert "heard habari may not be shipped" in said("--preset", "human")


def test_transcripts_are_found_in_lines_and_beside_sounds() -> None:
    lines = {"a/texts.txt": "s_1:Habari: njema\ns_2:Leo"}
    assert sources.TRANSCRIPTS["lines"](lines) == {"s_1": "Habari: njema", "s_2": "Leo"}
    assert sources.TRANSCRIPTS["beside"]({"a/s_1.mb": "wa obia\n"}) == {"s_1": "wa obia\n"}


EVERY = sorted(path.stem for path in sources.SOURCES.glob("*.toml"))


@pytest.mark.parametrize("name", EVERY)
def test_a_source_is_a_list_without_texts_that_holds_texts_apart(name: str) -> None:
    source = sources.find(name)
    assert len(source.rows) > 400
    sums = [row[column] for row in source.rows.values() for column in ("sha256", "original") if column in row]
    assert len(set(sums)) == len(sums)
    assert {len(value) for value in sums} == {64}
    known = {"file", "session", "speaker", "seconds", "split", "sha256", "original"}
    assert all(set(row) <= known for row in source.rows.values())
    assert {row["speaker"] for row in source.rows.values()} == set(source.readers)
    assert (
        {"lm", "dev", "test"}
        <= {row["split"] for row in source.rows.values()}
        <= {"lm", "dev", "test", "none"}
    )
    if source.ships:
        sources.shippable(name)
    else:
        with pytest.raises(
            LabError, match=rf"have heard {name} may not be shipped: its home gives no licence"
        ):
            sources.shippable(name)


def test_sittings_of_joshua_are_held_out_whole() -> None:
    rows = sources.find("joshua").rows.values()
    parts = {
        split: {row["session"] for row in rows if row["split"] == split} for split in ("lm", "dev", "test")
    }
    assert (parts["dev"], parts["test"]) == ({"06", "12"}, {"03", "07", "17"})
    assert len(parts["lm"]) == 12
    assert not parts["lm"] & (parts["dev"] | parts["test"])


@pytest.mark.parametrize("name", [name for name in EVERY if name != "mboshi"])
def test_real_recordings_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (HERE / f"{name}.tsv").exists():
        pytest.skip(f"no {HERE / name}")
    monkeypatch.setattr(files, "RECORDINGS", tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a thousand times, it takes longer than all else
    folder = sources.fetch(name, HERE)
    rows = table(folder)
    assert len(rows) == len(sources.find(name).rows)
    said = {
        split: {words(row["text"]) for row in rows if row["split"] == split}
        for split in ("lm", "dev", "test")
    }
    assert not said["lm"] & (said["dev"] | said["test"])
    assert not said["dev"] & said["test"]
    for row in rows[:: len(rows) // 5]:
        wave, info = audio.read(folder / row["file"])
        assert not info.generated
        assert abs(len(wave) / SAMPLE_RATE - float(row["seconds"])) < 0.05


def words(text: str) -> str:
    return " ".join("".join(c if c.isalpha() else " " for c in text.lower()).split())
