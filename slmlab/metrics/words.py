"""Words: what a recogniser heard against what was to be said."""

from collections.abc import Sequence

import jiwer

from slmlab.errors import LabError
from slmlab.language.text import for_scoring


def wer(text: str, heard: str) -> float:
    """Word error rate of one utterance: edits a word of the text. Above 1 when more was heard than said.

    Case and punctuation do not count. Languages written without spaces must come cut into words.

    Args:
        text: what should have been said.
        heard: what a recogniser heard.

    Raises:
        LabError: the text holds no word.
    """
    return corpus_wer([text], [heard])


def cer(text: str, heard: str) -> float:
    """Character error rate of one utterance, in NFC, spaces counted; otherwise like `wer`."""
    return corpus_cer([text], [heard])


def corpus_wer(texts: Sequence[str], heard: Sequence[str]) -> float:
    """Word error rate of a test set: all edits over all words, so that long sentences weigh more."""
    return float(jiwer.wer(*_scoring_pairs(texts, heard)))


def corpus_cer(texts: Sequence[str], heard: Sequence[str]) -> float:
    """Character error rate of a test set: all edits over all characters."""
    return float(jiwer.cer(*_scoring_pairs(texts, heard)))


def calibrated_cer(generated: float, recorded: float) -> float:
    """What the generated speech adds to the recogniser's own errors: max(0, CER − CER of the recordings).

    From SE-Bridge's open benchmark; its accuracy is 1 − this.
    """
    return max(0.0, generated - recorded)


def _scoring_pairs(texts: Sequence[str], heard: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both sides in the spelling for error rates, checked."""
    if len(texts) != len(heard) or not len(texts):
        raise LabError(f"error rates need as many texts as transcripts, found {len(texts)} and {len(heard)}.")
    scored = [for_scoring(text) for text in texts]
    for text, letters in zip(texts, scored, strict=True):
        if not letters:
            raise LabError(
                f"text {text!r} holds no word to compare with what was heard: give the words spoken."
            )
    return scored, [for_scoring(transcript) for transcript in heard]
