"""Who asks at the same time is classified together, and gets what who asks alone gets."""

import asyncio
import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from celebflow.backbone.vgg19 import Backbone
from celebflow.data.decoding import PhotographError, decode_photograph
from celebflow.features.transform import Transform
from celebflow.inference.batcher import (
    Batcher,
    NearestPhotograph,
    PredictionRequest,
    PredictionResponse,
    QueueFullError,
)
from celebflow.inference.neighbors import Neighbor
from celebflow.inference.predictor import Predictor
from celebflow.report.grad_cam import Explainer, overlay_heat_map
from tests.models import LIMITS, draw_noise, save_model


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, backbone_file: Path) -> Predictor:
    return Predictor.load(save_model(tmp_path_factory.mktemp("model"), backbone, backbone_file, Transform(32)))


@pytest.fixture
def passes() -> list[int]:
    """Hold how many photographs each pass of the classifier had."""
    return []


@pytest.fixture
def batcher(predictor: Predictor, passes: list[int]) -> Batcher:
    return Batcher(predictor, LIMITS, None, passes.append)


def _ask(seed: int, **wanted: Any) -> PredictionRequest:
    return PredictionRequest(draw_noise(seed), 3, **{"heat_map": False, "nearest": False, **wanted})


def _probabilities(answered: PredictionResponse) -> dict[str, float]:
    return {each.name: each.probability for each in answered.faces[0].candidates}


def test_who_asks_together_is_classified_together(batcher: Batcher, predictor: Predictor, passes: list[int]) -> None:
    async def ask_all() -> list[PredictionResponse]:
        return await asyncio.gather(*(batcher.ask(_ask(seed)) for seed in range(40)))

    answers = asyncio.run(ask_all())
    assert sum(passes) == 40 and max(passes) <= 16
    assert len(passes) <= 20, "a busy machine fills fewer of a pass's places in the time that one waits for others"
    for seed, answered in enumerate(answers):
        (expected,) = predictor.predict([decode_photograph(draw_noise(seed))])
        found = _probabilities(answered)
        assert [found[name] for name in predictor.card.class_names] == pytest.approx(expected.tolist(), abs=1e-6)


def test_who_asks_alone_does_not_wait_for_company(batcher: Batcher, passes: list[int]) -> None:
    async def ask_in_turn() -> None:
        for seed in range(3):
            await batcher.ask(_ask(seed))

    asyncio.run(ask_in_turn())
    assert passes == [1, 1, 1]


def test_what_fails_or_is_given_up_costs_the_others_nothing(batcher: Batcher) -> None:
    async def ask_all() -> tuple[list[Any], PredictionResponse]:
        broken = PredictionRequest(b"nothing", 3, heat_map=False, nearest=False)
        tasks = [asyncio.create_task(batcher.ask(broken if n % 3 == 1 else _ask(n))) for n in range(12)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[11].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True), await batcher.ask(_ask(0))

    answers, later = asyncio.run(ask_all())
    assert all(isinstance(answers[n], PhotographError) for n in (1, 4, 7, 10))
    assert all(isinstance(answers[n], asyncio.CancelledError) for n in (0, 11))
    assert all(isinstance(answer, PredictionResponse) for answer in (*(answers[n] for n in (2, 3, 5, 6, 8, 9)), later))


