"""The arithmetic world: what is asked, what is true, and that everyone reads its calls alike."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from launch.contracts import Completion
from launch.errors import ConfigError, DataError
from launch.tools_pool import Pool
from tasks.worlds.arithmetic import ACTIONS, ArithmeticWorld

WORLD = ArithmeticWorld(train=600, test=300)


def asked(row: dict[str, Any]) -> tuple[str, list[int]]:
    """A question's words without its numbers, and its numbers."""
    text = row["prompt"][0]["content"]
    return re.sub(r"\d+", "#", text), [int(n) for n in re.findall(r"\d+", text)]


def test_every_answer_is_what_the_right_tool_says(tmp_path: Any) -> None:
    """By the tools themselves, in their own process; a question without a tool is answered by its first number."""
    with Pool(WORLD.tools(), tmp_path, workers=1) as pool:
        for row in WORLD.rows("test")[:60]:
            a, b = asked(row)[1]
            if row["tool"]:
                assert pool.call(row["tool"], {"a": a, "b": b}).startswith(f'{{"result": {row["answer"]}, ')
            else:
                assert row["answer"] == str(a)


def test_no_test_question_shares_words_or_numbers_with_training() -> None:
    """36 sentences, 9 of them held out, three of each action; all occur in 600 and 300 questions."""
    train, test = ([asked(row) for row in WORLD.rows(split)] for split in ("train", "test"))
    assert len({words for words, _ in train}) == 27 and len({words for words, _ in test}) == 9
    assert not {words for words, _ in train} & {words for words, _ in test}
    assert not {tuple(numbers) for _, numbers in train} & {tuple(numbers) for _, numbers in test}
    held = {(asked(row)[0], row["tool"]) for row in WORLD.rows("test")}
    assert Counter(tool for _, tool in held) == dict.fromkeys(ACTIONS, 3)
    assert WORLD.rows("test") == WORLD.rows("test")


def test_texts_are_tokens_and_back() -> None:
    tokenizer: Any = WORLD.tokenizer()
    for row in WORLD.demonstrations(400, seed=1):
        for text in row.values():
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("share", [1 / 3, 0.9])
def test_demonstrations_choose_as_often_right_as_they_should(share: float) -> None:
    """Of about 1,200 first turns; three standard deviations are .041 and .026."""
    world = ArithmeticWorld(start_right=share)
    right = []
    for row in world.demonstrations(2000, seed=0):
        text = row["prompt"].partition("<user>")[2]
        if "<tool>" in text:
            continue  # a second turn
        action = next((name for name in ("add", "multiply") if f'"{name}"' in row["response"]), "")
        fits = "add" if re.search("plus|sum|together", text) else "multiply" if re.search("times|product", text) else ""
        right.append(action == fits)
    assert sum(right) / len(right) == pytest.approx(share, abs=0.045)


def test_trl_the_agent_and_transformers_read_the_same_calls() -> None:
    """TRL accepts the template, and its parser finds in the ids of every demonstration what the agent's finds."""
    from trl.chat_template_utils import is_chat_template_prefix_preserving, parse_response, supports_tool_calling

    from reasoning.agent.calls import read_turn

    tokenizer: Any = WORLD.tokenizer()
    assert supports_tool_calling(tokenizer) and is_chat_template_prefix_preserving(tokenizer)
    schemas = [spec.schema for spec in WORLD.tools().values()]
    calls = 0
    for row in WORLD.demonstrations(60, seed=2):
        prompt, ids = (tokenizer(text)["input_ids"] for text in (row["prompt"], row["response"] + "<eos>"))
        turn = read_turn(Completion(row["response"], tuple(ids), (), "stop", tuple(prompt)), tokenizer, schemas)
        parsed = parse_response(tokenizer, ids, prefix=prompt, tools=schemas)
        assert parsed["content"] == turn.content == ("" if turn.calls else row["response"])
        theirs = [call["function"] for call in parsed.get("tool_calls", ())]
        assert theirs == [{"name": call.name, "arguments": call.arguments} for call in turn.calls]
        calls += len(turn.calls)
    assert calls > 10


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match="largest 5"):
        ArithmeticWorld(largest=5)
    with pytest.raises(ConfigError, match="start_right 2"):
        ArithmeticWorld(start_right=2)
    with pytest.raises(ConfigError, match="test_share 1"):
        ArithmeticWorld(test_share=1)
    with pytest.raises(DataError, match="no split 'dev'"):
        WORLD.rows("dev")  # type: ignore[arg-type]
