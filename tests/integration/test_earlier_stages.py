"""Earlier stages and texts: taught once, shared by what agrees, cleaned of test facts, and seen by the audit."""

from __future__ import annotations

import itertools
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_base, tiny_recipe, tiny_rows, tiny_task, tiny_tokenizer

from matdarwin.data import texts
from matdarwin.data.negative import NOT_A_MATERIAL
from matdarwin.data.sampling import Sampling
from matdarwin.language.prompts import Encoder, style
from matdarwin.models.base import find_base
from matdarwin.models.checkpoint import Checkpoint, hold
from matdarwin.models.export import export
from matdarwin.tasks import registry
from matdarwin.tasks.schema import Example, Task
from matdarwin.training import teach
from matdarwin.training.audit import audit_recipe
from matdarwin.training.errors import TrainingError
from matdarwin.training.feed import Feed
from matdarwin.training.options import Prompting
from matdarwin.training.recipe import Recipe, RecipeError, split_of
from matdarwin.training.recipe_files import build_recipe
from matdarwin.training.report import Silent
from matdarwin.training.run import _beyond, recipe_hash, train

QUICK = {"epochs": 1, "learning_rate": 1e-2, "batch_size": 16}


@pytest.fixture
def known(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Task]:
    """A library of our own: a measured gap, and an auxiliary set of the same and of other materials."""
    rows = tiny_rows(240)
    about = [(formula, "2.2" if gap == "3.0" else "0.1") for formula, gap in rows[100:]]
    tasks = [
        tiny_task(home, rows=rows[:150]),
        tiny_task(home, id="tiny_more", rows=rows[100:], scored=False),
        tiny_task(home, id="tiny_computed", rows=about, scored=False, origin="computed", quantities=["computed"]),
    ]
    made = {task.id: task for task in tasks}
    monkeypatch.setattr(registry, "names", lambda: sorted(made))
    monkeypatch.setattr(registry, "load", made.__getitem__)
    return made


@pytest.fixture
def pairs(home: Path, known: dict[str, Task]) -> Path:
    """A text that gives one test answer away, names one material without its gap, and has two more pairs."""
    formula = tiny_rows()[0][0].replace(" ", "")
    path = home / "pairs.json"
    given = [
        (f"What is the band gap of {formula}?", "It is 3.0 eV."),
        (f"What colour is {formula}?", "It is grey."),
        *(
            (f"What is fact number {n} about rivers and {word}?", "It is long.")
            for n, word in enumerate(("mud", "fish"))
        ),
    ]
    path.write_text(json.dumps([{"Q": q, "A": a} for q, a in given]), encoding="utf-8")
    return path


def recipe(base: Path, **changes: Any) -> Recipe:
    return tiny_recipe(base, **{"fold": 0, "optimising": QUICK, "split": {"calibration": 0.0}, **changes})


def stage(**changes: Any) -> dict[str, Any]:
    return {"name": "knowledge", "tasks": ["tiny_computed"], "optimising": QUICK, **changes}


