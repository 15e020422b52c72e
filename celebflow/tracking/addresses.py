"""Addresses of MLflow's stores: what they stand for, and what of them may be shown."""

import os
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from celebflow.errors import CelebflowError

_HIDDEN = "…"
_SQLITE = "sqlite"
_DATABRICKS = ("databricks", "databricks-uc")  # addresses of MLflow's without a scheme
_SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_PASSWORD = re.compile("(?:pwd|password)(?:=|%3D)(.+?)(?=;|%3B|&[^&;=]*=|$)", re.IGNORECASE | re.DOTALL)
# A login that no // leads in: the beginning of the address was forgotten, or has a typo.
_LOGIN_WITHOUT_HOST = re.compile(r"\A(?![^:/]+://)(?!sqlite|file:)(?:[\w+.-]+:/)?[^/]*:.*@", re.DOTALL)
# What was meant as an address and is none, because of quotation marks around it, a wrong scheme, or escapes.
_BROKEN_SCHEME = re.compile(r":\\?/|%3A/|(?::|%3A)%2F", re.IGNORECASE)
# A login whose @ is missing or escaped: what should be the port is none.
_LOGIN_AS_HOST = re.compile(
    r"\A(?!sqlite|file:)([\w+.-]+://)(?!\[)[^/?#;@]*?:(?!\d{1,5}(?:[/?#;]|\Z)|[/?#;]|\Z)[^/?#;]*"
)
# In any text: the login of an address, what follows the path of one, which may be a signature, and a login as HTTP
# sends it, which some servers repeat.
_LOGIN = re.compile(r"""(?<=://)[^\s/?#'"<>]+@""")
_OPTIONS = re.compile(r"""((?:https?://|\burl: /)[^\s?#'"<>]*\?)[^\s'"<>]+""")
_HEADER = re.compile(r"(Basic(?:\s|%20|\+)+)([\w+/-]+(?:=|%3D)*)")
_MIN_SECRET_LENGTH = 3  # a shorter one could be a part of any word


def make_sqlite_address(file: Path) -> str:
    """Return the address of a SQLite database, whatever its path contains."""
    plain = f"{_SQLITE}:///{file}"
    if make_url(plain).database == str(file):
        return plain
    # Of an escaped path without a driver, MLflow would make the folders as they are written.
    return URL.create(f"{_SQLITE}+pysqlite", database=str(file)).render_as_string(hide_password=False)


def is_sqlite(address: str) -> bool:
    """Tell whether an address is that of a SQLite database."""
    return address.startswith((f"{_SQLITE}:", f"{_SQLITE}+"))


def find_database(address: str) -> Path | None:
    """Return the file of a SQLite database; None for another store, or for a database in memory."""
    if not is_sqlite(address):
        return None
    url = make_url(address)
    file = (url.database or "").removeprefix("file:")
    if not file or file.startswith(":memory:") or url.query.get("mode") == "memory":
        return None
    return Path(file)


def resolve_address(address: str, folder: Path, variable: str = "MLFLOW_TRACKING_URI") -> str:
    """Return an address in which a relative path is absolute, as seen from `folder`; errors name its `variable`.

    Raises CelebflowError for a database in memory, and for an address that cannot be taken apart, such as one with a
    password that is not escaped.
    """
    try:
        parts = urlsplit(address)
        login = "@" in parts.netloc
        well_formed = parts.netloc.count("@") <= 1 and (parts.port or True) and not (login and "@" in parts.path)
        well_formed = well_formed and not _LOGIN_WITHOUT_HOST.match(address)
        well_formed = well_formed and bool(parts.scheme or not _BROKEN_SCHEME.search(address))
        (parts.hostname or "").encode("idna")  # raises an error for a name that no host can have
        database = find_database(address)
    except (ValueError, ArgumentError):  # a UnicodeError is a ValueError
        well_formed, database = False, None
    if not well_formed:
        raise CelebflowError(
            f"{variable} is {describe_address(address)}, which is not a valid address. Check its beginning, "
            "such as http://, its host and its port, and that no quotation marks are around it. In a password alone, "
            "write @ as %40, / as %2F, ? as %3F, # as %23 and : as %3A."
        )
    if database is None and is_sqlite(address):
        raise CelebflowError(
            f"{variable} is {describe_address(address)}, a database in memory, which would lose the runs. "
            "Name a file: sqlite:///mlflow.db."
        )
    if database is not None and not database.is_absolute():
        url = make_url(address)
        if not url.query:
            return make_sqlite_address(folder / database)
        if url.database == str(database):  # not a URI of SQLite's own
            return url.set(database=str(folder / database)).render_as_string(hide_password=False)
    if not parts.scheme and address not in _DATABRICKS:
        return str(folder / address)
    return address


