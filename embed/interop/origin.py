"""What every export starts from: a verified bundle or checkpoint, its module, and its parameters read one at a time."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embed import architectures, arrays, bundles, files
from embed.data import tokenizers
from embed.models import api
from embed.models.dual_encoder import DualEncoder, ImageEmbedder
from embed.models.embedder import Embedder
from embed.models.mixed_embedder import MixedEmbedder

SPECIAL = ("unk_token", "bos_token", "eos_token", "cls_token", "sep_token", "mask_token")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model to export. `read(path)` gives one parameter as numpy. `tokenizer` is None of a model of images alone."""

    folder: pathlib.Path
    description: dict[str, Any]
    module: Embedder | ImageEmbedder | DualEncoder | MixedEmbedder
    tokenizer: tokenizers.Tokenizer | None
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    digest: str

    @property
    def max_length(self) -> int:
        """Tokens a text is cut at."""
        return max(self.description["lengths"].values())

    @property
    def text(self) -> "Trained | None":
        """The tower of texts as a model of its own; None where there is none."""
        if isinstance(self.module, DualEncoder | MixedEmbedder):
            return self._tower("text", self.module.text)
        return None if isinstance(self.module, ImageEmbedder) else self

    @property
    def image(self) -> "Trained | None":
        """The tower of images as a model of its own; None where there is none."""
        if isinstance(self.module, DualEncoder | MixedEmbedder):
            return self._tower("image", self.module.image)
        return self if isinstance(self.module, ImageEmbedder) else None

    def _tower(self, name: str, module) -> "Trained":
        head = f"{name}/"
        shapes = {path.removeprefix(head): s for path, s in self.shapes.items() if path.startswith(head)}
        return dataclasses.replace(self, module=module, shapes=shapes, read=lambda path: self.read(head + path))

    @property
    def matryoshka_dims(self) -> list[int]:
        return list(self.description["matryoshka_dims"])


def public_description(trained: Trained) -> dict[str, Any]:
    """Returns the model.json of an export: what a user of its vectors must know, without the architecture."""
    description = {k: v for k, v in trained.description.items() if k != "architecture"}
    return description if trained.tokenizer is None else {**description, "padding_token_id": trained.tokenizer.pad_id}


def text_notes(trained: Trained, form: str) -> list[str]:
    """Returns what a user must do with texts that the exported form does not do by itself, for the model card and the screen.

    sentence-transformers 5 strips a text together with its prompt, version 6 does not strip, and the model strips a text
    before its prompt is put around it or not at all. Where the tokenizer gives white space tokens, the vectors differ.
    """
    if form != "sentence-transformers":
        return []
    encode = lambda text: trained.tokenizer.encode_batch([text], trained.max_length)[0][0].tolist()  # noqa: E731
    templates = [*trained.description["prompts"].values(), "{content}"]
    if trained.description["text_normalization"] == "none":
        texts = {template.replace("{content}", "  text \n") for template in templates}
        if all(encode(text) == encode(text.strip()) for text in texts):
            return []
        return [
            "the model reads white space at the ends of a text, as sentence-transformers 6 does; earlier versions remove it, and "
            "the vectors of such texts differ"
        ]
    heads = {template.partition("{content}")[0] for template in templates}
    if all(encode(f"{head}text") == encode(f"{head}  text") for head in heads if head.strip()):
        return []
    return [
        "strip white space from the beginning of texts: behind a prompt sentence-transformers leaves it, and the vectors differ "
        "from the trained model's"
    ]


def image_notes(image: Trained) -> list[str]:
    """Returns what a user must do with images that readers of an export do not do by themselves."""
    size = image.module.image_size
    return [
        f"images are resized to {size} x {size} pixels by Pillow's antialiased linear filter; what resizes differently gives "
        "vectors that differ slightly",
        "images with transparency lie on white here; lay them on white before an export reads them",
    ]


def value_notes(trained: Trained, dtype: str) -> list[str]:
    """Returns what a user must know of the weights: a decoder that is left out, and the values of a quantised model."""
    notes = decoder_notes(trained)
    if "quantization" not in trained.description:
        return notes
    name = trained.description["quantization"]["name"]
    if dtype == "bfloat16":
        return [
            *notes,
            f"the model is quantised as {name}, whose scales have 11 digits of float16; bfloat16 rounds its values again",
        ]
    return [*notes, f"the model is quantised as {name}: the weights have those values, and take the space of float32"]


def decoder_notes(trained: Trained) -> list[str]:
    """Returns a note where the model has a decoder, which no export holds."""
    embedders = architectures.towers(trained.description.get("architecture", {})).values()
    if all(embedder.get("decoder") is None for embedder in embedders):
        return []
    return ["the decoder is left out: embeddings do not use it, and no other tool reads it"]


def truncation_side(trained: Trained) -> str:
    """Returns the side, 'left' or 'right', at which a text that is too long loses tokens."""
    return getattr(trained.tokenizer, "truncation_side", "right")


def _without_decoder(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the description of an embedder without its decoder, which no other tool reads."""
    return {**architecture, "decoder": None} if "decoder" in architecture else dict(architecture)


def open_trained(path) -> Trained:
    """Returns the model that MODEL names, every file that is read verified."""
    folder = bundles.resolve(path)
    manifest = files.verify_manifest(folder, "params")
    description = bundles.read_model_json(folder)
    opened = arrays.open_arrays(folder, "params")
    return Trained(
        folder=folder,
        description=description,
        module=api.from_description(architectures.map_towers(description["architecture"], _without_decoder)),
        tokenizer=tokenizers.from_folder(folder, description["tokenizer"]) if "tokenizer" in description else None,
        shapes={
            path: tuple(spec["shape"])
            for path, spec in manifest["trees"]["params"].items()
            if not set(path.split("/")[:2]).intersection(bundles.UNSERVED)
        },
        read=lambda name: np.asarray(opened[name].read().result()),
        digest=files.folder_digest(folder),
    )
