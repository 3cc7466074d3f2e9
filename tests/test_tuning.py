"""Tuning: the stages' trials, with a training that only says what it was given; and once really, slow."""

import ast
import json
import shutil
import sys

import nbformat
import pandas as pd
import pytest

from birdlib import callbacks, cli, runs, series, splits, stages, training, tuning
from birdlib import config as configs
from birdlib.search import TimeOverError
from birdlib.tuning import TuningError

SPACES = {
    "tuning.stage_1": {
        "phase_1.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "model.hidden": [[8], [16, 8]],
    },
    "tuning.stage_2": {"phase_2.batch_size": [4, 8]},
    "tuning.random_trials": 2,
}


@pytest.fixture(scope="module")
def tables(tiny_config, start_run, tmp_path_factory):
    """The folder of a run whose first two stages are done; not to be written into."""
    return start_run(tmp_path_factory.mktemp("tables"), tiny_config, "02_chunking").dir


@pytest.fixture
def new_run(tables, tiny_config, tmp_path):
    """A function (name, overrides...) -> a run for the tuning, with those tables in a folder of its own."""

    def new(name="run", **overrides):
        config = configs.override(tiny_config, {**SPACES, **overrides})
        run = runs.Run(tmp_path / name, config, stages.stage("appendix_tuning", appendices=True))
        if not run.dir.exists():
            shutil.copytree(tables / "tables", run.dir / "tables")
        return run

    return new


