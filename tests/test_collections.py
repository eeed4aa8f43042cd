"""What people bring comes in row by row: nothing shortened, nothing lost without a line, no row ends it."""

import ast
import csv
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from slmlab.corpus import tables
from slmlab.corpus.build import SETTINGS
from slmlab.corpus.collections import Clip, read
from slmlab.corpus.imports import ImportSpec, bring_in
from slmlab.errors import LabError
from slmlab.files import read_json
from slmlab.language.texts import lines_of

ROOT = Path(__file__).parents[1]
COLUMNS = "client_id\tpath\tsentence\tup_votes"


def collection(folder: Path, table: str, rows: list[str], end: str = "\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / table).write_bytes("".join(row + end for row in rows).encode())
    return folder


def faults(clips: list[Clip]) -> list[str]:
    return [clip.fault for clip in clips if clip.fault]


def test_lines_break_at_lf_and_crlf_alone():
    assert lines_of("a\rb\u2028c\x85d\x0be\x0cf\x1cg\r\nh\n") == ["a\rb\u2028c\x85d\x0be\x0cf\x1cg", "h"]


def test_nothing_breaks_text_at_what_stands_inside_sentences():
    places = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "slmlab").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("splitlines", "readlines")
    ]
    assert [place for place in places if not place.startswith("loop.py")] == []  # a log of our own numbers


@pytest.mark.parametrize("inside", ["\r", "\u2028", "\x85", "\x0b", "\x0c", "\u2029"])
def test_what_breaks_a_line_inside_a_cell_is_a_space(tmp_path: Path, inside: str):
    rows = [COLUMNS, f"f0\ta.mp3\tMama{inside}anapika.\t2", "f0\tb.mp3\tHabari.\t2"]
    for end in ("\n", "\r\n"):
        clips = read(collection(tmp_path, "validated.tsv", rows, end), "common_voice")
        assert [(clip.path.name, clip.text, clip.speaker) for clip in clips] == [
            ("a.mp3", "Mama anapika.", "cv-f0"),
            ("b.mp3", "Habari.", "cv-f0"),
        ]


def test_rows_that_cannot_be_trusted_are_listed_with_their_lines(tmp_path: Path):
    rows = [
        COLUMNS,
        "f0\ta.mp3\tMoja.\t2",
        "\tb.mp3\tMbili.\t2",
        "f0\t\tTatu.\t2",
        "f0\tc.mp3\tNne.\t2",
        "f0\tc.mp3\tTano.\t2",
        f"f0\td.mp3\t{'a' * 200_000}\t2",
        f"f0\td.mp3\t{'a' * 20_000}\t2",
        "f0\te.mp3\tSita.\t2",
        "f0\te.mp3\tSita.\t2",
        "f0\tf.mp3\tSab",
    ]
    clips = read(collection(tmp_path, "validated.tsv", rows), "common_voice")
    assert [clip.path.name for clip in clips if not clip.fault] == ["a.mp3", "e.mp3"]
    said = [fault.partition("line ")[2] for fault in faults(clips)]
    for part, told in zip(
        (
            "3 has no client_id",
            "4 has no path",
            "5 says something else of c.mp3",
            "6 names c.mp3 again",
            "7 cannot be read (field larger than field limit",
            "8 has a cell of 20000 characters",
            "10 names e.mp3 again",
            "11 has 3 cells in place of 4",
        ),
        said,
        strict=True,
    ):
        assert told.startswith(part)


@pytest.mark.parametrize("name", ["../../secret.mp3", "/etc/secret.mp3", "x/../../../secret.mp3"])
def test_a_cell_leads_nowhere_outside_its_folder(tmp_path: Path, name: str):
    rows = [COLUMNS, f"f0\t{name}\tMoja.\t2", "f0\tx/../a.mp3\tMbili.\t2"]
    clips = read(collection(tmp_path / "cv", "validated.tsv", rows), "common_voice")
    assert [bool(clip.fault) for clip in clips] == [True, False]
    assert "line 2 names" in clips[0].fault
    assert "which is outside" in clips[0].fault
    (tmp_path / "cv" / "wavs").mkdir()
    assert (
        "outside"
        in faults(read(collection(tmp_path / "cv", "metadata.csv", [f"{name}|Moja."]), "ljspeech"))[0]
    )


