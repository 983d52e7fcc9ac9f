"""LiteLLM's SDK reports its calls to gatelog by its generic API callback, in each of its formats."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from fakes import Provider

SECRET = "sk-planted-0123456789"

# LiteLLM reads its settings when it is imported: each case is a process of its own. It tells what LiteLLM knows of the calls.
CLIENT = """
import asyncio, json, sys
import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.integrations.generic_api.generic_api_callback import GenericAPILogger

base, form, secret = sys.argv[1:]
known = []

class Witness(CustomLogger):
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        known.append(kwargs["standard_logging_object"])

    async_log_failure_event = async_log_success_event

async def chat(text, **more):
    return await litellm.acompletion(
        messages=[{"role": "user", "content": text}], **{
            "model": "openai/gpt-4o", "api_base": base, "api_key": secret, "max_retries": 0, **more})

async def until(is_so):
    while not is_so():
        await asyncio.sleep(0.02)

async def main():
    litellm.generic_api_use_v1 = form == "v1"
    logger = GenericAPILogger(log_format=None if form in ("v1", "json_array") else form)
    litellm.callbacks = [logger, Witness()]
    litellm.cache = litellm.Cache(type="local", mode="default_off")
    own = {
        "trace_id": "t-1", "tags": ["x", "y"], "spend_logs_metadata": {"job": "nightly"},
        "requester_metadata": {"team": "search"}}
    more = {"user": "ann", "temperature": 0.5, "metadata": own, "extra_headers": {"api-key": secret}}
    await chat("Where is caf\\u00e9 \\U0001F600?", **more)
    try:
        await chat("Too many", extra_body={"metadata": {"script": "always-429"}})
    except litellm.RateLimitError:
        pass
    async for _ in await chat("Slowly", stream=True, stream_options={"include_usage": True}):
        pass
    await litellm.aembedding(model="openai/text-embedding-3-small", input=["a text"], api_base=base, api_key=secret)
    await chat("Once more", model="openai/unheard-of", metadata={"trace_id": "t-unheard-of"})
    cached = {"cache": {"use-cache": True}}
    await chat("Again", metadata={"trace_id": "t-filled"}, **cached)
    await until(lambda: litellm.cache.cache.cache_dict)
    await chat("Again", metadata={"trace_id": "t-hit"}, **cached)
    await until(lambda: len(known) == 7)
    # What it is told while it sends, LiteLLM forgets: so it sends once.
    await logger.flush_queue()
    print(json.dumps(known, default=str))

asyncio.run(main())
"""


@pytest.fixture
def provider():
    provider = Provider()
    yield provider
    provider.stop()


def drive(server, provider, form):
    environment = {
        **os.environ,
        "GENERIC_LOGGER_ENDPOINT": f"{server.base}/ingest/litellm",
        "GENERIC_LOGGER_HEADERS": f"x-portkey-api-key={server.key}",
        "DEFAULT_FLUSH_INTERVAL_SECONDS": "3600",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    done = subprocess.run([sys.executable, "-c", CLIENT, provider.base, form, SECRET], env=environment,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    if form != "v1":
        assert "Generic API Logger" not in done.stderr, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_nothing_planted(server):
    told = server.request("GET", "/v1/export").decode()
    stored = b"".join(path.read_bytes() for path in Path(server.data).rglob("*") if path.is_file())
    assert SECRET not in told and SECRET.encode() not in stored


@pytest.mark.parametrize("form", ["json_array", "ndjson", "single"])
def test_every_call_is_one_log(server, provider, form):
    known = drive(server, provider, form)
    rows = server.sql(
        "select l.*, request.body as asked, response.body as answered, cache_label, retry_label, metadata as tags "
        "from logs l join status s on l.id = s.id order by l.created_at")
    assert sorted(row["internal_trace_id"] for row in rows) == sorted(call["id"] for call in known)
    assert len(rows) == 7
    of = {call["id"]: call for call in known}
    for row in rows:
        call = of[row["internal_trace_id"]]
        failed = call["status"] == "failure"
        assert row["trace_id"] == call["trace_id"] and row["source"] == "litellm", row
        assert (row["ai_org"], row["ai_model"], row["request_url"]) == ("openai", call["model"], call["api_base"]), row
        tokens = [call[f"{kind}_tokens"] for kind in ("prompt", "completion", "total")]
        assert [row["req_units"], row["res_units"], row["total_units"]] == tokens, row
        assert (row["is_success"], row["response_status_code"]) == ((0, 429) if failed else (1, 200)), row
        assert row["response_time"] == round(call["response_time"] * 1000), row
        assert row["stream_mode"] in (call["stream"], None) and row["retry_label"] == "Retry Not Triggered"
        label = {True: "Cache Hit", False: "Cache Miss", None: "Cache Disabled"}[call["cache_hit"]]
        assert row["cache_label"] == label, row
        if call["response_cost_failure_debug_info"]:
            assert row["cost"] is None, "an unknown price is not 0"
        else:
            # Dollars to cents, to the last digit: the decimal point moves.
            cents = float(Decimal(repr(call["response_cost"])).scaleb(2))
            assert (row["cost"], row["cost_currency"]) == (cents, "USD"), row

    def find(text):
        return next(row for row in rows if text in json.dumps(of[row["internal_trace_id"]]["messages"], ensure_ascii=False))

    first = find("café")
    asked = json.loads(first["asked"])
    assert asked["messages"] == [{"role": "user", "content": "Where is café 😀?"}]
    assert (asked["model"], asked["temperature"]) == ("gpt-4o", 0.5)
    assert json.loads(first["answered"])["choices"][0]["message"]["content"] == "A thing"
    assert (first["trace_id"], first["user_id"]) == ("t-1", "ann")
    tags = dict(first["tags"])
    assert (tags["job"], tags["team"], json.loads(tags["request_tags"])) == ("nightly", "search", ["x", "y"])
    assert first["cost"] > 0
    limited = json.loads(find("Too many")["answered"])
    assert limited["error_code"] == "429" and "told to fail" in limited["error_message"]
    stream = find("Slowly")
    assert stream["stream_mode"] is True and stream["time_to_last_token"] >= stream["response_time"]
    assert "a text" in json.dumps(json.loads(find("a text")["asked"])["input"])
    (hit,) = [row for row in rows if row["cache_label"] == "Cache Hit"]
    (filled,) = [row for row in rows if row["trace_id"] == "t-filled"]
    assert hit["trace_id"] == "t-hit" and hit["total_units"] == filled["total_units"]
    assert_nothing_planted(server)


def test_the_older_payload(server, provider):
    known = {call["trace_id"]: call for call in drive(server, provider, "v1")}
    rows = server.sql(
        "select id, internal_trace_id, ai_model, total_units, cost, cache_status, user_id, is_success from logs order by created_at")
    # Of failures LiteLLM cannot make this payload.
    assert len(rows) == 6 and all(row["is_success"] == 1 for row in rows)
    first, hit = rows[0], rows[-1]
    assert (first["ai_model"], first["total_units"], first["user_id"]) == ("gpt-4o", 17, "ann")
    assert first["cost"] == float(Decimal(repr(known["t-1"]["response_cost"])).scaleb(2))
    assert (hit["cache_status"], rows[-2]["cache_status"]) == ("HIT", "DISABLED")
    assert hit["internal_trace_id"].startswith(rows[-2]["internal_trace_id"]) and hit["id"] != rows[-2]["id"]
    assert_nothing_planted(server)
