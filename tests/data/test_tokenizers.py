"""Vocabularies: special tokens, truncation with its count, padding, digests, and files that are not vocabularies."""

import hashlib
import io
import json
import time

import numpy as np
import pytest
import tokenizers as hugging_face
from tokenizers import models, pre_tokenizers, processors

from embed.data.tokenizers import HuggingFace, SentencePiece, from_folder, train_sentencepiece
from embed.errors import ConfigError, DataError

WORDS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "b": 5, "c": 6, "d": 7, "e": 8}
TEXTS = ["hello world, this is a tiny text", "another tiny text of some words", "numbers 10 and 200"] * 20


@pytest.fixture(scope="module")
def piece_bytes():
    return train_sentencepiece(TEXTS, 285, symbols=["<start_of_image>"])


@pytest.fixture
def piece_path(tmp_path, piece_bytes):
    (tmp_path / "pieces.model").write_bytes(piece_bytes)
    return str(tmp_path / "pieces.model")


@pytest.fixture
def words_path(tmp_path):
    return save_words(tmp_path / "words.json")


def save_words(path, words=WORDS, change=lambda tokenizer: None):
    """Writes a tokenizer.json of whole words that puts [CLS] before and [SEP] after a text."""
    made = hugging_face.Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(name, words[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    made.add_special_tokens([name for name in words if name.startswith("[")])
    change(made)
    made.save(str(path))
    return str(path)


def one_line_error(function):
    with pytest.raises(DataError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_trained_special_ids_are_those_of_gemma(piece_path, piece_bytes):
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=piece_bytes)
    found = [processor.pad_id(), processor.eos_id(), processor.bos_id(), processor.unk_id()]
    assert found == [0, 1, 2, 3]
    made = SentencePiece(piece_path)
    assert made.vocab_size == 285
    assert made.pad_id == 0
    symbol = processor.piece_to_id("<start_of_image>")
    assert symbol != 3
    assert symbol in made.encode_batch(["tiny<start_of_image>text"], 50)[0][0].tolist()


@pytest.mark.parametrize(
    ("bos", "eos", "head", "tail"),
    [(True, True, [2], [1]), (True, False, [2], []), (False, True, [], [1]), (False, False, [], [])],
)
def test_sentencepiece_adds_the_special_tokens_asked_for(piece_path, piece_bytes, bos, eos, head, tail):
    import sentencepiece

    inner = sentencepiece.SentencePieceProcessor(model_proto=piece_bytes).encode("hello tiny world")
    rows, cut = SentencePiece(piece_path, add_bos=bos, add_eos=eos).encode_batch(["hello tiny world"], 64)
    assert rows[0].dtype == np.int32
    assert rows[0].tolist() == head + inner + tail
    assert cut == [False]


def test_sentencepiece_truncation_keeps_the_ends_and_is_counted(piece_path, piece_bytes):
    import sentencepiece

    inner = sentencepiece.SentencePieceProcessor(model_proto=piece_bytes).encode("hello tiny world")
    made, full = SentencePiece(piece_path), len(inner) + 2
    for length in range(3, full + 2):
        rows, cut = made.encode_batch(["hello tiny world", "a"], length)
        assert rows[0].tolist() == [2, *inner[: length - 2], 1]
        assert cut[0] == (length < full)
        assert len(rows[1]) <= length


@pytest.mark.parametrize("length", [0, 1, 2])
def test_a_length_without_room_beside_the_ends_is_refused(piece_path, words_path, length):
    for made in (SentencePiece(piece_path), HuggingFace(words_path)):
        with pytest.raises(ConfigError, match="leaves no room for a text beside"):
            made.encode_batch(["a b c d"], length)


def test_no_text_is_unknown_and_decoding_gives_it_back(piece_path):
    made = SentencePiece(piece_path)
    text = "tiny \u00e9t\u00e9 \u65e5\u672c \U0001f600 {x}"
    ids = made.encode_batch([text], 500)[0][0]
    assert 3 not in ids.tolist()
    assert made.decode(ids) == text


@pytest.mark.parametrize("megabytes", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("unit", ["ab ", "\u65e5", " "])
def test_megabytes_are_tokenised_whole_in_bounded_time(piece_path, words_path, unit, megabytes):
    text = "tiny " + unit * (megabytes * 1_000_000 // len(unit.encode())) + " a b"
    inner = len(sentencepiece_of(piece_path).encode(text))
    words = len(text.split())
    for made, count in ((SentencePiece(piece_path), inner), (HuggingFace(words_path), words)):
        began = time.monotonic()
        rows, cut = made.encode_batch([text], 64)
        assert time.monotonic() - began < 12 * megabytes  # several times what a free machine takes
        assert cut == [count + 2 > 64]
        assert len(rows[0]) == min(count + 2, 64)


def sentencepiece_of(path):
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=path)


def test_tokens_behind_a_hundred_thousand_characters_are_seen(piece_path, words_path):
    """A tokenizer may make one token of any number of characters, so that no text may be cut by characters."""
    for unit in ("z" * 20_000 + " ", " " * 20_000, "\n \t" * 9_000):
        texts = [f"a {unit * 10}b", f"a {unit * 10}c"]
        rows, cut = HuggingFace(words_path).encode_batch(texts, 64)
        assert [r.tolist()[-2:] for r in rows] == [[5, 3], [6, 3]]
        assert cut == [False, False]
    inner = sentencepiece_of(piece_path)
    texts = ["tiny" + " " * 100_000 + "world", "tiny" + " " * 100_000 + "words"]
    rows, cut = SentencePiece(piece_path).encode_batch(texts, 16)
    assert [r.tolist() for r in rows] == [[2, *inner.encode(t), 1] for t in texts]
    assert cut == [False, False]


@pytest.mark.parametrize("length", [3, 4, 6, 7, 50])
def test_truncation_at_the_left_keeps_the_end_of_a_text(piece_path, words_path, length):
    expected = hugging_face.Tokenizer.from_file(words_path)
    expected.enable_truncation(length, direction="left")
    rows, cut = HuggingFace(words_path, truncation_side="left").encode_batch(["a b c d e", "a"], length)
    assert [r.tolist() for r in rows] == [expected.encode(t).ids for t in ("a b c d e", "a")]
    assert cut == [length < 7, False]
    text = "hello tiny world"
    inner = sentencepiece_of(piece_path).encode(text)
    rows, cut = SentencePiece(piece_path, truncation_side="left").encode_batch([text], length)
    assert rows[0].tolist() == [2, *inner[max(0, len(inner) - length + 2) :], 1]
    assert cut == [len(inner) + 2 > length]


def test_a_side_that_is_none_is_refused(piece_path, words_path):
    for kind, path in ((SentencePiece, piece_path), (HuggingFace, words_path)):
        with pytest.raises(ConfigError, match="truncation_side is 'middle'; it is 'left' or 'right'"):
            kind(path, truncation_side="middle").encode_batch(["a"], 9)


def test_the_usual_side_is_not_part_of_the_digest(piece_path, words_path):
    """Bundles that are older than the option keep their digest."""
    for made in (SentencePiece(piece_path), HuggingFace(words_path)):
        assert "truncation_side" not in made.options()
        left = type(made)(made.path, truncation_side="left")
        assert left.options()["truncation_side"] == "left" and left.digest != made.digest
    old = hashlib.sha256(HuggingFace(words_path).content() + b'{"kind": "huggingface", "pad_token": null}').hexdigest()
    assert HuggingFace(words_path).digest == old


def test_content_that_is_not_that_of_the_file(tmp_path, words_path):
    other = save_words(tmp_path / "other.json", {**WORDS, "a": 5, "b": 4})
    content = (tmp_path / "other.json").read_bytes()
    made = HuggingFace(words_path, given=content)
    assert made.content() == content and made.digest == HuggingFace(other).digest
    assert made.encode_batch(["a b"], 9)[0][0].tolist() == [2, 5, 4, 3]
    assert HuggingFace(words_path).encode_batch(["a b"], 9)[0][0].tolist() == [2, 4, 5, 3]
    broken = HuggingFace(words_path, given=b"{}")
    assert "not a tokenizer.json" in one_line_error(lambda: broken.vocab_size)


@pytest.mark.long
@pytest.mark.slow
def test_a_long_batch_gives_what_its_texts_give_alone(words_path, monkeypatch):
    from embed.data import tokenizers as module

    calls = []
    whole = module._batches

    def batches(texts):
        for batch in whole(texts):
            calls.append(len(batch))
            yield batch

    texts = ["a b", "c " * 1_500_000, "d", "e " * 1_500_000, "b " * 5_000_000, "a"]
    expected = [HuggingFace(words_path).encode_batch([t], 6)[0][0].tolist() for t in texts]
    monkeypatch.setattr(module, "_batches", batches)
    rows, cut = HuggingFace(words_path).encode_batch(texts, 6)
    assert [r.tolist() for r in rows] == expected
    assert cut == [False, True, False, True, True, False]
    assert calls == [3, 1, 1, 1]


def test_a_batch_gives_what_its_texts_give_alone(piece_path, words_path):
    texts = ["a", "hello b tiny", "c d e a b", "world"]
    for made in (SentencePiece(piece_path), HuggingFace(words_path)):
        together, cut = made.encode_batch(texts, 5)
        for text, row, was_cut in zip(texts, together, cut):
            alone, alone_cut = made.encode_batch([text], 5)
            assert row.tolist() == alone[0].tolist()
            assert [was_cut] == alone_cut


def test_a_model_without_a_begin_token_gives_no_impossible_ids(tmp_path):
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=285, byte_fallback=True, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "no_bos.model").write_bytes(model.getvalue())
    made = SentencePiece(str(tmp_path / "no_bos.model"))
    try:
        rows, _ = made.encode_batch(["tiny text"], 20)
    except DataError:
        return  # refusing with advice is fine too
    assert min(rows[0]) >= 0


def test_huggingface_rows_by_hand(words_path):
    made = HuggingFace(words_path)
    assert made.vocab_size == 9
    rows, cut = made.encode_batch(["a b c d", "a", "zebra e"], 10)
    assert [r.tolist() for r in rows] == [[2, 4, 5, 6, 7, 3], [2, 4, 3], [2, 1, 8, 3]]
    assert all(r.dtype == np.int32 for r in rows)
    assert cut == [False, False, False]
    assert made.decode(rows[0]) == "a b c d"


def test_huggingface_truncation_keeps_the_ends_and_is_counted(words_path):
    made = HuggingFace(words_path)
    inner = [4, 5, 6, 7, 8]
    for length in (7, 3, 5, 8, 4, 6, 7):
        rows, cut = made.encode_batch(["a b c d e", "a"], length)
        assert rows[0].tolist() == [2, *inner[: length - 2], 3]
        assert cut == [length < 7, False]


def test_huggingface_ignores_the_truncation_and_padding_stored_in_its_file(tmp_path):
    def store(tokenizer):
        tokenizer.enable_truncation(4, direction="left")
        tokenizer.enable_padding(length=12, pad_id=0, pad_token="[PAD]")

    made = HuggingFace(save_words(tmp_path / "stored.json", change=store))
    rows, cut = made.encode_batch(["a b c d", "e"], 4)
    assert [r.tolist() for r in rows] == [[2, 4, 5, 3], [2, 8, 3]]
    assert cut == [True, False]
    assert made.encode_batch(["a b c d"], 9)[0][0].tolist() == [2, 4, 5, 6, 7, 3]


def test_huggingface_finds_the_padding_token(tmp_path, words_path):
    assert HuggingFace(words_path).pad_id == 0
    assert HuggingFace(words_path, pad_token="e").pad_id == 8
    moved = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "<pad>": 4}
    assert HuggingFace(save_words(tmp_path / "moved.json", moved)).pad_id == 4
    end = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "<|endoftext|>": 3}
    assert HuggingFace(save_words(tmp_path / "end.json", end)).pad_id == 3


