"""The model card: how to use the folder, what it was made from, how it was trained, what it scores."""

import json
from collections.abc import Mapping
from typing import Any

from embed.errors import DataError
from embed.interop import prompts, stablehlo
from embed.interop.exporting import Trained
from embed.interop.parity import FILE

_FRONT = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, sentence-similarity, feature-extraction, matryoshka]
---
"""
_SENTENCE_TRANSFORMERS = """```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{folder}")
query = model.encode("What is the capital of France?", prompt_name="query")
documents = model.encode(["Paris is the capital of France."], prompt_name="document")
small = model.encode("...", prompt_name="query", truncate_dim={small}, normalize_embeddings=True)
```

Vectors have unit length: the dot product is the cosine. A prefix of a vector must be scaled back to unit length
(`normalize_embeddings=True`).
"""
_ONNX = """```python
import numpy as np, onnxruntime
from tokenizers import Tokenizer

session = onnxruntime.InferenceSession("{folder}/onnx/model.onnx")
ids = np.array([Tokenizer.from_file("{folder}/tokenizer.json").encode("{prompt}What is the capital of France?").ids])
vectors = session.run(["sentence_embedding"], {{"input_ids": ids, "attention_mask": np.ones_like(ids)}})[0]
```

Pooling, linear maps and the scaling to unit length are inside the graph.
"""
_USAGE = {"sentence-transformers": _SENTENCE_TRANSFORMERS, "stablehlo": stablehlo.USAGE, "onnx": _ONNX}


def write(
    trained: Trained, form: str, folder_name: str, scores: Mapping[str, Any] | None = None, recipe: str | None = None
) -> str:
    """Returns README.md. `scores` is a results.json of `embed evaluate`, `recipe` the operative gin configuration."""
    found = prompts.exported(trained.description["prompts"])
    dims = trained.matryoshka_dims
    usage = _USAGE[form].format(folder=folder_name, small=dims[-1], prompt=found.get("query", ""))
    parts = [
        _FRONT if form == "sentence-transformers" else "",
        f"# {folder_name}\n",
        f"A text embedding model: {dims[0]} dimensions, {trained.max_length} tokens, Matryoshka sizes "
        f"{', '.join(map(str, dims))}. Trained and exported with embed (JAX).\n",
        "## Use\n",
        usage,
        "## Prompts\n",
        _prompt_table(found),
        "## Check any server\n",
        f"`{FILE}` holds texts in several scripts with prompts, token ids and float32 vectors made by the trained model. "
        f"`embed verify {folder_name}` runs them through this folder; send the same texts to a server and compare.\n",
        "## What it was made from\n",
        _lineage(trained.description["lineage"]),
        scores_table(scores) if scores else "",
    ]
    if recipe:
        parts.append(
            f"## Recipe\n\n<details><summary>operative gin configuration</summary>\n\n```\n{recipe}\n```\n\n</details>\n"
        )
    return "\n".join(part for part in parts if part)


def _prompt_table(found: Mapping[str, str]) -> str:
    if not any(found.values()):
        return "None: texts are encoded as they are.\n"
    rows = [f"| {name} | `{prefix}` |" if prefix else f"| {name} | |" for name, prefix in found.items()]
    return "\n".join(["| name | prefix |", "|---|---|", *rows, ""])


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
            lines += [f"{indent}  - {name}: {share:.1%} of batches" for name, share in value.items()]
        elif isinstance(value, Mapping):
            lines.append(f"{indent}- {key}: `{json.dumps(value, ensure_ascii=False)}`")
        else:
            lines.append(f"{indent}- {key}: {value}")
    return "\n".join([*lines, ""])


def scores_table(results: Mapping[str, Any]) -> str:
    """Returns the scores of a results.json as markdown; anything else is a DataError."""
    try:
        return _scores_table(results)
    except (KeyError, TypeError, AttributeError, StopIteration) as e:
        raise DataError("--scores: not a results.json of embed evaluate; give one, or leave it out") from e


def _scores_table(results: Mapping[str, Any]) -> str:
    lines = [
        f"## Scores\n\nSuite `{results['suite']}`, percent.\n",
        "| model | task | dimensions | metric | score |",
        "|---|---|---:|---|---:|",
    ]
    for name, entry in results["models"].items():
        for task, by_dim in entry["results"].items():
            for dim, metrics in by_dim.items():
                metric = next(iter(metrics))
                lines.append(f"| {name} | {task} | {dim} | {metric} | {100 * metrics[metric]:.1f} |")
    return "\n".join([*lines, ""])
