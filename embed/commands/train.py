"""`embed train`: one run from a gin recipe. Wires the rooms together and hands over to the loop."""

import functools
import pathlib

from embed import console, trees
from embed.commands import options, runtime

TASKS_SHOWN = 20  # in the summary of a run
SUMMARY = (
    "Train a model from a gin recipe. Running the same command again resumes the run, or says that it is complete."
)


def log_path(arguments) -> pathlib.Path:
    """Returns where output is kept that cannot be printed any more."""
    return pathlib.Path(arguments.run_dir) / console.LOG


def add_arguments(parser) -> None:
    parser.add_argument(
        "--run_dir",
        required=True,
        type=options.path,
        help="folder of the run: config, checkpoints, metrics, evaluations",
    )
    parser.add_argument("--distributed", action="store_true", help="join the other hosts of a TPU pod or Slurm job")
    runtime.add_gin_arguments(parser)


def run(arguments) -> None:
    runtime.start(arguments.distributed)
    import contextlib

    from embed import config, hosts
    from embed.commands import start
    from embed.commands.recipe import Recipe
    from embed.files import FolderLock

    recipe, given, operative = config.build(Recipe, arguments.gin_file, arguments.gin_bindings)
    run_dir = pathlib.Path(arguments.run_dir)
    with FolderLock(run_dir) if hosts.is_main() else contextlib.nullcontext():
        begin = functools.partial(_describe_run, run_dir, given, operative) if hosts.is_main() else lambda: None
        train(start.complete(recipe), run_dir, begin)


def _describe_run(run_dir: pathlib.Path, given: str, operative: str) -> None:
    """Writes config.gin, operative_config.gin and environment.json, and says when a resumed run's configuration changed."""
    from embed import files
    from embed.training import reports

    before = run_dir / "operative_config.gin"
    if before.exists() and before.read_text(encoding="utf-8") != operative:
        old, new = set(before.read_text(encoding="utf-8").splitlines()), operative.splitlines()
        changed = [line for line in new if line not in old]
        reports.say(
            f"note       the configuration changed since this run began: {'; '.join(changed[:3]) or 'lines removed'}"
        )
    files.write_atomic(run_dir / "config.gin", given)
    files.write_atomic(before, operative)
    files.write_json(run_dir / "environment.json", runtime.environment())


def train(recipe, run_dir: pathlib.Path, begin=lambda: None) -> None:
    """Prepares missing caches, says what will happen, and trains `recipe` in `run_dir`. `begin` is called when it begins."""
    from embed import bundles, sharding
    from embed.data import prepare
    from embed.data.loader import Batches, Examples
    from embed.models import api
    from embed.training import loop, reports

    mesh = sharding.make_mesh(recipe.mesh)
    sharding.check_batch_size(recipe.batch_size, mesh, recipe.micro_batches or 1)
    caches = _caches(recipe, prepare)
    model = api.build(recipe.model)
    _check_vocabulary(model, recipe.tokenizer)
    examples = Examples(recipe.mixture, caches, recipe.batch_size, recipe.num_negatives, recipe.seed)
    batches = Batches(
        examples,
        sharding.batch_shards(mesh),
        packs=model.methods["text"].packs,
        pad_id=recipe.tokenizer.pad_id,
        most_shapes=recipe.most_shapes,
    )
    contents = _contents(recipe, model, examples, run_dir)
    for line in summary(recipe, model, examples, mesh):
        reports.say(line)
    run = loop.Run(
        run_dir=run_dir,
        model=model,
        objective=recipe.built_objective(model),
        optimizer=recipe.optimizer,
        batches=batches,
        mesh=mesh,
        schedule=recipe.schedule,
        contents=contents,
        identity=_identity(recipe, examples),
        seed=recipe.seed,
        start_from=None if recipe.init_from is None else _starter(recipe, model),
        evaluate=None if recipe.suite is None else _evaluator(recipe, model, mesh),
        best_metric=recipe.best_metric,
        micro_batches=recipe.micro_batches,
        begin=begin,
    )
    step = int(loop.train(run).step)
    reports.say(f"done       {run_dir} at step {step}" + _best_text(bundles.read_best(run_dir)))


def _best_text(best) -> str:
    return f"; best step {best['step']} with {best['metric']} {best['score']:.4f}" if best else ""


def _caches(recipe, prepare):
    """Returns the recipe's caches; process 0 prepares what is missing while the others wait."""
    from embed import hosts
    from embed.data import cache
    from embed.errors import DataError
    from embed.training import reports

    def say(line: str) -> None:
        hosts.at("preparing token caches")  # the others wait as long as this goes on
        reports.say(f"data       {line}")

    arguments = (recipe.mixture, recipe.tokenizer, recipe.lengths, recipe.cache_dir)
    if hosts.is_main():
        caches = prepare.ensure_caches(*arguments, say=say)
    hosts.sync("token caches prepared")
    if not hosts.is_main():
        caches = [cache.find(task, recipe.tokenizer, recipe.lengths, recipe.cache_dir) for task in recipe.mixture.tasks]
        if None in caches:
            raise DataError(f"{recipe.cache_dir}: not shared by all hosts; put cache_dir on a common file system")
    return caches


