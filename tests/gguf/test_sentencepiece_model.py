"""SentencePiece models as llama.cpp's vocabularies: its own algorithms give SentencePiece's ids."""

import gguf_models
import llama_tokenizer
import pytest
from sentencepiece import sentencepiece_model_pb2 as pb2

from embed.data.tokenizers import SentencePiece
from embed.errors import DataError
from embed.gguf import sentencepiece_model, vocabulary
from embed.interop import parity

TEXTS = (*parity.TEXTS, "an <tag> apart", "<tag>", "  two  spaces ", "a\nb\n\n")


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer.encode_batch([text], 1000)[0][0].tolist()


@pytest.mark.parametrize("kind", ["merging", "unigram"])
def test_llama_cpp_gives_the_same_ids(kind, vocabulary):
    tokenizer = vocabulary(kind)
    read = sentencepiece_model.read(tokenizer)
    llama = llama_tokenizer.Llama(_entries(read))
    repeated = [text for text in TEXTS if read.is_repeated(text, ids(tokenizer, text))]
    assert len(repeated) >= len(TEXTS) - 2
    for text in repeated:
        assert llama.encode(text) == ids(tokenizer, text), text
    for text in set(TEXTS) - set(repeated):
        assert llama.encode(text) != ids(tokenizer, text), text


def _entries(read):
    return vocabulary.metadata(read, 0, len(read.tokens), "here")


def test_ends_are_those_of_the_tokenizer(vocabulary):
    path = vocabulary("unigram").path
    read = sentencepiece_model.read(SentencePiece(path, add_bos=False, add_eos=True))
    assert (read.kind, read.begin, read.end) == ("t5", None, 1)
    assert (read.options["add_space_prefix"], read.options["remove_extra_whitespaces"]) == (True, True)
    assert read.notes == (vocabulary_notes(),)
    merging = sentencepiece_model.read(vocabulary("merging"))
    assert (merging.kind, merging.begin, merging.end, merging.notes) == ("llama", 2, 1, ())
    assert merging.types[:4] == (3, 3, 3, 2) and merging.types.count(6) == 256 and merging.types.count(4) == 1


def vocabulary_notes() -> str:
    return "characters that the vocabulary lacks are the unknown token in llama.cpp, and bytes in the trained model"


def test_a_map_of_characters_is_kept(tmp_path):
    content = gguf_models._sentencepiece(model_type="unigram")
    (tmp_path / "a.model").write_bytes(content)
    read = sentencepiece_model.read(SentencePiece(str(tmp_path / "a.model")))
    charsmap = pb2.ModelProto.FromString(content).normalizer_spec.precompiled_charsmap
    assert charsmap and read.options["precompiled_charsmap"] == charsmap and read.notes == ()


def _type(proto, name: str) -> None:
    proto.trainer_spec.model_type = getattr(pb2.TrainerSpec, name)


REFUSED = {
    "words": ("unigram", lambda p: _type(p, "WORD"), "is neither a unigram nor a BPE model"),
    "suffixes": (
        "unigram",
        lambda p: setattr(p.trainer_spec, "treat_whitespace_as_suffix", True),
        "puts white space behind words",
    ),
    "no prefix": (
        "unigram",
        lambda p: setattr(p.normalizer_spec, "add_dummy_prefix", False),
        "removes white space but puts none before a text",
    ),
    "no bytes": (
        "merging",
        lambda p: setattr(p.trainer_spec, "byte_fallback", False),
        "is a BPE model without bytes for unknown characters",
    ),
    "white space": (
        "merging",
        lambda p: setattr(p.normalizer_spec, "remove_extra_whitespaces", True),
        "is a BPE model that changes texts before it merges",
    ),
    "symbols behind white space": (
        "merging",
        lambda p: setattr(p.normalizer_spec, "add_dummy_prefix", True),
        "is a BPE model with symbols of its user and white space before a text",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_rules_that_llama_cpp_lacks_are_refused(kind, vocabulary, tmp_path):
    name, change, message = REFUSED[kind]
    proto = pb2.ModelProto.FromString(vocabulary(name).content())
    change(proto)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(DataError) as caught:
        sentencepiece_model.read(SentencePiece(str(path)))
    advice = "which llama.cpp's tokenizers cannot repeat; export with another --format"
    assert str(caught.value) == f"{path}: {message}, {advice}"
