"""The trainer, read top to bottom: restore or create, say what will happen, step, report, evaluate, save, stop."""

import collections
import ctypes
import dataclasses
import gc
import math
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from embed import checkpoints, console, documents, files, hosts, ranges, sharding
from embed.data.features import Feature
from embed.data.loader import Batches
from embed.errors import ConfigError, DataError, Preempted
from embed.ranges import Count, Natural, Positive
from embed.training import identity, reports
from embed.training.best import SCORES, Best
from embed.training.goodput import STEPPING, Clock
from embed.training.preemption import Preemption
from embed.training.profile import Profile
from embed.training.programs import Programs, fit
from embed.training.state import Items, TrainState, create, frozen_reader, gathered, layout, with_shardings
from embed.training.step import make_step
from embed.training.validation import Validation
from embed.training.watch import Watch
from embed.types import Batch, Model, Objective, Params

_AHEAD = 2  # steps that wait in a device's queue
_BEFORE_PROFILE = 3  # steps of this process, the first of which are slower


class _Meta(TypedDict):
    """What meta.json of a checkpoint holds of the run."""

    step: Natural
    skipped: Natural
    identity: dict[str, Any]
    micro_batches: Count


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a run is and how often it reports, saves and evaluates, in steps.

    Its length is `steps`, or `epochs`: how often all examples of the mixture are drawn, taken together. With `patience` it ends
    early, once that many evaluations after the best one were no better by the run's `best_metric`. Of the checkpoints the last
    `keep_last` are kept, the best one, and those of steps that `keep_every` divides.
    """

    steps: Count | None = None
    epochs: Positive | None = None
    log_every: Count = 20
    checkpoint_every: Count = 100
    keep_last: Count = 5
    keep_every: Count | None = None
    evaluate_every: Count | None = None
    patience: Count | None = None

    def __post_init__(self):
        ranges.check_fields(self)
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError(
                f"Schedule.steps = {self.steps} and Schedule.epochs = {self.epochs}: give one of them; it is the length of the run"
            )

    def sized(self, examples: int, batch_size: int) -> "Schedule":
        """Returns the schedule in steps, for that many examples of which a batch takes `batch_size`."""
        if self.epochs is None:
            return self
        return dataclasses.replace(self, steps=math.ceil(self.epochs * examples / batch_size), epochs=None)


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything one training run is made of. `evaluate` scores parameters, `validation` the variables on held-out
    examples; `best_metric` of their values picks the best step, the lowest of an error (`metrics.higher_is_better`). `scored_on`
    is the digest of what is scored: what was best on other tasks is not compared with.

    `model` is what the objective's exported parameters are of. `contents(step)` gives the small files of a checkpoint
    (model.json, tokenizer); `start_from` replaces the random initial parameters of the model; `identity` must be the same when a
    run is resumed. `begin` is called once the run is accepted and has steps left: until then nothing is written to its folder.
    `micro_batches` is in how many parts a batch is embedded; None takes as few as fit into the device's memory, and as many
    again when the run is resumed. The fourth step of this process and those after it, `profile_steps` of them, are traced by JAX's
    profiler into the run's folder `profile`. Metrics go to the project `wandb_project` of Weights & Biases too.
    """

    run_dir: pathlib.Path
    model: Model
    objective: Objective
    optimizer: optax.GradientTransformation
    batches: Batches
    mesh: Mesh
    schedule: Schedule
    contents: Callable[[int], Mapping[str, bytes]]
    identity: Mapping[str, Any]
    seed: int = 0
    start_from: Callable[[Any], Params] | None = None
    evaluate: Callable[[Params], Mapping[str, float]] | None = None
    validation: Validation | None = None
    best_metric: str | None = None
    scored_on: str = ""
    micro_batches: int | None = None
    profile_steps: int = 0
    wandb_project: str | None = None
    begin: Callable[[], None] = lambda: None

    @property
    def best(self) -> Best:
        """What finds the best step."""
        return Best(self.run_dir, self.best_metric, self.scored_on)

    def create(self, start: Params | None = None) -> TrainState:
        """Returns the state before the first step."""
        return create(self.objective, self.optimizer, self.seed, start)


