"""`embed export`: a model for sentence-transformers and the servers around it, as StableHLO, or as ONNX."""

import pathlib
import tempfile

from embed import environment
from embed.commands import options

SUMMARY = (
    "Write a model in a form that other tools load, with parity.json to prove that they give the same vectors. "
    "sentence-transformers needs no torch here; onnx needs the extra [export]."
)
FORMATS = ("sentence-transformers", "stablehlo", "onnx")

log_path = options.log_beside_output


def add_arguments(parser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", type=options.path, help="run folder, checkpoint step folder or bundle"
    )
    parser.add_argument("output", metavar="OUTPUT", type=options.path, help="the new folder")
    parser.add_argument("--format", default=FORMATS[0], help=f"{', '.join(FORMATS)} (default: {FORMATS[0]})")
    parser.add_argument("--dtype", default="float32", help="type of the weights: float32 (default) or bfloat16")
    parser.add_argument(
        "--scores", metavar="RESULTS_JSON", help="a results.json of `embed evaluate`, for the model card"
    )


def run(arguments) -> None:
    environment.start()
    from embed import files
    from embed.errors import UsageError, did_you_mean
    from embed.evaluation import stored
    from embed.interop import exporting, parity

    if arguments.format not in FORMATS:
        raise UsageError(f"--format={arguments.format}{did_you_mean(arguments.format, FORMATS)}")
    if arguments.dtype not in parity.TOLERANCE:
        raise UsageError(f"--dtype={arguments.dtype}{did_you_mean(arguments.dtype, parity.TOLERANCE)}")
    if arguments.dtype != "float32" and arguments.format != "sentence-transformers":
        raise UsageError(f"--dtype={arguments.dtype} goes with --format=sentence-transformers")
    files.check_new(arguments.output)
    scores = stored.read_results(pathlib.Path(arguments.scores)) if arguments.scores else None
    trained = exporting.open_trained(arguments.model)
    print(f"exporting  {trained.folder} as {arguments.format}, {arguments.dtype}", flush=True)
    name = pathlib.Path(arguments.output).name
    with files.new_folder(arguments.output) as folder:
        _write(arguments, trained, folder)
        print("checking   texts in several scripts through the trained model", flush=True)
        files.write_json(folder / parity.FILE, _parity(trained, arguments))
        _write_card(trained, arguments, folder, name, scores)
        files.sync(folder)
        files.write_manifest(folder, kind="export", form=arguments.format)
    for note in exporting.text_notes(trained, arguments.format):
        print(f"note       {note}")
    size = sum(f.stat().st_size for f in pathlib.Path(arguments.output).rglob("*") if f.is_file())
    print(f"wrote      {arguments.output} ({size / 1e6:.0f} MB); prove it: embed verify {arguments.output}")


def _write(arguments, trained, folder) -> None:
    from embed import files
    from embed.interop import exporting, sentence_transformers, stablehlo, torch_twin

    if arguments.format == "sentence-transformers":
        sentence_transformers.write(folder, trained, arguments.dtype)
    elif arguments.format == "stablehlo":
        stablehlo.write(folder, trained)
    else:
        torch_twin.need("torch", "sentence_transformers", "onnx", "onnxscript")
        with tempfile.TemporaryDirectory(prefix="embed-export-") as twin:
            sentence_transformers.write(pathlib.Path(twin), trained)
            (folder / "onnx").mkdir()
            torch_twin.to_onnx(twin, folder / "onnx" / "model.onnx", sentence_transformers.pooling_name(trained))
        sentence_transformers.write_tokenizer(folder, trained)
        sentence_transformers.write_prompts(folder, trained)
        files.write_json(folder / "model.json", exporting.public_description(trained))


def _parity(trained, arguments):
    """Returns parity.json, made by our own model in float32 from the weights as they were exported."""
    from embed.inference import model as inference
    from embed.interop import parity
    from embed.interop import prompts as foreign

    dtype, prompts = arguments.dtype, trained.description["prompts"]
    if arguments.format != "stablehlo":
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
        strips_content=arguments.format != "sentence-transformers",
    )
    return {**content, "default_prompt_name": trained.description.get("default_prompt_name")}


def _write_card(trained, arguments, folder, name: str, scores) -> None:
    from embed import files
    from embed.interop import card

    run_dir = trained.folder.parent.parent
    recipe = run_dir / "operative_config.gin"
    text = recipe.read_text(encoding="utf-8") if trained.folder.name.isdigit() and recipe.is_file() else None
    files.write_atomic(folder / "README.md", card.write(trained, arguments.format, name, scores, text))
