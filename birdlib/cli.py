"""The `birdlib` command. Thin: every command imports what it calls, so that ``--help`` loads nothing heavy."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import birdlib
from birdlib import cli_kaggle, cli_tune
from birdlib.cli_settings import ConfigOption, DataDir, RunDir, Setting, pairs, settings
from birdlib.cli_stopping import ended_by_signal, stoppable

if TYPE_CHECKING:
    from birdlib.check import CheckUp

_CLUSTER = typer.Option(help="Scheduler of a Dask cluster, tcp://HOST:PORT, to work on files there.")
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(cli_kaggle.app, name="kaggle")
app.command()(cli_tune.tune)


@app.callback(invoke_without_command=True)
def _birdlib(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """A folder of bird recordings -> a species classifier one can trust."""
    if version:
        print(birdlib.__version__)
        raise typer.Exit


@app.command()
def run(
    config: ConfigOption = None,
    data_dir: DataDir = None,
    run_dir: RunDir = None,
    setting: Setting = None,
    first: Annotated[
        str | None, typer.Option("--from", help="Run this stage and all after it again (01 to 06).")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Run this stage alone.")] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="A run for each value of a setting; again for more values, or settings."
        ),
    ] = None,
    cluster: Annotated[str | None, _CLUSTER] = None,
) -> None:
    """Run the six notebooks. What is unchanged is not run again."""
    overrides = settings(setting or []) | ({"compute.cluster": cluster} if cluster else {})
    if sweep:
        _sweep(sweep, config, data_dir, run_dir, overrides, first, only)
        return
    from birdlib import series

    with stoppable("the same command goes on after what was finished"):
        folder = series.run(config, data_dir, run_dir, overrides, first, only)
    _report(folder)


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where run folders are.")] = Path("runs"),
    csv: Annotated[Path | None, typer.Option(help="Write the table here too, as CSV.")] = None,
) -> None:
    """List run folders: the settings in which they differ, and their results."""
    from birdlib import runs_table

    found = runs_table.find(folder)
    if not found:
        print(f"no run folders in {folder}")
        return
    table = runs_table.table(found, folder)
    if csv:
        table.to_csv(csv)
    print(table.to_string(float_format="{:.3g}".format, na_rep="-"))


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run folder.")]) -> None:
    """Write a run's report again, report/index.html, as every run does at its end; also while it runs."""
    from birdlib import report as module

    page = module.write(run_dir)
    print(f"report: {page} ({page.stat().st_size / 1e6:.1f} MB)")


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is missing or empty.")],
    seed: Annotated[int, typer.Option(help="Another seed, another data set.", min=0)] = 0,
) -> None:
    """Write the built-in synthetic sample data set, in the layout of BirdCLEF."""
    from birdlib import sample as module

    print(f"synthetic sample data set: {module.write(folder, seed)}")


@app.command()
def check(
    data_dir: Annotated[Path, typer.Argument(metavar="DATA_DIR", help="A folder of recordings; it is only read.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything is suspicious, too.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write all that was found to this file, too.")] = None,
    cluster: Annotated[str | None, _CLUSTER] = None,
) -> None:
    """Check a data folder before a long run: every recording is decoded.

    Exit status 0: clean, or only suspicious; 1: something is unreadable, missing or duplicated; 2: could not check.
    """
    if csv and not _writable(csv):
        print(f"birdlib: --csv {csv} cannot be written: make its folder, or name another place", file=sys.stderr)
        raise typer.Exit(2)
    with stoppable("nothing was checked to its end"):
        try:
            from birdlib import check as module
            from birdlib import config

            found = module.check(data_dir, config.load("paper", {"compute.cluster": cluster}))
        except Exception as error:
            print(f"birdlib: could not check {data_dir}: {' '.join(str(error).split())}", file=sys.stderr)
            if not (type(error).__module__.startswith("birdlib.") or isinstance(error, OSError)):
                traceback.print_exc()
            raise typer.Exit(2) from None
    _tell(found, csv)
    if csv:
        _write_findings(found, csv)
    raise typer.Exit(0 if found.clean(strict) else 1)


