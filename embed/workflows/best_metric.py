"""Whether `Recipe.best_metric` names something that a run scores, before hours of training."""

import re

from embed.errors import ConfigError, did_you_mean
from embed.evaluation.suites import Suite

OBJECTIVE = "mean of the types"
_OF_VALIDATION = re.compile(r"validation/(loss(@\d+)?|accuracy)")


def check(name: str, suite: Suite | None, has_validation: bool) -> None:
    """Raises ConfigError for a metric that neither the suite nor the held-out examples give.

    Metrics of the held-out examples are the loss, also at a Matryoshka size, and the accuracy; of other ones it is not known
    whether higher is better.
    """
    known = ["validation/loss"] if has_validation else []
    tasks = {} if suite is None else {task.name: f"{task.name}/{task.main}" for task in suite.tasks}
    if suite is not None:
        known += [*tasks.values(), *dict.fromkeys(suite.groups.values()), OBJECTIVE, "mean of the tasks"]
    is_known = name in known or (name.rpartition("/")[0] in tasks and not name.startswith("validation/"))
    if not is_known and not (has_validation and _OF_VALIDATION.fullmatch(name)):
        raise ConfigError(f"Recipe.best_metric = {name!r}{did_you_mean(name, known)}")
