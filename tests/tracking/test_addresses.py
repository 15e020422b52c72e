"""Addresses of stores mean what they say, and show nothing that may be secret."""

import logging
import os
import time
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import Run, RunData, RunInfo
from mlflow.store.tracking.rest_store import RestStore
from sqlalchemy import make_url

from celebflow.errors import CelebflowError
from celebflow.tracking import stores
from celebflow.tracking.addresses import (
    describe_address,
    find_database,
    hide_secrets,
    identify_address,
    make_sqlite_address,
    resolve_address,
)

PROJECT = Path("/projects/faces")
SECRET = "s3cr3t"  # noqa: S105 - it is none


@pytest.mark.parametrize("name", ["a b", "a?b", "a#b", "a%2Fb", "a%20b", "ä中", "a'b\"c", "a;b&c=d", "a@b:c", "[x]"])
def test_a_store_is_in_its_folder_whatever_that_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert not stores.store_exists()
    # The tables of a new store take MLflow seconds; the connection shows which file is meant.
    stores._check_connection(stores.store_uri())
    assert stores.store_exists()
    assert [file.relative_to(tmp_path) for file in tmp_path.rglob("*")] == [Path(name), Path(name, "mlflow.db")]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_any_path_is_restored(name: str) -> None:
    file = Path("/", name, "mlflow.db")
    address = make_sqlite_address(file)
    assert make_url(address).database == str(file)
    assert find_database(address) == file
    assert resolve_address(address, PROJECT) == address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("sqlite:///my.db", "sqlite:////projects/faces/my.db"),
        ("sqlite:///runs/my.db", "sqlite:////projects/faces/runs/my.db"),
        ("sqlite:////elsewhere/my.db", "sqlite:////elsewhere/my.db"),
        ("mlruns", "/projects/faces/mlruns"),
        ("./mlruns", "/projects/faces/mlruns"),
        ("/elsewhere/mlruns", "/elsewhere/mlruns"),
        ("sqlite:///my.db?timeout=20", "sqlite:////projects/faces/my.db?timeout=20"),
        ("/runs/a:b@c", "/runs/a:b@c"),
        ("databricks", "databricks"),
        ("databricks-uc", "databricks-uc"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql://ann@/mlflow?host=/run/postgres", "postgresql://ann@/mlflow?host=/run/postgres"),
    ],
)
def test_relative_paths_begin_at_the_project(address: str, expected: str) -> None:
    assert resolve_address(address, PROJECT) == expected


@pytest.mark.parametrize(
    "address",
    ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true", "sqlite:///file:x?mode=memory&uri=true"],
)
def test_a_database_in_memory_is_refused(address: str) -> None:
    with pytest.raises(CelebflowError, match="MLFLOW_TRACKING_URI.*in memory.*sqlite:///mlflow.db"):
        resolve_address(address, PROJECT)


def test_an_address_of_spaces_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", " ")
    assert find_database(stores.store_uri()) == tmp_path / "mlflow.db"


def test_a_relative_store_is_the_workspace_s_in_the_copies_that_dvc_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "top" / ".dvc" / "tmp" / "exps" / "copy"
    (copy / ".dvc").mkdir(parents=True)
    (copy / "projects" / "faces").mkdir(parents=True)
    monkeypatch.chdir(copy / "projects" / "faces")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "top"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///my.db")
    assert find_database(stores.store_uri()) == tmp_path / "top" / "projects" / "faces" / "my.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert find_database(stores.store_uri()) == tmp_path / "top" / "projects" / "faces" / "mlflow.db"


