"""Tokenizers of foreign folders: what the classes of transformers make of them, with ids by hand and from tokenizers."""

import json

import pytest
from word_pieces import TEXT, WORDS, change, error, ids, options, read


def test_a_file_that_the_class_repeats_is_kept_to_the_byte(bert):
    found = read(bert)
    assert found.tokenizer.content() == (bert / "tokenizer.json").read_bytes() and found.notes == ()
    options(bert, do_lower_case=False)
    found = read(bert)
    assert found.tokenizer.content() != (bert / "tokenizer.json").read_bytes()
    (note,) = found.notes
    assert (
        "as transformers 5 builds a BertTokenizer of the folder, its normalizer (lowercase False) is replaced" in note
    )


def test_lower_case_of_sentence_bert_config(bert):
    options(bert, do_lower_case=False, strip_accents=False)
    assert ids(bert, TEXT, lower_case=True) == [2, 5, 8, 9, 10, 11, 3]
    change(bert, normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]})
    options(bert, tokenizer_class="PreTrainedTokenizerFast")
    assert read(bert, lower_case=True).tokenizer.content() == read(bert).tokenizer.content()


def test_the_side_of_truncation(bert):
    assert ids(bert, "the a the", 4) == [2, 5, 13, 3]
    options(bert, truncation_side="left")
    assert ids(bert, "the a the", 4) == [2, 13, 5, 3]
    options(bert, truncation_side="right")
    change(bert, truncation={"direction": "Left", "max_length": 3, "strategy": "LongestFirst", "stride": 0})
    assert ids(bert, "the a the", 4) == [2, 5, 13, 3]
    (bert / "tokenizer_config.json").unlink()
    assert ids(bert, "the a the", 4) == [2, 13, 5, 3]  # the file's own side, where nothing else says one
    assert ids(bert, "the a the", 4, truncation_side="right") == [2, 5, 13, 3]


@pytest.mark.parametrize("name", ["truncation_side", "padding_side"])
def test_a_side_that_is_none(name, bert):
    options(bert, **{name: "middle"})
    assert f"tokenizer_config.json: {name} = 'middle' is neither left nor right; correct it" in error(bert)


def test_left_padding_of_bert_is_told(bert):
    options(bert, padding_side="left")
    (note,) = read(bert).notes
    assert "padding_side = 'left' moves the positions" in note
    assert read(bert, "modernbert").notes == ()


