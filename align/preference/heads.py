"""The three heads of a preference model, and the scores that they make (HRC, arXiv 2605.17342, section 4).

    r      = clip(w_r . h_y, -delta, delta)                       RankHead     one scalar an answer
    v      = W_c h_y / ||W_c h_y||                                CyclicHead   d points of the plane an answer
    lambda^2(x) = min(softplus(W_g h_x + b), cap)                 GateHead     one weight a plane, from the prompt
    s_ij   = C1 (r_i - r_j)  +  C2 v_i^T D R D v_j                D = diag(lambda) (x) I_2,  R = diag(R_2, ..., R_2)

With R_2 = [[0, 1], [-1, 0]] and planes l holding the coordinates (a, b) of v, the second term is
sum_l lambda_l^2 (a_il b_jl - b_il a_jl): plane l turns answers into angles and scores the sine between them. So i
beats j by at most lambda_l^2 when j lies a quarter turn counter-clockwise of i, and three answers at thirds of the
circle beat each other in a cycle. D R D = diag(lambda^2) (x) R_2, and lambda^2 is what is stored here as ``lambda_sq``.
Bradley-Terry is the first term alone, GPM (arXiv 2410.02197) the second.

Named options for the ablations: ``clip`` and ``unit_norm`` on or off, and the gate:

- ``softplus`` HRC's (reconstructed: the paper leaves g open; un-normalised, since a softmax is constantly 1 at d = 1)
- ``softmax``  GPM's as released: weights over the planes that sum to 1, used as they are, not squared
- ``scalar``   one learned weight for all prompts and planes (the paper's "w/o gating")
- ``none``     weight 1

Left out: GPM's later gate that rescales the softmax by the number of planes and sqrt(H); two published versions of it
disagree.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import linear, softplus

from launch.errors import check_choice

Gate = Literal["none", "scalar", "softmax", "softplus"]

EPS = 1e-12
UNIT = math.log(math.e - 1)
"""softplus(UNIT) = 1."""


class RankHead(nn.Module):
    """Transitive value r of an answer: clip(w . h), without bias (a bias cancels in every difference).

    The clip comes before the difference, so that |s_T| <= 2 C1 delta; its gradient is 0 outside, hence the
    ``saturated`` metric of the objective.
    """

    def __init__(self, hidden: int, delta: float | None = 5.0) -> None:
        super().__init__()
        self.delta = delta
        self.weight = nn.Parameter(torch.empty(1, hidden))
        self.reset()

    def reset(self) -> None:
        """N(0, 1 / (H + 1)), as GPM's code initialises its value heads."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.weight.shape[1] + 1))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """[..., H] any float -> float32 [...], in [-delta, delta]."""
        r = _linear32(h, self.weight).squeeze(-1)
        return r if self.delta is None else r.clamp(-self.delta, self.delta)


