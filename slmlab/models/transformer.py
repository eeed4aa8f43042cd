"""The pieces of a Qwen2-shaped decoder block, laid out so that a CPU spends its time in matrix products.

Parameters have the names and the layout of transformers' Qwen2, so that a model goes there and back
unchanged. Before use they are *fused*: the gain of a norm is multiplied into the matrices that read it, q, k
and v become one matrix, gate and up another, and the two numbers that Qwen2 rotates against each other are
laid side by side, where a rotation is one complex product. That is a pass over the weights, once a training
step, instead of several passes over the activations, which are many times larger.

Axis legend: b batch, t positions, d width, h heads (q, or k and v where said), e numbers of a head, p pairs
(e = 2 p), o rows of a matrix.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6


class _UnitRms(torch.autograd.Function):
    """`y = x / rms(x)`; the backward pass reads y, which the next matrix product keeps anyhow, and not x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = _over_rms(x)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        y, scale = ctx.saved_tensors
        along = rearrange(torch.linalg.vecdot(grad, y), "... -> ... 1")
        return torch.addcmul(grad, y, along, value=-1 / y.shape[-1]).mul_(scale)


def _over_rms(x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.full_like(norm, EPSILON).addcmul_(norm, norm, value=1 / x.shape[-1]).rsqrt_()


def unit_rms(x: Tensor) -> Tensor:
    """`(... d)` over its root mean square: RMSNorm (Zhang and Sennrich 2019) without its gain."""
    if not x.requires_grad:
        return x * _over_rms(x)
    normed: Tensor = _UnitRms.apply(x)
    return normed


class RMSNorm(nn.Module):
    """The gain of a norm; blocks fold it into the matrices that read the norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


def rotation(positions: Tensor, head_width: int, theta: float) -> Tensor:
    """Unit complex numbers `(... p)` for RoPE (Su et al. 2021).

    Pair p of n turns by `position · theta^(-p / n)`.
    """
    frequencies = theta ** -(torch.arange(0, head_width, 2, device=positions.device) / head_width)
    angles = rearrange(positions, "... -> ... 1").to(frequencies) * frequencies
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the pairs of `(b t h e)`, laid side by side, by `(b t p)` or `(1 t p)`."""
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    pairs = torch.view_as_complex(rearrange(wide, "b t h (p two) -> b t h p two", two=2))
    turned = torch.view_as_real(pairs * rearrange(turn, "b t p -> b t 1 p"))
    return rearrange(turned, "b t h p two -> b t h (p two)").to(x.dtype)


def side_by_side(rows: Tensor, head_width: int) -> Tensor:
    """The outputs of a q or k projection, `(o)` or `(o d)`, with the pairs of a head side by side."""
    return rearrange(rows, "(h two p) ... -> (h p two) ...", two=2, p=head_width // 2)


class FusedBlock(NamedTuple):
    """A block's weights as they are computed with; see the top of this file."""

    qkv: Tensor  # ((h + 2 kv) e, d)
    qkv_bias: Tensor  # ((h + 2 kv) e)
    out: Tensor  # (d, h e)
    gate_up: Tensor  # (2 ffn, d)
    down: Tensor  # (d, ffn)


class Attention(nn.Module):
    """Parameters of grouped-query attention, Qwen2's: q, k and v have biases. At first it says nothing."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        narrow = width // heads * kv_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, narrow)
        self.v_proj = nn.Linear(width, narrow)
        self.o_proj = nn.Linear(width, width, bias=False)
        for silent in (self.q_proj.bias, self.k_proj.bias, self.v_proj.bias, self.o_proj.weight):
            nn.init.zeros_(silent)


class FeedForward(nn.Module):
    """Parameters of a SwiGLU layer (Shazeer 2020). At first it says nothing."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        nn.init.zeros_(self.down_proj.weight)


class Block(nn.Module):
    """Norm, attention, norm, feed-forward, each pair beside the residual stream."""

    def __init__(self, width: int, heads: int, kv_heads: int, inner: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, width // heads
        self.input_layernorm = RMSNorm(width)
        self.self_attn = Attention(width, heads, kv_heads)
        self.post_attention_layernorm = RMSNorm(width)
        self.mlp = FeedForward(width, inner)

    @torch.no_grad()
    def look_near(self, ahead: Sequence[float], strength: float, theta: float) -> None:
        """Give q and k biases whose product is greatest where a key stands `ahead` of the query.

        The bias of each pair of numbers is one vector of length `strength`, in q turned ahead of k by as much
        as RoPE with base `theta` turns in that distance: all pairs agree there, and only there, where scores
        are `strength² · sqrt(e) / 2`. One head after the other takes its distance, in positions, of `ahead`.
        """
        for head, distance in zip(range(self.heads), cycle(ahead)):
            turn = rotation(torch.tensor(distance), self.head_width, theta) * strength
            bias = rearrange(self.self_attn.q_proj.bias, "(h two p) -> h two p", h=self.heads, two=2)
            bias[head] = torch.stack([turn.real, turn.imag])
        bias = rearrange(self.self_attn.k_proj.bias, "(h two p) -> h two p", h=self.kv_heads, two=2)
        bias[:, 0], bias[:, 1] = strength, 0.0

    def fuse(self) -> FusedBlock:
        """The weights as the methods below take them; gradients flow back through it."""
        attention, mlp, e = self.self_attn, self.mlp, self.head_width
        q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
        qkv = torch.cat([side_by_side(q.weight, e), side_by_side(k.weight, e), v.weight])
        bias = torch.cat([side_by_side(q.bias, e), side_by_side(k.bias, e), v.bias])
        gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
        return FusedBlock(
            qkv * self.input_layernorm.weight,
            bias,
            attention.o_proj.weight,
            gate_up * self.post_attention_layernorm.weight,
            mlp.down_proj.weight,
        )

    def queries_keys_values(
        self, x: Tensor, turn: Tensor, fused: FusedBlock
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated q `(b h t e)` and k `(b kv t e)`, and v `(b kv t e)`, of the residual stream `(b t d)`."""
        qkv = functional.linear(unit_rms(x), fused.qkv, fused.qkv_bias)
        heads = rearrange(qkv, "b t (h e) -> b t h e", e=self.head_width)
        turning, v = heads.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
        q, k = rotate(turning, turn).split([self.heads, self.kv_heads], dim=2)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention: what the heads say, `(b t d)`, before `fused.out`."""
        shared = self.heads != self.kv_heads
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
        return rearrange(attended, "b h t e -> b t (h e)")

    def finish(self, x: Tensor, attended: Tensor, fused: FusedBlock) -> Tensor:
        """The rest of the block, `(... d)`: what the heads say and the feed-forward, added to the stream."""
        x = x + functional.linear(attended, fused.out)
        gate, up = functional.linear(unit_rms(x), fused.gate_up).chunk(2, -1)
        return x + functional.linear(functional.silu(gate) * up, fused.down)
