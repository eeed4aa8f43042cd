"""What preference tuning minimises: pure functions of log-probabilities, in nats.

Log-probabilities are sums over an utterance's speech tokens and its end, never over its text or padding
(`slmlab.models.lm.log_probs`); the reference's carry no gradient. Every loss is one number a pair, so that
pairs can weigh differently.

Axis legend: b pairs.
"""

import torch
from torch import Tensor
from torch.nn import functional


def margin(chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor) -> Tensor:
    """Δ = log[π(y+|x) / π_ref(y+|x)] − log[π(y−|x) / π_ref(y−|x)], `(b)` (Geng et al. 2026, §4).

    `chosen` and `rejected` are log π of the policy, the others log π_ref, frozen, `(b)` each.
    """
    return (chosen - reference_chosen.detach()) - (rejected - reference_rejected.detach())


def dpo(margins: Tensor, beta: float = 0.1) -> Tensor:
    """−log σ(β Δ) of margins Δ `(b)`: ln 2 while policy and reference agree (Rafailov et al. 2023, Eq. 7).

    A small `beta` lets the policy stray further.
    """
    return -functional.logsigmoid(beta * margins)


def ipo(margins: Tensor, beta: float = 0.1) -> Tensor:
    """(Δ − 1 / (2 β))², `(b)`: a margin is wanted, not an ever larger one (Azar et al. 2024, Eq. 17).

    `margins` are Δ `(b)`, here of log-probabilities *a token*, as TRL and IPO's authors take them: the square
    would otherwise grow with an utterance's length. `beta` is τ of the paper.
    """
    return (margins - 1 / (2 * beta)).square()


LOSSES = {"dpo": (dpo, False), "ipo": (ipo, True)}
"""Losses of pairs by name: a function of margins `(b)` and β, and whether its margins are taken a token."""


def sft(chosen: Tensor, tokens: Tensor) -> Tensor:
    """−log π(y+|x) a token over all pairs together, a scalar: keeps the chosen likely while margins grow.

    `chosen` are log π(y+|x) of the policy `(b)`, `tokens` the tokens of each, ends included, `(b)`.
    """
    return -chosen.sum() / tokens.sum()


@torch.no_grad()
def figures(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> dict[str, Tensor]:
    """What to watch, as means over pairs: `accuracy` (margins above 0), `margin` (β Δ, the reward's), and how
    far `chosen` and `rejected` have moved from the reference, in nats an utterance.
    """
    margins = margin(chosen, rejected, reference_chosen, reference_rejected)
    return {
        "accuracy": (margins > 0).float().mean(),
        "margin": beta * margins.mean(),
        "chosen": (chosen - reference_chosen).mean(),
        "rejected": (rejected - reference_rejected).mean(),
    }
