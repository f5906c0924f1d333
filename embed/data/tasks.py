"""Tasks and mixtures as a recipe declares them. Light: seqio's own Task and Mixture are made from these in `seqio_tasks`."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from embed import files, ranges
from embed.buckets import addresses
from embed.data.features import Feature, definitions
from embed.data.tokenizers import Tokenizer
from embed.errors import ConfigError, DataError, did_you_mean
from embed.ranges import Count, Positive
from embed.text import template

CACHE_FORMAT = 4  # raised when the meaning of cached records changes


@dataclasses.dataclass(frozen=True)
class Task:
    """One dataset under one name: its source and the prompt of each side (a template with {content}, or a prompt's name).

    Hard negatives take the target's prompt. Gemini Embedding prompts queries only: there `target_prompt` is 'none'.
    """

    name: str
    source: Any  # of `sources`, `derived`, or anything with examples() and fingerprint()
    query_prompt: str = "query"
    target_prompt: str = "document"

    def definition(self) -> dict[str, Any]:
        """Returns what decides the cached records, beside the tokenizer, the lengths and the source's content."""
        return {
            "name": self.name,
            "source": describe(self.source),
            "query_prompt": template(self.query_prompt),
            "target_prompt": template(self.target_prompt),
        }


@dataclasses.dataclass(frozen=True)
class RegisteredTask:
    """A task your own module added to seqio.TaskRegistry under `name`; `module` is imported to find it.

    Its examples hold texts: query, target, and optionally title and negatives. `version` is yours to raise when what it
    yields changes. With `cached_in` the examples are those that seqio's own pipeline has written there (`seqio_cache_tasks
    --output_cache_dir=FOLDER`); the task's preprocessors after its placeholder still run.
    """

    name: str
    module: str
    split: str = "train"
    version: int = 1
    query_prompt: str = "none"
    target_prompt: str = "none"
    cached_in: str | None = None

    def definition(self) -> dict[str, Any]:
        """Returns what decides the cached records, as far as can be known without importing the module."""
        prompts = {"query_prompt": template(self.query_prompt), "target_prompt": template(self.target_prompt)}
        fields = {name: value for name, value in describe(self).items() if name != "type"}
        if self.cached_in is None:  # caches of tasks that are none have no such field
            del fields["cached_in"]
        return {**fields, **prompts}

    def fingerprint(self) -> dict[str, str]:
        """Returns {name: sha256} of the small files that seqio's pipeline wrote about its examples, and {name: size} of others."""
        if self.cached_in is None:
            return {}
        folder = self.cached_folder()
        small = {p.name: files.sha256_file(p) for p in sorted(folder.glob("*.json"))}
        return small | {p.name: str(p.stat().st_size) for p in sorted(folder.glob("*.tfrecord-*"))}

    def cached_folder(self) -> pathlib.Path:
        """Returns the folder with the task's examples; one that seqio's pipeline has not finished is a DataError."""
        folder = pathlib.Path(self.cached_in) / self.name.replace(":", "/")
        if not (folder / "COMPLETED").is_file():
            raise DataError(
                f"{folder}: holds no finished cache of the task {self.name!r} (no COMPLETED); run seqio_cache_tasks "
                f"--tasks={self.name} --output_cache_dir={self.cached_in}"
            )
        return folder


AnyTask = Task | RegisteredTask


def describe(value: Any) -> Any:
    """Returns a dataclass (a source) as JSON: its class and fields, nested.

    A field with the metadata {"is_described": False} is left out: it does not change what the source yields.
    """
    if dataclasses.is_dataclass(value):
        described = [f.name for f in dataclasses.fields(value) if f.metadata.get("is_described", True)]
        fields = {name: describe(getattr(value, name)) for name in described}
        return {"type": _type_name(value), **fields}
    if isinstance(value, Mapping):
        return {k: describe(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return list(map(describe, value))
    if isinstance(value, str):
        return addresses.restored(value)  # a copy of a place in a bucket lies elsewhere on each machine
    return value if value is None or isinstance(value, int | float) else {"type": _type_name(value)}


def _type_name(value: Any) -> str:
    """Returns module and class; gin builds subclasses that carry the names of the class they configure."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Tasks and how often each is drawn.

    `rates`: 'proportional' (to the number of examples, each counted at most `maximum`), 'temperature' (sizes to the power
    1/temperature), or {task name: rate}. With `one_task_per_batch` every batch comes from one task, as both papers do.
    `tasks` may hold lists of tasks, such as a folder's files, which are taken one by one; `only` names those that are taken.
    """

    name: str
    tasks: Sequence[Any]
    rates: str | Mapping[str, Positive] = "proportional"
    temperature: Positive = 2.0
    maximum: Count | None = None
    one_task_per_batch: bool = True
    only: Sequence[str] = ()

    def __post_init__(self):
        flat = [one for t in self.tasks for one in (t if isinstance(t, list | tuple) else [t])]
        for name in self.only:
            if name not in {t.name for t in flat}:
                raise ConfigError(f"Mixture.only: no task {name!r}{did_you_mean(name, [t.name for t in flat])}")
        object.__setattr__(self, "tasks", [t for t in flat if not self.only or t.name in self.only])

    def check(self) -> None:
        """Raises ConfigError for an empty mixture, a name used twice, unknown or non-positive rates."""
        names = [t.name for t in self.tasks]
        if not names:
            raise ConfigError(f"Mixture {self.name!r} has no tasks; list at least one in Mixture.tasks")
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"Mixture {self.name!r} has two tasks called {name!r}; give each its own name")
        ranges.check_fields(self)
        if self.rates != "temperature" and self.temperature != type(self).temperature:
            raise ConfigError(
                f"Mixture.temperature = {self.temperature} has an effect with rates = 'temperature' only, not {self.rates!r}"
            )
        if isinstance(self.rates, Mapping) and self.maximum is not None:
            raise ConfigError(
                f"Mixture.maximum = {self.maximum} has an effect where rates follow from sizes, and they are given: "
                f"{dict(self.rates)}"
            )
        if isinstance(self.rates, str):
            if self.rates not in ("proportional", "temperature"):
                raise ConfigError(
                    f"Mixture.rates = {self.rates!r}; known: proportional, temperature, or {{task: rate}}"
                )
            return
        for name in self.rates:
            if name not in names and not self.only:
                raise ConfigError(f"Mixture.rates names {name!r}{did_you_mean(name, names)}")
        for name in names:
            if name not in self.rates:
                raise ConfigError(f"Mixture.rates has no rate for {name!r}; give one or remove the task")

    def weights(self, sizes: Mapping[str, int]) -> list[float]:
        """Returns how often each task is drawn, in order, as any positive numbers. `sizes` are examples per task."""
        if isinstance(self.rates, Mapping):
            return [self.rates[t.name] for t in self.tasks]
        capped = [min(sizes[t.name], self.maximum or sizes[t.name]) for t in self.tasks]
        return capped if self.rates == "proportional" else [float(n) ** (1.0 / self.temperature) for n in capped]

    def shares(self, sizes: Mapping[str, int]) -> list[float]:
        """Returns the share of draws of each task, in order, summing to 1. `sizes` are examples per task."""
        weights = self.weights(sizes)
        return [weight / sum(weights) for weight in weights]


def cache_key(task: AnyTask, tokenizer: Tokenizer, features: Sequence[Feature]) -> dict[str, Any]:
    """Returns what a cache is made from, except the content of the source."""
    return {
        "format": CACHE_FORMAT,
        "definition": task.definition(),
        "tokenizer": tokenizer.digest,
        "features": definitions(features),
    }
