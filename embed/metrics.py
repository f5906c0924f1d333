"""Scores of models by their names: of which more is better, and which are errors."""

# The last words of the names of what is to be small; `validation/loss@64` is the loss at 64 values.
_ERRORS = ("loss", "rmse", "mse", "mae", "degrees")


def higher_is_better(metric: str) -> bool:
    """Returns whether more of a score is better; of a loss or another error less is."""
    return metric.rpartition("/")[2].partition("@")[0].rpartition("_")[2] not in _ERRORS
