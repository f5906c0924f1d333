"""parity.json: texts with prompts and token ids, and pictures, with vectors made by our own model that an export must reproduce.

Served vectors often differ from the trained model's without a word: another pooling, a linear map left out, another prompt.
This file is how anybody can check any server.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np

from embed import documents, ranges
from embed.errors import DataError, NumericError
from embed.text import normalizer, prompted, template

FILE = "parity.json"
# The largest difference of any number of any unit vector, by the type of the exported weights.
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2}
# The largest cosine distance (1 - cosine) to the vectors of the trained model, by the type that its weights are stored as. For
# four bits it is what they cost all-MiniLM-L6-v2 (0.1) with room for smaller models.
COSINE_TOLERANCE = {"float32": 1e-5, "float16": 1e-4, "bfloat16": 2e-3, "q8_0": 1e-2, "q4_0": 0.2}
_TOLERANCES = {"error": TOLERANCE, "cosine distance": COSINE_TOLERANCE}
FORMAT = 2
_LONG = 1200  # tokens, about: beyond every local window that is used
TEXTS = (
    "What is the capital of France?",
    "Paris is the capital and largest city of France, with about two million people in the city itself.",
    "def add(a, b):\n    return a + b  # the sum of two numbers",
    "Die Königin fuhr über die Straße nach Zürich.",
    "¿Dónde está la biblioteca más cercana?",
    "Москва — столица России.",
    "القاهرة هي عاصمة مصر.",
    "नई दिल्ली भारत की राजधानी है।",
    "东京是日本的首都。",
    "東京は日本の首都です。",
    "서울은 대한민국의 수도이다.",
    "กรุงเทพฯ เป็นเมืองหลวงของประเทศไทย",
    "Two  spaces, a\ttab, 3.14159, 1,000,000 and an emoji \U0001f600 with a joined one \U0001f469\u200d\U0001f52c.",
    "a",
    "Cafe\u0301 na\u0131\u0308ve: letters and accents apart, as macOS writes the names of files",
    "  blanks before and behind, a line\nand an end of one \n",
)


class _Entry(TypedDict):
    text: ranges.Text
    prompt: str
    prompted: str
    token_ids: list[ranges.Natural]
    vector: list[float]


class _Picture(TypedDict):
    """A picture and its vector; `resized` where it has not the size that the model takes."""

    file: str
    resized: bool
    vector: list[float]


class _Content(TypedDict):
    """What parity.json holds."""

    format: int
    model: str
    dtype: Literal["float32", "float16", "bfloat16", "q8_0", "q4_0"]
    tolerance: float
    measure: NotRequired[Literal["error", "cosine distance"]]  # not in exports of earlier versions
    max_length: NotRequired[ranges.Count]  # this and the next of texts alone
    text_normalization: NotRequired[str]
    prompts: dict[str, str]
    default_prompt_name: NotRequired[str | None]  # not in exports of earlier versions
    entries: list[_Entry]
    images: NotRequired[list[_Picture]]


@dataclasses.dataclass(frozen=True)
class Check:
    """One text as it was encoded: `text` is what a user gives, `prompted` is what is tokenised."""

    text: str
    prompt: str
    prompted: str
    token_ids: list[int]
    vector: np.ndarray


def make(
    encode: Callable[[Sequence[str], str], np.ndarray],
    tokens: Callable[[Sequence[str], str], list[np.ndarray]],
    prompts: Mapping[str, str],
    written: Mapping[str, str],
    max_length: int,
    model: str,
    dtype: str,
    text_normalization: str,
    is_repeated: Callable[[str, str], bool] = lambda prompt_template, text: True,
    measure: Literal["error", "cosine distance"] = "error",
) -> dict[str, Any]:
    """Returns the content of parity.json. `encode(texts, prompt)` and `tokens(texts, prompt)` are our model's; `prompts` are
    its own, `written` those the export has, as templates.

    Every text with the prompts of both sides, the first with every other prompt too, and the longest text that the readers
    of the export can have: one that is cut, where they cut. Readers are not asked for texts that they take by rules of their
    own, which `is_repeated(prompt_template, text)` tells.
    """
    plan = [(name, list(TEXTS)) for name in ("query", "document")]
    seen = {prompts.get("query"), prompts.get("document")}
    for name, prompt_template in prompts.items():
        if prompt_template not in seen:
            seen.add(prompt_template)
            plan.append((name, [TEXTS[0]]))
    entries = []
    for name, texts in plan:
        prompt_template = template(name, dict(prompts))
        longest = _long_text(max_length, lambda t, p=prompt_template: is_repeated(p, t)) if len(texts) > 1 else []
        texts = [t for t in texts if is_repeated(prompt_template, t)] + longest
        vectors = encode(texts, name)
        if not np.all(np.isfinite(vectors)):
            raise NumericError(f"prompt {name!r}: the model gives vectors that are not finite; it cannot be exported")
        for text, ids, vector in zip(texts, tokens(texts, name), vectors):
            entries.append(
                {
                    "text": text,
                    "prompt": name,
                    "prompted": prompted(prompt_template, text, normalization=text_normalization),
                    "token_ids": [int(i) for i in ids],
                    "vector": [float(v) for v in np.float32(vector)],
                }
            )
    return {
        "format": FORMAT,
        "model": model,
        "dtype": dtype,
        "tolerance": _TOLERANCES[measure][dtype],
        "measure": measure,
        "max_length": max_length,
        "text_normalization": text_normalization,
        "prompts": dict(written),
        "entries": entries,
    }


def without_texts(model: str, dtype: str) -> dict[str, Any]:
    """Returns the content of parity.json for a model of images alone; the caller adds `images`."""
    tolerance = _TOLERANCES["error"][dtype]
    return {"format": FORMAT, "model": model, "dtype": dtype, "tolerance": tolerance, "prompts": {}, "entries": []}


def _long_text(max_length: int, is_repeated: Callable[[str], bool]) -> list[str]:
    """Returns the longest text of made-up words that is repeated, as the only one of a list; none where none is."""
    count = min(max_length, _LONG)
    while count > 1:
        text = " ".join(f"word{i}" for i in range(count))
        if is_repeated(text):
            return [text]
        count = count * 3 // 4
    return []


def is_read_alike(prompt_template: str, text: str, tokens: Callable[[Sequence[str], str], list[np.ndarray]]) -> bool:
    """Returns whether white space at the ends of a text is without effect, wherever a reader strips.

    sentence-transformers 5 strips a text together with its prompt and version 6 does not strip; a model may strip the text
    before the prompt is put around it. `tokens(texts, prompt)` is the model's.
    """
    if text == text.strip():
        return True
    joined = prompted(prompt_template, text, normalization="none").strip()
    return np.array_equal(tokens([text], prompt_template)[0], tokens([joined], "{content}")[0])


def read(folder) -> tuple[list[Check], dict[str, Any]]:
    """Returns the checks of texts of an export, none of a model of images alone, and the whole file's content."""
    path = pathlib.Path(folder) / FILE
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a folder that embed export wrote")
    content = documents.read_json(path, _Content)
    checks = [
        Check(e["text"], e["prompt"], e["prompted"], e["token_ids"], np.array(e["vector"], np.float32))
        for e in content["entries"]
    ]
    has_texts = "text_normalization" in content
    if has_texts:
        normalizer(content["text_normalization"])
    # A file that could say how much error it lets pass would prove anything.
    is_allowed = content["tolerance"] == _TOLERANCES[content.get("measure", "error")].get(content["dtype"])
    is_empty = not (checks if has_texts else content.get("images"))
    if is_empty or len({c.vector.shape for c in checks}) > 1 or content["format"] != FORMAT or not is_allowed:
        raise DataError(
            f"{path}: not a parity file of this version (its format, its tolerance, or vectors of different lengths); export "
            "the model again"
        )
    return checks, content


