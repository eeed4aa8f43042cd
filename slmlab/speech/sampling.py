"""Speech tokens drawn one by one: temperature, top k, nucleus, no loops, and an end that the length of the
text bounds.

Every utterance has a stream of random numbers of its own, drawn from its seed and the step alone: the same
sentence and seed see the same numbers alone or inside any batch.

A batch reads its prompts padded at the right, as in training, and then keeps keys and values with the prompts
moved to the right end, so that all rows write their next token in the same slot and only the empty slots
before a short prompt are masked.

Axis legend: b batch, t places of a prompt, v the vocabulary from <end> on, k ids still in the draw, d width,
h heads (q, or k and v together), e numbers of a head, p pairs (e = 2 p), w window of past tokens.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from slmlab.errors import LabError
from slmlab.models.lm import STYLE_TOKENS, LMConfig, SpeechLM
from slmlab.models.transformer import FusedBlock, rotation, unit_rms

_COUNT = Lock()  # torch's number of threads is the whole process's
DRAWS = 2  # random numbers an utterance has for each step: one, and one for drawing again
REST = 0.8  # when no more than this share of a batch still speaks, those who ended are left out
FEW = 8  # rows that are worth a core of their own


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

    def least(self, expected: float) -> int:
        """Tokens before which speech cannot end, of a text that is expected to make so many."""
        return round(self.shortest * expected)

    def most(self, expected: float) -> int:
        """Tokens at which it ends at the latest."""
        return max(1, round(self.longest * expected))

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise LabError(
                f"Sampling cannot take temperature={self.temperature}, top_p={self.top_p}, "
                f"top_k={self.top_k}: "
                "temperature must be above 0, top_p above 0 and at most 1, top_k at least 0."
            )
        if not 0 <= self.shortest <= self.longest or self.batch < 1 or self.window < 0:
            raise LabError(
                f"Sampling cannot take shortest={self.shortest}, longest={self.longest}, batch={self.batch}, "
                f"window={self.window}: expected 0 <= shortest <= longest, batch at least 1, window at "
                f"least 0."
            )


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
    """Ids `(b k)`, likeliest first, that may be drawn from `logits` `(b v)`, and their probabilities, others
    0.
    """
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
    """One id a row, `(b)`, of `logits` `(b v)`; one that fills its window already is drawn again from all
    ids.

    Args:
        logits: `(b v)`.
        past: `(b w)`, the last ids of each row.
        uniform: `(b DRAWS)` in [0, 1).
        config: how.
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


class _Weights:
    """A model's weights laid out for reading one place at a time, and copies of what they were made from."""

    def __init__(self, model: SpeechLM) -> None:
        self.made_from = [parameter.detach().clone() for parameter in model.parameters()]
        self.table = model.table()
        """`(v d)`, all ids."""
        self.output = (self.table[model.config.end :] * model.norm.weight).t().contiguous()
        """`(d v)`, from <end> on, the last norm's gain folded in."""
        self.blocks = [FusedBlock(*map(_long_rows, block.fuse())) for block in model.blocks]
        self.columns = [
            FusedBlock(*(matrix.mT if matrix.ndim == 2 else matrix for matrix in b)) for b in self.blocks
        ]
        """The same, seen from the side on which one place is multiplied."""

    def still_hold(self, model: SpeechLM) -> bool:
        """Whether the model has the very numbers, in the same place, that it had."""
        pairs = zip(self.made_from, model.parameters(), strict=True)
        return all(a.dtype == b.dtype and a.device == b.device and torch.equal(a, b) for a, b in pairs)


_laid_out: WeakKeyDictionary[SpeechLM, _Weights] = WeakKeyDictionary()


def _weights(model: SpeechLM) -> _Weights:
    """Laid out once, and again when training has changed a number: to compare costs a tenth of it."""
    kept = _laid_out.get(model)
    if kept is None or not kept.still_hold(model):
        kept = _laid_out[model] = _Weights(model)
    return kept


def _long_rows(matrix: Tensor) -> Tensor:
    """The same matrix with its longer side contiguous in memory: a few rows times it then run twice as
    fast.
    """
    tall = matrix.ndim == 2 and len(matrix) > matrix.shape[1]
    return matrix.t().contiguous().t() if tall else matrix.contiguous()


