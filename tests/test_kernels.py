"""Staging: what a push folder holds, and what is refused before anything is pushed."""

import ast
import json
import re

import nbformat
import pytest

from birdlib import config as configs
from birdlib import kernels, stages, wheel
from birdlib.kernels import KernelError, Wishes
from tests.conftest import needs_installation

pytestmark = needs_installation


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """No Kaggle user is known, and the current folder is an empty one."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def staged(folder):
    """(metadata, notebook) of a push folder."""
    metadata = json.loads((folder / "kernel-metadata.json").read_text(encoding="utf-8"))
    return metadata, nbformat.read(folder / metadata["code_file"], as_version=4)


def sources(notebook):
    return [cell.source for cell in notebook.cells]


def parameters(notebook):
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    return {node.target.id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}


def wished(**changes):
    return Wishes(**{"user": "ann", **changes})


# ---- the push folder


def test_the_final_kernel_is_described_at_the_top_of_the_repository():
    template = json.loads(wheel.kernel_metadata().read_text(encoding="utf-8"))
    assert template["enable_gpu"] is True
    assert template["machine_shape"] == "NvidiaTeslaT4"
    assert (template["is_private"], template["enable_internet"]) == (True, True)
    assert template["competition_sources"] == ["birdclef-2024"]
    assert template["docker_image_pinning_type"] == "original"
    assert template["id"].split("/")[1] == kernels.slugified(template["title"])
    assert (wheel.kernel_metadata().parent / template["code_file"]).is_file()


@pytest.mark.parametrize(
    ("title", "slug"),
    [("birdlib 6: testing", "birdlib-6-testing"), ("What's  up?", "what-s-up"), ("A -- b_c", "a-b-c")],
)
def test_a_title_becomes_what_kaggle_makes_of_it(title, slug):
    slugify = pytest.importorskip("slugify").slugify  # the kaggle command's own
    assert kernels.slugified(title) == slug == slugify(title)


def test_a_staged_notebook_is_the_notebook_with_the_library_and_its_places_put_in(tmp_path):
    metadata, notebook = staged(kernels.stage(None, wished()))
    nbformat.validate(notebook)
    assert (tmp_path / "build/kaggle/birdlib-6-testing/kernel-metadata.json").is_file()
    assert metadata["id"] == "ann/birdlib-6-testing"
    own = sources(nbformat.read(stages.notebook("06_testing"), as_version=4))
    added = [source for source in sources(notebook) if source not in own]
    assert [source.splitlines()[0][:20] for source in added] == [
        "# birdlib 0.1.0, the", 'config: str = "paper', "On Kaggle, the next ", "from birdlib import ",
        "from birdlib import ",
    ]  # fmt: skip
    assert "report.write(run.dir)" in notebook.cells[-1].source
    gone = [source.splitlines()[0] for source in own if source not in sources(notebook)]
    assert [line[:18] for line in gone] == ["import importlib.u", "config: str = None"]
    assert [source for source in own if source in sources(notebook)] == [s for s in sources(notebook) if s in own]
    assert notebook.cells[0].source == added[0]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(re.sub(r"^%.*", "", cell.source, flags=re.M), "cell", "exec")


def test_the_settings_are_in_the_parameters_and_mean_the_same(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: sample\nsilence: {threshold: 0.05}\nmodel.hidden: [16, 8]\n")
    _, notebook = staged(kernels.stage(None, wished(config=file, overrides={"phase_2.learning_rate": "3e-5"})))
    found = parameters(notebook)
    assert found["config"] == "sample"
    assert set(found["overrides"]) == {"silence.threshold", "model.hidden", "phase_2.learning_rate"}
    expected = configs.load(file, {"phase_2.learning_rate": 3e-5})
    assert configs.load(found["config"], found["overrides"]) == expected


def test_the_chain_names_what_each_reads_and_uses_the_gpu_where_it_helps():
    folders = kernels.stage_all(None, wished(datasets=["ann/weights"]))
    found = [staged(folder)[0] for folder in folders]
    ids = {entry["code_file"][:2]: entry["id"] for entry in found}
    for entry, one in zip(found, stages.STAGES, strict=True):
        read = set(one.reads)
        writers = {other.name[:2] for other in stages.STAGES if read & set(other.writes)}
        assert set(entry["kernel_sources"]) == {ids[number] for number in writers}
        assert entry["dataset_sources"] == ["ann/weights"]
        assert entry["enable_gpu"] is (one.name[:2] in ("04", "05", "06"))
        assert kernels.slugified(entry["title"]) == entry["id"].split("/")[1]
    assert "alone=False" in "".join(sources(staged(folders[-1])[1]))


def test_wishes_go_into_the_metadata():
    wishes = wished(
        cpu=True, internet=False, competition="birdclef-2026", kernels=["ann/k-1"], models=["a/b/keras/c/1"]
    )
    metadata, notebook = staged(kernels.stage(None, wishes))
    assert (metadata["enable_gpu"], metadata["machine_shape"], metadata["enable_internet"]) == (False, "", False)
    assert metadata["competition_sources"] == ["birdclef-2026"]
    assert (metadata["kernel_sources"], metadata["model_sources"]) == (["ann/k-1"], ["a/b/keras/c/1"])
    assert 'competition="birdclef-2026", hours=11, gpu=False' in "".join(sources(notebook))


def test_another_title_is_another_kernel(tmp_path):
    folder = kernels.stage(None, wished(title="birdlib: My submission!", kernels=["ann/birdlib-6-testing"]))
    assert folder.name == "birdlib-my-submission"
    metadata, _ = staged(folder)
    assert (metadata["id"], metadata["title"]) == ("ann/birdlib-my-submission", "birdlib: My submission!")


def test_the_same_is_staged_twice():
    one, two = (kernels.stage(None, wished(user="ann")) / "06_testing.ipynb" for _ in range(2))
    first = one.read_bytes()
    assert two.read_bytes() == first
    assert len(first) < 0.7 * kernels.LARGEST_BYTES  # room for the library to grow, and for the notebook's settings


# ---- whose it is


def test_the_users_name_is_looked_for_where_kaggle_keeps_it(monkeypatch, tmp_path):
    with pytest.raises(KernelError, match="give it with --user"):
        kernels.user_name()
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir(parents=True)
    (folder / "credentials.json").write_text('{"username": "by-login", "refresh_token": "x"}')
    assert kernels.user_name() == "by-login"
    (folder / "kaggle.json").write_text('{"username": "by-file", "key": "x"}')
    assert kernels.user_name() == "by-file"
    monkeypatch.setenv("KAGGLE_USERNAME", "by-environment")
    assert kernels.user_name() == "by-environment"
    assert kernels.user_name("given") == "given"
    with pytest.raises(KernelError, match="no Kaggle user name"):
        kernels.user_name("Ann Smith")


def test_a_credentials_file_that_is_broken_names_nobody(tmp_path):
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir(parents=True)
    for text in ("not json", "[]", '{"key": "x"}'):
        (folder / "kaggle.json").write_text(text)
        with pytest.raises(KernelError, match="give it with --user"):
            kernels.user_name()


# ---- what would go wrong on Kaggle goes wrong here


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datasets": ["weights"]}, "dataset_sources: 'weights' is not OWNER/SLUG"),
        ({"kernels": ["https://kaggle.com/ann/k"]}, "kernel_sources"),
        ({"models": ["a/b"]}, "model_sources"),
        ({"competition": "c/birdclef"}, "competition_sources"),
        ({"kernels": ["ann/birdlib-6-testing"]}, "cannot read its own output"),
        ({"title": "six"}, "a title has 5 to 50 characters"),
        ({"overrides": {"testing.traits_file": "/home/ann/traits.csv"}}, "a file of this machine"),
        ({"hours": 12}, "ends a session after 12 hours"),
        ({"hours": 0}, "--hours 0"),
        ({"overrides": {"data.dir": "/home/ann/birds"}}, "a folder of this machine"),
        ({"overrides": {"model.weights": "/home/ann/w_notop.h5"}}, "a file of this machine"),
        ({"overrides": {"model.backbone": "custom_cnn"}}, "custom_cnn has no pretrained weights"),
        ({"internet": False}, "without internet the ImageNet weights of convnext_tiny cannot be downloaded"),
        (
            {"internet": False, "config": "sample", "overrides": {"augmentation.where": "host"}},
            "which Kaggle lacks",
        ),
    ],
)
def test_what_cannot_work_there_is_not_staged(tmp_path, changes, words):
    with pytest.raises(KernelError) as caught:
        kernels.stage(tmp_path / "out", wished(**changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_setting_that_is_unknown_is_not_staged(tmp_path):
    with pytest.raises(configs.ConfigError, match=r"did you mean 'phase_1\.epochs'"):
        kernels.stage(tmp_path / "out", wished(overrides={"phase_1.epoch": 3}))


def test_without_internet_weights_or_a_run_may_be_attached():
    metadata, _ = staged(kernels.stage(None, wished(internet=False, datasets=["ann/weights"])))
    assert metadata["enable_internet"] is False


@pytest.mark.parametrize("title", ["birdlib 6: The test", "6", "birdlib 6: " + "The test " * 10])
def test_a_title_that_does_not_fit_its_id_is_refused(tmp_path, title):
    file = tmp_path / "kaggle-metadata.json"
    template = json.loads(wheel.kernel_metadata().read_text(encoding="utf-8"))
    file.write_text(json.dumps({**template, "title": title}))
    with pytest.raises(KernelError, match="write them so that they fit"):
        kernels.stage(tmp_path / "out", wished(metadata=file))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"title": "x"}'])
def test_metadata_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(KernelError, match=r"m\.json cannot be read"):
        kernels.stage(tmp_path / "out", wished(metadata=tmp_path / "m.json"))


def test_a_notebook_too_large_is_not_staged(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "LARGEST_BYTES", 100_000)
    with pytest.raises(KernelError, match=r"has \d{3},\d{3} bytes .* takes 100,000"):
        kernels.stage(tmp_path / "k", wished())
    assert not (tmp_path / "k").exists()
