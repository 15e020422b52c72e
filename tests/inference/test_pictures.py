"""On request, a response holds the photograph as the server sees it, small and upright; otherwise nothing changes."""

import base64
import io
import re
from collections.abc import Mapping
from typing import Any

import pytest
import requests
from PIL import ExifTags, Image

from celebflow.data.decoding import decode_photograph
from celebflow.inference.pictures import PICTURE_SIDE_PX, encode_picture
from tests.inference.serving import get, read_refusal
from tests.models import draw_blue, draw_noise

ADDRESSES = ["address", "attribute_address", "verifier_address"]


def _post(address: str, content: bytes, query: str = "") -> requests.Response:
    """Send a photograph to the server of any task, twice to that of verification."""
    (path,) = get(address, "/openapi.json").json()["paths"].keys() & {"/predict", "/attributes", "/verify"}
    fields = ("first", "second") if path == "/verify" else ("photograph",)
    files = dict.fromkeys(fields, ("photograph", content))
    return requests.post(f"{address}{path}?{query}", files=files, timeout=60)


def _open(encoded: str) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert picture.format == "JPEG"
    return picture


def _draw_sideways(size: tuple[int, int]) -> bytes:
    """Return a WebP file of this upright size that is stored sideways."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = io.BytesIO()
    Image.new("RGB", (size[1], size[0]), "teal").save(content, "WEBP", exif=exif)
    return content.getvalue()


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_picture_is_there_on_request_alone_and_changes_nothing_else(
    request: pytest.FixtureRequest, name: str
) -> None:
    address = request.getfixturevalue(name)
    plain = _post(address, draw_blue())
    assert plain.ok and "picture" not in plain.text
    assert _post(address, draw_blue(), "picture=false").text == plain.text
    pictured = _post(address, draw_blue(), "picture=true")
    assert "picture" in pictured.text
    assert re.sub(r',"picture":"[^"]+"', "", pictured.text) == plain.text
    assert pictured.headers["cache-control"] == "no-store"
    assert read_refusal(_post(address, draw_blue(), "picture=large")) == (422, "invalid_parameter")


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_picture_is_upright_and_small_and_sizes_are_the_photograph_s_own(
    request: pytest.FixtureRequest, name: str
) -> None:
    content = _draw_sideways((1500, 300))
    response = _post(request.getfixturevalue(name), content, "picture=true").json()
    described: list[Mapping[str, Any]] = [response[each] for each in ("first", "second") if each in response]
    for each in described or [response]:
        assert (each["width_px"], each["height_px"]) == (1500, 300)
        assert _open(each["picture"]).size == (PICTURE_SIDE_PX, round(PICTURE_SIDE_PX / 5))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((60, 40), (60, 40)), ((1500, 3000), (512, 1024)), ((9000, 1), (1024, 1)), ((1, 9000), (1, 1024))],
)
def test_large_photographs_are_made_smaller_and_others_stay(size: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = Image.open(io.BytesIO(encode_picture(Image.new("RGB", size, (200, 100, 50)))))
    assert picture.size == expected
    assert picture.getpixel((0, 0)) == pytest.approx((200, 100, 50), abs=3)


def test_a_picture_has_nothing_of_the_file_but_its_pixels() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Somebody"
    content = io.BytesIO()
    photograph = Image.open(io.BytesIO(draw_noise()))
    photograph.save(content, "JPEG", exif=exif, comment=b"Somebody", xmp=b"<Somebody/>", icc_profile=b"Somebody")
    assert b"Somebody" in content.getvalue()
    decoded = decode_photograph(content.getvalue())
    assert b"Somebody" not in encode_picture(decoded)


@pytest.mark.parametrize(
    ("name", "sources"),
    [("address", "data:"), ("attribute_address", "data:"), ("verifier_address", "blob: data:")],
)
def test_pages_allow_the_images_that_they_show_and_no_others(
    request: pytest.FixtureRequest, name: str, sources: str
) -> None:
    policy = get(request.getfixturevalue(name), "/").headers["content-security-policy"]
    assert f"; img-src {sources};" in policy and "default-src 'none'" in policy
