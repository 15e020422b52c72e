"""A result of attributes without a pipeline, that tests share."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from celebflow.backbone.source import BackboneSource
from celebflow.classifier.attribute_calibration import AttributeCalibration, fit_attribute_calibration
from celebflow.classifier.cards import AttributeCard
from celebflow.classifier.history import EpochResult, save_history
from celebflow.data.attributes import BLANK, NO, YES
from celebflow.data.photos import Photo
from celebflow.evaluation.attribute_evaluation import choose_errors
from celebflow.evaluation.attribute_results import load_attribute_report, save_attribute_report
from celebflow.evaluation.results import REPORTED_SPLITS, save_metrics
from celebflow.features.transform import Transform
from celebflow.report.attribute_publication import AttributeExample, AttributePage
from tests.report.pages import FIGURES, PARAMS, draw_image, draw_png

CELEBA = (  # noqa: SIM905 - a list would take as many lines as names
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young"
).split()


def make_attribute_card(names: Sequence[str], *, trained: bool = True) -> AttributeCard:
    """Return the card of a model that is not calibrated, on a backbone that is trained or not."""
    source = BackboneSource("imagenet" if trained else "untrained", trained, "0" * 64)
    ones, halves = (1.0,) * len(names), (0.5,) * len(names)
    calibration = AttributeCalibration(ones, (0.0,) * len(names), ones, halves, halves, "accuracy")
    return AttributeCard(
        tuple(names), (8,), 0.5, Transform(224), source, calibration=calibration, yes_fractions=(0.25,) * len(names)
    )


def make_attribute_page(
    folder: Path,
    names: Sequence[str],
    *,
    photograph_count: int = 160,
    people_count: int = 20,
    one_valued: int = 0,
    without_labels: int = 0,
    trained: bool = True,
) -> AttributePage:
    """Make a result of attributes that are more often right than wrong, and worse where the first one is no.

    The last attributes of val have only answers of no, and before them are some without labels. Without people, the
    photographs' persons are unknown.
    """
    card = make_attribute_card(names, trained=trained)
    photos: list[Photo] = []
    metrics = {}
    for number, split in enumerate(REPORTED_SPLITS):
        random = np.random.default_rng(number)
        frequencies = np.linspace(0.4, 0.06, len(names))
        yes = random.random((photograph_count, len(names))) < frequencies
        labels = np.where(yes, YES, NO).astype(np.int64)
        labels[random.random(labels.shape) < 0.05] = BLANK
        noise = np.where(yes[:, :1], 0.5, 3.0)
        logits = (np.where(yes, 2.0, -2.0) + noise * random.normal(size=yes.shape)).astype(np.float32)
        if split == "val":
            card = replace(card, calibration=fit_attribute_calibration(logits, labels, "accuracy"))
            last = len(names) - one_valued
            labels[:, last:] = NO
            labels[:, last - without_labels : last] = BLANK
        own = []
        for row in range(photograph_count):
            person = f"{split} {row % people_count}" if people_count else ""
            own.append(Photo(f"{split}/{row:03}.jpg", person, split, "", f"{split}{max(row, 1)}"))
        metrics[split] = save_attribute_report(logits, labels, own, card, folder / split)
        photos += own
    save_metrics(metrics, card.backbone, folder / "metrics.json", folder / "all_metrics.json")
    save_history([EpochResult(1, 0.5, 0.75, 0.6, 0.7)], folder / "history.csv")
    report = load_attribute_report(folder / "history.csv", folder / "all_metrics.json", folder)
    examples = [
        AttributeExample(prediction, split, draw_image(number), draw_image(number + 100))
        for split, content in report.splits.items()
        for number, prediction in enumerate(choose_errors(content))
    ]
    figures = {name: draw_png(number) for number, name in enumerate(FIGURES)}
    return AttributePage(report, card, photos, PARAMS, figures, examples)
