"""Muon's direction is what it claims to be, and each parameter goes to the right optimiser."""

import math

import pytest
import torch
from torch import Tensor, nn

from slmlab.training.optim import Muon, hidden_matrices, optimisers, orthogonalise


class Small(nn.Module):
    """One of everything that decides who moves a parameter."""

    adamw_names = ("gate",)

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.inner = nn.Linear(8, 6)
        self.gate = nn.Linear(8, 6)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.convolution = nn.Conv1d(6, 6, 3)
        self.norm = nn.LayerNorm(6)
        self.output_head = nn.Linear(6, 4)
        self.tied = nn.Linear(8, 11, bias=False)
        self.tied.weight = self.embedding.weight


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 48), (2, 48, 16)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    before = torch.linalg.svdvals(matrices)
    values = torch.linalg.svdvals(orthogonalise(matrices))[before > 0.05 * before.max()]
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.25


def test_singular_vectors_are_kept() -> None:
    """The result's singular values are the quintic, iterated, of the normed matrix's: nothing is turned."""
    matrix = torch.randn(1, 12, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / torch.linalg.vector_norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    expected = u @ torch.diag_embed(s) @ v
    torch.testing.assert_close(orthogonalise(matrix.float()), expected.float(), atol=2e-5, rtol=0)


def test_a_matrix_moves_alike_alone_and_in_a_batch() -> None:
    draw = torch.Generator().manual_seed(3)
    standing, lying = torch.randn(24, 8, generator=draw), torch.randn(8, 24, generator=draw)

    def moved(*matrices: Tensor) -> list[Tensor]:
        parameters = [nn.Parameter(torch.zeros_like(m)) for m in matrices]
        for parameter, gradient in zip(parameters, matrices, strict=True):
            parameter.grad = gradient.clone()
        Muon(parameters, lr=1.0).step()
        return [p.detach() for p in parameters]

    together = moved(standing, lying)
    torch.testing.assert_close(together, moved(standing) + moved(lying), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        moved(lying)[0] * math.sqrt(3), moved(lying.T.contiguous())[0].T, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("shape", [(16, 16), (12, 30), (30, 12)])
def test_three_steps_equal_torch_muon_within_bfloat16(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(4)
    ours = nn.Parameter(torch.randn(shape, generator=draw))
    theirs = nn.Parameter(ours.detach().clone())
    start = ours.detach().clone()
    mine, peer = Muon([ours], 0.1, 0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        gradient = torch.randn(shape, generator=draw)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        peer.step()
    way, peers_way = (ours - start).detach(), (theirs - start).detach()
    assert float((way - peers_way).norm() / peers_way.norm()) < 0.02


def test_muon_has_the_hidden_matrices_and_nothing_else() -> None:
    assert set(hidden_matrices(Small())) == {"inner.weight"}


def test_every_trainable_parameter_has_one_optimiser_and_vectors_do_not_decay() -> None:
    model = Small()
    made = optimisers(model, lr=1e-3, muon_lr=0.02, weight_decay=0.1)
    groups = [group for optimiser in made for group in optimiser.param_groups]
    moved = [id(p) for group in groups for p in group["params"]]
    assert sorted(moved) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for group in groups:
        assert group["weight_decay"] == (0.1 if group["params"][0].ndim >= 2 else 0.0)
        assert group["peak"] == group["lr"]


def test_without_muon_adamw_has_all() -> None:
    (only,) = optimisers(Small(), lr=1e-3, muon_lr=0.0, weight_decay=0.1)
    assert isinstance(only, torch.optim.AdamW)
