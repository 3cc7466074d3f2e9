"""What a staged notebook does first on Kaggle, in folders laid out like it; nothing trains here."""

import json
import shutil
import time

import pytest

from birdlib import config as configs
from birdlib import deadline, kaggle_places, kaggle_session, kaggle_wheels, runs, stages
from birdlib.kaggle_session import SessionError
from birdlib.runs import require_inputs

LIGHT = {"model.backbone": "mobilenet", "model.hidden": "8"}
NAMES = [one.name for one in stages.STAGES]


@pytest.fixture(autouse=True)
def kaggle(tmp_path, monkeypatch):
    """A folder laid out as Kaggle's, with the competition attached, without internet, and with wheels at hand."""
    monkeypatch.setenv(kaggle_places.ROOT, str(tmp_path))
    monkeypatch.setenv(deadline.TRAINING_ENDS, "")
    for folder in ("working", "input/competitions/birds"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "input/competitions/birds/train_metadata.csv").write_text("primary_label,filename\n")
    monkeypatch.setattr(kaggle_session, "_reachable", lambda host: False)
    monkeypatch.setattr(kaggle_session, "_extras", lambda settings, needed: None)
    return tmp_path


@pytest.fixture
def ran(monkeypatch):
    """What series.run was called with, in place of running it."""
    calls = []
    monkeypatch.setattr(kaggle_session.series, "run", lambda *args, **named: calls.append((args, named)))
    return calls


@pytest.fixture
def attach(kaggle):
    """A function (path below input, numbers of stages, overrides) -> a run folder in which those have finished."""

    def attached(path, numbers, **overrides):
        folder = kaggle / "input" / path
        config = configs.load("sample", {**LIGHT, **overrides})
        for one in (stages.stage(number) for number in numbers):
            outputs = {}
            for name in stages.files(one.writes, config):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(f"{name} of {path}")
                outputs[name] = [(folder / name).stat().st_size, "digest"]
            done = {"fingerprint": path, "settings": stages.settings(one, config), "outputs": outputs}
            stages.record_path(one, folder).parent.mkdir(exist_ok=True, parents=True)
            stages.record_path(one, folder).write_text(json.dumps(done))
        (folder / "config.yaml").write_text(configs.dump(config))
        return folder

    return attached


def begin(name="06_testing", config="sample", overrides=None, **changed):
    asked = {"run_dir": None, "data_dir": None, "competition": "birds", "hours": 10, "gpu": False, "alone": True}
    return kaggle_session.begin(name, config, overrides=overrides, **{**asked, **changed})


# ---- alone, with and without a run


def test_with_a_trained_run_it_goes_straight_to_the_test(kaggle, attach, ran):
    run = attach("notebooks/ann/five", ("01", "02", "04", "05"))
    found = begin(config="paper")
    assert not ran
    assert found == (None, str(kaggle / "working"), str(kaggle / "input/competitions/birds"), {})
    for name in stages.stage("06").reads:
        file = name.format(fold=0)
        assert (kaggle / "working" / file).read_bytes() == (run / file).read_bytes()
    assert configs.load(kaggle / "working/config.yaml") == configs.load("sample", LIGHT)


def test_without_one_the_notebooks_before_it_run_in_time(kaggle, ran):
    before = time.time()
    found = begin(overrides={"seed": 3})
    (args, named), *more = ran
    assert not more
    data = kaggle / "input/competitions/birds"
    assert args == ("sample", data, kaggle / "working", {"seed": 3})
    assert named["last"] == "05_phase_2"
    assert before + 9 * 3600 <= named["training_ends"] <= time.time() + 9 * 3600
    assert found == (None, str(kaggle / "working"), str(data), {})


def test_a_run_that_got_half_way_goes_on_with_its_own_settings(kaggle, attach, ran):
    attach("datasets/ann/half", ("01", "02"), seed=5)
    begin(config="paper", overrides={"phase_1.epochs": 2})
    args, _ = ran[0]
    assert args[0] == str(kaggle / "working/config.yaml")
    assert configs.load(args[0]).seed == 5
    assert args[3] == {"phase_1.epochs": 2}


