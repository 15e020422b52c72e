"""Split people into train, val and test, so that nobody is in two, and choose the pairs to compare in each."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from celebflow.data.given_pairs import GivenPairs, read_given_pairs
from celebflow.data.given_tables import LFW_PAIRS, PAIRS_TABLE, PEOPLE_TABLE, is_given
from celebflow.data.pairs import Pair, draw_pairs
from celebflow.data.photos import SPLITS, Photo
from celebflow.data.splits import Split, advise_on_duplicates, leave_out_unknown
from celebflow.data.units import join_units
from celebflow.errors import CelebflowError, list_some
from celebflow.params import PrepareParams

_MIN_PEOPLE = 2  # with two photographs or more, in each split


def split_people(photos: Sequence[Photo], people: Sequence[str], params: PrepareParams, folder: Path) -> Split:
    """Assign each person a split, and choose the pairs of each split; return the photographs sorted by path.

    A hash of the seed and the person decides, separately for people with one photograph and for others. People who
    share near-duplicates go to one split. Where the photographs come with pairs in folds, the last fold is test, the
    one before it val, and the others train; people without a fold train. Photographs of unknown people are not used.

    Raises CelebflowError when the pairs that are given are not valid, or there are too few people or pairs.
    """
    photos, unused_notes = leave_out_unknown(photos)
    given = read_given_pairs(folder, photos)
    notes: list[str] = []
    if given is not None and given.fold_of:
        split_of, notes = _take_folds(photos, given, folder / PEOPLE_TABLE)
    else:
        split_of = _draw_splits(photos, params)
    assigned = sorted((replace(photo, split=split_of[photo.person]) for photo in photos), key=lambda each: each.path)
    if given is None:
        pairs = [pair for split in SPLITS for pair in draw_pairs(assigned, split, params.seed, params.max_pairs)]
    else:
        pairs, dropped_count = _keep_within_splits(given, assigned)
        if given.unused_count:
            notes.append(f"{given.unused_count} pairs are left out: they have files that are not used.")
        if dropped_count:
            notes.append(
                f"{dropped_count} pairs are not used: their people are in different splits. Folds in pairs.csv would "
                "keep them together."
            )
        if not given.fold_of:
            # The given pairs are those to report on; training needs none, but shows how well it fits by some.
            pairs = [pair for pair in pairs if pair.split != "train"]
            pairs = [*draw_pairs(assigned, "train", params.seed, params.max_pairs), *pairs]
    _require_both_kinds(pairs)
    if is_given(folder / PEOPLE_TABLE) and not (given and given.fold_of):
        notes.append(
            f"{folder / PEOPLE_TABLE} is not used: the folds in it count only where pairs.csv or pairs.txt has folds."
        )
    if is_given(folder / PAIRS_TABLE) and is_given(folder / LFW_PAIRS):
        notes.append(f"{folder / LFW_PAIRS} is not used: {folder / PAIRS_TABLE} is.")
    notes += unused_notes
    if empty := sorted(set(people) - {photo.person for photo in photos}):
        notes.append(f"These folders hold no photograph: {', '.join(empty)}.")
    return Split(assigned, pairs, [*notes, *_describe(assigned, pairs)], given.fold_of if given else {})


def _take_folds(photos: Sequence[Photo], given: GivenPairs, table: Path) -> tuple[dict[str, str], list[str]]:
    """Return the split of each person by folds, and notes on what the folds do not say or cannot keep apart.

    `table` is people.csv, which may be missing.
    """
    fold_of = given.fold_of
    *_, val, test = sorted({pair.fold for pair in given.pairs})
    split_of_fold = {val: "val", test: "test"}
    split_of = {photo.person: split_of_fold.get(fold_of.get(photo.person, 0), "train") for photo in photos}
    notes = []
    without = [person for person in split_of if person not in fold_of]
    if without:
        remedy = (
            f"Add them to {table}, which does not name them"
            if is_given(table)
            else f"A table {table.name} (person, fold) beside pairs.csv would give them folds"
        )
        notes.append(
            f"{len(without)} people are in no pair, and their folds are not known: they train in every fold. {remedy}: "
            f"{list_some(without)}."
        )
    if given.nobody_count:
        notes.append(f"{given.nobody_count} rows of {table} name nobody whose photographs are used: they do not count.")
    folds_of_group: dict[str, set[int]] = defaultdict(set)
    for photo in photos:
        folds_of_group[photo.group].add(fold_of.get(photo.person, 0))
    if across := sum(len(folds) > 1 for folds in folds_of_group.values()):
        notes.append(f"{across} groups of near-duplicates span folds: a label is likely wrong.")
    return split_of, notes


def _draw_splits(photos: Sequence[Photo], params: PrepareParams) -> dict[str, str]:
    """Return the split of each person."""
    groups_of: dict[str, set[str]] = defaultdict(set)
    for photo in photos:
        groups_of[photo.person].add(photo.group)
    families = [{photo.person for photo in unit} for unit in join_units(photos)]
    several = [person for person, groups in groups_of.items() if len(groups) > 1]
    if len(several) < len(SPLITS) * _MIN_PEOPLE:
        any_copies = len({photo.group for photo in photos}) < len(photos)
        raise CelebflowError(
            f"There are {len(several)} people with two photographs or more, apart from near-duplicates. Verification "
            f"needs at least {len(SPLITS) * _MIN_PEOPLE}, so that train, val and test have {_MIN_PEOPLE} each. Add "
            "photographs." + (f" {advise_on_duplicates(params)}" if any_copies else "")
        )
    split_of: dict[str, str] = {}
    chosen = set(several)
    for has_several in (True, False):
        members = [sorted(family) for family in families if bool(family & chosen) == has_several]
        ranked = sorted(members, key=lambda family: hashlib.sha256(f"{params.seed} {family[0]}".encode()).hexdigest())
        _fill(ranked, _MIN_PEOPLE if has_several else 0, params, split_of)
    counts = Counter(split_of[person] for person in several)
    if short := [split for split in SPLITS if counts[split] < _MIN_PEOPLE]:
        raise CelebflowError(
            f"{' and '.join(short)} would have fewer than {_MIN_PEOPLE} people with two photographs: too many people "
            "share near-duplicates. Remove photographs from the wrong folders, or lower "
            "prepare.duplicate_distance_bits."
        )
    return split_of


def _fill(families: Sequence[Sequence[str]], least: int, params: PrepareParams, split_of: dict[str, str]) -> None:
    """Assign families, in order, to val and test until these have their fractions of the people; the rest trains."""
    count = sum(len(family) for family in families)
    room = {
        "val": max(least, round(count * params.val_fraction)),
        "test": max(least, round(count * params.test_fraction)),
    }
    while sum(room.values()) > count - least:  # leave some to train on
        room["val" if room["val"] > room["test"] else "test"] -= 1
    for family in families:
        split = next((split for split in room if len(family) <= room[split]), "train")
        split_of |= dict.fromkeys(family, split)
        if split != "train":
            room[split] -= len(family)


def _keep_within_splits(given: GivenPairs, photos: Sequence[Photo]) -> tuple[list[Pair], int]:
    """Return the given pairs whose people are in one split, with that split, and the number of the others."""
    split_of = {photo.path: photo.split for photo in photos}
    kept = [
        replace(pair, split=split_of[pair.first])
        for pair in given.pairs
        if split_of[pair.first] == split_of[pair.second]
    ]
    return kept, len(given.pairs) - len(kept)


def _require_both_kinds(pairs: Sequence[Pair]) -> None:
    for split in SPLITS:
        kinds = Counter(pair.same for pair in pairs if pair.split == split)
        if len(kinds) < 2:
            kind = "two people" if kinds[1] else "the same person"
            raise CelebflowError(
                f"{split} has no pair of {kind}. Add pairs, give pairs.csv a column fold, or remove pairs.csv to draw "
                "pairs by prepare.seed."
            )


def _describe(photos: Sequence[Photo], pairs: Sequence[Pair]) -> list[str]:
    """Return a sentence for each split: its people, photographs and pairs."""
    lines = []
    for split in SPLITS:
        shown = [photo.person for photo in photos if photo.split == split]
        kinds = Counter(pair.same for pair in pairs if pair.split == split)
        lines.append(
            f"{split}: {len(set(shown))} people, {len(shown)} photographs, {kinds[1]} pairs of the same person and "
            f"{kinds[0]} of two people."
        )
    return lines