def _check_vocabulary(model, tokenizer) -> None:
    from embed.errors import ConfigError

    size = model.description["encoder"].get("vocab_size")
    if size is not None and size < tokenizer.vocab_size:
        raise ConfigError(
            f"{tokenizer.path}: {tokenizer.vocab_size} pieces, but the encoder has vocab_size = {size}; set it to at least that"
        )


def _identity(recipe, examples) -> dict:
    """Returns what must not change while a run lasts, or its batches would not be those it began with."""
    import dataclasses

    from embed import documents
    from embed.data import loader
    from embed.data.tasks import describe

    mixture = {k: v for k, v in describe(recipe.mixture).items() if k not in ("tasks", "type", "only")}
    return {
        "seed": recipe.seed,
        "batch_size": recipe.batch_size,
        "num_negatives": recipe.num_negatives,
        "lengths": dataclasses.asdict(recipe.lengths),
        "vocabulary": recipe.tokenizer.digest,
        "mixture": documents.digest_json(mixture),
        "data": documents.digest_json([c.digest for c in examples.caches]),
        "order": loader.ORDER,
        "start": _start_digest(recipe),
        **({} if recipe.lora is None else {"lora": dataclasses.asdict(recipe.lora)}),
    }


def _start_digest(recipe) -> str:
    """Returns what a run starts from: 'random', or the digest of a model.

    Of a folder of another tool it is that of its weights: converting it again gives other files of the same model.
    """
    from embed import bundles, documents, files

    if recipe.init_from is None:
        return "random"
    folder = bundles.resolve(recipe.init_from)
    weights = bundles.read_model_json(folder)["lineage"].get("weights")
    return files.folder_digest(folder) if weights is None else documents.digest_json(weights)


def _came_from(recipe, run_dir: pathlib.Path) -> dict:
    """Returns the part of a run's lineage that its start decides: that of its checkpoints, where it has any."""
    from embed import bundles, files

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
    import dataclasses

    from embed import bundles

    tokenizer = recipe.tokenizer.content()
    came_from = _came_from(recipe, run_dir)
    start = {} if recipe.init_from is None else bundles.read_model_json(bundles.resolve(recipe.init_from))
    kept = {name: start[name] for name in ("default_prompt_name",) if name in start}

    def contents(step: int) -> dict[str, bytes]:
        description = bundles.model_json(
            model.description,
            tokenizer_options=recipe.tokenizer.options(),
            tokenizer_digest=recipe.tokenizer.digest,
            prompts=dict(recipe.prompts),
            text_normalization=recipe.text_normalization,
            **kept,
            matryoshka_dims=model.matryoshka_dims,
            lengths={**dataclasses.asdict(recipe.lengths), "inference": recipe.max_length},
            lineage={
                **came_from,
                "step": step,
                "batch_size": recipe.batch_size,
                "mixture": {c.name: share for c, share in zip(examples.caches, examples.shares)},
            },
        )
        return bundles.contents(description, recipe.tokenizer.filename, tokenizer)

    return contents


def _starter(recipe, model):
    """Returns the function that reads the initial parameters from `init_from`, after checking its vocabulary.

    A projection or pooling that `init_from` does not have starts at random, and the run says so.
    """
    import jax

    from embed import bundles, checkpoints
    from embed.errors import DataError
    from embed.training import reports

    folder = bundles.resolve(recipe.init_from)
    digest = bundles.read_model_json(folder)["tokenizer"]["digest"]
    if digest != recipe.tokenizer.digest:
        raise DataError(
            f"{folder}: trained with another vocabulary than {recipe.tokenizer.path}; use {bundles.tokenizer_file(folder)}"
        )

    there = checkpoints.tree_paths(folder, "params")

    def split(target):
        wanted = trees.flatten(target)
        new = [p for p in wanted if p not in there and p.partition("/")[0] != "encoder"]
        return wanted, new, trees.unflatten({p: x for p, x in wanted.items() if p not in new})

    # Before a large model is drawn at random: a start of another architecture.
    checkpoints.check_fits(folder, "params", split(jax.eval_shape(model.init, jax.random.key(0)))[2])

    def read(target):
        wanted, new, kept = split(target)
        found = checkpoints.restore(folder, "params", kept)
        if not new:
            return found
        reports.say(f"start      {', '.join(new)} start at random: {folder} has none")
        drawn = jax.jit(model.init, out_shardings=jax.tree.map(lambda x: x.sharding, target))
        fresh = trees.flatten(drawn(jax.random.key(recipe.seed)))
        leaves = {**trees.flatten(found), **{p: fresh[p] for p in new}}
        return trees.unflatten({p: leaves[p] for p in wanted})

    return read


