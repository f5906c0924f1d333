"""Whether an export gives the trained model's vectors, by the tools that its README names."""

import dataclasses
import functools
import importlib.util
import pathlib
import tempfile
from typing import Any

import numpy as np
import tokenizers

from embed import documents, files, image_bytes
from embed.data.tokenizers import from_folder
from embed.errors import DataError, NumericError, UsageError
from embed.gguf import reader as gguf_reader
from embed.gguf import writer as gguf_writer
from embed.inference import model as inference
from embed.interop import parity, readers, stablehlo, torch_twin
from embed.interop.prompts import PLAIN
from embed.interop.tensors import stored_dtypes
from embed.towers import convert, embedding_gemma2, pictures, source, tips_writer


def run(folder, *, tolerance: float | None = None) -> float:
    """Returns the largest difference of any number, after checking every file of an export.

    `tolerance` is what is allowed, if less than the weights' type allows (1e-5 for float32). Token ids that differ and larger
    errors are a NumericError, damaged files a DataError. Of a GGUF it is the cosine distance.
    """
    folder = pathlib.Path(folder)
    checks, content = parity.read(folder)
    images = pictures.read(folder, content)
    _check_dtype(folder, content["dtype"])
    tolerance = tolerance or content["tolerance"]
    if tolerance > content["tolerance"]:
        raise UsageError(
            f"--tolerance={tolerance:g}: vectors of {content['dtype']} weights may differ by {content['tolerance']:g}; give less"
        )
    _check_unlisted(folder, files.verify_manifest(folder))
    if (folder / tips_writer.VISION).is_file():
        return _run_tips(folder, checks, images, content, tolerance)
    errors = []
    if checks:
        errors.append(_run_texts(folder, checks, content, tolerance))
    if images:
        form, vectors = _image_vectors(folder, images)
        errors.append(pictures.compare(images, vectors, tolerance, f"{folder} in {form}"))
        print(f"{folder}: {len(images)} pictures in {form}: largest error {errors[-1]:.2e} (tolerance {tolerance:.0e})")
    return max(errors)


def _run_texts(folder: pathlib.Path, checks, content, tolerance: float) -> float:
    """Returns the largest error of texts, whose prompts and token ids are compared first."""
    parity.compare_prompts(_prompts(folder), content["prompts"], str(folder))
    _check_default_prompt(folder, content)
    if (folder / gguf_writer.FILE).is_file():
        return _run_gguf(folder, checks, content, tolerance)
    form, vectors = _vectors(folder, checks, content)
    ids = _token_ids(_text_folder(folder), checks, content)
    error = parity.compare(checks, ids, vectors, tolerance, f"{folder} in {form}")
    print(
        f"{folder}: {len(checks)} texts in {form}: token ids equal, largest error {error:.2e} (tolerance {tolerance:.0e})"
    )
    return error


