"""Encoded text pairs for the tests of caches, batches and training steps."""

import numpy as np


def encoded(name: str, texts, ids, equal_ids=(), truncated: int = 0) -> dict[str, np.ndarray]:
    """Returns the arrays of some texts of one feature."""
    return {
        name: np.concatenate([np.zeros(0, np.int32), *texts]).astype(np.int32),
        f"{name}_lengths": np.array([len(x) for x in texts], np.int32),
        f"{name}_id": np.array(ids, np.int64),
        f"{name}_truncated": np.int32(truncated),
        f"{name}_equal_ids": np.array(equal_ids, np.int64),
    }


def pair(query, target, negatives=(), *, query_id=0, target_id=0, negatives_id=(), equal_ids=(), truncated=(0, 0, 0)):
    """Returns an encoded pair of texts with hard negatives; `equal_ids` are the ids of texts that say what the target says."""
    return {
        **encoded("query", [query], [query_id], truncated=truncated[0]),
        **encoded("target", [target], [target_id], equal_ids, truncated[1]),
        **encoded("negatives", negatives, negatives_id, truncated=truncated[2]),
    }
