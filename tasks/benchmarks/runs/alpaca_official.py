"""What the official `alpaca_eval` package needs to go on from here, in ``OUT/official``.

    evaluate.sh              judges the same answers by the same judge
    evaluate_from_model.sh   also lets the model's server answer (where --model is a server)
    reference_outputs.json   the reference's answers, as far as they were asked for
    annotator/configs.yaml   the judge, like the official one
    model/configs.yaml       the model, and model/prompt.txt, how it is asked
    openai_configs.yaml      the judge's client; model/openai_configs.yaml the model's

Files are named by their whole paths: the package looks for relative ones beside its own configs, and takes the name of
a template for the template if it is not there.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from launch.endpoint import Endpoint
from launch.runfolder import write_text
from tasks.benchmarks import official
from tasks.benchmarks.sources import Options

TOP = 5
"""Likeliest tokens that the judge returns; a name that is not among them counts as impossible."""
ABOUT = "# The official package: pip install alpaca-eval==0.6.6 'scikit-learn<1.10'."
PROMPTS = {True: "{instruction}", False: "<|im_start|>user\n{instruction}\n<|im_end|>"}
"""How a model is asked that continues text, and one that takes chat."""


def write_official(options: Options, judge: str) -> None:
    """Write all of it, for the judge at ``options.judge``."""
    folder = (options.out / "official").resolve()
    _write_client(options, str(options.judge), folder / "openai_configs.yaml")
    _write_annotator(options, judge, folder)
    written = options.out / "results" / options.file_name(options.name) / "model_outputs.json"
    _write_script(options, folder / "evaluate.sh", "evaluate", {"model_outputs": written.resolve()})
    if options.is_server:
        _write_model(options, folder / "model")
        told = {"model_configs": folder / "model", "is_strip_output": False}
        _write_script(options, folder / "evaluate_from_model.sh", "evaluate_from_model", told)


def _write_client(options: Options, url: str, file: Path) -> None:
    client: dict[str, Any] = {"client_class": "openai.OpenAI", "base_url": url.rstrip("/").removesuffix("/v1") + "/v1"}
    if options.api_key_env is None:  # else the package's client takes OPENAI_API_KEY from the environment
        client["api_key"] = "none"
    _write_yaml(file, {"default": [client]})


def _write_annotator(options: Options, judge: str, folder: Path) -> None:
    parser = {"numerator_token": "m", "denominator_tokens": ["m", "M"], "is_binarize": False}
    annotator = {
        "prompt_template": str(official.alpaca_template_path(options.prompts).resolve()),
        "fn_completions": "openai_completions",
        "completions_kwargs": {
            **_completions(options, judge, folder / "openai_configs.yaml", chat=True),
            **{"max_tokens": 1, "temperature": 1, "logprobs": True, "top_logprobs": TOP},
        },
        "fn_completion_parser": "logprob_parser",
        "completion_parser_kwargs": parser,
        "completion_key": "completions_all",
        "batch_size": 1,
    }
    _write_yaml(folder / "annotator" / "configs.yaml", {f"weighted_{options.file_name(judge)}": annotator})


def _write_model(options: Options, folder: Path) -> None:
    """The model's server, asked as we asked it."""
    with Endpoint(options.model, options.api_key_env) as server:
        served = server.choose(options.model_name)
    _write_client(options, options.model, folder / "openai_configs.yaml")
    write_text(folder / "prompt.txt", PROMPTS[options.plain])
    model = {
        "prompt_template": str(folder / "prompt.txt"),
        "fn_completions": "openai_completions",
        "completions_kwargs": {
            **_completions(options, served, folder / "openai_configs.yaml", chat=not options.plain),
            **{"max_tokens": options.max_tokens, "temperature": options.temperature},
        },
        "pretty_name": options.name,
    }
    _write_yaml(folder / "configs.yaml", {options.name: model})


def _completions(options: Options, served: str, client: Path, chat: bool) -> dict[str, Any]:
    """Said, because the package guesses what a model takes from its name, and knows no other judges' prices."""
    price = options.prices[0] / 1e6
    told = {"model_name": served, "client_config_path": str(client), "requires_chatml": chat, "is_chat": chat}
    return {**told, "price_per_token": price}


def _write_script(options: Options, file: Path, function: str, words: dict[str, Any]) -> None:
    reference = "evaluation_dataset" if function == "evaluate_from_model" else "reference_outputs"
    told = {
        **words,
        reference: file.with_name("reference_outputs.json"),
        "annotators_config": file.with_name("annotator"),
        "output_path": file.with_suffix(""),
        **{"fn_metric": "get_winrate", "sort_by": "win_rate", "precomputed_leaderboard": None},
    }
    lines = [f"alpaca_eval {function}", *(f"--{key} {shlex.quote(str(value))}" for key, value in told.items())]
    key = "" if options.api_key_env is None else f'export OPENAI_API_KEY="${options.api_key_env}"\n'
    command = " \\\n  ".join(lines)
    write_text(file, f"#!/bin/sh\n{ABOUT}\n{key}mkdir -p {shlex.quote(str(file.with_suffix('')))}\n{command}\n")


def _write_yaml(file: Path, content: dict[str, Any]) -> None:
    import yaml

    write_text(file, yaml.safe_dump(content, sort_keys=False))
