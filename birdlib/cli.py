"""The `birdlib` command. Thin: every command imports what it calls, so that ``--help`` loads nothing heavy."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import birdlib
from birdlib import cli_kaggle
from birdlib.cli_settings import pairs, settings

if TYPE_CHECKING:
    from birdlib.check import CheckUp

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(cli_kaggle.app, name="kaggle")


@app.callback(invoke_without_command=True)
def _birdlib(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """A folder of bird recordings -> a species classifier one can trust."""
    if version:
        print(birdlib.__version__)
        raise typer.Exit


@app.command()
def run(
    config: Annotated[str | None, typer.Option(help="sample, paper, or a YAML file. [default: sample]")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of recordings, or kaggle:birdclef-2024. [default: the sample]")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Run folder. [default: runs/<config>]")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as seed=1; again for more."),
    ] = None,
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
) -> None:
    """Run the six notebooks. What is unchanged is not run again."""
    overrides = settings(setting or [])
    if sweep:
        _sweep(sweep, config, data_dir, run_dir, overrides, first, only)
        return
    from birdlib import series

    try:
        folder = series.run(config, data_dir, run_dir, overrides, first, only)
    except KeyboardInterrupt:
        print("birdlib: stopped; the same command goes on after what was finished", file=sys.stderr)
        raise typer.Exit(130) from None
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
) -> None:
    """Check a data folder before a long run: every recording is decoded.

    Exit status 0: clean, or only suspicious; 1: something is unreadable, missing or duplicated; 2: could not check.
    """
    try:
        from birdlib import check as module
        from birdlib.settings import Config

        found = module.check(data_dir, Config())
        if csv:
            found.findings.to_csv(csv, index=False)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:
        print(f"birdlib: could not check {data_dir}: {' '.join(str(error).split())}", file=sys.stderr)
        if not (type(error).__module__.startswith("birdlib.") or isinstance(error, OSError)):
            traceback.print_exc()
        raise typer.Exit(2) from None
    _tell(found, csv)
    raise typer.Exit(0 if found.clean(strict) else 1)


def main() -> None:
    """The entry point: birdlib's own errors are one line on standard error and exit status 1."""
    try:
        app()
    except Exception as error:
        if not type(error).__module__.startswith("birdlib."):
            raise
        print(f"birdlib: {error}", file=sys.stderr)
        sys.exit(1)


def _tell(found: CheckUp, csv: Path | None, most: int = 20) -> None:
    """Counts, then the first findings of each kind."""
    print(f"{found.recordings:,} recordings of {found.labels:,} labels; {found.hours:,.2f} hours were decoded")
    for kind, count in found.counts().items():
        print(f"{kind:<12}{count:>8,}")
    for kind, rows in found.findings.groupby("finding", sort=False):
        print()
        for row in rows.head(most).itertuples():
            print(f"{kind:<12}{_printable(row.path)}: {_printable(row.reason)}")
        if len(rows) > most:
            print(f"{kind:<12}... and {len(rows) - most:,} more{f' in {csv}' if csv else '; --csv FILE writes all'}")


def _printable(text: str) -> str:
    """`text` in one line, with nothing in it that a terminal would obey."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _sweep(texts: list[str], config, data_dir, run_dir, overrides, first: str | None, only: str | None) -> None:
    from birdlib import sweeps

    sweeps.refuse_redo(first, only)
    try:
        folders = sweeps.run(pairs(texts, "--sweep"), config, data_dir, run_dir, overrides)
    except KeyboardInterrupt:
        print("birdlib: stopped; the same command goes on after what was finished", file=sys.stderr)
        raise typer.Exit(130) from None
    runs(folders[0].parent)


def _report(folder: Path) -> None:
    metrics = folder / "metrics.json"
    test = json.loads(metrics.read_text(encoding="utf-8")).get("test") if metrics.exists() else None
    if test and test["accuracy"] is not None:
        print(
            f"test{test['on']}: {test['accuracy']:.1%} of chunks right, {test['times_chance']:.1f} times chance; "
            f"{test['recording_accuracy']:.1%} of recordings; macro ROC-AUC {test['macro_roc_auc']:.3f}"
        )
    errors = folder / "tables" / "errors.parquet"
    if errors.exists():
        import pandas as pd

        table = pd.read_parquet(errors)
        for row in table.head(10).itertuples():
            print(f"{row.stage}: {_printable(row.path)}: {_printable(row.reason)}")
        if len(table) > 10:
            print(f"... and {len(table) - 10:,} more in {errors}")
    print(f"run folder: {folder}")
