"""A competition's data by kagglehub: which folder, and what is said when there is none."""

import io
import sys
import threading
import types
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from birdlib import competition, runs, series


class UnauthenticatedError(Exception):
    """As kagglehub's own, by name."""


def refusal(status):
    error = OSError(f"{status} Client Error.\n\nYou don't have permission")
    error.response = types.SimpleNamespace(status_code=status)
    return error


@pytest.fixture
def kagglehub(monkeypatch):
    """A function that puts a kagglehub into place which returns a folder, or raises; it returns what it was asked."""
    asked = []

    def put(result):
        def competition_download(handle):
            asked.append(handle)
            if isinstance(result, Exception):
                raise result
            return str(result)

        module = types.SimpleNamespace(competition_download=competition_download)
        monkeypatch.setitem(sys.modules, "kagglehub", module)
        return asked

    return put


@pytest.mark.parametrize("place", ["data", "/data/kaggle", Path("kaggle/birdclef-2024")])
def test_a_folder_is_a_folder(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert competition.folder(place) == Path(place)


@pytest.mark.parametrize("place", ["kaggle:birdclef-2024", Path("kaggle:birdclef-2024")])
def test_a_competition_is_the_folder_that_kagglehub_names(kagglehub, tmp_path, place):
    asked = kagglehub(tmp_path)
    assert competition.folder(place) == tmp_path
    assert asked == ["birdclef-2024"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refusal(403), r"accept the competition's rules once, at https://www.kaggle.com/competitions/b24/rules"),
        (refusal(401), r"Kaggle does not know who asks: .* KAGGLE_API_TOKEN .*Colab"),
        (UnauthenticatedError("User is not authenticated"), r"Kaggle does not know who asks"),
        (refusal(404), r"no such competition \(is there a page https://www.kaggle.com/competitions/b24\?\)"),
        (refusal(500), r"kagglehub says: 500 Client Error. You don't have permission"),
        (OSError("No space left on device"), "kagglehub says: No space left"),
        (TimeoutError(), "kagglehub says: TimeoutError"),
    ],
)
def test_what_stands_in_the_way_is_said_in_a_line(kagglehub, error, said):
    kagglehub(error)
    with pytest.raises(competition.CompetitionError, match=said) as caught:
        competition.folder("kaggle:b24")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("or download the data by hand, and give the folder")


def test_without_kagglehub_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(competition.CompetitionError, match="kaggle:b24 needs kagglehub: pip install kagglehub, or"):
        competition.folder("kaggle:b24")


@pytest.mark.parametrize("how", ["data_dir", "overrides"])
def test_a_run_keeps_the_folder_and_asks_once(kagglehub, tiny_data, tmp_path, how):
    asked = kagglehub(tiny_data)
    place = "kaggle:birdclef-2024"
    given = {"data_dir": place} if how == "data_dir" else {"overrides": {"data.dir": place}}
    run = runs.open_run("01_eda", run_dir=tmp_path, **given)
    assert run.data_dir == tiny_data
    assert runs.open_run("01_eda", run_dir=tmp_path).data_dir == tiny_data
    assert asked == ["birdclef-2024"]
    runs.unlock(tmp_path)


def test_the_series_says_it_before_anything_runs(kagglehub, tmp_path):
    kagglehub(refusal(403))
    with pytest.raises(competition.CompetitionError, match="accept the competition's rules"):
        series.run(data_dir="kaggle:b24", run_dir=tmp_path)
    assert not (tmp_path / "notebooks").exists()


# ---- the real kagglehub, against a server of our own


@pytest.fixture
def kaggle_server(monkeypatch, tmp_path):
    """A function that starts a server which answers every question alike, and sends the real kagglehub there."""
    real = pytest.importorskip("kagglehub")
    started = []

    def start(status, body=b"{}", kind="application/json"):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                for name, value in (("Content-Type", kind), ("Content-Length", len(body)), ("Last-Modified", DATE)):
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")

    for name in ("no_proxy", "NO_PROXY", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "of-nobody")
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    assert real
    yield start
    for server in started:
        server.shutdown()
        server.server_close()


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("status", "said"), [(403, "accept the competition's rules"), (401, "does not know who"), (404, "no such")]
)
def test_the_real_kagglehub_is_understood(kaggle_server, status, said):
    kaggle_server(status)
    with pytest.raises(competition.CompetitionError, match=said):
        competition.folder("kaggle:birdclef-2024")


def test_the_real_kagglehub_without_a_token(kaggle_server, monkeypatch, tmp_path):
    kaggle_server(200)
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(competition.CompetitionError, match="does not know who asks"):
        competition.folder("kaggle:birdclef-2024")


def test_the_real_kagglehub_brings_the_data(kaggle_server):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("train_metadata.csv", "primary_label,filename\n")
    kaggle_server(200, archive.getvalue(), "application/zip")
    found = competition.folder("kaggle:birdclef-2024")
    assert (found / "train_metadata.csv").read_text() == "primary_label,filename\n"