WORD = {"content": "NEW", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": False}


def test_tokens_beside_the_vocabulary(bert):
    known = {str(i): {**WORD, "content": WORDS[i], "special": True} for i in range(5)}
    options(bert, added_tokens_decoder={**known, "15": WORD})
    assert ids(bert, "theNEWthe") == [2, 5, 15, 5, 3]
    options(bert, added_tokens_decoder={**known, "16": WORD})
    assert "its files give the token 'NEW' the id 16, but in tokenizer.json it is 15" in error(bert)
    options(bert, added_tokens_decoder={**known, "x": WORD})
    assert "added_tokens_decoder is not tokens by id; save the tokenizer again" in error(bert)
    options(bert, added_tokens_decoder={"15": {**WORD, "content": None}})
    assert "added_tokens_decoder holds a token that cannot be" in error(bert)


def test_tokens_of_the_older_files(bert):
    (bert / "added_tokens.json").write_text('{"NEW": 15}')
    assert ids(bert, "the new NEW") == [2, 5, 15, 15, 3]  # not special, so that it is lower-cased too
    (bert / "added_tokens.json").unlink()
    (bert / "special_tokens_map.json").write_text('{"additional_special_tokens": ["NEW"]}')
    assert ids(bert, "the new NEW") == [2, 5, 1, 15, 3]
    (bert / "special_tokens_map.json").write_text(json.dumps({"mask_token": {**WORD, "lstrip": True}}))
    assert ids(bert, "the NEW") == [2, 5, 15, 3]
    (bert / "special_tokens_map.json").write_text('{"something": 3}')
    assert "special_tokens_map.json: does not know something; only special tokens can be in this file" in error(bert)


def test_special_tokens_without_a_vector_are_left_out_and_told(bert):
    options(bert, image_token="<image>")
    assert ids(bert, "the<image>the") == [2, 5, 15, 5, 3]
    assert ids(bert, "the<image>the", vocab_size=15) == [2, 5, 1, 1, 1, 5, 3]
    found = read(bert, vocab_size=15)
    assert found.tokenizer.vocab_size == 15
    assert any(
        "the model has no vector for '<image>'; such a name in a text is ordinary text here" in n for n in found.notes
    )
    # A word, the padding and the ends of a text are needed.
    options(bert, pad_token="<image>")
    assert read(bert, vocab_size=15).tokenizer.vocab_size == 16
    options(bert, pad_token="[PAD]", image_token=None, cls_token="<image>")
    assert read(bert, vocab_size=15).tokenizer.vocab_size == 16
    options(bert, cls_token="[CLS]")
    (bert / "added_tokens.json").write_text('{"NEW": 15}')
    assert read(bert, vocab_size=15).tokenizer.vocab_size == 16


def test_a_special_token_that_is_none(bert):
    options(bert, mask_token={"content": "[MASK]"})
    assert "mask_token = {'content': '[MASK]'} is no token of transformers; save the tokenizer again" in error(bert)


def test_inputs_without_a_mask(bert):
    options(bert, model_input_names=["input_ids", "token_type_ids"])
    assert "model_input_names = ['input_ids', 'token_type_ids'] has no attention_mask" in error(bert)


def test_token_types_other_than_zero(bert):
    spec = json.loads((bert / "tokenizer.json").read_text())["post_processor"]
    spec["single"][1]["Sequence"]["type_id"] = 1
    change(bert, post_processor=spec)
    options(bert, tokenizer_class="PreTrainedTokenizerFast")
    assert "gives texts token types other than 0, which is not supported" in error(bert)
    assert read(bert, "modernbert")


def test_merges_drawn_at_random(bert):
    spec = {"type": "BPE", "vocab": {"a": 0, "[PAD]": 1}, "merges": [], "dropout": 0.1, "unk_token": None}
    change(bert, model=spec, added_tokens=[], post_processor=None)
    options(bert, tokenizer_class="PreTrainedTokenizerFast")
    assert "model.dropout = 0.1 draws tokens at random; set it to null" in error(bert).replace(
        "0.10000000149011612", "0.1"
    )


def test_a_prefix_space_that_versions_decide_differently(bert):
    change(
        bert,
        pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    )
    options(bert, tokenizer_class="PreTrainedTokenizerFast", add_prefix_space=False)
    assert read(bert).notes == ()
    options(bert, add_prefix_space=True)
    err = error(bert)
    assert "add_prefix_space = true, but tokenizer.json says false" in err and "make them equal" in err


def test_ends_that_are_not_what_the_flags_say_are_told(bert):
    options(bert, tokenizer_class="PreTrainedTokenizerFast", bos_token="[CLS]", eos_token="[MASK]")
    options(bert, add_bos_token=True, add_eos_token=False)
    assert read(bert).notes == ()
    options(bert, add_bos_token=False, add_eos_token=True)
    (note,) = read(bert).notes
    assert (
        "add_bos_token = false and add_eos_token = true is not what the post-processor of tokenizer.json does" in note
    )


def test_the_length_that_the_files_say(bert):
    for values, expected in (
        ({}, None),
        ({"model_max_length": 33}, 33),
        ({"model_max_length": 33.0}, 33),
        ({"model_max_length": 10**30}, None),
        ({"model_max_length": 1e30}, None),
        ({"model_max_length": None}, None),
    ):
        options(bert, **values)
        assert read(bert).max_length == expected
    (bert / "tokenizer_config.json").write_text('{"max_len": 44}')
    assert read(bert).max_length == 44
    assert read(bert, model_max_length=12).max_length == 12
