"""The report in a real browser, of a run through the series on data whose names are meant to break it."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from birdlib import series, stages
from tests import browser
from tests.conftest import TINY_LABELS
from tests.test_series import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WIDTHS = (400, 1280)  # a phone, a desktop
PAGES = ("index.html", *(f"notebooks/{one.name}.html" for one in stages.STAGES))
HACK = "window.hacked = 1"
NAMES = (
    f"</script><script>{HACK}</script>",
    f'"><img src=x onerror="{HACK}">',
    f"<svg onload='{HACK}'>",
    "<b>Bird</b>",
)


@pytest.fixture(scope="module")
def page(tiny_data, tmp_path_factory):
    """The report of a whole run."""
    folder = tmp_path_factory.mktemp("browser")
    data = Path(shutil.copytree(tiny_data, folder / "data"))
    table = pd.read_csv(data / "train_metadata.csv")
    table["common_name"] = table["primary_label"].map(dict(zip(TINY_LABELS, NAMES, strict=True)))
    table["author"] = table["author"] + NAMES[1]
    table["license"], table["url"] = NAMES[0], f"javascript:{HACK}"
    table[NAMES[2]] = NAMES[0]  # a column that nobody knows
    table.to_csv(data / "train_metadata.csv", index=False)
    return series.run("sample", data, folder / "run", TINY) / "report" / "index.html"


@pytest.fixture(scope="module")
def tab():
    with browser.opened() as tab:
        yield tab


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_a_complaint_and_fits_its_window(tab, page, name, width):
    tab.go(page.parent / name, width)
    assert tab.tell("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert width - 20 < tab.tell("document.documentElement.clientWidth") <= width  # less a scroll bar
    assert tab.tell("window.hacked === undefined")
    assert tab.tell("document.querySelectorAll('script').length") == 1
    assert tab.tell("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert tab.complaints == []


def test_no_handler_of_a_name_runs_when_everything_is_touched(tab, page):
    for name in PAGES:
        tab.go(page.parent / name, 1280)
        tab.tell("""for (const each of document.querySelectorAll('main *'))
            for (const kind of ['mouseover', 'focus', 'error', 'load', 'toggle'])
                each.dispatchEvent(new Event(kind, {bubbles: true}))""")
        assert tab.tell("window.hacked === undefined")
        assert not tab.tell("[...document.links].some((link) => !/^(file|https?):$/.test(link.protocol))")


@pytest.mark.parametrize("name", ["index.html", "notebooks/06_testing.html"])
def test_a_player_plays(tab, page, name):
    tab.go(page.parent / name, 1280)
    time_s = tab.tell("""new Promise(async (done, failed) => {
        const player = document.querySelector('audio');
        player.addEventListener('timeupdate', () => player.currentTime > 0.2 && done(player.currentTime));
        player.addEventListener('error', () => failed(player.error.message));
        setTimeout(() => done(player.currentTime), 20000);
        await player.play();
    })""")
    assert time_s > 0.2
    assert 0.9 < tab.tell("document.querySelector('audio').duration") < 1.2  # TINY's chunks: a second
    assert tab.complaints == []


COLUMN = (
    """[...document.querySelector('#by-species').tBodies[0].rows].map((row) => row.cells[{0}].textContent.trim())"""
)
HEAD = "document.querySelector('#by-species').tHead.rows[0].cells[{0}]"


@pytest.mark.parametrize("column", [0, 1, 5])
def test_a_table_sorts_by_the_keyboard(tab, page, column):
    tab.go(page, 1280)
    before = tab.tell(COLUMN.format(column))
    key = str if column == 0 else float
    for press, said in enumerate(["ascending", "descending", "ascending"]):
        if column == 1:  # which the page is sorted by already
            said = {"ascending": "descending", "descending": "ascending"}[said]
        tab.tell(f"{HEAD.format(column)}.querySelector('button').focus()")
        tab.press("Enter")
        assert tab.tell(f"{HEAD.format(column)}.getAttribute('aria-sort')") == said, press
        shown = tab.tell(COLUMN.format(column))
        assert sorted(shown) == sorted(before)
        if column:
            assert [key(one) for one in shown] == sorted(map(key, shown), reverse=said == "descending")
        else:
            assert (shown[::-1] if said == "descending" else shown) == tab.tell(
                f"{before!r}.sort((one, other) => one.localeCompare(other))"
            )
    assert tab.tell("document.querySelectorAll('#by-species [aria-sort]').length") == 1


def test_a_shrunken_figure_shows_in_full_size(tab, page):
    tab.go(page, 400)
    width = "document.querySelector('figure.plot img').getBoundingClientRect().width"
    small = tab.tell(width)
    tab.tell("document.querySelector('figure.plot button').click()")
    assert tab.tell(width) == tab.tell("document.querySelector('figure.plot img').naturalWidth") > small
    assert tab.tell("document.documentElement.scrollWidth") == 400


def test_paper_shows_what_is_folded(tab, page):
    tab.go(page, 1280)
    assert tab.tell("[...document.querySelectorAll('details')].some((one) => !one.open)")
    tab.tell("dispatchEvent(new Event('beforeprint'))")
    assert tab.tell("[...document.querySelectorAll('details')].every((one) => one.open)")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_looked_at(tab, page, width, scheme, tmp_path):
    """Draws the first screen; BIRDLIB_SCREENSHOTS names a folder that keeps it."""
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.go(page, width, 1000)
    path = Path(os.environ.get("BIRDLIB_SCREENSHOTS") or tmp_path) / f"report_{width}_{scheme}.png"
    tab.picture(path)
    image = Image.open(path).convert("L")
    assert image.size == (width, 1000)
    ground = [image.getpixel((3, y)) for y in range(300, 1000, 100)]
    assert min(ground) > 200 if scheme == "light" else max(ground) < 60
    darkest, lightest = image.getextrema()
    assert lightest - darkest > 180  # there is text on it
    tab.call("Emulation.setEmulatedMedia", features=[])


def test_what_a_page_does_wrong_is_noticed(tab, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(
        "<script>console.error('one'); setTimeout(() => two())</script><img src='https://localhost:1/three.png'>"
    )
    tab.go(path, 400)
    tab.tell("new Promise((done) => setTimeout(done, 300))")
    said = "".join(tab.complaints)
    assert all(word in said for word in ('"one"', "two is not defined", "asks for https://localhost:1/three.png"))
