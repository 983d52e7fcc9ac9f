"""The real `@portkey-ai/gateway` of npm before a fake provider: it logs by its hooks, and gatelog replays through it.

What the gateway's response headers say is the truth that the logs are held against.
"""

import json
from collections import Counter
from urllib.parse import quote

import pytest
from conftest import Server
from fakes import ANSWER, Front, Gateway, Provider, post
from portkey_ai import Portkey

SECRETS = ["sk-planted-0123456789", "sk-planted-abcdefghij"]
MODES = {
    "fallback": ("Fallback Active", "Loadbalancer Disabled"),
    "loadbalance": ("Fallback Disabled", "Loadbalancer Active"),
}
LABELS = "cache_label, retry_label, fallback_label, loadbalance_label"


@pytest.fixture
def provider():
    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture
def gateway(tmp_path):
    gateway = Gateway(tmp_path)
    yield gateway
    gateway.stop()


def hook(server, check="default.log"):
    """The gateway's hook as its documents have it; `headers` is a text in one and an object in the other."""
    url, headers = f"{server.base}/ingest/gateway-hook", {"x-portkey-api-key": server.key}
    parameters = {"logURL": url, "headers": json.dumps(headers)} if check == "default.log" else {
        "webhookURL": url, "headers": headers}
    checks = [{"id": check, "parameters": parameters}]
    return [{"type": "guardrail", "id": "to-gatelog", "async": False, "checks": checks}]


def target(provider, script=None, model=None, key=SECRETS[0]):
    params = {"metadata": {"script": script}} if script else {}
    params |= {"model": model} if model else {}
    return {"provider": "openai", "api_key": key, "custom_host": provider.base, "override_params": params}


def configs(provider):
    """What is asked of the gateway, by the name of the call."""
    plain = target(provider)
    large, small = target(provider, model="gpt-4o"), target(provider, model="gpt-4o-mini", key=SECRETS[1])
    broken = target(provider, script="always-429", model="gpt-4o-mini")
    return {
        "plain": plain,
        "retried": {**target(provider, script="once-503"), "retry": {"attempts": 2}},
        "exhausted": {**target(provider, script="always-500"), "retry": {"attempts": 1}},
        "failed": target(provider, script="always-400"),
        "not retried": {**target(provider, script="always-400"), "retry": {"attempts": 2}},
        "streamed": plain,
        "fallback": {"strategy": {"mode": "fallback"}, "targets": [broken, plain]},
        "fallback unused": {"strategy": {"mode": "fallback"}, "targets": [plain, small]},
        "loadbalance": {"strategy": {"mode": "loadbalance"}, "targets": [large, small]},
        "nested": {"strategy": {"mode": "loadbalance"}, "targets": [
            {"weight": 1, "strategy": {"mode": "fallback"}, "targets": [broken, plain]}]},
        "guarded": plain,
        "in short": plain,
    }


def question(name):
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": f"What is {name}?"}]}
    return {**body, "stream": True} if name == "streamed" else body


def run(gateway, server, provider):
    """Makes every call; gives status and headers of each answer by name."""
    answers = {}
    for name, config in configs(provider).items():
        hooks = {"after_request_hooks": hook(server)}
        if name == "guarded":
            # A hook before the request posts too, of a call that has no answer yet.
            hooks["before_request_hooks"] = hook(server)
        if name == "in short":
            (check,) = hooks["after_request_hooks"][0]["checks"]
            hooks = {"output_guardrails": [{check["id"]: check["parameters"], "deny": False}]}
        headers = {
            "x-portkey-config": json.dumps({**config, **hooks}), "x-portkey-trace-id": f"t-{name}",
            "x-portkey-metadata": json.dumps({"_user": "ann", "call": name}),
        }
        status, headers, text = gateway.call(question(name), headers)
        answers[name] = (status, headers)
        assert ("thing" in text) == (status == 200), text
    vector = {"model": "text-embedding-3-small", "input": "a text"}
    headers = {"x-portkey-config": json.dumps({**target(provider), "after_request_hooks": hook(server)})}
    assert gateway.call(vector, headers, "/v1/embeddings")[0] == 200
    return answers


def labels(status, headers, mode):
    """The Status of a call as the gateway's headers have it."""
    tries = int(headers["x-portkey-retry-attempt-count"])
    retry = "Retry Not Triggered" if tries == 0 else (
        f"Retry Success on {tries} Tries" if tries > 0 and status == 200 else "Retry Failed")
    assert headers["x-portkey-cache-status"] == "DISABLED"
    return ("Cache Disabled", retry, *MODES.get(mode, ("Fallback Disabled", "Loadbalancer Disabled")))


def mode_of(config):
    return config.get("strategy", {}).get("mode")


def assert_no_secret(server, words):
    """Neither in an answer nor in a byte of what is stored, before and after it is written to the table."""
    told = server.request("GET", "/v1/export").decode()
    files = [path for path in server.data.rglob("*") if path.is_file()]
    stored = b"".join(path.read_bytes() for path in files)
    for text in words:
        assert text not in told and text.encode() not in stored, text
    assert "********" in told


