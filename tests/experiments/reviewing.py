"""A project with suspects that tests review, and what is in it afterwards."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests
import uvicorn
from PIL import Image

from celebflow.evaluation.suspects import Suspect, save_suspects
from celebflow.experiments.attribute_review import AttributeReview
from celebflow.experiments.review import Review
from celebflow.experiments.review_server import HOST, make_app, make_page_access
from celebflow.inference import connections
from tests import COMMITTED_PARAMS

PEOPLE = ("Ann", "Bo_Ek", "Cy")


def make_project(folder: Path, count: int = 6, people: Sequence[str] = PEOPLE) -> list[Suspect]:
    """Draw `count` photographs of each person, and list all as suspects that look like the next person."""
    (folder / "dvc.yaml").touch()
    (folder / "params.yaml").write_text(COMMITTED_PARAMS, encoding="utf-8")
    suspects = []
    for number in range(count):
        for index, person in enumerate(people):
            file = folder / "data" / person / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            color = (9 * index, number % 256, 90 + number // 256)
            Image.fromarray(np.full((30, 40, 3), color, np.uint8)).save(file)
            likelier = people[(index + 1) % len(people)]
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
            suspects.append(
                Suspect(f"{person}/{number}.png", "val", sha256, person, likelier, 0.04, 0.87, f"{person}/0.png")
            )
    save_suspects(suspects, folder / "reports" / "suspects.csv")
    return suspects


def list_photographs(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each photograph in the data and among the deleted, by its path in the project."""
    places = [*(folder / "data").rglob("*"), *(folder / ".celebflow" / "review" / "deleted").rglob("*")]
    files = [place for place in places if not place.is_dir()]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class Client:
    """The page's address, and requests as the page sends them."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.origin = address.rsplit("/", 2)[0]

    def get(self, path: str, **headers: str) -> requests.Response:
        """Send a GET request."""
        return requests.get(f"{self.address}{path}", headers=headers, timeout=60)

    def post(self, path: str, body: Any, origin: str | None = None, **headers: str) -> requests.Response:
        """Send a POST request with JSON from a page of this origin; without one, if it is empty."""
        sent = {"Origin": self.origin if origin is None else origin, **headers}
        return requests.post(
            f"{self.address}{path}", json=body, headers={k: v for k, v in sent.items() if v}, timeout=60
        )


@contextmanager
def serve_review(review: Review | AttributeReview) -> Iterator[Client]:
    """Serve the page of a review from a thread of this process."""
    access = make_page_access()
    with connections.listen(HOST, 0) as listening:
        running = uvicorn.Server(connections.configure(make_app(review, access), 5.0))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Client(f"{connections.describe_address(HOST, listening)}/{access.token}/")
        finally:
            running.should_exit = True
            thread.join()


def find_row(content: dict[str, Any], row: int) -> dict[str, Any]:
    """Return the item of a row in what the server answered."""
    [item] = [item for item in content["items"] if item["row"] == row]
    return dict(item)
