"""Chain-Aware Encoding: a charge's chains as soft tokens in front of a decoder (LegalChainReasoner, arXiv 2509.00783).

With E(text) the mean of the decoder's frozen input embeddings over a text's tokens (BOS included) and H its width, a
chain (premise p, situation s, conclusion c) becomes one vector of width H:

    X = [E(p); E(s); E(c)]                                  3 x H
    A = X + MHA(X, X, X)            o = mean of A's rows    8 heads
    t = W2 drop(relu(LN(W1 o)))
    u = drop(LN(W_charge t))                                one W for each charge, or one for all (`shared`)
    v = sigmoid(Wg u) * u
    e = drop(LN(Wf [o; v]))

A charge without chains is one soft token: E of its statute's text, as it is.

`ChainEncoder` is what does not learn (charge to rows [E(p); E(s); E(c)]), `ChainAwareEncoding` what does, `ChainModel`
the decoder that reads it through `tasks.encoder.SoftTokens`: a prompt names a charge by `soft(charge)`, so charges mix
freely in a batch. ``graph=True`` takes the conclusion's state in the chain's logic graph for o (`ChainGraph`).

Where we differ from the published code: trained weights are fp32 always (in bf16 a step of 1e-5 rounds to nothing);
the last LN starts at the size of the decoder's words; BOS stands before the soft tokens, not behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from launch.errors import DataError
from launch.rendering import Renderer
from reasoning.legal.chains import Chain
from tasks.encoder import SavedEncoder, SoftTokens, SoftTokensConfig, VectorTable

STATUTE = -1
"""Stands for a charge's number at a row that is a statute's text."""
Provisions = Mapping[str, Sequence[Chain] | str]
"""A charge's name to its chains, or to its statute's text where there are none."""


class ChainEncoder(SavedEncoder):
    """Charges to the embeddings of their chains' parts; nothing in it learns.

    Args:
        words: the decoder's input embeddings, [V, H].
        tokenizer: its fast tokenizer.
        graph: keep every part of a situation apart, for `ChainGraph`.
    """

    def __init__(self, words: nn.Module | None, tokenizer: Any, graph: bool = False) -> None:
        self.words: Any = words
        self.tokenizer, self.graph = tokenizer, graph
        self.found: dict[str, np.ndarray] = {}
        """Charge to float32 [n, w]: w is 3H, or (2 + places) H with `graph`."""
        self.shapes: dict[str, list[list[int]]] = {}
        """Charge to the parts of each alternative of each chain's situation; [] for a statute's text."""

    def fit(self, provisions: Provisions) -> Self:
        """Embed all charges.

        Raises:
            DataError: a charge has neither chains nor text.
        """
        empty = next((charge for charge, told in provisions.items() if not told), None)
        if empty is not None:
            raise DataError(f"charge {empty!r} has neither chains nor a statute's text; give it one of them")
        self.shapes = {
            charge: [[]] if isinstance(told, str) else [[len(a) for a in chain.alternatives] for chain in told]
            for charge, told in provisions.items()
        }
        rows, parts = self.grid
        texts = list(dict.fromkeys(t for told in provisions.values() for t in _texts(told)))
        known = dict(zip(texts, self._means(texts), strict=True))
        for charge, told in provisions.items():
            if isinstance(told, str):
                wide = np.zeros((1, 2 + rows * parts if self.graph else 3, len(known[told])), np.float32)
                wide[:, :3] = known[told]  # X = [E; E; E], of which the first is passed on
                self.found[charge] = wide.reshape(1, -1)
            elif self.graph:
                self.found[charge] = np.stack([_graph_row(chain, known, rows, parts) for chain in told])
            else:
                self.found[charge] = np.stack(
                    [np.concatenate([known[c.premise], known[c.situation], known[c.conclusion]]) for c in told]
                )
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Most alternatives of a situation, and most parts of an alternative."""
        chains = [shape for shapes in self.shapes.values() for shape in shapes if shape]
        return max((len(s) for s in chains), default=1), max((n for s in chains for n in s), default=1)

    def _means(self, texts: Sequence[str]) -> list[np.ndarray]:
        """E of each text: float32 [H]."""
        renderer = Renderer(self.tokenizer)
        weight = self.words.weight.detach().float()
        return [weight[renderer.prompt_ids(text)].mean(0).cpu().numpy() for text in texts]

    def encode(self, items: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each charge: float32 [n, m, w] and bool mask [n, m].

        Raises:
            DataError: a charge that `fit` has not seen.
        """
        for charge in items:
            if charge not in self.found:
                some = ", ".join(list(self.found)[:3])
                raise DataError(f"charge {charge!r} was not encoded; known are {len(self.found)}, such as {some}")
        most = max(len(self.found[charge]) for charge in items)
        width = self.found[items[0]].shape[1]
        out, mask = np.zeros((len(items), most, width), np.float32), np.zeros((len(items), most), bool)
        for k, charge in enumerate(items):
            out[k, : len(self.found[charge])] = self.found[charge]
            mask[k, : len(self.found[charge])] = True
        return out, mask

    def table(self) -> VectorTable:
        """All charges as items that prompts name."""
        charges = list(self.found)
        return VectorTable.make(charges, *self.encode(charges))

    def settings(self) -> dict[str, Any]:
        return {"graph": self.graph, "shapes": self.shapes}

    def tensors(self) -> dict[str, np.ndarray]:
        return {str(k): rows for k, rows in enumerate(self.found.values())}

    @classmethod
    def restore(cls, settings: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        """What `encode` needs; embedding further charges takes a new encoder."""
        made = cls(None, None, settings["graph"])
        made.shapes = settings["shapes"]
        made.found = {charge: tensors[str(k)] for k, charge in enumerate(made.shapes)}
        return made


def _texts(told: Sequence[Chain] | str) -> list[str]:
    if isinstance(told, str):
        return [told]
    return [t for c in told for t in (c.premise, c.situation, c.conclusion, *(p for a in c.alternatives for p in a))]


def _graph_row(chain: Chain, known: Mapping[str, np.ndarray], rows: int, parts: int) -> np.ndarray:
    """[E(p); E(c); E of each part in its place of the grid, zeros elsewhere]."""
    out = np.zeros((2 + rows * parts, len(known[chain.premise])), np.float32)
    out[:2] = known[chain.premise], known[chain.conclusion]
    for a, alternative in enumerate(chain.alternatives):
        for q, part in enumerate(alternative):
            out[2 + a * parts + q] = known[part]
    return out.reshape(-1)


# ---------------------------------------------------------------- what learns


class ChainGraph(nn.Module):
    """The state of a chain's conclusion in its logic graph, evaluated from the operands up.

        alternative   its part, or AND([mean of parts; p])
        situation     OR([mean of alternatives; p]), or its one alternative + step([p; r])
        conclusion    E(c) + step([situation; r])

    AND and OR are 2H -> 2H -> ReLU -> H -> LN, step is 2H -> H, r a learned relation. The published code declares these
    modules and does not use them; how they are joined is our reconstruction.
    """

    def __init__(self, width: int, counts: torch.Tensor) -> None:
        super().__init__()
        self.both, self.either = (
            nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.LayerNorm(width))
            for _ in range(2)
        )
        self.step = nn.Linear(2 * width, width)
        self.relation = nn.Parameter(torch.zeros(width))
        self.counts: torch.Tensor
        self.register_buffer("counts", counts)  # int64 [R, alternatives]: parts of each

    def forward(self, rows: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
        """float32 [n, H] from X [n, 2 + alternatives * parts, H]."""
        counts = self.counts[rows]  # [n, A]
        p, c = X[:, 0], X[:, 1]
        parts = X[:, 2:].unflatten(1, (counts.shape[1], -1))  # [n, A, Q, H]
        mean = parts.sum(2) / counts.clamp(min=1)[..., None]
        joined = self.both(torch.cat([mean, p[:, None].expand_as(mean)], -1))
        alternatives = torch.where((counts > 1)[..., None], joined, mean) * (counts > 0)[..., None]
        number = (counts > 0).sum(-1, keepdim=True)  # [n, 1]
        operands = alternatives.sum(1) / number.clamp(min=1)
        relation = self.relation.expand_as(p)
        single = operands + self.step(torch.cat([p, relation], -1))
        situation = torch.where(number > 1, self.either(torch.cat([operands, p], -1)), single)
        return c + self.step(torch.cat([situation, relation], -1))


class ChainAwareEncoding(nn.Module):
    """Rows of a `ChainEncoder`'s table to soft tokens; see the module's header.

    Args:
        width: H.
        settings: "charge_of" (each row's charge number, or `STATUTE`), "heads", "dropout", "shared" (one charge layer
            for all), and with "graph" the "counts" of each row.
    """

    def __init__(self, width: int, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.charge_of: torch.Tensor
        self.register_buffer("charge_of", torch.tensor(settings["charge_of"], dtype=torch.long))
        self.width, self.shared = width, bool(settings["shared"])
        self.graph: ChainGraph | None = None
        self.attention: nn.MultiheadAttention | None = None
        if settings["graph"]:
            self.graph = ChainGraph(width, torch.tensor(settings["counts"], dtype=torch.long))
        else:
            self.attention = nn.MultiheadAttention(width, settings["heads"], settings["dropout"], batch_first=True)
        self.drop = nn.Dropout(settings["dropout"])
        self.first, self.first_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.second = nn.Linear(width, width)
        layers = 1 if self.shared else max(0, *settings["charge_of"]) + 1
        self.charges = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.charge_norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, width)
        self.fusion, self.fusion_norm = nn.Linear(2 * width, width), nn.LayerNorm(width)

    def forward(self, rows: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """float32 [n, H] from table rows int64 [n] and their vectors float32 [n, w]."""
        X = vectors.unflatten(-1, (-1, self.width))  # [n, 3, H], or a graph's grid
        o = self.pooled(rows, X)
        t = self.second(self.drop(torch.relu(self.first_norm(self.first(o)))))
        u = self.drop(self.charge_norm(self._own_layer(rows, t)))
        v = torch.sigmoid(self.gate(u)) * u
        e = self.drop(self.fusion_norm(self.fusion(torch.cat([o, v], -1))))
        return torch.where((self.charge_of[rows] == STATUTE)[:, None], X[:, 0], e)

    def pooled(self, rows: torch.Tensor, X: torch.Tensor) -> torch.Tensor:
        """o of each chain: float32 [n, H]."""
        if self.graph is not None:
            return self.graph(rows, X)
        assert self.attention is not None
        return (X + self.attention(X, X, X, need_weights=False)[0]).mean(1)

    def _own_layer(self, rows: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if self.shared:
            return self.charges[0](t)
        number = self.charge_of[rows].clamp(min=0)
        out = torch.zeros_like(t)
        for k in number.unique().tolist():  # never a [n, H, H] gather: W is large
            mine = (number == k).nonzero().squeeze(-1)
            out = out.index_copy(0, mine, self.charges[k](t[mine]).to(out.dtype))
        return out

    def reset_parameters(self, scale: float) -> None:
        """First weights: torch's own, but that e starts as LN(o) at `scale`, the root mean square of its output.

        o is close to the mean of the chain's own words then, which the decoder can read as it reads words.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, nn.MultiheadAttention):
                module._reset_parameters()
            elif isinstance(module, ChainGraph):
                nn.init.normal_(module.relation, std=self.width**-0.5)
        with torch.no_grad():
            self.fusion.weight[:, : self.width] = torch.eye(self.width)
            self.fusion.weight[:, self.width :] *= 0.1
            self.fusion.bias.zero_()
            self.fusion_norm.weight.fill_(scale)
            if self.attention is not None:
                self.attention.out_proj.weight.mul_(0.1)


class ChainConfig(SoftTokensConfig):
    """Configuration of `ChainModel`: a type of its own, so that whoever loads a folder of one gets its encoding too."""

    model_type = "arbiter_chains"


class ChainModel(SoftTokens):
    """A decoder that reads the chains of the charges its prompts name."""

    config_class = ChainConfig
    encoder: Any

    def build_encoder(self, config: Any) -> nn.Module:
        return ChainAwareEncoding(config.width, config.encoder)

    @classmethod
    def of(
        cls,
        decoder: Any,
        tokenizer: Any,
        provisions: Provisions,
        *,
        shared: bool = False,
        graph: bool = False,
        heads: int = 8,
        dropout: float = 0.1,
        precision: Any = "fp32",
        seed: int = 0,
    ) -> Self:
        """A new encoding between charges and a pretrained decoder.

        Args:
            decoder: folder, hub name, or a causal language model.
            provisions: each charge's chains, or its statute's text.
            shared: one charge layer for all: for charges that training has not seen.
            graph: o from the logic graph in place of the attention.
            seed: of the encoding's first weights.

        Raises:
            DataError: a charge has neither chains nor text; or the decoder's width is no multiple of `heads`.
        """
        from transformers import PreTrainedModel

        from launch.models import load_causal_lm

        body: Any = decoder if isinstance(decoder, PreTrainedModel) else load_causal_lm(decoder, precision)
        words = body.get_input_embeddings()
        width = words.embedding_dim
        if width % heads:
            raise DataError(f"width {width} of the decoder is no multiple of {heads} attention heads; set heads")
        known = ChainEncoder(words, tokenizer, graph).fit(provisions)
        settings = {"heads": heads, "dropout": dropout, "shared": shared, "graph": graph, **_row_facts(known)}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = cls.from_decoder(body, known.table(), "identity", width=width, encoder=settings, seed=seed)
            model.encoder.reset_parameters(float(words.weight.detach().float().square().mean().sqrt()))
        return model

    @torch.no_grad()
    def encode(self, charge: str) -> torch.Tensor:
        """The soft tokens of a charge: float32 [n, H]. Raises DataError for one that it does not know."""
        if charge not in self.spans:
            raise DataError(f"charge {charge!r} is not among the {len(self.spans)} that this model reads")
        rows = torch.arange(*self.spans[charge], device=self.table.device)
        return self.projector(self.vectors(rows))


def register() -> None:
    """Make AutoConfig and AutoModel know `ChainModel` (entry point of group ``arbiter.models``)."""
    AutoConfig.register(ChainConfig.model_type, ChainConfig, exist_ok=True)
    AutoModel.register(ChainConfig, ChainModel, exist_ok=True)


def _row_facts(known: ChainEncoder) -> dict[str, Any]:
    """Charge number and part counts of every row of the table."""
    most = known.grid[0]
    charge_of: list[int] = []
    counts: list[list[int]] = []
    number = 0
    for shapes in known.shapes.values():
        chained = shapes != [[]]
        charge_of += [number if chained else STATUTE] * len(shapes)
        counts += [shape + [0] * (most - len(shape)) for shape in shapes]
        number += chained
    return {"charge_of": charge_of, **({"counts": counts} if known.graph else {})}
