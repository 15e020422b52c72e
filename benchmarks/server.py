"""The cost of serving: a prediction against the bare forward pass, and many clients against batched extraction.

Run in a folder with a trained model: python -m benchmarks.server [--clients 64] [--seconds 60] FOLDER
where FOLDER holds photographs. It starts `celebflow serve` on a free port of this machine, and ends it.
"""

import argparse
import http.client
import itertools
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from benchmarks.compare import alternate
from celebflow import paths
from celebflow.data.decoding import decode_photograph
from celebflow.features.origin import choose_runtime
from celebflow.features.runtimes import build_runtime
from celebflow.features.sparse import SparseRow
from celebflow.inference.extractor import ExtractedFace
from celebflow.inference.files import list_photographs
from celebflow.inference.predictor import Predictor

_EXTRACTED_COUNT = 200
_SEQUENTIAL_COUNT = 20
_LARGE_UPLOAD_MB = 200
_BOUNDARY = b"celebflow-benchmark"
_HEADERS = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY.decode()}"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    files = list_photographs([str(arguments.folder)])
    sample = random.Random(0).sample(files, min(_EXTRACTED_COUNT, len(files)))
    photographs = [Path(file).read_bytes() for file in sample]
    predictor = Predictor.load(paths.CLASSIFIER.parent)
    with start_server() as (address, process):
        compare_latencies(predictor, photographs, address)
        growth_bytes = send_large_upload(address, process)
        before = time_extraction(predictor, photographs)
        statuses, memory_bytes, rate = load_server(photographs, address, process, arguments.clients, arguments.seconds)
        after = time_extraction(predictor, photographs)
    print(f"a refused upload of {_LARGE_UPLOAD_MB} MB: the server's memory grew by {growth_bytes / 1e6:.0f} MB at most")
    print(f"{arguments.clients} clients for {arguments.seconds:g} s: {dict(statuses)}")
    print(
        f"predictions per second: {rate:.2f}; batched extraction: {before:.2f} before, {after:.2f} after: "
        f"{2 * rate / (before + after):.3f}"
    )
    print("the server's memory in MB, every ten seconds: " + ", ".join(f"{value / 1e6:.0f}" for value in memory_bytes))
    print(f"SIGTERM ended the server with status {process.returncode}")


@contextmanager
def start_server() -> Iterator[tuple[tuple[str, int], psutil.Popen]]:
    """Start the workspace's server; yield its address and its process."""
    command = [sys.executable, "-m", "celebflow.cli", "serve", "--port", "0"]
    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://(\S+):(\d+)", process.stdout.readline())
        if address is None:
            sys.exit("The server did not start.")
        yield (address[1], int(address[2])), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def compare_latencies(predictor: Predictor, photographs: Sequence[bytes], address: tuple[str, int]) -> None:
    """Compare the bare forward pass on a photograph with a prediction, and with a request to the server."""
    card = predictor.card
    contents = photographs[:_SEQUENTIAL_COUNT]
    runtime = build_runtime(choose_runtime("auto", "cpu"), predictor.backbone, card.transform.layers)
    inputs = [card.transform.make_inputs(decode_photograph(content), None) for content in contents]

    @torch.inference_mode()
    def run_bare() -> None:
        for views in inputs:
            face = ExtractedFace(None, [SparseRow.from_dense(runtime.extract(view)) for view in views], 0)
            predictor.classifier.average(predictor.stack_views([face]))

    def predict() -> None:
        for content in contents:
            predictor.predict([decode_photograph(content)])

    def request() -> None:
        connection = http.client.HTTPConnection(*address)
        for content in contents:
            if send(connection, content) != 200:
                sys.exit("The server refused a photograph.")

    def clock(action: Callable[[], None]) -> Callable[[], float]:
        def timed() -> float:
            started = time.perf_counter()
            action()
            return (time.perf_counter() - started) / len(contents)

        return timed

    bare, predicted, requested = alternate(5, clock(run_bare), clock(predict), clock(request))
    print(f"one photograph, median of 5 rounds of {len(contents)}, alternating:")
    print(
        f"  bare forward pass {bare * 1e3:.1f} ms; prediction from the file's bytes {predicted * 1e3:.1f} ms: "
        f"{predicted / bare:.3f}; over HTTP {requested * 1e3:.1f} ms: {requested / bare:.3f}"
    )


def send_large_upload(address: tuple[str, int], process: psutil.Process) -> int:
    """Send a body beyond the server's limit; return by how many bytes its memory grew at most."""
    before: int = process.memory_info().rss
    peak = before

    def generate_blocks() -> Iterator[bytes]:
        nonlocal peak
        for _ in range(_LARGE_UPLOAD_MB):
            yield bytes(1_000_000)
            peak = max(peak, process.memory_info().rss)

    connection = http.client.HTTPConnection(*address, timeout=120)
    connection.request("POST", "/predict", generate_blocks(), _HEADERS, encode_chunked=True)
    if connection.getresponse().status != 413:
        sys.exit("The server did not refuse a large upload.")
    return peak - before


def time_extraction(predictor: Predictor, photographs: Sequence[bytes]) -> float:
    """Return how many photographs per second are decoded and extracted, one in each worker."""
    started = time.perf_counter()
    with ThreadPoolExecutor(predictor.workers) as workers:
        list(workers.map(lambda content: list(predictor.extract(decode_photograph(content))), photographs))
    return len(photographs) / (time.perf_counter() - started)


def load_server(
    photographs: Sequence[bytes], address: tuple[str, int], process: psutil.Process, clients: int, seconds: float
) -> tuple[Counter[int], list[int], float]:
    """Let clients send requests without pause; return statuses, the server's memory, and predictions per second."""
    started = time.perf_counter()
    deadline = started + seconds

    def send_until_deadline(client: int) -> Counter[int]:
        connection = http.client.HTTPConnection(*address, timeout=120)
        statuses: Counter[int] = Counter()
        for content in itertools.islice(itertools.cycle(photographs), client, None):
            if time.perf_counter() >= deadline:
                break
            statuses[send(connection, content)] += 1
        return statuses

    with ThreadPoolExecutor(clients + 1) as pool:
        memory = pool.submit(watch_memory, process, deadline)
        statuses = sum(pool.map(send_until_deadline, range(clients)), Counter[int]())
    return statuses, memory.result(), statuses[200] / (time.perf_counter() - started)


def watch_memory(process: psutil.Process, deadline: float) -> list[int]:
    """Return the memory of a process, in bytes, every ten seconds."""
    memory_bytes = []
    while time.perf_counter() < deadline:
        memory_bytes.append(process.memory_info().rss)
        time.sleep(min(10.0, max(0.1, deadline - time.perf_counter())))
    return [*memory_bytes, process.memory_info().rss]


def send(connection: http.client.HTTPConnection, content: bytes) -> int:
    """Send a photograph; return the status of the response."""
    head = b'\r\nContent-Disposition: form-data; name="photograph"; filename="a.jpg"\r\n\r\n'
    body = b"--" + _BOUNDARY + head + content + b"\r\n--" + _BOUNDARY + b"--\r\n"
    connection.request("POST", "/predict", body, _HEADERS)
    response = connection.getresponse()
    response.read()
    return response.status


if __name__ == "__main__":
    main()
