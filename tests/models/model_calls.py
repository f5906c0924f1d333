"""The text method of a model as a function of arrays, for tests that call it by position."""


def by_text(model):
    """Returns apply(params, tokens, segment_ids, key=None, max_segments=None)."""

    def apply(params, tokens, segment_ids, key=None, max_segments=None):
        inputs = {"tokens": tokens, "segment_ids": segment_ids}
        return model.apply(params, inputs, key=key, max_segments=max_segments)

    return apply
