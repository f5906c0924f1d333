"""The families of foreign checkpoints, one file each. A new one is a file here and a line below."""

from embed.errors import DataError, did_you_mean
from embed.interop.families.bert import BERT, XLM_ROBERTA
from embed.interop.families.embedding_gemma2 import EMBEDDING_GEMMA2
from embed.interop.families.gemma3 import GEMMA3
from embed.interop.families.modernbert import MODERNBERT
from embed.interop.families.qwen3 import QWEN3
from embed.interop.families.t5gemma import T5GEMMA
from embed.interop.family import Family

ALL = (BERT, XLM_ROBERTA, GEMMA3, EMBEDDING_GEMMA2, T5GEMMA, MODERNBERT, QWEN3)


def of_config(config: dict, location) -> Family:
    """Returns the family of a config.json; an unknown one is a DataError that lists the known."""
    known = {name: family for family in ALL for name in (family.model_type, *family.other_types)}
    name = config.get("model_type")
    if not isinstance(name, str) or name not in known:
        shown = sorted(family.model_type for family in ALL)
        raise DataError(f"{location}: unknown architecture {name!r}{did_you_mean(str(name), shown)}")
    return known[name]


def of_encoder(encoder) -> Family:
    """Returns the family that can write this encoder; a DataError when there is none."""
    for family in ALL:
        if isinstance(encoder, family.module) and family.owns(encoder):
            return family
    raise DataError(
        f"{type(encoder).__name__}: transformers has no architecture for this encoder and its fields; "
        "export it with --format=stablehlo"
    )