@app.command()
def export(
    run_dir: Annotated[Path, typer.Option(help="Run folder whose fifth notebook is done.")],
    out: Annotated[Path, typer.Option(help="Folder to write: missing, empty, or an earlier export.")],
    format: Annotated[str, typer.Option(help="openvino, or onnx (through torch).")] = "openvino",
    precision: Annotated[str, typer.Option(help="f32, bf16 (openvino) or int8.")] = "f32",
    data_dir: Annotated[str | None, typer.Option(help="Where the run's recordings are by now, to check it on.")] = None,
) -> None:
    """Write a run's classifier as a folder that predicts without Keras, once it was checked against Keras."""
    if format == "onnx":
        os.environ.setdefault("KERAS_BACKEND", "torch")
    from birdlib import export as module

    with stoppable(f"{out} is as it was"):
        parities = module.export(run_dir, out, format, precision, data_dir)
    for found in parities:
        print(
            f"checked on {found.chunks} chunks: largest difference {found.difference:.2g}, top-1 agreement "
            f"{found.agreement:.1%}, macro ROC-AUC {found.roc_auc:.4f} (Keras {found.roc_auc_keras:.4f})"
        )
    print(f"exported classifier: {out}")


@app.command()
def predict(
    audio: Annotated[list[Path], typer.Argument(metavar="AUDIO|FOLDER...", help="Recordings, and folders of them.")],
    model: Annotated[list[Path], typer.Option(help="Folder of birdlib export, or run folder; again to average.")],
    out: Annotated[Path, typer.Option(help="Folder to write. A stopped prediction goes on in its folder.")],
    format: Annotated[str, typer.Option(help="submission, table, raven or audacity.")] = "table",
    threshold: Annotated[float, typer.Option(help="Least probability of a detection.")] = 0.5,
    top_k: Annotated[int | None, typer.Option(help="At most so many species in a window.")] = None,
    species: Annotated[Path | None, typer.Option(help="Text file of the labels to keep, one a line.")] = None,
    merge: Annotated[bool, typer.Option(help="Make windows side by side one detection.")] = True,
    step: Annotated[float | None, typer.Option(help="Seconds between windows. [default: their length]")] = None,
    neighbours: Annotated[float | None, typer.Option(help="Weight of each neighbouring window, 0 to 0.5.")] = None,
    file_mean: Annotated[float | None, typer.Option(help="Weight of the recording's mean, 0 to 1.")] = None,
    parquet: Annotated[bool, typer.Option("--parquet", help="The table as Parquet, not CSV.")] = False,
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Keep the features of every window.")] = False,
    sample: Annotated[Path | None, typer.Option(help="sample_submission.csv. [default: beside the audio]")] = None,
    budget_minutes: Annotated[float | None, typer.Option(help="Stop then, and fill up with class priors.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0: one a core.", min=0)] = 0,
    runtime: Annotated[str, typer.Option(help="auto (the fastest installed), openvino, onnxruntime, keras.")] = "auto",
    cluster: Annotated[str | None, _CLUSTER] = None,
) -> None:
    """Hear recordings of any length, and write a submission, a table, Raven selections or Audacity labels."""
    from birdlib import asked, predicting

    choice = asked.choice(threshold, top_k, species, merge)
    smoothing = {"step_s": step, "neighbours": neighbours, "file_mean": file_mean}
    options = predicting.Options(format, choice, parquet, embeddings, sample, budget_minutes, workers, runtime, cluster)
    models = [_fastest(one, runtime) for one in model]
    config = predicting.together(models, {name: value for name, value in smoothing.items() if value is not None})
    with stoppable("the same command goes on after the recordings it has heard"):
        summary = predicting.predict(audio, models, out, config, options)
    print("\n".join(summary.lines()))
    if summary.nothing:
        print(f"birdlib: no recording could be heard; {out / 'errors.csv'} says why", file=sys.stderr)
        raise typer.Exit(1)


