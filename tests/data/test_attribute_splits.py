"""Photographs with attributes are split so that nobody is in two splits, and each split has every attribute."""

import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celebflow import paths
from celebflow.data.attribute_splits import split_by_attributes
from celebflow.data.attributes import NO, YES, load_attributes
from celebflow.data.photos import SPLITS, UNKNOWN, Photo
from celebflow.data.splits import Split
from celebflow.data.tables import load_table
from celebflow.data.units import join_units
from celebflow.errors import CelebflowError
from celebflow.params import PrepareParams

PARAMS = PrepareParams()


def _split(
    folder: Path,
    rows: dict[str, tuple[str, str]],
    params: PrepareParams = PARAMS,
    group_of: dict[str, str] | None = None,
) -> Split:
    """Split photographs of which `rows` has the person and the cells, separated by commas."""
    names = ",".join(f"a{number}" for number in range(len(next(iter(rows.values()))[1].split(","))))
    lines = [f"{path},{person},{cells}" for path, (person, cells) in rows.items()]
    folder.mkdir(exist_ok=True)
    (folder / "attributes.csv").write_text("\n".join([f"photograph,person,{names}", *lines]), encoding="utf-8")
    for path in rows:
        (folder / path).touch()
    photos = [Photo(path, "", "", path, (group_of or {}).get(path, path)) for path in rows]
    return split_by_attributes(photos, [], params, folder)


