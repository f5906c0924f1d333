"""A model in a form that other tools load, with parity.json to prove that they give the same vectors."""

import pathlib
import tempfile

import numpy as np

from embed import files
from embed.errors import UsageError, did_you_mean
from embed.evaluation import stored
from embed.gguf import reader as gguf_reader
from embed.gguf import writer as gguf_writer
from embed.inference import model as inference
from embed.interop import card, origin, parity, sentence_transformers, stablehlo, torch_twin
from embed.interop import prompts as foreign
from embed.text import prompted
from embed.workflows import packed_bundle

BUNDLE = "bundle"
# Every form and the types that its weights may have.
DTYPES = {
    "sentence-transformers": tuple(parity.TOLERANCE),
    "stablehlo": ("float32",),
    "onnx": ("float32",),
    "gguf": tuple(gguf_writer.TYPES),
    BUNDLE: ("float32",),
}
FORMATS = tuple(DTYPES)


def run(
    model, output, *, format: str = FORMATS[0], dtype: str = "float32", scores=None, quantization: str | None = None
) -> None:
    """Writes the new folder `output`. `format` is one of FORMATS.

    `dtype` is the type of the weights, one of DTYPES[format]. `scores` is a results.json of `embed evaluate`, for the model
    card. onnx needs the extra [export], gguf the extra [gguf]. A bundle is a MODEL of packed weights, as `quantization`
    (`models.quantization.PRESETS`) or, without it, as the model was trained.
    """
    _check_options(format, dtype, scores, quantization)
    output = pathlib.Path(output)
    files.check_new(output)
    if format == BUNDLE:
        packed_bundle.run(model, output, quantization)
        return
    results = stored.read_results(pathlib.Path(scores)) if scores else None
    trained = origin.open_trained(model)
    plan = gguf_writer.make_plan(trained, dtype) if format == "gguf" else None
    print(f"exporting  {trained.folder} as {format}, {dtype}", flush=True)
    with files.new_folder(output) as folder:
        _write(trained, format, dtype, folder, plan)
        print("checking   texts in several scripts through the trained model", flush=True)
        content = _parity(trained, format, dtype, plan)
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


def _write(trained, format: str, dtype: str, folder, plan: gguf_writer.Plan | None) -> None:
    if plan is not None:
        gguf_writer.write(folder, plan)
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
        sentence_transformers.write_tokenizer(folder, trained)
        sentence_transformers.write_prompts(folder, trained)
        files.write_json(folder / "model.json", origin.public_description(trained))


def _parity(trained, format: str, dtype: str, plan: gguf_writer.Plan | None):
    """Returns parity.json, made by our own model in float32 from the weights as they were exported.

    A GGUF is compared with the trained model itself: what its weights lose is to be seen.
    """
    prompts = trained.description["prompts"]
    if format != "stablehlo":
        prompts = {name: prefix + foreign.PLAIN for name, prefix in foreign.exported(prompts).items()}
    weights = dtype if plan is None else "float32"
    model = inference.open_model(trained.folder, dtype="float32", weights=weights)
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
    return [*origin.text_notes(trained, format), *origin.value_notes(trained, dtype)]


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
