"""Verdicts of the alignment study on made-up rows whose truth is known, and the tables made of them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from conftest import words_of

from slmlab.preference.methods import METHODS
from slmlab.study import claims, tables
from slmlab.study.alignment import ALPHA, ALPHAS, CANDIDATES, FOREIGN, STYLE, Aligned, plan
from slmlab.study.scaling import DRAWS

SEEDS, N, TEXTS = (0, 1, 2), 60, 50
TEMPERATURES = (0.7, 1.0, 1.2)
BETTER = {"dgsa": -0.05, "tdsc": -0.12, "self-training": -0.05, "rejection": -0.02, "tdsc.no-dpo": -0.05}
BETTER |= {"tdsc.no-length-filter": -0.03, "dpo": 0.08, "dgsa.no-stability": 0.1, "dgsa.random-speaker": 0.08}
BETTER |= {"dgsa.fixed-weights": 0.06}
"""Change of the word error rate."""
RICHER = {
    "dgsa": 0.3,
    "dpo": 0.2,
    "rejection": 0.05,
    "tdsc": 0.3,
    "tdsc.no-dpo": 0.1,
    "dgsa.no-stability": 0.3,
}
"""Change of H_p; what is not named gains 0.1."""


@cache
def world(truth: float) -> Aligned:
    """Everything the paper claims happens `truth` times."""
    draw = np.random.default_rng(0)
    rows, runs = [], []
    for unit in plan("tiny", "full", SEEDS):
        own = np.random.default_rng([*unit.name.encode()])  # a unit more in the plan moves no other's rows
        at = {"language": unit.language, "method": unit.method, "part": unit.part, "alpha": unit.alpha}
        at |= {"seed": unit.seed, "key": ""}
        early = int(unit.part) if unit.part.isdigit() else 5
        fall = (0.5, 1, 1.05, 1.1, 1.15)[early - 1] / 1.15 if unit.method == "tdsc" else 1
        rise = (0, 0, 0.3, 0.7, 1)[early - 1] if unit.method == "tdsc" else 1
        gain = RICHER.get(unit.method, 0.0 if unit.method == "sft" else 0.1)
        if unit.language == "vi" and unit.method == "dgsa":
            gain += 2 * (unit.alpha - ALPHA)
        bits = 6 + truth * rise * gain + 0.003 * own.normal()
        moved = 0.01 * own.normal(size=DRAWS)
        took = {"training_seconds": 1.0, "tuning_seconds": 60.0, "speaking_seconds": 2.0}
        if unit.part != CANDIDATES:
            rows += [at | said(unit, truth, fall, i, own) for i in range(N)]
        runs.append(at | took | {"h": bits, "h_spoken": bits, "h_draws": moved, "h_spoken_draws": moved})
    recordings = [{"language": language, "split": "dev"} | prosody(1 + 0.1 * draw.normal())
                  for language in ("vi", "sw") for _ in range(30)]  # fmt: skip
    recorded = pd.DataFrame(recordings).assign(words=8, letters=30, letter_errors=0, voiced=0.8)
    tables = (pd.DataFrame(rows), pd.DataFrame(runs), candidates(truth, draw), sets(truth, draw))
    return Aligned(*tables, recorded, {"vi": 10.0, "sw": 20.0})


def prosody(lively: float) -> dict:
    names = ("f0_spread", "f0_range_semitones", "energy_std", "rate_variation")
    return dict.fromkeys(names, lively)


def said(unit, truth: float, fall: float, i: int, draw: np.random.Generator) -> dict:
    wrong = 0.4 + truth * fall * BETTER.get(unit.method, 0.0)
    errors = int(draw.binomial(8, wrong))
    lively = 1 + truth * (0.3 * (unit.method == "dgsa") + 0.3 * (unit.part == STYLE)) + 0.1 * draw.normal()
    loops = 0.06 - truth * 0.03 * (unit.method in ("dgsa", "tdsc"))
    errors_of = {
        "word_errors": errors,
        "words": 8,
        "letter_errors": 2,
        "letters": 30,
        "filter_errors": errors,
    }
    heard = {"repetition": loops + 0.01 * draw.normal(), "repetition_spoken": 0.01, "voiced": 0.8}
    voice = {"sim": 0.8 + 0.01 * draw.normal(), "sim_strangers": 0.8 - 0.3 * truth}
    return {"sentence": i} | errors_of | heard | voice | prosody(lively)


def candidates(truth: float, draw: np.random.Generator) -> pd.DataFrame:
    rows = []
    for seed in SEEDS:
        for number in range(5):
            for place in range(TEXTS):
                for heat, t in enumerate(TEMPERATURES):
                    wrong = 0.3 + truth * 0.15 * (heat - 1)
                    passed = int(draw.binomial(4, 0.4 + truth * (0.06 * number - 0.1 * heat)))
                    errors = int(draw.binomial(32, wrong))
                    good = int(draw.binomial(8 * passed, 0.15)) if passed else 0
                    loops = 4 * (0.04 + truth * 0.02 * heat) + 0.005 * draw.normal()
                    at = {"seed": seed, "round": number, "place": place, "temperature": t}
                    sums = {"tried": 4, "passed": passed, "errors": errors, "words": 32, "repetition": loops}
                    rows.append(at | sums | {"passed_errors": good, "passed_words": 8 * passed})
    unit = {"language": "sw", "method": "tdsc", "part": CANDIDATES, "alpha": 1.0}
    return pd.DataFrame(rows).assign(**unit)


def sets(truth: float, draw: np.random.Generator) -> pd.DataFrame:
    rise = {"0.7": -0.3, "1": 0.0, "1.2": 0.3, "accepted": 0.1}
    rows = [
        {"seed": s, "set": name, "h": 6 + truth * bits, "h_draws": 0.02 * draw.normal(size=DRAWS)}
        for s in SEEDS
        for name, bits in rise.items()
    ]
    return pd.DataFrame(rows).assign(language="sw", method="tdsc", part=CANDIDATES, alpha=1.0)


def ledger(results: Aligned) -> dict[str, dict]:
    return {row["id"]: row for row in claims.ledger(None, results)}


@cache
def judged(truth: float) -> dict[str, dict]:
    return ledger(world(truth))


@cache
def sections() -> list[tables.Section]:
    return tables.alignment_sections(world(1.0), [])


def test_where_the_paper_is_right_it_is_reproduced() -> None:
    found = judged(1.0)
    verdicts = {name: row["verdict"] for name, row in found.items() if name[0] in "DTC"}
    assert len(verdicts) == 31
    assert {name for name, verdict in verdicts.items() if verdict != "reproduced"} == set()
    assert found["S1"]["verdict"] == "not run"
    assert found["D1"]["seeds"] == [0, 1, 2]
    assert found["D1"]["n"] == N
    assert len(found["D1"]["by_seed"]) == 3


def test_where_nothing_moves_what_should_stay_stays() -> None:
    found = judged(0.0)
    assert found["C2"]["verdict"] == "reproduced"
    moved = [n for n, row in found.items() if n[0] in "DTC" and row["verdict"] in ("reproduced", "refuted")]
    assert set(moved) <= {"C2", "D1"}


def test_in_the_opposite_world_it_is_refuted() -> None:
    found = judged(-1.0)
    for name in ("D2", "D3", "D4", "D5", "D7", "D12", "T1", "T3", "T6", "T14", "C1", "C3"):
        assert found[name]["verdict"] == "refuted", name


def test_word_errors_are_told_in_points() -> None:
    assert judged(1.0)["T1"]["estimate"] == pytest.approx(-12, abs=5)


def test_claims_whose_rows_are_missing_are_not_run() -> None:
    whole = world(1.0)
    kept = [table[~table["method"].str.contains(".", regex=False)] for table in (whole.rows, whole.runs)]
    core = Aligned(*kept, whole.candidates, whole.sets, whole.recordings, whole.seconds)
    found = ledger(core)
    missing = {name for name, row in found.items() if name[0] in "DTC" and row["verdict"] == "not run"}
    assert missing == {"D8", "D9", "D10", "D11", "T9", "T10", "T11", "T12", "T13"}
    assert "seeds" not in found["D8"]


def test_the_ledger_says_how_many_seeds_are_lacking() -> None:
    whole = world(1.0)
    early = [table[table["seed"] < 2] for table in (whole.rows, whole.runs, whole.candidates, whole.sets)]
    found = ledger(Aligned(*early, whole.recordings, whole.seconds))
    verdicts = {line[0]: line[5] for line in tables.ledger(found.values()).lines}
    assert verdicts["D1"] == "inconclusive (2 of 3 seeds)"
    assert verdicts["D4"] == "inconclusive (2 of 3 seeds; needs listeners)"
    assert verdicts["S1"] == "not run"
    assert {line[5] for line in tables.ledger(judged(1.0).values()).lines if line[0] == "D1"} == {
        "reproduced"
    }


def test_more_seeds_of_some_systems_count_for_their_claims_alone() -> None:
    whole = world(1.0)

    def more(table: pd.DataFrame) -> pd.DataFrame:
        own = (table["language"] == "vi") & table["method"].isin(["sft", "dgsa"]) & (table["alpha"] == ALPHA)
        return pd.concat([table, table[own].assign(seed=table["seed"] + len(SEEDS))], ignore_index=True)

    grown = replace(whole, rows=more(whole.rows), runs=more(whole.runs))
    three = [tables.methods(of, "table3") for of in (whole, grown)]
    assert ["more seeds than others" in part.text for part in three] == [False, True]
    found = ledger(grown)
    assert {name: len(found[name]["seeds"]) for name in ("D1", "D4", "D5", "D12", "D13", "C1", "C2")} == {
        **{"D1": 6, "D4": 6, "D5": 3, "D12": 3, "D13": 6, "C1": 3, "C2": 6}
    }
    verdicts = {line[0]: line[5] for line in tables.ledger(found.values()).lines}
    assert verdicts["D4"] == "reproduced (6 seeds; needs listeners)"
    assert verdicts["D5"] == "reproduced"
    assert found["D4"]["estimate"] == pytest.approx(judged(1.0)["D4"]["estimate"])


def test_every_table_of_the_paper_has_its_section() -> None:
    parts = {part.title: part for part in sections()}
    for number in (3, 4, 6, 7, 8, 9):
        part = next(part for title, part in parts.items() if f"Table {number})" in title)
        assert all(len(line) == len(part.head) for line in part.lines)
    three = next(part for title, part in parts.items() if "Table 3)" in title)
    assert three.lines[0][-1] == "38.9 · 10.36 · 6.5"
    assert float(three.lines[0][1].split()[0]) == pytest.approx(40, abs=3)
    by_alpha = parts["DGSA from starts with more and more synthetic speech"]
    assert by_alpha.text.startswith("Vietnamese.")
    assert [line[0] for line in by_alpha.lines] == ["50 %", "60 %", "70 %", "80 %", "90 %"]
    assert [float(line[3].split()[0]) for line in by_alpha.lines] == pytest.approx(
        [-0.3, -0.1, 0.1, 0.3, 0.5], abs=0.02
    )
    written = [words_of(part.picture.figure) for part in parts.values() if part.picture]
    assert any("H_p in bits" in words for words in written)
    assert any("pass rate in %" in words for words in written)
    assert len(parts["From votes to a model"].lines) == 3
    assert "simulated" in parts["From votes to a model"].text.lower()


def test_a_report_on_speech_nobody_understands_is_written_all_the_same() -> None:
    """At smoke every word may be wrong: two judges of the same opinion everywhere have no correlation."""
    whole = world(1.0)
    wrong = {"word_errors": whole.rows["words"], "letter_errors": whole.rows["letters"]}
    lost = replace(whole, rows=whole.rows.assign(**wrong))
    said = {part.title: part for part in tables.alignment_sections(lost, [])}
    assert said["Does the filter hear what the sound will be?"].lines[0][2:] == ["100.0", "–"]


@pytest.mark.parametrize("left", [("vi", ""), ("sw", ""), ("vi", "dgsa"), ("sw", "tdsc")])
def test_a_report_on_part_of_the_study_is_of_that_part(left: tuple[str, str]) -> None:
    whole = world(1.0)
    kept = [
        table[(table["language"] == left[0]) & (table["method"] == left[1] if left[1] else True)]
        for table in (whole.rows, whole.runs, whole.candidates, whole.sets)
    ]
    parts = {part.title: part for part in tables.alignment_sections(Aligned(*kept, *ground(whole)), [])}
    name = {"vi": "Vietnamese", "sw": "Swahili"}[left[0]]
    assert [ax.get_title() for ax in parts["Clear and varied at once?"].picture.figure.axes] == [name]
    assert {line[0] for line in parts["What the alignment study cost"].lines} == {name}


def test_candidates_alone_are_reported_too() -> None:
    """As after a run that ended when nothing else was done."""
    whole = world(1.0)
    kept = (
        whole.rows.iloc[:0, :0],
        whole.runs[whole.runs["part"] == CANDIDATES],
        whole.candidates,
        whole.sets,
    )
    assert [part.title for part in tables.alignment_sections(Aligned(*kept, *ground(whole)), [])] == [
        "TDSC's own samples by temperature (the paper's Table 9)",
        "One sentence, many systems",
        "What the alignment study cost",
    ]


def test_a_model_that_always_says_the_same_has_a_place_in_the_plane() -> None:
    whole = world(1.0)
    for bits in (0.1, 1 / 7, 6.123):  # rounding would make a bar of them that is below 0
        stuck = whole.runs.assign(h=bits, h_draws=[np.zeros(DRAWS)] * len(whole.runs))
        assert tables.plane(replace(whole, runs=stuck))


def ground(of: Aligned) -> tuple[pd.DataFrame, dict[str, float]]:
    return of.recordings, of.seconds


def test_cost_is_a_seeds_however_many_seeds_there_are() -> None:
    whole = world(1.0)
    own = (whole.runs["method"] == "sft") & (whole.runs["language"] == "vi") & (whole.runs["alpha"] == ALPHA)
    more = pd.concat([whole.runs, whole.runs[own].assign(seed=whole.runs["seed"] + 3)], ignore_index=True)
    assert tables.alignment_cost(replace(whole, runs=more)).lines == tables.alignment_cost(whole).lines


def test_the_plan_has_what_the_claims_need() -> None:
    core, full = (plan("tiny", extent, [0]) for extent in ("core", "full"))
    assert set(core) < set(full)
    assert len(set(full)) == len(full)
    assert {unit.method for unit in full} == set(METHODS)
    assert {u.alpha for u in full if u.language == "vi" and u.method == "dgsa"} == set(ALPHAS)
    assert {u.part for u in core} == {"", "1", "2", "3", "4", STYLE, FOREIGN, CANDIDATES}
    more = plan("tiny", "core", [3, 4], "vi", ["dgsa", "sft"])
    assert set(more) < set(plan("tiny", "core", [3, 4]))
    parts = [("sft", ""), ("sft", STYLE), ("dgsa", ""), ("dgsa", FOREIGN)]
    assert [(u.method, u.part) for u in more] == parts * 2
    assert {(u.language, u.seed) for u in more} == {("vi", 3), ("vi", 4)}
