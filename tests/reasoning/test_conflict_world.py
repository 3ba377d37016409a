"""The conflicts world seen by the reasoning package: its rewards, and what structure alone makes of it."""

import pytest

from reasoning.conflict import Instance, extract_paths, kcr_reward, resolve
from tasks.worlds.conflicts import ConflictsWorld

WORLD = ConflictsWorld(train=40, test=40)


@pytest.mark.parametrize("contexts", [2, 4])
def test_rewards_of_each_type_of_answer(contexts):
    """Right 2.1. Another city behind the right mentor: 0.1 and half the chain, 0.5·0.5. Wrong 0.1. Malformed 0."""
    world = ConflictsWorld(contexts=contexts, train=20)
    for prompt in world.prompts("train"):
        got = [kcr_reward(e, world.instance(prompt))["total"] for e in world.examples(prompt)]
        assert got == pytest.approx([2.1, 0.35, 0.1, 0.0])


def test_structure_alone_resolves_the_world_and_the_mark_does_not():
    right = marked = 0
    for prompt in WORLD.prompts("test"):
        case = Instance.from_json(WORLD.instance(prompt))
        got = resolve(case.question, [c.text for c in case.contexts])
        right += got["followed"] in case.true_indices and got["answer"] == case.gold[0]
        marked += case.meta["cue_on_truth"]
    assert right >= 0.95 * WORLD.test and marked <= 0.15 * WORLD.test


def test_the_extractor_finds_the_chain_that_the_world_tells():
    for prompt in WORLD.prompts("train"):
        case = Instance.from_json(WORLD.instance(prompt))
        for context in case.contexts:
            assert context.paths is not None
            if context.true:
                found = extract_paths(case.question, context.text, context.answer)
                assert found.paths[0].entities == context.paths.paths[0].entities
