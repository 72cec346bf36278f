"""The parts of a recipe: prompts, splits, how weights are moved, earlier stages. Each key is documented where it is declared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from matdarwin.data.sampling import Sampling
from matdarwin.data.sources import DataError
from matdarwin.data.texts import check
from matdarwin.language.writing import Amounts, Order, Writing

_Decay = Annotated[float, Field(ge=0, lt=1)]

TOKENS_AT_ONCE = 640
"""Tokens that a CPU keeps in memory for the way back, about 1.4 MB each for the default base."""


class Part(BaseModel):
    """A part of a recipe: unknown keys are refused, and so are numbers that are none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(Part):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = Field(default=16, ge=1, description="Rank of the update of each matrix.")
    alpha: float = Field(default=32.0, gt=0, description="Scale of the update; its effect is alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the update.")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(default="all-linear", description="Matrices to adapt.")
    rate: float = Field(
        default=10.0,
        gt=0,
        description="Factor of optimising.learning_rate: low-rank updates want about ten times the rate of full "
        "fine-tuning (Schulman et al. 2025, LoRA Without Regret, 10.64434/tml.20250929).",
    )


class Prompting(Part):
    """How questions are put while training."""

    style: Literal["compact", "alpaca"] = Field(default="compact", description="Layout of the question.")
    wordings: tuple[int, ...] = Field(
        default=(), description="Wordings to draw from, by index; empty: the style's own."
    )
    order: Order = Field(
        default="canonical", description="Order of the elements; permuted: drawn anew for each row and epoch."
    )
    amounts: Amounts = Field(
        default="formula",
        # Not written where it is the default, see Optimising.
        exclude_if=lambda amounts: amounts == "formula",
        description="Amounts of the elements: as the formula has them, or as per cent of all atoms to two decimals, which "
        "is shorter for alloys given in long fractions.",
    )

    def writing(self) -> Writing:
        """How materials are written."""
        return Writing(self.order, self.amounts)


class Splitting(Part):
    """Which rows teach, choose, calibrate and test."""

    rule: Literal["key", "none"] = Field(
        default="key",
        # Not written where it is the default, see `before`.
        exclude_if=lambda rule: rule == "key",
        description="key: a material in a test set teaches nothing of its quantity; none: nothing is removed or merged. "
        "none is for stating other people's runs, which can then be audited; it is trained with --allow-leak alone.",
    )
    folds: Literal["official", "aligned", "seeded"] = Field(default="official", description="Whose test folds.")
    validation: float = Field(
        default=0.1, ge=0, lt=0.5, description="Share of the training keys that choose the best epoch."
    )
    calibration: float = Field(
        default=0.1, ge=0, lt=0.5, description="Share of the training keys that calibrate intervals."
    )
    minimum_calibration: int = Field(
        default=50, ge=0, description="Fewest calibration keys a task, where it has enough rows."
    )
    seed: int = Field(default=0, description="Seed of the drawing.")
    limit: int | None = Field(
        default=None, ge=1, description="Most training rows of each of the recipe's own tasks; null: all."
    )
    test_limit: int | None = Field(
        default=None, ge=1, description="Most test rows to score in a demonstration; null: all."
    )


