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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from slmlab.errors import LabError
from slmlab.models.layers import Block, FusedBlock, rotation, unit_rms
from slmlab.models.lm import SpeechLM

DRAWS = 2  # random numbers an utterance has for each step: one, and one for drawing again
REST = 0.8  # when no more than this share of a batch still speaks, those who ended are left out


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

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
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
    goal = rearrange(uniform, "b -> b 1") * reached[:, -1:]
    return rearrange(torch.searchsorted(reached, goal, right=True), "b 1 -> b")


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
    chosen = ids.gather(1, rearrange(pick(weights, uniform[:, 0]), "b -> b 1"))
    if config.window:
        seen = (past == chosen).sum(1)
        for row in torch.nonzero(seen >= config.window * config.repetition).flatten().tolist():
            everything = torch.softmax(logits[row : row + 1] / config.temperature, -1)
            chosen[row] = pick(everything, uniform[row : row + 1, 1])
    return rearrange(chosen, "b 1 -> b")


class _Weights:
    """A model's weights laid out for reading one place at a time."""

    def __init__(self, model: SpeechLM) -> None:
        self.model = model
        self.table = model.table()
        """`(v d)`, all ids."""
        self.output = _long_rows(self.table[model.config.end :] * model.norm.weight).t()
        """`(d v)`, from <end> on, the last norm's gain folded in."""
        self.blocks = [(block, FusedBlock(*map(_long_rows, block.fuse()))) for block in model.blocks]


def _long_rows(matrix: Tensor) -> Tensor:
    """The same matrix with its longer side contiguous in memory: a few rows times it then run twice as
    fast.
    """
    tall = matrix.ndim == 2 and len(matrix) > matrix.shape[1]
    return matrix.t().contiguous().t() if tall else matrix.contiguous()


