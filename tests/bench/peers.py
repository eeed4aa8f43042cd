"""The language model beside its peer: transformers' Qwen2ForCausalLM of the same shape, in the same process.

Both take turns, so that whatever else the machine does slows both. The peer trains as its users train it: by
`labels`, with torch's fused AdamW, scaled dot-product attention and positions that count; it generates with
its own `generate` and a static cache. Everything is float32.

Axis legend: b batch, t places of a sequence, n targets, d width, v the vocabulary.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.qwen import qwen_config, to_qwen
from slmlab.corpus.utterances import Utterances, text_symbols
from slmlab.models.lm import Batch, LMConfig, SpeechLM, assemble, lm_loss, prompt_ids
from slmlab.speech.sampling import SamplingConfig, generate
from slmlab.training.loop import frame_batches, seed_everything
from slmlab.training.optim import optimisers
from slmlab.training.presets import Part

CLIP = 1.0
WEIGHT_DECAY = 0.01
PRODUCT = 2048  # rows and columns of the matrices that tell what the machine can do
PLAIN_THETA = 10_000.0  # what a Qwen2 has when nobody gives it a clock
DEV_BATCHES = 3
PEER_RATES = (2e-3, 4e-3, 8e-3)
"""AdamW's, from which the peer's is chosen on dev."""


def alternate(jobs: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds that each job took in each of `rounds`, one after the other; a round before is not counted."""
    seconds: list[list[float]] = [[] for _ in jobs]
    for _ in range(1 + rounds):
        for job, taken in zip(jobs, seconds, strict=True):
            started = time.perf_counter()
            job()
            taken.append(time.perf_counter() - started)
    return [taken[1:] for taken in seconds]


