"""A person who is enrolled from photographs is predicted from then on, and the classifier stays as it is."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageOps

from celebflow.cli import main
from celebflow.data.decoding import decode_photograph
from celebflow.inference import enrolling
from celebflow.inference.onnx_export import export_model
from celebflow.inference.predictor import Predictor
from tests.inference.serving import post_form, start_server
from tests.models import NAMES, draw_blue, draw_noise

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the model into a folder of its own, beside photographs, and work there."""
    shutil.copytree(model, tmp_path / "model", symlinks=True)
    (tmp_path / "blue.png").write_bytes(draw_blue())
    (tmp_path / "noise.png").write_bytes(draw_noise())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model"


def _enroll(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(main, ["enroll", "--model", "model", *arguments])
    assert result.exit_code == status or (status == 1 and result.exception), result.output
    return result


def _predict(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["predict", "--model", "model", *arguments])
    assert not result.exception, result.output
    return result.stdout


def test_an_enrolled_person_is_predicted_and_every_answer_says_so(folder: Path) -> None:
    before = (folder / "classifier.safetensors").read_bytes()
    (without,) = json.loads(_predict("--json", "--top", "9", "blue.png"))
    assert not any(candidate["enrolled"] for candidate in without["candidates"])
    assert "Di Dee is enrolled from 1 photograph." in _enroll("Di Dee", "blue.png").stdout

    (face,) = json.loads(_predict("--json", "--top", "9", "blue.png"))
    first, *others = face["candidates"]
    assert (face["known"], first["name"], first["enrolled"]) == (True, "Di Dee", True)
    assert sum(candidate["probability"] for candidate in face["candidates"]) == pytest.approx(1)
    expected = {each["name"]: each["probability"] * (1 - first["probability"]) for each in without["candidates"]}
    assert {each["name"]: each["probability"] for each in others} == pytest.approx(expected)
    assert not any(other["enrolled"] for other in others)
    assert "Di Dee [enrolled]" in _predict("blue.png")
    row, other, *_ = csv.DictReader(io.StringIO(_predict("--csv", "blue.png")))
    assert (row["name"], row["enrolled"], other["enrolled"]) == ("Di Dee", "true", "false")
    assert (folder / "classifier.safetensors").read_bytes() == before

    assert "no longer" in _enroll("--remove", "Di Dee").stdout
    assert json.loads(_predict("--json", "--top", "9", "blue.png")) == [without]


def test_enrolled_people_are_listed_with_their_photographs(folder: Path) -> None:
    assert "Nobody is enrolled" in _enroll().stdout
    (folder.parent / "noise_1.png").write_bytes(draw_noise(1))
    _enroll("Di", "blue.png", "noise.png")
    _enroll("Ed", "noise_1.png")
    assert _enroll().stdout.splitlines() == ["Di: 2 photographs", "Ed: 1 photograph"]
    _enroll("--remove", "Di")
    assert _enroll().stdout.splitlines() == ["Ed: 1 photograph"]


def test_people_who_are_enrolled_at_once_are_all_enrolled(folder: Path) -> None:
    later = Predictor.load(folder)

    def enroll_meanwhile() -> None:
        enrolling.enroll("Ed", ["noise.png"], lambda file: Path(file).read_bytes(), later, print)

    meanwhile = Thread(target=enroll_meanwhile)

    def read(photograph: str) -> bytes:
        meanwhile.start()
        meanwhile.join(2)  # it ends now, or waits for this one
        return Path(photograph).read_bytes()

    enrolling.enroll("Di", ["blue.png"], read, Predictor.load(folder), print)
    meanwhile.join()
    assert sorted(_enroll().stdout.splitlines()) == ["Di: 1 photograph", "Ed: 1 photograph"]


def test_a_photograph_counts_once(folder: Path) -> None:
    result = _enroll("Di", "blue.png", "blue.png")
    assert "from 1 photograph." in result.stdout and "counts once" in result.stderr
    result = _enroll("Di", "blue.png", "noise.png")
    assert "from 2 photographs." in result.stdout and "blue.png" in result.stderr


def test_names_of_photographs_break_no_line(folder: Path) -> None:
    for name in ("a\nb.png", "a\n\udce9.png"):
        shutil.copy("blue.png", name)
    _enroll("Di", "blue.png")
    assert r"a\u000ab.png: this photograph is already enrolled" in _enroll("Di", "a\nb.png").stderr.splitlines()[-1]
    assert r"a\u000a\udce9.png: this" in _enroll("Di", "a\n\udce9.png").stderr
    result = _enroll("Ed", "a\nb.png", status=1)
    assert r"Nobody was enrolled: a\u000ab.png is already" in str(result.exception)


def test_near_duplicates_count_once(folder: Path) -> None:
    noise = Image.open("noise.png")
    noise.resize((120, 80)).save("large.webp", quality=50)
    ImageOps.mirror(noise).save("mirrored.png")
    Path("other.png").write_bytes(draw_noise(1))
    result = _enroll("Di", "noise.png", "large.webp", "other.png", "mirrored.png")
    assert "from 2 photographs." in result.stdout
    assert "large.webp: this is a near-duplicate of noise.png; they count once." in result.stderr
    assert "mirrored.png" in result.stderr and "other.png" not in result.stderr


def test_near_duplicates_of_enrolled_photographs_count_once(folder: Path) -> None:
    noise = Image.open("noise.png")
    noise.resize((120, 80)).save("large.webp", quality=50)
    ImageOps.mirror(noise).save("mirrored.png")
    Path("other.png").write_bytes(draw_noise(1))
    _enroll("Ed", "other.png")
    _enroll("Di", "noise.png")
    for copy in ("large.webp", "mirrored.png"):
        result = _enroll("Di", copy)
        assert "from 1 photograph." in result.stdout
        assert f"{copy}: this is a near-duplicate of a photograph that is already enrolled; they count once." in (
            result.stderr
        )
    error = str(_enroll("Ed", "mirrored.png", status=1).exception)
    assert "Nobody was enrolled: mirrored.png is a near-duplicate of a photograph that is enrolled as Di." in error
    _enroll("--remove", "Di")
    assert "Ed is enrolled from 2 photographs." in _enroll("Ed", "mirrored.png").stdout


@pytest.mark.parametrize("arguments", [("--remove",), ("Di",), ("--remove", "Di", "blue.png")])
def test_what_to_do_must_be_clear(folder: Path, arguments: tuple[str, ...]) -> None:
    assert "Usage:" in _enroll(*arguments, status=2).output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Ann", "blue.png"), ["trained on Ann", "dvc repro"]),
        (("ann ", "blue.png"), ["trained on Ann"]),
        (("DI", "blue.png"), ["Di is enrolled", "DI"]),
        ((" ", "blue.png"), ["' '", "another"]),
        (("unknown", "blue.png"), ["unknown", "nobody", "another"]),
        (("NaN", "blue.png"), ["NaN", "nobody", "another"]),
        (("a\x1b[31m", "blue.png"), ["\\x1b", "another"]),
        (("N" * 256, "blue.png"), ["N…", "256 characters", "at most 255"]),
        (("Ed", "blue.png", "gone.png", "broken.png"), ["Nobody was enrolled", "gone.png", "No such", "broken.png"]),
        (("Ed", ""), ["is not a file"]),
        (("Ed", "blue.png", "noise.png"), ["noise.png is already enrolled as Di"]),
        (("--remove", "Ed"), ["Ed", "Enrolled: Di"]),
    ],
)
def test_what_cannot_be_done_changes_nothing(folder: Path, arguments: tuple[str, ...], said: list[str]) -> None:
    _enroll("Di", "noise.png")
    (folder.parent / "broken.png").write_bytes(draw_noise()[:300])
    before = (folder / "enrolled.safetensors").read_bytes()
    error = str(_enroll(*arguments, status=1).exception)
    assert all(text in error for text in said), error
    assert (folder / "enrolled.safetensors").read_bytes() == before