@pytest.fixture
def call(monkeypatch, capsys):
    """A function (arguments...) -> exit status, standard output, standard error of `birdlib` with these arguments."""

    def calling(*arguments):
        monkeypatch.setattr(sys, "argv", ["birdlib", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        for folder in list(runs._held):  # as the end of the process would
            runs.unlock(folder)
        return stopped.value.code or 0, *capsys.readouterr()

    return calling


@pytest.fixture
def trained(monkeypatch):
    """Trainings that do nothing but call the callbacks, a dictionary each: what they were given."""
    done = []

    def pretend(model, data, source, config, settings, best, title, first_epoch, more):
        done.append({"model": model, "data": data, "config": config, "settings": settings, "title": title})
        loss = settings.learning_rate * 100 + settings.batch_size / 100 + len(config.model.hidden)
        if settings.learning_rate > 0.009:
            raise callbacks.TrainingError(f"{title}: the loss is not a number after epoch 0")
        best.write_text(f"weights of {title}")
        rows = []
        for epoch in range(2):
            rows.append({"epoch": epoch, "val_loss": loss + (1 - epoch) / 10, "val_accuracy": 0.5})
            for callback in more:
                callback.on_train_batch_end(0)
                callback.on_epoch_end(epoch, rows[-1])
        return pd.DataFrame(rows)

    monkeypatch.setattr(training, "train", pretend)
    monkeypatch.setattr(tuning.models, "build", lambda config, classes: f"new, {classes} classes")
    monkeypatch.setattr(training, "thawed", lambda path: path.read_text())
    return done


def test_stage_one_tunes_phase_one_and_stage_two_goes_on_from_its_best_weights(new_run, trained):
    run = new_run()
    found = tuning.tune(run, trials=2)
    first, second = trained[:2], trained[2:]
    assert {one["model"] for one in first} == {"new, 4 classes"}
    assert first[0]["config"].model_copy(update={"tuning": run.config.tuning}) == run.config
    best = found[1].best()
    assert {one["model"] for one in second} == {f"weights of phase_1, trial {best.number}, fold 0"}
    for one in second:
        assert configs.value(one["config"], "phase_1.learning_rate") == best.settings["phase_1.learning_rate"]
        assert one["settings"] == one["config"].phase_2
    losses = found[1].table()["val_loss"]
    assert best.loss == losses.min()
    assert [path.name for path in run.path("tuning").glob("*/*.keras")] == ["phase_1_fold_0.keras"]  # the best's alone


def test_trials_see_the_two_sides_of_the_folds_and_never_the_test(new_run, trained):
    run = new_run(**{"folds": "0,1"})
    found = tuning.tune(run, (1,), trials=1)
    table = run.read_table("splits")
    test = set(splits.side(table, "test")["filename"])
    assert test
    assert [one["title"] for one in trained] == ["phase_1, trial 0, fold 0", "phase_1, trial 0, fold 1"]
    for one in trained:
        assert not test & {*one["data"].train["filename"], *one["data"].validation["filename"]}
    assert set(trained[0]["data"].validation["filename"]).isdisjoint(trained[1]["data"].validation["filename"])
    assert found[1].table()["epochs"].tolist() == [4]


def test_the_best_is_a_file_that_loads_to_the_settings_and_says_how_far_to_believe_it(new_run, trained):
    run = new_run()
    found = tuning.tune(run, trials=3)
    text = (run.dir / "tuning" / "best.yaml").read_text()
    assert "the lowest validation loss" in text
    assert "optimistic" in text
    assert "of 3" in text
    config = configs.load(run.dir / "tuning" / "best.yaml")
    expected = configs.override(run.config, {**found[1].best().settings, **found[2].best().settings})
    assert config == expected == tuning.best_settings(run.config, found)
    trials = pd.read_csv(run.dir / "tuning" / "trials_1.csv")
    assert trials["val_loss"].min() == pytest.approx(found[1].best().loss)


def test_what_was_found_stays_and_other_settings_or_data_begin_anew(new_run, trained):
    tuning.tune(new_run(), trials=2)
    count = len(trained)
    tuning.tune(new_run(), trials=2)
    assert len(trained) == count
    tuning.tune(new_run(), (1,), trials=3)
    assert len(trained) <= count + 1
    count = len(trained)
    again = new_run(**{"phase_1.epochs": 7})
    tuning.tune(again, (1,), trials=1)
    assert len(trained) == count + 1
    assert again.config.phase_1.epochs == 7
    here = runs.Run(again.dir, configs.override(again.config, {"compute.workers": 2}), again.stage)
    tuning.tune(here, (1,), trials=1)  # what changes the speed alone begins nothing anew
    assert len(trained) == count + 1


def test_stage_two_needs_stage_one(new_run, trained):
    with pytest.raises(TuningError, match="none of its trials has finished"):
        tuning.tune(new_run(), (2,), trials=1)


def test_where_another_machine_has_the_weights_they_are_trained_again(new_run, trained, tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    found = tuning.tune(new_run("one"), (1,), trials=2, storage=storage)
    elsewhere = new_run("other")
    count = len(trained)
    tuning.tune(elsewhere, trials=2, storage=storage)
    assert trained[count]["title"] == f"phase_1, trial {found[1].best().number} again, fold 0"
    assert {one["model"] for one in trained[count + 1 :]} == {f"weights of {trained[count]['title']}"}
    assert trained[count]["settings"].learning_rate == found[1].best().settings["phase_1.learning_rate"]


def test_a_loss_that_is_no_number_costs_its_trial(new_run, trained):
    run = new_run(**{"tuning.stage_1": {"phase_1.learning_rate": [1e-3, 1e-2]}, "seed": 1})
    found = tuning.tune(run, (1,), trials=6)
    table = found[1].table()
    assert {"finished", "failed"} == set(table["state"])
    assert "not a number" in table.loc[table["state"] == "failed", "reason"].iloc[0]
    assert found[1].best().settings == {"phase_1.learning_rate": 1e-3}


def test_the_time_stops_a_trial_within_and_it_is_run_again(new_run, trained, monkeypatch):
    run = new_run()
    clock = iter([0.0, 0.0, 9.0])
    monkeypatch.setattr(tuning.time, "monotonic", lambda: next(clock, 9.0))
    with pytest.raises(TimeOverError):
        tuning.tune(run, (1,), trials=2, until=5.0)
    monkeypatch.undo()
    assert len(trained) == 1


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (MemoryError(), True),
        (type("ResourceExhaustedError", (Exception,), {})("OOM when allocating"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), True),
        (callbacks.TrainingError("the loss is not a number"), True),
        (configs.ConfigError("does not fit"), True),
        (RuntimeError("a bug"), False),
        (TimeOverError(), False),
    ],
)
def test_which_errors_are_the_settings(error, known):
    assert tuning._by_settings(error) is known


def test_the_same_search_under_other_paths(new_run, tmp_path):
    digests = []
    for name in ("one", "other"):
        run = new_run(name, **{"augmentation.background.dir": tmp_path / name / "backgrounds"})
        trainer = tuning._Trainer(run, None, None)
        digests.append(trainer._digest(1, configs.space(run.config, 1)))
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("overrides", "stages_anew"),
    [({"phase_2.epochs": 9}, [2]), ({"phase_1.epochs": 9}, [1, 2]), ({"comparison.epochs": 9}, [])],
)
def test_a_stage_of_the_search_goes_on_while_what_it_trains_by_is_the_same(new_run, overrides, stages_anew):
    before, after = (
        {stage: tuning._Trainer(run, None, None)._digest(stage, configs.space(run.config, stage)) for stage in (1, 2)}
        for run in (new_run("before"), new_run("after", **overrides))
    )
    assert [stage for stage in (1, 2) if before[stage] != after[stage]] == stages_anew


def test_two_tunings_share_a_folder_and_nothing_else_does(new_run, monkeypatch):
    run = new_run()
    monkeypatch.setattr(runs, "require_inputs", lambda *_: None)
    tuning.open_folder(run.dir, run.config)
    try:
        held = dict(runs._held)
        monkeypatch.setattr(runs, "_held", {})  # as another process has it
        assert tuning.open_folder(run.dir, run.config).dir == run.dir
        with pytest.raises(stages.RunError, match="birdlib tune"):
            runs.lock(run.dir, "birdlib run")
    finally:
        monkeypatch.setattr(runs, "_held", held)
        runs.unlock(run.dir)