def train(run: Run) -> TrainState:
    """Runs or resumes `run` to its last step and returns the final state. Raises Preempted after saving on SIGTERM."""
    sharding.check_batch_size(run.batches.examples.batch_size, run.mesh, run.micro_batches or 1)
    clock = Clock()
    with jax.set_mesh(run.mesh), Preemption() as preemption:
        abstract = jax.eval_shape(run.create)
        placed = layout(run.objective, abstract, run.mesh)
        items = Items(run.objective, abstract)
        schedule = run.schedule
        saver = checkpoints.Saver(
            run.run_dir / "checkpoints", keep_last=schedule.keep_last, keep_every=schedule.keep_every
        )
        restored, micro_batches = _restore(run, items, placed) or (None, None)
        state = restored or _create(run, placed)
        first = int(state.step)
        if first == run.schedule.steps and not _evaluation_due(run, first):
            console.say(f"state      complete at step {first} of {run.schedule.steps}; nothing is written")
            saver.close()
            return state
        console.say(
            f"state      {'resuming at step ' + str(first) if first else 'starting at step 0'} of {run.schedule.steps}"
        )
        run.begin()
        saver.clean()
        if micro_batches and run.batches.examples.batch_size % (run.batches.shards * micro_batches):
            micro_batches = None  # The new mesh cannot use the saved number of micro-batches.
        clock.to("compiling")
        run, programs = _compile(run, with_shardings(abstract, placed), run.micro_batches or micro_batches)
        reporter = reports.Reporter(run.run_dir, first, run.schedule.steps, run.wandb_project)
        _give_back_memory()
        try:
            state = _loop(run, items, state, programs, saver, reporter, preemption, clock)
            hosts.at("writing the last checkpoint", hosts.SAVING)
            clock.to("saving")
            saver.wait()
        finally:
            reporter.line(clock.line())
            reporter.close()
            saver.close()
    return state


