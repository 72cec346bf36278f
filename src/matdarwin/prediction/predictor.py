"""The predictor: a checkpoint and materials to predictions. Training, evaluation and every door use this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matdarwin.data.evidence import Evidence
from matdarwin.language import prompts
from matdarwin.language.answers import grid
from matdarwin.language.prompts import Encoder, Style
from matdarwin.language.tree import AnswerTree
from matdarwin.language.writing import Writing
from matdarwin.materials import parse
from matdarwin.materials.material import Material, MaterialError
from matdarwin.models.base import AskedIn, device_and_dtype
from matdarwin.models.checkpoint import Checkpoint, CheckpointError, TaskCard
from matdarwin.models.decoding import SURE_END, USUAL, Decoder
from matdarwin.models.distribution import AnswerDistribution, average
from matdarwin.prediction.caveats import caveat, remark
from matdarwin.prediction.intervals import Calibration
from matdarwin.prediction.prediction import Prediction
from matdarwin.tasks.schema import Example, Task

Progress = Callable[[int, int], None]
"""Called with the number of rows done and of all rows."""

_PERMUTED = Writing("permuted")

_LONGEST = 2048
"""Most tokens of a question. The longest of the library's own has 340; memory grows with the square."""
_ANSWER = 32
"""Places that are left for an answer."""

_FEW = 3
"""An element seen in fewer training materials than this is noted."""


