"""The house: what loads what, what may import what, and how large a room may get."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import birdlib
from birdlib import chunks
from birdlib.parallel import map_files

PACKAGE = Path(birdlib.__file__).parent
MODULES = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
BACKENDS = ("keras", "tensorflow", "jax", "torch")
LINES = 360

# The rooms from top to bottom: a module imports only from those after it.
WITH_KERAS = (
    *("cli", "cli_kaggle", "cli_tune", "cli_settings", "cli_stopping", "kaggle_push", "kaggle_submission", "kernels"),
    *("kaggle_cells", "kaggle_session", "kaggle_wheels", "wheel", "sweeps", "series"),
    *("report", "report_results", "report_facts", "report_notebooks", "tuning"),
    *("export", "testing", "training", "resume", "callbacks", "features", "losses", "models"),
    *("device", "batches", "layers", "layers_wave", "layers_mel", "layers_image"),
)
WITHOUT_KERAS = (
    *(
        "search",
        "studies",
        "predicting",
        "hearing",
        "asked",
        "kept",
        "formats",
        "detections",
        "recorders",
        "submissions",
        "soundscapes",
        "classifier",
        "int8",
        "exported",
        "runtimes",
    ),
    *("archive", "targets", "epochs", "folds", "baseline", "examples", "evaluation", "calibration"),
    *("intervals", "paper", "draws", "augment", "backgrounds", "standins", "sources", "splits", "dealing", "sites"),
    *("chunks", "ration", "store", "pcm", "spectrogram", "sample", "songs", "ogg", "check", "overview", "metadata"),
    *("audio", "parallel", "processes", "cluster", "players"),
    *("plots", "plots_results", "plots_scores", "plots_tuning", "plots_training", "plots_chunks"),
    *("plots_sound", "plots_data", "plots_style", "runs_table", "runs", "environment", "parameters", "competition"),
    *("stages", "folders", "writing", "kaggle_places", "deadline"),
    *("config", "settings", "settings_augmentation", "settings_tuning", "settings_section"),
    "chance",
)
ORDER = WITH_KERAS + WITHOUT_KERAS
# What is imported against the order, within the one function that loads it.
LOADERS = {("classifier", "models"), ("classifier", "device")}


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- what is loaded

LOADED = f"print('loaded:', [name for name in {(*BACKENDS, 'matplotlib')!r} if name in sys.modules])"


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys; import birdlib; print('pandas' in sys.modules, 'numpy' in sys.modules); " + LOADED
    assert run(code).split("\n") == ["False False", "loaded: []", ""]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *([name, "--help"] for name in ("sample", "run", "check", "predict", "report", "tune")),
        ["--version"],
    ],
)
def test_help_loads_nothing_heavy(arguments):
    code = f"""
import sys
sys.argv = ["birdlib", *{arguments!r}]
from birdlib.cli import main
try:
    main()
except SystemExit as stopped:
    assert not stopped.code
{LOADED}
"""
    *shown, loaded, end = run(code).split("\n")
    assert (loaded, end) == ("loaded: []", "")
    assert ("Usage" in "".join(shown)) or arguments == ["--version"]


def test_nothing_below_the_line_loads_a_backend():
    lines = [
        f"import birdlib.{name}\nprint('{name}', *[one for one in {BACKENDS!r} if one in sys.modules])"
        for name in WITHOUT_KERAS
    ]
    assert run("import sys\n" + "\n".join(lines)).split("\n") == [*WITHOUT_KERAS, ""]


def test_only_the_plots_load_matplotlib():
    others = [name for name in WITHOUT_KERAS if not name.startswith("plots")]
    code = "import sys\n" + "\n".join(f"import birdlib.{name}" for name in others) + "\n" + LOADED
    assert run(code) == "loaded: []\n"


def test_an_indexing_worker_loads_no_backend(tiny_data, tiny_config):
    def work(name):
        chunks._index_file(tiny_data / "train_audio" / name, tiny_config)
        return [one for one in BACKENDS if one in sys.modules]

    assert list(map_files(work, ["tinbir1/XC100.ogg"], 60, 1)) == [("tinbir1/XC100.ogg", [])]


# ---- what may import what


def imports(tree, inside=False):
    """(module imported, whether within a function) of a file; what only the type checker sees is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((name.name, inside) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "birdlib":
                yield from ((f"birdlib.{name.name}", inside) for name in node.names)
            else:
                yield node.module, inside
        yield from imports(node, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def parsed(name):
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def test_every_module_has_its_place():
    assert sorted(MODULES) == sorted(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_only_point_down(name):
    below = ORDER[ORDER.index(name) + 1 :]
    for module, inside in imports(parsed(name)):
        if module.startswith("birdlib."):
            other = module.split(".")[1]
            assert other in below or (inside and (name, other) in LOADERS), f"{name} imports {other}"


@pytest.mark.parametrize("name", ORDER)
def test_who_may_name_a_backend(name):
    found = {module.split(".")[0] for module, _ in imports(parsed(name))} & set(BACKENDS)
    assert found <= ({"keras"} if name in WITH_KERAS else set())


def test_the_import_test_finds_what_it_should():
    code = """
import birdlib.one
from birdlib import two
from birdlib.three import thing
if TYPE_CHECKING:
    from birdlib import unseen
def function():
    if True:
        from birdlib import four
"""
    found = list(imports(ast.parse(code)))
    assert found == [
        ("birdlib.one", False),
        ("birdlib.two", False),
        ("birdlib.three", False),
        ("birdlib.four", True),
    ]


# ---- how it is written


@pytest.mark.parametrize("name", ORDER)
def test_a_module_is_one_topic(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) < LINES


def undocumented(tree, prefix=""):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node, f"{node.name}.")


@pytest.mark.parametrize("name", ORDER)
def test_what_is_public_says_what_it_does(name):
    tree = parsed(name)
    assert ast.get_docstring(tree)
    assert list(undocumented(tree)) == []


def test_the_version_is_one():
    path = PACKAGE.parent / "pyproject.toml"
    if not path.is_file():
        pytest.skip("installed, not the repository")
    assert birdlib.__version__ == tomllib.loads(path.read_text(encoding="utf-8"))["project"]["version"]
