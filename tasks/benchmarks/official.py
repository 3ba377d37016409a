"""Official judge prompts: read from the official package or from the user's copy, and checked by SHA-256.

None is shipped or paraphrased here, because a reworded prompt gives another benchmark's numbers.

    AlpacaEval    the installed package `alpaca_eval`, or its file alpaca_eval_clf.txt
    Arena-Hard    a checkout of arena-hard-auto (utils/judge_utils.py is read, not run; config/arena-hard-v2.0.yaml);
                  for v0.1's own rules an older one (config/judge_config.yaml; gen_judgment.py is read, not run)
    MT-Bench      FastChat's judge_prompts.jsonl
    RewardBench   reward-bench's rewardbench/generative_v2.py, or a checkout with it (read, not run)
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Mapping
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


ARENA_TEMPLATE_V01 = "b0260904bc964e0d07d20581309c53fce4879159080fee42d8c91f8a80c48df4"
ARENA_GO_ON = "b563c9a80bd3c96893a5150b280d4d58dd5f9a0fd067f899a004051b1d4ad816"
REWARDBENCH = {
    "ranking": "eb02ccf15704d1a90fdf9b2f574775ee4d45f9276843cca8aa238635ca0b4a14",
    "ratings": "dd94ed65b24c00d411e65e8a671611ed2cba7154e97ff457b96183112b99ee14",
    "ties": "86b62377fd01e9697fd87f04ef6d1163ee694a006b838d532d1866267d9722b4",
}


def fill(template: str, filling: Mapping[str, str]) -> str:
    """Fill the places {name} that `filling` names, all in one pass: a place written inside an answer stays text."""
    places = re.compile(r"\{(" + "|".join(map(re.escape, filling)) + r")\}")
    return places.sub(lambda found: filling[found.group(1)], template)


@dataclass(frozen=True)
class ArenaPrompts:
    """What Arena-Hard's judge is told."""

    system: Mapping[str, str]
    """By category."""
    template: str
    """With the places {QUESTION}, {ANSWER_A} and {ANSWER_B}."""
    sha256: str
    go_on: str = ""
    """v0.1 alone: what a judge is told whose reply holds no label."""


@dataclass(frozen=True)
class RewardPrompts:
    """What RewardBench 2's judges are told."""

    system: str
    """Of a ranking judge; a rating judge has none."""
    ranking: str
    """With the places {question} and {answer_a} to {answer_d}."""
    ratings: str
    """With the places {prompt} and {completion}."""
    ties: str
    """The same, for rows of Ties."""
    sha256: str


def alpaca_template(path: str | Path | None, others: bool = False) -> tuple[str, str]:
    """(template, its SHA-256). Without a path, the installed package's.

    Args:
        others: accept another text; the number is then no AlpacaEval number, and the digest says so.

    Raises:
        ConfigError: no path and no package, or another text.
    """
    path = alpaca_template_path(path)
    raw = path.read_bytes()
    digest = check(raw, ALPACA_EVAL, str(path), others)
    return raw.decode("utf-8"), digest


def alpaca_template_path(path: str | Path | None) -> Path:
    """`path`, or the installed package's file. Raises ConfigError if there is neither."""
    if path is not None:
        return Path(path)
    package = find_spec("alpaca_eval")
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            "the judge prompt of AlpacaEval is not at hand; pip install alpaca-eval==0.6.6, or pass its file "
            "alpaca_eval_clf.txt by --prompts"
        )
    folder = Path(package.submodule_search_locations[0]) / "evaluators_configs" / "alpaca_eval_clf_gpt4_turbo"
    return folder / "alpaca_eval_clf.txt"


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
    settings = constants(source).get("JUDGE_SETTINGS")
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
    told = [text for named in sorted(system.items()) for text in named]
    return ArenaPrompts(system, template, _together(*told, template))


