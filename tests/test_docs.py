"""What the pages say is so: claims as the rows have them, and files, rooms and commands that exist."""

import re
from pathlib import Path

import pytest

from slmlab import files
from slmlab.cli import main
from slmlab.study import report

README, COMMANDS, CONTRIBUTING = (
    files.ROOT / name for name in ("README.md", "docs/commands.md", "CONTRIBUTING.md")
)
FINDINGS, LEDGER = files.ROOT / "docs/findings.md", files.ROOT / "docs/ledger.md"
PAGES = sorted({README, CONTRIBUTING, *files.ROOT.glob("docs/*.md"), *files.ROOT.glob("notebooks/*.md")})
PAGES += sorted(files.ROOT.glob("data/**/README.md"))
NUMBER = r"[+−-]? ?\d+(?:\.\d+)?"
QUOTE = re.compile(rf"([+−] {NUMBER}) \w+(?: \[({NUMBER}), ({NUMBER})\])? \(([SEDTC]\d+)\)")
"""`+ 1.3 points [0.7, 2.0] (D1)`, with or without the interval."""
PATH = re.compile(r"`((?:slmlab|tests|notebooks|docs|data)/[\w./-]*)`")
MADE_LATER = ("data/recordings/", "data/languages/CODE/")
each_page = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(files.ROOT).as_posix().replace("/", "-")
)


def value(text: str) -> float:
    return float(text.replace("−", "-").replace(" ", "").replace("+", ""))


def agree(quoted: str, exact: float) -> bool:
    """Whether a number is another one, rounded to as many decimals as are quoted."""
    decimals = len(quoted.partition(".")[2])
    return abs(value(quoted) - exact) <= 0.5 * 10**-decimals + 1e-9


def claims() -> dict[str, tuple[float, float, float]]:
    """Estimate and interval of each row of the ledger."""
    rows = [line.split(" | ") for line in LEDGER.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if len(row) == 5 and re.fullmatch(r"\| [SEDTC]\d+", row[0])]
    numbers = [[float(number) for number in re.findall(r"-?\d[\d.e-]*", row[2])] for row in rows]
    return {row[0][2:]: (low, middle, high) for row, (middle, low, high) in zip(rows, numbers, strict=True)}


def test_the_ledger_is_what_the_rows_give() -> None:
    page = LEDGER.read_text(encoding="utf-8")
    assert page == report.ledger_page("tiny")
    assert len(claims()) == 47
    assert "| S1 | WER falls as α rises | -0.99 [-1, -0.976] | reproduced |" in page
    assert "Of 47 claims 22 are reproduced, 7 are refuted, 18 are inconclusive." in page


@pytest.mark.parametrize(
    ("page", "named"),
    [(README, {"D1", "D4", "T3"}), (FINDINGS, {"D1", "D2", "D4", "D5", "D6", "D9", "D13", "T3"})],
    ids=("readme", "findings"),
)
def test_claims_are_quoted_as_the_ledger_has_them(page: Path, named: set[str]) -> None:
    text, ledger = " ".join(page.read_text(encoding="utf-8").split()), claims()
    quotes = QUOTE.findall(text)
    assert {name for *_, name in quotes} == named
    for *numbers, name in quotes:
        low, middle, high = ledger[name]
        pairs = zip(numbers, (middle, low, high), strict=True)
        wrong = [(quoted, exact) for quoted, exact in pairs if quoted and not agree(quoted, exact)]
        assert not wrong, (name, wrong)


def test_the_readme_counts_verdicts_as_the_ledger_does() -> None:
    (counted,) = re.findall(r"Of \d+ claims .*\.", LEDGER.read_text(encoding="utf-8"))
    assert counted in README.read_text(encoding="utf-8")


def test_the_readme_is_short_and_names_every_room() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    rooms = [path.parent.name + "/" for path in (files.ROOT / "slmlab").glob("*/__init__.py")]
    rooms += [path.stem for path in (files.ROOT / "slmlab").glob("[a-z]*.py")]
    assert len(rooms) == 16
    assert [room for room in rooms if f"`{room}`" not in text] == []


def test_every_command_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert {"speak", "align", "doctor"} <= set(commands)
    text = COMMANDS.read_text(encoding="utf-8")
    assert [command for command in commands if f"| `slmlab {command}" not in text] == []


@each_page
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = [path for path in PATH.findall(text) if path not in MADE_LATER]
    assert [path for path in paths if not (files.ROOT / path).exists()] == []
