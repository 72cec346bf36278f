"""Recipes: every key known, the nearest named, and a digest that only what shapes the result can change."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from matdarwin.training import recipe as recipes
from matdarwin.training.recipe import Recipe, RecipeError
from matdarwin.training.recipe_files import build_recipe, load_recipe

PLAIN: dict[str, Any] = {"name": "plain", "tasks": ["expt_gap"]}
STAGES: list[dict[str, Any]] = [{"name": "qa", "texts": ["sciqag"]}, {"name": "own", "tasks": ["computed_gap"]}]


def build(settings: list[str] | None = None, **keys: Any) -> Recipe:
    return build_recipe(copy.deepcopy({**PLAIN, **keys}), settings)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"optimizing": {}}, "optimizing is no key of a recipe; did you mean optimising?"),
        (
            {"optimising": {"learning_rat": 1}},
            "optimising.learning_rat is no key of a recipe; did you mean learning_rate?",
        ),
        ({"predicting": {"view": 2}}, "predicting.view is no key of a recipe; did you mean views?"),
        ({"zzzzqq": 1}, "zzzzqq is no key of a recipe"),
        ({"optimising": {"epochs": 0}}, "optimising.epochs: .*greater than or equal to 1, got 0"),
        ({"optimising": {"epochs": "many"}}, "optimising.epochs: .*got 'many'"),
        ({"optimising": {"betas": [2, 0.9]}}, r"optimising.betas.0: .*got 2"),
        ({"optimising": {"betas": [0.9, float("nan")]}}, r"optimising.betas.1: .*got nan"),
        ({"optimising": {"clip": float("inf")}}, "optimising.clip: .*got inf"),
        ({"optimising": {"learning_rate": float("inf")}}, "optimising.learning_rate: .*got inf"),
        ({"optimising": {"smoothing": 1e9}}, "optimising.smoothing: .*got 1000000000.0"),
        ({"seed": 10**25}, "seed: .*got 1000000"),
        (
            {"before": [{"name": "a", "texts": ["elements"], "optimising": {"epoch": 1}}]},
            "before.0.optimising.epoch is no key of a recipe; did you mean epochs?",
        ),
        ({"overrides": {"expt_gpa": {"seed": 1}}}, "overrides.expt_gpa is no task; did you mean expt_gap?"),
        (
            {"overrides": {"glass": {"optimising": {"epoch": 3}}}},
            "overrides of glass: optimising.epoch is no key of a recipe; did you mean epochs?",
        ),
        ({"predicting": {"prune": 0.02}}, "predicting.prune: .*got 0.02"),
        ({"role": "toy"}, "role: .*'product' or 'benchmark', got 'toy'"),
        ({"name": "../up"}, "name: .*got '../up'"),
        ({"fold": 5}, "fold: .*got 5"),
        ({"tasks": []}, "tasks: "),
        ({"tasks": ["a", "a"]}, "recipe: tasks: a, a names one task twice"),
        (
            {"method": "lora", "weights": "random"},
            "recipe: method lora: low-rank updates of random weights learn nothing",
        ),
    ],
)
def test_a_wrong_key_is_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(**keys)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(RecipeError, match="name is missing; tasks is missing"):
        build_recipe({})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: [", "not readable as YAML"),
        (b"- a\n- b", "holds no keys"),
        (b"", "holds no keys"),
        (b"name: \xff", "not readable as YAML"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)
    with pytest.raises(RecipeError, match="is no recipe file"):
        load_recipe(tmp_path / "none.yaml")


def test_settings_change_nested_keys_and_have_yaml_types(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, "optimising": {"epochs": 2}}))
    made = load_recipe(
        path, ["optimising.learning_rate=1e-3", "fold=3", "tasks=[a, b]", "predicting.prune=0", "split.limit=null"]
    )
    assert made.optimising.learning_rate == 1e-3 and made.optimising.epochs == 2
    assert (made.fold, made.tasks, made.predicting.prune, made.split.limit) == (3, ("a", "b"), 0, None)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "--set epochs: write key=value"),
        ("=3", "write key=value"),
        ("name.x=3", "name is a single value and has no keys below it"),
        ("optimising.epoch=3", "optimising.epoch is no key of a recipe; did you mean epochs?"),
        ("tasks=[", "not readable as YAML"),
        ("before.qb.seed=3", r"before takes NAME\.KEY below it, with the names qa, own"),
        ("before.qa=3", r"before takes NAME\.KEY below it"),
        ("tasks.a=3", r"tasks takes NAME\.KEY below it, with the names none"),
        ("before.own.optimising.epoch=3", r"before\.1\.optimising\.epoch is no key of a recipe; did you mean epochs\?"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build([setting], before=STAGES)


def test_a_setting_reaches_an_earlier_stage_by_its_name() -> None:
    made = build(["before.own.optimising.embeddings=trained", "before.own.optimising.epochs=2"], before=STAGES)
    first, second = made.before
    assert (second.optimising.embeddings, second.optimising.epochs) == ("trained", 2)
    assert first.optimising.embeddings == "used" and made.optimising.embeddings == "used"
    assert build(["before.1.optimising.epochs=2"], before=STAGES).before[1].optimising.epochs == 2


def test_overrides_hold_where_their_task_is_trained_alone() -> None:
    keys = {
        "optimising": {"epochs": 2, "batch_size": 8},
        "overrides": {"glass": {"optimising": {"epochs": 9}, "seed": 5}},
    }
    alone = build(**{**keys, "tasks": ["glass"]})
    assert (alone.optimising.epochs, alone.optimising.batch_size, alone.seed) == (9, 8, 5)
    for tasks in (["expt_gap"], ["glass", "expt_gap"]):
        assert build(**{**keys, "tasks": tasks}).optimising.epochs == 2
    assert build(["tasks=[glass]"], **keys).optimising.epochs == 9


def test_what_is_set_stands_above_overrides() -> None:
    keys = {"tasks": ["glass"], "overrides": {"glass": {"optimising": {"epochs": 9}}}}
    assert build(["optimising.epochs=4"], **keys).optimising.epochs == 4


def test_a_wrong_key_in_overrides_is_named() -> None:
    with pytest.raises(RecipeError, match=r"overrides of glass: optimising\.epoch is no key"):
        build(tasks=["glass"], overrides={"glass": {"optimising": {"epoch": 9}}})


def test_several_views_need_a_model_that_was_taught_several_orders() -> None:
    with pytest.raises(RecipeError, match=r"predicting.views 3: a model that was taught one order"):
        build_recipe({**PLAIN, "predicting": {"views": 3}})
    assert build(prompting={"order": "permuted"}, predicting={"views": 3}).predicting.views == 3


def test_the_given_mapping_is_left_as_it_was() -> None:
    given = {
        "name": "plain",
        "tasks": ["glass"],
        "optimising": {"epochs": 2},
        "overrides": {"glass": {"predicting": {"prune": 0.001}}},
    }
    before = copy.deepcopy(given)
    build_recipe(given, ["optimising.epochs=5", "predicting.prune=0"])
    assert given == before


# -- the digest ----------------------------------------------------------------------------------------


def test_the_digest_is_pinned() -> None:
    """Were it to change, every finished fold would be trained again: change it knowingly."""
    assert build().digest(x=1) == "c866e05c3403aed567259201e5c398f73e8e5e57cc9dc2cc01fadeb1540e82c0"
    assert build(name="other").digest(x=1) != build().digest(x=1)


def test_defaults_are_pinned() -> None:
    """The digest leaves out what stands at its default. So a changed default would pass old results off as its own:
    with it, something else that the digest holds must change."""
    made = build().model_dump(mode="json")
    pinned: dict[str, dict[str, Any]] = {
        "optimising": {
            "learning_rate": 1.5e-4, "weight_decay": 0.0, "betas": [0.9, 0.99], "warmup": 0.05, "clip": 1.0, "batch_size": 32,
            "epochs": 6, "embeddings": "used", "minimum_steps": 0,
        },
        "prompting": {"style": "compact", "wordings": [], "order": "canonical"},
        "split": {"folds": "official", "validation": 0.1, "calibration": 0.1, "minimum_calibration": 50, "seed": 0, "limit": None},
        "predicting": {"views": 1, "dtype": "auto", "prune": 0.01},
        "lora": {"rank": 16, "alpha": 32.0, "dropout": 0.0, "targets": "all-linear"},
    }  # fmt: skip
    # Keys may be added: at their default they are no part of the digest.
    assert {part: {key: made[part][key] for key in keys} for part, keys in pinned.items()} == pinned
    assert (made["role"], made["fold"], made["base"], made["weights"], made["method"]) == (
        "product",
        None,
        "smollm2-135m",
        "pretrained",
        "full",
    )
    assert (made["dtype"], made["seed"]) == ("auto", 0)


def test_words_and_defaults_do_not_change_the_digest() -> None:
    plain = build().digest(data="x")
    assert build(description="words").digest(data="x") == plain
    assert (
        build(optimising={"epochs": 6}, predicting={"views": 1}, lora={"rank": 16}, seed=0, fold=None).digest(data="x")
        == plain
    )
    assert build(overrides={"glass": {"seed": 3}}).digest(data="x") == plain
    spare = {"micro_batch": 4, "micro_tokens": 99, "checkpointing": True}
    assert build(optimising=spare).digest(data="x") == plain, "a run that lacks memory goes on with less of it"
    before = {"name": "a", "texts": ["elements"]}
    assert (
        build(before=[before]).digest() == build(before=[before | {"optimising": spare}]).digest() != build().digest()
    )


def test_a_key_added_later_does_not_change_old_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(Recipe):
        novelty: int = 0

    assert Later(**PLAIN).digest() == Recipe(**PLAIN).digest()
    assert Later(**PLAIN, novelty=1).digest() != Recipe(**PLAIN).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": ["glass"]}, {"fold": 0}, {"seed": 1}, {"base": "x"}, {"method": "lora"}, {"weights": "random"}, {"dtype": "fp32"},
        {"role": "benchmark"}, {"optimising": {"epochs": 7}}, {"prompting": {"order": "source"}}, {"prompting": {"amounts": "percent"}}, {"split": {"seed": 1}},
        {"predicting": {"prune": 0.0}}, {"lora": {"rank": 4}},
    ],
)  # fmt: skip
def test_what_shapes_the_result_changes_the_digest(change: dict[str, Any]) -> None:
    assert build(**change).digest() != build().digest()


def test_context_changes_the_digest() -> None:
    assert build().digest(base="a") != build().digest(base="b")


def test_every_key_is_described() -> None:
    parts = [recipes.Recipe, recipes.Lora, recipes.Prompting, recipes.Splitting, recipes.Optimising, recipes.Predicting]
    nested = {"lora", "prompting", "split", "optimising", "predicting"}
    bare = [
        f"{p.__name__}.{n}" for p in parts for n, f in p.model_fields.items() if not f.description and n not in nested
    ]
    assert bare == []


def test_evidence_is_chosen_by_name_and_counts_only_where_it_is_asked_for() -> None:
    plain, told = build(), build(evidence=["gap_mp"])
    assert "evidence" not in plain.model_dump() and told.model_dump()["evidence"] == ("gap_mp",)
    assert told.digest() != plain.digest()
    with pytest.raises(RecipeError, match=r"evidence: gap_mq is no choice .* known are gap_mp, gap_oqmd"):
        build(evidence=["gap_mq"])
