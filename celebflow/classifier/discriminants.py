"""Linear classifiers that are fitted without epochs: LDA, logistic regression and ridge regression."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from celebflow.classifier.fits import NOT_KEPT, Fits, Tensors
from celebflow.classifier.preprocessing import Preprocessor, normalize_all
from celebflow.classifier.ridge import fit_ridge
from celebflow.classifier.vectors import Vectors, draw_sample, list_views
from celebflow.data.attributes import BLANK, NO, YES
from celebflow.errors import CelebflowError
from celebflow.features.sparse import split_rows
from celebflow.features.store import LabeledFeatures
from celebflow.params import TrainParams

_MAX_ITERATIONS = 1000  # of logistic regression
MAX_RIDGE_PHOTOGRAPHS = 10_000  # whose inner products take 800 MB, and their inverse as much


@dataclass(frozen=True)
class LinearFit:
    """A linear map: its (inputs, outputs) weight, and its (outputs,) bias.

    The inputs are what the preprocessor makes of features, if `is_projected`, and normalized features otherwise.
    `logits` yields once, in blocks of (some, outputs), those of the N photographs to which it was fitted, in their
    order: means over all views.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    logits: Iterator[NDArray[np.float32]]
    is_projected: bool = False


def fit_discriminant(
    preprocessor: Preprocessor, train: LabeledFeatures, params: TrainParams, fits: Fits = NOT_KEPT
) -> LinearFit:
    """Fit a linear classifier to all views of `train`, whose outputs are the people.

    The weight includes the projection, if there is one, and fewer people than components: one linear map takes
    megabytes then, and the two would take hundreds.

    "lda" is linear discriminant analysis with a covariance shrunk towards a multiple of the identity (Friedman,
    1989); "logistic" is multinomial logistic regression with an L2 penalty. Where that does not converge, this is
    reported, and what it has reached is the result.
    """
    inputs = collect_inputs(preprocessor, train, params.seed, fits)
    weight, bias = fit_people(inputs, np.tile(train.labels, train.view_count), params)
    return _complete(preprocessor, weight, bias, average_blocks(inputs, weight, bias, train.view_count))


