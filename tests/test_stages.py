import json
import os
import re
import shutil
from pathlib import Path

import pytest

import birdlib
from birdlib import config as configs
from birdlib import stages
from birdlib.stages import APPENDICES, STAGES, RunError

NAMES = ["01_eda", "02_chunking", "03_augmentation", "04_phase_1", "05_phase_2", "06_testing"]
SOURCES = Path(__file__).parents[1] / "notebooks"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for name, size in {
        "train_metadata.csv": 50,
        "train_audio/a/XC1.ogg": 10,
        "train_audio/b/XC2.ogg": 20,
        "sample_submission.csv": 5,
        "test_soundscapes/soundscape_1.ogg": 30,
        "notes.txt": 7,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    return folder


@pytest.fixture
def prints(tmp_path, data):
    """A function (overrides) -> stage name to fingerprint, on the data folder above."""

    def all_of(overrides=None, data_dir=data):
        config = configs.load("sample", {"data.dir": data_dir, **(overrides or {})})
        return {one.name: stages.fingerprint(one, config, tmp_path / "run") for one in STAGES}

    return all_of


def differing(one, other):
    return {name for name in one if one[name] != other[name]}


def since(number):
    """The stages from one on, which is what a change there makes stale."""
    return set(NAMES[number - 1 :])


# ---- the table


def test_the_series_in_order():
    assert [one.name for one in STAGES] == NAMES


def test_what_is_read_was_written_by_exactly_one_earlier_stage():
    for place, one in enumerate(STAGES):
        for name in one.reads:
            makers = [at for at, other in enumerate(STAGES) if name in other.writes]
            assert len(makers) == 1, name
            assert makers[0] < place, name


def test_sections_are_settings():
    for one in STAGES + APPENDICES:
        assert set(one.sections) <= set(configs.Config.model_fields)
        assert len(set(one.sections)) == len(one.sections)


@pytest.mark.parametrize("one", STAGES, ids=lambda one: one.name)
def test_a_notebook_uses_no_setting_outside_its_sections(one):
    source = (SOURCES / f"{one.name}.py").read_text(encoding="utf-8")
    used = set(re.findall(r"\bconfig\.([a-z_0-9]+)", source))
    assert used
    inherited = {section for other in stages.upstream(one) for section in other.sections}
    # `compute` changes the speed and not the results.
    assert used - {"compute"} <= set(one.sections) | inherited


@pytest.mark.parametrize("one", STAGES + APPENDICES, ids=lambda one: one.name)
def test_a_notebook_uses_the_tables_it_says(one):
    source = (SOURCES / f"{one.name}.py").read_text(encoding="utf-8")
    assert f'runs.open_run("{one.name}"' in source
    read = {f"tables/{name}.parquet" for name in re.findall(r'read_table\("(\w+)"\)', source)}
    written = {f"tables/{name}.parquet" for name in re.findall(r'write_table\("(\w+)"', source)}
    if "chunks.indexed(run" in source:  # it keeps its two tables itself
        written |= {"tables/chunks.parquet", "tables/audio.parquet"}
    assert read <= set(one.reads)
    # What a training writes a fold, `birdlib.training` writes.
    assert written == {name for name in one.writes if name.startswith("tables/") and "{fold}" not in name}


def test_upstream_by_hand():
    upstream = {one.name: [other.name for other in stages.upstream(one)] for one in STAGES}
    assert upstream == {
        "01_eda": [],
        "02_chunking": ["01_eda"],
        "03_augmentation": ["01_eda", "02_chunking"],
        "04_phase_1": ["01_eda", "02_chunking"],
        "05_phase_2": ["01_eda", "02_chunking", "04_phase_1"],
        "06_testing": ["01_eda", "02_chunking", "04_phase_1", "05_phase_2"],
    }


@pytest.mark.parametrize(("asked", "found"), [("03_augmentation", 2), ("03", 2), ("3", 2), ("06", 5), ("1", 0)])
def test_a_stage_by_name_or_number(asked, found):
    assert stages.stage(asked).name == NAMES[found]


@pytest.mark.parametrize("asked", ["07", "0", "", "phase_1", "03_augment"])
def test_a_stage_that_is_none(asked):
    with pytest.raises(RunError, match=r"01_eda, 02_chunking, .*06_testing"):
        stages.stage(asked)


def test_an_appendix_is_no_stage_of_the_series_and_found_where_it_is_asked_for():
    (one,) = APPENDICES
    assert [other.name for other in stages.upstream(one)] == ["01_eda", "02_chunking"]
    assert not [other for other in STAGES if set(one.writes) & set(other.reads)]
    with pytest.raises(RunError, match="there is no stage 'appendix_tuning'"):
        stages.stage("appendix_tuning")
    assert stages.stage("appendix_tuning", appendices=True) is one
    assert stages.notebook(one.name).is_file()
    assert stages.since(one) == (one,)
    assert stages.since(STAGES[4]) == STAGES[4:]


def test_files_for_each_fold():
    config = configs.load("sample", {"folds": "0,2"})
    names = ("tables/chunks.parquet", "models/phase_1_fold_{fold}.keras")
    expected = ["tables/chunks.parquet", "models/phase_1_fold_0.keras", "models/phase_1_fold_2.keras"]
    assert stages.files(names, config) == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_has_its_notebook(name):
    assert stages.notebook(name).is_file()


def test_a_missing_notebook():
    with pytest.raises(RunError, match=r"07_more\.ipynb"):
        stages.notebook("07_more")


# ---- fingerprints: what changes them


@pytest.mark.parametrize(
    ("overrides", "stale"),
    [
        ({"data.labels_without_audio": "leave_out"}, since(1)),
        ({"audio.sample_rate_hz": 48_000}, since(2)),
        ({"chunks.overlap_s": 2}, since(2)),
        ({"silence.threshold": 0.2}, since(2)),
        ({"silence.measure": "peak"}, since(2)),
        ({"spectrogram.n_mels": 64}, since(3)),
        ({"splits.group_by": "author"}, since(2)),
        ({"seed": 1}, since(2)),
        ({"batches.threshold": 32}, since(3)),
        ({"augmentation.clipping.max_share": 0.3}, since(3)),
        ({"folds": [1]}, since(3)),
        ({"model.dropout": 0.1}, since(4)),
        ({"phase_1.epochs": 2}, since(4)),
        ({"phase_2.learning_rate": 1e-5}, since(5)),
        ({"testing.nocturnal_source": "soib"}, since(6)),
        ({"compute.workers": 3, "compute.file_time_limit_s": 9, "compute.predict_batch_size": 2}, set()),
    ],
    # Sets are sorted: side by side, every process must give a test the same name.
    ids=lambda values: "+".join(sorted(values)),
)
def test_a_setting_changes_the_stages_that_read_it_and_those_after(overrides, stale, prints):
    assert differing(prints(), prints(overrides)) == stale


def test_fingerprints_differ_between_stages(prints):
    assert len(set(prints().values())) == len(NAMES)


def test_the_version_changes_all(prints, monkeypatch):
    before = prints()
    monkeypatch.setattr(birdlib, "__version__", "99.0")
    assert differing(before, prints()) == set(NAMES)


@pytest.mark.parametrize(
    ("name", "stale"),
    [
        ("train_metadata.csv", since(1)),
        ("train_audio/a/XC1.ogg", since(1)),
        ("sample_submission.csv", since(6)),
        ("test_soundscapes/soundscape_1.ogg", since(6)),
        ("notes.txt", set()),
    ],
)
def test_the_size_of_a_data_file_changes_the_stages_that_read_it(name, stale, prints, data):
    before = prints()
    (data / name).write_bytes(bytes(99))
    assert differing(before, prints()) == stale


@pytest.mark.parametrize(
    ("name", "stale"),
    [("train_audio/b/XC3.ogg", since(1)), ("unlabeled_soundscapes/1.ogg", since(6)), ("traits.csv", since(6))],
)
def test_a_new_data_file_changes_the_stages_that_read_it(name, stale, prints, data):
    before = prints()
    (data / name).parent.mkdir(exist_ok=True)
    (data / name).write_bytes(b"new")
    assert differing(before, prints()) == stale


def test_the_name_of_a_data_file_counts(prints, data):
    before = prints()
    (data / "train_audio/a/XC1.ogg").rename(data / "train_audio/a/XC9.ogg")
    assert differing(before, prints()) == set(NAMES)


def test_the_content_of_a_table_that_the_settings_name_counts(prints, tmp_path):
    path = tmp_path / "traits.csv"
    path.write_text("primary_label,iucn\na,LC\n")
    before = prints({"testing.traits_file": path})
    path.write_text("primary_label,iucn\na,VU\n")  # as long
    assert differing(before, prints({"testing.traits_file": path})) == since(6)


def test_a_new_file_of_background_sound_counts(prints, tmp_path):
    noises = {"augmentation.background.dir": tmp_path / "noises", "augmentation.background.probability": 0.5}
    (tmp_path / "noises/deep").mkdir(parents=True)
    before = prints(noises)
    (tmp_path / "noises/deep/rain.wav").write_bytes(b"new")
    assert differing(before, prints(noises)) == since(3)


def test_data_in_linked_folders_count(prints, data, tmp_path):
    before = prints()
    (data / "train_audio/a").rename(tmp_path / "a")
    (data / "train_audio/a").symlink_to(tmp_path / "a")
    assert prints() == before
    (tmp_path / "a/XC1.ogg").write_bytes(bytes(99))
    assert differing(before, prints()) == since(1)


def test_times_and_the_place_of_the_data_do_not_count(prints, data, tmp_path):
    before = prints()
    for path in data.rglob("*"):
        os.utime(path, (1, 1))
    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(data, moved)
    assert prints() == before
    assert prints(data_dir=moved) == before


def test_without_a_data_folder_the_sample_in_the_run_folder_counts(data, tmp_path):
    one = STAGES[0]
    here = configs.load("sample", {"data.dir": data})
    shutil.copytree(data, tmp_path / "run" / "sample_data")
    assert stages.fingerprint(one, configs.load("sample"), tmp_path / "run") == stages.fingerprint(one, here, tmp_path)


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (lambda cell: cell["source"].append("\nprint('more')"), since(2)),
        (lambda cell: cell["metadata"].update(collapsed=True), set()),
        (lambda cell: cell.update(execution_count=7, outputs=[]), set()),
    ],
    ids=["source", "metadata", "executed"],
)
def test_the_source_of_a_notebook_counts(change, stale, prints, tmp_path, monkeypatch):
    for name in NAMES:
        shutil.copy(stages.notebook(name), tmp_path)
    monkeypatch.setattr(stages, "notebook", lambda name: tmp_path / f"{name}.ipynb")
    before = prints()
    path = tmp_path / "02_chunking.ipynb"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(next(cell for cell in content["cells"] if cell["cell_type"] == "code"))
    path.write_text(json.dumps(content), encoding="utf-8")
    assert differing(before, prints()) == stale


