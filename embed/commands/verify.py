"""`embed verify`: does an export give the trained model's vectors?"""

import pathlib

from embed.commands import options, runtime

SUMMARY = (
    "Run the texts of an export's parity.json through the exported form (torch, onnxruntime or jax) and print the largest "
    "error. Exits with 70 when token ids differ or the error is above the tolerance."
)


def add_arguments(parser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=options.path, help="an export of `embed export`")
    parser.add_argument(
        "--tolerance", type=float, help="largest difference of any number (default: what the file says)"
    )


def run(arguments) -> None:
    runtime.start()
    from embed.interop import parity

    folder = pathlib.Path(arguments.folder)
    checks, content = parity.read(folder)
    tolerance = content["tolerance"] if arguments.tolerance is None else arguments.tolerance
    parity.compare_prompts(_prompts(folder), content["prompts"], str(folder))
    form, ids, vectors = _through(folder, checks, content)
    error = parity.compare(checks, ids, vectors, tolerance, f"{folder} in {form}")
    print(
        f"{folder}: {len(checks)} texts in {form}: token ids equal, largest error {error:.2e} (tolerance {tolerance:.0e})"
    )


def _prompts(folder: pathlib.Path) -> dict[str, str]:
    """Returns the prompts of an export as templates, those of sentence-transformers' keys too."""
    from embed import files
    from embed.errors import DataError
    from embed.interop.prompts import PLAIN

    path = folder / "config_sentence_transformers.json"
    if path.is_file():
        given = files.read_json(path).get("prompts") or {}
        return {name: f"{prefix}{PLAIN}" for name, prefix in given.items()}
    prompts = files.read_json(folder / "model.json").get("prompts")
    if not isinstance(prompts, dict):
        raise DataError(f"{folder / 'model.json'}: has no prompts; export the model again")
    return prompts


def _through(folder: pathlib.Path, checks, content):
    """Returns (what ran it, token ids, vectors) of the exported form that the folder holds."""
    from embed.errors import DataError
    from embed.interop import stablehlo

    if (folder / stablehlo.PROGRAM).is_file():
        return "jax", *_stablehlo(folder, checks, content)
    if (folder / "onnx" / "model.onnx").is_file():
        return "onnxruntime", *_onnx(folder, checks, content)
    if (folder / "modules.json").is_file():
        return "torch", *_torch(folder, checks, content)
    raise DataError(f"{folder}: holds no export that can be run (modules.json, onnx/model.onnx or {stablehlo.PROGRAM})")


def _stablehlo(folder, checks, content):
    import numpy as np

    from embed import files
    from embed.data import tokenizers
    from embed.interop import stablehlo

    options = files.read_json(folder / "model.json").get("tokenizer", {})
    # What the tokenizer does is compared, not the digest it is said to have.
    tokenizer = tokenizers.from_folder(folder, {k: v for k, v in options.items() if k != "digest"})
    ids = tokenizer.encode_batch([c.prompted for c in checks], content["max_length"])[0]
    embed = stablehlo.load(folder)
    vectors = []
    for row in ids:
        length = min(-(-len(row) // 32) * 32, content["max_length"])  # few lengths are compiled
        tokens = np.zeros((1, length), np.int32)
        tokens[0, : len(row)] = row
        vectors.append(embed(tokens, np.arange(length)[None] < len(row))[0])
    return ids, np.stack(vectors)


def _onnx(folder, checks, content):
    from embed.data.tokenizers import HuggingFace
    from embed.interop import torch_twin

    tokenizer = HuggingFace(str(folder / "tokenizer.json"), _pad_token(folder))
    ids = tokenizer.encode_batch([c.prompted for c in checks], content["max_length"])[0]
    return ids, torch_twin.run_onnx(folder / "onnx" / "model.onnx", [list(map(int, i)) for i in ids], tokenizer.pad_id)


def _pad_token(folder) -> str | None:
    from embed import files

    return files.read_json(folder / "tokenizer_config.json").get("pad_token")


def _torch(folder, checks, content):
    import numpy as np

    from embed import files
    from embed.interop import torch_twin

    model = torch_twin.load(folder)
    prefixes = files.read_json(folder / "config_sentence_transformers.json")["prompts"]
    ids = torch_twin.token_ids(model, [c.prompted for c in checks], content["max_length"])
    vectors = np.empty((len(checks), model.encode("a").shape[-1]), np.float32)
    for name in {c.prompt for c in checks}:
        places = [i for i, c in enumerate(checks) if c.prompt == name]
        vectors[places] = torch_twin.encode(model, [checks[i].text for i in places], prefixes.get(name, ""))
    return ids, vectors
