"""A model in a form that other tools load, with parity.json to prove that they give the same vectors."""

import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from embed import files
from embed.errors import UsageError, did_you_mean
from embed.evaluation import stored
from embed.gguf import reader as gguf_reader
from embed.gguf import writer as gguf_writer
from embed.inference import model as inference
from embed.interop import card, origin, parity, sentence_transformers, stablehlo, torch_twin
from embed.interop import prompts as foreign
from embed.interop.origin import Trained
from embed.models.mixed_embedder import MixedEmbedder
from embed.text import prompted
from embed.towers import embedding_gemma2, hugging_face_writer, pictures, tips_writer
from embed.workflows import packed_bundle, projected_bundle

BUNDLE = "bundle"
# Every form and the types that its weights may have.
DTYPES = {
    "sentence-transformers": tuple(parity.TOLERANCE),
    "stablehlo": ("float32",),
    "onnx": ("float32",),
    "gguf": tuple(gguf_writer.TYPES),
    BUNDLE: ("float32",),
    tips_writer.JAX: ("float32",),
    tips_writer.PYTORCH: ("float32",),
}
FORMATS = tuple(DTYPES)
_OF_TEXTS = ("gguf", BUNDLE)  # forms that hold no image tower; packed_bundle refuses one itself
_OF_IMAGES = (tips_writer.JAX, tips_writer.PYTORCH)  # forms that hold nothing else than TIPS' towers


def run(
    model,
    output,
    *,
    format: str = FORMATS[0],
    dtype: str = "float32",
    scores=None,
    quantization: str | None = None,
    principal_components=None,
    dims: int | None = None,
) -> None:
    """Writes the new folder `output`. `format` is one of FORMATS.

    `dtype` is the type of the weights, one of DTYPES[format]. `scores` is a results.json of `embed evaluate`, for the model
    card. onnx needs the extra [export], gguf the extra [gguf]. A bundle is a MODEL of packed weights, as `quantization`
    (`models.quantization.PRESETS`) or, without it, as the model was trained. With `principal_components`, a folder of the model's
    vectors, or with `dims` it is a MODEL with another embedding (`projected_bundle`).
    """
    _check_options(format, dtype, scores, quantization)
    projection = {"principal_components": principal_components, "dims": dims}
    _check_projection(format, quantization, projection)
    output = pathlib.Path(output)
    files.check_new(output)
    if any(value is not None for value in projection.values()):
        projected_bundle.run(model, output, vectors=principal_components, dims=dims)
        return
    if format == BUNDLE:
        packed_bundle.run(model, output, quantization)
        return
    results = stored.read_results(pathlib.Path(scores)) if scores else None
    trained = origin.open_trained(model)
    _check_towers(trained, format)
    plan = gguf_writer.make_plan(trained, dtype) if format == "gguf" else None
    print(f"exporting  {trained.folder} as {format}, {dtype}", flush=True)
    with files.new_folder(output) as folder:
        _write(trained, format, dtype, folder, plan)
        checked = [name for name, tower in _CHECKED.items() if getattr(trained, name) is not None]
        print(f"checking   {' and '.join(_CHECKED[name] for name in checked)} through the trained model", flush=True)
        content = _parity(trained, format, dtype, plan, folder)
        files.write_json(folder / parity.FILE, content)
        notes = _notes(trained, format, dtype, plan, folder, content)
        _write_card(trained, format, folder, output.name, results, notes)
        files.sync(folder)
        files.write_manifest(folder, kind="export", form=format)
    for note in notes:
        print(f"note       {note}")
    size = sum(f.stat().st_size for f in output.rglob("*") if f.is_file())
    print(f"wrote      {output} ({size / 1e6:.0f} MB); prove it: embed verify {output}")


def _check_options(format: str, dtype: str, scores, quantization: str | None) -> None:
    if format not in FORMATS:
        raise UsageError(f"--format={format}{did_you_mean(format, FORMATS)}")
    if quantization is not None and format != BUNDLE:
        raise UsageError(f"--quantization={quantization} goes with --format={BUNDLE}")
    if scores and format == BUNDLE:
        raise UsageError("--scores goes into the model card, which a bundle does not have; leave it out")
    known = dict.fromkeys(name for names in DTYPES.values() for name in names)
    if dtype not in known:
        raise UsageError(f"--dtype={dtype}{did_you_mean(dtype, known)}")
    if dtype not in DTYPES[format]:
        fitting = " or ".join(name for name, dtypes in DTYPES.items() if dtype in dtypes)
        raise UsageError(f"--dtype={dtype} goes with --format={fitting}")
    if format == "gguf":
        torch_twin.need("gguf", extra="gguf")


