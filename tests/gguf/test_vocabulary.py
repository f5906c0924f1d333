"""A vocabulary's entries for a token table: filled up, of one text each, with the roles of special tokens."""

import dataclasses

import gguf
import pytest

from embed.errors import DataError
from embed.gguf import vocabulary
from embed.gguf.vocabulary import BYTE, NORMAL, UNUSED, Vocabulary

SMALL = Vocabulary("llama", ["<unk>", "a", "b"], [2, 1, 1], begin=1, end=None, scores=(0.0, -1.0, -2.0))


def entries(of: Vocabulary = SMALL, size: int = 3) -> dict:
    return vocabulary.metadata(of, pad_id=0, size=size, location="tokenizer.json")


def test_every_row_of_the_table_has_a_token():
    made = entries(size=5)
    assert made["tokenizer.ggml.tokens"] == ["<unk>", "a", "b", "[PAD3]", "[PAD4]"]
    assert made["tokenizer.ggml.token_type"] == [2, NORMAL, NORMAL, UNUSED, UNUSED]
    assert made["tokenizer.ggml.scores"] == [0.0, -1.0, -2.0, -10_000.0, -10_000.0]


def test_the_ends_of_a_text_and_the_roles_of_tokens():
    made = entries()
    assert made["tokenizer.ggml.add_bos_token"] is True and made["tokenizer.ggml.add_eos_token"] is False
    assert made["tokenizer.ggml.bos_token_id"] == 1 and "tokenizer.ggml.eos_token_id" not in made
    assert made["tokenizer.ggml.unknown_token_id"] == 0 and made["tokenizer.ggml.padding_token_id"] == 0
    bert = Vocabulary("bert", ["[PAD]", "[UNK]", "[SEP]", "[MASK]"], [1] * 4, 0, 2, options={"unknown_token_id": 3})
    made = entries(bert, 4)
    assert made["tokenizer.ggml.seperator_token_id"] == 2 and made["tokenizer.ggml.mask_token_id"] == 3
    assert made["tokenizer.ggml.unknown_token_id"] == 3, "what the tokenizer says comes first"
    assert "tokenizer.ggml.scores" not in made and "tokenizer.ggml.merges" not in made


def test_entries_have_the_names_of_the_gguf_package():
    everything = dataclasses.replace(SMALL, end=2, merges=["a b"], kind="gpt2", rule="qwen2")
    names = {key for key in vars(gguf.Keys.Tokenizer).values() if isinstance(key, str)}
    assert set(entries(everything)) <= names
    kinds = {kind.name: kind.value for kind in gguf.TokenType}
    ours = ("NORMAL", "UNKNOWN", "CONTROL", "USER_DEFINED", "UNUSED", "BYTE")
    assert kinds == {name: getattr(vocabulary, name) for name in ours}


def test_tokens_that_do_not_fit_the_table_are_refused():
    with pytest.raises(
        DataError, match="^tokenizer.json: 3 tokens, but the model has 2; use the tokenizer that belongs to it$"
    ):
        entries(size=2)
    same = dataclasses.replace(SMALL, tokens=["a", "b", "a"])
    message = "has two tokens of one text, which llama.cpp's tokenizers cannot repeat; export with another --format"
    with pytest.raises(DataError, match=f"^tokenizer.json: {message}$"):
        entries(same)


def test_texts_with_bytes_are_not_repeated_where_there_are_none():
    is_repeated = vocabulary.without_bytes([NORMAL, BYTE, NORMAL])
    assert is_repeated("", [0, 2, 2]) and not is_repeated("", [0, 1]) and SMALL.is_repeated("any", [1])
