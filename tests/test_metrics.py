"""Each metric against arithmetic done by hand or a library that somebody else wrote."""

import math

import librosa
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from slmlab import metrics
from slmlab.errors import LabError
from slmlab.metrics import Expressivity, instruments
from slmlab.sound import features

RANDOM = np.random.default_rng(0)


def speechlike(
    seconds: float = 2.0, hz: float = 150.0, syllables: float = 4.0, swing: float = 0.2
) -> np.ndarray:
    """Harmonics whose pitch swings once a second and whose loudness beats like syllables."""
    time = np.arange(int(16_000 * seconds)) / 16_000
    melody = hz * 2 ** (swing * np.sin(2 * np.pi * time))
    phase = 2 * np.pi * np.cumsum(melody) / 16_000
    wave = sum(np.sin(h * phase) / h for h in range(1, 20))
    return (0.2 * wave * (0.55 - 0.45 * np.cos(2 * np.pi * syllables * time))).astype(np.float32)


# words


def test_wer_of_a_worked_example():
    # one substitution (cat → bat), one deletion (the), one insertion (now), of six words
    assert metrics.wer("The cat sat on the mat.", "the bat sat on mat now") == pytest.approx(3 / 6)


def test_cer_of_a_worked_example():
    # "habari" → "habri": one of six characters
    assert metrics.cer("Habari!", "habri") == pytest.approx(1 / 6)


def test_case_punctuation_and_composition_do_not_count():
    assert metrics.cer("Chị Hà ơi, mấy giờ rồi?", "chi\u0323 ha\u0300 ơi mâ\u0301y giờ rồi") == 0


def test_a_wrong_tone_is_one_character():
    assert metrics.cer("ma", "má") == pytest.approx(1 / 2)


def test_a_corpus_weighs_long_sentences_more():
    texts, heard = (
        ["one two three four five six seven eight", "nine ten"],
        ["one two three four five six seven eight", ""],
    )
    assert metrics.corpus_wer(texts, heard) == pytest.approx(2 / 10)
    assert [metrics.wer(t, h) for t, h in zip(texts, heard, strict=True)] == [0, 1]


