"""The command celebflow review: open the page, serve it until Ctrl-C, and tell what came of it."""

import os
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.experiments.attribute_review import AttributeReview, open_attribute_review
from celebflow.experiments.review import Review, open_review
from celebflow.experiments.review_server import HOST, make_app, make_page_access
from celebflow.experiments.review_summary import format_summary
from celebflow.inference import connections
from celebflow.params import load_params

_SECONDS = 30.0  # that requests may still take after Ctrl-C


def run_review(port: int, opens_browser: bool, show: Callable[[str], None]) -> None:
    """Serve the page of the review until Ctrl-C or SIGTERM; show its address, and at the end what came of it.

    Raises CelebflowError when the task has no suspects, when nothing can be reviewed, and when somebody is reviewing
    already.
    """
    with _open() as review, connections.listen(HOST, port) as listening:
        access = make_page_access()
        address = f"{connections.describe_address(HOST, listening)}/{access.token}/"
        try:
            show(f"Review on {address} (press Ctrl-C to stop).")
            with _open_browser(address, opens_browser):
                connections.run(make_app(review, access), listening, _SECONDS)
        except KeyboardInterrupt:  # this is how a review ends
            pass
        finally:
            show(f"\n{format_summary(review)}")
            review.journal.tell()


def _open() -> AbstractContextManager[Review | AttributeReview]:
    """Return the review of the workspace's task."""
    params = load_params(paths.PARAMS)
    if params.task == "attributes":
        return open_attribute_review()
    if params.task != "recognition":
        raise CelebflowError(
            f"Suspect labels are reviewed for the tasks recognition and attributes, and {paths.PARAMS} has "
            f"{params.task}."
        )
    unknown_folder = params.prepare.unknown_folder
    left_out_person = unknown_folder and unknown_folder.removeprefix("data/").strip("/")
    return open_review(left_out_person)


@contextmanager
def _open_browser(address: str, wanted: bool) -> Iterator[None]:
    """Open a page in the browser, if there is one, within a `with` block.

    Other users can see the arguments of a program that starts, but not read the file that leads to the address.
    """
    has_screen = sys.platform in ("win32", "darwin") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if not wanted or not has_screen:  # a browser for terminals would take the one of this command
        yield
        return
    file = paths.REVIEW_PAGE
    file.unlink(missing_ok=True)
    file.touch(0o600, exist_ok=False)
    file.write_text(f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={address}">', encoding="utf-8")
    try:
        webbrowser.open(file.resolve().as_uri())
        yield
    finally:
        file.unlink(missing_ok=True)
