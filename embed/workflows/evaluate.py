"""Models and baselines on a suite of local files, at every Matryoshka size and precision."""

import os
import pathlib
from collections.abc import Mapping, Sequence

from embed import bundles, console, environment, files, hosts, markdown
from embed.buckets import addresses
from embed.errors import ConfigError, UsageError, did_you_mean
from embed.evaluation import bm25, outputs, runner, suites, universal_tasks, views
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.tasks import Scored
from embed.inference import model as inference
from embed.inference import search
from embed.inference import weights as precisions
from embed.text import template
from embed.workflows import compare

BASELINES = ("random", "bm25", universal_tasks.SPECIALISTS)


def run(
    models: Mapping[str, str],
    suite,
    output,
    *,
    tasks: Sequence[str] | None = None,
    dims: Sequence[int] = (),
    precisions: Sequence[str] = ("float32",),
    weights: Sequence[str] = ("float32",),
    baselines: Sequence[str] = (),
    against: str | None = None,
    max_length: int | None = None,
    vectors=None,
    command: Sequence[str] = (),
) -> None:
    """Scores `models` {name: MODEL} on the suite file `suite` by MTEB's protocols and writes the new folder `output`.

    `tasks` names those of the suite that are run. `dims` default to each model's Matryoshka sizes. `precisions` are those of the
    vectors (float32, int8, binary, binary-rescored), `weights` those of the weights, each scored as a model of its own.
    `baselines` are of BASELINES; random has untrained weights of the first model, specialists scores each domain of a universal
    retrieval task with the model named after it. `against` names the model that the others are compared with, item by item.
    `vectors` is where embedded texts are kept ('off' keeps none), `command` what is written down as
    having made the results.
    """
    for baseline in baselines:
        if baseline not in BASELINES:
            raise UsageError(f"--baselines: {baseline!r}{did_you_mean(baseline, BASELINES)}")
    levels = _levels(models, weights)
    names = [name for name, _, _ in levels]
    for name in baselines:
        if name in names:
            raise UsageError(
                f"a model and a baseline are both called {name!r}; give the model another name: NAME=MODEL"
            )
    if against is not None and against not in (*names, *baselines):
        raise UsageError(f"--against={against}{did_you_mean(against, [*names, *baselines])}")
    opened = suites.read_suite(suite, tasks)
    if universal_tasks.SPECIALISTS in baselines:
        _check_specialists(opened, names)
    if hosts.is_main():
        files.check_new(pathlib.Path(output))
    collected = outputs.Collected(opened, environment.describe(), list(command))
    for task in opened.tasks:
        left_out = runner.unjudged(task)
        remarks = [f"{left_out} queries without any judged document are left out"] if left_out else []
        for remark in (*remarks, *task.remarks):
            collected.note(task.name, remark)
            _say(f"{task.name}: {remark}")
    scoring = _Scoring(collected, opened, suite, dims, precisions, max_length, vectors)
    if "random" in baselines:
        scoring.score("random", next(iter(models.values())), random=True)
    for name, path, kind in levels:
        _say(f"scoring {name}")
        scoring.score(name, path, weights=kind)
    hosts.sync("all models are scored")
    if not hosts.is_main():
        return
    if "bm25" in baselines:
        scored = {task.name: bm25.score(task) for task in opened.tasks if bm25.applies(task)}
        if not scored:
            print("bm25: no task of the suite ranks documents, so it has no row")
        else:
            collected.add_level("bm25", bm25.DESCRIPTION, scored)
    if universal_tasks.SPECIALISTS in baselines:
        scored = {}
        for task in _universal(opened):
            scores = collected.first_scores(task.name)
            scored[task.name] = Scored(universal_tasks.of_specialists(list(task.domains), scores), None)
        collected.add_level(universal_tasks.SPECIALISTS, universal_tasks.DESCRIPTION, scored)
    compare.write(collected.results(against), collected.samples, output, collected.pictures)


def _universal(suite) -> list[universal_tasks.UniversalRetrieval]:
    return [task for task in suite.tasks if isinstance(task, universal_tasks.UniversalRetrieval)]


def _check_specialists(suite, names: Sequence[str]) -> None:
    """Raises UsageError unless every domain of a universal retrieval task has a model of its name."""
    domains = {name for task in _universal(suite) for name in task.domains}
    if not domains:
        raise UsageError("--baselines=specialists needs a task of the type universal_retrieval, and the suite has none")
    missing = sorted(domains - set(names))
    if missing:
        raise UsageError(f"--baselines=specialists: the domain {missing[0]!r} has no model; give {missing[0]}=MODEL")


def _say(line: str) -> None:
    """Prints one line on the main host; names in it send no control characters to the terminal."""
    console.say(markdown.printable(line))


def _levels(models: Mapping[str, str], weights: Sequence[str]) -> list[tuple[str, str, str]]:
    """Returns (name, path, precision of the weights) of every model to score; what cannot be opened or named is refused."""
    for kind in weights:
        if kind not in precisions.KINDS:
            raise UsageError(f"--weights: {kind!r}{did_you_mean(kind, precisions.KINDS)}")
    for path in models.values():
        bundles.resolve(path)
    levels = [
        (name if kind == "float32" else f"{name} {kind}-weights", path, kind)
        for name, path in models.items()
        for kind in weights
    ]
    names = [name for name, _, _ in levels]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name!r} would be scored twice; give each precision of --weights once, and other names")
    return levels