def test_long_hashes_of_speakers_are_cut_and_names_are_not(tmp_path: Path):
    rows = [COLUMNS, f"{'ab' * 64}\ta.mp3\tMoja.\t2", "speaker_number_12\tb.mp3\tMbili.\t2"]
    clips = read(collection(tmp_path, "validated.tsv", rows), "common_voice")
    assert [clip.speaker for clip in clips] == ["cv-abababababab", "cv-speaker_number_12"]


def test_a_row_in_another_encoding_is_listed_and_utf_16_is_read(tmp_path: Path):
    rows = [COLUMNS, "f0\ta.mp3\tMoja.\t2"]
    collection(tmp_path, "validated.tsv", rows)
    with (tmp_path / "validated.tsv").open("ab") as table:
        table.write("f0\tb.mp3\tÉté.\t2\n".encode("latin-1"))
    clips = read(tmp_path, "common_voice")
    assert [clip.text for clip in clips if not clip.fault] == ["Moja."]
    assert "line 3 is not UTF-8" in faults(clips)[0]
    (tmp_path / "validated.tsv").write_bytes("\n".join(rows).encode("utf-16"))
    assert [clip.text for clip in read(tmp_path, "common_voice")] == ["Moja."]


def test_the_folder_that_has_the_table_is_named(tmp_path: Path):
    sw = collection(tmp_path / "cv" / "sw", "validated.tsv", [COLUMNS])
    (sw / "clips").mkdir()
    for given_folder in (tmp_path / "cv", tmp_path, sw / "clips"):
        with pytest.raises(LabError, match=r"validated\.tsv does not exist: give .*sw"):
            read(given_folder, "common_voice")


def test_a_form_is_recognised_and_a_plain_import_of_another_says_which(tmp_path: Path):
    collection(tmp_path, "ss-corpus-sw.tsv", ["client_id\taudio_file\ttranscription", "f0\tx.mp3\tMoja."])
    (tmp_path / "audios").mkdir()
    (tmp_path / "audios" / "x.mp3").write_bytes(b"x")
    with pytest.raises(LabError, match="with --form spontaneous"):
        read(tmp_path, "plain")
    assert (
        read(tmp_path)
        == read(tmp_path, "spontaneous")
        == [Clip(tmp_path / "audios" / "x.mp3", "Moja.", "cv-f0")]
    )
    (tmp_path / "waxal").mkdir()
    (tmp_path / "waxal" / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(LabError, match=r"holds Parquet tables.*docs/commands\.md"):
        read(tmp_path / "waxal")


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        (["a1|Mama anapika.|", "a2|Baba 2.|Baba wawili."], ["Mama anapika.", "Baba wawili."], "column 3 or"),
        (["a1.wav|Mama anapika.", "wavs/a2.wav|Baba."], ["Mama anapika.", "Baba."], "column 2 of 2; one"),
        (["a1|Mama anapika.|sw", "a2|Baba anaimba.|sw"], ["Mama anapika.", "Baba anaimba."], "column 2 of 3"),
        (
            ["a1|asha|Mama anapika.", "a2|juma|Baba anaimba."],
            ["Mama anapika.", "Baba anaimba."],
            "column 3 of 3; speakers in column 2",
        ),
        (
            ["audio_file|text|speaker_name", "a1.wav|Mama.|speaker_0001", "a2.wav|Baba.|speaker_0002"],
            ["Mama.", "Baba."],
            "column 2 of 3; speakers in column 3",
        ),
        (
            ["wavs\\a1.wav|asha|SW|Mama anapika.", "a2.wav|asha|SW|Baba."],
            ["Mama anapika.", "Baba."],
            "column 4",
        ),
    ],
)
def test_relatives_of_ljspeech_are_read_and_their_columns_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[str], words: list[str], said: str
):
    (tmp_path / "wavs").mkdir()
    for name in ("a1", "a2"):
        (tmp_path / "wavs" / f"{name}.wav").write_bytes(b"x")
    clips = read(collection(tmp_path, "metadata.csv", rows), "ljspeech")
    assert [(clip.path, clip.text) for clip in clips] == [
        (tmp_path / "wavs" / f"a{i}.wav", text) for i, text in enumerate(words, start=1)
    ]
    assert said in capsys.readouterr().out


