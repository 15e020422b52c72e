"""The projection is to the principal components of the views of train, and is kept for other trainings."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from celebflow.backbone.source import FEATURE_COUNT
from celebflow.classifier import projection
from celebflow.classifier import vectors as vectors_module
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.projection import fit_preprocessor
from celebflow.classifier.vectors import Vectors, list_views
from celebflow.features.store import select_split
from celebflow.params import PreprocessingParams, View
from tests.conftest import draw_features
from tests.training import PEOPLE, gather_dense

TWO_VIEWS: tuple[View, ...] = ("original", "mirrored")


def test_the_projection_is_the_principal_components_of_all_views() -> None:
    features = draw_features(40, TWO_VIEWS)
    view_count = len(gather_dense(features, "train")[0])
    params = PreprocessingParams(square_root=True, pca_components=600)
    preprocessor = fit_preprocessor(select_split(features, PEOPLE, "train"), params, seed=0)
    pca = PCA(view_count - 1, svd_solver="full").fit(np.sqrt(gather_dense(features, "train")[0]))
    expected = pca.transform(np.sqrt(gather_dense(features, "val")[0]))
    val = select_split(features, PEOPLE, "val")
    with torch.inference_mode():
        batches = [preprocessor(val.gather(np.arange(len(val)), view)[0]) for view in range(2)]
    found = torch.cat(batches).numpy()
    signs = np.sign((found * expected).sum(axis=0))  # a component's sign is a convention
    np.testing.assert_allclose(found * signs, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("count", "views", "wanted", "kept"),
    [
        (36, ("original",), 600, 17),
        (36, TWO_VIEWS, 600, 35),
        (36, TWO_VIEWS, 35, 35),
        (36, TWO_VIEWS, 36, 35),
        (36, TWO_VIEWS, 5, 5),
        (36, TWO_VIEWS, None, None),
    ],
)
def test_there_are_fewer_components_than_views(
    count: int, views: tuple[View, ...], wanted: int | None, kept: int | None
) -> None:
    features = draw_features(count, views)
    params = PreprocessingParams(pca_components=wanted)
    preprocessor = fit_preprocessor(select_split(features, PEOPLE, "train"), params, seed=0)
    assert preprocessor.settings == PreprocessingParams(pca_components=kept)
    assert preprocessor.output_count == (kept or FEATURE_COUNT)
    assert (preprocessor.projection is None) == (kept is None)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[Vectors]:
    """Return the vectors whose inner products are computed in the test."""
    found: list[Vectors] = []
    compute = Vectors.compute_products

    def record(vectors: Vectors) -> NDArray[np.float32]:
        found.append(vectors)
        return compute(vectors)

    monkeypatch.setattr(Vectors, "compute_products", record)
    return found


def test_the_projection_is_fitted_to_a_sample_of_very_many_views_drawn_by_the_seed(
    compared: list[Vectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "MAX_VIEWS", 20)
    features = draw_features(60, TWO_VIEWS)
    train = select_split(features, PEOPLE, "train")
    params = PreprocessingParams(square_root=True, pca_components=5)
    first, again, other = (
        fit_preprocessor(train, params, seed).state_dict()["projection.weight"] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    for vectors in compared:
        assert vectors.views is not None
        drawn = set(zip(vectors.rows.tolist(), vectors.views.tolist(), strict=True))
        assert len(drawn) == 20, "no view twice"
        assert set(vectors.rows) <= set(train.rows)
        assert set(vectors.views) == {0, 1}, "from both views"


def test_the_projection_is_fitted_to_all_views_where_memory_allows(compared: list[Vectors]) -> None:
    train = select_split(draw_features(60, TWO_VIEWS), PEOPLE, "train")
    fit_preprocessor(train, PreprocessingParams(pca_components=5), seed=0)
    assert [len(vectors) for vectors in compared] == [2 * len(train)]


@pytest.mark.parametrize("block_values", [7, 5000, 2**25])
@pytest.mark.parametrize("standardize", [False, True])
def test_vectors_are_the_normalized_views_whatever_the_blocks(
    block_values: int, standardize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "_BLOCK_VALUES", block_values * (100 if block_values == 7 else 1))
    monkeypatch.setattr(vectors_module, "_BATCH_SIZE", 2)
    features = draw_features(10, TWO_VIEWS)
    settings = PreprocessingParams(square_root=True, l2_normalize=True, standardize=standardize)
    preprocessor = Preprocessor(settings, FEATURE_COUNT)
    if standardize:
        preprocessor.scale.copy_(torch.rand(FEATURE_COUNT))
    rows = np.array([4, 0, 7])
    views = [preprocessor.normalize(features.gather(rows, view)).to_dense() for view in range(2)]
    for vectors, expected in (
        (list_views(preprocessor, features, rows), np.concatenate(views)),
        (list_views(preprocessor, features, rows).select(np.array([5, 1])), np.concatenate(views)[[5, 1]]),
        (Vectors(preprocessor, features, rows), np.mean(views, axis=0)),
    ):
        blocks = list(vectors.read_columns("reading"))
        assert [columns.start for columns, _ in blocks] == [0, *(columns.stop for columns, _ in blocks[:-1])]
        np.testing.assert_allclose(np.concatenate([dense for _, dense in blocks], axis=1), expected, atol=1e-7)
        np.testing.assert_allclose(vectors.compute_products(), expected @ expected.T, atol=1e-5)


def test_views_are_projected_as_the_preprocessor_projects_batches() -> None:
    train = select_split(draw_features(20, TWO_VIEWS), PEOPLE, "train")
    settings = PreprocessingParams(square_root=True, l2_normalize=True, standardize=True, pca_components=6)
    preprocessor = fit_preprocessor(train, settings, seed=0)
    found = list_views(preprocessor, train.features, train.rows).project()
    batches = [preprocessor(train.gather(np.arange(len(train)), view)[0]) for view in range(2)]
    np.testing.assert_allclose(found, torch.cat(batches).numpy(), rtol=1e-5, atol=1e-4)
