"""Official judge prompts: read from the official package or from the user's copy, and checked by SHA-256.

None is shipped or paraphrased here, because a reworded prompt gives another benchmark's numbers.

    AlpacaEval   the installed package `alpaca_eval`, or its file alpaca_eval_clf.txt
    Arena-Hard   a checkout of arena-hard-auto (utils/judge_utils.py is read, not run; config/arena-hard-v2.0.yaml)
    MT-Bench     FastChat's judge_prompts.jsonl
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from launch.errors import ConfigError, DataError
from tasks.benchmarks.files import Row, index_by, read_rows

ALPACA_EVAL = "784227e6dc2832fc08c43d2c8ea3a308e7523780187a1aaad2f85e30bac85f62"
MT_BENCH = "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6"
ARENA_TEMPLATE = "80fb20ab2eaae6d38a19f707f3f051f0456bcb977b0086bebe15f9bd23ce45f8"
ARENA_SYSTEM = {
    **dict.fromkeys(
        ("hard_prompt", "coding", "math", "arena-hard-v0.1"),
        "03f68010febd7a6405102ef882b4dd5a9700c56b2e1ff286d3b38f5d3a929bbf",
    ),
    "creative_writing": "171489efbca7f19fb520e1b3c23783c76af7c723e770fe897a55f391684aa358",
}


@dataclass(frozen=True)
class ArenaPrompts:
    """What Arena-Hard's judge is told."""

    system: Mapping[str, str]
    """By category."""
    template: str
    """With the places {QUESTION}, {ANSWER_A} and {ANSWER_B}."""
    sha256: str


def alpaca_template(path: str | Path | None, others: bool = False) -> tuple[str, str]:
    """(template, its SHA-256). Without a path, the installed package's.

    Args:
        others: accept another text; the number is then no AlpacaEval number, and the digest says so.

    Raises:
        ConfigError: no path and no package, or another text.
    """
    if path is None:
        package = find_spec("alpaca_eval")
        if package is None or not package.submodule_search_locations:
            raise ConfigError(
                "the judge prompt of AlpacaEval is not at hand; pip install alpaca-eval==0.6.6, or pass its file "
                "alpaca_eval_clf.txt by --prompts"
            )
        folder = Path(package.submodule_search_locations[0]) / "evaluators_configs" / "alpaca_eval_clf_gpt4_turbo"
        path = folder / "alpaca_eval_clf.txt"
    raw = Path(path).read_bytes()
    digest = check(raw, ALPACA_EVAL, str(path), others)
    return raw.decode("utf-8"), digest


def mt_bench_prompts(path: str | Path, others: bool = False) -> tuple[dict[str, Row], str]:
    """(prompts by name, SHA-256 of the file)."""
    digest = check(Path(path).read_bytes(), MT_BENCH, str(path), others)
    return index_by(read_rows(path), "name", str(path)), digest


def arena_prompts(folder: str | Path, others: bool = False) -> ArenaPrompts:
    """Prompts of a checkout of arena-hard-auto (v2.0 layout, which holds v0.1's as a category).

    Raises:
        ConfigError: a prompt that is not the official one.
        DataError: files that do not hold them.
    """
    import yaml

    source = Path(folder) / "utils" / "judge_utils.py"
    settings = _constants(source).get("JUDGE_SETTINGS")
    if not isinstance(settings, dict):
        raise DataError(f"{source}: no JUDGE_SETTINGS; pass the folder of an arena-hard-auto checkout (v2.0)")
    system = {category: str(setting["system_prompt"]) for category, setting in settings.items()}
    for category, text in system.items():
        check(text.encode(), ARENA_SYSTEM.get(category, ""), f"{source}, {category}", others)
    config = Path(folder) / "config" / "arena-hard-v2.0.yaml"
    template = (yaml.safe_load(config.read_text(encoding="utf-8")) or {}).get("prompt_template")
    if not isinstance(template, str):
        raise DataError(f"{config}: no prompt_template; pass the folder of an arena-hard-auto checkout (v2.0)")
    check(template.encode(), ARENA_TEMPLATE, str(config), others)
    together = "".join(f"{category}\n{text}\n" for category, text in sorted(system.items())) + template
    return ArenaPrompts(system, template, hashlib.sha256(together.encode()).hexdigest())


def check(raw: bytes, official: str, what: str, others: bool) -> str:
    """The digest of `raw`, which must be the official one unless others are accepted."""
    digest = hashlib.sha256(raw).hexdigest()
    if digest != official and not others:
        raise ConfigError(
            f"{what} is not the official prompt (sha256 {digest[:12]}…, official {official[:12] or 'unknown'}…); "
            "take the official file, or pass --other-prompts and don't compare the numbers"
        )
    return digest


def _constants(path: Path) -> dict[str, Any]:
    """Top-level constants of a Python file, without running it; names may refer to earlier ones."""
    known: dict[str, Any] = {}

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name) and node.id in known:
            return known[node.id]
        if isinstance(node, ast.Dict):
            return {value(k): value(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
        raise DataError(f"{path} line {node.lineno}: not a plain constant; is this the official file?")

    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise DataError(f"{path} line {error.lineno}: {error.msg}; is this the official file?") from error
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            known[statement.targets[0].id] = value(statement.value)
    return known