def test_huggingface_without_a_padding_token_says_what_to_set(tmp_path, words_path):
    bare = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}
    path = save_words(tmp_path / "bare.json", bare)
    message = one_line_error(lambda: HuggingFace(path).pad_id)
    assert path in message and "HuggingFace.pad_token" in message
    message = one_line_error(lambda: HuggingFace(words_path, pad_token="<none>").pad_id)
    assert "<none>" in message


@pytest.mark.parametrize("kind", [SentencePiece, HuggingFace])
def test_a_missing_vocabulary_is_one_line_with_its_path(tmp_path, kind):
    path = str(tmp_path / "absent.model")
    for use in (lambda t: t.digest, lambda t: t.vocab_size, lambda t: t.pad_id, lambda t: t.encode_batch(["a"], 4)):
        message = one_line_error(lambda use=use: use(kind(path)))
        assert message.startswith(f"{path}: ") and "embed prepare" in message


@pytest.mark.parametrize("kind", [SentencePiece, HuggingFace])
@pytest.mark.parametrize("content", [b"garbage", b"", b"\xff\xfe\x00\n\n", b"{}", b'{"version":\n "1.0"}'])
def test_garbage_is_one_line_with_its_path(tmp_path, kind, content):
    path = tmp_path / f"{kind.__name__}-{hashlib.md5(content).hexdigest()}"
    path.write_bytes(content)
    for use in (lambda t: t.vocab_size, lambda t: t.encode_batch(["a"], 4)):
        message = one_line_error(lambda use=use: use(kind(str(path))))
        assert message.startswith(f"{path}: not a ")


