"""The spoken language model: a decoder-only transformer that reads characters and writes speech tokens.

    [<lang>] [<style> z_1 .. z_k] text .. <speech> s_1 .. s_N <end>

In shape it is Qwen2 (`tests/bench/qwen.py` exports it). Two things make it learn to read in minutes:

- Its embeddings are *composed*: a code of eight ternary digits is the sum of what is learnt of each digit, of
  the lower and the higher four together, and of the code itself, so that what one code teaches holds for its
  neighbours.
- Its positions are a *clock*. A symbol of text stands where its sound is expected, counted in speech tokens
  from where speech begins, so that what to read next is always nearby. How long each symbol sounds, its pace,
  is fitted to the corpus by least squares before training; no durations are needed, neither then nor later.
  Heads begin with an eye on that place: biases of q and k make them attend to what stands near on the clock.

Axis legend: b batch, t places of a sequence, n targets (places that predict speech), d width, v the
vocabulary, j digits of a code, l levels of a digit, a symbols of the alphabet, u utterances.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from slmlab.errors import LabError
from slmlab.language.text import Alphabet
from slmlab.models.transformer import Block, RMSNorm, rotation, unit_rms

CHUNK = 512  # rows of logits in memory at a time
GAZE = (0, 2, -2, 1, -1, 4, -4, 0)  # speech tokens ahead of the clock at which heads look first


@dataclass(frozen=True)
class LMConfig:
    """Size and vocabulary of the language model."""

    alphabet: Alphabet
    """Letters that it reads; id 0 is padding."""
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
    rope_theta: float = 300.0
    """Base of the rotary positions: the slowest pair turns once in about this many times 2 π tokens."""
    nearness: float = 1.5
    """How strongly heads attend, before they have learnt anything, to what stands near on the clock."""
    drop: float = field(default=0.0, metadata={"later": True})
    """Share of training utterances whose text is taken away, for classifier-free guidance."""

    @property
    def alphabet_size(self) -> int:
        """Ids of text, padding included."""
        return len(self.alphabet)

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
    """Sequences `ids` `(b t)`, 0 after the end: under causal attention padding there needs no mask.

    At `places` `(n)`, indices into the flattened `(b t)`, speech is predicted: the ids `targets` `(n)`.
    """

    ids: Tensor
    places: Tensor
    targets: Tensor


class SpeechLM(nn.Module):
    """Ids to the distribution of the next id."""

    pace: Tensor
    """`(languages a)` speech tokens that a symbol is expected to sound for."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.embed_symbols = nn.Parameter(torch.randn(c.first_code, c.width) * 0.02)
        spread = 0.02 / math.sqrt(c.code_dims)
        self.embed_digits = nn.Parameter(torch.randn(c.code_dims, c.code_levels, c.width) * spread)
        low = c.code_dims // 2
        self.embed_low = nn.Parameter(torch.zeros(c.code_levels**low, c.width))
        self.embed_high = nn.Parameter(torch.zeros(c.code_levels ** (c.code_dims - low), c.width))
        self.embed_codes = nn.Parameter(torch.zeros(c.n_codes, c.width))
        self.layers = nn.ModuleList(Block(c.width, c.heads, c.kv_heads, c.ffn) for _ in range(c.layers))
        self.norm = RMSNorm(c.width)
        for block in self.blocks:
            block.look_near(GAZE, c.nearness, c.rope_theta)
        self.register_buffer("pace", torch.full((len(c.languages), c.alphabet_size), 1.5))

    @property
    def blocks(self) -> list[Block]:
        """The blocks, as what they are."""
        return [cast(Block, block) for block in self.layers]

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `(b t v)` of what follows each of `ids` `(b t)`, which may be padded at the right."""
        table = self.table()
        return self.hidden(ids, table) @ table.t()

    def table(self) -> Tensor:
        """The embeddings `(v d)` of all ids: a code's is the sum of its digits', its halves' and its own."""
        middle = self.config.code_dims // 2
        low = _sums(self.embed_digits[:middle]) + self.embed_low
        high = _sums(self.embed_digits[middle:]) + self.embed_high
        return torch.cat([self.embed_symbols, _sums((low, high)) + self.embed_codes])

    def hidden(self, ids: Tensor, table: Tensor, places: Tensor | None = None) -> Tensor:
        """What the model knows after each of `ids` `(b t)`, `(b t d)`, with the embeddings of `table`.

        With `places` `(n)` of the flattened `(b t)`, `(n d)`: the last block's second half is computed there
        only. Causal attention never looks at padding, at the right.
        """
        c = self.config
        turn = rotation(self.positions(ids), c.width // c.heads, c.rope_theta)
        x = functional.embedding(ids, table)
        for i, block in enumerate(self.blocks):
            fused = block.fuse()
            attended = block.attention(*block.queries_keys_values(x, turn, fused))
            if i == c.layers - 1 and places is not None:
                x, attended = (
                    rearrange(a, "b t d -> (b t) d").index_select(0, places) for a in (x, attended)
                )
            x = block.finish(x, attended, fused)
        return unit_rms(x) * self.norm.weight

    def positions(self, ids: Tensor) -> Tensor:
        """Where each of `ids` `(b t)` stands on the clock, `(b t)`, in speech tokens.

        The tag and a style pass first, a tick each. Then the text lasts as long as its symbols are expected
        to sound, and at <speech> the clock goes back to the text's beginning, to run again beside it.
        """
        text, speaking = self._parts(ids)
        ticks = torch.where(text, self._sounding(ids), 1.0)
        back = torch.where(text, ticks, 0.0).sum(1, keepdim=True) * speaking
        return ticks.cumsum(1) - ticks - back

    def expected_tokens(self, ids: Tensor) -> Tensor:
        """How many speech tokens the text of each row of `ids` `(b t)` is expected to make, `(b)`."""
        return torch.where(self._parts(ids)[0], self._sounding(ids), 0.0).sum(1)

    def _sounding(self, ids: Tensor) -> Tensor:
        language = (ids[:, :1] - self.config.alphabet_size).clamp(0, len(self.config.languages) - 1)
        return self.pace[language, ids.clamp(max=self.config.alphabet_size - 1)]

    def _parts(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Which ids are text, and which come from <speech> on (padding too)."""
        speaking = (ids == self.config.speech).cumsum(1) > 0
        return (ids < self.config.alphabet_size) & ~speaking, speaking

    @torch.no_grad()
    def fit_pace(
        self,
        texts: Sequence[Sequence[int]],
        lengths: Sequence[int],
        languages: Sequence[str],
        ridge: float = 3.0,
    ) -> None:
        """Learn, once before training, how long symbols sound: alphabet ids and speech tokens of utterances.

        Least squares from the symbols of each utterance to its length, held to the language's mean by `ridge`
        imagined tokens of each symbol; a symbol that would sound for less than nothing is silent.
        """
        size = self.config.alphabet_size
        for language in set(languages):
            rows = [i for i, other in enumerate(languages) if other == language]
            occurrences = [torch.bincount(torch.tensor(texts[i]), minlength=size) for i in rows]
            counts = torch.stack(occurrences).double()
            spoken = torch.tensor([lengths[i] for i in rows]).double()
            gram = counts.mT @ counts + ridge * torch.eye(size)
            goal = counts.mT @ spoken + ridge * spoken.sum() / counts.sum()
            symbols = torch.arange(size)
            while bool(((tokens := torch.linalg.solve(gram[symbols][:, symbols], goal[symbols])) < 0).any()):
                symbols = symbols[tokens >= 0]
            pace = torch.zeros(size).double().index_copy(0, symbols, tokens)
            self.pace[self.config.languages.index(language)] = pace.to(self.pace)

    def prompt(self, text: str, language: str, style: Sequence[int] = ()) -> list[int]:
        """Ids of a text up to <speech>, spelt as its language is; see `prompt_ids`."""
        return prompt_ids(self.config, self.config.alphabet.encode(text, language), language, style)

    @torch.no_grad()
    def adopt(self, language: str) -> "SpeechLM":
        """A model that reads one more language, with its letters; all that this one has learnt stays.

        A new letter, and the new language's tag, begin as the mean of those there are; a letter is expected
        to sound as long as the mean, until `fit_pace` has seen the language.
        """
        old = self.config
        alphabet = old.alphabet.with_language(language)
        languages = tuple(dict.fromkeys((*old.languages, language)))
        new = SpeechLM(replace(old, alphabet=alphabet, languages=languages))
        letters, tags, marks = self.embed_symbols.split(
            [old.alphabet_size, len(old.languages), old.first_code - old.style]
        )
        more = (len(alphabet) - len(letters), len(languages) - len(tags))
        rows = [letters, *[letters[1:].mean(0, keepdim=True)] * more[0]]
        rows += [tags, *[tags.mean(0, keepdim=True)] * more[1], marks]
        own = dict(self.named_parameters())
        for name, parameter in new.named_parameters():
            parameter.copy_(torch.cat(rows) if name == "embed_symbols" else own[name])
        usual = self.pace[:, 1:].mean()
        new.pace.fill_(usual)[: len(tags), : len(letters)] = self.pace
        return new


def _sums(tables: Sequence[Tensor] | Tensor) -> Tensor:
    """All sums of a row of each table `(l d)`, `(l · l · … d)`; the first table's rows follow each other."""
    sums = tables[0]
    for table in tables[1:]:
        sums = rearrange(rearrange(table, "l d -> l 1 d") + sums, "l v d -> (l v) d")
    return sums


class _TargetLogProbs(torch.autograd.Function):
    """`(n d)` states, `(v d)` table, `(n)` targets: log-probabilities `(n)`, chunk by chunk of the n.

    The softmax is kept, not the logits; the gradient is one-hot less softmax, times the table or the states.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        softmax = hidden.new_empty(len(hidden), len(table))
        logits = hidden.new_empty(CHUNK, len(table))
        for start in range(0, len(hidden), CHUNK):
            chunk = hidden[start : start + CHUNK]
            torch.mm(chunk, table.t(), out=logits[: len(chunk)])
            torch.softmax(logits[: len(chunk)], -1, out=softmax[start : start + CHUNK])
        ctx.save_for_backward(hidden, table, targets, softmax)
        chosen = softmax.gather(1, rearrange(targets, "n -> n 1"))
        return rearrange(chosen.clamp(min=torch.finfo(chosen.dtype).tiny).log(), "n 1 -> n")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, table, targets, softmax = ctx.saved_tensors
        to_hidden, to_table = torch.empty_like(hidden), torch.zeros_like(table)
        scratch = hidden.new_empty(CHUNK, len(table))
        for start in range(0, len(hidden), CHUNK):
            rows = slice(start, start + CHUNK)
            weight = rearrange(grad[rows], "n -> n 1")
            slope = torch.mul(softmax[rows], -weight, out=scratch[: len(weight)])
            slope.scatter_add_(1, rearrange(targets[rows], "n -> n 1"), weight)
            torch.mm(slope, table, out=to_hidden[rows])
            to_table.addmm_(slope.t(), hidden[rows])
        return to_hidden, to_table, None


def prompt_ids(config: LMConfig, text: Sequence[int], language: str, style: Sequence[int] = ()) -> list[int]:
    """Ids up to <speech>: language tag, speech tokens of a style if there are any, alphabet ids of a text.

    LabError if the model has no such language.
    """
    if language not in config.languages:
        known = ", ".join(config.languages)
        raise LabError(f"The model has no tag for language {language!r}; it knows {known}.")
    manner = [config.style, *(config.first_code + z for z in style)] if style else []
    return [config.alphabet_size + config.languages.index(language), *manner, *text, config.speech]


def assemble(config: LMConfig, prompts: Sequence[Sequence[int]], codes: Sequence[Sequence[int]]) -> Batch:
    """Sequences as at the top of this file, right-padded, of `prompt_ids` and their speech tokens.

    LabError if one is too long for the model.
    """
    said = [[config.first_code + code for code in row] for row in codes]
    rows = [[*prompt, *row] for prompt, row in zip(prompts, said, strict=True)]
    width = max(map(len, rows))
    if width > config.max_positions:
        raise LabError(
            f"A sequence has {width} positions, more than the {config.max_positions} that the model takes: "
            "leave that utterance out, or shorten its text or style."
        )
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    places = [
        torch.arange(len(prompt) - 1, len(row)) + i * width
        for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
    ]
    targets = [target for row in said for target in (*row, config.end)]
    return Batch(ids, torch.cat(places), torch.tensor(targets))


def target_log_probs(model: SpeechLM, batch: Batch) -> Tensor:
    """`(n)` log-probabilities, in nats, of the speech tokens and ends."""
    table = model.table()
    chosen: Tensor = _TargetLogProbs.apply(model.hidden(batch.ids, table, batch.places), table, batch.targets)
    return chosen


def log_probs(model: SpeechLM, batch: Batch) -> Tensor:
    """`(b)` summed log-probabilities of each row's speech tokens and end, as preference losses need them."""
    each = target_log_probs(model, batch)
    row = batch.places // batch.ids.shape[1]
    return torch.zeros_like(each[: len(batch.ids)]).index_add(0, row, each)


def lm_loss(model: SpeechLM, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean negative log-probability, in nats, of speech tokens and ends."""
    return -target_log_probs(model, batch).mean(), {}


STYLE_TOKENS = 40
