"""The public face: `Darwin`, a model to ask, and the recipe that a user's own task is trained by."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matdarwin.materials.material import Material
from matdarwin.models.base import AskedIn
from matdarwin.models.checkpoint import Card, Checkpoint
from matdarwin.models.store import find_checkpoint
from matdarwin.prediction.prediction import Prediction, Predictions
from matdarwin.tasks.registry import nearest
from matdarwin.tasks.schema import Task
from matdarwin.training.recipe import Recipe, RecipeError
from matdarwin.training.recipe_files import build_recipe, load_recipe

if TYPE_CHECKING:
    from matdarwin.prediction.predictor import Predictor, Progress
    from matdarwin.training.report import Report

Conditions = Mapping[str, str | float]


class QuestionError(ValueError):
    """A question that cannot be put: no task or several to choose from, a coverage or condition that cannot be."""


class Darwin:
    """A checkpoint to ask. Its weights are read when it is first asked.

    Attributes:
        checkpoint: The sealed checkpoint.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: AskedIn = "auto",
        batch_size: int | None = None,
        views: int | None = None,
        exact: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self._options: dict[str, Any] = {"dtype": dtype, "batch_size": batch_size, "views": views, "exact": exact}
        self._predictor: Predictor | None = None

    @classmethod
    def load(
        cls,
        model: str | Path | None = None,
        *,
        tasks: Sequence[str] = (),
        dtype: AskedIn = "auto",
        batch_size: int | None = None,
        views: int | None = None,
        exact: bool = False,
    ) -> Darwin:
        """Open a checkpoint.

        Args:
            model: Its name in the folder `checkpoints`, or its folder; None: the newest sealed product checkpoint that
                knows the tasks.
            tasks: Ids of tasks that it must know.
            dtype: Number format; `auto`: as its recipe has it, which is fp32 unless it says otherwise. In fp32 values do
                not depend on the batch; bf16 and int8 (on a CPU) are for speed.
            batch_size: Prompts a batch; None: as its recipe has it.
            views: Element orders to average an answer over; None: as its recipe has it.
            exact: Prune nothing and score every end of an answer; several times slower.

        Raises:
            CheckpointError: There is none, it is not sealed or damaged, or does not know a task.
        """
        found = find_checkpoint(None if model is None else str(model), list(tasks))
        return cls(found, dtype=dtype, batch_size=batch_size, views=views, exact=exact)

    @classmethod
    def train(
        cls, recipe: Recipe | Path | str, *, tasks: Sequence[Task] | None = None, report: Report | None = None
    ) -> Darwin:
        """Run a recipe, or the recipe file of that path; one that has run already is read, not run again.

        Args:
            recipe: The recipe.
            tasks: Its tasks, where they are no registered ones.
            report: Where progress is told.

        Raises:
            RecipeError, DataError, BaseModelError, TrainingError, CheckpointError: See `matdarwin.training.run.train`.
        """
        from matdarwin.training.run import train

        return cls(train(recipe if isinstance(recipe, Recipe) else load_recipe(recipe), tasks=tasks, report=report))

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.checkpoint.name

    @property
    def card(self) -> Card:
        """What the checkpoint says of itself."""
        return self.checkpoint.card

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks that it knows, by id."""
        return {name: entry.task for name, entry in self.card.tasks.items()}

    @property
    def caveat(self) -> str | None:
        """What its predictions note: each that it is LEAKY, and those with an interval that it is asked otherwise than they were calibrated; None: nothing."""
        from matdarwin.prediction.caveats import caveat, remark

        said = [caveat(self.card, dtype=self._options["dtype"], views=self._options["views"]), remark(self.card)]
        return "; ".join(filter(None, said)) or None

    @property
    def predictor(self) -> Predictor:
        """What asks the model; loads its weights the first time."""
        if self._predictor is None:
            from matdarwin.prediction.predictor import Predictor

            self._predictor = Predictor.of(self.checkpoint, **self._options)
        return self._predictor

    def resolve(self, task: str | Sequence[str] | None = None) -> list[str]:
        """Ids of the tasks meant: those named, each once; None: the only one that the checkpoint knows.

        Raises:
            QuestionError: An unknown one, or None where there are several; the known ones are named.
        """
        known = list(self.card.tasks)
        if task is None:
            if len(known) != 1:
                raise QuestionError(f"{self.name} knows several tasks, so say which: {', '.join(known)}")
            return known
        names = list(dict.fromkeys([task] if isinstance(task, str) else task))
        if not names:
            raise QuestionError(f"no task is named; {self.name} knows {', '.join(known)}")
        for name in names:
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(known)}"
                raise QuestionError(f"{self.name} does not know the task {name}; {hint}")
        return names

    def predict(
        self,
        materials: object,
        task: str | Sequence[str] | None = None,
        *,
        coverage: float = 0.9,
        conditions: Conditions | None = None,
        progress: Progress | None = None,
    ) -> Predictions:
        """Predict one or several properties of one or several materials.

        Args:
            materials: One material or a sequence (also an array, a pandas Series or a frame with one column) of texts,
                pymatgen compositions or structures, or RDKit molecules.
            task: Id of a task, or several; None: the only one that the model knows.
            coverage: Share of true values that the intervals are to hold, between 0 and 1.
            conditions: Conditions of the question, such as `{"temperature": 300}`; each task takes those that it has.
            progress: Called with the number of answers had and of all.

        Returns:
            One prediction a material and task: all tasks of the first material, then of the second, and so on. What is
            no material has the status "invalid", with the reason.

        Raises:
            QuestionError: See `resolve`; or a coverage or condition that cannot be.
        """
        names = self.resolve(task)
        by_task = self.conditions(names, conditions)
        check_coverage(coverage)
        given = as_list(materials)
        answers: list[list[Prediction]] = []
        for number, name in enumerate(names):

            def told(done: int, total: int, before: int = number * len(given)) -> None:
                if progress:
                    progress(before + done, len(names) * len(given))

            answers.append(
                self.predictor.predict(given, name, coverage=coverage, conditions=by_task[name], progress=told)
            )
        return Predictions(answers[k][i] for i in range(len(given)) for k in range(len(names)))

    def conditions(self, tasks: Sequence[str], given: Conditions | None) -> dict[str, dict[str, str | float]]:
        """The conditions of each task, checked; a text that stands for a number with a unit becomes one.

        Raises:
            QuestionError: A condition that no task has, that one needs and is not given, or that is no number.
        """
        from matdarwin.language.prompts import conditions_text

        known = self.tasks
        found: dict[str, dict[str, str | float]] = {name: {} for name in tasks}
        for key, value in (given or {}).items():
            takers = [(name, c) for name in tasks for c in known[name].conditions if c.name == key]
            if not takers:
                has = ", ".join(dict.fromkeys(c.name for name in tasks for c in known[name].conditions)) or "none"
                raise QuestionError(f"{', '.join(tasks)} has no condition {key!r}; it has {has}")
            for name, condition in takers:
                found[name][key] = value if condition.unit is None else _number(key, value)
        for name in tasks:
            try:
                conditions_text(known[name], found[name])
            except ValueError as error:
                raise QuestionError(str(error)) from error
        return found

    def __repr__(self) -> str:
        return f"Darwin({self.name!r}, tasks={list(self.card.tasks)})"

    def __getstate__(self) -> dict[str, Any]:
        # Weights are read again from the checkpoint, which is smaller to send and cannot differ from it.
        return {**self.__dict__, "_predictor": None}


def check_coverage(coverage: float) -> None:
    """Make sure that a coverage is a share.

    Raises:
        QuestionError: It does not lie between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise QuestionError(f"coverage lies between 0 and 1, neither included, such as 0.9; got {coverage}")


