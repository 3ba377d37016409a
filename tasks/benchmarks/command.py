"""``arbiter eval BENCH``: answer, judge, score; official files at every step; killed runs go on where they were.

    arbiter eval alpaca_eval --model runs/mine/export --judge http://127.0.0.1:8001 --baseline model_outputs.json \\
        --out runs/alpaca --dry-run
    arbiter eval rewardbench --model runs/hrc/model --questions rewardbench2.jsonl --out runs/rb2

Prints the scores; ``OUT/scores.json`` holds them with what they rest on, ``OUT/report.html`` shows them. Several models
in one OUT are a leaderboard.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

_PATHS = {
    "baseline": "answers of the model to compare with (alpaca_eval, arena_hard; mt_bench: judges pairs)",
    "questions": "questions (rewardbench, arena_hard, mt_bench)",
    "prompts": "the official judge prompts: a file, for arena_hard the folder of a checkout",
    "references": "reference answers (mt_bench)",
    "difficulty": "instruction_difficulty.csv (alpaca_eval, for length control without regularisation)",
    "gamed": "the official df_gamed.csv (alpaca_eval, for length control)",
    "tokenizer": "a model whose tokenizer measures length for --style; default the official one, tiktoken's gpt-4o",
}


ANSWER_TOKENS = {"alpaca_eval": 2048, "arena_hard": 4096, "mt_bench": 1024, "rewardbench": 2048}
"""How long answers are, as officially; RewardBench generates none."""


def add_parser(commands: Any) -> None:
    """Add the subcommand (entry point of group ``arbiter.commands``)."""
    parser = commands.add_parser("eval", help="score a model on a benchmark, in the official formats")
    parser.add_argument("bench", choices=("rewardbench", "alpaca_eval", "arena_hard", "mt_bench"))
    parser.add_argument("--model", required=True, help="a file of answers, a server's http://… or a model's folder")
    parser.add_argument("--out", required=True, type=Path, help="folder for everything that is written")
    parser.add_argument(
        "--name", dest="called", help="the model's name in the files; default its file, folder or served name"
    )
    parser.add_argument("--judge", help="http://… of a judge, or (alpaca_eval) a preference model's folder")
    parser.add_argument("--judge-url", metavar="URL", help="where the exported preference model in --judge is served")
    parser.add_argument("--judge-model", help="the judge's name on its server; default the first served")
    parser.add_argument("--model-name", help="the model's name on its server; default the first served")
    for name, what in _PATHS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", help=what)
    parser.add_argument(
        "--other-prompts", action="store_true", help="accept judge prompts that are not the official ones"
    )
    parser.add_argument("--rules", choices=("v2.0", "v0.1"), default="v2.0", help="whose rules (arena_hard)")
    parser.add_argument(
        "--style", nargs="+", default=(), choices=("length", "markdown"), help="also score at equal style (arena_hard)"
    )
    parser.add_argument("--ratings", action="store_true", help="rate each answer, name no best one (rewardbench)")
    parser.add_argument("--plain", action="store_true", help="the model continues text, it takes no chat")
    parser.add_argument(
        "--engine", choices=("hf", "vllm"), default="hf", help="what samples from a folder of weights (default hf)"
    )
    parser.add_argument(
        "--against", metavar="NAME", help="the model that the page compares the others with; default the best"
    )
    parser.add_argument("--limit", type=int, help="first so many questions only")
    parser.add_argument("--max-tokens", type=int, help="per answer; default 2048, mt_bench 1024, arena_hard 4096")
    parser.add_argument("--temperature", type=float, default=0.0, help="of answers (mt_bench has its own)")
    parser.add_argument("--concurrency", type=int, default=16, help="requests at a time")
    parser.add_argument(
        "--budget", type=float, default=0.05, help="share of verdicts that may fail before the run stops"
    )
    parser.add_argument("--api-key-env", help="environment variable with the servers' key")
    parser.add_argument(
        "--prices", type=float, nargs=2, default=(0.0, 0.0), metavar="P", help="per million tokens, in out"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="show calls, tokens and cost, and ask for nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark, print, return the exit code."""
    from tasks.benchmarks.runs import run as run_benchmark
    from tasks.benchmarks.sources import Options

    given = {field.name: getattr(arguments, field.name) for field in fields(Options) if field.name != "name"}
    given |= {"prices": tuple(arguments.prices), "style": tuple(arguments.style)}
    given["max_tokens"] = arguments.max_tokens or ANSWER_TOKENS[arguments.bench]
    name = arguments.called or arguments.model_name or _name_of(arguments.model)
    result = run_benchmark(Options(**given, name=name))
    if arguments.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    elif "summary" in result:
        print(result["summary"])
    else:
        _show({key: value for key, value in result.items() if key != "provenance"})
    return 0


def _name_of(model: str) -> str:
    """The last part of a path or address, without the endings of answer files."""
    return re.sub(r"(\.jsonl?)?(\.gz)?$", "", Path(model.rstrip("/")).name)


def _show(result: dict[str, Any], indent: str = "") -> None:
    """Numbers and tables, one a line; the rest is in scores.json."""
    for key, value in result.items():
        if isinstance(value, dict):
            print(f"{indent}{key}")
            _show(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{indent}{key}")
            for row in value:
                print(f"{indent}  " + "  ".join(f"{name} {_text(cell)}" for name, cell in row.items() if _plain(cell)))
        else:
            print(f"{indent}{key} {_text(value)}")


def _plain(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
