"""A claim of a paper as data: arms that are command lines, seeds, and what must be better than what."""

import dataclasses
import re
import string
from collections.abc import Mapping, Sequence

from embed.errors import ConfigError, did_you_mean

GIVEN = ("data", "pictures", "source")  # what the user gives
KINDS = ("better", "no worse", "shown")
PLACES = (*GIVEN, "model", "run", "seed")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`better` and `than` name arms. `metric` is a mean of the suite ('mean of the types', a type) or 'task/score'; `view` a size.

    `kind` 'better' claims that it is, by `least` points; 'no worse' that it loses no more than `least`; 'shown' is
    printed and not judged: the other side of a trade, or what a reader will ask. Of a score that is an error, `is_error`, the lower
    one is better. With `from_view` each arm's score is what it gains
    from that view to `view`, below zero where it loses: 'better' is then the arm that loses less.
    """

    better: str
    than: str
    metric: str = "mean of the types"
    view: str | None = None
    least: float = 0.0
    kind: str = "better"
    from_view: str | None = None
    is_error: bool = False

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ConfigError(f"Comparison.kind = {self.kind!r}{did_you_mean(self.kind, KINDS)}")
        if self.least < 0:
            raise ConfigError(f"Comparison.least = {self.least}: points, at least 0")
        if self.from_view is not None and self.view is None:
            raise ConfigError(f"Comparison.from_view = {self.from_view!r}: from it to which view? Set Comparison.view")

    @property
    def name(self) -> str:
        at_view = "" if self.view is None else f" at {self.view}"
        if self.from_view is not None:
            at_view = f" from {self.from_view} to {self.view}"
        sign = (">=", "<=")[self.is_error] if self.kind == "no worse" else ("><"[self.is_error])
        return f"{self.better} {sign} {self.than}: {self.metric}{at_view}"


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim at small scale. Bound by a gin file under gin/claims/.

    `arms` are lists of command lines, of `embed` or `python SCRIPT ...`, run one after the other for every seed; the model that
    they leave at $model is scored on `suite` at `dims`, its vectors in `precisions` of `embed evaluate --quantize` (default:
    float32). `prepared` are named lists of lines that are run once, for all claims
    that have the same. $NAME is the folder of something prepared, or of an arm with the same seed, which lines that follow may
    use. What else is filled in: $seed, $run (the folder of these lines), $model ($run/model), and what the user gives: $data
    (folder of pairs and suites), $pictures (folder of the sets of launch/image_data.sh) and $source (a model to start from).
    `seeds` are at least three, and five where a run of every arm takes two minutes or less; they are no part of what identifies
    a run, so adding seeds keeps what was measured. `figure` is what the paper prints; `note` what a reader must know of the
    small version; `untestable` says why a claim cannot be tested
    here.
    """

    title: str
    paper: str
    figure: str
    arms: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    suite: str = "$data/suites/text-small.json"
    dims: Sequence[int] = ()
    precisions: Sequence[str] = ()
    tasks: Sequence[str] = ()
    prepared: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2)
    note: str = ""
    untestable: str | None = None

    def __post_init__(self):
        if self.untestable is not None:
            return
        if not self.arms or not self.comparisons:
            raise ConfigError(f"Claim {self.title!r}: needs arms and comparisons, or a reason in untestable")
        if len(self.seeds) < 3 or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"Claim {self.title!r}: seeds = {tuple(self.seeds)}; at least three, each once")
        if all(comparison.kind == "shown" for comparison in self.comparisons):
            raise ConfigError(f"Claim {self.title!r}: no comparison is judged; make one 'better' or 'no worse'")
        for comparison in self.comparisons:
            for arm in (comparison.better, comparison.than):
                if arm not in self.arms:
                    raise ConfigError(f"Claim {self.title!r}: no arm {arm!r}{did_you_mean(arm, self.arms)}")
        known = set(PLACES) - {"seed"}
        for name, lines in self.prepared.items():
            if not re.fullmatch("[a-z_]+", name) or name in PLACES:
                raise ConfigError(f"Claim {self.title!r}: prepared {name!r}: a name in small letters, not {PLACES}")
            self._check_places(lines, known)
            known.add(name)
        self._check_places([self.suite], known)
        for name, lines in self.arms.items():
            if name in known:
                raise ConfigError(f"Claim {self.title!r}: {name!r} is an arm and something else; rename it")
            self._check_places(lines, known | {"seed"})
            known.add(name)

    def _check_places(self, lines: Sequence[str], known: set[str]) -> None:
        for line in lines:
            for name in string.Template(line).get_identifiers():
                if name not in known:
                    raise ConfigError(f"Claim {self.title!r}: ${name} in {line!r}{did_you_mean(name, known)}")

    @property
    def needs(self) -> set[str]:
        """What the user must give: some of `GIVEN`."""
        lines = [line for arm_lines in (*self.prepared.values(), *self.arms.values()) for line in arm_lines]
        return {p for line in (*lines, self.suite) for p in string.Template(line).get_identifiers()} & set(GIVEN)
