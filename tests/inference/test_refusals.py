"""Whatever a request lacks, the refusal is JSON with a code for programs and a message for people."""

import pytest
import requests

from tests.inference.serving import get, post_form, read_refusal
from tests.models import draw_noise


def test_unknown_paths_and_methods_are_refused(address: str) -> None:
    assert read_refusal(get(address, "/nothing")) == (404, "not_found")
    assert read_refusal(get(address, "/predict")) == (405, "method_not_allowed")
    response = requests.post(f"{address}/predict/", allow_redirects=False, timeout=60)
    assert read_refusal(response) == (404, "not_found")
    for path, allowed in (("/healthz", {"GET", "HEAD"}), ("/openapi.json", {"GET", "HEAD"}), ("/predict", {"POST"})):
        response = requests.options(f"{address}{path}", timeout=60)
        assert read_refusal(response) == (405, "method_not_allowed")
        assert set(response.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("top=0", (422, "invalid_parameter")),
        ("top=x", (422, "invalid_parameter")),
        ("nearest=true", (403, "not_shown")),
    ],
)
def test_parameters_are_checked(address: str, query: str, expected: tuple[int, str]) -> None:
    assert read_refusal(post_form(address, draw_noise(), query=query)) == expected