def test_settings_that_the_attached_run_has_read_are_its_own(attach, capsys):
    attach("notebooks/ann/five", ("01", "02", "04", "05"))
    found = begin(overrides={"phase_2": {"epochs": 99}, "testing.baseline_chunks": 7, "seed": 0})
    assert found.overrides == {"testing.baseline_chunks": 7}
    said = capsys.readouterr().out
    assert "the attached run has them otherwise: phase_2.epochs" in said
    assert "seed" not in said


def test_a_run_of_which_a_file_is_missing_does_not_count(attach, ran):
    run = attach("notebooks/ann/five", ("01", "02", "04", "05"))
    (run / "models/phase_2_fold_0.keras").write_text("cut")
    begin()
    assert ran
    assert ran[0][0][0].endswith("config.yaml")


def test_two_runs_that_differ_are_an_error(attach):
    attach("notebooks/ann/one", ("01", "02", "04", "05"))
    attach("notebooks/ann/two", ("01", "02", "04", "05"))
    with pytest.raises(SessionError, match="two runs are attached"):
        begin()


@pytest.fixture
def stopped(kaggle):
    """A function (path below input, folds) -> a run that stopped in phase II, after these and within one more."""

    def attached(path, folds):
        folder, data = kaggle / "input" / path, kaggle / "input/competitions/birds"
        for name in NAMES[:5]:
            run = runs.open_run(name, "sample", folder, data, {**LIGHT, "folds": "0,1,2"})
            if name != "05_phase_2":
                for written in stages.files(run.stage.writes, run.config):
                    run.path(written).write_text(f"{written} of {path}")
                run.finish()
        finish_folds(run, folds)
        run.path("stages/05_phase_2.epochs/phase_2_fold_2/state.npz").write_text("an epoch")
        runs.unlock(folder)
        return folder

    return attached


def finish_folds(run, folds):
    for fold in folds:
        run.path(f"models/phase_2_fold_{fold}.keras").write_text(f"fold {fold}")
        run.keep_part(f"fold_{fold}", {"val_accuracy": fold / 10})


@pytest.mark.parametrize(("name", "alone"), [("06_testing", True), ("05_phase_2", False)])
def test_a_run_that_stopped_in_a_training_goes_on_after_its_last_epoch(name, alone, kaggle, stopped, ran):
    stopped("datasets/ann/failed", (0, 1))
    found = begin(name, alone=alone)
    assert len(ran) == alone
    run = runs.open_run("05_phase_2", None, found.run_dir, found.data_dir)
    runs.unlock(run.dir)
    assert [run.part(f"fold_{fold}") for fold in range(3)] == [{"val_accuracy": 0.0}, {"val_accuracy": 0.1}, None]
    for fold in (0, 1):
        assert run.path(f"models/phase_2_fold_{fold}.keras").read_text() == f"fold {fold}"
    assert (runs.epochs_path(run.dir, run.stage) / "phase_2_fold_2/state.npz").read_text() == "an epoch"


def test_of_two_sessions_of_one_run_that_stopped_the_later_counts(kaggle, stopped, ran):
    first = stopped("datasets/ann/failed", (0,))
    later = kaggle / "input/datasets/ann/failed_again"
    shutil.copytree(first, later)
    config = configs.load(later / "config.yaml")
    finish_folds(runs.Run(later, config, stages.stage("05")), (1,))
    run = runs.open_run("05_phase_2", None, begin().run_dir)
    runs.unlock(run.dir)
    assert run.part("fold_1") == {"val_accuracy": 0.1}
    # The session's own comes first, when its first cell runs again.
    run.keep_part("fold_2", {"val_accuracy": 0.9})
    begin()
    assert run.part("fold_2") == {"val_accuracy": 0.9}


def test_a_stage_that_does_not_run_here_brings_nothing_half_done(kaggle, stopped):
    stopped("datasets/ann/failed", (0, 1))
    begin("06_testing", alone=False)  # which then says that phase II is missing
    assert not (kaggle / "working/models/phase_2_fold_0.keras").exists()


# ---- the chain


