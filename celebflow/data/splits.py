"""Split the photographs of each person into train, val and test."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from celebflow import paths
from celebflow.data.attributes import NO_ATTRIBUTES, AttributeTable, save_attributes, save_balance
from celebflow.data.pairs import Pair, save_folds, save_pairs
from celebflow.data.photos import SPLITS, UNKNOWN, Photo, save_photos
from celebflow.errors import CelebflowError
from celebflow.params import PrepareParams


@dataclass(frozen=True)
class Split:
    """The photographs with their splits, sorted by path, the pairs to compare, and notes for the user.

    `fold_of` is the fold of each person in a k-fold protocol, for those who have one. `unknown` are the photographs of
    people who are not to be known. `attributes` are the labels of the photographs, in their order.
    """

    photos: list[Photo]
    pairs: list[Pair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fold_of: dict[str, int] = field(default_factory=dict)
    unknown: list[Photo] = field(default_factory=list)
    attributes: AttributeTable = NO_ATTRIBUTES

    def save(self) -> None:
        """Write the tables of splits/ that describe photographs; only the headers of what there is not."""
        save_photos([*self.photos, *self.unknown], paths.PHOTOS)
        save_pairs(self.pairs, paths.PAIRS)
        save_folds(self.fold_of, paths.FOLDS)
        save_attributes(self.attributes, paths.ATTRIBUTES)
        save_balance(self.attributes, {photo.path: photo.split for photo in self.photos}, paths.ATTRIBUTE_BALANCE)


def leave_out_unknown(photos: Sequence[Photo]) -> tuple[list[Photo], list[str]]:
    """Return the photographs without those of unknown people, and notes that say so, for tasks that know nobody."""
    used = [photo for photo in photos if photo.split != UNKNOWN]
    if unused_count := len(photos) - len(used):
        return used, [
            f"{unused_count} photographs are not used: they are in prepare.unknown_folder, which is for the task "
            "recognition."
        ]
    return used, []


# What splits the photographs of a task: it takes them, those of unknown people marked as such, the other people,
# params.prepare and the folder of the photographs.
Splitter = Callable[[Sequence[Photo], Sequence[str], PrepareParams, Path], Split]


def split_each_person(photos: Sequence[Photo], people: Sequence[str], params: PrepareParams, folder: Path) -> Split:
    """Split as split_photographs does, for recognition, which compares no pairs; `folder` is not read."""
    known = [photo for photo in photos if photo.split != UNKNOWN]
    unknown = [photo for photo in photos if photo.split == UNKNOWN]
    return Split(split_photographs(known, people, params), unknown=unknown)


def split_photographs(photos: Sequence[Photo], people: Sequence[str], params: PrepareParams) -> list[Photo]:
    """Assign each photograph a split, person by person, and return them sorted by path.

    All photographs of a group of near-duplicates go to one split, even when the group spans people. A hash of the seed
    and the group decides which groups go where. Unless a group spans people, the splits of a person therefore do not
    depend on other people, names or the order of files, and change little when photographs are added. Each person has
    at least one photograph in each split; large groups can leave val and test smaller than their fractions.

    Raises CelebflowError when there are fewer than two people, or people with too few photographs or groups.
    """
    sizes_of: dict[str, Counter[str]] = {person: Counter() for person in people}  # of each person's groups
    for photo in photos:
        sizes_of[photo.person][photo.group] += 1
    if len(people) < 2:
        raise CelebflowError(f"There are photographs of {len(people)} people. Training needs at least two people.")
    small = [f"  {person}: {_describe_count(sizes)}" for person, sizes in sizes_of.items() if len(sizes) < 3]
    if small:
        listing = "\n".join(small)
        remedy = "Add photographs (at least three per person, better thirty or more) or remove the folder."
        if any(sizes.total() > len(sizes) for sizes in sizes_of.values()):
            remedy += f" {advise_on_duplicates(params)}"
        raise CelebflowError(
            f"These people have too few photographs to split into train, val and test:\n{listing}\n{remedy}"
        )
    split_of: dict[str, str] = {}  # of each group
    for person, sizes in sizes_of.items():
        ranked = {group: sizes[group] for group in sorted(sizes, key=lambda group: _rank(params.seed, group))}
        _split_person(person, ranked, split_of, params)
    assigned = [replace(photo, split=split_of[photo.group]) for photo in photos]
    return sorted(assigned, key=lambda photo: photo.path)


def advise_on_duplicates(params: PrepareParams) -> str:
    """Return what to do where near-duplicates leave too few photographs, as a sentence."""
    if params.duplicate_distance_bits is None:
        return "Here near-duplicates are copies of one file: put other photographs in their place."
    key = "prepare.duplicate_distance_bits"
    change = f"lower {key} or set it" if params.duplicate_distance_bits else f"set {key}"
    return f"If near-duplicates here are different photographs, {change} to null."


def _describe_count(sizes: Counter[str]) -> str:
    count = sizes.total()
    return f"{count}, in {len(sizes)} groups of near-duplicates" if count > len(sizes) else str(count)


def _split_person(person: str, sizes: dict[str, int], split_of: dict[str, str], params: PrepareParams) -> None:
    """Add the splits of one person's groups to `split_of`, which may already hold those that span other people."""
    count = sum(sizes.values())
    fractions = {"val": params.val_fraction, "test": params.test_fraction}
    room = {split: max(1, round(count * fraction)) for split, fraction in fractions.items()}
    while sum(room.values()) >= count:  # leave one to train on
        room["val" if room["val"] > room["test"] else "test"] -= 1
    own = [group for group in sizes if group not in split_of]
    for group in sizes.keys() - set(own):
        if split_of[group] != "train":
            room[split_of[group]] -= sizes[group]
    for group in own:
        split_of[group] = next((split for split in room if sizes[group] <= room[split]), "train")
        if split_of[group] != "train":
            room[split_of[group]] -= sizes[group]
    for split in SPLITS:
        counts = Counter(split_of[group] for group in sizes)
        if split in counts:
            continue
        movable = [group for group in own if counts[split_of[group]] > 1]
        if not movable:
            raise CelebflowError(
                f"{person} would have no photograph in {split}: too many are near-duplicates of other people's. "
                f"Remove photographs from the wrong folder. {advise_on_duplicates(params)}"
            )
        split_of[min(movable, key=lambda group: sizes[group])] = split


def _rank(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed} {group}".encode()).hexdigest()
