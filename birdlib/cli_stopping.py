"""How a command ends that is stopped, by Ctrl-C or by SIGTERM (`kill`, a batch system, a container): the same way."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

import typer


def end_by_signal() -> None:
    """From here on SIGTERM interrupts as Ctrl-C does, so that what runs is ended in good order."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


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
