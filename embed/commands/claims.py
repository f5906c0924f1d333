"""A claim of a paper as data: arms that are command lines, seeds, and what must be better than what."""

import dataclasses
import string
from collections.abc import Mapping, Sequence

from embed.errors import ConfigError, did_you_mean

PLACES = ("claim", "data", "model", "run", "seed", "source")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`better` and `than` name arms. `metric` is a mean of the suite ('mean of the types', a type) or 'task/score'; `view` a size.

    `least` is how many points are claimed; less is told as such.
    """

    better: str
    than: str
    metric: str = "mean of the types"
    view: str | None = None
    least: float = 0.0

    @property
    def name(self) -> str:
        where = "" if self.view is None else f" at {self.view}"
        return f"{self.better} > {self.than}: {self.metric}{where}"


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim at small scale. Bound by a gin file under gin/claims/.

    `arms` are lists of command lines of `embed`, run one after the other for every seed; the model that they leave at $model
    is scored on `suite` at `dims`. `prepare` is run once before. What is filled in: $seed, $run (folder of arm and seed), $model
    ($run/model), $claim (folder of the claim, shared by its arms), and what the user gives: $data (folder of pairs and suites)
    and $source (a model to start from). `figure` is what the paper prints; `untestable` says why a claim cannot be tested here.
    """

    title: str
    paper: str
    figure: str
    arms: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    suite: str = "$data/suites/text-small.json"
    dims: Sequence[int] = ()
    tasks: Sequence[str] = ()
    prepare: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1, 2)
    untestable: str | None = None

    def __post_init__(self):
        if self.untestable is not None:
            return
        if not self.arms or not self.comparisons:
            raise ConfigError(f"Claim {self.title!r}: needs arms and comparisons, or a reason in untestable")
        if len(self.seeds) < 3 or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"Claim {self.title!r}: seeds = {tuple(self.seeds)}; at least three, each once")
        for comparison in self.comparisons:
            for arm in (comparison.better, comparison.than):
                if arm not in self.arms:
                    raise ConfigError(f"Claim {self.title!r}: no arm {arm!r}{did_you_mean(arm, self.arms)}")
        for line in (*self.prepare, *(x for own in self.arms.values() for x in own), self.suite):
            for place in string.Template(line).get_identifiers():
                if place not in PLACES:
                    raise ConfigError(f"Claim {self.title!r}: ${place} in {line!r}{did_you_mean(place, PLACES)}")

    @property
    def needs(self) -> set[str]:
        """What the user must give: 'data', 'source'."""
        lines = (*self.prepare, *(x for own in self.arms.values() for x in own), self.suite)
        return {p for line in lines for p in string.Template(line).get_identifiers()} & {"data", "source"}
