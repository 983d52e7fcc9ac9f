"""A server of this build in a fresh folder, filled with the sample records of `data/`."""

import json
import os
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("GATELOG_BIN", ROOT / "target/debug/gatelog"))
KEY = "clients-test-key"


class Server:
    def __init__(self, folder, variables=None, data=None, **settings):
        self.data = data or folder / "data"
        address = folder / "address"
        address.unlink(missing_ok=True)
        environment = {**os.environ, "GATELOG_ADMIN_KEY": KEY, **(variables or {})}
        environment.pop("GATELOG_BIN", None)
        self.process = subprocess.Popen(
            [BINARY.resolve(), "--quiet", "--data", self.data, "serve", "--listen", "127.0.0.1:0", "--address-file", address]
            + [f"--set={name}={value}" for name, value in settings.items()],
            env=environment, cwd=folder)
        deadline = time.monotonic() + 60
        while not (address.exists() and address.read_text().strip()):
            assert self.process.poll() is None and time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)
        self.url = f"http://{address.read_text().strip()}"
        self.base = f"{self.url}/v1"
        self.key = KEY

    def request(self, method, path, body=None, headers=None):
        request = urllib.request.Request(
            self.url + path, data=body, method=method, headers={"x-portkey-api-key": KEY, **(headers or {})})
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def key_of(self, organisation, **terms):
        """Creates an organisation, and gives a key of it that may do everything."""
        self.admin("organisations", {"id": organisation, "plan": "enterprise", **terms})
        return self.admin("keys", {"organisation": organisation, "scopes": ["admin"], "name": "clients"})["key"]

    def admin(self, what, body):
        headers = {"content-type": "application/json"}
        return json.loads(self.request("POST", f"/v1/admin/{what}", json.dumps(body).encode(), headers))

    def sql(self, query):
        path = "/v1/sql?" + urllib.parse.urlencode({"query": query, "format": "json"})
        return json.loads(self.request("GET", path))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0, "the server does not end well"


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def filled(server):
    receipt = json.loads(server.request("POST", "/v1/ingest", (ROOT / "data/sample.jsonl").read_bytes()))
    assert receipt["rejected"] == 0 and receipt["accepted"] > 0, receipt
    server.accepted = receipt["accepted"]
    return server