def edits(a: list[str], b: list[str]) -> int:
    """Levenshtein distance as in the textbook."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


words = st.lists(st.sampled_from(["ma", "má", "mã", "nyumba", "hii"]), max_size=8)


@given(text=words.filter(bool), heard=words)
def test_error_rates_equal_the_textbook(text, heard):
    a, b = " ".join(text), " ".join(heard)
    assert metrics.wer(a, b) == pytest.approx(edits(text, heard) / len(text))
    assert metrics.cer(a, b) == pytest.approx(edits(list(a), list(b)) / len(a))


@pytest.mark.parametrize(
    ("texts", "heard"), [([], []), (["a"], []), (["...", "a"], ["a", "a"]), ([""], ["a"])]
)
def test_error_rates_need_a_text_for_every_transcript(texts, heard):
    with pytest.raises(LabError):
        metrics.corpus_wer(texts, heard)


def test_calibrated_cer_is_never_below_zero():
    assert metrics.calibrated_cer(0.12, 0.05) == pytest.approx(0.07)
    assert metrics.calibrated_cer(0.03, 0.05) == 0


# tokens


def test_entropy_of_a_worked_example():
    # p = 1/2, 1/4, 1/4: 1.5 bits, over all utterances together
    assert metrics.prosodic_entropy([[7, 7, 3], [9]]) == pytest.approx(1.5)
    assert metrics.prosodic_entropy([[7, 7, 3], [9]], exclude={7}) == pytest.approx(1.0)
    assert metrics.prosodic_entropy([[5] * 10]) == 0


@given(st.lists(st.integers(0, 20), min_size=1, max_size=200))
def test_entropy_equals_scipy(tokens):
    expected = scipy.stats.entropy(np.bincount(tokens), base=2)
    assert metrics.prosodic_entropy([tokens]) == pytest.approx(expected, abs=1e-9)


def test_miller_madow_of_a_worked_example_and_its_use():
    # three codes in four tokens: + 2 / (8 ln 2)
    assert metrics.prosodic_entropy_miller_madow([[7, 7, 3, 9]]) == pytest.approx(1.5 + 2 / (8 * math.log(2)))
    sample = RANDOM.integers(64, size=300)  # 6 bits in truth
    plain, corrected = metrics.prosodic_entropy([sample]), metrics.prosodic_entropy_miller_madow([sample])
    assert abs(corrected - 6) < abs(plain - 6) / 3


def test_equal_counts_remove_the_advantage_of_more_tokens():
    few = [RANDOM.integers(500, size=25) for _ in range(40)]
    many = [RANDOM.integers(500, size=50) for _ in range(200)]
    assert metrics.prosodic_entropy(many) - metrics.prosodic_entropy(few) > 0.2
    means = [metrics.equal_count_entropies(system, 200, 50, seed=1).mean() for system in (few, many)]
    assert abs(means[0] - means[1]) < 0.12


def test_systems_are_counted_alike_whatever_they_say():
    """Four codes in turn are 2 bits over any 8 tokens of them; who says nothing takes nothing from others."""
    found = metrics.matched_entropies([[[1, 2, 3, 4] * 10], [[1, 2] * 4], [[], []]])
    assert found[:2] == [2.0, 1.0]
    assert math.isnan(found[2])
    assert math.isnan(metrics.matched_entropies([[[]]])[0])


def test_every_figure_of_a_sound_has_a_unit():
    wave = 0.1 * np.sin(np.arange(16_000) * 0.08).astype(np.float32)
    told = metrics.describe(wave, "moja", wave, "moja", lambda sound: np.ones(3))
    opened = dict.fromkeys(instruments.INSTRUMENTS.index, lambda *_: "moja")
    told |= instruments.figures(opened, wave, "moja", wave)
    of_tokens = {"entropy", "repetition", "repeats_at", "calibrated_cer"}
    assert told.keys() - {"whisper_heard"} | of_tokens == metrics.UNITS.keys()


def test_equal_counts_count_exactly_and_repeat_with_their_seed():
    draws = metrics.equal_count_entropies([[1, 2], [3, 4], [5, 6, 7]], 1, 20, seed=3)
    assert (draws == 0).all()  # one token has no entropy
    again = [metrics.equal_count_entropies([[1, 2], [3, 4]], 7, 5, seed=3) for _ in range(2)]
    assert (again[0] == again[1]).all()
    assert np.isnan(metrics.equal_count_entropies([[1, 1]], 4, 3, seed=0, exclude={1})).all()


def test_window_entropy_does_not_grow_with_length():
    pattern = [1, 2, 3, 4]
    assert metrics.window_entropy(pattern, 4) == pytest.approx(2)
    assert metrics.window_entropy(pattern * 20, 4) == pytest.approx(2)
    assert metrics.window_entropy([1, 1, 1, 2], 2) == pytest.approx(1 / 3)
    assert math.isnan(metrics.window_entropy([1, 2], 3))


def test_silence_codes_are_those_said_mostly_in_pauses():
    # two frames a token; code 5 is silent two times of three, code 6 one time of two, code 7 never
    tokens = [[5, 7, 5, 6], [5, 6, 7]]
    energies = [[-80, -80, -20, -20, -79, -75, -80, -80], [-30, -25, -20, -20, -20, -20]]
    assert metrics.silence_codes(tokens, energies) == {5}
    with pytest.raises(LabError, match="3 tokens need 6 frames of energy, found 4"):
        metrics.silence_codes([[1, 2, 3]], [[0, 0, 0, 0]])


def test_repetition_of_a_worked_example():
    # N = 10, k = 4: six positions; a run of six 2s has two that are followed by four equals
    tokens = [1, 2, 2, 2, 2, 2, 2, 3, 4, 5]
    assert metrics.repetition_rate(tokens) == pytest.approx(2 / 6)
    np.testing.assert_allclose(metrics.where_repeats(tokens), [0.1, 0.2])
    assert metrics.repetition_rate(tokens, k=1) == pytest.approx(5 / 9)
    assert metrics.repetition_rate(tokens, exclude={2}) == 0
    assert metrics.where_repeats(tokens, exclude={2}).size == 0


@given(st.lists(st.integers(0, 1), min_size=6, max_size=60), st.integers(1, 5))
def test_repetition_equals_its_definition(tokens, k):
    positions = range(len(tokens) - k)
    repeats = [i for i in positions if len(set(tokens[i : i + k + 1])) == 1]
    assert metrics.repetition_rate(tokens, k) == pytest.approx(len(repeats) / len(positions))
    np.testing.assert_allclose(metrics.where_repeats(tokens, k), [i / len(tokens) for i in repeats])


def test_what_no_token_defines_is_nan():
    assert math.isnan(metrics.prosodic_entropy([]))
    assert math.isnan(metrics.prosodic_entropy_miller_madow([[4, 4]], exclude={4}))
    assert math.isnan(metrics.repetition_rate([1, 1, 1, 1], k=4))
    assert math.isnan(metrics.missed_end([], []))
    assert metrics.where_repeats([]).size == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.repetition_rate([1, 2, 3], k=0),
        lambda: metrics.equal_count_entropies([[1]], 0, 1, seed=0),
        lambda: metrics.length_ratio(1.0, 0.0),
        lambda: metrics.similarity([1, 2], [1, 2, 3]),
        lambda: metrics.speech_frames([]),
        lambda: metrics.align(np.zeros((3, 80)), np.zeros((0, 80))),
        lambda: metrics.align(np.zeros((10_000, 1)), np.zeros((10_000, 1))),
        lambda: metrics.expressivity_scores([], []),
    ],
)
def test_mistakes_are_said(call):
    with pytest.raises(LabError):
        call()


def test_lengths():
    assert metrics.length_ratio(3.0, 2.0) == 1.5
    assert metrics.missed_end([10, 50, 40, 50], [50, 50, 50, 60]) == 0.25


# melody


def test_f0_spread_and_range_of_a_worked_example():
    f0 = [0, 100, 100, 200, 200, 0, 100, 200]
    assert metrics.f0_median(f0) == 150
    assert metrics.f0_std(f0) == pytest.approx(50)
    assert metrics.f0_spread(f0) == pytest.approx(6)  # an octave apart: half of it either side
    assert metrics.f0_range(np.arange(100, 201)) == pytest.approx(90)


@pytest.mark.parametrize("metric", [metrics.f0_median, metrics.f0_std, metrics.f0_range, metrics.f0_spread])
def test_a_whisper_has_no_melody(metric):
    assert math.isnan(metric(np.zeros(50)))
    assert math.isnan(metric([0, 120, 130, 0]))


def test_f0_correlation_and_rmse_look_only_where_both_are_voiced():
    ours = np.array([100, 120, 140, 160, 180, 150, 0, 130.0])
    theirs = np.array([110, 118, 150, 149, 190, 160, 130, 0.0])
    path = np.stack([np.arange(8)] * 2, 1)
    assert metrics.f0_correlation(ours, theirs, path) == pytest.approx(
        scipy.stats.pearsonr(ours[:6], theirs[:6])[0]
    )
    assert metrics.f0_rmse(ours, theirs, path) == pytest.approx(
        math.sqrt((100 + 4 + 100 + 121 + 100 + 100) / 6)
    )
    assert math.isnan(metrics.f0_rmse(ours, theirs, path[4:]))
    assert math.isnan(metrics.f0_correlation(np.full(8, 100), theirs, path))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (30, 20), (45, 60)])
def test_alignment_costs_what_librosa_finds(n, m):
    cost = RANDOM.random((n, m))
    path = metrics.cheapest_path(cost)
    total, _ = librosa.sequence.dtw(C=cost)
    assert cost[path[:, 0], path[:, 1]].sum() == pytest.approx(total[-1, -1])
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [n - 1, m - 1]
    assert {tuple(step) for step in np.diff(path, axis=0)} <= {(0, 1), (1, 0), (1, 1)}


def test_alignment_finds_a_stretch_under_another_colour():
    mel = RANDOM.normal(size=(30, 80))
    stretched = np.repeat(mel, 2, axis=0) + np.linspace(-3, 3, 80)
    path = metrics.align(stretched, mel)
    assert (path[:, 0] // 2 == path[:, 1]).mean() > 0.95


def test_mel_distance_is_in_decibels():
    mel = features.log_mel(speechlike())[0]
    same = np.stack([np.arange(len(mel))] * 2, 1)
    assert metrics.mel_distance(mel, mel, same) == 0
    assert metrics.mel_distance(mel + math.log(10), mel, same) == pytest.approx(
        20, rel=1e-5
    )  # ten times as large


# loudness and rhythm


def test_energy_and_rate_leave_pauses_out():
    energy = np.array([-80.0] * 50 + [-20, -26] * 25 + [-70] * 50)
    assert metrics.speech_frames(energy).sum() == 50
    assert metrics.energy_std(energy) == pytest.approx(3)
    assert metrics.speaking_rate("Nyumba hii, ndiyo!", energy) == pytest.approx(14)  # letters in one second
    assert metrics.voiced_share([100.0] * 60 + [0] * 90, energy) == pytest.approx(10 / 50)


def test_rate_variation_is_the_spread_of_the_gaps_between_syllables():
    def beats(gaps: list[int]) -> np.ndarray:
        energy = np.full(sum(gaps) + 20, -30.0)
        energy[5 + np.cumsum([0, *gaps])] = -15
        return energy

    assert metrics.rate_variation(beats([10] * 8)) == 0
    gaps = [8, 12, 8, 12, 6, 14]
    assert metrics.rate_variation(beats(gaps)) == pytest.approx(np.std(gaps) / 10)
    with_pause = beats([*gaps, 60])
    with_pause[-60:-40] = -80
    assert metrics.rate_variation(with_pause) == pytest.approx(np.std(gaps) / 10)
    assert math.isnan(metrics.rate_variation(np.full(50, -30.0)))


def test_similarity_is_the_cosine():
    assert metrics.similarity([3, 4], [4, 3]) == pytest.approx(24 / 25)
    assert metrics.similarity([1, 0], [-5, 0]) == pytest.approx(-1)
    assert math.isnan(metrics.similarity([0, 0], [1, 1]))


def test_expressivity_is_standardised_on_authentic_speech():
    authentic = [Expressivity(1, 4, 5, 0.2), Expressivity(3, 8, 7, 0.4)]
    lively, half = Expressivity(4, 10, 8, 0.5), Expressivity(4, 10, math.nan, math.nan)
    unknown = Expressivity(*[math.nan] * 4)
    scores = metrics.expressivity_scores([*authentic, lively, half, unknown], authentic)
    np.testing.assert_allclose(scores, [-1, 1, 2, 2, math.nan])


def test_livelier_sound_has_more_of_every_ingredient_of_pitch():
    parts = []
    for swing in (0.05, 0.3):
        _, f0, energy = features.extract(speechlike(swing=swing))
        parts.append(metrics.expressivity(f0, energy))
    assert parts[1].f0_spread / parts[0].f0_spread == pytest.approx(6, rel=0.1)
    assert parts[1].f0_range_semitones / parts[0].f0_range_semitones == pytest.approx(6, rel=0.1)
    assert parts[1].f0_spread == pytest.approx(12 * 0.3 / math.sqrt(2), rel=0.1)


# all at once


ALONE = {
    *("seconds", "loudness", "clipped", "speech_share", "voiced_share", "energy_std", "rate_variation"),
    *("f0_median", "f0_std", "f0_range", "f0_spread"),
}


def test_describe_gathers_what_applies():
    wave = speechlike()
    alone = metrics.describe(wave)
    assert set(alone) == ALONE
    assert alone["seconds"] == 2
    assert alone["f0_median"] == pytest.approx(150, rel=0.03)
    said = metrics.describe(wave, text="habari za leo", heard="habari za leo")
    assert set(said) == ALONE | {"speaking_rate", "cer", "wer"}
    assert said["wer"] == 0
    compared = metrics.describe(wave, reference=speechlike(hz=180), embed=lambda w: [w.mean() + 1, 1.0])
    assert set(compared) == ALONE | {
        "length_ratio",
        "f0_correlation",
        "f0_rmse",
        "mel_distance",
        "similarity",
    }
    assert compared["f0_correlation"] > 0.95
    assert compared["f0_rmse"] == pytest.approx(30, abs=6)
    assert compared["length_ratio"] == 1


def test_describe_of_a_sound_with_itself_is_perfect():
    wave = speechlike()
    same = metrics.describe(wave, reference=wave)
    assert same["f0_correlation"] == pytest.approx(1)
    assert same["f0_rmse"] == same["mel_distance"] == 0


def test_describe_of_a_hiss_says_nan_and_of_silence_says_why():
    hiss = 0.1 * RANDOM.normal(size=16_000).astype(np.float32)
    assert math.isnan(metrics.describe(hiss)["f0_std"])
    for wave, message in [
        (np.zeros(16_000), "the sound is silent"),
        (np.zeros(0), "no samples"),
        (hiss[:100], "20 ms"),
    ]:
        with pytest.raises(LabError, match=message):
            metrics.describe(wave.astype(np.float32))


def test_melody_entropy_hears_steps_of_a_semitone_and_no_slips() -> None:
    low, high = np.full(100, 200.0), np.full(100, 200.0 * 2 ** (4 / 12))
    assert metrics.melody_entropy(low) == 0
    assert metrics.melody_entropy(np.concatenate([low, high])) == pytest.approx(1)
    slips = low.copy()
    slips[10::20] = 400.0
    assert metrics.melody_entropy(slips) == 0
    assert np.isnan(metrics.melody_entropy(np.zeros(50)))
