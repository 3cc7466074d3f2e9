"""A run folder -> ``report/index.html``, one page that opens from disk and needs nothing else.

What the page says is read by `birdlib.report_results` and `birdlib.report_facts`; here it is put into the templates
``report.html`` and ``report_notebook.html``. The executed notebooks lie beside it, and it links to them. Everything
that is not the template's own is escaped, and the pages forbid themselves any script but their one, and any address.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from birdlib import config as configs
from birdlib import overview, players, plots, report_facts, report_notebooks, report_results
from birdlib.runs import Run
from birdlib.stages import STAGES
from birdlib.writing import replacing

PAGE = "report/index.html"
CURVES = ("04_curves", "04_comparison", "05_whole_run", "05_curves", "05_folds", "05_learning_rate")
_SHARP_BYTES = 100_000  # figures up to this, lines and letters, are kept exactly; larger ones are spectrograms


class ReportError(RuntimeError):
    """A report that cannot be made: of which folder, and why."""


class Picture(NamedTuple):
    """An image inside the page: its address, what it shows in words, its size in points."""

    address: str
    title: str
    width: int
    height: int


def write(folder: str | Path) -> Path:
    """Writes a run folder's report, also of one in which only some notebooks have run. Gives the page's path.

    The folder is not locked: the report may be made while a run is going on, and shows what there is.

    Raises
    ------
    ReportError
        if the folder is no run folder, or cannot be written.
    """
    folder = Path(folder).expanduser().absolute()
    if not (folder / "config.yaml").is_file():
        raise ReportError(f"{folder} is no run folder: it has no config.yaml")
    run = Run(folder, configs.load(folder / "config.yaml"), STAGES[-1])
    try:
        executed = report_facts.books(run)
        page = _render("report.html", **_content(run, executed))
        for name, book in executed.items():
            _write(folder / "report" / "notebooks" / f"{name}.html", _notebook(run, book))
        _write(folder / PAGE, page)
    except OSError as error:
        raise ReportError(f"{folder}: the report cannot be written: {error}") from error
    return folder / PAGE


def _write(path: Path, text: str) -> None:
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _render(template: str, **values: Any) -> str:
    """A template with its values; ``script`` and ``style`` are the package's own, and the script's digest is known."""
    loader = jinja2.FileSystemLoader(str(files("birdlib")))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    own = {name: (files("birdlib") / name).read_text(encoding="utf-8") for name in ("report.js", "report.css")}
    digest = base64.b64encode(hashlib.sha256(own["report.js"].encode()).digest()).decode()
    script, style = Markup(own["report.js"]), Markup(own["report.css"])
    return environment.get_template(template).render(script=script, style=style, digest=digest, **values).lstrip()


def _content(run: Run, executed: Mapping[str, Any]) -> dict[str, Any]:
    """All that ``report.html`` shows."""
    recordings = report_facts.table(run, "recordings")
    names = {} if recordings is None else overview.names(recordings)
    stages = report_facts.stages(run, executed)
    return {
        "run": run,
        "name": run.dir.name,
        "stages": stages,
        "titles": {one["name"]: one["title"] for one in stages},
        "unfinished": [one for one in stages if not one["done"]],
        "stale": [one for one in stages if one["done"] and not one["current"]],
        "data": report_facts.data(run, recordings),
        "sides": report_facts.sides(run),
        "errors": report_facts.errors(run),
        "silence": report_facts.silence(run, names),
        "columns": report_facts.columns(run, recordings),
        "settings": report_facts.settings(run),
        "versions": report_facts.versions(run),
        "figures": _figures(run, executed),
        **_results(run, recordings, names),
    }


def _results(run: Run, recordings: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """How good the run is; ``side`` is None where nothing has been scored yet."""
    results = report_results.read(run)
    if results is None:
        return {"side": None, "species": None, "heard": [], "bad": [], "more": [], "headline": [], "beside": []}
    found: dict[str, Any] = {"species": None, "heard": [], "bad": []}
    if results.said is not None:
        table = report_results.species(results, names)
        found["species"] = table.astype(object).where(table.notna(), None).to_dict("records")
        found["bad"] = report_results.bad_at(results, table, names)
        if recordings is not None:
            found["heard"] = [_playable(pair, run) for pair in report_results.heard(run, results, recordings, names)]
    classes = results.metrics.get("classes") or len(results.labels)
    return found | {
        "side": results.side,
        "metrics": {"chunks": None, "recordings": None, "groups": None, **results.metrics},
        "classes": classes,
        "accuracy": report_results.score(results.metrics, "accuracy"),
        "headline": report_results.headline(results.metrics),
        "beside": report_results.beside(run, results, classes, results.labels),
        "more": report_results.more(run.metrics()),
    }


def _playable(pair: dict[str, Any], run: Run) -> dict[str, Any]:
    """A confused pair with its chunks as addresses: each as loud as it can be, as a listener would turn it up."""
    chunks = []
    for chunk in pair["chunks"]:
        samples, image = chunk.pop("samples"), chunk.pop("image")
        loudest = float(np.abs(samples).max(initial=0)) or 1.0
        sound = players.address(0.9 * samples / loudest, run.config.audio.sample_rate_hz)
        chunks.append({**chunk, "sound": sound, "picture": picture(plots.thumbnail(image))})
    return {**pair, "chunks": chunks}


def _figures(run: Run, executed: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The figures by stage, the training's curves apart as "curves": each its picture, heading and cell."""
    found: dict[str, list[dict[str, Any]]] = {"curves": []}
    for stage, paths in report_facts.figures(run).items():
        captions = list(report_notebooks.captions(executed[stage])) if stage in executed else []
        found[stage] = []
        for path in paths:
            heading, cell = _caption(path.stem.partition("_")[2], captions)
            shown = {"stage": stage, "heading": heading, "cell": cell, "picture": picture(path.read_bytes())}
            shown["name"] = path.stem.partition("_")[2].replace("_", " ")
            found["curves" if path.stem.startswith(CURVES) else stage].append(shown)
        found[stage].sort(key=_place)
    found["curves"].sort(key=_place)
    return found


