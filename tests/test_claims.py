"""Verdicts on made-up rows whose truth is known: an eroding world, its opposite, one where nothing moves."""

import dataclasses
import json
from functools import cache

import numpy as np
import pandas as pd
import pytest

from slmlab.study import claims, tables
from slmlab.study.claims import Claim, Measured, Part, declared, family, half_fall, ledger, ratio
from slmlab.study.scaling import DRAWS, Results

ALPHAS = (0.03, 0.25, 0.5, 0.8, 1.0)
SEEDS, N = (0, 1, 2), 40
PROSODY = ("f0_std", "f0_range", "f0_spread", "f0_range_semitones", "energy_std", "rate_variation")


@cache
def world(erosion: float, seed: int = 0) -> Results:
    """Rows of the authentic arm and of `entropy`; everything the paper claims happens `erosion` times."""
    draw = np.random.default_rng(seed)
    hump = {alpha: 1 - (2 * (alpha - 0.5)) ** 2 for alpha in ALPHAS}
    rows, cells = [], []
    for alpha in ALPHAS:
        for s in SEEDS:
            wrong = 0.3 - 0.15 * erosion * alpha
            late = 1 - erosion * (0.5 * alpha**6 + 0.05 * (alpha == 1))
            early = 0.8 - 0.2 * erosion * min(1, alpha / 0.5)
            for i in range(N):
                lively = late * (1 + 0.05 * draw.normal())
                rows.append(
                    row("authentic", alpha, s, i)
                    | {
                        "word_errors": int(draw.binomial(8, min(1, max(0, wrong)))),
                        "repetition": 0.05 + erosion * 0.05 * (alpha >= 0.8) + 0.005 * draw.normal(),
                        "repetition_spoken": 0.02 + erosion * 0.05 * (alpha >= 0.8) + 0.005 * draw.normal(),
                        "sim": early + 0.02 * draw.normal(),
                    }
                    | {name: lively for name in PROSODY}
                )
            bits, moved = (
                6 + erosion * 0.3 * hump[alpha] + 0.01 * draw.normal(),
                0.02 * draw.normal(size=DRAWS),
            )
            h = {"h": bits, "h_dev": bits, "h_spoken": bits, "h_draws": moved, "h_spoken_draws": moved}
            took = {"key": "", "training_seconds": 120.0, "speaking_seconds": 60.0}
            cells.append({"arm": "authentic", "point": alpha, "seed": s, "alpha": alpha} | took | h)
    recordings = pd.DataFrame([row("", 0, 0, i) | {"split": "dev"} for i in range(N)])
    for name in PROSODY:
        recordings[name] = 1 + 0.1 * draw.normal(size=N)
    mixture = [(kind, draw.integers(0, 60, 40)) for kind in ("authentic", "lively") for _ in range(60)]
    mixture += [("synthetic", draw.integers(*((30, 80) if erosion > 0 else (0, 60)), 40)) for _ in range(60)]
    table = pd.DataFrame(rows + many(erosion, draw))
    return Results(
        table, pd.DataFrame(cells), recordings, pd.DataFrame(mixture, columns=["kind", "codes"]), {}
    )


def row(arm: str, point: float, seed: int, i: int) -> dict:
    """One sentence, said clearly."""
    who = {"arm": arm, "point": point, "seed": seed, "split": "test", "sentence": i, "sample": 0}
    how = {"temperature": 0.7, "noise": 0.0, "voiced": 0.8, "sim": 0.8}
    words = {"words": 8, "word_errors": 1, "letters": 30, "letter_errors": 2}
    entropies = {"h_window": 4.0, "h_window_spoken": 4.0, "melody_entropy": 2.0}
    return who | how | words | entropies | {"f0_correlation": 0.5, "f0_rmse": 30.0}


SAYINGS = [(t, 0.0, k) for t, n in ((0.4, 2), (0.7, 4), (1.0, 2)) for k in range(n)]
SAYINGS += [(0.7, 0.15, k) for k in range(4)]


def many(erosion: float, draw: np.random.Generator) -> list[dict]:
    """Sentences said many times: entropy goes with prosody `erosion` times, noise adds entropy alone."""
    rows = []
    for s in SEEDS:
        for i in range(N):
            for temperature, noise, sample in SAYINGS:
                free = draw.normal()
                said = row("entropy", 0.5, s, i) | {
                    "temperature": temperature,
                    "noise": noise,
                    "sample": sample,
                }
                said["h_window"] = 4 + temperature + 0.3 * free + (0.5 if noise else 0)
                moves = erosion * free + 0.3 * draw.normal()
                said |= dict.fromkeys(PROSODY, 3 + moves)
                said |= {"f0_correlation": 0.5 + 0.1 * moves, "f0_rmse": 30 - moves}
                rows.append(said)
    return rows


@cache
def judged(erosion: float, seed: int = 0) -> list[dict]:
    return ledger(world(erosion, seed))


