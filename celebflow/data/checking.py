"""Check which files are photographs, here or on the nodes of a cluster, and hash them to find near-duplicates."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from celebflow.data.checked import CheckedPhotographs
from celebflow.data.decoding import decode_photograph
from celebflow.data.duplicates import HashArray, hash_photograph
from celebflow.data.files import read_file
from celebflow.data.formats import PhotographError, explain_refusal
from celebflow.params import ComputeParams


@dataclass(frozen=True)
class CheckedFile:
    """A file, the SHA-256 of its content, and the (2, 4) hashes of its photograph, or why it is none."""

    path: str
    sha256: str = ""
    hashes: HashArray | None = None
    refusal: str = ""


def check_files(
    folder: Path, paths: Sequence[str], checked: CheckedPhotographs, compute: ComputeParams
) -> list[CheckedFile]:
    """Check the files in `folder` at these paths, in this order; what `checked` knows is not decoded again.

    Raises CelebflowError when there is a cluster in `compute` that cannot be used.
    """
    is_here = compute.cluster is None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda path: _read(folder, path, checked, decodes=is_here), paths)
        files = list(tqdm(found, "checking", len(paths), unit="photograph", disable=None))
    new = [place for place, file in enumerate(files) if file.hashes is None and not file.refusal]
    if compute.cluster is not None and new:
        from celebflow.data.cluster_checking import hash_on_cluster

        to_hash = [(files[place].path, files[place].sha256) for place in new]
        hashed = hash_on_cluster(compute.cluster, to_hash, folder, compute.shared_disk)
        for number, result in tqdm(hashed, "decoding", len(new), unit="photograph", disable=None):
            place = new[number]
            if isinstance(result, str):
                files[place] = replace(files[place], refusal=result)
            else:
                files[place] = replace(files[place], hashes=result)
                checked.remember(files[place].sha256, result)
    return files


def _read(folder: Path, path: str, checked: CheckedPhotographs, *, decodes: bool) -> CheckedFile:
    """Read a file; decode and hash it if it is not known and `decodes` is true."""
    try:
        content = read_file(folder / path)
        sha256 = hashlib.sha256(content).hexdigest()
        hashes = checked.recall(sha256)
        if hashes is None and decodes:
            hashes = hash_photograph(decode_photograph(content))
            checked.remember(sha256, hashes)
    except (PhotographError, OSError) as error:
        return CheckedFile(path, refusal=explain_refusal(error))
    return CheckedFile(path, sha256, hashes)
