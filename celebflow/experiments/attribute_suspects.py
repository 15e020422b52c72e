"""The workspace's labels of attributes that may be wrong → a table, text and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tabulate import tabulate

from celebflow import paths
from celebflow.classifier.attribute_out_of_fold import AttributesOutOfFold, predict_attributes_out_of_fold
from celebflow.classifier.fits import Fits, open_fits
from celebflow.classifier.preprocessing import Preprocessor
from celebflow.classifier.vectors import Vectors, draw_sample
from celebflow.data.attributes import load_attributes
from celebflow.data.given_tables import ATTRIBUTES_TABLE, CELEBA_ATTRIBUTES, is_given
from celebflow.evaluation.attribute_suspects import (
    AttributeCount,
    AttributeSuspect,
    count_suspects,
    find_attribute_suspects,
    find_nearest_labeled,
    save_attribute_suspects,
)
from celebflow.experiments.confirmed import CONFIRMED_ATTRIBUTES, ConfirmedAttribute, load_confirmed_attributes
from celebflow.experiments.lookup import require
from celebflow.features.store import Features, load_features
from celebflow.params import Params, load_params
from celebflow.report.attribute_suspects_page import choose_shown, render_attribute_suspects

_MAX_COMPARED = 10_000  # photographs, whose inner products take 400 MB


@dataclass(frozen=True)
class AttributeCheck:
    """The suspects among `count` labels of `photograph_count` photographs, and the accuracy out of fold on these.

    `attributes` counts them by attribute, `unjudged_count` the labels that are not judged, and `confirmed_count` those
    that would be suspect, had nobody confirmed them.
    """

    suspects: list[AttributeSuspect]
    count: int
    photograph_count: int
    accuracy: float
    attributes: list[AttributeCount]
    unjudged_count: int = 0
    confirmed_count: int = 0


def check_attributes(fold_count: int, page: Path) -> AttributeCheck:
    """Find the workspace's labels of attributes that may be wrong; write reports/suspects.csv and a page of them.

    Labels that somebody has confirmed are left out, and counted.

    Raises CelebflowError when there are no features, or no label can be judged.
    """
    require(paths.FEATURES, paths.ATTRIBUTES)
    params, features = load_params(paths.PARAMS), load_features(paths.FEATURES, paths.PHOTOS)
    paths.require_writable(paths.SUSPECTS, page)
    table, fits = load_attributes(paths.ATTRIBUTES), open_fits(features)
    predicted = predict_attributes_out_of_fold(features, table, params.train, params.compute, fits, fold_count)
    found = find_attribute_suspects(predicted)
    suspects = _leave_out_confirmed(found)
    counts = count_suspects(predicted, suspects)
    shown = choose_shown(suspects)
    nearest = _find_nearest(shown, predicted, params, features, fits)
    suspects = _name_nearest(suspects, shown, nearest)
    save_attribute_suspects(suspects, paths.SUSPECTS)
    with paths.write_whole(page) as part:
        content = render_attribute_suspects(list(zip(shown, nearest, strict=True)), counts, features, paths.DATA)
        part.write_text(content, encoding="utf-8")
    return AttributeCheck(
        suspects,
        int(predicted.judged.sum()),
        len(predicted.photos),
        predicted.accuracy,
        counts,
        unjudged_count=predicted.unjudged_count,
        confirmed_count=len(found) - len(suspects),
    )


def _leave_out_confirmed(suspects: Sequence[AttributeSuspect]) -> list[AttributeSuspect]:
    confirmed = load_confirmed_attributes(CONFIRMED_ATTRIBUTES)
    return [each for each in suspects if ConfirmedAttribute(each.sha256, each.attribute, each.given) not in confirmed]


def _name_nearest(
    suspects: Sequence[AttributeSuspect], shown: Sequence[AttributeSuspect], nearest: Sequence[Mapping[str, str]]
) -> list[AttributeSuspect]:
    """Return the suspects with the photographs that resemble those shown, which are known by their labels."""
    found = {(each.path, each.attribute): paths_of for each, paths_of in zip(shown, nearest, strict=True)}
    named = []
    for each in suspects:
        own = found.get((each.path, each.attribute), {})
        of_both = own.get(each.given, ""), own.get(each.likelier, "")
        named.append(replace(each, nearest_of_given=of_both[0], nearest_of_likelier=of_both[1]))
    return named


def _find_nearest(
    suspects: Sequence[AttributeSuspect], predicted: AttributesOutOfFold, params: Params, features: Features, fits: Fits
) -> list[dict[str, str]]:
    """Return what find_nearest_labeled does; of very many photographs, a sample is compared."""
    count = len(predicted.photos)
    own = features.locate(suspect.path for suspect in suspects)
    rows = np.union1d(own, draw_sample(count, _MAX_COMPARED - (len(own) if count > _MAX_COMPARED else 0), 0))
    settings = params.train.preprocessing.model_copy(update={"standardize": False, "pca_components": None})
    vectors = Vectors(Preprocessor(settings, features.origin.feature_count), features, rows)
    products = vectors.recall_products(fits)  # for ridge regression, they are there
    lengths = np.sqrt(np.maximum(np.diag(products), np.finfo(np.float32).tiny))
    return find_nearest_labeled(suspects, predicted, rows, products / lengths / lengths[:, None])


def find_table() -> Path:
    """Return the file of the labels: that of the user, or CelebA's list."""
    own, celeba = paths.DATA / ATTRIBUTES_TABLE, paths.DATA / CELEBA_ATTRIBUTES
    return celeba if is_given(celeba) and not is_given(own) else own


def format_attribute_check(check: AttributeCheck, max_suspects: int) -> str:
    """Return the surest suspects and the count of each attribute as text, at most `max_suspects`; -1 lists all."""
    share = f"{len(check.suspects)} of {check.count} labels of {check.photograph_count} photographs are suspect"
    text = f"{share} ({len(check.suspects) / check.count:.1%}). "
    text += f"Accuracy of the predictions without the photograph's person: {check.accuracy:.4f}."
    if check.unjudged_count:
        text += f" Not judged: {check.unjudged_count}, of attributes that too few people have, or have not."
    if check.confirmed_count:
        text += f" Left out: {check.confirmed_count}, which were confirmed ({CONFIRMED_ATTRIBUTES})."
    if not check.suspects:
        return text
    shown = check.suspects if max_suspects < 0 else check.suspects[:max_suspects]
    parts = [text, _format_suspects(shown), _format_counts(check.attributes)]
    if hidden_count := len(check.suspects) - len(shown):
        parts[1] += f"\nand {hidden_count} more; --limit -1 lists all"
    return "\n\n".join(parts)


def _format_suspects(suspects: Sequence[AttributeSuspect]) -> str:
    rows = [
        [each.path, each.attribute, each.given, each.likelier, f"{each.probability_of_likelier:.1%}", each.split]
        for each in suspects
    ]
    headers = ["suspect", "attribute", "label", "looks like", "probability", "split"]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=True))


def _format_counts(counts: Sequence[AttributeCount]) -> str:
    """Return a table of the attributes with suspects, the most first."""
    rows = [
        [each.attribute, each.suspects, each.yes_suspects, each.no_suspects, each.labels]
        for each in sorted(counts, key=lambda each: -each.suspects)
        if each.suspects
    ]
    headers = ["attribute", "suspects", "labeled yes", "labeled no", "labels"]
    return str(tabulate(rows, headers, tablefmt="plain", disable_numparse=[0]))
