import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from birdlib import config as configs
from birdlib import runs, stages
from birdlib.stages import STAGES, RunError

HOLD = """
import sys, time
from pathlib import Path
from birdlib import runs
runs.lock(Path(sys.argv[1]), "04_phase_1")
print("held", flush=True)
time.sleep(60)
"""
TRY = """
import sys
from birdlib import runs
try:
    run = runs.open_run("01_eda", "sample", sys.argv[1], sys.argv[2])
except runs.RunError as error:
    print(error)
    sys.exit(7)
run.finish() if len(sys.argv) > 3 else None
"""


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "train_audio" / "a").mkdir(parents=True)
    (folder / "train_audio" / "a" / "XC1.ogg").write_bytes(bytes(10))
    (folder / "train_metadata.csv").write_text("primary_label,filename\na,a/XC1.ogg\n")
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def play(folder, data):
    """A function that does what the notebooks up to a stage would do to the run folder: open, write, finish."""

    def through(last, config=None, overrides=None):
        for one in STAGES[: STAGES.index(stages.stage(last)) + 1]:
            run = runs.open_run(one.name, config or (None if one.name > "01" else "sample"), folder, data, overrides)
            for name in stages.files(one.writes, run.config):
                run.path(name).write_text(f"{name} by {one.name}")
            run.finish()
        return run.config

    return through


def leftovers(folder):
    return sorted(path.name for path in folder.rglob("*") if path.name.startswith(".writing"))


# ---- whole or nothing


