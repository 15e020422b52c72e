"""Copies of a photograph are found however they were made, and different photographs are told apart."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.duplicates import COPIES
from celebflow.data.duplicates import HASH_BITS, find_near_pairs, group_near_duplicates, hash_photograph
from celebflow.data.invented_people import draw_photograph
from celebflow.data.preparation import prepare_photographs
from celebflow.params import Params

# Crops by more than this are found less and less: `python -m benchmarks.duplicates` measures it.
FOUND = [how for how in COPIES if how not in ("cropped by 4 %", "cropped by 6 %", "mirrored and cropped by 4 %")]


@pytest.mark.parametrize("how", FOUND)
def test_a_copy_is_in_the_group_of_its_original(params: Params, how: str) -> None:
    distance_bits = params.prepare.duplicate_distance_bits
    assert distance_bits is not None
    originals = [draw_photograph(person, 0) for person in range(8)]
    photographs = [*originals, *(COPIES[how](original) for original in originals)]
    hashes = np.stack([hash_photograph(photograph) for photograph in photographs])
    groups = group_near_duplicates(hashes, [f"{number:064}" for number in range(16)], distance_bits)
    assert groups == [f"{number % 8:064}" for number in range(16)]


def test_planted_copies_never_straddle_splits(params: Params, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for person in range(3):
        (data / f"person {person}").mkdir(parents=True)
        for number in range(12):
            original = draw_photograph(person, number)
            original.save(data / f"person {person}" / f"{number}.png")
            how = FOUND[(person + number) % len(FOUND)]
            if number % 3 == 0:
                COPIES[how](original).save(data / f"person {person}" / f"{number} {how}.png")
    for seed in range(5):
        photos, _ = prepare_photographs(data, params.prepare.model_copy(update={"seed": seed}))
        splits = {photo.path: photo.split for photo in photos}
        copies = [path for path in splits if "," in path or " " in path.split("/")[1]]
        assert len(copies) == 12
        for path in copies:
            folder, name = path.split("/")
            assert splits[path] == splits[f"{folder}/{name.split()[0]}.png"], path


def test_equal_bytes_are_one_group_whatever_their_hashes(params: Params) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, (4, 2, 4)).astype(np.uint64)
    assert group_near_duplicates(hashes, ["b", "c", "b", "a"], 0) == ["b", "c", "b", "a"]


def test_a_chain_of_near_duplicates_is_one_group() -> None:
    hashes = np.zeros((4, 2, 4), np.uint64)
    hashes[:, 1] = np.uint64(2**64 - 1)  # nothing resembles a mirror image
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
        if min(int((bits[first, 0] != bits[second, view]).sum()) for view in (0, 1)) <= distance
    ]
    assert list(zip(*(side.tolist() for side in find_near_pairs(hashes, distance)), strict=True)) == expected


def test_blocks_do_not_change_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, (50, 2, 4)).astype(np.uint64)
    whole = find_near_pairs(hashes, 110)
    monkeypatch.setattr("celebflow.duplicates._BLOCK_PAIRS", 150)
    blocks = find_near_pairs(hashes, 110)
    assert len(whole[0]) > 10
    assert all(np.array_equal(*sides) for sides in zip(whole, blocks, strict=True))
