"""The official Portkey SDKs insert logs, unmodified, by each of the ways that they have."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from portkey_ai import AsyncPortkey, Portkey
from portkey_ai.api_resources.apis.logger import Logger
from portkey_ai.api_resources.instrumentation.portkey_span_exporter import PortkeySpanExporter

REQUEST = {"url": "https://api.openai.com/v1/chat/completions", "method": "post",
           "body": {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}}
RESPONSE = {"status": 200, "response_time": 412,
            "body": {"model": "gpt-4o", "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}}}


def the_one(server):
    rows = server.sql("select ai_model, total_units, response_status_code, trace_id, metadata['_user'] as u from logs")
    assert len(rows) == 1, rows
    return rows[0]


def test_python_sdk_inserts_a_log(server):
    portkey = Portkey(api_key=server.key, base_url=server.base)
    portkey.logs.create(request=REQUEST, response=RESPONSE, metadata={"traceId": "t-1", "_user": "u-1"})
    row = the_one(server)
    assert (row["ai_model"], row["total_units"], row["trace_id"], row["u"]) == ("gpt-4o", 13, "t-1", "u-1")


def test_the_async_sdk_inserts_a_log_and_the_log_is_read(server):
    portkey = AsyncPortkey(api_key=server.key, base_url=server.base, trace_id="t-header", metadata={"team": "search"})
    asyncio.run(portkey.logs.create(request=REQUEST, response=RESPONSE, metadata={"traceId": "t-1", "_user": "u-1"}))
    row = the_one(server)
    assert (row["total_units"], row["trace_id"], row["u"]) == (13, "t-header", "u-1"), "a header wins over the body"
    log = server.sql("select id, metadata['team'] as team, runtime, sdk_version from logs")[0]
    assert (log["team"], log["runtime"], log["sdk_version"]) == ("search", "CPython", "portkey-2.3.4")
    shown = json.loads(server.request("GET", f"/v1/logs/{log['id']}"))
    assert (shown["_id"], shown["request"]["body"], shown["response"]["status"]) == (log["id"], REQUEST["body"], 200)
    assert (shown["metrics"]["total_units"], shown["metrics"]["retry_success_count"]) == (13, "0")


def test_the_pythons_logger_posts_one_log_or_several(server):
    logger = Logger(api_key=server.key, base_url=server.base)
    one = {"request": REQUEST, "response": RESPONSE}
    assert logger.log(one).text == "ok"
    # As the handlers of Langchain and LlamaIndex write: times as text, ids beside the bodies, JSON within text.
    span = {"trace_id": "t-1", "parent_span_id": "None", "span_name": "chain"}
    several = [{**one, **span, "span_id": f"s-{number}"} for number in range(2)]
    several[0]["response"] = {**RESPONSE, "response_time": "0123"}
    several[1]["request"] = json.dumps(REQUEST)
    assert logger.log(several).text == "ok"
    rows = server.sql(
        "select span_id, parent_span_id, response_time, ai_model, total_units from logs where trace_id = 't-1' "
        "order by span_id")
    assert [(row["span_id"], row["response_time"]) for row in rows] == [("s-0", 123), ("s-1", 412)]
    assert all(row["parent_span_id"] is None for row in rows)
    assert all((row["ai_model"], row["total_units"]) == ("gpt-4o", 13) for row in rows)
    assert len(server.sql("select id from logs")) == 3


def test_the_pythons_span_exporter(server):
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(PortkeySpanExporter(api_key=server.key, base_url=server.base)))
    tracer = traces.get_tracer("crew")
    with tracer.start_as_current_span("outer"):
        with tracer.start_as_current_span("chat", attributes={
                "gen_ai.request.model": "gpt-4o", "gen_ai.usage.prompt_tokens": 9, "gen_ai.usage.completion_tokens": 4,
                "_source": "crewai"}):
            pass
    rows = server.sql(
        "select span_name, span_id, parent_span_id, trace_id, ai_model, total_units, metadata['_source'] as source "
        "from logs")
    rows = {row["span_name"]: row for row in rows}
    inner, outer = rows["chat"], rows["outer"]
    assert (inner["parent_span_id"], inner["trace_id"]) == (outer["span_id"], outer["trace_id"])
    assert (inner["ai_model"], inner["total_units"], inner["source"]) == ("gpt-4o", 13, "crewai")


def test_node_sdk_inserts_logs(server):
    script = Path(__file__).with_name("insert.cjs")
    environment = {**os.environ, "GATELOG_BASE": server.base, "GATELOG_KEY": server.key}
    done = subprocess.run(["node", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "constructor,create\n", "every method is called"
    # The SDK sends an array as an object of numbered keys.
    rows = server.sql("select ai_model, total_units, trace_id, runtime, sdk_version from logs order by trace_id")
    assert [row["trace_id"] for row in rows] == ["t-2", "t-3", "t-4"]
    for row in rows:
        assert (row["ai_model"], row["total_units"]) == ("gpt-4o", 13)
        assert (row["runtime"], row["sdk_version"]) == ("node", "portkey-3.1.0")
