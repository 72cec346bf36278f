"""What the routes take, one model a request, each field documented where it is declared; and how a task is listed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from matdarwin.tasks.schema import Task


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Coverage = Annotated[
    float, Field(gt=0, lt=1, allow_inf_nan=False, description="Share of true values that the intervals are to hold.")
]
Conditions = Annotated[
    dict[Text, Number | Text],
    Field(description='Conditions of the question, such as {"temperature": 300}; each task takes those that it has.'),
]
Parts = Literal["neighbours", "embedding", "without", "swaps", "wordings"]


class Body(BaseModel):
    """Strict base: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class PredictBody(Body):
    """What to predict."""

    materials: Text | list[Text | None] = Field(
        description="One material or many: formulas, SMILES or names.", examples=[["GaN", "CdTe"]]
    )
    tasks: Text | list[Text] | None = Field(
        default=None, description="Task or tasks; may be left out where the model knows one alone."
    )
    coverage: Coverage = 0.9
    conditions: Conditions | None = None


class ExplainBody(Body):
    """Which prediction to explain."""

    material: Text
    task: Text | None = Field(default=None, description="May be left out where the model knows one alone.")
    coverage: Coverage = 0.9
    conditions: Conditions | None = None
    parts: list[Parts] = Field(
        default=["neighbours"], max_length=5, description="What to compute beside the prediction and its distribution."
    )


class TextPart(BaseModel):
    """One part of a chat message; only text is read."""

    type: str
    text: Text | None = None


class Message(BaseModel):
    """One chat message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None

    def words(self) -> str:
        """Its text."""
        if isinstance(self.content, str):
            return self.content
        return " ".join(part.text or "" for part in self.content or [] if part.type == "text")


class ChatBody(BaseModel):
    """A chat in the OpenAI form; its last user message is answered. Settings of sampling have nothing to act on."""

    model_config = ConfigDict(extra="allow")

    messages: list[Message] = Field(min_length=1, max_length=1000)
    model: Text | None = Field(default=None, description="Name of the served model; may be left out.")
    stream: bool = False


class Predicted(BaseModel):
    """Predictions, in the order of the materials, all tasks of each."""

    model: str
    predictions: list[dict[str, Any]]


_LISTED = {
    "id", "title", "kind", "property", "unit", "representation", "labels", "conditions", "bounds", "decimals"
}  # fmt: skip


def listed(task: Task) -> dict[str, Any]:
    """What whoever asks must know of a task, as plain JSON types."""
    return task.model_dump(mode="json", include=_LISTED)