def test_the_words_for_what_is_searched(tiny_config):
    table = tuning.spaces(configs.override(tiny_config, SPACES))
    assert table["values"].tolist() == ["0.0001 to 0.01, logarithmic", "(8,) | (16, 8)", "4 | 8"]
    assert table["stage"].tolist() == [1, 1, 2]


@pytest.fixture
def finished(new_run):
    """The folder of a run whose first two stages are recorded as done, with its settings."""
    run = new_run(**{"tuning.trials": 2})
    run.write_table("audio", pd.DataFrame({"filename": []}))
    runs.keep_settings(run.dir, run.config)
    for name in ("01", "02"):
        runs.Run(run.dir, run.config, stages.stage(name)).finish()
    return run.dir


def test_the_command_tells_what_was_found_and_where_it_is(finished, trained, call):
    status, said, error = call("tune", "--run-dir", finished, "--trials", "3")
    assert status == 0, error
    assert "Stage 1: trial " in said
    assert "Stage 2: trial " in said
    assert "From 3 finished trials no importance can be told." in said
    best = finished / "tuning" / "best.yaml"
    assert f"best settings: {best}  (birdlib run --config {best})" in said
    figures = sorted(path.name for path in (finished / "figures").iterdir())
    expected = [f"appendix_{name}_stage_{stage}.png" for name in ("importance", "trials", "tried") for stage in (1, 2)]
    assert figures == expected
    count = len(trained)
    assert call("tune", "--run-dir", finished, "--trials", "3", "--stage", "2")[0] == 0
    assert len(trained) == count


def test_the_command_stops_in_time_and_at_a_wish(finished, trained, call, monkeypatch):
    status, _, error = call("tune", "--run-dir", finished, "--timeout-minutes", "0")
    assert (status, trained) == (0, [])
    assert "the time is over; the same command goes on where it was" in error

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "tune", stopped)
    status, _, error = call("tune", "--run-dir", finished)
    assert status == 130
    assert "stopped; the same command goes on where it was" in error


def test_the_appendix_runs_by_itself(finished, trained):
    notebook = nbformat.read(stages.notebook("appendix_tuning"), as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    seen = {}
    for cell in cells:
        exec(cell.source, seen)
        if "parameters" in cell.metadata.get("tags", []):
            seen["run_dir"] = str(finished)
    last = ast.parse(cells[-1].source).body[-1]
    text = eval(compile(ast.Expression(last.value), "last", "eval"), seen).data
    assert "of 2 (" in text
    assert "The best settings differ from those that the search began with: " in text
    recorded = json.loads((finished / "metrics.json").read_text())["tuning"]
    assert recorded["stage_1"]["val_loss"] == seen["found"][1].best().loss
    assert (finished / "stages" / "appendix_tuning.json").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "tuning.stage_1={phase_1.learning_rat: [1]}"], "did you mean 'phase_1.learning_rate'?"),
        (["--config", "nothing"], "neither a preset"),
    ],
)
def test_what_the_command_refuses(arguments, expected, tmp_path, call):
    status, _, error = call("tune", "--run-dir", tmp_path / "run", *arguments)
    assert status == 1
    assert expected in error
    assert not (tmp_path / "run").exists()


# ---- really

TINY = {
    **{"chunks.length_s": 1, "chunks.overlap_s": 0.2, "chunks.tail_min_s": 0.2, "spectrogram.n_mels": 32},
    **{"batches.threshold": 8, "model.hidden": "8", "augmentation.where": "off", "splits.folds": 2},
    **{"phase_1.epochs": 3, "phase_1.batch_size": 8, "phase_1.learning_rate": 0.01, "phase_2.epochs": 2},
    **{"compute.workers": 1, "silence.threshold": 0.05, "comparison.models": "", "comparison.by_author": False},
    "tuning.stage_1": {"phase_1.learning_rate": {"low": 1e-3, "high": 3e-2, "log": True}, "model.hidden": [[8], [16]]},
    "tuning.stage_2": {"phase_2.learning_rate": [1e-3, 3e-4]},
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_searches_and_a_run_with_what_it_found_trains_the_same(tiny_data, tmp_path, call):
    (tmp_path / "tiny.yaml").write_text(configs.brief(configs.load("sample", TINY)))
    folder = tmp_path / "tune"
    command = ("tune", "--config", tmp_path / "tiny.yaml", "--data-dir", tiny_data, "--run-dir", folder)
    status, said, error = call(*command, "--trials", 2)
    assert status == 0, error
    assert "Stage 2: trial" in said
    best = folder / "tuning" / "best.yaml"
    assert f"birdlib run --config {best}" in said
    assert len(list((folder / "figures").glob("appendix_*.png"))) == 6
    series.run(best, None, folder, last="05")
    for stage in (1, 2):
        found = pd.read_csv(folder / "tuning" / f"trials_{stage}.csv")
        history = pd.read_csv(folder / "history" / f"phase_{stage}_fold_0.csv")
        assert history["val_loss"].min() == pytest.approx(found["val_loss"].min(), rel=1e-4)
