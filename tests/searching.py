"""A search whose training is a formula, as a process that tests start, kill and start again; and lines that only seem to run.

usage: searching.py FOLDER [SECONDS]   Each training appends a line to FOLDER/trained.txt and takes that long.
"""

import ast
import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from embed import digests, documents, files
from embed.curation import rates, trials
from embed.curation.proposals import Proposer
from embed.curation.trials import Plan, Result, Search
from embed.evaluation import stored

NAMES, BEST = ["a", "b"], {"a": 0.7, "b": 0.3}
GRID, RANDOM, PROPOSALS = 3, 4, 5


def scores(point: Mapping[str, float]) -> dict[str, float]:
    """Two types that want other rates, and their mean."""
    apart, lean = (point["a"] - BEST["a"]) ** 2, 0.3 * (point["a"] - BEST["a"])
    return {"x": 0.7 - apart + lean, "y": 0.5 - apart - lean, "mean": 0.6 - apart}


def bindings(point: Mapping[str, float]) -> list[str]:
    """The rates as one binding, which `formula` reads."""
    return [f"{name}={rate}" for name, rate in point.items()]


def formula(seconds: float = 0.0, log: pathlib.Path | None = None) -> Callable[..., Result]:
    """Returns train(title, folder, bindings), whose scores are those of the rates."""

    def train(title: str, folder: pathlib.Path, words: Sequence[str]) -> Result:
        if log is not None:
            with open(log, "a", encoding="utf-8") as f:
                f.write(f"{folder.parent.name}/{folder.name}\n")
        time.sleep(seconds)
        if words[0] == "alone":
            return {"step": 100 * int(words[1]), "score": 0.5, "scores": {"mean": 0.5}}
        found = scores({name: float(rate) for name, _, rate in (word.partition("=") for word in words)})
        return {"step": 1, "score": found["mean"], "scores": found}

    return train


def plan(**changes) -> Plan:
    """Returns two tasks alone, a grid of three, four random mixtures and five proposals: twelve mixtures."""
    proposer = Proposer(NAMES, "mean", ["x", "y"])
    parts = {
        "alone": {"a": ["alone", "3"], "b": ["alone", "1"]},
        "grid": lambda steps: rates.grid(rates.from_steps(steps), (0.5, 2.0)),
        "grid_size": GRID,
        "kind": "grid",
        "random": proposer.seeds(RANDOM),
        "proposals": PROPOSALS,
        "proposer": proposer,
        "bindings": bindings,
    }
    return Plan(**{**parts, **changes})


def results(models: Mapping[str, Mapping[str, float]], suite: str) -> dict:
    """Returns the content of a results.json of models that score at sizes 8 and 4, by task and type."""
    types = {"pairs": ("retrieval", "ndcg_at_10"), "similar": ("sts", "cosine_spearman")}
    described = {}
    for name, values in models.items():
        by_view = lambda value: {"8": value, "4": value - 0.1}  # noqa: E731
        means = {"mean of the types": sum(values.values()) / 2, **values, "mean of the tasks": sum(values.values()) / 2}
        described[name] = {
            "model": name,
            "views": [{"name": v, "dim": int(v), "precision": "float32", "bytes": 4 * int(v)} for v in ("4", "8")],
            "means": {view: {k: by_view(m)[view] for k, m in means.items()} for view in ("4", "8")},
            "results": {
                task: {view: {main: score} for view, score in by_view(values[kind]).items()}
                for task, (kind, main) in types.items()
            },
        }
    facts = {"languages": [], "notes": []}
    return {
        "format": stored.FORMAT,
        "suite": suite,
        "suite_digest": "",
        "command": [],
        "environment": {"embed": "", "python": "", "platform": "", "packages": {}, "devices": {"kind": "", "count": 1}},
        "tasks": {task: {"type": kind, "group": kind, "main": main, **facts} for task, (kind, main) in types.items()},
        "models": described,
        "samples_digest": "",
    }


def by_type(point: Mapping[str, float]) -> dict[str, float]:
    """The scores of two rates, by the types of the suite of the tests."""
    first, second = point.values()
    values = scores({"a": first / (first + second), "b": second / (first + second)})
    return {"retrieval": values["x"], "sts": values["y"]}


@dataclasses.dataclass
class Lines:
    """Stands for the process of a line of `embed`: trains, averages and scores by formula. `fails` says which mixtures do not."""

    fails: Callable[[str], int] = lambda folder: 0
    ran: list[Sequence[str]] = dataclasses.field(default_factory=list)

    def __call__(self, line: Sequence[str], shown: str, log: pathlib.Path) -> int:
        self.ran.append(line)
        options = dict(word.removeprefix("--").split("=", 1) for word in line if word.startswith("--") and "=" in word)
        code = self.fails(log.parent.name) if line[0] == "train" else 0
        log.write_text("embed: it went wrong\n" if code else "done\n")
        if not code:
            getattr(self, f"_{line[0]}")(line, options)
        return code

    def count(self, command: str) -> int:
        """How many lines of a command were run."""
        return sum(line[0] == command for line in self.ran)

    def _train(self, line, options) -> None:
        run = pathlib.Path(options["run_dir"])
        rates_of_run = {"first": 0.5, "second": 0.5}
        with contextlib.suppress(ValueError, SyntaxError):
            rates_of_run = ast.literal_eval(options["gin.tasks.Mixture.rates"])
        step = 300 if "first" in options.get("gin.tasks.Mixture.only", "") else 100
        values = by_type(rates_of_run)
        values |= {"mean of the types": sum(values.values()) / 2, "pairs/ndcg_at_10": values["retrieval"]}
        metric = options.get("gin.recipe.Recipe.best_metric", "'mean of the types'").strip("'")
        for folder in (run / "evaluation" / str(step), run / "evaluation" / "400"):
            folder.mkdir(parents=True)
            files.write_json(folder / "scores.json", values)
        files.write_json(run / "rates.json", rates_of_run)
        files.write_json(run / "best.json", {"step": step, "score": values[metric], "metric": metric})

    def _average(self, line, options) -> None:
        points = [documents.read_json(pathlib.Path(w) / "rates.json") for w in line[1:] if not w.startswith("--")]
        pathlib.Path(options["output"]).mkdir(parents=True)
        soup = {name: sum(p[name] for p in points) / len(points) for name in points[0]}
        files.write_json(pathlib.Path(options["output"]) / "rates.json", soup)

    def _evaluate(self, line, options) -> None:
        named = [w.partition("=") for w in line[1:] if not w.startswith("--")]
        models = {name: by_type(documents.read_json(pathlib.Path(path) / "rates.json")) for name, _, path in named}
        if "test" in options["suite"]:
            models = {name: {k: v - 0.05 for k, v in values.items()} for name, values in models.items()}
        pathlib.Path(options["output"]).mkdir(parents=True)
        digests.write_sealed(pathlib.Path(options["output"]) / "results.json", results(models, options["suite"]))


if __name__ == "__main__":
    trials.POLL_SECONDS = 0.05
    place = pathlib.Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    pause = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    Search(place, plan(), formula(pause, place / "trained.txt")).work()
