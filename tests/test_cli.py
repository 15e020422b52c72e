"""The command line starts without torch, helps, and ends with clear errors."""

import signal
import subprocess
import sys
from pathlib import Path


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "celebflow.cli", *arguments], capture_output=True, text=True)


def test_help_names_the_commands() -> None:
    for arguments in (["--help"], ["-h"]):
        result = _run(*arguments)
        assert result.returncode == 0
        assert "sample" in result.stdout
    assert "celebflow sample data" in _run("sample", "--help").stdout


def test_help_imports_neither_torch_nor_mlflow() -> None:
    code = "import sys, celebflow.cli; print([m for m in ('torch', 'mlflow', 'matplotlib', 'PIL') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_usage_and_other_errors_end_with_a_status_and_no_traceback(tmp_path: Path) -> None:
    assert _run("sampel").returncode == 2
    (tmp_path / "holiday.jpg").touch()
    result = _run("sample", str(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert "holiday.jpg" in result.stderr


def test_signals_end_programs_with_the_status_that_shells_expect() -> None:
    for number, word in ((signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")):
        code = f"""
import os
from celebflow.errors import run_to_exit
run_to_exit(lambda: os.kill(os.getpid(), {int(number)}))
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (result.returncode, result.stderr.strip()) == (128 + number, word)
