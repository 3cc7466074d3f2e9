"""Predicting from an exported folder: the model is a few lines of OpenVINO, worked out again here in numpy."""

import csv
import errno
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from birdlib import asked, audio, classifier, cli, exported, formats, hearing, predicting, soundscapes, spectrogram
from birdlib import config as configs
from birdlib.detections import Choice
from birdlib.kept import PredictError
from birdlib.predicting import Options
from tests.conftest import noise, save, save_export, tone

pytest.importorskip("openvino", reason="birdlib[runtime] is not installed")

CONFIG = configs.load("paper", {"chunks.length_s": 1, "chunks.overlap_s": 0.2, "compute.predict_batch_size": 4})
LABELS = ["lowbir1", "midbir1", "nan"]  # a code that reads as a missing value
WEIGHTS = np.zeros((128, 3), np.float32)
for place, bands in enumerate((slice(0, 43), slice(43, 86), slice(86, 128))):
    WEIGHTS[bands, place] = 1 / (bands.stop - bands.start)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported folder whose probability of a class is how bright its third of the bands is."""
    folder = save_export(tmp_path_factory.mktemp("model"), CONFIG, LABELS)
    table = pd.read_csv(folder / "species.csv", keep_default_na=False)
    table = table.assign(common_name=["Low Bird", "Mid\tBird", "High Bird"], share=[0.5, 0.3, 0.2])
    table.assign(scientific_name=["Avis ima", "Avis media", "Avis summa"]).to_csv(folder / "species.csv", index=False)
    return folder


def said(samples):
    """The model's word on a window, in numpy."""
    return spectrogram.image(samples, CONFIG)[..., 0].mean(axis=1) / 255 @ WEIGHTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three recordings, one of them in a folder inside; do not write into it."""
    top = tmp_path_factory.mktemp("data") / "audio"
    save(top / "20240501_053000.wav", np.concatenate([tone(2, 300), tone(1.5, 9000), noise(0.75)]))
    save(top / "night" / "b.flac", np.stack([noise(2.2, 1, 0.1, 48_000), tone(2.2, 2500, 0.2, 48_000)], 1), 48_000)
    save(top / "c.ogg", tone(0.4, 9000))
    (top / "._c.ogg").write_bytes(b"what macOS leaves beside it")
    return top


@pytest.fixture(scope="module")
def done(folder, model, tmp_path_factory):
    """What was heard in them once; what follows from that needs no other process."""
    out = tmp_path_factory.mktemp("done") / "out"
    return out, heard(folder, model, out)


@pytest.fixture
def out(done, tmp_path):
    """A copy of it, to write another format into."""
    return shutil.copytree(done[0], tmp_path / "out")


def heard(folder, model, out, step=None, options=None, paths=None, **settings):
    config = predicting.together([model], ({"step_s": step} if step else {}) | settings)
    return predicting.predict(paths or [folder], [model], out, config, options or Options(workers=1))


def kept(out, name):
    return pd.read_parquet(out / "rows" / f"{name}.parquet")


def by_loop(path, step=32_000):
    """Rows of one second: every window that overlaps one, weighted by the samples that they share."""
    samples, length = audio.to_int16(audio.read(path, 32_000)), 32_000
    starts = [0]
    while starts[-1] + length + 3_200 < len(samples):  # a rest under 0.1 s is no window of its own
        starts.append(starts[-1] + step)
    windows = [said(np.pad(samples[at : at + length], (0, max(0, at + length - len(samples))))) for at in starts]
    rows = []
    for row in range(0, len(samples), length):
        shared = [max(0, min(at, row) + length - max(at, row)) for at in starts]
        rows.append(sum(one * weight for one, weight in zip(windows, shared, strict=True)) / sum(shared))
    return np.array(rows)


ROWS = {"20240501_053000.wav": 5, "night/b.flac": 3, "c.ogg": 1}


def test_rows_are_what_a_loop_gives(folder, done):
    out, summary = done
    assert (summary.heard, summary.kept, summary.failed) == (3, 0, {})
    for name, rows in ROWS.items():
        found = kept(out, name)
        assert (list(found.columns), len(found)) == (LABELS, rows)
        np.testing.assert_allclose(found, by_loop(folder / name), atol=1e-4)
    assert list(pd.read_csv(out / "errors.csv").columns) == ["path", "reason"]


def test_a_bad_file_costs_itself_and_is_listed(folder, model, out, tmp_path):
    more = shutil.copytree(folder, tmp_path / "audio")
    (more / "broken.wav").write_bytes(b"no audio")
    (more / "empty.wav").write_bytes((more / "20240501_053000.wav").read_bytes()[:44])
    summary = heard(more, model, out)
    assert (summary.heard, summary.kept, sorted(summary.failed)) == (0, 3, ["broken.wav", "empty.wav"])
    errors = pd.read_csv(out / "errors.csv", index_col="path")["reason"]
    assert errors["broken.wav"].startswith("not readable as audio")
    assert errors["empty.wav"] == "holds no samples"
    assert len(pd.read_csv(summary.written)) > 0


@pytest.mark.parametrize("step", [0.5, 0.375])
def test_overlapping_windows_are_what_a_loop_gives(folder, model, step):
    config = predicting.together([model], {"step_s": step})
    for name in ROWS:
        found = soundscapes.hear(folder / name, classifier.load(model), config)
        np.testing.assert_allclose(found.values, by_loop(folder / name, round(step * 32_000)), atol=1e-4)


def test_the_same_whatever_the_batch_and_the_workers(folder, model, done, tmp_path):
    other = configs.override(CONFIG, {"compute.predict_batch_size": 1})
    predicting.predict([folder], [model], tmp_path / "other", other, Options(workers=3))
    for name in ROWS:
        pd.testing.assert_frame_equal(kept(done[0], name), kept(tmp_path / "other", name), check_exact=True)


def test_smoothing_by_hand(folder, model, done):
    config = predicting.together([model], {"neighbours": 0.25, "file_mean": 0.5})
    found = soundscapes.hear(folder / "night/b.flac", classifier.load(model), config)
    rows = kept(done[0], "night/b.flac").to_numpy()
    drawn = np.array([0.75 * rows[0] + 0.25 * rows[1], rows.T @ [0.25, 0.5, 0.25], 0.75 * rows[2] + 0.25 * rows[1]])
    np.testing.assert_allclose(found.values, 0.5 * drawn + 0.5 * drawn.mean(axis=0), atol=1e-6)


def test_embeddings_are_kept_where_asked_for(folder, model, tmp_path):
    heard(folder, model, tmp_path / "out", options=Options(workers=1, embeddings=True))
    found = pd.read_parquet(tmp_path / "out/embeddings/c.ogg.parquet")
    window = np.pad(audio.to_int16(audio.read(folder / "c.ogg", 32_000)), (0, 32_000 - 12_800))
    expected = spectrogram.image(window, CONFIG)[..., 0].mean(axis=1) / 255
    assert found["start_s"].tolist() == [0]
    np.testing.assert_allclose(found.drop(columns="start_s").to_numpy()[0], expected, atol=1e-4)


# ---- the formats, read back by others


def test_the_table(folder, model, out):
    summary = heard(folder, model, out, options=Options(choice=Choice(0.3), workers=1))
    with open(summary.written, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["filename"] == "20240501_053000.wav"]
    values = by_loop(folder / "20240501_053000.wav")
    assert {row["primary_label"] for row in rows} == {
        LABELS[place] for place in np.flatnonzero(values.max(axis=0) >= 0.3)
    }
    first = (rows[0]["start_s"], rows[0]["primary_label"], rows[0]["begins_at"])
    assert first == ("3", "lowbir1", "2024-05-01 05:30:03.000")
    assert (rows[0]["end_s"], rows[0]["common_name"]) == ("4", "Low Bird")
    assert max(float(row["confidence"]) for row in rows) == pytest.approx(values.max(), abs=1e-4)


def test_the_table_as_parquet(folder, model, out):
    import pyarrow.parquet

    csv_file = heard(folder, model, out, options=Options(choice=Choice(0.3), workers=1)).written
    options = Options(choice=Choice(0.3), workers=1, parquet=True)
    table = pyarrow.parquet.read_table(heard(folder, model, out, options=options).written)
    assert table.num_rows == len(pd.read_csv(csv_file)) > 3
    assert str(table.schema.field("begins_at").type) == "timestamp[ms]"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("at_once", [1, 5, 1000])
def test_a_table_is_the_same_in_however_many_pieces_it_is_written(tmp_path, suffix, at_once):
    moments = pd.to_datetime(["2024-05-01 00:00:00.000", "2024-05-01 05:30:03.250", None]).astype("datetime64[ms]")
    columns = {"filename": 'a, "b".wav', "start_s": [0.0, 5.0, 10.0], "end_s": 15.0, "primary_label": "bird"}
    columns |= {"common_name": "Vögel\nbird", "scientific_name": "Avis avis", "confidence": 0.123456789}
    one = pd.DataFrame({**columns, "begins_at": moments})
    tables = [one.iloc[:0], one, one.iloc[:1], one.iloc[:0], one]
    path = tmp_path / f"table{suffix}"
    formats.write_table(iter(tables), path, at_once)
    found = pd.read_csv(path, parse_dates=["begins_at"]) if suffix == ".csv" else pd.read_parquet(path)
    expected = pd.concat([one, one.iloc[:1], one], ignore_index=True)
    found["begins_at"] = found["begins_at"].astype("datetime64[ms]")
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-5)
    formats.write_table([], path)
    empty = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    assert (len(empty), list(empty)) == (0, list(expected))


def test_times_of_a_long_recording_are_written_to_the_millisecond(tmp_path):
    at = [0.0, 0.3, 12.34567, 43_199.987, 100_002.5, 31_536_000.125]
    columns = {"filename": "a.wav", "start_s": at, "end_s": at, "primary_label": "bird", "common_name": "Bird"}
    columns |= {"scientific_name": "Avis avis", "confidence": 0.123456789, "begins_at": pd.NaT}
    formats.write_table([pd.DataFrame(columns)], tmp_path / "table.csv")
    found = pd.read_csv(tmp_path / "table.csv", dtype=str)
    assert found["start_s"].tolist() == ["0", "0.3", "12.346", "43199.987", "100002.5", "31536000.125"]
    assert found["end_s"].tolist() == found["start_s"].tolist()
    assert set(found["confidence"]) == {"0.123457"}


def test_raven_selections(folder, model, out):
    heard(folder, model, out, options=Options("raven", Choice(0.3), workers=1))
    with open(out / "raven/20240501_053000.wav.selections.txt", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    # Raven's own columns (Raven Pro 1.6 user's manual, selection tables): without these it does not open the file.
    assert list(rows[0])[:5] == ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)"]
    assert [int(row["Selection"]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(float(row["Begin Time (s)"]) < float(row["End Time (s)"]) <= 4.25 for row in rows)
    assert all(float(row["Low Freq (Hz)"]) < float(row["High Freq (Hz)"]) for row in rows)
    assert {row["Begin File"] for row in rows} == {"20240501_053000.wav"}
    assert rows[0]["Begin Date Time"] == "2024-05-01 05:30:03.000"
    assert (out / "raven/night/b.flac.selections.txt").exists()


def test_audacity_labels(folder, model, out):
    heard(folder, model, out, options=Options("audacity", Choice(0.3), workers=1))
    lines = (out / "audacity/20240501_053000.wav.txt").read_text().splitlines()
    cells = [line.split("\t") for line in lines]
    assert all(len(cell) == 3 and float(cell[0]) < float(cell[1]) for cell in cells)  # a tab in a name would break it
    assert cells[0][2].startswith("Low Bird 0.")


def test_a_submission(folder, model, out, tmp_path):
    pd.DataFrame(columns=["row_id", "nan", "zebra1", "lowbir1"]).to_csv(tmp_path / "mine.csv", index=False)
    summary = heard(folder, model, out, options=Options("submission", workers=1, sample=tmp_path / "mine.csv"))
    assert (summary.unknown, summary.filled) == (["zebra1"], 0)
    table = pd.read_csv(summary.written, keep_default_na=False)
    assert list(table.columns) == ["row_id", "nan", "zebra1", "lowbir1"]
    assert table["row_id"].iloc[:2].tolist() == ["soundscape_20240501_053000_1", "soundscape_20240501_053000_2"]
    assert len(table) == 9
    found = kept(out, "c.ogg")
    assert table.set_index("row_id").loc["soundscape_c_1", "lowbir1"] == pytest.approx(found["lowbir1"].iloc[0])
    assert not table["zebra1"].any()


def test_a_submission_whose_rows_are_called_as_the_files(folder, model, out, tmp_path):
    sample = tmp_path / "sample.csv"
    pd.DataFrame({"row_id": ["BC2026_Test_0001_5"], "lowbir1": [0.5]}).to_csv(sample, index=False)
    table = pd.read_csv(heard(folder, model, out, options=Options("submission", workers=1, sample=sample)).written)
    assert table["row_id"].str.rsplit("_", n=1).str[0].unique().tolist() == ["20240501_053000", "c", "b"]
    for name in ("x", "soundscape_x"):
        save(tmp_path / f"in/{name}.wav", noise(1))
    found = asked.recordings([tmp_path / "in"], CONFIG)
    assert asked.wanted(sample, [], found, LABELS)[0] == (["lowbir1"], "")  # what would be the same with a prefix
    with pytest.raises(PredictError, match="would have the same rows"):
        asked.wanted(None, [tmp_path / "in"], found, LABELS)


def test_what_the_budget_does_not_reach_is_filled_with_priors(folder, model, tmp_path):
    summary = heard(folder, model, tmp_path / "out", options=Options("submission", workers=1, budget_minutes=0))
    assert (summary.heard, len(summary.unreached), summary.filled) == (0, 3, 9)
    table = pd.read_csv(summary.written, keep_default_na=False)
    assert len(table) == 9
    np.testing.assert_allclose(table[LABELS], [[0.5, 0.3, 0.2]] * 9, atol=1e-6)
    assert any("9 rows are filled with class priors" in line for line in summary.lines())


def test_the_budget_holds_in_the_middle_of_a_recording(folder, model, tmp_path):
    """One that takes minutes is given up; what was heard beside it is kept, and the rest gets priors."""
    audio_folder = shutil.copytree(folder, tmp_path / "audio")
    save(audio_folder / "long.wav", noise(2.0, rate_hz=1_000).repeat(9_000), 1_000, "PCM_U8")  # five hours
    begun, budget_s = time.monotonic(), 20.0
    options = Options("submission", workers=2, budget_minutes=budget_s / 60)
    summary = heard(audio_folder, model, tmp_path / "out", options=options)
    assert budget_s <= time.monotonic() - begun < budget_s + 15
    assert "long.wav" in summary.unreached
    assert summary.heard + len(summary.unreached) == 4
    assert not multiprocessing.active_children()
    assert summary.filled >= 18_000
    assert len(pd.read_csv(summary.written)) == 18_000 + 9


@pytest.mark.parametrize("budget_minutes", [0, None], ids=["nothing is heard", "all is heard"])
def test_a_header_that_kills_what_reads_it_costs_no_prediction(folder, model, tmp_path, monkeypatch, budget_minutes):
    here, info = os.getpid(), audio.info

    def deadly(path):
        assert os.getpid() != here
        if path.name == "c.ogg":
            os.kill(os.getpid(), signal.SIGSEGV)
        return info(path)

    monkeypatch.setattr(audio, "info", deadly)
    options = Options("submission", workers=1, budget_minutes=budget_minutes)
    summary = heard(folder, model, tmp_path / "out", options=options)
    assert (summary.heard, summary.failed) == (0 if budget_minutes == 0 else 3, {})
    rows = pd.read_csv(summary.written)["row_id"]
    assert rows.str.startswith("soundscape_b_").sum() == 3
    # As long as the median of the others, 3.225 s, where it is not heard.
    assert rows.str.startswith("soundscape_c_").sum() == (4 if budget_minutes == 0 else 1)


@pytest.mark.parametrize(
    ("models", "step_s", "least_s", "limit_s"),
    [
        ([("openvino", 1)], None, 2, 4.25),  # as long as the longest lasts
        ([("openvino", 1)], None, 120, 120),
        ([("openvino", 4)], 0.25, 2, 4.25 * 4 * 4),
        ([("keras", 4), ("onnx", 1)], 0.5, 120, 120 * (4 * 5 + 1) * 2),
    ],
)
def test_the_time_that_a_recording_may_take_grows_with_the_work(
    folder, model, tmp_path, monkeypatch, models, step_s, least_s, limit_s
):
    """Recordings of up to 4.25 s, in chunks of 1 s."""
    limits = []

    def noted(work, items, time_limit_s, *_, **__):
        limits.append(time_limit_s)
        return ((one, work(one)) for one in items if work is audio.info)

    monkeypatch.setattr(hearing, "map_files", noted)
    one = exported.read(model)
    opened = [one._replace(about={**one.about, "format": kind, "models": ["x"] * count}) for kind, count in models]
    config = configs.override(CONFIG, {"compute.file_time_limit_s": least_s, "soundscapes.step_s": step_s})
    job = hearing.Job((model,), "auto", config, False)
    hearing.hear_all(job, asked.recordings([folder], config), tmp_path, opened, math.inf, 1, None)
    assert limits[-1] == pytest.approx(limit_s)


def test_what_is_heard_is_kept_recording_by_recording(model, tmp_path, monkeypatch):
    """All else breaks when the first is kept: what was on its way by then is all that may still be heard."""
    paths = [save(tmp_path / "audio" / f"{number:02d}.wav", noise(1, number)) for number in range(64)]
    keep = predicting.kept.keep

    def keep_and_break(out, recording, *others):
        keep(out, recording, *others)
        for path in set(paths):
            path.write_bytes(b"no audio")
        paths.clear()

    monkeypatch.setattr(predicting.kept, "keep", keep_and_break)
    summary = heard(tmp_path / "audio", model, tmp_path / "out")
    assert 1 <= summary.heard <= 4
    assert summary.heard + len(summary.failed) == 64


def test_the_sample_beside_the_recordings_is_found_from_where_they_are(folder, model, out, monkeypatch):
    beside = folder.parent / "sample_submission.csv"
    pd.DataFrame(columns=["midbir1", "row_id"]).to_csv(beside, index=False)
    try:
        monkeypatch.chdir(folder)
        summary = heard(folder, model, out, options=Options("submission", workers=1), paths=[Path()])
    finally:
        beside.unlink()
    assert list(pd.read_csv(summary.written)) == ["row_id", "midbir1"]
    assert f"the columns are those of {beside}" in summary.lines()
    summary = heard(folder, model, out, options=Options("submission", workers=1))
    assert any("no sample_submission.csv was found" in line for line in summary.lines())
    assert list(pd.read_csv(summary.written)) == ["row_id", *LABELS]


@pytest.mark.parametrize("content", [None, b"", b"id,a\n"])
def test_a_sample_that_does_not_do_is_said_before_anything_is_heard(folder, model, tmp_path, content):
    sample = tmp_path / "sample.csv"
    if content is not None:
        sample.write_bytes(content)
    with pytest.raises(PredictError, match=r"sample\.csv (is not readable as CSV|lacks the column row_id)"):
        heard(folder, model, tmp_path / "out", options=Options("submission", workers=1, sample=sample))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [("a/x.wav", "b/x.wav"), ("x.wav", "x.ogg"), ("x.wav", "soundscape_x.wav")])
def test_recordings_whose_rows_would_be_called_the_same_are_no_submission(model, tmp_path, names):
    for number, name in enumerate(names):
        save(tmp_path / "audio" / name, noise(1, number))
    with pytest.raises(PredictError, match="would have the same rows") as error:
        heard(tmp_path / "audio", model, tmp_path / "out", options=Options("submission", workers=1))
    assert all(str(tmp_path / "audio" / name) in str(error.value) for name in names)
    assert not (tmp_path / "out").exists()
    assert len(asked.recordings([tmp_path / "audio"], CONFIG)) == 2  # which any other format takes


@pytest.mark.parametrize("budget_minutes", [None, 0], ids=["broken", "not reached"])
def test_a_recording_that_is_not_heard_again_keeps_no_labels(folder, model, out, tmp_path, budget_minutes):
    changing = shutil.copytree(folder, tmp_path / "audio")
    for format in ("raven", "audacity"):
        heard(changing, model, out, options=Options(format, workers=1))
    places = [out / "raven/night/b.flac.selections.txt", out / "audacity/night/b.flac.txt"]
    assert all(path.exists() for path in places)
    (changing / "night/b.flac").write_bytes(b"no audio")
    summary = heard(changing, model, out, options=Options("raven", workers=1, budget_minutes=budget_minutes))
    assert [*summary.failed, *summary.unreached] == ["night/b.flac"]
    assert not any(path.exists() for path in places)
    assert (out / "raven/c.ogg.selections.txt").exists()
    assert (out / "audacity/c.ogg.txt").exists()


# ---- going on


def test_recordings_of_one_name_and_one_size_are_told_apart(model, tmp_path):
    """As AudioMoths on one schedule write them, one at each site; the last kept is the last heard."""
    for site, hz in (("a", 300), ("b", 9000)):
        save(tmp_path / site / "20240501_053000.wav", tone(4, hz), subtype="PCM_16")
    names = [tmp_path / site / "20240501_053000.wav" for site in "ab"]
    assert names[0].stat().st_size == names[1].stat().st_size
    out, options = tmp_path / "out", Options(workers=1, embeddings=True)
    for path in (*names, names[0]):
        summary = heard(path.parent, model, out, options=options)
        assert (summary.heard, summary.kept) == (1, 0)
        np.testing.assert_allclose(kept(out, path.name), by_loop(path), atol=1e-4)
    assert heard(tmp_path / "a", model, out, options=options)[1:3] == (0, 1)
    heard(tmp_path / "b", model, out)  # without embeddings: those that are there are of another recording
    assert heard(tmp_path / "b", model, out, options=options).heard == 1


def test_what_a_version_without_stamps_has_kept_is_heard_again(folder, model, out):
    import pyarrow.parquet

    path = out / "rows/c.ogg.parquet"
    table = pyarrow.parquet.read_table(path)
    about = {"duration_s": "0.4", "bytes": str((folder / "c.ogg").stat().st_size)}
    pyarrow.parquet.write_table(table.replace_schema_metadata(about), path)
    assert heard(folder, model, out)[1:3] == (1, 2)


def test_another_format_hears_nothing_again(folder, model, out):
    summary = heard(folder, model, out, options=Options("raven", workers=1))
    assert (summary.heard, summary.kept, list(summary.failed)) == (0, 3, [])


def test_a_recording_that_has_changed_is_heard_again(folder, model, out, tmp_path):
    changed = shutil.copytree(folder, tmp_path / "audio")
    save(changed / "c.ogg", tone(1.4, 300))
    assert heard(changed, model, out)[1:3] == (1, 2)
    assert len(kept(out, "c.ogg")) == 2


@pytest.mark.slow
def test_a_killed_prediction_goes_on_by_file(model, tmp_path):
    for number in range(40):
        save(tmp_path / "audio" / f"{number:02d}.wav", noise(20.0, number))
    code = "from birdlib.cli import main; main()"
    arguments = ["predict", tmp_path / "audio", "--model", model, "--out", tmp_path / "out", "--workers", "1"]
    stopped = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while len(list((tmp_path / "out").rglob("rows/*.parquet"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(stopped.pid, signal.SIGINT)
    error = stopped.communicate(timeout=60)[1]
    before = len(list((tmp_path / "out" / "rows").glob("*.parquet")))
    if stopped.returncode == 0:
        pytest.skip("it was done before it could be stopped")
    assert "stopped; the same command goes on" in error
    assert stopped.returncode == 130
    summary = heard(tmp_path / "audio", model, tmp_path / "out")
    assert (summary.kept, summary.heard) == (before, 40 - before)


@pytest.mark.slow
def test_killed_again_and_again_it_says_the_same_in_the_end(model, tmp_path):
    """SIGKILL, to the workers too: what is kept is whole, and what was being written is written anew."""
    for number in range(24):
        save(tmp_path / "audio" / f"{number:02d}.wav", noise(20.0, number))
    out, code = tmp_path / "out", "from birdlib.cli import main; main()"
    arguments = ["predict", tmp_path / "audio", "--model", model, "--out", out, "--workers", "2"]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    for more in (1, 3, 2):
        stopped, wanted = subprocess.Popen(command, start_new_session=True), len(rows_in(out)) + more
        while len(rows_in(out)) < wanted and stopped.poll() is None:
            time.sleep(0.01)
        os.killpg(stopped.pid, signal.SIGKILL)
        assert stopped.wait() == -signal.SIGKILL, "it was done before it could be killed"
    before = len(rows_in(out))
    summary = heard(tmp_path / "audio", model, out)
    assert (summary.kept, summary.heard, summary.failed) == (before, 24 - before, {})
    heard(tmp_path / "audio", model, tmp_path / "undisturbed")
    assert [path.name for path in out.rglob(".*")] == [".lock"]
    assert (out / "table.csv").read_bytes() == (tmp_path / "undisturbed/table.csv").read_bytes()
    for name in (f"{number:02d}.wav" for number in range(24)):
        pd.testing.assert_frame_equal(kept(out, name), kept(tmp_path / "undisturbed", name), check_exact=True)


def rows_in(out):
    return list((out / "rows").glob("[0-9]*.parquet"))


# ---- odd names


NAMES = ["n" * 251 + ".wav", "\N{CJK UNIFIED IDEOGRAPH-9CE5}" * 83 + "x.wav", "two\nlines.wav"]
ODD = [os.fsdecode(b"caf\xe9.wav"), os.fsdecode(b"nuit\xff/" + b"d" * 251 + b".wav")]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Recordings whose names are as long as can be, or no UTF-8; one that is no audio."""
    top = tmp_path_factory.mktemp("odd") / "audio"
    for name in (*NAMES, *ODD):
        place = top / name
        place.parent.mkdir(parents=True, exist_ok=True)
        save(top / "x.wav", tone(1, 300 + 10 * len(name))).rename(place)
    (top / os.fsdecode(b"bad\xe8\x1b[31m.wav")).write_bytes(b"no audio")
    return top


