"""The command line: whatever is wrong with what it is given is one line, and not a traceback."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import birdlib
from birdlib import cli
from birdlib.audio import AudioError
from birdlib.exported import ExportError


@pytest.fixture
def call(monkeypatch, capsys):
    """A function (arguments...) -> exit status, standard output, standard error of `birdlib` with these arguments."""

    def calling(*arguments):
        monkeypatch.setattr(sys, "argv", ["birdlib", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as stopped:
            status = stopped.code or 0
        return status, *capsys.readouterr()

    return calling


@pytest.fixture
def refused(call):
    """A function (arguments...) -> the one line that `birdlib` says before it exits."""

    def refusing(*arguments):
        status, output, error = call(*arguments)
        assert status not in (0, None)
        assert "Traceback" not in error + output
        # A progress bar may stand above it.
        line = error.rstrip("\n").splitlines()[-1]
        assert line.startswith("birdlib: ")
        assert [one for one in error.splitlines() if one.startswith("birdlib: ")] == [line]
        return line.removeprefix("birdlib: ")

    return refusing


@pytest.fixture
def data(tiny_data, tmp_path):
    """A copy of the tiny data folder to do with as one likes."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


# --- what is wrong with the data -------------------------------------------------------------------------------------


def test_a_missing_data_folder(refused, tmp_path):
    line = refused("run", "--data-dir", tmp_path / "nowhere", "--run-dir", tmp_path / "run")
    assert line == f"{tmp_path}/nowhere is missing: it should hold train_metadata.csv"


def test_a_data_folder_that_is_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("x")
    line = refused("run", "--data-dir", tmp_path / "file", "--run-dir", tmp_path / "run")
    assert line == f"{tmp_path}/file is not a folder: it should hold train_metadata.csv"


def test_a_folder_without_metadata(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    line = refused("run", "--data-dir", tmp_path / "empty", "--run-dir", tmp_path / "run")
    assert line.startswith(f"{tmp_path}/empty/train_metadata.csv is missing")


@pytest.mark.parametrize("column", ["primary_label", "filename"])
def test_a_missing_column(refused, data, tmp_path, column):
    table = pd.read_csv(data / "train_metadata.csv")
    table.drop(columns=column).to_csv(data / "train_metadata.csv", index=False)
    line = refused("run", "--data-dir", data, "--run-dir", tmp_path / "run")
    assert f"train_metadata.csv lacks the column '{column}'" in line


@pytest.mark.parametrize(
    ("content", "said"), [("", "not readable as CSV"), ("primary_label,filename\n", "has no rows")]
)
def test_empty_metadata(refused, data, tmp_path, content, said):
    (data / "train_metadata.csv").write_text(content)
    line = refused("run", "--data-dir", data, "--run-dir", tmp_path / "run")
    assert line.startswith(f"{data}/train_metadata.csv")
    assert said in line


def silence_files(folder):
    for path in folder.rglob("*.ogg"):
        path.write_bytes(b"\x00\x01 this is no audio")


def test_a_label_without_audio(refused, data, tmp_path):
    silence_files(data / "train_audio" / "tinbir2")
    line = refused("run", "--data-dir", data, "--run-dir", tmp_path / "run")
    assert "01_eda stopped in cell" in line
    assert "1 label(s) without any readable audio: tinbir2" in line
    assert "data.labels_without_audio=leave_out" in line


@pytest.mark.slow
def test_files_that_are_no_audio_at_all(refused, data, tmp_path):
    silence_files(data / "train_audio")
    line = refused("run", "--data-dir", data, "--run-dir", tmp_path / "run")
    assert "none of the 24 files of train_metadata.csv can be read" in line
    errors = tmp_path / "run" / "notebooks" / "01_eda.ipynb"
    assert str(errors) in line
    assert errors.is_file()


# --- what is wrong with the settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("phase_1.epoks=3", "unknown key 'phase_1.epoks'; did you mean 'phase_1.epochs'?"),
        ("treshold=3", "unknown key 'treshold'; did you mean"),
        ("phase_1.epochs=many", "phase_1.epochs='many'"),
        ("phase_1.epochs=0", "phase_1.epochs='0'"),
        ("folds=7", "there is no fold 7"),
        ("phase_1=3", "not a single setting 'phase_1'"),
        ("phase_1.epochs", "key=value"),
        ("=3", "key=value"),
    ],
)
def test_a_setting_that_cannot_be(refused, tmp_path, setting, said):
    line = refused("run", "--set", setting, "--run-dir", tmp_path / "run")
    assert said in line


def test_a_configuration_that_is_none(refused, tmp_path):
    assert "neither a preset (paper, sample) nor a file" in refused("run", "--config", "sampel")
    (tmp_path / "own.yaml").write_text("base: sample\nphase_1:\n  epoks: 3\n")
    line = refused("run", "--config", tmp_path / "own.yaml", "--run-dir", tmp_path / "run")
    assert "own.yaml" in line
    assert "'phase_1.epochs'" in line


