"""A SentencePiece vocabulary as tokenizer.json gives the same ids: unigram and BPE, many scripts, spaces, emoji and bytes."""

import io
import json
import random

import pytest
import sentencepiece
import tokenizers

from embed.data.tokenizers import HuggingFace, SentencePiece, train_sentencepiece
from embed.errors import DataError
from embed.interop import parity, tokenizer_json

TEXTS = (
    *parity.TEXTS,
    "The quick brown fox jumps over the lazy dog.",
    "Ich weiß nicht, was soll es bedeuten, daß ich so traurig bin",
    "Voix ambiguë d'un cœur qui, au zéphyr, préfère les jattes de kiwis",
    "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "Pijamalı hasta yağız şoföre çabucak güvendi",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "Съешь же ещё этих мягких французских булок",
    "דג סקרן שט בים מאוכזב",
    "نص حكيم له سر قاطع",
    "ऋषियों को सताने वाले दुष्ट राक्षसों",
    "ঢাকা বাংলাদেশের রাজধানী",
    "நீலம் வானம்",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "ຂອບໃຈ ກັມປູເຈຍ ខ្មែរ မြန်မာ",
    "ქართული ენა և հայերեն",
    "いろはにほへと ちりぬるを ｶﾅ",
    "天地玄黃，宇宙洪荒。𠀀𠮷",
    "다람쥐 헌 쳇바퀴에 타고파",
    "ⴰⵣⵓⵍ ᚠᚢᚦ 𐌰𐌱",  # scripts that no piece covers
    "a  b   c    d     e",
    "  leading and trailing spaces  ",
    "   ",
    "x",
    "tab\tinside, line\nbreak, \r\n return",
    "no-break\u00a0space, wide\u3000space, zero\u200bwidth, soft\u00adhyphen",
    "e\u0301 decomposed and \u00e9 composed",
    "\U0001f600\U0001f600 \U0001f1eb\U0001f1f7 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "0123456789 3.14159 1,000,000 1e-9 0x1F",
    "https://example.org/a/b?c=d&e=f#g user@example.org C:\\path",
    "if (a != b) { return !(c >> 2); } // }}}",
    "zero \x00 byte \x7f and \x01 control",
    "\u2581 the space's own sign \u2581\u2581 inside",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "<not a token> <x> [CLS] <|endoftext|>",
)
ENGLISH = [
    "the model reads the text and gives a vector for the text",
    "the vectors of near texts are near, the vectors of others are not",
    "a token is a piece of a word, a word is a token or more",
]
_DRAW = random.Random(3)
_SYLLABLES = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "ing")]
_WORDS = ["".join(_DRAW.choices(_SYLLABLES, k=_DRAW.randint(1, 4))) for _ in range(500)]
MADE_UP = _DRAW.choices(_WORDS, k=4000)


def train(kind: str, **options) -> bytes:
    """Returns a model that knows some of the texts' scripts and falls back to bytes for the others."""
    texts = [*TEXTS[:20], *ENGLISH * 20, *(" ".join(MADE_UP[i : i + 8]) for i in range(0, len(MADE_UP), 8))]
    if kind == "unigram":
        return train_sentencepiece(texts, 900, **options)
    model = io.BytesIO()
    settings = {"add_dummy_prefix": False, "remove_extra_whitespaces": False, "character_coverage": 0.995, **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=900,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        minloglevel=2,
        **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, **settings},
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """both(kind, bos, eos, **training options) -> (ours, theirs), each vocabulary trained once."""
    folder, found = tmp_path_factory.mktemp("vocabularies"), {}

    def run(kind: str, bos: bool = True, eos: bool = True, **options):
        key = json.dumps([kind, options])
        if key not in found:
            path = folder / f"{len(found)}.model"
            path.write_bytes(train(kind, **options))
            found[key] = path
        ours = SentencePiece(str(found[key]), add_bos=bos, add_eos=eos)
        return ours, tokenizers.Tokenizer.from_str(tokenizer_json.from_sentencepiece(ours).decode())

    return run


def assert_same(ours, theirs, texts, max_length: int = 400) -> None:
    rows = ours.encode_batch(texts, max_length)[0]
    theirs.enable_truncation(max_length)
    for text, row, encoded in zip(texts, rows, theirs.encode_batch(list(texts))):
        assert [int(i) for i in row] == encoded.ids, repr(text)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_every_text_has_the_same_ids(kind, text, both):
    assert_same(*both(kind), [text])


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_the_texts_reach_pieces_and_bytes(kind, both):
    """The test above would show little if everything fell back to bytes, or nothing did."""
    ours, theirs = both(kind)
    used = {theirs.id_to_token(int(i)) for row in ours.encode_batch([*TEXTS, " ".join(MADE_UP)], 9000)[0] for i in row}
    assert sum(t.startswith("<0x") for t in used) > 50 and sum(len(t) > 2 and t[0] != "<" for t in used) > 50


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_made_up_texts_have_the_same_ids(kind, both):
    draw = random.Random(4)
    words = [w for t in (*TEXTS, *ENGLISH) for w in t.split() if "\u2581" not in w] + MADE_UP[:300]
    spaces = (" ", " ", " ", "  ", "\t", "")
    texts = ["".join(w + draw.choice(spaces) for w in draw.choices(words, k=draw.randint(1, 15))) for _ in range(500)]
    assert_same(*both(kind), [text.strip() for text in texts])


