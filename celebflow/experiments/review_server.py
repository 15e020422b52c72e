"""The local page of a review: what it shows, and what it asks to be done."""

import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Response
from pydantic import BaseModel

from celebflow.errors import CelebflowError, describe_shortage, describe_system_error
from celebflow.experiments.attribute_journal import AttributeAction
from celebflow.experiments.attribute_review import AttributeItem, AttributeReview
from celebflow.experiments.review import Review
from celebflow.experiments.review_items import Item
from celebflow.experiments.review_journal import Action
from celebflow.experiments.review_pictures import Kind, Pictures
from celebflow.experiments.review_summary import list_commands
from celebflow.inference.access import Access, HostCheck, OriginCheck, TokenPath, make_access, make_page_response
from celebflow.inference.refusals import RefusalError, add_refusals
from celebflow.report import markup

HOST = "127.0.0.1"
_FOLDER = Path(__file__).parent / "templates"
_STYLES = "base.css", "review.css"
_SHARED = "names.js", "review_parts.js"
_PAGE = markup.Page("review.html.jinja", _STYLES, (*_SHARED, "review_people.js", "review.js"), _FOLDER)
_ATTRIBUTE_PAGE = markup.Page("review.html.jinja", _STYLES, (*_SHARED, "review_attributes.js", "review.js"), _FOLDER)
_Result = TypeVar("_Result")


class DecisionBody(BaseModel):
    """What somebody decided about a row; `person` is where it moves."""

    row: int
    action: Action
    person: str = ""


class AttributeDecisionBody(BaseModel):
    """What somebody decided about the label of a row."""

    row: int
    action: AttributeAction


class UndoBody(BaseModel):
    """The row whose decision is taken back, or none for the last decision."""

    row: int | None = None


class ApplyBody(BaseModel):
    """The rows that the page listed when somebody asked to move them."""

    rows: list[int]


def make_page_access() -> Access:
    """Return who may use a page: those who know a new token, by a name of this machine."""
    return make_access(HOST, secrets.token_urlsafe(32))


def make_app(review: Review | AttributeReview, access: Access) -> FastAPI:
    """Make the application that shows a review and does what its page asks; requests change it one after the other."""
    pictures = Pictures(review)
    lock = threading.Lock()
    about = "people" if isinstance(review, Review) else "attributes"
    page = _PAGE if isinstance(review, Review) else _ATTRIBUTE_PAGE
    html, policy = markup.render(page, "img-src 'self' data:; connect-src 'self'", {}, about=about)
    app = FastAPI(openapi_url=None)  # and thus without /docs, which would need the web
    add_refusals(app)
    app.add_middleware(TokenPath, access=access)
    app.add_middleware(OriginCheck)
    app.add_middleware(HostCheck, access=access)

    def change(work: Callable[[], _Result]) -> _Result:
        """Do what a request asks, alone; a reason not to becomes a refusal."""
        with lock:
            try:
                return work()
            except CelebflowError as error:
                raise RefusalError(409, "not_possible", str(error)) from None
            except OSError as error:
                status = 507 if describe_shortage(error) else 409
                raise RefusalError(status, "not_possible", describe_system_error(error)) from None

    def describe(changed: Sequence[Item | AttributeItem], problems: list[str] | None = None) -> dict[str, Any]:
        """Return what the page needs to know after a change."""
        return {
            "items": [_describe_item(item) for item in changed],
            "problems": problems or [],
            "commands": list_commands(review),
        }

    # Functions without `async` run in threads: they wait for the disk.
    @app.get("/")
    def show_page() -> Response:
        return make_page_response(html, policy)

    @app.get("/state")
    def report_state() -> dict[str, Any]:
        with lock:
            return describe(review.items) | {
                "people": review.people if isinstance(review, Review) else [],
                "left_out": review.left_out_count,
                "shows_faces": pictures.shows_faces,
            }

    @app.get("/pictures/{row}/{kind}")
    def draw_picture(row: int, kind: Kind) -> Response:
        try:
            content = pictures.draw(review.find(row), kind)
        except CelebflowError as error:
            raise RefusalError(404, "not_found", str(error)) from None
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    if isinstance(review, Review):

        @app.post("/decisions")
        def decide(body: DecisionBody) -> dict[str, Any]:
            return describe(change(lambda: review.decide(body.row, body.action, body.person)))

    else:

        @app.post("/decisions")
        def decide_label(body: AttributeDecisionBody) -> dict[str, Any]:
            return describe(change(lambda: review.decide(body.row, body.action)))

    @app.post("/undo")
    def undo(body: UndoBody) -> dict[str, Any]:
        return describe(change(lambda: review.undo(body.row)))

    @app.post("/apply")
    def apply(body: ApplyBody) -> dict[str, Any]:
        return describe(*change(lambda: review.apply(body.rows)))

    return app


def _describe_item(item: Item | AttributeItem) -> dict[str, Any]:
    suspect = item.suspect
    described = {
        "row": item.row,
        "listed": item.listed,
        "path": suspect.path,
        "likelier": suspect.likelier,
        "of_likelier": suspect.probability_of_likelier,
        "nearest": [bool(path) for path in item.nearest],
        "action": item.change.action if item.change else "",
    }
    if isinstance(item, AttributeItem):
        return described | {
            "attribute": item.suspect.attribute,
            "given": item.suspect.given,
            "of_given": item.suspect.probability_of_given,
            "done": item.is_done,
        }
    return described | {
        "person": item.suspect.person,
        "of_person": item.suspect.probability_of_person,
        "to": item.change.to if item.change else "",
        "place": item.change.place if item.change else "",
    }
