"""Two optimisers share a network: Muon turns its hidden matrices, AdamW moves the rest.

A matrix's update is its momentum made orthogonal (every singular value near 1), so that rare directions learn
as fast as common ones: at the tiny tier this reaches a loss in about half of AdamW's steps.
`torch.optim.Muon` computes in bfloat16, one matrix after another; a CPU without bfloat16 needs seconds for a
step. Here it is float32, all matrices of one shape (lying ones and standing ones alike) in one batched
product.

Axes: k matrices of one shape, r rows, c columns.
"""

from collections.abc import Iterable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Keller Jordan's quintic: steep at 0, later never far from 1
BETAS = (0.9, 0.95)  # runs are short, so the second moment forgets sooner than AdamW's usual 0.999
BY_ADAMW = ("embed", "head")  # parts of the names of tables and last layers, which are not Muon's


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring every singular value near 1 and keep the singular vectors, by Newton-Schulz iterations.

    Matrices are `(k r c)` float32. An iteration is `X ← (a + b G + c G²) X` with `G = X Xᵀ`; 5 bring singular
    values from 0.01 of the norm upwards into about 0.7 to 1.2. All polynomials in the first `G` commute, so
    they are gathered as `r r` matrices and meet the long side once, at the end: a third fewer operations at
    `c = 3 r`.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return rearrange(orthogonalise(rearrange(matrices, "k r c -> k c r"), steps), "k c r -> k r c")
    a, b, c = COEFFICIENTS
    x = matrices / torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=1e-7)
    identity = torch.eye(x.shape[1], device=x.device)
    gram, turn = x @ x.mT, None
    for left in reversed(range(steps)):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c) + a * identity
        turn = polynomial if turn is None else polynomial @ turn
        if left:
            gram = polynomial @ gram @ polynomial
    return x if turn is None else turn @ x


class Muon(Optimizer):
    """Momentum, orthogonalised: https://kellerjordan.github.io/posts/muon.

    A step is `p ← p (1 - lr · decay) - lr · sqrt(max(1, rows / columns)) · orthogonalise(nesterov momentum)`:
    decoupled decay, and a scale that gives standing matrices as much effect on their output as lying ones.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient once."""
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(tuple(sorted(p.shape)), []).append(p)
            for params in alike.values():
                self._move(params, group["lr"], group["weight_decay"], group["momentum"])

    def _move(self, params: list[Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        """Move matrices of one shape, standing ones laid down for it."""
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        gradients = [p.grad for p in params if p.grad is not None]
        moments = [self.state[p]["momentum"] for p in params]
        torch._foreach_lerp_(moments, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, moments, momentum)
        if weight_decay:
            torch._foreach_mul_(params, 1 - lr * weight_decay)
        lying = torch.stack([m if m.shape[0] <= m.shape[1] else m.mT for m in ahead])
        for p, turned in zip(params, orthogonalise(lying), strict=True):
            rows, columns = p.shape
            p.add_(turned if rows <= columns else turned.mT, alpha=-lr * max(1.0, rows / columns) ** 0.5)


def hidden_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that Muon may have: of `nn.Linear`, no table, no last layer, nothing reserved for AdamW.

    A module reserves parameters for AdamW by a class attribute `adamw_names: tuple[str, ...]`: parts of the
    names below it. A weight tied to an embedding is a table too.
    """
    modules = list(model.modules())
    linear = {id(module.weight) for module in modules if isinstance(module, nn.Linear)}
    tables = {id(module.weight) for module in modules if isinstance(module, nn.Embedding)}
    reserved = {
        id(weight)
        for module in modules
        for name, weight in module.named_parameters()
        if any(part in name for part in getattr(module, "adamw_names", ()))
    }
    return {
        name: weight
        for name, weight in model.named_parameters()
        if weight.requires_grad
        and id(weight) in linear - tables - reserved
        and not any(part in name for part in BY_ADAMW)
    }


def optimisers(model: nn.Module, lr: float, muon_lr: float, weight_decay: float) -> list[Optimizer]:
    """AdamW at `lr`, and Muon at `muon_lr` for the hidden matrices (0: AdamW has all).

    Vectors do not decay. Every group remembers its rate as `peak`, for a schedule to scale.
    """
    matrices = list(hidden_matrices(model).values()) if muon_lr else []
    muons = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in muons]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    both: list[Optimizer] = [Muon(matrices, muon_lr, weight_decay)] if matrices else []
    if rest:
        both.insert(0, AdamW([group for group in groups if group["params"]], lr=lr, betas=BETAS, fused=True))
    for group in (group for optimiser in both for group in optimiser.param_groups):
        group["peak"] = group["lr"]
    return both