def test_replacing_puts_the_file_in_place(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with runs.replacing(path) as aside:
        aside.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_who_reads_the_old_file_meanwhile_keeps_it(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old and long")
    with open(path) as reader:
        with runs.replacing(path) as aside:
            aside.write_text("new")
        assert reader.read() == "old and long"  # the name moved to another file; nothing was overwritten
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_and_no_rubbish(error, tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), runs.replacing(path) as aside:
        aside.write_text("half of the ne")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_an_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), runs.replacing(path):
        pass
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_that_cannot_be_written_leaves_the_old_one(folder, data):
    run = runs.open_run("01_eda", "sample", folder, data)
    run.write_table("recordings", pd.DataFrame({"a": [1]}))
    with pytest.raises(Exception, match=r"Could not convert|Conversion failed"):
        run.write_table("recordings", pd.DataFrame({"a": [1, object()]}))
    assert run.read_table("recordings")["a"].tolist() == [1]
    assert leftovers(folder) == []


def test_a_table_is_the_same_bytes_every_time(folder, data):
    run = runs.open_run("01_eda", "sample", folder, data)
    table = pd.DataFrame({"name": ["b", "a"], "labels": [["x"], []], "value": [0.1, np.nan]})
    run.write_table("one", table)
    run.write_table("other", table.copy().set_axis([7, 5]))
    one, other = (folder / "tables" / f"{name}.parquet" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    found = pd.read_parquet(one)
    assert found["name"].tolist() == ["b", "a"]
    assert [list(labels) for labels in found["labels"]] == [["x"], []]
    assert found.index.tolist() == [0, 1]


def test_csv_and_figure(folder, data):
    run = runs.open_run("01_eda", "sample", folder, data)
    run.write_csv("submission.csv", pd.DataFrame({"row_id": ["a_5"], "bird": [0.5]}))
    assert (folder / "submission.csv").read_text() == "row_id,bird\na_5,0.5\n"
    figure = matplotlib.figure.Figure()
    assert run.save_figure(figure, "counts") is figure
    assert (folder / "figures" / "01_counts.png").read_bytes().startswith(b"\x89PNG")


def test_path_makes_its_folder(folder, data):
    run = runs.open_run("01_eda", "sample", folder, data)
    assert run.path("models/deep/one.keras") == folder / "models" / "deep" / "one.keras"
    assert (folder / "models" / "deep").is_dir()


# ---- the errors table and the metrics


def test_a_stage_replaces_its_own_errors_and_no_others(play, folder):
    play("02")
    first = runs.open_run("01_eda", run_dir=folder)
    mine = first.record_errors({"b.ogg": "broken", "a.ogg": "empty"})
    assert mine.to_numpy().tolist() == [["a.ogg", "01_eda", "empty"], ["b.ogg", "01_eda", "broken"]]
    first.finish()
    second = runs.open_run("02_chunking", run_dir=folder)
    second.record_errors({"a.ogg": "breaks in the middle"})
    second.finish()
    again = runs.open_run("01_eda", run_dir=folder)
    again.record_errors({"c.ogg": "no such file"})
    assert again.read_table("errors").to_numpy().tolist() == [
        ["c.ogg", "01_eda", "no such file"],
        ["a.ogg", "02_chunking", "breaks in the middle"],
    ]
    assert len(again.record_errors({})) == 0
    table = again.read_table("errors")
    assert table["path"].tolist() == ["a.ogg"]
    assert table.columns.tolist() == ["path", "stage", "reason"]


def test_no_errors_is_a_table_without_rows(folder, data):
    run = runs.open_run("01_eda", "sample", folder, data)
    run.record_errors({})
    table = run.read_table("errors")
    assert (len(table), table.columns.tolist()) == (0, ["path", "stage", "reason"])


def test_metrics_are_kept_by_section(folder, data):
    run = runs.open_run("01_eda", "sample", folder, data)
    assert run.metrics() == {}
    run.update_metrics("phase_1", {"val_accuracy": 0.5, "old": 1})
    run.update_metrics("test", {"accuracy": 0.25})
    run.update_metrics("phase_1", {"val_accuracy": 0.75})
    assert run.metrics() == {"phase_1": {"val_accuracy": 0.75}, "test": {"accuracy": 0.25}}


# ---- settings of a run folder


def test_a_new_folder_gets_sample_and_keeps_its_settings(folder):
    run = runs.open_run("01_eda", run_dir=folder, overrides={"seed": 3})
    assert run.config == configs.load("sample", {"seed": 3}) == configs.load(folder / "config.yaml")
    assert runs.settle(folder, None, None, None).seed == 3


def test_default_folder_is_named_after_the_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runs.default_dir(None) == tmp_path / "runs" / "sample"
    assert runs.default_dir("paper") == tmp_path / "runs" / "paper"
    assert runs.default_dir("settings/mine.yaml") == tmp_path / "runs" / "mine"
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert runs.default_dir(None) == tmp_path / "runs" / "sample"


def test_the_data_folder_is_remembered(folder, data, tmp_path):
    run = runs.open_run("01_eda", "sample", folder, data)
    assert run.data_dir == data
    run.path("tables/recordings.parquet").write_text("x")
    run.finish()
    assert runs.settle(folder, None, None, None).data.dir == data
    assert runs.settle(folder, "sample", None, None).data.dir == data  # even where the preset is named again


def test_a_relative_data_folder_is_kept_absolute(folder, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runs.settle(folder, "sample", "data", None).data.dir == data


def test_without_a_data_folder_it_is_the_sample_in_the_run_folder(folder):
    run = runs.open_run("01_eda", "sample", folder)
    assert run.data_dir == folder / "sample_data"


def test_a_changed_setting_after_a_finished_stage_names_that_stage(play, folder):
    play("04")
    before = (folder / "config.yaml").read_text()
    with pytest.raises(RunError, match=r"02_chunking has finished .* silence.*--from 02") as caught:
        runs.open_run("05_phase_2", run_dir=folder, overrides={"silence.threshold": 0.3})
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match=r"03_augmentation has finished .* batches"):
        runs.settle(folder, None, None, {"batches.threshold": 5})
    with pytest.raises(RunError, match=r"04_phase_1 has finished .* phase_1"):
        runs.open_run("05_phase_2", run_dir=folder, overrides={"phase_1.epochs": 5})
    with pytest.raises(RunError, match="has finished"):
        runs.settle(folder, "paper", None, None)
    assert (folder / "config.yaml").read_text() == before


def test_a_setting_that_no_finished_stage_has_read_may_change(play, folder):
    play("04")
    assert runs.settle(folder, None, None, {"phase_2.epochs": 5}).phase_2.epochs == 5
    assert runs.settle(folder, None, None, {"compute.workers": 1}).phase_2.epochs == 5


def test_a_stage_that_runs_again_may_have_other_settings(play, folder):
    play("06")
    run = runs.open_run("04_phase_1", run_dir=folder, overrides={"phase_1.epochs": 5})
    assert run.config.phase_1.epochs == 5
    runs.unlock(folder)
    again = STAGES[1:]
    assert runs.settle(folder, None, None, {"silence.threshold": 0.3}, redo=again).silence.threshold == 0.3
    with pytest.raises(RunError, match="01_eda"):
        runs.settle(folder, None, None, {"data.labels_without_audio": "leave_out"}, redo=again)


def test_background_sound_is_what_it_holds_and_not_where_it_lies(play, folder, tmp_path):
    there, other = tmp_path / "there", tmp_path / "other"
    for top, size in ((there, 9), (other, 10)):
        top.mkdir()
        (top / "rain.wav").write_bytes(bytes(size))
    noises = {"augmentation.background.probability": 0.5, "augmentation.background.dir": there}
    play("04", overrides=noises)
    moved = Path(shutil.copytree(there, tmp_path / "moved"))
    assert runs.settle(folder, None, None, {"augmentation.background.dir": moved}).augmentation.background.dir
    with pytest.raises(RunError, match=r"03_augmentation has finished .* augmentation.*--from 03"):
        runs.settle(folder, None, None, {"augmentation.background.dir": other})
    shutil.rmtree(there)  # as where the run was fetched from another machine
    assert runs.settle(folder, None, None, None, redo=(stages.stage("06"),)).augmentation.background.dir


def test_the_advice_names_the_first_stage_that_has_read_it(play, folder):
    play("05")
    changed = {"batches.threshold": 5}
    with pytest.raises(RunError, match=r"04_phase_1 has finished .* batches.*--from 03"):
        runs.settle(folder, None, None, changed, redo=(stages.stage("03"),))
    with pytest.raises(RunError, match=r"03_augmentation has finished .* batches.*--from 03"):
        runs.settle(folder, None, None, changed, redo=STAGES[3:])


def test_other_data_under_a_finished_stage_are_refused(play, folder, data, tmp_path):
    play("02")
    other = tmp_path / "other"
    (other / "train_audio").mkdir(parents=True)
    (other / "train_metadata.csv").write_text("primary_label,filename\n")
    with pytest.raises(RunError, match=r"01_eda has finished .* data"):
        runs.settle(folder, None, other, None)
    assert runs.settle(folder, None, None, None).data.dir == data


def test_the_same_data_may_move(play, folder, data, tmp_path):
    config = play("02")
    moved = data.rename(tmp_path / "moved")
    config = runs.settle(folder, None, moved, None)
    assert config.data.dir == moved
    assert all(runs.is_current(one, config, folder) for one in STAGES[:2])


def test_settings_that_do_not_hold(folder, data):
    with pytest.raises(configs.ConfigError, match=r"phase_1\.epochs"):
        runs.open_run("01_eda", "sample", folder, data, {"phase_1.epoch": 1})
    runs.lock(folder, "another")  # the folder was let go of
    runs.unlock(folder)


def test_an_unknown_stage(folder):
    with pytest.raises(RunError, match="there is no stage '07_more'"):
        runs.open_run("07_more", run_dir=folder)


# ---- inputs


@pytest.mark.parametrize(
    ("last", "asked", "words"),
    [
        (None, "02_chunking", "no tables/recordings.parquet: run the notebook 01_eda"),
        ("01", "03_augmentation", "no tables/chunks.parquet: run the notebook 02_chunking"),
        ("03", "05_phase_2", "no models/phase_1_fold_0.keras: run the notebook 04_phase_1"),
        ("04", "06_testing", "no models/phase_2_fold_0.keras: run the notebook 05_phase_2"),
    ],
)
def test_a_missing_input_names_the_notebook_that_makes_it(last, asked, words, play, folder):
    if last:
        play(last)
    with pytest.raises(RunError) as caught:
        runs.open_run(asked, run_dir=folder)
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)
    runs.lock(folder, "another")
    runs.unlock(folder)


def test_an_input_of_another_fold_is_missing(play, folder):
    play("04")
    with pytest.raises(RunError, match=r"phase_1_fold_1\.keras"):
        runs.require_inputs(STAGES[4], runs.settle(folder, None, None, {"folds": "0,1"}, redo=STAGES[2:]), folder)


def test_inputs_are_looked_at_in_one_walk_through_the_recordings(play, folder, monkeypatch):
    config, walked, really = play("04"), [], stages.folders.files
    monkeypatch.setattr(stages.folders, "files", lambda top: (walked.append(top.name), really(top))[1])
    runs.require_inputs(STAGES[4], config, folder)
    assert walked.count("train_audio") == 1


def test_a_stale_input_warns(play, folder, data):
    play("02")
    (data / "train_audio" / "a" / "XC2.ogg").write_bytes(b"new")
    with pytest.warns(UserWarning, match="01_eda was made from has changed"):
        runs.open_run("02_chunking", run_dir=folder)


# ---- finished or not


def current(config, folder):
    return [one.name[:2] for one in STAGES if runs.is_current(one, config, folder)]


def test_a_finished_stage_is_current(play, folder):
    config = play("04")
    assert current(config, folder) == ["01", "02", "03", "04"]


@pytest.mark.parametrize(
    ("overrides", "left"), [({"phase_1.epochs": 3}, ["01", "02", "03"]), ({"silence.threshold": 0.5}, ["01"])]
)
def test_other_settings_are_not_current(overrides, left, play, folder, data):
    play("04")
    assert current(configs.load("sample", {"data.dir": data, **overrides}), folder) == left


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_an_output_gone_or_cut_short_is_not_current(harm, play, folder):
    config = play("04")
    harm(folder / "models" / "phase_1_fold_0.keras")
    assert current(config, folder) == ["01", "02", "03"]


def test_changed_data_are_not_current(play, folder, data):
    config = play("03")
    (data / "train_audio" / "a" / "XC1.ogg").write_bytes(bytes(11))
    assert current(config, folder) == []


def test_a_stage_has_to_write_its_files(folder, data):
    run = runs.open_run("01_eda", "sample", folder, data)
    with pytest.raises(RunError, match=r"01_eda ends without writing tables/recordings\.parquet"):
        run.finish()
    assert current(run.config, folder) == []


def test_a_stage_writes_the_files_of_every_fold(play, folder):
    play("03", overrides={"folds": "0,1"})
    run = runs.open_run("04_phase_1", run_dir=folder)
    for name in ("models/phase_1_fold_0.keras", "history/phase_1_fold_0.csv", "history/phase_1_fold_1.csv"):
        run.path(name).write_text("x")
    missing = r"models/phase_1_fold_1\.keras, tables/validation_phase_1_fold_0\.parquet, .*metrics/04_phase_1\.json$"
    with pytest.raises(RunError, match=missing):
        run.finish()


# ---- parts of a stage that was interrupted


def test_a_part_is_there_after_an_interruption(play, folder):
    play("03")
    run = runs.open_run("04_phase_1", run_dir=folder)
    assert run.part("fold 0") is None
    run.keep_part("fold 0", {"val_accuracy": 0.5})
    run.keep_part("fold 1", {"val_accuracy": 0.25})
    runs.unlock(folder)
    again = runs.open_run("04_phase_1", run_dir=folder)
    assert again.part("fold 0") == {"val_accuracy": 0.5}
    assert again.part("fold 1") == {"val_accuracy": 0.25}
    assert again.part("fold 2") is None


def test_a_part_that_was_made_otherwise_does_not_count(play, folder):
    play("03")
    runs.open_run("04_phase_1", run_dir=folder).keep_part("fold 0", 1)
    other = runs.open_run("04_phase_1", run_dir=folder, overrides={"phase_1.epochs": 3})
    assert other.part("fold 0") is None
    other.keep_part("fold 1", 2)
    assert (other.part("fold 0"), other.part("fold 1")) == (None, 2)


@pytest.mark.parametrize("end", ["finish", "forget"])
def test_parts_go_when_the_stage_is_done_or_begins_anew(end, play, folder):
    play("03")
    run = runs.open_run("04_phase_1", run_dir=folder)
    run.keep_part("fold 0", 1)
    if end == "finish":
        for name in stages.files(run.stage.writes, run.config):
            run.path(name).write_text("x")
        run.finish()
    else:
        runs.forget_parts(folder, run.stage)
    assert run.part("fold 0") is None
    runs.forget_parts(folder, run.stage)  # where there are none


# ---- the lock


def python(code, *arguments, **named):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, **named
    )


