"""The model card: how to use the folder, what it was made from, how it was trained, what it scores."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from embed import markdown
from embed.data.tokenizers import HuggingFace
from embed.errors import DataError
from embed.interop import prompts, readers, tokenizer_json
from embed.interop.origin import Trained
from embed.interop.parity import FILE
from embed.models.mixed_embedder import MixedEmbedder

_FRONT = """---
library_name: sentence-transformers
pipeline_tag: {pipeline}
tags: [sentence-transformers, {tags}feature-extraction, matryoshka]
---
"""
_PIPELINES = {
    "text": ("sentence-similarity", "sentence-similarity, "),
    "image": ("image-feature-extraction", "image-feature-extraction, "),
    "both": ("zero-shot-image-classification", "sentence-similarity, image-feature-extraction, "),
}

_UNIT = """
Vectors have unit length: the dot product is the cosine. The first {small} numbers of a vector are a vector too, once they are
scaled back to unit length (sentence-transformers: `encode(..., truncate_dim={small}, normalize_embeddings=True)`).
"""
_SERVER = """
`llama-server --embedding -m model.gguf -c {length} -b {length} -ub {length}` serves the file. Whoever asks it puts the prompt
before the text, and prepares the text, as the code above does.
"""
_NORMALIZATION = {
    "NFC, strip": "A text is normalised to Unicode's NFC, and white space at its ends is removed, before its prompt is put around "
    "it.\n",
    "none": "A text is taken as it is.\n",
}


def write(
    trained: Trained,
    form: str,
    folder_name: str,
    scores: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Returns README.md. `scores` is a results.json of `embed evaluate`, `recipe` the operative gin configuration; `notes` say
    what the export does not do as the trained model does."""
    text, image, dims = trained.text, trained.image, trained.matryoshka_dims
    kind = "both" if text and image else "text" if text else "image"
    pipeline, tags = _PIPELINES[kind]
    parts = [
        _FRONT.format(pipeline=pipeline, tags=tags) if form == "sentence-transformers" else "",
        f"# {markdown.inline(folder_name)}\n",
        f"{_KINDS[kind]}: {dims[0]} dimensions, {_sizes(text, image)}, Matryoshka sizes {', '.join(map(str, dims))}. Trained and "
        "exported with embed (JAX).\n",
        "## Use\n",
        *_usages(trained, form, folder_name),
        _UNIT.format(small=dims[-1]),
        "## Inputs\n",
        _NORMALIZATION[text.description["text_normalization"]] if text else "",
        "".join(f"- {note}.\n" for note in notes),
        f"## Prompts\n\n{_prompt_table(prompts.exported(text.description['prompts']))}" if text else "",
        "## Check any server\n",
        f"`{FILE}` holds {_CHECKED[kind]}. {markdown.code(f'embed verify {shlex.quote(folder_name)}')} runs them through this "
        "folder; send the same to a server and compare.\n",
        "## What it was made from\n",
        _quantization(trained, form),
        _lineage(trained.description["lineage"]),
        scores_table(scores) if scores else "",
    ]
    if recipe:
        parts.append(
            "## Recipe\n\n<details><summary>operative gin configuration</summary>\n\n"
            f"{markdown.code_block(recipe)}\n\n</details>\n"
        )
    return "\n".join(part for part in parts if part)


def _usages(trained: Trained, form: str, folder_name: str) -> list[str]:
    """Returns the code that embeds texts, and the one that embeds images, with an export."""
    text, image = trained.text, trained.image
    if isinstance(trained.module, MixedEmbedder):
        prompt = prompts.exported(text.description["prompts"]).get("query", "")
        open_folder = readers.open_embedding_gemma2
        code = f"embed = {open_folder.__name__}({folder_name!r})\n"
        code += f"vector = embed({prompt!r}, 'What is this? ', pathlib.Path('picture.png'))"
        return [markdown.code_block(f"import pathlib\n\n{readers.source(open_folder)}\n\n{code}", "python") + "\n"]
    of_text = (
        [_usage(text, form, folder_name, prompts.exported(text.description["prompts"]), bool(image))] if text else []
    )
    return of_text + ([image_usage(form, folder_name)] if image else [])


_KINDS = {
    "text": "A text embedding model",
    "image": "An image embedding model",
    "both": "An embedding model of images and texts in one space",
}
_TEXTS = "texts in several scripts with prompts, token ids and float32 vectors made by the trained model"
_CHECKED = {
    "text": _TEXTS,
    "image": "the float32 vectors of the pictures in `parity/`, made by the trained model",
    "both": f"{_TEXTS}, and the vectors of the pictures in `parity/`",
}
_TIPS = """The files are those of TIPS: {files} have the names of its {code} code. `embed convert {folder} BUNDLE` reads them too.
"""


def _sizes(text: Trained | None, image: Trained | None) -> str:
    """Returns the tokens of texts and the pixels of images that a model takes."""
    tokens = [f"{text.max_length} tokens"] if text else []
    pixels = [f"images of {image.module.image_size} pixels"] if image else []
    return ", ".join(tokens + pixels)