@pytest.mark.parametrize("format", predicting.FORMATS)
def test_odd_names_are_heard_and_written_as_text(odd, model, tmp_path, format):
    assert {len(os.fsencode(name)) for name in NAMES[:2]} == {255, 254}
    options = Options(format, Choice(0.0), workers=1, embeddings=True)
    summary = heard(odd, model, tmp_path / "out", options=options)
    assert (summary.heard, summary.kept, len(summary.failed)) == (5, 0, 1)
    assert any(line.startswith("bad\\xe8\\x1b[31m.wav: not readable as audio") for line in summary.lines())
    assert all(line.isprintable() for line in summary.lines())
    assert pd.read_csv(tmp_path / "out/errors.csv")["path"].tolist() == ["bad\\xe8\x1b[31m.wav"]
    assert len(list((tmp_path / "out/rows").rglob("*.parquet"))) == 5  # none has taken another's place
    if format in ("raven", "audacity"):
        written = [path.read_text(encoding="utf-8") for path in summary.written.rglob("*.txt")]
        assert len(written) == 5
        assert all(written)
    else:
        table = pd.read_csv(summary.written)
        rows = table.iloc[:, 0].str.removeprefix("soundscape_")
        names = ["n" * 200, "\N{CJK UNIFIED IDEOGRAPH-9CE5}" * 83, "caf\\xe9"]
        assert [name for name in names if not rows.str.startswith(name).any()] == []
        assert rows.nunique() >= 5
    assert heard(odd, model, tmp_path / "out", options=options)[1:3] == (0, 5)