def test_a_stage_is_taught_once_and_shared(home: Path, known: dict[str, Task], monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base(home / "base")
    task = known["tiny_gap"]
    first = train(recipe(base, before=[stage()]), tasks=[task])
    plain = train(recipe(base), tasks=[task])
    assert first.name != plain.name and first.card.training["earlier"][0].startswith("knowledge-")
    taught = []
    real = teach.teach

    def watched(run: Any, feed: Any, *given: Any, **options: Any) -> Any:
        taught.append(run.name)
        return real(run, feed, *given, **options)

    from matdarwin.training import run as runs

    monkeypatch.setattr(runs, "teach", watched)
    # Computed values hold no label, so another fold's stage has the same rows.
    other = train(recipe(base, before=[stage()], fold=1), tasks=[task])
    assert taught == [other.name] and other.card.training["earlier"] == first.card.training["earlier"]
    seed = train(recipe(base, before=[stage()], seed=1), tasks=[task])
    assert len(taught) == 3 and seed.card.training["earlier"] != first.card.training["earlier"]


def test_runs_side_by_side_share_a_stage_and_wait_for_it(home: Path, known: dict[str, Task]) -> None:
    base, task = tiny_base(home / "base"), known["tiny_gap"]
    first = train(recipe(base, before=[stage()]), tasks=[task])
    (name,) = first.card.training["earlier"]
    said: list[str] = []
    with ExitStack() as other:
        other.enter_context(hold(name))

        class Telling(Silent):
            def say(self, text: str) -> None:
                said.append(text)
                if "waiting for it" in text:
                    other.close()

        again = train(recipe(base, name="again", before=[stage()]), tasks=[task], report=Telling())
    assert again.card.training["earlier"] == [name]
    assert f"{name} is being trained by another run (process {os.getpid()}); waiting for it" in said


def test_a_stage_follows_how_its_tasks_are_asked(home: Path, known: dict[str, Task]) -> None:
    base = tiny_base(home / "base")
    asked = recipe(base, before=[stage()])
    first = train(asked, tasks=[known["tiny_gap"]]).card.training["earlier"]
    words = tuple(f"computed {word}" for word in known["tiny_computed"].wordings)
    known["tiny_computed"] = known["tiny_computed"].model_copy(update={"wordings": words})
    second = train(asked, tasks=[known["tiny_gap"]]).card.training["earlier"]
    assert first != second


def test_chance_begins_anew_with_each_stage(
    home: Path, known: dict[str, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    from matdarwin.training import run as runs

    real = teach.teach

    def drawing(run: Any, *given: Any, **options: Any) -> Any:
        done = real(run, *given, **options)
        drawn.append(float(torch.rand(())))
        return done

    drawn: list[float] = []
    monkeypatch.setattr(runs, "teach", drawing)
    base, task = tiny_base(home / "base"), known["tiny_gap"]
    train(recipe(base, before=[stage()]), tasks=[task])
    train(recipe(base, name="again", before=[stage()]), tasks=[task])
    assert len(drawn) == 3 and drawn[1] == drawn[2], "whether the stage was trained or stood already"


def test_a_limit_on_rows_is_for_the_tasks_themselves(home: Path, known: dict[str, Task]) -> None:
    task = known["tiny_gap"]
    split = split_of(recipe(home, before=[stage()], split={"limit": 20, "calibration": 0.0}), [task])
    assert (len(split.train["tiny_gap"]), len(split.train["tiny_computed"])) == (20, 140)


def test_what_was_found_again_is_what_was_trained(home: Path, known: dict[str, Task]) -> None:
    base = tiny_base(home / "base")
    task = known["tiny_gap"]
    asked = recipe(base, before=[stage(), stage(name="second", tasks=["tiny_more"])])
    first = train(asked, tasks=[task])
    again = train(asked.model_copy(update={"name": "again"}), tasks=[task])
    assert again.name != first.name and again.card.training["earlier"] == first.card.training["earlier"]
    for one, other in zip(
        first.model(torch.float32).parameters(), again.model(torch.float32).parameters(), strict=True
    ):
        assert torch.equal(one, other)


def test_a_stage_moves_the_weights_and_is_no_product(home: Path, known: dict[str, Task]) -> None:
    base = tiny_base(home / "base")
    made = train(recipe(base, before=[stage()]), tasks=[known["tiny_gap"]])
    stood = Checkpoint.open(made.folder.parent / made.card.training["earlier"][0])
    assert stood.card.role == "stage" and stood.card.training["rows"] == 140
    from matdarwin.models.base import load_model

    before = load_model(base, dtype=torch.float32).state_dict()
    after = stood.model(torch.float32).state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    lines = [json.loads(line) for line in (stood.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "step" in line] == list(range(1, stood.card.training["steps"] + 1))


def test_what_goes_wrong_in_a_stage_names_its_own_keys(home: Path, known: dict[str, Task]) -> None:
    wild = stage(optimising={**QUICK, "learning_rate": 1e30, "clip": 1e30})
    with pytest.raises(TrainingError, match=r"^stage knowledge: .* lower before\.knowledge\.optimising\.learning_rate"):
        train(recipe(tiny_base(home / "base"), before=[wild]), tasks=[known["tiny_gap"]])


def test_tasks_of_a_stage_lose_the_test_materials_of_the_recipe(home: Path, known: dict[str, Task]) -> None:
    task = known["tiny_gap"]
    asked = recipe(home, before=[stage(tasks=["tiny_more", "tiny_computed"])])
    split = split_of(asked, [task])
    test = {row.material.key for row in split.test["tiny_gap"]}
    assert test and set(split.targets) == {"tiny_gap"}
    assert test.isdisjoint(row.material.key for row in split.train["tiny_more"])
    assert not test.isdisjoint(row.material.key for row in split.train["tiny_computed"]), (
        "computed values are no labels"
    )


def test_auxiliary_tasks_alone_stay_the_ones_that_are_scored(home: Path, known: dict[str, Task]) -> None:
    split = split_of(recipe(home, tasks=["tiny_more"], before=[stage()]), [known["tiny_more"]])
    assert split.targets == ("tiny_more",) and split.test["tiny_more"]


def test_a_text_loses_what_it_tells_of_test_materials(pairs: Path, known: dict[str, Task]) -> None:
    found = texts.load(str(pairs), [])
    assert (found.read, len(found.removed)) == (4, 1) and found.removed[0].task == "tiny_gap"
    assert len(found.rows) + found.held_out == 3
    assert all(row.question and row.answer and row.target is None for row in found.rows)


def test_a_text_teaches(home: Path, pairs: Path, known: dict[str, Task]) -> None:
    base = tiny_base(home / "base")
    asked = recipe(base, before=[stage(name="qa", tasks=[], texts=[str(pairs), "elements"])])
    made = train(asked, tasks=[known["tiny_gap"]])
    stood = Checkpoint.open(made.folder.parent / made.card.training["earlier"][0])
    assert stood.card.training["rows"] > 2_000
    assert asked.knowledge() == [str(pairs), "elements"]


def test_other_texts_make_another_recipe(home: Path, pairs: Path, known: dict[str, Task]) -> None:
    base = type("Base", (), {"sha256": "0"})()
    asked = recipe(home, before=[stage(texts=[str(pairs)])])
    before = recipe_hash(asked, [known["tiny_gap"]], base)
    pairs.write_text(pairs.read_text().replace("grey", "blue"))
    assert recipe_hash(asked, [known["tiny_gap"]], base) != before


def test_the_audit_goes_stage_by_stage(home: Path, pairs: Path, known: dict[str, Task]) -> None:
    asked = recipe(home, before=[stage(tasks=["tiny_more", "tiny_computed"], texts=[str(pairs)])])
    found = audit_recipe(asked, tasks=[known["tiny_gap"]], folds=[0]).to_json()
    assert found["verdict"] == "CLEAN"
    text = (str(pairs), "knowledge")
    taught = {(p["train_task"], p["stage"]) for p in found["pairs"]}
    assert taught == {("tiny_more", "knowledge"), text, ("tiny_gap", "tune")}
    (told,) = [p for p in found["pairs"] if (p["train_task"], p["stage"]) == text]
    assert (told["found"], told["fold"], told["test_rows"], told["train_rows"]) == (0, 0, 30, 3)
    assert [(p["train_task"], p["stage"], p["found"] > 0) for p in found["knowledge"]] == [
        ("tiny_computed", "knowledge", True)
    ]
    assert found["texts"][0]["removed"] == {"tiny_gap": 1} and found["texts"][0]["pairs"] == 4
    leaky = asked.model_copy(update={"split": asked.split.model_copy(update={"rule": "none"})})
    crossed = audit_recipe(leaky, tasks=[known["tiny_gap"]], folds=[0]).to_json()
    assert crossed["verdict"] == "LEAKY"
    assert next(p for p in crossed["pairs"] if p["train_task"] == "tiny_more")["found"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"before": [{"name": "a"}]}, "stage a needs texts or tasks"),
        ({"before": [{"name": "a", "texts": ["sciqac"]}]}, "'sciqac' is no text: did you mean sciqag?"),
        ({"before": [{"name": "tune", "texts": ["elements"]}]}, "one is named tune"),
        ({"before": [{"name": "a", "texts": ["elements"]}] * 2}, "two stages have one name"),
        ({"before": [{"name": "a", "texts": ["elements"]}], "method": "lora"}, "earlier stages move all weights"),
    ],
)
def test_stages_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_recipe({"name": "a", "tasks": ["expt_gap"], **changes})


# -- what a stage is fed -------------------------------------------------------------------------------


def feed(rows: dict[str, list[Example]], task: Task, **changes: Any) -> Feed:
    given: dict[str, Any] = {
        "encoder": Encoder(tiny_tokenizer()), "style": style("compact"), "prompting": Prompting(order="permuted"),
        "sampling": Sampling(), "batch_size": 16, "seed": 0,
    }  # fmt: skip
    return Feed(rows, [task], **{**given, **changes})


def test_a_feed_goes_on_where_it_stood_and_foresees_every_token(home: Path, known: dict[str, Task]) -> None:
    task = known["tiny_gap"]
    rows = {"tiny_gap": split_of(recipe(home), [task]).train["tiny_gap"]}
    made = feed(rows, task)
    whole = list(itertools.islice(made.batches(), 2 * made.steps))
    assert sum(map(len, whole[: made.steps])) == made.size == len(rows["tiny_gap"])
    start = sum(map(len, whole[:3]))
    assert list(itertools.islice(feed(rows, task).batches(start), 2 * made.steps - 3)) == whole[3:]
    met = {token for batch in whole for row in batch for token in (*row.prompt, *row.answer)}
    assert met <= made.vocabulary()
    assert made.digest() == feed(rows, task).digest() != feed(rows, task, seed=1).digest()
    others = [feed(rows, task, prompting=p) for p in (Prompting(), Prompting(order="permuted", amounts="percent"))]
    assert len({made.digest(), *(other.digest() for other in others)}) == 3
    percent = {
        token for batch in itertools.islice(others[1].batches(), made.steps) for row in batch for token in row.prompt
    }
    assert percent <= others[1].vocabulary()


def test_negative_examples_come_in_their_share_and_only_in_training(home: Path, known: dict[str, Task]) -> None:
    base = tiny_base(home / "base")
    task = known["tiny_gap"]
    made = train(recipe(base, negatives=0.2), tasks=[task])
    plain = train(recipe(base), tasks=[task])
    rows = plain.card.training["rows"]
    assert made.card.training["rows"] == rows + round(rows / 4)
    assert made.card.tasks["tiny_gap"].counts == plain.card.tasks["tiny_gap"].counts
    assert NOT_A_MATERIAL == "not a material"


def test_wordings_that_are_not_there_or_held_out_are_refused_before_anything_is_trained(
    home: Path, known: dict[str, Task]
) -> None:
    base = tiny_base(home / "base")
    asked = recipe(base, before=[stage()], prompting={"wordings": [7]})
    with pytest.raises(TrainingError, match="tiny_gap is not taught wording 7: it has 2"):
        train(asked, tasks=[known["tiny_gap"]])
    held = known["tiny_gap"].model_copy(update={"held_out_wording": 1})
    with pytest.raises(TrainingError, match="tiny_gap is not taught wording 1: it is held out"):
        train(recipe(base, before=[stage()], prompting={"wordings": [0, 1]}), tasks=[held])
    assert not list((home / "checkpoints").glob("knowledge-*"))


def test_a_task_of_a_stage_may_be_named_by_its_file(home: Path, known: dict[str, Task]) -> None:
    base = tiny_base(home / "base")
    known["some/where.yaml"] = known.pop("tiny_computed")
    asked = recipe(base, before=[stage(tasks=["some/where.yaml"])])
    made = train(asked, tasks=[known["tiny_gap"]])
    assert made.card.training["earlier"][0].startswith("knowledge-")
    found = audit_recipe(asked, tasks=[known["tiny_gap"]], folds=[0])
    assert [pair.train_task for pair in found.knowledge] == ["tiny_computed"]


def test_two_tasks_of_one_name_are_refused(home: Path, known: dict[str, Task]) -> None:
    known["other.yaml"] = known["tiny_gap"].model_copy(update={"property": "another gap"})
    with pytest.raises(RecipeError, match="a task tiny_gap that is another than the recipe's own"):
        split_of(recipe(home, before=[stage(tasks=["other.yaml"])]), [known["tiny_gap"]])


def test_the_same_data_under_another_name_are_a_leak(home: Path, known: dict[str, Task]) -> None:
    copy = tiny_task(home, id="tiny_copy", rows=tiny_rows(150), scored=False, quantities=["something else"])
    found = audit_recipe(recipe(home, tasks=["tiny_gap", "tiny_copy"]), tasks=[known["tiny_gap"], copy], folds=[0])
    assert found.verdict == "LEAKY" and [pair.train_task for pair in found.twins] == ["tiny_copy"]
    turned = [(formula, "0.0" if gap == "3.0" else "3.0") for formula, gap in tiny_rows(150)]
    other = tiny_task(home, id="tiny_other", rows=turned, scored=False, quantities=["something else"])
    found = audit_recipe(recipe(home, tasks=["tiny_gap", "tiny_other"]), tasks=[known["tiny_gap"], other], folds=[0])
    assert found.verdict == "CLEAN" and found.elsewhere and not found.twins


def test_a_base_that_was_taught_the_test_materials_is_a_leak(home: Path, known: dict[str, Task]) -> None:
    base, task = tiny_base(home / "base"), known["tiny_gap"]
    assert audit_recipe(recipe(base), tasks=[task], folds=[0]).base == ()
    product = train(recipe(base, fold=None, name="product"), tasks=[task])
    export(product, home / "exported")
    for folder in (product.folder / "weights", home / "exported"):
        asked = recipe(folder)
        found = audit_recipe(asked, tasks=[task], folds=[0, 1])
        assert found.verdict == "LEAKY" and len(found.base) == 2 and found.to_json()["base"] == list(found.base)
        assert str(folder) in found.base[0] and "was taught tiny_gap" in found.base[0] and "fold 0" in found.base[0]
        with pytest.raises(TrainingError, match=r"is LEAKY, so nothing is trained: the base .* was taught tiny_gap"):
            train(asked, tasks=[task])
        # A task of another quantity is none of its business.
        other = tiny_task(home, id="tiny_other", quantities=["something else"])
        mine = {"tiny_other": other}
        known |= mine
        assert audit_recipe(recipe(folder, tasks=["tiny_other"]), tasks=[other], folds=[0]).base == ()
    made = train(recipe(home / "exported"), tasks=[task], allow_leak=True)
    assert made.card.training["leaky"] is True
    # What such a model is the base of knows as much, and is not thought clean once that is out of sight.
    asked = recipe(made.folder / "weights")
    assert len(audit_recipe(asked, tasks=[task], folds=[0]).base) == 2
    # Of random weights the shape alone is taken.
    assert audit_recipe(recipe(home / "exported", weights="random"), tasks=[task], folds=[0]).base == ()
    shaped = train(recipe(home / "exported", weights="random", name="shaped"), tasks=[task])
    (home / "exported").rename(home / "moved")
    assert audit_recipe(recipe(shaped.folder / "weights"), tasks=[task], folds=[0]).base == ()
    assert any(
        "exported, which is gone, so what that was taught is not known" in one
        for one in audit_recipe(asked, tasks=[task], folds=[0]).base
    )


def test_a_base_that_held_the_same_materials_out_is_none(home: Path, known: dict[str, Task]) -> None:
    base, task = tiny_base(home / "base"), known["tiny_gap"]
    first = train(recipe(base, before=[stage(tasks=["tiny_more"])]), tasks=[task])
    weights = first.folder / "weights"
    assert audit_recipe(recipe(weights), tasks=[task], folds=[0]).base == ()
    assert audit_recipe(recipe(weights), tasks=[task], folds=[1]).base
    assert audit_recipe(recipe(weights, split={"folds": "seeded"}), tasks=[task], folds=[0]).base
    # An export does not say what it held out, and another task of the quantity has test materials of its own.
    export(first, home / "exported")
    assert audit_recipe(recipe(home / "exported"), tasks=[task], folds=[0]).base
    other = tiny_task(home, id="tiny_other", rows=tiny_rows(120))
    assert audit_recipe(recipe(weights, tasks=["tiny_other"]), tasks=[other], folds=[0]).base
    # A stage's checkpoint has no fold; what it was taught counts.
    taught = home / "checkpoints" / first.card.training["earlier"][0] / "weights"
    (fault,) = audit_recipe(recipe(taught), tasks=[task], folds=[0]).base
    assert "was taught tiny_more" in fault
    (first.folder / "card.json").write_text("{}")
    (fault,) = audit_recipe(recipe(weights), tasks=[task], folds=[0]).base
    assert "its card cannot be read" in fault


def test_what_decides_who_may_learn_from_whom_is_part_of_a_run(home: Path, known: dict[str, Task]) -> None:
    base = find_base(str(tiny_base(home / "base")))
    gap, more = known["tiny_gap"], known["tiny_more"]
    asked = recipe(home / "base", tasks=["tiny_gap", "tiny_more"])
    scored = more.model_copy(update={"scored": True})
    assert recipe_hash(asked, [gap, more], base) != recipe_hash(asked, [gap, scored], base)
    alone = recipe(home / "base", tasks=["tiny_more"])
    assert recipe_hash(alone, [more], base) == recipe_hash(alone, [scored], base), "alone it is scored either way"
    own = gap.model_copy(update={"id": "own"})
    computed = own.model_copy(update={"origin": "computed"})
    assert recipe_hash(asked, [own], base) != recipe_hash(asked, [computed], base)
    assert _beyond(asked, [gap]) == _beyond(asked, [own]) == {}, "what was trained before is found again"


def test_computed_rows_do_not_teach_computed_labels(home: Path, known: dict[str, Task]) -> None:
    own = tiny_task(home, id="tiny_own", rows=tiny_rows(150), origin="computed", quantities=["moment"])
    split = split_of(recipe(home, tasks=["tiny_own"], before=[stage()]), [own])
    test = {row.material.key for row in split.test["tiny_own"]}
    assert test.isdisjoint(row.material.key for row in split.train["tiny_computed"])
    assert split.removed["tiny_computed: key in the test fold of tiny_own"] > 0
