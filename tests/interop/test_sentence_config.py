"""What sentence-transformers loads a model with: lengths, arguments and prompts, of which file, and what is told or refused."""

import json

import numpy as np
import pytest
import safetensors.numpy
from foreign_folders import edit, error

from embed import bundles
from embed.errors import DataError
from embed.interop import sentence_config
from embed.interop import source as sources


def test_prompts_that_are_none(theirs, foreign):
    for wrong in (["query: "], {"query": 3}, "query: "):
        foreign.write_json(theirs / "config_sentence_transformers.json", {"prompts": wrong})
        assert "config_sentence_transformers.json" in error(theirs)
    foreign.write_json(theirs / "config_sentence_transformers.json", {"prompts": None})
    assert set(sources.read(theirs).prompts.values()) == {"{content}"}


def test_a_prompt_under_another_key_is_told(theirs):
    edit(theirs / "config_sentence_transformers.json", lambda c: c.update(prompts={"query": "q: ", "passage": "p: "}))
    read = sources.read(theirs)
    assert read.prompts["document"] == "p: {content}"
    assert any("the prompt 'passage' is taken for 'document'" in note for note in read.notes)


def test_without_modules_the_files_of_sentence_transformers_are_not_read(theirs):
    edit(theirs / "sentence_bert_config.json", max_seq_length=9)
    (theirs / "modules.json").unlink()
    source = sources.read(theirs)
    assert source.max_length == 48 and set(source.prompts.values()) == {"{content}"}
    assert sum("not read, because sentence-transformers does not read it" in n for n in source.notes) == 2


def test_two_files_of_one_purpose(theirs):
    (theirs / "sentence_roberta_config.json").write_text('{"max_seq_length": 3}')
    source = sources.read(theirs)
    assert source.max_length == 48
    assert any(
        "sentence_roberta_config.json: not read, because sentence_bert_config.json is" in n for n in source.notes
    )
    (theirs / "sentence_bert_config.json").unlink()
    assert sources.read(theirs).max_length == 3


@pytest.mark.slow
def test_the_default_prompt_is_kept_and_told(theirs, call, tmp_path, foreign):
    edit(theirs / "config_sentence_transformers.json", default_prompt_name="query")
    code, out, err = call("convert", theirs, tmp_path / "out")
    assert code == 0, err
    assert bundles.read_model_json(tmp_path / "out")["default_prompt_name"] == "query"
    assert "default_prompt_name = 'query' is kept in model.json" in out and "--prompt=query" in out
    # A key that only repeats one of our names is stored under ours, with the same text.
    edit(theirs / "config_sentence_transformers.json", default_prompt_name="Clustering")
    source = sources.read(theirs)
    assert source.prompts[source.default_prompt_name] == "group: {content}"
    edit(theirs / "config_sentence_transformers.json", default_prompt_name="nothing")
    assert "default_prompt_name = 'nothing', but there is no such prompt; known: query" in error(theirs)
    assert "default_prompt_name" not in bundles.read_model_json(
        foreign.to_bundle(foreign.write_folder(tmp_path / "p"), tmp_path / "b")
    )


def test_a_prompt_with_our_own_marks_is_refused(theirs):
    for text in ("about {content}: ", "{title} "):
        edit(theirs / "config_sentence_transformers.json", prompts={"query": text})
        assert "prompt 'query' holds {content} or {title}" in error(theirs)


@pytest.mark.parametrize("name", ["model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args"])
def test_arguments_that_are_no_object(name, folder):
    root = folder()
    edit(root / "sentence_bert_config.json", **{name: [1]})
    with pytest.raises(DataError, match=f"{name} = \\[1\\] is not an object; correct it"):
        sources.read(root)


def test_arguments_are_held_against_the_tables_too(folder):
    root = folder()
    edit(root / "sentence_bert_config.json", config_args={"is_decoder": True})
    with pytest.raises(DataError, match="is_decoder = True is not supported"):
        sources.read(root)
    edit(root / "sentence_bert_config.json", config_args={}, tokenizer_args={"split_special_tokens": True})
    with pytest.raises(DataError, match="split_special_tokens = True is not supported"):
        sources.read(root)
    edit(root / "sentence_bert_config.json", tokenizer_args={}, model_args={"subfolder": "onnx"})
    with pytest.raises(DataError, match="model_args.subfolder = 'onnx' is not supported"):
        sources.read(root)
    edit(root / "sentence_bert_config.json", model_args={"torch_dtype": "bfloat16", "trust_remote_code": True})
    assert any("transformers computes in bfloat16" in n for n in sources.read(root).notes)


def test_a_half_precision_and_another_similarity_are_told(folder):
    root = folder()
    edit(root / "config.json", torch_dtype="float16")
    edit(root / "config_sentence_transformers.json", similarity_fn_name="dot")
    notes = "\n".join(sources.read(root).notes)
    assert "transformers computes in float16 unless it is told otherwise; here it is float32" in notes
    assert "similarity_fn_name = 'dot'; here vectors have unit length and are compared by cosine" in notes


def loading(folder, name="sentence_bert_config.json", **given) -> sentence_config.Loading:
    (folder / name).write_text(json.dumps(given))
    return sentence_config.loading(folder, has_modules=True)


