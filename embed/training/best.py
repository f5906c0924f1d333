"""The best step of a run: what its metric says, where it is written down, and when it is forgotten."""

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from embed import bundles, files, hosts
from embed.errors import ConfigError, did_you_mean
from embed.metrics import higher_is_better

SCORES = "scores.json"


@dataclasses.dataclass(frozen=True)
class Best:
    """Finds the best step of the run in a folder by `metric`; without a metric no step is the best.

    `scored_on` is the digest of what is scored. A best step of another metric or of other tasks is not compared with new scores.
    """

    run_dir: pathlib.Path
    metric: str | None
    scored_on: str = ""

    def read(self, first: int, say: Callable[[str], None]) -> dict[str, Any] | None:
        """Returns the best step of a run that goes on from step `first`, or None. A best step that cannot be compared is removed.

        Evaluations after `first` are removed too, and made again: their checkpoints are damaged or gone.
        """
        best = bundles.read_best(self.run_dir) if hosts.is_main() else None
        reason = None if best is None else self._reason(best, first)
        if hosts.is_main():
            if reason is not None:
                (self.run_dir / bundles.BEST).unlink()
                say(f"note       the best step so far, {best['step']} by {best['metric']}, is forgotten: {reason}")
            for path in self.run_dir.glob(f"evaluation/*/{SCORES}"):
                if int(path.parent.name) > first:
                    shutil.rmtree(path.parent)
        # Every host reads what the main host has decided.
        hosts.share(self.run_dir, "the evaluations so far were looked at")
        return bundles.read_best(self.run_dir)

    def _reason(self, best: Mapping[str, Any], first: int) -> str | None:
        if best["metric"] != self.metric:
            return "the run is judged by another metric now" if self.metric else "the run is not judged any more"
        if best.get("scored_on", self.scored_on) != self.scored_on:
            return "other tasks are scored now"
        if best["step"] > first or not (self.run_dir / "checkpoints" / str(best["step"])).is_dir():
            return "its checkpoint is damaged or gone"
        return None

    def after(
        self, best: dict[str, Any] | None, scores: Mapping[str, float], step: int, say: Callable[[str], None]
    ) -> dict[str, Any] | None:
        """Returns the best step after `step` scored. A score that is not finite is never better."""
        if self.metric is None:
            return best
        if self.metric not in scores:
            raise ConfigError(f"Recipe.best_metric = {self.metric!r}: is not scored{did_you_mean(self.metric, scores)}")
        score = float(scores[self.metric])
        if not math.isfinite(score):
            say(f"warning    step {step}: {self.metric} is {score}, and the step cannot be the best one")
            return best
        sign = 1.0 if higher_is_better(self.metric) else -1.0
        if best is not None and sign * best["score"] >= sign * score and best["step"] != step:
            return best
        return {"step": step, "score": score, "metric": self.metric, "scored_on": self.scored_on}

    def write(self, best: Mapping[str, Any]) -> None:
        """Writes the best step down, by the main host, once its checkpoint is committed."""
        if hosts.is_main():
            files.write_json(self.run_dir / bundles.BEST, best)

    def evaluations_since(self, best: Mapping[str, Any], done: int) -> int:
        """Returns how many evaluations there were after the best one, up to step `done`.

        They are counted by their files, so that a resumed run ends where it would have.
        """
        scored = [int(path.parent.name) for path in self.run_dir.glob(f"evaluation/*/{SCORES}")]
        return sum(best["step"] < step <= done for step in scored)
