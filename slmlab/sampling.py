"""Speech tokens drawn one by one: temperature, nucleus, no loops, and an end that the length of the text bounds.

Every utterance has a stream of random numbers of its own, drawn from its seed alone: the same sentence and seed see the
same numbers alone or inside any batch.

Axes: b batch, t positions (prompts stand at the right end, padding at the left), v ids, h heads, e numbers of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from slmlab.errors import LabError
from slmlab.models.layers import FusedBlock, rotation, unit_rms
from slmlab.models.lm import LMConfig, SpeechLM


@dataclass(frozen=True)
class SamplingConfig:
    """How freely tokens are drawn."""

    temperature: float = 0.7
    """Below 1 the likely becomes likelier; above 0."""
    top_p: float = 0.9
    """Draw from the fewest ids that have this much probability together."""
    top_k: int = 50
    """Of no more than this many ids; 0 means all."""
    window: int = 10
    """Tokens that repetition-aware sampling looks back on (CosyVoice 2)."""
    repetition: float = 0.25
    """Share of the window that one token may fill before it is drawn again from the whole distribution."""
    least: float = 0.6
    """Fewest tokens for each symbol of the text: before, speech cannot end."""
    most: float = 4.0
    """Most tokens for each symbol of the text: then speech ends."""

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise LabError(
                f"Sampling cannot take temperature={self.temperature}, top_p={self.top_p}, top_k={self.top_k}: "
                "temperature must be above 0, top_p above 0 and at most 1, top_k at least 0."
            )


def prompt(config: LMConfig, text: Sequence[int], language: str, style: Sequence[int] = ()) -> list[int]:
    """Ids up to <speech>: language tag, style tokens if there are any, text."""
    if language not in config.languages:
        raise LabError(
            f"The model does not know language {language!r}; it knows {', '.join(config.languages)}."
        )
    manner = [config.style, *(config.first_code + code for code in style)] if style else []
    return [config.alphabet_size + config.languages.index(language), *manner, *text, config.speech]


class _Reader:
    """The model with its table made once and keys and values kept."""

    def __init__(self, model: SpeechLM, prompts: Sequence[Sequence[int]], room: int) -> None:
        self.model, c = model, model.config
        self.table = model.table()
        self.blocks: list[FusedBlock] = [block.fuse() for block in model.blocks]
        self.final = self.table * model.norm.weight
        lengths = [len(row) for row in prompts]
        self.filled = max(lengths)
        self.padding = torch.tensor([self.filled - n for n in lengths])
        self.ids = torch.tensor([[0] * (self.filled - len(row)) + list(row) for row in prompts])
        size = (len(prompts), c.kv_heads, self.filled + room, c.width // c.heads)
        self.keys = [torch.zeros(size) for _ in self.blocks]
        self.values = [torch.zeros(size) for _ in self.blocks]

    def prefill(self) -> Tensor:
        """Read the prompts: logits `(b v)` of what follows."""
        places = torch.arange(self.filled)
        seen = rearrange(places, "t -> 1 t") >= rearrange(self.padding, "b -> b 1")
        causal = rearrange(places, "k -> 1 k") <= rearrange(places, "q -> q 1")
        own = torch.eye(self.filled, dtype=torch.bool)
        mask = rearrange(causal & rearrange(seen, "b k -> b 1 k") | own, "b q k -> b 1 q k")
        positions = (places - rearrange(self.padding, "b -> b 1")).clamp(min=0)
        return self._read(self.ids, positions, 0, mask)

    def step(self, ids: Tensor) -> Tensor:
        """Read one id a row `(b,)`: logits `(b v)`."""
        start = self.filled
        self.filled += 1
        seen = torch.arange(self.filled) >= rearrange(self.padding, "b -> b 1")
        positions = rearrange(start - self.padding, "b -> b 1")
        return self._read(rearrange(ids, "b -> b 1"), positions, start, rearrange(seen, "b k -> b 1 1 k"))

    def _read(self, ids: Tensor, positions: Tensor, start: int, mask: Tensor) -> Tensor:
        c = self.model.config
        turn = rotation(positions, c.width // c.heads, c.rope_theta)
        x = functional.embedding(ids, self.table)
        end = start + ids.shape[1]
        for block, fused, keys, values in zip(
            self.model.blocks, self.blocks, self.keys, self.values, strict=True
        ):
            q, k, v = block.queries_keys_values(x, turn, fused)
            keys[:, :, start:end], values[:, :, start:end] = k, v
            said = functional.scaled_dot_product_attention(
                q, keys[:, :, :end], values[:, :, :end], attn_mask=mask, enable_gqa=c.heads != c.kv_heads
            )
            x = block.finish(x, rearrange(said, "b h t e -> b t (h e)"), fused)
        return unit_rms(x[:, -1]) @ self.final.T

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows of the batch only."""
        self.padding = self.padding[rows]
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]