def test_a_bar_too_many_is_listed(tmp_path: Path):
    clips = read(collection(tmp_path, "metadata.csv", ["a|Moja.", "b|Mbi|li.", "c|Tatu."]), "ljspeech")
    assert "line 2 has 3 cells in place of 2" in faults(clips)[0]


def test_every_file_of_a_folder_is_used_listed_or_counted(tmp_path: Path):
    tone = 0.3 * np.sin(np.arange(48_000) / 20)
    for name in ("a.opus", "b.oga"):
        soundfile.write(tmp_path / name, tone, 48_000, format="OGG", subtype="OPUS")
    for name in ("c.m4a", "d d.webm", "e.jpg", "f.csv", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    for name, code in (("a", "utf-8"), ("b", "utf-16"), ("g", "utf-8")):
        (tmp_path / f"{name}.txt").write_bytes("Mama anapika.".encode(code))
    clips = read(tmp_path)
    assert [(clip.path.name, clip.text) for clip in clips if not clip.fault] == [
        ("a.opus", "Mama anapika."),
        ("b.oga", "Mama anapika."),
    ]
    m4a, webm, rest = faults(clips)
    assert f"`ffmpeg -i {tmp_path}/c.m4a {tmp_path}/c.wav`" in m4a
    assert f"`ffmpeg -i '{tmp_path}/d d.webm' '{tmp_path}/d d.wav'`" in webm
    assert rest.startswith("4 files are neither sounds nor transcripts of one")
    assert rest.endswith(".csv 1, .hidden 1, .jpg 1, .txt 1.")
    corpus = bring_in(clips, ImportSpec("phone", "sw", "CC0"), tmp_path / "corpus")
    assert corpus.rows["seconds"].tolist() == pytest.approx([1.0, 1.0], abs=0.05)


def test_a_name_that_is_not_utf_8_is_listed_and_nothing_else_ends(tmp_path: Path):
    tone = 0.3 * np.sin(np.arange(48_000) / 20)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (b"a.wav", b"\xe9.wav", b"\xe9.xyz"):
        soundfile.write(tmp_path / "x.wav", tone, 48_000)
        (tmp_path / "x.wav").rename(folder / os.fsdecode(name))
        (folder / os.fsdecode(name)).with_suffix(".txt").write_text("Mama anapika.")
    corpus = bring_in(read(folder), ImportSpec("odd", "sw", "CC0"), tmp_path / "corpus")
    skipped = [note["reason"] for note in read_json(corpus.folder / SETTINGS)["skipped"]]
    assert skipped[0] == f"{folder}/\ufffd.wav has a name that is not UTF-8: rename it."
    assert skipped[1].startswith(
        f"1 files are neither sounds nor transcripts of one, the first {folder}/\ufffd.xyz"
    )
    (folder / "recordings.tsv").write_text("file\ttext\tspeaker\na.wav\tMama.\tasha\n")
    assert "1 sounds stand in no row of the table, the first" in faults(read(folder))[0]
    assert len(bring_in(read(folder), ImportSpec("odd", "sw", "CC0"), tmp_path / "again")) == 1


def test_an_open_quote_names_all_lines_that_it_takes(tmp_path: Path):
    (tmp_path / "pairs.csv").write_text('x,y\n1,2\n"3,4\n5,6\n')
    rows = [row for row, _ in tables.with_names(tmp_path / "pairs.csv", ("x",), ",", quoted=True)]
    assert [row.cells for row in rows] == [("1", "2"), ()]
    assert "line 3 to 4 cannot be read" in rows[1].fault


def test_one_transcript_that_cannot_be_read_is_listed(tmp_path: Path):
    for name, content in (("a", b"Moja."), ("b", b"\xe9t\xe9")):
        (tmp_path / f"{name}.wav").write_bytes(b"x")
        (tmp_path / f"{name}.txt").write_bytes(content)
    assert [bool(clip.fault) for clip in read(tmp_path)] == [False, True]


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "", "a\\b"])
def test_a_name_that_is_a_path_is_refused(name: str):
    with pytest.raises(LabError, match="is no name of a corpus"):
        ImportSpec(name, "sw", "CC0")


