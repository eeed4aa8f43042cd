"""DPO against TRL's DPOTrainer: the same model, pairs, batches and optimiser; steps a second, loss by loss.

The peer is our model exported to transformers (`models.qwen`), its positions put in by a hook. Its table of
embeddings is flat, so ours learns its flat part alone. TRL runs in float32 without gradient checkpointing,
which its defaults would have: both make it faster or more exact here.
"""

import copy
import time
import warnings
from collections.abc import Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from bench.qwen import from_qwen, to_qwen
from slmlab.corpus.pairs import Pair
from slmlab.models.lm import LMConfig, SpeechLM
from slmlab.preference.tune import PairBatch, PairBatches, PreferenceConfig, preference_loss
from slmlab.training.loop import TrainConfig, read_log, train
from slmlab.training.optim import BETAS
from slmlab.training.presets import ALPHABET, preset

STEPS, PAIRS_A_STEP = 20, 8
TRAIN = TrainConfig(STEPS, lr=1e-4, muon_lr=0.0, warmup=0, decay="constant", weight_decay=0.0, clip=1.0)
Row = tuple[str, float, str, float, str, str]


def rows(preset_name: str) -> list[Row]:
    """The bars `dpo.ratio`, `dpo.ratio.precomputed` and `dpo.curve`, as arguments of `bench.Row`."""
    model, pairs = subject(preset(preset_name).lm.config)
    ours, own_seconds = run_ours(model, pairs)
    theirs, seconds = run_trl(model, pairs, precomputed=False)
    _, precomputed = run_trl(model, pairs, precomputed=True)
    how = (
        f"{STEPS} steps of {PAIRS_A_STEP} pairs, AdamW, {torch.get_num_threads()} threads, median step: ours "
        f"{own_seconds:.2f} s, TRL {seconds:.2f} s, its reference precomputed {precomputed:.2f} s"
    )
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    return [
        ("dpo.ratio", seconds / own_seconds, "x", 1.7, "higher", how),
        ("dpo.ratio.precomputed", precomputed / own_seconds, "x", 1.25, "higher", how),
        ("dpo.curve", apart, "nats", 1e-4, "lower", f"largest difference of the loss over {STEPS} steps"),
    ]


def subject(config: LMConfig) -> tuple[SpeechLM, list[Pair]]:
    """An untrained model with flat embeddings, and pairs of random tokens of the usual lengths."""
    draw = np.random.default_rng(0)
    torch.manual_seed(0)
    model = from_qwen(to_qwen(SpeechLM(config)), SpeechLM(config)).eval()
    for shared in (model.embed_digits, model.embed_low, model.embed_high):
        shared.requires_grad_(False)

    def codes() -> tuple[int, ...]:
        return tuple(draw.integers(config.n_codes, size=draw.integers(40, 80)).tolist())

    letters = [symbol for symbol in ALPHABET.symbols if symbol.isascii() and symbol.isalpha()]
    texts = ["".join(draw.choice(letters, 30)) for _ in range(STEPS * PAIRS_A_STEP)]
    pairs = [
        Pair(str(i), config.languages[0], text, codes(), codes(), "judge") for i, text in enumerate(texts)
    ]
    return model, pairs


def run_ours(model: SpeechLM, pairs: Sequence[Pair]) -> tuple[list[float], float]:
    """Losses of all steps, and the median seconds between two steps."""
    batches, config, asked = PairBatches(model, pairs, 10**6, 0), PreferenceConfig(TRAIN), list[float]()

    def batch(step: int) -> PairBatch:
        """Pairs in order, as TRL's sequential sampler takes them."""
        asked.append(time.perf_counter())
        return batches.of(range(step * PAIRS_A_STEP, (step + 1) * PAIRS_A_STEP))

    with TemporaryDirectory() as folder:
        train(copy.deepcopy(model), partial(preference_loss, config=config), batch, TRAIN, folder)
        losses = [row["loss"] for row in read_log(folder)]
    return losses, float(np.median(np.diff(asked)))


def run_trl(model: SpeechLM, pairs: Sequence[Pair], precomputed: bool) -> tuple[list[float], float]:
    """The same of TRL's DPOTrainer."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    losses, asked = list[float](), list[float]()

    class Peer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # ids already: the peer has no tokenizer of its own

        def compute_loss(self, *arguments: Any, **named: Any) -> Any:
            asked.append(time.perf_counter())
            loss = super().compute_loss(*arguments, **named)
            losses.append(float(loss.detach()))
            return loss

    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TRL's own, of names that transformers will drop
        trainer = Peer(
            model=_peer(model),
            ref_model=None if precomputed else _peer(model),
            args=DPOConfig(
                output_dir=folder,
                max_steps=STEPS,
                per_device_train_batch_size=PAIRS_A_STEP,
                learning_rate=TRAIN.lr,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                adam_beta1=BETAS[0],
                adam_beta2=BETAS[1],
                max_grad_norm=TRAIN.clip,
                train_sampling_strategy="sequential",
                precompute_ref_log_probs=precomputed,
                gradient_checkpointing=False,
                max_length=None,
                bf16=False,
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([_ids(model, pair) for pair in pairs]),
            processing_class=_tokenizer(),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return losses, float(np.median(np.diff(asked)))


def _ids(model: SpeechLM, pair: Pair) -> dict[str, list[int]]:
    """A pair as TRL's collator takes it."""
    config = model.config
    sides = {"chosen_ids": pair.chosen_tokens, "rejected_ids": pair.rejected_tokens}
    prompt = model.prompt(pair.prompt, pair.language)
    ends = {name: [*(config.first_code + code for code in side), config.end] for name, side in sides.items()}
    return {"prompt_ids": prompt} | ends


def _peer(model: SpeechLM) -> Any:
    """The model in transformers' hands, reading by our clock."""
    peer = to_qwen(model)
    for config in (peer.config, peer.generation_config):  # as `_tokenizer` has them, or TRL says so
        config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, None, 1

    def clock(_: Any, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, named | {"position_ids": model.positions(named["input_ids"])}

    peer.model.register_forward_pre_hook(clock, with_kwargs=True)
    return peer


def _tokenizer() -> Any:
    """What DPOTrainer asks for and, given ids, does not use but for its padding, 0."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": 0, "<end>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")
