"""The spoken language model: a decoder-only transformer that reads characters and writes speech tokens.

    [<lang>] [<style> z_1 .. z_k] text .. <speech> s_1 .. s_N <end>

In shape it is Qwen2. Its table of embeddings is composed: a code of eight ternary digits is the
sum of eight learnt vectors and a residual of its own.

Axis legend: b batch, t positions of a sequence, n targets (positions that predict speech), d width, v the vocabulary,
j digits of a code, l levels of a digit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from slmlab.errors import LabError
from slmlab.models.layers import Block, RMSNorm, rotation, unit_rms

CHUNK = 512  # rows of logits in memory at a time


@dataclass(frozen=True)
class LMConfig:
    """Size and vocabulary of the language model."""

    alphabet_size: int
    """Text symbols; id 0 is padding."""
    languages: tuple[str, ...]
    """One tag each, in this order."""
    n_codes: int = 6561
    """Speech tokens: `code_levels ** code_dims`."""
    code_levels: int = 3
    """Levels of a digit of a code."""
    code_dims: int = 8
    """Digits of a code."""
    width: int = 256
    """Numbers a position carries between blocks."""
    layers: int = 5
    """Blocks."""
    heads: int = 4
    """Query heads."""
    kv_heads: int = 4
    """Key and value heads; fewer than `heads` share."""
    ffn: int = 704
    """Inner width of the feed-forward layers."""
    max_positions: int = 2048
    """Longest sequence."""
    rope_theta: float = 10000.0
    """Base of the rotary positions."""

    @property
    def style(self) -> int:
        """Id of <style>."""
        return self.alphabet_size + len(self.languages)

    @property
    def speech(self) -> int:
        """Id of <speech>."""
        return self.style + 1

    @property
    def end(self) -> int:
        """Id of <end>."""
        return self.style + 2

    @property
    def first_code(self) -> int:
        """Id of code 0."""
        return self.style + 3

    @property
    def vocabulary(self) -> int:
        """All ids."""
        return self.first_code + self.n_codes


@dataclass(frozen=True)
class Batch:
    """Sequences with their targets, right-padded: under causal attention padding at the end needs no mask."""

    ids: Tensor
    """`(b t)`, 0 after a sequence's end."""
    positions: Tensor
    """`(b t)` for RoPE."""
    places: Tensor
    """`(n)` indices into the flattened `(b t)`: positions that predict speech."""
    targets: Tensor
    """`(n)` ids they should predict."""


class SpeechLM(nn.Module):
    """Ids to the distribution of the next id."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.embed_symbols = nn.Parameter(torch.randn(c.first_code, c.width) * 0.02)
        spread = 0.02 / math.sqrt(c.code_dims)
        self.embed_digits = nn.Parameter(torch.randn(c.code_dims, c.code_levels, c.width) * spread)
        self.embed_codes = nn.Parameter(torch.zeros(c.n_codes, c.width))
        self.layers = nn.ModuleList(Block(c.width, c.heads, c.kv_heads, c.ffn) for _ in range(c.layers))
        self.norm = RMSNorm(c.width)
        for block in self.blocks:
            attention = block.self_attn
            nn.init.zeros_(attention.o_proj.weight)
            nn.init.zeros_(block.mlp.down_proj.weight)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                nn.init.zeros_(projection.bias)

    @property
    def blocks(self) -> list[Block]:
        """The blocks, as what they are."""
        return [cast(Block, block) for block in self.layers]

    def table(self) -> Tensor:
        """The embeddings `(v d)` of all ids: a code's is the sum of its digits' and a residual of its own."""
        codes = self.embed_digits[0]
        for higher in self.embed_digits[1:]:
            codes = rearrange(rearrange(higher, "l d -> l 1 d") + codes, "l v d -> (l v) d")
        return torch.cat([self.embed_symbols, codes + self.embed_codes])

    def hidden(self, ids: Tensor, positions: Tensor, table: Tensor, places: Tensor | None = None) -> Tensor:
        """What the model knows at each position, `(b t d)`, or at `places` of the flattened `(b t)` only, `(n d)`.

        Args:
            ids: `(b t)`, padded at the right: causal attention never looks there.
            positions: `(1 t)` or `(b t)`.
            table: from `table`.
            places: `(n)`; the last block's feed-forward is computed there only.
        """
        c = self.config
        turn = rotation(positions, c.width // c.heads, c.rope_theta)
        x = functional.embedding(ids, table)
        for i, block in enumerate(self.blocks):
            fused = block.fuse()
            said = block.attend(x, turn, fused)
            if i == c.layers - 1 and places is not None:
                x, said = x.flatten(0, 1)[places], said.flatten(0, 1)[places]
            x = block.finish(x, said, fused)
        return unit_rms(x) * self.norm.weight


class _TargetLogProbs(torch.autograd.Function):
    """`(n d)` states, `(v d)` table, `(n)` targets: log-probabilities `(n)`, chunk by chunk of the n.

    The softmax is kept, not the logits; the gradient is softmax less one-hot, times the table or the states.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        probabilities = hidden.new_empty(len(hidden), len(table))
        chosen = hidden.new_empty(len(hidden))
        for start in range(0, len(hidden), CHUNK):
            rows = slice(start, start + CHUNK)
            log_probs = (hidden[rows] @ table.t()).log_softmax(-1)
            chosen[rows] = log_probs.gather(1, targets[rows, None])[:, 0]
            torch.exp(log_probs, out=probabilities[rows])
        ctx.save_for_backward(hidden, table, targets, probabilities)
        return chosen

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, table, targets, probabilities = ctx.saved_tensors
        to_hidden, to_table = torch.empty_like(hidden), torch.zeros_like(table)
        for start in range(0, len(hidden), CHUNK):
            rows = slice(start, start + CHUNK)
            weight = grad[rows, None]
            slope = probabilities[rows] * -weight
            slope.scatter_add_(1, targets[rows, None], weight)
            to_hidden[rows] = slope @ table
            to_table.addmm_(slope.t(), hidden[rows])
        return to_hidden, to_table, None