class _Desk:
    """Room for what one step computes for `b` rows; the views of it are made once, not at every step."""

    def __init__(self, config: LMConfig, b: int, like: Tensor) -> None:
        h, kv, e = config.heads, config.kv_heads, config.width // config.heads
        self.qkv = like.new_empty(b, (h + 2 * kv) * e)
        self.turning = torch.view_as_complex(self.qkv[:, : (h + kv) * e].unflatten(1, (h + kv, e // 2, 2)))
        """`(b h p)`: q and k as pairs."""
        self.q = self.qkv[:, : h * e].unflatten(1, (kv, h // kv, e))
        """`(b kv h/kv e)`: heads that share keys go in as so many queries of one head."""
        self.kv = self.qkv[:, h * e :].unflatten(1, (2, kv, e)).transpose(0, 1)
        """`(2 b kv e)`: what is remembered."""
        self.gate_up = like.new_empty(b, 2 * config.ffn)
        self.gate, self.up = self.gate_up.chunk(2, 1)
        self.logits = like.new_empty(b, config.vocabulary - config.end)


class _Reader:
    """A model that remembers what it has read: keys and values of each block are kept."""

    def __init__(
        self, model: SpeechLM, weights: _Weights, prompts: Sequence[Sequence[int]], room: int
    ) -> None:
        self.model, self.weights, c = model, weights, model.config
        different = list(dict.fromkeys(map(tuple, prompts)))  # what is said many times is read once
        lengths, device = torch.tensor([len(row) for row in different]), weights.table.device
        self.filled, self.steps = int(lengths.max()), 0
        ids = torch.tensor([[*row, *[0] * (self.filled - len(row))] for row in different], device=device)
        places = [different.index(tuple(row)) for row in prompts]
        slots = self.filled + room
        shape = (c.layers, 2, len(prompts), c.kv_heads, slots, c.width // c.heads)
        self.memory = weights.table.new_empty(shape)
        self.memory[..., : self.filled, :].zero_()
        empty = torch.arange(slots) < rearrange(self.filled - lengths[places], "b -> b 1")
        self.mask = None
        if bool(empty.any()):
            self.mask = weights.table.new_zeros(len(prompts), 1, 1, slots)
            self.mask.masked_fill_(rearrange(empty, "b t -> b 1 1 t").to(device), -torch.inf)
        self._turns(ids, lengths, places, room)
        self.logits = self._prefill(ids, lengths, places)[places]
        self.desk = _Desk(c, len(prompts), self.logits)

    def _turns(self, ids: Tensor, lengths: Tensor, places: Sequence[int], room: int) -> None:
        """Rotations: a first for each row, and one that all rows make beyond it, step by step."""
        c = self.model.config
        self.prompt_turn = rotation(self.model.positions(ids), c.width // c.heads, c.rope_theta)
        self.row_turn = self.prompt_turn[places, lengths[places] - 1]
        self.step_turn = rotation(
            torch.arange(1, room + 1, device=ids.device), c.width // c.heads, c.rope_theta
        )

    def _prefill(self, ids: Tensor, lengths: Tensor, places: Sequence[int]) -> Tensor:
        """Read different prompts, right-padded: logits after each, `(different v)`.

        Keys and values go to the rows that say the prompt, `places` tells which, moved to the right.
        """
        x = functional.embedding(ids, self.weights.table)
        for i, (block, fused) in enumerate(zip(self.model.blocks, self.weights.blocks, strict=True)):
            q, k, v = block.queries_keys_values(x, self.prompt_turn, fused)
            for row, place in enumerate(places):
                n = int(lengths[place])
                self.memory[i, 0, row, :, self.filled - n : self.filled] = k[place, :, :n]
                self.memory[i, 1, row, :, self.filled - n : self.filled] = v[place, :, :n]
            x = block.finish(x, block.attention(q, k, v), fused)
        return unit_rms(x[torch.arange(len(ids)), lengths - 1]) @ self.weights.output

    def read(self, ids: Tensor) -> None:
        """Read one id a row, `(b)`, at the next slot: `logits` are then what follows it, `(b v)`.

        Plain views stand in for einops here, whose microseconds would be a tenth of the step.
        """
        desk, slot, self.filled = self.desk, self.filled, self.filled + 1
        turn = (self.row_turn * self.step_turn[self.steps])[:, None]
        self.steps += 1
        mask = None if self.mask is None else self.mask[..., : self.filled]
        x = functional.embedding(ids, self.weights.table)
        for columns, memory in zip(self.weights.columns, self.memory[..., : self.filled, :], strict=True):
            torch.addmm(columns.qkv_bias, unit_rms(x), columns.qkv, out=desk.qkv)
            desk.turning.mul_(turn)
            memory.select(3, slot).copy_(desk.kv)
            said = functional.scaled_dot_product_attention(desk.q, memory[0], memory[1], attn_mask=mask)
            x = torch.addmm(x, said.reshape(x.shape), columns.out)
            torch.mm(unit_rms(x), columns.gate_up, out=desk.gate_up)
            x = torch.addmm(x, functional.silu(desk.gate).mul_(desk.up), columns.down)
        self.logits = torch.mm(unit_rms(x), self.weights.output, out=desk.logits)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows of the batch only, in ascending order: they move up, nothing is allocated."""
        for to, row in enumerate(rows.tolist()):
            if to != row:
                self.memory[:, :, to, :, : self.filled] = self.memory[:, :, row, :, : self.filled]
        self.memory = self.memory[:, :, : len(rows)]
        self.row_turn, self.logits = self.row_turn[rows], self.logits[rows]
        self.mask = None if self.mask is None else self.mask[rows]
        self.desk = _Desk(self.model.config, len(rows), self.logits)


@torch.inference_mode()
def generate(
    model: SpeechLM, prompts: Sequence[Sequence[int]], config: SamplingConfig, seeds: Sequence[int]
) -> list[list[int]]:
    """Speech codes, 0 to n_codes - 1, for each prompt.

    Args:
        model: on any device.
        prompts: from `SpeechLM.prompt`.
        config: how freely.
        seeds: one for each prompt; equal prompts with equal seeds draw the same numbers. How many cores share
            the prompts decides the shapes of products and so their last bits, which a close draw can turn on:
            what must come out the same everywhere is drawn on one thread, as the studies do.
    """
    if len(seeds) != len(prompts):
        raise LabError(f"Sampling has {len(prompts)} prompts and {len(seeds)} seeds: give one seed for each.")
    expected = [float(model.expected_tokens(torch.tensor([row]).to(model.pace.device))) for row in prompts]
    weights = _weights(model)
    order = sorted(range(len(prompts)), key=lambda i: (expected[i], len(prompts[i])))
    said: list[list[int]] = [[] for _ in prompts]

    def say(rows: list[int]) -> None:
        bounds = [(config.least(expected[i]), config.most(expected[i])) for i in rows]
        spoken = _batch(model, weights, [prompts[i] for i in rows], bounds, config, [seeds[i] for i in rows])
        for i, codes in zip(rows, spoken, strict=True):
            said[i] = codes

    cores = torch.get_num_threads() if weights.table.device.type == "cpu" else 1
    rows = min(config.batch, max(FEW, math.ceil(len(order) / cores)))
    batches = [order[start : start + rows] for start in range(0, len(order), rows)]
    _side_by_side(say, batches[::-1], min(cores, len(batches)))
    return said


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


def _side_by_side(say: Callable[[list[int]], None], batches: Sequence[list[int]], workers: int) -> None:
    """Batches in as many threads, one core each: at tiny, products gain little from being split."""
    if workers < 2:
        for rows in batches:
            say(rows)
        return
    with _COUNT:
        cores = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                list(pool.map(say, batches))  # what one of them raised is raised here
        finally:
            torch.set_num_threads(cores)


@torch.inference_mode()
def _batch(
    model: SpeechLM,
    weights: _Weights,
    prompts: Sequence[Sequence[int]],
    bounds: Sequence[tuple[int, int]],
    config: SamplingConfig,
    seeds: Sequence[int],
) -> list[list[int]]:
    """Codes of utterances drawn side by side, each of a length within its bounds."""
    limit, shortest, w = max(most for _, most in bounds), max(least for least, _ in bounds), config.window
    reader = _Reader(model, weights, prompts, limit)
    device = weights.table.device
    streams = torch.from_numpy(uniforms(seeds, limit)).to(device)
    least, most = torch.tensor(bounds, device=device).unbind(1)
    whole = torch.full((len(prompts), w + limit), -1, device=device)  # counted from <end>, which is 0
    said, rows = whole.clone(), torch.arange(len(prompts), device=device)
    going = torch.ones_like(rows, dtype=torch.bool)
    for step in range(limit):
        if step < shortest:
            reader.logits[:, 0].masked_fill_(least > step, -torch.inf)
        chosen = draw(reader.logits, said[:, step : step + w], streams[:, step], config)
        said[:, step + w] = chosen
        going &= (chosen != 0) & (most > step + 1)
        active = int(going.sum())
        if active == 0:
            break
        if active <= REST * len(rows):
            whole[rows] = said
            kept = torch.nonzero(going)[:, 0]
            reader.keep(kept)
            state = (said, rows, going, chosen, streams, least, most)
            said, rows, going, chosen, streams, least, most = (each[kept] for each in state)
        reader.read(chosen + model.config.end)
    whole[rows] = said
    return [_codes(row[w : w + n]) for row, (_, n) in zip(whole.tolist(), bounds, strict=True)]


def _codes(said: list[int]) -> list[int]:
    """Codes up to the first <end>, which is 0."""
    return [place - 1 for place in (said[: said.index(0)] if 0 in said else said)]
