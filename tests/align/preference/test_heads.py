"""The heads' scores: skew-symmetric, bounded, equal to the paper's formulas written out."""

from __future__ import annotations

import math

import pytest
import torch

from align.preference.heads import (
    CyclicHead,
    GateHead,
    RankHead,
    score_matrix,
    score_matrix_naive,
    score_pairs,
    skew_operator,
)
from launch.errors import ConfigError

H, K, D = 16, 6, 2


def drawn(seed: int, delta: float | None = 5.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """r [K], v [K, 2d], lambda^2 [d] from random heads on random states."""
    g = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        rank, cyclic, gate = RankHead(H, delta), CyclicHead(H, 2 * D), GateHead(H, D)
        torch.nn.init.normal_(gate.weight)
    h, x = torch.randn(K, H, generator=g) * 4, torch.randn(H, generator=g)
    with torch.no_grad():
        return rank(h), cyclic(h), gate(x)


@pytest.mark.parametrize("kind", ["bt", "gpm", "hrc"])
def test_hrc_acceptance_2_scores(kind: str) -> None:
    cap, c2 = 10.0, 0.7
    for seed in range(20):
        r, v, lambda_sq = drawn(seed)
        r = torch.zeros_like(r) if kind == "gpm" else r
        v, lambda_sq = (v[:, :0], lambda_sq[:0]) if kind == "bt" else (v, lambda_sq)
        S_T, S_C = score_matrix(r, v, lambda_sq, 1.3, c2)
        S = S_T + S_C
        P = torch.sigmoid(S / 0.1)
        assert (S + S.T).abs().max() < 1e-6
        assert S.diagonal().abs().max() == 0
        assert torch.allclose(P + P.T, torch.ones(K, K), atol=1e-6)
        assert S_C.abs().max() <= c2 * cap + 1e-6
        naive_T, naive_C = score_matrix_naive(r, v, lambda_sq, 1.3, c2)
        assert torch.allclose(S_T, naive_T, atol=1e-5)
        assert torch.allclose(S_C, naive_C, atol=1e-5)


@pytest.mark.parametrize("c", [0.1, 1.0, 10.0])
def test_hrc_acceptance_2_hrc_is_gpm_on_r_c_v(c: float) -> None:
    """The embedding [r, c, v] with first block weight 1/c scores (r_i c - c r_j)/c + v-part = r_i - r_j + v-part."""
    for seed in range(20):
        r, v, lambda_sq = (x.double() for x in drawn(seed))
        wide = torch.cat([r[:, None], torch.full((K, 1), c, dtype=torch.float64), v], -1)
        weights = torch.cat([torch.tensor([1 / c], dtype=torch.float64), lambda_sq])
        _, gpm = score_matrix(torch.zeros(K, dtype=torch.float64), wide, weights)
        S_T, S_C = score_matrix(r, v, lambda_sq)
        assert (gpm - (S_T + S_C)).abs().max() < 1e-6


def test_sign_of_the_bilinear_form() -> None:
    """v_i = (1, 0), v_j = (0, 1): v_i^T R v_j = 1 * 1 - 0 * 0 = 1, so j a quarter turn ahead loses to i. In angles,
    sin(phi_j - phi_i)."""
    r = torch.zeros(2)
    _, S_C = score_matrix(r, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.ones(1))
    assert S_C.tolist() == [[0, 1], [-1, 0]]
    assert skew_operator(1).tolist() == [[0, 1], [-1, 0]]
    phi, radius = torch.tensor([0.3, 2.1]), torch.tensor([0.5, 2.0])
    v = torch.stack([radius * phi.cos(), radius * phi.sin()], -1)
    _, S_C = score_matrix(r, v, torch.ones(1))
    assert S_C[0, 1].item() == pytest.approx(0.5 * 2.0 * math.sin(2.1 - 0.3), rel=1e-6)


def test_hrc_acceptance_4_explicit_embeddings() -> None:
    """Theorem 4.7 (a). GPM, d = 2, unit norm: A_i = (cos t_i, sin t_i, 1, 0)/sqrt 2 at thirds of the circle,
    A* = (0, 0, 0, -1). Cycle scores sin(120 deg)/2 = .433, dominance: v*^T R A_i = 0 * 0 - (-1) * 1/sqrt 2 = .707.
    HRC 2+1: the same circle with lambda = 1 (scores sin 120 = .866) and r* - r = 2 > 1 for everyone else."""
    angle = torch.arange(3) * 2 * math.pi / 3
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    flat = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    v = torch.cat([torch.cat([circle, flat], -1) / math.sqrt(2), torch.tensor([[0.0, 0.0, 0.0, -1.0]])])
    assert torch.allclose(v.norm(dim=-1), torch.ones(4))
    _, S = score_matrix(torch.zeros(4), v, torch.ones(2))
    wins = torch.stack([S[0, 1], S[1, 2], S[2, 0], S[3, 0], S[3, 1], S[3, 2]])
    assert (wins > 0).all()
    assert wins.min().item() == pytest.approx(0.4330, abs=1e-4)
    assert wins[3:].tolist() == pytest.approx([1 / math.sqrt(2)] * 3)

    S_T, S_C = score_matrix(
        torch.tensor([0.0, 0.0, 0.0, 2.0]), torch.cat([circle, torch.tensor([[1.0, 0.0]])]), torch.ones(1)
    )
    S = S_T + S_C
    assert all(S[i, j] > 0 for i, j in [(0, 1), (1, 2), (2, 0), (3, 0), (3, 1), (3, 2)])


def test_hrc_acceptance_4_impossibility() -> None:
    """No d = 1 embedding satisfies dominant + 3-cycle: 200 restarts of free vectors end at 5 of 6 pairs at most."""
    g = torch.Generator().manual_seed(0)
    v = torch.randn(200, 4, 2, generator=g, requires_grad=True)
    won = [(0, 1), (1, 2), (2, 0), (3, 0), (3, 1), (3, 2)]
    i, j = torch.tensor([a for a, _ in won]), torch.tensor([b for _, b in won])
    optimizer = torch.optim.Adam([v], lr=0.05)
    most = torch.zeros(200)
    for _ in range(400):
        _, S = score_matrix(torch.zeros(200, 4), v, torch.ones(200, 1))
        pairs = S[:, i, j]
        most = torch.maximum(most, (pairs.detach() > 0).sum(-1).float())
        optimizer.zero_grad()
        (-torch.nn.functional.logsigmoid(pairs)).sum().backward()
        optimizer.step()
    assert most.max() == 5


def test_pairs_are_entries_of_the_matrix() -> None:
    r, v, lambda_sq = drawn(3)
    S_T, S_C = score_matrix(r, v, lambda_sq, 2.0, 0.5)
    i, j = torch.triu_indices(K, K, 1)
    s_T, s_C = score_pairs(r[i], r[j], v[i], v[j], lambda_sq, 2.0, 0.5)
    assert torch.allclose(s_T, S_T[i, j], atol=1e-6)
    assert torch.allclose(s_C, S_C[i, j], atol=1e-6)
    batched = score_matrix(torch.stack([r, -r]), torch.stack([v, v]), torch.stack([lambda_sq, 2 * lambda_sq]), 2.0, 0.5)
    assert torch.allclose(batched[0][1], -S_T, atol=1e-6)
    assert torch.allclose(batched[1][1], 2 * S_C, atol=1e-6)


def test_the_clip_comes_before_the_difference() -> None:
    """w = 1: states 7, 6, -9 clip to 5, 5, -5: the first two tie, and no difference exceeds 2 delta = 10. Outside the
    clip the gradient is 0. Without the clip the differences are 1 and 15."""
    head = RankHead(1, delta=5.0)
    torch.nn.init.ones_(head.weight)
    h = torch.tensor([[7.0], [6.0], [-9.0]], requires_grad=True)
    r = head(h)
    assert r.tolist() == [5, 5, -5]
    r.sum().backward()
    assert h.grad is not None
    assert h.grad.abs().sum() == 0
    free = RankHead(1, delta=None)
    torch.nn.init.ones_(free.weight)
    assert free(h.detach()).tolist() == [7, 6, -9]


def test_unit_norm_and_its_absence() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = CyclicHead(H, 4)
        h = torch.randn(K, H)
        assert torch.allclose(head(h).norm(dim=-1), torch.ones(K), atol=1e-6)
        assert head(torch.zeros(1, H)).abs().sum() == 0  # not NaN
        head.unit_norm = False
        assert torch.allclose(head(2 * h), 2 * head(h), atol=1e-5)


def test_gates() -> None:
    """softplus and scalar start at exactly 1 for every prompt and never pass the cap; softmax sums to 1, so with one
    plane it is constantly 1; none is 1. softplus(log(e - 1)) = log(1 + e - 1) = 1."""
    x = torch.randn(5, H, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert torch.allclose(GateHead(H, 3, "softplus")(x), torch.ones(5, 3))
        assert torch.allclose(GateHead(H, 3, "scalar")(x), torch.ones(5, 3))
        assert torch.equal(GateHead(H, 3, "none")(x), torch.ones(5, 3))
        assert torch.allclose(GateHead(H, 3, "softmax")(x).sum(-1), torch.ones(5))
        assert torch.equal(GateHead(H, 1, "softmax")(x), torch.ones(5, 1))
        gate = GateHead(H, 3, "softplus", cap=2.0)
        torch.nn.init.normal_(gate.weight, std=50)
        assert gate(x).min() >= 0
        assert gate(x).max() == 2.0
    with pytest.raises(ConfigError, match="softplus"):
        GateHead(H, 3, "sigmoid")  # type: ignore[arg-type]


def test_heads_stay_float32_under_a_half_precision_backbone() -> None:
    """bf16 states of 1000 + 1 and 1000 differ only through rounding; heads must not round again, also in autocast."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rank, cyclic, gate = RankHead(H), CyclicHead(H, 4), GateHead(H, 2)
    h = torch.randn(K, H, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [head(h) for head in (rank, cyclic, gate)]
    outside = [head(h.float()) for head in (rank, cyclic, gate)]
    for a, b in zip(inside, outside, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)
    for head in (rank, cyclic, gate):
        assert head.bfloat16()(h).dtype == torch.float32