def _give_back_memory() -> None:
    """Hands the host what reading the start and compiling have left; the allocator would keep it for the whole run."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _create(run: Run, placed: TrainState) -> TrainState:
    """Returns the first state, made in place on its devices; step 0 is not a checkpoint."""
    state = _drawn(run, placed)
    read_frozen = frozen_reader(run.objective)
    if read_frozen is None:
        return state
    target = with_shardings(jax.eval_shape(lambda: state.variables.frozen), placed.variables.frozen)
    frozen = {**state.variables.frozen, **read_frozen(target)}
    return dataclasses.replace(state, variables=dataclasses.replace(state.variables, frozen=frozen))


def _drawn(run: Run, placed: TrainState) -> TrainState:
    """Returns the first state without what the objective reads of other runs."""
    if run.start_from is None:
        return jax.jit(run.create, out_shardings=placed)()
    shapes = jax.eval_shape(run.model.init, jax.random.key(0))
    start = run.start_from(with_shardings(shapes, sharding.shardings(run.model.axes, shapes, run.mesh)))
    return jax.jit(run.create, out_shardings=placed, donate_argnums=0)(start)


def _restore(run: Run, items: Items, placed: TrainState) -> tuple[TrainState, int | None] | None:
    """Returns the state of the newest intact checkpoint and its number of micro-batches, or None when there is none."""
    folder = run.run_dir / "checkpoints"
    step, damaged = checkpoints.newest_intact_step(folder) if hosts.is_main() else (None, {})
    step = int(hosts.agree(np.int32(-1 if step is None else step)))
    if step < 0:
        checkpoints.set_aside(folder, damaged, console.say)
        checkpoints.agree_with_main(folder, step)
        return None
    step_folder = folder / str(step)
    meta = documents.read_json(step_folder / "meta.json", _Meta)
    identity.check(run.identity, meta["identity"], step_folder)
    if step > run.schedule.steps:
        raise DataError(f"{step_folder}: the run is at step {step}, past steps = {run.schedule.steps}; raise it")
    checkpoints.set_aside(folder, damaged, console.say)
    checkpoints.agree_with_main(folder, step)
    targets = with_shardings(items.split(items.abstract), items.split(placed))
    targets["params"] = items.exported_target(placed, run.model, run.mesh)
    identity.check_trees(step_folder, targets)
    restored = {name: checkpoints.restore(step_folder, name, target, verified=True) for name, target in targets.items()}
    before = items.abstract.variables
    frozen = _create(run, placed).variables if jax.tree.leaves(before.frozen) else before
    step, skipped = (jax.device_put(np.int32(n), sharding.replicated(run.mesh)) for n in (step, meta["skipped"]))
    return TrainState(step, items.join(restored, frozen), restored["opt_state"], skipped), meta.get("micro_batches")


def _compile(run: Run, state: TrainState, micro_batches: int | None) -> tuple[Run, Programs]:
    """Returns the run with its batches cut as memory wants it, and its compiled steps; says what the largest needs."""

    def make(batches: Batches) -> Programs:
        return Programs(make_step(run.objective, run.optimizer, seed=run.seed), state, batches, run.mesh)

    room = 0.0 if micro_batches is not None else sharding.device_memory()
    files.failpoint("train.before_compile")
    batches, programs = fit(make, run.batches, micro_batches, room)
    layout = next(iter(batches.layouts.values()))
    sizes = sorted({size for each in batches.layouts.values() for size in each.bucket_sizes})
    if layout.row_length:
        console.say(
            f"rows       of {layout.row_length} tokens, up to {layout.max_segments} texts each; {', '.join(map(str, sizes))} rows "
            + ("a micro-batch" if batches.micro_batches > 1 else "a batch")
            + (" and shard" if batches.shards > 1 else "")
        )
    console.say(reports.memory_line(programs.largest, batches.micro_batches))
    validation = None if run.validation is None else run.validation.fit(batches)
    return dataclasses.replace(run, batches=batches, validation=validation), programs


def _loop(
    run: Run, items: Items, state: TrainState, programs: Programs, saver, reporter, preemption, clock: Clock
) -> TrainState:
    size, schedule = run.batches.examples.batch_size, run.schedule
    first, shards = int(state.step), run.batches.shards
    batches = run.batches.iterate(first, *sharding.process_rows(shards, run.mesh))
    # Simulated devices share cores and deadlock when steps queue up; one step at a time costs a real host nothing.
    block = jax.default_backend() == "cpu"
    flops = example_flops(run)
    done, best = first, run.best.read(first, reporter.line)
    saver.protect(best["step"] if best else None)
    clock.to("evaluating")
    if _evaluation_due(run, done):  # the run may have been killed between saving this step and scoring it
        best = _evaluate(run, items, state, saver, reporter, best, done)
    times, ahead = hosts.StepTimes(), collections.deque()
    watch = Watch(run.run_dir, run.objective, reporter.line)
    profile = Profile(run.run_dir / "profile", first + _BEFORE_PROFILE, run.profile_steps)
    while done < schedule.steps and not _is_stale(run, best, done) and not preemption.reached(done):
        limit = times.next()
        hosts.at(f"reading the batch of step {done + 1}", limit)
        clock.to("waiting for data")
        local = next(batches)
        hosts.at(f"in step {done + 1}", limit)
        clock.to(STEPPING)
        profile.at(done, state)
        batch = Batch(sharding.to_global(local, run.mesh, shards), run.batches.max_segments)
        state, metrics = programs(state, batch)
        if block:
            jax.block_until_ready(state)
        done += 1
        ahead.append((done, metrics))
        if len(ahead) > _AHEAD:  # an endless queue would hide from the watch how long a step takes
            watch.step(*ahead.popleft())
        files.failpoint(f"train.after_step_{done}")
        reporter.advance(size, *(jax.process_count() * n for n in _token_counts(local, run.batches.examples.features)))
        if done % schedule.log_every == 0 or done == schedule.steps:
            while ahead:
                watch.step(*ahead.popleft())
            values = jax.device_get(metrics)
            watch.check(values, done)
            reporter.log(done, {**values, "skipped_steps": watch.skipped, **reporter.rates(done, flops)})
        if done % schedule.checkpoint_every == 0 or done == schedule.steps or _evaluation_due(run, done):
            times.pause()
            hosts.at(f"saving step {done}", hosts.SAVING)
            clock.to("saving")
            _save(run, items, state, saver, done)
        if _evaluation_due(run, done):
            hosts.at(f"evaluating step {done}")
            clock.to("evaluating")
            best = _evaluate(run, items, state, saver, reporter, best, done)
    profile.end(state)
    if done < schedule.steps and _is_stale(run, best, done):
        reporter.line(
            f"stopped    at step {done} of {schedule.steps}: {schedule.patience} evaluations in a row were no better than "
            f"step {best['step']} by {run.best.metric}"
        )
    elif done < schedule.steps:
        hosts.at(f"saving step {done}", hosts.SAVING)
        clock.to("saving")
        _save(run, items, state, saver, done)
        saver.wait()
        raise Preempted(
            f"{run.run_dir}: stopped and saved at step {done} of {schedule.steps}; run the same command to go on"
        )
    return state


def _evaluation_due(run: Run, done: int) -> bool:
    every = run.schedule.evaluate_every
    due = bool(every) and done > 0 and (done % every == 0 or done == run.schedule.steps)
    is_scored = run.evaluate is not None or run.validation is not None
    return due and is_scored and not _scores_path(run, done).exists()


def _is_stale(run: Run, best, done: int) -> bool:
    """Returns whether the evaluations since the best one, up to step `done`, have used up the patience."""
    patience = run.schedule.patience
    if patience is None or best is None or done % (run.schedule.evaluate_every or 1):
        return False
    return run.best.evaluations_since(best, done) >= patience


def _scores_path(run: Run, step: int) -> pathlib.Path:
    return run.run_dir / "evaluation" / str(step) / SCORES


def _evaluate(run: Run, items: Items, state: TrainState, saver, reporter, best, step: int):
    """Scores the parameters at `step`, which has been saved, and returns the best step so far."""
    with reporter.paused():
        scores = (
            {}
            if run.evaluate is None
            else dict(run.evaluate(gathered(items.export(state.variables), run.model, run.mesh)))
        )
        scores |= {} if run.validation is None else run.validation(state.variables, state.step)
    reporter.log(step, scores, kind="evaluation")
    before, best = best, run.best.after(best, scores, step, reporter.line)
    if best is not before:
        saver.protect(step)
        saver.wait()
        run.best.write(best)
    if hosts.is_main():
        _scores_path(run, step).parent.mkdir(parents=True, exist_ok=True)
        finite = {name: value if math.isfinite(value) else None for name, value in scores.items()}
        files.write_json(_scores_path(run, step), finite)
    hosts.share(run.run_dir, f"the scores of step {step} were written")  # hosts look for them to see whether to go on
    return best


def _token_counts(arrays: Mapping[str, np.ndarray], features: Sequence[Feature]) -> tuple[int, int]:
    """Returns how many real tokens the arrays of a batch hold, and how many they have room for."""
    segment_ids = arrays.get("segment_ids", np.zeros(0))
    counts = [(np.count_nonzero(segment_ids), segment_ids.size), *(f.token_counts(arrays) for f in features)]
    return sum(int(real) for real, _ in counts), sum(int(room) for _, room in counts)


def example_flops(run: Run) -> float:
    """Returns the model FLOPs of training on one average example: three forward passes of each text's real tokens."""
    examples = run.batches.examples
    return 3 * sum(
        share * feature.flops(run.model.methods, cache)
        for cache, share in zip(examples.caches, examples.shares)
        for feature in examples.features
    )


def _save(run: Run, items: Items, state: TrainState, saver: checkpoints.Saver, step: int) -> None:
    if saver.has(step):
        return
    meta = {
        "step": step,
        "skipped": int(state.skipped),
        "identity": dict(run.identity),
        "micro_batches": run.batches.micro_batches,
    }
    contents = {**run.contents(step), "meta.json": documents.json_bytes(meta)}
    saver.save(step, {"params": items.export(state.variables), **items.split(state)}, contents)