def test_every_answered_call_is_one_log(server, gateway, provider):
    answers = run(gateway, server, provider)
    assert {name: status for name, (status, _) in answers.items()} == {
        **dict.fromkeys(answers, 200), "exhausted": 500, "failed": 400, "not retried": 400}
    rows = server.sql(
        "select l.*, request.body as asked, response.body as answered, metadata['call'] as name, "
        f"{LABELS} from logs l join status s on l.id = s.id order by l.created_at")
    # The gateway tells its hooks of chats that were answered with 200, and of nothing else.
    assert [row["name"] for row in rows] == [name for name, (status, _) in answers.items() if status == 200]
    rows = {row["name"]: row for row in rows}
    known = configs(provider)
    for name, row in rows.items():
        status, headers = answers[name]
        assert (row["trace_id"], row["user_id"], row["source"]) == (f"t-{name}", "ann", "gateway-hook"), row
        assert (row["is_success"], row["response_status_code"], row["response_time"]) == (1, status, None), row
        assert (row["ai_org"], row["request_url"]) == ("openai", f"{provider.base}/chat/completions"), row
        # What the target was asked: its own parameters stand in the request.
        asked = json.loads(row["asked"])
        script = asked.pop("metadata", {}).get("script")
        assert {**asked, "model": "gpt-4o"} == question(name) and (script is None or name == "retried")
        assert row["last_used_option"] == headers["x-portkey-last-used-option-index"], row
        assert row["mode"] == (mode_of(known[name]) or "single").upper()
        if name == "streamed":
            assert (row["stream_mode"], row["total_units"], row["cost"], row["answered"]) == (True, None, None, None)
            continue
        assert [row[name] for name in ("req_units", "res_units", "total_units", "stream_mode")] == [9, 8, 17, False]
        # The targets have models of their own, at other prices.
        mini = name == "loadbalance" and row["last_used_option"] == "config.targets[1]"
        model, cost = ("gpt-4o-mini", (9 * 15 + 8 * 60) / 1e6) if mini else ("gpt-4o", (9 * 250 + 8 * 1000) / 1e6)
        assert (row["ai_model"], row["cost_currency"]) == (model, "USD"), row
        assert row["cost"] == pytest.approx(cost, rel=1e-12), row
        assert json.loads(row["answered"])["choices"][0]["message"]["content"] == ANSWER

    # The Status is what the headers say. How often the gateway tried is in its headers alone: where a retry was asked for,
    # the number is null, not 0.
    for name, row in rows.items():
        said = labels(*answers[name], mode_of(known[name]))
        found = tuple(row[label] for label in LABELS.split(", "))
        asked_to_retry = "retry" in known[name]
        assert row["retry_success_count"] == (None if asked_to_retry else 0), row
        assert found == (said if not asked_to_retry else (said[0], "Retry Not Triggered", *said[2:])), name
    assert answers["retried"][1]["x-portkey-retry-attempt-count"] == "1"

    assert_no_secret(server, [*SECRETS, server.key])


def test_the_official_sdk_calls_through_the_gateway(server, gateway, provider):
    config = {**target(provider), "after_request_hooks": hook(server)}
    client = Portkey(
        base_url=f"{gateway.url}/v1", api_key="gateway-planted-01", config=config, trace_id="t-1",
        metadata={"_user": "eve"})
    answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == ANSWER
    (row,) = server.sql("select ai_model, total_units, trace_id, user_id, runtime, sdk_version, mode from logs")
    assert (row["ai_model"], row["total_units"], row["trace_id"], row["user_id"]) == ("gpt-4o", 17, "t-1", "eve")
    assert (row["runtime"], row["sdk_version"], row["mode"]) == ("CPython", "portkey-2.3.4", "SINGLE")
    assert_no_secret(server, [*SECRETS, server.key, "gateway-planted-01"])


def test_the_webhook_changes_no_answer(server, gateway, provider):
    config = {**target(provider), "after_request_hooks": hook(server, "default.webhook"),
              "before_request_hooks": hook(server, "default.webhook")}
    headers = {"x-portkey-config": json.dumps(config), "x-portkey-metadata": json.dumps({"_user": "ann"})}
    status, _, text = gateway.call(question("plain"), headers)
    # A guardrail that gives no verdict has failed, and the gateway says 246 for that.
    assert status == 200, text
    results = json.loads(text)["hook_results"]
    both = results["before_request_hooks"] + results["after_request_hooks"]
    assert [hook["verdict"] for hook in both] == [True, True]
    (row,) = server.sql("select ai_model, total_units, cost, user_id, mode, retry_success_count, is_success from logs")
    assert (row["ai_model"], row["total_units"], row["user_id"], row["is_success"]) == ("gpt-4o", 17, "ann", 1)
    assert row["cost"] == pytest.approx(0.01025, rel=1e-12)
    assert (row["mode"], row["retry_success_count"]) == (None, None), "it sends no headers, so the config is not known"
    assert_nothing_planted(server)