def _evaluator(recipe, model, mesh):
    """Returns evaluate(params) -> {'task/score': main scores, type: means} of the recipe's suite, at full size."""
    from embed.data.text import template
    from embed.errors import ConfigError, did_you_mean
    from embed.evaluation import runner, suites
    from embed.evaluation.embeddings import Embeddings
    from embed.evaluation.views import View
    from embed.inference import search
    from embed.inference.encoder import Encoder

    suite = suites.read_suite(recipe.suite)
    known = [f"{t.name}/{t.main}" for t in suite.tasks]
    known += [*dict.fromkeys(suite.groups.values()), "mean of the types", "mean of the tasks"]
    name = recipe.best_metric
    if name is not None and name not in known and name.rpartition("/")[0] not in {t.name for t in suite.tasks}:
        raise ConfigError(f"Recipe.best_metric = {name!r}{did_you_mean(name, known)}")
    normalization = {"text_normalization": recipe.text_normalization}
    encoder = Encoder(model, recipe.tokenizer, recipe.prompts, recipe.max_length, mesh, **normalization)
    view = View(model.embedding_dim)

    def evaluate(params) -> dict[str, float]:
        encode = lambda texts, **options: encoder(params, texts, **options)  # noqa: E731
        embeddings = Embeddings(encode, lambda prompt: template(prompt, dict(recipe.prompts)))
        scores = runner.run(suite, embeddings, [view], search.top_k).scores
        values = {f"{task}/{n}": v for task, own in scores.items() for n, v in own[view.name].items()}
        told = {n: values[n] for n in values if n in known or n == name}
        return {**told, **runner.means(scores, suite)[view.name]}

    return evaluate


def summary(recipe, model, examples, mesh) -> list[str]:
    """Returns what the run is going to do, for a person to read before it does."""
    import math

    import jax

    from embed.trees import flatten

    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    count = sum(math.prod(s.shape) for s in shapes.values())
    table = sum(math.prod(s.shape) for p, s in shapes.items() if p.endswith("embedding/table"))
    pairs, steps = recipe.batch_size, recipe.schedule.steps
    records = sum(len(c) for c in examples.caches)
    lines = [
        f"model      {model.description['encoder']['type']}: {count:,} parameters, {table:,} of them in the token table",
        f"           embedding {model.embedding_dim}, Matryoshka sizes {', '.join(map(str, model.matryoshka_dims))}",
        f"mesh       {' x '.join(f'{name} {size}' for name, size in mesh.shape.items())} on {jax.device_count()} "
        f"{jax.devices()[0].platform} device(s), {jax.process_count()} process(es)",
        f"batch      {pairs} pairs, {'each batch from one task' if recipe.mixture.one_task_per_batch else 'tasks mixed'}",
        f"contrast   each query sees 1 positive, {_hard_negatives(recipe, examples)} and {pairs - 1} in-batch negatives",
        f"length     {steps} steps, {steps * pairs / records:.2f} epochs of {records:,} examples",
    ]
    if recipe.lora is not None:
        factors = flatten(jax.eval_shape(recipe.built_objective(model).init, jax.random.key(0)).params["model"])
        learning = sum(math.prod(s.shape) for s in factors.values())
        lines.append(
            f"adapters   rank {recipe.lora.rank} on {len(factors) // 2} kernels: {learning:,} parameters learn "
            f"({learning / count:.1%}); checkpoints hold the merged model"
        )
    lines += _task_lines(examples, steps)
    for example in examples.read(0, 0, min(3, pairs)):
        query, target = (recipe.tokenizer.decode(example[side]) for side in ("query", "target"))
        lines.append(f"example    {_one_line(query)}  ->  {_one_line(target)}")
    return lines


def _hard_negatives(recipe, examples) -> str:
    """Returns how many hard negatives a query has, and how many its data have beside those."""
    most = max(cache.most_negatives for cache in examples.caches)
    left_out = f" (the first of up to {most} in the data)" if most > recipe.num_negatives > 0 else ""
    unused = f" (up to {most} in the data are not used)" if most and not recipe.num_negatives else ""
    return f"{recipe.num_negatives} hard{left_out}{unused}"


def _task_lines(examples, steps: int) -> list[str]:
    """Returns how often each task will be drawn in the whole run, counted; of many tasks the largest, and the rest together."""
    drawn = sorted(zip(examples.draws(steps), examples.caches), key=lambda pair: -pair[0])
    total = steps * examples.batch_size
    lines = [
        f"task       {cache.name}: {count:,} of {total:,} examples ({count / total:.1%}), {count / len(cache):.2f} epochs"
        for count, cache in drawn[:TASKS_SHOWN]
    ]
    rest = drawn[TASKS_SHOWN:]
    if rest:
        count = sum(count for count, _ in rest)
        lines.append(f"           {len(rest):,} smaller tasks: {count:,} examples ({count / total:.1%}) together")
    never = [cache.name for count, cache in drawn if not count]
    if never:
        lines.append(
            f"note       {len(never):,} tasks are never drawn in this run, such as {never[0]}; raise their rates"
        )
    return lines


def _one_line(text: str, width: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."
