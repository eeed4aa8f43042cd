"""Preference losses: arithmetic a person can check, TRL's values, and gradients only where they belong."""

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from slmlab.models.lm import LMConfig, SpeechLM, assemble, log_probs, prompt_ids
from slmlab.preference import losses
from slmlab.training.presets import ALPHABET

CONFIG = LMConfig(ALPHABET, ("vi", "sw"), width=32, layers=2, heads=2, kv_heads=2, ffn=48)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


FOUR = (numbers(-10, -20), numbers(-12, -15), numbers(-11, -19), numbers(-11, -17))


def test_the_margin_of_two_pairs_by_hand() -> None:
    """(−10 + 11) − (−12 + 11) = 2 and (−20 + 19) − (−15 + 17) = −3."""
    assert losses.margin(*FOUR).tolist() == [2, -3]


def test_dpo_by_hand() -> None:
    """log(1 + e^−0.2) = 0.598139 and log(1 + e^0.3) = 0.854355."""
    assert losses.dpo(numbers(2, -3)).tolist() == pytest.approx([0.5981388694, 0.8543552445])


def test_ipo_by_hand() -> None:
    """(2 − 5)² and (5 − 5)²: a margin of 1 / (2 · 0.1) is enough."""
    assert losses.ipo(numbers(2, 5)).tolist() == pytest.approx([9, 0])


def test_sft_is_a_mean_over_tokens_and_not_over_utterances() -> None:
    assert float(losses.sft(numbers(-10, -20), numbers(5, 1))) == pytest.approx(5)


def test_figures_by_hand() -> None:
    found = {name: float(value) for name, value in losses.figures(*FOUR, beta=0.1).items()}
    assert found == pytest.approx({"accuracy": 0.5, "margin": -0.05, "chosen": 0.0, "rejected": 0.5})


def test_dpo_begins_at_ln_2_and_falls_with_the_margin() -> None:
    assert losses.dpo(numbers(0)).item() == pytest.approx(math.log(2), abs=1e-12)
    assert bool((losses.dpo(torch.linspace(-50, 50, 101)).diff() < 0).all())


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_the_gradient_of_dpo_is_the_paper_s(beta: float) -> None:
    """∂L/∂log π(y+) = −β σ(−β Δ), the opposite for y−, and none for the reference (Rafailov et al., §4)."""
    four = [part.clone().requires_grad_() for part in FOUR]
    losses.dpo(losses.margin(*four), beta).sum().backward()
    expected = -beta * torch.sigmoid(-beta * numbers(2, -3))
    torch.testing.assert_close(four[0].grad, expected)
    torch.testing.assert_close(four[1].grad, -expected)
    assert four[2].grad is None
    assert four[3].grad is None


def trl_loss(four: tuple[Tensor, ...], lengths: Tensor, kinds: list[str], **settings: Any) -> float:
    """What TRL's own DPOTrainer computes of these log-probabilities, laid out as one token an utterance that
    has them all and further tokens that are certain.
    """
    trainer = pytest.importorskip("trl.trainer.dpo_trainer", exc_type=ImportError)
    chosen, rejected, reference_chosen, reference_rejected = four
    longest = int(lengths.max())
    mask = (torch.arange(longest + 1) <= lengths[:, None]).long()
    mask[:, 0] = 0
    each = torch.zeros(len(mask), longest, dtype=torch.float64)
    each[:, 0] = torch.cat([chosen, rejected])

    def model(**_: Any) -> Any:
        return SimpleNamespace(log_probs=each, entropy=each, mean_logits=each, is_top1=each > 0)

    class Gatherer:
        device = torch.device("cpu")

        def gather(self, x: Tensor) -> Tensor:
            return x

        gather_for_metrics = gather

    trl = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=Gatherer(), aux_loss_enabled=False,
        ld_alpha=None, precompute_ref_logps=True,
        f_divergence_type="reverse_kl", loss_types=kinds, loss_weights=[1.0] * len(kinds), beta=0.1,
        label_smoothing=0.0, use_weighting=False, _total_train_tokens=0, _tp_size=1,
        _metrics={"train": defaultdict(list)},
    )  # fmt: skip
    vars(trl).update(settings)
    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": reference_chosen,
        "ref_rejected_logps": reference_rejected,
    }
    return float(trainer.DPOTrainer._compute_loss(trl, model, inputs, False))


@pytest.fixture(scope="module")
def drawn() -> tuple[tuple[Tensor, ...], Tensor]:
    """Log-probabilities of 16 pairs, and the tokens of their 32 utterances."""
    draw = torch.Generator().manual_seed(0)
    four = tuple(-100 * torch.rand(16, generator=draw, dtype=torch.float64) for _ in range(4))
    return four, torch.randint(5, 30, (32,), generator=draw)


@pytest.mark.filterwarnings("default")  # other people's imports
@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_trl_agrees(drawn: tuple[tuple[Tensor, ...], Tensor], beta: float) -> None:
    four, lengths = drawn
    long = lengths.chunk(2)
    means = [part / long[i % 2] for i, part in enumerate(four)]
    plain = losses.dpo(losses.margin(*four), beta).mean()
    assert float(plain) == pytest.approx(trl_loss(four, lengths, ["sigmoid"], beta=beta), abs=1e-9)
    ipo = losses.ipo(losses.margin(*means), beta).mean()
    assert float(ipo) == pytest.approx(trl_loss(four, lengths, ["ipo"], beta=beta), abs=1e-9, rel=1e-12)
    both = plain + losses.sft(four[0], long[0])
    assert float(both) == pytest.approx(trl_loss(four, lengths, ["sigmoid", "sft"], beta=beta), abs=1e-9)


def pair_of_utterances() -> tuple[SpeechLM, Any]:
    torch.manual_seed(0)
    prompts = [prompt_ids(CONFIG, [1, 2, 3], "vi"), prompt_ids(CONFIG, [4, 5], "sw", [3])] * 2
    batch = assemble(CONFIG, prompts, [[7, 8], [9], [20, 30, 40], [50, 60]])
    return SpeechLM(CONFIG).double(), batch


def test_speech_and_end_are_scored_and_neither_text_nor_padding() -> None:
    """The mask's polarity, against the long way: a softmax over everything, places from <speech> on."""
    model, batch = pair_of_utterances()
    each = model(batch.ids).log_softmax(-1)
    for row, (ids, found) in enumerate(zip(batch.ids.tolist(), log_probs(model, batch), strict=True)):
        start = ids.index(CONFIG.speech)
        said = [token for token in ids[start + 1 :] if token]
        expected = sum(each[row, start + i, token] for i, token in enumerate([*said, CONFIG.end]))
        torch.testing.assert_close(found, expected)


def test_alone_or_in_a_batch_an_utterance_has_the_same_log_probability() -> None:
    model, batch = pair_of_utterances()
    alone = assemble(CONFIG, [prompt_ids(CONFIG, [4, 5], "sw", [3])], [[50, 60]])
    torch.testing.assert_close(log_probs(model, alone)[0], log_probs(model, batch)[3])
