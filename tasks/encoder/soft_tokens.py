"""`SoftTokens`: a decoder that reads an encoder's vectors among its words.

A soft token is a token id. A decoder knows ids 0 to V - 1; here V + i stands for soft token i, and whatever embeds ids
embeds those by the projector (Linear-GELU-Linear as in LLaVA-1.5, arXiv 2310.03744). So all that takes token ids takes
soft tokens without knowing it: padded and packed batches, log-probabilities, any Objective, LoRA, sampling with a
cache, resume. The head still has V outputs: no soft token is ever sampled.

Left out: vLLM, which takes no ids beyond its vocabulary (sample with `HFGenerator`), and adapters on the input
embedding itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from launch.errors import CheckpointError, ConfigError, DataError, check_choice
from launch.generate.sampling import end_ids
from launch.models import Precision, attention_for, load_causal_lm
from launch.rendering import Cut, End
from launch.runfolder import write_json
from tasks.encoder.placeholders import SoftRenderer
from tasks.encoder.table import VectorTable

Projector = Literal["mlp", "linear", "identity"]
_ITEMS = "soft_items.json"


class SoftTokensConfig(PreTrainedConfig):
    """Configuration of `SoftTokens`: the decoder's, and the sizes of table and projector."""

    model_type = "arbiter_soft_tokens"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig}

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    rows: int = 0
    """Vectors in the table."""
    table_width: int = 0
    """Width of the table's vectors."""
    width: int = 0
    """d, width of what the projector reads: the table's, or the learning encoder's."""
    projector: str = "mlp"
    tokens: int = 1
    """Soft tokens made of each vector."""
    standardize: bool = False
    """Whether every column of the vectors is brought to mean 0 and variance 1 before anything reads it."""
    encoder: dict[str, Any] | None = None
    """Settings for `SoftTokens.build_encoder`."""

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.text_config, dict):
            name = self.text_config.get("model_type", "")
            self.text_config = AutoConfig.for_model(**{**self.text_config, "model_type": name})
        if isinstance(self.text_config, PreTrainedConfig):
            # Unsaid, the base class would set the sub-config's attention kernel to None.
            kwargs.setdefault("attn_implementation", self.text_config._attn_implementation)
        check_choice("projector", self.projector, Projector)
        if self.tokens < 1:
            raise ConfigError(f"tokens {self.tokens}: a vector makes 1 soft token or more")
        super().__post_init__(**kwargs)


