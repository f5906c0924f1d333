"""The prompts that a teacher reads a recipe's texts in: those of the tasks, as the teacher has them."""

from collections.abc import Mapping

from embed.data.tasks import Mixture
from embed.data.text_features import Side
from embed.errors import ConfigError
from embed.text import template
from embed.workflows.encode import Encoding
from embed.workflows.encode_endpoint import TEXT_ALONE, Served

_USUAL: dict[Side, str] = {"query": "query", "target": "document"}  # the name of a side's prompt that a model has


class TeacherPrompts:
    """The template of each text by its task and side.

    A prompt that is `given` for a side holds for all of its texts. Else the prompt of a text is that of its record or task: under
    its name where the teacher has one of this name, or as the student has it where the teacher has the same template. Where it has
    neither, its usual prompt of the side is taken, and `notes` say so. An endpoint knows no prompts: texts are sent alone.
    """

    def __init__(
        self, teacher: Encoding, declared: Mixture, student: Mapping[str, str], given: Mapping[Side, str | None]
    ):
        self._teacher, self._student, self._given = teacher, dict(student), given
        self._declared = {
            (task.name, side): getattr(task, f"{side}_prompt") for task in declared.tasks for side in _USUAL
        }
        self._templates: dict[tuple[Side, str], str] = {}
        self.notes: list[str] = []

    def check(self, dims: int | None) -> None:
        """Raises an error for a prompt, or a size, that the teacher does not have, before any text is read."""
        for task, side in self._declared:
            self._teacher.check(self.of(task, side, ""), dims)

    def of(self, task: str, side: Side, of_record: str) -> str:
        """Returns the template for a text of a task. `of_record` is the prompt of its record, "" where it has none."""
        prompt = of_record or self._declared[task, side]
        if (side, prompt) not in self._templates:
            self._templates[side, prompt] = self._resolved(task, side, prompt)
        return self._templates[side, prompt]

    def tasks(self, side: Side) -> dict[str, str]:
        """Returns the student's template of each task, where the prompts of the vectors follow from them, else {}."""
        if self._given[side] is not None or isinstance(self._teacher, Served):
            return {}
        return {task: self._as_student(prompt) for (task, s), prompt in self._declared.items() if s == side}

    def _as_student(self, prompt: str) -> str:
        return template(prompt, self._student)

    def _resolved(self, task: str, side: Side, prompt: str) -> str:
        given, known = self._given[side], self._teacher.prompts
        if given is not None:
            return self._teacher.template(given)
        if isinstance(self._teacher, Served):
            return TEXT_ALONE
        if prompt in known:
            return known[prompt]
        as_student = self._as_student(prompt)
        if as_student in (*known.values(), TEXT_ALONE):
            return as_student
        usual = _USUAL[side]
        if usual not in known:
            raise ConfigError(
                f"task {task!r}: the teacher has neither the prompt {prompt!r} nor {usual!r} (known: {', '.join(sorted(known))}); "
                f"give --{side}_prompt"
            )
        self.notes.append(
            f"the teacher has no prompt {prompt!r}, which task {task!r} has for its {side}; it reads such texts in its prompt "
            f"{usual!r}: {known[usual]!r} (--{side}_prompt gives another)"
        )
        return known[usual]
