"""The report as a stranger reads it: conclusion, contents, words, meanings of sentences, instruments."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_alignment_claims
import test_claims
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from slmlab import files
from slmlab.corpus.groups import TEST_SEED
from slmlab.errors import LabError
from slmlab.language.languages import meaning
from slmlab.language.sentences import sentences
from slmlab.sound import audio
from slmlab.study import alignment, claims, conclusion, report, scaling, tables
from slmlab.study.page import STYLE, explained, page
from slmlab.study.tables import WORDS, Section

NO_WORDS = {"A4", "CPU"}
MAMA = {"system": "chain", "language": "sw", "text": "Omari anaenda wapi leo asubuhi?", "judge": "b"}


def row(i: int, **changes: Any) -> dict[str, Any]:
    """A sentence of a run."""
    return MAMA | {"heard": f"omari anaenda {i}", "cer": 0.1, "wer": 0.25} | changes


def make_run(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    """A folder as a run leaves it; rows with a `sound` have one."""
    speak = {"seconds": 1.0, "metrics": {"cer": 0.1, "wer": 0.25, "sim": 0.9}}
    summary = {"preset": "tiny", "seeds": [0], "commit": "abc", "machine": "a laptop", "seconds": 60.0}
    summary |= {"fresh": False, "stages": {"speak.sw": speak}} | changes
    files.write_json(folder / "report.json", summary)
    files.write_json(folder / "rows.json", rows)
    for said in rows:
        if "sound" in said:
            audio.write(folder / "sounds" / said["sound"], 0.3 * np.sin(np.arange(8000) * 0.1))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("run")
    rows = [row(i, sound=f"sw-{i}.wav") for i in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "read_results", lambda preset: test_claims.world(1.0))
        patch.setattr(alignment, "read_results", lambda preset: test_alignment_claims.world(1.0))
        patch.setattr(tables, "RESULTS", folder)
        yield report.write(make_run(folder, rows)).read_text(encoding="utf-8")


def visible(page: str) -> str:
    """What a reader sees, without sounds and pictures."""
    body = re.sub(r"<(style|script)>.*?</\1>|data:[^']*", " ", page, flags=re.DOTALL)
    return re.sub(r"<[^>]*>", " ", body)


def test_the_contents_are_the_headings(written: str) -> None:
    nav = re.search(r"<nav>.*?</nav>", written, re.DOTALL)
    assert nav
    links = re.findall(r"<a href='#([\w-]+)'>(.*?)</a>", nav[0])
    assert [name for _, name in links] == re.findall(r"<h[23][^>]*>(.*?)</h[23]>", written)
    assert len(links) > 25
    ids = re.findall(r" id='([\w-]+)'", written)
    assert [place for place, _ in links] == ids
    assert len(set(ids)) == len(ids)


def test_the_conclusion_comes_first_and_is_three_sentences(written: str) -> None:
    first = written.index("<div class='first'>")
    assert first < written.index("<nav>")
    box = written[first : written.index("</div>", first)]
    assert len(re.findall(r"<p>[A-Z][^<]*\.</p>", box)) == 3
    assert "a recogniser misread 25 % of the words of Swahili" in box
    assert re.search(r"Of 47 claims \d+ are reproduced, \d+ are refuted, \d+ are inconclusive\.", box)


def test_every_abbreviation_is_in_the_glossary_and_explained_once(written: str) -> None:
    words = set(re.findall(r"<dt>(.*?)</dt>", written))
    assert words <= set(WORDS["words"])
    text = visible(written)
    used = {name.lstrip("Δ") for name in re.findall(r"(?<![\w.])Δ?[A-Z]+[A-Z0-9]+(?!\w)", text)}
    used -= {name for name in used if re.fullmatch(r"[SEDTC]\d+", name)} | NO_WORDS
    used |= set(re.findall(r"H_p|T_max|[αρλ]", text))
    assert used - words == set()
    assert {"WER", "CER", "SIM", "α", "H_p", "z", "DGSA", "TDSC", "SFT", "DPO", "p", "Holm"} <= words
    for name in words:
        assert written.count(f"<b>{name}</b>: ") == 1, name
        assert written.index(f"<b>{name}</b>: ") < written.index(f"<dt>{name}</dt>")


def test_a_word_is_explained_with_the_words_of_its_meaning_and_no_second_time() -> None:
    known = set[str]()
    line = explained("z rises", known)
    assert [name in known for name in ("z", "F0", "WER")] == [True, True, False]
    assert line.index("<b>z</b>") < line.index("<b>F0</b>")
    assert explained("z and F0 again", known) == ""
    assert explained("baz, T1, wer/WER", set()) == ""


def test_what_somebody_said_is_text_whatever_it_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for study in (scaling, alignment):
        monkeypatch.setattr(study, "read_results", lambda preset: None)
    told = "[mama](http://a.example) `b` <i>c</i> https://d.example"
    notebook = {"notebook.03_tokens": {"seconds": 1.0, "metrics": {}}}
    speak = {"speak.sw": {"seconds": 1.0, "metrics": {"cer": 0.1, "wer": 0.25, "sim": 0.9}}}
    folder = make_run(tmp_path, [row(0, heard=told, text=told, sound="0.wav")], stages=notebook | speak)
    shown = report.write(folder).read_text(encoding="utf-8")
    assert shown.count("[mama](http://a.example) `b` &lt;i&gt;c&lt;/i&gt; https://d.example") >= 4
    links = re.findall(r"<a href='([^#'][^']*)'>(.*?)</a>", shown)
    assert links == [("notebooks/03_tokens.html", "03_tokens")]


def test_players_are_named_by_what_is_said_and_what_it_means(written: str) -> None:
    (caption, *_) = re.findall(r"<figcaption>(.*?)</figcaption>", written, re.DOTALL)
    assert caption == (
        "Swahili: “Omari anaenda wapi leo asubuhi?”\n"
        "(Where is Omari going this morning?)\nheard: omari anaenda 0"
    )
    assert written.count("<audio controls") == 2


@pytest.mark.parametrize("language", ["vi", "sw"])
def test_sentences_whose_sounds_are_kept_have_their_meaning(language: str) -> None:
    shown = sentences(language, "test", report.KEPT, TEST_SEED)
    assert [text for text in shown if not meaning(text, language)] == []
    assert meaning("no such sentence", language) == meaning("habari", "yo") == ""


@pytest.mark.parametrize(
    ("erosion", "words"),
    [
        (1.0, ("is better understood and sounds flatter: from 3 % to 100 %", "semitones less (recordings")),
        (-1.0, ("is worse understood and sounds livelier: from 3 % to 100 %", "semitones more (recordings")),
        (0.0, ("is understood as well as before, as far as these rows can tell",)),
    ],
)
def test_the_conclusion_changes_with_the_rows(erosion: float, words: tuple[str, ...]) -> None:
    results = test_claims.world(erosion)
    said = conclusion.of_scaling(results)
    wer = 100 * claims.Arm.of(results, "authentic").wer.value.mean(1)
    assert f"misread words go from {wer[0]:.0f} to {wer[-1]:.0f} %" in said
    assert [part for part in words if part not in said] == []


def test_the_conclusion_on_tuning_changes_with_the_rows() -> None:
    whole = test_alignment_claims.world(1.0)
    said = conclusion.of_alignment(whole)
    assert "the one without recordings (TDSC) leaves fewer words misread (" in said
    turned = whole.rows.assign(
        method=whole.rows["method"].replace({"sft": "tdsc", "tdsc": "sft"}),
        part=whole.rows["part"].where(whole.rows["method"] != "tdsc", ""),
    )
    runs = whole.runs.assign(method=whole.runs["method"].replace({"sft": "tdsc", "tdsc": "sft"}))
    plain = turned[turned["part"] == ""].drop_duplicates(["language", "method", "alpha", "seed", "sentence"])
    backwards = alignment.Aligned(
        plain, runs[runs["part"] == ""], whole.candidates, whole.sets, whole.recordings, whole.seconds
    )
    assert "(TDSC) leaves more words misread (" in conclusion.of_alignment(backwards)
    assert conclusion.of_alignment(None) == "The paper's two ways of tuning have not been tried here yet."
    assert conclusion.of_scaling(None).endswith("not been studied here yet.")


def test_no_label_of_an_axis_is_cut() -> None:
    results = test_claims.world(1.0)
    parts = [*tables.scaling_sections(results, [], []), *test_alignment_claims.sections()]
    figures = [part.picture.figure for part in parts if part.picture]
    assert len(figures) >= 4
    for figure in figures:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        whole = figure.bbox
        for ax in figure.axes:
            for label in filter(Text.get_text, (ax.xaxis.label, ax.yaxis.label, ax.title)):
                box = label.get_window_extent()
                inside = (box.x0 >= 0, box.y0 >= 0, box.x1 <= whole.x1, box.y1 <= whole.y1)
                assert all(inside), label.get_text()
            assert ax.yaxis.label.get_window_extent().height <= ax.bbox.height, ax.get_ylabel()
            assert not ax.xaxis_inverted()


def test_folded_parts_open_for_print_and_nothing_runs_off() -> None:
    whole = page("a", "", {"g": [Section("one", "text"), Section("two", "text", shown=True)]})
    assert whole.count("<details>") == 1
    assert "beforeprint" in whole
    printed = STYLE[STYLE.index("@media print") :]
    assert "break-inside: avoid" in printed
    assert "details::details-content { content-visibility: visible; }" in printed


def test_findings_explain_words_as_the_report_does() -> None:
    text = (files.ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    table = text[text.index("| --- | --- |\n") :].partition("\n\n")[0].splitlines()[1:]
    told = dict(line.strip("| ").split(" | ") for line in table)
    assert len(told) == 20
    assert {name: WORDS["words"][name] for name in told} == told


def test_a_run_keeps_every_figure_and_the_first_sounds(
    tmp_path: Path, random_chain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(report.shelf, "checkpoint_folder", lambda preset: random_chain)
    monkeypatch.setattr(report, "KEPT", 2)
    with pytest.raises(LabError, match="There is no checkpoint"):
        report.run("smoke", tmp_path / "a", lm=tmp_path / "nothing")
    assert not (tmp_path / "cache").exists(), "asked before anything is made"
    sounds = tmp_path / "a" / "sounds"
    make_run(tmp_path / "a", [row(0, sound="sw-9.wav"), row(1)])
    audio.write(sounds / "somebody's.wav", 0.3 * np.sin(np.arange(8000) * 0.1))
    report.run("smoke", tmp_path / "a")
    rows = json.loads((tmp_path / "a" / "rows.json").read_text())
    assert [row.get("sound") for row in rows if row["language"] == "sw"][:3] == ["sw-1.wav", "sw-2.wav", None]
    left = {path.name for path in sounds.iterdir()} - {row.get("sound") for row in rows}
    assert left == {"somebody's.wav"}, "the sounds of an earlier run are gone, and nothing else is"
    assert {"cer", "wer", "repetition", "sim", "energy_std", "f0_spread"} <= set().union(*rows)
    summary = json.loads((tmp_path / "a" / "report.json").read_text())
    assert summary["lm"] == ""
    assert {(row["temperature"], row["tries"]) for row in summary["sampling"].values()} == {(0.5, 1)}


def heard(whisper: float, **changes: Any) -> dict[str, Any]:
    return row(0) | {"whisper_cer": whisper, "whisper_added": whisper - 0.25, "dnsmos": 2.0} | changes


def test_instruments_stand_beside_the_judge_with_what_fools_them() -> None:
    table, fooled = report.outside([heard(0.3), heard(0.5), heard(0.4, cer=0.4)])
    line = dict(zip(table.head, table.lines[0], strict=True))
    assert line["Language"] == "Swahili"
    assert line["CER, judge"].startswith("0.20 [0.10, ")
    assert line["CER, Whisper"].startswith("0.40 [0.3")
    assert line["less the recordings'"].startswith("0.15 [")
    assert line["DNSMOS"] == "2.00 [2.00, 2.00]"
    assert line["SIM, resemblyzer"] == "–"
    assert [name for name, *_ in fooled.lines] == ["whisper", "dnsmos", "judge B"]
    assert "loops" in fooled.lines[0][2]


def test_a_report_without_instruments_says_how_to_get_them(written: str) -> None:
    assert "slmlab report --preset tiny --instruments whisper,dnsmos,sim" in visible(written)


def test_instruments_hear_a_run_beside_its_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recordings:
        rows = pd.DataFrame({"spoken": ["another", MAMA["text"]]})

        def wave(self, i: int) -> Any:
            return np.full(16_000, float(i))

    monkeypatch.setattr(report.shelf, "make", lambda preset, stage: tmp_path)
    monkeypatch.setattr(report.score, "held_out", lambda *_: Recordings())
    opened = {"whisper": lambda wave, code: MAMA["text"] if wave[0] == 1 else "omari", "dnsmos": np.max}
    folder = make_run(tmp_path / "a", [row(0, sound="sw-1.wav"), row(1)])
    report.ask_instruments(folder, opened)
    (said,) = json.loads((folder / report.HEARD_OUTSIDE).read_text())
    assert said["whisper_added"] == said["whisper_cer"] > 0.5, "the recording is read without a mistake"
    assert (said["recording_dnsmos"], round(said["dnsmos"], 1)) == (1.0, 0.3)
    assert "What fools the instruments" in [part.title for part in report.outside([said])]
    with pytest.raises(LabError, match="kept no sounds: run it again"):
        report.ask_instruments(make_run(tmp_path / "b", [row(0)]), opened)