class SoftTokens(PreTrainedModel):
    """A decoder that reads vectors at ids V and up. A causal language model to everything else in Arbiter.

    An encoder that shall learn along is a subclass's `build_encoder`; without one the table is read as it is.
    """

    config_class = SoftTokensConfig
    config: SoftTokensConfig
    base_model_prefix = "decoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = ["projector", "encoder", "table"]  # noqa: RUF012

    def __init__(self, config: SoftTokensConfig, decoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.decoder: Any = AutoModelForCausalLM.from_config(config.text_config) if decoder is None else decoder
        words: Any = self.decoder.get_input_embeddings()
        self.first_id = words.num_embeddings
        """V: ids from here on are soft tokens."""
        self.table: torch.Tensor
        self.register_buffer("table", torch.zeros(config.rows, config.table_width))
        if config.standardize:
            self.table_mean: torch.Tensor
            self.table_scale: torch.Tensor
            self.register_buffer("table_mean", torch.zeros(config.table_width))
            self.register_buffer("table_scale", torch.ones(config.table_width))
        self.encoder = self.build_encoder(config)
        self.projector = _projector(config, words.embedding_dim)
        self.spans: dict[str, tuple[int, int]] = {}
        self.generation_config = self.decoder.generation_config
        self._ids: torch.Tensor | None = None
        words.register_forward_pre_hook(self._hide)
        words.register_forward_hook(self._fill)
        self.post_init()

    def build_encoder(self, config: SoftTokensConfig) -> nn.Module | None:
        """An encoder that learns along: called with rows int64 [n] and their vectors float32 [n, table_width], it gives
        float32 [n, config.width]. None: the table's own vectors. Subclasses read their settings in ``config.encoder``.
        """
        return None

    @classmethod
    def from_decoder(
        cls,
        decoder: str | Path | PreTrainedModel,
        table: VectorTable,
        projector: Projector = "mlp",
        tokens: int = 1,
        width: int | None = None,
        standardize: bool = False,
        encoder: dict[str, Any] | None = None,
        precision: Precision = "fp32",
        seed: int = 0,
    ) -> Self:
        """A new projector between a table of vectors and a pretrained decoder.

        Args:
            decoder: folder, hub name, or a causal language model.
            table: the vectors, and the names under which prompts ask for them.
            projector: "mlp" (two layers), "linear", or "identity" (vectors are embeddings already).
            tokens: soft tokens made of each vector.
            width: d of a learning encoder's vectors; None: the table's.
            standardize: bring each column of the vectors to mean 0 and variance 1 first, by the rows of this table.
                The statistics are saved with the model and stay when it reads another table. Without it vectors that
                have much in common make soft tokens that hardly differ, and what tells them apart is learned late.
            encoder: settings for `build_encoder`.
            precision: of the decoder's weights; table and projector stay float32.
            seed: draws the projector's first weights.

        Raises:
            ConfigError: an identity between different widths.
            CheckpointError: the decoder cannot be loaded.
        """
        body: Any = decoder if isinstance(decoder, PreTrainedModel) else load_causal_lm(decoder, precision)
        rows, table_width = table.vectors.shape
        ends = sorted(end_ids(_NoEos, body.generation_config, body.config))
        config = cls.config_class(
            text_config=body.config,
            rows=rows,
            table_width=table_width,
            width=width or table_width,
            projector=projector,
            tokens=tokens,
            standardize=standardize,
            encoder=encoder,
            dtype=body.dtype,
        )
        config.eos_token_id = ends or None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = cls(config, body)
        model.read(table)
        if standardize:
            wide = torch.from_numpy(table.vectors).double()
            spread = wide.std(0, correction=0)
            varies = spread > 1e-6 * wide.square().mean(0).sqrt()  # else the spread is rounding, and 0 shall come out
            model.table_mean.copy_(wide.mean(0))
            model.table_scale.copy_(torch.where(varies, 1 / spread, 0))
        _match_size(model)
        return model

    def read(self, table: VectorTable) -> None:
        """Read the vectors of `table` from now on: other items, or the same ones encoded anew. Renderers that were made
        before follow.

        Raises:
            DataError: vectors of another width.
        """
        rows, width = table.vectors.shape
        if width != self.config.table_width:
            raise DataError(f"the table's vectors have width {width}, this model reads {self.config.table_width}")
        self.table = torch.from_numpy(np.ascontiguousarray(table.vectors)).to(self.table.device)
        self.config.rows, spans = rows, dict(table.spans)
        self.spans.clear()  # not a new dict: renderers hold this one
        self.spans.update(spans)

    def renderer(
        self, tokenizer: Any, max_length: int = 2048, cut: Cut = "prompt_left", end: End = "force"
    ) -> SoftRenderer:
        """Text with placeholders to token ids; `tokenizer` gets one more special token, `MARK`."""
        return SoftRenderer(tokenizer, self.spans, self.first_id, self.config.tokens, max_length, cut, end)

    @property
    def train_whole(self) -> tuple[str, ...]:
        """Modules that are trained in full beside adapters."""
        parts = {"projector": self.projector, "encoder": self.encoder}
        return tuple(name for name, part in parts.items() if part is not None and any(True for _ in part.parameters()))

    # ------------------------------------------------------------ ids to embeddings

    def vectors(self, rows: torch.Tensor) -> torch.Tensor:
        """Vectors of table rows as the projector reads them, float32 [n, width]; gradients reach a learning encoder.

        Raises:
            DataError: a row that the table does not have.
        """
        if len(rows) and int(rows.max()) >= len(self.table):
            raise DataError(
                f"soft token of row {int(rows.max())}, but the table has {len(self.table)} rows; render anew"
            )
        raw = self.table[rows]
        if self.config.standardize:
            raw = (raw - self.table_mean) * self.table_scale
        return raw if self.encoder is None else self.encoder(rows, raw)

    def _hide(self, words: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Before the decoder's own embedding: soft ids become id 0, and are kept for `_fill`."""
        ids = args[0]
        soft_ids = ids >= self.first_id
        self._ids = ids if bool(soft_ids.any()) else None
        return None if self._ids is None else (ids.masked_fill(soft_ids, 0), *args[1:])

    def _fill(self, words: Any, args: tuple[Any, ...], embedded: torch.Tensor) -> torch.Tensor | None:
        """After it: embeddings [..., D] of soft ids are the projected vectors."""
        if self._ids is None:
            return None
        ids, self._ids = self._ids, None
        where = ids >= self.first_id
        number = ids[where] - self.first_id
        rows, place = (number // self.config.tokens).unique(return_inverse=True)
        made = self.projector(self.vectors(rows)).unflatten(-1, (self.config.tokens, -1))  # [n, tokens, D]
        made = made[place, number % self.config.tokens] * getattr(words, "embed_scale", 1.0)  # Gemma 3 scales its words
        return embedded.masked_scatter(where[..., None], made.to(embedded.dtype))

    # ------------------------------------------------------------ a causal language model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The decoder's, with soft tokens among `input_ids`."""
        return self.decoder(*args, **kwargs)

    @property
    def base_model(self) -> Any:
        """The decoder without its head."""
        return self.decoder.base_model

    def get_input_embeddings(self) -> Any:
        return self.decoder.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return self.decoder.get_output_embeddings()

    # ------------------------------------------------------------ disk

    def save_pretrained(self, save_directory: Any, is_main_process: bool = True, **kwargs: Any) -> None:  # type: ignore[override]
        """Config, safetensors (decoder, table, projector) and the items' names into one folder."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            write_json(Path(save_directory) / _ITEMS, self.spans)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load what `save_pretrained` wrote.

        Raises:
            CheckpointError: unreadable, half-written, or another kind of model.
        """
        path = Path(pretrained_model_name_or_path)
        try:
            config = kwargs.pop("config", None) or cls.config_class.from_pretrained(path)
            if not isinstance(config, SoftTokensConfig) or config.text_config is None:
                raise CheckpointError(f"{path} holds no soft-token model; start one with {cls.__name__}.from_decoder")
            if config.encoder is not None and cls.build_encoder is SoftTokens.build_encoder:
                kind = (config.architectures or ["its own class"])[0]
                raise CheckpointError(f"{path} has an encoder that {cls.__name__} would leave out; load it by {kind}")
            kwargs.setdefault("attn_implementation", attention_for(config.text_config))  # type: ignore[arg-type]
            kwargs.setdefault("use_safetensors", True)
            wants_info = kwargs.pop("output_loading_info", False)
            loaded: Any = super().from_pretrained(path, *args, config=config, output_loading_info=True, **kwargs)
            model, info = loaded
            spans = json.loads((path / _ITEMS).read_text(encoding="utf-8"))
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"cannot load a soft-token model from {str(path)!r}: {first}") from error
        if info["missing_keys"]:
            some = sorted(info["missing_keys"])
            raise CheckpointError(f"{path} lacks {len(some)} weights, such as {some[0]}; it is not a whole checkpoint")
        model.spans = {name: (first, end) for name, (first, end) in spans.items()}
        return (model, info) if wants_info else model


def register() -> None:
    """Make AutoConfig and AutoModel know soft-token models (entry point of group ``arbiter.models``)."""
    AutoConfig.register(SoftTokensConfig.model_type, SoftTokensConfig, exist_ok=True)
    AutoModel.register(SoftTokensConfig, SoftTokens, exist_ok=True)


class _NoEos:
    """Stands for a tokenizer where only a model's own end tokens are asked for."""

    eos_token_id = None


def _projector(config: SoftTokensConfig, hidden: int) -> nn.Module:
    """[n, width] to [n, tokens x hidden]."""
    out = config.tokens * hidden
    if config.projector == "identity":
        if config.width != out:
            raise ConfigError(
                f"projector identity: vectors of width {config.width} are no {out} numbers; use linear or mlp"
            )
        return nn.Identity()
    if config.projector == "linear":
        return nn.Linear(config.width, out)
    return nn.Sequential(nn.Linear(config.width, hidden), nn.GELU(), nn.Linear(hidden, out))


@torch.no_grad()
def _match_size(model: SoftTokens) -> None:
    """Scale the projector's last layer so that soft tokens start as large as words: others drown or are drowned."""
    if isinstance(model.projector, nn.Identity):
        return
    last: Any = model.projector[-1] if isinstance(model.projector, nn.Sequential) else model.projector
    rows = torch.arange(min(len(model.table), 1024), device=model.table.device)
    made = model.projector(model.vectors(rows))
    words = model.get_input_embeddings().weight.float()
    scale = words.square().mean().sqrt() / made.square().mean().sqrt().clamp(min=1e-12)
    last.weight.mul_(scale)
    last.bias.mul_(scale)
