"""Images with captions, with spatial awareness: TIPS. Source: arXiv:2410.16512 s3; the switches of TIPSv2 are named below.

Three losses share one pass of the global crop. The class tokens are compared with the embeddings of captions, the first with those
of the web and the second with synthetic ones. A student of local crops learns the teacher's assignment of the global crop to
prototypes (DINO). A student of the masked global crop learns the teacher's assignment of the patches (iBOT).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embed import ranges
from embed.errors import ConfigError
from embed.losses.self_distillation import Centre, Temperatures, assignment_sums, mean_loss
from embed.models import heads
from embed.models.heads import PrototypeHead
from embed.objectives.frozen_teacher import TOWER, FrozenTeacher
from embed.objectives.items import INDEX, embed_texts
from embed.ranges import Natural, NonNegative, OpenShare
from embed.types import Batch, Loss, Metrics, Model, Outputs, PairEmbeddings, Params, Variables
from embed.vectors import normalize

MODEL, LOSS, HEADS, TEACHER, CENTRES = "model", "loss", "heads", "teacher", "centres"
CLASS, PATCH = "class", "patch"
_TERMS = {CLASS: "self_distillation", PATCH: "masked_modelling"}  # the weights, and the metrics
_COLLAPSED = 0.01  # of the largest entropy
GLOBAL, LOCAL, MASK = "image_global", "image_local", "image_mask"


@dataclasses.dataclass(frozen=True)
class ImageText:
    """`loss_fn` of images and captions, self-distillation of the first class token, and masked image modelling.

    `captions` maps the text features to class tokens; each has a temperature of its own, and their losses are averaged.
    `self_distillation` and `masked_modelling` weigh the other two terms; a term of weight 0 is left out, with its passes and
    parameters. `teacher` 'ema' is a moving average of the image tower and the heads with `momentum`; 'ema_heads' averages the
    heads alone, and the teacher's tokens are the student's of the unmasked crop (TIPSv2). It may be a
    `frozen_teacher.FrozenTeacher` instead: a larger model is then distilled, by the same losses. `all_patches` counts the visible
    patches too (iBOT++ of TIPSv2). Without `mask_student` the student sees the whole global crop, in the pass that captions are
    compared with, as in TIPSv2's distillation. The batch has `image_global` [b, S, S, 3], `image_local` [b, M, s, s, 3] and
    `image_mask` [b, P]. The momentum, the temperatures and the sizes of the heads are our choice; TIPS publishes 32k prototypes.

    From step `watch_from` on a collapsed teacher is warned of, or ends the run with `stop_on_warning`.
    """

    loss_fn: Loss
    captions: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"caption": 0, "synthetic_caption": 1})
    self_distillation: NonNegative = 1.0
    masked_modelling: NonNegative = 2.0
    all_patches: bool = False
    mask_student: bool = True
    teacher: Literal["ema", "ema_heads"] | FrozenTeacher = "ema"
    momentum: OpenShare = 0.994
    temperatures: Temperatures = Temperatures()
    centre: Centre = Centre()
    class_head: PrototypeHead = PrototypeHead()
    patch_head: PrototypeHead = PrototypeHead()
    watch_from: Natural = 200
    stop_on_warning: bool = False
    model: Model | None = None

    def __post_init__(self):
        ranges.check_fields(self)
        if not self.captions:
            raise ConfigError("ImageText.captions is empty; name the text features and the class token of each")
        self._check_teacher()
        if self.model is None:
            return
        needed = ["text", "image_tokens", *(["masked_image_tokens"] if self._masks else [])]
        missing = [name for name in needed if name not in self.model.methods]
        if missing:
            raise ConfigError(
                f"ImageText needs a model with the method {missing[0]!r}; bind Recipe.model to a DualEncoder, and set "
                "VisionTransformer.mask_token = True for masked modelling"
            )
        encoder = self.model.description["image"]["encoder"]
        if self._frozen is not None and self._frozen.patch_size != encoder["patch_size"]:
            raise ConfigError(
                f"ImageText.teacher has patches of {self._frozen.patch_size} pixels, and the student of {encoder['patch_size']}; "
                "make them the same"
            )
        count = encoder["num_class_tokens"]
        for name, index in self.captions.items():
            if not 0 <= index < count:
                raise ConfigError(
                    f"ImageText.captions: {name!r} is compared with class token {index}, and the image tower has {count}, counted "
                    "from 0; set VisionTransformer.num_class_tokens, or take another"
                )

    def _check_teacher(self) -> None:
        """Raises ConfigError for a teacher that is none, and for masks that the other fields rule out."""
        if not self._heads and (self.teacher != "ema" or not self.mask_student):
            raise ConfigError(
                "ImageText.teacher and mask_student have no effect where self_distillation and masked_modelling are 0; leave them "
                "out"
            )
        if self.mask_student:
            return
        if self._frozen is None:
            raise ConfigError(
                "ImageText.mask_student = False needs a FrozenTeacher: a student that sees what its own average sees has nothing "
                "to learn"
            )
        if self.masked_modelling and not self.all_patches:
            raise ConfigError("ImageText.mask_student = False leaves no masked patch to count; set all_patches = True")

    @property
    def _frozen(self) -> FrozenTeacher | None:
        return self.teacher if isinstance(self.teacher, FrozenTeacher) else None

    @property
    def _masks(self) -> bool:
        """Whether the student has a pass of the masked crop."""
        return bool(self.masked_modelling) and self.mask_student

    @property
    def _heads(self) -> dict[str, PrototypeHead]:
        """The heads of the terms that count."""
        weights = {CLASS: self.self_distillation, PATCH: self.masked_modelling}
        return {name: head for name, head in ((CLASS, self.class_head), (PATCH, self.patch_head)) if weights[name]}

    def init(self, key, start: Params | None = None) -> Variables:
        """Returns the first variables; the teacher starts as a copy of the student."""
        model_key, *keys = jax.random.split(key, 1 + len(self._heads))
        model = self.model.init(model_key) if start is None else start
        drawn = {name: heads.init(head, k, self._width()) for (name, head), k in zip(self._heads.items(), keys)}
        params = {MODEL: model, LOSS: {name: self.loss_fn.init() for name in self.captions}, HEADS: drawn}
        centres = {name: jnp.zeros(head.num_prototypes) for name, head in self._heads.items()}
        if self._frozen is not None:
            shapes = {
                name: jax.eval_shape(lambda k, head=head: heads.init(head, k, self._frozen.width), key)
                for name, head in self._heads.items()
            }
            return Variables(params, {CENTRES: centres}, {TEACHER: self._frozen.init(shapes)})
        return Variables(params, {TEACHER: jax.tree.map(jnp.copy, self._taught(params)), CENTRES: centres}, {})

    def read_frozen(self, target: Params) -> dict[str, Any]:
        """Returns the frozen teacher, laid out as `target`; nothing where the teacher is an average."""
        return {} if self._frozen is None else {TEACHER: self._frozen.read(target[TEACHER])}

    def identity(self) -> dict[str, str]:
        """Returns what must be the same when a run is resumed."""
        return {} if self._frozen is None else {"teacher": self._frozen.digest()}

    def axes(self) -> Variables:
        """Returns their logical axes."""
        scalars = jax.tree.map(lambda x: (None,) * x.ndim, jax.eval_shape(self.loss_fn.init))
        of_heads = {name: heads.axes_of(head, self._width()) for name, head in self._heads.items()}
        params = {MODEL: self.model.axes, LOSS: dict.fromkeys(self.captions, scalars), HEADS: of_heads}
        centres = dict.fromkeys(of_heads, ("vocab",))
        if self._frozen is not None:
            of_teacher = {name: heads.axes_of(head, self._frozen.width) for name, head in self._heads.items()}
            return Variables(params, {CENTRES: centres}, {TEACHER: self._frozen.axes(of_teacher)})
        return Variables(params, {TEACHER: self._taught(params), CENTRES: centres}, {})

    def _width(self) -> int:
        return self.model.description["image"]["encoder"]["width"]

    def _taught(self, params: Params) -> Params:
        """Returns what the teacher averages."""
        if not self._heads:
            return {}
        tower = {MODEL: params[MODEL]["image"]} if self.teacher == "ema" else {}
        return {**tower, HEADS: params[HEADS]}

    def forward(self, variables: Variables, batch: Batch, key, step) -> Outputs:
        """Returns the class tokens and the embeddings of captions as rows, and the assignments to prototypes as sums."""
        self._check_batch(batch)
        keys = [None] * 4 if key is None else list(jax.random.split(key, 4))
        model = variables.params[MODEL]
        class_tokens, patches = self._tokens(model, batch[GLOBAL], keys[0])
        texts = embed_texts(self.model, model, batch, keys[1])
        rows = {name: texts[name] for name in self.captions}
        rows |= {f"image/{name}": normalize(class_tokens[:, index]) for name, index in self.captions.items()}
        sums: dict[str, Any] = {}
        if self._heads:
            teacher = jax.lax.stop_gradient(self._teacher_tokens(variables, batch, class_tokens, patches))
        if CLASS in self._heads:
            crops = batch[LOCAL]
            count = crops.shape[1]
            student, _ = self._tokens(model, crops.reshape(-1, *crops.shape[2:]), keys[2])
            weights = jnp.ones(len(student), jnp.float32)
            sums[CLASS] = self._assigned(
                CLASS, variables, student[:, 0], jnp.repeat(teacher[0][:, 0], count, 0), weights, step
            )
        if PATCH in self._heads:
            student = self._tokens(model, batch[GLOBAL], keys[3], batch[MASK])[1] if self._masks else patches
            mask = batch[MASK].astype(jnp.float32) if self._masks else jnp.ones(patches.shape[:2], jnp.float32)
            weights = jnp.ones_like(mask) if self.all_patches else mask
            flat = lambda x: x.reshape(-1, x.shape[-1])  # noqa: E731
            sums[PATCH] = self._assigned(PATCH, variables, flat(student), flat(teacher[1]), weights.reshape(-1), step)
        return Outputs(rows, sums)

    def _check_batch(self, batch: Batch) -> None:
        """Raises ConfigError for arrays that are not there, and for a text feature that nothing is compared with."""
        terms = ([LOCAL] if CLASS in self._heads else []) + ([MASK] if self._masks else [])
        missing = [name for name in (GLOBAL, *terms) if name not in batch]
        if missing:
            raise ConfigError(
                f"ImageText reads {missing[0]!r}, which no feature gives; put @image_features.Views() into Recipe.features, with "
                "local crops where self_distillation is above 0"
            )
        texts = {name.removesuffix(INDEX) for name in batch if name.endswith(INDEX)}
        if texts != set(self.captions):
            raise ConfigError(
                f"ImageText.captions names {sorted(self.captions)}, and the text features are {sorted(texts)}; make them the same"
            )

    def _tokens(self, model: Params, pixels, key, mask=None) -> tuple[Array, Array]:
        """Returns class tokens and patches, as the image tower gives them."""
        if mask is None:
            return self.model.apply(model, {"pixels": pixels}, method="image_tokens", key=key)
        inputs = {"pixels": pixels, "patch_mask": mask}
        return self.model.apply(model, inputs, method="masked_image_tokens", key=key)

    def _teacher_tokens(self, variables: Variables, batch: Batch, class_tokens, patches) -> tuple[Array, Array]:
        if self._frozen is not None:
            inputs = {"pixels": batch[GLOBAL]}
            return self._frozen.model.apply(variables.frozen[TEACHER][TOWER], inputs, method="image_tokens")
        if self.teacher == "ema_heads":
            return class_tokens, patches
        return self._tokens({**variables.params[MODEL], "image": variables.moving[TEACHER][MODEL]}, batch[GLOBAL], None)

    def _assigned(self, name: str, variables: Variables, student, teacher, weights, step) -> dict[str, Array]:
        """Returns the sums of `assignment_sums` of one head."""
        head = self._heads[name]
        teacher_heads = (variables.moving if self._frozen is None else variables.frozen)[TEACHER][HEADS]
        student_head, teacher_head = variables.params[HEADS][name], teacher_heads[name]
        return assignment_sums(
            head.apply({"params": student_head}, student),
            head.apply({"params": teacher_head}, teacher),
            weights,
            heads.prototypes(student_head),
            heads.prototypes(teacher_head),
            variables.moving[CENTRES][name],
            self.temperatures.student,
            self.temperatures.teacher_at(step),
        )

    def loss(self, params: Params, outputs: Outputs, batch: Batch, step) -> tuple[Float[Array, ""], Metrics]:
        """Returns the weighted sum of the three terms, and the metrics of each."""
        rows, total, metrics = outputs.rows, 0.0, {}
        for name in self.captions:
            ids = {"query_id": batch.get("image_id"), "target_id": batch.get(f"{name}_id")}
            pairs = PairEmbeddings(rows[f"image/{name}"], rows[name], **ids)
            value, of_loss = self.loss_fn(pairs, params[LOSS][name], step)
            total = total + value / len(self.captions)
            metrics |= {name: value, **{f"{name}/{metric}": x for metric, x in of_loss.items()}}
        for part, head in self._heads.items():
            name = _TERMS[part]
            value, watched = mean_loss(outputs.sums[part], head.num_prototypes)
            total = total + getattr(self, name) * value
            metrics |= {name: value, **{f"{name}/{metric}": x for metric, x in watched.items()}}
        return total, metrics

    def update(self, variables: Variables, outputs: Outputs, step) -> dict[str, Any]:
        """Returns the teacher a step nearer to the student, and the next centres."""
        del step
        centres = {name: self.centre.next(x, outputs.sums[name]) for name, x in variables.moving[CENTRES].items()}
        if self._frozen is not None:
            return {CENTRES: centres}
        teacher = jax.tree.map(
            lambda a, p: self.momentum * a + (1 - self.momentum) * p,
            variables.moving[TEACHER],
            self._taught(variables.params),
        )
        return {TEACHER: teacher, CENTRES: centres}

    def export(self, variables: Variables) -> Params:
        """Returns the student's model."""
        return variables.params[MODEL]

    def watch(self, values: Mapping[str, float], step: int) -> str | None:
        """Returns a warning where the teacher has collapsed: to one prototype, or to all of them alike.

        Its entropy is then near 0, or it and the loss are near ln C.
        """
        if step < self.watch_from:
            return None
        for part, head in self._heads.items():
            name, most = _TERMS[part], math.log(head.num_prototypes)
            entropy, below = values[f"{name}/entropy"], values[f"{name}/below_uniform"]
            measured = f"the teacher's entropy in {name} is {entropy:.3f} of at most {most:.3f}"
            if entropy < _COLLAPSED * most:
                return (
                    f"{measured}: it assigns everything to one prototype; raise Temperatures.teacher, or lower Centre.momentum or "
                    "the learning rate"
                )
            if entropy > (1 - _COLLAPSED) * most and below < _COLLAPSED * most:
                return (
                    f"{measured}, and the loss is that of a guess: nothing is told apart; lower Temperatures.teacher, or raise "
                    "the learning rate or its warm-up"
                )
        return None

    def served(self, variables: Variables) -> Variables:
        """Returns the variables as they are."""
        return variables
