"""The direction of a score, by its name: higher is better, or lower, as for a loss."""

# The last words of the names of scores of which lower is better; `validation/loss@64` is the loss at 64 values.
_ERRORS = ("loss", "rmse", "mse", "mae", "degrees")


def higher_is_better(metric: str) -> bool:
    """Returns whether a higher value of a score is better; of a loss and other errors a lower value is."""
    return metric.rpartition("/")[2].partition("@")[0].rpartition("_")[2] not in _ERRORS