def test_a_weights_file_that_is_not_there(refused, data, tmp_path):
    options = ["--set", "model.backbone=resnet50", "--set", f"model.weights={tmp_path}/none.h5"]
    line = refused("run", "--data-dir", data, "--run-dir", tmp_path / "run", *options)
    assert f"there is no file {tmp_path}/none.h5" in line


@pytest.mark.parametrize("option", ["--from", "--only"])
def test_an_unknown_stage(refused, tmp_path, option):
    line = refused("run", option, "07", "--run-dir", tmp_path / "run")
    assert line.startswith("there is no stage '07'; the stages are 01_eda, 02_chunking")


def test_from_and_only_together(refused, tmp_path):
    assert refused("run", "--from", "03", "--only", "05", "--run-dir", tmp_path / "run") == (
        "give --from or --only, not both"
    )


def test_a_stage_whose_input_is_missing(refused, data, tmp_path):
    line = refused("run", "--data-dir", data, "--only", "04", "--run-dir", tmp_path / "run")
    assert "run the notebook 01_eda, which makes it, first" in line


# --- what is wrong with the run folder -------------------------------------------------------------------------------


def test_a_run_folder_that_is_a_file(refused, tmp_path):
    (tmp_path / "run").write_text("x")
    assert f"the run folder {tmp_path}/run cannot be written" in refused("run", "--run-dir", tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_folder_that_may_not_be_written(refused, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "cannot be written" in refused("run", "--run-dir", tmp_path / "locked" / "run")


def test_a_run_folder_where_none_can_be(refused):
    assert "the run folder /proc/run cannot be written" in refused("run", "--run-dir", "/proc/run")


# --- the sample data set ---------------------------------------------------------------------------------------------


def test_the_sample_is_not_written_into_a_folder_that_holds_something(refused, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    assert "is not empty" in refused("sample", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# --- the real command ------------------------------------------------------------------------------------------------


def command(*arguments):
    installed = Path(sys.executable).parent / "birdlib"
    if not installed.exists():
        pytest.skip("birdlib is not installed in this environment, it runs from the repository")
    return subprocess.run([installed, *arguments], capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"})


def test_help_lists_the_commands():
    done = command("--help")
    assert done.returncode == 0
    assert "run" in done.stdout
    assert "sample" in done.stdout
    assert done.stderr == ""


def test_version(call):
    assert call("--version") == (0, f"{birdlib.__version__}\n", "")


def test_the_installed_command_says_one_line_and_fails(tmp_path):
    done = command("run", "--data-dir", tmp_path / "nowhere", "--run-dir", tmp_path / "run")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"birdlib: {tmp_path}/nowhere is missing: it should hold train_metadata.csv\n"


def test_errors_that_are_not_birdlibs_are_not_hidden(call, monkeypatch):
    from birdlib import series

    monkeypatch.setattr(series, "run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("run")


def test_settings_reach_the_series_as_given(call, monkeypatch, tmp_path):
    from birdlib import series

    seen = []
    monkeypatch.setattr(series, "run", lambda *given: (seen.append(given), tmp_path)[1])
    options = ["--set", "seed=3", "--set", "phase_1.learning_rate=3e-5", "--set", "model.weights=a=b.h5"]
    status, output, _ = call("run", "--config", "paper", "--data-dir", "d", "--run-dir", "r", *options, "--from", "03")
    assert status == 0
    overrides = {"seed": "3", "phase_1.learning_rate": "3e-5", "model.weights": "a=b.h5"}
    assert seen == [("paper", Path("d"), Path("r"), overrides, "03", None)]
    assert str(tmp_path) in output


def test_the_result_is_said_at_the_end(call, monkeypatch, tmp_path):
    from birdlib import series

    test = {"on": "", "accuracy": 0.5682, "times_chance": 103.4, "recording_accuracy": 0.61, "macro_roc_auc": 0.912}
    test["intervals"] = {"accuracy": [0.5, 0.625], "recording_accuracy": [0.55, 0.7], "macro_roc_auc": [0.9, 0.95]}
    (tmp_path / "metrics.json").write_text(json.dumps({"test": test}))
    (tmp_path / "tables").mkdir()
    row = {"path": "a/b.ogg", "stage": "01_eda", "reason": "not readable as audio"}
    pd.DataFrame([row]).to_parquet(tmp_path / "tables" / "errors.parquet")
    monkeypatch.setattr(series, "run", lambda *_: tmp_path)
    _, output, _ = call("run")
    for said in (
        "56.8% (50.0% to 62.5%)",
        "103.4 times chance",
        "61.0% (",
        "0.912 (0.900 to 0.950)",
        "a/b.ogg: not readable as audio",
        str(tmp_path),
    ):
        assert said in output


def test_a_test_of_one_species_has_no_ranking(call, monkeypatch, tmp_path):
    from birdlib import series

    test = {"on": "", "accuracy": 1.0, "times_chance": 1.0, "recording_accuracy": None, "macro_roc_auc": None}
    test["intervals"] = {key: [None, None] for key in test}
    (tmp_path / "metrics.json").write_text(json.dumps({"test": test}))
    monkeypatch.setattr(series, "run", lambda *_: tmp_path)
    status, output, _ = call("run")
    assert status == 0
    assert "unknown of recordings; macro ROC-AUC unknown (95 % intervals)\n" in output


def test_being_stopped_by_hand_says_how_to_go_on(call, monkeypatch):
    from birdlib import series

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(series, "run", interrupted)
    status, _, error = call("run")
    assert status == 130
    assert error.startswith("birdlib: stopped; the same command goes on")


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["run"], "series.run"),
        (["run", "--sweep", "seed=1", "--sweep", "seed=2"], "sweeps.run"),
        (["predict", ".", "--model", "m", "--out", "o", "--runtime", "keras"], "predicting.predict"),
        (["export", "--run-dir", "r", "--out", "o"], "export.export"),
        (["check", "."], "check.check"),
    ],
)
def test_sigterm_is_an_interruption_with_its_own_status(arguments, module, call, monkeypatch):
    def killed(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(f"birdlib.{module}", killed)
    monkeypatch.setattr("birdlib.predicting.together", lambda *_: None)
    status, _, error = call(*arguments)
    assert status == 143
    assert error.startswith("birdlib: stopped; ")
    assert len(error.splitlines()) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_cluster_reaches_all_that_may_work_on_it(call, monkeypatch):
    from birdlib import check, predicting, series

    seen, address = [], "tcp://127.0.0.1:1"
    monkeypatch.setattr(predicting, "together", lambda *_: None)
    for module, name in ((series, "run"), (predicting, "predict"), (check, "check")):
        monkeypatch.setattr(module, name, lambda *arguments: seen.append(arguments) or 1 / 0)
    for arguments in (["run"], ["predict", ".", "--model", "m", "--out", "o", "--runtime", "keras"]):
        with pytest.raises(ZeroDivisionError):
            call(*arguments, "--cluster", address)
    assert call("check", ".", "--cluster", address)[0] == 2
    assert seen[0][3] == {"compute.cluster": address}
    assert seen[1][-1].cluster == seen[2][1].compute.cluster == address


def test_a_cluster_that_does_not_answer_is_one_line(refused, data, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="birdlib[cluster] is not installed")
    monkeypatch.setattr("birdlib.cluster.ANSWER_S", 1.0)
    line = refused("run", "--data-dir", data, "--run-dir", tmp_path / "run", "--cluster", "tcp://127.0.0.1:1")
    assert line.startswith("no Dask scheduler answers at tcp://127.0.0.1:1 (")
    assert "start one (dask scheduler)" in line


# --- exporting and predicting ----------------------------------------------------------------------------------------


def test_a_model_that_is_none(refused, tmp_path):
    line = refused("predict", tmp_path, "--model", tmp_path / "none", "--out", tmp_path / "out")
    assert line == f"{tmp_path}/none is neither a run folder nor one that birdlib export wrote"


@pytest.mark.parametrize(
    "error", [ExportError("it differs"), AudioError("a.ogg: no such file"), OSError(30, "Read-only file system")]
)
def test_a_run_whose_export_cannot_be_made_is_predicted_by_keras(call, monkeypatch, tmp_path, error):
    from birdlib import export, exported, predicting, runtimes

    def fails(_):
        raise error

    class Enough(Exception):
        pass

    def together(models, _):
        raise Enough(*models)

    monkeypatch.setattr(exported, "read", lambda _: None)
    monkeypatch.setattr(runtimes, "installed", lambda _: "1.0")
    monkeypatch.setattr(export, "for_predicting", fails)
    monkeypatch.setattr(predicting, "together", together)
    arguments = ["predict", tmp_path, "--model", tmp_path / "run", "--out", tmp_path / "out"]
    with pytest.raises(Enough) as reached:
        call(*arguments)
    assert reached.value.args == (tmp_path / "run",)


def test_exporting_what_is_no_run(refused, tmp_path):
    line = refused("export", "--run-dir", tmp_path / "none", "--out", tmp_path / "out")
    assert line == f"{tmp_path}/none is neither a run folder nor one that birdlib export wrote"


def test_a_threshold_that_is_no_probability(refused, tmp_path):
    line = refused("predict", tmp_path, "--model", tmp_path, "--out", tmp_path / "out", "--threshold", "50")
    assert line == "the threshold is a probability, 0 to 1, not 50.0"


def test_a_format_that_is_none(refused, tmp_path):
    assert refused("export", "--run-dir", tmp_path, "--out", tmp_path / "out", "--format", "tflite").startswith(
        "there is no tflite in f32; there are openvino f32, openvino bf16"
    )


# --- the report ------------------------------------------------------------------------------------------------------


def test_a_report_is_written_again(call, tmp_path):
    (tmp_path / "config.yaml").write_text("base: sample\n")
    status, output, _ = call("report", tmp_path)
    assert status == 0
    assert output.startswith(f"report: {tmp_path}/report/index.html (0.")
    assert "This run is not complete" in (tmp_path / "report" / "index.html").read_text()


def test_a_report_on_what_is_no_run(refused, tmp_path):
    assert refused("report", tmp_path) == f"{tmp_path} is no run folder: it has no config.yaml"
