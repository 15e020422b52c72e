"""Requests that arrive at the same time are classified together, and get what each gets alone."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from celebflow.data.decoding import decode_photograph
from celebflow.data.formats import PhotographError
from celebflow.data.photos import Photo
from celebflow.evaluation.grad_cam import Explainer
from celebflow.evaluation.neighbors import Neighbor, TrainingPhotographs
from celebflow.features import transform
from celebflow.features.sparse import SparseBatch
from celebflow.inference import extractor, request_queue
from celebflow.inference.batcher import Batcher, NearestPhotograph, PredictionRequest, PredictionResponse
from celebflow.inference.extractor import ExtractedFace
from celebflow.inference.predictor import PredictedPerson, Predictor
from celebflow.inference.refusals import RefusalError
from celebflow.report.thumbnails import overlay_heat_map
from tests.inference.serving import LIMITS
from tests.models import draw_noise, make_face


@pytest.fixture
def passes() -> list[int]:
    """Return the numbers of photographs in the batcher's passes of the classifier."""
    return []


@pytest.fixture
def batcher(predictor: Predictor, passes: list[int]) -> Batcher:
    """Make a batcher that nobody else uses."""
    return Batcher(predictor, LIMITS, None, passes.append)


def _make_request(seed: int, *, heat_map: bool = False, nearest: bool = False) -> PredictionRequest:
    return PredictionRequest(draw_noise(seed), 3, heat_map, nearest)


@pytest.mark.slow
def test_requests_at_the_same_time_are_classified_together(
    batcher: Batcher, predictor: Predictor, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_queue, "_MAX_WAIT_SECONDS", 60)  # a busy machine fills passes slowly

    async def predict_all() -> list[PredictionResponse]:
        return await asyncio.gather(*(batcher.predict(_make_request(seed)) for seed in range(40)))

    responses = asyncio.run(predict_all())
    assert sum(passes) == 40
    assert max(passes) <= 16
    assert len(passes) <= 5
    expected = predictor.predict([decode_photograph(draw_noise(seed)) for seed in range(40)])
    for response, probabilities in zip(responses, expected, strict=True):
        found = {candidate.name: candidate.probability for candidate in response.faces[0].candidates}
        assert [found[name] for name in predictor.card.class_names] == pytest.approx(probabilities.tolist(), abs=1e-6)


def test_a_single_request_does_not_wait_for_others(batcher: Batcher, passes: list[int]) -> None:
    async def predict_in_turn() -> None:
        for seed in range(3):
            await batcher.predict(_make_request(seed))

    asyncio.run(predict_in_turn())
    assert passes == [1, 1, 1]


def test_failed_and_cancelled_requests_cost_the_others_nothing(batcher: Batcher) -> None:
    broken = PredictionRequest(b"nothing", 3, heat_map=False, nearest=False)

    async def predict_all() -> list[PredictionResponse | BaseException]:
        requests = [broken if number % 3 == 1 else _make_request(number) for number in range(12)]
        tasks = [asyncio.create_task(batcher.predict(request)) for request in requests]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[11].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return [*results, await batcher.predict(_make_request(0))]

    results = asyncio.run(predict_all())
    assert [number for number, result in enumerate(results) if isinstance(result, PhotographError)] == [1, 4, 7, 10]
    assert [number for number, result in enumerate(results) if isinstance(result, asyncio.CancelledError)] == [0, 11]
    assert sum(isinstance(result, PredictionResponse) for result in results) == 7


