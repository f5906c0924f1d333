"""Foreign checkpoints made by hand: every family's tensors and config.json as its public layout has them, no torch.

Every size of a model differs from every other, so that an axis in the wrong place has the wrong shape.
"""

import functools
import json
import pathlib
import types

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tokenizers
import word_pieces
from tokenizers import decoders, models, pre_tokenizers, processors

from embed import arrays, bundles, digests, files, text, trees
from embed.commands.main import main
from embed.data import tokenizers as our_tokenizers
from embed.interop import convert, origin, parity, sentence_transformers
from embed.interop import source as sources
from embed.models import api
from embed.models.bert import Bert
from embed.workflows import export

D, F, V = 12, 20, 264  # width, inner width of the MLP, tokens
H, G, K = 4, 2, 6  # heads, key-value heads and their size, where a family sets it (else 3 heads of 4)
W, P = 16, 9  # width and per-layer size of EmbeddingGemma 2, whose vectors have D values
POSITIONS, LENGTH = 60, 48
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def bert_shapes(layers: int = 2, types: int = 2, positions: int = POSITIONS) -> dict[str, tuple[int, ...]]:
    shapes = {
        "embeddings.word_embeddings.weight": (V, D),
        "embeddings.position_embeddings.weight": (positions, D),
        "embeddings.token_type_embeddings.weight": (types, D),
        "embeddings.LayerNorm.weight": (D,),
        "embeddings.LayerNorm.bias": (D,),
    }
    for i in range(layers):
        at = f"encoder.layer.{i}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= {f"{at}.attention.{name}.weight": (D, D), f"{at}.attention.{name}.bias": (D,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}.{name}.weight": (D,), f"{at}.{name}.bias": (D,)}
        shapes |= {f"{at}.intermediate.dense.weight": (F, D), f"{at}.intermediate.dense.bias": (F,)}
        shapes |= {f"{at}.output.dense.weight": (D, F), f"{at}.output.dense.bias": (D,)}
    return shapes


def decoder_shapes(layers: int, before: str, after: str, sandwich: bool, head_norms: bool) -> dict:
    """The layout that Gemma's and Qwen's decoders share; `before` and `after` are the norms around attention."""
    shapes = {"embed_tokens.weight": (V, D), "norm.weight": (D,)}
    for i in range(layers):
        at = f"layers.{i}"
        shapes[f"{at}.self_attn.q_proj.weight"] = (H * K, D)
        shapes[f"{at}.self_attn.k_proj.weight"] = (G * K, D)
        shapes[f"{at}.self_attn.v_proj.weight"] = (G * K, D)
        shapes[f"{at}.self_attn.o_proj.weight"] = (D, H * K)
        if head_norms:
            shapes |= {f"{at}.self_attn.q_norm.weight": (K,), f"{at}.self_attn.k_norm.weight": (K,)}
        shapes |= {f"{at}.{before}.weight": (D,), f"{at}.{after}.weight": (D,)}
        if sandwich:
            shapes |= {f"{at}.pre_feedforward_layernorm.weight": (D,), f"{at}.post_feedforward_layernorm.weight": (D,)}
        shapes |= {f"{at}.mlp.gate_proj.weight": (F, D), f"{at}.mlp.up_proj.weight": (F, D)}
        shapes[f"{at}.mlp.down_proj.weight"] = (D, F)
    return shapes


