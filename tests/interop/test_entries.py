"""The tables of entries: what they refuse is refused in one line, what has no effect has none, what they lack is told."""

import json

import pytest

from embed.errors import DataError
from embed.interop import entries, families, known_entries
from embed.interop import source as sources

TABLES = {
    "tokenizer_config.json": known_entries.TOKENIZER_CONFIG,
    "sentence_bert_config.json": known_entries.SENTENCE_BERT_CONFIG,
    "config_sentence_transformers.json": known_entries.CONFIG_SENTENCE_TRANSFORMERS,
    "1_Pooling/config.json": known_entries.POOLING,
    "2_Dense/config.json": known_entries.DENSE,
    "3_Normalize/config.json": known_entries.NORMALIZE,
}
ODD = "a value that nothing takes"


@pytest.fixture
def folder(foreign, tmp_path):
    """folder(family) writes a sentence-transformers folder that a test changes."""

    def write(family: str = "bert"):
        path = foreign.write_folder(tmp_path / family, family)
        foreign.add_modules(path, dense=(10,), prompts=foreign.PROMPTS)
        (path / "3_Normalize").mkdir()
        (path / "3_Normalize" / "config.json").write_text("{}")
        return path

    return write


def edit(path, **values) -> None:
    content = json.loads(path.read_text())
    content.get("encoder", content).update(values)
    path.write_text(json.dumps(content))


def meaning(source) -> tuple:
    """Returns everything that decides vectors."""
    return (
        source.module,
        source.tokenizer.digest,
        source.prompts,
        source.max_length,
        source.default_prompt_name,
        source.dense,
    )


REFUSED = [(name, entry) for name, table in TABLES.items() for entry, e in table.items() if e.values is not None]


@pytest.mark.parametrize(("name", "entry"), REFUSED)
def test_a_value_that_is_not_computed_is_refused(name, entry, folder):
    path = folder() / name
    edit(path, **{entry: ODD})
    with pytest.raises(DataError) as e:
        sources.read(path.parent if "/" not in name else path.parent.parent)
    message = str(e.value)
    assert message.startswith(f"{path}: {entry} = {ODD!r} is not supported, only ") and "\n" not in message
    assert message.endswith(TABLES[name][entry].advice)


@pytest.mark.parametrize(("name", "entry"), REFUSED)
def test_the_values_that_are_computed_are_taken(name, entry, folder):
    path = folder() / name
    root = path.parent if "/" not in name else path.parent.parent
    before = meaning(sources.read(root))
    for value in TABLES[name][entry].values:
        edit(path, **{entry: value})
        assert meaning(sources.read(root)) == before


CONFIG = [(f.model_type, entry) for f in families.ALL for entry, e in f.entries.items() if e.values is not None]


@pytest.mark.parametrize(("family", "entry"), CONFIG)
def test_a_value_of_config_json_that_is_not_computed_is_refused(family, entry, folder):
    path = folder(family) / "config.json"
    edit(path, **{entry: ODD})
    with pytest.raises(DataError) as e:
        sources.read(path.parent)
    message = str(e.value)
    assert message.startswith(f"{path}: ") and f"{entry} = {ODD!r} is not supported, only " in message
    assert "\n" not in message


@pytest.mark.parametrize("family", [f.model_type for f in families.ALL])
def test_entries_without_effect_have_none(family, folder):
    path = folder(family)
    before = meaning(sources.read(path))
    notes = sources.read(path).notes
    table = next(f for f in families.ALL if f.model_type == family).entries
    edit(path / "config.json", **{k: ODD for k, e in table.items() if e == entries.NO_EFFECT and k != "decoder"})
    edit(
        path / "tokenizer_config.json",
        **{k: ODD for k, e in known_entries.TOKENIZER_CONFIG.items() if e == entries.NO_EFFECT},
    )
    source = sources.read(path)
    assert meaning(source) == before
    if family != "qwen3":
        assert source.notes == notes


@pytest.mark.parametrize("name", ["config.json", *TABLES])
def test_an_entry_that_is_not_known_is_told(name, folder):
    root = folder()
    edit(root / name, something_new=3, another=[])
    source = sources.read(root)
    (note,) = [n for n in source.notes if "something_new" in n]
    assert note.startswith(
        f"{root / name}: this version does not know something_new, another; taken to be without effect"
    )


