"""What a row of the fault table is, and what its tries came to."""

import collections
import dataclasses
import pathlib
from collections.abc import Callable


class Report:
    """Counts tries. A try has an outcome, in a word or two, or it has failed."""

    def __init__(self):
        self.tried, self.survived = 0, 0
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []

    def survive(self, outcome: str, count: int = 1) -> None:
        """Counts tries that ended as wanted."""
        self.tried, self.survived = self.tried + count, self.survived + count
        self.outcomes[outcome] += count

    def fail(self, how: str) -> None:
        """Counts a try that ended otherwise."""
        self.tried += 1
        self.failures.append(" ".join(how.split())[:300])
        self.outcomes["not survived"] += 1


@dataclasses.dataclass(frozen=True)
class Row:
    """A kind of fault: what happens, how it must end, how many tries are wanted, and `run(folder, tries, seed)`."""

    name: str
    fault: str
    wanted: str
    aim: int
    run: Callable[[pathlib.Path, int, int], Report]