@pytest.fixture
def holder(folder):
    """Another process that has the run folder."""
    process = python(HOLD, folder)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_has_the_folder(holder, folder, data):
    with pytest.raises(RunError, match=f"in use by process {holder.pid} .*04_phase_1"):
        runs.open_run("01_eda", "sample", folder, data)
    assert not (folder / "config.yaml").exists()


def test_a_killed_holder_lets_go(holder, folder, data):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(10)
    assert runs.open_run("01_eda", "sample", folder, data).dir == folder


def test_one_process_may_open_a_folder_twice(folder, data):
    runs.open_run("01_eda", "sample", folder, data)
    again = runs.open_run("01_eda", "sample", folder, data)
    other = python(TRY, folder, data)
    assert f"in use by process {os.getpid()} (01_eda)" in other.communicate()[0]
    assert other.returncode == 7
    again.path("tables/recordings.parquet").write_text("x")
    again.finish()  # lets go of it
    after = python(TRY, folder, data)
    assert after.wait(30) == 0


def test_what_the_series_starts_may_use_the_folder_it_holds(folder, data):
    runs.lock(folder, "birdlib run")
    try:
        child = python(TRY, folder, data, env=os.environ | {runs.LOCK_HELD: str(folder)})
        assert child.wait(30) == 0
        stranger = python(TRY, folder, data, env=os.environ | {runs.LOCK_HELD: str(folder) + "2"})
        assert stranger.wait(30) == 7
    finally:
        runs.unlock(folder)


@pytest.fixture(autouse=True)
def let_go(folder):
    yield
    runs.unlock(folder)


@pytest.mark.parametrize("below", ["run", "deep/run"])
def test_a_folder_that_cannot_be_made(below, tmp_path, data):
    (tmp_path / "file").write_text("a regular file")
    with pytest.raises(RunError, match="cannot be written") as caught:
        runs.open_run("01_eda", "sample", tmp_path / "file" / below, data)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)


def test_a_run_folder_that_is_a_file(tmp_path, data):
    path = Path(tmp_path / "file")
    path.write_text("a regular file")
    with pytest.raises(RunError, match="cannot be written"):
        runs.open_run("01_eda", "sample", path, data)


def test_a_disk_that_is_full_says_so(folder, data, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_json", full)
    with pytest.raises(RunError, match="No space left on device"):
        runs.open_run("01_eda", "sample", folder, data)
    monkeypatch.undo()
    assert python(TRY, folder, data).wait(30) == 0  # and the folder was let go of
