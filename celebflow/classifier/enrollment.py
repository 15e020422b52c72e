"""People added to a trained classifier from a few photographs each, without training: who they are, and their file."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from celebflow.backbone.state_dicts import save_tensors
from celebflow.classifier.calibration import FloatArray
from celebflow.classifier.conformal import choose_threshold, compute_p_values
from celebflow.classifier.gallery import Gallery, average_people
from celebflow.data.duplicates import HASH_BITS, HashArray, find_near_duplicates
from celebflow.errors import CelebflowError, raise_shortage

_CARD = "celebflow_enrollment"
_FORMAT = 1
_HASHES = "hashes"


@dataclass(frozen=True, eq=False)
class Enrollment:
    """People who were added to a classifier, whose gallery `fingerprint` identifies.

    `coordinates` (N, D) are those of their photographs in the gallery's model, `people` (N,) who is in them, as indices
    of `names`, and `hashes` (N, 2, 4) what hash_photograph finds in them, 0 where that is not known.
    """

    fingerprint: str
    names: tuple[str, ...]
    people: NDArray[np.int64]
    coordinates: FloatArray
    hashes: HashArray

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Return the number of each person's photographs, (people,)."""
        return np.bincount(self.people, minlength=len(self.names))

    def add(self, name: str, coordinates: FloatArray, hashes: HashArray) -> "Enrollment":
        """Return it with the (N, D) coordinates and hashes of more photographs of a person, who may be new."""
        names = self.names if name in self.names else (*self.names, name)
        people = np.append(self.people, np.full(len(coordinates), names.index(name)))
        return Enrollment(
            self.fingerprint,
            names,
            people,
            np.vstack([self.coordinates, coordinates]),
            np.concatenate([self.hashes, hashes]),
        )

    def remove(self, name: str) -> "Enrollment":
        """Return it without a person."""
        person = self.names.index(name)
        kept = self.people != person
        people = self.people[kept]
        names = tuple(each for each in self.names if each != name)
        people -= people > person
        return Enrollment(self.fingerprint, names, people, self.coordinates[kept], self.hashes[kept])

    def find_photograph(self, coordinates: FloatArray) -> str | None:
        """Return whose photograph has these (D,) coordinates, or None."""
        found = np.flatnonzero((self.coordinates == coordinates).all(axis=1))
        return self.names[self.people[found[0]]] if len(found) else None

    def find_near_duplicate(self, hashes: HashArray, max_distance_bits: int) -> str | None:
        """Return whose photograph is a near-duplicate of one with these (2, 4) hashes, or None."""
        found = find_near_duplicates(hashes, self.hashes, max_distance_bits)
        return self.names[self.people[found[0]]] if len(found) else None


def start_enrollment(gallery: Gallery) -> Enrollment:
    """Return the enrollment of nobody."""
    coordinates = np.empty((0, gallery.means.shape[1]))
    return Enrollment(identify_gallery(gallery), (), np.empty(0, np.int64), coordinates, make_unknown_hashes(0))