def as_list(materials: object) -> list[object]:
    """One material or many, in whatever shape users have them, as a list.

    Raises:
        QuestionError: An array or frame with several columns or without rows, or bytes.
    """
    if isinstance(materials, bytes | bytearray | memoryview):
        raise QuestionError("materials are texts, not bytes; decode them first, as in given.decode()")
    if isinstance(materials, str | Material | Mapping) or materials is None or _is_object_of_chemistry(materials):
        return [materials]
    if not isinstance(materials, Iterable):
        return [materials]
    shape: tuple[int, ...] = getattr(materials, "shape", (0,))
    if len(shape) not in (1, 2):
        raise QuestionError(f"materials stand in one column, got an array of the shape {shape}; give a list of them")
    if len(shape) == 2:
        if shape[1] != 1:
            raise QuestionError(
                f"materials stand in one column, got {shape[1]}; choose one, such as table['composition']"
            )
        flat = materials.iloc[:, 0] if hasattr(materials, "iloc") else materials[:, 0]  # type: ignore[index]
        return list(flat)
    given = list(materials)
    # A column written as a list of one-element rows.
    if given and all(isinstance(row, list | tuple) for row in given):
        if wrong := next((row for row in given if len(row) != 1), None):
            raise QuestionError(f"materials stand in one column, got a row of {len(wrong)}")
        return [row[0] for row in given]
    return given


