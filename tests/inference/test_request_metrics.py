"""The server counts requests, faces and batches for Prometheus, and shows no names."""

from prometheus_client.parser import text_string_to_metric_families

from tests.inference.serving import get, post_form
from tests.models import NAMES, draw_noise


def _read_metrics(text: str) -> dict[tuple[str, ...], float]:
    metrics = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            metrics[sample.name, *sample.labels.values()] = sample.value
    return metrics


def test_requests_faces_and_batches_are_counted(address: str) -> None:
    before = _read_metrics(get(address, "/metrics").text)
    for content in (draw_noise(), draw_noise(1), b"nothing"):
        post_form(address, content)
    get(address, "/somewhere")
    response = get(address, "/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert not any(name in response.text for name in NAMES)
    after = _read_metrics(response.text)

    def count(*sample: str) -> float:
        return after[sample] - before.get(sample, 0)

    assert count("celebflow_requests_total", "/predict", "200") == 2
    assert count("celebflow_requests_total", "/predict", "422") == 1
    assert count("celebflow_requests_total", "other", "404") == 1
    assert count("celebflow_request_seconds_count", "/predict") == 3
    assert count("celebflow_faces_total") == count("celebflow_batch_photographs_sum") == 2
    assert after["celebflow_waiting_requests",] == 0
