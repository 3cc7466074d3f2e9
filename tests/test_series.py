"""The series through papermill: six notebooks on a tiny data folder, run once for all the fast tests here."""

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import nbformat
import numpy as np
import pandas as pd
import pytest

from birdlib import batches, deadline, runs, series, stages, training
from birdlib import config as configs
from birdlib.sources import LazySource
from birdlib.stages import STAGES, RunError
from tests.conftest import TINY_BROKEN, TINY_LABELS

NAMES = [stage.name for stage in STAGES]
TABLES = ("recordings", "chunks", "splits")
TINY = {
    "chunks.length_s": 1,
    "chunks.overlap_s": 0.2,
    "chunks.tail_min_s": 0.2,
    "spectrogram.n_mels": 32,
    "batches.threshold": 4,
    "augmentation.where": "off",
    "splits.folds": 2,
    "model.hidden": "8",
    "phase_1.epochs": 1,
    "phase_1.batch_size": 8,
    "phase_2.epochs": 1,
    "phase_2.batch_size": 8,
    "compute.workers": 1,
    "compute.predict_batch_size": 16,
}


@pytest.fixture(scope="module")
def folder(tiny_data, tmp_path_factory):
    """A run folder in which the whole series has run; not to be changed."""
    return series.run("sample", tiny_data, tmp_path_factory.mktemp("series") / "run", TINY)


@pytest.fixture
def copy(folder, tmp_path):
    """Such a run folder to do with as one likes."""
    return Path(shutil.copytree(folder, tmp_path / "run"))


def executed(folder, name):
    return nbformat.read(folder / "notebooks" / f"{name}.ipynb", as_version=4)