def _text_folder(folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder of an export's tower of texts, which has one of its own beside that of images."""
    return folder / "text" if (folder / "text").is_dir() else folder


def _image_vectors(folder: pathlib.Path, images) -> tuple[str, np.ndarray]:
    """Returns (what ran it, vectors [n, E]) of an export's pictures, by the code of its README."""
    path = str(folder.resolve())
    if embedding_gemma2.is_one(folder):
        embed = torch_twin.opened(readers.open_embedding_gemma2, path, "transformers")
        return "transformers", np.stack([embed(check.path) for check in images])
    if (folder / "modules.json").is_file():
        embed = torch_twin.opened(readers.open_sentence_transformers, path)
        return "sentence-transformers", embed(
            [image_bytes.open_image(check.path.read_bytes(), str(check.path)) for check in images], None
        )
    if (folder / "image" / "onnx" / "model.onnx").is_file():
        torch_twin.need("onnxruntime")
        form, opened = "onnxruntime", functools.partial(readers.open_onnx_images, path)
    elif (folder / "image" / stablehlo.PROGRAM).is_file():
        form, opened = "jax", functools.partial(readers.open_stablehlo_images, path)
    else:
        raise DataError(f"{folder}: holds no export of images that can be run; export the model again")
    try:
        embed = opened()
        return form, np.stack([embed(check.path) for check in images])
    except Exception as e:  # whatever stops a reader is what is being looked for
        raise DataError(f"{folder}: {form} cannot read it ({documents.first_line(e)}); export the model again") from e


def _run_tips(folder: pathlib.Path, checks, images, content, tolerance: float) -> float:
    """Returns the largest error of TIPS' files, read back as `embed convert` reads those of anybody: no package reads them."""
    with tempfile.TemporaryDirectory(prefix="embed-verify-") as temporary:
        bundle = convert.convert(source.read(folder), pathlib.Path(temporary) / "bundle", folder.name)
        model = inference.open_model(bundle, dtype="float32", max_length=content.get("max_length"))
        what = f"{folder} in embed, read back"
        errors = [pictures.compare(images, model.encode([check.path for check in images]), tolerance, what)]
        if checks:
            texts = [check.prompted for check in checks]
            ids = model.encoder.texts.tokens(texts, PLAIN)
            errors.append(parity.compare(checks, ids, model.encode(texts, prompt="none"), tolerance, what))
    print(
        f"{folder}: {len(checks)} texts and {len(images)} pictures read back: token ids equal, largest error {max(errors):.2e} "
        f"(tolerance {tolerance:.0e})"
    )
    return max(errors)


def _check_dtype(folder: pathlib.Path, dtype: str) -> None:
    """Raises DataError unless the weights are of the type that parity.json says, which decides the tolerance."""
    weights, file = folder / "model.safetensors", folder / gguf_writer.FILE
    if file.is_file():
        number = gguf_reader.Tensors(file).metadata.get("general.file_type")
        stored = {name for name, i in gguf_writer.TYPES.values() if i == number}
    else:
        stored = stored_dtypes(weights) if weights.is_file() else {"F32"}
    expected = gguf_writer.TYPES[dtype][0]
    if stored != {expected}:
        raise DataError(
            f"{folder}: parity.json says that the weights are {dtype}, but they are {', '.join(sorted(stored))}; export the model "
            "again"
        )


# What sentence-transformers, transformers and tokenizers may read beside the files that an export lists.
_READ = (".json", ".jinja", ".txt", ".model", ".safetensors", ".bin", ".py", ".onnx", ".gguf", ".npz")


def _check_unlisted(folder: pathlib.Path, manifest: dict) -> None:
    """Raises DataError for a file that was added to an export and that its readers may read."""
    for path in sorted(p for p in folder.rglob("*") if p.suffix in _READ):
        name = path.relative_to(folder).as_posix()
        if name not in manifest["files"] and name != files.MANIFEST and not name.startswith("."):
            raise DataError(
                f"{path}: is not of the export, and its readers may read it; remove it, or export the model again"
            )


def _check_default_prompt(folder: pathlib.Path, content: dict) -> None:
    """Raises NumericError unless the prompt that sentence-transformers uses without being asked is that of the export."""
    path = _text_folder(folder) / "config_sentence_transformers.json"
    if path.is_file() and "default_prompt_name" in content:
        name, exported = documents.read_json(path).get("default_prompt_name"), content["default_prompt_name"]
        if name != exported:
            raise NumericError(
                f"{path}: default_prompt_name is {name!r}, the model was exported with {exported!r}; texts without a prompt get "
                "other vectors"
            )


def _prompts(folder: pathlib.Path) -> dict[str, str]:
    """Returns the prompts of an export as templates, those of sentence-transformers' keys too."""
    if (folder / gguf_writer.FILE).is_file():
        return gguf_reader.prompts(folder / gguf_writer.FILE)
    folder = _text_folder(folder)
    path = folder / "config_sentence_transformers.json"
    if path.is_file():
        prefixes = documents.read_json(path, dict).get("prompts") or {}
        documents.check(prefixes, dict[str, str], f"{path}: prompts")
        return {name: f"{prefix}{PLAIN}" for name, prefix in prefixes.items()}
    prompts = documents.read_json(folder / "model.json").get("prompts")
    documents.check(prompts, dict[str, str], f"{folder / 'model.json'}: prompts", "export the model again")
    return prompts


def _vectors(folder: pathlib.Path, checks, content):
    """Returns (what ran it, vectors [n, E]) of the exported form that the folder holds, by the code of its README."""
    prompted = readers.PROMPTED[content["text_normalization"]]
    folder = _text_folder(folder)
    path = str(folder.resolve())
    if embedding_gemma2.is_one(folder):
        embed = torch_twin.opened(readers.open_embedding_gemma2, path, "transformers")
        return "transformers", np.stack([embed(check.prompted) for check in checks])
    if (folder / "modules.json").is_file():
        embed = torch_twin.opened(readers.open_sentence_transformers, path)
        return "sentence-transformers", _by_prompt(embed, checks, content["prompts"])
    if (folder / "onnx" / "model.onnx").is_file():
        torch_twin.need("onnxruntime")
        form, opened = "onnxruntime", functools.partial(readers.open_onnx, path, prompted)
    elif (folder / stablehlo.PROGRAM).is_file():
        form, opened = "jax", functools.partial(readers.stablehlo_of(folder), path, prompted)
    else:
        raise DataError(
            f"{folder}: holds no export that can be run (modules.json, onnx/model.onnx or {stablehlo.PROGRAM})"
        )
    try:
        embed = opened()
        return form, np.stack([embed(check.text, content["prompts"].get(check.prompt, "")) for check in checks])
    except Exception as e:  # whatever stops a reader is what is being looked for
        raise DataError(f"{folder}: {form} cannot read it ({documents.first_line(e)}); export the model again") from e


def _run_gguf(folder: pathlib.Path, checks, content, tolerance: float) -> float:
    """Returns the largest cosine distance to the trained model's vectors of those made with the file's weights.

    Where llama.cpp's Python package is installed, its token ids and vectors are compared with them too.
    """
    path, measure = folder / gguf_writer.FILE, content["measure"]
    vectors = gguf_reader.vectors(path, [check.token_ids for check in checks])
    ids = _token_ids(folder, checks, content)
    error = parity.compare(checks, ids, vectors, tolerance, f"{folder} in gguf", measure)
    print(f"{folder}: {len(checks)} texts in gguf: largest {measure} {error:.2e} (tolerance {tolerance:.0e})")
    if importlib.util.find_spec("llama_cpp") is None:
        print(
            f"{folder}: llama.cpp's own token ids and vectors are not compared; for that, pip install llama-cpp-python"
        )
        return error
    embed = readers.open_gguf(str(folder.resolve()), readers.PROMPTED[content["text_normalization"]])
    theirs = np.stack([embed(check.text, content["prompts"].get(check.prompt, "")) for check in checks])
    stored = [dataclasses.replace(check, vector=vector) for check, vector in zip(checks, vectors)]
    ids = gguf_reader.llama_tokens(path, [check.prompted for check in checks])
    allowed = gguf_reader.LLAMA_TOLERANCE[content["dtype"]]
    distance = parity.compare(stored, ids, theirs, allowed, f"{folder} in llama.cpp", measure)
    print(
        f"{folder}: {len(checks)} texts in llama.cpp: token ids equal, largest {measure} to the same weights here "
        f"{distance:.2e} (tolerance {allowed:.0e})"
    )
    return error


def _by_prompt(embed, checks, prompts):
    vectors: list[Any] = [None] * len(checks)
    for name in {check.prompt for check in checks}:
        rows = [i for i, check in enumerate(checks) if check.prompt == name]
        # The names of prompts that add nothing may not be written.
        encoded = embed([checks[i].text for i in rows], name if name in prompts else None)
        for i, vector in zip(rows, encoded, strict=True):
            vectors[i] = vector
    return np.stack(vectors)


def _token_ids(folder: pathlib.Path, checks, content) -> list[list[int]]:
    """Returns what the folder's tokenizer makes of the prompted texts, by the package it is for."""
    path = folder / "tokenizer.json"
    if path.is_file():
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        return [tokenizer.encode(check.prompted).ids for check in checks]
    options = documents.read_json(folder / "model.json").get("tokenizer", {})
    tokenizer = from_folder(folder, options)
    return tokenizer.encode_batch([check.prompted for check in checks], content["max_length"])[0]
