"""One training run of a recipe, from Python: `train.run(recipe, run_dir)`. Wires the rooms together and starts the loop."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from embed import architectures, bundles, console, documents, environment, files, hosts, sharding
from embed.buckets import copies
from embed.data import cache, prepare
from embed.data.examples import ORDER, Examples
from embed.data.holdout import Subset, split
from embed.data.interleaved import Interleaved, slots_of
from embed.data.loader import Batches
from embed.data.tasks import Mixture, describe
from embed.data.text_features import text_features
from embed.errors import ConfigError, DataError
from embed.models import api
from embed.text import template
from embed.training import loop, optimizers, weights_and_biases
from embed.training.validation import Validation
from embed.workflows import foreign, init_from, start, summary, teacher
from embed.workflows.recipe import Recipe


def run(
    recipe: Recipe,
    run_dir,
    configuration: Mapping[str, str] | None = None,
    *,
    copy_to: str | None = None,
    profile_steps: int = 0,
    wandb_project: str | None = None,
) -> int:
    """Trains `recipe` in the folder `run_dir`, or resumes it there, and returns the last step.

    Missing token caches are prepared, and what will happen is printed before it does. `configuration` are files that describe
    the run, name -> text, written once it begins. Another process that trains in the same folder is a StorageError, a recipe
    that does not continue what the folder holds a DataError, and SIGTERM raises Preempted after saving. `profile_steps` steps are
    traced by JAX's profiler into the run's folder `profile`. With `wandb_project` metrics go to Weights & Biases too. The address
    `copy_to` in a bucket gets what the folder has, while the run goes on.
    """
    run_dir = copies.local(run_dir)
    if wandb_project is not None and hosts.is_main():
        weights_and_biases.check(run_dir, wandb_project)
    watching = {"profile_steps": profile_steps, "wandb_project": wandb_project}
    with files.FolderLock(run_dir) if hosts.is_main() else contextlib.nullcontext():
        hosts.share(run_dir, "the run folder is locked")
        if copy_to is not None and hosts.is_main():
            copies.follow(run_dir, copy_to)
        step = _train(init_from.complete(recipe), run_dir, configuration or {}, watching)
        copies.push()
        return step


def _describe_run(run_dir: pathlib.Path, configuration: Mapping[str, str]) -> None:
    """Writes the files of the configuration and environment.json, and says when a resumed run's configuration changed."""
    operative = configuration.get("operative_config.gin", "")
    before = run_dir / "operative_config.gin"
    if before.exists() and before.read_text(encoding="utf-8") != operative:
        old, new = set(before.read_text(encoding="utf-8").splitlines()), operative.splitlines()
        changed = [line for line in new if line not in old]
        console.say(
            f"note       the configuration changed since this run began: {'; '.join(changed[:3]) or 'lines removed'}"
        )
    for name, text in configuration.items():
        files.write_atomic(run_dir / name, text)
    files.write_json(run_dir / "environment.json", environment.describe())


def _train(recipe: Recipe, run_dir: pathlib.Path, configuration: Mapping[str, str], watching: Mapping[str, Any]) -> int:
    """Returns the last step of a recipe with nothing left open, while the folder is locked."""
    mesh = sharding.make_mesh(recipe.mesh)
    sharding.check_batch_size(recipe.batch_size, mesh, recipe.micro_batches or 1)
    suite = _suite(recipe)
    caches = _caches(recipe)
    model = api.build(recipe.model)
    _check_vocabulary(model, recipe.tokenizer)
    _check_slots(model, recipe.record_features)
    for note in [*teacher.check(recipe, model), *teacher.notes_of_tasks(recipe, caches)]:
        console.say(f"note       {note}")
    for feature in recipe.record_features:
        for one in caches:
            feature.check(one)
    learned, held_out = (caches, []) if recipe.validation_share is None else split(caches, recipe.validation_share)
    recipe = dataclasses.replace(recipe, schedule=recipe.schedule.sized(sum(map(len, learned)), recipe.batch_size))
    examples = Examples(recipe.mixture, learned, recipe.record_features, recipe.batch_size, recipe.seed)
    batches = Batches(
        examples,
        sharding.batch_shards(mesh),
        packs="text" in model.methods and model.methods["text"].packs,
        tokenizer=recipe.tokenizer,
        max_shapes=recipe.max_shapes,
    )
    contents = _contents(recipe, model, examples, run_dir)
    for line in summary.lines(recipe, model, examples, mesh):
        console.say(line)
    training = loop.Run(
        run_dir=run_dir,
        model=model,
        objective=recipe.built_objective(model),
        optimizer=optimizers.over(recipe.optimizer, recipe.schedule.steps),
        batches=batches,
        mesh=mesh,
        schedule=recipe.schedule,
        contents=contents,
        identity=_identity(recipe, examples),
        seed=recipe.seed,
        start_from=None if recipe.init_from is None else start.Start(recipe, model).read,
        evaluate=None if suite is None else _evaluator(recipe, model, mesh, suite),
        validation=_validation(recipe, model, mesh, held_out),
        best_metric=recipe.best_metric,
        scored_on=documents.digest_json([None if suite is None else suite.digest, recipe.validation_share]),
        micro_batches=recipe.micro_batches,
        **watching,
        begin=lambda: _describe_run(run_dir, configuration) if hosts.is_main() else None,
    )
    step = int(loop.train(training).step)
    console.say(f"done       {run_dir} at step {step}" + _best_text(bundles.read_best(run_dir)))
    return step