def text_of(notebook):
    """All that a notebook's cells have put out, as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(
        "".join(output.get("text", "")) + "".join(output.get("data", {}).get(kind, "") for kind in KINDS)
        for output in outputs
    )


KINDS = ("text/plain", "text/html", "text/markdown")


def times(folder):
    """When each executed notebook was written."""
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "notebooks").glob("*.ipynb")}


def newer(before, after):
    return [name for name in NAMES if after[name] != before[name]]


# --- a whole run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_executed_to_its_end(folder, name):
    source = nbformat.read(stages.notebook(name), as_version=4)
    cells = [cell for cell in executed(folder, name).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    own = [cell.source for cell in cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    assert own == [cell.source for cell in source.cells if cell.cell_type == "code"]
    assert "What we saw" in text_of(executed(folder, name))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_shows_the_figures_it_keeps(folder, name):
    kept = [path for path in (folder / "figures").glob(f"{name[:2]}_*.png") if path.stat().st_size > 5000]
    assert kept
    shown = [
        output
        for cell in executed(folder, name).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(shown) >= len(kept)


def test_the_tables_are_there_and_agree(folder):
    table = {path.stem: pd.read_parquet(path) for path in (folder / "tables").glob("*.parquet")}
    assert {*TABLES, "predictions", "errors"} <= set(table)
    recordings = table["recordings"]
    assert len(recordings) == 24
    assert {"duration_s", "sample_rate_hz", "channels"} < set(recordings.columns)
    heard = set(recordings["filename"]) - {TINY_BROKEN}
    assert set(table["chunks"]["filename"]) == set(table["splits"]["filename"]) == heard
    assert set(table["predictions"]["filename"]) <= heard
    np.testing.assert_allclose(table["predictions"][list(TINY_LABELS)].sum(axis=1), 1, atol=1e-5)


def test_the_broken_file_is_in_the_errors_table_and_in_the_notebook(folder):
    errors = pd.read_parquet(folder / "tables" / "errors.parquet")
    assert errors.columns.tolist() == ["path", "stage", "reason"]
    (row,) = errors.itertuples(index=False)
    assert (row.path, row.stage) == (TINY_BROKEN, "01_eda")
    assert "not readable as audio" in row.reason
    text = text_of(executed(folder, "01_eda"))
    assert TINY_BROKEN in text
    assert "Files or rows set aside or repaired: 1" in text


def test_it_ends_with_a_report_on_all_of_it(folder):
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count('<td class="text">finished</td>') == len(NAMES)
    assert "not complete" not in page
    assert [path.stem for path in sorted((folder / "report" / "notebooks").glob("*.html"))] == NAMES
    figures = len(list((folder / "figures").glob("*.png")))
    assert page.count('<figure class="plot"') == figures > 20
    assert page.count("in the notebook</a>") == figures  # each is found in the notebook that drew it
    assert importlib.metadata.version("keras") in page


def test_metrics_are_those_of_the_predictions(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    predictions = pd.read_parquet(folder / "tables" / "predictions.parquet")
    predictions["predicted"] = predictions[list(TINY_LABELS)].idxmax(axis=1)
    right = (predictions["predicted"] == predictions["primary_label"]).groupby(predictions["split"]).mean()
    assert metrics["phase_2"]["val_accuracy"] == pytest.approx(right["validation"])
    assert metrics["phase_2"]["folds"] == {"0": metrics["phase_2"]["val_accuracy"]}
    assert 0 <= metrics["phase_1"]["val_accuracy"] <= 1
    test = metrics["test"]
    assert test["accuracy"] == pytest.approx(right["test"])
    assert test["times_chance"] == pytest.approx(4 * right["test"])
    held_out = predictions[predictions["split"] == "test"]
    means = held_out.groupby("filename")[list(TINY_LABELS)].mean()
    by_recording = means.idxmax(axis=1) == means.index.str.split("/").str[0]
    assert test["recording_accuracy"] == pytest.approx(by_recording.mean())
    assert 0 <= test["macro_roc_auc"] <= 1


def test_the_submission_has_a_row_for_every_window(folder):
    table = pd.read_csv(folder / "submission.csv")
    assert table.columns.tolist() == ["row_id", *TINY_LABELS]
    assert table["row_id"].tolist() == [f"soundscape_1_{end}" for end in range(1, 11)]  # ten seconds, a second each
    np.testing.assert_allclose(table[list(TINY_LABELS)].sum(axis=1), 1, atol=1e-5)


def test_the_settings_are_kept_whole(folder, tiny_data):
    config = configs.load(folder / "config.yaml")
    assert config == configs.load("sample", {**TINY, "data.dir": tiny_data})


# --- what runs again -------------------------------------------------------------------------------------------------


def test_a_second_call_runs_nothing_again(copy, capsys):
    before = times(copy)
    assert set(before) == set(NAMES)
    series.run(run_dir=copy)
    assert times(copy) == before
    said = "".join(capsys.readouterr())
    assert all(f"{name}: unchanged, not run again" in said for name in NAMES)


@pytest.mark.slow
def test_a_changed_setting_of_the_last_stage_runs_it_alone(copy, tiny_data):
    change = {"testing.near_threatened_is_endangered": True}
    with pytest.raises(RunError, match=r"06_testing has finished in .* with other settings of testing.*--from 06"):
        series.run(run_dir=copy, overrides=change)
    before = times(copy)
    endangered = json.loads((copy / "metrics.json").read_text())["test"]["endangered"]["positives"]
    series.run(run_dir=copy, overrides=change, first="06")
    assert newer(before, times(copy)) == ["06_testing"]
    # tinbir2, Near Threatened, now counts beside tinbir1.
    predictions = pd.read_parquet(copy / "tables" / "predictions.parquet")
    held_out = predictions.loc[predictions["split"] == "test", "primary_label"].value_counts()
    assert endangered == held_out["tinbir1"]
    after = json.loads((copy / "metrics.json").read_text())["test"]["endangered"]["positives"]
    assert after == held_out["tinbir1"] + held_out["tinbir2"]


@pytest.mark.slow
def test_a_soundscape_that_cannot_be_read_has_its_rows_in_the_submission(copy, tiny_data):
    heard, broken = pd.read_csv(copy / "submission.csv"), tiny_data / "test_soundscapes" / "soundscape_0.ogg"
    broken.write_bytes(b"no audio")
    try:
        series.run(run_dir=copy, first="06")
    finally:
        broken.unlink()
    table = pd.read_csv(copy / "submission.csv")
    assert table["row_id"].tolist() == [f"soundscape_{one}_{end}" for one in (0, 1) for end in range(1, 11)]
    np.testing.assert_allclose(table.iloc[10:, 1:], heard.iloc[:, 1:], atol=1e-5)
    split = pd.read_parquet(copy / "tables" / "splits.parquet")
    share = split.loc[split["split"] != "test", "primary_label"].value_counts(normalize=True)
    np.testing.assert_allclose(table.iloc[:10, 1:], np.tile(share[table.columns[1:]], (10, 1)), atol=1e-6)
    assert "10 rows are of soundscapes that cannot be read" in text_of(executed(copy, "06_testing"))


@pytest.mark.parametrize(
    ("overrides", "which", "named"),
    [
        ({"silence.threshold": 0.2}, {}, "02_chunking"),
        ({"phase_1.learning_rate": 0.1}, {}, "04_phase_1"),
        ({"phase_1.learning_rate": 0.1}, {"first": "05"}, "04_phase_1"),
        ({"seed": 1}, {"first": "03"}, "02_chunking"),
        ({"augmentation.strength": 0.7}, {"only": "03"}, "04_phase_1"),
    ],
)
def test_a_setting_that_a_finished_stage_has_read_is_refused(copy, overrides, which, named):
    settings, before = (copy / "config.yaml").read_bytes(), times(copy)
    with pytest.raises(RunError, match=f"{named} has finished"):
        series.run(run_dir=copy, overrides=overrides, **which)
    assert (copy / "config.yaml").read_bytes() == settings
    assert times(copy) == before


@pytest.mark.parametrize(("which", "dropped"), [({"only": "03"}, {"03"}), ({"first": "04"}, {"04", "05", "06"})])
def test_only_what_runs_again_loses_the_epochs_it_had_kept(copy, monkeypatch, which, dropped):
    kept = {one.name[:2]: copy / "stages" / f"{one.name}.epochs" for one in stages.STAGES}
    for path in kept.values():
        path.mkdir()
    monkeypatch.setattr(series, "_execute", lambda *of: None)
    series.run(run_dir=copy, **which)
    assert {number for number, path in kept.items() if not path.exists()} == dropped


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"testing.traits_file": "nowhere/traits.csv"}, "testing.traits_file: there is no file /.*nowhere/traits.csv"),
        (
            {"augmentation.background.dir": "nowhere", "augmentation.background.probability": 0.5},
            "augmentation.background.dir: there is no folder /.*nowhere",
        ),
    ],
)
def test_a_path_that_leads_nowhere_stops_before_anything_runs(tiny_data, tmp_path, monkeypatch, overrides, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=said):
        series.run("sample", tiny_data, tmp_path / "run", {**TINY, **overrides})
    assert not (tmp_path / "run" / "notebooks").exists()


def test_one_stage_alone_needs_what_it_reads(tmp_path, tiny_data):
    with pytest.raises(RunError, match=r"tables/recordings\.parquet: run the notebook 01_eda, which makes it, first"):
        series.run("sample", tiny_data, tmp_path / "run", TINY, only="04")
    assert not (tmp_path / "run" / "notebooks").exists()


# --- what goes wrong -------------------------------------------------------------------------------------------------


def stub(path, *cells):
    """A notebook of these code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path