def _draw_rows(count: int, people: int, seed: int = 0) -> dict[str, tuple[str, str]]:
    """Draw photographs with three attributes: one in two, one in ten, and one that is often blank."""
    draw = random.Random(seed)
    cells = [
        f"{int(draw.random() < 0.5)},{int(draw.random() < 0.1)},{draw.choice(['', '1', '0'])}" for _ in range(count)
    ]
    names = [f"p{draw.randrange(people)}" for _ in range(count)]
    return {f"{number}.jpg": (name, text) for number, (name, text) in enumerate(zip(names, cells, strict=True))}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1), st.integers(0, 20)), min_size=6, max_size=30),
    st.integers(0, 2**32 - 1),
)
def test_nobody_is_in_two_splits_and_near_duplicates_stay_together(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, int, int]], seed: int
) -> None:
    # Person 0 is not known.
    rows = {f"{n}.jpg": (f"p{person}" if person else "", str(value)) for n, (person, value, _) in enumerate(drawn)}
    group_of = {f"{number}.jpg": f"g{group}" for number, (_, _, group) in enumerate(drawn)}
    try:
        split = _split(tmp_path_factory.mktemp("data"), rows, PrepareParams(seed=seed), group_of)
    except CelebflowError as error:
        assert "train, val and test need one each" in str(error)
        return
    splits_of = defaultdict(set)
    for photo in split.photos:
        splits_of[photo.group].add(photo.split)
        splits_of[photo.person or photo.path].add(photo.split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert {photo.split for photo in split.photos} == set(SPLITS)
    assert split.attributes.paths == tuple(photo.path for photo in split.photos) == tuple(sorted(rows))
    assert [str(label) for label in split.attributes.labels[:, 0]] == [rows[path][1] for path in sorted(rows)]
    assert {photo.path: photo.person for photo in split.photos} == {path: name for path, (name, _) in rows.items()}


def test_splits_have_their_fractions_of_photographs_and_of_every_attribute(tmp_path: Path) -> None:
    split = _split(tmp_path, _draw_rows(2000, 900), PrepareParams(val_fraction=0.2, test_fraction=0.1))
    counts = Counter(photo.split for photo in split.photos)
    assert counts["val"] == pytest.approx(400, abs=30) and counts["test"] == pytest.approx(200, abs=30)
    splits = np.array([photo.split for photo in split.photos])
    for labels in split.attributes.labels.T:
        for kind in (YES, NO):
            fractions = [(labels[splits == name] == kind).mean() for name in SPLITS]
            assert max(fractions) - min(fractions) < 0.05


def test_splits_follow_from_seed_and_content_alone(tmp_path: Path) -> None:
    rows = _draw_rows(200, 60)
    group_of = {path: f"sha {path}" for path in rows}
    first = {photo.group: photo.split for photo in _split(tmp_path / "a", rows, group_of=group_of).photos}
    renamed = {f"z{999 - int(path[:-4])}.jpg": row for path, row in reversed(rows.items())}
    groups = {f"z{999 - int(path[:-4])}.jpg": group for path, group in group_of.items()}
    again = _split(tmp_path / "b", renamed, group_of=groups)
    assert {photo.group: photo.split for photo in again.photos} == first
    other = _split(tmp_path / "a", rows, PrepareParams(seed=1), group_of)
    assert {photo.group: photo.split for photo in other.photos} != first


def test_the_split_of_a_seed_stays_what_it_is(tmp_path: Path) -> None:
    split = _split(tmp_path, _draw_rows(40, 20))
    assert "".join(photo.split[1] for photo in split.photos) == "rrerrarereeaerrrrreaarerrerrrrerreaerarr"


@pytest.mark.parametrize("people", [3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1, 2, 2**32 - 1])
def test_an_attribute_that_few_people_have_is_in_each_split(tmp_path: Path, people: int, seed: int) -> None:
    rows = {f"{number:02}.jpg": (f"p{number}", f"{int(number < people)},{number % 2}") for number in range(40)}
    split = _split(tmp_path, rows, PrepareParams(seed=seed))
    assert {photo.split for photo in split.photos if photo.path < f"{people:02}.jpg"} == set(SPLITS)
    assert Counter(photo.split for photo in split.photos)["train"] in range(26, 31)
    assert not any("Some splits lack" in note for note in split.notes)


@pytest.mark.parametrize("rare", ["1", "0"])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_no_split_lacks_a_kind_of_many_attributes_that_few_people_have(tmp_path: Path, rare: str, seed: int) -> None:
    draw = random.Random(21)
    rows = {}
    for number in range(40):
        name = f"p{draw.randrange(20)}"
        cells = [rare if draw.random() < 0.15 else str(1 - int(rare)) for _ in range(6)]
        rows[f"{number:02}.jpg"] = (name, ",".join(cells))
    assert not any("Some splits lack" in note for note in _split(tmp_path, rows, PrepareParams(seed=seed)).notes)


def test_a_kind_that_a_split_lacks_is_a_note_by_name(tmp_path: Path) -> None:
    # However six people are split, one of these attributes is without a yes or a no in one of three splits.
    of_yes = ((0, 1, 5), (0, 4, 5), (2, 3, 5))
    rows = {f"{n}.jpg": (f"p{n}", ",".join(str(int(n in people)) for people in of_yes)) for n in range(6)}
    notes = _split(tmp_path, rows).notes
    assert [note for note in notes if "Some splits lack" in note and "prepare.val_fraction" in note]


def test_notes_tell_sizes_blanks_and_the_largest_differences(tmp_path: Path) -> None:
    rows = _draw_rows(100, 30) | {f"x{number}.jpg": ("", "1,1,1") for number in range(20)}
    split = _split(tmp_path, rows)
    notes = "\n".join(split.notes)
    for name in SPLITS:
        own = [photo for photo in split.photos if photo.split == name]
        people = {photo.person for photo in own} - {""}
        assert f"{name}: {len(people)} people, {len(own)} photographs" in notes
    blank_count = sum(cells.endswith(",") for _, cells in rows.values())
    assert f"3 attributes. {blank_count} of 360 labels are blank" in notes
    assert "fraction of yes differs most" in notes and "a1 0." in notes
    splits = np.array([photo.split for photo in split.photos])
    spreads = []
    for labels in split.attributes.labels.T:
        fractions = [(labels[splits == name] == YES).sum() / (labels[splits == name] >= 0).sum() for name in SPLITS]
        spreads.append(max(fractions) - min(fractions))
    listed = [place for _, place in sorted((notes.index(f"a{column} 0."), column) for column in range(3))]
    assert listed == np.argsort(spreads)[::-1].tolist()
    nobody = _split(tmp_path, {path: ("", cells) for path, (_, cells) in rows.items()})
    assert not any("people" in note for note in nobody.notes)


def test_photographs_of_unknown_people_are_left_out_with_a_note(tmp_path: Path) -> None:
    rows = _draw_rows(60, 20)
    without = _split(tmp_path, rows)
    (tmp_path / "u.jpg").touch()
    photos = [*without.photos, Photo("u.jpg", "unknown", UNKNOWN, "u", "u")]
    split = split_by_attributes(photos, ["unknown"], PARAMS, tmp_path)
    assert (split.photos, split.unknown) == (without.photos, [])
    assert any("1 photographs" in note and "prepare.unknown_folder" in note for note in split.notes)


def test_the_balance_is_saved_with_the_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _draw_rows(90, 30)
    split = _split(tmp_path / "data", rows)
    monkeypatch.chdir(tmp_path)
    split.save()
    labels = load_attributes(paths.ATTRIBUTES)
    assert labels.names == ("a0", "a1", "a2")
    with pytest.raises(CelebflowError, match=r"splits/attributes\.csv has no row of nowhere\.jpg.*dvc repro"):
        labels.select([labels.paths[0], "nowhere.jpg"])
    table = {row["attribute"]: row for row in load_table(paths.ATTRIBUTE_BALANCE)}
    split_of = {photo.path: photo.split for photo in split.photos}
    counts = Counter((split_of[path], cells.split(",")[2]) for path, (_, cells) in rows.items())
    cell_of = {"yes": "1", "no": "0", "blank": ""}
    for name in SPLITS:
        for kind, cell in cell_of.items():
            assert int(table["a2"][f"{name}_{kind}"]) == counts[name, cell]
    Split([]).save()
    assert list(load_table(paths.ATTRIBUTE_BALANCE)) == []


def test_a_chain_of_people_and_near_duplicates_is_one_unit() -> None:
    photos = [
        Photo(f"{number}.jpg", person, "", "", group)
        for number, (person, group) in enumerate(
            [("Ann", "a"), ("Bo", "a"), ("Bo", "b"), ("", "b"), ("", "c"), ("", "d"), ("Cy", "e")]
        )
    ]
    assert sorted([photo.path[0] for photo in unit] for unit in join_units(photos)) == [
        list("0123"),
        ["4"],
        ["5"],
        ["6"],
    ]
    assert join_units([replace(photo, person="") for photo in photos[:1]]) == [[replace(photos[0], person="")]]
