"""What stands around gatelog in these tests: a provider that fails when told to, and the real gateway of npm in front of it."""

import json
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ANSWER = "A thing"


class Fake(BaseHTTPRequestHandler):
    """Speaks HTTP/1.1, takes bodies of known length or in chunks."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status, content, kind="application/json", headers=()):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in [("content-type", kind), ("content-length", str(len(content))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


class Service:
    """A handler of requests that listens on a free port of this machine."""

    def __init__(self, handler):
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.http.service = self
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


class Provider(Service):
    """OpenAI's API, as far as these tests need it.

    `metadata.script` of a request says what becomes of it: `once-503` fails the first time, `always-500` every time.
    """

    def __init__(self):
        super().__init__(OpenAI)
        self.base = f"{self.url}/v1"
        self.seen = Counter()
        # Bodies of the requests, and the keys that they came with.
        self.calls = []


class OpenAI(Fake):
    def do_POST(self):
        provider, body = self.server.service, json.loads(self.body())
        provider.calls.append((self.path, body, self.headers.get("authorization")))
        often, _, status = str((body.get("metadata") or {}).get("script", "")).partition("-")
        provider.seen[json.dumps(body)] += 1
        if often == "always" or often == "once" and provider.seen[json.dumps(body)] == 1:
            return self.answer(int(status), {"error": {"message": f"told to fail with {status}", "type": "told"}})
        if self.path.endswith("/embeddings"):
            vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
            usage = {"prompt_tokens": 3, "total_tokens": 3}
            return self.answer(200, {"object": "list", "model": body["model"], "data": [vector], "usage": usage})
        head = {"id": f"chatcmpl-{len(provider.calls)}", "created": 1, "model": f"{body['model']}-2024-08-06"}
        usage = {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17}
        if body.get("stream"):
            deltas = [({"role": "assistant", "content": "A "}, None), ({"content": "thing"}, None), ({}, "stop")]
            chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
            chunks.append({"choices": [], "usage": usage})
            lines = [json.dumps({**head, "object": "chat.completion.chunk", **chunk}) for chunk in chunks] + ["[DONE]"]
            return self.answer(200, "".join(f"data: {line}\n\n" for line in lines).encode(), "text/event-stream")
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
        self.answer(200, {**head, "object": "chat.completion", "choices": [choice], "usage": usage})


class Gateway:
    """`@portkey-ai/gateway` of npm, as it is published."""

    def __init__(self, folder):
        script = Path(os.environ["NODE_PATH"]) / "@portkey-ai/gateway/build/start-server.js"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {**os.environ, "NODE_ENV": "production"}
        with open(folder / "gateway.log", "wb") as log:
            self.process = subprocess.Popen(
                ["node", script, f"--port={port}", "--headless"], stdout=log, stderr=log, env=environment, cwd=folder)
        self.url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not self.is_up(port):
            assert self.process.poll() is None and time.monotonic() < deadline, (folder / "gateway.log").read_text()
            time.sleep(0.05)

    @staticmethod
    def is_up(port):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def call(self, body, headers, path="/v1/chat/completions"):
        """Status, headers and text of the answer."""
        return post(self.url + path, json.dumps(body).encode(), headers)

    def stop(self):
        self.process.kill()
        self.process.wait(timeout=60)


def post(url, content, headers):
    request = urllib.request.Request(url, data=content, headers={"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, lower(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, lower(answer.headers), answer.read().decode()


def lower(headers):
    return {name.lower(): value for name, value in headers.items()}


class Front(Service):
    """Stands before a gateway, as an operator's ingress does: adds headers, and remembers what the gateway answered."""

    def __init__(self, gateway, headers):
        super().__init__(Ingress)
        self.gateway, self.headers = gateway, headers
        # Headers that came in, and status and headers of the answer.
        self.calls = []


class Ingress(Fake):
    def do_POST(self):
        front, sent = self.server.service, lower(self.headers)
        own = ("host", "content-length", "transfer-encoding")
        kept = {name: value for name, value in sent.items() if name not in own}
        status, headers, text = post(front.gateway.url + self.path, self.body(), {**kept, **front.headers})
        front.calls.append((sent, status, headers))
        ours = [(name, value) for name, value in headers.items() if name.startswith("x-portkey-")]
        self.answer(status, text.encode(), headers.get("content-type", "application/json"), ours)
