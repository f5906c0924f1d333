"""Every kind of tokenizer.json as llama.cpp's vocabulary: its own algorithms give the ids of the tokenizers package."""

import json
import unicodedata

import gguf_models
import llama_tokenizer
import pytest

from embed.data.tokenizers import HuggingFace
from embed.errors import DataError
from embed.gguf import tokenizer_json
from embed.gguf import vocabulary as vocabularies
from embed.interop import parity

TEXTS = (*parity.TEXTS, "a\nb\n\n c", "It's WE'LL and 12345", " leading", "trailing ")
# kind -> texts that llama.cpp reads otherwise
KINDS = {"word pieces": 2, "gpt2 bytes": 1, "qwen bytes": 1, "merging json": 0, "unigram json": 0}


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer.encode_batch([text], 1000)[0][0].tolist()


def llama(read) -> llama_tokenizer.Llama:
    return llama_tokenizer.Llama(vocabularies.metadata(read, 0, len(read.tokens), "here"))


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_gives_the_same_ids(kind, vocabulary):
    tokenizer = vocabulary(kind)
    read = tokenizer_json.read(tokenizer)
    others = [text for text in TEXTS if not read.is_repeated(text, ids(tokenizer, text))]
    assert len(others) == KINDS[kind] and bool(others) == bool(read.notes)
    for text in TEXTS:
        assert (llama(read).encode(text) == ids(tokenizer, text)) == (text not in others), text


def test_a_wordpiece_of_cases_keeps_accents(tmp_path):
    tokenizer = gguf_models.word_pieces(tmp_path / "tokenizer.json", lowercase=False)
    read = tokenizer_json.read(tokenizer)
    assert (
        not read.options["normalizer.lowercase"] and not read.options["normalizer.strip_accents"] and read.notes == ()
    )
    for text in TEXTS:
        assert llama(read).encode(text) == ids(tokenizer, text), text


@pytest.mark.parametrize(
    ("text", "is_repeated"),
    [
        ("Über", True),
        ("Cafe\u0301", True),
        ("서울", False),
        ("दिल्ली", False),
        ("\u0e17\u0e35\u0e48", True),
        ("中国", True),
    ],
)
def test_accents_that_are_stripped_otherwise(text, is_repeated, vocabulary):
    assert tokenizer_json.read(vocabulary("word pieces")).is_repeated(text, []) == is_repeated


def test_marks_of_words_and_types_of_tokens(vocabulary):
    read = tokenizer_json.read(vocabulary("word pieces"))
    assert list(read.tokens[:5]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] and read.types[:5] == [3, 2, 3, 3, 3]
    assert "\u2581a" in read.tokens and not any(token.startswith("##") for token in read.tokens)
    assert (read.begin, read.end, read.options["seperator_token_id"]) == (2, 3, 3)
    qwen = tokenizer_json.read(vocabulary("qwen bytes"))
    assert (qwen.begin, qwen.end, qwen.rule) == (None, 0, "qwen2")


def test_texts_not_in_nfc_are_not_repeated_where_the_tokenizer_normalises(vocabulary):
    read = tokenizer_json.read(vocabulary("gpt2 bytes"))
    assert read.notes == ("bring texts to Unicode's NFC first; llama.cpp does not",)
    assert not read.is_repeated("Cafe\u0301", []) and read.is_repeated(unicodedata.normalize("NFC", "Cafe\u0301"), [])


def test_a_tokenizer_that_strips_is_noted(vocabulary, tmp_path):
    spec = changed(vocabulary("gpt2 bytes"), normalizer={"type": "Strip", "strip_left": True, "strip_right": True})
    read = tokenizer_json.read(saved(spec, tmp_path))
    assert read.notes == ("remove white space at the ends of texts first; llama.cpp does not",)
    assert not read.is_repeated(" a", []) and read.is_repeated("a", [])


def test_scores_are_the_order_of_merges(vocabulary):
    """A model of SentencePiece's and the tokenizer.json made of it have their tokens in one order."""
    from embed.gguf import sentencepiece_model

    theirs, ours = sentencepiece_model.read(vocabulary("merging")), tokenizer_json.read(vocabulary("merging json"))
    assert list(theirs.tokens) == list(ours.tokens) and list(theirs.types) == list(ours.types)
    merged = [i for i, token in enumerate(ours.tokens) if ours.types[i] == 1 and len(token) > 1]
    assert len(merged) > 50
    order = lambda read: sorted(merged, key=lambda i: -read.scores[i])  # noqa: E731
    assert order(theirs) == order(ours)


def changed(tokenizer, **parts) -> dict:
    return {**json.loads(tokenizer.content()), **parts}


def saved(spec: dict, folder) -> HuggingFace:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(spec))
    return HuggingFace(str(path))


def _model(**values):
    return lambda spec: spec["model"].update(values)


def _normalizer(**values):
    return lambda spec: spec["normalizer"].update(values)


