"""embed: train, average, evaluate and export embedding models in JAX.

Importing this package loads neither jax nor tensorflow. `embed.load(path)` opens a trained model.
"""

__version__ = "0.1.0"


def load(path, **options):
    """Returns the `EmbeddingModel` at `path` (a run folder, a checkpoint step or a bundle).

    `embed.load("runs/a").encode(["some text"], prompt="query")` gives a float32 array [n, E] of unit vectors. Options are
    those of `embed.inference.model.open_model`: max_length, dtype, weights, devices and others.
    """
    from embed.inference import arguments, model

    arguments.check_names("load", model.open_model, options)
    return model.open_model(path, **options)