def verdicts(erosion: float, seed: int = 0) -> dict[str, str]:
    return {row["id"]: row["verdict"] for row in judged(erosion, seed)}


def test_every_claim_of_the_ledger_is_declared_once() -> None:
    ids = [claim.id for claim in declared()]
    wanted = {"S": 9, "E": 7, "D": 13, "T": 15, "C": 3}
    assert ids == [f"{letter}{i + 1}" for letter, count in wanted.items() for i in range(count)]
    assert {claim.direction for claim in declared()} == {"above", "below", "within"}
    assert [claim.margin for claim in declared() if claim.id in ("D1", "C2")] == [2.0, 0.03]


def test_in_an_eroding_world_the_paper_is_reproduced() -> None:
    found = verdicts(1.0)
    assert {name: found[name] for name in found if name[0] in "SE"} == {
        **{f"S{i}": "reproduced" for i in range(1, 10)},
        **{f"E{i}": "reproduced" for i in range(1, 8)},
    }
    assert {found[name] for name in found if name[0] in "DTC"} == {"not run"}


def test_in_the_opposite_world_it_is_refuted() -> None:
    found = verdicts(-1.0)
    for name in ("S1", "S2", "S3", "S4", "S5", "S6", "E1", "E2", "E3", "E4", "E5", "E6"):
        assert found[name] == "refuted", name


def test_where_nothing_moves_nothing_is_found() -> None:
    found = [verdicts(0.0, seed) for seed in range(2)]
    moved = [name for one in found for name, verdict in one.items() if name[0] in "SE" and name != "E7"
             and verdict in ("reproduced", "refuted")]  # fmt: skip
    assert len(moved) <= 2  # of 30, each family at 5 %


def test_a_ledger_row_tells_everything_and_is_json() -> None:
    table = judged(1.0)
    s1 = next(row for row in table if row["id"] == "S1")
    assert s1["seeds"] == [0, 1, 2]
    assert s1["n"] == N
    assert len(s1["by_seed"]) == 3
    assert -1 <= s1["low"] <= s1["estimate"] <= s1["high"] <= 1
    assert s1["p"] <= s1["p_adjusted"] < 0.05
    assert s1["arms"] == {"authentic": "reproduced"}
    assert next(row for row in table if row["id"] == "S6")["note"] == "needs listeners"
    assert json.loads(json.dumps(table)) == table


def test_without_rows_nothing_is_claimed() -> None:
    assert {row["verdict"] for row in ledger(None)} == {"not run"}
    half = world(1.0)
    cells = half.cells[half.cells["point"] < 1]
    rows = half.rows[(half.rows["point"] < 1) & (half.rows["arm"] == "authentic")]
    assert {row["verdict"] for row in ledger(dataclasses.replace(half, rows=rows, cells=cells))} == {
        "not run"
    }


def test_errors_are_summed_before_they_are_divided() -> None:
    errors, words = np.array([[[1.0, 0.0, 3.0]]]), np.array([[[2.0, 2.0, 6.0]]])
    measured = ratio(errors, words)
    assert measured.value == pytest.approx(0.4)
    assert measured.draws.shape == (DRAWS, 1, 1)
    assert measured.draws.min() >= 0
    assert measured.draws.max() <= 0.5


def part(value: float, spread: float, direction: str, margin: float, n_seeds: int = 3) -> Part:
    draws = value + spread * np.random.default_rng(0).standard_normal(DRAWS)
    seeds = tuple(range(n_seeds))
    measured = Measured(np.full((1, n_seeds), value), np.tile(draws.reshape(-1, 1, 1), n_seeds), seeds, N)
    return Part(lambda x: x[..., 0, 0], (measured,), direction, margin)


def test_fewer_than_three_seeds_settle_nothing() -> None:
    found = [family({"S1": [part(-5.0, 1.0, "below", 0, n)]})["S1"] for n in (1, 2, 3)]
    assert [row["verdict"] for row in found] == ["inconclusive", "inconclusive", "reproduced"]
    assert [row["seeds"] for row in found] == [[0], [0, 1], [0, 1, 2]]


def test_a_number_that_is_not_defined_is_inconclusive_and_costs_the_family_nothing() -> None:
    nothing = Part(lambda x: float("nan"), part(1.0, 1.0, "below", 0).measured, "below")
    both = family({"S1": [part(-2.2, 1.0, "below", 0)], "S5": [nothing]})
    assert both["S5"] == {"verdict": "inconclusive", "by_seed": []}
    assert both["S1"] == family({"S1": [part(-2.2, 1.0, "below", 0)]})["S1"]


