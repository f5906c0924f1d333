"""convert: every family, type of weights, prefix and folder dialect gives the same bundle, and export undoes it to the bit."""

import json

import numpy as np
import pytest
import safetensors.numpy

from embed import bundles, files, trees
from embed.interop import convert, tensors
from embed.interop import source as sources
from embed.models.pooling import FirstPooling, LastPooling
from embed.text import PROMPTS

FAMILIES = ("bert", "xlm-roberta", "gemma3_text", "embedding_gemma2_text", "t5gemma", "modernbert", "qwen3")


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    FAMILIES,
)
def test_convert_export_convert_is_exact(family, rounds, foreign, tmp_path):
    made = rounds(family)
    written, theirs = (safetensors.numpy.load_file(f / "model.safetensors") for f in (made.back, made.theirs))
    assert set(written) == set(theirs)
    for name, array in theirs.items():
        assert written[name].shape == array.shape and written[name].tobytes() == array.tobytes(), name
    for place in ("2_Dense", "3_Dense"):
        both = (f / place / "model.safetensors" for f in (made.back, made.theirs))
        assert np.array_equal(*(safetensors.numpy.load_file(f)["linear.weight"] for f in both))
    foreign.assert_same_bundle(made.first, foreign.to_bundle(made.back, tmp_path / "second"))


def test_a_model_that_says_nothing_of_matryoshka_comes_back_as_it_was(foreign, plain, tmp_path):
    first = foreign.to_bundle(plain, tmp_path / "first")
    second = foreign.to_bundle(foreign.to_folder(first, tmp_path / "back"), tmp_path / "second")
    foreign.assert_same_bundle(first, second)


def assert_same_params(one, two) -> None:
    assert list(one) == list(two)
    for path in one:
        assert two[path].dtype == np.float32 and one[path].tobytes() == two[path].tobytes(), path


@pytest.fixture(scope="module")
def wanted(foreign, tmp_path_factory):
    """wanted(family) -> the encoder's parameters of the plain float32 folder, read once."""
    found = {}

    def run(family: str) -> dict[str, np.ndarray]:
        if family not in found:
            source = sources.read(foreign.write_folder(tmp_path_factory.mktemp(family) / "theirs", family))
            leaves = trees.flatten(convert.load_params(source))
            found[family] = {path.removeprefix("encoder/"): array for path, array in leaves.items()}
        return found[family]

    return run


