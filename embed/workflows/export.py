"""A model in a form that other tools load, with parity.json to prove that they give the same vectors."""

import pathlib
import tempfile

from embed import files
from embed.errors import UsageError, did_you_mean
from embed.evaluation import stored
from embed.inference import model as inference
from embed.interop import card, origin, parity, sentence_transformers, stablehlo, torch_twin
from embed.interop import prompts as foreign
from embed.workflows import packed_bundle

BUNDLE = "bundle"
FORMATS = ("sentence-transformers", "stablehlo", "onnx", BUNDLE)


def run(
    model, output, *, format: str = FORMATS[0], dtype: str = "float32", scores=None, quantization: str | None = None
) -> None:
    """Writes the new folder `output`. `format` is one of FORMATS.

    `dtype` is the type of the weights, float32 or bfloat16 (sentence-transformers alone). `scores` is a results.json of
    `embed evaluate`, for the model card. onnx needs the extra [export]. A bundle is a MODEL of packed weights, as `quantization`
    (`models.quantization.PRESETS`) or, without it, as the model was trained.
    """
    if format not in FORMATS:
        raise UsageError(f"--format={format}{did_you_mean(format, FORMATS)}")
    if quantization is not None and format != BUNDLE:
        raise UsageError(f"--quantization={quantization} goes with --format={BUNDLE}")
    if scores and format == BUNDLE:
        raise UsageError("--scores goes into the model card, which a bundle does not have; leave it out")
    if dtype not in parity.TOLERANCE:
        raise UsageError(f"--dtype={dtype}{did_you_mean(dtype, parity.TOLERANCE)}")
    if dtype != "float32" and format != "sentence-transformers":
        raise UsageError(f"--dtype={dtype} goes with --format=sentence-transformers")
    output = pathlib.Path(output)
    files.check_new(output)
    if format == BUNDLE:
        packed_bundle.run(model, output, quantization)
        return
    results = stored.read_results(pathlib.Path(scores)) if scores else None
    trained = origin.open_trained(model)
    print(f"exporting  {trained.folder} as {format}, {dtype}", flush=True)
    with files.new_folder(output) as folder:
        _write(trained, format, dtype, folder)
        print("checking   texts in several scripts through the trained model", flush=True)
        files.write_json(folder / parity.FILE, _parity(trained, format, dtype))
        _write_card(trained, format, folder, output.name, results)
        files.sync(folder)
        files.write_manifest(folder, kind="export", form=format)
    for note in (*origin.text_notes(trained, format), *origin.value_notes(trained, dtype)):
        print(f"note       {note}")
    size = sum(f.stat().st_size for f in output.rglob("*") if f.is_file())
    print(f"wrote      {output} ({size / 1e6:.0f} MB); prove it: embed verify {output}")


def _write(trained, format: str, dtype: str, folder) -> None:
    if format == "sentence-transformers":
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


def _parity(trained, format: str, dtype: str):
    """Returns parity.json, made by our own model in float32 from the weights as they were exported."""
    prompts = trained.description["prompts"]
    if format != "stablehlo":
        prompts = {name: prefix + foreign.PLAIN for name, prefix in foreign.exported(prompts).items()}
    model = inference.open_model(trained.folder, dtype="float32", weights=dtype)
    content = parity.make(
        encode=lambda texts, prompt: model.encode(texts, prompt=prompt),
        tokens=lambda texts, prompt: model.encoder.tokens(texts, prompt),
        prompts=model.prompts,
        written=prompts,
        max_length=trained.max_length,
        model=trained.digest,
        dtype=dtype,
        text_normalization=trained.description["text_normalization"],
        strips_content=format != "sentence-transformers",
    )
    return {**content, "default_prompt_name": trained.description.get("default_prompt_name")}


def _write_card(trained, format: str, folder, name: str, scores) -> None:
    run_dir = trained.folder.parent.parent
    recipe = run_dir / "operative_config.gin"
    text = recipe.read_text(encoding="utf-8") if trained.folder.name.isdigit() and recipe.is_file() else None
    files.write_atomic(folder / "README.md", card.write(trained, format, name, scores, text))