def times_faster(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over rounds of what the peer took over what we took in the same round."""
    return statistics.median(their / our for our, their in zip(ours, theirs, strict=True))


def peer_loss(peer: Any, batch: Batch) -> Tensor:
    """The peer's own loss on the targets of `batch`: mean negative log-probability in nats."""
    rows, columns = batch.places // batch.ids.shape[1], batch.places % batch.ids.shape[1] + 1
    ids = nn.functional.pad(batch.ids, (0, 1))  # <end>, which is only predicted, stands among its labels
    ids[rows, columns] = batch.targets
    labels = torch.full_like(ids, -100)
    labels[rows, columns] = batch.targets
    loss: Tensor = peer(input_ids=ids, labels=labels, use_cache=False).loss
    return loss


def fresh_peer(config: LMConfig) -> Any:
    """A Qwen2ForCausalLM with transformers' own beginning and plain positions."""
    from transformers import Qwen2ForCausalLM

    return Qwen2ForCausalLM(qwen_config(dataclasses.replace(config, rope_theta=PLAIN_THETA)))


class Contender:
    """A network that trains step by step, its rate warmed up and then held, and remembers what steps took."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Batch], Tensor],
        lr: float,
        muon_lr: float = 0.0,
        warmup: int = 1,
    ) -> None:
        self.model, self.loss, self.warmup = model.train(), loss, warmup
        self.optimisers = optimisers(model, lr, muon_lr, WEIGHT_DECAY)
        self.seconds: list[float] = []

    def step(self, batch: Batch) -> None:
        """Learn from one batch."""
        started = time.perf_counter()
        self.loss(self.model, batch).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * min(1.0, (len(self.seconds) + 1) / self.warmup)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.seconds.append(time.perf_counter() - started)

    def spent(self) -> float:
        """Seconds of all steps, each as long as the median step."""
        return len(self.seconds) * statistics.median(self.seconds)

    @torch.no_grad()
    def measure(self, batches: Sequence[Batch]) -> float:
        """Mean loss on dev, in nats a target."""
        self.model.eval()
        sums = [float(self.loss(self.model, batch)) * len(batch.targets) for batch in batches]
        self.model.train()
        return sum(sums) / sum(len(batch.targets) for batch in batches)


def our_loss(model: SpeechLM, batch: Batch) -> Tensor:
    """The loss without its figures."""
    return lm_loss(model, batch)[0]


def sample_batch(config: LMConfig, tokens: int, seed: int = 0) -> Batch:
    """About `tokens` places of random symbols, for sentences of 2.4 to 3 s: as in a tight bucket."""
    draw = torch.Generator().manual_seed(seed)

    def some(low: int, high: int, values: int) -> list[int]:
        n = int(torch.randint(low, high, (), generator=draw))
        return torch.randint(1, values, (n,), generator=draw).tolist()

    rows = max(1, tokens // 113)
    texts = [some(32, 36, config.alphabet_size) for _ in range(rows)]
    codes = [some(60, 76, config.n_codes) for _ in range(rows)]
    return assemble(config, [prompt_ids(config, text, config.languages[0]) for text in texts], codes)


def useful_flops(config: LMConfig, batch: Batch) -> float:
    """Floating-point operations that a training step on `batch` cannot do without; padding is none of them.

    Two for each weight that a place meets, twice that again for the gradients. What follows attention in the
    last block, and the logits, are needed at the targets only.
    """
    c, n, width = config, len(batch.targets), batch.ids.shape[1]
    last = torch.zeros(len(batch.ids), dtype=torch.long)
    last.scatter_reduce_(0, batch.places // width, batch.places % width + 1, "amax")
    lengths = last.double()
    head = c.width // c.heads
    into = c.width * head * (c.heads + 2 * c.kv_heads)
    after = c.width * c.width + 3 * c.width * c.ffn
    places = float(lengths.sum())
    pairs = float((lengths * (lengths + 1)).sum()) / 2  # causal: a place looks at itself and at those before
    products = places * c.layers * into + (places * (c.layers - 1) + n) * after + n * c.width * c.vocabulary
    return 3 * 2 * (products + 2 * c.layers * c.width * pairs)


@dataclass(frozen=True)
class TrainingSpeed:
    """One training step, ours and the peer's, in turn with a matrix product."""

    ratio: float
    """Our tokens a second over the peer's."""
    limit: float
    """Our useful operations a second over the matrix product's."""
    step: float
    """Seconds of our step."""
    tokens: int
    """Places of the batch, padding included."""


def training_speed(config: LMConfig, tokens: int, rounds: int = 7) -> TrainingSpeed:
    """Steps on one batch: float32, fused AdamW for all, gradients clipped."""
    torch.manual_seed(0)
    model = SpeechLM(config)
    ours = Contender(model, our_loss, lr=1e-4)
    theirs = Contender(to_qwen(model), peer_loss, lr=1e-4)
    batch = sample_batch(config, tokens)
    a, b = torch.randn(2, PRODUCT, PRODUCT)
    jobs = (lambda: ours.step(batch), lambda: theirs.step(batch), lambda: a @ b)
    mine, peers, product = alternate(jobs, rounds)
    flops = useful_flops(config, batch) / (2 * PRODUCT**3)
    limit = flops * times_faster(mine, product)
    return TrainingSpeed(times_faster(mine, peers), limit, statistics.median(mine), batch.ids.numel())


def generation_ratio(config: LMConfig, batch: int, tokens: int = 100, rounds: int = 5) -> tuple[float, float]:
    """Our speech tokens a second over `generate`'s with a static cache, and our tokens a second.

    Both say exactly `tokens` after prompts of 64 symbols, drawn at one temperature, top k and top p.
    """
    torch.manual_seed(0)
    model = SpeechLM(config).eval()
    peer = to_qwen(model)
    symbols = torch.randint(1, config.alphabet_size, (batch, 64)).tolist()
    prompts = [prompt_ids(config, row, config.languages[0]) for row in symbols]
    model.pace.fill_(tokens / 64)
    exact = SamplingConfig(window=0, shortest=1.0, longest=1.0, batch=batch)
    ids = torch.tensor(prompts)

    def ours() -> None:
        said = generate(model, prompts, exact, range(batch))
        assert [len(row) for row in said] == [tokens] * batch

    @torch.inference_mode()
    def theirs() -> None:
        said = peer.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=exact.temperature,
            top_k=exact.top_k,
            top_p=exact.top_p,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            cache_implementation="static",
        )
        assert said.shape == (batch, ids.shape[1] + tokens)

    mine, peers = alternate((ours, theirs), rounds)
    return times_faster(mine, peers), batch * tokens / statistics.median(mine)


