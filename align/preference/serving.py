"""A trained preference model behind a vLLM server: what is exported, and the client that makes the game of it.

    arbiter serve runs/hrc/checkpoints/preference/final            # exports it, then starts vLLM
    served = ServedPreferenceModel("http://127.0.0.1:8000", "runs/hrc/checkpoints/preference/final-served")
    served.score("Name a prime.", ["7", "8", "nine"])              # as PreferenceModel.score, to 1e-3

vLLM's pooling runner gives W h of a sequence's last token for any `...ForSequenceClassification` model, in float32. So
the heads (see ``heads``) are exported as one score matrix, and no plugin is needed:

    W = [w_r; W_c; W_g]        1, 2d and d rows; a kind or gate without such a head has fewer

What comes behind the product (clip, unit norm, gate, tau, the game) is done here, by the modules of ``heads`` with the
identity in place of their matrices. A group is one request to /pooling: its answers, and the prompt for the gate.
Token ids are sent, so that the server reads exactly what `PreferenceModel` reads, and the number of tokens that it
counted is compared. Every request names the model by the fingerprint of its weights and settings, so that a server
under another model refuses it.

Left out: backbones that look both ways (vLLM pools their kind in other ways), and families outside `FAMILIES`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align.preference.batch import Sequences, sequences
from align.preference.config import HEADS, PreferenceConfig
from align.preference.encode import finite
from align.preference.heads import CyclicHead, GateHead, RankHead, score_matrix
from align.preference.model import PreferenceModel
from align.preference.score import Scores
from launch import checkpoint
from launch.contracts import Prompt
from launch.endpoint import Endpoint, ServerError, UnreachableError
from launch.errors import CheckpointError, ConfigError, RenderingError
from launch.models import load_tokenizer
from launch.rendering import Renderer
from launch.serve import SERVING, read_serving

FAMILIES = {
    "llama": "LlamaForSequenceClassification",
    "mistral": "MistralForSequenceClassification",
    "qwen2": "Qwen2ForSequenceClassification",
    "qwen3": "Qwen3ForSequenceClassification",
    "gemma": "GemmaForSequenceClassification",
    "gemma2": "Gemma2ForSequenceClassification",
    "gemma3_text": "Gemma3ForSequenceClassification",  # by this name vLLM knows the text model
}
"""Backbones whose export vLLM serves with the same scores, by model_type, and the architecture written for them."""

SETTINGS = (
    "kind", "dims", "tau", "delta", "c1", "c2", "gate", "lambda_sq_max", "unit_norm", "clip", "pooling", "rendering",
)  # fmt: skip


# ---------------------------------------------------------------- export


def score_rows(model: PreferenceModel) -> dict[str, torch.Tensor]:
    """The heads' matrices, float32 [rows, H] each, in the order in which the export stacks them."""
    found = {name: getattr(getattr(model, name, None), "weight", None) for name in HEADS}
    return {name: weight.detach().float() for name, weight in found.items() if weight is not None}


