"""Error rates: what a recogniser heard against what was to be said.

How a text is cut into words, its language says (`slmlab.language.languages`).
"""

from collections.abc import Callable, Sequence

import jiwer

from slmlab.errors import LabError
from slmlab.language import languages


def wer(text: str, heard: str, language: str = "") -> float:
    """Word error rate of one utterance: edits a word of the text. Above 1 when more was heard than said.

    Case and punctuation do not count. Without a language, words stand between spaces.

    Raises:
        LabError: the text holds no word.
    """
    return corpus_wer([text], [heard], language)


def cer(text: str, heard: str, language: str = "") -> float:
    """Character error rate of one utterance, spaces counted where they part words; else like `wer`."""
    return corpus_cer([text], [heard], language)


def corpus_wer(texts: Sequence[str], heard: Sequence[str], language: str = "") -> float:
    """Word error rate of a test set: all edits over all words, so that long sentences weigh more."""
    words = languages.find(language).cut
    return float(jiwer.wer(*_pairs(texts, heard, lambda text: " ".join(words(text)))))


def corpus_cer(texts: Sequence[str], heard: Sequence[str], language: str = "") -> float:
    """Character error rate of a test set: all edits over all characters."""
    return float(jiwer.cer(*_pairs(texts, heard, languages.find(language).counted_letters)))


def calibrated_cer(generated: float, recorded: float) -> float:
    """What the generated speech adds to the recogniser's own errors: max(0, CER − CER of the recordings).

    From SE-Bridge's open benchmark; its accuracy is 1 − this.
    """
    return max(0.0, generated - recorded)


def _pairs(
    texts: Sequence[str], heard: Sequence[str], spelt: Callable[[str], str]
) -> tuple[list[str], list[str]]:
    """Both sides in the spelling for error rates, checked."""
    if len(texts) != len(heard) or not len(texts):
        raise LabError(f"error rates need as many texts as transcripts, found {len(texts)} and {len(heard)}.")
    scored = [spelt(text) for text in texts]
    for text, letters in zip(texts, scored, strict=True):
        if not letters:
            raise LabError(
                f"text {text!r} holds no word to compare with what was heard: give the words spoken."
            )
    return scored, [spelt(transcript) for transcript in heard]
