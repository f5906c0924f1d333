"""A foreign model folder, read and understood: Hugging Face's or sentence-transformers', old dialects and new."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from embed import documents
from embed.data import tokenizers
from embed.errors import ConfigError, DataError
from embed.interop import entries, families, sentence_config, tokenizer_files
from embed.interop import modules as folder_modules
from embed.interop.family import Family, size
from embed.interop.modules import POOLING_NAMES
from embed.interop.prompts import overridden
from embed.interop.tensors import weight_files
from embed.models.embedder import Embedder, output_dim

__all__ = ["POOLING_NAMES", "Source", "read"]


@dataclasses.dataclass(frozen=True)
class Source:
    """What a foreign folder holds, without its weights. `dense` are the folders of its linear maps, in order.

    `default_prompt_name` is the prompt that sentence-transformers uses without being asked. `notes` say what was chosen where
    the folder says a thing twice, and what is read or computed differently from its own files.
    """

    folder: pathlib.Path
    weights: pathlib.Path
    family: Family
    module: Embedder
    dense: tuple[pathlib.Path, ...]
    tokenizer: tokenizers.Tokenizer
    prompts: dict[str, str]
    default_prompt_name: str | None
    max_length: int
    notes: tuple[str, ...]


def read(
    folder,
    *,
    prompt_overrides: Mapping[str, str] | None = None,
    matryoshka_dims: tuple[int, ...] | None = None,
    max_length: int | None = None,
    changes: Mapping[str, Any] | None = None,
    with_decoder: bool = False,
    parts: Sequence[str] = (),
) -> Source:
    """Returns what the folder holds. `changes` replace fields of the encoder (e.g. causal). `with_decoder` reads the decoder of an
    encoder-decoder too, for training it as a language model. `parts` are entries of config.json that the caller reads.

    Raises DataError, one line, for whatever we would compute differently from the tool that wrote it.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; give a folder with config.json and safetensors weights, or a Hub name"
        )
    modules = folder_modules.read(folder)
    path = modules.transformer / "config.json"
    if not path.is_file():
        raise DataError(
            f"{path.parent}: no config.json, so not a model of Hugging Face or sentence-transformers; check the path"
        )
    loading = sentence_config.loading(path.parent, modules.given)
    config = {**documents.read_json(path), **loading.config}
    family, inner, notes = _family(config, path, parts)
    encoder = family.module(**{**_fields(family, inner, path), **_changes(family, changes, path)})
    width = output_dim(encoder)
    sizes, dense_notes = folder_modules.dense_sizes(modules, width)
    folder_modules.pooling_width(modules, width, encoder.width)
    pooling, pooling_notes = folder_modules.pooling(modules, config)
    module = Embedder(
        encoder,
        pooling,
        projection=sizes,
        matryoshka_dims=matryoshka_sizes(config, matryoshka_dims, sizes[-1] if sizes else width),
        decoder=_decoder(family, config, encoder, path) if with_decoder else None,
    )
    tokenizer = tokenizer_files.read(
        path.parent,
        config,
        vocab_size=encoder.vocab_size,
        arguments=loading.tokenizer,
        lower_case=loading.lower_case,
    )
    _check_vocabulary(tokenizer.tokenizer, encoder.vocab_size, path.parent)
    prompts = sentence_config.read_prompts(folder, modules.given)
    length, length_notes = _length(path.parent, family, config, inner, encoder, loading, tokenizer, max_length)
    try:
        tokenizer.tokenizer.check_length(length)
    except ConfigError as e:
        raise DataError(f"{path.parent}: {e}") from e
    return Source(
        folder=folder,
        weights=path.parent,
        family=family,
        module=module,
        dense=modules.dense,
        tokenizer=tokenizer.tokenizer,
        prompts=overridden(prompts.templates, prompt_overrides or {}),
        default_prompt_name=prompts.default_name,
        max_length=length,
        notes=(
            *pooling_notes,
            *folder_modules.normalisation(modules),
            *notes,
            *loading.notes,
            *dense_notes,
            *tokenizer.notes,
            *prompts.notes,
            *length_notes,
            *_unread_notes(folder, modules),
            *sentence_config.stored_dtype_notes(path, config, weight_files(path.parent)[0]),
        ),
    )