@dataclass(frozen=True)
class Race:
    """Two networks on their way to one dev loss."""

    ratio: float
    """The peer's time over ours; a lower bound if it did not arrive."""
    arrived: bool
    """Whether the peer reached the loss."""
    loss: float
    """Our dev loss after our steps, in nats a target."""
    steps: tuple[int, int]
    """Ours and the peer's."""
    rate: float
    """AdamW's, chosen on dev for the peer."""


def race(
    config: LMConfig,
    batches: Callable[[int], Batch],
    dev: Sequence[Batch],
    steps: int,
    rates: tuple[float, float],
    prepare: Callable[[SpeechLM], None],
    looks: int = 20,
    patience: int = 8,
) -> Race:
    """Train ours for `steps`, peers of several rates in turn with it; the best of them goes on to our loss.

    Both keep their rate after a warm-up, see the same batches, and are measured `looks` times in our steps.

    Args:
        config: the shape of both.
        batches: step → batch.
        dev: what neither learns from.
        steps: how long we train.
        rates: ours, of AdamW and of Muon.
        prepare: what ours needs before it learns, counted as its time.
        patience: how many times our steps the peer may take.
    """
    warmup = max(1, min(20, steps // 10))
    torch.manual_seed(0)
    model = SpeechLM(config)
    started = time.perf_counter()
    prepare(model)
    prepared = time.perf_counter() - started
    ours = Contender(model, our_loss, *rates, warmup=warmup)
    peers = {rate: Contender(fresh_peer(config), peer_loss, rate, warmup=warmup) for rate in PEER_RATES}
    for step in range(steps):
        batch = batches(step)
        for contender in (ours, *peers.values()):
            seed_everything(0, step)
            contender.step(batch)
    goal = ours.measure(dev)
    reached = {rate: peer.measure(dev) for rate, peer in peers.items()}
    rate = min(PEER_RATES, key=lambda rate: reached[rate] if math.isfinite(reached[rate]) else math.inf)
    peer, best = peers[rate], reached[rate]
    while best > goal and len(peer.seconds) < patience * steps:
        peer.step(batches(len(peer.seconds)))
        if len(peer.seconds) % max(1, steps // looks) == 0:
            best = peer.measure(dev)
    ratio = peer.spent() / (prepared + ours.spent())
    return Race(ratio, best <= goal, goal, (steps, len(peer.seconds)), rate)


def race_on(part: Part, data: Utterances, codes: Sequence[Tensor]) -> Race:
    """The race from nothing on a corpus; every twentieth utterance is dev, and no style is given.

    Args:
        part: shape, rates and batch; a third of its steps are run.
        data: the corpus.
        codes: its speech tokens `(t)`.
    """
    texts = text_symbols(data, part.config.alphabet)
    languages = data.column("language")
    lengths = [len(text) + len(row) + 4 for text, row in zip(texts, codes, strict=True)]
    train, dev = ([i for i in range(len(data)) if (i % 20 == 0) is is_dev] for is_dev in (False, True))

    def made(rows: Sequence[int]) -> Batch:
        prompts = [prompt_ids(part.config, texts[i], languages[i]) for i in rows]
        return assemble(part.config, prompts, [codes[i].tolist() for i in rows])

    def prepare(model: SpeechLM) -> None:
        model.fit_pace(
            [texts[i] for i in train], [len(codes[i]) for i in train], [languages[i] for i in train]
        )

    plan = frame_batches([lengths[i] for i in train], part.batch, part.train.seed)
    held = frame_batches([lengths[i] for i in dev], part.batch, part.train.seed)
    return race(
        part.config,
        lambda step: made([train[i] for i in plan(step)]),
        [made([dev[i] for i in held(step)]) for step in range(DEV_BATCHES)],
        max(1, part.train.steps // 3),
        (part.train.lr, part.train.muon_lr),
        prepare,
    )