ADDRESSES = [
    "postgresql://ann:{}@db.example.org/mlflow",
    "https://ann:{}@mlflow.example.org/path",
    "https://mlflow.example.org/?token={}",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3DSQL%3BUID%3Dann%3BPWD%3D{}",
    "mssql+pyodbc://server;UID=ann;PWD={}",
    "mysql+pymysql://ann@db.example.org/mlflow?ssl_key=x&password={}",
    "postgresql://db.example.org/mlflow?user=ann&password={}&sslmode=require",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("secret", [SECRET, "p%40ss%2Fword", "ünï"])
def test_no_secret_is_shown(address: str, secret: str) -> None:
    full = address.format(secret)
    shown = describe_address(full)
    assert secret not in shown and shown.partition(":")[0] == full.partition(":")[0]
    for message in (f"cannot open {full}", f"wrong password {secret}", f"API request to {full}/api failed"):
        assert secret not in hide_secrets(message, full)


@pytest.mark.parametrize("form", ["Basic {}", "Basic%20{}", "{}"])
@pytest.mark.parametrize("in_variables", [True, False])
def test_a_login_that_a_server_repeats_is_not_shown(
    form: str, in_variables: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = b64encode(b"ada:pass/word").decode()
    if in_variables:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pass/word")
    address = "http://127.0.0.1:1" if in_variables else "http://ada:pass%2Fword@127.0.0.1:1"
    message = f"Refused: {form.format(sent)} is unknown"
    assert hide_secrets(message, address) == f"Refused: {form.format('…')} is unknown"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("403 for url: http://ada:pass@files.example/1/a.txt", "403 for url: http://…@files.example/1/a.txt"),
        ("for url: https://a.example/b?sv=1&sig=s3cr%2Ft.", "for url: https://a.example/b?…"),
        ("exceeded with url: /b?sig=s3cret (Caused by x)", "exceeded with url: /b?… (Caused by x)"),
        (f"Authorization: Basic {b64encode(b'other:pass').decode()}", "Authorization: Basic …"),
        ("ftp://ada@files.example", "ftp://…@files.example"),
        ("Basic authentication at sqlite:////home/a@b/c?d.db", "Basic authentication at sqlite:////home/a@b/c?d.db"),
    ],
)
def test_secrets_of_other_addresses_are_not_shown_either(message: str, shown: str) -> None:
    assert hide_secrets(message, "http://127.0.0.1:1") == shown


@pytest.mark.parametrize("beginning", ["", "http:/", "https:", "postgresql:", "HTTP:/"])
def test_a_login_without_the_slashes_before_it_is_refused_and_never_shown(beginning: str) -> None:
    address = f"{beginning}ann:{SECRET}@mlflow.example.org:5000"
    assert SECRET not in describe_address(address) and "mlflow.example.org" in describe_address(address)
    with pytest.raises(CelebflowError, match="MLFLOW_TRACKING_URI.*not a valid address.*http://") as caught:
        resolve_address(address, PROJECT)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (
            "postgresql://db/mlflow?options=-c%20search_path=a",
            "postgresql://db/mlflow?options=-c%20search_path=b",
            False,
        ),
        ("postgresql:///mlflow?host=/run/a", "postgresql:///mlflow?host=/run/b", False),
        ("postgresql://one/mlflow?user=a@b", "postgresql://two/mlflow?user=a@b", False),
        ("mssql+pyodbc://server;DATABASE=a", "mssql+pyodbc://server;DATABASE=b", False),
        ("postgresql://db/mlflow?options=x", "postgresql://db/mlflow", False),
        ("postgresql://ann:one@db/mlflow?options=x", "postgresql://ann:two@db/mlflow?options=x", True),
        (
            "mssql+pyodbc:///?odbc_connect=UID%3Da%3BPWD%3Done",
            "mssql+pyodbc:///?odbc_connect=UID%3Da%3BPWD%3Dtwo",
            True,
        ),
        ("sqlite:////my.db?timeout=20", "sqlite:////my.db?timeout=30", True),
    ],
)
def test_stores_are_told_apart_by_their_options_without_showing_them(one: str, other: str, same: bool) -> None:
    assert (identify_address(one) == identify_address(other)) == same
    for address in (one, other):
        options = address.partition("?")[2]
        shown = identify_address(address)
        assert shown.startswith(describe_address(address))
        assert not options or options not in shown


def test_a_fragment_is_not_shown() -> None:
    assert SECRET not in describe_address(f"https://mlflow.example.org/#token={SECRET}")


