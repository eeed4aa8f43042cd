"""The language model as transformers' Qwen2ForCausalLM, and back: the same numbers in another program's
hands.

Blocks have Qwen2's own names and layout; only the table of embeddings is written out, a row an id. Positions
are not part of a Qwen2: give it `model.positions(ids)` as `position_ids`, and with them an `attention_mask`
of ones, since without one transformers takes a clock that goes back for the beginning of another document.
"""

from typing import Any

import torch

from slmlab.errors import LabError
from slmlab.models.lm import LMConfig, SpeechLM
from slmlab.models.transformer import EPSILON


def qwen_config(config: LMConfig) -> Any:
    """The shape in transformers' words."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        intermediate_size=config.ffn,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        rms_norm_eps=EPSILON,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=config.end,
    )


@torch.no_grad()
def to_qwen(model: SpeechLM) -> Any:
    """A Qwen2ForCausalLM with copies of the model's weights."""
    from transformers import Qwen2ForCausalLM

    peer: Any = Qwen2ForCausalLM(qwen_config(model.config))
    peer.to(model.norm.weight.device, model.norm.weight.dtype)
    state = {
        name: weight for name, weight in model.state_dict().items() if name.startswith(("layers.", "norm."))
    }
    peer.model.load_state_dict(state | {"embed_tokens.weight": model.table()})
    return peer.eval()


@torch.no_grad()
def from_qwen(peer: Any, model: SpeechLM) -> SpeechLM:
    """Put the weights of a Qwen2ForCausalLM into a model of its shape; its pace stays.

    Raises:
        LabError: the shapes differ.
    """
    state = dict(peer.model.state_dict())
    table = state.pop("embed_tokens.weight")
    ours = model.state_dict()
    expected = {name: tuple(ours[name].shape) for name in ours if name.startswith(("layers.", "norm."))}
    found = {name: tuple(weight.shape) for name, weight in state.items()}
    if found != expected or table.shape != model.table().shape:
        name = next((name for name in expected if found.get(name) != expected[name]), "embed_tokens.weight")
        raise LabError(
            f"This Qwen2 does not fit the model: {name} has shape {found.get(name, tuple(table.shape))}, "
            f"expected {expected.get(name, tuple(model.table().shape))}; give both the same config."
        )
    model.load_state_dict(state, strict=False)
    symbols, codes = table.split([model.config.first_code, model.config.n_codes])
    model.embed_symbols.copy_(symbols)
    for shared in (model.embed_digits, model.embed_low, model.embed_high):
        shared.zero_()
    model.embed_codes.copy_(codes)
    return model
