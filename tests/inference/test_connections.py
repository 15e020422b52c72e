"""Slow, silent and leaving clients cost the others nothing, and SIGTERM ends the server after its last response."""

import asyncio
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h11
import pytest
import requests

from celebflow.errors import CelebflowError
from celebflow.inference import connections
from celebflow.inference.predictor import Predictor
from tests import REPOSITORY
from tests.inference.serving import (
    LIMITS,
    connect,
    format_request,
    get,
    post_form,
    read_response,
    run_server,
    start_server,
)
from tests.models import draw_noise


def test_slow_and_leaving_clients_cost_the_others_nothing(predictor: Predictor) -> None:
    head, body = format_request(draw_noise())
    with start_server(predictor, replace(LIMITS, seconds=1.0)) as address:
        with connect(address) as slow, connect(address) as leaving:
            slow.sendall(head + body[:100])
            leaving.sendall(head + body[:100])
            leaving.close()
            assert post_form(address, draw_noise()).status_code == 200
            status, content = read_response(slow)
            assert (status, content["code"]) == (408, "too_slow")
        assert get(address, "/healthz").json()["waiting"] == 0


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
def test_a_slow_client_gets_to_read_why_it_is_refused(
    address: str, header: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.5)
    head, body = format_request(draw_noise())
    large = re.sub(rb"Content-Length: \d+\r\n", b"Content-Length: 200000000\r\n" + header, head)
    with connect(address) as slow:
        slow.sendall(large + body[:100])
        status, content = read_response(slow)
        assert (status, content["code"]) == (413, "too_large")
        with pytest.raises(ConnectionError):
            while True:  # it goes on sending, although the request is refused
                slow.sendall(b"a")
                time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost:"])
@pytest.mark.parametrize("after_a_request", [False, True])
def test_a_connection_without_a_whole_head_is_closed(
    address: str, sent: bytes, after_a_request: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.5)
    with connect(address) as silent:
        if after_a_request:
            head, body = format_request(draw_noise())
            silent.sendall(head)
            time.sleep(0.7)  # a body may take longer than a head
            silent.sendall(body)
            assert read_response(silent)[0] == 200
        silent.sendall(sent)
        status, content = read_response(silent)
        assert (status, content["code"]) == (408, "too_slow")
        assert silent.recv(100) == b"", "the connection is closed"


def test_other_protocols_are_refused_in_json(address: str) -> None:
    with connect(address) as other:
        other.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        status, content = read_response(other)
    assert (status, content["code"]) == (400, "malformed")


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CelebflowError, match=f"port {port}.*--port"):
            connections.listen("127.0.0.1", port)


_CROWDED = """
import asyncio, resource, socket, uvicorn
from fastapi import FastAPI
from celebflow.inference import connections
from tests.inference.serving import LIMITS

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

async def main():
    listening = connections.listen("127.0.0.1", 0)
    server = uvicorn.Server(connections.configure(FastAPI(), LIMITS.seconds))
    serving = asyncio.create_task(server.serve([listening]))
    await asyncio.sleep(1)
    clients = []
    try:
        while True:
            clients.append(socket.create_connection(listening.getsockname()))
            await asyncio.sleep(0)
    except OSError:
        await asyncio.sleep(1)
    clients.clear()
    server.should_exit = True
    await serving

asyncio.run(main())
"""


def test_more_connections_than_open_files_are_told_once_without_a_traceback() -> None:
    result = subprocess.run([sys.executable, "-c", _CROWDED], capture_output=True, text=True, cwd=REPOSITORY)
    assert (result.returncode, result.stderr.count("\n")) == (0, 1), result.stderr[:2000]
    assert "ulimit -n" in result.stderr


@pytest.mark.slow
def test_sigterm_ends_the_server_after_its_last_response(model: Path, tmp_path: Path) -> None:
    head, body = format_request(draw_noise())
    with run_server(tmp_path, "--model", str(model)) as (address, process), connect(address) as begun:
        begun.sendall(head + body[:100])
        with ThreadPoolExecutor() as clients:
            responses = [clients.submit(post_form, address, draw_noise(seed)) for seed in range(8)]
            while get(address, "/healthz").json()["waiting"] < 2:
                time.sleep(0.005)
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 60
            with pytest.raises(requests.ConnectionError):
                while time.monotonic() < deadline:
                    get(address, "/healthz")
            time.sleep(0.5)  # the server waits for the rest of the body
            begun.sendall(body[100:])
            assert read_response(begun)[0] == 200
        served = [response.result() for response in responses if response.exception() is None]
        assert served, "at least one other request had arrived before the signal"
        assert all(response.status_code == 200 for response in served)
        assert process.wait(60) == 128 + signal.SIGTERM


def test_a_client_that_has_just_gone_is_closed_without_an_error() -> None:
    async def refuse_client_that_has_gone() -> bool:
        loop = asyncio.get_running_loop()
        listening = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        listening.close()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, accepted)
        head, _ = format_request(draw_noise())
        state = h11.Connection(h11.SERVER)
        state.receive_data(head)
        state.next_event()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # a reset, which the loop has no time to see
        lingering = connections._LingeringTransport(transport, state)
        lingering.close()
        return lingering.is_closing() and transport.is_closing()

    assert asyncio.run(refuse_client_that_has_gone())
