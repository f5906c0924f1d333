"""A foreign model folder, read and understood: Hugging Face's or sentence-transformers', old dialects and new."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from embed import files
from embed.data import tokenizers
from embed.errors import DataError
from embed.interop import families, prompts
from embed.interop.family import Family
from embed.models.embedder import Embedder
from embed.models.pooling import FirstPooling, LastPooling, MeanPooling

_POOLING = {"mean": MeanPooling, "cls": FirstPooling, "lasttoken": LastPooling}
POOLING_NAMES = {MeanPooling: "mean", FirstPooling: "cls", LastPooling: "lasttoken"}
_DEFAULT_LENGTH = 512  # of a folder that does not say


@dataclasses.dataclass(frozen=True)
class Source:
    """What a foreign folder holds, without its weights. `dense` are the folders of its linear maps, in order."""

    folder: pathlib.Path
    weights: pathlib.Path
    family: Family
    module: Embedder
    dense: tuple[pathlib.Path, ...]
    tokenizer: tokenizers.Tokenizer
    prompts: dict[str, str]
    max_length: int
    notes: tuple[str, ...]


def read(
    folder,
    *,
    prompt_overrides: Mapping[str, str] | None = None,
    matryoshka_dims: tuple[int, ...] | None = None,
    max_length: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Source:
    """Returns what the folder holds. `changes` replace fields of the encoder (e.g. causal).

    Raises DataError, one line, for whatever we would compute differently from the tool that wrote it.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; give a folder with config.json and safetensors weights, or a Hub name"
        )
    modules = _modules(folder)
    inner = folder / modules["Transformer"][0]
    if not (inner / "config.json").is_file():
        raise DataError(
            f"{inner}: no config.json, so not a model of Hugging Face or sentence-transformers; check the path"
        )
    config = files.read_json(inner / "config.json")
    _refuse_code(config, inner / "config.json")
    family = families.of_config(config, inner / "config.json")
    try:
        fields = family.fields(config)
    except KeyError as e:
        raise DataError(
            f"{inner / 'config.json'}: lacks {e.args[0]!r}, or has a value we do not know; complete it"
        ) from e
    except (TypeError, ValueError, ZeroDivisionError, IndexError, AttributeError) as e:
        raise DataError(
            f"{inner / 'config.json'}: has a value that cannot be ({type(e).__name__}: {e}); complete it"
        ) from e
    except DataError as e:
        raise DataError(f"{inner}/{e}") from e
    unknown = set(changes or {}) - set(family.module.__dataclass_fields__)
    if unknown:
        raise DataError(f"{inner / 'config.json'}: {family.model_type} has no {sorted(unknown)[0]!r} to change")
    encoder = family.module(**{**fields, **(changes or {})})
    dense = tuple(folder / path for path in modules["Dense"])
    sizes = _dense_sizes(dense, encoder.width)
    pooling, note = _pooling(folder, modules["Pooling"], family)
    module = Embedder(
        encoder,
        pooling,
        projection=sizes,
        matryoshka_dims=_sizes(config, matryoshka_dims, sizes[-1] if sizes else encoder.width),
    )
    tokenizer = _tokenizer(inner, config)
    _check_vocabulary(tokenizer, encoder.vocab_size, inner)
    notes = [note] if note else []
    if modules["given"] and not modules["Normalize"]:
        notes.append("the folder leaves its vectors as they are; here, and when exported, they have unit length")
    most = family.max_length(encoder)
    return Source(
        folder=folder,
        weights=inner,
        family=family,
        module=module,
        dense=dense,
        tokenizer=tokenizer,
        prompts={**_prompts(folder), **(prompt_overrides or {})},
        max_length=_length(inner, config, most, max_length),
        notes=tuple(notes),
    )


def _sizes(config: dict, given: tuple[int, ...] | None, size: int) -> tuple[int, ...]:
    """Returns the Matryoshka sizes below the embedding's own, largest first."""
    found = given or config.get("matryoshka_dimensions") or ()
    if not isinstance(found, list | tuple) or not all(isinstance(d, int) and 1 <= d <= size for d in found):
        raise DataError(
            f"matryoshka_dims {found}: must be numbers from 1 to the embedding size {size}; give others, or correct config.json"
        )
    return tuple(sorted({*found} - {size}, reverse=True))


def _refuse_code(config: dict, where) -> None:
    code = config.get("auto_map") or config.get("custom_pipelines")
    if code:
        raise DataError(
            f"{where}: wants code of its own ({', '.join(map(str, code))}), which is never executed; "
            "get a checkpoint of a known architecture without auto_map"
        )


def _modules(folder: pathlib.Path) -> dict[str, Any]:
    """Returns {kind: [folders of the modules of that kind]} of modules.json; a plain Hugging Face folder has one module."""
    found: dict[str, Any] = {"Transformer": [], "Pooling": [], "Dense": [], "Normalize": [], "given": True}
    path = folder / "modules.json"
    if not path.is_file():
        return {**found, "Transformer": ["."], "given": False}
    kinds = [k for k in found if k != "given"]
    order = []
    for entry in _read_list(path):
        name, place = str(entry.get("type", "")), str(entry.get("path", ""))
        kind = name.rpartition(".")[2]
        if not name.startswith("sentence_transformers."):
            raise DataError(f"{path}: module {name!r} is code of its own, which is never executed")
        if kind not in kinds:
            raise DataError(f"{path}: module {name!r} is not supported; known: {', '.join(kinds)}")
        if pathlib.PurePath(place).is_absolute() or ".." in pathlib.PurePath(place).parts:
            raise DataError(f"{path}: module path {place!r} leads out of the folder")
        found[kind].append(place or ".")
        order.append(kind)
    wanted = ["Transformer", "Pooling", *["Dense"] * len(found["Dense"]), *["Normalize"] * len(found["Normalize"])]
    if order != wanted or len(found["Normalize"]) > 1:
        raise DataError(
            f"{path}: modules in the order {', '.join(order)}; only Transformer, Pooling, Dense ..., Normalize is supported"
        )
    return found