def _is_object_of_chemistry(given: object) -> bool:
    """Whether it is one structure or composition, which are sequences or mappings themselves."""
    for module, name in (
        ("pymatgen.core.composition", "Composition"),
        ("pymatgen.core.structure", "SiteCollection"),
        ("rdkit.Chem", "Mol"),
    ):
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(given, getattr(loaded, name)):
            return True
    return False


def _number(key: str, value: str | float) -> float:
    try:
        return float(value)
    except ValueError:
        raise QuestionError(f"condition {key} is a number, got {value!r}") from None


def recipe_for(task: Task, *, name: str = "table", settings: Sequence[str] = (), **keys: Any) -> Recipe:
    """The recipe that a task of one's own is trained by, where none is written.

    Args:
        task: The task.
        name: Name of the recipe; the checkpoint's name begins with it.
        settings: `key=value` changes, dotted for nested keys.
        keys: Other keys of the recipe.

    Raises:
        RecipeError: A setting that is none, or that names other tasks.
    """
    content: dict[str, Any] = {
        "name": name,
        "tasks": [task.id],
        "split": {"folds": "seeded"},
        # A small table is passed over until there were steps enough to learn how to answer.
        "optimising": {"epochs": 6, "minimum_steps": 150},
    }
    for key, value in keys.items():
        content[key] = {**content[key], **value} if isinstance(content.get(key), dict) else value
    recipe = build_recipe(content, list(settings), where=name)
    if recipe.tasks != (task.id,):
        raise RecipeError(f"--set tasks: the table is the task {task.id}; to train several tasks, write a recipe file")
    return recipe


def known_bases() -> list[dict[str, Any]]:
    """The embedded base models: name, whether each is unpacked on this machine, and where it comes from."""
    from matdarwin.models.base import EMBEDDED, embedded_folder

    return [
        {
            "name": name,
            "present": embedded_folder(name).is_dir(),
            "source": f"{source.kind} {source.name} {source.version}",
        }
        for name, source in EMBEDDED.items()
    ]


def example_of(task: Task) -> dict[str, str] | None:
    """The first row of a task as `prompt` and `answer`, as a model reads and writes them; None where the data are not here."""
    from matdarwin.data.cards import away
    from matdarwin.data.readers import read
    from matdarwin.language.answers import format_answer
    from matdarwin.language.prompts import conditions_text, style

    if away(task) is not None:
        return None
    first = next(iter(read(task).examples), None)
    if first is None or first.target is None:
        return None
    asked = style("compact")
    conditions = conditions_text(task, first.conditions)
    prompt = asked.render(task, first.material.text, wording=asked.wording_of(task), conditions=conditions)
    return {"prompt": prompt, "answer": format_answer(task, first.target)}