def fit_people(
    inputs: Any, labels: NDArray[np.int64], params: TrainParams
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit what fit_discriminant does to (N, inputs) of collect_inputs and (N,) people, two of them or more.

    Returns an (inputs, people) weight and a (people,) bias, of the people among the labels, ascending.

    Raises CelebflowError when there are too few inputs for "lda".
    """
    person_count = len(np.unique(labels))
    if params.classifier == "lda" and len(labels) <= person_count:
        raise CelebflowError(
            f"train.classifier is lda, which needs more photographs than people, and train has {len(labels)} views of "
            f"{person_count} people. Add photographs, set extract.views to original and mirrored, or set "
            "train.classifier to logistic."
        )
    with _report_convergence(params):
        model = _make_model(params).fit(inputs, labels)
    weight, bias = model.coef_.T, model.intercept_  # (inputs, people), (people,)
    if weight.shape[1] == 1:  # for two people, scikit-learn returns the second relative to the first
        weight = np.hstack([0 * weight, weight])
        bias = np.append(0.0, bias)
    return weight, bias


def fit_attribute_regressions(
    preprocessor: Preprocessor, train: LabeledFeatures, params: TrainParams, fits: Fits = NOT_KEPT
) -> LinearFit:
    """Fit a logistic regression with an L2 penalty for each attribute to all views of `train`, whose labels are known.

    An attribute of one value is predicted by the bias alone, by Laplace's rule of succession.
    """
    inputs = collect_inputs(preprocessor, train, params.seed, fits)
    weight, bias = fit_regressions(inputs, np.tile(train.labels, (train.view_count, 1)), params)
    return _complete(preprocessor, weight, bias, average_blocks(inputs, weight, bias, train.view_count))


def fit_regressions(
    inputs: Any, labels: NDArray[np.int64], params: TrainParams
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit what fit_attribute_regressions does to (N, inputs) of collect_inputs and (N, A) labels.

    Returns an (inputs, A) weight and an (A,) bias.
    """
    from sklearn.linear_model import LogisticRegression

    weight = np.zeros((inputs.shape[1], labels.shape[1]))
    bias = np.zeros(labels.shape[1])
    # Newton's method takes few steps, but a matrix of inputs by inputs.
    solver = "newton-cholesky" if isinstance(inputs, np.ndarray) else "lbfgs"
    with _report_convergence(params):
        for attribute in tqdm(range(labels.shape[1]), "fitting", unit="attribute", disable=None):
            known = labels[:, attribute] != BLANK
            answers = labels[known, attribute]
            if len(np.unique(answers)) < 2:
                bias[attribute] = _predict_only_value(answers)
                continue
            class_weight = "balanced" if params.class_weights == "balanced" else None
            model = LogisticRegression(
                C=params.logistic_c, class_weight=class_weight, solver=solver, max_iter=_MAX_ITERATIONS
            )
            model.fit(inputs if known.all() else inputs[known], answers)
            weight[:, attribute], bias[attribute] = model.coef_[0], model.intercept_[0]
    return weight, bias


def fit_attribute_ridge(
    preprocessor: Preprocessor, train: LabeledFeatures, params: TrainParams, fits: Fits = NOT_KEPT
) -> LinearFit:
    """Fit a ridge regression for each attribute to the photographs of `train` whose labels are known.

    A photograph is the mean of its views. Where there are very many photographs, a sample of them is drawn by the seed.
    An attribute of one value is predicted as fit_attribute_regressions does.
    """
    all_photographs = Vectors(preprocessor, train.features, train.rows)
    drawn = draw_sample(len(train), MAX_RIDGE_PHOTOGRAPHS, params.seed)
    photographs, labels = all_photographs.select(drawn), train.labels[drawn]
    products = photographs.recall_products(fits)
    weights, bias = fit_ridges(products, labels, params)
    weight = photographs.add_up(weights)
    if len(photographs) == len(train):
        logits = products @ weights.astype(np.float32)
    else:
        logits = all_photographs.multiply(weight)
    return LinearFit(weight, bias, iter([(logits + bias).astype(np.float32)]))


def fit_ridges(
    products: NDArray[np.float32], labels: NDArray[np.int64], params: TrainParams
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit what fit_attribute_ridge does to the (N, N) inner products of photographs and their (N, A) labels.

    Returns the (N, A) weights of the photographs and an (A,) bias.
    """
    weights, bias = np.zeros(labels.shape), np.zeros(labels.shape[1])
    # Attributes with the same photographs and weights share the work.
    alike: dict[bytes, list[int]] = {}
    counts = _count_answers(labels, params.class_weights).T  # (A, N)
    for attribute, of_attribute in enumerate(counts):
        alike.setdefault(of_attribute.tobytes(), []).append(attribute)
    with tqdm(desc="fitting", total=len(bias), unit="attribute", disable=None) as bar:
        for attributes in alike.values():
            varying = [each for each in attributes if len(np.unique(labels[counts[each] > 0, each])) > 1]
            if varying:
                answers = np.where(labels[:, varying] == YES, 1.0, -1.0)
                fitted = fit_ridge(products, answers, counts[attributes[0]], params.ridge_penalty)
                weights[:, varying], bias[varying] = fitted.weights, fitted.bias
            for attribute in set(attributes).difference(varying):
                bias[attribute] = _predict_only_value(labels[counts[attribute] > 0, attribute])
            bar.update(len(attributes))
    return weights, bias


def balance_answers(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (2, A) weights that let no and yes of each attribute in (N, A) labels count equally, blanks aside.

    Their mean per known label is 1.
    """
    counts = np.stack([(labels == answer).sum(axis=0) for answer in (NO, YES)])
    weights: NDArray[np.float64] = counts.sum(axis=0) / (2 * np.maximum(counts, 1))
    return weights


def _count_answers(labels: NDArray[np.int64], class_weights: str) -> NDArray[np.float64]:
    """Return how much each of (N, A) labels counts: not at all where it is blank."""
    of_no, of_yes = balance_answers(labels) if class_weights == "balanced" else np.ones((2, labels.shape[1]))
    return np.where(labels == BLANK, 0.0, np.where(labels == YES, of_yes, of_no))


def _predict_only_value(answers: NDArray[np.int64]) -> float:
    """Return the log odds of yes after answers that are all alike, by Laplace's rule of succession."""
    yes_count = int((answers == YES).sum())
    return float(np.log((yes_count + 1) / (len(answers) - yes_count + 1)))


@contextmanager
def _report_convergence(params: TrainParams) -> Iterator[None]:
    """Report fits of logistic regression that do not converge, instead of scikit-learn's warnings."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        print(
            f"Logistic regression has not converged after {_MAX_ITERATIONS} iterations; its result is used as it is. "
            f"Lower train.logistic_c ({params.logistic_c:g}), or set train.preprocessing.l2_normalize.",
            file=sys.stderr,
        )


def average_logits(
    inputs: Any, weight: NDArray[np.float64], bias: NDArray[np.float64], view_count: int
) -> NDArray[np.float32]:
    """Return the (N, outputs) means over the views of N photographs, from the (N · V, inputs) of all."""
    return np.concatenate(list(average_blocks(inputs, weight, bias, view_count)))


def average_blocks(
    inputs: Any, weight: NDArray[np.float64], bias: NDArray[np.float64], view_count: int
) -> Iterator[NDArray[np.float32]]:
    """Yield what average_logits returns, in blocks of photographs."""
    count = inputs.shape[0] // view_count
    for block in split_rows(count, len(bias)):
        ranges = [slice(view * count + block.start, view * count + block.stop) for view in range(view_count)]
        views = [inputs[rows] @ weight + bias for rows in ranges]
        yield np.mean(views, axis=0).astype(np.float32)


def _complete(
    preprocessor: Preprocessor,
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    logits: Iterator[NDArray[np.float32]],
) -> LinearFit:
    """Return the fit on normalized features, from weight and bias on what the projection makes of them.

    Where there are more outputs than components, the fit stays as it is.
    """
    if preprocessor.projection is None or len(bias) > len(weight):
        return LinearFit(weight, bias, logits, is_projected=preprocessor.projection is not None)
    projection = _to_float64(preprocessor.projection.weight)  # (features, components)
    shift = _to_float64(preprocessor.projection.bias)  # (components,)
    return LinearFit(projection @ weight, shift @ weight + bias, logits)


def _to_float64(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().numpy().astype(np.float64)


def _make_model(params: TrainParams) -> Any:
    if params.classifier == "lda":
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=params.lda_shrinkage)
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=params.logistic_c, max_iter=_MAX_ITERATIONS)


@torch.no_grad()
def collect_inputs(preprocessor: Preprocessor, train: LabeledFeatures, seed: int, fits: Fits) -> Any:
    """Return all V views of N photographs, preprocessed, (N · V, inputs), one view after the other.

    Without a projection, the inputs are a sparse matrix of SciPy's. They are float64: with float32, lbfgs stops early.
    The projection is the one that was fitted with `seed`.
    """
    if preprocessor.projection is not None:
        determinants = preprocessor.settings, seed, train.rows.tolist()

        def project() -> Tensors:
            return {"inputs": torch.from_numpy(list_views(preprocessor, train.features, train.rows).project())}

        return fits.recall("The projected views of train", determinants, project)["inputs"].numpy().astype(np.float64)
    from scipy import sparse

    parts: list[Any] = []
    for batch in normalize_all(preprocessor, train, "reading"):
        entries = batch.values.astype(np.float64), (batch.rows, batch.columns)
        parts.append(sparse.csr_matrix(entries, (batch.row_count, batch.column_count)))
    return sparse.vstack(parts, "csr")
