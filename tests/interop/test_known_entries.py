"""The tables of entries: what they refuse is refused in one line, what has no effect has none, what they lack is told."""

import pytest
from foreign_folders import edit

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


# What released folders hold: all-MiniLM-L6-v2, EmbeddingGemma, and what sentence-transformers 5 writes.
RELEASED = [
    (
        "1_Pooling/config.json",
        {
            "word_embedding_dimension": 384,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": False,
            "pooling_mode_lasttoken": False,
            "include_prompt": True,
        },
    ),
    (
        "2_Dense/config.json",
        {
            "in_features": 768,
            "out_features": 3072,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
            "module_input_name": "sentence_embedding",
            "module_output_name": None,
        },
    ),
    ("sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False}),
    (
        "config_sentence_transformers.json",
        {
            "__version__": {"sentence_transformers": "5.1.0", "transformers": "4.57.0", "pytorch": "2.8.0"},
            "model_type": "SentenceTransformer",
            "prompts": {"query": "q: "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    ),
    (
        "tokenizer_config.json",
        {
            "do_lower_case": True,
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
            "tokenize_chinese_chars": True,
            "strip_accents": None,
            "name_or_path": "nreimers/MiniLM-L6-H384-uncased",
            "do_basic_tokenize": True,
            "never_split": None,
            "tokenizer_class": "BertTokenizer",
            "model_max_length": 512,
        },
    ),
]


@pytest.mark.parametrize(("name", "content"), RELEASED, ids=[name for name, _ in RELEASED])
def test_every_entry_of_released_folders_is_known(name, content):
    assert entries.check(name, content, TABLES[name]) == []


@pytest.mark.parametrize(
    ("name", "entry", "value"),
    [
        ("2_Dense/config.json", "use_residual", True),
        ("2_Dense/config.json", "module_input_name", "token_embeddings"),
        ("config_sentence_transformers.json", "truncate_dim", 64),
        ("config_sentence_transformers.json", "model_type", "CrossEncoder"),
        ("tokenizer_config.json", "split_special_tokens", True),
    ],
)
def test_what_would_give_other_vectors_is_refused(name, entry, value):
    with pytest.raises(DataError, match=f"^{name}: {entry} = {value!r} is not supported, only "):
        entries.check(name, {entry: value}, TABLES[name])


@pytest.mark.parametrize("name", ["revision", "variant", "load_in_4bit", "state_dict", "key_mapping"])
def test_arguments_that_load_other_weights_are_refused(name):
    with pytest.raises(DataError, match=f"model_args.{name} = 'x' is not supported, only None, ''; remove the entry"):
        entries.check("f.json", {name: "x"}, known_entries.MODEL_ARGUMENTS, "model_args.")
    assert entries.check("f.json", {name: None}, known_entries.MODEL_ARGUMENTS, "model_args.") == []