def _read_list(path: pathlib.Path) -> list[dict]:
    import json

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise DataError(f"{path}: not valid JSON ({e}); restore the file from its source") from e
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise DataError(f"{path}: not a list of modules; restore the file from its source")
    return value


def _pooling(folder: pathlib.Path, places: list[str], family: Family):
    """Returns the pooling module and a note when it had to be chosen."""
    if not places:
        mode = "lasttoken" if family.model_type == "qwen3" else "mean"
        return _POOLING[mode](), f"no sentence-transformers modules: {mode} pooling, no projection"
    path = folder / places[0] / "config.json"
    config = files.read_json(path)
    if not config.get("include_prompt", True):
        raise DataError(f"{path}: leaves the prompt out of the pooling, which is not supported")
    modes = [k.removeprefix("pooling_mode_") for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
    modes = [{"cls_token": "cls", "mean_tokens": "mean"}.get(m, m) for m in modes]
    if "pooling_mode" in config:
        given = config["pooling_mode"]
        modes = [given] if isinstance(given, str) else list(given) if isinstance(given, list) else []
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise DataError(
            f"{path}: pooling {' and '.join(modes) or 'none'} is not supported; known: {', '.join(_POOLING)}"
        )
    return _POOLING[modes[0]](), None


def _dense_sizes(dense: tuple[pathlib.Path, ...], width: int) -> tuple[int, ...]:
    sizes = []
    for place in dense:
        config = files.read_json(place / "config.json")
        activation = str(config.get("activation_function", "")).rpartition(".")[2]
        if config.get("bias") or activation != "Identity":
            raise DataError(
                f"{place / 'config.json'}: a linear map with {'a bias' if config.get('bias') else activation}; "
                "only maps without bias and activation are supported"
            )
        if not isinstance(config.get("out_features"), int) or config["out_features"] < 1:
            raise DataError(f"{place / 'config.json'}: out_features is not a size; restore the file from its source")
        if config.get("in_features") != (sizes[-1] if sizes else width):
            raise DataError(f"{place / 'config.json'}: in_features does not fit what comes before it")
        sizes.append(int(config["out_features"]))
    return tuple(sizes)


def _tokenizer(folder: pathlib.Path, config: dict) -> tokenizers.Tokenizer:
    given = folder / "tokenizer_config.json"
    options = files.read_json(given) if given.is_file() else {}
    if (folder / "tokenizer.json").is_file():
        pad = options.get("pad_token")
        pad = pad.get("content") if isinstance(pad, dict) else pad
        _check_lower_case(folder)
        return tokenizers.HuggingFace(path=str(folder / "tokenizer.json"), pad_token=pad)
    if (folder / "tokenizer.model").is_file():
        return tokenizers.SentencePiece(
            path=str(folder / "tokenizer.model"),
            add_bos=bool(options.get("add_bos_token", True)),
            add_eos=bool(options.get("add_eos_token", False)),
        )
    raise DataError(
        f"{folder}: has neither tokenizer.json nor tokenizer.model; save it with a fast tokenizer: "
        "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    )


def _check_lower_case(folder: pathlib.Path) -> None:
    """Refuses a folder whose texts sentence-transformers lower-cases before a tokenizer that would not."""
    path = folder / "sentence_bert_config.json"
    if not path.is_file() or not files.read_json(path).get("do_lower_case"):
        return
    if '"lowercase":true' not in (folder / "tokenizer.json").read_text(encoding="utf-8").replace(" ", ""):
        raise DataError(f"{path}: do_lower_case with a tokenizer that keeps case is not supported")


def _check_vocabulary(tokenizer: tokenizers.Tokenizer, size: int, folder) -> None:
    found = tokenizer.vocab_size
    if found > size:
        raise DataError(
            f"{folder}: the tokenizer has {found} tokens, the model's table {size}; get the tokenizer of this checkpoint"
        )
    tokenizer.pad_id  # noqa: B018 - raises when there is no padding token


def _prompts(folder: pathlib.Path) -> dict[str, str]:
    path = folder / "config_sentence_transformers.json"
    given = (files.read_json(path).get("prompts") if path.is_file() else None) or {}
    if not isinstance(given, dict) or not all(p is None or isinstance(p, str) for p in given.values()):
        raise DataError(f"{path}: prompts must be texts by name; restore the file from its source")
    return prompts.imported(given)


def _length(folder: pathlib.Path, config: dict, most: int, wanted: int | None) -> int:
    """Returns the tokens a text is cut at: what the folder says, at most what the model has positions for."""
    if wanted is not None:
        if not 1 <= wanted <= most:
            raise DataError(f"{folder}: a length of {wanted} tokens, but the model takes 1 to {most}")
        return wanted
    places = (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length"))
    for name, key in places:
        value = files.read_json(folder / name).get(key) if (folder / name).is_file() else None
        if isinstance(value, int) and 0 < value < 1_000_000:
            return min(value, most)
    return min(_DEFAULT_LENGTH, most)