def _replace(**parts):
    return lambda spec: spec.update(parts)


def _added(**values):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return lambda spec: spec["added_tokens"].append({"id": 100, "content": "<extra>", **flags, **values})


def _drop_merge(spec) -> None:
    merges, vocab = spec["model"]["merges"], spec["model"]["vocab"]
    spec["model"]["merges"] = [
        m for m in merges if not (len(m[0]) == len(m[1]) == 1 and "".join(m) in vocab)
    ] or merges[1:]


def _two_ends(spec) -> None:
    spec["post_processor"]["single"].insert(0, spec["post_processor"]["single"][0])


_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_CUT = {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated", "invert": False}
REFUSED = {
    "words": ("word pieces", _model(type="WordLevel"), "is a model of type 'WordLevel'"),
    "another prefix": (
        "word pieces",
        _model(continuing_subword_prefix="@@"),
        "has WordPiece with continuing_subword_prefix = '@@'",
    ),
    "another normalizer": ("word pieces", _replace(normalizer={"type": "Lowercase"}), "without BERT's normalizer"),
    "no chinese": (
        "word pieces",
        _normalizer(handle_chinese_chars=False),
        "BERT's normalizer with handle_chinese_chars = False",
    ),
    "added word piece": ("word pieces", _added(), "has the added token '<extra>'"),
    "ends of two": ("word pieces", _two_ends, "puts 2 tokens before a text and 1 behind it"),
    "no ends": ("word pieces", _replace(post_processor=None), "puts no token before or behind a text"),
    "lower case": ("unigram json", _replace(normalizer={"type": "Lowercase"}), "changes texts by Lowercase"),
    "cut at digits": (
        "unigram json",
        _replace(pre_tokenizer={"type": "Digits", "individual_digits": True}),
        "cuts texts by Digits",
    ),
    "no marks": (
        "unigram json",
        _replace(pre_tokenizer={"type": "WhitespaceSplit"}),
        "does not mark words as SentencePiece does",
    ),
    "marks of some": (
        "unigram json",
        lambda spec: spec["pre_tokenizer"]["pretokenizers"][1].update(prepend_scheme="never"),
        "has Metaspace with prepend_scheme = 'never'",
    ),
    "added piece": ("unigram json", _added(), "has the added token '<extra>'"),
    "stripped": ("gpt2 bytes", _added(lstrip=True), "finds the added token '<extra>' by the white space around it"),
    "no merges": ("gpt2 bytes", _model(merges=[]), "is a BPE model without merges"),
    "dropout": ("gpt2 bytes", _model(dropout=0.1), "has BPE with dropout = 0.1"),
    "whole words": ("gpt2 bytes", _model(ignore_merges=True), "has BPE of bytes with ignore_merges = True"),
    "no words": ("gpt2 bytes", _replace(pre_tokenizer=_BYTE_LEVEL), "has ByteLevel with use_regex = False"),
    "lower case bytes": ("gpt2 bytes", _replace(normalizer={"type": "Lowercase"}), "changes texts by Lowercase"),
    "other words": (
        "gpt2 bytes",
        _replace(pre_tokenizer={"type": "Sequence", "pretokenizers": [_CUT, _BYTE_LEVEL]}),
        "cuts texts into words by 'x'",
    ),
    "cut twice": (
        "gpt2 bytes",
        _replace(pre_tokenizer={"type": "Sequence", "pretokenizers": [_CUT, _CUT, _BYTE_LEVEL]}),
        "cuts texts into words in more than one way",
    ),
    "no spaces marked": (
        "merging json",
        _replace(normalizer=None),
        "is a BPE model neither of bytes nor of SentencePiece",
    ),
    "pieces cut": ("merging json", _replace(pre_tokenizer={"type": "Whitespace"}), "cuts texts by Whitespace"),
    "pieces changed": ("merging json", _replace(normalizer={"type": "NFKC"}), "changes texts by NFKC"),
    "few bytes": (
        "merging json",
        lambda spec: spec["model"]["vocab"].pop("<0x0A>"),
        "has 255 tokens for the 256 bytes",
    ),
    "merges out of order": (
        "merging json",
        lambda spec: spec["model"]["merges"].append(spec["model"]["merges"][0]),
        "merges in an order that is none of tokens",
    ),
    "a merge is missing": ("merging json", _drop_merge, "does not merge"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_rules_that_llama_cpp_lacks_are_refused(kind, vocabulary, tmp_path):
    name, change, message = REFUSED[kind]
    spec = changed(vocabulary(name))
    change(spec)
    tokenizer = saved(spec, tmp_path)
    with pytest.raises(DataError) as caught:
        tokenizer_json.read(tokenizer)
    line = str(caught.value)
    assert message in line and line.startswith(f"{tokenizer.path}: ") and "\n" not in line
    assert line.endswith("which llama.cpp's tokenizers cannot repeat; export with another --format")