@pytest.mark.parametrize("options", [{"add_dummy_prefix": True}, {"remove_extra_whitespaces": True}], ids=str)
def test_bpe_with_other_treatment_of_spaces(options, both):
    assert_same(*both("bpe", **options), TEXTS)


@pytest.mark.parametrize("ends", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_ends_and_truncation(kind, ends, both):
    ours, theirs = both(kind, *ends)
    for max_length in (7, 3):
        assert_same(ours, theirs, TEXTS, max_length)
    row = theirs.encode(ENGLISH[0]).ids
    assert len(row) == 3 and (row[0] == 2) == ends[0] and (row[-1] == 1) == ends[1]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_the_names_of_special_tokens_in_a_text_are_text(kind, both):
    assert_same(*both(kind), ["a <s> b", "the </s>", "<unk>", "<pad> the", "</s></s>"])


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_the_names_of_bytes_in_a_text_are_text(kind, both):
    assert_same(*both(kind), ["a<0x0A>b", "<0xE2><0x96>"])


def test_the_sign_of_a_space_at_the_end(both):
    assert_same(*both("unigram"), ["the text\u2581", "\u2581"])


SYMBOLS = ["<image> a", "a <image>b", "a<image>b", "<image><image>", "a  <image>  b", "the text <image>"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("unigram", {"symbols": ["<image>"]}),
        ("bpe", {"user_defined_symbols": ["<image>"]}),
        ("bpe", {"user_defined_symbols": ["<image>"], "add_dummy_prefix": True}),
    ],
    ids=["unigram", "bpe", "bpe with a dummy prefix"],
)
def test_symbols_of_their_own(kind, options, both):
    assert_same(*both(kind, **options), SYMBOLS)


def test_symbols_of_white_space(both):
    texts = ["a\nb", "a\n\nb", "a  b", "a   b", "  a", "def f():\n    return 1\n\n"]
    assert_same(*both("bpe", user_defined_symbols=["\n", "\n\n", "\u2581\u2581", "\u2581\u2581\u2581\u2581"]), texts)


def test_the_json_is_what_our_own_reader_opens(both, tmp_path):
    ours, _ = both("unigram")
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json.from_sentencepiece(ours))
    opened = HuggingFace(str(tmp_path / "tokenizer.json"), pad_token="<pad>")
    assert (opened.vocab_size, opened.pad_id) == (ours.vocab_size, 0)
    texts = [t for t in TEXTS if t.strip()]
    for a, b in zip(ours.encode_batch(texts, 20)[0], opened.encode_batch(texts, 20)[0]):
        assert a.tolist() == b.tolist()
    made = json.loads((tmp_path / "tokenizer.json").read_text())
    processor = sentencepiece.SentencePieceProcessor(model_proto=ours.content())
    for i in (0, 1, 2, 3, 50, 400):
        assert tokenizer_json.token(made, i) == processor.id_to_piece(i)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_decoding_gives_the_text_back(kind, both):
    ours, theirs = both(kind)
    for text in (ENGLISH[0], "東京 \U0001f600 ⴰⵣ", "Straße"):
        assert theirs.decode(theirs.encode(text).ids[1:-1]) == text


def test_what_a_tokenizer_json_cannot_repeat_is_refused(tmp_path):
    for name, options in (
        ("nfkc", {"normalization_rule_name": "nmt_nfkc"}),
        ("words", {"model_type": "word"}),
        ("chars", {"model_type": "char"}),
    ):
        model = io.BytesIO()
        settings = {"normalization_rule_name": "identity", "model_type": "bpe", **options}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(ENGLISH * 20),
            model_writer=model,
            vocab_size=40,
            hard_vocab_limit=False,
            minloglevel=2,
            **settings,
        )
        (tmp_path / f"{name}.model").write_bytes(model.getvalue())
        with pytest.raises(DataError) as e:
            tokenizer_json.from_sentencepiece(SentencePiece(str(tmp_path / f"{name}.model")))
        assert f"{name}.model" in str(e.value) and "export with --format=stablehlo" in str(e.value)