def fingerprint(model: PreferenceModel) -> str:
    """Name of a model's weights and settings: "preference-" and 16 hex digits. Reads all weights once."""
    digest = hashlib.sha256(json.dumps(_settings(model), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return f"preference-{digest.hexdigest()[:16]}"


def export_for_serving(model: PreferenceModel, target: str | Path, source: dict[str, Any] | None = None) -> Path:
    """Write `model` as a sequence classification model that vLLM (and transformers) load without this project.

    The backbone keeps its dtype; the score matrix is float32. Beside config.json, model.safetensors and the tokenizer
    stands arbiter_serving.json with the settings behind the matrix, the rendering fingerprint and tau; a client needs
    that file and the tokenizer only.

    Args:
        model: with a causal backbone of one of `FAMILIES`, not quantised.
        target: a new or empty folder, or an earlier export, which is replaced. Appears whole or not at all.
        source: what the model was loaded from, noted in the export (see `prepare`).

    Raises:
        ConfigError: a backbone that vLLM does not serve so.
        CheckpointError: something else is in the way, or the folder cannot be written.
        RenderingError: a model without its tokenizer.
    """
    from transformers import AutoModelForSequenceClassification

    target = Path(target)
    check_servable(model)
    if target.exists() and not (target / SERVING).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} is in the way and no earlier export; give another folder with --export")
    tokenizer = model.renderer.tokenizer
    rows = score_rows(model)
    config = copy.deepcopy(model.backbone.config)
    config.num_labels = sum(map(len, rows.values()))
    config.problem_type = "regression"  # plain numbers: vLLM puts no softmax on them, even if a request forgets to say
    with torch.device("meta"):
        whole = AutoModelForSequenceClassification.from_config(config)
    setattr(whole, whole.base_model_prefix, model.backbone)
    whole.score.weight = torch.nn.Parameter(torch.cat(list(rows.values())), requires_grad=False)
    needed = sum(p.numel() * p.element_size() for p in whole.parameters())
    told = {
        "served_as": fingerprint(model),
        "client": f"{ServedPreferenceModel.__module__}.{ServedPreferenceModel.__name__}",
        "max_length": model.renderer.max_length,
        "rows": {name: len(weight) for name, weight in rows.items()},
        "gate_bias": _gate_bias(model),
        "settings": _settings(model),
        "source": source,
    }
    with checkpoint.writing(target, needed) as out:
        whole.save_pretrained(out)
        tokenizer.save_pretrained(str(out))
        written = json.loads((out / "config.json").read_text())
        written["architectures"] = [FAMILIES[config.model_type]]
        (out / "config.json").write_text(json.dumps(written, indent=2))
        (out / SERVING).write_text(json.dumps(told, indent=1))
    return target


def prepare(source: Path, target: Path | None = None) -> Path:
    """The export of a saved preference model (entry point ``arbiter.servable``); made anew if the model has changed.

    Args:
        source: folder of `PreferenceModel.save_pretrained`.
        target: where the export goes; by default a folder beside `source` with "-served" behind its name.

    Raises:
        As `export_for_serving` and `PreferenceModel.from_pretrained` do.
    """
    target = target or source.with_name(f"{source.name}-served")
    files = [source / "config.json", *sorted(source.glob("*.safetensors")), *sorted(source.glob("tokenizer*"))]
    stamp = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()}
    earlier = read_serving(target)
    if earlier is not None and earlier.get("source") == stamp:
        return target
    return export_for_serving(PreferenceModel.from_pretrained(source), target, stamp)


def check_servable(model: PreferenceModel) -> None:
    """Raise ConfigError unless vLLM serves the model's backbone as a sequence classification model."""
    family = model.backbone.config.model_type
    if model.config.pooling != "last" or family not in FAMILIES:
        why = "looks both ways" if model.config.pooling != "last" else f"is none of {', '.join(FAMILIES)}"
        raise ConfigError(f"backbone {family!r} {why} and is not served by vLLM; score with PreferenceModel in process")
    if getattr(model.backbone, "is_quantized", False):
        raise ConfigError(f"backbone {family!r} is quantised; load the model with quantization 'none' and export that")


def _settings(model: PreferenceModel) -> dict[str, Any]:
    return {name: getattr(model.config, name) for name in SETTINGS}


def _gate_bias(model: PreferenceModel) -> list[float] | None:
    bias = getattr(getattr(model, "gate_head", None), "bias", None)
    return None if bias is None else bias.detach().float().tolist()


# ---------------------------------------------------------------- client


