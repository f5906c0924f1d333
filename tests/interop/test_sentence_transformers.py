"""The exported folder, file by file: the flat dialect that old and new versions, TEI and vLLM read."""

import json
import types

import numpy as np
import pytest
import safetensors.numpy

from embed.errors import DataError
from embed.interop import sentence_transformers
from embed.models.embedder import Embedder
from embed.models.pooling import AttentionPooling, FirstPooling, LastPooling, MeanPooling
from embed.models.qwen3 import Qwen3
from embed.text import PROMPTS

FAMILIES = ("bert", "xlm-roberta", "gemma3_text", "embedding_gemma2_text", "t5gemma", "modernbert", "qwen3")


def load(folder, name: str):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_the_files(exported):
    found = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert found == {
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "3_Dense/config.json",
        "3_Dense/model.safetensors",
        "MANIFEST.json",
        "README.md",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "parity.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_modules_have_the_old_names(exported):
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Dense", "Dense")]
    kinds.append(("4_Normalize", "Normalize"))
    assert load(exported, "modules.json") == [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]


def test_pooling_is_booleans(exported):
    assert load(exported, "1_Pooling/config.json") == {
        "word_embedding_dimension": 12,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_weightedmean_tokens": False,
        "pooling_mode_lasttoken": False,
        "include_prompt": True,
    }


def test_linear_maps_have_the_four_old_keys(exported, gemma_bundle, foreign):
    ours = foreign.parameters(gemma_bundle)
    for i, (inputs, outputs) in enumerate(((12, 14), (14, 10))):
        assert load(exported, f"{i + 2}_Dense/config.json") == {
            "in_features": inputs,
            "out_features": outputs,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
        tensors = safetensors.numpy.load_file(exported / f"{i + 2}_Dense" / "model.safetensors")
        assert list(tensors) == ["linear.weight"] and tensors["linear.weight"].dtype == np.float32
        assert np.array_equal(tensors["linear.weight"], ours[f"projection_{i}/kernel"].T)


def test_lengths_and_prompts(exported):
    assert load(exported, "sentence_bert_config.json") == {"max_seq_length": 48, "do_lower_case": False}
    config = load(exported, "config_sentence_transformers.json")
    assert config["default_prompt_name"] is None and config["similarity_fn_name"] == "cosine"
    prompts = config["prompts"]
    for key in ("query", "Retrieval-query", "Reranking-query", "BitextMining", "question answering", "fact checking"):
        assert prompts[key] == "find: "
    for key in ("document", "Retrieval-document", "Reranking-document"):
        assert prompts[key] == "text: "
    assert prompts["InstructionRetrieval-document"] == prompts["InstructionReranking-document"] == "text: "
    assert prompts["Clustering"] == prompts["clustering"] == "group: " and prompts["mine"] == "mine> "
    for key in ("Classification", "MultilabelClassification", "STS", "PairClassification", "Summarization"):
        assert prompts[key] == ""
    assert prompts["InstructionRetrieval-query"] == prompts["InstructionReranking-query"] == ""
    assert not {"Retrieval", "Reranking", "InstructionRetrieval", "none"} & set(prompts)


def test_gemmas_configuration_is_flat(exported):
    config = load(exported, "config.json")
    assert config["architectures"] == ["Gemma3TextModel"] and config["model_type"] == "gemma3_text"
    wanted = {
        "vocab_size": 264,
        "hidden_size": 12,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 6,
        "intermediate_size": 20,
        "query_pre_attn_scalar": 10,
        "sliding_window": 8,
        "_sliding_window_pattern": 2,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "use_bidirectional_attention": True,
        "rope_theta": 500_000.0,
        "rope_local_base_freq": 9_000.0,
        "rope_scaling": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "attn_logit_softcapping": None,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "torch_dtype": "float32",
        "is_matryoshka": True,
        "matryoshka_dimensions": [10, 4],
    }
    assert {k: config[k] for k in wanted} == wanted
    assert not {"rope_parameters", "dtype", "auto_map"} & set(config)


def test_the_tokenizer_needs_no_class_of_its_own(exported, gemma_bundle):
    ours, theirs = (load(folder, "tokenizer.json") for folder in (gemma_bundle, exported))
    assert {k for k in theirs if theirs[k] != ours.get(k)} == {"truncation"}
    assert theirs["padding"] is None and theirs["truncation"]["max_length"] == 48
    assert (
        theirs["normalizer"] is None and ours["normalizer"] is None
    )  # a model of another tool reads texts as they are
    assert load(exported, "tokenizer_config.json") == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 48,
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
    }


NAMES = {
    "bert": "BertModel",
    "xlm-roberta": "XLMRobertaModel",
    "gemma3_text": "Gemma3TextModel",
    "embedding_gemma2_text": "EmbeddingGemma2TextModel",
    "t5gemma": "T5GemmaEncoderModel",
    "modernbert": "ModernBertModel",
    "qwen3": "Qwen3Model",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    FAMILIES,
)
def test_every_family_is_written_in_its_layout(family, rounds, foreign):
    folder = rounds(family).back
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    assert {name: array.shape for name, array in tensors.items()} == foreign.SHAPES[family]
    with safetensors.safe_open(folder / "model.safetensors", framework="numpy") as f:
        assert f.metadata() == {"format": "pt"}
    config = load(folder, "config.json")
    assert config["model_type"] == family and config["architectures"] == [NAMES[family]]
    assert not {"dtype", "auto_map"} & set(config)
    # The only family of which transformers reads no older form.
    assert ("rope_parameters" in config) == (family == "embedding_gemma2_text")
    given = foreign.CONFIGS[family]
    inner = config["encoder"] if family == "t5gemma" else config
    given = given["encoder"] if family == "t5gemma" else given
    assert {k: inner[k] for k in given} == given
    assert config["is_matryoshka"] is True and config["matryoshka_dimensions"] == [10, 4]
    # Without it transformers makes BERT's pooler, from random numbers, and warns.
    options = load(folder, "sentence_bert_config.json").get("model_args")
    expected = {
        "bert": {"add_pooling_layer": False},
        "xlm-roberta": {"add_pooling_layer": False},
        "t5gemma": {"attn_implementation": "eager"},  # the only one that caps the logits
    }
    assert options == expected.get(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_lengths_are_kept_within_the_positions(family, rounds):
    most = {"bert": 60, "xlm-roberta": 62, "gemma3_text": 2048, "t5gemma": 8192, "modernbert": 8192, "qwen3": 32_768}
    most["embedding_gemma2_text"] = 262_144
    assert load(rounds(family).back, "config.json")["max_position_embeddings"] == most[family]
    assert load(rounds(family).back, "tokenizer_config.json")["model_max_length"] == 48


def test_half_the_bytes(gemma_bundle, foreign, tmp_path):
    folder = foreign.to_folder(gemma_bundle, tmp_path / "half", "bfloat16")
    assert load(folder, "config.json")["torch_dtype"] == "bfloat16"
    ours = foreign.parameters(gemma_bundle)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    assert {a.dtype.name for a in tensors.values()} == {"bfloat16"}
    table = ours["encoder/embedding/table"]
    assert np.array_equal(tensors["embed_tokens.weight"], table.astype(tensors["embed_tokens.weight"].dtype))
    assert safetensors.numpy.load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"].dtype == "bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pooling", "flag"), [(MeanPooling(), "mean_tokens"), (FirstPooling(), "cls_token"), (LastPooling(), "lasttoken")]
)
def test_one_pooling_flag_is_set(pooling, flag, trained, foreign, tmp_path):
    sentence_transformers.write(tmp_path, trained(Embedder(foreign.SMALL, pooling)))
    config = load(tmp_path, "config.json")
    assert config["is_matryoshka"] is False and config["matryoshka_dimensions"] == [8]
    modes = load(tmp_path, "1_Pooling/config.json")
    assert [k for k, v in modes.items() if k.startswith("pooling_mode") and v] == [f"pooling_mode_{flag}"]


OPEN = Qwen3(vocab_size=264, width=8, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=4, mlp_dim=12, causal=False)


@pytest.mark.slow
def test_what_sentence_transformers_cannot_say_is_refused(trained, foreign, tmp_path):
    cases = (
        (
            Embedder(foreign.SMALL, AttentionPooling(2)),
            PROMPTS,
            "AttentionPooling: sentence-transformers has no such pooling",
        ),
        (Embedder(foreign.SMALL, MeanPooling()), {"query": "{content} ?"}, "goes on behind {content}"),
        (
            Embedder(foreign.SMALL.clone(position_offset=2), MeanPooling()),
            PROMPTS,
            "the tokenizer pads with token 0, but",
        ),
        (Embedder(OPEN, LastPooling()), PROMPTS, "no architecture for this encoder"),
    )
    for i, (module, prompts, message) in enumerate(cases):
        (tmp_path / str(i)).mkdir()
        with pytest.raises(DataError) as e:
            sentence_transformers.write(tmp_path / str(i), trained(module, prompts))
        assert message in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("prompts", "default", "written"),
    [
        ({"query": "{content}", "foo": "{content}"}, "foo", None),
        ({"query": "{content}", "foo": "{content}"}, "query", "query"),
        ({"query": "q: {content}", "foo": "f: {content}"}, "foo", "foo"),
        ({"query": "q: {content}", "none": "{content}"}, "none", None),
        ({"query": "q: {content}"}, None, None),
    ],
)
def test_a_default_prompt_is_one_of_those_that_are_written(tmp_path, prompts, default, written):
    """sentence-transformers refuses a folder with any other."""
    trained = types.SimpleNamespace(description={"prompts": prompts, "default_prompt_name": default})
    sentence_transformers.write_prompts(tmp_path, trained)
    config = json.loads((tmp_path / "config_sentence_transformers.json").read_text())
    assert config["default_prompt_name"] == written
    assert written is None or written in config["prompts"]