def test_what_the_file_does_not_say(tmp_path):
    assert sentence_config.loading(tmp_path, has_modules=True) == sentence_config.Loading()
    assert loading(tmp_path, max_seq_length=None) == sentence_config.Loading()


def test_the_first_name_that_there_is_is_read(tmp_path):
    found = loading(tmp_path, "sentence_xlnet_config.json", max_seq_length=7)
    assert (found.max_length, found.name, found.notes) == (7, "sentence_xlnet_config.json", ())
    found = loading(tmp_path, "sentence_roberta_config.json", max_seq_length=8, do_lower_case=True)
    assert (found.max_length, found.lower_case, found.name) == (8, True, "sentence_roberta_config.json")
    assert found.notes == (
        f"{tmp_path / 'sentence_xlnet_config.json'}: not read, because sentence_roberta_config.json is",
    )


def test_arguments_have_an_old_and_a_new_name(tmp_path):
    new = {"config_kwargs": {"a": 1, "trust_remote_code": True}, "processor_kwargs": {"b": 2}}
    found = loading(tmp_path, **new)
    assert (found.config, found.tokenizer) == ({"a": 1}, {"b": 2})  # leave to run code is not taken from a file
    found = loading(tmp_path, **new, config_args={"a": 3}, tokenizer_args=None)
    assert (found.config, found.tokenizer) == ({"a": 3}, {})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, None),
        ({"dtype": "float32"}, None),
        ({"torch_dtype": "torch.float32"}, None),
        ({"torch_dtype": "auto"}, None),
        ({"torch_dtype": "torch.float16"}, "float16"),
        ({"torch_dtype": "float32", "dtype": "bfloat16"}, "bfloat16"),
    ],
    ids=str,
)
def test_half_precisions_are_told(config, said):
    note = f"f.json: transformers computes in {said} unless it is told otherwise; here it is float32"
    assert sentence_config.dtype_notes("f.json", config) == ([note] if said else [])


def test_half_precisions_of_stored_weights_are_told_where_the_file_names_no_type(tmp_path):
    path = tmp_path / "model.safetensors"
    half, whole = np.ones(2, np.float16), np.ones(2, np.float32)
    for tensors, said in (({"a": whole}, False), ({"a": half, "b": whole}, False), ({"a": half, "b": half}, True)):
        safetensors.numpy.save_file(tensors, path)
        notes = sentence_config.stored_dtype_notes("f.json", {}, [path])
        told = [f"{path}: holds F16 alone, in which transformers computes; here it is float32"]
        assert notes == (told if said else [])
    for config in ({"dtype": "float32"}, {"torch_dtype": "float16"}):
        assert sentence_config.stored_dtype_notes("f.json", config, [path]) == []
    assert sentence_config.stored_dtype_notes("f.json", {}, []) == []


def read_prompts(folder, **given) -> sentence_config.Prompts:
    (folder / "config_sentence_transformers.json").write_text(json.dumps(given))
    return sentence_config.read_prompts(folder, has_modules=True)


def test_without_a_file_of_prompts_texts_are_taken_as_they_are(tmp_path):
    found = sentence_config.read_prompts(tmp_path, has_modules=True)
    assert set(found.templates.values()) == {"{content}"} and found.default_name is None and found.notes == ()


@pytest.mark.parametrize(("similarity", "told"), [(None, False), ("cosine", False), ("euclidean", True)])
def test_another_similarity_is_told(similarity, told, tmp_path):
    notes = read_prompts(tmp_path, similarity_fn_name=similarity).notes
    assert ["similarity_fn_name = 'euclidean'" in note for note in notes] == ([True] if told else [])


def test_a_default_of_a_prompt_that_every_model_has(tmp_path):
    found = read_prompts(tmp_path, default_prompt_name="document")
    assert found.default_name == "document" and found.templates["document"] == "{content}"
    with pytest.raises(
        DataError, match="default_prompt_name = 3, but there is no such prompt; known: query, document;"
    ):
        read_prompts(tmp_path, default_prompt_name=3)


TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}


def test_of_several_modalities_texts_alone_are_read_and_told(theirs):
    before = sources.read(theirs)
    edit(theirs / "sentence_bert_config.json", modality_config={"text": TEXT, "image": TEXT, "image+text": TEXT})
    source = sources.read(theirs)
    assert source.module == before.module
    (note,) = set(source.notes) - set(before.notes)
    assert note == f"{theirs / 'sentence_bert_config.json'}: texts alone are read, not image, image+text"


@pytest.mark.parametrize(
    "modalities",
    [
        {"text": TEXT, "message": {**TEXT, "format": "structured"}},  # texts are put into a chat's template
        {"text": {**TEXT, "method": "get_text_features"}, "image": TEXT},
        {"image": TEXT},
        {"text": TEXT, "smell": TEXT},
    ],
    ids=str,
)
def test_texts_that_are_read_in_another_way_are_refused(modalities, theirs):
    edit(theirs / "sentence_bert_config.json", modality_config=modalities)
    assert "only plain texts into token vectors can be computed" in error(theirs)
