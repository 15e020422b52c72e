"""Pairs of photographs, of the same person or of two: pairs.csv, folds.csv, and how pairs are drawn."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from pathlib import Path

from celebflow.data.photos import Photo
from celebflow.data.tables import load_rows, save_rows


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photographs, by their paths; `same` is 1 when they show the same person, otherwise 0.

    `fold` is the fold of both people in a k-fold protocol, 0 without one.
    """

    first: str
    second: str
    same: int
    split: str
    fold: int


def save_pairs(pairs: Iterable[Pair], path: Path) -> None:
    """Write splits/pairs.csv, one row per pair; without any, only the header."""
    save_rows(Pair, pairs, path)


def load_pairs(path: Path) -> list[Pair]:
    """Read what save_pairs wrote; raise CelebflowError when a column is missing."""
    return load_rows(Pair, path)


@dataclass(frozen=True, slots=True)
class PersonFold:
    """A person and the number of a fold, from 1."""

    person: str
    fold: int


def save_folds(fold_of: Mapping[str, int], path: Path) -> None:
    """Write splits/folds.csv, one row per person with a fold, sorted by name; without any, only the header."""
    save_rows(PersonFold, (PersonFold(person, fold) for person, fold in sorted(fold_of.items())), path)


def load_folds(path: Path) -> dict[str, int]:
    """Read what save_folds wrote; raise CelebflowError when a column is missing."""
    return {row.person: row.fold for row in load_rows(PersonFold, path)}


def draw_pairs(photos: Sequence[Photo], split: str, seed: int, max_count: int) -> list[Pair]:
    """Draw pairs among the photographs of a split: as many of the same person as of two people, sorted by path.

    Half of `max_count`, or fewer where there are not so many. Pairs of the same person are shared out evenly among
    people; those of two people take two people at random, and a photograph of each. Near-duplicates make no pair.
    """
    randomly = random.Random(f"{seed} {split}")  # noqa: S311 - a split, not a secret
    of_person: dict[str, list[Photo]] = defaultdict(list)
    for photo in sorted((photo for photo in photos if photo.split == split), key=lambda photo: photo.path):
        of_person[photo.person].append(photo)
    same = _draw_same(of_person, randomly, max_count // 2)
    different = _draw_different(of_person, randomly, len(same))
    chosen = [(*pair, 1) for pair in same[: len(different)]] + [(*pair, 0) for pair in different]
    return sorted(
        (Pair(first.path, second.path, kind, split, 0) for first, second, kind in chosen),
        key=lambda pair: (pair.first, pair.second),
    )


def _draw_same(
    of_person: Mapping[str, Sequence[Photo]], randomly: random.Random, count: int
) -> list[tuple[Photo, Photo]]:
    """Draw up to `count` pairs of the same person, person by person in turns."""
    waiting = []
    for own in of_person.values():
        if comb(len(own), 2) > 4 * count:
            drawn = {tuple(sorted(randomly.sample(range(len(own)), 2))) for _ in range(4 * count)}
            pairs = [(own[first], own[second]) for first, second in sorted(drawn)]
        else:
            pairs = list(combinations(own, 2))
        pairs = [(first, second) for first, second in pairs if first.group != second.group]
        randomly.shuffle(pairs)
        waiting.append(pairs)
    randomly.shuffle(waiting)
    drawn_pairs: list[tuple[Photo, Photo]] = []
    while waiting and len(drawn_pairs) < count:
        waiting = [pairs for pairs in waiting if pairs]
        drawn_pairs += [pairs.pop() for pairs in waiting]
    return drawn_pairs[:count]


def _draw_different(
    of_person: Mapping[str, Sequence[Photo]], randomly: random.Random, count: int
) -> list[tuple[Photo, Photo]]:
    """Draw up to `count` pairs of two people."""
    people = list(of_person)
    sizes = [len(own) for own in of_person.values()]
    possible = (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2
    if possible <= 4 * count:  # too few for a draw at random to find them quickly
        pairs = [
            (first, second)
            for one, other in combinations(people, 2)
            for first in of_person[one]
            for second in of_person[other]
            if first.group != second.group
        ]
        return randomly.sample(pairs, min(count, len(pairs)))
    drawn: dict[tuple[str, str], tuple[Photo, Photo]] = {}
    for _ in range(100 * count):
        if len(drawn) == count:
            break
        one, other = sorted(randomly.sample(people, 2))
        first, second = randomly.choice(of_person[one]), randomly.choice(of_person[other])
        if first.group != second.group:
            drawn[first.path, second.path] = first, second
    return list(drawn.values())