def _unread_notes(folder: pathlib.Path, modules: folder_modules.Modules) -> list[str]:
    """Returns notes of files in the folder that are not read."""
    notes = folder_modules.unread(folder, modules) + _chat_notes(modules.transformer, modules.given)
    for weights in (modules.transformer, *modules.dense):
        notes += weight_files(weights)[1]
    return notes


def _family(config: dict, path: pathlib.Path, parts: Sequence[str]) -> tuple[Family, dict, list[str]]:
    """Returns the family of a config.json, the object in it that describes the encoder, and notes."""
    _refuse_code(config, path)
    family = families.of_config(config, path)
    notes = [
        *(f"{path}: {note}" for note in family.notes(config, parts)),
        *entries.check(path, config, _outer(family, config)),
    ]
    name = family.inner.get(config["model_type"])
    if name is None or name not in config:
        return family, config, notes + sentence_config.dtype_notes(path, config)
    inner = config[name]
    if not isinstance(inner, dict):
        raise DataError(f"{path}: {name} is not an object; restore the file from its source")
    notes += entries.check(path, inner, family.entries, f"{name}.")
    twice = [k for k in inner if k in config and config[k] != inner[k] and family.entries.get(k) == entries.HONOURED]
    twice = [k for k in twice if k not in ("model_type", "torch_dtype", "dtype", "pad_token_id")]
    if twice:
        notes.append(f"{path}: {', '.join(twice)} of {name} is used, not that beside it, as in transformers")
    return family, inner, notes + sentence_config.dtype_notes(path, config)


def _outer(family: Family, config: dict) -> dict[str, entries.Entry]:
    """Returns the table of the outermost object; what describes the encoder is refused in the object it is read from."""
    name = family.inner.get(config["model_type"])
    if name is None or name not in config:
        return dict(family.entries)
    return dict.fromkeys(family.entries, entries.HONOURED) | {
        name: entries.HONOURED,
        "quantization_config": family.entries["quantization_config"],
    }


def _fields(family: Family, inner: dict, path: pathlib.Path) -> dict[str, Any]:
    """Returns the fields of our encoder, from the entries of config.json."""
    try:
        return family.fields(inner)
    except KeyError as e:
        raise DataError(f"{path}: lacks {e.args[0]!r}, or has a value we do not know; complete it") from e
    except (TypeError, ValueError, ZeroDivisionError, IndexError, AttributeError) as e:
        raise DataError(f"{path}: has a value that cannot be ({type(e).__name__}: {e}); complete it") from e
    except DataError as e:
        raise DataError(f"{path.parent}/{e}") from e


def _decoder(family: Family, config: dict, encoder, path: pathlib.Path):
    """Returns the decoder of an encoder-decoder; a folder without one is a DataError."""
    part = family.decoder
    if part is None or not isinstance(config.get(part.entry), dict):
        raise DataError(
            f"{path}: {config['model_type']} has no decoder to read; leave --with_decoder out. A causal model becomes the start of "
            "an encoder-decoder in training: bind Embedder.decoder, and Recipe.init_from to its bundle"
        )
    if config.get("tie_word_embeddings") is False:
        raise DataError(
            f"{path}: tie_word_embeddings = false: the output map is no token table, which a decoder here needs; leave "
            "--with_decoder out, or get a checkpoint of tied tables"
        )
    inner = config[part.entry]
    entries.check(path, inner, part.entries, f"{part.entry}.")
    return part.module(
        **_fields(dataclasses.replace(family, fields=lambda given: part.fields(given, encoder)), inner, path)
    )