def embedding_gemma2_shapes(layers: int = 5) -> dict[str, tuple[int, ...]]:
    """Every third layer, and the last, has one key-value head, and heads of another size. Vectors have D values."""
    shapes = {
        "embed_tokens.weight": (V, W),
        "embedding_projection.weight": (D, W),
        "norm.weight": (W,),
        "ple.per_layer_model_projection.weight": (layers * P, W),
        "ple.per_layer_projection_norm.weight": (P,),
    }
    for i in range(layers):
        at, (groups, size) = f"layers.{i}", (1, 10) if i in (2, 4) else (G, K)
        for name, heads in (("q", H), ("k", groups), ("v", groups)):
            shapes[f"{at}.self_attn.{name}_proj.weight"] = (heads * size, W)
        shapes |= {f"{at}.self_attn.o_proj.weight": (W, H * size), f"{at}.mlp.down_proj.weight": (W, F)}
        shapes |= {f"{at}.self_attn.{name}_norm.weight": (size,) for name in "qk"}
        shapes |= {f"{at}.mlp.{name}_proj.weight": (F, W) for name in ("gate", "up")}
        norms = (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        )
        shapes |= {f"{at}.{name}.weight": (W,) for name in (*norms, "ple_block.post_per_layer_input_norm")}
        shapes[f"{at}.ple_block.per_layer_input_gate.weight"] = (P, W)
        shapes[f"{at}.ple_block.per_layer_projection.weight"] = (W, P)
        shapes[f"{at}.layer_scalar"] = (1,)
    return shapes


def modernbert_shapes(layers: int = 3, biases: bool = False) -> dict[str, tuple[int, ...]]:
    shapes = {"embeddings.tok_embeddings.weight": (V, D), "embeddings.norm.weight": (D,), "final_norm.weight": (D,)}
    for i in range(layers):
        at = f"layers.{i}"
        if i:  # the first layer's attention norm is the identity
            shapes[f"{at}.attn_norm.weight"] = (D,)
        shapes |= {f"{at}.attn.Wqkv.weight": (3 * D, D), f"{at}.attn.Wo.weight": (D, D)}
        shapes |= {f"{at}.mlp_norm.weight": (D,), f"{at}.mlp.Wi.weight": (2 * F, D), f"{at}.mlp.Wo.weight": (D, F)}
    return shapes | {n.replace("weight", "bias"): s[:1] for n, s in shapes.items() if biases and "tok_" not in n}


SHAPES = {
    "bert": bert_shapes(),
    "xlm-roberta": bert_shapes(types=1, positions=POSITIONS + 2),
    "gemma3_text": decoder_shapes(3, "input_layernorm", "post_attention_layernorm", True, True),
    "embedding_gemma2_text": embedding_gemma2_shapes(),
    "t5gemma": {
        f"encoder.{name}": shape
        for name, shape in decoder_shapes(2, "pre_self_attn_layernorm", "post_self_attn_layernorm", True, False).items()
    },
    "modernbert": modernbert_shapes(),
    "qwen3": decoder_shapes(2, "input_layernorm", "post_attention_layernorm", False, True),
}
_BERT = {
    "vocab_size": V,
    "hidden_size": D,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": F,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
}
_DECODER = {
    "vocab_size": V,
    "hidden_size": D,
    "num_hidden_layers": 2,
    "num_attention_heads": H,
    "num_key_value_heads": G,
    "head_dim": K,
    "intermediate_size": F,
    "rms_norm_eps": 1e-6,
}
_GEMMA = {**_DECODER, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 10, "sliding_window": 8}
CONFIGS = {
    "bert": _BERT,
    # Our tokenizer pads with 0, so positions begin at 1 here; RoBERTa's own begin at 2.
    "xlm-roberta": {
        **_BERT,
        "type_vocab_size": 1,
        "max_position_embeddings": POSITIONS + 2,
        "pad_token_id": 0,
        "layer_norm_eps": 1e-5,
    },
    "gemma3_text": {
        **_GEMMA,
        "num_hidden_layers": 3,
        "_sliding_window_pattern": 2,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "use_bidirectional_attention": True,
        "rope_theta": 500_000.0,
        "rope_local_base_freq": 9_000.0,
    },
    "embedding_gemma2_text": {
        **_DECODER,
        "hidden_size": W,
        "embedding_dim": D,
        "hidden_size_per_layer_input": P,
        "num_hidden_layers": 5,
        "layer_types": [("full" if i in (2, 4) else "sliding") + "_attention" for i in range(5)],
        "per_layer_config": {str(i): {"head_dim": 10, "num_key_value_heads": 1} for i in (2, 4)},
        "sliding_window": 8,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 500_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 9_000.0},
        },
    },
    "t5gemma": {"encoder": {**_GEMMA, "attn_logit_softcapping": 30.0, "rope_theta": 8_000.0}},
    "modernbert": {
        "vocab_size": V,
        "hidden_size": D,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": F,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
    },
    "qwen3": {**_DECODER, "hidden_act": "silu", "rope_theta": 5_000.0},
}
# The class-free dialect of old sentence-transformers and the one that version 6 writes.
LEGACY_TYPES = {
    kind: f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Dense", "Normalize")
}
V6_TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "[PAD]",
    "model_max_length": LENGTH,
}
IDENTITY = "torch.nn.modules.linear.Identity"


