"""Folders that say a thing twice: what transformers and sentence-transformers take is taken and told, or it is refused."""

import json

import numpy as np
import pytest
import safetensors.numpy
import tokenizers
from foreign_folders import edit, error

from embed import documents
from embed.data.tokenizers import train_sentencepiece
from embed.errors import DataError
from embed.interop import convert, tensors
from embed.interop import source as sources

INDEX = "model.safetensors.index.json"


WORDS = "embeddings.word_embeddings.weight"


def load_error(folder) -> str:
    with pytest.raises(DataError) as e:
        convert.load_params(sources.read(folder))
    assert "\n" not in str(e.value)
    return str(e.value)


def shards(folder, foreign, first: dict, second: dict, weight_map: dict | None = None) -> None:
    """Writes the weights as two files and an index; the whole file is removed."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for name, part in zip(names, (first, second)):
        safetensors.numpy.save_file(part, folder / name)
    own = dict.fromkeys(first, names[0]) | dict.fromkeys(second, names[1])
    (folder / INDEX).write_text(json.dumps({"weight_map": own if weight_map is None else weight_map}))


def halves(foreign):
    whole = foreign.draw(foreign.SHAPES["bert"])
    names = list(whole)
    return {n: whole[n] for n in names[:9]}, {n: whole[n] for n in names[9:]}


def test_a_whole_file_is_read_and_not_the_index_beside_it(theirs, foreign):
    whole = safetensors.numpy.load_file(theirs / "model.safetensors")
    other = {name: array + 1 for name, array in whole.items()}
    shards(theirs, foreign, {WORDS: other[WORDS]}, {n: a for n, a in other.items() if n != WORDS})
    safetensors.numpy.save_file(whole, theirs / "model.safetensors")
    source = sources.read(theirs)
    (note,) = [n for n in source.notes if "model.safetensors is read, not" in n]
    assert INDEX in note and "model-00001-of-00002.safetensors" in note
    table = convert.load_params(source)["encoder"]["embedding"]["table"]
    assert np.array_equal(table, whole[WORDS])


def test_shards_are_read_by_their_index(theirs, foreign):
    shards(theirs, foreign, *halves(foreign))
    source = sources.read(theirs)
    assert not [n for n in source.notes if "is read, not" in n]
    assert np.array_equal(
        convert.load_params(source)["encoder"]["embedding"]["table"], foreign.draw(foreign.SHAPES["bert"])[WORDS]
    )


def test_a_tensor_in_two_shards_is_refused(theirs, foreign):
    first, second = halves(foreign)
    shards(theirs, foreign, first, {**second, WORDS: first[WORDS] + 1})
    assert f"holds {WORDS}, which another file of the index holds too" in load_error(theirs)


def test_an_index_that_is_not_what_its_files_hold_is_refused(theirs, foreign):
    first, second = halves(foreign)
    both = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    swapped = dict.fromkeys(first, both[1]) | dict.fromkeys(second, both[0])
    shards(theirs, foreign, first, second, swapped)
    assert "download the folder again" in load_error(theirs) and "but it is in" in load_error(theirs)
    own = dict.fromkeys(first, both[0]) | dict.fromkeys(second, both[1])
    shards(theirs, foreign, first, second, {k: v for k, v in own.items() if k != WORDS})
    assert f"says that {WORDS} is in no file, but it is in {both[0]}" in load_error(theirs)
    shards(theirs, foreign, {k: v for k, v in first.items() if k != WORDS}, second, own)
    assert f"says that {WORDS} is in {both[0]}, but it is in no file" in load_error(theirs)


def test_other_weights_are_named(theirs):
    (theirs / "extra.safetensors").write_bytes((theirs / "model.safetensors").read_bytes())
    assert any("model.safetensors is read, not extra.safetensors" in n for n in sources.read(theirs).notes)


def test_an_adapter_is_refused(theirs):
    (theirs / "adapter_config.json").write_text("{}")
    assert "has an adapter (adapter_config.json)" in error(theirs) and "merge_and_unload" in error(theirs)


def test_a_name_that_a_json_object_has_twice_is_refused(theirs):
    for name in (
        "config.json",
        "tokenizer_config.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
    ):
        path = theirs / name
        before = path.read_text()
        path.write_text('{"prompts": {}, "prompts": {"query": "x"}, ' + before[1:])
        if before == "{}":
            path.write_text('{"a": 1, "a": 2}')
        assert f"{path}: not valid JSON (the key 'prompts' stands twice in an object)" in error(theirs)
        path.write_text(before)
    assert sources.read(theirs)
    path = theirs / "tokenizer.json"
    path.write_text(path.read_text().replace('"[PAD]":0', '"[PAD]":0,"[PAD]":1'))
    assert "the key '[PAD]' stands twice" in error(theirs)


def test_lengths_that_differ_are_told(theirs):
    edit(theirs / "sentence_bert_config.json", max_seq_length=40)
    source = sources.read(theirs)
    (note,) = [n for n in source.notes if "texts are cut at" in n]
    assert source.max_length == 40 and "model_max_length of the tokenizer is 48" in note
    edit(theirs / "sentence_bert_config.json", max_seq_length=4000)
    source = sources.read(theirs)
    (note,) = [n for n in source.notes if "texts are cut at" in n]
    assert source.max_length == 60 and "max_seq_length of sentence_bert_config.json is 4000" in note


@pytest.mark.parametrize(
    ("family", "default"),
    [
        ("modernbert", 8192),
        ("qwen3", 32_768),
        ("gemma3_text", 131_072),
        ("t5gemma", 8192),
        ("embedding_gemma2_text", 262_144),
    ],
)
def test_a_length_that_nothing_says_is_the_number_of_positions(family, default, foreign, tmp_path):
    folder = foreign.write_folder(tmp_path / "theirs", family)
    foreign.write_json(folder / "tokenizer_config.json", {**foreign.TOKENIZER_CONFIG, "model_max_length": 10**30})
    assert sources.read(folder).max_length == default
    config = json.loads((folder / "config.json").read_text())
    config.get("encoder", config)["max_position_embeddings"] = 777
    foreign.write_json(folder / "config.json", config)
    assert sources.read(folder).max_length == 777
    # Rotary positions have no end: what the folder says is taken.
    foreign.add_modules(folder)
    edit(folder / "sentence_bert_config.json", max_seq_length=900)
    assert sources.read(folder).max_length == 900


@pytest.mark.parametrize("value", [0, -1, "48", True, 1.5, [48]])
def test_lengths_that_cannot_be(value, theirs):
    edit(theirs / "sentence_bert_config.json", max_seq_length=value)
    assert "sentence_bert_config.json: max_seq_length" in error(theirs)
    edit(theirs / "sentence_bert_config.json", max_seq_length=None)
    edit(theirs / "tokenizer_config.json", model_max_length=value)
    assert "tokenizer_config.json: model_max_length" in error(theirs)


def test_text_config_and_the_same_entry_beside_it(foreign, tmp_path):
    inner = foreign.CONFIGS["gemma3_text"]
    outer = {"text_config": inner, "sliding_window": 2, "hidden_size": 99, "vision_config": {"hidden_size": 5}}
    folder = foreign.write_folder(tmp_path / "theirs", "gemma3_text", config={"model_type": "gemma3", **outer})
    source = sources.read(folder)
    assert (source.module.encoder.window, source.module.encoder.width) == (8, 12)
    (note,) = [n for n in source.notes if "text_config" in n]
    assert "hidden_size" in note and "sliding_window" in note and "of text_config is used" in note
    # In a gemma3_text it is no entry at all; transformers reads the outermost object.
    foreign.write_json(
        folder / "config.json", {"model_type": "gemma3_text", **inner, "text_config": {"sliding_window": 2}}
    )
    source = sources.read(folder)
    assert source.module.encoder.window == 8 and any("does not know text_config" in n for n in source.notes)


def test_vocabularies_beside_tokenizer_json(theirs, foreign):
    vocab = tokenizers.Tokenizer.from_file(str(theirs / "tokenizer.json")).get_vocab()
    words = sorted(vocab, key=vocab.get)
    (theirs / "vocab.txt").write_text("\n".join(words) + "\n")
    foreign.write_json(theirs / "vocab.json", vocab)
    assert not [n for n in sources.read(theirs).notes if "does not have the tokens" in n]
    (theirs / "vocab.txt").write_text("\n".join([words[1], words[0], *words[2:]]) + "\n")
    foreign.write_json(theirs / "vocab.json", {"something": 3})
    (theirs / "tokenizer.model").write_bytes(train_sentencepiece(["hello tiny world of text"] * 20, 275))
    notes = [n for n in sources.read(theirs).notes if "does not have the tokens of tokenizer.json" in n]
    assert [n.partition(": ")[0].rpartition("/")[2] for n in notes] == ["vocab.txt", "vocab.json", "tokenizer.model"]


def test_read_json_reads_lists_too(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2]")
    assert documents.read_json(tmp_path / "a.json", kind=list) == [1, 2]
    with pytest.raises(DataError, match="expected object, got a list"):
        documents.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match="expected a list, got"):
        documents.read_json(tmp_path / "a.json", kind=list)


def test_the_reader_takes_the_first_file_of_transformers(theirs):
    assert [p.name for p in tensors.Reader(theirs).files] == ["model.safetensors"]
