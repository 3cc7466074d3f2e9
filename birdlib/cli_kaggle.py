"""``birdlib kaggle``: stage, push, wheels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdlib.cli_settings import settings

if TYPE_CHECKING:
    from birdlib.kernels import Wishes

app = typer.Typer(no_args_is_help=True, help="Kaggle kernels: stage them, push them, wheels for where no internet is.")

Out = Annotated[Path | None, typer.Argument(help="Folder. [default: build/kaggle/<slug>, with --all build/kaggle]")]
User = Annotated[str | None, typer.Option(help="Your Kaggle name. [default: KAGGLE_USERNAME, or kaggle.json's]")]
Title = Annotated[str | None, typer.Option(help="The final kernel's title; its address follows from it.")]
Conf = Annotated[str, typer.Option(help="sample, paper, or a YAML file.")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as seed=1; again for more."),
]
All = Annotated[bool, typer.Option("--all", help="All six notebooks as a chain of kernels.")]
Submission = Annotated[
    bool, typer.Option("--submission", help="The kernel that is scored: CPU, no internet, an exported model attached.")
]
Competition = Annotated[str | None, typer.Option(help="Another competition's slug, or none.")]
Dataset = Annotated[list[str] | None, typer.Option(help="Attach a data set, OWNER/SLUG; again for more.")]
Kernel = Annotated[list[str] | None, typer.Option(help="Attach a notebook's output, OWNER/SLUG; again for more.")]
Model = Annotated[list[str] | None, typer.Option(help="Attach a model, OWNER/MODEL/FRAMEWORK/VARIATION/VERSION.")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Without a GPU.")]
Internet = Annotated[bool | None, typer.Option(help="[default: as kaggle-metadata.json says, on]")]
Hours = Annotated[float, typer.Option(help="What a session may take; training stops in time for the test.")]
Metadata = Annotated[Path | None, typer.Option(help="Another kaggle-metadata.json.")]


@app.command()
def stage(
    out: Out = None,
    user: User = None,
    title: Title = None,
    config: Conf = "paper",
    setting: Setting = None,
    chain: All = False,
    submission: Submission = False,
    competition: Competition = None,
    dataset: Dataset = None,
    kernel: Kernel = None,
    model: Model = None,
    cpu: Cpu = False,
    internet: Internet = None,
    hours: Hours = 11.0,
    metadata: Metadata = None,
) -> None:
    """Write a push folder: the final notebook with the library inside, and its metadata."""
    wishes = _wishes(user, title, config, setting, competition, dataset, kernel, model, cpu, internet, hours, metadata)
    for folder in _staged(out, wishes, chain, submission):
        print(f"staged: {folder}  (kaggle kernels push -p {folder})")


@app.command()
def push(
    out: Out = None,
    user: User = None,
    title: Title = None,
    config: Conf = "paper",
    setting: Setting = None,
    chain: All = False,
    submission: Submission = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run, and fetch its output into OUT/output.")] = False,
    competition: Competition = None,
    dataset: Dataset = None,
    kernel: Kernel = None,
    model: Model = None,
    cpu: Cpu = False,
    internet: Internet = None,
    hours: Hours = 11.0,
    metadata: Metadata = None,
) -> None:
    """Stage, and push with the kaggle command; with --all each kernel is waited for before the next one."""
    wishes = _wishes(user, title, config, setting, competition, dataset, kernel, model, cpu, internet, hours, metadata)
    from birdlib import kaggle_push

    for folder in _staged(out, wishes, chain, submission):
        pushed = kaggle_push.push(folder)
        print(f"pushed: {pushed.kernel}, version {pushed.version}: {pushed.address}")
        if wait or chain:
            kaggle_push.follow(pushed, folder / "output", print)
            print(f"output: {folder / 'output'}")


@app.command()
def wheels(
    out: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    python: Annotated[str, typer.Option(help="The Python of Kaggle's image.")] = "3.12",
    user: User = None,
) -> None:
    """Make a data set of what Kaggle lacks, for notebooks without internet."""
    from birdlib import kaggle_wheels, kernels

    folder = kaggle_wheels.make(out, python, kernels.user_name(user))
    print(f"wheels: {folder}  (kaggle datasets create -p {folder})")


def _staged(out: Path | None, wishes: Wishes, chain: bool, submission: bool) -> list[Path]:
    from birdlib import kernels

    if submission:
        if chain:
            raise kernels.KernelError(
                "--all is the six notebooks, and --submission is another one: name one of the two"
            )
        from birdlib import kaggle_submission

        return [kaggle_submission.stage(out, wishes)]
    return kernels.stage_all(out, wishes) if chain else [kernels.stage(out, wishes)]


def _wishes(
    user, title, config, setting, competition, dataset, kernel, model, cpu, internet, hours, metadata
) -> Wishes:
    from birdlib.kernels import Wishes

    return Wishes(
        user=user,
        title=title,
        config=config,
        overrides=settings(setting or []),
        competition=competition,
        datasets=dataset or (),
        kernels=kernel or (),
        models=model or (),
        cpu=cpu,
        internet=internet,
        hours=hours,
        metadata=metadata,
    )
