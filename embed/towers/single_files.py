"""Towers in files of their own: TIPS' .npz of its JAX and PyTorch code, and Dinov2 as ONNX."""

import pathlib
from collections.abc import Callable

import numpy as np

from embed.data import tokenizers
from embed.errors import DataError
from embed.models.dual_encoder import DualEncoder, ImageEmbedder
from embed.models.embedder import Embedder
from embed.models.pooling import MeanPooling
from embed.models.tips_text import TipsText
from embed.models.vit import VisionTransformer
from embed.towers import names, scenic, stored, towers
from embed.towers.towers import IMAGENET, KINDS, PLAIN, ImageSource


def of_onnx(path: pathlib.Path, reader: stored.Arrays) -> ImageSource:
    """Returns the Dinov2 tower of an ONNX file; what else is in it is left out."""
    prefix = next(
        (n.removesuffix("embeddings.cls_token") for n in reader.names() if n.endswith("embeddings.cls_token")), ""
    )
    dialect = towers.dialect(reader, prefix, path)
    if prefix + dialect.positions not in reader.names():
        raise DataError(
            f"{path}: its positions are not stored as torch writes them; export the model with torch.onnx.export"
        )
    fields = towers.fields_of(reader, dialect, prefix, "dinov2", path)
    mean, std = IMAGENET
    image = ImageEmbedder(VisionTransformer(**fields, pixel_mean=mean, pixel_std=std), image_size=224)
    others = sorted(n for n in reader.names() if not n.startswith(prefix))
    notes = ["colours are normalised by ImageNet's mean and deviation, as Dinov2's are; the file does not say it"]
    if others:
        notes.append(f"{path.name}: {len(others)} arrays of other parts are left out, such as {others[0]}")
    return ImageSource(
        path,
        "dinov2, ONNX",
        (path,),
        image,
        lambda: towers.image_params(reader, dialect, image, prefix, (r".*",)),
        notes=tuple(notes),
    )


_HIGH_RESOLUTION = 448  # pixels; arXiv:2410.16512, second stage


def of_npz(location: pathlib.Path, vision: pathlib.Path, text: pathlib.Path | None) -> ImageSource:
    """Returns TIPS' towers of .npz files, in the names of its JAX or of its PyTorch code."""
    reader = stored.of_npz(vision)
    is_scenic = scenic.is_vision(reader.names())
    if is_scenic:
        image = ImageEmbedder(VisionTransformer(**scenic.vision_fields(reader), **KINDS["tipsv2"]), image_size=224)
        of_image = lambda: scenic.vision_params(reader, image.encoder)  # noqa: E731
    else:
        dialect = towers.dialect(reader, "", vision)
        image = ImageEmbedder(
            VisionTransformer(**towers.fields_of(reader, dialect, "", "tipsv2", vision)), image_size=224
        )
        of_image = lambda: towers.image_params(reader, dialect, image, "", ())  # noqa: E731
    size = image.encoder.position_grid * image.encoder.patch_size
    # The JAX code has one grid of positions at both resolutions, and images are given at that of the name.
    is_high = is_scenic and "highres" in vision.name
    image = image.clone(image_size=_HIGH_RESOLUTION if is_high else size)
    code = "JAX" if is_scenic else "PyTorch"
    notes = (
        [f"the MLPs have the GELU of TIPS' {code} code: {image.encoder.activation}"] if not image.encoder.gated else []
    )
    if is_scenic and not is_high and "lowres" not in vision.name:
        notes = (
            *notes,
            f"{vision.name}: its grid is that of {size} pixels at any resolution; if it was trained at {_HIGH_RESOLUTION}, let the "
            "name hold highres, as TIPS' own does",
        )
    if text is None:
        return ImageSource(location, "tips, image tower", (vision,), image, of_image, notes=tuple(notes))
    embedder, of_text = _npz_text(text)
    vocabulary = text.parent / "tokenizer.model"
    if not vocabulary.is_file():
        raise DataError(f"{location}: has no tokenizer.model, TIPS' vocabulary; download it into the folder")
    tokenizer = tokenizers.SentencePiece(str(vocabulary), add_bos=False, add_eos=False, lower_case=True)
    if tokenizer.vocab_size > embedder.encoder.vocab_size:
        raise DataError(
            f"{vocabulary}: has {tokenizer.vocab_size} tokens, the model's table {embedder.encoder.vocab_size}; get TIPS' own"
        )

    def params() -> dict[str, np.ndarray]:
        parts = {"image": of_image(), "text": of_text()}
        return {f"{tower}/{path}": array for tower, leaves in parts.items() for path, array in leaves.items()}

    return ImageSource(
        location,
        "tips",
        (vision, text),
        DualEncoder(embedder, image),
        params,
        tokenizer=tokenizer,
        max_length=64,
        prompts=PLAIN,
        notes=(*notes, "the learned temperature is left out, which no embedding depends on"),
    )


def _npz_text(path: pathlib.Path) -> tuple[Embedder, Callable[[], dict[str, np.ndarray]]]:
    reader = stored.of_npz(path)
    if scenic.is_text(reader.names()):
        text = Embedder(TipsText(**scenic.text_fields(reader)), MeanPooling())
        return text, lambda: scenic.text_params(reader, text.encoder)
    table = "token_embedding.weight"
    if table not in reader.names():
        raise DataError(f"{path}: no tensors of TIPS' text tower are there; download it again")
    vocab_size, width = reader.shape(table)
    text = Embedder(
        TipsText(
            vocab_size=vocab_size,
            width=width,
            num_layers=towers.layers(reader, "transformer.resblocks.{}.ln_1.weight", ""),
            num_heads=towers.heads(width, path),
            mlp_dim=reader.shape("transformer.resblocks.0.mlp.c_fc.weight")[0],
            norm_eps=1e-5,
        ),
        MeanPooling(),
    )
    return text, lambda: towers.text_params(reader, names.ORIGINAL_TEXT, text, "", ("temperature",))
