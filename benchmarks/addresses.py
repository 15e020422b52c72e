"""Try random paths of projects and addresses of stores for as long as one likes: stores are found, and secrets hidden.

python -m benchmarks.addresses [--minutes 10]
"""

import argparse
import random
import re
import string
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from sqlalchemy import create_engine

from celebflow.errors import CelebflowError
from celebflow.tracking.addresses import describe_address, hide_secrets, make_sqlite_address, resolve_address

_CHARACTERS = string.printable.replace("/", "") + "?%#@:&;=+ äß中ไทย\u0301\u202e😀"
_ADDRESSES = (
    "postgresql://ann:{}@db.example.org/mlflow",
    "postgresql+psycopg2://db.example.org/mlflow?user=ann&password={}&sslmode=require",
    "mysql+pymysql://ann:{}@[::1]:3306/mlflow?charset=utf8",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3DSQL%3BUID%3Dann%3BPWD%3D{}",
    "https://ann:{}@mlflow.example.org/path",
    "https://mlflow.example.org/?token={}",
)


def _draw_text(length: int) -> str:
    return "".join(random.choice(_CHARACTERS) for _ in range(random.randint(1, length)))


def _check(fine: bool, tried: str) -> None:
    if not fine:
        raise SystemExit(f"This goes wrong: {tried!r}")


def _try_path(folder: Path) -> str:
    """Make a database below a folder of any name, and check that nothing else was made."""
    name = _draw_text(40)
    project = folder / name
    try:
        project.mkdir()
    except OSError:
        return "paths that the file system refuses"
    file = project / "mlflow.db"
    address = resolve_address(make_sqlite_address(file), Path("/elsewhere"))
    engine = create_engine(address)
    with engine.connect():
        pass
    engine.dispose()
    _check(file.exists(), name)
    file.unlink()
    project.rmdir()
    _check(not list(folder.iterdir()), name)
    return "paths"


def _try_secret() -> str:
    """Put a secret into an address, and check that it is refused or hidden, wherever it could show."""
    secret = f"<x{_draw_text(20)}>"
    form = quote(secret, safe="")
    if random.random() < 0.5:  # not escaped: what separates values would end it
        form = secret = re.sub("[;&=]", "", secret)
    address = random.choice(_ADDRESSES).format(form)
    shown = describe_address(address)
    _check(secret not in shown and form not in shown, address)
    try:
        resolve_address(address, Path("/projects/faces"))
    except CelebflowError as error:
        _check(secret not in str(error) and form not in str(error), address)
        return "addresses that are refused"
    for message in (address, f"wrong password {form}", f"request to {address}/api failed"):
        _check(form not in hide_secrets(message, address), address)
    return "addresses"


def main() -> None:
    """Print how many paths and addresses were tried; end with an error at the first that goes wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    counts: Counter[str] = Counter()
    deadline = time.monotonic() + 60 * arguments.minutes
    with TemporaryDirectory() as folder:
        while time.monotonic() < deadline:
            counts[_try_path(Path(folder))] += 1
            counts[_try_secret()] += 1
    for kind, count in counts.items():
        print(f"{count:8} {kind}")


if __name__ == "__main__":
    main()