@pytest.mark.parametrize(("threshold", "noted"), [(-100.0, True), (100.0, False)])
def test_a_person_whom_the_classifier_takes_for_another_is_noted(folder: Path, threshold: float, noted: bool) -> None:
    predictor = Predictor.load(folder)
    predictor.card = replace(predictor.card, calibration=replace(predictor.card.calibration, threshold=threshold))
    notes: list[str] = []
    enrolling.enroll("Di", ["blue.png"], lambda _: draw_blue(), predictor, notes.append)
    name = NAMES[int(predictor.predict([decode_photograph(draw_blue())]).argmax())]
    assert [f"blue.png: the classifier takes this person for {name}" in note for note in notes] == [True] * noted


def test_without_a_face_nobody_is_enrolled_unless_one_asks(
    tmp_path: Path, face_predictor: Predictor, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = predictor.classifier.gallery
    monkeypatch.setattr(face_predictor.classifier, "gallery", gallery)
    monkeypatch.setattr(face_predictor, "enrolled_file", tmp_path / "enrolled.safetensors")
    notes: list[str] = []

    def enroll(whole: bool) -> enrolling.EnrolledPerson:
        return enrolling.enroll("Di", ["a"], lambda _: draw_blue(), face_predictor, notes.append, whole=whole)

    with pytest.raises(Exception, match=r"Nobody was enrolled: a .*--whole"):
        enroll(whole=False)
    assert enroll(whole=True).photograph_count == 1


def test_a_classifier_that_knows_nobody_as_unknown_enrolls_nobody(
    folder: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = predictor.classifier.gallery
    assert gallery is not None
    for lacking in (None, replace(gallery, trials=())):
        monkeypatch.setattr(predictor.classifier, "gallery", lacking)
        with pytest.raises(Exception, match=r"at least 6 people.*knows \d people.*dvc repro"):
            enrolling.list_enrolled(predictor)


def test_enrolled_people_of_another_classifier_end_predict_and_serve_but_not_export(
    folder: Path, draw_people: Callable[..., Path]
) -> None:
    _enroll("Di", "blue.png")
    predictor = Predictor.load(folder)
    gallery = predictor.classifier.gallery
    assert gallery is not None
    predictor.classifier.gallery = replace(gallery, means=gallery.means + 1)
    predictor.classifier.save(folder / "classifier.safetensors")
    result = CliRunner().invoke(main, ["predict", "--model", "model", "blue.png"])
    assert "(Di)" in str(result.exception) and "celebflow enroll" in str(result.exception)
    with pytest.raises(Exception, match=r"\(Di\)"), start_server(Predictor.load(folder)):
        pass
    assert export_model(Predictor.load(folder), folder / "model.onnx") < 1e-4


def test_the_server_says_which_answer_comes_from_enrollment(folder: Path) -> None:
    _enroll("Di", "blue.png")
    with start_server(Predictor.load(folder)) as address:
        content = post_form(address, draw_blue(), query="heat_map=true").json()
        noise = post_form(address, draw_noise(), query="heat_map=true&top=9").json()
    (face,) = content["faces"]
    assert (face["candidates"][0]["name"], face["candidates"][0]["enrolled"]) == ("Di", True)
    assert face["heat_map"] is None and face["seen"], "the classifier does not know enrolled people"
    (face,) = noise["faces"]
    flags = {candidate["name"]: candidate["enrolled"] for candidate in face["candidates"]}
    assert flags == {"Di": True} | dict.fromkeys(NAMES, False)
    assert np.isclose(sum(candidate["probability"] for candidate in face["candidates"]), 1)
