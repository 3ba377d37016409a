"""Preference models over any Hugging Face backbone: Bradley-Terry, GPM and HRC as one class (see ``heads``).

    from align.preference import PreferenceModel
    model = PreferenceModel.from_backbone("google/gemma-2b-it", kind="hrc", dims=4)
    scores = model.score("Name a prime.", ["7", "8", "nine"])      # Scores: S, S_T, S_C, P, winner, nash, cyclicity

A checkpoint is a plain Hugging Face folder: config.json, model.safetensors, tokenizer files. Its config holds the
fingerprint of the tokenizer, chat template and length policy that the model was trained with, and tau; a model refuses
to score under another. States and heads are float32 whatever the backbone's dtype. Scores depend neither on padding
nor on the other rows of a batch: positions and masks are always passed. A causal backbone reads a prompt once for all
its answers (`launch.packing`), and `session` keeps it for answers that come later.

Left out: backbones with an own notion of padding (state-space and encoder-decoder models are refused), and GPM's
auxiliary SFT loss (hence no language-model head is kept).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from align.preference.backbone import backbone_tokenizer, pooling_of, positions_of
from align.preference.batch import layout_for, prompt_only, sequences
from align.preference.config import HEADS, Kind, Pooling, PreferenceConfig
from align.preference.encode import packed_heads, padded_heads
from align.preference.heads import CyclicHead, Gate, GateHead, RankHead, score_matrix
from align.preference.score import Scores, scores_of
from align.preference.session import Session
from launch.contracts import Prompt
from launch.errors import CheckpointError, RenderingError
from launch.logprob import positions
from launch.models import attention_for, load_backbone, load_tokenizer
from launch.packing import Layout, hidden_states
from launch.rendering import Renderer


@dataclass
class PreferenceOutput(ModelOutput):
    """Heads of N sequences and G prompts, before tau."""

    r: torch.Tensor | None = None
    """float32 [N]; zeros for gpm."""
    v: torch.Tensor | None = None
    """float32 [N, 2d]; [N, 0] for bt."""
    lambda_sq: torch.Tensor | None = None
    """float32 [G, d], one row for each of `gate_rows`."""


class PreferenceModel(PreTrainedModel):
    """r, v and lambda^2 heads over a backbone; scores K answers in K sequences. Fulfils ``launch.contracts.Scorer``."""

    config_class = PreferenceConfig
    config: PreferenceConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = list(HEADS)  # noqa: RUF012

    def __init__(self, config: PreferenceConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.backbone = AutoModel.from_config(config.backbone_config) if backbone is None else backbone
        hidden = config.hidden_size
        assert hidden is not None, "a PreferenceConfig without backbone_config builds no model"
        if config.kind in ("bt", "hrc"):
            self.rank_head = RankHead(hidden, config.delta if config.clip else None)
        if config.kind in ("gpm", "hrc"):
            self.cyclic_head = CyclicHead(hidden, config.dims, config.unit_norm)
            self.gate_head = GateHead(hidden, config.dims // 2, config.gate, config.lambda_sq_max)  # type: ignore[arg-type]
        self._renderer: Renderer | None = None
        self._checked: tuple[Any, ...] | None = None
        self._position_offset, self._takes_positions = positions_of(self.backbone)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        if isinstance(module, RankHead | CyclicHead | GateHead):
            module.reset()
        else:
            super()._init_weights(module)

    # ------------------------------------------------------------ making, saving, loading

    @classmethod
    def from_backbone(
        cls,
        name_or_path: str | Path,
        kind: Kind = "hrc",
        dims: int = 4,
        tau: float = 0.1,
        delta: float = 5.0,
        c1: float = 1.0,
        c2: float = 1.0,
        gate: Gate | None = None,
        lambda_sq_max: float = 10.0,
        unit_norm: bool = True,
        clip: bool = True,
        pooling: Pooling | None = None,
        max_length: int = 2048,
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
        quantization: Literal["none", "4bit"] = "none",
        attention: str | None = None,
        seed: int = 0,
    ) -> PreferenceModel:
        """New heads on a pretrained backbone; a causal LM's own head is dropped.

        Args:
            name_or_path: folder or hub name of any causal or bidirectional encoder.
            kind: "bt" (r), "gpm" (v and gate), "hrc" (all three).
            dims: 2d, width of the cyclic embedding (ignored by bt).
            tau: temperature that divides the whole score.
            delta: bound of r.
            c1: weight of the ranking part.
            c2: weight of the cyclic part.
            gate: None means softplus for hrc, softmax for gpm; see ``heads``.
            lambda_sq_max: cap of lambda^2 (softplus and scalar gates).
            unit_norm: whether v has length 1.
            clip: whether r is clipped to delta.
            pooling: None finds out: last real token for causal backbones, masked mean for bidirectional ones.
            max_length: tokens of prompt and answer together, cut on the right; never above what the backbone can.
            precision: dtype of the backbone's weights; heads stay float32.
            quantization: "4bit" loads the backbone through bitsandbytes (GPU only).
            attention: attention kernel, see ``launch.models.load_causal_lm``.
            seed: draws the heads' first weights.

        Raises:
            ConfigError: options that mean nothing together, or a backbone of no known kind.
            CheckpointError: the backbone cannot be loaded.
        """
        backbone = load_backbone(name_or_path, precision, quantization, attention)
        tokenizer = backbone_tokenizer(name_or_path)
        config = PreferenceConfig(
            backbone_config=backbone.config,
            kind=kind,
            dims=dims,
            tau=float(tau),
            delta=float(delta),
            c1=float(c1),
            c2=float(c2),
            gate=gate or ("softmax" if kind == "gpm" else "softplus"),
            lambda_sq_max=float(lambda_sq_max),
            unit_norm=unit_norm,
            clip=clip,
            pooling=pooling or pooling_of(backbone.config),
            dtype=backbone.dtype,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = cls(config, backbone)
            for name in model.train_whole:
                getattr(model, name).reset()
        longest = getattr(backbone.config.get_text_config(), "max_position_embeddings", None) or max_length
        model.use(Renderer(tokenizer, min(max_length, longest - model._position_offset), cut="right", end="force"))
        return model

    def use(self, renderer: Renderer) -> None:
        """Read text through `renderer` from now on. A model that has a fingerprint refuses any other rendering.

        Raises:
            RenderingError: the renderer gives other tokens than those the model was trained with.
        """
        renderer.tokenizer("")  # brings the tokenizer's truncation and padding state to what encoding leaves behind
        if self.config.rendering is None:
            self.config.rendering = {**renderer.fingerprint(), "tau": self.config.tau}
        else:
            renderer.check(self.config.rendering)
        self._renderer, self._checked = renderer, _cheap(renderer)

    @property
    def renderer(self) -> Renderer:
        """How text becomes tokens. Raises RenderingError if it is not what the model was trained with, or missing."""
        if self._renderer is None:
            raise RenderingError("this model has no tokenizer; load it from a folder that has one, or call model.use")
        if _cheap(self._renderer) != self._checked:
            self._renderer.check(self.config.rendering or {})
        if (self.config.rendering or {}).get("tau", self.config.tau) != self.config.tau:
            trained = (self.config.rendering or {})["tau"]
            raise RenderingError(f"this model was trained at tau {trained}, not {self.config.tau}; leave tau as saved")
        return self._renderer

    def save_pretrained(self, save_directory: Any, is_main_process: bool = True, **kwargs: Any) -> None:  # type: ignore[override]
        """Config, safetensors weights and tokenizer files into one folder."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process and self._renderer is not None:
            self.renderer.tokenizer.save_pretrained(str(save_directory))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a saved preference model with its tokenizer.

        Raises:
            CheckpointError: unreadable, half-written, or not a preference model's.
            RenderingError: the tokenizer beside the weights is not the one that the model was trained with.
        """
        path = pretrained_model_name_or_path
        wants_info = kwargs.pop("output_loading_info", False)
        try:
            config = kwargs.pop("config", None) or PreferenceConfig.from_pretrained(path)
            if not isinstance(config, PreferenceConfig) or config.backbone_config is None:
                raise CheckpointError(f"{path} holds no preference model; start one with PreferenceModel.from_backbone")
            kwargs.setdefault("attn_implementation", attention_for(config.backbone_config))  # type: ignore[arg-type]
            kwargs.setdefault("use_safetensors", True)
            loaded: Any = super().from_pretrained(path, *args, config=config, output_loading_info=True, **kwargs)
        except (OSError, ValueError, RuntimeError, _safetensor_error()) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"cannot load a preference model from {str(path)!r}: {first}") from error
        model, info = loaded
        if info["missing_keys"]:
            some = sorted(info["missing_keys"])
            raise CheckpointError(f"{path} lacks {len(some)} weights, such as {some[0]}; it is not a whole checkpoint")
        saved = model.config.rendering
        if saved is not None and (Path(path) / "tokenizer_config.json").exists():
            model.use(Renderer(load_tokenizer(path), saved["max_length"], saved["cut"], saved["end"]))
        return (model, info) if wants_info else model

    @property
    def train_whole(self) -> tuple[str, ...]:
        """Modules that are trained in full beside adapters."""
        return tuple(name for name in HEADS if hasattr(self, name))

    # ------------------------------------------------------------ from tokens to heads

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        gate_rows: torch.Tensor | None = None,
        gate_positions: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        tree: torch.Tensor | None = None,
        branch: torch.Tensor | None = None,
        ends: torch.Tensor | None = None,
        gates: torch.Tensor | None = None,
        **_: Any,
    ) -> PreferenceOutput:
        """Heads of N sequences and of the prompts of G groups, from padded rows or, if there is `tree`, packed ones.

        Args:
            input_ids: int64 [N, T], padded on either side with any id; packed: [B, T].
            attention_mask: bool or int [N, T], true at real tokens, which lie together; None: all are real.
            gate_rows: int64 [G], which sequence each group's gate is read from.
            gate_positions: int64 [G], which real token of it, from 0 (mean pooling reads the whole row instead).
            position_ids: packed: int64 [B, T]; with `tree` and `branch` as in ``launch.packing.Packed``.
            tree: packed: int [B, T].
            branch: packed: int [B, T].
            ends: packed: int64 [N], place in the flattened rows (row * T + column) of each sequence's last token.
            gates: packed: int64 [G], place of the token that each group's gate is read from.
        """
        h_x: torch.Tensor | None
        if tree is not None:
            assert position_ids is not None and branch is not None and ends is not None
            read = ends if gates is None else torch.cat((ends, gates))
            states = hidden_states(self.backbone, input_ids, position_ids, tree, branch, read).flatten(0, 1)
            h_y, h_x = states[ends].float(), None if gates is None else states[gates].float()
        else:
            h_y, h_x = self._padded_states(input_ids, attention_mask, gate_rows, gate_positions)
        lambda_sq = None
        if h_x is not None:
            lambda_sq = self.gate_head(h_x) if self.config.kind != "bt" else h_x.new_zeros(len(h_x), 0)
        r = self.rank_head(h_y) if self.config.kind != "gpm" else h_y.new_zeros(len(h_y))
        v = self.cyclic_head(h_y) if self.config.kind != "bt" else h_y.new_zeros(len(h_y), 0)
        return PreferenceOutput(r=r, v=v, lambda_sq=lambda_sq)

    def _padded_states(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        gate_rows: torch.Tensor | None,
        gate_positions: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """float32 [N, H] of the sequences and [G, H] of the prompts."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        extra: dict[str, Any] = {}
        if self._takes_positions:
            extra["position_ids"] = positions(mask) + self._position_offset
        if self.config.pooling == "last":
            extra["use_cache"] = False
        hidden = self.backbone(input_ids=input_ids, attention_mask=mask, **extra).last_hidden_state  # [N, T, H]
        rows = torch.arange(len(hidden), device=hidden.device)
        first = mask.argmax(-1)
        if self.config.pooling == "last":
            h_y = hidden[rows, first + mask.sum(-1) - 1].float()  # [N, H]
        else:
            h_y = (hidden.float() * mask[..., None]).sum(1) / mask.sum(-1, keepdim=True)
        if gate_rows is None:
            return h_y, None
        if self.config.pooling == "mean":
            return h_y, h_y[gate_rows]
        assert gate_positions is not None
        return h_y, hidden[gate_rows, first[gate_rows] + gate_positions].float()

    # ------------------------------------------------------------ from text to scores

    def score(self, prompt: Prompt, responses: Sequence[str], batch_size: int = 16) -> Scores:
        """Judge K >= 1 answers in one pass over the prompt and K over their own tokens. Equal answers score exactly 0.

        Raises:
            DataError: no answers, an answer that is not text, or states that are not finite.
            RenderingError: the tokenizer, template, length policy or tau is not the one trained with.
        """
        return self.score_many([(prompt, responses)], batch_size)[0]

    @torch.no_grad()
    def score_many(
        self, groups: Sequence[tuple[Prompt, Sequence[str]]], batch_size: int = 16, packing: Layout = "shared"
    ) -> list[Scores]:
        """`score` for several (prompt, answers) groups, in their order.

        Args:
            groups: prompts, each with its answers.
            batch_size: sequences per forward; packed, as many tokens as so many sequences of the greatest length here
                have, a shared prompt counting once. Changes no score.
            packing: see ``objective.PreferenceObjective``; changes no score.
        """
        plan = sequences(self.renderer, groups, self.config.pooling)  # type: ignore[arg-type]
        layout = layout_for(self.config, packing)
        if layout == "padded":
            r, v, gates = padded_heads(self, plan.ids, dict(enumerate(plan.gate_rows)), plan.gate_positions, batch_size)
        else:
            r, v, gates = packed_heads(self, plan, batch_size, layout == "shared")
        return scores_of(r, v, gates, plan.answers, self.config.c1, self.config.c2, self.config.tau)

    def compare(self, embeddings: Sequence[dict[str, Any]], lambda_sq: Any) -> Scores:
        """Scores from cached `embed` results of answers to one prompt, and that prompt's `gate`: no forward at all."""
        tau, c = self.config.tau, self.config
        r = torch.tensor([float(e["r"]) for e in embeddings], dtype=torch.float64)
        v = torch.tensor(np.array([e["v"] for e in embeddings]), dtype=torch.float64).reshape(len(r), c.dims)
        weight = torch.tensor(np.asarray(lambda_sq), dtype=torch.float64)
        S_T, S_C = score_matrix(r, v, weight, c.c1, c.c2)
        return Scores(
            (S_T / tau).numpy(), (S_C / tau).numpy(), tau, r=r.numpy(), vectors=v.numpy(), lambda_sq=weight.numpy()
        )

    def session(self, prompt: Prompt) -> Session:
        """A prompt read once, to which answers are added one by one: each costs a pass over its own tokens."""
        return Session(self, prompt)

    @torch.no_grad()
    def embed(self, prompt: Prompt, response: str) -> dict[str, Any]:
        """{"r": float, "v": float32 [2d]} of one answer, to `compare` later (`session` is cheaper for many)."""
        plan = sequences(self.renderer, [(prompt, [response])], self.config.pooling)  # type: ignore[arg-type]
        r, v, _ = padded_heads(self, plan.ids[:1], {}, [], 1)
        return {"r": float(r[0]), "v": v[0]}

    @torch.no_grad()
    def gate(self, prompt: Prompt) -> np.ndarray:
        """lambda^2 of a prompt, float32 [d]: how much each plane of cycles counts there."""
        ids = prompt_only(self.renderer, prompt)
        return padded_heads(self, [ids], {0: 0}, [len(ids) - 1], 1)[2][0]


def register() -> None:
    """Make AutoConfig and AutoModel know preference models (the entry point, and `import align.preference`)."""
    AutoConfig.register(PreferenceConfig.model_type, PreferenceConfig, exist_ok=True)
    AutoModel.register(PreferenceConfig, PreferenceModel, exist_ok=True)


def _cheap(renderer: Renderer) -> tuple[Any, ...]:
    """What can be compared at every call; the full fingerprint hashes the whole vocabulary."""
    t = renderer.tokenizer
    return (
        id(t),
        len(t),
        t.chat_template,
        t.bos_token_id,
        t.eos_token_id,
        renderer.max_length,
        renderer.cut,
        renderer.end,
    )


def _safetensor_error() -> type[Exception]:
    from safetensors import SafetensorError

    return SafetensorError
