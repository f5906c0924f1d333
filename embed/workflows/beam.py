"""Preparation by a Beam pipeline: its workers encode the parts of the tasks that other processes would (`data.parts`).

Each element is one process's share of the parts. The pipeline runs where its runner says: on this machine, on Dataflow, Flink or
Spark, whose workers need embed, the gin files and what these name.
"""

import shlex
import threading
from collections.abc import Sequence

from embed import config
from embed.buckets import copies
from embed.errors import ConfigError, EmbedError, StorageError


def encode(index: int, gin_files: Sequence[str], bindings: Sequence[str], count: int) -> int:
    """Encodes one share of the parts, in a worker, and returns its number."""
    from embed.workflows import prepare
    from embed.workflows.recipe import Recipe

    recipe = config.build(Recipe, gin_files, bindings)[0]
    prepare.work(recipe, index, count)
    copies.send(recipe.cache_dir)
    return index


class Helpers:
    """The workers of a pipeline with `options`, a text of flags such as '--runner=DirectRunner'; `count` shares of the parts."""

    def __init__(self, options: str, gin_files: Sequence[str], bindings: Sequence[str], count: int):
        self.count = count
        self._options, self._gin_files, self._bindings = shlex.split(options), list(gin_files), list(bindings)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        try:
            import apache_beam  # noqa: F401
        except ImportError as e:
            raise ConfigError(
                f"--beam needs Apache Beam ({e}); install it with embed into an environment of its own: pip install 'embed[beam]'"
            ) from e

    def start(self) -> None:
        """Starts the pipeline, once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="Beam pipeline", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        given = {"gin_files": self._gin_files, "bindings": self._bindings, "count": self.count}
        try:
            with beam.Pipeline(options=PipelineOptions(self._options)) as pipeline:
                shares = pipeline | "shares" >> beam.Create(range(self.count)) | beam.Reshuffle()
                _ = shares | "encode" >> beam.Map(encode, **given)
        except BaseException as e:  # of many types, by the runner
            self._error = e

    def check(self, index: int) -> bool:
        """Returns whether the pipeline has ended; raises the error that it has ended with."""
        if self._error is not None:
            cause = self._error
            while cause is not None and not isinstance(cause, EmbedError):
                cause = cause.__cause__
            if cause is not None:
                raise cause
            lines = [line.strip() for line in str(self._error).splitlines() if line.strip()] or [
                type(self._error).__name__
            ]
            raise StorageError(f"the Beam pipeline has ended: {lines[0][:300]}; run the command again to go on")
        return self._thread is not None and not self._thread.is_alive()