def test_a_linked_folder_is_heard_and_a_link_to_nowhere_is_named(folder, model, tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "site").symlink_to(folder)
    (tmp_path / "audio" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    summary = heard(tmp_path / "audio", model, tmp_path / "out")
    assert summary.failed == {"gone.wav": "no such file"}
    assert summary.heard == 3
    np.testing.assert_allclose(kept(tmp_path / "out", "site/night/b.flac"), by_loop(folder / "night/b.flac"), atol=1e-4)


# ---- a model that cannot be loaded


def broken(model, folder, how):
    shutil.copytree(model, folder)
    if how == "cut short":
        weights = folder / "model_0.bin"
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "garbage":
        (folder / "model_0.xml").write_text("no model")
    return folder


@pytest.mark.parametrize(("how", "format"), [("cut short", "submission"), ("garbage", "table")])
def test_a_model_that_cannot_be_loaded_is_one_error(folder, model, tmp_path, how, format):
    bad, out = broken(model, tmp_path / "bad", how), tmp_path / "out"
    with pytest.raises(PredictError, match=f"{bad} cannot be loaded .*: copy the whole folder again"):
        heard(folder, bad, out, options=Options(format, workers=2))
    assert sorted(path.name for path in out.iterdir()) == [".lock", "predict.json"]
    assert heard(folder, model, out, options=Options(format, workers=1)).heard == 3


def test_weights_that_are_missing(model, tmp_path):
    (broken(model, tmp_path / "bad", "not") / "model_0.bin").unlink()
    with pytest.raises(exported.ExportError, match=r"lacks model_0\.bin: copy the whole folder, or export again"):
        exported.read(tmp_path / "bad")


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_export(model, tmp_path, content):
    (broken(model, tmp_path / "bad", "not") / "export.json").write_text(content)
    with pytest.raises(exported.ExportError, match=r"bad is damaged .*copy the whole folder, or export again"):
        exported.read(tmp_path / "bad")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", "seed: ["),
        ("config.yaml", "nothing: 1"),
        ("species.csv", ""),
        ("species.csv", "primary_label,sh"),
        ("species.csv", "primary_label,share\na,much\n"),
        ("export.json", '{"models": [1]}'),
    ],
)
def test_a_damaged_file_of_an_export(model, tmp_path, name, content):
    (broken(model, tmp_path / "bad", "not") / name).write_text(content)
    with pytest.raises(exported.ExportError, match=r"bad is damaged .*copy the whole folder, or export again"):
        exported.read(tmp_path / "bad")