def describe_address(address: str) -> str:
    """Return an address without user and password, and without its query and its fragment."""
    if "//" not in address and _BROKEN_SCHEME.search(address):
        address = unquote(address)
    address = re.sub("//.*@", f"//{_HIDDEN}@", address, flags=re.DOTALL)
    address = _LOGIN_WITHOUT_HOST.sub(f"{_HIDDEN}@", address)
    address = _LOGIN_AS_HOST.sub(rf"\1{_HIDDEN}", address)
    ends = "[?;]" if is_sqlite(address) else "[?;#]"  # a file's name may hold #
    return re.sub(f"({ends}).*", rf"\1{_HIDDEN}", address, flags=re.DOTALL)


def identify_address(address: str) -> str:
    """Return an address as describe_address does; options that may mean another store are told apart by a checksum.

    User and password, also one among the options, say who asks and not which store: they are not in the checksum.
    """
    parts = urlsplit(address)
    store = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if is_sqlite(address) or not re.search("[?;#]", store):
        return describe_address(address)
    checksum = sha256(_PASSWORD.sub("", store).encode()).hexdigest()[:8]
    return f"{describe_address(address)} (options {checksum})"


def hide_secrets(text: str, address: str) -> str:
    """Return a text, such as a library's message, without the secrets of an address and of MLflow's variables.

    Other addresses in the text, such as those where a server keeps the files of runs, lose their logins and options.
    """
    secrets = [os.environ.get(variable, "") for variable in _SECRET_VARIABLES]
    logins = [":".join(os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD"))]
    login, at, _ = address.partition("//")[2].rpartition("@")
    if at:
        text = text.replace(f"{login}@", f"{_HIDDEN}@")
        secrets.append(login.partition(":")[2])
        logins += [login, unquote(login)]
    secrets += [form for login in logins if login != ":" for form in _list_sent_forms(login)]
    query = address.partition("?")[2]
    # A secret that is not escaped may hold what separates values: only where a name follows does a value end.
    secrets += [part.partition("=")[2] for part in re.split("[&;](?=[^&;=]*=)", query)]
    for form in (address, unquote(address)):
        secrets += _PASSWORD.findall(form)
    secrets += [unquote(secret) for secret in secrets]
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _MIN_SECRET_LENGTH:
            text = text.replace(secret, _HIDDEN)
    text = _HEADER.sub(lambda match: match[1] + (_HIDDEN if _is_login(match[2]) else match[2]), text)
    return _OPTIONS.sub(rf"\1{_HIDDEN}", _LOGIN.sub(f"{_HIDDEN}@", text))


def _list_sent_forms(login: str) -> list[str]:
    """Return user:password as HTTP sends it, in base64, with and without what fills it up."""
    sent = {b64encode(login.encode(encoding, "replace")).decode() for encoding in ("utf-8", "latin-1")}
    return [form for each in sent for form in (each, each.rstrip("="))]


def _is_login(sent: str) -> bool:
    """Tell whether a text is user:password in base64."""
    plain = sent.replace("%3D", "").rstrip("=")
    try:
        return b":" in b64decode(plain + "=" * (-len(plain) % 4), altchars=b"-_" if set(plain) & set("-_") else None)
    except Base64Error:
        return False
