"""Evidence: the same key as the parser's, the stated rules, the words, the cache, and the refusal of computed labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matdarwin.data import evidence, tablecache
from matdarwin.data.evidence import Database, Evidence, Value, attach, key_of, presence
from matdarwin.data.sources import DataError, sha256
from matdarwin.materials import MaterialError, parse_composition, parse_name
from matdarwin.materials.elements import ELECTRONEGATIVITY
from matdarwin.tasks.registry import load
from matdarwin.tasks.schema import Example, Source

MP = "formula,target\nTi1O2,1.0\nTi2O4,0.35\nO4Ti2,3.0\nGa1As1,0.25\nZn1O1,0.0\n"
MORE = "id,composition,band_gap\na,TiO2,9.0\nb,Mg(OH)2,4.25\n"
OQMD = "formula,target\nO2Ti1,1.26\nAl0.5Ga0.5As1,1.0\n"
ENERGY = "formula,target\nTi1O2,-3.1\nTi1O2,-3.504\nGa1As1,-0.001\n"


def source(folder: Path, name: str, text: str) -> Source:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return Source(kind="file", name=str(path), sha256=sha256(path))


@pytest.fixture
def databases(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Database, ...]:
    files = {
        name: source(tmp_path, f"{name}.csv", text)
        for name, text in {"mp": MP, "more": MORE, "oqmd": OQMD, "energy": ENERGY}.items()
    }
    made = (
        Database("gap_mp", "MP", "gap", "eV", 1, "median", (files["mp"],), (files["more"],)),
        Database("gap_oqmd", "OQMD", "gap", "eV", 1, "median", (files["oqmd"],)),
        Database("energy_mp", "MP", "formation energy", "eV/atom", 2, "least", (files["energy"],)),
    )
    monkeypatch.setattr(evidence, "DATABASES", made)
    return made


symbols = st.sampled_from(sorted(ELECTRONEGATIVITY))
plain = st.lists(st.tuples(symbols, st.integers(0, 99_999)), min_size=1, max_size=8)


@given(plain)
def test_the_fast_key_is_the_parsers(parts: list[tuple[str, int]]) -> None:
    formula = "".join(f"{symbol}{amount or ''}" for symbol, amount in parts)
    try:
        expected = parse_composition(formula).key
    except MaterialError:
        with pytest.raises(MaterialError):
            key_of(formula)
    else:
        assert key_of(formula) == expected


@pytest.mark.parametrize("formula", ["Ca(OH)2", "Al0.5Ga0.5As", "Fe1Fe2O3", "H1O19999", "H1O3", "Na", "CuSO4·5H2O"])
def test_other_formulas_go_to_the_parser(formula: str) -> None:
    assert key_of(formula) == parse_composition(formula).key


@pytest.mark.parametrize("text", ["", "INF", "NaN", "Xx2", "Fe0", "Fe01", "D2O", "Fe1000000000000", "fe"])
def test_what_the_parser_refuses_is_refused(text: str) -> None:
    with pytest.raises(MaterialError):
        key_of(text)


@pytest.mark.usefixtures("databases")
def test_entries_of_one_composition_become_the_median_gap_and_the_least_energy() -> None:
    found = Evidence.load().of(parse_composition("TiO2").key)
    assert found == {
        "gap_mp": Value(1.0, 0.35, 3.0, 3),
        "gap_oqmd": Value(1.26, 1.26, 1.26, 1),
        "energy_mp": Value(-3.504, -3.504, -3.1, 2),
    }


@pytest.mark.usefixtures("databases")
def test_words_name_only_what_is_known() -> None:
    words = Evidence.load().words
    assert words(parse_composition("O2Ti")) == (
        "computed gap 1.0 eV (MP), 1.3 (OQMD)",
        "computed formation energy -3.50 eV/atom (MP)",
    )
    # 0.25 is rounded to the even digit; a small negative number is no minus zero.
    assert words(parse_composition("GaAs")) == (
        "computed gap 0.2 eV (MP)",
        "computed formation energy 0.00 eV/atom (MP)",
    )
    assert words(parse_composition("Ga0.5Al0.5As")) == ("computed gap 1.0 eV (OQMD)",)
    assert words(parse_composition("Mg(OH)2")) == ("computed gap 4.2 eV (MP)",)  # from the other file
    assert words(parse_composition("Fe")) == words(parse_name("TiO2 as a name")) == ()


@pytest.mark.usefixtures("databases")
def test_a_choice_has_its_own_databases_and_cache() -> None:
    chosen = Evidence.load(["energy_mp", "gap_oqmd"])
    assert chosen.words(parse_composition("TiO2")) == (
        "computed formation energy -3.50 eV/atom (MP)",
        "computed gap 1.3 eV (OQMD)",
    )
    assert len(chosen) == 4 and len(Evidence.load()) == 8
    for names in ([], ["gap_mp", "gap_mp"], ["gaps"]):
        with pytest.raises(DataError, match="known are gap_mp, gap_oqmd, energy_mp"):
            Evidence.load(names)


def test_the_second_load_reads_the_cache_alone(databases: tuple[Database, ...]) -> None:
    first = Evidence.load()
    Path(databases[0].files[0].name).unlink()
    again = Evidence.load()
    key = parse_composition("TiO2").key
    assert again.of(key) == first.of(key) and len(again) == len(first)
    folder = evidence.cache_file(databases).parent
    assert [path.suffix for path in folder.iterdir()] == [".parquet"]
    evidence.cache_file(databases).write_bytes(b"broken")
    with pytest.raises(DataError, match="delete it"):
        Evidence.load()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("formula,target\nFe1,0.1\nXx2,0.1\n", "row 2: `Xx`"),
        ("formula,target\nFe1,nan\n", "row 1: column target: not finite"),
        ("formula,target\nFe1\n", "row 1 has more or fewer cells"),
        ("formula,gap\nFe1,1\n", "no column 'target'"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error_and_leaves_no_cache(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    bad = Database("gap_mp", "MP", "gap", "eV", 1, "median", (source(tmp_path, "bad.csv", text),))
    monkeypatch.setattr(evidence, "DATABASES", (bad,))
    with pytest.raises(DataError, match=says):
        Evidence.load()
    assert not evidence.cache_file([bad]).exists()


def test_another_parser_has_another_cache_and_the_same_digest(
    databases: tuple[Database, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, digest = evidence.cache_file(databases), evidence.digest(databases)
    assert path.name == f"{digest}.{tablecache.parser()}.parquet"
    monkeypatch.setattr(tablecache, "parser", lambda: "another")
    assert evidence.cache_file(databases) != path and evidence.digest(databases) == digest


def examples(task: str, **targets: float | str) -> list[Example]:
    return [Example(task, text, parse_composition(text), target=target) for text, target in targets.items()]


@pytest.mark.usefixtures("databases")
def test_evidence_is_attached_to_measured_tasks_alone() -> None:
    task = load("expt_gap")
    lookup = Evidence.load(["gap_mp"])
    given_rows = examples("expt_gap", GaAs=1.4, Fe=0.0)
    done = attach(task, given_rows, lookup)
    assert [one.evidence for one in done] == [("computed gap 0.2 eV (MP)",), ()]
    assert [(one.row, one.material, one.target) for one in done] == [
        (one.row, one.material, one.target) for one in given_rows
    ]
    assert attach(task, done, lookup) == done
    with pytest.raises(DataError, match="its labels are computed"):
        attach(task.model_copy(update={"origin": "computed"}), given_rows, lookup)
    with pytest.raises(ValueError, match="belongs to glass"):
        attach(task, examples("glass", Fe="no"), lookup)


@pytest.mark.usefixtures("databases")
def test_presence_is_told_for_metals_and_others_apart() -> None:
    lookup = Evidence.load()
    told = presence(load("expt_gap"), examples("expt_gap", ZnO=0.0, TiO2=3.2, Ti2O4=3.0, Fe=0.0, KCl=8.0), lookup)
    assert told == [
        {"group": "all", "materials": 4, "any": 2, "found": {"gap_mp": 2, "gap_oqmd": 1, "energy_mp": 1}},
        {"group": "metal", "materials": 2, "any": 1, "found": {"gap_mp": 1, "gap_oqmd": 0, "energy_mp": 0}},
        {"group": "not metal", "materials": 2, "any": 1, "found": {"gap_mp": 1, "gap_oqmd": 1, "energy_mp": 1}},
    ]
    classes = presence(load("glass"), examples("glass", ZnO="yes", Fe="no"), lookup)
    assert [(one["group"], one["any"]) for one in classes] == [("all", 1), ("yes", 1), ("no", 0)]
    assert [one["group"] for one in presence(load("steels_yield"), examples("steels_yield", Fe=0.0), lookup)] == ["all"]


def test_every_source_is_pinned_and_has_a_place_in_the_mirror() -> None:
    sources = [one for database in evidence.DATABASES for one in (*database.files, *database.others)]
    assert len({one.sha256 for one in sources}) == len(sources) == 9
    assert all(one.mirror and (one.kind == "github" or one.made_from) for one in sources)
    assert set(evidence.GAPS) == {one.id for one in evidence.DATABASES if one.quantity == "gap"}
