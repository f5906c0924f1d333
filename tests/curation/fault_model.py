"""What `embed curate queries --concurrency=1` must do against a script of faults, written down a second time and apart."""

import collections
import dataclasses

from fault_server import FINAL, REFUSED, RIGHT, WRONG, right_answer


class End(Exception):
    """The run ends before its last passage; `spent` by its budget, else by an error."""

    def __init__(self, spent: bool):
        super().__init__(spent)
        self.spent = spent


@dataclasses.dataclass
class Model:
    """The state of a job over its runs: what was kept, sent and failed."""

    passages: list[str]
    attempts: int
    faults: collections.deque
    kept: dict = dataclasses.field(default_factory=dict)
    sent: int = 0
    failures: int = 0
    in_a_row: int = 0

    def run(self, max_requests: int) -> tuple[int, int]:
        """Returns the exit code of one run, and how many requests the server has seen after it."""
        self.max_requests, self.right, self.wrong, rows = max_requests, 0, 0, 0
        try:
            for passage in self.passages:
                rows += self._passage(passage)
        except End as e:
            if not e.spent:
                return 69, self.sent
            failing = self.failures and (not self.kept or self.in_a_row >= 3)
            return 69 if failing or (self.wrong and not self.right) else 75, self.sent
        return 0 if rows else 65, self.sent

    def _passage(self, passage: str) -> bool:
        """Returns whether a row is written."""
        if not self._ask("query", passage) or not self._ask("rate_query", passage):
            return False
        user = lambda *texts: "".join(f"<text 0>\n{text}\n</text 0>" for text in texts)  # noqa: E731
        ask = lambda kind, *texts: right_answer(  # noqa: E731
            {"messages": [{}, {"content": user(*texts)}], "response_format": {"json_schema": {"name": kind}}}
        )
        return ask("rate_query", ask("query", passage)["query"], passage)["rating"] >= 4

    def _ask(self, kind: str, passage: str) -> bool:
        """Returns whether a right answer came in one of three tries."""
        for number in range(3):
            key = kind, passage, number
            if key not in self.kept and not self._send(key):
                return False
            if self.kept[key]:
                self.right += 1
                return True
            self.wrong += 1
        return False

    def _send(self, key) -> bool:
        """Keeps the reply to a request; returns False where the server refuses it."""
        for _ in range(self.attempts):
            if self.sent >= self.max_requests:
                raise End(spent=True)
            self.sent += 1
            fault = self.faults.popleft() if self.faults else "ok"
            if fault in RIGHT or fault in WRONG:
                self.kept[key], self.in_a_row = fault in RIGHT, 0
                return True
            self.failures += 1
            self.in_a_row += 1
            if fault in FINAL or (fault in REFUSED and not self.kept):
                raise End(spent=False)
            if fault in REFUSED:
                return False
        raise End(spent=False)
