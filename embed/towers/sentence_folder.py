"""What sentence-transformers' files say of a folder with an image tower: linear maps, the length of texts, and prompts."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from embed import documents
from embed.errors import DataError
from embed.interop import entries, modules, sentence_config
from embed.interop.known_entries import SENTENCE_BERT_CONFIG
from embed.interop.tensors import Reader
from embed.towers.towers import PLAIN

OUTPUT = "pooler_output"  # the vector of an image or of a text, which transformers gives beside those of the tokens
_METHODS = {"text": "get_text_features", "image": "get_image_features"}
_CONFIG = {
    name: rule for name, rule in SENTENCE_BERT_CONFIG.items() if name not in ("modality_config", "module_output_name")
}


def modality_config(has_text: bool) -> dict[str, dict[str, str]]:
    """Returns the entry of sentence_bert_config.json that says which method of the transformer embeds what."""
    if not has_text:
        return {"image": {"method": "forward", "method_output_name": OUTPUT}}
    return {name: {"method": method, "method_output_name": OUTPUT} for name, method in _METHODS.items()}


@dataclasses.dataclass(frozen=True)
class SentenceFolder:
    """`dense` are the folders of the linear maps, `sizes` what they give; `max_length` is None where no file says it."""

    dense: tuple[pathlib.Path, ...] = ()
    sizes: tuple[int, ...] = ()
    max_length: int | None = None
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    default_prompt_name: str | None = None
    notes: tuple[str, ...] = ()

    def kernels(self) -> dict[str, np.ndarray]:
        """Returns the kernels of the linear maps by their paths."""
        return {
            f"projection_{i}/kernel": np.ascontiguousarray(Reader(folder).read("linear.weight").T)
            for i, folder in enumerate(self.dense)
        }


def read(folder: pathlib.Path, width: int, has_text: bool) -> SentenceFolder:
    """Returns what modules.json and the files that it stands for say; modules that we do not compute are a DataError."""
    path = folder / "modules.json"
    prompts = sentence_config.read_prompts(folder, path.is_file())
    templates = prompts.templates if any(t != PLAIN["none"] for t in prompts.templates.values()) else PLAIN
    if not path.is_file():
        return SentenceFolder(prompts=templates, notes=prompts.notes)
    listed = [modules.module(path, entry) for entry in documents.read_json(path, kind=list)]
    kinds = [kind for kind, _ in listed]
    dense = tuple(folder / name for kind, name in listed if kind == "Dense")
    normalize = [folder / name for kind, name in listed if kind == "Normalize"]
    if kinds != ["Transformer", *["Dense"] * len(dense), *["Normalize"] * len(normalize)] or len(normalize) > 1:
        raise DataError(
            f"{path}: modules in the order {', '.join(kinds)}; of a model of images only Transformer, Dense ..., Normalize is "
            "supported"
        )
    if listed[0][1] != ".":
        raise DataError(
            f"{path}: the transformer is in {listed[0][1]!r}; of a model of images only the folder itself is read"
        )
    if dense and has_text:
        raise DataError(f"{path}: linear maps behind two towers are not supported; train the towers without them")
    given = modules.Modules(folder, dense=dense, normalize=normalize[0] if normalize else None)
    sizes, dense_notes = modules.dense_sizes(given, width)
    length, notes = _length(folder, has_text)
    return SentenceFolder(
        dense,
        sizes,
        length,
        templates,
        prompts.default_name,
        (*prompts.notes, *dense_notes, *modules.normalisation(given), *notes),
    )


def _length(folder: pathlib.Path, has_text: bool) -> tuple[int | None, list[str]]:
    """Returns max_seq_length and notes; another output than the model's vectors is a DataError."""
    path = folder / "sentence_bert_config.json"
    config = documents.read_json(path) if path.is_file() else {}
    notes = entries.check(path, {k: v for k, v in config.items() if k in _CONFIG}, _CONFIG)
    modalities = config.get("modality_config")
    expected = modality_config(has_text)
    if modalities != expected:
        raise DataError(
            f"{path}: modality_config = {modalities!r}: only {OUTPUT} of text and image can be computed; expected {expected!r}"
        )
    length = config.get("max_seq_length")
    return None if length is None else entries.whole_number(path, config, "max_seq_length", 1, 1 << 30), notes
