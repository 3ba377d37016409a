"""What holds the device when, who waits for whom, and what makes a result another result."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from align.selfplay import inputs, stages
from align.selfplay.inputs import Judge, load_judge
from align.selfplay.pairs import PairDataset
from launch.contracts import Completion
from launch.errors import ConfigError
from launch.runfolder import RunFolder
from tests.align.selfplay import charworld
from tests.align.selfplay.test_rounds import config

ANSWERS = [[Completion(text, (13, 16, 19, 2), (-1.0,) * 4, "stop", (1, 3, 4, 13)) for text in ("ax!", "by.")]]


class Travelling(torch.nn.Module):
    """The true game as a module that writes down where it was moved."""

    def __init__(self) -> None:
        super().__init__()
        self.moves: list[str] = []

    def to(self, device: Any) -> Any:  # type: ignore[override]
        self.moves.append(str(device))
        return self

    def score(self, prompt: str, responses: list[str]) -> charworld.Table:
        return charworld.CharGame().score(prompt, responses)


def test_a_judge_scores_on_its_device_and_leaves_it_for_training() -> None:
    judge = Judge(Travelling(), "travelling", torch.device("cuda", 3))
    group = ("01:", ["ax!", "by."])
    judge.parts([group])
    judge.rest()
    judge.parts([group])
    assert judge.scorer.moves == ["cuda:3", "cpu", "cuda:3"]
    without = Judge(Travelling(), "travelling")
    without.parts([group])
    without.rest()
    assert without.scorer.moves == []


def test_a_loaded_judge_and_policy_belong_on_the_local_ranks_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert inputs.own_device() == (torch.device("cuda", 2) if torch.cuda.is_available() else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_judge(f"{__name__}:Travelling").device == torch.device("cuda", 2)


class Engine:
    """Stands for a vLLM engine on a GPU: it only knows whether it was ended."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_on_a_gpu_no_engine_is_left_when_the_judge_or_the_reference_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Watched(stages.Stages):
        def reference(self, name: str, policy: str, dataset: PairDataset) -> list[list[float]]:
            raise InterruptedError(f"engine closed: {engine.closed}")

    class Game(charworld.CharGame):
        def score(self, *group: Any) -> charworld.Table:
            assert engine.closed
            return super().score(*group)

    monkeypatch.setattr(stages, "own_device", lambda: torch.device("cuda", 0))
    work = Watched(config(tmp_path, tmp_path / "run"), RunFolder(tmp_path / "run"))
    engine = work._engine = Engine()
    parts = work.score("round-1", Judge(Game(), "game"), ["01:"], ANSWERS, "answers")
    engine = work._engine = Engine()
    dataset = work.select(1, ["01:"], ANSWERS, "answers", parts)
    with pytest.raises(InterruptedError, match="engine closed: True"):
        work.train(1, str(tmp_path), dataset, str(tmp_path))


def test_a_server_without_token_ids_is_refused_before_it_samples(tmp_path: Path) -> None:
    """Anything but vLLM answers 404 to /version; nothing but that is asked of it."""
    asked = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        settings = {"generator": "server", "rounds": 1, "server_url": url, "server_model": "m", "eval_prompts": ""}
        work = stages.Stages(config(tmp_path, tmp_path / "run", **settings), RunFolder(tmp_path / "run"))
        with pytest.raises(ConfigError, match="not a vLLM server and returns no token ids"):
            work.generate("round-1", str(tmp_path), ["01:"], 2)
        server.shutdown()
    assert asked == ["/version"]


# ---------------------------------------------------------------- what a scorer is known by


def test_a_scorer_of_a_module_is_known_by_its_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another preference in the same class is another judge, also if only its base class's file changed; a scorer
    that names its own identity is taken at its word."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = ("arbiter_test_base", "arbiter_test_game")

    def identity(base: str, game: str) -> str:
        for name, text in zip(names, (base, game), strict=True):
            (tmp_path / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
        return load_judge("arbiter_test_game:Game").identity

    base = "class Base:\n    def score(self, prompt, responses): return {}\n"
    game = "from arbiter_test_base import Base\nclass Game(Base): pass\n"
    first = identity(base.format(1), game)
    assert first == identity(base.format(1), game)
    assert first != identity(base.format(1), game + "# tuned\n")
    assert first != identity(base.format(2), game)
    named = game.replace("pass", "identity = 'v1'")
    assert identity(base.format(1), named) == identity(base.format(2), named) == "arbiter_test_game:Game v1"
