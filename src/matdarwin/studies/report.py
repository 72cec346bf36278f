"""The demonstration's page: one self-contained HTML file, readable in light and dark, nothing fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from matdarwin.evaluation.metrics import RegressionScore
from matdarwin.studies.figures import best, calibration, chance, curve, parity, words
from matdarwin.studies.outcome import DemoResult

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5d666f; --paper: #ffffff; --line: #d5dae0; --mark: #eef4fb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa4ae; --paper: #15181b; --line: #343b42; --mark: #1d2833; }
}
body { margin: 0 auto; max-width: 52rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.soft, figcaption, small { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; } tr.own td { background: var(--mark); font-weight: 600; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
""".strip()


def page(result: DemoResult) -> str:
    """The demonstration as HTML.

    Args:
        result: What `result.json` holds; every text of it is escaped.
    """
    unit = f" in {result.unit}" if result.unit else ""
    shown = result.language.curve
    parts = [
        f"<h1>{_t(result.title)}: a language model beside its classical rivals</h1>",
        f'<p class="soft">A {_t(result.base)} was fine-tuned for {_time(_training(result))} on {result.rows["train"]:,} materials, and asked '
        f"for {result.rows['test']:,} that it never saw. Values are{_t(unit)}.</p>",
        "<h2>Where the language model stands</h2>",
        *(f"<p>{_t(line)}</p>" for line in statements(result)),
        "<h2>Errors on the held-out materials</h2>",
        _scores(result),
        "<h2>Answer against measurement</h2>",
        _figure(
            parity(result, best(result.rivals.rivals)),
            "Each point is a held-out material; on the line the answer is right.",
        ),
        "<h2>Do the intervals hold what they promise?</h2>",
        _calibration(result),
        "<h2>Formulas that nothing was learnt from</h2>",
        _asked(result),
    ]
    if shown is not None:
        text = f"The model's answer for {shown.material} is a distribution over all {10**-result.decimals:g}{_unit(result)} steps; nothing is sampled."
        parts += ["<h2>One answer in full</h2>", _figure(curve(shown, result.unit, result.coverage), text)]
    parts += ["<h2>How it was made</h2>", _facts(result)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>matdarwin: {_t(result.title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def statements(result: DemoResult) -> list[str]:
    """Where the model stands against its best rival, what its intervals are worth, and what none of it shows: plain sentences."""
    rivals = result.rivals.rivals
    name = best(rivals)
    own, other = result.language.scores["median"], rivals[name].score.mae
    lines = []
    if own.mae is None or other is None:
        lines.append("The language model gave no readable answer, so there is nothing to compare.")
    else:
        gap, slack = _difference(result, name)
        unit = _unit(result)
        said = f"The language model is off by {own.mae:.3f}{unit} on average (MAE of the median of its distribution). "
        said += f"The best classical rival, {words(name)}, is off by {other:.3f}{unit}. "
        if abs(gap) <= slack:
            said += f"The difference of {abs(gap):.3f}{unit} is within what chance does with {own.rows - own.unread} materials (±{slack:.3f}{unit})."
        elif gap > 0:
            said += f"So the language model loses by {gap:.3f} ± {slack:.3f}{unit}: on this task and at this effort, take the trees."
        else:
            said += f"So the language model wins by {-gap:.3f} ± {slack:.3f}{unit}."
        lines.append(said)
        behind = [words(n) for n, r in rivals.items() if r.score.mae is not None and own.mae < r.score.mae]
        lines.append(
            "Of the rivals it beats "
            + (f"{_listed(behind)}." if behind else "none.")
            + f" Unread answers: {own.unread} of {own.rows}."
        )
    held = next((c for c in result.language.covered if abs(c.nominal - result.coverage) < 1e-9), None)
    if held is None:
        lines.append("There were too few materials to calibrate intervals with, so there are none.")
    else:
        slack = 100 * chance(held.nominal, held.rows, result.rows["calibration"])
        lines.append(
            f"Its {100 * held.nominal:g} % intervals hold {100 * held.observed:.1f} % of the measured values; with this many materials "
            f"chance alone moves that by ±{slack:.1f} points. Their mean width is {held.width:.2f}{_unit(result)}."
        )
    lines.append(
        "This is a demonstration on one fold and one seed, trained for minutes. The classical models were fitted on all "
        f"{result.rivals.rows:,} materials that the language model could use in any way (training, validation and calibration), "
        f"while it learnt from {result.rows['train']:,}. Scores over five folds, with longer training, come from the command darwin evaluate."
    )
    return lines


def _difference(result: DemoResult, name: str) -> tuple[float, float]:
    """Mean of the model's absolute error minus the rival's over materials that were read, and twice its standard error."""
    pairs = zip(result.language.tested, result.rivals.rivals[name].answers, strict=True)
    gaps = np.array([abs(t.median - t.target) - abs(answer - t.target) for t, answer in pairs if t.median is not None])
    error = float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else float("inf")
    return float(gaps.mean()), 2 * error


def _scores(result: DemoResult) -> str:
    own = {
        "median": "language model, median (its answer)",
        "mean": "language model, mean",
        "mode": "language model, likeliest answer",
    }
    rows = [
        _row(
            [own[way], "text", *_errors(score), f"{_training(result) + result.language.seconds:.0f}"],
            kind="own" if way == "median" else "",
        )
        for way, score in result.language.scores.items()
    ]
    rivals = sorted(result.rivals.rivals.items(), key=lambda item: item[1].score.mae_pessimistic)
    rows += [
        _row([words(name), rival.features, *_errors(rival.score), f"{rival.seconds:.1f}"]) for name, rival in rivals
    ]
    unit = f", {result.unit}" if result.unit else ""
    head = _row(["model", "sees", f"MAE{unit}", f"RMSE{unit}", "seconds"], cell="th")
    note = (
        f"{result.rows['test']:,} of {result.rows['held_out']:,} held-out materials, each once. MAE: mean absolute error; RMSE: root mean "
        f"square error. Seconds are for training and answering; the rivals share {_time(result.rivals.seconds)} with their features."
    )
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div><p class="soft">{_t(note)}</p>'


def _calibration(result: DemoResult) -> str:
    if not result.language.covered:
        return "<p>No calibration: too few materials.</p>"
    rows = "".join(
        _row([f"{100 * c.nominal:g} %", f"{100 * c.observed:.1f} %", f"{c.width:.2f}"], numbers_from=0)
        for c in result.language.covered
    )
    head = _row(
        ["nominal", "observed", f"mean width{', ' + result.unit if result.unit else ''}"], cell="th", numbers_from=0
    )
    text = f"The shade is what chance allows with {result.rows['calibration']:,} calibrating and {result.language.covered[0].rows:,} tested materials."
    return f"{_figure(calibration(result), text)}<details><summary>As numbers</summary><table><thead>{head}</thead><tbody>{rows}</tbody></table></details>"


def _asked(result: DemoResult) -> str:
    digits = result.decimals
    rows = []
    for asked in result.language.asked:
        given = asked.prediction
        value, lower, upper = (given.get(name) for name in ("value", "lower", "upper"))
        remarks = [text for text in [given.get("reason"), *given.get("notes", [])] if text]
        cells = [
            given.get("input", ""),
            "-" if value is None else f"{value:.{digits}f}",
            # The ends have one decimal more than an answer, and are not to be rounded inward.
            "-" if lower is None or upper is None else f"{lower:.{digits + 1}f} to {upper:.{digits + 1}f}",
            "-" if asked.measured is None else f"{asked.measured:.{digits}f}",
            "; ".join(map(str, remarks)),
        ]
        rows.append(_row(cells, numbers_from=1, numbers_to=4))
    if not rows:
        return "<p>All of them were learnt from.</p>"
    unit = f", {result.unit}" if result.unit else ""
    head = _row(
        ["formula", f"answer{unit}", f"{100 * result.coverage:g} % interval{unit}", f"measured{unit}", "remarks"],
        cell="th",
        numbers_from=1,
        numbers_to=4,
    )
    note = "Measured values are those of held-out rows of the same data set; a dash means that it has none."
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div><p class="soft">{note}</p>'


def _facts(result: DemoResult) -> str:
    training, machine = result.training, result.machine
    threads = f"{machine.get('threads')} threads of {machine.get('cores')} cores"
    facts = {
        "checkpoint": result.checkpoint,
        "base model": result.base,
        "training": f"{training.get('steps')} steps, {training.get('epochs')} epochs, {training.get('tokens', 0):,} tokens, "
        f"{training.get('dtype')}, {_time(_training(result))} with validation and calibration",
        "materials": f"{result.rows['train']:,} to train, {result.rows['validation']:,} to choose the epoch, {result.rows['calibration']:,} to "
        f"calibrate, {result.rows['test']:,} of {result.rows['held_out']:,} held out to test; no material in two parts",
        "answering": f"{_time(result.language.seconds)} for the test materials; element orders averaged over: {result.recipe['predicting']['views']}",
        "data": f"{result.citation} Licence: {result.licence}. sha256 {result.data_sha256}",
        "recipe": f"{result.recipe.get('name')}, hash {result.recipe_hash}",
        "machine": f"{machine.get('gpu') or machine.get('cpu')}, {threads}, Python {machine.get('python')}, torch {machine.get('torch')}",
        "this run": f"{_time(result.seconds)}" + (f"; reused {_listed(result.reused)}" if result.reused else ""),
    }
    return "<dl>" + "".join(f"<dt>{_t(name)}</dt><dd>{_t(text)}</dd>" for name, text in facts.items()) + "</dl>"


def _training(result: DemoResult) -> float:
    return float(result.training["seconds_with_calibration"])


def _errors(score: RegressionScore) -> list[str]:
    return ["-" if value is None else f"{value:.3f}" for value in (score.mae, score.rmse)]


def _row(
    cells: Sequence[str], *, cell: str = "td", kind: str = "", numbers_from: int = 2, numbers_to: int | None = None
) -> str:
    last = len(cells) if numbers_to is None else numbers_to
    number = ' class="n"'
    made = "".join(
        f"<{cell}{number if numbers_from <= place < last else ''}>{_t(text)}</{cell}>"
        for place, text in enumerate(cells)
    )
    return f'<tr class="{kind}">{made}</tr>' if kind else f"<tr>{made}</tr>"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{_t(caption)}</figcaption></figure>"


def _unit(result: DemoResult) -> str:
    return f" {result.unit}" if result.unit else ""


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"


def _listed(names: Iterable[str]) -> str:
    *first, last = list(names)
    return f"{', '.join(first)} and {last}" if first else last


def _t(text: object) -> str:
    return escape(str(text), quote=True)
