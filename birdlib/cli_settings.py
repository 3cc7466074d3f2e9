"""The options by which commands are given a run and its settings, and what they make of ``KEY=VALUE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[str | None, typer.Option(help="sample, paper, or a YAML file. [default: sample]")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of recordings, or kaggle:birdclef-2024. [default: the sample]")
]
RunDir = Annotated[Path | None, typer.Option(help="Run folder. [default: runs/<config>]")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as seed=1; again for more."),
]


def settings(texts: list[str]) -> dict[str, str]:
    """Texts such as ``phase_1.epochs=3`` as overrides. Raises `birdlib.config.ConfigError` for one that is none."""
    return dict(pairs(texts, "--set"))


def pairs(texts: list[str], option: str) -> list[tuple[str, str]]:
    """Texts such as ``phase_1.epochs=3`` as keys and values, in their order; `option` is named where one is none.

    Raises
    ------
    birdlib.config.ConfigError
        for a text without a key or without an equals sign.
    """
    parts = [text.partition("=") for text in texts]
    if bad := [text for text, (key, equals, _) in zip(texts, parts, strict=True) if not (key and equals)]:
        from birdlib.config import ConfigError

        raise ConfigError(f"{option} takes key=value, such as {option} phase_1.epochs=3, not {bad[0]!r}")
    return [(key.strip(), value) for key, _, value in parts]
