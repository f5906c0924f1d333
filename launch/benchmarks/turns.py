"""What the benchmarks share: both sides take turns in one run, and what they took is told against its target."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Ratio:
    """One comparison: `value` is how many times the peer's it is, wanted to be at least (or with `at_most` at most) `target`."""

    what: str
    value: float
    target: float | None = None
    at_most: bool = False
    digits: int = 2

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def take_turns(runs: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of every round of every run; in each round all run once, one after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
            print(f"round {number + 1} of {rounds}: {name} {seconds[name][-1]:.3g} s", flush=True)
    return seconds


def our_steps(folder: pathlib.Path, source, pairs: pathlib.Path, given: Mapping) -> list[float]:
    """Trains with `embed train`, in this process, and returns the seconds of each step."""
    from embed.commands.main import main

    bindings = {
        "SOURCE": repr(str(source)),
        "PAIRS": repr(str(pairs)),
        "CACHE_DIR": repr(str(folder / "cache")),
        "CHECKPOINT_EVERY": 1000,
        "WARMUP_STEPS": 0,
        "recipe.Recipe.num_negatives": 0,
        "loop.Schedule.log_every": 1,
        **given,
    }
    run_dir = tempfile.mkdtemp(dir=folder)
    recipe = "--gin_file=gin/recipes/finetune_sentence_transformer.gin"
    try:
        main(["train", recipe, f"--run_dir={run_dir}", *(f"--gin.{k}={v}" for k, v in bindings.items())])
    except SystemExit as e:
        if e.code:
            raise
    rows = map(json.loads, (pathlib.Path(run_dir) / "metrics.jsonl").read_text().splitlines())
    return [row["seconds_per_step"] for row in rows if row["kind"] == "train"]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Returns the median and the least and most of some seconds."""
    return f"{median(values):.{digits}g} ({min(values):.{digits}g} - {max(values):.{digits}g})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def finish(job: str, ratios: Sequence[Ratio], details: Mapping, text: str, output: str | None) -> None:
    """Prints the job's own table and its ratios, and writes both with all numbers under `output`."""
    verdicts = {True: "met", False: "missed", None: "-"}
    rows = [
        [
            r.what,
            f"{r.value:.{r.digits}f}",
            "-" if r.target is None else f"{'at most' if r.at_most else 'at least'} {r.target:.{r.digits}f}",
            verdicts[r.met],
        ]
        for r in ratios
    ]
    text = f"## {job}\n\n{text}\n\n{table(['ratio', 'measured', 'target', ''], rows)}\n"
    print(f"\n{text}", flush=True)
    if output is None:
        return
    folder = pathlib.Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{job}.md").write_text(text, encoding="utf-8")
    found = {
        "job": job,
        "machine": machine(),
        "ratios": [{**dataclasses.asdict(r), "met": r.met} for r in ratios],
        **details,
    }
    (folder / f"{job}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def machine() -> dict:
    """Returns what the numbers depend on beside the code."""
    packages = ("embed", "jax", "torch", "sentence-transformers", "faiss-cpu")
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    cpu = next(
        (x.partition(":")[2].strip() for x in _lines("/proc/cpuinfo") if x.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": versions,
    }


def _lines(path: str) -> list[str]:
    file = pathlib.Path(path)
    return file.read_text().splitlines() if file.is_file() else []
