"""Executed notebooks as HTML that runs nothing and loads nothing.

What a notebook has put out is made of other people's file names, labels and names. So its HTML is written anew from an
allow-list of elements and attributes; raw HTML in Markdown is text; Markdown that was put out makes no links; and
nothing refers to anything outside the page.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

# What is kept of HTML that was put out, and which attributes of it.
_KEPT = {
    **dict.fromkeys(("b", "br", "code", "div", "em", "i", "p", "pre", "span", "strong", "sub", "sup"), ()),
    **dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6", "ol", "ul", "li"), ()),
    **dict.fromkeys(("table", "caption", "thead", "tbody", "tfoot", "tr"), ()),
    "th": ("colspan", "rowspan", "scope"),
    "td": ("colspan", "rowspan"),
    "audio": ("controls", "preload", "src", "aria-label"),
    "img": ("src", "alt"),
}
_VOID = {"br", "img"}
# What stands inside these is no text.
_SWALLOWED = {
    "script",
    "style",
    "template",
    "iframe",
    "object",
    "noscript",
    "svg",
    "math",
    "title",
    "select",
    "textarea",
}
_INSIDE = re.compile(r"data:(audio/mpeg|image/(png|webp));base64,[A-Za-z0-9+/=]+")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Cell(NamedTuple):
    """A cell to be shown: ``kind`` "markdown" or "code"; its HTML; what it put out, as HTML; ``folded``: a code that
    the notebook hides."""

    number: int
    kind: str
    body: Markup
    outputs: list[Markup]
    folded: bool = False


def read(path: Path) -> dict[str, Any]:
    """A notebook as it lies in a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def title(book: Mapping[str, Any]) -> str:
    """The first heading of a notebook, as text."""
    return next((line.lstrip("# ") for line in _lines(book) if line.startswith("# ")), "")


def captions(book: Mapping[str, Any]) -> Iterator[tuple[re.Pattern[str], str, int]]:
    """Of each figure that a notebook keeps: what its name looks like, the heading it stands under, its cell."""
    heading = ""
    for number, cell in enumerate(book["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = next((line.strip("# ") for line in source.splitlines() if line.startswith("#")), heading)
        for name in re.findall(r'save_figure\(.* f?"([\w{}]+)"\)', source):
            parts = re.split(r"\{\w+\}", name)
            yield re.compile(".+".join(map(re.escape, parts))), heading, number


def failure(book: Mapping[str, Any]) -> str:
    """The error that ended a notebook, in one line; nothing if none did."""
    outputs = (output for cell in book["cells"] for output in cell.get("outputs", []))
    errors = [output for output in outputs if output["output_type"] == "error"]
    return " ".join(_ANSI.sub("", f"{errors[0]['ename']}: {errors[0]['evalue']}").split()) if errors else ""


def cells(book: Mapping[str, Any], picture: Callable[[str], Markup]) -> list[Cell]:
    """The cells of a notebook, ready to be put into a page.

    Parameters
    ----------
    picture : makes an image's element from its PNG in base64.
    """
    return [_cell(number, cell, picture) for number, cell in enumerate(book["cells"]) if "".join(cell["source"])]


def style() -> Markup:
    """The colours of code, for a light page and for a dark one."""
    light, dark = (HtmlFormatter(style=name).get_style_defs(".code") for name in ("default", "github-dark"))
    return Markup(f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}")


def safe(markup: str) -> Markup:
    """HTML written anew: of `markup`, the elements and attributes of the allow-list; all else is text, or gone."""
    cleaner = _Cleaner()
    cleaner.feed(markup)
    cleaner.close()
    return cleaner.result()


class _Cleaner(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.open: list[str] = []
        self.swallowed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.swallowed or tag in _SWALLOWED:
            self.swallowed.append(tag)
        elif tag in _KEPT:
            wanted = [(name, value or "") for name, value in attrs if name in _KEPT[tag]]
            if tag in ("audio", "img") and not _INSIDE.fullmatch(dict(wanted).get("src", "")):
                return
            given = "".join(f' {name}="{html.escape(value)}"' for name, value in wanted)
            self.parts.append(f"<{tag}{given}>")
            if tag not in _VOID:
                self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _SWALLOWED:
            self.handle_starttag(tag, attrs)
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.swallowed:
            del self.swallowed[len(self.swallowed) - 1 - self.swallowed[::-1].index(tag) :]
        elif not self.swallowed and tag in self.open:
            while (last := self.open.pop()) != tag:
                self.parts.append(f"</{last}>")
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self.swallowed:
            self.parts.append(html.escape(data))

    def result(self) -> Markup:
        return Markup("".join(self.parts) + "".join(f"</{tag}>" for tag in reversed(self.open)))


def _markdown(links: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", lambda _, tokens, place, *__: html.escape(tokens[place].content))
    return parser if links else parser.disable(["link", "image", "autolink", "reference"])


_PROSE, _SAID = _markdown(links=True), _markdown(links=False)


def _cell(number: int, cell: Mapping[str, Any], picture: Callable[[str], Markup]) -> Cell:
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return Cell(number, "markdown", Markup(_PROSE.render(source)), [])
    code = Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)))
    outputs = [shown for output in cell.get("outputs", []) if (shown := _output(output, picture))]
    folded = not {"hide-input", "install"}.isdisjoint(cell["metadata"].get("tags", []))
    return Cell(number, "code", code, outputs, folded)


def _output(output: Mapping[str, Any], picture: Callable[[str], Markup]) -> Markup:
    kind = output["output_type"]
    if kind == "stream":
        return _text(output["text"])
    if kind == "error":
        return _text("\n".join(output["traceback"]) or f"{output['ename']}: {output['evalue']}")
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:  # a progress bar: it is done
        return Markup("")
    if "image/png" in data:
        return picture("".join(data["image/png"]))
    if "text/html" in data:
        return Markup('<div class="scroll" tabindex="0">{}</div>').format(safe("".join(data["text/html"])))
    if "text/markdown" in data:
        return Markup(_SAID.render("".join(data["text/markdown"])))
    return _text(data.get("text/plain", ""))


def _text(text: str | list[str]) -> Markup:
    """Printed text as a terminal would leave it: without colours, each line as it was last written."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in _ANSI.sub("", "".join(text)).split("\n")]
    left = "\n".join(lines).strip("\n")
    return Markup('<pre class="said" tabindex="0">{}</pre>').format(left) if left else Markup("")


def _lines(book: Mapping[str, Any]) -> list[str]:
    sources = ("".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "markdown")
    return [line for source in sources for line in source.splitlines()]