@pytest.fixture(scope="module")
def params(wanted):
    """params(folder, family) -> the encoder's parameters of another folder of a model of the same sizes."""

    def run(folder, family: str) -> dict[str, np.ndarray]:
        source = sources.read(folder)
        own = source.family
        return tensors.read_all(
            tensors.Reader(source.weights),
            own.tensors_of(source.module.encoder),
            {path: array.shape for path, array in wanted(family).items()},
            layers=source.module.encoder.num_layers,
            prefixes=own.prefixes,
            ignored=own.ignored,
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_halves_are_read_exactly(family, dtype, wanted, params, foreign, tmp_path):
    theirs = foreign.draw(foreign.SHAPES[family], dtype=dtype)
    assert_same_params(wanted(family), params(foreign.write_folder(tmp_path / "half", family, theirs), family))


def test_float16_keeps_digits_that_bfloat16_would_lose(params, foreign, tmp_path):
    theirs = foreign.draw(foreign.SHAPES["bert"], dtype="float16")
    theirs["embeddings.LayerNorm.bias"][:] = np.float16(1.0009765625)  # 1 + 2^-10
    found = params(foreign.write_folder(tmp_path / "half", "bert", theirs), "bert")
    assert np.all(found["embedding_norm/bias"] == np.float32(1.0009765625))


def test_bfloat16_keeps_sizes_that_float16_would_lose(params, foreign, tmp_path):
    theirs = foreign.draw(foreign.SHAPES["bert"], dtype="bfloat16")
    theirs["embeddings.LayerNorm.bias"][:] = 2.0**100
    found = params(foreign.write_folder(tmp_path / "half", "bert", theirs), "bert")
    assert np.all(found["embedding_norm/bias"] == np.float32(2.0**100))


HEADS = {
    "bert": (
        ["bert."],
        {"cls.predictions.bias": 264, "bert.pooler.dense.weight": 12, "bert.embeddings.position_ids": 60},
    ),
    "xlm-roberta": (["roberta."], {"lm_head.bias": 264, "classifier.dense.weight": 12, "roberta.pooler.dense.bias": 2}),
    "gemma3_text": (
        ["model.", "language_model.model.", "model.language_model."],
        {"lm_head.weight": 264, "vision_tower.vision_model.head.weight": 3, "multi_modal_projector.x": 4},
    ),
    "embedding_gemma2_text": (
        ["model.", "language_model.", "model.language_model."],
        {"vision_tower.encoder.x": 3, "embed_vision.x": 2, "model.audio_tower.x": 4, "model.embed_audio.x": 1},
    ),
    "modernbert": (["model."], {"head.dense.weight": 12, "decoder.bias": 264, "classifier.weight": 2}),
    "qwen3": (["model."], {"lm_head.weight": 264}),
    "t5gemma": (["model."], {"model.decoder.layers.0.mlp.up_proj.weight": 20, "lm_head.out_proj.weight": 264}),
}


@pytest.mark.parametrize(("family", "prefix"), [(f, p) for f, (prefixes, _) in HEADS.items() for p in prefixes])
def test_prefixes_and_heads_of_other_tasks(family, prefix, wanted, params, foreign, tmp_path):
    theirs = {prefix + name: array for name, array in foreign.draw(foreign.SHAPES[family]).items()}
    theirs |= {name: np.ones((size, 3), np.float32) for name, size in HEADS[family][1].items()}
    folder = foreign.write_folder(tmp_path / "theirs", family, theirs)
    composite = {"gemma3_text": "gemma3", "embedding_gemma2_text": "embedding_gemma2"}
    if prefix not in ("language_model.", "model.language_model."):
        assert_same_params(wanted(family), params(folder, family))
        return
    # The whole of a Gemma with pictures keeps the text's configuration inside.
    config = {"model_type": composite[family], "text_config": foreign.CONFIGS[family]}
    foreign.write_json(folder / "config.json", config)
    assert_same_params(wanted(family), params(folder, family))


def test_t5gemma_without_any_prefix(wanted, params, foreign, tmp_path):
    theirs = {n.removeprefix("encoder."): a for n, a in foreign.draw(foreign.SHAPES["t5gemma"]).items()}
    folder = foreign.write_folder(tmp_path / "theirs", "t5gemma", theirs)
    encoder = foreign.CONFIGS["t5gemma"]["encoder"]
    foreign.write_json(folder / "config.json", {"model_type": "t5_gemma_module", **encoder})
    assert_same_params(wanted("t5gemma"), params(folder, "t5gemma"))


@pytest.mark.parametrize("family", ["bert", "t5gemma"])
def test_shards_with_an_index(family, wanted, params, foreign, tmp_path):
    theirs = foreign.draw(foreign.SHAPES[family])
    folder = foreign.write_folder(tmp_path / "theirs", family, theirs)
    (folder / "model.safetensors").unlink()
    names, location = sorted(theirs), {}
    for i in range(3):
        file = f"model-{i + 1:05}-of-00003.safetensors"
        safetensors.numpy.save_file({n: theirs[n] for n in names[i::3]}, folder / file)
        location |= dict.fromkeys(names[i::3], file)
    foreign.write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": location})
    assert_same_params(wanted(family), params(folder, family))
    described = convert.describe(sources.read(folder), "sharded")
    assert list(described["lineage"]["weights"]) == sorted(set(location.values()))


@pytest.mark.slow
def test_both_dialects_of_sentence_transformers_give_one_bundle(foreign, tmp_path):
    for name, types in (("legacy", foreign.LEGACY_TYPES), ("v6", foreign.V6_TYPES)):
        foreign.write_folder(tmp_path / name, "gemma3_text")
        foreign.add_modules(tmp_path / name, dense=(14, 10), types=types, prompts=foreign.PROMPTS)
        foreign.to_bundle(tmp_path / name, tmp_path / f"{name}-bundle")
    # Version 6 also nests the rotary bases by the kind of layer, and has its own words for types.
    config = json.loads((tmp_path / "v6" / "config.json").read_text())
    bases = {"full_attention": config.pop("rope_theta"), "sliding_attention": config.pop("rope_local_base_freq")}
    config["rope_parameters"] = {k: {"rope_type": "default", "rope_theta": v} for k, v in bases.items()}
    pattern = config.pop("_sliding_window_pattern")
    kinds = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(3)]
    foreign.write_json(tmp_path / "v6" / "config.json", {**config, "layer_types": kinds, "dtype": "float32"})
    foreign.to_bundle(tmp_path / "v6", tmp_path / "nested-bundle")
    foreign.assert_same_bundle(tmp_path / "legacy-bundle", tmp_path / "v6-bundle")
    foreign.assert_same_bundle(tmp_path / "legacy-bundle", tmp_path / "nested-bundle")


