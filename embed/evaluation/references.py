"""Published scores of other models, each with its source, to stand beside ours where the task is the same."""

import functools
import json
import pathlib


@functools.cache
def load() -> dict:
    """Returns references.json: {"sources": {model: source}, "tasks": {MTEB's name: {model: percent}}, "benchmarks": ...}."""
    return json.loads(pathlib.Path(__file__).with_name("references.json").read_text(encoding="utf-8"))


def of_task(name: str | None) -> dict[str, float]:
    """Returns {model: score in [0, 1]} of a task by its name in MTEB; nothing when none is known."""
    return {model: value / 100 for model, value in load()["tasks"].get(name, {}).items()}


def of_benchmark(name: str) -> dict[str, dict[str, float]]:
    """Returns {model: {"task": mean over tasks, "type": mean over types}} in [0, 1] of a benchmark."""
    return {
        model: {kind: value / 100 for kind, value in means.items()}
        for model, means in load()["benchmarks"].get(name, {}).items()
    }


def source(model: str) -> str:
    """Returns where a model's scores were published."""
    return load()["sources"][model]
