"""Rendering laws: one BOS, tokens in are tokens out, the cut is counted and on the stated side."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from launch.contracts import Completion
from launch.errors import DataError, RenderingError
from launch.rendering import Renderer, pad

TEMPLATE = (
    "<s>{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}"
    "<assistant>{% endif %}"
)


def byte_tokenizer(template: str | None = TEMPLATE, bos: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level, with a BOS that the tokenizer itself adds in front of plain text."""
    special = ["<pad>", "<s>", "</s>"]
    vocabulary = {t: i for i, t in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=template
    )


CHAT = [{"role": "user", "content": "hi"}]


def test_exactly_one_bos_for_text_and_for_a_template_that_writes_its_own():
    renderer = Renderer(byte_tokenizer())
    for prompt in ("hi", CHAT):
        ids = renderer.prompt_ids(prompt)
        assert ids[0] == 1 and ids.count(1) == 1


def test_a_template_without_bos_gets_the_one_the_tokenizer_adds():
    renderer = Renderer(byte_tokenizer(TEMPLATE.replace("<s>", "")))
    assert renderer.prompt_ids(CHAT).count(1) == 1


def test_two_bos_are_refused():
    renderer = Renderer(byte_tokenizer("<s>" + TEMPLATE))
    with pytest.raises(RenderingError, match="two BOS"):
        renderer.prompt_ids(CHAT)


def test_prompt_ids_are_a_prefix_of_every_answer():
    renderer = Renderer(byte_tokenizer())
    prompt = renderer.prompt_ids(CHAT)
    for answer in ("", "a", "</s>", "  spaces", "é"):
        encoded = renderer.encode(CHAT, answer)
        assert encoded.ids[: encoded.prompt_length] == prompt and encoded.ids[-1] == 2


@pytest.mark.parametrize("limit", [8, 100])
@pytest.mark.parametrize("cut", ["right", "prompt_left"])
def test_answers_encoded_together_are_those_encoded_one_by_one(limit, cut):
    renderer = Renderer(byte_tokenizer(), max_length=limit, cut=cut)
    answers = ["", "a", "</s>", "  spaces", "é", "a"]
    assert renderer.encode_answers(CHAT, answers) == [renderer.encode(CHAT, answer) for answer in answers]
    assert renderer.encode_answers(CHAT, []) == []


def test_sampled_tokens_come_out_as_they_went_in():
    renderer = Renderer(byte_tokenizer(), end="keep")
    sampled = Completion("ab", (70, 71, 2), (0.0,) * 3, "stop", prompt_ids=(1, 50))
    assert renderer.encode_sampled(sampled).ids == [1, 50, 70, 71, 2]


def test_a_cut_answer_gets_no_end_it_did_not_have():
    renderer = Renderer(byte_tokenizer(), end="keep")
    assert renderer.encode("q", "abc").ids[-1] != 2


def test_cut_right_by_hand():
    """Prompt <s>qq (3) + answer abcdef (6) + EOS (1) = 10 tokens; limit 6 takes 4 and forces EOS at the end."""
    renderer = Renderer(byte_tokenizer(), max_length=6)
    encoded = renderer.encode("qq", "abcdef")
    assert (len(encoded.ids), encoded.prompt_length, encoded.cut, encoded.ids[-1]) == (6, 3, 4, 2)


def test_cut_prompt_left_by_hand():
    """Prompt of 5 + answer of 4, limit 6: three prompt tokens go from its left, the answer stays whole."""
    renderer = Renderer(byte_tokenizer(), max_length=6, cut="prompt_left", end="keep")
    whole = Renderer(byte_tokenizer(), end="keep").encode("qrst", "abcd")
    encoded = renderer.encode("qrst", "abcd")
    assert encoded.ids == whole.ids[3:] and encoded.prompt_length == 2 and encoded.cut == 3


def test_cut_prompt_left_keeps_one_prompt_token_and_then_cuts_the_answer():
    renderer = Renderer(byte_tokenizer(), max_length=3, cut="prompt_left", end="keep")
    encoded = renderer.encode("qrst", "abcd")
    assert encoded.prompt_length == 1 and len(encoded.ids) == 3 and encoded.cut == 6


@pytest.mark.parametrize("limit", [2, 3, 5, 8, 100])
@pytest.mark.parametrize("cut", ["right", "prompt_left"])
def test_no_sequence_is_over_the_limit_and_what_is_missing_is_counted(limit, cut):
    whole = Renderer(byte_tokenizer()).encode("question", "answer")
    encoded = Renderer(byte_tokenizer(), max_length=limit, cut=cut).encode("question", "answer")
    assert len(encoded.ids) == min(limit, len(whole.ids)) and encoded.cut == len(whole.ids) - len(encoded.ids)


def test_another_rendering_is_refused_by_name():
    saved = Renderer(byte_tokenizer()).fingerprint()
    Renderer(byte_tokenizer()).check(saved)
    with pytest.raises(RenderingError, match="max_length: saved 2048, now 100"):
        Renderer(byte_tokenizer(), max_length=100).check(saved)
    with pytest.raises(RenderingError, match="chat_template"):
        Renderer(byte_tokenizer("other" + TEMPLATE)).check(saved)


def test_the_pad_id_is_no_part_of_the_contract():
    other = byte_tokenizer()
    other.pad_token = "</s>"
    Renderer(other).check(Renderer(byte_tokenizer()).fingerprint())


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "ends with 'assistant'"),
        ([], "no turn at all"),
        ([{"role": "user"}], "needs text"),
        ([{"role": "user", "text": "q"}], r"got \['role', 'text'\]"),
        ([{"content": "q", "name": "n", "extra": 1}], "needs text"),
        ([{"role": "user", "content": None}], "needs text"),
        (["plain text in a list"], "got a str"),
    ],
)
def test_a_prompt_that_is_none_is_refused(prompt, told):
    with pytest.raises(DataError, match=told):
        Renderer(byte_tokenizer()).prompt_ids(prompt)


def test_chat_without_a_template_is_refused():
    with pytest.raises(RenderingError, match="no chat template"):
        Renderer(byte_tokenizer(None)).prompt_ids(CHAT)


def test_pad_by_hand():
    ids, mask = pad([[5, 6], [7]], pad_id=0, side="left")
    assert ids.tolist() == [[5, 6], [0, 7]] and mask.tolist() == [[True, True], [False, True]]