def _fastest(model: Path, runtime: str) -> Path:
    """A run folder's own export, made the first time, where OpenVINO is installed; else the folder as it is.

    So it is too where the export cannot be made, as in a folder that may not be written to, unless OpenVINO was named.
    """
    from birdlib import exported, runtimes
    from birdlib.audio import AudioError
    from birdlib.store import StoreError

    if exported.is_export(model) or runtime not in ("auto", "openvino") or not runtimes.installed("openvino"):
        return model
    exported.read(model)  # a folder that is none is said to be none before anything is loaded
    from birdlib import export

    try:
        return export.for_predicting(model)
    except (exported.ExportError, runtimes.MissingExtraError, AudioError, StoreError, OSError) as error:
        if runtime != "auto":
            raise
        print(f"birdlib: no export of {model} could be made ({error}): predicting by Keras", file=sys.stderr)
        return model


def main() -> None:
    """The entry point: birdlib's own errors are one line on standard error and exit status 1."""
    try:
        with ended_by_signal():
            app()
    except Exception as error:
        if not type(error).__module__.startswith("birdlib."):
            raise
        print(f"birdlib: {error}", file=sys.stderr)
        sys.exit(1)


def _tell(found: CheckUp, csv: Path | None, most: int = 20) -> None:
    """Counts, then the first findings of each kind."""
    from birdlib.audio import printable

    print(f"{found.recordings:,} recordings of {found.labels:,} labels; {found.hours:,.2f} hours were decoded")
    for kind, count in found.counts().items():
        print(f"{kind:<12}{count:>8,}")
    for kind, rows in found.findings.groupby("finding", sort=False):
        print()
        for row in rows.head(most).itertuples():
            print(f"{kind:<12}{printable(row.path)}: {printable(row.reason)}")
        if len(rows) > most:
            print(f"{kind:<12}... and {len(rows) - most:,} more{f' in {csv}' if csv else '; --csv FILE writes all'}")


def _writable(path: Path) -> bool:
    """Whether a file could be written there; asked before the hours that it takes to know what to write."""
    place = path if path.exists() else path.absolute().parent
    return place.is_dir() != path.exists() and os.access(place, os.W_OK)


def _write_findings(found: CheckUp, csv: Path) -> None:
    """After all was said: what took hours to find is not lost with a full disk."""
    try:
        found.findings.to_csv(csv, index=False)
    except OSError as error:
        print(f"birdlib: the findings above could not be written to {csv}: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def _sweep(texts: list[str], config, data_dir, run_dir, overrides, first: str | None, only: str | None) -> None:
    from birdlib import sweeps

    sweeps.refuse_redo(first, only)
    with stoppable("the same command goes on after what was finished"):
        try:
            folders = sweeps.run(pairs(texts, "--sweep"), config, data_dir, run_dir, overrides)
        except sweeps.RunsError as error:
            runs(error.folder)  # what the others have found
            raise
    runs(folders[0].parent)


def _report(folder: Path) -> None:
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for side in ("test", "validation"):  # the latter where a split has no test
        if (found := metrics.get(side)) and found["accuracy"] is not None:
            print(
                f"{side}{found['on']}: {_told(found, 'accuracy', '.1%')} of chunks right, "
                f"{found['times_chance']:.1f} times chance; {_told(found, 'recording_accuracy', '.1%')} of recordings; "
                f"macro ROC-AUC {_told(found, 'macro_roc_auc', '.3f')} (95 % intervals)"
            )
    errors = folder / "tables" / "errors.parquet"
    if errors.exists():
        import pandas as pd

        from birdlib.audio import printable

        table = pd.read_parquet(errors)
        for row in table.head(10).itertuples():
            print(f"{row.stage}: {printable(row.path)}: {printable(row.reason)}")
        if len(table) > 10:
            print(f"... and {len(table) - 10:,} more in {errors}")
    print(f"run folder: {folder}")
    print(f"report: {folder / 'report' / 'index.html'}")


def _told(found: dict, name: str, form: str) -> str:
    """A metric and its interval in words; one that does not exist, as a ranking of one species, is unknown."""
    from birdlib import intervals

    numbers = [found[name], *found["intervals"][name]]
    return intervals.told(*(float("nan") if each is None else each for each in numbers), form)
