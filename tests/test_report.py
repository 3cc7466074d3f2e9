"""The report: what it says is what the tables say, whatever names say stays text, and what is missing is said.

Pages are read with html5lib, which sees in them what a browser would. `test_report_browser.py` opens them in one.
"""

import json
import re
import shutil

import html5lib
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from birdlib import (
    chunks,
    config,
    folds,
    plots,
    report,
    report_notebooks,
    report_results,
    runs,
    splits,
    stages,
    testing,
    writing,
)
from birdlib.classifier import Classifier
from birdlib.report import ReportError
from tests.conftest import save, song

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "\"><img src=x onerror='window.hacked=1'>",
    "' onmouseover='window.hacked=1",
    "</title></style><svg onload=window.hacked=1>",
)
LABELS = tuple(f"{text}{number}" for number, text in enumerate(HOSTILE))
AUTHOR = "<b onclick=window.hacked=1>Eve</b> {{ 7 * 7 }}"
BROKEN = "<iframe src=javascript:window.hacked=1>.ogg"


def by_pitch(images):
    """A placeholder model: the brightest mel band tells the species, if not always."""
    band = images[..., 0].mean(axis=2).argmax(axis=1)
    scores = np.exp(-np.abs(band[:, None] - np.array([30, 62, 75, 107])[None, :]) / 4)
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def hostile_data(tmp_path_factory):
    """A data folder whose labels, names, authors, licences, addresses and files are meant to break a page."""
    folder, rows = tmp_path_factory.mktemp("hostile") / "data", []
    for place, label in enumerate(LABELS):
        for number in range(6):
            name = f"{place}<i>'\"&/{number}{'<u>' if number else ''}.ogg"
            tiny = f"tinbir{1 + (place + (number == 5)) % 4}"
            save(folder / "train_audio" / name, song(tiny, 3.0 + number, 10 * place + number))
            rows.append({
                "primary_label": label, "filename": name, "author": f"{AUTHOR}{number}", "secondary_labels": "[]",
                "common_name": f"Bird {place} {label}", "license": HOSTILE[1], "url": "javascript:window.hacked=1",
                f"{HOSTILE[0]} column": "x",
            })  # fmt: skip
    (folder / "train_audio" / BROKEN).write_bytes(b"no audio")
    rows.append({**rows[0], "filename": BROKEN})
    pd.DataFrame(rows).to_csv(folder / "train_metadata.csv", index=False)
    return folder


def executed(run, name):
    """A notebook as it would lie there executed, with what a hostile name could put out."""
    said = [
        new_output("stream", name="stdout", text=f"a\rb {HOSTILE[0]}\n"),
        new_output(
            "display_data", {"text/html": f"<table><tr><td onclick=x>{HOSTILE[1]}</td></tr></table>{HOSTILE[0]}"}
        ),
        new_output(
            "display_data", {"text/markdown": f"**{HOSTILE[0]}** [x](https://example.org) ![x](https://x/y.png)"}
        ),
        new_output("display_data", {"text/plain": HOSTILE[3]}),
    ]
    cells = [
        new_markdown_cell(f"# 1. The recordings\n\n{HOSTILE[0]} [a link](https://example.org)"),
        new_markdown_cell("## The species"),
        new_code_cell(f"x = {HOSTILE[0]!r}\nrun.save_figure(plots.ranking(x, 'a', 'b'), \"ranked\")", outputs=said),
    ]
    path = run.path(f"notebooks/{name}.ipynb")
    nbformat.write(new_notebook(cells=cells, metadata={"papermill": {"duration": 61.4}}), path)