def test_seeds_with_other_points_do_not_count() -> None:
    """Equally many points are not the same points."""
    whole = world(1.0)
    odd = ((whole.cells["seed"] == 1) & (whole.cells["point"] == 0.25)) | (
        (whole.cells["seed"] == 2) & (whole.cells["point"] == 0.5)
    )
    cells = whole.cells[~((whole.cells["arm"] == "authentic") & odd)]
    assert claims.Arm.of(dataclasses.replace(whole, cells=cells), "authentic").seeds == [0]
    one = whole.cells[(whole.cells["seed"] > 0) | (whole.cells["point"] != 0.25)]
    assert claims.Arm.of(dataclasses.replace(whole, cells=one), "authentic").seeds == [1, 2]


@pytest.mark.parametrize(
    ("value", "spread", "verdict"),
    [(0.5, 0.5, "reproduced"), (2.0, 1.0, "inconclusive"), (5.0, 0.5, "refuted"), (-5.0, 0.5, "reproduced")],
)
def test_not_worse_is_a_margin_of_two_points(value: float, spread: float, verdict: str) -> None:
    assert family({"D1": [part(value, spread, "below", 2.0)]})["D1"]["verdict"] == verdict


@pytest.mark.parametrize(
    ("value", "spread", "verdict"),
    [(0.0, 0.01, "reproduced"), (0.0, 0.05, "inconclusive"), (0.1, 0.01, "refuted"), (-0.1, 0.01, "refuted")],
)
def test_unchanged_is_an_interval_inside_the_margin(value: float, spread: float, verdict: str) -> None:
    assert family({"C2": [part(value, spread, "within", 0.03)]})["C2"]["verdict"] == verdict


def test_a_family_pays_for_its_size() -> None:
    alone = family({"S1": [part(-2.2, 1.0, "below", 0)]})["S1"]
    many = family({f"S{i}": [part(-2.2, 1.0, "below", 0)] for i in range(1, 10)})["S1"]
    assert alone["verdict"] == "reproduced"
    assert many["p_adjusted"] == pytest.approx(9 * alone["p"])
    assert many["verdict"] == "inconclusive"


def test_half_fall_by_hand() -> None:
    points = np.array([0.0, 0.5, 1.0])
    assert half_fall(points, np.array([1.0, 3.0, 1.0])) == pytest.approx(0.75)
    assert half_fall(points, np.array([4.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert half_fall(points, np.array([1.0, 2.0, 3.0])) == 1.0
    assert half_fall(np.array([0.0, 0.5, 0.6, 1.0]), np.array([4.0, np.nan, 0.0, 0.0])) == pytest.approx(0.3)
    assert np.isnan(half_fall(points, np.array([1.0, 3.0, np.nan])))


@pytest.mark.parametrize(
    "lost",
    [
        {"letter_errors": 30},
        {"voiced": 0.0},
        {"h_window": np.nan, "h_window_spoken": np.nan},
        dict.fromkeys([*PROSODY, "f0_correlation", "f0_rmse"], np.nan),
        {"sim": np.nan},
        {"repetition": 0.1, "repetition_spoken": 0.1},
    ],
)
def test_a_study_of_broken_speech_is_told_all_the_same(lost: dict[str, float]) -> None:
    """As at smoke: nothing clear, nothing voiced, nothing defined, nothing that varies."""
    whole = world(1.0)
    broken = dataclasses.replace(whole, rows=whole.rows.assign(**lost))
    found = ledger(broken)
    assert len(found) == 47
    for part in tables.scaling_sections(broken, [], []):
        assert "nan" not in str(part.lines)


def test_a_seed_without_dev_entropy_is_no_peak() -> None:
    whole = world(1.0)
    mute = (whole.cells["point"] == 0.8) & (whole.cells["seed"] == 1)
    cells = whole.cells.assign(h_dev=whole.cells["h_dev"].mask(mute))
    quiet = dataclasses.replace(whole, cells=cells)
    assert claims.Arm.of(quiet, "authentic").peak == claims.Arm.of(whole, "authentic").peak == 2


def test_pairs_are_of_one_text_with_words_matched() -> None:
    base = row("entropy", 0.5, 0, 0) | dict.fromkeys(PROSODY, 1.0)
    said = [base | {"h_window": float(h), "f0_std": 10.0 * h, "word_errors": e} for h, e in
            [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 5), (8, 1)]]  # fmt: skip
    found = claims.pairs(pd.DataFrame(said))
    assert found["f0_std"].tolist() == [70.0]  # 8 with 1; 7 with 2 is five word errors away


def test_premises_say_what_holds() -> None:
    results = dataclasses.replace(world(1.0), premises={"f0_in_tokens": 0.9, "speaker_in_tokens": 0.5})
    holds = {row["premise"]: row["holds"] for row in claims.premises(results)}
    assert holds["tokens hold the melody"] is True
    assert holds["tokens hold little of the speaker"] is False
    assert holds["judge B hears recordings"] is None


def test_a_claim_needs_its_fields() -> None:
    with pytest.raises(TypeError):
        Claim(id="S1", statement="")  # type: ignore[call-arg]