def test_a_transformer_in_a_folder_of_its_own(foreign, plain, wanted, params, tmp_path):
    foreign.write_folder(tmp_path / "theirs" / "0_Transformer")
    foreign.add_modules(tmp_path / "theirs")
    modules = json.loads((tmp_path / "theirs" / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    foreign.write_json(tmp_path / "theirs" / "modules.json", modules)
    source = sources.read(tmp_path / "theirs")
    assert_same_params(wanted("bert"), params(tmp_path / "theirs", "bert"))
    weights = convert.describe(source, "x")["lineage"]["weights"]
    assert weights == {"0_Transformer/model.safetensors": files.sha256_file(plain / "model.safetensors")}


def test_what_model_json_says(gemma_bundle):
    found = bundles.read_model_json(gemma_bundle)
    encoder = found["architecture"]["encoder"]
    assert found["architecture"]["type"] == "Embedder" and encoder["type"] == "Gemma"
    numbers = ("vocab_size", "width", "num_layers", "num_heads", "num_kv_heads", "head_dim", "mlp_dim", "window")
    assert [encoder[n] for n in numbers] == [264, 12, 3, 4, 2, 6, 20, 8]
    assert (encoder["global_every"], encoder["causal"], encoder["query_scale"]) == (2, False, 10**-0.5)
    assert (encoder["global_rope_base"], encoder["local_rope_base"]) == (500_000.0, 9_000.0)
    assert found["architecture"]["projection"] == [14, 10] and found["architecture"]["pooling"]["type"] == "MeanPooling"
    assert found["matryoshka_dims"] == [10, 4]
    assert found["lengths"] == {"query": 48, "target": 48}
    plain = dict.fromkeys(PROMPTS, "{content}")
    search = dict.fromkeys(("query", "question answering", "fact checking"), "find: {content}")
    others = {"document": "text: {content}", "clustering": "group: {content}", "mine": "mine> {content}"}
    assert found["prompts"] == {**plain, **search, **others}
    assert found["lineage"]["converted_from"] == "a folder"
    names = ["model.safetensors", "2_Dense/model.safetensors", "3_Dense/model.safetensors"]
    assert list(found["lineage"]["weights"]) == names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "pooling", "module"), [("bert", "cls", FirstPooling), ("qwen3", "lasttoken", LastPooling)]
)
def test_pooling_survives_the_round(family, pooling, module, foreign, tmp_path):
    foreign.write_folder(tmp_path / "theirs", family)
    flags = {"cls": {"pooling_mode_cls_token": True}, "lasttoken": {"pooling_mode_lasttoken": True}}
    foreign.add_modules(tmp_path / "theirs", pooling=flags[pooling])
    bundle = foreign.to_bundle(tmp_path / "theirs", tmp_path / "bundle")
    back = sources.read(foreign.to_folder(bundle, tmp_path / "back"))
    assert type(back.module.pooling) is module


def test_options_of_the_command(call, foreign, tmp_path):
    config = {**foreign.CONFIGS["gemma3_text"], "use_bidirectional_attention": False}
    folder = foreign.write_folder(tmp_path / "theirs", "gemma3_text", config=config)
    options = ("--prompt=query=ask: ", "--prompt=mine={content} !", "--matryoshka_dims=12,6", "--max_length=33")
    code, out, err = call("convert", folder, tmp_path / "out", *options, "--bidirectional")
    assert code == 0, err
    found = bundles.read_model_json(tmp_path / "out")
    assert found["prompts"]["query"] == "ask: {content}" and found["prompts"]["mine"] == "{content} !"
    assert found["matryoshka_dims"] == [12, 6] and found["lengths"] == {"query": 33, "target": 33}
    assert found["architecture"]["encoder"]["causal"] is False
    assert found["lineage"]["converted_from"] == str(folder)
    assert "gemma3_text" in out and "texts cut at 33" in out
    assert f"digest {files.folder_digest(tmp_path / 'out')[:12]}" in out