def test_a_path_missing_at_first_is_read_once_it_is_there(tmp_path, piece_bytes):
    path = tmp_path / "later.model"
    one_line_error(lambda: SentencePiece(str(path)).vocab_size)
    path.write_bytes(piece_bytes)
    assert SentencePiece(str(path)).vocab_size == 285


def test_digests_change_with_every_option_and_with_the_file(tmp_path, piece_path, words_path):
    other = tmp_path / "other.json"
    save_words(other, {**WORDS, "f": 9})
    digests = [SentencePiece(piece_path, b, e).digest for b in (True, False) for e in (True, False)]
    digests += [HuggingFace(words_path).digest, HuggingFace(words_path, "e").digest, HuggingFace(str(other)).digest]
    assert len(set(digests)) == len(digests) == 7


def test_digests_do_not_depend_on_where_the_file_lies(tmp_path, piece_path, words_path):
    (tmp_path / "elsewhere").mkdir()
    for made in (SentencePiece(piece_path), HuggingFace(words_path)):
        copy = tmp_path / "elsewhere" / made.filename
        copy.write_bytes(made.content())
        assert type(made)(str(copy)).digest == made.digest
    assert SentencePiece(piece_path, train_vocab_size=99).digest == SentencePiece(piece_path).digest


def test_a_stored_tokenizer_comes_back_with_its_options(tmp_path, piece_path, words_path):
    for made in (SentencePiece(piece_path, add_bos=False), HuggingFace(words_path, "e")):
        (tmp_path / made.filename).write_bytes(made.content())
        back = from_folder(tmp_path, json.loads(json.dumps(made.options())))
        assert back.digest == made.digest
        assert back.encode_batch(["a b"], 9)[0][0].tolist() == made.encode_batch(["a b"], 9)[0][0].tolist()
    message = one_line_error(lambda: from_folder(tmp_path, {"kind": "bytes"}))
    assert "'bytes'" in message and "sentencepiece, huggingface" in message


def test_a_vocabulary_too_large_for_its_texts_is_one_line_with_the_size():
    message = one_line_error(lambda: train_sentencepiece(["a b"] * 5, 5000))
    assert "5000" in message and "cannot be trained" in message


def test_training_a_vocabulary_twice_gives_the_same_bytes(piece_bytes):
    assert train_sentencepiece(TEXTS, 285, symbols=["<start_of_image>"]) == piece_bytes


def test_special_tokens_around_a_text_and_ids_of_tokens(piece_path, words_path):
    pieces, words = SentencePiece(piece_path), HuggingFace(words_path)
    assert pieces.affixes == ([2], [1]) and SentencePiece(piece_path, add_bos=False).affixes == ([], [1])
    assert pieces.token_id("<start_of_image>") in pieces.encode_batch(["<start_of_image>"], 9)[0][0].tolist()
    assert pieces.token_id("no such piece") is None
    assert words.affixes == ([2], [3]) and (words.token_id("b"), words.token_id("z")) == (5, None)


def test_a_tokenizer_without_special_tokens_has_no_affixes(tmp_path):
    made = hugging_face.Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "plain.json"))
    assert HuggingFace(str(tmp_path / "plain.json")).affixes == ([], [])
