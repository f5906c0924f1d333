"""Prompts as sentence-transformers keeps them (a prefix by key) and as we do (a template by name).

MTEB asks a folder for its prompts by key: task type and side, then task type, then side. Every one of our names is written
under each key it serves. A bare `Reranking` or `Retrieval` would be put on both sides, so the sides are written apart.
"""

from collections.abc import Mapping

from embed.errors import DataError
from embed.text import MTEB_KEYS, PROMPTS

# MTEB puts these on both sides; what they say is written for the query alone.
_BOTH_SIDES = ("Retrieval", "Reranking")
# Keys that released folders use for the same, taken where the usual ones are missing.
_ALSO_READ = {
    "query": _BOTH_SIDES,
    "document": ("passage", "corpus"),
    "code retrieval": ("InstructionRetrieval",),
}
PLAIN = "{content}"
_TITLED = "title: none | text: "
_AS_QUERY = (
    "question answering",
    "fact checking",
)  # have the prompt of queries in a folder without prompts of their own


def to_template(prefix: str) -> str:
    """Returns the template of a prefix; EmbeddingGemma's document prefix gets its place for a title back."""
    head = "title: {title} | text: " if prefix == _TITLED else prefix
    return head + PLAIN


def to_prefix(name: str, template: str) -> str:
    """Returns the prefix of a template; one with text behind the content is a DataError: it cannot be a prefix."""
    head, _, tail = template.partition(PLAIN)
    if tail.strip():
        raise DataError(
            f"prompt {name!r}: {template!r} goes on behind {PLAIN}; sentence-transformers only has prefixes, "
            "so export with --format=stablehlo or train with a prefix"
        )
    return head.replace("{title}", "none")


def imported(prefixes: Mapping[str, str | None]) -> dict[str, str]:
    """Returns our prompts from a folder's, standard names first; a name the folder does not serve adds nothing to a text.

    Keys that only repeat a standard name are dropped: `exported` writes them again.
    """
    if prefixes.get("none"):
        raise DataError(
            f"the prompt 'none' is {prefixes['none']!r}, and here 'none' is the text alone; give the prompt another name"
        )
    given = {key: to_template(prefix or "") for key, prefix in prefixes.items()}
    prompts = {}
    for name in PROMPTS:
        keys = (name, *MTEB_KEYS.get(name, ()), *_ALSO_READ.get(name, ()))
        prompts[name] = next((given[k] for k in keys if k in given), PLAIN)
    for name in _AS_QUERY:
        if name not in given:
            prompts[name] = prompts["query"]
    prompts["none"] = PLAIN
    served = {key: name for name, keys in MTEB_KEYS.items() for key in keys} | dict.fromkeys(_BOTH_SIDES, "query")
    others = {k: t for k, t in given.items() if k not in PROMPTS and t != prompts.get(served.get(k, ""))}
    return prompts | others


def overridden(templates: Mapping[str, str], overrides: Mapping[str, str]) -> dict[str, str]:
    """Returns a folder's prompts with `overrides`; prompts that were equal to the query's prompt follow an override of it."""
    as_query = {name: overrides["query"] for name in _AS_QUERY if "query" in overrides}
    follows = {name: t for name, t in as_query.items() if templates.get(name) == templates.get("query")}
    return {**templates, **follows, **overrides}


def taken_for(prefixes: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Returns (our name, the folder's key) of prompts that a folder has under another key alone."""
    names = {name: (name, *MTEB_KEYS.get(name, ())) for name in _ALSO_READ}
    return [
        (name, next(key for key in _ALSO_READ[name] if key in prefixes))
        for name, keys in names.items()
        if not any(key in prefixes for key in keys) and any(key in prefixes for key in _ALSO_READ[name])
    ]


def exported(prompts: Mapping[str, str]) -> dict[str, str]:
    """Returns the folder's prompts: every one of ours, under its name and under each key that MTEB asks for."""
    prefixes = {name: to_prefix(name, template) for name, template in prompts.items() if name != "none"}
    if not any(prefixes.values()):
        return {"query": "", "document": ""}
    for name, keys in MTEB_KEYS.items():
        for key in keys:
            if name in prefixes:
                prefixes.setdefault(key, prefixes[name])
    return prefixes