def test_prose_of_a_notebook_does_not_count(prints, tmp_path, monkeypatch):
    for name in NAMES:
        shutil.copy(stages.notebook(name), tmp_path)
    monkeypatch.setattr(stages, "notebook", lambda name: tmp_path / f"{name}.ipynb")
    before = prints()
    path = tmp_path / "02_chunking.ipynb"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["cells"].insert(0, {"cell_type": "markdown", "id": "x", "metadata": {}, "source": ["a word more"]})
    path.write_text(json.dumps(content), encoding="utf-8")
    assert prints() == before


@pytest.fixture
def walked(monkeypatch):
    """The folders whose files were listed, in order."""
    tops, really = [], stages.folders.files
    monkeypatch.setattr(stages.folders, "files", lambda top: (tops.append(top.name), really(top))[1])
    return tops


@pytest.mark.parametrize("name", NAMES)
def test_each_fingerprint_takes_one_walk_through_the_recordings(name, data, tmp_path, walked):
    config = configs.load("sample", {"data.dir": data})
    stages.fingerprint(stages.stage(name), config, tmp_path / "run")
    assert walked.count("train_audio") == 1


def test_fingerprints_that_are_worked_out_together_are_those_of_each_alone(prints, data, tmp_path, walked):
    alone, known = prints(), {}
    walked.clear()
    config = configs.load("sample", {"data.dir": data})
    assert {one.name: stages.fingerprint(one, config, tmp_path / "run", known) for one in STAGES} == alone
    assert walked.count("train_audio") == 1
    (data / "train_audio/a/XC1.ogg").write_bytes(bytes(99))
    assert differing(alone, prints()) == set(NAMES)  # nothing is remembered that was not handed over


# ---- the listing


def test_listing_by_hand(data):
    assert stages.listing(data, ("train_metadata.csv", "train_audio")) == [
        ("train_audio/a/XC1.ogg", 10),
        ("train_audio/b/XC2.ogg", 20),
        ("train_metadata.csv", 50),
    ]
    assert stages.listing(data, ("test_soundscapes", "unlabeled_soundscapes")) == [
        ("test_soundscapes/soundscape_1.ogg", 30)
    ]


def test_listing_of_nothing(tmp_path):
    assert stages.listing(tmp_path / "nowhere", ("train_audio",)) == []