def _changes(family: Family, changes: Mapping[str, Any] | None, path: pathlib.Path) -> dict[str, Any]:
    unknown = set(changes or {}) - set(family.module.__dataclass_fields__)
    if unknown:
        raise DataError(f"{path}: {family.model_type} has no {sorted(unknown)[0]!r} to change")
    return dict(changes or {})


def _chat_notes(folder: pathlib.Path, has_modules: bool) -> list[str]:
    """Returns a note where sentence-transformers would put texts into a chat's template."""
    if has_modules:
        return []
    path = folder / "tokenizer_config.json"
    given = documents.read_json(path).get("chat_template") if path.is_file() else None
    names = ["chat_template.jinja"] if (folder / "chat_template.jinja").is_file() else []
    names += [path.name] if given else []
    if not names:
        return []
    return [
        f"{folder / names[0]}: the chat template is not used; sentence-transformers 6 uses it where modules.json is missing"
    ]


def matryoshka_sizes(config: dict, given: tuple[int, ...] | None, size: int) -> tuple[int, ...]:
    """Returns the Matryoshka sizes below the embedding's own, largest first."""
    sizes = given or config.get("matryoshka_dimensions") or ()
    if not isinstance(sizes, list | tuple) or not all(isinstance(d, int) and 1 <= d <= size for d in sizes):
        raise DataError(
            f"matryoshka_dims {sizes}: must be numbers from 1 to the embedding size {size}; give others, or correct config.json"
        )
    return tuple(sorted({*sizes} - {size}, reverse=True))


def _refuse_code(config: dict, location) -> None:
    code = config.get("auto_map") or config.get("custom_pipelines")
    if code:
        raise DataError(
            f"{location}: wants code of its own ({', '.join(map(str, code))}), which is never executed; "
            "get a checkpoint of a known architecture without auto_map"
        )


def _check_vocabulary(tokenizer: tokenizers.Tokenizer, size: int, folder) -> None:
    vocab_size = tokenizer.vocab_size
    if vocab_size > size:
        raise DataError(
            f"{folder}: the tokenizer has {vocab_size} tokens, the model's table {size}; get the tokenizer of this checkpoint"
        )
    tokenizer.pad_id  # noqa: B018 - raises when there is no padding token


def _length(
    folder: pathlib.Path,
    family: Family,
    config: dict,
    inner: dict,
    encoder,
    loading: sentence_config.Loading,
    tokenizer: tokenizer_files.FolderTokenizer,
    requested: int | None,
) -> tuple[int, list[str]]:
    """Returns the tokens a text is cut at, as sentence-transformers chooses them, and a note where the files differ.

    A model with a table of positions takes no more than those. Raises DataError for a `wanted` length that is longer than
    config.json says.
    """
    try:
        stated = size(inner, "max_position_embeddings", family.max_positions)
    except DataError as e:
        raise DataError(f"{folder}/{e}") from e
    has_table = hasattr(encoder, "max_positions")
    positions = family.max_length(encoder) if has_table else stated
    if requested is not None:
        if not 1 <= requested <= positions:
            raise DataError(f"{folder}: a length of {requested} tokens, but the model takes 1 to {positions}")
        return requested, []
    if loading.max_length is not None and "model_max_length" not in loading.tokenizer:
        length = loading.max_length
    elif "model_max_length" in loading.tokenizer:
        length = tokenizer.max_length
    else:
        # sentence-transformers looks at the outermost object alone.
        outer = stated if inner is config else config.get("max_position_embeddings")
        length = min((n for n in (tokenizer.max_length, outer) if n is not None), default=None)
    length = positions if length is None else min(length, positions) if has_table else length
    lengths = {
        f"max_seq_length of {loading.name}": loading.max_length,
        "model_max_length of the tokenizer": tokenizer.max_length,
        "the positions of config.json": positions,
    }
    others = [f"{name} is {n}" for name, n in lengths.items() if n not in (None, length)]
    if not others or (len(others) == 1 and length < positions):
        return length, []
    return length, [f"texts are cut at {length} tokens, as in sentence-transformers; {', '.join(others)}"]