class CyclicHead(nn.Module):
    """Cyclic embedding v of an answer: d planes, normalised over all of them together, without bias."""

    def __init__(self, hidden: int, dims: int, unit_norm: bool = True) -> None:
        super().__init__()
        self.unit_norm = unit_norm
        self.weight = nn.Parameter(torch.empty(dims, hidden))
        self.reset()

    def reset(self) -> None:
        """N(0, 1 / (H + 1)), as GPM's code does."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.weight.shape[1] + 1))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """[..., H] any float -> float32 [..., 2d], of length 1 (0 for h = 0)."""
        v = _linear32(h, self.weight)
        return v / v.norm(dim=-1, keepdim=True).clamp_min(EPS) if self.unit_norm else v


class GateHead(nn.Module):
    """How strongly each plane counts for a prompt: lambda^2 [..., d], non-negative and at most `cap`.

    ``softplus`` and ``scalar`` start at lambda^2 = 1 for every prompt: weights at 0, bias at log(e - 1).
    """

    def __init__(self, hidden: int, planes: int, mode: Gate = "softplus", cap: float = 10.0) -> None:
        super().__init__()
        check_choice("gate", mode, Gate)
        self.planes, self.mode, self.cap = planes, mode, cap
        if mode in ("softmax", "softplus"):
            self.weight = nn.Parameter(torch.empty(planes, hidden))
        if mode in ("scalar", "softplus"):
            self.bias = nn.Parameter(torch.empty(1 if mode == "scalar" else planes))
        self.reset()

    def reset(self) -> None:
        if self.mode == "softmax":
            nn.init.normal_(self.weight, std=1 / math.sqrt(self.weight.shape[1] + 1))
        if self.mode == "softplus":
            nn.init.zeros_(self.weight)
        if self.mode in ("scalar", "softplus"):
            nn.init.constant_(self.bias, UNIT)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """[..., H] state of the prompt, any float -> lambda^2, float32 [..., d]."""
        if self.mode == "none":
            return h.new_ones((*h.shape[:-1], self.planes), dtype=torch.float32)
        if self.mode == "softmax":
            return _linear32(h, self.weight).softmax(-1)
        if self.mode == "scalar":
            weight = softplus(self.bias.float()).clamp(max=self.cap)
            return weight.expand((*h.shape[:-1], self.planes))
        return softplus(_linear32(h, self.weight) + self.bias.float()).clamp(max=self.cap)


# ---------------------------------------------------------------- scores


def score_pairs(
    r_i: torch.Tensor, r_j: torch.Tensor, v_i: torch.Tensor, v_j: torch.Tensor, lambda_sq: torch.Tensor,
    c1: float = 1.0, c2: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Raw scores (not yet divided by tau) of pairs (i, j): r [...], v [..., 2d], lambda_sq [..., d] -> s_T, s_C [...].

    Leading axes broadcast. With d = 0 (Bradley-Terry) s_C is 0.
    """
    turn = v_i[..., 0::2] * v_j[..., 1::2] - v_i[..., 1::2] * v_j[..., 0::2]  # [..., d]
    return c1 * (r_i - r_j), c2 * (lambda_sq * turn).sum(-1)


def score_matrix(
    r: torch.Tensor, v: torch.Tensor, lambda_sq: torch.Tensor, c1: float = 1.0, c2: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw scores of all K x K pairs in one product: r [..., K], v [..., K, 2d], lambda_sq [..., d] -> [..., K, K] each.

    V (diag(lambda^2) (x) R_2) V^T = M - M^T with M = A diag(lambda^2) B^T, so both parts are skew-symmetric exactly,
    not merely to rounding, and their diagonals are exactly 0.
    """
    M = (v[..., 0::2] * lambda_sq[..., None, :]) @ v[..., 1::2].mT
    return c1 * (r[..., :, None] - r[..., None, :]), c2 * (M - M.mT)


def skew_operator(planes: int) -> torch.Tensor:
    """R [2d, 2d] = diag(R_2, ..., R_2), R_2 = [[0, 1], [-1, 0]]."""
    return torch.block_diag(*[torch.tensor([[0.0, 1.0], [-1.0, 0.0]])] * planes)


def score_matrix_naive(
    r: torch.Tensor, v: torch.Tensor, lambda_sq: torch.Tensor, c1: float = 1.0, c2: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for one prompt, as the paper writes it, pair by pair with D and R spelled out; for reading and tests."""
    K, planes = len(r), len(lambda_sq)
    D = torch.diag(lambda_sq.sqrt().repeat_interleave(2))
    R = skew_operator(planes) if planes else torch.zeros(0, 0)
    S_T, S_C = torch.zeros(K, K), torch.zeros(K, K)
    for i in range(K):
        for j in range(K):
            S_T[i, j] = c1 * (r[i] - r[j])
            S_C[i, j] = c2 * (v[i] @ D @ R @ D @ v[j])
    return S_T, S_C


def _linear32(h: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """h W^T in float32 whatever the dtype of the backbone or of an autocast around it."""
    with torch.autocast(h.device.type, enabled=False):
        return linear(h.float(), weight.float())
