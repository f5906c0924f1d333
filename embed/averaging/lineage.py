"""Whether models come from one ancestor: averages of others have no meaning."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from embed import bundles, documents, files
from embed.errors import DataError


def ancestors(lineage: Mapping[str, Any]) -> set[str]:
    """Returns what a model came from: digests of models, of the weights of foreign folders, or the seed it was drawn by.

    An average comes from what all its ingredients come from.
    """
    digests = set()
    if "weights" in lineage:
        digests.add(documents.digest_json(lineage["weights"]))
    if "initial" in lineage:
        digests.add(lineage["initial"])
    if "from" in lineage:
        digests |= ancestors(lineage["from"])
    if lineage.get("inputs"):
        digests |= set.intersection(*({i["digest"]} | ancestors(i["lineage"]) for i in lineage["inputs"]))
    return digests


def check(folders: Sequence[pathlib.Path]) -> None:
    """Raises DataError when the models have no common ancestor (a model is one of its own)."""
    if len(folders) < 2:
        return
    known = {f: {files.folder_digest(f)} | ancestors(bundles.read_model_json(f)["lineage"]) for f in folders}
    if set.intersection(*known.values()):
        return
    first = folders[0]
    other = next((f for f in folders[1:] if not known[f] & known[first]), folders[-1])
    raise DataError(
        f"{other}: has no ancestor in common with {first}, and the average of models that began apart is worth nothing; "
        "average runs of one start, or give --unrelated to do it all the same"
    )
