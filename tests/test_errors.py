"""Names of files and people do nothing to a terminal."""

import subprocess
import sys

import pytest

from celebflow.errors import escape_controls


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
