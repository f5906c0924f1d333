"""A Hugging Face or sentence-transformers checkpoint into a bundle."""

import math
from collections.abc import Mapping, Sequence

import jax

from embed import console, files, text, trees
from embed.errors import UsageError, did_you_mean
from embed.interop import convert, hub
from embed.interop import source as sources
from embed.interop.source import Source
from embed.models import api
from embed.models.embedder import output_dim
from embed.towers import convert as image_convert
from embed.towers import source as images
from embed.towers.towers import ImageSource


def run(
    source: str,
    output,
    *,
    revision: str | None = None,
    prompts: Mapping[str, str] | None = None,
    matryoshka_dims: Sequence[int] = (),
    max_length: int | None = None,
    text_normalization: str = "none",
    bidirectional: bool = False,
    with_decoder: bool = False,
    texts_alone: bool = False,
) -> None:
    """Writes the bundle `output` of a folder, or of a name on the Hugging Face Hub at `revision`.

    `prompts` are templates by name that replace the folder's. `matryoshka_dims` and `max_length` in tokens default to what the
    folder says. `text_normalization` is a name of `text.NORMALIZATIONS`. `bidirectional` lets every token of a causal
    decoder see the whole text: a start for training, not the same model. `with_decoder` reads the decoder of an encoder-decoder
    too, which language-model objectives train. `texts_alone` leaves out the image tower of an EmbeddingGemma 2.
    """
    files.check_new(output)
    if text_normalization not in text.NORMALIZATIONS:
        known = did_you_mean(text_normalization, text.NORMALIZATIONS)
        raise UsageError(f"--text_normalization={text_normalization}{known}")
    folder = hub.fetch(source, revision)
    of_texts = {
        "prompt_overrides": dict(prompts or {}),
        "matryoshka_dims": tuple(matryoshka_dims),
        "max_length": max_length,
        "changes": {"causal": False} if bidirectional else None,
        "with_decoder": with_decoder,
    }
    if texts_alone and not images.takes_options(folder):
        raise UsageError(
            f"--texts_alone drops the image tower of an EmbeddingGemma 2, and {source} has none; remove the flag"
        )
    if not texts_alone and images.takes_options(folder):
        _write_images(source, images.read(folder, **of_texts), output, text_normalization)
        return
    if images.is_one(folder) and not texts_alone:
        given = {
            "prompts": prompts,
            "matryoshka_dims": matryoshka_dims,
            "max_length": max_length,
            "bidirectional": bidirectional,
            "with_decoder": with_decoder,
        }
        for option, value in given.items():
            if value:
                raise UsageError(f"--{option} has no effect on towers of images and their texts; leave it out")
        opened = images.read(folder)
        if opened.tokenizer is None and text_normalization != "none":
            raise UsageError(f"--text_normalization={text_normalization} has no effect on images alone; leave it out")
        _write_images(source, opened, output, text_normalization)
        return
    opened = sources.read(folder, **of_texts)
    for line in summary(opened):
        print(line, flush=True)
    convert.convert(opened, output, source, console.progress_bar("reading"), text_normalization)
    print(f"wrote      {output}: digest {files.folder_digest(output)[:12]}")


def _write_images(name: str, opened: ImageSource, output, text_normalization: str = "none") -> None:
    """Writes the bundle of a tower of images, or of a pair of towers."""
    model = api.build(opened.module)
    count = sum(math.prod(s.shape) for s in trees.flatten(jax.eval_shape(model.init, jax.random.key(0))).values())
    image = getattr(opened.module, "image", opened.module)
    vit, size = image.encoder, image.image_size
    print(f"model      {opened.kind}: {count:,} parameters, {model.embedding_dim} numbers, images of {size} x {size}")
    print(f"images     {vit.num_layers} layers of width {vit.width}, patches of {vit.patch_size} x {vit.patch_size}")
    if opened.tokenizer is not None:
        text = opened.module.text.encoder
        vocabulary = f"{opened.tokenizer.vocab_size:,} tokens"
        print(f"texts      {text.num_layers} layers of width {text.width}, {vocabulary}, cut at {opened.max_length}")
    for note in opened.notes:
        print(f"note       {note}", flush=True)
    image_convert.convert(opened, output, name, text_normalization)
    print(f"wrote      {output}: digest {files.folder_digest(output)[:12]}")


def summary(source: Source) -> list[str]:
    """Returns what was found in a foreign folder, for a person to read."""
    model = api.build(source.module)
    shapes = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    encoder = source.module.encoder
    count = sum(math.prod(s.shape) for s in shapes.values())
    sizes = " -> ".join(map(str, (output_dim(encoder), *source.module.projection)))
    return [
        f"model      {source.family.model_type}: {count:,} parameters, {encoder.num_layers} layers of width {encoder.width}",
        f"           {type(source.module.pooling).__name__}, {sizes}, Matryoshka sizes "
        f"{', '.join(map(str, model.matryoshka_dims))}",
        f"tokenizer  {source.tokenizer.vocab_size:,} tokens, texts cut at {source.max_length}",
        f"prompts    {_prompt_line(source.prompts)}",
        *(f"note       {note}" for note in source.notes),
    ]


def _prompt_line(prompts: Mapping[str, str]) -> str:
    used = [f"{name}: {text!r}" for name, text in prompts.items() if text != "{content}"]
    return f"{len(used)}, such as {used[0]}" if used else "none"
