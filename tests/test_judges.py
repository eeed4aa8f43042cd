"""The judges hear what was said: alone or in a batch, in every arrangement of CTC that a person can check."""

import math

import pytest
import torch
from torch import Tensor

from slmlab.language.text import Alphabet, for_scoring
from slmlab.models.augmentation import Augmentation
from slmlab.models.judges import (
    AttentiveConfig,
    AttentiveJudge,
    ConvolutionalConfig,
    ConvolutionalJudge,
    EncodedConfig,
    EncodedJudge,
    judge_loss,
    lift_floor,
    transcribe,
)
from slmlab.training.optim import optimisers
from slmlab.training.presets import ALPHABET

Judge = AttentiveJudge | ConvolutionalJudge
STILL = Augmentation(tract=0, speed=0, noise=0, bands=0, gaps=0)
TEXTS = ["Chị ơi!", "Mẹ à", "Baba yuko?", "Ng'ombe"]


def small(which: str) -> Judge:
    torch.manual_seed(0)
    if which == "a":
        a = AttentiveConfig(ALPHABET, width=32, blocks=2, heads=2, kernel=5, sketch=4, augmentation=STILL)
        return AttentiveJudge(a)
    b = ConvolutionalConfig(ALPHABET, width=32, kernels=(5, 9), augmentation=STILL)
    return ConvolutionalJudge(b)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 5


@pytest.mark.parametrize("which", ["a", "b"])
def test_tiny_judges_are_as_small_as_they_should_be(which: str) -> None:
    judge: Judge = (
        AttentiveJudge(AttentiveConfig(ALPHABET))
        if which == "a"
        else ConvolutionalJudge(ConvolutionalConfig(ALPHABET))
    )
    assert 0.6e6 < sum(p.numel() for p in judge.parameters()) < 1.3e6


