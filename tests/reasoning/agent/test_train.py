"""The agent recipe: TRL's loop of calls trains what the agent then runs, and what is killed goes on to the same end."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from launch import checkpoint, config
from launch.errors import ConfigError, DataError, RenderingError
from launch.grpo import SharedPrompts
from launch.grpo_fit import check_tools
from launch.models import load_tokenizer, tiny_like
from launch.report import build
from launch.runfolder import RunFolder
from reasoning.agent import GeneratorTurns, reward
from tests.launch.toy import launched
from tests.reasoning.agent.two_processes import STEPS, base, recipe
from tests.tiny import make_tokenizer


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def batches() -> list[dict[str, Any]]:
    return []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path, batches: list[dict[str, Any]]) -> Any:
    """A run that is left alone; `batches` keeps what its trainer computed losses from."""
    kept = SharedPrompts._prepare_inputs

    def keep(self: Any, batch: Any) -> Any:
        found = kept(self, batch)
        batches.append(found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedPrompts, "_prepare_inputs", keep)
        return recipe(tmp_path_factory.mktemp("whole") / "run", cache)


def test_tools_part_3_the_recipe_trains_measures_and_reports(whole: Any, cache: Path) -> None:
    """Both evaluations, TRL's numbers of calls and ours at every step; given again it computes nothing anew."""
    metrics = whole.metrics
    assert {"right_tool", "right_answer", "sampled_right_tool", "before_right_tool", "before_calls"} <= set(metrics)
    assert all(0 <= metrics[f"{when}right_tool"] <= 1 for when in ("", "before_", "sampled_"))
    steps = [row for row in RunFolder(whole.folder).metrics() if row.get("stage") == "grpo" and "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, STEPS + 1))
    assert all({"tools/call_frequency", "agent/right_tool", "agent/calls", "agent/failed"} <= set(row) for row in steps)
    assert steps[0]["tools/call_frequency"] == steps[0]["agent/calls"] > 0
    page = build(whole.folder).read_text()
    assert "Samples" in page and "right tool, sampled" in page and "Chats of a step" in page
    assert recipe(whole.folder, cache).metrics == metrics


def test_tools_part_3_what_tools_wrote_carries_no_loss(whole: Any, batches: list[dict[str, Any]]) -> None:
    """Masked out is exactly what stands between a call and the next turn, which is the result of that call."""
    tokenizer: Any = load_tokenizer(Path(whole.folder) / "checkpoints" / "grpo" / "final")
    results = 0
    for batch in batches:
        masks = zip(batch["completion_mask"].bool(), batch["tool_mask"], strict=True)
        for ids, (real, ours) in zip(batch["completion_ids"], masks, strict=True):
            tokens = zip(ids[real].tolist(), ours[real].tolist(), strict=True)
            parts = [(own, [t for t, _ in part]) for own, part in itertools.groupby(tokens, key=lambda pair: pair[1])]
            texts = [tokenizer.decode(part) for _, part in parts]
            assert [own for own, _ in parts] == [1, 0, 1][: len(parts)]  # a call, its result, an answer
            assert "<tool>" not in texts[0] + "".join(texts[2:])
            if len(parts) > 1:
                told = json.loads(texts[1].removeprefix("<tool>").removesuffix("\n<assistant>"))
                call = json.loads(texts[0].removeprefix("<tool_call>").removesuffix("</tool_call><eos>"))
                a, b = call["arguments"]["a"], call["arguments"]["b"]
                assert told["result"] == {"add": a + b, "multiply": a * b}[call["name"]]
                results += 1
    assert results > 0


def test_tools_part_3_trl_trains_on_the_prompt_that_the_agent_shows(whole: Any, batches: list[dict[str, Any]]) -> None:
    loaded = config.load("reasoning/agent_arithmetic", ["world.largest=9", "world.train=40", "world.test=20"])
    world = loaded.config.world
    tokenizer: Any = world.tokenizer()
    turns = GeneratorTurns(None, tokenizer)  # type: ignore[arg-type]
    schemas = [spec.schema for spec in world.tools().values()]
    shown = {turns.render(row["prompt"], schemas) for row in world.rows("train")}
    for batch in batches:
        trained = {
            tokenizer.decode(ids[mask.bool()])
            for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
        }
        assert trained <= shown


def test_tools_part_3_a_killed_run_ends_as_the_one_that_was_left_alone(
    whole: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the reward of its third step, it goes on to the same bits: tools, too, answer the same again."""
    real, calls = reward.judged, [0]
    per_step = 16

    def dies(*args: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] > 2 * per_step:
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr(reward, "judged", dies)
    with pytest.raises(KeyboardInterrupt):
        recipe(tmp_path / "run", cache)
    monkeypatch.setattr(reward, "judged", real)
    again = recipe(tmp_path / "run", cache)
    mine, theirs = (weights(run.folder) for run in (again, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert again.metrics == whole.metrics


def test_tools_part_3_two_processes_end_as_one(whole: Any, cache: Path, tmp_path: Path) -> None:
    """Two ranks over gloo, each with tools of its own: the same rewards, calls, losses, weights and evaluations.
    Base models are kept apart by how many processes made them, for a step of two is a larger one.
    """
    [policy] = cache.glob("arithmetic-*/checkpoints/supervised/final")
    kept = base(tmp_path / "cache")
    words = map(str, (tmp_path / "run", tmp_path / "cache", policy))
    module = ["-m", "tests.reasoning.agent.two_processes", *words]
    done = launched(["torch.distributed.run", "--nproc_per_node", "2", "--standalone", *module])
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (steps(folder) for folder in (whole.folder, tmp_path / "run"))
    assert [row["step"] for row in one] == list(range(1, STEPS + 1)) and max(row["agent/calls"] for row in one) > 0
    for mine, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4, abs=1e-6)
    mine, theirs = (weights(folder) for folder in (whole.folder, tmp_path / "run"))
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) < 1e-4
    assert kept.is_dir() and len(list((tmp_path / "cache").glob("arithmetic-*/checkpoints/supervised/final"))) == 2
    found = [row for row in RunFolder(tmp_path / "run").metrics() if row.get("stage") == "evaluation"]
    assert len(found) == 1 and {n: found[0][n] for n in whole.metrics} == pytest.approx(whole.metrics)


def steps(folder: Path) -> list[dict[str, Any]]:
    """What every step logged of the whole batch, without times."""
    kept = [row for row in RunFolder(folder).metrics() if row.get("stage") == "grpo" and "loss" in row]
    measured = ("step", "loss", "grad_norm", "reward", "reward_std")
    return [{k: v for k, v in row.items() if k in measured or k.startswith("agent/")} for row in kept]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints/grpo/final/model.safetensors")


def test_the_qwen_config_trains_two_steps(tmp_path: Path) -> None:
    """LoRA in bf16 on a random model of the architecture, under the chat template that the config's model carries."""
    from transformers import Qwen2Config
    from trl.chat_template_utils import qwen2_5_chat_template

    tokenizer = make_tokenizer(qwen2_5_chat_template)
    shape = Qwen2Config(pad_token_id=0, bos_token_id=1, eos_token_id=2, num_key_value_heads=4)
    tiny_like(shape, layers=2, hidden=64, vocab=len(tokenizer)).save_pretrained(tmp_path / "qwen")
    tokenizer.save_pretrained(tmp_path / "qwen")
    said = [f"policy={tmp_path / 'qwen'}", "world.train=8", "world.test=2", "held_out=2", "grpo.generations=2",
            "grpo.max_new_tokens=6", "grpo.rollouts=hf", "train.max_steps=2", "train.accumulation=1",
            "train.batch_size=1", "train.processes=0", "workers=1", f"run.folder={tmp_path / 'run'}"]  # fmt: skip
    loaded = config.load("reasoning/agent_qwen7b", said)
    result = loaded.recipe.main(loaded.config)
    final = result.folder / "checkpoints" / "grpo" / checkpoint.FINAL
    assert checkpoint.read_facts(final)["steps"] == 2 and (final / "adapter_config.json").is_file()
    assert result.metrics["calls"] == 0


# ---------------------------------------------------------------- what is refused


def test_what_cannot_be_trained_with_tools_is_told() -> None:
    chat = [{"role": "user", "content": "x"}]
    with pytest.raises(DataError, match="prompt 1 is text; with tools give chat messages"):
        check_tools(make_tokenizer(), [{"prompt": chat}, {"prompt": "x"}])
    with pytest.raises(RenderingError, match="does not show tool calls and their results"):
        check_tools(make_tokenizer(), [{"prompt": chat}])
    from tests.reasoning.agent.sums import TEMPLATE

    with pytest.raises(RenderingError, match="TRL does not know this chat template"):
        check_tools(make_tokenizer(TEMPLATE), [{"prompt": chat}])


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["data=x.jsonl"], "name a policy"),
        (["policy=x", "data=x.jsonl"], "data needs tools"),
        (["turns=1"], "turns 1: a call and an answer are two"),
        (["world.start_right=3"], "start_right 3"),
    ],
)
def test_wrong_configs_name_their_field(said: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config.load("reasoning/agent_arithmetic", said)


def test_questions_of_ones_own(tmp_path: Path) -> None:
    """Text becomes a chat, a number an answer; the last rows are held out; a row without an answer is named."""
    from reasoning.agent.train import questions

    file = tmp_path / "q.jsonl"
    given = [{"prompt": "a", "answer": 3}, {"prompt": [{"role": "user", "content": "b"}], "answer": "yes", "tool": ""}]
    file.write_text("\n".join(map(json.dumps, given)))
    said = ["policy=x", f"data={file}", "tools=[nash_mixture]", "held_out=1"]
    train, test = questions(config.load("reasoning/agent_arithmetic", said).config)
    assert train == [{"prompt": [{"role": "user", "content": "a"}], "answer": "3", "tool": None}]
    assert test == [{"prompt": [{"role": "user", "content": "b"}], "answer": "yes", "tool": ""}]
    with pytest.raises(DataError, match="has 2 questions, 2 are held out"):
        questions(config.load("reasoning/agent_arithmetic", [*said, "held_out=2"]).config)
    file.write_text('{"prompt": "a"}\n')
    with pytest.raises(DataError, match=r'q\.jsonl, line 1: give "prompt" and "answer"; it has prompt'):
        questions(config.load("reasoning/agent_arithmetic", said).config)