def test_what_the_chain_has_made_comes_together(kaggle, attach, ran):
    attach("notebooks/ann/one", ("01",))
    attach("notebooks/ann/two", ("01", "02"))
    attach("four", ("01", "02", "04"))
    found = begin("05_phase_2", alone=False)
    assert not ran
    assert found.config is None
    folder = kaggle / "working"
    assert (folder / "tables/chunks.parquet").read_text() == "tables/chunks.parquet of four"
    require = stages.stage("05")
    with pytest.warns(UserWarning, match="has changed since"):  # these files are made up
        require_inputs(require, configs.load(folder / "config.yaml"), folder)
    assert deadline.end() is not None


def test_a_stage_that_is_in_another_run_only_is_taken_from_there(kaggle, attach):
    attach("notebooks/ann/one", ("01",))
    attach("notebooks/ann/two", ("02",))
    begin("03_augmentation", alone=False)
    folder = kaggle / "working"
    assert (folder / "tables/recordings.parquet").read_text().endswith("ann/one")
    assert (folder / "tables/chunks.parquet").read_text().endswith("ann/two")


def test_in_the_chain_nothing_runs_that_is_missing(ran):
    begin("06_testing", alone=False)
    assert not ran  # open_run, which comes next, says what is missing


def test_the_first_begins_with_the_staged_settings(kaggle):
    found = begin("01_eda", alone=False, overrides={"seed": 4})
    assert (found.config, found.overrides) == ("sample", {"seed": 4})
    assert found.run_dir == str(kaggle / "working")


# ---- what is missing is said at once


def test_weights_that_are_attached_are_used(kaggle, ran):
    file = kaggle / "input/datasets/ann/w/mobilenet_notop.h5"
    file.parent.mkdir(parents=True)
    file.write_text("weights")
    begin(overrides={**LIGHT, "model.weights": "imagenet"})
    assert ran[0][0][3]["model.weights"] == str(file)


def test_weights_that_cannot_be_had_are_an_error_before_anything_runs(ran):
    with pytest.raises(SessionError, match="no internet to download the ImageNet weights of mobilenet"):
        begin(overrides={**LIGHT, "model.weights": "imagenet"})
    assert not ran


@pytest.mark.slow
def test_training_without_the_gpu_that_was_asked_for_is_an_error(ran, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(SessionError, match="training wants a GPU, and the backend sees cpu here"):
        begin(gpu=True)
    assert not ran


def test_testing_needs_no_gpu(attach):
    attach("notebooks/ann/five", ("01", "02", "04", "05"))
    begin(gpu=True)


def test_without_any_data_the_sample_data_set_is_written(kaggle, monkeypatch, ran):
    monkeypatch.setattr(kaggle_session.sample, "write", lambda folder: folder.mkdir(parents=True))
    (kaggle / "input/competitions/birds/train_metadata.csv").unlink()
    assert begin(competition=None).data_dir == str(kaggle / "tmp/birdlib/sample_data")
    with pytest.raises(kaggle_places.PlacesError, match="accepting its rules"):
        begin()


# ---- what Kaggle lacks


@pytest.fixture
def lacking(kaggle, monkeypatch):
    """The calls of pip, in a session without audiomentations."""
    monkeypatch.undo()
    monkeypatch.setenv(kaggle_places.ROOT, str(kaggle))
    monkeypatch.setattr(kaggle_session.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(kaggle_session, "_reachable", lambda host: False)
    calls = []
    monkeypatch.setattr(kaggle_wheels, "install", lambda options: calls.append(options))
    return calls


def test_attached_wheels_are_installed_and_nothing_else(kaggle, lacking):
    folder = kaggle / "input/datasets/ann/wheels"
    folder.mkdir(parents=True)
    (folder / "birdlib-0.1.0-py3-none-any.whl").write_text("")
    kaggle_session._extras(configs.load("sample"), needed=False)
    assert lacking == [["--no-index", "--find-links", str(folder)]]


def test_without_wheels_and_internet_only_what_needs_them_is_an_error(lacking, capsys):
    kaggle_session._extras(configs.load("sample"), needed=True)
    assert "neither wheels attached" in capsys.readouterr().out
    with pytest.raises(SessionError, match="host needs audiomentations"):
        kaggle_session._extras(configs.load("sample", {"augmentation.where": "host"}), needed=True)
    assert not lacking


def test_every_stage_may_be_begun():
    for name in NAMES:
        begin(name, alone=False)