class Predictor:
    """Asks one model.

    Args:
        model: The causal language model, on its device.
        tokenizer: Its tokenizer.
        tasks: What the model knows of each of its tasks.
        style: Layout of the question it was taught.
        name: Name that predictions carry.
        calibrations: Calibration of each task's intervals.
        views: Element orders to average an answer over.
        batch_size: Prompts a batch.
        prune: Greatest mass that may stay unexpanded in a row.
        sure_end: See `Decoder`.
        wording: Index of the wording to ask in; None: the style's own.
        writing: How it was taught to read materials.
        evidence: What its questions on measured tasks say of a material beside its name; None: nothing.
        caveat: Note for predictions with an interval, where it is asked otherwise than its intervals were calibrated.
        remark: Note for every prediction.
        recipe: What it was trained by, as its card has it, where that is known.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        tasks: Mapping[str, TaskCard],
        style: Style,
        name: str,
        calibrations: Mapping[str, Calibration] | None = None,
        views: int = 1,
        batch_size: int = 64,
        prune: float = 0.01,
        sure_end: float = SURE_END,
        wording: int | None = None,
        writing: Writing = _PERMUTED,
        evidence: Evidence | None = None,
        caveat: str | None = None,
        remark: str | None = None,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        self.tasks = dict(tasks)
        self.recipe = recipe
        self._model = model
        self.name = name
        self.views = views
        self.batch_size = batch_size
        self.calibrations = dict(calibrations or {})
        self._encoder = Encoder(tokenizer)
        self._decoder = Decoder(model, prune=prune, sure_end=sure_end)
        self._style = style
        self._wording = wording
        self._writing = writing
        self._evidence = evidence
        self._caveat, self._remark = caveat, remark
        self._trees: dict[str, tuple[AnswerTree, Any]] = {}
        places = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        self._longest = _LONGEST if places is None else min(_LONGEST, places - _ANSWER)

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        *,
        dtype: AskedIn = "auto",
        batch_size: int | None = None,
        views: int | None = None,
        exact: bool = False,
    ) -> Predictor:
        """The predictor of a checkpoint.

        Args:
            checkpoint: A sealed checkpoint.
            dtype: Number format; `auto`: as its recipe has it, which is fp32 unless it says otherwise. In fp32 values do
                not depend on the batch; bf16 and int8 (on a CPU) are for speed.
            batch_size: Prompts a batch; None: as its recipe has it.
            views: Element orders to average over; None: as its recipe has it.
            exact: Prune nothing and score every end; several times slower.
        """
        card = checkpoint.card
        asked, taught = card.recipe["predicting"], card.recipe["prompting"]
        device, number_format = device_and_dtype(asked["dtype"] if dtype == "auto" else dtype, training=False)
        if views not in (None, 1) and taught["order"] != "permuted":
            raise CheckpointError(
                f"{checkpoint.name} was taught one element order ({taught['order']}), so it can be asked in 1 view only, not {views}"
            )
        return cls(
            checkpoint.model(number_format).to(device),
            checkpoint.tokenizer(),
            tasks=card.tasks,
            style=next(s for s in prompts.STYLES.values() if s.id == card.style),
            name=checkpoint.name,
            calibrations={task: Calibration.model_validate(c) for task, c in checkpoint.calibration().items()},
            views=views or asked["views"],
            batch_size=batch_size or asked["batch_size"],
            prune=0.0 if exact else asked["prune"],
            sure_end=1.0 if exact else SURE_END,
            wording=taught["wordings"][0] if taught["wordings"] else None,
            writing=Writing.taught(taught),
            # A model that was taught with evidence must not be asked without: where it cannot be had, this fails.
            evidence=Evidence.load(card.recipe["evidence"]) if card.recipe.get("evidence") else None,
            caveat=caveat(card, dtype=dtype, views=views),
            remark=remark(card),
            recipe=card.recipe,
        )

    def prompt(self, task: Task, example: Example, *, wording: int | None = None) -> str:
        """The question as the model reads it, in canonical element order."""
        return self._render(task, example, self._writing.views(example.material, 1)[0], wording)

    def example(self, task: Task, material: Material, conditions: Mapping[str, str | float] | None = None) -> Example:
        """The question about a material, as `predict` puts it: with the evidence that the model was taught with."""
        return Example(
            task=task.id,
            row="",
            material=material,
            conditions=dict(conditions or {}),
            evidence=self._known(task, material),
        )

    def wording(self, task: Task) -> int:
        """Index of the wording that a task is asked in."""
        return self._wording_of(task, None)

    def embeddings(
        self, task: Task, examples: Sequence[Example], *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """What the model makes of each question: its last hidden state at the last token, from where the answer begins.

        Args:
            task: The task asked.
            examples: The questions, each in canonical element order.
            progress: Told the examples done and all of them, after each batch.

        Returns:
            Array [examples, width of the model].
        """
        import torch

        ids = self._encoder.prompts([self.prompt(task, example) for example in examples])
        found: list[Any] = [None] * len(ids)
        done = 0
        by_length: dict[int, list[int]] = {}
        for number, tokens in enumerate(ids):
            by_length.setdefault(len(tokens), []).append(number)
        # Prompts of one length alone share a batch, so that no padding can touch the state.
        for numbers in by_length.values():
            for start in range(0, len(numbers), self.batch_size):
                chosen = numbers[start : start + self.batch_size]
                with torch.inference_mode():
                    batch = torch.tensor([ids[i] for i in chosen], device=self._model.device)
                    out = self._model(input_ids=batch, use_cache=False, output_hidden_states=True, logits_to_keep=1)
                states = out.hidden_states[-1][:, -1].float().cpu().numpy()
                for i, state in zip(chosen, states, strict=True):
                    found[i] = state
                done += len(chosen)
                if progress:
                    progress(done, len(ids))
        return np.stack(found) if found else np.empty((0, 0), dtype=np.float32)

    def distributions(
        self, task: Task, examples: Sequence[Example], *, wording: int | None = None, progress: Progress | None = None
    ) -> list[AnswerDistribution | None]:
        """The answer distribution of each example, averaged over the views; None where none could be read.

        Prompts of like length share a batch; the results stand in the order of the examples.
        """
        tree, values = self._tree(task)
        texts: list[str] = []
        owner: list[int] = []
        for number, example in enumerate(examples):
            for view in self._writing.views(example.material, self.views):
                texts.append(self._render(task, example, view, wording))
                owner.append(number)
        ids = self._encoder.prompts(texts)
        prefix = self._prefix(task, wording)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found: list[list[AnswerDistribution]] = [[] for _ in examples]
        start = 0
        while start < len(order):
            chosen = order[start : start + self.batch_size]
            # Attention grows with the square of the longest: few long prompts at a time, and all at once of the usual ones.
            chosen = chosen[: max(1, self.batch_size * USUAL**2 // max(1, len(ids[chosen[-1]])) ** 2)]
            answers = self._decoder.distributions([ids[i] for i in chosen], tree, values, task.labels, prefix=prefix)
            for i, answer in zip(chosen, answers, strict=True):
                if answer is not None:
                    found[owner[i]].append(answer)
            start += len(chosen)
            if progress:
                progress(start * len(examples) // len(order), len(examples))
        return [average(views) if views else None for views in found]

    def predict(
        self,
        materials: Sequence[object],
        task: str,
        *,
        coverage: float = 0.9,
        conditions: dict[str, str | float] | None = None,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        """Predict one property of each material; the same length and order as given.

        Args:
            materials: Texts, pymatgen compositions or structures, RDKit molecules.
            task: Id of a task that the model knows.
            coverage: Wanted share of true values inside the intervals.
            conditions: Conditions of the question, such as the temperature.
            progress: Called as batches are done.

        Raises:
            KeyError: The model does not know the task.
            ValueError: `coverage` is not between 0 and 1, or a condition is missing or unknown.
        """
        if not 0 < coverage < 1:
            raise ValueError(f"coverage lies between 0 and 1, such as 0.9; got {coverage}")
        card = self.tasks[task]
        prompts.conditions_text(card.task, conditions or {})
        read: list[Material | MaterialError] = []
        for given in materials:
            try:
                read.append(parse(given, card.task.representation))
            except MaterialError as error:
                read.append(error)
        asked = [
            Example(task=task, row=str(i), material=m, conditions=conditions or {}, evidence=self._known(card.task, m))
            for i, m in enumerate(read)
            if isinstance(m, Material)
        ]
        long = {one.row: reason for one in asked if (reason := self._too_long(card.task, one))}
        asked = [one for one in asked if one.row not in long]
        answers = iter(self.distributions(card.task, asked, progress=progress))
        made = []
        for i, (given, material) in enumerate(zip(materials, read, strict=True)):
            if isinstance(material, MaterialError):
                # An object that was refused has no text of its own.
                made.append(self._blank(card.task, str(given), None, "invalid", str(material)))
                continue
            shown = given if isinstance(given, str) else material.given
            if reason := long.get(str(i)):
                made.append(self._blank(card.task, shown, None, "invalid", reason))
            else:
                made.append(self._prediction(card, shown, material, next(answers), coverage))
        return made

    @staticmethod
    def value(card: TaskCard, answer: AnswerDistribution) -> float | str:
        """The one value of a distribution that is best by the task's metric: a number in its unit, or a label."""
        task = card.task
        if task.kind == "classification":
            shares = np.array([card.shares[label] for label in task.labels])
            return answer.label(shares if task.metric == "balanced_accuracy" else None)
        return answer.mean() if task.metric == "rmse" else answer.median()

    def _known(self, task: Task, material: Material) -> tuple[str, ...]:
        """Evidence on a material, where the model was taught with it."""
        if self._evidence is None or task.origin == "computed":
            return ()
        return self._evidence.words(material)

    # -- parts ---------------------------------------------------------------------------------------------

    def _too_long(self, task: Task, example: Example) -> str | None:
        """Why a question is not asked: the model has no place for it, or the machine no memory."""
        text = self.prompt(task, example)
        most = self._longest
        # No token is less than a byte.
        if len(text.encode()) <= most or (tokens := len(self._encoder.prompts([text])[0])) <= most:
            return None
        return f"its question has {tokens:,} tokens, and at most {most:,} are read"

    def _render(self, task: Task, example: Example, material: str, wording: int | None) -> str:
        return self._style.render(
            task,
            material,
            wording=self._wording_of(task, wording),
            conditions=prompts.conditions_text(task, example.conditions),
            evidence=" ".join(example.evidence),
        )

    def _wording_of(self, task: Task, asked: int | None) -> int:
        chosen = self._wording if asked is None else asked
        return self._style.wording_of(task) if chosen is None else chosen

    def _prefix(self, task: Task, wording: int | None) -> list[int]:
        """Tokens that all prompts of the task begin with: what two quite different materials have in common."""
        texts = [self._style.render(task, m, wording=self._wording_of(task, wording)) for m in ("Ag", "(x", "1,")]
        first, *others = self._encoder.prompts(texts)
        same = 0
        while all(same < len(o) and same < len(first) and o[same] == first[same] for o in others):
            same += 1
        return first[:same]

    def _tree(self, task: Task) -> tuple[AnswerTree, Any]:
        if task.id not in self._trees:
            values = np.array(grid(task) if task.kind == "regression" else [], dtype=np.float64)
            self._trees[task.id] = AnswerTree.of_task(task, self._encoder), values
        return self._trees[task.id]

    def _blank(self, task: Task, given: str, material: str | None, status: str, reason: str) -> Prediction:
        return Prediction(
            input=given, material=material, task=task.id, value=None, unit=task.unit, lower=None, upper=None, coverage=None,
            status=status, reason=reason, notes=(), model=self.name, distribution=None,
        )  # fmt: skip

    def _prediction(
        self, card: TaskCard, given: str, material: Material, answer: AnswerDistribution | None, coverage: float
    ) -> Prediction:
        task = card.task
        if answer is None:
            return self._blank(
                task, given, material.text, "unread", "the model gave no probability to any answer of the task's format"
            )
        value = self.value(card, answer)
        lower = upper = None
        status = "ok"
        reason = None
        if not isinstance(value, str):
            calibration = self.calibrations.get(task.id)
            interval = calibration.interval(answer, coverage, value=value) if calibration else None
            if interval is None:
                status, reason = "uncalibrated", "too few calibration materials for an interval that means what it says"
            else:
                lower, upper = interval
        return Prediction(
            input=given, material=material.text, task=task.id, value=value, unit=task.unit, lower=lower, upper=upper,
            coverage=coverage if lower is not None else None, status=status, reason=reason,
            notes=tuple(self._notes(card, material, answer, interval=lower is not None)), model=self.name, distribution=answer,
        )  # fmt: skip

    def _notes(self, card: TaskCard, material: Material, answer: AnswerDistribution, *, interval: bool) -> list[str]:
        notes = [f"asked with {phrase}" for phrase in self._known(card.task, material)]
        unseen = [e for e in material.elements if not card.elements.get(e)]
        few = [e for e in material.elements if 0 < card.elements.get(e, 0) < _FEW]
        if unseen:
            notes.append(f"outside what the model was trained on: never saw {', '.join(unseen)}")
        if few:
            notes.append(f"saw {', '.join(few)} in fewer than {_FEW} training materials")
        if answer.outside > 0.05:
            notes.append(f"{answer.outside:.0%} of the model's probability lay outside the answer format")
        spread = card.spreads.get(material.key, 0.0)
        if spread > max(
            0.1 * abs(answer.median()) if not answer.labels else 0.0, 2 * 10.0 ** -(card.task.decimals or 0)
        ):
            notes.append(f"measurements of this material differ by up to {spread:g} {card.task.unit or ''}".rstrip())
        if interval and self._caveat:
            notes.append(self._caveat)
        if self._remark:
            notes.append(self._remark)
        return notes