def test_a_request_that_is_cancelled_during_a_pass_costs_the_others_nothing(
    batcher: Batcher, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    classify = Predictor.classify
    released = threading.Event()

    def wait(self: Predictor, photographs: Sequence[Sequence[ExtractedFace]]) -> list[list[PredictedPerson]]:
        released.wait(60)
        return classify(self, photographs)

    async def predict_all() -> list[PredictionResponse | BaseException]:
        tasks = [asyncio.create_task(batcher.predict(_make_request(number))) for number in range(4)]
        while not passes:
            await asyncio.sleep(0.01)
        tasks[0].cancel()
        await asyncio.sleep(0)
        released.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return [*results, await asyncio.wait_for(batcher.predict(_make_request(4)), 30)]

    monkeypatch.setattr(Predictor, "classify", wait)
    first, *others = asyncio.run(predict_all())
    assert isinstance(first, asyncio.CancelledError)
    assert len(others) == 4
    assert all(isinstance(result, PredictionResponse) for result in others)


def test_no_request_waits_long_for_a_slow_photograph(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "workers", 2)
    batcher = Batcher(predictor, LIMITS, None, lambda count: None)
    extract = Predictor.extract
    released = threading.Event()
    slow = decode_photograph(draw_noise(0))

    def wait(
        self: Predictor, photograph: Image.Image, max_faces: int | None = None, *, whole: bool = False
    ) -> Iterator[ExtractedFace]:
        if photograph == slow:
            released.wait(60)
        return extract(self, photograph, max_faces, whole=whole)

    async def predict_both() -> None:
        first = asyncio.create_task(batcher.predict(_make_request(0)))
        await asyncio.wait_for(batcher.predict(_make_request(1)), 30)
        assert not first.done()
        released.set()
        await first

    monkeypatch.setattr(Predictor, "extract", wait)
    asyncio.run(predict_both())


@pytest.mark.parametrize(
    ("module", "name"), [(extractor, "extract_views"), (Explainer, "compute_heat_maps")], ids=["face", "heat map"]
)
def test_a_worker_is_free_soon_after_nobody_waits_for_a_photograph_of_many_faces(
    face_predictor: Predictor, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    monkeypatch.setattr(transform, "detect_faces", lambda photograph: [make_face(5, 5, 25, 25)] * 5)
    monkeypatch.setattr(Predictor, "workers", 1)
    batcher = Batcher(face_predictor, LIMITS, None, lambda count: None)
    compute: Callable[..., object] = getattr(module, name)
    begun, released = threading.Event(), threading.Event()
    computed: list[object] = []

    def wait(*arguments: object) -> object:
        computed.append(arguments)
        begun.set()
        released.wait(60)
        return compute(*arguments)

    async def abandon() -> None:
        task = asyncio.create_task(batcher.predict(_make_request(0, heat_map=True)))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        released.set()
        await batcher.predict(_make_request(1))

    monkeypatch.setattr(module, name, wait)
    asyncio.run(abandon())
    assert len(computed) == {"extract_views": 1 + 5, "compute_heat_maps": 1}[name]


def test_a_photograph_of_train_that_is_gone_still_has_its_name(predictor: Predictor, tmp_path: Path) -> None:
    class Training(TrainingPhotographs):
        """Two photographs that cannot be read, and one that has changed since."""

        def __init__(self) -> None:
            pass

        def find_nearest(self, views: Sequence[SparseBatch], count: int) -> list[list[Neighbor]]:
            photos = [Photo(f"{name}.png", name, "train", "", "") for name in ("Ann", "Bo", "Cy")]
            files = (tmp_path / "gone.png", tmp_path / "damaged.png", tmp_path / "changed.png")
            return [[Neighbor(*each) for each in zip(photos, files, (0.9, 0.8, 0.7), strict=True)]]

    (tmp_path / "damaged.png").write_bytes(draw_noise(0)[:100])
    (tmp_path / "changed.png").write_bytes(draw_noise(0))
    batcher = Batcher(predictor, LIMITS, Training(), lambda count: None)
    (face,) = asyncio.run(batcher.predict(_make_request(1, nearest=True))).faces
    expected = [("Ann", 0.9), ("Bo", 0.8), ("Cy", 0.7)]
    assert face.nearest == [NearestPhotograph(name, similarity, None) for name, similarity in expected]


def test_every_request_of_a_pass_gets_its_failure(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    async def predict_both() -> list[PredictionResponse | BaseException]:
        tasks = (batcher.predict(_make_request(0)), batcher.predict(_make_request(1)))
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    async def predict_during_and_after_a_failure() -> None:
        with monkeypatch.context() as broken:
            broken.setattr(Predictor, "classify", fail)
            assert [str(error) for error in await predict_both()] == ["out of memory"] * 2
        assert all(isinstance(result, PredictionResponse) for result in await predict_both())

    asyncio.run(predict_during_and_after_a_failure())


def test_places_in_the_queue_are_given_back(predictor: Predictor) -> None:
    batcher = Batcher(predictor, replace(LIMITS, waiting=2), None, lambda count: None)
    with batcher.enter_queue(), batcher.enter_queue():
        assert batcher.waiting == 2
        with pytest.raises(RefusalError, match="Too many requests"), batcher.enter_queue():
            pass
    assert batcher.waiting == 0
    with pytest.raises(ValueError, match="mine"), batcher.enter_queue():
        raise ValueError("mine")
    assert batcher.waiting == 0


def test_the_heat_map_is_that_of_the_first_candidate(batcher: Batcher, predictor: Predictor) -> None:
    (face,) = asyncio.run(batcher.predict(_make_request(5, heat_map=True))).faces
    assert face.seen is not None
    assert face.heat_map is not None
    seen = np.asarray(Image.open(io.BytesIO(face.seen)))
    shown = np.asarray(Image.open(io.BytesIO(face.heat_map))).astype(int)
    (extracted,) = predictor.extract(decode_photograph(draw_noise(5)))
    features, *_ = predictor.stack_views([extracted])
    differences = []
    for person in range(3):
        (heat_map,) = Explainer(predictor.classifier).compute_heat_maps(features, np.array([person]))
        differences.append(float(np.abs(shown - overlay_heat_map(seen, heat_map)).mean()))
    first = predictor.card.class_names.index(face.candidates[0].name)
    assert np.argmin(differences) == first
    assert differences[first] < 6, "only what JPEG loses"
