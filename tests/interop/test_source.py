"""Foreign folders: what is read from config.json and the sentence-transformers modules, and all that is refused."""

import json

import pytest
import tokenizers
from foreign_folders import edit, error

from embed.errors import EmbedError
from embed.interop import source as sources


def test_a_folder_that_is_not_there(refused, tmp_path):
    err = refused(tmp_path / "nowhere")
    assert "nowhere: no such folder; give a folder with config.json and safetensors weights" in err


def test_an_empty_folder(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty: no config.json, so not a model" in refused(tmp_path / "empty")


def test_code_of_its_own_is_never_executed(theirs, refused, tmp_path):
    edit(theirs / "config.json", lambda c: c.update(auto_map={"AutoModel": "modeling.Model"}))
    (theirs / "modeling.py").write_text(f"open({str(tmp_path / 'boom')!r}, 'w')\n")
    err = refused(theirs)
    assert "config.json: wants code of its own (AutoModel), which is never executed" in err
    assert "get a checkpoint of a known architecture without auto_map" in err
    assert not (tmp_path / "boom").exists()


JSON_FILES = (
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "tokenizer_config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)


@pytest.mark.parametrize("content", [b'{"a": ', b"3", b"\xff"], ids=["cut", "a number", "not text"])
@pytest.mark.parametrize("name", JSON_FILES)
def test_broken_json_names_its_file(name, content, theirs):
    (theirs / name).write_bytes(content)
    err = error(theirs)
    assert str(theirs / name) in err and "restore it from its source" in err


def test_broken_json_at_the_command_line(theirs, refused):
    (theirs / "config.json").write_text('{"model_type": "bert",')
    assert f"{theirs / 'config.json'}: not valid JSON" in refused(theirs)


@pytest.mark.parametrize(
    "name", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
)
def test_a_configuration_that_lacks_a_size(name, theirs):
    edit(theirs / "config.json", lambda c: c.pop(name))
    assert f"{theirs / 'config.json'}: lacks '{name}'" in error(theirs)


WRONG_VALUES = {
    "bert": [{"hidden_size": "12"}, {"hidden_size": None}, {"num_attention_heads": 0}, {"layer_norm_eps": "small"}],
    "gemma3_text": [
        {"num_hidden_layers": "3"},
        {"query_pre_attn_scalar": 0},
        {"layer_types": ["full_attention"]},
        {"rope_theta": "large"},
        {"head_dim": None},
    ],
    "modernbert": [{"layer_types": ["full_attention"]}, {"num_hidden_layers": None}],
    "qwen3": [{"rope_scaling": [2.0]}, {"num_key_value_heads": 3}],
}


@pytest.mark.parametrize(
    ("family", "values"), [(f, v) for f, all_values in WRONG_VALUES.items() for v in all_values], ids=str
)
def test_values_that_make_no_model_are_one_line(family, values, foreign, call, tmp_path):
    folder = foreign.write_folder(tmp_path / "theirs", family, config={**foreign.CONFIGS[family], **values})
    code, _, err = call("convert", folder, tmp_path / "out")
    assert code in (65, 78) and err.count("\n") == 1 and err.startswith("embed: ")
    assert not (tmp_path / "out").exists()


NOT_COMPUTED = {
    "bert": [{"position_embedding_type": "relative_key"}, {"is_decoder": True}, {"hidden_act": "gelu_fast"}],
    "xlm-roberta": [{"position_embedding_type": "relative_key_query"}],
    "gemma3_text": [
        {"hidden_activation": "gelu"},
        {"attention_bias": True},
        {"attn_logit_softcapping": 50.0},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_scaling": {"type": "dynamic", "factor": 4.0}},
        {"rope_parameters": {"full_attention": {"rope_type": "llama3", "rope_theta": 1e6}}},
        {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
    ],
    "modernbert": [
        {"layer_types": ["sliding_attention", "full_attention", "full_attention"]},
        {"hidden_activation": "quick_gelu"},
    ],
    "qwen3": [
        {"hidden_act": "gelu"},
        {"use_sliding_window": True},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_scaling": {"type": "yarn", "factor": 4.0}},
    ],
}


@pytest.mark.parametrize(
    ("family", "values"), [(f, v) for f, all_values in NOT_COMPUTED.items() for v in all_values], ids=str
)
def test_what_would_be_computed_differently_is_refused(family, values, foreign, tmp_path):
    folder = foreign.write_folder(tmp_path / "theirs", family, config={**foreign.CONFIGS[family], **values})
    err = error(folder)
    assert str(folder / "config.json") in err


def test_t5gemma_refuses_by_its_encoder(foreign, tmp_path):
    config = {"encoder": {**foreign.CONFIGS["t5gemma"]["encoder"], "hidden_activation": "relu"}}
    folder = foreign.write_folder(tmp_path / "theirs", "t5gemma", config=config)
    assert "hidden_activation = 'relu' is not supported, only 'gelu_pytorch_tanh'" in error(folder)


@pytest.mark.parametrize("name", [None, "tokenizer.model", "vocab.txt", "vocab.json"])
def test_no_tokenizer_json(name, theirs, refused):
    (theirs / "tokenizer.json").unlink()
    if name:
        (theirs / name).write_text("a\nb\n")
    what = f"has {name} without a tokenizer.json" if name else "has no tokenizer.json"
    assert f"{what}; save it with a fast tokenizer: AutoTokenizer.from_pretrained(FOLDER)" in refused(theirs)


def test_a_damaged_tokenizer(theirs, refused):
    (theirs / "tokenizer.json").write_text("{}")
    assert f"{theirs / 'tokenizer.json'}: not a tokenizer.json" in refused(theirs)


def test_a_tokenizer_bigger_than_the_vocabulary(theirs, refused):
    made = tokenizers.Tokenizer.from_file(str(theirs / "tokenizer.json"))
    made.add_tokens([f"word{i}" for i in range(5)])  # 265 tokens; the table holds 264
    made.save(str(theirs / "tokenizer.json"))
    err = refused(theirs)
    assert "the tokenizer has 265 tokens, the model's table 264; get the tokenizer of this checkpoint" in err


def test_a_padding_token_that_the_tokenizer_lacks(theirs, refused):
    # transformers adds it to the vocabulary, for which the model's table has no row.
    edit(theirs / "tokenizer_config.json", lambda c: c.update(pad_token="<nothing>"))
    edit(theirs / "config.json", lambda c: c.update(vocab_size=260))
    assert "the tokenizer has 261 tokens, the model's table 260" in refused(theirs)


def test_lower_case_is_made_before_the_tokenizer(theirs):
    plain = sources.read(theirs).tokenizer
    edit(theirs / "sentence_bert_config.json", lambda c: c.update(do_lower_case=True))
    lower = sources.read(theirs).tokenizer
    assert lower.digest != plain.digest
    texts = ["What IS This?", "\u00dc\u00c9"]
    rows, _ = lower.encode_batch(texts, 48)
    expected, _ = plain.encode_batch([t.lower() for t in texts], 48)
    assert [r.tolist() for r in rows] == [r.tolist() for r in expected]


def test_a_length_the_model_cannot_take(theirs, refused):
    assert "a length of 61 tokens, but the model takes 1 to 60" in refused(theirs, "--max_length", 61)


def test_what_a_text_is_cut_at(theirs):
    assert sources.read(theirs).max_length == 48
    assert sources.read(theirs, max_length=17).max_length == 17
    edit(theirs / "sentence_bert_config.json", lambda c: c.update(max_seq_length=40))
    assert sources.read(theirs).max_length == 40
    edit(theirs / "sentence_bert_config.json", lambda c: c.update(max_seq_length=4000))
    assert sources.read(theirs).max_length == 60  # more than there are positions
    edit(theirs / "sentence_bert_config.json", lambda c: c.update(max_seq_length=None))
    assert sources.read(theirs).max_length == 48  # the tokenizer's
    edit(theirs / "tokenizer_config.json", lambda c: c.update(model_max_length=10**30))
    assert sources.read(theirs).max_length == 60  # nobody says


def test_an_open_decoder_is_only_for_decoders(foreign, refused, plain, tmp_path):
    gemma = {**foreign.CONFIGS["gemma3_text"], "use_bidirectional_attention": False}
    folder = foreign.write_folder(tmp_path / "gemma", "gemma3_text", config=gemma)
    assert sources.read(folder).module.encoder.causal
    assert not sources.read(folder, changes={"causal": False}).module.encoder.causal
    with pytest.raises(EmbedError) as e:
        sources.read(plain, changes={"causal": False})
    assert "\n" not in str(e.value)


def test_matryoshka_sizes_beyond_the_vector_are_refused(theirs, call, tmp_path):
    code, _, err = call("convert", theirs, tmp_path / "out", "--matryoshka_dims=11")
    assert code in (65, 78) and "matryoshka_dims" in err and "the embedding size 10" in err
    assert not (tmp_path / "out").exists()


def test_an_existing_output_is_kept(theirs, call, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    code, _, err = call("convert", theirs, tmp_path / "out")
    assert code == 74 and err.count("\n") == 1 and "out: already exists; choose another output" in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


REFUSED_ENTRIES = {
    "bin weights": ("sentence_bert_config.json", {"model_args": {"use_safetensors": False}}, "use_safetensors = False"),
    "key mapping": ("sentence_bert_config.json", {"model_args": {"key_mapping": {"a": "b"}}}, "key_mapping"),
    "tokenizer file": ("sentence_bert_config.json", {"tokenizer_args": {"tokenizer_file": "x"}}, "names another file"),
    "tokenizer type": ("sentence_bert_config.json", {"tokenizer_args": {"tokenizer_type": "bert"}}, "tokenizer_type"),
    "no room": ("sentence_bert_config.json", {"max_seq_length": 2}, "leaves no room for a text beside the 2 special"),
    "other weights": ("config.json", {"transformers_weights": "x.safetensors"}, "transformers_weights"),
    "other config": ("config.json", {"configuration_files": ["config.4.0.0.json"]}, "configuration_files"),
    "mask true": ("tokenizer_config.json", {"mask_token": True}, "mask_token = True is no token"),
    "extra null": ("tokenizer_config.json", {"extra_special_tokens": [None]}, "extra_special_tokens holds None"),
    "long id": ("tokenizer_config.json", {"added_tokens_decoder": {"1" * 5000: {"content": "x"}}}, "is not tokens by id"),
    "prompt none": (
        "config_sentence_transformers.json", {"prompts": {"none": "x: "}, "default_prompt_name": "none"},
        "the prompt 'none' is 'x: '",
    ),
    "surrogate": ("config_sentence_transformers.json", {"prompts": {"query": "\ud800"}}, "holds a lone surrogate"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED_ENTRIES)
def test_entries_that_decide_vectors_and_cannot_be_followed_are_refused(kind, theirs):
    name, changes, message = REFUSED_ENTRIES[kind]
    path = theirs / name
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), **changes}))
    assert message in error(theirs)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "modules.json"])
def test_a_lone_surrogate_alone_is_one_line(theirs, name):
    (theirs / name).write_text('"\\ud800"')
    assert f"{name}: not valid JSON (the text holds a lone surrogate" in error(theirs)


def test_added_tokens_whose_ids_are_not_their_places_are_refused(theirs):
    def change(tokenizer):
        tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "content": "[new]", "id": 3})

    edit(theirs / "tokenizer.json", change)
    assert "added_tokens gives '[new]' the id 3, and its place in the list the id" in error(theirs)


def test_a_chat_template_of_a_plain_folder_is_told(foreign, tmp_path):
    root = foreign.write_folder(tmp_path / "plain")
    (root / "chat_template.jinja").write_text("{{ messages }}")
    (note,) = [n for n in sources.read(root).notes if "chat" in n]
    assert "the chat template is not used; sentence-transformers 6 uses it where modules.json is missing" in note
    foreign.add_modules(root)
    assert not [n for n in sources.read(root).notes if "chat" in n]