def test_a_failing_notebook_stops_the_series_with_its_cell_and_error(tiny_data, tmp_path):
    data, run_dir = Path(shutil.copytree(tiny_data, tmp_path / "data")), tmp_path / "run"
    for path in (data / "train_audio" / TINY_LABELS[2]).iterdir():
        path.write_bytes(b"gone")
    with pytest.raises(series.SeriesError) as caught:
        series.run("sample", data, run_dir, TINY)
    saved = run_dir / "notebooks" / "01_eda.ipynb"
    message = str(caught.value)
    assert "\n" not in message
    assert re.match(r"01_eda stopped in cell \[\d+\]: MetadataError: 1 label\(s\) without any readable audio", message)
    assert TINY_LABELS[2] in message
    assert str(saved) in message
    # The cell that is named is the one that failed.
    number = int(re.search(r"\[(\d+)\]", message)[1])
    failed = [
        cell.execution_count
        for cell in executed(run_dir, "01_eda").cells
        if any(output.output_type == "error" for output in cell.get("outputs", []))
    ]
    assert number in failed
    page = (run_dir / "report" / "index.html").read_text(encoding="utf-8")
    assert "<code>01_eda</code>: stopped: MetadataError: 1 label(s) without any readable audio" in page
    # The later ones have not begun, and the folder is free again.
    assert [path.stem for path in (run_dir / "notebooks").glob("*.ipynb")] == ["01_eda"]
    assert runs.LOCK_HELD not in os.environ
    series_may_begin_again = runs.lock(run_dir, "test")
    runs.unlock(run_dir)
    assert series_may_begin_again


