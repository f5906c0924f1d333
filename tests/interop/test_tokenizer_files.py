"""Tokenizers of foreign folders: what the classes of transformers make of them, with ids by hand and from tokenizers."""

import json

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from embed.errors import DataError
from embed.interop import tokenizer_files

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "The",
    "cafe",
    "caf\u00e9",
    "##s",
    "\u4e2d",
    "\u56fd",
    "\u4e2d\u56fd",
    "a",
]
WORDS += ["##\u56fd"]


@pytest.fixture
def bert(tmp_path):
    """A folder with a WordPiece tokenizer of a few words, as BertTokenizer saves it."""
    made = tokenizers.Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made.add_special_tokens(WORDS[:5])
    made.save(str(tmp_path / "tokenizer.json"))
    options(tmp_path, tokenizer_class="BertTokenizer")
    return tmp_path


def options(folder, **values) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))


def change(folder, **parts) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def read(folder, model_type: str = "bert", lower_case: bool = False, vocab_size: int = 20, **arguments):
    return tokenizer_files.read(
        folder, {"model_type": model_type}, vocab_size=vocab_size, arguments=arguments, lower_case=lower_case
    )


def ids(folder, text: str, length: int = 50, **more) -> list[int]:
    return read(folder, **more).tokenizer.encode_batch([text], length)[0][0].tolist()


def error(folder, model_type: str = "bert") -> str:
    with pytest.raises(DataError) as e:
        read(folder, model_type)
    assert "\n" not in str(e.value)
    return str(e.value)


# Golden ids: transformers 5.23, BertTokenizer.
TEXT = "The Caf\u00e9s \u4e2d\u56fd"
BERT = {
    "as it is": ({}, [2, 5, 7, 9, 10, 11, 3]),
    "cased": ({"do_lower_case": False}, [2, 6, 1, 10, 11, 3]),
    "accents kept": ({"strip_accents": False}, [2, 5, 8, 9, 10, 11, 3]),
    "Chinese characters together": ({"tokenize_chinese_chars": False}, [2, 5, 7, 9, 12, 3]),
    "other ends": ({"cls_token": "[MASK]", "sep_token": "[PAD]"}, [4, 5, 7, 9, 10, 11, 0]),
    "another unknown": ({"do_lower_case": False, "unk_token": "[MASK]"}, [2, 6, 4, 10, 11, 3]),
}


@pytest.mark.parametrize("kind", BERT)
def test_entries_of_a_bert_tokenizer(kind, bert):
    values, expected = BERT[kind]
    options(bert, **values)
    assert ids(bert, TEXT) == expected
    options(bert, tokenizer_class="BertTokenizerFast")
    assert ids(bert, TEXT) == expected


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


def test_a_fast_tokenizer_takes_the_file_as_it_is(bert):
    options(bert, tokenizer_class="PreTrainedTokenizerFast", do_lower_case=False)
    assert ids(bert, TEXT) == BERT["as it is"][1]
    change(bert, post_processor=None)
    assert ids(bert, TEXT) == BERT["as it is"][1][1:-1]


def test_a_bert_tokenizer_has_its_own_ends(bert):
    change(bert, post_processor=None)
    assert ids(bert, TEXT) == BERT["as it is"][1]
    change(bert, post_processor={"type": "BertProcessing", "sep": ["[MASK]", 4], "cls": ["[UNK]", 1]})
    found = read(bert)
    assert found.tokenizer.encode_batch([TEXT], 9)[0][0].tolist() == BERT["as it is"][1]
    assert "its post_processor is replaced" in found.notes[0]


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


@pytest.mark.parametrize(
    ("name", "model_type", "expected"),
    [
        ("BertTokenizerFast", "bert", "BertTokenizer"),
        (None, "bert", "BertTokenizer"),
        (None, "xlm-roberta", "XLMRobertaTokenizer"),
        (None, "gemma3_text", "GemmaTokenizer"),
        (None, "gemma3", "GemmaTokenizer"),
        (None, "t5gemma", "GemmaTokenizer"),
        (None, "qwen3", "Qwen2Tokenizer"),
        (None, "modernbert", "TokenizersBackend"),
        ("BertTokenizer", "modernbert", "TokenizersBackend"),
        ("PreTrainedTokenizerFast", "bert", "TokenizersBackend"),
        ("TokenizersBackend", "qwen3", "TokenizersBackend"),
        ("XLMRobertaTokenizerFast", "bert", "XLMRobertaTokenizer"),
    ],
)
def test_which_class_is_opened(name, model_type, expected):
    from embed.interop.tokenizer_classes import class_of

    assert class_of("f.json", name, model_type) == expected


def test_a_class_that_is_not_repeated(bert):
    options(bert, tokenizer_class="LlamaTokenizerFast")
    err = error(bert)
    assert "tokenizer_config.json: tokenizer_class = 'LlamaTokenizerFast' is not supported, only BertTokenizer" in err
    assert "set it to PreTrainedTokenizerFast where tokenizer.json is complete" in err
    options(bert, tokenizer_class=None)
    config = {"model_type": "bert", "tokenizer_class": "PreTrainedTokenizerFast"}
    found = tokenizer_files.read(bert, config, vocab_size=20)
    assert found.tokenizer.content() == (bert / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ["XLMRobertaTokenizer", "GemmaTokenizer", "Qwen2Tokenizer"])
def test_a_model_of_another_kind_than_the_class_builds(name, bert):
    options(bert, tokenizer_class=name)
    err = error(bert)
    assert f"tokenizer.json: holds a WordPiece model, but {name} builds a" in err
    assert "set tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json" in err


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
