"""The run folder: where everything lies, and how it is written so that nothing is ever half there.

What the folder holds, and which notebook makes it, is the table in `birdlib.stages`.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock, Timeout

from birdlib import competition, environment, parameters
from birdlib.stages import (
    STAGES,
    RunError,
    Stage,
    files,
    fingerprint,
    listing_digest,
    record,
    record_path,
    settings,
    since,
    stage,
    upstream,
    whole,
)
from birdlib.writing import digest, read_json, replacing, sweep, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from birdlib.config import Config

LOCK_HELD = "BIRDLIB_RUN_LOCK"  # the series holds the lock for the notebooks it runs; this tells them so
_held: dict[Path, FileLock] = {}


def default_dir(config: str | Path | None) -> Path:
    """``runs/<preset, or the file's name>`` in the current folder, or beside ``notebooks`` when that is current."""
    here = Path.cwd()
    root = here.parent if here.name == "notebooks" else here
    return root / "runs" / (Path(config).stem if config else "sample")


class Run:
    """A run folder and its settings, as one stage sees them. Get one from `open_run`."""

    def __init__(self, folder: Path, config: Config, stage: Stage) -> None:
        self.dir, self.config, self.stage = folder, config, stage

    @property
    def synthetic(self) -> str:
        """ " (synthetic sample data)" where that is what the run is on, else nothing: to be said beside any result."""
        return " (synthetic sample data)" if (self.data_dir / "synthetic.json").exists() else ""

    @property
    def data_dir(self) -> Path:
        """The folder of recordings: the one that is set, else the sample data set inside the run folder."""
        return self.config.data.dir or self.dir / "sample_data"

    def path(self, name: str) -> Path:
        """Where `name` ("models/phase_1_fold_0.keras") lies; its folder is made."""
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def read_table(self, name: str) -> pd.DataFrame:
        """The table ``tables/<name>.parquet``."""
        return pd.read_parquet(self.dir / "tables" / f"{name}.parquet")

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """`table` as ``tables/<name>.parquet``, whole or not at all; the same table gives the same bytes."""
        with replacing(self.dir / "tables" / f"{name}.parquet") as aside:
            table.reset_index(drop=True).to_parquet(aside, index=False)

    def write_csv(self, name: str, table: pd.DataFrame) -> None:
        """`table` as the CSV file `name` ("submission.csv"), whole or not at all."""
        with replacing(self.dir / name) as aside:
            table.to_csv(aside, index=False)

    def save_figure(self, figure: Figure, name: str) -> Figure:
        """Keeps `figure` as ``figures/<stage number>_<name>.png`` and hands it back, so that a cell can show it."""
        path = self.dir / "figures" / f"{self.stage.name.partition('_')[0]}_{name}.png"
        with replacing(path) as aside:
            figure.savefig(aside, bbox_inches="tight")
        return figure

    def record_errors(self, errors: Mapping[str, str]) -> pd.DataFrame:
        """Puts this stage's failures (path -> reason) into the errors table, in place of its earlier ones.

        Returns
        -------
        table : this stage's rows (path, stage, reason), sorted by path.
        """
        rows = [{"path": path, "stage": self.stage.name, "reason": reason} for path, reason in sorted(errors.items())]
        mine = pd.DataFrame(rows, columns=["path", "stage", "reason"], dtype="str")
        path = self.dir / "tables" / "errors.parquet"
        if path.exists():
            before = pd.read_parquet(path)
            before = before[before["stage"] != self.stage.name]
            self.write_table("errors", pd.concat([before, mine]).sort_values(["stage", "path"]))
        else:
            self.write_table("errors", mine)
        return mine

    def update_metrics(self, section: str, values: Mapping[str, Any]) -> None:
        """Sets one section of the metrics, such as ``phase_1``, in place of its earlier values.

        Each stage has its own file under ``metrics/``; ``metrics.json`` is all of them together.
        """
        path = self.dir / "metrics" / f"{self.stage.name}.json"
        write_json(path, {**read_json(path), section: dict(values)})
        write_json(self.dir / "metrics.json", self.metrics())

    def metrics(self) -> dict[str, Any]:
        """All sections of the metrics so far."""
        parts = [read_json(path) for path in sorted((self.dir / "metrics").glob("*.json"))]
        return {section: values for part in parts for section, values in part.items()}

    def part(self, name: str) -> Any:
        """What `keep_part` kept before this stage was interrupted; None if nothing, or if it was made otherwise."""
        kept = read_json(parts_path(self.dir, self.stage))
        same = kept.get("fingerprint") == fingerprint(self.stage, self.config, self.dir)
        return kept["parts"].get(name) if same else None

    def keep_part(self, name: str, value: Any) -> None:
        """Notes that a part of this stage, such as a fold, is done: if it is interrupted, it goes on after that."""
        path = parts_path(self.dir, self.stage)
        kept, now = read_json(path), fingerprint(self.stage, self.config, self.dir)
        before = kept["parts"] if kept.get("fingerprint") == now else {}
        write_json(path, {"fingerprint": now, "parts": {**before, name: value}})

    def finish(self) -> None:
        """Records that the stage is done, with what it was made from, and lets go of the folder.

        Raises
        ------
        RunError
            if a file that the stage has to write is not there.
        """
        written = files(self.stage.writes, self.config)
        if missing := [name for name in written if not (self.dir / name).exists()]:
            raise RunError(f"{self.stage.name} ends without writing {', '.join(missing)}")
        done = {
            "fingerprint": fingerprint(self.stage, self.config, self.dir),
            "settings": settings(self.stage, self.config),
            "data": [str(self.data_dir), listing_digest(self.data_dir, self.stage.data)],
            "made_with": environment.describe(),
            "outputs": {name: [(self.dir / name).stat().st_size, digest(self.dir / name)] for name in written},
        }
        write_json(record_path(self.stage, self.dir), done)
        forget_parts(self.dir, self.stage)
        unlock(self.dir)