def test_a_kernel_that_dies_stops_the_series_and_says_where_its_last_words_are(tiny_data, tmp_path, monkeypatch):
    path = stub(tmp_path / "dying.ipynb", "print('alive')", "import os; os.write(2, b'the last words\\n'); os._exit(3)")
    monkeypatch.setattr(series, "notebook", lambda name: path)
    with pytest.raises(series.SeriesError, match=r"01_eda stopped: .*[Kk]ernel died.*01_eda\.log") as caught:
        series.run("sample", tiny_data, tmp_path / "run", TINY)
    assert "\n" not in str(caught.value)
    assert "the last words" in (tmp_path / "run" / "notebooks" / "01_eda.log").read_text()


# --- killed ----------------------------------------------------------------------------------------------------------


def of_the_run(folder):
    """Processes that the series on a folder has started, kernels and their workers: they inherit its lock."""
    held, found = f"{runs.LOCK_HELD}={folder}".encode(), []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if held in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def wait_for(condition, seconds):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


KILLS = (  # by what, and where the series then is
    (signal.SIGTERM, 143, "notebooks/02_chunking.log"),
    (signal.SIGINT, 130, "stages/04_phase_1.epochs"),
    (signal.SIGKILL, -9, "models/phase_2_fold_0.keras"),
    (signal.SIGTERM, 143, "notebooks/06_testing.log"),
)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found by /proc")
@pytest.mark.timeout(600)
def test_a_killed_series_leaves_no_process_and_goes_on(folder, tiny_data, tmp_path):
    """Killed in four places, and begun again after each, it ends as one left alone; what was done is not done again."""
    run_dir, done = tmp_path / "run", {}
    settings = [f"--set={key}={value}" for key, value in TINY.items()]
    # A shell may have left Ctrl-C switched off for what it runs in the background.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from birdlib.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "run", "--run-dir", str(run_dir)]
    command += ["--config", "sample", "--data-dir", str(tiny_data), *settings]
    for number, status, place in KILLS:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert wait_for((run_dir / place).exists, 200)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
        assert process.returncode == status, error
        assert number == signal.SIGKILL or error.splitlines()[-1].startswith("birdlib: stopped; the same command goes")
        assert wait_for(lambda: not of_the_run(run_dir), 15), "a kernel outlives the series"
        assert {name: at for name, at in done.items() if times(run_dir).get(name) != at} == {}
        config = configs.load(run_dir / "config.yaml")
        done = {one.name: times(run_dir)[one.name] for one in STAGES if runs.is_current(one, config, run_dir)}
    assert list(done) == NAMES[:5]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert {name: at for name, at in done.items() if times(run_dir).get(name) != at} == {}
    for path in (folder / "tables").iterdir():
        assert path.read_bytes() == (run_dir / "tables" / path.name).read_bytes(), path.name
    assert (folder / "submission.csv").read_bytes() == (run_dir / "submission.csv").read_bytes()
    assert not list(run_dir.rglob(".writing-*"))