def _suite(recipe: Recipe):
    """Returns the suite of a recipe, read, or None. A best metric that is not scored is a ConfigError."""
    if recipe.suite is None and recipe.best_metric is None:
        return None
    from embed.evaluation import suites
    from embed.workflows import best_metric

    suite = None if recipe.suite is None else suites.read_suite(recipe.suite)
    if recipe.best_metric is not None:
        best_metric.check(recipe.best_metric, suite, recipe.validation_share is not None)
    return suite


def _best_text(best) -> str:
    return f"; best step {best['step']} with {best['metric']} {best['score']:.4f}" if best else ""


def _caches(recipe):
    """Returns the recipe's caches; process 0 prepares what is missing while the others wait."""

    def say(line: str) -> None:
        hosts.at("preparing token caches")  # the others wait as long as this goes on
        console.say(f"data       {line}")

    arguments = (recipe.mixture, recipe.tokenizer, recipe.record_features, recipe.cache_dir)
    if hosts.is_main():
        caches = prepare.ensure_caches(*arguments, say=say)
    hosts.share(recipe.cache_dir, "token caches prepared")
    if not hosts.is_main():
        caches = [cache.find(task, *arguments[1:]) for task in recipe.mixture.tasks]
        if None in caches:
            raise DataError(
                f"{recipe.cache_dir}: not shared by all hosts; put cache_dir into a bucket or on a common file system"
            )
    return caches


def _check_vocabulary(model, tokenizer) -> None:
    size = architectures.text_encoder(model.description).get("vocab_size")
    if size is not None and size < tokenizer.vocab_size:
        raise ConfigError(
            f"{tokenizer.path}: {tokenizer.vocab_size} pieces, but the encoder has vocab_size = {size}; set it to at least that"
        )


def _check_slots(model, features) -> None:
    """Raises ConfigError if per_image, before or after of an `Interleaved` feature differ from the model's."""
    for feature in features:
        if not isinstance(feature, Interleaved):
            continue
        read = slots_of(model.description, feature.size)
        for name in ("per_image", "before", "after") if read is not None else ():
            given, expected = getattr(feature, name), getattr(read, name)
            if given != expected:
                raise ConfigError(
                    f"Interleaved.{name} of {feature.name!r} is {given!r}, and the model reads images of {feature.size} pixels "
                    f"with {expected!r}; set it to {expected!r}"
                )


def _identity(recipe, examples) -> dict:
    """Returns what must not change while a run lasts, or its batches would not be those it began with."""

    mixture = {k: v for k, v in describe(recipe.mixture).items() if k not in ("tasks", "type", "only")}
    return {
        "seed": recipe.seed,
        "batch_size": recipe.batch_size,
        "num_negatives": recipe.num_negatives,
        "lengths": dataclasses.asdict(recipe.lengths),
        "features": documents.digest_json([[describe(f), f.identity()] for f in examples.features]),
        "vocabulary": recipe.tokenizer.digest,
        "mixture": documents.digest_json(mixture),
        "data": documents.digest_json([c.digest for c in examples.caches]),
        "order": ORDER,
        "start": _start_digest(recipe),
        "validation_share": recipe.validation_share,
        **getattr(recipe.objective, "identity", dict)(),
        **({} if recipe.lora is None else {"lora": dataclasses.asdict(recipe.lora)}),
        **({} if recipe.quantization is None else {"quantization": recipe.quantization.describe()}),
    }


def _start_digest(recipe) -> str:
    """Returns what a run starts from: 'random', or the digest of a model."""
    return "random" if recipe.init_from is None else foreign.digest_of(bundles.resolve(recipe.init_from))