class _Scoring:
    """Scores one model after the other on a suite, and adds each to what is collected. All hosts embed, the main one scores."""

    def __init__(self, collected, suite, suite_path, dims, precisions, max_length, vectors):
        self._collected, self._suite, self._suite_path = collected, suite, suite_path
        self._dims, self._precisions = list(dims), list(precisions)
        self._max_length, self._vectors = max_length, vectors

    def score(self, name: str, path: str, random: bool = False, weights: str = "float32") -> None:
        """Scores the model at `path` under `name`."""
        num_cut = [0]

        def overflow(truncated: int, total: int) -> None:
            del total
            num_cut[0] += truncated

        hosts.sync("the model before is scored")
        model = inference.open_model(
            path, max_length=self._max_length, random=random, overflow=overflow, weights=weights
        )
        for line in precisions.notes(model.stored, weights, model.encoder.model.axes):
            _say(f"{name}: {line}")
        dims, size = self._dims or list(model.matryoshka_dims), model.embedding_dim
        if any(not 1 <= dim <= size for dim in dims):
            raise UsageError(f"--dims={','.join(map(str, dims))}: this model gives 1 to {size}")
        served = views.views(dims, self._precisions)
        prompt_template = lambda prompt: template(prompt, model.prompts)  # noqa: E731
        self._check_prompts(prompt_template)
        self._check_modalities(name, model)
        kept = None if random or not hosts.is_main() else _vectors_folder(self._vectors, model)
        embeddings = Embeddings(model.encode, prompt_template, kept, _say, hosts.agree)
        takes_texts = model.max_length is not None
        parts = [part for task in self._suite.tasks for part in runner.parts_of(task, takes_texts).values()]
        new, total = len(embeddings.missing(parts)), sum(map(len, parts))
        _say(f"{name}: {new} items to embed, {total} in all tasks, as {', '.join(view.name for view in served)}")
        if not hosts.is_main():
            embeddings.embed(parts)
            runner.follow(self._suite, embeddings, model.patches, model.image_size, takes_texts)
            return
        with console.text_bar(new, every_minute=True) as progress:
            scores = runner.run(
                self._suite,
                embeddings,
                served,
                search.top_k,
                _say,
                progress,
                model.patches,
                model.image_size,
                takes_texts=takes_texts,
            )
        facts = {
            "model": addresses.restored(str(path)),
            "folder": addresses.restored(str(model.folder)),
            "digest": model.digest,
            "dtype": model.dtype,
            "weights": weights,
            **(
                {"quantization": model.description["quantization"]["name"]}
                if "quantization" in model.description
                else {}
            ),
            "weight_bytes": model.weight_bytes,
            "max_length": model.max_length,
            "embedding_dim": size,
            "texts": {
                "all": total,
                "embedded_now": new,
                "cut_at_max_length": num_cut[0] if new == total else None,
            },  # of kept ones nobody knows
            "data": dict(self._suite.task_digests),
            "prompts": {
                task.name: {
                    part: prompt_template(texts.prompt) for part, texts in runner.parts_of(task, takes_texts).items()
                }
                for task in self._suite.tasks
            },
        }
        self._collected.add(name, facts, served, scores)

    def _check_prompts(self, prompt_template) -> None:
        """Raises ConfigError for a task whose prompt the model does not have."""
        for task in self._suite.tasks:
            for texts in task.parts().values():
                try:
                    prompt_template(texts.prompt)
                except ConfigError as e:
                    raise ConfigError(f"{self._suite_path}: task {task.name!r}: {e}") from e

    def _check_modalities(self, name: str, model) -> None:
        """Raises UsageError for the first task of items that the model does not embed."""
        for task in self._suite.tasks:
            for part in task.items():
                kind = next((k for k, lacks in _lacking(part, model).items() if lacks), None)
                if kind is not None:
                    raise UsageError(
                        f"{self._suite_path}: task {task.name!r} has {kind}, and {name} embeds none; pick other tasks with --tasks"
                    )


def _lacking(part, model) -> dict[str, bool]:
    """Returns for each kind of items whether a task's part has it and the model does not."""
    items = [part.item(row) for row in range(len(part))]
    return {
        "images": not model.takes_images and any(item.images for item in items),
        "texts": model.max_length is None and any(item.text is not None for item in items),
    }


def _vectors_folder(given: str | None, model) -> pathlib.Path | None:
    """Returns where a model's vectors are kept, by all that they depend on; None keeps none."""
    if given == "off":
        return None
    base = given or os.environ.get("EMBED_VECTORS") or pathlib.Path.home() / ".cache" / "embed" / "vectors"
    digest, _, weights = model.digest.partition("-")
    parts = [digest[:24], str(model.max_length), model.dtype, *([weights] if weights else [])]
    return pathlib.Path(base) / "-".join(parts)