def open_run(
    stage_name: str,
    config: str | Path | None = None,
    run_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | str | None = None,
) -> Run:
    """Opens the run folder for a stage: settles its settings, looks for its inputs, takes its lock.

    Parameters
    ----------
    stage_name : such as "04_phase_1".
    config : a preset or a YAML file; None: the run folder's own ``config.yaml``, or ``sample`` in a new folder.
    run_dir : the run folder; None: ``runs/<config>``.
    data_dir : the folder of recordings, short for the override ``data.dir``; or ``kaggle:birdclef-2024``, for a
        competition's data by `birdlib.competition`.
    overrides : dotted settings on top.

    Raises
    ------
    birdlib.parameters.ParameterError
        if papermill gave the notebook a parameter that it does not have.
    birdlib.competition.CompetitionError
        if the competition's data cannot be had.
    RunError
        if the folder cannot be written, is in use, lacks an input (the message says which notebook makes it), or
        holds a finished stage that read a setting which would now change.
    birdlib.config.ConfigError
        for settings that do not hold.
    """
    parameters.refuse_unknown()
    this = stage(stage_name, appendices=True)
    folder = Path(str(run_dir or default_dir(config))).expanduser().absolute()  # papermill reads "2024" as a number
    taken = lock(folder, this.name)
    try:
        settled = settle(folder, config, data_dir, overrides, redo=since(this))
        require_inputs(this, settled, folder)
        keep_settings(folder, settled)
        # From here on its files may be of two makes, until it finishes.
        record_path(this, folder).unlink(missing_ok=True)
    except BaseException:
        if taken:
            unlock(folder)
        raise
    return Run(folder, settled, this)


def settle(
    folder: Path,
    config: str | Path | None,
    data_dir: str | Path | None,
    overrides: Mapping[str, Any] | str | None,
    redo: tuple[Stage, ...] = (),
) -> Config:
    """The settings that a run folder would get; `keep_settings` writes them.

    `redo` are the stages about to be run again: what they alone have read may change; what any other finished
    stage has read may not.
    """
    from birdlib import config as configs  # here: the training path works where pydantic is not installed

    own = folder / "config.yaml"
    base = config if config is not None else own if own.exists() else "sample"
    config = configs.load(base, overrides)
    where = data_dir or config.data.dir or (configs.load(own).data.dir if own.exists() else None)
    # Paths are made absolute, so that the folder's own settings mean the same from anywhere.
    paths = {
        "data.dir": competition.folder(where) if where else None,
        "testing.traits_file": config.testing.traits_file,
        "sources.store_dir": config.sources.store_dir,
        "augmentation.background.dir": config.augmentation.background.dir,
    }
    if config.model.weights not in (None, "imagenet"):
        paths["model.weights"] = config.model.weights
    found = {key: str(Path(path).expanduser().absolute()) for key, path in paths.items() if path}
    if found:
        config = configs.load(base, {**configs.mapping(overrides), **found})
    _refuse_changes(folder, config, redo)
    return config


