"""Pushes a staged kernel with the ``kaggle`` command, follows its run and fetches its output.

The command is run, never imported: importing it logs in. It exits with 0 where the server refuses a kernel, or drops
one of its sources, so its words count, not its exit status alone.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from birdlib.kernels import LARGEST_BYTES, KernelError

PATIENCE = 20  # failed questions in a row, after which a run is not followed any more
_DONE = {"COMPLETE"}
_FAILED = {"ERROR", "CANCEL_REQUESTED", "CANCEL_ACKNOWLEDGED"}


class Pushed(NamedTuple):
    """A kernel that Kaggle has taken: its name, OWNER/SLUG, the version it became, and where it can be seen."""

    kernel: str
    version: str
    address: str


def push(folder: Path) -> Pushed:
    """Pushes a folder that `birdlib.kernels` staged.

    Raises
    ------
    KernelError
        if the command is missing, the credentials are, or Kaggle refuses the kernel or one of its sources.
    """
    metadata = json.loads((folder / "kernel-metadata.json").read_text(encoding="utf-8"))
    said = _kaggle("kernels", "push", "-p", str(folder))
    if refused := re.search(r"Kernel push error: *(.*)", said):
        raise KernelError(f"Kaggle refuses {metadata['id']}: {refused[1].strip() or 'without a reason'}")
    if dropped := re.search(r"not valid (\w+) sources and could not\s+be added to the kernel: (.*)", said):
        hint = "accept the competition's rules on its page" if dropped[1] == "competition" else "see its address"
        raise KernelError(
            f"Kaggle has taken {metadata['id']} without its {dropped[1]} sources {dropped[2].strip()}: stop that run, "
            f"and {hint}"
        )
    done = re.search(r"Kernel version (?:(\d+) )?successfully pushed\.\s*(?:Please check progress at (\S+))?", said)
    if not done:
        raise KernelError(f"the kaggle command does not say that {metadata['id']} was pushed: {_words(said)}")
    return Pushed(metadata["id"], done[1] or "", done[2] or f"https://www.kaggle.com/code/{metadata['id']}")


def follow(pushed: Pushed, output: Path, tell: Callable[[str], object], every_s: float = 30.0) -> None:
    """Waits for the end of a kernel's run, tells whenever its status changes, and fetches what it has written.

    Raises
    ------
    KernelError
        if the run fails or is cancelled (with the error in its log; what it has written is fetched as far as it can
        be), or Kaggle does not answer any more.
    """
    before, failures = "", 0
    while before not in _DONE:
        try:
            said, failures = _kaggle("kernels", "status", _name(pushed), timeout_s=120), 0
        except KernelError as error:
            failures += 1
            if failures == PATIENCE:
                raise KernelError(f"{error} (the run goes on: {pushed.address})") from None
            time.sleep(every_s)
            continue
        found = re.search(r'has status "(?:KernelWorkerStatus\.)?(\w+)"', said)
        status = found[1].upper() if found else _words(said)
        if status != before:
            tell(f"{pushed.kernel}: {status.lower().replace('_', ' ')}")
        if status in _FAILED:
            message = re.search(r'Failure message: "(.*)"', said)
            with contextlib.suppress(KernelError):  # it may be hours of training
                fetch(pushed, output)
            raise KernelError(f"{pushed.kernel} ended with {status.lower()}: {_why(pushed, message and message[1])}")
        before = status
        if status not in _DONE:
            time.sleep(every_s)
    fetch(pushed, output)


def fetch(pushed: Pushed, folder: Path) -> Path:
    """Fetches what a kernel's run has written, and its log, into a folder."""
    _kaggle("kernels", "output", _name(pushed), "-p", str(folder), "--force", "--quiet")
    return folder


def _name(pushed: Pushed) -> str:
    return f"{pushed.kernel}/{pushed.version}" if pushed.version else pushed.kernel


def _why(pushed: Pushed, message: str | None) -> str:
    """The server's message, and the error at the end of the run's log."""
    try:
        log = _kaggle("kernels", "logs", _name(pushed))
    except KernelError:
        log = ""
    errors = re.findall(r"[\w.]*\w(?:Error|Exception): [^\"\n\\]+", re.sub(r"(\x1b|\\u001b)\[[0-9;]*m", "", log))
    parts = [part for part in (message, errors[-1].strip() if errors else None) if part]
    return f"{'; '.join(parts) or 'without a reason'} ({pushed.address})"


def _kaggle(*arguments: str, timeout_s: float = 3600) -> str:
    """What the command prints. Its environment is this process's; what it prints holds no credentials."""
    beside = Path(sys.executable).with_name("kaggle")
    found = str(beside) if beside.exists() else shutil.which("kaggle")
    if not found:
        raise KernelError("there is no kaggle command: pip install kaggle six")
    command = [found, "-W", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise KernelError(f"kaggle {' '.join(arguments[:2])} gave no answer in {timeout_s:g} s") from None
    said = f"{done.stdout}\n{done.stderr}"
    if "No module named 'six'" in said:
        raise KernelError("the kaggle command lacks a package that it uses without saying so: pip install six")
    if done.returncode == 0:
        return said
    if re.search(r"Authentication required|Unauthorized|\b401\b", said):
        raise KernelError(
            "Kaggle does not know you: there are no credentials, or it refuses them. kaggle auth login makes new ones, "
            "or an API token from https://www.kaggle.com/settings in ~/.kaggle/access_token"
        )
    if re.search(r"\b413\b|[Tt]oo [Ll]arge", said):
        raise KernelError(f"Kaggle finds the notebook too large (it takes about {LARGEST_BYTES:,} bytes)")
    raise KernelError(f"kaggle {' '.join(arguments[:2])} failed: {_words(said)}")


def _words(said: str) -> str:
    """What is said before the first empty line, as one line."""
    return " ".join(said.strip().partition("\n\n")[0].split()) or "it says nothing"