def _place(shown: Mapping[str, Any]) -> tuple[str, bool, int]:
    """Where in the series a figure is shown; those that no cell is known for come last."""
    return shown["stage"], shown["cell"] is None, shown["cell"] or 0


def _caption(name: str, captions: list[tuple[Any, str, int]]) -> tuple[str, int | None]:
    return next(((heading, cell) for form, heading, cell in captions if form.fullmatch(name)), ("", None))


def picture(png: bytes) -> Picture:
    """A PNG as a WebP inside the page: exact if it is small, else at a quality that the eye does not tell from it.

    What it shows is the title that `birdlib.plots` gives a figure's file; it is empty where there is none.
    """
    image, packed = Image.open(io.BytesIO(png)), io.BytesIO()
    how = {"lossless": True, "method": 0} if len(png) < _SHARP_BYTES else {"quality": 85, "method": 2}
    image.convert("RGB").save(packed, "WEBP", **how)
    address = f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"
    return Picture(address, str(image.info.get("Title", "")), *image.size)


def _notebook(run: Run, book: Mapping[str, Any]) -> str:
    cells = report_notebooks.cells(book, _as_it_is)
    title = report_notebooks.title(book)
    return _render("report_notebook.html", cells=cells, title=title, run=run.dir.name, code=report_notebooks.style())


def _as_it_is(encoded: str) -> Markup:
    """A notebook's own PNG as an element."""
    encoded = "".join(encoded.split())
    title = Image.open(io.BytesIO(base64.b64decode(encoded))).info.get("Title") or "the figure of this cell"
    return Markup('<img src="data:image/png;base64,{}" alt="{}">').format(encoded, title)
