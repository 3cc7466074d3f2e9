"""Throws broken files at `birdlib.audio`: real Ogg, WAV and FLAC bytes, mutated, each case by its number.

Every case has to give audio or raise `AudioError`, within 10 s and 1 GB. The cases run in another process; one that
takes it down is kept in --keep and counted, and the next process goes on after it. Prints the counts; exit status 1 if
any case did anything else.

    python tools/fuzz_audio.py --cases 2000 --seed 0
"""

import argparse
import faulthandler
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from birdlib import audio, ogg

SECONDS, MEMORY = 10.0, 2**30
RATE_HZ = 32_000
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)


def originals(folder: Path | None) -> list[bytes]:
    """Good files: of sweeps and noise, and the three smallest recordings of a folder."""
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    sweep = 0.5 * np.sin(2 * np.pi * (500 + 2000 * time_s) * time_s).astype(np.float32)
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(sweep)).astype(np.float32)
    found = [ogg.encode(sweep + noise, RATE_HZ, 1), ogg.encode(np.stack([sweep, noise], axis=1), 44_100, 2)]
    with tempfile.TemporaryDirectory() as made:
        for name, subtype in (("a.wav", "PCM_16"), ("b.wav", "FLOAT"), ("c.wav", "PCM_24"), ("d.flac", None)):
            soundfile.write(Path(made, name), np.stack([sweep, noise], axis=1), RATE_HZ, subtype)
            found.append(Path(made, name).read_bytes())
    real = sorted(folder.rglob("*.ogg"), key=lambda path: path.stat().st_size)[:3] if folder else []
    return found + [path.read_bytes() for path in real]


def mutated(files: list[bytes], seed: int, case: int) -> bytes:
    """The bytes of a case: the same for the same seed and number."""
    rng = np.random.default_rng([seed, case])
    data = bytearray(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(min(len(data), 200) if rng.random() < 0.5 else len(data) or 1)) if data else 0
        kind = rng.integers(7)
        if kind == 0:
            data[at : at + 1] = bytes([data[at] ^ 1 << int(rng.integers(8))]) if data else b""
        elif kind == 1:
            data[at : at + 4] = rng.integers(0, 256, 4, dtype=np.uint8).tobytes()
        elif kind == 2:
            data[at : at + 4] = bytes([int(rng.choice(EXTREMES))]) * 4
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + int(rng.integers(1, 5000))]
        elif kind == 5:
            data[at:at] = data[at : at + int(rng.integers(1, 5000))]
        else:
            other = files[rng.integers(len(files))]
            data[at:] = other[int(rng.integers(len(other))) :]
    if rng.random() < 0.5:  # with its checksums made right, a broken page gets as far as the decoder
        try:
            return ogg._with_serial(bytes(data), 1) if data[:4] == b"OggS" else bytes(data)
        except IndexError:
            pass
    return bytes(data)


def tried(path: Path) -> str:
    """What `birdlib.audio` makes of a file: all of it, and stretches of it."""
    try:
        length = audio.info(path).duration_s
        samples = sum(len(block) for block in audio.blocks(path, RATE_HZ))
        for start in (0, samples // 2, max(0, samples - 100), 2**40):
            found = audio.read(path, RATE_HZ, start, 5 * RATE_HZ)
            assert found.dtype == np.float32, found.dtype
            assert np.isfinite(found).all(), "no finite numbers"
            assert len(found) <= 5 * RATE_HZ, f"{len(found)} samples"
        assert not length < 0, f"a length of {length} s"
    except audio.AudioError as error:
        return "AudioError" if str(error).startswith(f"{path}: ") and "\n" not in str(error) else f"odd: {error!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "audio" if samples else "no samples"


def child(arguments: argparse.Namespace) -> None:
    """The cases from --first on, a line of JSON each."""
    files = originals(arguments.data)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "case.ogg")
        for case in range(arguments.first, arguments.cases):
            path.write_bytes(mutated(files, arguments.seed, case))
            faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.stderr)
            began = time.perf_counter()
            outcome = tried(path)
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps([case, outcome, time.perf_counter() - began]), flush=True)


def outcomes(arguments: argparse.Namespace) -> Iterator[tuple[int, str, float]]:
    """Every case once, whatever becomes of the processes."""
    first = 0
    while first < arguments.cases:
        command = [sys.executable, __file__, "--child", "--first", str(first), "--seed", str(arguments.seed)]
        command += ["--cases", str(arguments.cases), *(["--data", str(arguments.data)] if arguments.data else [])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            for line in process.stdout:
                case, outcome, seconds = json.loads(line)
                first = case + 1
                yield case, outcome, seconds
        if first < arguments.cases:
            yield first, f"died: {process.returncode}", SECONDS
            first += 1


def main() -> int:
    """Runs the cases and prints what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="a folder of real recordings to mutate, too")
    parser.add_argument("--keep", type=Path, help="a folder for the cases that did what they should not")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return 0
    counts, bad, longest = Counter(), [], 0.0
    for case, outcome, seconds in outcomes(arguments):
        counts[outcome.partition(":")[0]] += 1
        longest = max(longest, seconds)
        if outcome not in ("audio", "no samples", "AudioError"):
            bad.append((case, outcome))
    if arguments.keep and bad:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        files = originals(arguments.data)
        for case, _ in bad:
            (arguments.keep / f"{arguments.seed}_{case}.bin").write_bytes(mutated(files, arguments.seed, case))
    print(f"{sum(counts.values()):,} cases, seed {arguments.seed}: {dict(counts)}; the longest took {longest:.2f} s")
    for case, outcome in bad:
        print(f"case {case}: {outcome}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
