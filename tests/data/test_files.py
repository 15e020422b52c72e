"""Files are found at any depth, and what systems leave behind is kept apart."""

import io
import os
from contextlib import suppress
from pathlib import Path
from socket import AF_UNIX, socket
from threading import Thread

import pytest

from celebflow.data import files
from celebflow.data.files import explain_system_file, find_files, read_file, read_stream
from celebflow.data.formats import PhotographError
from celebflow.errors import CelebflowError

LEFT_BEHIND = [
    "#snapshot/GMT-2024/Ann/0.jpg",
    "$RECYCLE.BIN/S-1/desktop.ini",
    ".ipynb_checkpoints/0-checkpoint.jpg",
    "Ann/.DS_Store",
    "Ann/._0.jpg",
    "Ann/0.jpg:Zone.Identifier",
    "Ann/@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg",
    "Ann/CaptureOne/Cache/Thumbnails/0.jpg",
    "Ann/Icon\r",
    "Ann/Picasa.ini",
    "Ann/Thumbs.db",
    "Ann/Thumbs.db:encryptable",
    "Ann/ZbThumbnail.info",
    "Ann/album/.ipynb_checkpoints/1.jpg",
    "Ann/album/@eaDir/1.jpg",
    "FOUND.000/FILE0000.CHK",
    "LOST.DIR/12.jpg",
    "Lightroom Catalog Previews.lrdata/0/0.jpg",
    "RECYCLER/S-1/Dc1.jpg",
    "Recycled/Dc1.jpg",
    "System Volume Information/x",
    "Temporary Items/folders.501/0.jpg",
    "__MACOSX/Ann/._0.jpg",
    "_gsdata_/_saved_/Ann/0.jpg",
    "lost+found/1.jpg",
    "~snapshot/hourly.0/Ann/0.jpg",
]


def _make(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def test_what_systems_leave_behind_is_kept_apart_at_any_depth(tmp_path: Path) -> None:
    own = ["Ann/0.jpg", "Ann/album/1.jpg", "Bo/Icon", "Bo/eaDir/0.jpg"]
    _make(tmp_path, *LEFT_BEHIND, *own)
    assert find_files(tmp_path) == (own, LEFT_BEHIND)


def test_links_are_listed_but_not_followed_and_pipes_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make(tmp_path, "Ann/0.jpg")
    (tmp_path / "Ann" / "loop").symlink_to(tmp_path)
    (tmp_path / "Ann" / "itself").symlink_to("itself")
    os.mkfifo(tmp_path / "Ann" / "pipe")
    monkeypatch.chdir(tmp_path / "Ann")  # the path of a socket must be short
    with socket(AF_UNIX) as listening:
        listening.bind("socket")
    assert find_files(tmp_path) == (["Ann/0.jpg", "Ann/itself", "Ann/loop"], ["Ann/pipe", "Ann/socket"])
    assert "pipe" in explain_system_file("Ann/pipe")
    assert explain_system_file("Ann/Thumbs.db") == "is a system file"
    assert "not downloaded from iCloud" in explain_system_file("Ann/.1.jpg.icloud")


def test_only_regular_files_of_a_sensible_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    with (tmp_path / "video").open("wb") as file:
        file.truncate(3_000_000_000)
    for name in ("pipe", "link", "endless"):
        with pytest.raises(PhotographError, match="is not a regular file"):
            read_file(tmp_path / name)
    with pytest.raises(PhotographError, match="3000 MB, more than 500"):
        read_file(tmp_path / "video")
    with pytest.raises(PhotographError, match="is a folder"):
        read_file(tmp_path)
    with pytest.raises(PhotographError, match="null character"):  # as a table can name one
        read_file(tmp_path / "a\0.jpg")


def test_a_pipe_is_read_up_to_a_sensible_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"photograph" * 1000
    assert read_stream(io.BytesIO(content)) == content
    monkeypatch.setattr(files, "_MAX_FILE_BYTES", 2_000_000)
    os.mkfifo(tmp_path / "pipe")
    endless = Thread(target=_write_endlessly, args=[tmp_path / "pipe"])
    endless.start()
    with pytest.raises(PhotographError, match="more than 2 MB"):
        read_file(tmp_path / "pipe", pipes=True)
    endless.join()


def _write_endlessly(path: Path) -> None:
    with suppress(BrokenPipeError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(100_000))


def test_files_whose_state_cannot_be_asked_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path, "Ann/0.jpg")

    def refuse(path: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", refuse)
    assert find_files(tmp_path) == (["Ann", "Ann/0.jpg"], [])


def test_folders_that_are_nested_too_deeply_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(*_: object, **__: object) -> object:  # a real tree of this depth could not be removed
        raise RecursionError

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(CelebflowError, match="nested too deeply"):
        find_files(tmp_path)


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path, "Ann/0.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:  # the tests may run as root, who may read everything
        if str(path).endswith("Ann"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CelebflowError, match="Ann cannot be read \\(Permission denied\\)"):
        find_files(tmp_path)
