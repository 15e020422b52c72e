"""Ridge regression of yes-or-no answers on photographs, from their inner products alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, blas, lapack

from celebflow.classifier.calibration import FloatArray, fit_logistic

_LEAST_VARIANCE = 1e-6  # of vectors around their mean, relative to their squared length: less is rounding
_LEAST_FREEDOM = 1e-6  # of a photograph's score, which otherwise its own answer alone decides


@dataclass(frozen=True)
class RidgeFit:
    """Linear functions of photographs, as weights of the N photographs to which they were fitted.

    `weights` (N, A) times the photographs' vectors, added up, and `bias` (A,) make log odds of yes.
    """

    weights: FloatArray
    bias: FloatArray


def fit_ridge(products: NDArray[np.floating], answers: FloatArray, counts: FloatArray, penalty: float) -> RidgeFit:
    """Fit log odds to the (N, A) answers, -1 or 1, of N photographs, of which `products` (N, N) are the inner products.

    `counts` (N,) are how much each photograph counts; one of 0 has no answer. The penalty is relative to the mean
    squared length of the vectors around their mean. The scores of least squares become log odds by a logistic function
    that is fitted to leave-one-out scores (Cook's identity; Hastie et al., 2009, section 7.10), because a photograph's
    own answer draws its score to itself.

    Raises numpy.linalg.LinAlgError when products are not those of vectors.
    """
    known = np.flatnonzero(counts)
    own, targets = counts[known], answers[known]
    fractions = own / own.sum()
    inner = products[np.ix_(known, known)].astype(np.float64)
    least_variance = _LEAST_VARIANCE * float(np.trace(inner))
    means = fractions @ inner  # (N,): with the mean vector
    inner -= means
    inner -= means[:, None]
    inner += (means * fractions).sum()
    strength = penalty * max(float(np.trace(inner)), least_variance) / len(known)
    roots = np.sqrt(own)
    inverse = _invert(roots[:, None] * inner * roots, strength)
    centers = fractions @ targets
    weights = roots[:, None] * blas.dsymm(1.0, inverse, roots[:, None] * (targets - centers), lower=1)
    scores = inner @ weights + centers
    freedom = np.maximum(strength * np.diag(inverse) - fractions, _LEAST_FREEDOM)
    left_out = targets - (targets - scores) / freedom[:, None]
    bias = centers - means @ weights
    for column, (of_column, answer) in enumerate(zip(left_out.T, targets.T, strict=True)):
        slope, offset = fit_logistic(of_column, answer > 0, fractions)
        weights[:, column] *= slope
        bias[column] = slope * bias[column] + offset
    result = np.zeros((len(counts), targets.shape[1]))
    result[known] = weights
    return RidgeFit(result, bias)


def _invert(matrix: FloatArray, strength: float) -> FloatArray:
    """Return the inverse of a symmetric (N, N) matrix without negative eigenvalues, plus `strength` on its diagonal.

    Only the lower triangle of what is returned is valid. `matrix` is overwritten: large ones are not copied.
    """
    matrix[np.diag_indices_from(matrix)] += strength
    factor, failed = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1)  # LAPACK's order of a symmetric matrix in NumPy's
    if not failed:
        inverse, failed = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise LinAlgError("the inner products are not those of vectors")
    result: FloatArray = inverse
    return result