class _Reader:
    """A model that remembers what it has read: keys and values of each block are kept."""

    def __init__(self, weights: _Weights, prompts: Sequence[Sequence[int]], room: int) -> None:
        self.model, c = weights.model, weights.model.config
        self.table, self.output, self.blocks = weights.table, weights.output, weights.blocks
        lengths = torch.tensor([len(row) for row in prompts])
        self.filled, self.steps = int(lengths.max()), 0
        padded = [list(row) + [0] * (self.filled - len(row)) for row in prompts]
        ids = torch.tensor(padded, device=self.table.device)
        slots = self.filled + room
        shape = (c.layers, 2, len(prompts), c.kv_heads, slots, c.width // c.heads)
        self.memory = self.table.new_zeros(shape)
        empty = torch.arange(slots) < rearrange(self.filled - lengths, "b -> b 1")
        self.mask = None
        if bool(empty.any()):
            self.mask = self.table.new_zeros(len(prompts), 1, 1, slots)
            self.mask.masked_fill_(rearrange(empty, "b t -> b 1 1 t").to(ids.device), -torch.inf)
        self._turns(ids, lengths, room)
        self.logits = self._prefill(ids, lengths)

    def _turns(self, ids: Tensor, lengths: Tensor, room: int) -> None:
        """Rotations: a first for each row, and one that all rows make beyond it, step by step."""
        c = self.model.config
        self.prompt_turn = rotation(self.model.positions(ids), c.width // c.heads, c.rope_theta)
        self.row_turn = self.prompt_turn[torch.arange(len(ids)), lengths - 1]
        self.step_turn = rotation(
            torch.arange(1, room + 1, device=ids.device), c.width // c.heads, c.rope_theta
        )

    def _prefill(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Read the prompts, right-padded, move their keys and values to the right: logits after them `(b
        v)`.
        """
        x = functional.embedding(ids, self.table)
        for i, (block, fused) in enumerate(self.blocks):
            q, k, v = block.queries_keys_values(x, self.prompt_turn, fused)
            for row, n in enumerate(lengths.tolist()):
                self.memory[i, 0, row, :, self.filled - n : self.filled] = k[row, :, :n]
                self.memory[i, 1, row, :, self.filled - n : self.filled] = v[row, :, :n]
            x = block.finish(x, block.attention(q, k, v), fused)
        return unit_rms(x[torch.arange(len(ids)), lengths - 1]) @ self.output

    def read(self, ids: Tensor) -> None:
        """Read one id a row, `(b)`, at the next slot: `logits` are then what follows it, `(b v)`."""
        slot, self.filled = self.filled, self.filled + 1
        turn = rearrange(self.row_turn * self.step_turn[self.steps], "b p -> b 1 p")
        self.steps += 1
        mask = None if self.mask is None else self.mask[..., : self.filled]
        x = functional.embedding(ids, self.table)
        for (block, fused), memory in zip(self.blocks, self.memory, strict=True):
            x = block.finish(x, _attend_one(x, block, fused, turn, memory, slot, mask), fused)
        self.logits = unit_rms(x) @ self.output

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows of the batch only."""
        fresh = torch.empty_like(self.memory[:, :, : len(rows)])
        fresh[..., : self.filled, :] = self.memory[:, :, rows, :, : self.filled]
        self.memory, self.row_turn, self.logits = fresh, self.row_turn[rows], self.logits[rows]
        self.mask = None if self.mask is None else self.mask[rows]


def _attend_one(
    x: Tensor, block: Block, fused: FusedBlock, turn: Tensor, memory: Tensor, slot: int, mask: Tensor | None
) -> Tensor:
    """What the heads say to one new place a row: `(b d)` to `(b d)`.

    Plain views stand in for einops here, whose microseconds would be a tenth of the step.
    """
    b, e, kv = len(x), block.head_width, block.kv_heads
    qkv = functional.linear(unit_rms(x), fused.qkv, fused.qkv_bias)
    turning, v = qkv.split([(block.heads + kv) * e, kv * e], 1)
    pairs = torch.view_as_complex(turning.unflatten(1, (block.heads + kv, e // 2, 2)))
    turned = torch.view_as_real(pairs * turn).view(b, block.heads + kv, e)
    memory[0, :, :, slot] = turned[:, block.heads :]
    memory[1, :, :, slot] = v.view(b, kv, e)
    # Heads that share keys go in as so many queries of one head: none of them may see less than another.
    q = turned[:, : block.heads].unflatten(1, (kv, block.heads // kv))
    seen = memory[:, :, :, : slot + 1]
    return functional.scaled_dot_product_attention(q, seen[0], seen[1], attn_mask=mask).reshape(b, -1)


@torch.inference_mode()
def generate(
    model: SpeechLM, prompts: Sequence[Sequence[int]], config: SamplingConfig, seeds: Sequence[int]
) -> list[list[int]]:
    """Speech codes, 0 to n_codes - 1, for each prompt.

    Args:
        model: on any device.
        prompts: from `SpeechLM.prompt`.
        config: how freely.
        seeds: one for each prompt; equal prompts with equal seeds say the same.
    """
    if len(seeds) != len(prompts):
        raise LabError(f"Sampling has {len(prompts)} prompts and {len(seeds)} seeds: give one seed for each.")
    expected = [float(model.expected_tokens(torch.tensor([row]).to(model.pace.device))) for row in prompts]
    weights = _Weights(model)
    order = sorted(range(len(prompts)), key=lambda i: (expected[i], len(prompts[i])))
    said: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), config.batch):
        rows = order[start : start + config.batch]
        bounds = [
            (round(config.shortest * expected[i]), max(1, round(config.longest * expected[i]))) for i in rows
        ]
        spoken = _batch(weights, [prompts[i] for i in rows], bounds, config, [seeds[i] for i in rows])
        for i, codes in zip(rows, spoken, strict=True):
            said[i] = codes
    return said


def _batch(
    weights: _Weights,
    prompts: Sequence[Sequence[int]],
    bounds: Sequence[tuple[int, int]],
    config: SamplingConfig,
    seeds: Sequence[int],
) -> list[list[int]]:
    """Codes of utterances drawn side by side, each of a length within its bounds."""
    limit, w = max(most for _, most in bounds), config.window
    reader = _Reader(weights, prompts, limit)
    device = reader.table.device
    streams = torch.from_numpy(uniforms(seeds, limit)).to(device)
    least, most = torch.tensor(bounds, device=device).unbind(1)
    said = torch.full((len(prompts), w + limit), -1, device=device)  # counted from <end>, which is 0
    rows = torch.arange(len(prompts), device=device)
    going = torch.ones_like(rows, dtype=torch.bool)
    for step in range(limit):
        reader.logits[least[rows] > step, 0] = -torch.inf
        chosen = draw(reader.logits, said[rows, step : step + w], streams[rows, step], config)
        said[rows, step + w] = chosen
        going &= (chosen != 0) & (most[rows] > step + 1)
        active = int(going.sum())
        if active == 0:
            break
        if active <= REST * len(rows):
            kept = torch.nonzero(going)[:, 0]
            reader.keep(kept)
            rows, chosen, going = rows[kept], chosen[kept], going[kept]
        reader.read(chosen + weights.model.config.end)
    return [_codes(row[w : w + n]) for row, n in zip(said.tolist(), most.tolist(), strict=True)]


def _codes(said: list[int]) -> list[int]:
    """Codes up to the first <end>, which is 0."""
    return [place - 1 for place in (said[: said.index(0)] if 0 in said else said)]
