"""Everyone is in every split in proportion, and groups of near-duplicates are never split."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celebflow.data.photos import Photo
from celebflow.data.splits import split_photographs
from celebflow.errors import CelebflowError
from celebflow.params import PrepareParams

PARAMS = PrepareParams()


def make_photos(group_sizes: Mapping[str, Sequence[int]], shared_group: str | None = None) -> list[Photo]:
    """Return photographs of several people in groups of these sizes; the last group may be `shared_group` instead."""
    photos = []
    for person, sizes in group_sizes.items():
        for number, size in enumerate(sizes):
            for copy in range(size):
                group = f"{person} {number}"
                photos.append(Photo(f"{person}/{number} {copy}.jpg", person, "", f"{group} {copy}", group))
    if shared_group is not None:
        last = photos[-1].group
        photos = [replace(photo, group=shared_group) if photo.group == last else photo for photo in photos]
    return photos


def _split(photos: Sequence[Photo], people: Sequence[str], params: PrepareParams = PARAMS) -> dict[str, str]:
    return {photo.path: photo.split for photo in split_photographs(photos, people, params)}


@pytest.mark.parametrize("seed", [0, 1])
def test_every_person_is_in_every_split_in_proportion(seed: int) -> None:
    photos = make_photos({"Ann": [1] * 20, "Bo": [1] * 20})
    split = split_photographs(photos, ["Ann", "Bo"], PrepareParams(seed=seed))
    counts = Counter((photo.person, photo.split) for photo in split)
    assert counts == {(p, s): n for p in ("Ann", "Bo") for s, n in (("train", 14), ("val", 3), ("test", 3))}


@pytest.mark.parametrize("fractions", [(0.15, 0.15), (0.49, 0.49), (0.01, 0.9)])
def test_three_photographs_are_enough(fractions: tuple[float, float]) -> None:
    photos = make_photos({"Ann": [1] * 3, "Bo": [1] * 3})
    params = PrepareParams(val_fraction=fractions[0], test_fraction=fractions[1])
    assert Counter(_split(photos, ["Ann", "Bo"], params).values()) == {"train": 2, "val": 2, "test": 2}


def test_people_with_too_few_photographs_are_listed_with_the_count() -> None:
    photos = make_photos({"Ann": [1] * 8, "Bo": [1, 1], "Cy": [8]})
    with pytest.raises(CelebflowError, match="(?s)Bo: 2\n.*Cy: 8, in 1 groups.*\n.*Empty: 0\n") as caught:
        split_photographs(photos, ["Ann", "Bo", "Cy", "Empty"], PARAMS)
    assert "Ann" not in str(caught.value)
    with pytest.raises(CelebflowError) as alone:
        split_photographs(make_photos({"Ann": [1] * 8, "Bo": [1]}), ["Ann", "Bo"], PARAMS)
    assert "duplicate_distance_bits" not in str(alone.value), "there are no near-duplicates"


def test_one_person_is_not_enough() -> None:
    with pytest.raises(CelebflowError, match="at least two"):
        split_photographs(make_photos({"Ann": [1] * 8}), ["Ann"], PARAMS)


def test_a_person_with_only_near_duplicates_of_one_split_is_an_error() -> None:
    photos = make_photos({"Ann": [1] * 20})
    splits = _split([*photos, *make_photos({"Bo": [1] * 20})], ["Ann", "Bo"])
    in_train = [photo.group for photo in photos if splits[photo.path] == "train"]
    photos += [Photo(f"Bo/{number}.jpg", "Bo", "", f"Bo {number}", in_train[number]) for number in range(3)]
    with pytest.raises(CelebflowError, match=r"Bo would have no photograph in val.*prepare\.duplicate_distance_bits"):
        _split(photos, ["Ann", "Bo"])


def test_near_duplicates_of_other_people_count_towards_a_persons_splits() -> None:
    photos = make_photos({"Ann": [1] * 20, "Bo": [1] * 17})
    splits = _split(photos, ["Ann", "Bo"])
    group = next(photo.group for photo in photos if photo.person == "Ann" and splits[photo.path] == "val")
    photos += [Photo(f"Bo/shared {number}.jpg", "Bo", "", f"shared {number}", group) for number in range(3)]
    splits = _split(photos, ["Ann", "Bo"])
    counts = Counter(splits[photo.path] for photo in photos if photo.person == "Bo")
    assert counts == {"train": 14, "val": 3, "test": 3}


@settings(deadline=None, max_examples=100)
@given(
    sizes=st.lists(st.lists(st.integers(1, 6), min_size=3, max_size=20), min_size=2, max_size=4),
    seed=st.integers(0, 99),
    is_shared=st.booleans(),
)
def test_groups_are_never_split_and_everyone_is_in_every_split(
    sizes: list[list[int]], seed: int, is_shared: bool
) -> None:
    group_sizes = {f"person {number}": of_person for number, of_person in enumerate(sizes)}
    photos = make_photos(group_sizes, "person 0 0" if is_shared and len(sizes[-1]) > 3 else None)
    split = split_photographs(photos, list(group_sizes), PrepareParams(seed=seed))
    assert sorted(photo.path for photo in split) == sorted(photo.path for photo in photos)
    splits_of_group = defaultdict(set)
    splits_of_person = defaultdict(set)
    for photo in split:
        splits_of_group[photo.group].add(photo.split)
        splits_of_person[photo.person].add(photo.split)
    assert all(len(splits) == 1 for splits in splits_of_group.values())
    assert all(splits_of_person[person] == {"train", "val", "test"} for person in group_sizes)


def test_a_group_does_not_change_the_splits_of_others() -> None:
    alone = make_photos({"Ann": [1] * 40, "Bo": [1] * 40})
    joined = [replace(photo, group="Ann 0") if photo.path == "Ann/1 0.jpg" else photo for photo in alone]
    before = _split(alone, ["Ann", "Bo"])
    after = _split(joined, ["Ann", "Bo"])
    changed = [path for path in before if before[path] != after[path]]
    assert len(changed) <= 3
    assert not any(path.startswith("Bo") for path in changed)