@pytest.mark.parametrize("which", ["a", "b"])
def test_an_utterance_is_heard_in_a_batch_as_alone(which: str) -> None:
    judge, mel, frames = small(which).eval(), noise(3, 57, 80), torch.tensor([57, 30, 17])
    together = judge(mel, frames)
    assert together.shape == (3, 57, len(ALPHABET))
    for row, n in enumerate(frames.tolist()):
        alone = judge(mel[row : row + 1, :n], torch.tensor([n]))
        torch.testing.assert_close(together[row, :n], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("which", ["a", "b"])
def test_probabilities_add_up_and_loudness_does_not_matter(which: str) -> None:
    judge, mel, frames = small(which).eval(), noise(1, 40, 80), torch.tensor([40])
    heard = judge(mel, frames)
    torch.testing.assert_close(heard.exp().sum(-1), torch.ones(1, 40))
    torch.testing.assert_close(judge(mel + 2.5, frames), heard, atol=1e-4, rtol=1e-4)


def test_digital_silence_is_lifted_to_a_common_floor() -> None:
    mel = torch.tensor([[[-1.0, -11.5], [-4.0, -9.0], [9.0, 9.0]]])
    lifted = lift_floor(mel, torch.tensor([[[1.0], [1.0], [0.0]]]))
    assert lifted[0, :2].tolist() == [[-1, -8], [-4, -8]]


def test_loss_is_minus_log_of_all_paths_per_symbol() -> None:
    """Two frames, both at probability 1/4 for each of four symbols: a, aa, blank a, a blank are 3 of 16
    paths.
    """

    class Even(torch.nn.Module):
        config = AttentiveConfig(Alphabet(("a", "b", "c")), augmentation=STILL)

        def forward(self, mel: Tensor, frames: Tensor) -> Tensor:
            return torch.full((len(mel), mel.shape[1], 4), math.log(1 / 4))

    batch = {
        "mel": noise(1, 2, 80),
        "frames": torch.tensor([2]),
        "text": torch.tensor([[1]]),
        "symbols": torch.tensor([1]),
    }
    loss, figures = judge_loss(Even(), batch)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(-math.log(3 / 16))
    assert figures["ctc"].item() == pytest.approx(loss.item())


@pytest.mark.parametrize("which", ["a", "b"])
def test_learns_four_utterances_by_heart_and_moves_every_weight(which: str) -> None:
    judge = small(which)
    before = [p.detach().clone() for p in judge.parameters()]
    ids = [torch.tensor(ALPHABET.encode_spoken(text)) for text in TEXTS]
    frames = torch.tensor([46, 34, 52, 41])
    batch = {
        "mel": noise(4, 52, 80),
        "frames": frames,
        "text": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
        "symbols": torch.tensor([len(row) for row in ids]),
    }
    both = optimisers(judge, 5e-3, 0.03, 0.0)
    for _ in range(150):  # on some processors 90 leave a last space unlearned
        judge_loss(judge, batch)[0].backward()
        for optimiser in both:
            optimiser.step()
            optimiser.zero_grad()
    heard = transcribe(judge.eval()(batch["mel"], frames), frames, ALPHABET)
    assert [for_scoring(text) for text in heard] == [for_scoring(text) for text in TEXTS]
    assert all((p != q).any() for p, q in zip(judge.parameters(), before, strict=True))


def test_transcribe_folds_repeats_drops_blanks_and_does_not_read_padding() -> None:
    a, space, _ = ALPHABET.encode("a a")
    e, hook = ALPHABET.encode("ẻ")
    path = [space, a, a, 0, a, e, hook, hook, space, space, e, e]
    log_probs = torch.nn.functional.one_hot(torch.tensor([path]), len(ALPHABET)).float()
    assert transcribe(log_probs, torch.tensor([10]), ALPHABET) == ["aaẻ"]


def encoded_judge() -> EncodedJudge:
    torch.manual_seed(0)
    return EncodedJudge(EncodedConfig(Alphabet(("a", "b")), features=24, width=16, blocks=1, heads=2))


def test_judge_c_reads_an_utterance_in_a_batch_as_alone() -> None:
    judge, encoded, frames = encoded_judge().eval(), noise(3, 31, 24), torch.tensor([31, 12, 20])
    together = judge(encoded, frames)
    torch.testing.assert_close(together.exp().sum(-1), torch.ones(3, 31))
    for row, n in enumerate(frames.tolist()):
        alone = judge(encoded[row : row + 1, :n], frames[row : row + 1])
        torch.testing.assert_close(together[row, :n], alone[0], atol=1e-5, rtol=1e-4)


def test_judge_c_loses_whole_features_and_frames_in_training_only() -> None:
    judge, x = encoded_judge(), torch.ones(4, 60, 24)
    lost = judge.lose(x, torch.full((4,), 60)) == 0
    rows, columns = lost.all(2, keepdim=True), lost.all(1, keepdim=True)
    assert rows.any()
    assert columns.any()
    assert torch.equal(lost, rows | columns)
    judge.eval()
    frames = torch.full((4,), 60)
    torch.testing.assert_close(judge(x, frames), judge(x, frames), rtol=0, atol=0)


def test_judge_c_learns_which_feature_is_which_letter() -> None:
    judge = encoded_judge()
    before = [p.detach().clone() for p in judge.parameters()]
    encoded = torch.nn.functional.one_hot(torch.tensor([[0, 0, 1, 1, 2, 2, 1, 0]]).expand(8, 8), 24).float()
    frames = torch.full((8,), 8)
    batch = {
        "mel": encoded,
        "frames": frames,
        "text": torch.tensor([[1, 2, 1]] * 8),
        "symbols": torch.full((8,), 3),
    }
    both = optimisers(judge, 1e-2, 0.02, 0.0)
    for _ in range(60):
        judge_loss(judge, batch)[0].backward()
        for optimiser in both:
            optimiser.step()
            optimiser.zero_grad()
    assert transcribe(judge.eval()(encoded, frames), frames, judge.config.alphabet) == ["aba"] * 8
    assert all((p != q).any() for p, q in zip(judge.parameters(), before, strict=True))