def assemble(
    config: LMConfig,
    texts: Sequence[Sequence[int]],
    codes: Sequence[Sequence[int]],
    languages: Sequence[str],
    styles: Sequence[Sequence[int]],
) -> Batch:
    """Sequences as at the top of this file, right-padded; an empty style leaves <style> out.

    Args:
        texts: alphabet ids of each utterance.
        codes: its speech tokens, 0 to n_codes - 1.
        languages: its language, one of the config's.
        styles: speech tokens of another utterance in whose manner it is said, or none.
    """
    rows: list[list[int]] = []
    targets: list[int] = []
    starts: list[int] = []
    for text, code, language, style in zip(texts, codes, languages, styles, strict=True):
        if language not in config.languages:
            known = ", ".join(config.languages)
            raise LabError(f"The model has no tag for language {language!r}; it knows {known}.")
        manner = [config.style, *(config.first_code + z for z in style)] if style else []
        head = [config.alphabet_size + config.languages.index(language), *manner, *text, config.speech]
        said = [config.first_code + z for z in code]
        starts.append(len(head) - 1)
        rows.append(head + said)
        targets += [*said, config.end]
    width = max(map(len, rows))
    if width > config.max_positions:
        raise LabError(
            f"A sequence has {width} positions, the model takes {config.max_positions}: shorten it."
        )
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    places = [
        torch.arange(start, len(row)) + i * width
        for i, (row, start) in enumerate(zip(rows, starts, strict=True))
    ]
    return Batch(ids, rearrange(torch.arange(width), "t -> 1 t"), torch.cat(places), torch.tensor(targets))


def target_log_probs(model: SpeechLM, batch: Batch) -> Tensor:
    """`(n)` log-probabilities of the speech tokens and ends."""
    table = model.table()
    states = model.hidden(batch.ids, batch.positions, table, batch.places)
    chosen: Tensor = _TargetLogProbs.apply(states, table, batch.targets)
    return chosen


def log_probs(model: SpeechLM, batch: Batch) -> Tensor:
    """`(b)` summed log-probabilities of each row's speech tokens and end, as preference losses need them."""
    row = batch.places // batch.ids.shape[1]
    sums = torch.zeros(len(batch.ids), device=batch.ids.device)
    return sums.index_add(0, row, target_log_probs(model, batch))


def lm_loss(model: SpeechLM, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean negative log-probability, in nats, of speech tokens and ends."""
    return -target_log_probs(model, batch).mean(), {}