def _came_from(recipe, run_dir: pathlib.Path) -> dict:
    """Returns the part of a run's lineage that its start decides: that of its checkpoints, where it has any."""
    steps = files.committed_steps(run_dir / "checkpoints")
    if steps:
        lineage = bundles.read_model_json(run_dir / "checkpoints" / str(steps[-1]))["lineage"]
        return {name: lineage[name] for name in ("initial", "from") if name in lineage}
    if recipe.init_from is None:
        return {"initial": f"random, seed {recipe.seed}"}
    start = bundles.resolve(recipe.init_from)
    return {"initial": files.folder_digest(start), "from": bundles.read_model_json(start)["lineage"]}


def _contents(recipe, model, examples, run_dir: pathlib.Path):
    """Returns the function that gives the small files of a checkpoint."""

    has_texts = not architectures.takes_no_text(model.description)
    tokenizer = recipe.tokenizer.content() if has_texts else b""
    came_from = _came_from(recipe, run_dir)
    start = {} if recipe.init_from is None else bundles.read_model_json(bundles.resolve(recipe.init_from))
    kept = {name: start[name] for name in ("default_prompt_name",) if name in start}
    if recipe.quantization is not None:
        kept["quantization"] = recipe.quantization.describe()

    def contents(step: int) -> dict[str, bytes]:
        lineage = {
            **came_from,
            "step": step,
            "batch_size": recipe.batch_size,
            "mixture": {c.name: share for c, share in zip(examples.caches, examples.shares)},
        }
        if not has_texts:
            dims = model.matryoshka_dims
            return bundles.contents(bundles.image_model_json(model.description, matryoshka_dims=dims, lineage=lineage))
        description = bundles.model_json(
            model.description,
            tokenizer_options=recipe.tokenizer.options(),
            tokenizer_digest=recipe.tokenizer.digest,
            prompts=dict(recipe.prompts),
            text_normalization=recipe.text_normalization,
            **kept,
            matryoshka_dims=model.matryoshka_dims,
            lengths={
                **{f.name: f.length for f in text_features(examples.features) if f.each == ()},
                "inference": recipe.max_length,
            },
            lineage=lineage,
        )
        return bundles.contents(description, recipe.tokenizer.filename, tokenizer)

    return contents


def _validation(recipe, model, mesh, held_out: Sequence[Subset]) -> Validation | None:
    """Returns what scores the examples that are held out."""
    if recipe.validation_share is None:
        return None
    some = [subset for subset in held_out if len(subset)]
    names = {subset.name for subset in some}
    console.say(
        f"validation {sum(map(len, some)):,} of {sum(len(subset.groups) for subset in held_out):,} examples are held out; their "
        f"loss is reported every {recipe.schedule.evaluate_every} steps"
    )
    mixture = Mixture(
        f"{recipe.mixture.name}, held out",
        [task for task in recipe.mixture.tasks if task.name in names],
        one_task_per_batch=recipe.mixture.one_task_per_batch,
        only=tuple(names),  # a part of the tasks, which may have no lists that others have
    )
    return Validation(recipe.built_objective(model), mixture, some, mesh)


def _evaluator(recipe, model, mesh, suite):
    """Returns evaluate(params) -> {'task/score': main scores, type: means} of the recipe's suite, at full size."""
    # Scoring loads scipy, which takes as long as JAX itself: only where there is something to score.
    from embed.evaluation import runner
    from embed.evaluation.embeddings import Embeddings
    from embed.evaluation.views import View
    from embed.inference import search
    from embed.inference.encoder import Encoder
    from embed.inference.item_encoder import ItemEncoder
    from embed.inference.model import image_encoder

    normalization = {"text_normalization": recipe.text_normalization}
    has_texts = not architectures.takes_no_text(model.description)
    texts = (
        Encoder(model, recipe.tokenizer, recipe.prompts, recipe.max_length, mesh, **normalization)
        if has_texts
        else None
    )
    encoder = ItemEncoder(model, mesh, texts, image_encoder(model, mesh))
    view = View(model.embedding_dim)
    mains = {f"{task.name}/{task.main}" for task in suite.tasks}

    def evaluate(params) -> dict[str, float]:
        encode = lambda texts, **options: encoder(params, texts, **options)  # noqa: E731
        embeddings = Embeddings(encode, lambda prompt: template(prompt, dict(recipe.prompts)))
        patches = functools.partial(encoder.patches, params)
        image_size = None if encoder.images is None else encoder.images.size
        given = {"patches": patches, "image_size": image_size, "takes_texts": has_texts}
        results = runner.run(suite, embeddings, [view], search.top_k, **given)
        scores = results.scores
        values = {f"{task}/{n}": v for task, views in scores.items() for n, v in views[view.name].items()}
        shown = {n: values[n] for n in values if n in mains or n == recipe.best_metric}
        return {**shown, **runner.means(scores, suite)[view.name]}

    return evaluate
