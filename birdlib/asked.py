"""What `birdlib predict` is asked: which recordings, which species, and what a submission is to have."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from birdlib import audio, folders, soundscapes, submissions
from birdlib.detections import Choice
from birdlib.kept import PredictError, Recording
from birdlib.submissions import Wanted

if TYPE_CHECKING:
    from birdlib.config import Config


def recordings(paths: Sequence[Path], config: Config) -> list[Recording]:
    """The audio files among files and folders, each by its name below what was given, sorted by it.

    A folder in BirdCLEF's layout gives its soundscapes (`birdlib.soundscapes.find`), any other all that is in it.

    Raises
    ------
    PredictError
        if a path is missing, if two files have the same name, or if there is no audio.
    """
    found: list[Recording] = []
    for path in map(Path, paths):
        if not os.path.exists(path):  # and not Path.exists, which stumbles over a name that is too long
            raise PredictError(f"{path}: no such file or folder")
        if _has_soundscapes(path):
            found += [Recording(one, one.name) for one in soundscapes.find(path, config).paths]
        elif path.is_dir():
            inside = filter(audio.is_audio, folders.files(path))
            found += [Recording(one, one.relative_to(path).as_posix()) for one in inside]
        else:
            found.append(Recording(path, path.name))
    found = list(dict.fromkeys(found))  # what is named twice is heard once
    if same := _same(found, lambda one: one.name):
        raise PredictError(
            f"two recordings are called {same[0].name}, {same[0].path} and {same[1].path}: predict each into a folder "
            "of its own (--out), or name the folder above both"
        )
    if not found:
        told = "".join(f"; {note}" for note in unread(paths))
        raise PredictError(f"there is no audio in {', '.join(map(str, paths))} ({' '.join(audio.SUFFIXES)}){told}")
    return sorted(found, key=lambda one: one.name)


def stand_ins(paths: Sequence[Path], config: Config) -> Iterator[str]:
    """That a few recordings are heard where a data folder has many: all would be named themselves."""
    for path in filter(_has_soundscapes, map(Path, paths)):
        found = soundscapes.find(path, config)
        if found.folder == "unlabeled_soundscapes":
            yield (
                f"{path} has no test soundscapes: {len(found.paths):,} of {found.there:,} unlabelled ones stand in for "
                f"them (name {path / found.folder} to hear all)"
            )


def unread(paths: Sequence[Path]) -> Iterator[str]:
    """That folders hold audio of kinds that are not read."""
    left: set[Path] = set()
    for path in map(Path, paths):
        if _has_soundscapes(path):
            left.update(path.glob("*_soundscapes/*"))
        elif path.is_dir():
            left.update(folders.files(path))
    kinds = Counter(one.suffix.lower() for one in left if audio.is_unread(one))
    if told := ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(kinds.items())):
        yield f"audio of kinds that are not read (convert it to FLAC): {told}"


def choice(threshold: float, top_k: int | None, species: Path | None, merge: bool) -> Choice:
    """A choice of detections; `species` is a text file of labels, one a line, with comments after a #.

    Raises
    ------
    PredictError
        if the file cannot be read.
    birdlib.detections.DetectionError
        if a number is out of its range.
    """
    if species is None:
        return Choice(threshold, top_k, None, merge)
    try:
        lines = species.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PredictError(f"{species}: not readable as a species list: {error}") from None
    return Choice(threshold, top_k, frozenset(filter(None, (line.partition("#")[0].strip() for line in lines))), merge)


def unknown_species(choice: Choice, labels: list[str]) -> Iterator[str]:
    """That some labels of the species list are none of the model's, as where one is mistyped."""
    if unknown := sorted((choice.species or frozenset()) - set(labels)):
        more = f" and {len(unknown) - 10:,} more" if len(unknown) > 10 else ""
        yield f"of the species list, the model does not know {', '.join(unknown[:10])}{more}"


def wanted(
    sample: Path | None, paths: Sequence[Path], found: Sequence[Recording], labels: list[str]
) -> tuple[Wanted, str]:
    """What a submission of recordings is to have, and a note on where its columns are from.

    Parameters
    ----------
    sample : the ``sample_submission.csv``, or its folder; None: what is in one of `paths`, or beside it.
    labels : the model's classes, which are taken where there is no sample.

    Raises
    ------
    PredictError
        if the sample submission does not say, or if the recordings would give rows of the same name.
    """
    sample = sample or _beside(paths)
    if sample is None:
        said = Wanted(labels)
        note = "no sample_submission.csv was found beside the recordings: the columns are the model's classes"
    else:
        sample = sample / "sample_submission.csv" if sample.is_dir() else sample
        said, note = _read(sample), f"the columns are those of {sample}"
    if same := _same(found, lambda one: soundscapes.row_id(one.path, 0, said.prefix)):
        raise PredictError(
            f"{same[0].path} and {same[1].path} would have the same rows in a submission, which are called by a file's "
            "name without folder and suffix: rename one, or leave it out"
        )
    return said, note


def _read(sample: Path) -> Wanted:
    try:
        return submissions.wanted(sample)
    except submissions.SampleError as error:
        raise PredictError(str(error)) from None


def _beside(paths: Sequence[Path]) -> Path | None:
    """The ``sample_submission.csv`` in the data folder, or beside the folder of soundscapes."""
    tops = [Path(os.path.abspath(path)) for path in paths]  # "." has a folder above it, too
    places = (folder / "sample_submission.csv" for top in tops for folder in (top, top.parent))
    return next((place for place in places if place.exists()), None)


def _has_soundscapes(path: Path) -> bool:
    return any((path / folder).is_dir() for folder in ("test_soundscapes", "unlabeled_soundscapes"))


def _same(found: Sequence[Recording], key: Callable[[Recording], str]) -> tuple[Recording, Recording] | None:
    """The first two recordings that `key` does not tell apart."""
    first: dict[str, Recording] = {}
    for one in found:
        if (other := first.setdefault(key(one), one)) is not one:
            return other, one
    return None
