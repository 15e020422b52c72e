"""Split photographs into train, val and test."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from celebflow.data.photos import SPLITS, Photo
from celebflow.errors import CelebflowError
from celebflow.params import PrepareParams


def split_photographs(photos: Iterable[Photo], people: Sequence[str], params: PrepareParams) -> list[Photo]:
    """Assign each photograph a split, person by person, and return them in the order of their paths.

    A group of near-duplicates goes to one split as a whole, also when it spans people. Which go where follows from a
    hash of the seed and the group alone: where no group spans people, other people's photographs, names and the
    order of files change nothing, and a person keeps most of a split when photographs come to it. Each person has at
    least one photograph in each split; large groups can leave val and test smaller than their fractions.

    Raises CelebflowError when there are no two people, or naming each with too few photographs or groups.
    """
    of_person: dict[str, dict[str, list[Photo]]] = {person: {} for person in people}
    for photo in photos:
        of_person[photo.person].setdefault(photo.group, []).append(photo)
    if len(people) < 2:
        raise CelebflowError(f"There are photographs of {len(people)} people; it takes at least two to tell apart.")
    small = [f"  {person}: {_describe_count(groups)}" for person, groups in of_person.items() if len(groups) < 3]
    if small:
        raise CelebflowError(
            "\n".join(
                [
                    "These people have too few photographs to split into train, val and test:",
                    *small,
                    "Add photographs (three are the least, thirty and more are better) or remove the folder.",
                ]
            )
        )
    split_of: dict[str, str] = {}  # of each group
    for person, groups in of_person.items():
        sizes = {group: len(groups[group]) for group in sorted(groups, key=lambda group: _rank(params.seed, group))}
        _split_person(person, sizes, split_of, params)
    everyone = (photo for groups in of_person.values() for group in groups.values() for photo in group)
    return sorted((replace(photo, split=split_of[photo.group]) for photo in everyone), key=lambda photo: photo.path)


def _describe_count(groups: dict[str, list[Photo]]) -> str:
    count = sum(len(group) for group in groups.values())
    return f"{count}, of {len(groups)} different pictures" if count > len(groups) else str(count)


def _split_person(person: str, sizes: dict[str, int], split_of: dict[str, str], params: PrepareParams) -> None:
    """Add the splits of one person's groups to `split_of`, which may hold some already: those of other people, too."""
    count = sum(sizes.values())
    val, test = (max(1, round(count * fraction)) for fraction in (params.val_fraction, params.test_fraction))
    left = dict(zip(("val", "test"), _leave_one_to_train_on(count, val, test), strict=True))
    own = [group for group in sizes if group not in split_of]
    for group in sizes.keys() - set(own):
        if split_of[group] != "train":
            left[split_of[group]] -= sizes[group]
    for group in own:
        fitting = [split for split in left if sizes[group] <= left[split]]
        split_of[group] = fitting[0] if fitting else "train"
        if fitting:
            left[fitting[0]] -= sizes[group]
    for missing in SPLITS:
        inside = Counter(split_of[group] for group in sizes)
        if missing in inside:
            continue
        movable = [group for group in own if inside[split_of[group]] > 1]
        if not movable:
            raise CelebflowError(
                f"{person} would have no photograph in {missing}: too many are near-duplicates of other people'. "
                "Remove what stands in the wrong folder, or lower prepare.duplicate_distance_bits."
            )
        split_of[min(movable, key=lambda group: sizes[group])] = missing


def _leave_one_to_train_on(count: int, val: int, test: int) -> tuple[int, int]:
    while val + test >= count:
        val, test = (val - 1, test) if val > test else (val, test - 1)
    return val, test


def _rank(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed} {group}".encode()).hexdigest()
