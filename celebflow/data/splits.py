"""Split photographs into train, val and test."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from celebflow.data.photos import SPLITS, Photo
from celebflow.errors import CelebflowError
from celebflow.params import PrepareParams


def split_photographs(photos: Iterable[Photo], people: Sequence[str], params: PrepareParams) -> list[Photo]:
    """Assign each photograph a split, person by person, and return them sorted by path.

    All photographs of a group of near-duplicates go to one split, even when the group spans people. A hash of the seed
    and the group decides which groups go where. Unless a group spans people, the splits of a person therefore do not
    depend on other people, names or the order of files, and change little when photographs are added. Each person has
    at least one photograph in each split; large groups can leave val and test smaller than their fractions.

    Raises CelebflowError when there are fewer than two people, or people with too few photographs or groups.
    """
    groups_of: dict[str, dict[str, list[Photo]]] = {person: {} for person in people}
    for photo in photos:
        groups_of[photo.person].setdefault(photo.group, []).append(photo)
    if len(people) < 2:
        raise CelebflowError(f"There are photographs of {len(people)} people. Training needs at least two people.")
    small = [f"  {person}: {_describe_count(groups)}" for person, groups in groups_of.items() if len(groups) < 3]
    if small:
        listing = "\n".join(small)
        raise CelebflowError(
            f"These people have too few photographs to split into train, val and test:\n{listing}\n"
            "Add photographs (at least three per person, better thirty or more) or remove the folder."
        )
    split_of: dict[str, str] = {}  # of each group
    for person, groups in groups_of.items():
        sizes = {group: len(groups[group]) for group in sorted(groups, key=lambda group: _rank(params.seed, group))}
        _split_person(person, sizes, split_of, params)
    assigned = []
    for groups in groups_of.values():
        for group, members in groups.items():
            assigned += [replace(photo, split=split_of[group]) for photo in members]
    return sorted(assigned, key=lambda photo: photo.path)


def _describe_count(groups: dict[str, list[Photo]]) -> str:
    count = sum(len(group) for group in groups.values())
    return f"{count}, in {len(groups)} groups of near-duplicates" if count > len(groups) else str(count)


def _split_person(person: str, sizes: dict[str, int], split_of: dict[str, str], params: PrepareParams) -> None:
    """Add the splits of one person's groups to `split_of`, which may already hold those that span other people."""
    count = sum(sizes.values())
    val, test = (max(1, round(count * fraction)) for fraction in (params.val_fraction, params.test_fraction))
    room = dict(zip(("val", "test"), _leave_one_to_train_on(count, val, test), strict=True))
    own = [group for group in sizes if group not in split_of]
    for group in sizes.keys() - set(own):
        if split_of[group] != "train":
            room[split_of[group]] -= sizes[group]
    for group in own:
        fitting = [split for split in room if sizes[group] <= room[split]]
        split_of[group] = fitting[0] if fitting else "train"
        if fitting:
            room[fitting[0]] -= sizes[group]
    for split in SPLITS:
        counts = Counter(split_of[group] for group in sizes)
        if split in counts:
            continue
        movable = [group for group in own if counts[split_of[group]] > 1]
        if not movable:
            raise CelebflowError(
                f"{person} would have no photograph in {split}: too many are near-duplicates of other people's. "
                "Remove photographs from the wrong folder, or lower prepare.duplicate_distance_bits."
            )
        split_of[min(movable, key=lambda group: sizes[group])] = split


def _leave_one_to_train_on(count: int, val: int, test: int) -> tuple[int, int]:
    while val + test >= count:
        val, test = (val - 1, test) if val > test else (val, test - 1)
    return val, test


def _rank(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed} {group}".encode()).hexdigest()
