"""Every method of `feedback` of the official Portkey SDKs, unmodified, and what logs and analytics then show."""

import asyncio
import inspect
import json
import os
import subprocess
import uuid
from pathlib import Path
from urllib.parse import urlencode

import pytest
from portkey_ai import AsyncPortkey, Portkey
from portkey_ai.api_resources import exceptions
from portkey_ai.api_resources.apis import feedback

FRAME = {"time_of_generation_min": "2026-11-01", "time_of_generation_max": "2026-11-03"}


@pytest.fixture
def acme(server):
    """An organisation with three traces, of which the first has two logs."""
    server.key = server.key_of("acme")
    records = [
        {
            "id": f"r-{number}", "created_at": f"2026-11-01T10:00:0{number}Z", "trace_id": f"t-{max(number, 1)}",
            "ai_model": "gpt-4o" if number < 3 else "gpt-4o-mini", "is_success": 1, "metadata": {"team": "search"},
        }
        for number in range(4)]
    headers = {"x-portkey-api-key": server.key}
    assert json.loads(server.request("POST", "/v1/ingest", json.dumps(records).encode(), headers))["accepted"] == 4
    return server


def plain(answer):
    return json.loads(answer.model_dump_json())


def saved(answer, count, updated=False):
    assert answer["status"] == "success"
    assert answer["message"] == f"Feedback successfully {'updated' if updated else 'saved'}"
    ids = answer["feedback_ids"]
    assert len(ids) == len(set(ids)) == count and all(str(uuid.UUID(one)) == one for one in ids), answer
    return ids


def shown(server, log):
    """The log's feedback, by value, and its weighted average."""
    found = json.loads(server.request("GET", f"/v1/logs/{log}", headers={"x-portkey-api-key": server.key}))
    return sorted(one["value"] for one in found["feedback"]), found["weighted_feedback"]


def listed(server, **filters):
    found = server.request("GET", f"/v1/logs?{urlencode(filters)}", headers={"x-portkey-api-key": server.key})
    return {log["metrics"]["id"] if "metrics" in log else log["id"] for log in json.loads(found)["data"]}


def analytics(server, path):
    found = server.request("GET", f"/v1/analytics/{path}?{urlencode(FRAME)}", headers={"x-portkey-api-key": server.key})
    return json.loads(found)


def check(server):
    """After feedback of 5 (weight 0.5) and -10 (weight 0.25) on t-1, and of 10 on t-3."""
    weighted = (5 * 0.5 - 10 * 0.25) / 0.75
    for log in ("r-0", "r-1"):
        assert shown(server, log) == ([-10, 5], pytest.approx(weighted)), "a trace's feedback is on each of its logs"
    assert shown(server, "r-2") == ([], None)
    assert shown(server, "r-3") == ([10], 10)
    assert listed(server, weighted_feedback_min=-1, weighted_feedback_max=1) == {"r-0", "r-1"}
    assert listed(server, weighted_feedback_min=9.5) == {"r-3"}
    assert analytics(server, "graphs/feedbacks")["summary"] == {"total": 3}
    assert analytics(server, "graphs/feedbacks/weighted")["summary"]["avg"] == pytest.approx(10 / 1.75)
    scores = {point["score"]: point["total"] for point in analytics(server, "graphs/feedbacks/scores")["data_points"]}
    assert {score: total for score, total in scores.items() if total} == {-10: 1, 5: 1, 10: 1}
    models = {point["ai_model"]: point for point in analytics(server, "graphs/feedbacks/ai-models")["data_points"]}
    assert (models["gpt-4o"]["total"], models["gpt-4o-mini"]["total"]) == (2, 1)
    assert models["gpt-4o-mini"]["avg_weighted_feedback"] == 10
    (team,) = analytics(server, "groups/metadata/team")["data"]
    assert (team["requests"], team["requests_with_feedback"]) == (4, 3)


def rows(server):
    return server.sql(
        "select id, trace_id, value, weight, metadata['why'] as why, user_id, organisation_id from feedback "
        "order by value")


def test_python_sdk(acme):
    client = Portkey(api_key=acme.key, base_url=acme.base).feedback
    known = {name for name, _ in inspect.getmembers(feedback.Feedback, inspect.isfunction) if not name.startswith("_")}
    assert known == {"create", "bulk_create", "update"}

    (five,) = saved(plain(client.create(trace_id="t-1", value=1, weight=0.5, metadata={"why": "short", "_user": "ann"})), 1)
    several = [{"trace_id": "t-1", "value": "-10", "weight": 0.25}, {"trace_id": "t-3", "value": 10, "weight": 7}]
    saved(plain(client.bulk_create(feedbacks=several)), 2)
    # What an update leaves out stays.
    assert saved(plain(client.update(feedback_id=five, value=5)), 1, updated=True) == [five]
    check(acme)
    low, mid, high = rows(acme)
    assert (low["value"], low["weight"], low["trace_id"]) == (-10, 0.25, "t-1")
    assert mid == {
        "id": five, "trace_id": "t-1", "value": 5, "weight": 0.5, "why": "short", "user_id": "ann",
        "organisation_id": "acme",
    }
    assert (high["value"], high["weight"]) == (10, 1), "a weight out of range is 1"
    client.update(feedback_id=five, value=2.5, weight=1, metadata={"why": "long"})
    changed = rows(acme)[1]
    assert (changed["id"], changed["value"], changed["weight"], changed["why"]) == (five, 2.5, 1, "long")

    for wrong, code in [({"trace_id": "t-1"}, "032"), ({"value": 1}, "032"), ({"trace_id": "t-1", "value": 11}, "033")]:
        with pytest.raises(exceptions.BadRequestError, match=code):
            client.create(**wrong)
    with pytest.raises(exceptions.NotFoundError, match="Invalid Feedback Id passed. Nothing to update"):
        client.update(feedback_id=str(uuid.uuid4()), value=1)
    others = Portkey(api_key=acme.key_of("umbrella"), base_url=acme.base).feedback
    with pytest.raises(exceptions.NotFoundError):
        others.update(feedback_id=five, value=1)
    assert len(rows(acme)) == 3


def test_async_python_sdk(acme):
    async def drive():
        client = AsyncPortkey(api_key=acme.key, base_url=acme.base).feedback
        ids = saved(plain(await client.bulk_create(feedbacks=[{"trace_id": "t-1", "value": -10, "weight": 0.25}])), 1)
        ids += saved(plain(await client.create(trace_id="t-1", value=4, weight=0.5)), 1)
        saved(plain(await client.create(trace_id="t-3", value=10)), 1)
        # This class declares its answer of an update as the synchronous one does.
        await client.update(feedback_id=ids[1], value=5)

    asyncio.run(drive())
    check(acme)


def test_node_sdk(acme):
    script = Path(__file__).with_name("feedback.cjs")
    environment = {**os.environ, "GATELOG_BASE": acme.base, "GATELOG_KEY": acme.key}
    done = subprocess.run(["node", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told["methods"]) == {"create", "update"}
    (five,) = saved(told["one"], 1)
    # The SDK sends an array as an object of numbered keys, with the names that the caller wrote.
    saved(told["many"], 2)
    assert saved(told["updated"], 1, updated=True) == [five]
    # With `feedbackId` instead of `feedbackID` the SDK asks for `/feedback/undefined`.
    assert told["misspelt"] == 404
    check(acme)
    assert rows(acme)[1]["why"] == "short"