def make_unknown_hashes(count: int) -> HashArray:
    """Return the hashes of photographs of which they are not known: no photograph is a near-duplicate of those."""
    return np.zeros((count, 2, HASH_BITS // 64), np.uint64)


def identify_gallery(gallery: Gallery) -> str:
    """Return the fingerprint of a gallery: whatever changes its coordinates changes the people's means in it."""
    return hashlib.sha256(gallery.means.tobytes() + gallery.model.between.tobytes()).hexdigest()


def save_enrollment(enrollment: Enrollment, path: Path) -> None:
    """Write a safetensors file; without anybody, remove it."""
    if not enrollment.names:
        path.unlink(missing_ok=True)
        return
    card = {"format": _FORMAT, "fingerprint": enrollment.fingerprint, "names": enrollment.names}
    state = {
        "people": torch.from_numpy(enrollment.people),
        "coordinates": torch.from_numpy(enrollment.coordinates),
        _HASHES: torch.from_numpy(enrollment.hashes.view(np.int64)),
    }
    save_tensors(state, path, {_CARD: json.dumps(card, sort_keys=True, allow_nan=False)})


def load_enrollment(path: Path, gallery: Gallery | None) -> Enrollment | None:
    """Load what save_enrollment wrote for the classifier with this gallery; return None when there is no such file.

    Raises CelebflowError when the file is damaged or belongs to another classifier.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            card = json.loads((file.metadata() or {})[_CARD])
            people, coordinates = file.get_tensor("people").numpy(), file.get_tensor("coordinates").numpy()
            hashes = make_unknown_hashes(len(people))  # files of earlier versions have none
            if _HASHES in file.keys():  # noqa: SIM118 - it is no mapping
                hashes = file.get_tensor(_HASHES).numpy().view(np.uint64)
        if card["format"] != _FORMAT or set(people.tolist()) != set(range(len(card["names"]))):
            raise ValueError("another format")
        loaded = Enrollment(card["fingerprint"], tuple(card["names"]), people, coordinates, hashes)
        if hashes.shape != make_unknown_hashes(len(people)).shape:
            raise ValueError("hashes that do not fit")
        if coordinates.shape[0] != len(people) or not np.isfinite(coordinates).all():
            raise ValueError("coordinates that do not fit")
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise_shortage(error, path)
        raise CelebflowError(
            f"{path} does not hold enrolled people ({error}). Remove it, and enroll them again."
        ) from None
    if gallery is None or loaded.fingerprint != identify_gallery(gallery):
        names = ", ".join(loaded.names)
        raise CelebflowError(
            f"The people in {path} ({names}) were enrolled beside another classifier. Remove the file, and enroll them "
            "again with `celebflow enroll`."
        )
    return loaded


@dataclass(frozen=True, eq=False)
class EnrolledMatches:
    """How N photographs match trained and enrolled people.

    `probabilities` (N, enrolled) are those of the enrolled people; what is left of 1 belongs to the trained ones.
    `known` (N, 1 + enrolled) says whether the best trained person, and each enrolled one, reaches the threshold, and
    `p_values` (N,) the fraction of unknown people's photographs that match anybody at least as well.
    """

    probabilities: FloatArray
    known: NDArray[np.bool_]
    p_values: FloatArray

    def join(self, of_trained: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Return the probabilities of trained and then enrolled people, and whether the most probable one is known.

        `of_trained` (N, trained people) are the probabilities of a classifier that knows nobody else.
        """
        left = 1 - self.probabilities.sum(axis=1, keepdims=True)
        probabilities = np.hstack([left * of_trained, self.probabilities])
        # Column 0 of `known` is that of all trained people.
        columns = np.maximum(0, probabilities.argmax(axis=1) - of_trained.shape[1] + 1)
        return probabilities, self.known[np.arange(len(columns)), columns]


class EnrolledPeople:
    """Enrolled people beside a gallery's own.

    Of the promised false acceptance rate, half belongs to the trained people, and half to the enrolled ones, in equal
    parts (Bonferroni): so the promise holds for all of them together.
    """

    def __init__(self, enrollment: Enrollment, gallery: Gallery, false_acceptance_rate: float) -> None:
        self.names = enrollment.names
        means, counts = average_people(enrollment.coordinates, enrollment.people, len(enrollment.names))
        self._left_out = gallery.left_out
        self._people = gallery.model.describe_people(means, counts)
        self._trials = [gallery.find_trial(count) for count in counts.tolist()]
        rate = false_acceptance_rate / 2
        thresholds = [choose_threshold(trial.others, rate / len(counts)) for trial in self._trials]
        self._thresholds = np.array([gallery.left_out.choose_threshold(rate), *thresholds])

    def match(self, coordinates: FloatArray, trained: FloatArray) -> EnrolledMatches:
        """Match photographs with (N, D) coordinates; `trained` (N, trained people) are their scores in the gallery."""
        enrolled = self._people.score(coordinates)
        scores = np.hstack([enrolled, trained])
        probabilities = np.empty_like(enrolled)
        for row, best in enumerate(enrolled.argmax(axis=1)):
            calibration = self._trials[best].calibration
            probabilities[row] = calibration.compute_probabilities(scores[row : row + 1])[0, : len(self.names)]
        best_trained = trained.max(axis=1)
        p_values = [2 * self._left_out.compute_p_values(best_trained)]
        for person, trial in enumerate(self._trials):
            p_values.append(2 * len(self.names) * compute_p_values(trial.others, enrolled[:, person]))
        known = np.column_stack([best_trained, enrolled]) >= self._thresholds
        return EnrolledMatches(probabilities, known, np.minimum(1, np.min(p_values, axis=0)))
