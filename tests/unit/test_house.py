"""The rules of the house: one direction of imports, small modules, documented names, commands and recipes that work."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from matdarwin.studies import tables
from matdarwin.studies.scores import read_bench, read_scores
from matdarwin.training.recipe_files import load_recipe

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "matdarwin"
MODULES = sorted(SOURCE.rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
ROOMS = (
    "materials",
    "tasks",
    "data",
    "language",
    "models",
    "prediction",
    "training",
    "evaluation",
    "studies",
    "api",
    "serving",
    "fitting",
    "estimators",
    "commands",
    "cli",
)
"""From the material to the door; a room may use those before it. api and estimators are the public face, fitting is theirs."""

LONGEST = 400
HEAVY = {
    "torch",
    "transformers",
    "pymatgen",
    "rdkit",
    "pandas",
    "sklearn",
    "matplotlib",
    "matminer",
    "lightgbm",
    "mendeleev",
    "peft",
}


def name(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix()


def room(module: str) -> str | None:
    """Room of a dotted name below the package; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "matdarwin" else None


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full"
            # `from matdarwin import api` names a room as much as `from matdarwin.api import ...` does.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def at_top(tree: ast.Module) -> Iterator[str]:
    """Names that are imported as soon as a module is."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (full for _, full in imports(ast.Module([node], [])))


def back_arrows(module: str, text: str) -> list[str]:
    """Imports of a room that comes later than the module's own."""
    own = module.split("/")[0]
    if own not in ROOMS:
        return []  # __init__ and __main__ of the package are doors themselves
    found = []
    for line, full in imports(ast.parse(text)):
        other = room(full)
        if other in ROOMS and ROOMS.index(other) > ROOMS.index(own):
            found.append(f"{module}:{line} imports {full}")
    return found


def bare(tree: ast.AST) -> list[str]:
    """Public functions, methods and classes without a docstring; what stands inside a function is nobody's business."""
    found = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if not child.name.startswith("_"):
                    if not ast.get_docstring(child):
                        found.append(f"{child.name} (line {child.lineno})")
                    if isinstance(child, ast.ClassDef):
                        visit(child)
            else:
                visit(child)

    visit(tree)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_go_one_way(path: Path) -> None:
    assert back_arrows(name(path), path.read_text(encoding="utf-8")) == []


def test_an_arrow_back_would_be_found() -> None:
    assert back_arrows("data/readers", "def f():\n    from matdarwin.models.base import x") == [
        "data/readers:2 imports matdarwin.models.base.x"
    ]
    assert back_arrows("tasks/schema", "import matdarwin.api") and back_arrows(
        "tasks/schema", "from matdarwin import cli"
    )
    assert back_arrows("models/base", "from matdarwin.data import sources\nfrom matdarwin import __version__") == []


def test_every_room_is_known() -> None:
    rooms = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in MODULES}
    assert rooms - set(ROOMS) == {"__init__", "__main__"}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_are_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{lines} lines; split it"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert bare(tree) == []
    first = ast.get_docstring(tree)
    assert first or not tree.body, "a module says in its first line what it is for"


def test_a_missing_docstring_would_be_found() -> None:
    assert bare(ast.parse('class A:\n    """Said."""\n    def b(self): ...\n    def _c(self): ...')) == ["b (line 3)"]


@pytest.mark.parametrize(
    "path", [p for p in MODULES if name(p).split("/")[0] in ("cli", "commands", "__init__", "__main__")], ids=name
)
def test_the_command_line_pays_for_nothing_it_does_not_use(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert HEAVY.isdisjoint(full.split(".")[0] for full in at_top(tree))


def fenced(text: str) -> list[str]:
    """Command lines in a Markdown text's shell blocks, continued lines joined."""
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_readme_has_the_two_commands_and_the_makefile_has_all_that_it_names() -> None:
    commands = fenced((ROOT / "README.md").read_text(encoding="utf-8"))
    named = {word for line in commands if line.startswith("make ") for word in line.split()[1:] if "=" not in word}
    assert {"demo", "test"} <= named <= targets()
    assert {"setup", "lint", "format", "results", "bench", "clean"} <= targets()


def test_the_readme_names_no_command_or_option_that_darwin_lacks() -> None:
    import typer

    from matdarwin.cli import app

    known = typer.main.get_command(app)
    lines = [
        line
        for line in fenced((ROOT / "README.md").read_text(encoding="utf-8"))
        if re.match(r"(\.venv/bin/)?darwin ", line)
    ]
    assert len(lines) >= 5
    for line in lines:
        words = line.split()[1:]
        command = known
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        assert command is not known, f"{line}: no such command"
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_the_readme_and_results_page_say_what_the_results_files_say() -> None:
    """What stands between the markers was made from results/: run `make results`."""
    scores, bench = read_scores(ROOT / "results"), read_bench(ROOT / "results")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.put(readme, tables.summary(scores, bench)) == readme
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == tables.page(
        scores, bench, tables.more(ROOT / "results")
    )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    from matdarwin.tasks import registry

    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert all(registry.load(task).id == task for task in recipe.tasks)
    for task in recipe.overrides:
        # An override that is never looked at until its task is chosen must be right all the same.
        assert load_recipe(path, [f"tasks=[{task}]"]).tasks == (task,)


def test_the_demonstration_is_a_product_of_minutes_with_a_fold_held_out() -> None:
    from matdarwin.training.schedule import total_steps

    recipe = load_recipe(ROOT / "recipes" / "demo.yaml")
    assert recipe.role == "product" and recipe.fold is not None and recipe.tasks == ("zhuo_gap",)
    # The training rows that a fold leaves; at about 1.5 s a step on two cores this is under five minutes.
    each = math.ceil(1_690 / recipe.optimising.batch_size)
    assert total_steps(recipe.optimising, size=1_690, steps=each, sources=1) <= 200


def test_the_same_things_are_pinned_as_are_asked_for() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {re.split(r"[<>=!\[ ]", text)[0].lower().replace("_", "-") for text in project["dependencies"]}
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()]
    pins = {line.partition("==")[0].lower().replace("_", "-") for line in lines if line}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines if line)
    assert asked <= pins