def byte_tokenizer() -> str:
    """Returns a tokenizer.json of single bytes (no merges) that puts [CLS] before and [SEP] behind a text."""
    vocab = {t: i for i, t in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    made = tokenizers.Tokenizer(models.BPE(vocab, [], unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made.to_str()


def draw(shapes, seed: int = 0, dtype="float32") -> dict[str, np.ndarray]:
    """Returns random tensors; rounded to bfloat16 first, so that every type of file holds the same numbers."""
    random = np.random.default_rng(seed)
    kind = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64}[dtype]
    values = lambda s: (random.normal(size=s) * 0.3).astype(ml_dtypes.bfloat16)  # noqa: E731
    return {name: values(shape).astype(np.float32).astype(kind) for name, shape in shapes.items()}


def write_json(path, value) -> None:
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(json.dumps(value))


def write_folder(folder, family: str = "bert", tensors=None, config=None, tokenizer: bool = True) -> pathlib.Path:
    """Writes a plain Hugging Face folder; `config` None is the family's own."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = draw(SHAPES[family]) if tensors is None else tensors
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    write_json(folder / "config.json", {"model_type": family, **(CONFIGS[family] if config is None else config)})
    if tokenizer:
        (folder / "tokenizer.json").write_text(byte_tokenizer())
        write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    return folder


def add_modules(folder, dense=(), types=LEGACY_TYPES, pooling=None, prompts=None, normalize: bool = True) -> None:
    """Makes a sentence-transformers folder of a plain one. `dense` are the sizes after each linear map."""
    folder = pathlib.Path(folder)
    new = types is V6_TYPES
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    flags = {"word_embedding_dimension": D, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    given = {"embedding_dimension": D, "pooling_mode": "mean", "include_prompt": True} if new else flags
    write_json(folder / "1_Pooling" / "config.json", given if pooling is None else pooling)
    for i, (inputs, outputs) in enumerate(zip((D, *dense), dense)):
        place = folder / f"{i + 2}_Dense"
        config = {"in_features": inputs, "out_features": outputs, "bias": False, "activation_function": IDENTITY}
        names = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"} if new else {}
        write_json(place / "config.json", {**config, **names})
        tensors = draw({"linear.weight": (outputs, inputs)}, seed=50 + i)
        safetensors.numpy.save_file(tensors, place / "model.safetensors")
        modules.append((place.name, "Dense"))
    if normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    entries = [{"idx": i, "name": str(i), "path": p, "type": types[kind]} for i, (p, kind) in enumerate(modules)]
    write_json(folder / "modules.json", entries)
    if prompts is not None:
        write_json(folder / "config_sentence_transformers.json", {"prompts": prompts})
    write_json(folder / "sentence_bert_config.json", {} if new else {"max_seq_length": LENGTH, "do_lower_case": False})


SMALL = Bert(vocab_size=V, width=8, num_layers=1, num_heads=2, mlp_dim=12, max_positions=POSITIONS)
RESULTS = {
    "suite": "small",
    "models": {
        "bm25": {
            "model": "BM25",
            "results": {"find": {"all": {"ndcg_at_10": 0.5}}},
            "means": {"all": {"retrieval": 0.5}},
        },
        "mine": {
            "model": "runs/mine",
            "results": {"find": {"10": {"ndcg_at_10": 0.6789, "mrr_at_10": 0.1}, "4": {"ndcg_at_10": None}}},
            "means": {"10": {"retrieval": 0.6789}, "4": {"retrieval": None}},
        },
    },
    "format": 3,
    "suite_digest": "a",
    "samples_digest": "b",
    "command": ["embed", "evaluate"],
    "environment": {
        "embed": "0.1.0",
        "python": "3.11.7",
        "platform": "Linux",
        "packages": {},
        "devices": {"kind": "cpu", "count": 1},
    },
    "tasks": {
        "find": {"type": "retrieval", "group": "retrieval", "main": "ndcg_at_10", "languages": [], "notes": []},
    },
}
PROMPTS = {"query": "find: ", "document": "text: ", "Clustering": "group: ", "mine": "mine> "}


def to_bundle(folder, output) -> pathlib.Path:
    return convert.convert(sources.read(folder), output, "a folder")


def to_folder(bundle, output, dtype: str = "float32") -> pathlib.Path:
    """Writes the sentence-transformers folder of a bundle, without card and parity file."""
    with files.new_folder(output) as folder:
        sentence_transformers.write(folder, origin.open_trained(bundle), dtype)
    return pathlib.Path(output)


def parameters(bundle) -> dict[str, np.ndarray]:
    return trees.flatten(arrays.load_numpy(bundle))


def assert_same_bundle(a, b) -> None:
    """Asserts that parameters (to the bit), tokenizer and model.json (but for the lineage) are the same.

    An exported tokenizer.json says itself where it cuts and that it does not pad, so its digest is another.
    """
    one, two = parameters(a), parameters(b)
    assert list(one) == list(two)
    for path in one:
        assert one[path].dtype == two[path].dtype == np.float32
        assert one[path].shape == two[path].shape and one[path].tobytes() == two[path].tobytes(), path
    left, right = (bundles.read_model_json(x) for x in (a, b))
    for description in (left, right):
        del description["lineage"], description["tokenizer"]["digest"]
    assert left == right
    own = ("padding", "truncation")
    files = (json.loads(bundles.tokenizer_file(x).read_bytes()) for x in (a, b))
    one, two = ({k: v for k, v in content.items() if k not in own} for content in files)
    assert one == two


_build = functools.cache(api.build)


@pytest.fixture(autouse=True, scope="module")
def built_once():
    """Every model of one description is built once: what these tests are about is the files around it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "build", _build)
        yield


@pytest.fixture(scope="session")
def foreign() -> types.SimpleNamespace:
    """The tools above."""
    return types.SimpleNamespace(**{name: value for name, value in globals().items() if not name.startswith("_")})


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> pathlib.Path:
    """A plain BERT folder, not to be changed."""
    return write_folder(tmp_path_factory.mktemp("plain") / "bert")


@pytest.fixture
def theirs(tmp_path) -> pathlib.Path:
    """A sentence-transformers BERT folder with two linear maps; a test damages it."""
    folder = write_folder(tmp_path / "theirs")
    add_modules(folder, dense=(14, 10), prompts=PROMPTS)
    return folder


@pytest.fixture
def folder(tmp_path):
    """folder(family) writes a sentence-transformers folder that a test changes."""

    def write(family: str = "bert"):
        path = write_folder(tmp_path / family, family)
        add_modules(path, dense=(10,), prompts=PROMPTS)
        write_json(path / "3_Normalize" / "config.json", {})
        return path

    return write


@pytest.fixture(scope="session")
def rounds(tmp_path_factory):
    """rounds(family) -> the folder `theirs`, the bundle `first` of it and the folder `back` of that, each family once.

    All have two linear maps, Matryoshka sizes and prompts, and none may be changed.
    """
    found = {}

    def run(family: str) -> types.SimpleNamespace:
        if family not in found:
            folder = tmp_path_factory.mktemp(family)
            config = {**CONFIGS[family], "matryoshka_dimensions": [10, 4]}
            theirs = write_folder(folder / "theirs", family, config=config)
            add_modules(theirs, dense=(14, 10), prompts=PROMPTS)
            first = to_bundle(theirs, folder / "first")
            back = to_folder(first, folder / "back")
            found[family] = types.SimpleNamespace(theirs=theirs, first=first, back=back)
        return found[family]

    return run


@pytest.fixture(scope="session")
def read(tmp_path_factory):
    """read(family) -> (the folder read, its tensors by foreign name, our parameters by path), each family once."""
    found = {}

    def run(family: str):
        if family not in found:
            theirs = draw(SHAPES[family], seed=3)
            folder = write_folder(tmp_path_factory.mktemp(family) / "theirs", family, theirs)
            source = sources.read(folder)
            found[family] = source, theirs, trees.flatten(convert.load_params(source))
        return found[family]

    return run


@pytest.fixture(scope="session")
def gemma_bundle(rounds) -> pathlib.Path:
    """The bundle of the Gemma, not to be changed."""
    return rounds("gemma3_text").first


@pytest.fixture(scope="session")
def exported(gemma_bundle, tmp_path_factory) -> pathlib.Path:
    """The folder that `embed export` writes of the Gemma, with scores."""
    folder = tmp_path_factory.mktemp("exported")
    digests.write_sealed(folder / "results.json", RESULTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "TEXTS", parity.TEXTS[:2])  # `program` has all of them
        export.run(gemma_bundle, folder / "mine", scores=folder / "results.json")
    return folder / "mine"


@pytest.fixture
def trained(plain, tmp_path):
    """trained(module, prompts) -> a model to export with random weights; nothing but its arrays is not real."""

    def run(module, prompts=text.PROMPTS) -> origin.Trained:
        model = api.build(module)
        params = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
        tokenizer = our_tokenizers.HuggingFace(str(plain / "tokenizer.json"), "[PAD]")
        description = bundles.model_json(
            model.description,
            tokenizer_options=tokenizer.options(),
            tokenizer_digest=tokenizer.digest,
            prompts=dict(prompts),
            matryoshka_dims=model.matryoshka_dims,
            lengths={"query": 10, "target": 20, "inference": 30},
            lineage={"step": 3, "mixture": {"first": 0.75, "second": 0.25}},
        )
        shapes = {p: s.shape for p, s in params.items()}
        return origin.Trained(
            folder=tmp_path,
            description=description,
            module=module,
            tokenizer=tokenizer,
            shapes=shapes,
            read=lambda path: np.full(shapes[path], 0.5, np.float32),
            digest="d" * 64,
        )

    return run


@pytest.fixture(scope="session")
def program(gemma_bundle, tmp_path_factory) -> pathlib.Path:
    """The Gemma as StableHLO, not to be changed."""
    output = tmp_path_factory.mktemp("program") / "mine"
    export.run(gemma_bundle, output, format="stablehlo")
    return output


@pytest.fixture
def bert(tmp_path) -> pathlib.Path:
    """A folder with a WordPiece tokenizer of a few words; a test changes it."""
    word_pieces.save(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys):
    """Runs `embed` in this process: call(arguments) -> (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as e:
            main([str(a) for a in arguments])
        out = capsys.readouterr()
        return e.value.code, out.out, out.err

    return run


@pytest.fixture
def refused(call, tmp_path):
    """Runs `embed convert` on a folder it must refuse; returns the one line, after checking that nothing was written."""

    def run(folder, *options, code: int = 65) -> str:
        found, _, err = call("convert", folder, tmp_path / "out", *options)
        assert found == code, err
        assert err.count("\n") == 1 and err.startswith("embed: ") and "Traceback" not in err, err
        assert not (tmp_path / "out").exists()
        assert not [p.name for p in tmp_path.iterdir() if ".tmp-" in p.name]
        return err

    return run