def arena_prompts_v01(folder: str | Path, others: bool = False) -> ArenaPrompts:
    """Prompts of a checkout of v0.1's time (such as a06dde2), its places renamed to those of v2.0.

    Raises:
        ConfigError: a prompt that is not the official one.
        DataError: files that do not hold them.
    """
    import yaml

    config = Path(folder) / "config" / "judge_config.yaml"
    found = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    system, templates = found.get("system_prompt"), found.get("prompt_template")
    if not isinstance(system, str) or not isinstance(templates, list) or len(templates) != 1:
        raise DataError(
            f"{config}: no system_prompt with one prompt_template; pass a checkout of v0.1, such as a06dde2"
        )
    check(system.encode(), ARENA_SYSTEM["arena-hard-v0.1"], f"{config}, system_prompt", others)
    check(str(templates[0]).encode(), ARENA_TEMPLATE_V01, f"{config}, prompt_template", others)
    source = Path(folder) / "gen_judgment.py"
    said = [
        dict(zip((key.value for key in node.keys if isinstance(key, ast.Constant)), node.values, strict=False))
        for node in ast.walk(_parsed(source))
        if isinstance(node, ast.Dict)
    ]
    go_on = [row["content"].value for row in said if isinstance(row.get("content"), ast.Constant)]  # type: ignore[attr-defined]
    if len(go_on) != 1:
        raise DataError(f"{source}: {len(go_on)} requests to go on, not one; pass a checkout of v0.1, such as a06dde2")
    check(str(go_on[0]).encode(), ARENA_GO_ON, f"{source}, the request to go on", others)
    names = {"question_1": "{QUESTION}", "answer_1": "{ANSWER_A}", "answer_2": "{ANSWER_B}"}
    template = fill(str(templates[0]), names)
    return ArenaPrompts({"arena-hard-v0.1": system}, template, _together(system, template, go_on[0]), str(go_on[0]))


def rewardbench_prompts(path: str | Path, others: bool = False) -> RewardPrompts:
    """Prompts of RewardBench 2's generative script.

    Raises:
        ConfigError: a prompt that is not the official one.
        DataError: a file that does not hold them.
    """
    source = Path(path)
    source = source / "rewardbench" / "generative_v2.py" if source.is_dir() else source
    found = constants(source)
    ranking = found.get("MTBENCH_V2")
    rating = [found.get(name) for name in ("ratings_prompt", "ratings_prompt_ties")]
    if not isinstance(ranking, dict) or not all(isinstance(text, str) for text in rating):
        raise DataError(f"{source}: no MTBENCH_V2, ratings_prompt and ratings_prompt_ties; is this generative_v2.py?")
    system, template, (ratings, ties) = ranking["system_prompt"], ranking["prompt_template"], rating
    check(f"{system}\n{template}".encode(), REWARDBENCH["ranking"], f"{source}, MTBENCH_V2", others)
    check(str(ratings).encode(), REWARDBENCH["ratings"], f"{source}, ratings_prompt", others)
    check(str(ties).encode(), REWARDBENCH["ties"], f"{source}, ratings_prompt_ties", others)
    return RewardPrompts(system, template, str(ratings), str(ties), _together(system, template, ratings, ties))


def check(raw: bytes, official: str, what: str, others: bool) -> str:
    """The digest of `raw`, which must be the official one unless others are accepted."""
    digest = hashlib.sha256(raw).hexdigest()
    if digest != official and not others:
        raise ConfigError(
            f"{what} is not the official prompt (its sha256 is {digest}, wanted {official or 'of one known'}); "
            "take the official file, or pass --other-prompts and don't compare the numbers"
        )
    return digest


def token_counter(tokenizer: str | Path | None = None) -> Callable[[str], int]:
    """How Arena-Hard counts the tokens of an answer: by tiktoken's gpt-4o, or by the tokenizer of a model's folder.

    Raises:
        ConfigError: tiktoken is not installed, or has not its file at hand and can't fetch it.
    """
    if tokenizer is not None:
        from launch.models import load_tokenizer

        own = load_tokenizer(tokenizer)
        return lambda text: len(own(text, add_special_tokens=False)["input_ids"])
    try:
        import tiktoken

        encoding = tiktoken.encoding_for_model("gpt-4o")
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"tiktoken's gpt-4o, by which Arena-Hard counts tokens, is not at hand ({type(error).__name__}); set "
            "TIKTOKEN_CACHE_DIR to a folder that holds it, or count by another model's: --tokenizer FOLDER",
            field="tokenizer",
        ) from error
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def constants(path: Path) -> dict[str, Any]:
    """Top-level constants of a Python file, without running it; names may refer to earlier ones. What is computed is
    left out, unless a later constant needs it."""
    known: dict[str, Any] = {}

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name) and node.id in known:
            return known[node.id]
        if isinstance(node, ast.Dict):
            return {value(k): value(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
        raise LookupError

    for statement in _parsed(path).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                known[statement.targets[0].id] = value(statement.value)
            except LookupError:
                known.pop(statement.targets[0].id, None)
    return known


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise DataError(f"{path} line {error.lineno}: {error.msg}; is this the official file?") from error


def _together(*texts: Any) -> str:
    return hashlib.sha256("\n".join(map(str, texts)).encode()).hexdigest()
