"""Which photographs must stay in one split: those of a person, and near-duplicates."""

from collections import defaultdict
from collections.abc import Sequence

from scipy.cluster.hierarchy import DisjointSet

from celebflow.data.photos import Photo


def join_units(photos: Sequence[Photo]) -> list[list[Photo]]:
    """Return the photographs in units: all of a person, if known, near-duplicates, and what a chain of these links."""
    linked = DisjointSet(dict.fromkeys(photo.group for photo in photos))
    group_of: dict[str, str] = {}
    for photo in photos:
        if photo.person:
            linked.merge(group_of.setdefault(photo.person, photo.group), photo.group)
    units: dict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        units[linked[photo.group]].append(photo)
    return list(units.values())