@pytest.fixture(scope="module")
def run(hostile_data, tiny_config, tmp_path_factory, start_run):
    """A run folder with all that the notebooks write, but by a placeholder model."""
    settings = config.override(tiny_config, {"data.dir": hostile_data, "folds": "0,1"})
    run = start_run(tmp_path_factory.mktemp("report") / "<run>", settings, "06_testing")
    runs.keep_settings(run.dir, settings)
    run.record_errors({BROKEN: f"not readable: {HOSTILE[1]}"})
    table = run.read_table("chunks")
    table = table[chunks.kept(table, settings.silence)].merge(
        run.read_table("recordings")[["filename", "primary_label"]]
    )
    for fold in (0, 1):
        side = splits.side(run.read_table("splits"), "validation", fold)["filename"]
        front = table[table["filename"].isin(side)][["filename", "start_s", "primary_label"]]
        for phase in (1, 2):
            flat = dict(zip(sorted(LABELS), np.float32([0.4, 0.3, 0.2, 0.1]), strict=True))
            run.write_table(f"validation_phase_{phase}_fold_{fold}", front.assign(**flat))
        writing.write_json(run.path(f"models/phase_2_fold_{fold}.json"), {"temperature": 2.0})
    result = testing.test(run, {fold: Classifier(by_pitch, settings) for fold in (0, 1)})
    run.update_metrics("test", testing.scores(result, testing.traits(run, result.labels), 0.25))
    of_folds = folds.scores(folds.out_of_fold(run, 2), run.read_table("splits"), 0)
    run.update_metrics("phase_2", {"val_accuracy": of_folds["accuracy"], "validation": of_folds})
    run.write_table("predictions", result.predictions)
    stage = runs.Run(run.dir, settings, stages.stage("01"))
    stage.save_figure(plots.ranking(pd.Series({AUTHOR: 3}), HOSTILE[3], "recordings"), "ranked")
    executed(run, "01_eda")
    return run


@pytest.fixture(scope="module")
def page(run):
    return report.write(run.dir)


@pytest.fixture
def copy(run, tmp_path):
    """Such a run folder to do with as one likes: a function () -> its page, parsed."""
    folder = shutil.copytree(run.dir, tmp_path / "run")
    return folder, lambda: parsed(report.write(folder))


def parsed(path):
    return html5lib.parse(path.read_text(encoding="utf-8"), namespaceHTMLElements=False)


def text_of(element):
    return " ".join("".join(element.itertext()).split())


def cells_of(tree, **attributes):
    """The rows of a table, each its cells' texts, by an attribute of the table or of what is around it."""
    ((name, value),) = attributes.items()
    (around,) = [one for one in tree.iter() if one.get(name.replace("_", "-")) == value]
    return [[text_of(cell) for cell in row if cell.tag in ("th", "td")] for row in around.iter("tr")]


# ---- what names say stays text


@pytest.fixture(params=["index.html", "notebooks/01_eda.html"])
def tree(page, request):
    return parsed(page.parent / request.param)


def test_nothing_runs_but_the_reports_own_script(tree):
    (script,) = tree.iter("script")
    assert script.text == (report.files("birdlib") / "report.js").read_text()
    tags = {element.tag for element in tree.iter() if isinstance(element.tag, str)}
    assert not tags & {"iframe", "object", "embed", "svg", "math", "form", "input", "base", "b", "u", "i"}
    names = {name for element in tree.iter() for name in element.attrib}
    assert not [name for name in names if name.startswith("on")]
    assert len(list(tree.iter("style"))) == len(list(tree.iter("title"))) == 1


