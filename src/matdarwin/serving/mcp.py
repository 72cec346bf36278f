"""The predictor as tools of the Model Context Protocol, over standard input and output, for assistants to call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

from matdarwin import __version__
from matdarwin.api import Darwin, check_coverage
from matdarwin.prediction.explain import explain as explained
from matdarwin.serving.schemas import listed

ROWS = 256
"""Most answers (materials times tasks) of one call."""
TEXT = 2_000
"""Most characters of a material, a task's id or a condition."""
NEIGHBOURS = 20
"""Most neighbours of one explanation."""

_INSTRUCTIONS = (
    "Properties of materials by a language model, each with a calibrated interval. Call list_tasks first: it says which "
    "properties are known, in which unit, and how a material is written. Give the interval and the notes along with a "
    "value; a status other than ok says what is wrong."
)

# Limits are declared here and checked by us below, so that what is refused is told in our words.
_Text = Annotated[str, Field(json_schema_extra={"maxLength": TEXT})]
_Materials = Annotated[
    list[_Text],
    Field(
        description="Materials as the task takes them: formulas (GaN, Cd0.5Zn0.5Te), SMILES (CCO) or names.",
        json_schema_extra={"minItems": 1, "maxItems": ROWS},
    ),
]
_Tasks = Annotated[
    list[_Text] | None,
    Field(description="Ids of tasks, from list_tasks. May be left out where the model knows one task alone."),
]
_OneTask = Annotated[
    str | None, Field(description="Id of a task, from list_tasks. May be left out where the model knows one alone.")
]
_Coverage = Annotated[
    float,
    Field(
        description="Share of true values that the intervals are to hold.",
        json_schema_extra={"exclusiveMinimum": 0, "exclusiveMaximum": 1},
    ),
]
_Conditions = Annotated[
    dict[str, str | float] | None,
    Field(description="Conditions of the question by name, such as temperature: 300, where the task has any."),
]
_Count = Annotated[
    int,
    Field(description="Most neighbours of each kind.", json_schema_extra={"minimum": 1, "maximum": NEIGHBOURS}),
]


class Tools:
    """What the tools do.

    Args:
        darwin: The model; its weights are read at the first question.
    """

    def __init__(self, darwin: Darwin) -> None:
        self._darwin = darwin
        # Calls come on threads of their own, and a predictor serves one at a time.
        self._asking = threading.Lock()

    def predict(
        self, materials: _Materials, tasks: _Tasks = None, coverage: _Coverage = 0.9, conditions: _Conditions = None
    ) -> dict[str, Any]:
        """Predict properties of materials, each with a calibrated interval.

        One prediction a material and task, all tasks of the first material before those of the second. What is no
        material has the status "invalid" with the reason; the others are predicted all the same.
        """
        with _told():
            _texts("materials", materials)
            _texts("tasks", tasks or [])
            _texts("conditions", _words(conditions))
            if not materials:
                raise ToolError("materials: the list is empty; give one or more")
            names = self._darwin.resolve(tasks)
            if len(materials) * len(names) > ROWS:
                raise ToolError(
                    f"materials: {len(materials)} materials times {len(names)} tasks are more than {ROWS} answers; "
                    "ask in several calls"
                )
            with self._asking:
                found = self._darwin.predict(materials, names, coverage=coverage, conditions=conditions)
            return {"model": self._darwin.name, "predictions": [one.to_dict() for one in found]}

    def explain(
        self,
        material: _Text,
        task: _OneTask = None,
        coverage: _Coverage = 0.9,
        conditions: _Conditions = None,
        neighbours: _Count = 5,
    ) -> dict[str, Any]:
        """Say what one prediction hangs on.

        The prediction and its distribution, the question asked, the nearest measured materials with their values, and
        how the answer moves when an element is left out or swapped, or when the question is worded otherwise.
        """
        with _told():
            _texts("material", [material])
            _texts("task", [] if task is None else [task])
            _texts("conditions", _words(conditions))
            if not 1 <= neighbours <= NEIGHBOURS:
                raise ToolError(f"neighbours: from 1 to {NEIGHBOURS}, got {neighbours}")
            names = self._darwin.resolve(task)
            if len(names) > 1:
                raise ToolError("task: one task is explained at a time")
            given = self._darwin.conditions(names, conditions)[names[0]]
            check_coverage(coverage)
            with self._asking:
                found = explained(
                    self._darwin.predictor, material, names[0], coverage=coverage, conditions=given,
                    neighbours=neighbours,
                )  # fmt: skip
            return {"model": self._darwin.name, **found.to_dict()}

    def list_tasks(self) -> dict[str, Any]:
        """List the properties that the model knows: unit, kind of answer, how a material is written, conditions."""
        with _told():
            return {"model": self._darwin.name, "tasks": [listed(task) for task in self._darwin.tasks.values()]}


def create_server(darwin: Darwin) -> MCPServer:
    """A server with the tools `predict`, `explain` and `list_tasks`; `run("stdio")` starts it.

    Args:
        darwin: The model to ask.
    """
    server: MCPServer = MCPServer(
        "matdarwin", title="matdarwin", instructions=_INSTRUCTIONS, version=__version__, log_level="WARNING"
    )
    tools = Tools(darwin)
    harmless = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    for tool in (tools.predict, tools.explain, tools.list_tasks):
        server.add_tool(tool, description=" ".join((tool.__doc__ or "").split()), annotations=harmless)
    return server


@contextmanager
def _told() -> Iterator[None]:
    """Faults that we foresee reach the assistant in our words; others are a fault of ours, told without their text."""
    try:
        yield
    except ToolError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "matdarwin":
            logging.getLogger(__name__).debug("a tool failed", exc_info=True)
            raise
        raise ToolError(" ".join(str(error).split())) from error


def _texts(where: str, texts: Sequence[str]) -> None:
    for number, text in enumerate(texts):
        if len(text) > TEXT:
            raise ToolError(f"{where}, number {number + 1}: {len(text):,} characters; at most {TEXT:,} are read")


def _words(conditions: dict[str, str | float] | None) -> list[str]:
    return [text for name, value in (conditions or {}).items() for text in (name, str(value))]