@pytest.mark.parametrize(
    "address",
    [
        '"http://ada:s3cr3t@127.0.0.1:9"',
        "'http://ada:s3cr3t@127.0.0.1:9'",
        "postgresql_psycopg2://ada:s3cr3t@127.0.0.1/db",
        "http ://ada:s3cr3t@127.0.0.1:9",
        "=http://ada:s3cr3t@127.0.0.1:9",
        "http\\://ada:s3cr3t@127.0.0.1:9",
        "http%3A%2F%2Fada%3As3cr3t%40127.0.0.1",
        "http:%2F%2Fada:s3cr3t@127.0.0.1",
        "http://ada:s3cr3t%40127.0.0.1:9",
        "http://ada:s3cr3t",
        "databricks://ada:s3cr3t",
    ],
)
def test_what_was_meant_as_an_address_with_a_login_is_refused_and_never_shown(address: str) -> None:
    with pytest.raises(CelebflowError, match="not a valid address.*quotation marks") as error:
        resolve_address(address, PROJECT)
    assert SECRET not in str(error.value)
    assert SECRET not in describe_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1]:5000",
        "http://host:5000/mlflow",
        "postgresql:///db",
        "databricks://profile",
        "my runs",
        "a:b",
        "a@b",
    ],
)
def test_an_address_without_a_login_is_shown_as_it_is(address: str) -> None:
    assert describe_address(resolve_address(address, PROJECT)).endswith(address)


@pytest.mark.parametrize("host", ["a..b", ".", "x" * 64])
def test_a_host_that_cannot_be_is_refused(host: str) -> None:
    with pytest.raises(CelebflowError, match="MLFLOW_TRACKING_URI.*host"):
        resolve_address(f"http://{host}:5000", PROJECT)


def test_an_option_of_a_database_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CelebflowError, match=r"MLFLOW_TRACKING_URI.*after \?"):
        stores._check_connection(f"sqlite:///{tmp_path}/my.db?timeout=abc")


@pytest.mark.parametrize("secret", ["p@ss", "pa/ss@", "pa?ss@", "pa#ss", "p@s/s@"])
def test_a_password_that_is_not_escaped_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(CelebflowError, match="MLFLOW_TRACKING_URI.*%40") as caught:
        resolve_address(f"postgresql://ann:{secret}word@db.example.org/mlflow", PROJECT)
    for part in (secret, secret.strip("@"), "word"):
        assert part not in str(caught.value).partition("Check its")[0]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=3, max_size=20), st.sampled_from(ADDRESSES))
def test_any_password_is_hidden_or_refused(secret: str, address: str) -> None:
    full = address.format(f"<{secret}>")
    assert f"<{secret}>" not in describe_address(full)
    try:
        resolve_address(full, PROJECT)
    except CelebflowError as error:
        assert f"<{secret}>" not in str(error)


def test_mlflow_logs_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://ann:{SECRET}@mlflow.example.org")
    handler = logging.getLogger("mlflow").handlers[0]
    record = logging.LogRecord(
        "mlflow.store", logging.WARNING, "", 0, "cannot reach %s", (os.environ["MLFLOW_TRACKING_URI"],), None
    )
    assert handler.filter(record)
    assert SECRET not in record.getMessage()


@pytest.mark.parametrize("address", ["http://ann:{}@127.0.0.1:9", "http://127.0.0.1:9/mlflow?token={}"])
def test_the_page_of_a_run_is_not_printed_with_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "false")
    monkeypatch.setattr(stores, "_check_connection", lambda uri: None)
    info = RunInfo("f" * 32, "1", "ann", "RUNNING", 0, None, "active", run_name="name")
    monkeypatch.setattr(RestStore, "get_run", lambda *_: Run(info, RunData()))
    monkeypatch.setattr(RestStore, "update_run_info", lambda *_, **__: info)
    stores._open(address.format(SECRET)).set_terminated("f" * 32, "FINISHED")
    output = capsys.readouterr()
    assert SECRET not in output.out + output.err


def test_what_is_waited_for_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stores, "_MOMENT_SECONDS", 0)
    monkeypatch.setattr(stores, "_check_connection", lambda uri: time.sleep(0.2))
    monkeypatch.setattr(stores, "MlflowClient", lambda uri: None)
    stores._open(f"http://ann:{SECRET}@127.0.0.1:9")
    error = capsys.readouterr().err
    assert "Waiting for MLflow's store http://…@127.0.0.1:9" in error and SECRET not in error
