"""The shared fixtures are what they say."""

from tests.tiny import SPECIAL


def test_tokenizer_survives_saving_and_the_model_loads(tiny_llama, tiny_tokenizer):
    """Ids are those promised, text comes back unchanged, and logits [1, T, V] are finite."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert len(tokenizer) == 256 + len(SPECIAL)
    text = "a  b\n{é}"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert ids[0, 0] == 1 and tokenizer.decode(ids[0, 1:]) == text
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert chat == "<s><|user|>hi" and tokenizer.chat_template == tiny_tokenizer.chat_template
    assert AutoModelForCausalLM.from_pretrained(tiny_llama)(ids).logits.isfinite().all()