def test_nothing_is_loaded_and_links_go_where_they_should(tree):
    for element in tree.iter():
        for name, value in element.attrib.items():
            if name in ("src", "srcset", "data", "action", "poster"):
                assert re.match("data:(image/(png|webp)|audio/mpeg);base64,", value)
            if name == "href":
                assert value.startswith(("#", "notebooks/", "../index.html", "https://example.org", "data:,"))
            if name == "style":
                assert re.fullmatch(r"[-\w: .%;]+", value)
    (policy,) = [one.get("content") for one in tree.iter("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:;")
    assert "script-src 'sha256-" in policy


def test_hostile_names_can_be_read(page):
    text = text_of(parsed(page))
    for words in (*LABELS, AUTHOR, BROKEN, HOSTILE[1], f"{HOSTILE[0]} column"):
        assert " ".join(words.split()) in text
    assert "{{ 7 * 7 }}" in text


def test_a_pages_parts_have_names(tree):
    names = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(names) == len(set(names))
    for element in tree.iter():
        if element.get("aria-labelledby"):
            assert element.get("aria-labelledby") in names
        if (element.get("href") or "").startswith("#"):
            assert element.get("href")[1:] in names
    assert all(image.get("alt") for image in tree.iter("img"))
    assert all(player.get("aria-label") for player in tree.iter("audio"))


def test_every_head_of_a_table_of_the_page_says_of_what(page):
    assert all(head.get("scope") in ("col", "row") and text_of(head) for head in parsed(page).iter("th"))


@pytest.mark.parametrize(
    ("markup", "kept"),
    [
        ("<b onclick=x>hi</b>", "<b>hi</b>"),
        ("<script>x</script>a<style>b</style>", "a"),
        ("<svg><script>x</script></svg>z", "z"),
        ('<a href="javascript:x">l</a>', "l"),
        ("<img src=https://x/y.png onerror=x><img src=data:image/svg+xml;base64,AA>", ""),
        ('<img src="data:image/png;base64,AA==" alt="&quot;><script>">', None),
        (
            "<table><tr><td style=x colspan=2>a&lt;b</td></tr></table>",
            '<table><tr><td colspan="2">a&lt;b</td></tr></table>',
        ),
        ("</div></section><p>open", "<p>open</p>"),
        ("a <!-- <script>x</script> --> b <?php x ?><![CDATA[<script>]]>", None),
        ("<ScRiPt/x>alert(1)</sCrIpT >t<scr<script>ipt>", None),
    ],
)
def test_html_that_was_put_out_is_written_anew(markup, kept):
    found = report_notebooks.safe(markup)
    assert kept is None or str(found) == kept
    tree = html5lib.parseFragment(str(found), namespaceHTMLElements=False)
    assert not [one for one in tree.iter() if one.tag in ("script", "style", "svg", "a")]
    assert {name for one in tree.iter() for name in one.attrib} <= {"src", "alt", "colspan"}


def test_a_notebook_is_shown_as_it_was_executed(page):
    tree = parsed(page.parent / "notebooks" / "01_eda.html")
    assert text_of(next(tree.iter("h1"))) == "1. The recordings"
    said = [text_of(one) for one in tree.iter("pre")]
    assert f"b {HOSTILE[0]}" in said  # what a terminal shows after the carriage return
    assert HOSTILE[3] in said
    # The notebook's own words link; what it put out does not.
    assert [one.get("href") for one in tree.iter("a")] == ["../index.html", "https://example.org"]


# ---- it says what the tables say


def test_the_numbers_are_those_of_the_metrics(run, page):
    test, tree = json.loads((run.dir / "metrics.json").read_text())["test"], parsed(page)
    shown = {}
    for element in tree.iter():
        if element.get("data-metric"):
            shown.setdefault(element.get("data-metric"), text_of(element))
    low, high = test["intervals"]["accuracy"]
    assert shown.pop("interval") == f"{low:.1%} to {high:.1%}"
    assert len(shown) == 8
    for name, text in shown.items():
        form = ".1%" if name.endswith(("accuracy", "top_5")) else ".3f"
        assert text == format(test[name], form), name
    (good,) = [text_of(one) for one in tree.iter("section") if one.get("aria-labelledby") == "how-good"]
    assert f"the test's {test['chunks']} chunks ({test['recordings']} recordings)" in good
    assert f"{test['times_chance']:.1f} times chance" in good
    assert "a logistic regression gets 25.0%" in good


def test_each_species_row_is_that_of_the_predictions(run, page):
    said = run.read_table("predictions").query("split == 'test' and fold == -1")
    predicted = said[list(LABELS)].idxmax(axis=1)
    head, *rows = cells_of(parsed(page), id="by-species")
    assert head[:3] == ["species", "recall", "precision"]
    assert len(rows) == said["primary_label"].nunique()
    for row in rows:
        of = dict(zip(head, row, strict=True))
        truly, named = said["primary_label"] == of["label"], predicted == of["label"]
        assert int(of["chunks"]) == truly.sum()
        assert int(of["recordings"]) == said.loc[truly, "filename"].nunique()
        assert of["recall"] == f"{(truly & named).sum() / truly.sum():.2f}"
        assert of["precision"] == (f"{(truly & named).sum() / named.sum():.2f}" if named.any() else "–")
        wrong = predicted[truly & ~named].value_counts()
        assert (of["taken most for"] == "") == wrong.empty
        if len(wrong):
            assert of["taken most for"].endswith(f"({wrong.iloc[0]})")
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)


