"""How a command ends that is stopped, by Ctrl-C or by SIGTERM (`kill`, a batch system, a container): the same way."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

import typer


@contextlib.contextmanager
def ended_by_signal() -> Iterator[None]:
    """Within it SIGTERM interrupts as Ctrl-C does, so that what runs is ended in good order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, _) -> None:
    raise KeyboardInterrupt(number)


@contextlib.contextmanager
def stoppable(then: str) -> Iterator[None]:
    """An interruption within is one line, which says `then`, and exit status 130 (Ctrl-C) or 143 (SIGTERM)."""
    try:
        yield
    except KeyboardInterrupt as error:
        print(f"birdlib: stopped; {then}", file=sys.stderr)
        raise typer.Exit(128 + (error.args or (signal.SIGINT,))[0]) from None