@pytest.mark.parametrize("good", [False, True])
def test_the_command_fails_where_every_recording_does(model, tmp_path, monkeypatch, capsys, good):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "bad.wav").write_bytes(b"no audio")
    if good:
        save(tmp_path / "audio" / "good.wav", noise(1))
    arguments = ["predict", tmp_path / "audio", "--model", model, "--out", tmp_path / "out", "--workers", 1]
    monkeypatch.setattr(sys, "argv", ["birdlib", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    output, error = capsys.readouterr()
    assert stopped.value.code == (0 if good else 1)
    assert "bad.wav: not readable as audio" in output
    assert (tmp_path / "out/table.csv").exists()
    assert ("birdlib: no recording could be heard" in error) is not good


# ---- what is refused


def test_two_recordings_of_one_name(model, tmp_path):
    for site in "ab":
        save(tmp_path / site / "x.wav", noise(1))
    with pytest.raises(PredictError, match=r"two recordings are called x\.wav.*, or name the folder above both"):
        heard(None, model, tmp_path / "out", paths=[tmp_path / "a", tmp_path / "b"])
    assert [one.name for one in asked.recordings([tmp_path], CONFIG)] == ["a/x.wav", "b/x.wav"]
    assert len(asked.recordings([tmp_path / "a", tmp_path / "a/x.wav"], CONFIG)) == 1


def test_a_folder_of_another_prediction(folder, model, out):
    with pytest.raises(PredictError, match="holds what another model, or other settings, heard"):
        heard(folder, model, out, step=0.5)


def test_a_folder_that_a_kill_left_before_anything_was_in_it(folder, model, tmp_path):
    (tmp_path / "out/.writing-abc").mkdir(parents=True)
    assert heard(folder, model, tmp_path / "out", paths=[folder / "c.ogg"]).heard == 1
    assert not (tmp_path / "out/.writing-abc").exists()


def test_a_folder_of_something_else(folder, model):
    with pytest.raises(PredictError, match="is there and holds no prediction"):
        heard(folder, model, folder)
    assert not (folder / ".lock").exists()


def test_a_folder_that_another_process_predicts_into(folder, model, out):
    """The second one says so, and takes nothing away that the first is writing."""
    code = "import sys, filelock; held = filelock.FileLock(sys.argv[1]); held.acquire(); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, out / ".lock"], **pipes) as other:
        other.stdout.readline()
        (out / "rows/.writing-abc").mkdir()
        with pytest.raises(PredictError, match=f"another process is predicting into {out}: wait for it, or name"):
            heard(folder, model, out)
        assert (out / "rows/.writing-abc").exists()
        other.communicate(b"\n")
    assert heard(folder, model, out).kept == 3
    assert not (out / "rows/.writing-abc").exists()


def test_a_relative_folder_whose_name_has_a_colon(folder, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = Options(workers=1, parquet=True)
    summary = heard(folder, model, Path("pred:2024"), options=options, paths=[folder / "c.ogg"])
    assert summary.written == tmp_path / "pred:2024/table.parquet"
    assert heard(folder, model, Path("pred:2024"), options=options, paths=[folder / "c.ogg"]).kept == 1


@pytest.mark.parametrize("where", ["file.wav/x", "n" * 300, f"new/{'n' * 300}"])
def test_a_place_that_cannot_be_written_is_one_error(folder, model, tmp_path, where):
    (tmp_path / "file.wav").touch()
    with pytest.raises(PredictError, match=r"cannot write .*: .*; once that is mended, the same command goes on"):
        heard(folder, model, tmp_path / where)


def test_a_disk_that_is_full_half_way_is_one_error_and_loses_nothing(folder, model, tmp_path, monkeypatch):
    out, keep = tmp_path / "out", predicting.kept.keep

    def full(out, *others):
        if (out / "rows").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        keep(out, *others)

    monkeypatch.setattr(predicting.kept, "keep", full)
    with pytest.raises(PredictError, match=f"cannot write {out}: No space left on device; once"):
        heard(folder, model, out)
    assert not multiprocessing.active_children()
    monkeypatch.undo()
    assert heard(folder, model, out)[1:3] == (2, 1)


def test_a_folder_in_which_a_prediction_was_killed_before_it_noted_anything(folder, model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.lock").touch()
    assert heard(folder, model, tmp_path / "out", options=Options(budget_minutes=0)).unreached


def test_no_audio(model, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PredictError, match="there is no audio in"):
        heard(tmp_path / "empty", model, tmp_path / "out")


def test_nothing_there(model, tmp_path):
    with pytest.raises(PredictError, match="no such file or folder"):
        heard(tmp_path / "nowhere", model, tmp_path / "out")


def test_models_of_other_classes(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    pd.read_csv(other / "species.csv", keep_default_na=False).iloc[::-1].to_csv(other / "species.csv", index=False)
    with pytest.raises(PredictError, match="know other classes"):
        predicting.together([model, other], {})


def test_a_species_list(tmp_path):
    (tmp_path / "list.txt").write_text("lowbir1\n\n# a comment\nmidbir1  # and another\n")
    assert asked.choice(0.5, None, tmp_path / "list.txt", True).species == {"lowbir1", "midbir1"}
    with pytest.raises(PredictError, match="not readable as a species list"):
        asked.choice(0.5, None, tmp_path / "none.txt", True)


def test_labels_of_the_species_list_that_the_model_does_not_know_are_said(folder, model, out):
    choice = Choice(0.3, species=frozenset({"lowbir1", "lowbird", "zebra"}))
    summary = heard(folder, model, out, options=Options(choice=choice, workers=1))
    assert "of the species list, the model does not know lowbird, zebra" in summary.lines()
    assert set(pd.read_csv(summary.written)["primary_label"]) == {"lowbir1"}


def test_that_only_a_few_unlabelled_ones_are_heard_is_said(model, tmp_path):
    for number in range(5):
        save(tmp_path / "unlabeled_soundscapes" / f"{number}.ogg", noise(1, number))
    summary = heard(tmp_path, model, tmp_path / "out")
    assert summary.heard == 3
    assert any("3 of 5 unlabelled ones stand in" in line for line in summary.lines())
    all_of_them = heard(tmp_path / "unlabeled_soundscapes", model, tmp_path / "out")
    assert (all_of_them.heard, all_of_them.kept) == (2, 3)
    assert not any("unlabelled" in line for line in all_of_them.lines())


def test_audio_that_is_not_read_is_counted_by_its_kind(tmp_path):
    for name in ("a/1.m4a", "a/2.M4A", "b/3.wma", "a/._4.m4a", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    # What is named twice is counted once.
    told = "audio of kinds that are not read (convert it to FLAC): 2 .m4a, 1 .wma"
    assert list(asked.unread([tmp_path, tmp_path / "a"])) == [told]
    with pytest.raises(PredictError, match=rf"there is no audio in .*; {re.escape(told)}"):
        asked.recordings([tmp_path], CONFIG)
    (tmp_path / "a").rename(tmp_path / "test_soundscapes")
    assert list(asked.unread([tmp_path])) == [told.removesuffix(", 1 .wma")]
    assert list(asked.unread([tmp_path / "test_soundscapes/1.m4a"])) == []  # which is heard, and stands in errors.csv


def test_that_audio_is_not_read_is_said(model, tmp_path):
    save(tmp_path / "in/1.ogg", noise(1))
    (tmp_path / "in/2.m4a").write_bytes(b"x")
    lines = heard(tmp_path / "in", model, tmp_path / "out").lines()
    assert "audio of kinds that are not read (convert it to FLAC): 1 .m4a" in lines


def test_a_birdclef_folder_gives_its_soundscapes(tmp_path):
    save(tmp_path / "unlabeled_soundscapes" / "1.ogg", noise(1))
    save(tmp_path / "train_audio" / "x" / "2.ogg", noise(1))
    assert [one.name for one in asked.recordings([tmp_path], CONFIG)] == ["1.ogg"]
    assert audio.is_audio(tmp_path / "train_audio/x/2.ogg")