def test_what_was_left_out_is_there_with_its_reason(run, page):
    tree = parsed(page)
    assert cells_of(tree, aria_label="Files and rows set aside")[1:] == [
        [BROKEN, "06_testing", " ".join(f"not readable: {HOSTILE[1]}".split())]
    ]
    every = run.read_table("chunks")
    silent = int((every["rms_relative"] < 0.1).sum())
    assert f"{silent} of {len(every)} chunks ({silent / len(every):.1%})" in text_of(tree)
    aside = {row[0]: row[1] for row in cells_of(tree, aria_label="Columns of the metadata")[1:]}
    assert aside["primary_label"] == aside["filename"] == "yes"
    assert aside["author"] == aside[f"{HOSTILE[0]} column"] == "set aside"
    assert aside["rating"] == "not in this file"


def test_the_settings_are_those_of_the_run(run, page):
    rows = [row for row in _tables(parsed(page), "Settings") for row in row[1:]]
    shown = {row[0]: row[1] for row in rows}
    assert set(shown) == set(config.keys())
    assert shown["phase_1.epochs"] == "1"
    assert {row[0] for row in rows if len(row) == 3} == set(config.changed(run.config, config.load("paper")))
    assert f"Seed {run.config.seed}:" in text_of(parsed(page))


def _tables(tree, name):
    return [
        [[text_of(cell) for cell in row] for row in around.iter("tr")]
        for around in tree.iter()
        if around.get("aria-label") == name
    ]


def test_confused_pairs_can_be_heard(run, page):
    tree = parsed(page)
    players = list(tree.iter("audio"))
    assert players
    assert all(player.get("src").startswith("data:audio/mpeg;base64,") for player in players)
    assert len(players) == len([one for one in tree.iter("img") if one.get("alt").startswith("Spectrogram of")])
    credits = [text_of(one) for one in tree.iter("figure") if list(one.iter("audio"))]
    assert all(" ".join(f"{AUTHOR}".split()) in one for one in credits)


def test_figures_have_titles_headings_and_a_way_to_their_cell(page):
    (figure,) = [one for one in parsed(page).iter("figure") if one.get("class") == "plot"]
    assert HOSTILE[3] in next(figure.iter("img")).get("alt")
    assert text_of(figure).startswith("The species")
    assert next(figure.iter("a")).get("href") == "notebooks/01_eda.html#cell-2"
    assert parsed(page.parent / "notebooks/01_eda.html").find(".//*[@id='cell-2']") is not None


def test_a_small_figure_is_kept_exactly(run):
    (path,) = (run.dir / "figures").glob("*.png")
    shown = report.picture(path.read_bytes())
    packed = report.base64.b64decode(shown.address.partition(",")[2])
    one, other = (report.Image.open(report.io.BytesIO(data)).convert("RGB") for data in (path.read_bytes(), packed))
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert (shown.width, shown.height) == one.size
    assert len(packed) < path.stat().st_size


def test_the_same_folder_gives_the_same_page(run, page):
    before = page.read_bytes()
    assert report.write(run.dir).read_bytes() == before


@pytest.mark.parametrize(
    ("metrics", "text", "interval"),
    [
        ({"accuracy": 0.5, "intervals": {"accuracy": [0.25, 1.0]}}, "50.0%", "25.0% to 100.0%"),
        ({"accuracy": 0.5, "intervals": {"accuracy": [float("nan")] * 2}}, "50.0%", ""),
        ({"accuracy": 0.5}, "50.0%", ""),
        ({"accuracy": None}, "–", ""),
        ({}, "–", ""),
    ],
)
def test_a_number_that_does_not_exist_is_a_dash(metrics, text, interval):
    found = report_results.score(metrics, "accuracy")
    assert (found.text, found.interval) == (text, interval)


# ---- what is missing is said


def states(tree):
    return {row[0]: row[1] for row in cells_of(tree, aria_label="The notebooks")[1:]}


def test_a_folder_in_which_nothing_has_run(tmp_path):
    runs.keep_settings(tmp_path, config.load("sample"))
    tree = parsed(report.write(tmp_path))
    assert set(states(tree).values()) == {"has not run"}
    assert "Nothing has been scored yet" in text_of(tree)
    assert "Missing: tables/recordings.parquet." in text_of(tree)
    assert not list(tree.iter("audio")) + list(tree.iter("img"))


