"""Preference tuning of a language model against its own frozen beginning, watched while it goes on.

The reference's log-probabilities are taken once, before the first step; chosen and rejected sides of a batch
are one batch of sequences, laid out alike for policy and reference. The rule by which a checkpoint is chosen
is fixed before: *fewest signs of reward hacking on dev, then what `choose` names; of equals the earliest*.
The start is no candidate: whoever tunes wants to see what tuning does. If every checkpoint has signs, or all
score below the start, a message says so.

Axis legend: b pairs, s the sides of a pair (chosen, rejected); s·b utterances, chosen ones first.
"""

import copy
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from einops import rearrange
from torch import Tensor
from tqdm.auto import tqdm

from slmlab import files
from slmlab.corpus.pairs import Pair, check
from slmlab.corpus.utterances import in_batches
from slmlab.errors import LabError
from slmlab.language.text import for_scoring
from slmlab.models.lm import Batch, SpeechLM, assemble, lm_loss, log_probs
from slmlab.preference import losses
from slmlab.preference.jury import Jury, Limits, measure, signs
from slmlab.training import checkpoints
from slmlab.training.loop import LOG, TrainConfig, frame_batches, pick_device, read_log, to_device, train

CHOICES = ("error", "melody")
WATCHED = 64  # held-out pairs that are read at each validation
ORIGIN, START, BEST = "made_from.json", "start.json", "best.safetensors"


@dataclass(frozen=True)
class PreferenceConfig:
    """How a model learns from pairs."""

    train: TrainConfig
    """Steps and rates; `validate_every` is also how often a checkpoint may be chosen."""
    loss: str = "dpo"
    """`dpo` or `ipo`."""
    beta: float = 0.1
    """How strongly the policy is held to the reference; τ for IPO. DPO with 0 prefers nothing."""
    sft: float = 0.0
    """Weight of the chosen sides' negative log-probability a token beside the preference loss."""
    batch: int = 6000
    """Most tokens of a padded batch: text and both sides, but not styles. A step is a mean over its batch: a
    set whose styles took room would come in smaller batches, and weigh more than its weight says."""
    choose: str = "error"
    """Which checkpoint: the one with the lowest word error rate on dev (`error`), or with the widest F0
    spread of what is clear (`melody`; a flat sentence that breaks widens it too)."""
    limits: Limits = field(default_factory=Limits)
    """What is a sign of reward hacking."""

    def __post_init__(self) -> None:
        known = self.loss in losses.LOSSES and self.choose in CHOICES
        lowest = 1e-6 if self.loss == "ipo" else 0.0  # IPO wants a margin of 1 / (2 β)
        weighed = lowest <= self.beta < math.inf and 0 <= self.sft < math.inf
        if not (known and weighed):
            raise LabError(
                f"Tuning refuses loss={self.loss!r}, choose={self.choose!r}, beta={self.beta}, sft={self.sft}"
                f": expected one of {', '.join(losses.LOSSES)}, one of {', '.join(CHOICES)}, and no weight "
                "below 0 (nor beta=0 for ipo)."
            )

    def score(self, figures: Mapping[str, float]) -> float:
        """By what `choose` names, the higher the better: dev figures of a checkpoint."""
        if self.choose == "error":
            return -figures["wer"]
        return 0.0 if math.isnan(figures["f0_spread"]) else figures["f0_spread"]


@dataclass(frozen=True)
class PairBatch:
    """Pairs as a network reads them: s·b utterances, and `weights` `(b)`, how much each pair counts.

    `reference` `(s·b)` are log-probabilities of the frozen reference, `tokens` `(s·b)` count speech and end.
    """

    sequences: Batch
    reference: Tensor
    tokens: Tensor
    weights: Tensor


