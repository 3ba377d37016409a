"""Configuration of a preference model: its backbone's, and the symbols of ``heads``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from transformers import AutoConfig, PreTrainedConfig

from align.preference.heads import Gate
from launch.errors import ConfigError, check_choice

Kind = Literal["bt", "gpm", "hrc"]
Pooling = Literal["last", "mean"]
"""State of a sequence: its last real token's (causal backbones), or the mean over its real tokens (bidirectional)."""

HEADS = ("rank_head", "cyclic_head", "gate_head")
"""Trained in full beside adapters."""


class PreferenceConfig(PreTrainedConfig):
    """Configuration of a `PreferenceModel`: the backbone's, and the symbols of ``heads``."""

    model_type = "arbiter_preference"
    sub_configs: ClassVar[dict[str, Any]] = {"backbone_config": AutoConfig}

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    kind: str = "hrc"
    dims: int = 4
    """2d, the width of the cyclic embedding; 0 for bt."""
    tau: float = 0.1
    """Temperature: divides the whole score."""
    delta: float = 5.0
    c1: float = 1.0
    c2: float = 1.0
    gate: str = "softplus"
    lambda_sq_max: float = 10.0
    unit_norm: bool = True
    clip: bool = True
    pooling: str = "last"
    rendering: dict[str, Any] | None = None
    """Fingerprint of what the model was trained with (`Renderer.fingerprint`, and tau)."""
    hidden_size: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.backbone_config, dict):
            name = self.backbone_config.get("model_type", "")
            self.backbone_config = AutoConfig.for_model(**{**self.backbone_config, "model_type": name})
        if isinstance(self.backbone_config, PreTrainedConfig):
            self.hidden_size = self.backbone_config.get_text_config().hidden_size
            # The base class sets a config's attention kernel on its sub-configs too; unsaid, that would be None, under
            # which a backbone that is already built runs without its padding mask.
            kwargs.setdefault("attn_implementation", self.backbone_config._attn_implementation)
        self.check()
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """Raise ConfigError for values that mean nothing together."""
        check_choice("kind", self.kind, Kind)
        check_choice("gate", self.gate, Gate)
        if self.kind == "bt":
            self.dims = 0
        elif self.dims < 2 or self.dims % 2:
            raise ConfigError(f"dims {self.dims} must be even and at least 2: two for each plane of a cycle", "dims")
        for name in ("tau", "delta", "lambda_sq_max"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)} must be above 0", name)
