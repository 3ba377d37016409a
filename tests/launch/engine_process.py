"""Run by test_generate_vllm.py as its own process: starts an engine, writes what it samples as JSON, then waits.

It waits so that the test can kill it and see what becomes of the engine.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from launch.contracts import Completion, Message, Sampling
from launch.generate import VLLMGenerator

PROMPTS: list[str | list[Message]] = [
    "Hello",
    "A longer prompt, with 35 characters",
    [{"role": "user", "content": "What is 2 plus 2?"}],
]
GREEDY = Sampling(max_new_tokens=24, temperature=0.0)
SAMPLED = Sampling(max_new_tokens=24, temperature=0.9, top_p=0.95, top_k=40, seed=11)
LONG = "The same seventy-odd characters stand in front of each of the three answers."


def plain(answers: list[list[Completion]]) -> Any:
    return [[dataclasses.asdict(answer) for answer in row] for row in answers]


def counted(generator: VLLMGenerator) -> dict[str, int]:
    """Prompt tokens by where they came from: computed, or shared from the cache."""
    return {
        metric.labels["source"]: metric.value
        for metric in generator._llm.get_metrics()
        if metric.name == "vllm:prompt_tokens_by_source"
    }


def main(model: str, other: str, folder: str, out: str) -> None:
    generator = VLLMGenerator(model, folder=folder, max_model_len=256, engine={"disable_log_stats": False})
    result: dict[str, Any] = {}
    result["greedy"] = plain(generator.generate(PROMPTS, 2, GREEDY))
    result["sampled"] = plain(generator.generate(PROMPTS, 3, SAMPLED))
    result["alone"] = plain(generator.generate(PROMPTS[1:2], 3, SAMPLED))
    result["other_seed"] = plain(generator.generate(PROMPTS, 3, dataclasses.replace(SAMPLED, seed=12)))
    before = counted(generator)
    generator.generate([LONG], 3, SAMPLED)
    result["counted"] = {source: count - before[source] for source, count in counted(generator).items()}
    generator.reload(other)
    result["reloaded"] = plain(generator.generate(PROMPTS, 2, GREEDY))
    Path(out).with_suffix(".part").write_text(json.dumps(result))
    Path(out).with_suffix(".part").replace(out)
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
