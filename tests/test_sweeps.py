"""Sweeps, with a series that runs no notebook: what each run gets, what it takes over, and what one failure costs."""

import json
import re
import sys

import pandas as pd
import pytest

from birdlib import cli, runs, runs_table, series, stages, sweeps
from birdlib import config as configs
from birdlib.stages import STAGES

RATES = [("phase_1.learning_rate", "1e-3"), ("phase_1.learning_rate", "3e-4")]


@pytest.fixture
def asked(monkeypatch):
    """Runs that write what their stages should, a line each: which stages of which folder were run."""
    done = []

    def pretend(config, data_dir, folder, overrides):
        settled = runs.settle(folder, config, data_dir, overrides)
        runs.keep_settings(folder, settled)
        for one in STAGES:
            if runs.is_current(one, settled, folder):
                continue
            done.append((folder.name, one.name[:2]))
            if float(settled.phase_2.learning_rate) > 1 and one.name == "05_phase_2":
                raise series.SeriesError("05_phase_2 stopped: the loss is not a number")
            run = runs.Run(folder, settled, one)
            for name in stages.files(one.writes, settled):
                run.path(name).write_text(json.dumps({"made_by": folder.name}))
            run.path(f"notebooks/{one.name}.ipynb").write_text("{}")
            run.path(f"figures/{one.name[:2]}_some.png").write_text("a figure")
            run.record_errors({f"{one.name}.ogg": "broken"})
            run.finish()
        return folder

    monkeypatch.setattr(series, "run", pretend)
    return done


def stages_of(asked, name):
    return [number for folder, number in asked if folder == name]


def test_each_sweep_adds_a_value_and_every_combination_is_a_run():
    found = sweeps.combinations([*RATES, ("seed", "0"), ("seed", "1")])
    assert list(found) == [
        f"phase_1.learning_rate={rate},seed={seed}" for rate in ("1e-3", "3e-4") for seed in ("0", "1")
    ]
    assert found["phase_1.learning_rate=3e-4,seed=1"] == {"phase_1.learning_rate": "3e-4", "seed": "1"}


def test_names_are_safe_for_folders():
    (name,) = sweeps.combinations([("model.weights", "../some where/w.h5")])
    assert name == "model.weights=.._some_where_w.h5"
    with pytest.raises(sweeps.SweepError, match="the same value twice"):
        sweeps.combinations([("seed", "1"), ("seed", "1")])


def test_stages_with_the_same_fingerprint_are_run_once(asked, tiny_data, tmp_path):
    folders = sweeps.run(RATES, "sample", tiny_data, tmp_path / "sweep")
    one, other = folders
    assert stages_of(asked, one.name) == ["01", "02", "03", "04", "05", "06"]
    assert stages_of(asked, other.name) == ["04", "05", "06"]
    assert json.loads((other / "tables" / "splits.parquet").read_text()) == {"made_by": one.name}
    assert (other / "figures" / "02_some.png").exists()
    assert (other / "notebooks" / "02_chunking.ipynb").exists()
    errors = pd.read_parquet(other / "tables" / "errors.parquet")
    assert errors["stage"].tolist() == [stage.name for stage in STAGES]
    assert configs.load(other / "config.yaml").phase_1.learning_rate == 3e-4
    # What is taken over is the folder's own: to lose the other one costs nothing.
    settled = configs.load(other / "config.yaml")
    assert all(runs.is_current(stage, settled, other) for stage in STAGES)


def test_the_same_sweep_again_runs_nothing(asked, tiny_data, tmp_path):
    sweeps.run(RATES, "sample", tiny_data, tmp_path / "sweep")
    before = list(asked)
    sweeps.run(RATES, "sample", tiny_data, tmp_path / "sweep")
    assert asked == before
    sweeps.run([*RATES, ("phase_1.learning_rate", "1e-4")], "sample", tiny_data, tmp_path / "sweep")
    assert {name for name, _ in asked[len(before) :]} == {"phase_1.learning_rate=1e-4"}


def test_a_run_that_fails_does_not_stop_the_others_and_is_tried_again(asked, tiny_data, tmp_path):
    swept = [("phase_2.learning_rate", value) for value in ("9", "1e-4")]
    for _ in range(2):
        with pytest.raises(sweeps.SweepError, match=r"1 of 2 runs failed.*\n  phase_2.learning_rate=9: 05_phase_2 st"):
            sweeps.run(swept, "sample", tiny_data, tmp_path / "sweep")
    assert stages_of(asked, "phase_2.learning_rate=1e-4") == ["05", "06"]
    assert stages_of(asked, "phase_2.learning_rate=9") == ["01", "02", "03", "04", "05", "05"]


@pytest.mark.parametrize("gone", ["notebooks/01_eda.ipynb", "tables/recordings.parquet"])
def test_a_folder_of_which_a_file_was_deleted_lends_no_stage_without_it(gone, asked, tiny_data, tmp_path):
    (first,) = sweeps.run(RATES[:1], "sample", tiny_data, tmp_path / "sweep")
    (first / gone).unlink()
    rates = [("phase_1.learning_rate", "1e-4"), *RATES]
    new, _, last = sweeps.run(rates, "sample", tiny_data, tmp_path / "sweep")
    assert stages_of(asked, new.name) == ["01", "02", "03", "04", "05", "06"]
    assert stages_of(asked, last.name) == ["04", "05", "06"]