def test_a_sentence_is_in_one_split_however_it_is_written(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(np.arange(16_000) / 20), 16_000)
    spelt = ("Mama anapika ndizi {}", "mama anapika ndizi {}.", "MAMA, ANAPIKA NDIZI {}!")
    texts = [text.format(word) for word in ("leo", "jana", "kesho", "sasa", "tena") for text in spelt]
    clips = [Clip(tmp_path / "a.wav", text, "asha") for text in texts]
    splits = bring_in(clips, ImportSpec("mine", "sw", "CC0"), tmp_path / "corpus").rows["split"].tolist()
    assert all(len(set(splits[i : i + 3])) == 1 for i in range(0, len(splits), 3))


CELL = st.text(
    st.sampled_from(["a", "b", "é", '"', "'", " ", "\r", "\u2028", "\x85", "\0", "|", ",", "\ufeff"]),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(CELL, min_size=1, max_size=5), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_every_row_of_any_table_is_read_or_listed(rows: list[list[str]], end: str):
    with tempfile.TemporaryDirectory() as folder:
        text = "".join("\t".join(row) + end for row in [["file", "text", "speaker"], *rows])
        path = Path(folder) / "recordings.tsv"
        path.write_bytes(text.encode())
        made = list(tables.with_names(path, ("file", "text", "speaker")))
        wanted = [
            (i, row)
            for i, line in enumerate(text.replace("\r\n", "\n").split("\n")[1:-1], start=2)
            if any(row := [" ".join(cell.split("\r")).strip() for cell in line.split("\t")])
        ]
        assert [row.place for row, _ in made] == [f"{path}, line {i}" for i, _ in wanted]
        for (row, cells), (_, expected) in zip(made, wanted, strict=True):
            assert bool(row.fault) == (len(expected) != 3)
            assert row.fault or list(cells.values()) == expected
        clips = read(folder)
        assert len(clips) == len(made)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_as_a_table_are_rows_or_one_sentence(content: bytes):
    with tempfile.TemporaryDirectory() as folder:
        for name, form in (("metadata.csv", "ljspeech"), ("validated.tsv", "common_voice")):
            head = b"client_id\tpath\tsentence\n" if name == "validated.tsv" else b"a|b|c\n"
            for start in (b"", head):
                (Path(folder) / name).write_bytes(start + content)
                try:
                    assert all(clip.fault or clip.path.name for clip in read(folder, form))
                except LabError as error:
                    told = str(error)
                    assert "\n" not in told


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=6))
def test_quoted_cells_come_back_as_a_spreadsheet_wrote_them(rows: list[list[str]]):
    rows = [[cell.replace("\r", "\n").replace("\0", "") for cell in row] for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["x", "y", "z"], *rows])
        made = [list(cells.values()) for _, cells in tables.with_names(path, ("x",), ",", quoted=True)]
        assert made == [cells for row in rows if any(cells := [cell.strip() for cell in row])]


@pytest.mark.parametrize(
    ("name", "lines", "text", "speaker"),
    [
        (
            "list.csv",
            ["file,transcript", 'a.wav,"Mama, anapika."', "b.wav,Baba."],
            "Mama, anapika.",
            "reader",
        ),
        ("list.csv", ["1;Mama anapika.;a.wav;juma", "2;Baba yake.;b.wav;asha"], "Mama anapika.", "juma"),
        (
            "t.tsv",
            ["path\tspeaker\tsentence", "a\tjuma\tMama anapika.", "b\tasha\tBaba yake."],
            "Mama anapika.",
            "juma",
        ),
    ],
)
def test_a_table_beside_sounds_is_read_whatever_its_columns(
    tmp_path: Path, name: str, lines: list[str], text: str, speaker: str
):
    for sound in ("a.wav", "b.wav"):
        (tmp_path / sound).write_bytes(b"x")
    (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    first, second = read(tmp_path)
    assert (first.path, first.text, first.speaker, first.fault) == (tmp_path / "a.wav", text, speaker, "")
    assert second.path == tmp_path / "b.wav"


def test_texts_beside_sounds_come_before_a_table_of_something_else(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "a.txt").write_text("Mama.", encoding="utf-8")
    (tmp_path / "notes.csv").write_text("day,weather\n1,rain\n", encoding="utf-8")
    first, *others = read(tmp_path)
    assert (first.text, first.fault) == ("Mama.", "")
    assert ["notes.csv" in other.fault for other in others] == [True]
