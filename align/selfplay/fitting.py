"""One round's fit: a policy regressed on a `PairDataset`, written as a plain folder that any generator can load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.selfplay.objective import SelfPlayObjective, examples, objective_scale
from align.selfplay.pairs import PairDataset
from launch.generate.sampling import stable_hash
from launch.masks import kernel_of
from launch.packing import Layout
from launch.rendering import Renderer
from launch.runfolder import RunFolder

if TYPE_CHECKING:
    from align.selfplay.rounds import Config


def fit_policy(
    model: Any,
    tokenizer: Any,
    dataset: PairDataset,
    reference: Sequence[Sequence[float]],
    magnet: Sequence[Sequence[float]] | None,
    config: Config,
    run: RunFolder,
    name: str,
    t: int,
    layout: Layout = "shared",
) -> Path:
    """Regress `model` on one round's rows; returns the folder of the result. `layout`: see `SelfPlayObjective`."""
    from launch.trainer import fit

    renderer = Renderer(tokenizer, config.max_length, cut="prompt_left", end="keep")
    rows = examples(
        dataset.rows,
        reference,
        renderer,
        loss=config.loss,
        mode=config.mode,
        beta=config.beta,
        gamma=config.anchor,
        start=magnet,
    )
    k = len(dataset.rows[0]["responses"])
    scale = objective_scale(config.loss, config.mode, k)
    objective = SelfPlayObjective(scale, tokenizer.pad_token_id, layout=layout, kernel=kernel_of(model))
    result = fit(
        model,
        objective,
        rows,
        options=config.train,
        run=run,
        name=name,
        seed=stable_hash(config.run.seed, "train", t) % 2**31,
        tokenizer=tokenizer,
        report_to=config.run.report_to,
    )
    return result.folder


def save_merged(base: str, adapters: Path, target: Path, tokenizer: Any) -> None:
    """Write `base` with the adapters of a LoRA fit folded in: a plain folder, fp32, that any generator can load."""
    from peft import PeftModel

    from launch.models import load_causal_lm, merge_lora

    merge_lora(PeftModel.from_pretrained(load_causal_lm(base), str(adapters))).save_pretrained(target)
    tokenizer.save_pretrained(target)