def test_a_file_that_cannot_be_copied_fails_one_run(asked, tiny_data, tmp_path, monkeypatch):
    really = sweeps._prepare

    def prepare(folder, *rest):
        if folder.name.endswith("3e-4"):
            raise FileNotFoundError(2, "No such file or directory", "chunks.parquet")
        really(folder, *rest)

    monkeypatch.setattr(sweeps, "_prepare", prepare)
    rates = [RATES[1], RATES[0]]
    with pytest.raises(sweeps.RunsError, match=r"1 of 2 runs failed.*\n.*3e-4: .*chunks\.parquet") as caught:
        sweeps.run(rates, "sample", tiny_data, tmp_path / "sweep")
    assert caught.value.folder == tmp_path / "sweep"
    assert stages_of(asked, "phase_1.learning_rate=1e-3") == ["01", "02", "03", "04", "05", "06"]


def test_what_phase_1_was_compared_with_comes_with_it(asked, tiny_data, tmp_path):
    rates = [("phase_2.learning_rate", rate) for rate in ("1e-4", "1e-5")]
    (first,) = sweeps.run(rates[:1], "sample", tiny_data, tmp_path / "sweep")
    (first / "history" / "phase_1_from_scratch.csv").write_text("epoch,loss\n0,2.5\n")
    other = sweeps.run(rates, "sample", tiny_data, tmp_path / "sweep")[1]
    assert stages_of(asked, other.name) == ["05", "06"]
    assert (other / "history" / "phase_1_from_scratch.csv").read_text() == "epoch,loss\n0,2.5\n"


def test_the_table_of_the_runs_is_shown_where_one_failed_too(asked, tiny_data, tmp_path, monkeypatch, capsys):
    swept = [word for value in ("9", "1e-4") for word in ("--sweep", f"phase_2.learning_rate={value}")]
    where = ["--data-dir", str(tiny_data), "--run-dir", str(tmp_path / "sweep")]
    monkeypatch.setattr(sys, "argv", ["birdlib", "run", *where, *swept])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert re.search(r"phase_2.learning_rate=1e-4 .* 06_testing", said.out)
    assert "1 of 2 runs failed" in said.err


def test_what_cannot_be_run_is_said_before_anything_runs(asked, tiny_data, tmp_path):
    with pytest.raises(configs.ConfigError, match="learning_rat"):
        sweeps.run([("phase_1.learning_rat", "1")], "sample", tiny_data, tmp_path / "sweep")
    with pytest.raises(configs.ConfigError, match=r"phase_1\.learning_rate"):
        sweeps.run([*RATES, ("phase_1.learning_rate", "-1")], "sample", tiny_data, tmp_path / "sweep")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("base: sample\n")
    with pytest.raises(sweeps.SweepError, match="is a run folder itself"):
        sweeps.run(RATES, "sample", tiny_data, tmp_path / "run")
    assert asked == []


# ---- the table of runs


def test_runs_are_listed_with_the_settings_that_differ_and_their_results(asked, tiny_data, tmp_path):
    folders = sweeps.run(RATES, "sample", tiny_data, tmp_path / "sweep")
    for folder, accuracy in zip(folders, (0.5, 0.75), strict=True):
        test = {"accuracy": accuracy, "intervals": {"accuracy": [accuracy - 0.1, accuracy + 0.1]}, "chunks": 12}
        (folder / "metrics.json").write_text(json.dumps({"test": test, "phase_1": {"val_accuracy": None}}))
    (tmp_path / "sweep" / "broken" / "stages").mkdir(parents=True)
    (tmp_path / "sweep" / "broken" / "config.yaml").write_text("base: nothing\n")
    found = runs_table.find(tmp_path)
    assert [folder.name for folder in found] == ["broken", *sorted(folder.name for folder in folders)]
    table = runs_table.table(found, tmp_path)
    assert [column for column in table if "." in column] == ["phase_1.learning_rate"]
    row = table.loc["sweep/phase_1.learning_rate=3e-4"]
    assert (row["phase_1.learning_rate"], row["test"], row["interval"]) == (3e-4, 0.75, "0.650 to 0.850")
    assert row["finished"] == "06_testing"
    assert "which preset it starts from" in table.loc["sweep/broken", "problem"]


def test_a_folder_without_runs_has_none(tmp_path):
    assert runs_table.find(tmp_path) == []


# ---- really


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_sweep_shares_its_early_stages_and_does_nothing_twice(tiny_data, tiny_config, tmp_path):
    small = {"comparison.models": "", "comparison.by_author": False}
    (tmp_path / "tiny.yaml").write_text(configs.brief(configs.override(tiny_config, small)))
    rates = [("phase_2.learning_rate", "1e-3"), ("phase_2.learning_rate", "1e-5")]
    swept = lambda: sweeps.run(rates, tmp_path / "tiny.yaml", tiny_data, tmp_path / "sweep")  # noqa: E731
    one, other = swept()

    def executed(folder):
        return {path.stem: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("notebooks/*.ipynb")}

    first, second = executed(one), executed(other)
    same = [name for name in first if first[name][0] == second[name][0]]
    assert sorted(same) == ["01_eda", "02_chunking", "03_augmentation", "04_phase_1"]
    rates_used = [pd.read_csv(folder / "history" / "phase_2_fold_0.csv")["learning_rate"][0] for folder in (one, other)]
    assert rates_used == pytest.approx([1e-3, 1e-5])
    table = runs_table.table(runs_table.find(tmp_path / "sweep"), tmp_path / "sweep")
    assert table["phase_2.learning_rate"].tolist() == [1e-3, 1e-5]
    assert table["finished"].tolist() == ["06_testing"] * 2
    assert table["validation I"].nunique() == 1
    assert table["test"].notna().all()
    swept()
    assert (executed(one), executed(other)) == (first, second)
