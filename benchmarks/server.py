"""What it costs to ask: one prediction against the bare forward pass, and many clients against batched extraction.

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
from celebflow.features.runtimes import build_runtime, choose_runtime
from celebflow.features.sparse import SparseRow
from celebflow.inference.files import list_photographs
from celebflow.inference.predictor import Predictor

_EXTRACTED = 200
_ASKED_IN_TURN = 20
_BOUNDARY = b"celebflow-benchmark"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    files = list_photographs([str(arguments.folder)])
    photographs = [Path(file).read_bytes() for file in random.Random(0).sample(files, min(_EXTRACTED, len(files)))]
    predictor = Predictor.load(paths.CLASSIFIER.parent)
    with start_server() as (address, process):
        compare_one(predictor, photographs, address)
        before = time_extraction(predictor, photographs)
        statuses, memory_bytes, rate = ask_at_once(photographs, address, process, arguments.clients, arguments.seconds)
        after = time_extraction(predictor, photographs)
    extraction = (before + after) / 2
    print(f"{arguments.clients} clients for {arguments.seconds:g} s: {dict(statuses)}")
    print(
        f"answers a second: {rate:.2f}; batched extraction: {before:.2f} before, {after:.2f} after: "
        f"{rate / extraction:.3f}"
    )
    print("memory of the server, MB, every ten seconds: " + ", ".join(f"{value / 1e6:.0f}" for value in memory_bytes))
    print(f"SIGTERM ended it with status {process.returncode}")


@contextmanager
def start_server() -> Iterator[tuple[tuple[str, int], psutil.Popen]]:
    """Start the workspace's server; yield its address and its process."""
    command = [sys.executable, "-m", "celebflow.cli", "serve", "--port", "0"]
    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        found = re.search(r"http://(\S+):(\d+)", process.stdout.readline())
        if found is None:
            sys.exit("The server did not start.")
        yield (found[1], int(found[2])), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def compare_one(predictor: Predictor, photographs: Sequence[bytes], address: tuple[str, int]) -> None:
    """Compare the bare forward pass on a photograph with a prediction, and with a request to the server."""
    card = predictor.card
    runtime = build_runtime(choose_runtime("auto", "cpu"), predictor.backbone, card.transform.layers)
    decoded = [decode_photograph(content) for content in photographs[:_ASKED_IN_TURN]]
    images = [card.transform.make_inputs(photograph, None) for photograph in decoded]

    @torch.inference_mode()
    def run_bare() -> None:
        for views in images:
            rows = [[SparseRow.from_dense(runtime.extract(image))] for image in views]
            predictor.classifier.average(predictor.stack(row) for row in rows)

    def predict() -> None:
        for content in photographs[:_ASKED_IN_TURN]:
            predictor.predict([decode_photograph(content)])

    def ask() -> None:
        connection = http.client.HTTPConnection(*address)
        for content in photographs[:_ASKED_IN_TURN]:
            if send(connection, content) != 200:
                sys.exit("The server refused a photograph.")

    def clock(action: Callable[[], None]) -> Callable[[], float]:
        def timed() -> float:
            started = time.perf_counter()
            action()
            return (time.perf_counter() - started) / _ASKED_IN_TURN

        return timed

    bare, predicted, asked = alternate(5, clock(run_bare), clock(predict), clock(ask))
    print(f"one photograph, median of 5 rounds of {_ASKED_IN_TURN}, alternating:")
    print(
        f"  bare forward pass {bare * 1e3:.1f} ms; prediction from the file's bytes {predicted * 1e3:.1f} ms: ", end=""
    )
    print(f"{predicted / bare:.3f}; over HTTP {asked * 1e3:.1f} ms: {asked / bare:.3f}")


def time_extraction(predictor: Predictor, photographs: Sequence[bytes]) -> float:
    """Return how many photographs are decoded and extracted a second, each worker with one of its own."""
    started = time.perf_counter()
    with ThreadPoolExecutor(predictor.workers) as workers:
        list(workers.map(lambda content: predictor.extract(decode_photograph(content)), photographs))
    return len(photographs) / (time.perf_counter() - started)


def ask_at_once(
    photographs: Sequence[bytes], address: tuple[str, int], process: psutil.Process, clients: int, seconds: float
) -> tuple[Counter[int], list[int], float]:
    """Let clients ask without pause; return their statuses, the server's memory, and answers a second."""
    began = time.perf_counter()
    deadline = began + seconds

    def ask(number: int) -> Counter[int]:
        connection, statuses = http.client.HTTPConnection(*address, timeout=120), Counter[int]()
        for content in itertools.islice(itertools.cycle(photographs), number, None):
            if time.perf_counter() >= deadline:
                return statuses
            statuses[send(connection, content)] += 1
        return statuses

    with ThreadPoolExecutor(clients + 1) as pool:
        watched = pool.submit(watch_memory, process, deadline)
        statuses = sum(pool.map(ask, range(clients)), Counter[int]())
    return statuses, watched.result(), statuses[200] / (time.perf_counter() - began)


def watch_memory(process: psutil.Process, deadline: float) -> list[int]:
    """Return the memory of a process, in bytes, every ten seconds."""
    found = []
    while time.perf_counter() < deadline:
        found.append(process.memory_info().rss)
        time.sleep(min(10.0, max(0.1, deadline - time.perf_counter())))
    return [*found, process.memory_info().rss]


def send(connection: http.client.HTTPConnection, content: bytes) -> int:
    """Ask about a photograph; return the status."""
    head = b'\r\nContent-Disposition: form-data; name="photograph"; filename="a.jpg"\r\n\r\n'
    body = b"--" + _BOUNDARY + head + content + b"\r\n--" + _BOUNDARY + b"--\r\n"
    connection.request(
        "POST", "/predict", body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY.decode()}"}
    )
    response = connection.getresponse()
    response.read()
    return response.status


if __name__ == "__main__":
    main()
