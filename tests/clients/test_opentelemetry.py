"""OpenTelemetry's SDK with its instrumentation of OpenAI's client, in front of a fake OpenAI, exports over OTLP to gatelog."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

# The instrumentation patches the process that it is in, and reads its settings once: each case is a process of its own.
CLIENT = """
import sys
import openai
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

resource = Resource.create({"service.name": "shop"})
traces, logs = TracerProvider(resource=resource), LoggerProvider(resource=resource)
traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(compression=Compression.Gzip)))
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
OpenAIInstrumentor().instrument(tracer_provider=traces, logger_provider=logs)

client = openai.OpenAI(api_key="sk-0123456789", base_url=sys.argv[1], max_retries=0)
tracer = traces.get_tracer("shop")
with tracer.start_as_current_span("buy"):
    for model in ["gpt-4o", "gpt-4o-limited"]:
        try:
            client.chat.completions.create(model=model, messages=[
                {"role": "system", "content": "Be brief"}, {"role": "user", "content": "What is it?"}], max_tokens=7)
        except openai.RateLimitError:
            pass
    for _ in client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "And now?"}], stream=True):
        pass
    client.embeddings.create(model="text-embedding-3-small", input="a text")
# Each of the two goes out when its own time has come.
for provider in [logs, traces] if sys.argv[2] == "events first" else [traces, logs]:
    assert provider.force_flush()
"""

ANSWER = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024-08-06",
          "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A thing"}}],
          "usage": {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17}}
VECTOR = {"object": "list", "model": "text-embedding-3-small",
          "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
          "usage": {"prompt_tokens": 3, "total_tokens": 3}}
LIMITED = {"error": {"message": "slow down", "type": "rate_limit"}}


class OpenAI(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, answer, kind = 200, ANSWER, "application/json"
        if body["model"].endswith("limited"):
            status, answer = 429, LIMITED
        elif "input" in body:
            answer = VECTOR
        text = json.dumps(answer)
        if body.get("stream"):
            kind, text = "text/event-stream", self.stream()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def stream(self):
        deltas = [{"role": "assistant", "content": "Still "}, {"content": "so"}]
        chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                       "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}})
        head = {"id": "c2", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06"}
        return "".join(f"data: {json.dumps({**head, **chunk})}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


@pytest.fixture
def provider():
    fake = ThreadingHTTPServer(("127.0.0.1", 0), OpenAI)
    threading.Thread(target=fake.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{fake.server_port}/v1"
    fake.shutdown()


def drive(server, provider, endpoint, settings, order="events first"):
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.url + endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-portkey-api-key={server.key}",
        "OTEL_METRICS_EXPORTER": "none",
        **settings,
    }
    done = subprocess.run([sys.executable, "-c", CLIENT, provider, order], env=environment, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Failed to export" not in done.stderr and "partial" not in done.stderr.lower(), done.stderr


# The old conventions say what was asked and answered in log events, the new ones in the span, in events, or in both.
CASES = {
    "events of the old conventions": ("/v1/otel", {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"}),
    "attributes": ("/v1/logs/otel", {
        "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"}),
    "events of the new conventions": ("", {
        "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "EVENT_ONLY"}),
}


# Events may also come after their span; attributes cannot.
ORDERS = [(case, "events first") for case in CASES] + [(case, "spans first") for case in CASES if "events" in case]


@pytest.mark.parametrize(("case", "order"), ORDERS)
def test_calls_are_logged_with_their_words(server, provider, case, order):
    drive(server, provider, *CASES[case], order)
    rows = server.sql(
        "select span_name, parent_span_id, trace_id, ai_org, ai_model, req_units, res_units, total_units, is_success, "
        "response_status_code, response_time, runtime, sdk_version, metadata['service.name'] as service, "
        "request.body as request, response.body as response, cost from logs order by created_at")
    assert [row["span_name"] for row in rows] == [
        "chat gpt-4o", "chat gpt-4o-limited", "chat gpt-4o", "embeddings text-embedding-3-small"]
    plain, limited, stream, vector = rows
    assert len({row["trace_id"] for row in rows}) == 1
    assert len({row["parent_span_id"] for row in rows}) == 1 and plain["parent_span_id"]
    for row in rows:
        assert (row["ai_org"], row["runtime"], row["service"]) == ("openai", "python", "shop"), row
        assert row["sdk_version"].startswith("opentelemetry-1.") and row["response_time"] >= 0, row
    for row, tokens in [(plain, (9, 8, 17)), (stream, (5, 2, 7)), (vector, (3, None, 3))]:
        assert (row["req_units"], row["res_units"], row["total_units"]) == tokens, row
        assert (row["is_success"], row["response_status_code"]) == (1, 200), row
    assert (plain["ai_model"], vector["ai_model"]) == ("gpt-4o-2024-08-06", "text-embedding-3-small")
    assert (limited["is_success"], limited["response_status_code"]) == (0, 429), limited

    asked, answered = body(plain["request"]), body(plain["response"])
    assert (asked["model"], asked["max_tokens"]) == ("gpt-4o", 7)
    assert asked["messages"] == [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "What is it?"}]
    assert answered["choices"][0]["message"] == {"role": "assistant", "content": "A thing"}
    assert answered["choices"][0]["finish_reason"] == "stop"
    assert body(stream["request"])["messages"] == [{"role": "user", "content": "And now?"}]
    assert body(stream["response"])["choices"][0]["message"]["content"] == "Still so"
    assert "slow down" in body(limited["response"])["error"]["message"]


def test_without_capture_there_is_a_row_and_no_words(server, provider):
    drive(server, provider, "/v1/otel", {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "NO_CONTENT"})
    rows = server.sql("select ai_model, request.body as request from logs")
    assert len(rows) == 4
    assert not any("What is it" in json.dumps(row) for row in rows)


def body(value):
    return json.loads(value) if isinstance(value, str) else value