def _check_projection(format: str, quantization: str | None, projection: Mapping[str, Any]) -> None:
    for name, value in projection.items():
        if value is not None and format != BUNDLE:
            raise UsageError(f"--{name}={value} goes with --format={BUNDLE}; export the bundle that it writes")
        if value is not None and quantization is not None:
            raise UsageError(f"--{name} and --quantization are two exports; pack the bundle that --{name} writes")


def _check_towers(trained: Trained, format: str) -> None:
    """Raises UsageError for a form that does not hold the towers of a model."""
    if format in _OF_IMAGES and trained.image is None:
        raise UsageError(f"--format={format} is for the towers of TIPS, and {trained.folder} has no image tower")
    if format in _OF_TEXTS and trained.image is not None:
        others = ", ".join(name for name in FORMATS if name not in _OF_TEXTS)
        raise UsageError(f"--format={format} holds no image tower, and {trained.folder} has one; choose {others}")
    if isinstance(trained.module, MixedEmbedder) and format != FORMATS[0]:
        raise UsageError(
            f"--format={format} stores separate towers, and {trained.folder} reads images in texts; choose {FORMATS[0]}"
        )


def _write(trained: Trained, format: str, dtype: str, folder, plan: gguf_writer.Plan | None) -> None:
    if plan is not None:
        gguf_writer.write(folder, plan)
    elif format in _OF_IMAGES:
        tips_writer.write(folder, trained, format)
        files.write_json(folder / "model.json", origin.public_description(trained))
    elif isinstance(trained.module, MixedEmbedder):
        embedding_gemma2.write(folder, trained, dtype)
    elif trained.image is not None and format == "sentence-transformers":
        hugging_face_writer.write(folder, trained, dtype)
    elif trained.image is not None and format == "onnx":
        _write_towers_as_onnx(trained, folder)
    elif format == "sentence-transformers":
        sentence_transformers.write(folder, trained, dtype)
    elif format == "stablehlo":
        stablehlo.write(folder, trained)
    else:
        torch_twin.need("torch", "sentence_transformers", "onnx", "onnxscript")
        with tempfile.TemporaryDirectory(prefix="embed-export-") as twin:
            sentence_transformers.write(pathlib.Path(twin), trained)
            (folder / "onnx").mkdir()
            torch_twin.to_onnx(twin, folder / "onnx" / "model.onnx", sentence_transformers.pooling_name(trained))
        _write_beside_onnx(trained, folder)


def _write_beside_onnx(trained: Trained, folder: pathlib.Path) -> None:
    """Writes what a graph of texts needs: the tokenizer, the prompts and model.json."""
    sentence_transformers.write_tokenizer(folder, trained)
    sentence_transformers.write_prompts(folder, trained)
    files.write_json(folder / "model.json", origin.public_description(trained))


def _write_towers_as_onnx(trained: Trained, folder: pathlib.Path) -> None:
    """Writes each tower into a folder of its own, made by torch from the model as transformers has it."""
    torch_twin.need("torch", "sentence_transformers", "onnx", "onnxscript")
    image, encoder = trained.image.module, trained.image.module.encoder
    for name, tower in (("text", trained.text), ("image", trained.image)):
        if tower is not None:
            (folder / name / "onnx").mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="embed-export-") as twin:
        hugging_face_writer.write(pathlib.Path(twin), trained)
        lead = encoder.num_class_tokens + encoder.num_registers
        path = folder / "image" / "onnx" / "model.onnx"
        torch_twin.images_to_onnx(twin, path, image.image_size, encoder.pixel_mean, encoder.pixel_std, lead)
        files.write_json(folder / "image" / "model.json", origin.public_description(trained.image))
        if trained.text is not None:
            torch_twin.tips_text_to_onnx(twin, folder / "text" / "onnx" / "model.onnx")
            _write_beside_onnx(trained.text, folder / "text")


_CHECKED = {"text": "texts in several scripts", "image": "pictures"}


