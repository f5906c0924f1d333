"""The tokenizers that the classes of transformers build, with ids by hand and from transformers."""

import io
import json

import pytest
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, models, normalizers, processors
from word_pieces import TEXT, change, error, ids, options, read

from embed.errors import DataError
from embed.interop import tokenizer_classes, tokenizer_files

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
        (None, "embedding_gemma2", "TokenizersBackend"),
        (None, "embedding_gemma2_text", "TokenizersBackend"),
        ("GemmaTokenizer", "embedding_gemma2_text", "GemmaTokenizer"),
        (None, "qwen3", "Qwen2Tokenizer"),
        (None, "modernbert", "TokenizersBackend"),
        ("BertTokenizer", "modernbert", "TokenizersBackend"),
        ("PreTrainedTokenizerFast", "bert", "TokenizersBackend"),
        ("TokenizersBackend", "qwen3", "TokenizersBackend"),
        ("XLMRobertaTokenizerFast", "bert", "XLMRobertaTokenizer"),
    ],
)
def test_which_class_is_opened(name, model_type, expected):
    assert tokenizer_classes.class_of("f.json", name, model_type) == expected


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


METASPACE = "\u2581"
NONE = {"added_tokens_decoder": {}}


def spec_of(model, template: str | None = None, ids=(), normalizer=None) -> dict:
    """Returns the tokenizer.json of a model, as tokenizers writes it."""
    made = tokenizers.Tokenizer(model)
    if template is not None:
        made.post_processor = processors.TemplateProcessing(single=template, special_tokens=list(ids))
    if normalizer is not None:
        made.normalizer = normalizer
    return json.loads(made.to_str())


def ids_of(name: str, spec: dict, text: str, **options) -> list[int]:
    return tokenizer_classes.build("f.json", name, spec, {**NONE, **options})[0].encode(text).ids


@pytest.fixture(scope="module")
def gemma() -> dict:
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", METASPACE, "a", "b", "ab", "<0xC3>", "<0xA9>"]
    model = models.BPE({w: i for i, w in enumerate(words)}, [("a", "b")], byte_fallback=True, unk_token="<unk>")
    return spec_of(model, "<bos> $A", [("<bos>", 2)])


def test_a_gemma_tokenizer_keeps_spaces_and_falls_back_to_bytes(gemma):
    assert ids_of("GemmaTokenizer", gemma, "ab  b\u00e9") == [2, 8, 5, 5, 7, 9, 10]
    assert ids_of("GemmaTokenizer", gemma, "xa") == [2, 3, 6]  # a byte that has no token
    assert ids_of("GemmaTokenizer", gemma, "a<mask>b") == [2, 6, 4, 7]
    gemma = {**gemma, "model": {**gemma["model"], "merges": ["a b"]}}  # as older files write them
    assert ids_of("GemmaTokenizer", gemma, "ab") == [2, 8]


def test_a_qwen_tokenizer_takes_digits_one_by_one_and_composes_characters():
    words = ["a", "b", "1", "2", "\u0120", "ab", "12", "\u00c3", "\u00a9", "<|endoftext|>"]
    model = models.BPE({w: i for i, w in enumerate(words)}, [("a", "b"), ("1", "2")])
    spec = spec_of(model)
    assert ids_of("Qwen2Tokenizer", spec, "ab12") == [5, 2, 3]
    assert ids_of("Qwen2Tokenizer", spec, "e\u0301") == [7, 8]
    assert ids_of("Qwen2Tokenizer", spec, "ab", add_prefix_space=True) == [4, 5]
    assert ids_of("Qwen2Tokenizer", spec, "a<|endoftext|>b<extra>", extra_special_tokens=["<extra>"]) == [0, 9, 1, 10]


@pytest.fixture(scope="module")
def unigram() -> models.Unigram:
    scores = {
        "<s>": 0,
        "<pad>": 0,
        "</s>": 0,
        "<unk>": 0,
        METASPACE: -2,
        f"{METASPACE}a": -1,
        "a": -2,
        "b": -1,
        "f": -3,
    }
    return models.Unigram(vocab=list(scores.items()), unk_id=3)


def test_an_xlm_roberta_tokenizer_splits_at_white_space_and_marks_every_word(unigram):
    spec = spec_of(unigram)
    assert ids_of("XLMRobertaTokenizer", spec, " a  b\n") == [0, 5, 4, 7, 2]
    assert ids_of("XLMRobertaTokenizer", spec, "a b", add_prefix_space=False) == [0, 6, 7, 2]
    assert ids_of("XLMRobertaTokenizer", spec, "bx", eos_token="<pad>") == [0, 4, 7, 3, 1]


def test_the_rules_of_sentencepiece_are_kept(unigram):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b f"] * 9), model_writer=model, vocab_size=9, model_type="bpe",
        normalization_rule_name="nmt_nfkc", minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    rules = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue()).normalizer_spec.precompiled_charsmap
    own = normalizers.Precompiled(rules)
    for normalizer in (own, normalizers.Sequence([normalizers.Strip(), own])):
        spec = spec_of(unigram, normalizer=normalizer)
        assert ids_of("XLMRobertaTokenizer", spec, "\ufb00") == [0, 4, 8, 8, 2]  # one sign for two letters
    assert ids_of("XLMRobertaTokenizer", spec_of(unigram, normalizer=normalizers.Strip()), "\ufb00") == [0, 4, 3, 2]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("BertTokenizer", "unk_token"),
        ("BertTokenizer", "sep_token"),
        ("GemmaTokenizer", "unk_token"),
        ("XLMRobertaTokenizer", "bos_token"),
    ],
)
def test_a_class_without_a_token_that_it_needs(name, role, gemma, unigram):
    words = models.WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]")
    spec = {"BertTokenizer": spec_of(words), "GemmaTokenizer": gemma, "XLMRobertaTokenizer": spec_of(unigram)}[name]
    with pytest.raises(
        DataError, match=f"^f.json: tokenizer_config.json says that there is no {role}, which {name} needs;"
    ):
        tokenizer_classes.build("f.json", name, spec, {**NONE, role: None})


def test_tokens_are_added_once_in_the_order_of_transformers():
    spec = spec_of(models.WordLevel({"a": 0, "[PAD]": 1}, unk_token="a"))
    declared = {3: AddedToken("later", normalized=False), 2: AddedToken("[SEP]", special=False)}
    options = {"added_tokens_decoder": declared, "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": None}
    options |= {
        "extra_special_tokens": ["[extra]", "[SEP]"],
        "model_specific_special_tokens": {"image_token": "[image]"},
    }
    made, special = tokenizer_classes.build("f.json", "TokenizersBackend", spec, options)
    assert special == {"sep_token": "[SEP]", "pad_token": "[PAD]", "image_token": "[image]"}
    added = {i: (t.content, t.special) for i, t in made.get_added_tokens_decoder().items()}
    assert added == {
        1: ("[PAD]", True),
        2: ("[SEP]", True),  # it has a role, whatever the files declare
        3: ("later", False),
        4: ("[image]", True),
        5: ("[extra]", True),
    }
