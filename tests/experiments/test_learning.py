"""`celebflow learning-curve` says how much more photographs would help, as text, JSON, table and figure."""

import json

import pytest
from PIL import Image

from celebflow.evaluation.learning_curve import Forecast, LearningCurve, LearningPoint
from celebflow.evaluation.significance import Interval
from celebflow.experiments.learning import LearningReport, format_learning
from tests.repository import Repository


@pytest.mark.slow
def test_the_curve_is_there_in_every_form(repository: Repository) -> None:
    before = repository.run("dvc", "status", "--json")
    found = json.loads(repository.invoke("learning-curve", "--repetitions", "1", "--json", only_output=True))
    sizes = [point["photographs_per_person"] for point in found["curve"]["points"]]
    rows = (repository.folder / "splits" / "photos.csv").read_text().splitlines()
    people = {row.split("/")[0] for row in rows[1:]}
    assert sizes == sorted(sizes) and len(sizes) >= 3
    assert sizes[-1] == sum(",train," in row for row in rows) / len(people)
    assert found["curve"]["forecast"]["photographs_per_person"] == 2 * sizes[-1]
    assert sum(found["counts"].values()) == round(sizes[-1] * len(people))
    table = (repository.folder / "reports" / "learning_curve.csv").read_text().splitlines()
    assert len(table) == 1 + len(sizes)
    text = repository.invoke("learning-curve", "--repetitions", "1", "--output", "curves/v1.5", only_output=True)
    assert "With 2 times as many photographs" in text and "curves/v1.5" in text
    for name in ("reports/learning_curve.png", "curves/v1.5"):
        with Image.open(repository.folder / name) as picture:
            assert picture.width > 500
    assert repository.run("dvc", "status", "--json") == before


@pytest.mark.slow
def test_what_the_command_needs_is_told(repository: Repository) -> None:
    (repository.folder / "features").rename(repository.folder / "elsewhere")
    assert "features is missing. Run `dvc repro`" in repository.invoke("learning-curve", fails=True)


def test_the_text_says_what_more_photographs_bring_and_to_whom() -> None:
    points = [LearningPoint(size, 0.9, 0.85, 0.95, 0.8, 0.7, 0.9) for size in (5.0, 10.0, 20.0)]
    forecast = Forecast(40.0, 0.92, Interval(0.88, 0.96), -0.012, Interval(-0.021, 0.003))
    gains = {"007": 0.125, "Bo": -0.1, "Cy": 0.5}
    text = format_learning(LearningReport(LearningCurve(points, [], forecast), gains, {"007": 9, "Bo": 20, "Cy": 31}))
    assert "With 2 times as many photographs (40 per person)" in text
    assert "by about -1.2 points (-2.1 to +0.3), to 0.920 (0.880 to 0.960)" in text
    assert [line.split() for line in text.splitlines()[-2:]] == [["Cy", "31", "+50.0"], ["007", "9", "+12.5"]]
    assert "Bo" not in text