def assert_nothing_planted(server):
    stored = b"".join(path.read_bytes() for path in server.data.rglob("*") if path.is_file())
    assert not any(text.encode() in stored for text in [*SECRETS, server.key])


def test_a_call_that_is_not_tracked_leaves_no_content(server, gateway, provider):
    config = {**target(provider), "after_request_hooks": hook(server)}
    headers = {"x-portkey-config": json.dumps(config), "x-portkey-debug": "false"}
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "xyzzy-planted"}]}
    assert gateway.call(body, headers)[0] == 200
    (row,) = server.sql("select total_units, do_not_track, request.body as asked, response.body as answered from logs")
    assert row == {"total_units": 17, "do_not_track": True, "asked": None, "answered": None}
    stored = b"".join(path.read_bytes() for path in server.data.rglob("*") if path.is_file())
    assert b"xyzzy-planted" not in stored and ANSWER.encode() not in stored


@pytest.fixture
def replaying(tmp_path, gateway, provider):
    """A server whose gateway is the real one; the operator says where the provider is, since no replay may name a host."""
    front = Front(gateway, {"x-portkey-custom-host": provider.base})
    server = Server(tmp_path, gateway_url=f"{front.url}/v1")
    server.front = front
    yield server
    server.stop()
    front.stop()


def replay(server, log, body, config, key):
    headers = {
        "x-portkey-api-key": server.key, "x-portkey-config": json.dumps(config), "authorization": f"Bearer {key}"}
    status, _, text = post(f"{server.base}/logs/{quote(log)}/replay", json.dumps({"body": body}).encode(), headers)
    assert status == 200, text
    return json.loads(text)


def test_replays_are_new_logs_that_say_what_the_headers_said(replaying, gateway, provider):
    server = replaying
    config = {**target(provider), "after_request_hooks": hook(server)}
    gateway.call(question("plain"), {"x-portkey-config": json.dumps(config), "x-portkey-trace-id": "t-old"})
    (old,) = server.sql("select id, span_id, trace_id from logs")
    shown = json.loads(server.request("GET", f"/v1/logs/{old['id']}/replay"))
    assert shown["active"] and shown["gateway"] and shown["request"]["body"] == question("plain"), shown

    provider.calls.clear()
    expected, ids, tried = Counter(), {}, configs(provider)
    for name in ["plain", "retried", "exhausted", "failed", "not retried", "fallback", "loadbalance", "nested"]:
        config = json.loads(json.dumps(tried[name]))
        for place in [config, *config.get("targets", []), *config.get("targets", [{}])[0].get("targets", [])]:
            place.pop("custom_host", None)
        edited = {**shown["request"]["body"], "messages": [{"role": "user", "content": f"And {name}?"}]}
        told = replay(server, old["id"], edited, config, SECRETS[1])
        # What gatelog tells is what the gateway said to it.
        sent, status, headers = server.front.calls[-1]
        assert (told["response"]["status"], told["replay_of"], told["trace_id"]) == (status, old["id"], "t-old"), told
        for header in ["retry-attempt-count", "last-used-option-index", "cache-status", "trace-id"]:
            assert told["response"]["headers"][f"x-portkey-{header}"] == headers[f"x-portkey-{header}"]
        assert server.key not in sent.values(), "gatelog's own key stays here"
        ids[told["log_id"]] = (name, status, headers, edited)
        expected.update(labels(status, headers, mode_of(config)))
    seen = {name: headers["x-portkey-retry-attempt-count"] for name, _, headers, _ in ids.values()}
    assert [seen[name] for name in ("plain", "retried", "exhausted", "not retried")] == ["0", "1", "-1", "0"]
    assert {key for _, _, key in provider.calls} <= {f"Bearer {secret}" for secret in SECRETS}

    names = ", ".join(f"'{log}'" for log in ids)
    rows = server.sql(
        f"select *, metadata['_replay_of'] as replayed, request.body as asked from logs where id in ({names})")
    assert len(rows) == len(ids) == 8
    for row in rows:
        name, status, headers, edited = ids[row["id"]]
        assert (row["replayed"], row["trace_id"], row["parent_span_id"]) == (old["id"], "t-old", old["span_id"]), row
        assert (row["response_status_code"], row["source"]) == (status, "replay"), row
        assert row["last_used_option"] == headers["x-portkey-last-used-option-index"], row
        assert str(row["retry_success_count"]) == headers["x-portkey-retry-attempt-count"], row
        assert json.loads(row["asked"]) == edited and row["response_time"] >= 0
        assert row["total_units"] == (17 if status == 200 else None), row
    assert next(row for row in rows if ids[row["id"]][0] == "retried")["response_time"] >= 1000, "the gateway waited"

    # Status counts of the run, as the report gives them, are those of the headers.
    report = json.loads(server.request("GET", "/v1/reports/status_counts?format=json"))
    found = Counter()
    for row in report:
        found[row["label"]] += row["records"]
    # And the one of the call that was replayed.
    expected.update(["Cache Disabled", "Retry Not Triggered", "Fallback Disabled", "Loadbalancer Disabled"])
    assert found == expected
    assert_no_secret(server, [*SECRETS, server.key])