def compare_prompts(actual: Mapping[str, str], expected: Mapping[str, str], what: str) -> None:
    """Raises NumericError, naming the first, unless an export has exactly the prompts that it was written with."""
    for name in {**expected, **actual}:
        if actual.get(name) != expected.get(name):
            raise NumericError(
                f"{what}: prompt {name!r} is {actual.get(name)!r}, the model was exported with {expected.get(name)!r}; "
                "texts behind it get other vectors"
            )


def compare(
    checks: Sequence[Check],
    token_ids: Sequence[Sequence[int]],
    vectors: np.ndarray,
    tolerance: float,
    what: str,
    measure: str = "error",
) -> float:
    """Returns the largest difference of any number, or the largest cosine distance, as `measure` says.

    Token ids that differ, or a difference above `tolerance`, are a NumericError that names the first text.
    """
    for check, ids in zip(checks, token_ids, strict=True):
        actual = list(map(int, ids))
        if actual != check.token_ids:
            raise NumericError(
                f"{what}: {check.text[:40]!r} with prompt {check.prompt!r} has other token ids: {actual[:12]}, expected "
                f"{check.token_ids[:12]}; the tokenizer of the export is not the model's"
            )
    if vectors.shape != (len(checks), len(checks[0].vector)):
        raise NumericError(
            f"{what}: vectors of {vectors.shape[-1]} values, expected {len(checks[0].vector)}; a linear map is missing"
        )
    expected = np.stack([check.vector for check in checks])
    errors = np.abs(vectors - expected).max(-1) if measure == "error" else distances(vectors, expected)
    errors = np.where(np.isfinite(errors), errors, np.inf)
    worst = int(np.argmax(errors))
    if errors[worst] > tolerance:
        raise NumericError(
            f"{what}: largest {measure} {errors[worst]:.3g} above {tolerance:.3g}, at {checks[worst].text[:40]!r} with prompt "
            f"{checks[worst].prompt!r}; its vectors are not the trained model's"
        )
    return float(errors[worst])


def distances(vectors: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Returns the cosine distances [n] of unit vectors [n, E], in float64."""
    return 1.0 - np.sum(np.float64(vectors) * np.float64(expected), -1)
