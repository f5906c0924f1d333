"""A bundle as a sentence-transformers folder, in the flat dialect that old and new versions, TEI and vLLM read alike.

The newest versions write a dialect that older ones and several servers reject, or read without its linear maps. This one
has legacy module types, pooling as booleans, rotary bases at the top of config.json, and loads with the same vectors
everywhere.
"""

import json
import pathlib

from embed import files
from embed.data.tokenizers import HuggingFace
from embed.errors import DataError
from embed.interop import families, prompts, tokenizer_json
from embed.interop import safetensors_writer as safetensors
from embed.interop.origin import SPECIAL, Trained, truncation_side
from embed.interop.source import POOLING_NAMES
from embed.interop.tensors import Tensor, foreign_shapes, foreign_tensors
from embed.models.embedder import output_dim

_MODES = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken"}
_OFF = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def write(folder: pathlib.Path, trained: Trained, dtype: str = "float32") -> None:
    """Writes the folder's files; `dtype` is the weights' type."""
    module = trained.module
    family = families.of_encoder(module.encoder)
    pooling = pooling_name(trained)
    _write_encoder(folder, trained, family, dtype)
    files.write_json(folder / "config.json", _config(trained, family, dtype))
    write_tokenizer(folder, trained)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modes = {f"pooling_mode_{name}": name == _MODES[pooling] for name in _OFF}
    (folder / "1_Pooling").mkdir()
    files.write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": output_dim(module.encoder), **modes, "include_prompt": True},
    )
    modules += [(write_dense(folder, trained, i, dtype), "Dense") for i in range(len(module.projection))]
    modules.append((f"{len(modules)}_Normalize", "Normalize"))
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    files.write_atomic(folder / "modules.json", json.dumps(entries, indent=2) + "\n")
    options = {"model_args": dict(family.load_options)} if family.load_options else {}
    files.write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": trained.max_length, "do_lower_case": False, **options},
    )
    write_prompts(folder, trained)


def pooling_name(trained: Trained) -> str:
    """Returns sentence-transformers' name of the model's pooling; a DataError when it has none."""
    name = POOLING_NAMES.get(type(trained.module.pooling))
    if name is None:
        raise DataError(
            f"{type(trained.module.pooling).__name__}: sentence-transformers has no such pooling; "
            "export with --format=stablehlo"
        )
    return name


def write_prompts(folder: pathlib.Path, trained: Trained) -> None:
    """Writes config_sentence_transformers.json: every prompt under every key that is asked for.

    A default prompt that adds nothing to a text, and has no key of its own there, is none.
    """
    written, default = prompts.exported(trained.description["prompts"]), trained.description.get("default_prompt_name")
    files.write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {"sentence_transformers": "3.0.0", "transformers": "4.41.0", "pytorch": "2.3.0"},
            "prompts": written,
            "default_prompt_name": default if default in written else None,
            "similarity_fn_name": "cosine",
        },
    )


def _write_encoder(folder: pathlib.Path, trained: Trained, family, dtype: str) -> None:
    shapes = {p.removeprefix("encoder/"): s for p, s in trained.shapes.items() if p.startswith("encoder/")}
    layers, table = trained.module.encoder.num_layers, family.tensors_of(trained.module.encoder)
    named = lambda items: ((family.write_prefix + name, value) for name, value in items)  # noqa: E731
    tensors = foreign_tensors(table, shapes, layers, lambda path: trained.read(f"encoder/{path}"))
    expected = dict(named(foreign_shapes(table, shapes, layers).items()))
    safetensors.write(folder / "model.safetensors", expected, named(tensors), dtype)


def write_dense(folder: pathlib.Path, trained: Trained, number: int, dtype: str, first: int = 2) -> str:
    """Writes one linear map and returns its folder's name; the first map is module `first`."""
    path = f"projection_{number}/kernel"
    inputs, outputs = trained.shapes[path]
    module_folder = f"{number + first}_Dense"
    (folder / module_folder).mkdir()
    files.write_json(
        folder / module_folder / "config.json",
        {
            "in_features": inputs,
            "out_features": outputs,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    tensor = Tensor("linear.weight", (path,), inputs=1)
    array = tensor.join([trained.read(path)])
    safetensors.write(
        folder / module_folder / "model.safetensors", {tensor.name: array.shape}, [(tensor.name, array)], dtype
    )
    return module_folder


def _config(trained: Trained, family, dtype: str) -> dict:
    encoder = trained.module.encoder
    config = family.config(encoder)
    pad = trained.tokenizer.pad_id
    if config.get("pad_token_id", pad) != pad:
        raise DataError(
            f"{trained.folder}: the tokenizer pads with token {pad}, but the model's positions begin behind token "
            f"{config['pad_token_id']}; use the tokenizer that belongs to it"
        )
    longest = max(trained.max_length, config.get("max_position_embeddings") or family.max_length(encoder))
    return {
        "architectures": [family.class_name],
        "model_type": family.model_type,
        **config,
        "max_position_embeddings": longest,
        "pad_token_id": pad,
        "torch_dtype": dtype,
        "is_matryoshka": len(trained.matryoshka_dims) > 1,
        "matryoshka_dimensions": trained.matryoshka_dims,
    }


def write_tokenizer(folder: pathlib.Path, trained: Trained) -> None:
    """Writes tokenizer.json and tokenizer_config.json; a SentencePiece model becomes a tokenizer.json of the same ids.

    Texts are cut at the model's length and not padded, whatever the file that was read says: readers go by what is written.
    """
    tokenizer = trained.tokenizer
    if isinstance(tokenizer, HuggingFace):
        content = tokenizer.content()
    else:
        content = tokenizer_json.from_sentencepiece(tokenizer)
    side = truncation_side(trained)
    spec = tokenizer_json.for_readers(content, trained.max_length, side, trained.description["text_normalization"])
    files.write_atomic(folder / "tokenizer.json", json.dumps(spec, ensure_ascii=False))
    special = {token["id"]: token["content"] for token in spec.get("added_tokens", ()) if token.get("special")}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": trained.max_length,
        "padding_side": "right",
        "truncation_side": side,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **_special_tokens(special.values()),
        "pad_token": tokenizer_json.token(spec, tokenizer.pad_id),
    }
    files.write_json(folder / "tokenizer_config.json", config)


def _special_tokens(vocabulary) -> dict[str, str]:
    """Returns the roles of the special tokens that the vocabulary already has; no new ones, which would change ids."""
    vocabulary = set(vocabulary)
    candidates = {
        "unk_token": ("[UNK]", "<unk>"),
        "bos_token": ("<bos>", "<s>"),
        "eos_token": ("<eos>", "</s>", "<|endoftext|>"),
        "cls_token": ("[CLS]", "<s>"),
        "sep_token": ("[SEP]", "</s>"),
        "mask_token": ("[MASK]", "<mask>"),
    }
    tokens = {role: next((t for t in candidates[role] if t in vocabulary), None) for role in SPECIAL}
    return {role: token for role, token in tokens.items() if token is not None}
