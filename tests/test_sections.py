"""The study's part of the report, from rows whose truth is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import words_of
from test_claims import judged, world

from slmlab.errors import LabError
from slmlab.study import alignment, claims, report, scaling, tables
from slmlab.study.tables import Section


@pytest.fixture(scope="module")
def parts() -> list[Section]:
    results = world(1.0)
    sounds = [Path(f"tiny-authentic.{alpha}.0.flac") for alpha in ("1", "0.03", "0.5")]
    return [*tables.scaling_sections(results, claims.premises(results), sounds), tables.ledger(judged(1.0))]


def test_the_ground_comes_first_and_the_ledger_has_every_claim(parts: list[Section]) -> None:
    titles = [part.title for part in parts]
    assert titles[0] == "Does the ground hold?"
    assert titles[-2:] == ["What the scaling study cost", "The ledger: every claim and its verdict"]
    assert len(parts[-1].lines) == 47
    assert all(len(line) == len(part.head) for part in parts for line in part.lines)
    s1 = next(line for line in parts[-1].lines if line[0] == "S1")
    low, high = map(float, s1[-1].split(" … "))
    assert -1 <= low <= high < -0.5
    assert s1[5] == "reproduced"
    assert s1[7] == "75.0 → 36.2 %"
    assert parts[-2].lines == [["authentic", "15", "2.0", "1.0", "0.8"]]


def test_pictures_say_what_their_axes_are(parts: list[Section]) -> None:
    written = [words_of(part.picture.figure) for part in parts if part.picture]
    assert "WER in %" in written[0]
    assert "z (recordings = 0)" in written[0]
    assert "α in %" in written[1]
    assert all(len(part.picture.alt) > 20 for part in parts if part.picture)


def test_the_paper_stands_beside_our_numbers(parts: list[Section]) -> None:
    table = next(part for part in parts if part.title.startswith("All numbers"))
    row = next(line for line in table.lines if line[0] == "50")
    assert row[-1] == "47.0 · 10.51 · 2.2"
    assert float(row[2].split()[0]) == pytest.approx(6.3, abs=0.03)  # the made-up hump: 0.3 bits above 6


def test_one_sentence_over_alpha_is_in_the_order_of_alpha(parts: list[Section]) -> None:
    over = next(part for part in parts if part.sounds)
    assert [name for name, _ in over.sounds] == ["α = 3 %", "α = 50 %", "α = 100 %"]
    said = "“Cháu trai của chị Lan năm nay mười tám tuổi.” (Lan's nephew is eighteen this year.)"
    assert said in over.text


def test_a_band_holds_the_mean_over_seeds() -> None:
    wer = claims.Arm.of(world(1.0), "authentic").wer
    value, low, high = tables.band(wer)
    assert value == pytest.approx(wer.value.mean(1))
    assert (low < value).all()
    assert (value < high).all()
    assert np.all(high - low < 0.2)


def test_the_report_holds_the_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "read_results", lambda preset: world(1.0))
    monkeypatch.setattr(alignment, "read_results", lambda preset: None)
    monkeypatch.setattr(claims, "ledger", lambda *_: judged(1.0))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    facts = {"machine": "", "commit": "", "fresh": False, "seconds": 1.0, "stages": {}}
    summary = {"preset": "tiny", "seeds": [0]} | facts
    (tmp_path / "report.json").write_text(json.dumps(summary | {"claims": []}))
    (tmp_path / "rows.json").write_text("[]")
    page = report.write(tmp_path).read_text()
    assert "The ledger: every claim and its verdict" in page
    assert "data:image/png" in page
    found = json.loads((tmp_path / "report.json").read_text())
    assert [row["id"] for row in found["claims"]][:3] == ["S1", "S2", "S3"]
    assert found["claims"][0]["verdict"] == "reproduced"
    assert found["premises"]


def test_the_picture_of_the_readme_is_drawn_from_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "read_results", lambda preset: world(1.0) if preset == "tiny" else None)
    report.picture("tiny", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(LabError, match="slmlab sweep"):
        report.picture("smoke", tmp_path / "b.png")
