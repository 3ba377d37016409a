"""A toy objective on a tiny Llama, and the processes that train it: what the trainer's tests share.

Run as a module it is one rank of a job: ``python -m tests.launch.toy JOBS.json`` fits each job in turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from launch.contracts import Loss
from launch.options import LoraOptions, TrainOptions
from launch.runfolder import RunFolder

VOCABULARY = 32
REPOSITORY = Path(__file__).parents[2]


class NextToken:
    """Sum of next-token losses over real positions; rows have different lengths, so counts are uneven."""

    def collate(self, examples: Sequence[Sequence[int]]) -> dict[str, Any]:
        width = max(len(row) for row in examples)
        ids = torch.tensor([list(row) + [0] * (width - len(row)) for row in examples])  # [B, T]
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in examples])
        return {"ids": ids, "mask": mask, "count": float(mask[:, 1:].sum()), "tokens": float(mask.sum())}

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Loss:
        logits = model(input_ids=batch["ids"], attention_mask=batch["mask"]).logits[:, :-1].float()
        real = batch["mask"][:, 1:].bool()
        target = batch["ids"][:, 1:]
        losses = nn.functional.cross_entropy(logits[real], target[real], reduction="none")
        right = (logits.argmax(-1) == target)[real].float().sum()
        return Loss(losses.sum(), real.sum(), {"accuracy": right})


def llama(dropout: float = 0.0, seed: int = 0) -> Any:
    """A random two-layer Llama with tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        attention_dropout=dropout,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def rows(count: int = 22, seed: int = 0) -> list[list[int]]:
    """Random rows of 3 to 9 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 10, (count,), generator=generator).tolist()
    return [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def options(**changes: Any) -> TrainOptions:
    """Eight examples a step, three epochs of 22 examples (the last step of each is short), a fast schedule."""
    base: dict[str, Any] = {
        "learning_rate": 1e-2,
        "batch_size": 8,
        "epochs": 3,
        "save_steps": 2,
        "log_steps": 1,
        "warmup_ratio": 0.2,
    }
    if isinstance(changes.get("lora"), dict):
        changes["lora"] = LoraOptions(**changes["lora"])
    return TrainOptions(**{**base, **changes})


def fit_toy(
    folder: Path, model: Any = None, objective: Any = None, dropout: float = 0.0, diverge: bool = False, **changes: Any
) -> Any:
    """Fit the toy in `folder` and return (model, FitResult)."""
    from launch.trainer import fit

    model = llama(dropout) if model is None else model
    run = RunFolder(folder).open({}, 0)
    missing = int(os.environ.get("RANK", "0")) if diverge else 0
    result = fit(
        model,
        objective or NextToken(),
        rows(22 - missing),
        options=options(**changes),
        run=run,
        name="toy",
        seed=0,
        evaluate=rows(5, seed=1),
    )
    return model, result


def losses(folder: Path) -> list[float]:
    """The loss of every step, from metrics.jsonl."""
    return [row["loss"] for row in RunFolder(folder).metrics() if "loss" in row]


def flat(model: nn.Module) -> torch.Tensor:
    """All weights as one vector."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def environment(**extra: str) -> dict[str, str]:
    """A child's environment: this repository on the path, one thread, no hub, and no leftovers of another launch."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "ACCELERATE_USE_CPU")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **extra}


def launched(words: Sequence[str], seconds: int = 240, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m WORDS`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=REPOSITORY,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def main(file: Path) -> int:
    """Fit every job of a file; a refusal is printed as the command line would."""
    from launch.errors import ArbiterError
    from launch.runtime import is_main, leave, prepare_environment

    prepare_environment()
    for job in json.loads(file.read_text()):
        try:
            model, _ = fit_toy(Path(job.pop("folder")), **job)
        except ArbiterError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            if not job.get("go_on"):
                return error.exit_code
        else:
            if is_main():
                print(f"fitted {float(flat(model).double().sum())}")
    leave()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
