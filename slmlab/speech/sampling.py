"""Speech tokens drawn one by one: temperature, top k, nucleus, no loops, and an end that the length of the
text bounds.

Every utterance has a stream of random numbers of its own, drawn from its seed and the step alone: the same
sentence and seed see the same numbers alone or inside any batch.

A batch reads its prompts padded at the right, as in training. Their keys and values are then stored at the
right end of the memory: all rows write their next token to the same slot, and only the empty slots before a
short prompt are masked.

Axis legend: b batch, t places of a prompt, v the vocabulary from <end> on, k ids still in the draw, d width,
h heads, e numbers of a head, p pairs (e = 2 p), w window of past tokens.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from slmlab.corpus.utterances import in_batches
from slmlab.errors import LabError
from slmlab.models.flow_matching import guided
from slmlab.models.lm import STYLE_TOKENS, SpeechLM
from slmlab.models.transformer import FusedBlock, rotation, unit_rms

_THREADS = Lock()  # torch's number of threads is the whole process's
DRAWS = 2  # random numbers an utterance has for each step: one, and one for drawing again
REST = 0.8  # when no more than this share of a batch still speaks, the others leave it
FEW = 8  # rows that are worth a core of their own
PIECES = 4  # of the output matrix: a few rows times one piece after the other take a quarter less time


@dataclass(frozen=True)
class SamplingConfig:
    """How freely tokens are drawn."""

    temperature: float = 0.5
    """Below 1 the likely becomes likelier; above 0."""
    top_k: int = 50
    """Draw from the likeliest ids, at most this many; 0 means all."""
    top_p: float = 0.9
    """Of those, draw from the fewest that have this share of their probability together."""
    window: int = 10
    """Tokens that repetition-aware sampling looks back on (Chen et al. 2024; CosyVoice 2); 0 turns it off."""
    repetition: float = 0.25
    """A token that fills this share of the window already is drawn again, from all ids."""
    shortest: float = 0.5
    """Speech cannot end before this share of the tokens that its text is expected to make."""
    longest: float = 2.5
    """Speech ends, at the latest, at this share of them."""
    batch: int = 64
    """Most utterances that are drawn side by side."""
    guidance: float = field(default=0.0, metadata={"later": True})
    """How far what the text adds to the prediction is exaggerated (Ho and Salimans 2022): 0 is not at all."""
    tries: int = field(default=1, metadata={"later": True})
    """How often a sentence is drawn; `Chain.say` keeps the try whose codes read most like the text."""

    def __post_init__(self) -> None:
        draws = self.temperature > 0 and 0 < self.top_p <= 1 and min(self.top_k, self.window) >= 0
        draws &= 0 <= self.guidance < math.inf and self.tries >= 1
        if not draws or not 0 <= self.shortest <= self.longest or self.batch < 1:
            raise LabError(
                f"Sampling cannot take {self}: temperature must be above 0, top_p above 0 and at most 1, "
                "top_k, window and guidance at least 0, 0 <= shortest <= longest, batch and tries at least 1."
            )

    def least(self, expected: float) -> int:
        """Tokens before which speech cannot end, of a text that is expected to make so many."""
        return round(self.shortest * expected)

    def most(self, expected: float) -> int:
        """Tokens at which it ends at the latest."""
        return max(1, round(self.longest * expected))


GUIDED = SamplingConfig(temperature=0.8, guidance=1.5)
"""Chosen on dev sentences of `human`, by what the tokenizer reads from the codes."""


def usual(model: SpeechLM) -> SamplingConfig:
    """How a model speaks where nothing else is asked: guided, if it has learnt to do without text."""
    return GUIDED if model.config.drop else SamplingConfig()


def uniforms(seeds: Sequence[int], steps: int) -> NDArray[np.float64]:
    """`(b, steps, DRAWS)` numbers in [0, 1): a hash of seed and place (splitmix64, Steele et al. 2014).

    The first numbers do not depend on how many are asked for, nor on which other seeds are.
    """
    counter = np.arange(1, 1 + steps * DRAWS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys = np.array([seed & (2**64 - 1) for seed in seeds], dtype=np.uint64)
    bits = _mixed(_mixed(rearrange(keys, "b -> b 1")) + counter) >> np.uint64(32)
    numbers = bits.astype(np.float64) * 2.0**-32
    return rearrange(numbers, "b (steps draws) -> b steps draws", draws=DRAWS)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def candidates(logits: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """Ids `(b k)` that may be drawn from `logits` `(b v)`, likeliest first; probabilities, of others 0."""
    k = config.top_k or logits.shape[-1]
    values, ids = torch.topk(logits, min(k, logits.shape[-1]))
    probabilities = torch.softmax(values / config.temperature, -1)
    before = probabilities.cumsum(-1) - probabilities
    return ids, torch.where(before < config.top_p, probabilities, 0.0)


def pick(weights: Tensor, uniform: Tensor) -> Tensor:
    """Places `(b)` in `weights` `(b k)`, drawn in their proportion by a number in [0, 1) a row, `(b)`."""
    reached = weights.cumsum(-1, dtype=torch.float64)
    goal = uniform[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, goal, right=True)[:, 0]


def draw(logits: Tensor, past: Tensor, uniform: Tensor, config: SamplingConfig) -> Tensor:
    """One id a row, `(b)`, of `logits` `(b v)`, by the numbers in [0, 1) `uniform` `(b DRAWS)`.

    An id that fills its share of the row's last ids, `past` `(b w)`, is drawn again from all ids.
    """
    ids, weights = candidates(logits, config)
    chosen = ids.gather(1, pick(weights, uniform[:, 0])[:, None])
    if config.window:
        seen = (past == chosen).sum(1)
        loops = torch.nonzero(seen >= config.window * config.repetition)[:, 0]
        if len(loops):
            everything = torch.softmax(logits[loops] / config.temperature, -1)
            chosen[loops, 0] = pick(everything, uniform[loops, 1])
    return chosen[:, 0]


class _Reader:
    """A model that remembers keys and values of all that it has read; `logits` `(b v)` are what follows."""

    def __init__(self, model: SpeechLM, prompts: Sequence[Sequence[int]], room: int) -> None:
        """Read prompts, equal ones once; then `room` tokens can be read."""
        self.model, self.table, c = model, model.table(), model.config
        output = (self.table[c.end :] * model.norm.weight).t()
        self.output = [piece.contiguous() for piece in output.chunk(PIECES, 1)]
        """`(d v)` in pieces of v, from <end> on, the last norm's gain folded in."""
        self.blocks = [FusedBlock(*map(_long_rows, block.fuse())) for block in model.blocks]
        self.columns = [FusedBlock(*(m.mT if m.ndim == 2 else m for m in block)) for block in self.blocks]
        """The same, transposed: what one token a row is multiplied by."""
        different = list(dict.fromkeys(map(tuple, prompts)))
        sources = [different.index(tuple(prompt)) for prompt in prompts]
        lengths, e = torch.tensor([len(prompt) for prompt in different]), c.width // c.heads
        self.start = self.filled = int(lengths.max())
        slots = torch.arange(self.start + room)
        self.memory = self.table.new_empty(c.layers, 2, len(prompts), c.kv_heads, len(slots), e)
        self.memory[..., : self.start, :].zero_()
        empty = slots < rearrange(self.start - lengths[sources], "b -> b 1 1 1")
        self.mask = torch.where(empty, -torch.inf, 0.0).to(self.table) if bool(empty.any()) else None
        device = self.table.device
        ids = pad_sequence([torch.tensor(prompt) for prompt in different], batch_first=True).to(device)
        turns = rotation(model.positions(ids), e, c.rope_theta)
        ahead = rotation(torch.arange(1, 1 + room, device=device), e, c.rope_theta)
        self.turns = rearrange(turns[sources, lengths[sources] - 1], "b p -> b 1 p") * ahead
        """`(b room p)`: rotations of what follows the prompts."""
        self._read_prompts(ids, lengths, turns, sources)
        self._lay_out()

    def _read_prompts(self, ids: Tensor, lengths: Tensor, turns: Tensor, sources: Sequence[int]) -> None:
        """Fill the memory of each row from the prompt that `sources` names."""
        x, ends = functional.embedding(ids, self.table), (torch.arange(len(ids)), lengths - 1)
        blocks = zip(self.model.blocks, self.blocks, self.memory, strict=True)
        for i, (block, fused, memory) in enumerate(blocks, start=1):
            q, *kv = block.queries_keys_values(x, turns, fused)
            for row, source in enumerate(sources):
                n = int(lengths[source])
                memory[:, row, :, self.start - n : self.start] = torch.stack([a[source, :, :n] for a in kv])
            attended = block.attention(q, *kv)
            if i == len(self.memory):  # of the last block, only what predicts is needed
                x, attended = x[ends], attended[ends]
            x = block.finish(x, attended, fused)
        x = unit_rms(x)
        self.logits = torch.cat([x @ piece for piece in self.output], 1)[sources]

    def _lay_out(self) -> None:
        """Where a step writes its results; the views are made once for a batch, not at every step."""
        c, (b, v) = self.model.config, self.logits.shape
        h, kv, e = c.heads, c.kv_heads, c.width // c.heads
        self.qkv = self.table.new_empty(b, (h + 2 * kv) * e)
        self.turning = torch.view_as_complex(self.qkv[:, : (h + kv) * e].unflatten(1, (h + kv, e // 2, 2)))
        """`(b h p)`: q and k as pairs."""
        self.q = self.qkv[:, : h * e].unflatten(1, (kv, h // kv, e))
        """`(b kv h/kv e)`: heads that share keys are so many queries of one head."""
        self.kv = self.qkv[:, h * e :].unflatten(1, (2, kv, e)).transpose(0, 1)
        """`(2 b kv e)`: what is remembered."""
        self.gate_up = self.table.new_empty(b, 2 * c.ffn)
        self.gate, self.up = self.gate_up.chunk(2, 1)
        self.next = self.table.new_empty(b, v)
        self.pieces = self.next.chunk(PIECES, 1)

    def read(self, ids: Tensor) -> None:
        """Read one more id a row, `(b)`.

        Plain views stand in for einops here, whose microseconds would be a tenth of the step.
        """
        slot, self.filled = self.filled, self.filled + 1
        turn = self.turns[:, slot - self.start, None]
        mask = None if self.mask is None else self.mask[..., : self.filled]
        x = functional.embedding(ids, self.table)
        for block, memory in zip(self.columns, self.memory[..., : self.filled, :], strict=True):
            torch.addmm(block.qkv_bias, unit_rms(x), block.qkv, out=self.qkv)
            self.turning.mul_(turn)
            memory.select(3, slot).copy_(self.kv)
            attended = functional.scaled_dot_product_attention(self.q, memory[0], memory[1], attn_mask=mask)
            x = torch.addmm(x, attended.reshape(x.shape), block.out)
            torch.mm(unit_rms(x), block.gate_up, out=self.gate_up)
            x = torch.addmm(x, functional.silu(self.gate).mul_(self.up), block.down)
        x = unit_rms(x)
        for piece, logits in zip(self.output, self.pieces, strict=True):
            torch.mm(x, piece, out=logits)
        self.logits = self.next

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in ascending order: they move up, and no second memory is needed."""
        for to, row in enumerate(rows.tolist()):
            if to != row:
                self.memory[:, :, to, :, : self.filled] = self.memory[:, :, row, :, : self.filled]
        self.memory = self.memory[:, :, : len(rows)]
        self.turns, self.logits = self.turns[rows], self.logits[rows]
        self.mask = None if self.mask is None else self.mask[rows]
        self._lay_out()


def _long_rows(matrix: Tensor) -> Tensor:
    """The same matrix with its longer side contiguous: a few rows are multiplied by it twice as fast."""
    tall = matrix.ndim == 2 and len(matrix) > matrix.shape[1]
    return matrix.t().contiguous().t() if tall else matrix.contiguous()


@torch.inference_mode()
def generate(
    model: SpeechLM, prompts: Sequence[Sequence[int]], config: SamplingConfig, seeds: Sequence[int]
) -> list[list[int]]:
    """Speech codes, 0 to n_codes - 1, for each prompt of `SpeechLM.prompt`.

    Equal prompts with equal seeds draw the same numbers. The number of cores that share the prompts decides
    the shapes of products and so their last bits, which a close draw can turn on: draw on one thread, as the
    studies do, what must be the same everywhere.
    """
    if len(seeds) != len(prompts):
        raise LabError(f"Sampling has {len(prompts)} prompts and {len(seeds)} seeds: give one seed for each.")
    if config.guidance and not model.config.drop:
        raise LabError(
            "This language model never spoke without its text, so there is nothing to guide it by: set "
            "guidance to 0, or train it with `drop` above 0."
        )
    expected = expected_tokens(model, prompts)

    def drawn(rows: list[int]) -> list[list[int]]:
        chosen = [prompts[i] for i in rows], [seeds[i] for i in rows], [expected[i] for i in rows]
        return _batch(model, *chosen, config)

    cores = torch.get_num_threads() if model.pace.device.type == "cpu" else 1
    size = min(config.batch, max(FEW, math.ceil(len(prompts) / cores)))
    lengths = list(zip(expected, map(len, prompts), strict=True))
    with _side_by_side(min(cores, math.ceil(len(prompts) / size))) as run:
        return in_batches(lengths, size, drawn, run)


def expected_tokens(model: SpeechLM, prompts: Sequence[Sequence[int]]) -> list[float]:
    """Speech tokens that the text of each prompt is expected to make, by the model's own pace."""
    return [float(model.expected_tokens(torch.tensor([row]).to(model.pace.device))) for row in prompts]


def speak(
    model: SpeechLM,
    language: str,
    texts: Sequence[str],
    config: SamplingConfig,
    seeds: Sequence[int],
    styles: Sequence[Sequence[int]] = (),
) -> list[list[int]]:
    """Speech codes of texts, each from its own seed and in the manner of its style, of which 40 codes count.

    Without styles, or with an empty one, speech is plain.
    """
    prompts = [
        model.prompt(text, language, list(style)[:STYLE_TOKENS])
        for text, style in zip(texts, styles or [()] * len(texts), strict=True)
    ]
    return generate(model, prompts, config, seeds)


@contextmanager
def _side_by_side(workers: int) -> Iterator[Callable[..., Iterable[list[list[int]]]]]:
    """`map` in so many threads, one core each: small products gain little from being split."""
    if workers < 2:
        yield map
        return
    with _THREADS:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                yield pool.map
        finally:
            torch.set_num_threads(threads)


@torch.inference_mode()  # which other threads do not inherit
def _batch(
    model: SpeechLM,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    expected: Sequence[float],
    config: SamplingConfig,
) -> list[list[int]]:
    """Codes of prompts drawn side by side, each of a length within its bounds.

    With guidance the second half of the reader's rows are the same prompts without their texts.
    """
    device, window = model.pace.device, config.window
    least, most = (
        torch.tensor([bound(n) for n in expected], device=device) for bound in (config.least, config.most)
    )
    limit, shortest = int(most.max()), int(least.max())
    letters = model.config.alphabet_size
    textless = [[i for i in prompt if i >= letters] for prompt in prompts] if config.guidance else []
    reader = _Reader(model, [*prompts, *textless], limit)
    streams = torch.from_numpy(uniforms(seeds, limit)).to(device)
    ids = torch.full((len(prompts), window + limit), -1, device=device)
    """Drawn ids, counted from <end>, which is 0; the first `window` of each row stand for the past."""
    speaking = torch.ones_like(least, dtype=torch.bool)
    rows = torch.arange(len(prompts), device=device)  # which are still in the batch
    for step in range(limit):
        logits = reader.logits
        if textless:
            with_text, without = logits.chunk(2)
            logits = guided(with_text, without, config.guidance)
        if step < shortest:
            logits[:, 0].masked_fill_(least[rows] > step, -torch.inf)
        chosen = draw(logits, ids[rows, step : step + window], streams[rows, step], config)
        ids[rows, step + window] = chosen
        speaking[rows] &= (chosen != 0) & (most[rows] > step + 1)
        stay = torch.nonzero(speaking[rows])[:, 0]
        if len(stay) == 0:
            break
        if len(stay) <= REST * len(rows):
            reader.keep(torch.cat([stay, stay + len(rows)]) if textless else stay)
            rows, chosen = rows[stay], chosen[stay]
        said = chosen + model.config.end
        reader.read(said.repeat(2) if textless else said)
    spoken = [row[window : window + n] for row, n in zip(ids.tolist(), most.tolist(), strict=True)]
    return [[i - 1 for i in (row[: row.index(0)] if 0 in row else row)] for row in spoken]