def keep_settings(folder: Path, config: Config) -> None:
    """Writes the settings of a run folder to its ``config.yaml``."""
    from birdlib import config as configs

    own, text = folder / "config.yaml", configs.dump(config)
    if not own.exists() or own.read_text(encoding="utf-8") != text:
        with replacing(own) as aside:
            aside.write_text(text, encoding="utf-8")


def lock(folder: Path, owner: str) -> bool:
    """Takes the run folder for this process; does nothing if it, or the series that started it, has it already.

    Returns
    -------
    whether this call took it.

    Raises
    ------
    RunError
        if another process has it, or the folder cannot be made or written.
    """
    if folder in _held or os.environ.get(LOCK_HELD) == str(folder):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = FileLock(folder / ".lock", timeout=0)
        taken.acquire()
        _held[folder] = taken
        sweep(folder)
        write_json(folder / ".lock.json", {"process": os.getpid(), "doing": owner})
        return True
    except Timeout:
        held = read_json(folder / ".lock.json")
        raise RunError(
            f"{folder} is in use by process {held.get('process', '?')} ({held.get('doing', '?')}): wait for it, close "
            "its notebook, or name another run folder"
        ) from None
    except OSError as error:
        unlock(folder)
        raise RunError(f"the run folder {folder} cannot be written ({error.strerror or error}): name another") from None


def unlock(folder: Path) -> None:
    """Lets go of a run folder that `lock` took."""
    if taken := _held.pop(folder, None):
        taken.release()


def is_current(this: Stage, config: Config, folder: Path, known: dict[str, str] | None = None) -> bool:
    """Whether a stage is done, its files lie there as it left them, and nothing it was made from has changed.

    `known` is as in `birdlib.stages.fingerprint`.
    """
    return whole(this, folder) and record(this, folder)["fingerprint"] == fingerprint(this, config, folder, known)


def forget_parts(folder: Path, this: Stage) -> None:
    """Drops what an interrupted stage has kept, so that it begins anew."""
    parts_path(folder, this).unlink(missing_ok=True)
    shutil.rmtree(epochs_path(folder, this), ignore_errors=True)


def epochs_path(folder: Path, this: Stage) -> Path:
    """The folder in which the unfinished trainings of a stage keep their epochs (`birdlib.resume`)."""
    return folder / "stages" / f"{this.name}.epochs"


def parts_path(folder: Path, this: Stage) -> Path:
    """Where an unfinished stage notes which of its parts are done (`Run.keep_part`)."""
    return folder / "stages" / f"{this.name}.parts.json"


def _refuse_changes(folder: Path, config: Config, redo: tuple[Stage, ...]) -> None:
    other = {one: changed for one in STAGES if (changed := _changed(one, folder, config))}
    for one, changed in other.items():
        if one not in redo:
            raise RunError(
                f"{one.name} has finished in {folder} with other {', '.join(changed)}: name another run folder, or run "
                f"again from there (birdlib run --from {next(iter(other)).name[:2]})"
            )


def _changed(one: Stage, folder: Path, config: Config) -> list[str]:
    """What a finished stage has read that is different by now, in words."""
    if not (done := record(one, folder)):
        return []
    now, data_dir = settings(one, config), config.data.dir or folder / "sample_data"
    changed = [f"settings of {name}" for name, old in done["settings"].items() if _differ(old, now.get(name))]
    where, digest = done["data"]
    moved = where != str(data_dir) and digest != listing_digest(data_dir, one.data)
    return [*changed, *["data"] * moved]


def _differ(old: Any, new: Any) -> bool:
    """Whether a recorded setting has changed; what a later version has added or dropped has not."""
    if isinstance(old, dict) and isinstance(new, dict):
        return any(_differ(old[key], new[key]) for key in old.keys() & new.keys())
    return old != new


def require_inputs(this: Stage, config: Config, folder: Path) -> None:
    """Raises `RunError` if a file that the stage reads is missing; the message says which notebook makes it.

    Warns if what made it has other inputs by now.
    """
    known: dict[str, str] = {}
    for one in upstream(this):
        wanted = files(tuple(name for name in one.writes if name in this.reads), config)
        if missing := [name for name in wanted if not (folder / name).exists()]:
            raise RunError(f"{folder} has no {missing[0]}: run the notebook {one.name}, which makes it, first")
        if not is_current(one, config, folder, known):
            warnings.warn(
                f"what {one.name} was made from has changed since; run it again for results that fit", stacklevel=3
            )
