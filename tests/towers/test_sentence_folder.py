"""What modules.json and its files say of a model of images; another computation is refused."""

import json

import pytest

from embed.errors import DataError
from embed.towers import sentence_folder

WORD = "sentence_transformers.base.modules."


@pytest.fixture
def folder(tmp_path):
    """write(kinds, has_text, config, **files) -> a folder with those modules."""

    def write(kinds=("Transformer", "Normalize"), has_text=True, config=None, paths=None):
        paths = paths or ["" if kind == "Transformer" else f"{i}_{kind}" for i, kind in enumerate(kinds)]
        entries = [
            {"idx": i, "name": str(i), "path": path, "type": WORD + kind}
            for i, (kind, path) in enumerate(zip(kinds, paths))
        ]
        (tmp_path / "modules.json").write_text(json.dumps(entries))
        given = {"modality_config": sentence_folder.modality_config(has_text), "max_seq_length": 9, **(config or {})}
        (tmp_path / "sentence_bert_config.json").write_text(json.dumps(given))
        for path, kind in zip(paths, kinds):
            if kind == "Dense":
                (tmp_path / path).mkdir()
                identity = {"activation_function": "torch.nn.modules.linear.Identity", "bias": False}
                (tmp_path / path / "config.json").write_text(
                    json.dumps({"in_features": 8, "out_features": 4, **identity})
                )
        return tmp_path

    return write


def test_a_folder_without_modules_says_nothing(tmp_path):
    read = sentence_folder.read(tmp_path, 8, has_text=True)
    assert read.dense == () and read.max_length is None and read.prompts["query"] == "{content}"


def test_prompts_and_lengths(folder):
    path = folder()
    prompts = {"prompts": {"query": "find: "}, "default_prompt_name": "query"}
    (path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    read = sentence_folder.read(path, 8, has_text=True)
    assert read.prompts["query"] == "find: {content}" and read.default_prompt_name == "query" and read.max_length == 9


def test_linear_maps_behind_one_tower_alone(folder):
    path = folder(("Transformer", "Dense", "Normalize"), has_text=False)
    assert sentence_folder.read(path, 8, has_text=False).sizes == (4,)
    with pytest.raises(DataError, match="linear maps behind two towers are not supported"):
        sentence_folder.read(path, 8, has_text=True)
    with pytest.raises(DataError, match="in_features does not fit"):
        sentence_folder.read(path, 7, has_text=False)


def test_another_order_or_place_is_refused(folder):
    with pytest.raises(
        DataError, match="modules in the order Transformer, Pooling, Normalize; of a model of images only"
    ):
        sentence_folder.read(folder(("Transformer", "Pooling", "Normalize")), 8, has_text=True)
    with pytest.raises(DataError, match="the transformer is in '0_Transformer'"):
        sentence_folder.read(folder(paths=["0_Transformer", "1_Normalize"]), 8, has_text=True)


def test_another_output_is_refused(folder):
    other = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    with pytest.raises(DataError, match="only pooler_output of text and image can be computed; expected"):
        sentence_folder.read(folder(config={"modality_config": other}), 8, has_text=True)
    with pytest.raises(DataError, match="query_length"):
        sentence_folder.read(folder(config={"query_length": 3}), 8, has_text=True)


def test_vectors_that_are_left_as_they_are_are_noted(folder):
    read = sentence_folder.read(folder(("Transformer",)), 8, has_text=True)
    assert any("here, and when exported, they have unit length" in note for note in read.notes)