# --- a notebook by itself --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_notebook_runs_alone_under_plain_papermill(copy, tmp_path):
    before = {name: (copy / "tables" / f"{name}.parquet").read_bytes() for name in TABLES}
    command = [sys.executable, "-m", "papermill", stages.notebook("02_chunking"), tmp_path / "out.ipynb"]
    done = subprocess.run([*command, "-p", "run_dir", copy], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "What we saw" in text_of(nbformat.read(tmp_path / "out.ipynb", as_version=4))
    assert {name: (copy / "tables" / f"{name}.parquet").read_bytes() for name in TABLES} == before
    # It has made the same again, so what follows from it still holds.
    config = configs.load(copy / "config.yaml")
    assert all(runs.is_current(stage, config, copy) for stage in STAGES)


# --- metadata alone --------------------------------------------------------------------------------------------------


@pytest.fixture
def as_large_as_2024(tmp_path):
    """A data folder without audio, of the size and shape of BirdCLEF 2024: what the paper counts is made to be so."""
    rng, rows = np.random.default_rng(0), 24_459
    labels = pd.read_csv(Path(stages.birdlib.__file__).parent / "traits.csv")["primary_label"].to_numpy()
    shares = np.geomspace(1, 0.01, 182) ** 1.2
    chosen = np.concatenate([labels, rng.choice(labels, rows - 182, p=shares / shares.sum())])
    kinds = [f"['kind {number}']" for number in range(918)]
    table = pd.DataFrame({"primary_label": chosen})
    table["filename"] = [f"{label}/XC{number}.ogg" for number, label in enumerate(chosen)]
    table["secondary_labels"] = ["['other1']"] * 1892 + ["[]"] * (rows - 1892)
    table["type"] = kinds + rng.choice(kinds, rows - 918).tolist()
    table["latitude"], table["longitude"] = rng.uniform(8, 20, rows), rng.uniform(73, 77, rows)
    table["common_name"] = table["scientific_name"] = "Bird " + table["primary_label"]
    table["author"], table["rating"] = rng.integers(0, 900, rows).astype(str), rng.choice([0, 2.5, 5], rows)
    table["license"], table["url"] = "CC", table["filename"]
    (tmp_path / "data").mkdir()
    table.to_csv(tmp_path / "data" / "train_metadata.csv", index=False)
    return tmp_path / "data"


@pytest.mark.slow
def test_metadata_of_the_papers_size_without_audio_are_told_with_the_papers_counts(as_large_as_2024, tmp_path):
    folder = series.run("paper", as_large_as_2024, tmp_path / "run", {"augmentation.where": "off"}, only="01")
    text = text_of(executed(folder, "01_eda"))
    assert "24,459 recordings of 182 species" in text
    assert "1,892 recordings name other species" in text
    assert re.search(r"type</th>\s*(<td[^>]*>[^<]*</td>\s*){2}<td[^>]*>918</td>", text)
    assert "There is no folder `train_audio`" in text
    assert "Files or rows set aside or repaired: 0" in text
    assert len(pd.read_parquet(folder / "tables" / "recordings.parquet")) == 24_459
    with pytest.raises(series.SeriesError, match=r"02_chunking.*without audio only the first notebook"):
        series.run(run_dir=folder, only="02")


@pytest.mark.slow
def test_a_real_years_metadata_are_told(shared, tmp_path):
    folder = series.run("paper", shared / "data" / "birdclef2023", tmp_path / "run", only="01")
    text = text_of(executed(folder, "01_eda"))
    assert "16,941 recordings of 264 species" in text
    assert "There is no folder `train_audio`" in text


@pytest.mark.slow
def test_other_years_columns_are_said(tiny_data, tmp_path):
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    table = pd.read_csv(data / "train_metadata.csv").drop(columns=["rating", "latitude"]).assign(time="07:30")
    table.to_csv(data / "train_metadata.csv", index=False)
    text = text_of(executed(series.run("sample", data, tmp_path / "run", TINY, only="01"), "01_eda"))
    assert text.count("not in this file") == 2
    assert "not known to birdlib" in text


# --- long ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Two run folders, each with the first two stages of the sample preset."""
    folders = [tmp_path_factory.mktemp("twice") / "run" for _ in range(2)]
    for folder in folders:
        for number in ("01", "02"):
            series.run("sample", run_dir=folder, only=number)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_two_runs_give_the_same_tables_byte_for_byte(twice, name):
    one, other = ((folder / "tables" / f"{name}.parquet").read_bytes() for folder in twice)
    assert one == other


@pytest.mark.slow
def test_two_runs_give_the_same_first_batches_byte_for_byte(twice):
    both = []
    for folder in twice:
        run = runs.Run(folder, configs.load(folder / "config.yaml"), stages.stage("04"))
        data = training.fold_data(run.read_table("chunks"), run.read_table("splits"), 0, run.config)
        source = LazySource(run.data_dir, run.config)
        both.append(batches.TrainingBatches(data.train, data.labels, source, run.config, run.config.phase_1.batch_size))
    one, other = both
    assert one.num_batches == other.num_batches > 3
    for index in range(one.num_batches):
        (left, left_targets), (right, right_targets) = one[index], other[index]
        assert left["audio"].tobytes() == right["audio"].tobytes()
        assert left["chance"].tobytes() == right["chance"].tobytes()
        assert left_targets.tobytes() == right_targets.tobytes()


@pytest.fixture(scope="module")
def sample_run(tmp_path_factory):
    """The sample preset from end to end, as `birdlib run` does it; minutes."""
    return series.run("sample", run_dir=tmp_path_factory.mktemp("sample") / "run")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_sample_is_learnt_and_the_network_beats_the_baseline(sample_run):
    test = json.loads((sample_run / "metrics.json").read_text())["test"]
    assert test["classes"] == 12
    assert test["times_chance"] >= 5
    assert test["macro_roc_auc"] >= 0.9
    assert test["baseline"]["accuracy"] < 0.7
    assert test["accuracy"] > test["baseline"]["accuracy"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_with_shuffled_labels_the_network_falls_to_chance(sample_run, tmp_path):
    data = Path(shutil.copytree(sample_run / "sample_data", tmp_path / "data"))
    (data / "synthetic.json").unlink()
    metadata = pd.read_csv(data / "train_metadata.csv")
    metadata["primary_label"] = np.random.default_rng(0).permutation(metadata["primary_label"])
    metadata.to_csv(data / "train_metadata.csv", index=False)
    shorter = {"phase_1.epochs": 8, "phase_2.epochs": 3}
    folder = series.run("sample", data, tmp_path / "run", shorter)
    test = json.loads((folder / "metrics.json").read_text())["test"]
    # Chance is 1/12 with a standard error of 0.03 for the hundred chunks of the test; but its chunks come in
    # recordings, and a guess of the commonest species is right in a sixth of them.
    assert test["accuracy"] < 0.25
    assert abs(test["macro_roc_auc"] - 0.5) < 0.2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pretrained_backbone_is_frozen_compared_and_fine_tuned_over_folds(tiny_data, tmp_path):
    body = keras.applications.MobileNet(include_top=False, input_shape=(32, 64, 3), weights=None)
    body.save_weights(tmp_path / "mobilenet.weights.h5")
    model = {"model.backbone": "mobilenet", "model.weights": str(tmp_path / "mobilenet.weights.h5"), "folds": "0,1"}
    compared = {"comparison.models": "custom_cnn,from_scratch", "comparison.epochs": 1}
    folder = series.run("sample", tiny_data, tmp_path / "run", {**TINY, **model, **compared})
    text = text_of(executed(folder, "04_phase_1"))
    assert "its 3,228,864 parameters are frozen" in text
    assert "the whole backbone; only the head was trained" in text
    assert {path.name for path in (folder / "history").glob("phase_1_*")} == {
        *("phase_1_fold_0.csv", "phase_1_fold_1.csv", "phase_1_custom_cnn.csv", "phase_1_from_scratch.csv"),
    }
    assert (folder / "figures" / "04_comparison.png").exists()
    assert (folder / "figures" / "05_folds.png").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    # Fine-tuned, all is trained but the statistics of batch normalisation and the whole of the backbone's.
    assert metrics["phase_1"]["parameters"]["frozen"] > 3_228_864
    assert set(metrics["test"]["folds"]) == {"0", "1"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_same_runs_on_real_recordings(xc10, tmp_path):
    short = {"phase_1.epochs": 2, "phase_2.epochs": 1}
    folder = series.run("sample", xc10, tmp_path / "run", short)
    test = json.loads((folder / "metrics.json").read_text())["test"]
    assert test["classes"] == 10
    assert test["recordings"] >= 10
    assert test["on"] == ""
    submission = pd.read_csv(folder / "submission.csv")
    assert len(submission) == 0
    assert submission.shape[1] == 11
    assert "There are no soundscapes in this data folder" in text_of(executed(folder, "06_testing"))


def test_the_series_ends_where_it_is_told_to_and_tells_each_stage_its_time(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv(deadline.TRAINING_ENDS, "")
    ran = []

    def execute(one, folder, bar):
        ran.append((one.name, deadline.end()))

    monkeypatch.setattr(series, "_execute", execute)
    ends = time.time() + 1000
    series.run("sample", tiny_data, tmp_path / "run", last="05", training_ends=ends)
    assert [name for name, _ in ran] == NAMES[:5]
    until = dict(ran)
    assert time.time() < until["04_phase_1"] < until["05_phase_2"] == round(ends)
    assert deadline.end() is None
