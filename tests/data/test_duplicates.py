"""Copies of a photograph are found however they are made, listed, and counted as leaks."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from benchmarks.duplicates import COPIES, derive_hashes, multiply_pairs
from celebflow.data import duplicates
from celebflow.data.duplicates import (
    HASH_BITS,
    count_leaks,
    describe_duplicates,
    find_near_pairs,
    group_near_duplicates,
    hash_photograph,
    list_duplicate_groups,
    save_duplicates,
)
from celebflow.data.invented_people import draw_photograph
from celebflow.data.splits import split_each_person, split_photographs
from celebflow.data.tables import load_table
from celebflow.params import PrepareParams
from tests.data.test_splits import make_photos
from tests.preparing import prepare

PARAMS = PrepareParams()
MAX_DISTANCE_BITS = PARAMS.duplicate_distance_bits or 0
# The more a photograph is cropped, the fewer copies are found: `python -m benchmarks.duplicates` measures it.
FOUND = [how for how in COPIES if how not in ("cropped by 4 %", "cropped by 6 %", "mirrored and cropped by 4 %")]


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    """Draw photographs of different people."""
    return [draw_photograph(person, 0) for person in range(8)]


@pytest.mark.parametrize("how", FOUND)
def test_a_copy_is_in_the_group_of_its_original(originals: list[Image.Image], how: str) -> None:
    copies = [hash_photograph(COPIES[how](original)) for original in originals]
    hashes = np.stack([*(hash_photograph(original) for original in originals), *copies])
    groups = group_near_duplicates(hashes, [f"{number:064}" for number in range(16)], MAX_DISTANCE_BITS)
    assert groups == [f"{number % 8:064}" for number in range(16)]


def test_a_copy_is_in_the_split_of_its_original(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for person in range(3):
        (data / f"person {person}").mkdir(parents=True)
        for number in range(6):
            original = draw_photograph(person, number)
            original.save(data / f"person {person}" / f"{number}.png")
            how = FOUND[(3 * person + number // 2) % len(FOUND)]
            if number % 2 == 0:
                COPIES[how](original).save(data / f"person {person}" / f"{number} copied.png")
    photos, _ = prepare(data, PARAMS)
    for seed in range(20):
        splits = {}
        for photo in split_photographs(photos, [f"person {person}" for person in range(3)], PrepareParams(seed=seed)):
            splits[photo.path] = photo.split
        copies = [path for path in splits if path.endswith(" copied.png")]
        assert len(copies) == 9
        assert all(splits[path] == splits[path.replace(" copied", "")] for path in copies)


def test_equal_files_are_one_group_whatever_their_hashes() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, (4, 2, 4)).astype(np.uint64)
    assert group_near_duplicates(hashes, ["b", "c", "b", "a"], 0) == ["b", "c", "b", "a"]


def test_a_chain_of_near_duplicates_is_one_group() -> None:
    hashes = np.zeros((4, 2, 4), np.uint64)
    hashes[:, 1] = np.uint64(2**64 - 1)  # no photograph resembles a mirror image
    hashes[:, 0, 1] = 1  # each has some structure
    hashes[:, 0, 0] = [0, 0b1111, 0b11111111, 2**40 - 1]
    assert group_near_duplicates(hashes, ["d", "c", "b", "a"], 4) == ["b", "b", "b", "a"]
    assert group_near_duplicates(hashes, ["d", "c", "b", "a"], 3) == ["d", "c", "b", "a"]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), distance=st.integers(0, HASH_BITS))
def test_pairs_are_those_that_counting_bits_finds(seed: int, count: int, distance: int) -> None:
    hashes = np.random.default_rng(seed).integers(0, 2**63, (count, 2, 4)).astype(np.uint64)
    bits = np.unpackbits(hashes.view(np.uint8).reshape(count, 2, 32), axis=2)
    expected = [
        (first, second)
        for first in range(count)
        for second in range(first + 1, count)
        if (bits[first, 0] != bits[second]).sum(axis=1).min() <= distance
    ]
    assert list(zip(*(side.tolist() for side in find_near_pairs(hashes, distance)), strict=True)) == expected


def test_blocks_do_not_change_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, (50, 2, 4)).astype(np.uint64)
    whole = find_near_pairs(hashes, 110)
    monkeypatch.setattr(duplicates, "_BLOCK_SIDE", 7)
    monkeypatch.setattr(duplicates, "_STRIP_ROWS", 3)
    blocks = find_near_pairs(hashes, 110)
    assert len(whole[0]) > 10
    assert all(np.array_equal(*sides) for sides in zip(whole, blocks, strict=True))


@pytest.mark.parametrize("distance", [0, 20, MAX_DISTANCE_BITS, HASH_BITS])
def test_pairs_of_photographs_are_those_of_products(originals: list[Image.Image], distance: int) -> None:
    hashes = derive_hashes(np.stack([hash_photograph(original) for original in originals]), 3_000)
    # At exactly 48 bits from the first, all in one half of it, and one bit further; at 256 bits, and mirrored.
    full, half = np.uint64(2**64 - 1), np.uint64(2**48 - 1)
    hashes[-5:] = hashes[1]
    hashes[-4, :, 2] ^= half
    hashes[-3, :, 2] ^= half
    hashes[-3, :, 0] ^= np.uint64(1)
    hashes[-2] ^= full
    hashes[-1] = hashes[-1, ::-1]
    hashes[-1, :, 3] ^= half
    found = find_near_pairs(hashes, distance)
    assert all(np.array_equal(*sides) for sides in zip(found, multiply_pairs(hashes, distance), strict=True))
    near = {second - 3_000 for first, second in zip(*found, strict=True) if first == 1 and second >= 2_995}
    assert near == {0: {-5}, 20: {-5}, 48: {-5, -4, -1}, HASH_BITS: {-5, -4, -3, -2, -1}}[distance]


def test_the_bound_rules_out_most_pairs_of_photographs(
    originals: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = derive_hashes(np.stack([hash_photograph(original) for original in originals]), 2_000)
    hashes[::5] = 0  # so many plain pictures are not compared in full either
    counted = []
    count_in_full = duplicates._PairFinder._count_in_full

    def count(self: duplicates._PairFinder, *pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        counted.append(len(pairs[0]))
        return count_in_full(self, *pairs)

    monkeypatch.setattr(duplicates._PairFinder, "_count_in_full", count)
    find_near_pairs(hashes, MAX_DISTANCE_BITS)
    assert sum(counted) < 0.08 * len(hashes) ** 2 / 2


def test_groups_do_not_depend_on_how_many_pairs_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, (60, 2, 4)).astype(np.uint64)
    names = [f"{number % 57:02}" for number in range(59, -1, -1)]
    whole = group_near_duplicates(hashes, names, 102)
    monkeypatch.setattr(duplicates, "_BLOCK_SIDE", 7)
    monkeypatch.setattr(duplicates, "_MANY_PAIRS", 2)
    assert 2 < len(set(whole)) < 55
    assert group_near_duplicates(hashes, names, 102) == whole


def test_near_duplicates_are_listed_with_wrong_labels_and_leaks(
    draw_people: Callable[..., Path], tmp_path: Path
) -> None:
    data = draw_people("Ann", "Bo", count=20)
    for number in range(4):
        shutil.copy(data / "Ann" / "0.jpg", data / "Ann" / f"copy {number}.jpg")
    shutil.copy(data / "Ann" / "1.jpg", data / "Bo" / "Ann.jpg")
    photos, _ = prepare(data, PARAMS)
    groups = list_duplicate_groups(photos)
    assert [len(group.photos) for group in groups] == [2, 5]
    assert [group.people for group in groups] == [["Ann", "Bo"], ["Ann"]]
    assert all(len({photo.split for photo in group.photos}) == 1 for group in groups)
    leaks = count_leaks(groups, photos, split_each_person, PARAMS, Path())
    text = describe_duplicates(groups, leaks)
    assert "7 photographs are near-duplicates, in 2 groups" in text
    assert f"leaked {sum(leaks)} photographs" in text
    assert "1 groups span people" in text
    save_duplicates(groups, leaks, tmp_path / "splits" / "duplicates.csv")
    rows = list(load_table(tmp_path / "splits" / "duplicates.csv"))
    assert [row["path"] for row in rows[:3]] == ["Ann/1.jpg", "Bo/Ann.jpg", "Ann/0.jpg"]
    assert [row["group"] for row in rows] == ["1"] * 2 + ["2"] * 5
    assert [row["likely_wrong_label"] for row in rows] == ["yes"] * 2 + [""] * 5
    assert [row["leaked_by_ordinary_split"] for row in rows] == [str(leaks[0])] * 2 + [str(leaks[1])] * 5


def test_no_near_duplicates_give_an_empty_table(tmp_path: Path) -> None:
    groups = list_duplicate_groups(make_photos({"Ann": [1, 1], "Bo": [1]}))
    assert groups == []
    assert "no near-duplicates" in describe_duplicates(groups, [])
    save_duplicates(groups, [], tmp_path / "duplicates.csv")
    assert (tmp_path / "duplicates.csv").read_text(encoding="utf-8").startswith("group,path,person,split,")
    assert list(load_table(tmp_path / "duplicates.csv")) == []


def test_leaks_are_photographs_of_val_and_test_with_a_copy_in_train() -> None:
    photos = split_photographs(make_photos({"Ann": [40, 1, 1], "Bo": [1] * 42}), ["Ann", "Bo"], PARAMS)
    groups = list_duplicate_groups(photos)
    assert [len(group.photos) for group in groups] == [40]
    # An ordinary split takes 6 photographs of 42 for val and 6 for test; 2 of the 42 have no copy.
    (leaks,) = count_leaks(groups, photos, split_each_person, PARAMS, Path())
    assert 10 <= leaks <= 12


@pytest.mark.parametrize("how", ["plain", "shaded", "faint noise"])
def test_pictures_without_structure_are_near_nothing(how: str) -> None:
    random = np.random.default_rng(0)
    pictures = []
    for shade in range(40, 240, 20):
        pixels = {
            "plain": np.full((80, 80), shade),
            "shaded": np.linspace(0, shade, 80)[:, None].repeat(80, 1),
            "faint noise": random.normal(shade, 1, (80, 80)),
        }[how]
        pictures.append(Image.fromarray(pixels.astype(np.uint8)).convert("RGB"))
    hashes = np.stack([hash_photograph(picture) for picture in pictures])
    assert find_near_pairs(hashes, HASH_BITS)[0].size == 0
    groups = group_near_duplicates(hashes, [*"abcdefghi", "a"], MAX_DISTANCE_BITS)
    assert groups == [*"abcdefghi", "a"], "equal files are still one group"


def test_every_photograph_has_structure(originals: list[Image.Image]) -> None:
    for original in originals:
        dark = original.point(lambda value: value // 4)
        assert hash_photograph(original).any() and hash_photograph(dark).any()
