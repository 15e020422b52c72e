"""Which version of a library is installed."""

from importlib.metadata import PackageNotFoundError, version


def find_version(library: str) -> str:
    """Return the version of an installed library; "not installed" without it."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