class ServedPreferenceModel:
    """Scores as the exported `PreferenceModel` does, through a server. Fulfils ``launch.contracts.Scorer``.

    Args:
        base_url: of a vLLM server that `arbiter serve` started, with or without /v1.
        folder: the export, or a copy of it without the weights.
        api_key_env: name of the environment variable with the key that a proxy in front of the server asks for.
        concurrency: groups under way at once in `score_many`.
        retries, timeout: see ``launch.endpoint.Endpoint``.

    Raises:
        CheckpointError: `folder` is no export.
        RenderingError: its tokenizer or tau is not what the model was trained with.
        ServerError: no server there, or one that serves another model or a shorter context.
    """

    def __init__(
        self,
        base_url: str,
        folder: str | Path,
        api_key_env: str | None = None,
        concurrency: int = 8,
        retries: int = 3,
        timeout: float = 600.0,
    ) -> None:
        self.folder = Path(folder)
        told = read_serving(self.folder)
        if told is None or "settings" not in told:
            raise CheckpointError(f"{folder} is no exported preference model ({SERVING} is missing); arbiter serve it")
        self.config = PreferenceConfig(**told["settings"])
        self.served_as: str = told["served_as"]
        self.renderer = _renderer(self.folder, self.config)
        self._rows: dict[str, int] = told["rows"]
        self._heads = _behind_the_matrix(self.config, told["gate_bias"])
        self._server = Endpoint(base_url, api_key_env, concurrency, retries, timeout)
        self.url, self.concurrency = self._server.url, concurrency
        self._check_server()

    def score(self, prompt: Prompt, responses: Sequence[str]) -> Scores:
        """Judge K >= 1 answers to one prompt. Equal answers score exactly 0.

        Raises:
            DataError: no answers, an answer that is not text, or numbers that are not finite.
            ServerError: the server is down, or serves another model by now.
        """
        return self.score_many([(prompt, responses)])[0]

    def score_many(self, groups: Sequence[tuple[Prompt, Sequence[str]]], batch_size: int = 16) -> list[Scores]:
        """`score` for several (prompt, answers) groups, in their order; several requests are under way at once.

        `batch_size` is taken so that calls fit `PreferenceModel.score_many` as well; the server makes its own batches.
        """
        plan = sequences(self.renderer, groups, "last")
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            jobs = [pool.submit(self._score_group, plan, number) for number in range(len(plan.answers))]
            return [job.result() for job in jobs]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def __enter__(self) -> ServedPreferenceModel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------ one group

    def _score_group(self, plan: Sequences, number: int) -> Scores:
        members = sorted(set(plan.answers[number]))
        ids = [plan.ids[member] for member in members]
        if "gate_head" in self._rows:  # the prompt as it stands in front of its first answer, and first for the cache
            ids.insert(0, plan.ids[plan.gate_rows[number]][: plan.gate_positions[number] + 1])
        r, v, lambda_sq = self._heads_of(self._pool(ids, f"group {number}"))
        where = [members.index(member) for member in plan.answers[number]]
        tau, c = self.config.tau, self.config
        S_T, S_C = score_matrix(r[where], v[where], lambda_sq, c.c1, c.c2)
        return Scores(
            (S_T / tau).numpy(),
            (S_C / tau).numpy(),
            tau,
            r=r[where].numpy(),
            vectors=v[where].numpy(),
            lambda_sq=lambda_sq.numpy(),
        )

    @torch.no_grad()
    def _heads_of(self, products: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """W h, float32 [(1 +) K, rows], to r [K], v [K, 2d] and lambda^2 [d], all float64."""
        part = dict(zip(self._rows, products.split(list(self._rows.values()), dim=-1), strict=True))
        gated = "gate_head" in self._rows
        K, planes = len(products) - gated, self.config.dims // 2
        r, v, lambda_sq = torch.zeros(K), torch.zeros(K, self.config.dims), torch.zeros(planes)
        if "rank_head" in part:
            r = self._heads["rank_head"](part["rank_head"][gated:])
        if "cyclic_head" in part:
            v = self._heads["cyclic_head"](part["cyclic_head"][gated:])
            lambda_sq = self._heads["gate_head"](part["gate_head"][0] if gated else torch.zeros(planes))
        values = finite(r.numpy(), v.numpy(), lambda_sq[None].numpy())
        r, v, lambda_sq = (torch.from_numpy(value).double() for value in values)
        return r, v, lambda_sq[0]

    # ------------------------------------------------------------ the server

    def _pool(self, ids: list[list[int]], what: str) -> torch.Tensor:
        """W h of each sequence's last token, float32 [len(ids), rows]; NaN where the server says null."""
        body = {
            "model": self.served_as,
            "input": ids,
            "use_activation": False,
            "add_special_tokens": False,
            "encoding_format": "float",
        }
        try:
            answer = self._server.json("POST", "/pooling", body, what)
        except UnreachableError as error:
            raise self._down(what, error) from error
        data = sorted(answer.get("data", []), key=lambda item: item["index"])
        sent, read = sum(map(len, ids)), answer.get("usage", {}).get("prompt_tokens")
        if len(data) != len(ids) or read != sent:
            raise ServerError(f"{what}: {self.url} read {read} tokens in {len(data)} rows, not {sent} in {len(ids)}")
        products = np.array([item["data"] for item in data], dtype=np.float32)
        if products.shape != (len(ids), sum(self._rows.values())):
            raise ServerError(f"{what}: {self.url} gave numbers of shape {products.shape}; is it a pooling server?")
        return torch.from_numpy(products)

    def _check_server(self) -> None:
        try:
            listed = {card["id"]: card for card in self._server.models()}
        except UnreachableError as error:
            raise self._down("models", error) from error
        if self.served_as not in listed:
            raise ServerError(
                f"{self.url} serves {', '.join(listed) or 'nothing'}, not {self.served_as}; "
                f"start the server of this model with: arbiter serve {self.folder}"
            )
        context = listed[self.served_as].get("max_model_len")
        if context is not None and context < self.renderer.max_length:
            raise ServerError(
                f"{self.url} reads {context} tokens, this model up to {self.renderer.max_length}; "
                "start it again without --max-model-len"
            )

    def _down(self, what: str, error: UnreachableError) -> ServerError:
        told = str(error.__cause__) or type(error.__cause__).__name__
        return ServerError(f"{what}: no server at {self.url} ({told}); start it with: arbiter serve {self.folder}")


def _renderer(folder: Path, config: PreferenceConfig) -> Renderer:
    """How text becomes the tokens that the model was trained with. Raises RenderingError if it would not."""
    saved = config.rendering
    if saved is None:
        raise RenderingError(f"{folder}/{SERVING} has no rendering; export the model again")
    renderer = Renderer(load_tokenizer(folder), saved["max_length"], saved["cut"], saved["end"])
    renderer.tokenizer("")  # brings the tokenizer's truncation and padding state to what encoding leaves behind
    renderer.check(saved)
    if saved.get("tau", config.tau) != config.tau:
        raise RenderingError(f"this model was trained at tau {saved['tau']}, not {config.tau}; leave tau as exported")
    return renderer


def _behind_the_matrix(config: PreferenceConfig, gate_bias: list[float] | None) -> dict[str, Any]:
    """The heads with the identity as their matrix: they take W h, which vLLM has computed, instead of h."""
    heads: dict[str, Any] = {}
    if config.kind in ("bt", "hrc"):
        heads["rank_head"] = RankHead(1, config.delta if config.clip else None)
    if config.kind in ("gpm", "hrc"):
        planes = config.dims // 2
        heads["cyclic_head"] = CyclicHead(config.dims, config.dims, config.unit_norm)
        heads["gate_head"] = GateHead(planes, planes, config.gate, config.lambda_sq_max)  # type: ignore[arg-type]
    with torch.no_grad():
        for head in heads.values():
            if hasattr(head, "weight"):
                head.weight.copy_(torch.eye(len(head.weight)))
        if gate_bias is not None:
            heads["gate_head"].bias.copy_(torch.tensor(gate_bias))
    return heads
