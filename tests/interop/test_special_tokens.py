"""Special and added tokens as transformers hands them to the class of a tokenizer."""

import json

import pytest
from foreign_folders import edit, error
from tokenizers import AddedToken

from embed.errors import DataError
from embed.interop import special_tokens

SPEC = {"added_tokens": []}


@pytest.mark.parametrize("value", ['{"pad_token": 3}', '{"additional_special_tokens": ["a", null]}'])
def test_special_tokens_that_are_none_are_refused(theirs, value):
    edit(theirs / "tokenizer_config.json", lambda c: c.pop("added_tokens_decoder", None))
    (theirs / "special_tokens_map.json").write_text(value)
    assert "which is no token of transformers" in error(theirs)


def arguments(folder, options=None, spec=SPEC, **files) -> dict:
    """Returns the arguments of a folder that has `files`, with tokens as what they say of themselves."""
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    found = special_tokens.class_arguments(folder, options or {}, spec)
    return {name: plain(value) for name, value in found.items()}


def plain(value):
    if isinstance(value, AddedToken):
        marks = ("single_word", "lstrip", "rstrip", "normalized", "special")
        return (value.content, *(mark for mark in marks if getattr(value, mark)))
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list) else value


def test_a_folder_that_says_nothing_has_none(tmp_path):
    assert arguments(tmp_path) == {
        "added_tokens_decoder": {},
        "model_specific_special_tokens": {},
        "extra_special_tokens": [],
    }


def test_roles_are_the_tokens_that_are_declared_for_them(tmp_path):
    declared = {"7": {"content": "[CLS]", "lstrip": True, "special": True}, "3": {"content": "NEW", "normalized": True}}
    found = arguments(tmp_path, {"cls_token": "[CLS]", "sep_token": "[SEP]", "added_tokens_decoder": declared})
    assert found["added_tokens_decoder"] == {7: ("[CLS]", "lstrip", "special"), 3: ("NEW", "normalized")}
    assert found["cls_token"] == ("[CLS]", "lstrip", "special") and found["sep_token"] == "[SEP]"


def test_a_token_may_be_an_object_that_says_so(tmp_path):
    token = {"__type": "AddedToken", "content": "[MASK]", "lstrip": True, "normalized": False}
    assert arguments(tmp_path, {"mask_token": token})["mask_token"] == ("[MASK]", "lstrip")


def test_declared_tokens_go_before_the_older_files(tmp_path):
    declared = {"0": {"content": "a", "normalized": False}}
    found = arguments(
        tmp_path, {"added_tokens_decoder": declared}, added_tokens={"b": 5}, special_tokens_map={"x_token": "c"}
    )
    assert found["added_tokens_decoder"] == {0: ("a",)} and "x_token" not in found


def test_the_older_files_and_the_tokenizer_are_read_where_nothing_is_declared(tmp_path):
    spec = {"added_tokens": [{"id": 2, "content": "[PAD]", "special": True, "normalized": False}]}
    found = arguments(
        tmp_path,
        {"eos_token": "end"},
        spec,
        added_tokens={"NEW": 5, "[X]": 6, "end": 7},
        special_tokens_map={"additional_special_tokens": ["[X]", {"content": "[Y]", "normalized": False}]},
    )
    assert found["added_tokens_decoder"] == {
        5: ("NEW", "normalized"),
        6: ("[X]", "special"),
        7: ("end", "special"),
        2: ("[PAD]", "special"),
    }
    assert found["extra_special_tokens"] == ["[X]", ("[Y]", "special")]
    assert found["eos_token"] == ("end", "special")


def test_an_old_map_adds_to_what_is_there_and_replaces_roles(tmp_path):
    options = {"additional_special_tokens": ["[X]"], "pad_token": "[PAD]", "cls_token": "[CLS]"}
    old = {
        "additional_special_tokens": ["[X]", "[Z]"],
        "pad_token": {"content": "<pad>", "normalized": False},
        "cls_token": None,
        "image_token": "<image>",
    }
    found = arguments(tmp_path, options, special_tokens_map=old)
    assert found["extra_special_tokens"] == ["[X]", "[Z]"]
    assert found["pad_token"] == ("<pad>", "special") and found["cls_token"] is None
    assert found["model_specific_special_tokens"] == {"image_token": "<image>"}


def test_the_new_list_goes_before_the_old_one(tmp_path):
    found = arguments(tmp_path, {"additional_special_tokens": ["[old]"], "extra_special_tokens": ["[new]"]})
    assert found["extra_special_tokens"] == ["[new]"]
    found = arguments(tmp_path, {"additional_special_tokens": ["[old]"], "extra_special_tokens": []})
    assert found["extra_special_tokens"] == ["[old]"]


def test_further_special_tokens_may_have_names(tmp_path):
    named = {"image_token": "<image>", "boi_token": {"content": "<boi>", "special": True, "normalized": False}}
    found = arguments(tmp_path, {"extra_special_tokens": named, "audio_token": "<audio>", "add_bos_token": True})
    assert found["extra_special_tokens"] == []
    assert found["model_specific_special_tokens"] == {
        "audio_token": "<audio>",
        "image_token": "<image>",
        "boi_token": ("<boi>", "special"),
    }
    assert found["add_bos_token"] is True  # a flag, though its name ends like a token's


WRONG = {
    "a role that is a flag": ({"mask_token": True}, "mask_token = True is no token of transformers"),
    "a number": ({"image_token": 3}, "image_token = 3 is no token of transformers; save the tokenizer again"),
    "an object that does not say so": ({"pad_token": {"content": "x"}}, "pad_token = .* is no token"),
    "a list that is text": ({"extra_special_tokens": True}, "extra_special_tokens = True is no token"),
    "an empty text": ({"extra_special_tokens": [""]}, "extra_special_tokens holds '', which is no token"),
    "no text": ({"extra_special_tokens": [{"lstrip": True}]}, "extra_special_tokens holds a token that cannot be"),
    "a mark that is text": (
        {"added_tokens_decoder": {"1": {"content": "x", "lstrip": "yes"}}},
        "added_tokens_decoder holds a token that cannot be",
    ),
    "an id that is none": ({"added_tokens_decoder": {"-1": {"content": "x"}}}, "is not tokens by id; save"),
    "a very long id": ({"added_tokens_decoder": {"1" * 11: {"content": "x"}}}, "is not tokens by id; save"),
    "a list of tokens": ({"added_tokens_decoder": []}, "is not tokens by id; save"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_entries_that_are_no_tokens_are_refused(kind, tmp_path):
    options, message = WRONG[kind]
    with pytest.raises(DataError, match=f"tokenizer_config.json: .*{message}"):
        special_tokens.class_arguments(tmp_path, options, SPEC)


def test_damaged_older_files_name_themselves(tmp_path):
    with pytest.raises(DataError, match="added_tokens.json: NEW = 'five' cannot be: a whole number"):
        arguments(tmp_path, added_tokens={"NEW": "five"})
    (tmp_path / "added_tokens.json").unlink()
    with pytest.raises(DataError, match="special_tokens_map.json: does not know tokens; only special tokens can be in"):
        arguments(tmp_path, special_tokens_map={"tokens": "x"})
    with pytest.raises(DataError, match="tokenizer.json: added_tokens holds a token that cannot be"):
        arguments(tmp_path, None, {"added_tokens": [{"id": 1, "content": ""}]}, special_tokens_map={})
