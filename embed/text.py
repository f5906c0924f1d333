"""Text as every part of the project sees it: cleaned in one place, prompted in one place, hashed in one place."""

import hashlib
import unicodedata
from collections.abc import Callable

import numpy as np

from embed.errors import ConfigError, did_you_mean

# Source: arXiv:2509.20354, the model card's prompts. Names are what `--prompt`, suites and tasks refer to.
PROMPTS = {
    "query": "task: search result | query: {content}",
    "document": "title: {title} | text: {content}",
    "question answering": "task: question answering | query: {content}",
    "fact checking": "task: fact checking | query: {content}",
    "classification": "task: classification | query: {content}",
    "clustering": "task: clustering | query: {content}",
    "sentence similarity": "task: sentence similarity | query: {content}",
    "code retrieval": "task: code retrieval | query: {content}",
    "summarization": "task: summarization | query: {content}",
    "none": "{content}",
}
# Our name -> the keys by which MTEB asks for it: task type and side, or task type.
MTEB_KEYS = {
    "query": ("Retrieval-query", "Reranking-query", "BitextMining"),
    "document": (
        "Retrieval-document",
        "Reranking-document",
        "InstructionRetrieval-document",
        "InstructionReranking-document",
    ),
    "classification": ("Classification", "MultilabelClassification"),
    "clustering": ("Clustering",),
    "sentence similarity": ("STS", "PairClassification"),
    "code retrieval": ("InstructionRetrieval-query", "InstructionReranking-query"),
    "summarization": ("Summarization",),
}


def clean(text: str) -> str:
    """Returns the text NFC-normalised and without white space at its ends."""
    return unicodedata.normalize("NFC", text).strip()


# What a model does to a text before its prompt is put around it, by the name that model.json has for it. Training data are
# always cleaned; 'none' is for models of other tools, which read texts as they are.
NORMALIZATIONS: dict[str, Callable[[str], str]] = {"NFC, strip": clean, "none": lambda text: text}
DEFAULT_NORMALIZATION = "NFC, strip"


def normalizer(name: str) -> Callable[[str], str]:
    """Returns the normalisation of this name; an unknown one is a ConfigError."""
    if name not in NORMALIZATIONS:
        raise ConfigError(f"text normalisation {name!r}{did_you_mean(name, NORMALIZATIONS)}")
    return NORMALIZATIONS[name]


def template(prompt: str, prompts: dict[str, str] | None = None) -> str:
    """Returns the template that `prompt` names, or `prompt` itself when it is a template (holds {content}).

    Raises ConfigError for a name that is not known, and for a template that UTF-8 cannot hold.
    """
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as e:
        raise ConfigError(f"the prompt {prompt!a} holds a lone surrogate, which no UTF-8 text can; remove it") from e
    if "{content}" in prompt:
        return prompt
    prompts = PROMPTS if prompts is None else prompts
    if prompt not in prompts:
        raise ConfigError(
            f"no prompt is called {prompt!r}; known: {', '.join(sorted(prompts))}; or give one with {{content}}"
        )
    return prompts[prompt]


def prompted(prompt_template: str, text: str, title: str = "", normalization: str = DEFAULT_NORMALIZATION) -> str:
    """Returns a text as a model reads it: normalised, then put into its prompt (`apply_prompt`)."""
    normalize = normalizer(normalization)
    joined = _joined(prompt_template, normalize(text), normalize(title))
    return joined if normalization == "none" else joined.strip()


def apply_prompt(prompt_template: str, content: str, title: str = "") -> str:
    """Returns the prompted text, without white space at its ends. Both are already normalised.

    A title goes where the template says {title}, and 'none' where there is no title, as in EmbeddingGemma; a template
    without that place gets it in front of the text, as MTEB puts it.
    """
    return _joined(prompt_template, content, title).strip()


def _joined(prompt_template: str, content: str, title: str) -> str:
    if title and "{title}" not in prompt_template:
        content = f"{title} {content}"
    head, _, tail = prompt_template.partition("{content}")
    head, tail = (part.replace("{title}", title or "none") for part in (head, tail))
    return head + content + tail


def target_id(text: str, title: str = "") -> np.int64:
    """Returns the content id of a target or a negative; only targets have titles."""
    return content_id(f"{title}\n{text}")


def pair_id(queries: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns one 64-bit id, uint64, for each pair of a query's content id and a text's, two int64 arrays of one shape."""
    queries, targets = (np.asarray(x).view(np.uint64) for x in (queries, targets))
    with np.errstate(over="ignore"):  # all of it is modulo 2^64; the ids are hashes already
        return queries * np.uint64(0x9E3779B97F4A7C15) + targets


def content_id(content: str) -> np.int64:
    """Returns the first 64 bits of the sha256 of a text (before any prompt): equal ids mean equal items in the loss."""
    return np.frombuffer(hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()[:8], np.int64)[0]
