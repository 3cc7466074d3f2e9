"""What nobody would write: broken audio by the thousand, any text as metadata, any value as a setting.

Chunk arithmetic and splits have theirs in test_chunks.py and test_splits.py.
"""

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from birdlib import audio, metadata
from birdlib import config as configs
from tests.conftest import save, tone

TOOL = Path(__file__).parents[1] / "tools" / "fuzz_audio.py"


def fuzz(*arguments):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.parametrize("cases", [150, pytest.param(3000, marks=pytest.mark.slow)])
def test_broken_audio_is_audio_or_the_one_error(cases, shared, tmp_path):
    done = fuzz("--cases", cases, "--seed", cases, "--data", shared / "data" / "xc10", "--keep", tmp_path / "bad")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{cases:,} cases, seed {cases}: ")


def test_the_fuzzer_tells_what_is_wrong(tmp_path, monkeypatch):
    sys.path.insert(0, str(TOOL.parent))
    try:
        import fuzz_audio
    finally:
        sys.path.pop(0)
    path = save(tmp_path / "a.wav", tone(1, 500))
    assert fuzz_audio.tried(path) == "audio"
    assert fuzz_audio.tried(tmp_path / "none.wav") == "AudioError"
    files = fuzz_audio.originals(None)
    cases = [fuzz_audio.mutated(files, 0, case) for case in range(40)]
    assert cases == [fuzz_audio.mutated(files, 0, case) for case in range(40)]
    assert len({case for case in cases if case not in files}) > 30
    monkeypatch.setattr(audio, "info", lambda path: 1 / 0)
    assert fuzz_audio.tried(path).startswith("ZeroDivisionError")
    monkeypatch.setattr(audio, "info", lambda path: (_ for _ in ()).throw(audio.AudioError("without its path")))
    assert fuzz_audio.tried(path).startswith("odd: ")


quick = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
FIELD = st.one_of(
    st.sampled_from(
        ["", "a", "A", "b", "a/1.ogg", "../x", "/x", "[]", "['a']", "[", '"', "\N{BIRD}", "nan", "start_s"]
    ),
    st.text(max_size=12),
)


@quick
@given(text=st.text(max_size=200) | st.binary(max_size=200))
def test_any_file_is_metadata_or_the_one_error(text, tmp_path):
    path = tmp_path / "train_metadata.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try:
        table, _ = metadata.load(tmp_path)
        said = ""
        assert len(table)
    except metadata.MetadataError as error:
        said = str(error)
    assert "\n" not in said


@quick
@given(rows=st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=8))
def test_every_row_is_used_or_named(rows, tmp_path):
    columns = ["primary_label", "filename", "secondary_labels"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "train_metadata.csv", index=False, errors="replace")
    try:
        table, problems = metadata.load(tmp_path)
    except metadata.MetadataError:
        return
    assert table["filename"].is_unique
    assert len({label.casefold() for label in table["primary_label"]}) == table["primary_label"].nunique()
    for name in table["filename"]:
        assert not PurePosixPath(name).is_absolute()
        assert ".." not in PurePosixPath(name).parts
    dropped = [name for _, name, _ in rows if name and name not in set(table["filename"])]
    assert all(any(name.strip() in place for place in problems) for name in dropped if name.isprintable())


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@quick
@given(key=st.sampled_from(configs.keys()) | st.text(max_size=12), value=VALUE)
def test_any_setting_is_taken_or_refused_in_one_line(key, value, tmp_path):
    try:
        config, said = configs.load("sample", {key: value}), ""
    except configs.ConfigError as error:
        config, said = configs.load("sample"), str(error)
    assert "\n" not in said
    (tmp_path / "again.yaml").write_text(configs.dump(config), encoding="utf-8")
    assert configs.load(tmp_path / "again.yaml") == config
