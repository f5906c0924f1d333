"""The modules of a sentence-transformers folder: which there are, and what those behind the transformer compute."""

import dataclasses
import pathlib
from typing import Any

from embed import documents
from embed.errors import DataError
from embed.interop import entries
from embed.interop.known_entries import DENSE, NORMALIZE, POOLING
from embed.models.pooling import FirstPooling, LastPooling, MeanPooling

_POOLING = {"mean": MeanPooling, "cls": FirstPooling, "lasttoken": LastPooling}
POOLING_NAMES = {MeanPooling: "mean", FirstPooling: "cls", LastPooling: "lasttoken"}
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclasses.dataclass(frozen=True)
class Modules:
    """The folders of the modules of modules.json, by kind. `given` is False for a plain Hugging Face folder."""

    transformer: pathlib.Path
    pooling: pathlib.Path | None = None
    dense: tuple[pathlib.Path, ...] = ()
    normalize: pathlib.Path | None = None
    given: bool = True


def read(folder: pathlib.Path) -> Modules:
    """Returns the modules of a folder; an order or kind we do not compute is a DataError."""
    path = folder / "modules.json"
    if not path.is_file():
        return Modules(folder, given=False)
    folders: dict[str, list[pathlib.Path]] = {kind: [] for kind in _KINDS}
    order = []
    listed = documents.read_json(path, kind=list)
    for entry in listed:
        kind, name = module(path, entry)
        folders[kind].append(folder / name)
        order.append(kind)
    names = [str(entry["name"]) for entry in listed if "name" in entry]
    if not listed or len(set(names)) < len(names):
        reason = (
            "two modules have one name, of which sentence-transformers keeps one" if listed else "it lists no module"
        )
        raise DataError(f"{path}: {reason}; restore the file from its source")
    dense, normalize = folders["Dense"], folders["Normalize"]
    if (
        order != ["Transformer", "Pooling", *["Dense"] * len(dense), *["Normalize"] * len(normalize)]
        or len(normalize) > 1
    ):
        raise DataError(
            f"{path}: modules in the order {', '.join(order)}; only Transformer, Pooling, Dense ..., Normalize is supported"
        )
    return Modules(folders["Transformer"][0], folders["Pooling"][0], tuple(dense), normalize[0] if normalize else None)


def unread(folder: pathlib.Path, modules: Modules) -> list[str]:
    """Returns a note of a model beside the one in the transformer's own folder."""
    names = [name for name in ("config.json", "model.safetensors", "tokenizer.json") if (folder / name).is_file()]
    if modules.transformer.resolve() == folder.resolve() or not names:
        return []
    return [
        f"{folder}: {', '.join(names)} not read; modules.json says that the transformer is in {modules.transformer.name}"
    ]


def module(path: pathlib.Path, entry: Any) -> tuple[str, str]:
    """Returns the kind and the folder of one entry of modules.json."""
    if not isinstance(entry, dict):
        raise DataError(f"{path}: not a list of modules; restore the file from its source")
    name, module_folder = str(entry.get("type", "")), str(entry.get("path", ""))
    kind = name.rpartition(".")[2]
    if not name.startswith("sentence_transformers."):
        raise DataError(f"{path}: module {name!r} is code of its own, which is never executed")
    if kind not in _KINDS:
        raise DataError(f"{path}: module {name!r} is not supported; known: {', '.join(_KINDS)}")
    if pathlib.PurePath(module_folder).is_absolute() or ".." in pathlib.PurePath(module_folder).parts:
        raise DataError(f"{path}: module path {module_folder!r} leads out of the folder")
    return kind, module_folder or "."


def pooling(modules: Modules, config: dict) -> tuple[Any, list[str]]:
    """Returns the pooling module, and notes of what was chosen or left out. `config` is the transformer's config.json."""
    if modules.pooling is None:
        mode = "lasttoken" if _is_causal(config) else "mean"
        return _POOLING[mode](), [f"no sentence-transformers modules: {mode} pooling, no projection"]
    path = modules.pooling / "config.json"
    given = documents.read_json(path)
    notes = entries.check(path, given, POOLING)
    if not entries.flag(path, given, "include_prompt", True):
        raise DataError(f"{path}: leaves the prompt out of the pooling, which is not supported")
    flags = [mode for name, mode in _FLAGS.items() if given.get(name, False)]
    modes = flags or (["mean"] if any(name in given for name in _FLAGS) else [])
    if "pooling_mode" in given:
        value = given["pooling_mode"]
        modes = [value] if isinstance(value, str) else list(map(str, value)) if isinstance(value, list) else []
        if flags and flags != modes:
            notes.append(
                f"{path}: pooling_mode {' and '.join(modes)} is used, not {' and '.join(flags)} of the older entries"
            )
    elif not modes:
        modes = ["mean"]  # sentence-transformers' own default
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise DataError(
            f"{path}: pooling {' and '.join(modes) or 'none'} is not supported; known: {', '.join(_POOLING)}"
        )
    return _POOLING[modes[0]](), notes


def _is_causal(config: dict) -> bool:
    """Returns whether sentence-transformers takes the last token of a folder without modules."""
    names = config.get("architectures") or [""]
    return str(names[0]).endswith("ForCausalLM") and config.get("is_causal", True) is not False


def pooling_width(modules: Modules, width: int, inner_width: int) -> None:
    """Raises DataError when the pooling is for token vectors of another width than the encoder's.

    Of an encoder that maps its last states, sentence-transformers writes the width before that map (`inner_width`).
    """
    path = (modules.pooling or modules.transformer) / "config.json"
    given = documents.read_json(path) if modules.pooling is not None else {}
    for name in ("word_embedding_dimension", "embedding_dimension"):
        if given.get(name, width) not in (width, inner_width):
            raise DataError(
                f"{path}: {name} = {given[name]!r}, but the encoder is {width} wide; get the whole checkpoint"
            )


def dense_sizes(modules: Modules, width: int) -> tuple[tuple[int, ...], list[str]]:
    """Returns the sizes after each linear map, and notes."""
    sizes, notes = [], []
    for module_folder in modules.dense:
        path = module_folder / "config.json"
        config = documents.read_json(path)
        notes += entries.check(path, config, DENSE)
        # sentence-transformers' own defaults are a bias and Tanh.
        activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        bias = entries.flag(path, config, "bias", True)
        if bias or activation not in ("torch.nn.modules.linear.Identity", "torch.nn.Identity"):
            what = "a bias" if bias else activation.rpartition(".")[2]
            raise DataError(f"{path}: a linear map with {what}; only maps without bias and activation are supported")
        if not isinstance(config.get("out_features"), int) or config["out_features"] < 1:
            raise DataError(f"{path}: out_features is not a size; restore the file from its source")
        if config.get("in_features") != (sizes[-1] if sizes else width):
            raise DataError(f"{path}: in_features does not fit what comes before it")
        sizes.append(entries.whole_number(path, config, "out_features", 1, 1 << 20))
    return tuple(sizes), notes


def normalisation(modules: Modules) -> list[str]:
    """Returns notes about the lengths of vectors, which are always 1 here."""
    if modules.normalize is None:
        return (
            ["the folder leaves its vectors as they are; here, and when exported, they have unit length"]
            if modules.given
            else []
        )
    path = modules.normalize / "config.json"
    return entries.check(path, documents.read_json(path), NORMALIZE) if path.is_file() else []
