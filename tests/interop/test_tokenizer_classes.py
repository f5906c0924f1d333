"""The tokenizers that the classes of transformers build, with ids by hand and from transformers."""

import pytest
from word_pieces import TEXT, change, error, ids, options, read

from embed.interop import tokenizer_files

# Golden ids: transformers 5.23, BertTokenizer.
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
