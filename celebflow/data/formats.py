"""Which format a file has, by its first bytes, and what to do about one that cannot be read."""

from importlib.util import find_spec

from celebflow.errors import CelebflowError

_NAMES = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "AVIF", "HEIF")
PILLOW_FORMATS = {name: name.upper() for name in _NAMES}
# The first bytes of formats, the longest first where one begins with another.
_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"II*\0\x10\0\0\0CR": "RAW",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"FUJIFILMCCD-RAW": "RAW",
    b"IIU\0": "RAW",
    b"IIRO": "RAW",
    b"IIRS": "RAW",
    b"MMOR": "RAW",
    b"FOVb": "RAW",
    b"\0MRM": "RAW",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"\0\0\1\0": "Windows icon",
    b"gimp xcf": "GIMP",
    b"\x1aE\xdf\xa3": "video",
    b"PK\3\4": "ZIP",
    b"version https://git-lfs.github.com/": "Git LFS",
}
# What stands after "ftyp" in files of the ISO base media format; any other brand is a video.
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIF",
    b"heix": "HEIF",
    b"heim": "HEIF",
    b"heis": "HEIF",
    b"hevc": "HEIF",
    b"hevx": "HEIF",
    b"hevm": "HEIF",
    b"hevs": "HEIF",
    b"avci": "HEIF",
    b"avcs": "HEIF",
    b"heif": "HEIF",
    b"miaf": "HEIF",
    b"mif2": "HEIF",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
    b"crx ": "RAW",
}
_CONTAINERS = {b"WEBP": "WebP", b"AVI ": "video"}
_REMEDIES = {
    "RAW": "is a RAW file of a camera; export it as JPEG",
    "video": "is a video, not a photograph",
    "SVG": "is an SVG file, which is not read; save it as JPEG or PNG",
    "empty": "is empty; copy or download it again",
    "Git LFS": "is a pointer of Git LFS, not the image itself; run git lfs pull",
    "web page": "is a web page, not an image; download the image again",
}


class PhotographError(CelebflowError):
    """A file is not a photograph that celebflow can read; the text is the reason, without the file's name."""


def explain_refusal(error: PhotographError | OSError) -> str:
    """Return why a file is not a photograph or cannot be read, for behind its name."""
    return f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)


def identify_format(content: bytes) -> str | None:
    """Return the name of the format that a file's first bytes belong to, None for an unknown one."""
    if not content:
        return "empty"
    if content[4:8] == b"ftyp":
        brands = [content[8:12], *(content[start : start + 4] for start in range(16, 64, 4))]
        found = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return "AVIF" if "AVIF" in found else next(iter(found), "video")
    if content[:4] == b"RIFF":
        return _CONTAINERS.get(content[8:12])
    if name := next((name for start, name in _BEGINNINGS.items() if content.startswith(start)), None):
        return name
    text = content[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "web page"
    return "SVG" if b"<svg" in text else None


def explain_format(name: str | None) -> str:
    """Say why a file of this format cannot be read, and what to do, after the file's name."""
    if name is None:
        return f"is not a {list_formats()} image"
    if name == "HEIF":
        return "is a HEIF image: pip install 'celebflow[heif]' reads it, or save it as JPEG"
    return _REMEDIES.get(name, f"is a {name} file, which is not read; save it as JPEG or PNG")


def list_formats() -> str:
    """Return the names of the formats that can be read here, with "or" before the last."""
    *names, last = filter(can_read, _NAMES)
    return f"{', '.join(names)} or {last}"


def can_read(name: str | None) -> bool:
    """Tell whether files of this format can be read; HEIF needs a library of its own."""
    return name in _NAMES and (name != "HEIF" or find_spec("pillow_heif") is not None)
