"""Servers in this process and in one of their own, and clients for them, that tests share."""

import base64
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import uvicorn

from celebflow.inference import connections, server
from celebflow.inference.access import Access, make_access
from celebflow.inference.loading import Model
from celebflow.inference.request_queue import Limits

LIMITS = Limits(upload_bytes=1_000_000, pixels=1_000_000, faces=20, seconds=20.0, waiting=64)
OPEN = make_access("127.0.0.1", None)
FORM = {"Content-Type": "multipart/form-data; boundary=x"}


@contextmanager
def start_server(model: Model, limits: Limits = LIMITS, access: Access = OPEN, root_path: str = "") -> Iterator[str]:
    """Serve from a thread of this process; yield the server's address."""
    app = server.make_app(model, limits, access, False, root_path)
    with connections.listen("127.0.0.1", 0) as listening:
        running = uvicorn.Server(connections.configure(app, limits.seconds))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield connections.describe_address("127.0.0.1", listening)
        finally:
            running.should_exit = True
            thread.join()


@contextmanager
def run_server(folder: Path, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `celebflow serve` in a folder; yield its address and its process, and kill what is left of it."""
    command = [sys.executable, "-m", "celebflow.cli", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with wait_for_address(process) as address:
        yield address, process


@contextmanager
def wait_for_address(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield the address that a server prints first; kill what is left of it at the end."""
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+", line)
        assert address, line + process.stdout.read()
        yield address[0]
    finally:
        process.kill()
        process.communicate()


def post_form(
    address: str,
    content: bytes,
    *,
    name: str = "photograph.png",
    media_type: str = "image/png",
    headers: Mapping[str, str | bytes] | None = None,
    query: str = "",
) -> requests.Response:
    """Send a photograph as a browser's form does."""
    files = {"photograph": (name, content, media_type)}
    return requests.post(f"{address}/predict?{query}", files=files, headers=headers, timeout=60)


def post_json(address: str, content: bytes, query: str = "") -> requests.Response:
    """Send a photograph in base64."""
    encoded = base64.b64encode(content).decode()
    return requests.post(f"{address}/predict?{query}", json={"photograph": encoded}, timeout=60)


def post_pair(
    address: str, first: bytes, second: bytes, *, query: str = "", headers: Mapping[str, str | bytes] | None = None
) -> requests.Response:
    """Send two photographs as a browser's form does."""
    files = {"first": ("first", first), "second": ("second", second)}
    return requests.post(f"{address}/verify?{query}", files=files, headers=headers, timeout=60)


def head(address: str, path: str, headers: Mapping[str, str | bytes] | None = None) -> requests.Response:
    """Send a HEAD request."""
    return requests.head(f"{address}{path}", headers=headers, timeout=60)


def get(address: str, path: str, headers: Mapping[str, str | bytes] | None = None) -> requests.Response:
    """Send a GET request."""
    return requests.get(f"{address}{path}", headers=headers, timeout=60)


def connect(address: str) -> socket.socket:
    """Open a connection, for a client that sends its request piece by piece."""
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def format_request(content: bytes) -> tuple[bytes, bytes]:
    """Return head and body of a request with a photograph in a form."""
    request = requests.Request("POST", "http://127.0.0.1/predict", files={"photograph": ("a.png", content)}).prepare()
    assert isinstance(request.body, bytes)
    content_type = str(request.headers["Content-Type"])
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
    head += f"Content-Length: {len(request.body)}\r\n\r\n"
    return head.encode(), request.body


def read_response(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return status and content of a response in JSON, as soon as it is complete."""
    received = b""
    while True:
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)\r\n", head + b"\r\n")
        if length and len(body) >= int(length[1]):
            return int(head.split()[1]), json.loads(body)
        chunk = connection.recv(65536)
        assert chunk, received
        received += chunk


def read_refusal(response: requests.Response) -> tuple[int, str]:
    """Return status and code of a refusal."""
    return response.status_code, response.json()["code"]