def nucleus(logits: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor]:
    """Ids `(b k)`, likeliest first, and their probabilities within the top k and the nucleus."""
    scaled = logits / config.temperature
    size = scaled.shape[-1]
    values, ids = scaled.topk(min(config.top_k or size, size))
    probabilities = (values - scaled.logsumexp(-1, keepdim=True)).exp()
    before = probabilities.cumsum(-1) - probabilities
    kept = torch.where(before < config.top_p, probabilities, 0.0)
    return ids, kept / kept.sum(-1, keepdim=True)


def pick(ids: Tensor, probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The id of each row `(b k)`, likeliest first, at which the summed probability passes a number in [0, 1) `(b,)`."""
    place = (probabilities.cumsum(-1) <= rearrange(uniform, "b -> b 1")).sum(-1, keepdim=True)
    last = (probabilities > 0).sum(-1, keepdim=True) - 1
    return ids.gather(1, torch.minimum(place, last))[:, 0]


@torch.inference_mode()
def generate(
    model: SpeechLM, prompts: Sequence[Sequence[int]], config: SamplingConfig, seeds: Sequence[int]
) -> list[list[int]]:
    """Speech codes for each prompt (see `prompt`), each drawn with its own seed."""
    c = model.config
    n_text = torch.tensor([sum(0 < i < c.alphabet_size for i in row) for row in prompts])
    least, most = (n_text * config.least).long(), (n_text * config.most).long().clamp(min=1)
    limit = int(most.max())
    streams = np.stack([np.random.Generator(np.random.Philox(key=seed)).random((limit, 2)) for seed in seeds])
    uniforms = torch.tensor(streams, dtype=torch.float32)
    reader = _Reader(model, prompts, limit)
    whole = replace(config, top_p=1.0, top_k=0)
    said: list[list[int]] = [[] for _ in prompts]
    rows = torch.arange(len(prompts))
    history = torch.full((len(prompts), config.window), -1)
    logits = reader.prefill()
    for step in range(limit):
        logits[:, : c.end] = -torch.inf
        logits[step < least[rows], c.end] = -torch.inf
        chosen = pick(*nucleus(logits, config), uniforms[rows, step, 0])
        looping = (history == rearrange(chosen, "b -> b 1")).sum(-1) > config.window * config.repetition
        if looping.any():
            chosen[looping] = pick(*nucleus(logits[looping], whole), uniforms[rows[looping], step, 1])
        going = (chosen != c.end) & (step < most[rows])
        for row, code, on in zip(
            rows.tolist(), (chosen - c.first_code).tolist(), going.tolist(), strict=True
        ):
            if on:
                said[row].append(code)
        if not going.any():
            break
        if not going.all():
            reader.keep(going)
            rows, chosen, history = rows[going], chosen[going], history[going]
        history = torch.cat([history[:, 1:], rearrange(chosen, "b -> b 1")], dim=1)
        if step + 1 < limit:
            logits = reader.step(chosen)
    return said