def preference_loss(
    model: SpeechLM, batch: PairBatch, config: PreferenceConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted mean of a loss over pairs, and the SFT term; see `losses` for them and the figures."""
    policy, tokens = log_probs(model, batch.sequences), batch.tokens
    (chosen, rejected), (reference_chosen, reference_rejected) = policy.chunk(2), batch.reference.chunk(2)
    four = (chosen, rejected, reference_chosen, reference_rejected)
    loss_of, is_a_token = losses.LOSSES[config.loss]
    a_token = (*(policy / tokens).chunk(2), *(batch.reference / tokens).chunk(2))
    each = loss_of(losses.margin(*(a_token if is_a_token else four)), config.beta)
    loss = (batch.weights * each).mean()
    if config.sft:
        loss = loss + config.sft * losses.sft(chosen, tokens.chunk(2)[0])
    return loss, losses.figures(*four, config.beta)


class PairBatches:
    """Pairs with the reference's log-probabilities, taken once, as batches by step."""

    def __init__(self, reference: SpeechLM, pairs: Sequence[Pair], batch: int, seed: int) -> None:
        self.model, self.pairs = reference, pairs
        prompts = [len(reference.prompt(pair.prompt, pair.language)) for pair in pairs]
        longer = [max(len(pair.chosen_tokens), len(pair.rejected_tokens)) for pair in pairs]
        sizes = [2 * (n + 2 + tokens) for n, tokens in zip(prompts, longer, strict=True)]
        self.rows = frame_batches(sizes, max([batch, *sizes]), seed)
        self.reference = torch.zeros(len(pairs), 2)
        """`(b s)` log-probabilities."""
        self.reference = torch.stack(in_batches(sizes, max(1, batch // max(sizes)), self._read))

    @torch.no_grad()
    def _read(self, rows: Sequence[int]) -> Sequence[Tensor]:
        """`(s)` log-probabilities of each of some pairs by the reference."""
        device = pick_device()
        sequences = to_device(self.of(rows).sequences, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            sides = log_probs(self.model.to(device), sequences)
        return rearrange(sides.cpu(), "(s b) -> b s", s=2).unbind()

    def __call__(self, step: int) -> PairBatch:
        """The batch of a step."""
        return self.of(self.rows(step))

    def of(self, rows: Sequence[int]) -> PairBatch:
        """Some pairs as a batch; both sides of a pair have the same prompt."""
        pairs = [self.pairs[i] for i in rows]
        sides = [pair.chosen_tokens for pair in pairs] + [pair.rejected_tokens for pair in pairs]
        prompts = [self.model.prompt(pair.prompt, pair.language, pair.style) for pair in pairs]
        return PairBatch(
            assemble(self.model.config, prompts * 2, sides),
            rearrange(self.reference[list(rows)], "b s -> (s b)"),
            torch.tensor([len(side) + 1 for side in sides]),
            torch.tensor([pair.weight for pair in pairs]),
        )


def held_out(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn from and pairs to look at, split by text: no text is on both sides.

    Every tenth text by the hash of its spelling; a table of one text has nothing to look at.
    """
    points = [hashlib.sha256(for_scoring(pair.prompt).encode()).digest()[0] for pair in pairs]
    learned = [pair for pair, point in zip(pairs, points, strict=True) if point % 10]
    watched = [pair for pair, point in zip(pairs, points, strict=True) if point % 10 == 0]
    return (learned, watched) if learned else (watched, [])


def tune(
    model: SpeechLM,
    pairs: Sequence[Pair],
    config: PreferenceConfig,
    folder: str | Path,
    jury: Jury | None = None,
) -> SpeechLM:
    """A model that has learned from pairs; the given one stays as it is, the frozen reference.

    A jury measures what the model says, and then pairs of every tenth text are looked at only; without one
    the last checkpoint is taken. State, log and best checkpoint live in the folder, where a killed run goes
    on. LabError: pairs that cannot be learned from, a loss that is not finite, or a folder of another run.
    """
    folder = Path(folder)
    check(pairs, folder.name)
    claim(folder, [config, [*pairs], fingerprint(model), jury and [jury.texts, jury.sampling]])
    learned, watched = held_out(pairs) if jury else (pairs, [])
    reference = copy.deepcopy(model).requires_grad_(False).eval()
    batches = PairBatches(reference, learned, config.batch, config.train.seed)
    validate = None
    if jury:
        seen = PairBatches(reference, watched[:WATCHED], config.batch, 0) if watched else None
        validate = _Monitor(reference, seen, config, folder, jury)
    loss = functools.partial(preference_loss, config=config)
    policy: SpeechLM = train(copy.deepcopy(model), loss, batches, config.train, folder, validate)
    if validate:
        validate.take_best(policy)
    return policy.to(model.pace.device)


@dataclass
class _Monitor:
    """Measures a policy, says what looks like reward hacking, and keeps the best checkpoint so far."""

    reference: SpeechLM
    pairs: PairBatches | None
    config: PreferenceConfig
    folder: Path
    jury: Jury

    def __post_init__(self) -> None:
        (self.start,) = once(
            self.folder / START, lambda: [measure(self.reference, self.reference, self.jury)]
        )

    def __call__(self, policy: SpeechLM) -> Mapping[str, float]:
        figures = measure(policy, self.reference, self.jury)
        if self.pairs is not None:
            batch = to_device(self.pairs.of(range(len(self.pairs.pairs))), policy.pace.device)
            loss, seen = preference_loss(policy, batch, self.config)
            figures |= {name: float(value) for name, value in (seen | {"loss": loss}).items()}
        if suspicions := signs(figures, self.start, self.config.limits):
            tqdm.write(f"{name_of(self.folder)}: {'; '.join(suspicions)}")
        rank = [-len(suspicions), self.config.score(figures)]
        best = self.folder / BEST
        if not best.exists() or rank > checkpoints.read_header(best)["rank"]:  # of equals the earliest
            checkpoints.write(best, checkpoints.weights(policy), {"rank": rank})
        row = figures | {"signs": len(suspicions)}
        if self.jury.watch:
            before, train = monitor(self.folder), self.config.train
            step = min(before.index[-1] + (train.validate_every or train.steps), train.steps)
            self.jury.watch(str(self.folder), pd.concat([before, pd.DataFrame([row], index=[step])]))
        return row

    def take_best(self, policy: SpeechLM) -> None:
        """Give a policy the best weights; a message if they look hacked, or score below the start."""
        tensors, card = checkpoints.read(self.folder / BEST)
        checkpoints.put(policy, tensors, self.folder / BEST)
        fewest, score = card["rank"]
        name, what = name_of(self.folder), "more word errors"
        if fewest < 0:
            tqdm.write(f"{name}: every checkpoint looks hacked; the one kept has the fewest signs")
        elif score < self.config.score(self.start):
            what = "a flatter melody" if self.config.choose == "melody" else what
            tqdm.write(f"{name}: even the checkpoint kept has {what} on dev than the start")


def name_of(folder: Path) -> str:
    """What work is called in pictures and messages: its folder and the one it lies in."""
    return "/".join(folder.parts[-2:])


def monitor(folder: str | Path) -> pd.DataFrame:
    """What was measured while tuning, a row for step 0 and each validation, also of a run still going on."""
    folder = Path(folder)
    if not (folder / START).exists():
        raise LabError(f"{folder} holds no tuning that a jury watched: there is nothing to look at.")
    log = read_log(folder) if (folder / LOG).exists() else []
    later = [row["validation"] | {"step": row["step"]} for row in log if row.get("validation")]
    return pd.DataFrame([{"step": 0, "signs": 0} | rows_of(folder / START)[0], *later]).set_index("step")


def fine_tune(
    model: SpeechLM,
    language: str,
    texts: Sequence[str],
    codes: Sequence[Sequence[int]],
    config: TrainConfig,
    batch: int,
    folder: str | Path,
) -> SpeechLM:
    """A model that has also learned to say `codes` to `texts`, in batches of at most `batch` padded tokens.

    The given one stays as it is; a killed run goes on in its folder.
    """
    claim(Path(folder), [config, batch, language, [*texts], [*codes], fingerprint(model)])
    prompts = [model.prompt(text, language) for text in texts]
    sizes = [len(prompt) + len(row) + 2 for prompt, row in zip(prompts, codes, strict=True)]
    rows = frame_batches(sizes, max(batch, *sizes), config.seed)

    def batches(step: int) -> Batch:
        at = rows(step)
        return assemble(model.config, [prompts[i] for i in at], [codes[i] for i in at])

    tuned: SpeechLM = train(copy.deepcopy(model), lm_loss, batches, config, folder)
    return tuned.to(model.pace.device)


def fingerprint(model: SpeechLM) -> str:
    """Digest of a model's weights."""
    return checkpoints.digest_of(checkpoints.weights(model), {})


def once(file: Path, make: Callable[[], Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows that are made once: read if the file is there, else made and written, whole or not at all.

    They come back as they were, but for tuples, which are lists.
    """
    if not file.exists():
        lines = [json.dumps(row, ensure_ascii=False, default=files.plain) for row in make()]
        files.replace_text(file, "".join(line + "\n" for line in lines))
    return rows_of(file)


def in_chunks(
    folder: Path, n: int, size: int, make: Callable[[range], Sequence[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """Rows that are made of places 0 to n, a file for every `size` of them: what a kill may cost."""
    rows: list[dict[str, Any]] = []
    for start in tqdm(range(0, n, size), desc=name_of(folder), unit="chunk", disable=None):
        chunk = range(start, min(start + size, n))
        rows += once(folder / f"{start:06}.jsonl", functools.partial(make, chunk))
    return rows


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Rows that `once` has made."""
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def claim(folder: Path, made_from: Any) -> None:
    """Keep a folder for one run: LabError if it holds one that was made from anything else."""
    own = {"digest": files.digest(made_from)}
    if once(folder / ORIGIN, lambda: [own]) != [own]:
        raise LabError(
            f"{folder} holds a run with other settings, pairs or another start: give another folder, or "
            "delete it."
        )
