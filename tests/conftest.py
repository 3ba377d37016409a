"""What all tests share: one thread, no hub, the data folder, and a tiny model.

Nothing is skipped. A test that needs what this machine lacks (the real data, a GPU) is deselected, and how many were is
said at the end.
"""

from __future__ import annotations

import gc
import os

# Before torch or transformers is imported anywhere.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.tiny import make_llama, make_tokenizer

# The same examples on every run: what is found by chance on one machine would be red for somebody else's change.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

DATA = Path(os.environ.get("ARBITER_DATA") or Path(__file__).parents[2] / "shared" / "data").resolve()
DESELECTED = pytest.StashKey[dict[str, int]]()
ONE_SERVER = {f"tests/launch/{name}.py" for name in ("test_generate_server", "test_generate_vllm", "test_judge_vllm")}
"""Files whose tests ask the same vLLM server: one worker gets them all, so that it is started once."""
LONG = (
    *sorted(ONE_SERVER),
    "tests/launch/test_distributed.py",
    "tests/reasoning/test_legal_recipe.py",
    "tests/reasoning/agent/test_train.py",
    "tests/test_configs.py",
    "tests/launch/test_checkpoint.py",
    "tests/reasoning/test_conflict_two_processes.py",
    "tests/align/preference/test_two_processes.py",
    "tests/align/preference/test_serving.py",
    "tests/align/selfplay/test_two_processes.py",
    "tests/align/selfplay/test_rounds.py",
    "tests/tasks/graph/test_user_encoder.py",
    "tests/reasoning/agent/test_models.py",
    "tests/align/selfplay/test_vllm_rounds.py",
    "tests/launch/test_tools_mcp.py",
)
"""Files of half a minute and more. They go first: one that is left to the end keeps a single worker busy."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot run here."""
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
    have_data = DATA.is_dir()
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    have_gpu = bool(gpu_items) and _have_gpu()
    lacking = {
        f"need the data folder (ARBITER_DATA, not found at {DATA})": [
            item for item in items if item.get_closest_marker("data") and not have_data
        ],
        "need a CUDA device": [item for item in gpu_items if not have_gpu],
    }
    config.stash[DESELECTED] = {why: len(dropped) for why, dropped in lacking.items() if dropped}
    dropped = {item for group in lacking.values() for item in group}
    if dropped:
        config.hook.pytest_deselected(items=list(dropped))
        items[:] = [item for item in items if item not in dropped]
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONG)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """transformers' Trainer collects garbage at the start of every fit, half a second where it has all that the test
    files import to look through. What is there by now stays anyway.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Libraries complain at the end about what is then still there."""
    gc.unfreeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As ``--dist loadfile``, and the files of `ONE_SERVER` together."""
    from xdist.scheduler import LoadFileScheduling

    class TogetherScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "one server" if file in ONE_SERVER else file

    return TogetherScheduling(config, log) if config.getoption("dist") == "loadfile" else None


class _Workers:
    """Under pytest-xdist the workers collect and the controller reports; every worker deselects the same tests."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["deselected"] = session.config.stash.get(DESELECTED, {})

    def pytest_testnodedown(self, node: Any) -> None:
        node.config.stash[DESELECTED] = getattr(node, "workeroutput", {}).get("deselected", {})


def pytest_configure(config: pytest.Config) -> None:
    """ARBITER_REQUIRE_DATA=1 makes a missing data folder an error."""
    if not DATA.is_dir() and os.environ.get("ARBITER_REQUIRE_DATA") == "1":
        raise pytest.UsageError(f"ARBITER_REQUIRE_DATA=1 but there is no folder {DATA}; set ARBITER_DATA to it")
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(_Workers())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for why, count in config.stash.get(DESELECTED, {}).items():
        terminalreporter.write_line(f"NOT RUN: {count} tests that {why}", yellow=True, bold=True)


def _have_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data, read in place; using it marks a test as `data`."""
    return DATA


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """Byte-level, pad 0, BOS 1, EOS 2, with a chat template."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 2-layer Llama with its tokenizer. Read it, never write in it."""
    return make_llama(tmp_path_factory.mktemp("tiny") / "llama")
