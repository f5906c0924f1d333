"""Every entry of a folder that decides vectors: equal to sentence-transformers' on the same folder, or refused in one line."""

import json
import shutil

import numpy as np
import parity_foreign
import pytest
from parity_foreign import TEXTS, missing, need
from sentence_transformers import SentenceTransformer

from embed import bundles
from embed.errors import DataError
from embed.inference import model as inference
from embed.interop import convert
from embed.interop import source as sources

SHAPES = {
    "bert": parity_foreign.Shape("bert"),
    "xlm-roberta": parity_foreign.Shape("xlm-roberta"),
    "gemma3_text": parity_foreign.Shape("gemma3", dense=(24,)),
    "embedding_gemma2": parity_foreign.Shape("embedding_gemma2", dense=(18,)),
    "t5gemma": parity_foreign.Shape("t5gemma"),
    "modernbert": parity_foreign.Shape("modernbert"),
    "qwen3": parity_foreign.Shape("qwen3", pooling="lasttoken"),
}
CASED = ("What IS the Capital of FRANCE?", "GROSS klein", *TEXTS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny random folder of every family; a test changes a copy."""
    folder = tmp_path_factory.mktemp("entries")
    return {
        n: parity_foreign.make_legacy(shape, folder / n) for n, shape in SHAPES.items() if not missing(shape.family)
    }


def file(name, *, remove=(), **values):
    """Returns the change of one JSON file: entries set, and entries removed."""

    def change(folder) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        target = content.get("encoder", content) if name == "config.json" else content
        target.update(values)
        for entry in remove:
            target.pop(entry, None)
        path.write_text(json.dumps(content))

    return change


def config(*, remove=(), **values):
    return file("config.json", remove=remove, **values)


def tokenizer(*, remove=(), **values):
    return file("tokenizer_config.json", remove=remove, **values)


def bert_file(*, remove=(), **values):
    return file("sentence_bert_config.json", remove=remove, **values)


def general(*, remove=(), **values):
    return file("config_sentence_transformers.json", remove=remove, **values)


def every(*changes):
    def change(folder) -> None:
        for one in changes:
            one(folder)

    return change


def base(value: float, kind: str = "default") -> dict:
    """Returns one kind of attention's rotary positions."""
    return {"rope_type": kind, "rope_theta": value, **({"factor": 4.0} if kind == "linear" else {})}


def without_modules(folder) -> None:
    (folder / "modules.json").unlink()


NO_LENGTH = bert_file(remove=["max_seq_length"])
PROMPTS = {"query": "find: ", "document": "text: ", "Clustering": "group: "}
COMMON = {
    "as it is": lambda folder: None,
    "do_lower_case": bert_file(do_lower_case=True),
    "max_seq_length": bert_file(max_seq_length=11),
    "max_seq_length null": every(bert_file(max_seq_length=None), tokenizer(model_max_length=13)),
    "model_max_length": every(NO_LENGTH, tokenizer(model_max_length=9)),
    "model_max_length beside max_seq_length": every(bert_file(max_seq_length=15), tokenizer(model_max_length=9)),
    "nothing said": every(NO_LENGTH, tokenizer(remove=["model_max_length"])),
    "truncation_side": every(bert_file(max_seq_length=12), tokenizer(truncation_side="left")),
    "tokenizer_args": bert_file(tokenizer_args={"truncation_side": "left", "model_max_length": 10}),
    "processor_kwargs": bert_file(processor_kwargs={"truncation_side": "left"}, max_seq_length=10),
    "both names of arguments": bert_file(
        tokenizer_args={"model_max_length": 9}, processor_kwargs={"model_max_length": 12}, remove=["max_seq_length"]
    ),
    "default_prompt_name": general(prompts=PROMPTS, default_prompt_name="query"),
    "default_prompt_name of an MTEB key": general(prompts=PROMPTS, default_prompt_name="Clustering"),
    "prompts null": general(prompts={"query": None, "document": None}, default_prompt_name=None),
    "similarity_fn_name": general(similarity_fn_name="euclidean"),
    "a plain folder": without_modules,
    "a plain folder of a language model": every(without_modules, config(architectures=["AnyForCausalLM"])),
    "pooling twice": file("1_Pooling/config.json", pooling_mode="cls"),
    "no pooling mode": file(
        "1_Pooling/config.json",
        pooling_mode_mean_tokens=False,
        pooling_mode_cls_token=False,
        pooling_mode_lasttoken=False,
    ),
    "is_causal": config(is_causal=False),
}
KINDS = ("sliding", "sliding", "full", "sliding", "sliding", "full", "sliding")
LOCAL, GLOBAL = ({"head_dim": size, "num_key_value_heads": groups} for size, groups in ((8, 2), (12, 1)))
FAMILY = {
    "bert": {
        "hidden_act": config(hidden_act="relu"),
        "gelu_new": config(hidden_act="gelu_new"),
        "layer_norm_eps": config(layer_norm_eps=0.1),
        "layer_norm_eps missing": config(remove=["layer_norm_eps"]),
        "padding_side": tokenizer(padding_side="left"),
        "is_decoder": config(is_decoder=True),
        "hidden_act of config_args": bert_file(config_args={"hidden_act": "silu"}),
    },
    "xlm-roberta": {
        "pad_token_id": config(pad_token_id=1),
        "pad_token_id missing": config(remove=["pad_token_id"]),
        "padding_side": tokenizer(padding_side="left"),
    },
    "gemma3_text": {
        "causal": config(use_bidirectional_attention=False),
        "causal missing": config(remove=["use_bidirectional_attention"]),
        "odd window": config(sliding_window=7),
        "window of one": config(sliding_window=1),
        "odd window, causal": config(sliding_window=7, use_bidirectional_attention=False),
        "query_pre_attn_scalar": config(query_pre_attn_scalar=3),
        "old bases": config(remove=["rope_parameters"], rope_theta=700.0, rope_local_base_freq=90.0),
        "no bases": config(remove=["rope_parameters"]),
        "linear": config(remove=["rope_parameters"], rope_scaling={"rope_type": "linear", "factor": 4.0}),
        "linear beside rope_parameters": config(rope_scaling={"rope_type": "linear", "factor": 4.0}),
        "no layer_types": config(remove=["layer_types", "_sliding_window_pattern"]),
        "sliding_window_pattern": config(remove=["layer_types", "_sliding_window_pattern"], sliding_window_pattern=2),
        "_sliding_window_pattern": config(remove=["layer_types"], _sliding_window_pattern=2),
        "final_logit_softcapping": config(final_logit_softcapping=1.0),
        "attn_logit_softcapping": config(attn_logit_softcapping=1.0),
        "rms_norm_eps": config(rms_norm_eps=0.1),
        "text_config beside": config(text_config={"sliding_window": 4}),
    },
    "embedding_gemma2": {
        "odd window": config(sliding_window=7),
        "window of one": config(sliding_window=1),
        "no layer_types": config(
            remove=["layer_types", "per_layer_config"], sliding_window_pattern=3, global_head_dim=12
        ),
        "the last is not global": config(layer_types=[f"{kind}_attention" for kind in KINDS]),
        "zeros in front": config(per_layer_config={f"0{i}": GLOBAL for i in (2, 5, 6)}),
        "every layer says": config(per_layer_config={str(i): GLOBAL if i in (2, 5, 6) else LOCAL for i in range(7)}),
        "one layer differs": config(per_layer_config={str(i): GLOBAL for i in (2, 5)}),
        "another width of the MLP": config(per_layer_config={"1": {"intermediate_size": 24}}),
        "no bases": config(remove=["rope_parameters"]),
        "bases": config(
            rope_parameters={f"{kind}_attention": base(b) for kind, b in (("full", 77.0), ("sliding", 9.0))}
        ),
        "an old base": config(rope_theta=77.0),
        "linear": config(rope_parameters={"full_attention": base(77.0, "linear"), "sliding_attention": base(9.0)}),
        "rms_norm_eps": config(rms_norm_eps=0.1),
        "hidden_activation": config(hidden_activation="relu"),
        "attention_bias": config(attention_bias=True),
        "the pooling's width": file("1_Pooling/config.json", word_embedding_dimension=32),
        "padding_side": tokenizer(padding_side="left"),
    },
    "t5gemma": {
        "softcap missing": config(remove=["attn_logit_softcapping"]),
        "softcap null": config(attn_logit_softcapping=None),
        "no layer_types": config(remove=["layer_types"]),
        "old base": config(remove=["rope_parameters"], rope_theta=77.0),
        "no base": config(remove=["rope_parameters"]),
        "linear": config(remove=["rope_parameters"], rope_scaling={"rope_type": "linear", "factor": 4.0}),
    },
    "modernbert": {
        "odd window": config(local_attention=7),
        "old pattern": config(remove=["layer_types"], global_attn_every_n_layers=2),
        "no pattern": config(remove=["layer_types"]),
        "old bases": config(remove=["rope_parameters"], global_rope_theta=55.0, local_rope_theta=9.0),
        "no bases": config(remove=["rope_parameters"]),
        "norm_eps": config(norm_eps=0.1),
        "hidden_activation": config(hidden_activation="relu"),
        "position_embedding_type": config(position_embedding_type="absolute"),
    },
    "qwen3": {
        "old base": config(remove=["rope_parameters"], rope_theta=77.0),
        "no base": config(remove=["rope_parameters"]),
        "sliding_window": config(sliding_window=3, max_window_layers=1),
        "use_sliding_window": config(
            sliding_window=3, use_sliding_window=True, max_window_layers=1, remove=["layer_types"]
        ),
        "layer_types": config(layer_types=["sliding_attention"] * 3),
        "yarn": config(remove=["rope_parameters"], rope_scaling={"rope_type": "yarn", "factor": 4.0}),
        "padding_side": tokenizer(padding_side="left"),
        "one head pair each": config(num_key_value_heads=3),
    },
}
# The same code reads the entries of all families. embedding_gemma2 compiles longest: its common cases but "as it is" need --long.
CASES = [
    pytest.param(
        family,
        name,
        marks=[pytest.mark.slow, pytest.mark.long]
        if family == "embedding_gemma2" and name in COMMON and name != "as it is"
        else [],
    )
    for family in SHAPES
    for name in (*COMMON, *FAMILY[family])
]
# What is refused, and the entry that the line must name.
REFUSED = {
    ("bert", "is_decoder"): "is_decoder = True",
    ("gemma3_text", "_sliding_window_pattern"): "_sliding_window_pattern = 2",
    ("gemma3_text", "attn_logit_softcapping"): "attn_logit_softcapping = 1.0",
    ("gemma3_text", "is_causal"): "is_causal = False",
    ("embedding_gemma2", "one layer differs"): "per_layer_config gives layers of one kind different heads",
    ("embedding_gemma2", "another width of the MLP"): "per_layer_config gives layers their own intermediate_size",
    ("embedding_gemma2", "an old base"): "rope_theta = 77.0",
    ("embedding_gemma2", "linear"): "'linear'",
    ("embedding_gemma2", "hidden_activation"): "hidden_activation = 'relu'",
    ("embedding_gemma2", "attention_bias"): "attention_bias = True",
    ("t5gemma", "linear"): "'linear'",
    ("qwen3", "use_sliding_window"): "use_sliding_window = True",
    ("qwen3", "layer_types"): "layer_types",
    ("qwen3", "yarn"): "'yarn'",
    ("qwen3", "one head pair each"): "num_key_value_heads",
}


def ours(folder, bundle, texts) -> np.ndarray:
    """Returns our vectors, under the prompt that sentence-transformers uses without being asked."""
    convert.convert(sources.read(folder), bundle, "a folder")
    name = bundles.read_model_json(bundle).get("default_prompt_name", "none")
    return inference.open_model(bundle).encode(list(texts), prompt=name)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_vectors_are_those_of_sentence_transformers(family, name, folders, tmp_path):
    need(family)
    folder = shutil.copytree(folders[family], tmp_path / "folder")
    (COMMON | FAMILY[family])[name](folder)
    if (family, name) in REFUSED:
        with pytest.raises(DataError) as e:
            sources.read(folder)
        assert REFUSED[family, name] in str(e.value) and "\n" not in str(e.value)
        return
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    # Alone, because left padding moves BERT's positions; texts longer than the positions are an error there.
    limit = {"bert": 64, "xlm-roberta": 64 if name.startswith("pad_token_id") else 65}.get(family, 10**9)
    model.max_seq_length = min(model.max_seq_length, limit)
    theirs = np.stack([model.encode(text, normalize_embeddings=True) for text in CASED])
    vectors = ours(folder, tmp_path / "bundle", CASED)
    assert vectors.shape == theirs.shape
    assert np.min(np.sum(vectors * theirs, axis=1)) > 1 - 1e-5
    assert np.max(np.abs(vectors - theirs)) < 2e-4
