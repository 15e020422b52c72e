"""Measure how well people are known who were enrolled from one, three and five photographs.

python -m benchmarks.enrollment: in a project with features, the people are divided into five parts. Each part in turn
is enrolled, the next one is unknown, and the other three are those whom the gallery is fitted to (their photographs of
train). What is not enrolled is predicted. It prints a table in Markdown.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from celebflow import paths
from celebflow.classifier.calibration import FloatArray, softmax
from celebflow.classifier.comparison_model import divide_people
from celebflow.classifier.enrollment import EnrolledPeople, make_unknown_hashes, start_enrollment
from celebflow.classifier.gallery import Gallery, fit_gallery
from celebflow.errors import CelebflowError
from celebflow.evaluation.open_set import measure_interval
from celebflow.features.store import Features, load_features, select_split
from celebflow.params import load_params

_PARTS = 5
_DRAWS = 3  # of the photographs that are enrolled
_PHOTOGRAPH_COUNTS = (1, 3, 5)
_RATES = (0.05, 0.01)


@dataclass(frozen=True, eq=False)
class _Photographs:
    """The (N, D) coordinates of photographs, and the (N,) people in them."""

    coordinates: FloatArray
    people: NDArray[np.str_]

    def select(self, chosen: NDArray[np.bool_]) -> "_Photographs":
        return _Photographs(self.coordinates[chosen], self.people[chosen])


@dataclass(frozen=True, eq=False)
class _Answers:
    """Who is in N photographs: whether the most probable person is right (N,), and reaches the threshold (N,)."""

    right: NDArray[np.bool_]
    known: NDArray[np.bool_]
    people: NDArray[np.str_]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="divides people and draws photographs (default: 0)")
    seed = parser.parse_args().seed
    params = load_params(paths.PARAMS)
    features = load_features(paths.FEATURES, paths.PHOTOS)
    names = sorted({photo.person for photo in features.photos if photo.split == "train"})
    if len(names) < 3 * _PARTS:
        raise CelebflowError(f"{paths.PHOTOS} has {len(names)} people. This needs {3 * _PARTS} at least.")
    parts = divide_people(len(names), _PARTS, seed)
    answers: dict[tuple[int, float, str], list[_Answers]] = {}
    random = np.random.default_rng(seed)
    for part in range(_PARTS):
        of_part = {name: (number - part) % _PARTS for name, number in zip(names, parts.tolist(), strict=True)}
        trained = [name for name in names if of_part[name] > 1]
        gallery = _fit(features, trained, params.train.plda_between_scale, params.train.seed)
        photographs = {
            "enrolled": _embed(gallery, features, [name for name in names if of_part[name] == 0]),
            "unknown": _embed(gallery, features, [name for name in names if of_part[name] == 1]),
            "trained": _embed(gallery, features, trained, "test"),
        }
        for count in _PHOTOGRAPH_COUNTS * _DRAWS:
            shown = _draw(photographs["enrolled"].people, count, random)
            tested = photographs | {"enrolled": photographs["enrolled"].select(~shown)}
            for rate in _RATES:
                enrolled = _enroll(gallery, photographs["enrolled"].select(shown), rate)
                for group, each in tested.items():
                    answers.setdefault((count, rate, group), []).append(_predict(enrolled, gallery, trained, each))
        print(f"part {part + 1} of {_PARTS}: {len(trained)} people in the gallery", flush=True)
    _print_table(answers)


def _fit(features: Features, names: Sequence[str], between_scale: float, seed: int) -> Gallery:
    photos = [each if each.person in names else replace(each, split="") for each in features.photos]
    train = select_split(replace(features, photos=photos), names, "train")
    gallery = fit_gallery(train, len(names), between_scale, seed)
    if gallery is None or not gallery.trials:
        raise CelebflowError("The photographs of train do not tell people apart.")
    return gallery


def _embed(gallery: Gallery, features: Features, names: Sequence[str], split: str | None = None) -> _Photographs:
    rows = [row for row, photo in enumerate(features.photos) if photo.person in names and split in (None, photo.split)]
    coordinates = gallery.embed_rows(features, np.array(rows))
    return _Photographs(coordinates, np.array([features.photos[row].person for row in rows]))


def _draw(people: NDArray[np.str_], count: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Choose this many photographs of each person."""
    chosen = np.zeros(len(people), bool)
    for person in np.unique(people):
        chosen[random.permutation(np.flatnonzero(people == person))[:count]] = True
    return chosen


def _enroll(gallery: Gallery, photographs: _Photographs, rate: float) -> EnrolledPeople:
    enrollment = start_enrollment(gallery)
    for name in np.unique(photographs.people).tolist():
        coordinates = photographs.coordinates[photographs.people == name]
        enrollment = enrollment.add(name, coordinates, make_unknown_hashes(len(coordinates)))
    return EnrolledPeople(enrollment, gallery, rate)


def _predict(enrolled: EnrolledPeople, gallery: Gallery, trained: Sequence[str], photographs: _Photographs) -> _Answers:
    """Predict as Predictor does, with the gallery's scores in the place of the classifier's."""
    scores = gallery.people.score(photographs.coordinates)
    probabilities, known = enrolled.match(photographs.coordinates, scores).join(softmax(scores))
    names = np.array([*trained, *enrolled.names])
    return _Answers(names[probabilities.argmax(axis=1)] == photographs.people, known, photographs.people)


def _print_table(answers: dict[tuple[int, float, str], list[_Answers]]) -> None:
    print("\n| photographs | rank-1 | FAR expected | FAR | identified | coverage of trained people |")
    print("|---|---|---|---|---|---|")
    for count in _PHOTOGRAPH_COUNTS:
        for rate in _RATES:
            of_group = {group: _join(answers[count, rate, group]) for group in ("enrolled", "unknown", "trained")}
            enrolled, unknown = of_group["enrolled"], of_group["unknown"]
            cells = [
                _format(enrolled.right, enrolled.people),
                f"{rate:g}",
                _format(unknown.known, unknown.people),
                _format(enrolled.right & enrolled.known, enrolled.people),
                _format(of_group["trained"].known, of_group["trained"].people),
            ]
            print(f"| {count} | {' | '.join(cells)} |")


def _join(answers: Sequence[_Answers]) -> _Answers:
    return _Answers(
        *(np.concatenate([getattr(each, name) for each in answers]) for name in ("right", "known", "people"))
    )


def _format(reached: NDArray[np.bool_], people: NDArray[np.str_]) -> str:
    interval = measure_interval(reached, people.tolist())
    return f"{reached.mean():.3f} ({interval.low:.3f}–{interval.high:.3f})"


if __name__ == "__main__":
    main()
