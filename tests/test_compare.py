"""Two runs side by side: worked numbers, and what is left out or refused."""

from dataclasses import asdict
from pathlib import Path

import pytest
from test_cli import refused
from test_report import make_run, row

from slmlab.cli import main
from slmlab.errors import LabError
from slmlab.speech.sampling import SamplingConfig
from slmlab.study import compare

TEXTS = [f"{word} mbili" for word in ("mama", "baba", "dada", "kaka", "bibi", "babu", "binti", "mwana")]


def rows(wer: list[float], **changes: object) -> list[dict]:
    return [
        row(i, text=text, wer=rate, cer=0.1, **changes)
        for i, (text, rate) in enumerate(zip(TEXTS, wer, strict=False))
    ]


def line(found: list[list[str]], name: str) -> dict[str, str]:
    return dict(zip(compare.HEAD, next(cells for cells in found if cells[0] == name), strict=True))


def test_a_difference_is_paired_by_sentence() -> None:
    """Half a word less in every sentence of two: whatever is drawn, the difference is a quarter or more."""
    ours, theirs = rows([0.5] * 6 + [1.0] * 2), rows([0.0] * 6 + [0.5] * 2)
    found = compare.differences(compare.paired(ours, theirs[::-1]), "sw")
    wer = line(found, "wer")
    assert (wer["n"], wer["A"], wer["B"]) == ("8", "0.625", "0.125")
    assert wer["B less A [95 %]"] == "-0.5 [-0.5, -0.5]", "hard sentences are hard in both"
    assert wer["so B is"] == "lower"
    assert line(found, "cer")["so B is"] == "–"


def test_long_sentences_weigh_more() -> None:
    ours = [row(0, text="moja", wer=1.0), row(1, text="mbili tatu nne", wer=0.0)]
    theirs = [row(0, text="moja", wer=0.0), row(1, text="mbili tatu nne", wer=1.0)]
    wer = line(compare.differences(compare.paired(ours, theirs), "sw"), "wer")
    assert (wer["A"], wer["B"], wer["so B is"]) == ("0.25", "0.75", "–")


def test_a_figure_counts_where_both_have_it() -> None:
    ours = rows([0.5] * 8, f0_spread=1.0, sim=0.9)
    theirs = rows([0.5] * 8, f0_spread=3.0)
    ours[0]["f0_spread"] = None
    found = compare.differences(compare.paired(ours, theirs), "sw")
    assert {cells[0] for cells in found} == {"f0_spread", "cer", "wer"}
    spread = line(found, "f0_spread")
    assert (spread["n"], spread["B less A [95 %]"]) == ("7", "+2 [+2, +2]")
    assert spread["so B is"] == "higher"


def test_what_is_said_twice_is_paired_in_its_order() -> None:
    ours, theirs = ([row(0, wer=a), row(1, wer=b)] for a, b in ((0.0, 1.0), (0.5, 0.25)))
    both = compare.paired(ours, theirs)
    assert list(zip(both["wer_a"], both["wer_b"], strict=True)) == [(0.0, 0.5), (1.0, 0.25)]


def test_two_runs_on_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = make_run(tmp_path / "plain", rows([0.5] * 8, sound="sw-1.wav"), commit="abc")
    b = make_run(tmp_path / "tuned", rows([0.0] * 7, sound="sw-1.wav"), commit="def", lm="tuned/model")
    assert main(["compare", str(a), str(b)]) == 0
    told = capsys.readouterr().out
    assert f"A is {a}, B is {b}: 7 sentences that both said." in told
    assert "Their settings differ in: lm – → tuned/model; commit abc → def." in told
    assert f"How {a} drew its tokens was not kept." in told
    assert f"1 sentences of {a} are not in the other run and are left out." in told
    assert "Swahili" in told
    assert "-0.5 [-0.5, -0.5]" in told
    page = (b / "compared.html").read_text(encoding="utf-8")
    assert page.count("<audio controls") == 14, "both sounds of seven sentences"
    assert page.index("“mama mbili”") < page.index("A (CER 0.10)") < page.index("B (CER 0.10)")


def test_how_both_drew_their_tokens_is_named_where_it_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, guided = SamplingConfig(), SamplingConfig(temperature=0.8, guidance=1.5, tries=4)
    a, b = (
        make_run(tmp_path / name, rows([0.5] * 8), sampling={"sw": asdict(sw), "vi": asdict(plain)})
        for name, sw in (("a", plain), ("b", guided))
    )
    assert main(["compare", str(a), str(b)]) == 0
    told = capsys.readouterr().out
    changes = "temperature 0.5 → 0.8; sampling sw guidance 0.0 → 1.5; sampling sw tries 1 → 4"
    assert f"Their settings differ in: sampling sw {changes}." in told
    one = make_run(tmp_path / "c", rows([0.5] * 8), sampling={"sw": asdict(guided)})
    assert main(["compare", str(b), str(one)]) == 0
    told = capsys.readouterr().out
    assert "Their settings are the same." in told
    assert "was not kept" not in told


def test_what_cannot_be_compared_is_said_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = make_run(tmp_path / "a", rows([0.5] * 8))
    other = make_run(tmp_path / "b", rows([0.5] * 8, language="vi"))
    read_by_c = make_run(tmp_path / "c", rows([0.5] * 8, judge="c"))
    broken = make_run(tmp_path / "d", [{"text": "mama"}])
    assert "are one run: give the folders of two" in refused(capsys, "compare", a, a)
    assert "have no sentence in common" in refused(capsys, "compare", a, other)
    assert "no sentence in common" in refused(capsys, "compare", a, make_run(tmp_path / "e", []))
    assert "judge b and judge c, who err differently" in refused(capsys, "compare", a, read_by_c)
    assert "there is no run in" in refused(capsys, "compare", a, tmp_path / "nothing")
    assert "has no rows of a run" in refused(capsys, "compare", broken, a)
    with pytest.raises(LabError, match="one run"):
        compare.compare(a, tmp_path / "x" / ".." / "a")
