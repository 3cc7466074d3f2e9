"""The real kaggle command, pushing to a server on this machine: what arrives, and what is made of its answers."""

import base64
import http.server
import io
import json
import re
import socketserver
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import nbformat
import pytest

from birdlib import kaggle_push, kernels
from birdlib.kernels import KernelError
from tests.conftest import needs_installation

pytestmark = [pytest.mark.slow, needs_installation]  # the command takes a second or two at each call

KEY = "a-key-that-must-not-be-seen-anywhere"
REFUSED = {"code": 401, "message": "Unauthorized"}


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as it is told, by the last part of the path: a JSON value, or a list of them, one a call."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.rsplit("/", 1)[-1]
        self.server.calls.append((name, json.loads(body), dict(self.headers)))
        self._answer(self.server.answers.get(name, {}))

    def do_GET(self):
        self.server.calls.append((self.path, None, dict(self.headers)))
        self._answer(self.server.files.get(self.path.rsplit("/", 1)[-1], b""))

    def _answer(self, answer):
        answer = answer.pop(0) if isinstance(answer, list) and len(answer) > 1 else answer
        answer = answer[0] if isinstance(answer, list) else answer
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(answer.get("code", 200) if isinstance(answer, dict) else 200)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, bytes) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Wed, 25 Nov 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server that the kaggle command takes for Kaggle, with the credentials of a user named birder."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Server) as running:
        running.calls, running.files = [], {}
        running.answers = {
            "SaveKernel": {"versionNumber": 3, "url": "https://www.kaggle.com/code/birder/k", "error": ""}
        }
        threading.Thread(target=running.serve_forever, daemon=True).start()
        for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{running.server_address[1]}")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("KAGGLE_USERNAME", "birder")
        monkeypatch.setenv("KAGGLE_KEY", KEY)
        monkeypatch.chdir(tmp_path)
        yield running
        running.shutdown()


