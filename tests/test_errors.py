"""Names do nothing to a terminal, and a program that lacks something of the machine says what, and the remedy."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import lmdb
import pytest
import torch
from safetensors import SafetensorError

from celebflow.errors import CelebflowError, describe_shortage, escape_controls, raise_shortage
from tests import REPOSITORY


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\u001b[31mred\u001b[0m"),
        ("bell\x07, back\x08, return\r", r"bell\u0007, back\u0008, return\u000d"),
        ("\x9b31m", r"\u009b31m"),
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("bytes \udcff", r"bytes \udcff"),
        ("two\nlines\tand 李 é", "two\nlines\tand 李 é"),
    ],
)
def test_controls_are_shown_and_other_text_stays(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


def test_an_error_about_such_a_name_does_nothing_to_the_terminal() -> None:
    script = (
        "from celebflow.errors import *\n"
        "def main(): raise CelebflowError('no \\x1b]0;title\\x07 \\udcff')\n"
        "run_to_exit(main)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, "error: no \\u001b]0;title\\u0007 \\udcff\n")


@pytest.mark.parametrize("program", ["stages", "celebflow.cli"])
def test_ctrl_c_during_the_imports_of_a_program_shows_no_traceback(program: str) -> None:
    script = f"import {program}, signal, time; signal.raise_signal(signal.SIGINT); time.sleep(60)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "interrupted\n")


def test_ctrl_c_at_the_end_of_a_program_shows_no_traceback_of_libraries() -> None:
    result = _run("import atexit, signal\natexit.register(signal.raise_signal, signal.SIGINT)\nraise KeyboardInterrupt")
    assert (result.returncode, result.stderr) == (-signal.SIGINT, b"interrupted\n")


def _run(main: str, *, output: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program whose `main` has these lines."""
    lines = ["import sys", "from celebflow import cli", "from celebflow.errors import *", "def main():"]
    script = "\n".join([*lines, *(f"    {line}" for line in main.splitlines()), "run_to_exit(main)"])
    return subprocess.run(
        [sys.executable, "-c", script],
        stdout=output,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
    )


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_names_that_an_output_cannot_encode_are_escaped(encoding: str) -> None:
    name = "李 😀 \udcff é"
    result = _run(f"cli._echo('李 é')\nprint({name!a})\nprint({name!a}, file=sys.stderr)", PYTHONIOENCODING=encoding)
    assert (result.returncode, result.stdout.count(b"\n")) == (0, 2)
    # As JSON escapes them, so that JSON stays JSON.
    printed = result.stdout.splitlines()[1].decode(encoding)
    assert json.loads(f'"{printed}"') == name


