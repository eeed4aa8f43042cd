"""What speech is measured by: words, tokens, prosody, and how sure a figure is."""

from slmlab.metrics.describe import UNITS, describe
from slmlab.metrics.error_rates import calibrated_cer, cer, corpus_cer, corpus_wer, wer
from slmlab.metrics.prosody import (
    CLEAR,
    DB_PER_NEPER,
    FEWEST_VOICED,
    Expressivity,
    align,
    cheapest_path,
    energy_std,
    expressivity,
    expressivity_scores,
    f0_correlation,
    f0_median,
    f0_range,
    f0_rmse,
    f0_spread,
    f0_std,
    mel_distance,
    melody_entropy,
    rate_variation,
    similarity,
    speaking_rate,
    speech_frames,
    voiced_share,
)
from slmlab.metrics.tokens import (
    NOTHING,
    equal_count_entropies,
    length_ratio,
    matched_entropies,
    missed_end,
    prosodic_entropy,
    prosodic_entropy_miller_madow,
    repetition_rate,
    silence_codes,
    where_repeats,
    window_entropy,
)