def birdlib(*arguments):
    command = [str(Path(sys.executable).with_name("birdlib")), "kaggle", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def sent(server):
    """The body of the one kernel that was pushed."""
    bodies = [body for name, body, _ in server.calls if name == "SaveKernel"]
    assert len(bodies) == 1
    return bodies[0]


def carried(notebook):
    """The wheel in a notebook's first cell."""
    text = re.search(r'b64decode\("""\n(.*?)"""', notebook.cells[0].source, re.DOTALL)[1]
    return zipfile.ZipFile(io.BytesIO(base64.b64decode(text)))


# ---- what arrives


def test_what_arrives_is_the_staged_notebook_and_its_metadata(server, tmp_path):
    done = birdlib("push", "--dataset", "birder/run", "--kernel", "ann/weights-of-mine")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "pushed: birder/birdlib-6-the-test, version 3: https://www.kaggle.com/code/birder/k\n"
    body = sent(server)
    assert (body["slug"], body["newTitle"]) == ("birder/birdlib-6-the-test", "birdlib 6: The test")
    assert (body["language"], body["kernelType"]) == ("python", "notebook")
    assert (body["isPrivate"], body["enableGpu"], body["enableInternet"]) == (True, True, True)
    assert (body["machineShape"], body["dockerImagePinningType"]) == ("NvidiaTeslaT4", "original")
    assert body["competitionDataSources"] == ["birdclef-2024"]
    assert body["datasetDataSources"] == ["birder/run"]
    assert body["kernelDataSources"] == ["ann/weights-of-mine"]
    notebook = nbformat.reads(body["text"], as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
    names = carried(notebook).namelist()
    assert {"birdlib/series.py", "birdlib/traits.csv", "birdlib/notebooks/01_eda.ipynb"} <= set(names)
    assert len(body["text"]) < kernels.LARGEST_BYTES
    folder = tmp_path / "build/kaggle/birdlib-6-the-test"
    assert sorted(path.name for path in folder.iterdir()) == ["06_testing.ipynb", "kernel-metadata.json"]


def test_the_command_had_the_credentials_and_nothing_else_has(server, tmp_path):
    done = birdlib("push")
    secret = base64.b64encode(f"birder:{KEY}".encode()).decode()
    assert server.calls[-1][2]["Authorization"] == f"Basic {secret}"
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in [*kept, done.stdout.encode(), done.stderr.encode()] if KEY.encode() in text]
    assert KEY not in json.dumps(sent(server))


def test_the_chain_goes_up_one_after_the_other_each_with_what_it_reads(server):
    server.answers["GetKernelSessionStatus"] = {"status": "COMPLETE"}
    done = birdlib("push", "--all", "--cpu")
    assert done.returncode == 0, done.stderr
    assert [name for name, _, _ in server.calls][:3] == [
        "SaveKernel",
        "GetKernelSessionStatus",
        "ListKernelSessionOutput",
    ]
    bodies = [body for name, body, _ in server.calls if name == "SaveKernel"]
    assert bodies[1]["slug"] == "birder/" + kernels.slugified(bodies[1]["newTitle"])
    needs = {body["slug"][15]: [source[15] for source in body.get("kernelDataSources", [])] for body in bodies}
    assert needs == {
        "1": [],
        "2": ["1"],
        "3": ["1", "2"],
        "4": ["1", "2"],
        "5": ["1", "2", "4"],
        "6": ["1", "2", "4", "5"],
    }


# ---- the run, followed


def test_a_run_is_followed_to_its_end_and_its_output_fetched(server, tmp_path, monkeypatch):
    states = ["QUEUED", "RUNNING", "RUNNING", "COMPLETE"]
    server.answers["GetKernelSessionStatus"] = [{"status": state} for state in states]
    server.files = {"submission.csv": b"row_id\n"}
    file = {"url": "http://localhost/files/submission.csv", "fileName": "submission.csv"}
    server.answers["ListKernelSessionOutput"] = {"files": [file], "log": "all of it"}
    told = []
    pushed = kaggle_push.push(kernels.stage(tmp_path / "k"))
    kaggle_push.follow(pushed, tmp_path / "output", told.append, every_s=0.01)
    assert [line.split(": ")[1] for line in told] == ["queued", "running", "complete"]
    asked = [body for name, body, _ in server.calls if name == "GetKernelSessionStatus"]
    assert asked[0] == {"userName": "birder", "kernelSlug": "birdlib-6-the-test", "versionLabel": "v3"}
    folder = tmp_path / "output"
    assert (folder / "submission.csv").read_bytes() == b"row_id\n"
    assert (folder / "birdlib-6-the-test.log").read_text() == "all of it"


def test_a_run_that_fails_is_an_error_with_its_reason_and_leaves_what_it_made(server, tmp_path):
    server.answers["GetKernelSessionStatus"] = {"status": "ERROR", "failureMessage": "Notebook Exceeded Memory"}
    lines = ["epoch 1", "\x1b[0;31mSeriesError\x1b[0m: 04_phase_1 stopped in cell [5]\n", "after"]
    log = json.dumps([{"stream_name": "stderr", "time": 1.5, "data": line} for line in lines])
    server.answers["ListKernelSessionOutput"] = {"log": log}
    done = birdlib("push", "--wait")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "ended with error: Notebook Exceeded Memory; SeriesError: 04_phase_1 stopped in cell [5] (" in done.stderr
    assert (tmp_path / "build/kaggle/birdlib-6-the-test/output/birdlib-6-the-test.log").read_text() == log


def test_a_server_that_does_not_answer_is_asked_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(kaggle_push, "PATIENCE", 3)
    lost = {"code": 503, "message": "try later"}
    pushed = kaggle_push.Pushed("birder/k-one", "", "https://here")
    server.answers["GetKernelSessionStatus"] = [lost, lost, {"status": "COMPLETE"}]
    kaggle_push.follow(pushed, tmp_path / "output", print, every_s=0.01)
    server.answers["GetKernelSessionStatus"] = lost
    with pytest.raises(KernelError, match=r"the run goes on: https://here"):
        kaggle_push.follow(pushed, tmp_path / "output", print, every_s=0.01)


# ---- what goes wrong is one line, and not 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (REFUSED, "Kaggle does not know you"),
        (
            {"error": "Maximum weekly GPU quota exceeded"},
            "Kaggle refuses birder/birdlib-6-the-test: Maximum weekly GPU",
        ),
        ({"versionNumber": 4, "invalidCompetitionSources": ["birdclef-2024"]}, "accept the competition's rules"),
        ({"versionNumber": 4, "invalidDatasetSources": ["birder/run"]}, "without its dataset sources ['birder/run']"),
        ({"code": 413, "message": "Request Entity Too Large"}, "too large"),
        ({"code": 500, "message": "no kernels today"}, "no kernels today"),
        ({"code": 400, "message": "no such user"}, "no such user"),
    ],
)
def test_what_the_server_says_is_an_error(server, answer, words):
    server.answers["SaveKernel"] = answer
    done = birdlib("push")
    assert done.returncode == 1
    assert done.stderr.startswith("birdlib: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def test_without_credentials_it_is_an_error(server, monkeypatch):
    monkeypatch.delenv("KAGGLE_KEY")
    done = birdlib("push")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Kaggle does not know you" in done.stderr
    monkeypatch.delenv("KAGGLE_USERNAME")
    done = birdlib("push")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "give it with --user" in done.stderr
    assert not [name for name, _, _ in server.calls if name == "SaveKernel"]


def test_a_notebook_too_large_is_not_sent(server, tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "LARGEST_BYTES", 100_000)
    with pytest.raises(KernelError, match=r"has \d{3},\d{3} bytes .* takes 100,000"):
        kernels.stage(tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_without_the_command_it_is_an_error(server, tmp_path, monkeypatch):
    folder = kernels.stage(tmp_path / "k")
    monkeypatch.setattr(kaggle_push.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelError, match="pip install kaggle six"):
        kaggle_push.push(folder)
    (tmp_path / "kaggle").write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'six'\" >&2\nexit 1\n")
    (tmp_path / "kaggle").chmod(0o755)
    with pytest.raises(KernelError, match="pip install six"):
        kaggle_push.push(folder)
