"""What a gin recipe builds: every part of a run, as one object that `prepare` and `train` share."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from embed import ranges, text
from embed.data import tasks
from embed.data.features import Feature, Scores, Vectors, roles_of
from embed.data.teacher_scores import TeacherScores
from embed.data.text_features import Lengths, pairs, text_features
from embed.errors import ConfigError
from embed.models.dual_encoder import ImageEmbedder
from embed.models.lora import Lora
from embed.models.quantization import Quantization
from embed.objectives.adapters import Adapters
from embed.objectives.moving_average import MovingAverage
from embed.objectives.quantized import Quantized
from embed.ranges import Count, Natural, OpenShare
from embed.sharding import MeshShape
from embed.sources.fields import check_fields
from embed.training import loop
from embed.types import INTERMEDIATE, Model, Objective, needs_of, parts_of

# What a loss may need beside texts (its `needs`): the feature that gives it.
SCORES = {"score": Scores("score"), "scores": Scores("scores", each="negatives")}
_TEACHER = "teacher_"  # before the name of a text feature: a teacher's vectors of those texts


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The parts of a training run. gin files bind its fields; `embed train` and `embed prepare` read it.

    `objective` is what the run learns (a class of `embed.objectives`, or your own `types.Objective`). `features` say what of the
    data's records a batch holds (`data.features`), one by one or in lists such as `data.text_features.pairs()`. Without any they
    are those of text pairs: `query` and `target`, cut at `lengths` tokens, and up to `num_negatives` hard negatives, of a longer
    list those that `draw_negatives` says ('random' ones, others in every epoch, or the 'first'); and the scores and the teacher's
    vectors that the losses of the objective ask for, the vectors from the folder `teacher_vectors` (`embed encode --gin_file`
    writes it; `embed compile` takes their size `teacher_dim` where it is not there yet). The scores of candidates stand in the
    records (role `scores`), or in files of {"query", "text", "score"} that `teacher_scores` names (`data.teacher_scores`).
    `batch_size` is the global batch in examples, which are all compared with each other. It is computed in `micro_batches`, to
    the same result (cached gradients); None takes as few as fit into memory. `init_from` is a MODEL, or a folder of Hugging Face
    or sentence-transformers, whose parameters replace the random ones; where `model`, `tokenizer`, `prompts` or
    `text_normalization` (a name of `text.NORMALIZATIONS`) are not given, those of `init_from` are taken. A model of images alone
    (`dual_encoder.ImageEmbedder`) needs no tokenizer. `model_changes` replaces
    fields of that model, e.g. {'encoder.dtype': 'bfloat16', 'matryoshka_dims': (256, 128)}. `max_length` is what a text is cut at
    when the model is used, in tokens (default: as in `init_from`, else the longer side of `lengths`). `suite` is scored every
    `schedule.evaluate_every` steps, and so is the loss on `validation_share` of the examples, which are not learned
    ('validation/loss'; examples of one query stay together). `best_metric` ('task/score', a type, 'mean of the types',
    'validation/loss') picks the best checkpoint. `cache_dir` holds the token caches. With `lora` only low-rank adapters learn;
    checkpoints hold the merged model. With `ema_decay` a moving average of what learns is evaluated, saved and served. With
    `quantization` (`models.quantization`) the model is computed with quantised values, and those are evaluated, saved and served;
    what learns stays float32. A program is compiled for each of up to `max_shapes` sizes of batches (twice as many where some
    have negatives): more leave less padding, fewer compile sooner.
    """

    mixture: tasks.Mixture
    objective: Any
    optimizer: Any
    schedule: loop.Schedule
    batch_size: Count
    cache_dir: str
    model: Any = None
    tokenizer: Any = None
    model_changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_length: Count | None = None
    lora: Lora | None = None
    quantization: Quantization | None = None
    features: Sequence[Any] = ()
    lengths: Lengths = dataclasses.field(default_factory=Lengths)
    num_negatives: Natural = 0
    draw_negatives: Literal["random", "first"] = "random"
    teacher_vectors: str | None = None
    teacher_dim: Count | None = None
    teacher_scores: str | None = None
    mesh: MeshShape = dataclasses.field(default_factory=MeshShape)
    seed: Natural = 0
    ema_decay: OpenShare | None = None
    micro_batches: Count | None = None
    max_shapes: Count = 6
    init_from: str | None = None
    prompts: Mapping[str, str] | None = None
    text_normalization: str | None = None
    suite: str | None = None
    best_metric: str | None = None
    validation_share: OpenShare | None = None

    def __post_init__(self):
        ranges.check_fields(self)
        self.mixture.check()
        if self.schedule.patience is not None and self.best_metric is None:
            raise ConfigError(
                f"Schedule.patience = {self.schedule.patience} counts evaluations that are no better; "
                "bind Recipe.best_metric, which says by what"
            )
        is_scored = self.suite is not None or self.validation_share is not None
        if self.best_metric is not None and not (is_scored and self.schedule.evaluate_every):
            raise ConfigError(
                "Recipe.best_metric needs Schedule.evaluate_every, and Recipe.suite or Recipe.validation_share, or nothing is "
                "scored"
            )
        if is_scored != (self.schedule.evaluate_every is not None):
            raise ConfigError(
                "Schedule.evaluate_every has an effect together with Recipe.suite or Recipe.validation_share only: how often, and "
                "what is scored"
            )
        if self.text_normalization is not None:
            text.normalizer(self.text_normalization)
        self._check_features()
        for name in ("model",) if isinstance(self.model, ImageEmbedder) else ("model", "tokenizer"):
            if getattr(self, name) is None and self.init_from is None:
                raise ConfigError(f"Recipe.{name} is not bound; bind it, or Recipe.init_from to a model that has one")
        if getattr(self.model, "decoder", None) is not None and not getattr(self.objective, "trains_decoder", False):
            raise ConfigError(
                f"Embedder.decoder has no effect: {type(self.objective).__name__} does not train it; leave it out, or take "
                "language_model.SequenceToSequence"
            )
        if self.model_changes and self.model is not None:
            raise ConfigError(
                "Recipe.model_changes goes with the model of init_from; bind the fields of Recipe.model instead"
            )

    @functools.cached_property
    def record_features(self) -> tuple[Feature, ...]:
        """The features of a batch: `features`, or those of text pairs, with the scores that the objective's losses need."""
        if self.features:
            return tuple(f for given in self.features for f in (given if isinstance(given, list | tuple) else [given]))
        texts = pairs(self.lengths, self.num_negatives, self.draw_negatives)
        return (*texts, *(self._needed_feature(name) for name in self._needed))

    @property
    def _needed(self) -> list[str]:
        """The names of what the objective's losses need of the data beside texts, each once."""
        return [name for name in needs_of(self.objective) if not name.endswith(INTERMEDIATE)]

    def _needed_feature(self, name: str) -> Feature:
        if name == "scores":
            if not self.num_negatives:
                raise ConfigError(
                    "a loss compares the candidates of each query, its target and its hard negatives, and Recipe.num_negatives = 0 "
                    "uses none; set it"
                )
            return SCORES[name] if self.teacher_scores is None else TeacherScores(name, self.teacher_scores)
        if name in SCORES:
            return SCORES[name]
        if not name.startswith(_TEACHER):
            raise ConfigError(
                f"a loss of the objective needs {name!r}, which no feature of text pairs gives; bind Recipe.features"
            )
        of = name.removeprefix(_TEACHER)
        if self.teacher_vectors is None:
            raise ConfigError(
                f"the objective learns from a teacher's vectors of {of!r}; bind Recipe.teacher_vectors to their folder, which "
                "`embed encode MODEL --gin_file=... --output=FOLDER` writes"
            )
        if of == "negatives" and not self.num_negatives:
            raise ConfigError(
                "EmbeddingDistillation.towers names 'negatives', and Recipe.num_negatives = 0 uses none; set it, or take them out "
                "of the towers"
            )
        return Vectors(name, of, f"{self.teacher_vectors}/{'query' if of == 'query' else 'target'}", self.teacher_dim)

    @property
    def longest_text(self) -> int:
        """The tokens that the longest text of a record may have."""
        return max((f.length for f in self.record_features if hasattr(f, "length")), default=1)

    def _check_features(self) -> None:
        """Raises ConfigError for features of one name, roles that no feature reads, and what is said of texts that are not used."""
        names = [feature.name for feature in self.record_features]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"Recipe.features: two are called {name!r}; give each its own name")
        self._check_teacher("teacher_vectors", any(name.startswith(_TEACHER) for name in self._needed))
        self._check_teacher("teacher_scores", "scores" in self._needed)
        if self.teacher_dim is not None and self.teacher_vectors is None:
            raise ConfigError(
                "Recipe.teacher_dim is the size of Recipe.teacher_vectors, which is not bound; bind both or none"
            )
        self._check_prompts()
        for name in ("lengths", "num_negatives", "draw_negatives") if self.features else ():
            default = Lengths() if name == "lengths" else getattr(type(self), name)
            if getattr(self, name) != default:
                raise ConfigError(
                    f"Recipe.{name} has no effect with Recipe.features, which say it themselves; leave it out"
                )
        roles = {name: not role.optional for name, role in roles_of(self.record_features).items()}
        for task in self.mixture.tasks:
            source = getattr(task, "source", None)
            fields = getattr(source, "fields", None)
            if isinstance(fields, Mapping):
                check_fields(fields, roles, type(source).__name__)
            self._check_unused_lists(task, fields or {}, getattr(source, "optional", ()))
            self._check_scores(task, fields or {})
        self._check_hardness()
        if getattr(self.objective, "one_domain_per_batch", False) and not self.mixture.one_task_per_batch:
            raise ConfigError(
                f"{type(self.objective).__name__} compares the images of one domain, and Mixture.one_task_per_batch = False mixes "
                "domains in a batch; set it to True, with a task for each domain"
            )
        check = getattr(self.objective, "check_features", None)
        if check is not None:
            check(self.record_features)

    def _check_prompts(self) -> None:
        """Raises ConfigError for prompts of tasks where no feature reads texts in prompts."""
        if text_features(self.record_features):
            return
        prompts = {**text.PROMPTS, **(self.prompts or {})}
        for task in (task for task in self.mixture.tasks if isinstance(task, tasks.Task)):
            for name in ("query_prompt", "target_prompt"):
                default = getattr(tasks.Task, name)
                if getattr(task, name) not in (default, prompts[default]):
                    raise ConfigError(
                        f"task {task.name!r}: {name} = {getattr(task, name)!r} has no effect: no feature reads texts in prompts; "
                        "leave it out"
                    )

    def _check_teacher(self, name: str, is_needed: bool) -> None:
        if getattr(self, name) is None or (is_needed and not self.features):
            return
        of = name.removeprefix(_TEACHER)
        reason = (
            "Recipe.features say all that a batch holds" if self.features else f"no loss learns from a teacher's {of}"
        )
        raise ConfigError(f"Recipe.{name} has no effect: {reason}; leave it out")

    def _check_unused_lists(self, task, fields: Mapping[str, str], optional: Sequence[str]) -> None:
        for feature in text_features(self.record_features):
            if feature.each == (0,) and feature.name in fields and feature.name not in optional:
                option = "Recipe.num_negatives" if not self.features else f"Texts.count of {feature.name!r}"
                raise ConfigError(
                    f"task {task.name!r} maps {feature.name!r} to {fields[feature.name]!r}, and {option} = 0 uses none of them; "
                    f"set {option}, or take {feature.name!r} out of the source's fields"
                )

    def _check_scores(self, task, fields: Mapping[str, str]) -> None:
        for feature in self.record_features:
            if isinstance(feature, Scores) and feature.each in fields and feature.name not in fields:
                raise ConfigError(
                    f"task {task.name!r} maps {feature.each!r} and no {feature.name!r}, which a loss learns from; map it, or bind "
                    "Recipe.teacher_scores to files of them"
                )

    def _check_hardness(self) -> None:
        if any(feature.each not in ((), (0,)) for feature in text_features(self.record_features)):
            return
        if "scores" in self._needed:
            raise ConfigError(
                "a loss compares the candidates of each query, its target and its hard negatives, and no feature of "
                "Recipe.features has several texts; add data.text_features.Texts"
            )
        for part in parts_of(self.objective):
            if getattr(part, "hardness", 0):
                raise ConfigError(
                    f"{type(part).__name__}.hardness = {part.hardness} weighs hard negatives, and Recipe.num_negatives = 0 "
                    "uses none; set one of them"
                )

    def built_objective(self, model: Model) -> Objective:
        """Returns the objective for the built `model`, with its quantisation, its adapters and its moving average."""
        objective = dataclasses.replace(self.objective, model=model)
        if self.quantization is not None:  # innermost: what adapters add to the base is rounded with it
            objective = Quantized(objective, self.quantization)
        if self.lora is not None:
            objective = Adapters(objective, self.lora)
        return objective if self.ema_decay is None else MovingAverage(objective, self.ema_decay)