def image_usage(form: str, folder_name: str) -> str:
    """Returns the code that embeds images with an export, which is the code that `embed verify` runs."""
    folder = repr(folder_name)
    if form == "sentence-transformers":
        code = f"from PIL import Image\n\nvector = open_sentence_transformers({folder})([Image.open('picture.png')])[0]"
        return markdown.code_block(f"{readers.source(readers.open_sentence_transformers)}\n\n{code}", "python") + "\n"
    if form not in ("onnx", "stablehlo"):
        code = {"tips-jax": "JAX", "tips-pytorch": "PyTorch"}[form]
        return _TIPS.format(files="the .npz files", code=code, folder=shlex.quote(folder_name))
    reader = readers.open_onnx_images if form == "onnx" else readers.open_stablehlo_images
    code = f"{readers.source(reader)}\n\nvector = {reader.__name__}({folder})('picture.png')"
    return markdown.code_block(code, "python") + "\n"


def _usage(trained: Trained, form: str, folder_name: str, prompt_templates: Mapping[str, str], has_images: bool) -> str:
    """Returns the code that embeds texts with an export, which is the code that `embed verify` runs, and how it is called."""
    if form not in ("sentence-transformers", "gguf", "onnx", "stablehlo"):
        return ""
    question, folder = (
        "What is the capital of France?",
        repr(folder_name + "/text" * (has_images and form != "sentence-transformers")),
    )
    prompted = readers.PROMPTED[trained.description["text_normalization"]]
    if form == "sentence-transformers":
        name = "query" if "query" in prompt_templates else None
        functions, call = (readers.open_sentence_transformers,), f"({folder})([{question!r}], prompt_name={name!r})"
    elif form == "gguf":
        functions = (prompted, readers.open_gguf)
        call = f"({folder}, {prompted.__name__})({question!r}, prompt={prompt_templates.get('query', '')!r})"
    else:
        as_json = isinstance(trained.tokenizer, HuggingFace) or form == "onnx" or _has_json(trained)
        stable = readers.open_stablehlo if as_json else readers.open_stablehlo_sentencepiece
        functions = (prompted, readers.open_onnx if form == "onnx" else stable)
        prompt = (
            prompt_templates.get("query", "") if form == "onnx" else trained.description["prompts"].get("query", "")
        )
        call = f"({folder}, {prompted.__name__})({question!r}, prompt={prompt!r})"
    code = f"{readers.source(*functions)}\n\nvector = {functions[-1].__name__}{call}"
    server = _SERVER.format(length=trained.max_length) if form == "gguf" else ""
    return markdown.code_block(code, "python") + "\n" + server


def _has_json(trained: Trained) -> bool:
    """Returns whether a tokenizer.json can do what the model's SentencePiece vocabulary does."""
    try:
        tokenizer_json.from_sentencepiece(trained.tokenizer)
    except DataError:
        return False
    return True


def _prompt_table(prompt_templates: Mapping[str, str]) -> str:
    if not any(prompt_templates.values()):
        return "None: texts are encoded as they are.\n"
    rows = [f"| {markdown.cell(name)} | {markdown.code_cell(prefix)} |" for name, prefix in prompt_templates.items()]
    return "\n".join(["| name | prefix |", "|---|---|", *rows, ""])


def _quantization(trained: Trained, form: str) -> str:
    if "quantization" not in trained.description:
        return ""
    name = trained.description["quantization"]["name"]
    storage = "" if form == "gguf" else "; its weights are stored here unpacked"
    return f"The model was quantised as {markdown.code(name)}{storage}.\n"


def _lineage(lineage: Mapping[str, Any], indent: str = "") -> str:
    lines = []
    for key, value in lineage.items():
        if key == "inputs":
            lines.append(f"{indent}- inputs:")
            for one in value:
                lines.append(f"{indent}  - weight {one['weight']:.4g}, digest `{one['digest'][:12]}`")
                lines.append(_lineage(one["lineage"], indent + "    ").rstrip())
        elif key == "from":
            lines.append(f"{indent}- which came from:")
            lines.append(_lineage(value, indent + "  ").rstrip())
        elif key == "mixture":
            lines.append(f"{indent}- data:")
            lines += [f"{indent}  - {markdown.inline(name)}: {share:.1%} of batches" for name, share in value.items()]
        elif isinstance(value, Mapping):
            lines.append(f"{indent}- {markdown.inline(key)}: {markdown.code(json.dumps(value, ensure_ascii=False))}")
        else:
            lines.append(f"{indent}- {markdown.inline(key)}: {markdown.inline(str(value))}")
    return "\n".join([*lines, ""])


def scores_table(results: Mapping[str, Any]) -> str:
    """Returns the main scores of a results.json (`evaluation.stored.read_results`) as markdown, '-' for one that is not
    defined."""
    cells = [["model", "task", "dimensions", "metric", "score"]]
    for name, entry in results["models"].items():
        for task, by_dim in entry["results"].items():
            for dim, metrics in by_dim.items():
                metric = results["tasks"][task]["main"]
                score = metrics[metric]
                cells.append([name, task, dim, metric, "-" if math.isnan(score) else f"{100 * score:.1f}"])
    rows = [markdown.row(cells[0]), "|---|---|---:|---|---:|", *map(markdown.row, cells[1:])]
    return "\n".join([f"## Scores\n\nSuite {markdown.code(results['suite'])}, percent.\n", *rows, ""])