def test_until_the_test_the_validation_is_shown_as_such(copy):
    folder, made = copy
    (folder / "tables" / "predictions.parquet").unlink()
    run = runs.Run(folder, config.load(folder / "config.yaml"), stages.stage("05"))
    found = folds.scores(folds.out_of_fold(run, 2), run.read_table("splits"), 0)
    shutil.rmtree(folder / "metrics")
    run.update_metrics("phase_2", {"val_accuracy": found["accuracy"], "validation": found})
    tree = made()
    (good,) = [text_of(one) for one in tree.iter("section") if one.get("aria-labelledby") == "how-good"]
    assert f"{found['accuracy']:.1%} of the validation's {found['chunks']} chunks" in good
    assert "There is no test result. Validation chose the epoch" in good
    _, *rows = cells_of(tree, id="by-species")
    assert sum(int(row[5]) for row in rows) == found["chunks"]
    # Folds may differ in size: it is the same number that the interval is of, not the mean of the folds.
    rows = {row["name"]: row["score"] for row in report_results.beside(run, report_results.read(run), 4, [])}
    shown = rows["validation after phase II"]
    assert (shown.value, shown.low, shown.high) == (found["accuracy"], *found["intervals"]["accuracy"])


def test_after_phase_1_alone(copy):
    folder, made = copy
    (folder / "tables" / "predictions.parquet").unlink()
    shutil.rmtree(folder / "metrics")
    run = runs.Run(folder, config.load(folder / "config.yaml"), stages.stage("04"))
    found = folds.scores(folds.out_of_fold(run, 1), run.read_table("splits"), 0)
    run.update_metrics("phase_1", {"val_accuracy": found["accuracy"], "validation": found})
    (good,) = [text_of(one) for one in made().iter("section") if one.get("aria-labelledby") == "how-good"]
    assert f"{found['accuracy']:.1%} of the validation's {found['chunks']} chunks" in good
    low, high = found["intervals"]["accuracy"]
    assert f"{low:.1%} to {high:.1%}" in good


def test_a_split_in_which_nobody_validates_has_its_other_sides_shown(copy):
    folder, made = copy
    splits_path = folder / "tables" / "splits.parquet"
    pd.read_parquet(splits_path).assign(fold=np.int8(-1)).to_parquet(splits_path)
    for name in ("predictions", *(f"validation_phase_{phase}_fold_{fold}" for phase in (1, 2) for fold in (0, 1))):
        (folder / "tables" / f"{name}.parquet").unlink()
    shutil.rmtree(folder / "metrics")
    (folder / "metrics.json").unlink()
    tree = made()
    text = text_of(tree)
    assert "validation, fold" not in text
    held_out = (pd.read_parquet(splits_path)["split"] == "test").sum()
    (test,) = [cells for row in tree.iter("tr") if (cells := [text_of(cell) for cell in row])[0] == "test"]
    assert test[1] == str(held_out)
    assert "Nothing has been scored yet" in text


def test_recordings_that_are_gone_are_said_to_be(copy, tmp_path):
    folder, made = copy
    moved = config.override(config.load(folder / "config.yaml"), {"data.dir": tmp_path / "nowhere"})
    (folder / "config.yaml").write_text(config.dump(moved))
    tree = made()
    assert not list(tree.iter("audio"))
    assert text_of(tree).count(f"These recordings are not in {tmp_path / 'nowhere'} any more") >= 1
    assert f"The data folder {tmp_path / 'nowhere'} is not there" in text_of(tree)


def test_a_notebook_that_stopped_says_of_what(copy):
    folder, made = copy
    error = new_output(
        "error", ename="ValueError", evalue=HOSTILE[0], traceback=["\x1b[31mValueError\x1b[0m", HOSTILE[1]]
    )
    book = new_notebook(cells=[new_code_cell("x", outputs=[error])])
    nbformat.write(book, folder / "notebooks" / "02_chunking.ipynb")
    tree = made()
    assert states(tree)["02 chunking"] == f"stopped: ValueError: {HOSTILE[0]}"
    shown = parsed(folder / "report" / "notebooks" / "02_chunking.html")
    assert f"ValueError {HOSTILE[1]}" in [text_of(one) for one in shown.iter("pre")]


# ---- written whole, or not


def test_a_report_that_fails_leaves_the_one_before(copy, monkeypatch):
    folder, made = copy
    made()
    before = (folder / report.PAGE).read_bytes()

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_write", full)
    with pytest.raises(ReportError, match=r"the report cannot be written: .*No space"):
        made()
    assert (folder / report.PAGE).read_bytes() == before


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ReportError, match=r"is no run folder: it has no config\.yaml"):
        report.write(tmp_path)
    assert list(tmp_path.iterdir()) == []