def test_a_locale_that_would_change_names_of_files_is_refused_with_the_remedy() -> None:
    result = _run("print(1)", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.startswith(b"error: ")
    assert b"ascii" in result.stderr and b"PYTHONUTF8=1" in result.stderr


@pytest.mark.parametrize("main", ["print('x' * 10**6)", "print(1)"])
def test_an_output_that_nobody_reads_ends_a_program_quietly(main: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = _run(main, output=writing)
    os.close(writing)
    assert result.stderr == b""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("start", ["from celebflow.errors import *", "from stages import *"])
def test_a_program_without_standard_streams_reads_nothing_and_does_its_work(
    start: str, closed: str, tmp_path: Path
) -> None:
    lines = [
        "import os, sys",
        start,
        "def main():",
        "    print('printed')",
        "    print('reported', file=sys.stderr)",
        "    open('read', 'w').write(str(sys.stdin.buffer.read()))",  # of no stream's number
        "    os.write(1, b'by a library')",
        "    os.write(2, b'by a library')",
        "    raise CelebflowError('remedy')",
    ]
    if "stages" in start:
        lines.insert(2, "from celebflow.errors import CelebflowError")
        lines.append("sys.stderr.flush(); run_stage(main, '')")
    else:
        lines.append("run_to_exit(main)")
    program = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, "\n".join(lines)]
    result = subprocess.run(
        program, cwd=tmp_path, input=b"x", capture_output=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert (result.returncode, b"Traceback" in result.stderr) == (1, False)
    assert (tmp_path / "read").read_text() == ("b''" if "<&-" in closed else "b'x'")
    assert (b"printed" in result.stdout) == (" >&-" not in f" {closed}")
    assert (b"remedy" in result.stderr) == ("2>&-" not in closed)
    assert b"remedy" not in result.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("main", ["print(1)", "cli._echo('x' * 10**6)"])
def test_an_output_on_a_full_disk_is_a_message(main: str) -> None:
    with Path("/dev/full").open("wb") as full:
        result = _run(main, output=full.fileno())
    assert result.returncode == 1
    assert result.stderr.startswith(b"error: ")
    assert b"No space left" in result.stderr and result.stderr.count(b"\n") == 1


def _fail_to_allocate(library: str) -> None:
    if library == "torch":
        torch.empty(2**60, dtype=torch.uint8)
    elif library == "lmdb":
        with tempfile.TemporaryDirectory() as folder:
            lmdb.open(folder, map_size=2**60)
    elif library == "opencv":
        raise cv2.error("OpenCV(4.10.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes")
    elif library == "loader":
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")
    elif library == "oneDNN":
        raise RuntimeError("could not create a primitive")
    else:
        bytearray(2**60)


@pytest.mark.parametrize("library", ["python", "torch", "lmdb", "opencv", "loader", "oneDNN"])
def test_lack_of_memory_is_told_whichever_library_notices_it(library: str) -> None:
    with pytest.raises(Exception) as caught:
        _fail_to_allocate(library)
    with pytest.raises(CelebflowError, match=r"models/x.*not enough memory.*extract\.image_size_px"):
        raise_shortage(caught.value, "models/x")


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (OSError(errno.ENOSPC, "No space left", "reports/x"), ["reports/x", "Free some space", "TMPDIR"]),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ["features/y", "quota", "Free some space"]),
        (SafetensorError("I/O error: No space left on device (os error 28)"), ["features/y", "Free some space"]),
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), ["features/y", "Free some space"]),
        (
            RuntimeError("failures:\n## File a ##\n[Errno 28] No space left on device"),
            ["features/y", "Free some space"],
        ),
        (RuntimeError("(sqlite3.OperationalError) attempt to write a readonly database"), ["features/y", "Read-only"]),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), ["No space left", "TMPDIR"]),
        (OSError(errno.EROFS, "Read-only file system", "splits/z"), ["splits/z", "Read-only", "copy of the project"]),
        (PermissionError(errno.EACCES, "Permission denied", "splits/z"), ["splits/z", "Permission denied"]),
        (OSError(errno.EFBIG, "File too large"), ["features/y", "ulimit -f"]),
        (OSError(errno.EMFILE, "Too many open files"), ["ulimit -n"]),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), ["too many processes", "ulimit -u"]),
    ],
)
def test_what_else_the_machine_lacks_is_told_with_place_and_remedy(error: Exception, parts: list[str]) -> None:
    described = describe_shortage(error, "features/y")
    for part in parts:
        assert part in described


@pytest.mark.parametrize("free_bytes", [5 * 10**8, 10**12])
def test_the_folders_with_little_free_space_are_named(free_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": free_bytes}))
    assert (f"{Path.cwd()} (500.0 MB)" in describe_shortage(OSError(errno.ENOSPC, ""))) == (free_bytes < 10**9)


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("mat1 and mat2 shapes"), KeyError("memory"), FileNotFoundError(2, "", "x")]
)
def test_errors_of_the_program_keep_their_traceback(error: Exception) -> None:
    assert describe_shortage(error) == ""
    raise_shortage(error)
    if isinstance(error, ValueError):
        assert b"Traceback" in _run("raise ValueError('x')").stderr


@pytest.mark.parametrize("name", ["", "file/page.html", "x" * 300])
def test_a_path_that_cannot_be_written_is_told_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / name
    result = _run(f"open({str(path)!r}, 'w')")
    message = result.stderr.decode()
    assert result.returncode == 1 and message.startswith(f"error: {path}: ") and "Traceback" not in message


@pytest.mark.parametrize("module", ["stages.backbone", "celebflow.cli"])
def test_a_limit_of_address_space_is_told_even_when_libraries_are_loaded(module: str, tmp_path: Path) -> None:
    (tmp_path / "photograph.jpg").touch()
    arguments = ["predict", "--model", str(tmp_path), str(tmp_path)] if module == "celebflow.cli" else []
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (500_000_000, 500_000_000)),
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: There is not enough memory")
    assert "0.5 GB" in result.stderr and "ulimit -v unlimited" in result.stderr