def test_who_gives_up_during_a_pass_costs_the_others_nothing(
    batcher: Batcher, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    classify, going_on = Predictor.classify, threading.Event()

    def wait(*arguments: Any) -> Any:
        going_on.wait(60)
        return classify(*arguments)

    async def ask_all() -> tuple[list[Any], PredictionResponse]:
        tasks = [asyncio.create_task(batcher.ask(_ask(n))) for n in range(4)]
        while not passes:
            await asyncio.sleep(0.01)
        tasks[0].cancel()
        await asyncio.sleep(0)
        going_on.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        return answers, await asyncio.wait_for(batcher.ask(_ask(4)), 30)

    monkeypatch.setattr(Predictor, "classify", wait)
    answers, later = asyncio.run(ask_all())
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(isinstance(answer, PredictionResponse) for answer in (*answers[1:], later))


def test_nobody_waits_long_for_a_slow_photograph(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    extract, going_on, slow = Predictor.extract, threading.Event(), decode_photograph(draw_noise(0)).tobytes()

    def wait(predictor: Predictor, photograph: Image.Image, most_faces: int) -> Any:
        if photograph.tobytes() == slow:
            going_on.wait(60)
        return extract(predictor, photograph, most_faces)

    async def ask_both() -> None:
        first = asyncio.create_task(batcher.ask(_ask(0)))
        await asyncio.wait_for(batcher.ask(_ask(1)), 30)
        assert not first.done()
        going_on.set()
        await first

    monkeypatch.setattr(Predictor, "extract", wait)
    asyncio.run(ask_both())


def test_a_photograph_of_train_that_is_gone_is_still_named(predictor: Predictor, tmp_path: Path) -> None:
    class Training:
        """Two photographs, of which one cannot be read."""

        def find_nearest(self, faces: object, count: int) -> list[list[Neighbor]]:
            return [[Neighbor("Ann", tmp_path / "gone.png", 0.9), Neighbor("Bo", tmp_path / "damaged.png", 0.8)]]

    (tmp_path / "damaged.png").write_bytes(draw_noise(0)[:100])
    batcher = Batcher(predictor, LIMITS, Training(), lambda count: None)
    (face,) = asyncio.run(batcher.ask(_ask(1, nearest=True))).faces
    assert face.nearest == [NearestPhotograph("Ann", 0.9, None), NearestPhotograph("Bo", 0.8, None)]


def test_a_failure_of_the_classifier_is_told_to_all_whom_it_concerns(
    batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    async def ask_both() -> list[Any]:
        return await asyncio.gather(batcher.ask(_ask(0)), batcher.ask(_ask(1)), return_exceptions=True)

    async def ask_before_and_after() -> None:
        with monkeypatch.context() as broken:
            broken.setattr(Predictor, "classify", fail)
            assert [str(error) for error in await ask_both()] == ["out of memory"] * 2
        assert all(isinstance(answer, PredictionResponse) for answer in await ask_both())

    asyncio.run(ask_before_and_after())


def test_places_in_the_queue_are_given_back(predictor: Predictor) -> None:
    batcher = Batcher(predictor, replace(LIMITS, waiting=2), None, lambda count: None)
    with batcher.queue(), batcher.queue():
        assert batcher.waiting == 2
        with pytest.raises(QueueFullError), batcher.queue():
            pass
    assert batcher.waiting == 0
    with pytest.raises(ValueError, match="mine"), batcher.queue():
        raise ValueError("mine")
    assert batcher.waiting == 0


def test_the_heat_map_is_that_of_the_first_name(batcher: Batcher, predictor: Predictor) -> None:
    answered = asyncio.run(batcher.ask(_ask(5, heat_map=True)))
    (face,) = answered.faces
    assert face.seen is not None and face.heat_map is not None
    seen, shown = (np.asarray(Image.open(io.BytesIO(each))).astype(int) for each in (face.seen, face.heat_map))
    person = predictor.card.class_names.index(face.candidates[0].name)
    (extracted,) = predictor.extract(decode_photograph(draw_noise(5)))
    maps = {
        number: Explainer(predictor.classifier).compute_heat_maps(predictor.stack(extracted.views), np.array([number]))
        for number in range(3)
    }
    differences = {
        number: np.abs(shown - overlay_heat_map(seen.astype(np.uint8), heat[0])).mean() for number, heat in maps.items()
    }
    assert min(differences, key=lambda number: differences[number]) == person
    assert differences[person] < 6, "but for what JPEG loses"