def test_many_unknown_entries_are_counted():
    (note,) = entries.check("f.json", {f"e{i}": i for i in range(11)}, {}, "inner.")
    assert "inner.e0, inner.e1" in note and "inner.e7 and 3 more; taken" in note


def test_true_is_not_one():
    with pytest.raises(DataError, match="a = True is not supported, only 1"):
        entries.check("f.json", {"a": True}, {"a": entries.only(1)})
    assert entries.check("f.json", {"a": 1}, {"a": entries.only(1)}) == []


@pytest.mark.parametrize("value", [True, "3", 0, 11, 2.5, None])
def test_whole_numbers(value):
    with pytest.raises(DataError, match=r"f.json: n = .* cannot be: a whole number from 1 to 10 is needed; restore"):
        entries.whole_number("f.json", {"n": value}, "n", 1, 10)
    assert entries.whole_number("f.json", {"n": 3.0}, "n", 1, 10) == 3
    assert entries.whole_number("f.json", {}, "n", 1, 10, 7) == 7


@pytest.mark.parametrize("value", [True, "3", 0, 11, float("nan"), None])
def test_real_numbers(value):
    with pytest.raises(DataError, match=r"f.json: n = .* cannot be: a number above 0 and up to 10 is needed; restore"):
        entries.real_number("f.json", {"n": value}, "n", 0.0, 10.0)
    assert entries.real_number("f.json", {"n": 3}, "n", 0.0, 10.0) == 3.0


FLAGS = {
    "tokenizer_config.json": (
        "do_lower_case",
        "tokenize_chinese_chars",
        "strip_accents",
        "add_bos_token",
        "add_prefix_space",
    ),
    "sentence_bert_config.json": ("do_lower_case",),
    "1_Pooling/config.json": ("include_prompt",),
    "2_Dense/config.json": ("bias",),
}


@pytest.mark.parametrize(("name", "entry"), [(n, e) for n, names in FLAGS.items() for e in names])
def test_flags_that_are_neither_true_nor_false(name, entry, folder):
    root = folder()
    edit(root / name, **{entry: "yes"})
    with pytest.raises(DataError, match=f"{entry} = 'yes' is neither true nor false; restore the file"):
        sources.read(root)


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


@pytest.mark.parametrize("name", ["word_embedding_dimension", "embedding_dimension"])
def test_a_pooling_of_another_width(name, folder):
    root = folder()
    edit(root / "1_Pooling" / "config.json", **{name: 13})
    with pytest.raises(DataError, match=f"{name} = 13, but the encoder is 12 wide; get the whole checkpoint"):
        sources.read(root)


def test_a_chat_template_of_a_plain_folder_is_told(foreign, tmp_path):
    root = foreign.write_folder(tmp_path / "plain")
    (root / "chat_template.jinja").write_text("{{ messages }}")
    (note,) = [n for n in sources.read(root).notes if "chat" in n]
    assert "the chat template is not used; sentence-transformers 6 uses it where modules.json is missing" in note
    foreign.add_modules(root)
    assert not [n for n in sources.read(root).notes if "chat" in n]


ROPE = {
    "an unknown entry": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "short_factor": [1]}},
    "two kinds": {"rope_scaling": {"rope_type": "default", "type": "yarn"}},
    "part of a head": {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    "a list": {"rope_parameters": [1]},
    "a base of zero": {"rope_parameters": {"rope_theta": 0}},
}


@pytest.mark.parametrize("family", ["qwen3", "t5gemma", "gemma3_text", "modernbert"])
@pytest.mark.parametrize("kind", ROPE)
def test_rotary_positions_that_are_not_computed(kind, family, folder):
    values = ROPE[kind]
    if (
        family in ("gemma3_text", "modernbert")
        and "rope_parameters" in values
        and isinstance(values["rope_parameters"], dict)
    ):
        values = {"rope_parameters": {"full_attention": values["rope_parameters"]}}
    root = folder(family)
    edit(root / "config.json", **values)
    with pytest.raises(DataError) as e:
        sources.read(root)
    assert str(root / "config.json") in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("family", ["gemma3_text", "modernbert"])
def test_flat_rotary_positions_where_kinds_of_attention_have_their_own(family, folder):
    root = folder(family)
    edit(root / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    with pytest.raises(DataError, match="rope_parameters must have full_attention and sliding_attention"):
        sources.read(root)
    edit(root / "config.json", rope_parameters=None, rope_scaling="linear")
    with pytest.raises(DataError, match="rope_scaling = 'linear' is not an object"):
        sources.read(root)