def _parity(trained: Trained, format: str, dtype: str, plan: gguf_writer.Plan | None, folder: pathlib.Path):
    """Returns parity.json, made by our own model in float32 from the weights as they were exported.

    A GGUF is compared with the trained model itself: what its weights lose is to be seen. Pictures are written into `folder`.
    """
    weights = dtype if plan is None else "float32"
    model = inference.open_model(trained.folder, dtype="float32", weights=weights)
    if trained.text is None:
        content = parity.without_texts(trained.digest, dtype)
    else:
        content = _text_parity(trained.text, format, dtype, plan, model)
    if trained.image is None:
        return content
    return {**content, "images": pictures.write(folder, trained.image.module.image_size, model.encode)}


def _text_parity(trained: Trained, format: str, dtype: str, plan: gguf_writer.Plan | None, model):
    """Returns parity.json of the texts of a model."""
    prompts = trained.description["prompts"]
    if format not in ("stablehlo", *_OF_IMAGES):
        prompts = {name: prefix + foreign.PLAIN for name, prefix in foreign.exported(prompts).items()}
    tokens = lambda texts, prompt: model.encoder.texts.tokens(texts, prompt)  # noqa: E731
    content = parity.make(
        encode=lambda texts, prompt: model.encode(texts, prompt=prompt),
        tokens=tokens,
        prompts=model.prompts,
        written=prompts,
        max_length=trained.max_length,
        model=trained.digest,
        dtype=dtype,
        text_normalization=trained.description["text_normalization"],
        is_repeated=_repeats(format, trained, plan, tokens),
        measure="error" if plan is None else "cosine distance",
    )
    return {**content, "default_prompt_name": trained.description.get("default_prompt_name")}


def _repeats(format: str, trained, plan: gguf_writer.Plan | None, tokens):
    """Returns is_repeated(prompt_template, text): whether the readers of a form take a text as the model does."""
    if format == "sentence-transformers":
        return lambda prompt_template, text: parity.is_read_alike(prompt_template, text, tokens)
    if plan is None:
        return lambda prompt_template, text: True

    def is_repeated(prompt_template: str, text: str) -> bool:
        ids = tokens([text], prompt_template)[0]
        joined = prompted(prompt_template, text, normalization=trained.description["text_normalization"])
        return len(ids) < trained.max_length and plan.vocabulary.is_repeated(joined, ids)

    return is_repeated


def _notes(trained, format: str, dtype: str, plan: gguf_writer.Plan | None, folder, content) -> list[str]:
    """Returns what a user of the export must know, for the model card and the screen."""
    if plan is not None:
        return [*plan.notes(), _loss(folder, content)]
    of_texts = [] if trained.text is None else origin.text_notes(trained.text, format)
    of_images = [] if trained.image is None else origin.image_notes(trained.image)
    of_images += tips_writer.notes(trained) if format in _OF_IMAGES else []
    if isinstance(trained.module, MixedEmbedder):
        of_images.append(
            "sentence-transformers loads the folder with a processor that needs torchvision and resizes images differently; the "
            "code above needs only transformers"
        )
    elif getattr(trained.module, "max_images", 0):
        of_images.append("the export has two separate towers and does not embed texts with images in them")
    return [*of_texts, *of_images, *origin.value_notes(trained, dtype)]


def _loss(folder: pathlib.Path, content) -> str:
    """Returns how far the vectors of the file's weights are from the trained model's."""
    entries = content["entries"]
    vectors = gguf_reader.vectors(folder / gguf_writer.FILE, [entry["token_ids"] for entry in entries])
    distances = parity.distances(vectors, np.array([entry["vector"] for entry in entries]))
    return (
        f"weights in {content['dtype']} move the vectors of {len(entries)} texts by a cosine distance of "
        f"{max(distances.mean(), 0.0):.1e} on average, {max(distances.max(), 0.0):.1e} at most"
    )


def _write_card(trained, format: str, folder, name: str, scores, notes) -> None:
    run_dir = trained.folder.parent.parent
    recipe = run_dir / "operative_config.gin"
    text = recipe.read_text(encoding="utf-8") if trained.folder.name.isdigit() and recipe.is_file() else None
    files.write_atomic(folder / "README.md", card.write(trained, format, name, scores, text, notes))
