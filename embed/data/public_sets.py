"""The public training sets of the papers as ready tasks: where they are, their prompts, negatives, sizes and licences.

Source: arXiv:2503.07891 s4 and arXiv:2403.20327 s3.3 name the sets; names, fields and sizes are those of their pages on the Hub
and in TFDS. Sizes are what is published, in examples. Read a licence before you train on what it covers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from embed.data.tasks import Task
from embed.errors import ConfigError, did_you_mean
from embed.sources.beir import HuggingFaceBeir
from embed.sources.datasets import HuggingFaceDataset, Tfds
from embed.sources.derived import Choices, Entailments, TitleAndBody

WEB, DIVERSE, MULTILINGUAL, CODE = "web", "task diversity", "language diversity", "code"
KINDS = (WEB, DIVERSE, MULTILINGUAL, CODE)
TRIPLET = {"query": "anchor", "target": "positive", "negatives": "negative"}
UNUSED = ("negatives",)  # what a recipe may leave unused
MIRACL = {
    "ar": 3_500, "bn": 1_630, "en": 2_860, "es": 2_160, "fa": 2_110, "fi": 2_900, "fr": 1_140, "hi": 1_170,
    "id": 4_070, "ja": 3_480, "ko": 868, "ru": 4_680, "sw": 1_900, "te": 3_450, "th": 2_970, "zh": 1_310,
}  # fmt: skip
# Languages of the web pairs: those of MIRACL and a few large ones beside.
LANGUAGES = ("ar", "bn", "de", "en", "es", "fa", "fi", "fr", "hi", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sw", "te",
             "th", "tr", "uk", "vi", "yo", "zh")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PublicSet:
    """A public set as a task. `pairs` is its published size, None where only texts are counted; `negatives` says what they are."""

    name: str
    kind: str
    source: Any
    query_prompt: str
    target_prompt: str
    pairs: int | None
    licence: str
    negatives: str = "none"

    @property
    def task(self) -> Task:
        """The set as a task of a mixture."""
        return Task(self.name, self.source, self.query_prompt, self.target_prompt)

    @property
    def page(self) -> str:
        """Where it is: the name in TFDS or on the Hub, with its configuration."""
        inner = getattr(self.source, "source", self.source)
        location = "TFDS" if isinstance(inner, Tfds) else "Hub"
        config = getattr(inner, "config", None)
        return f"{location} {inner.name}" + (f", {config}" if config else "")


def _web(language: str) -> list[PublicSet]:
    """Returns the title-body pairs of one language: of crawled pages, and of Wikipedia."""
    crawl, name = ("C4", "c4") if language == "en" else ("mC4", "mc4")
    pages = HuggingFaceDataset("allenai/c4", config=language, streaming=True, max_rows=5_000_000)
    articles = HuggingFaceDataset("wikimedia/wikipedia", config=f"20231101.{language}")
    size = 364_868_892 if crawl == "C4" else None
    return [
        PublicSet(f"{name}_{language}", WEB, TitleAndBody(pages), "query", "document", size, "ODC-BY"),
        PublicSet(
            f"wikipedia_{language}",
            WEB,
            TitleAndBody(articles, title="title", shortest=(2, 200)),
            "query",
            "document",
            6_407_814 if language == "en" else None,
            "CC BY-SA 3.0, GFDL",
        ),
    ]


SETS: tuple[PublicSet, ...] = (
    *(one for language in LANGUAGES for one in _web(language)),
    PublicSet(
        "natural_questions",
        DIVERSE,
        HuggingFaceDataset("sentence-transformers/natural-questions", {"query": "query", "target": "answer"}, "pair"),
        "question answering",
        "document",
        100_231,
        "CC BY-SA 3.0",
        "none: embed mine",
    ),
    PublicSet(
        "hotpotqa",
        DIVERSE,
        HuggingFaceDataset("sentence-transformers/hotpotqa", TRIPLET, "triplet", optional=UNUSED),
        "question answering",
        "document",
        84_500,
        "CC BY-SA 4.0",
        "mined",
    ),
    PublicSet(
        "fever",
        DIVERSE,
        HuggingFaceBeir("mteb/fever", revision="bea83ef9e8fb933d90a2f1d5515737465d613e12"),
        "fact checking",
        "document",
        140_085,
        "CC BY-NC-SA 3.0",
        "none: embed mine",
    ),
    PublicSet(
        "msmarco",
        DIVERSE,
        HuggingFaceDataset(
            "sentence-transformers/msmarco-bm25",
            {"query": "query", "target": "positive", "negatives": "negative"},
            "triplet",
            optional=UNUSED,
        ),
        "query",
        "document",
        502_931,
        "non-commercial research",
        "BM25",
    ),
    PublicSet(
        "snli",
        DIVERSE,
        Entailments(Tfds("snli:1.1.0")),
        "sentence similarity",
        "sentence similarity",
        550_152,
        "CC BY-SA 4.0",
        "contradictions",
    ),
    PublicSet(
        "multi_nli",
        DIVERSE,
        Entailments(Tfds("multi_nli:1.1.0")),
        "sentence similarity",
        "sentence similarity",
        392_702,
        "by genre: OANC, CC BY, CC BY-SA, others",
        "contradictions",
    ),
    PublicSet(
        "medmcqa",
        DIVERSE,
        Choices(HuggingFaceDataset("openlifescienceai/medmcqa"), options=("opa", "opb", "opc", "opd"), answer="cop"),
        "question answering",
        "document",
        182_822,
        "Apache 2.0",
        "wrong options",
    ),
    *(
        PublicSet(
            f"miracl_{language}",
            MULTILINGUAL,
            HuggingFaceDataset("sentence-transformers/miracl", TRIPLET, f"{language}-triplet", optional=UNUSED),
            "query",
            "document",
            pairs,
            "Apache 2.0; texts CC BY-SA",
            "judged",
        )
        for language, pairs in MIRACL.items()
    ),
    PublicSet(
        "code_search_net",
        CODE,
        HuggingFaceDataset("sentence-transformers/codesearchnet", {"query": "comment", "target": "code"}, "pair"),
        "code retrieval",
        "document",
        1_375_067,
        "of each repository",
        "none: embed mine",
    ),
)


def tasks(kinds: Sequence[str] = (), names: Sequence[str] = (), leave_out: Sequence[str] = ()) -> list[Task]:
    """Returns the sets of some kinds and some names (all when neither is given) as tasks, for `tasks.Mixture.tasks`."""
    known = {s.name: s for s in SETS}
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"public_sets.tasks: no kind {kind!r}{did_you_mean(kind, KINDS)}")
    for name in (*names, *leave_out):
        if name not in known:
            raise ConfigError(f"public_sets.tasks: no set {name!r}{did_you_mean(name, known)}")
    chosen = [s for s in SETS if s.kind in kinds or s.name in names or not (kinds or names)]
    return [s.task for s in chosen if s.name not in leave_out]


def table() -> str:
    """Returns all sets as a markdown table."""
    lines = [
        "| task | kind | where | query prompt | negatives | examples | licence |",
        "|---|---|---|---|---|---:|---|",
    ]
    for s in SETS:
        size = "-" if s.pairs is None else f"{s.pairs:,}"
        lines.append(f"| `{s.name}` | {s.kind} | {s.page} | {s.query_prompt} | {s.negatives} | {size} | {s.licence} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(
        "# Public training sets\n\nMade by `python -m embed.data.public_sets`. `public_sets.tasks.kinds` and `.names` choose.\n"
    )
    print(table(), end="")
