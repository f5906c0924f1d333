"""sentence_bert_config.json and config_sentence_transformers.json: lengths, arguments of loading, and prompts."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from embed import documents
from embed.errors import DataError
from embed.interop import entries, prompts
from embed.interop.known_entries import CONFIG_SENTENCE_TRANSFORMERS, MODEL_ARGUMENTS, SENTENCE_BERT_CONFIG
from embed.interop.tensors import stored_dtypes

# sentence-transformers takes the first of these that there is.
_NAMES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

_MODALITIES = {"text", "image", "audio", "video"}


@dataclasses.dataclass(frozen=True)
class Loading:
    """How sentence-transformers loads the transformer. The mappings replace entries of config.json and of
    tokenizer_config.json; `max_length` is max_seq_length, None when the file does not say."""

    max_length: int | None = None
    lower_case: bool = False
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tokenizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = _NAMES[0]
    notes: tuple[str, ...] = ()


def loading(folder: pathlib.Path, has_modules: bool) -> Loading:
    """Returns what sentence_bert_config.json says; nothing without modules.json, as in sentence-transformers."""
    present = [folder / name for name in _NAMES if (folder / name).is_file()]
    if not present:
        return Loading()
    path = present[0]
    if not has_modules:
        return Loading(
            notes=(f"{path}: not read, because sentence-transformers does not read it without modules.json",)
        )
    given, notes = _texts_alone(path, documents.read_json(path))
    notes += entries.check(path, given, SENTENCE_BERT_CONFIG)
    notes += [f"{other}: not read, because {path.name} is" for other in present[1:]]
    model = _arguments(path, given, "model_kwargs", "model_args")
    notes += entries.check(path, model, MODEL_ARGUMENTS, "model_args.")
    length = given.get("max_seq_length")
    return Loading(
        max_length=None if length is None else entries.whole_number(path, given, "max_seq_length", 1, 1 << 30),
        lower_case=entries.flag(path, given, "do_lower_case", False),
        config=_arguments(path, given, "config_kwargs", "config_args"),
        tokenizer=_arguments(path, given, "processor_kwargs", "tokenizer_args"),
        name=path.name,
        notes=tuple(notes + dtype_notes(path, model)),
    )


def _texts_alone(path: pathlib.Path, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the file's entries without what a model of several modalities does with images, audio and video, and a note of it.

    Messages stay: sentence-transformers puts every text into one where the model takes them, which is refused.
    """
    modalities = given.get("modality_config")
    if not isinstance(modalities, dict) or "text" not in modalities:
        return given, []
    others = [name for name in modalities if name != "text" and set(name.split("+")) <= _MODALITIES]
    if not others:
        return given, []
    texts = {name: entry for name, entry in modalities.items() if name not in others}
    return {**given, "modality_config": texts}, [f"{path}: texts alone are read, not {', '.join(others)}"]


def _arguments(path: pathlib.Path, given: Mapping[str, Any], new: str, old: str) -> dict[str, Any]:
    """Returns arguments under their new or old name; sentence-transformers takes the old one where there are both."""
    value = given.get(old, given.get(new))
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise DataError(f"{path}: {old if old in given else new} = {value!r} is not an object; correct it")
    return {name: v for name, v in value.items() if name != "trust_remote_code"}  # never taken from a file


def dtype_notes(path: pathlib.Path, config: Mapping[str, Any]) -> list[str]:
    """Returns a note where transformers would compute in a half precision."""
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    if dtype in ("float32", "auto"):
        return []
    return [f"{path}: transformers computes in {dtype} unless it is told otherwise; here it is float32"]


def stored_dtype_notes(path: pathlib.Path, config: Mapping[str, Any], weights: Sequence[pathlib.Path]) -> list[str]:
    """Returns a note where config.json names no type and transformers takes that of the stored weights, a half precision."""
    if config.get("dtype") or config.get("torch_dtype") or not weights:
        return []
    stored = stored_dtypes(weights[0])
    if len(stored) != 1 or stored == {"F32"}:
        return []
    return [f"{weights[0]}: holds {stored.pop()} alone, in which transformers computes; here it is float32"]


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Prompt templates by name, and the name of the one that sentence-transformers' `encode` uses without being asked."""

    templates: dict[str, str]
    default_name: str | None
    notes: tuple[str, ...] = ()


def read_prompts(folder: pathlib.Path, has_modules: bool) -> Prompts:
    """Returns the prompts of config_sentence_transformers.json; none without modules.json, as in sentence-transformers."""
    path = folder / "config_sentence_transformers.json"
    if not path.is_file():
        return Prompts(prompts.imported({}), None)
    if not has_modules:
        notes = (f"{path}: not read, because sentence-transformers does not read it without modules.json",)
        return Prompts(prompts.imported({}), None, notes)
    config = documents.read_json(path)
    notes = entries.check(path, config, CONFIG_SENTENCE_TRANSFORMERS)
    given = config.get("prompts") or {}
    if not isinstance(given, dict) or not all(p is None or isinstance(p, str) for p in given.values()):
        raise DataError(f"{path}: prompts must be texts by name; restore the file from its source")
    for name, prefix in given.items():
        if prefix and ("{content}" in prefix or "{title}" in prefix):
            raise DataError(
                f"{path}: prompt {name!r} holds {{content}} or {{title}}, which have a meaning here; remove them, and "
                "give a template to convert: --prompt=NAME=TEXT"
            )
    similarity = config.get("similarity_fn_name")
    if similarity not in (None, "cosine"):
        notes.append(
            f"{path}: similarity_fn_name = {similarity!r}; here vectors have unit length and are compared by cosine"
        )
    try:
        templates = prompts.imported(given)
    except DataError as e:
        raise DataError(f"{path}: {e}") from e
    notes += [
        f"{path}: the prompt {key!r} is taken for {standard!r}; sentence-transformers puts it where it is asked for by its name"
        for standard, key in prompts.taken_for(given)
        if given[key]
    ]
    name = _default_name(path, config.get("default_prompt_name"), given, templates)
    if name is not None:
        notes.append(
            f"{path}: default_prompt_name = {config['default_prompt_name']!r} is kept in model.json; sentence-transformers puts "
            f"{templates[name]!r} on a text without being asked, here ask for it: --prompt={name}"
        )
    return Prompts(templates, name, tuple(notes))


def _default_name(
    path: pathlib.Path, name, given: Mapping[str, str | None], templates: Mapping[str, str]
) -> str | None:
    """Returns our name of the default prompt."""
    if name is None:
        return None
    # sentence-transformers has these two in every model, empty where the folder does not say.
    known = {"query": None, "document": None, **given}
    if not isinstance(name, str) or name not in known:
        raise DataError(
            f"{path}: default_prompt_name = {name!r}, but there is no such prompt; known: {', '.join(known)}; correct it"
        )
    template = prompts.to_template(known[name] or "")
    if templates.get(name) == template:
        return name
    return next(n for n, t in templates.items() if t == template)
