"""What the commands make of ``--set KEY=VALUE``."""

from __future__ import annotations


def settings(texts: list[str]) -> dict[str, str]:
    """Texts such as ``phase_1.epochs=3`` as overrides. Raises `birdlib.config.ConfigError` for one that is none."""
    pairs = [text.partition("=") for text in texts]
    if bad := [text for text, (key, equals, _) in zip(texts, pairs, strict=True) if not (key and equals)]:
        from birdlib.config import ConfigError

        raise ConfigError(f"--set takes key=value, such as --set phase_1.epochs=3, not {bad[0]!r}")
    return {key.strip(): value for key, _, value in pairs}