class Optimising(Part):
    """How weights are moved: AdamW (arXiv 1711.05101), linear warm-up, cosine to zero."""

    learning_rate: float = Field(default=1.5e-4, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay.")
    betas: tuple[_Decay, _Decay] = Field(default=(0.9, 0.99), description="AdamW's decay rates.")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps with a rising rate.")
    clip: float = Field(default=1.0, gt=0, description="Greatest norm of the gradient.")
    batch_size: int = Field(default=32, ge=1, description="Rows a step.")
    epochs: int = Field(default=6, ge=1, description="Passes over the training rows.")
    embeddings: Literal["used", "trained", "frozen"] = Field(
        default="used",
        description="Which token embeddings move in full fine-tuning: those of tokens that occur, all, or none. All cost "
        "3 to 9 % of a step more on a CPU.",
    )
    minimum_steps: int = Field(
        default=0, ge=0, description="Fewest steps; small sets are passed over more often to reach them."
    )
    # What stands at its default below is not written, so that results from before there were these keys compare equal
    # to new ones.
    average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        exclude_if=lambda share: share == 0,
        description="Share of the steps, the last ones, whose weights are averaged; 0: the last weights stand.",
    )
    final_rate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        exclude_if=lambda share: share == 0,
        description="Learning rate that the cosine falls to, as a share of the peak.",
    )
    examples: int | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda count: count is None,
        description="In place of epochs: examples of each task that are seen, on average over the tasks. Strategies that "
        "share it are compared at equal effort.",
    )
    steps: int | None = Field(
        default=None, ge=1, exclude_if=lambda count: count is None, description="In place of epochs: number of steps."
    )
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda rows: rows is None,
        description="Most rows in memory at once: a batch is run in parts whose gradients are added. null: no bound.",
    )
    micro_tokens: int | None = Field(
        default=None,
        ge=1,
        exclude_if=lambda tokens: tokens is None,
        description="Most tokens in memory at once, in the same way; a longer row is alone. null: "
        f"{TOKENS_AT_ONCE:,} on a CPU that keeps activations, no bound otherwise.",
    )
    checkpointing: bool = Field(
        default=False,
        exclude_if=lambda on: not on,
        description="Compute activations anew on the way back instead of keeping them: less memory, but twice "
        "to five times the time, since rows are then padded and share no prefix (results/bench/options.json).",
    )
    compile: bool = Field(
        default=False,
        exclude_if=lambda on: not on,
        description="Compile the layers (torch.compile): a minute at first, which on a CPU takes a C++ compiler. Whether a step "
        "is then quicker is the processor's affair (docs/results.md). Sums are rounded otherwise than without.",
    )
    smoothing: float = Field(
        default=0.0,
        ge=0,
        le=10,
        exclude_if=lambda width: width == 0,
        description="Width of the distribution that is taught in a number's place, a share of the task's mean absolute "
        "deviation; 0: the number alone.",
    )
    number_loss: Literal["none", "squared", "wasserstein"] = Field(
        default="none",
        exclude_if=lambda kind: kind == "none",
        description="Loss of digits as numbers, beside the cross-entropy (arXiv 2411.02083).",
    )
    number_weight: float = Field(
        default=0.3, ge=0, exclude_if=lambda weight: weight == 0.3, description="Factor of the number loss."
    )

    def shaping(self) -> Optimising:
        """These without what spares memory and leaves the weights as they are, but for how sums are rounded."""
        return self.model_copy(update={"micro_batch": None, "micro_tokens": None, "checkpointing": False})

    @model_validator(mode="after")
    def _one_measure(self) -> Optimising:
        if self.examples is not None and self.steps is not None:
            raise ValueError("give examples or steps, not both")
        if self.minimum_steps and (self.examples is not None or self.steps is not None):
            raise ValueError("minimum_steps belongs to epochs; leave it out beside examples or steps")
        if self.compile and self.checkpointing:
            raise ValueError("compile keeps activations, and checkpointing does not; choose one")
        return self


class Stage(Part):
    """What a model is taught before its tasks; all weights move. It is trained once and found again by its content."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Name of the stage; its checkpoint begins with it.")
    texts: tuple[str, ...] = Field(
        default=(),
        description="Question-answer pairs: sciqag; elements; computed:TASK, sentences of what an auxiliary task of computed "
        "numbers holds; or the path of a file of pairs. What they tell of materials of any scored task is left out.",
    )
    tasks: tuple[str, ...] = Field(default=(), description="Tasks that teach here, such as auxiliary ones.")
    sampling: Sampling = Field(default=Sampling(), description="By what rule tasks and texts share the stream.")
    optimising: Optimising = Field(default=Optimising(), description="How the weights are moved.")

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        together = [*self.texts, *self.tasks]
        if not together or len(set(together)) != len(together):
            raise ValueError(f"stage {self.name} needs texts or tasks, each once, got {', '.join(together) or 'none'}")
        for text in self.texts:
            try:
                check(text)
            except DataError as error:
                raise ValueError(str(error)) from error
        return self


class Predicting(Part):
    """How the finished model is asked; stored in its checkpoint."""

    views: int = Field(default=1, ge=1, le=16, description="Element orders to average the answer over.")
    batch_size: int = Field(default=64, ge=1, description="Prompts a batch.")
    dtype: Literal["auto", "fp32", "bf16", "int8"] = Field(
        default="auto", description="Number format when asked, in which intervals are calibrated too; auto: fp32."
    )
    prune: float = Field(default=0.01, ge=0, le=0.01, description="Greatest mass that may stay unexpanded.")
