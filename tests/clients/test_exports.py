"""Every method of `logs.exports` of the official Portkey SDKs, unmodified, and the file by its signed URL."""

import asyncio
import inspect
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest
from portkey_ai import AsyncPortkey, Portkey
from portkey_ai.api_resources import exceptions
from portkey_ai.api_resources.apis import logs

METHODS = {"create", "retrieve", "list", "update", "start", "cancel", "download"}
FIELDS = [
    "id", "trace_id", "created_at", "request", "response", "is_success", "ai_org", "ai_model", "req_units", "res_units",
    "total_units", "request_url", "cost", "cost_currency", "response_time", "response_status_code", "mode", "config",
    "prompt_slug", "metadata",
]
FRAME = {"time_of_generation_min": "2026-11-01", "time_of_generation_max": "2026-11-03"}
FULL = {
    **FRAME, "ai_org_model": "openai__gpt-4o, anthropic__claude-2.1", "total_units_min": 1, "cost_max": 5,
    "metadata": {"team": "search"},
}


def record(number):
    return {
        "id": f"r-{number}", "trace_id": f"t-{number}", "created_at": f"2026-11-0{number % 2 + 1}T10:00:{number:02}Z",
        "request": {"body": {"model": "gpt-4o", "n": number}}, "response": {"body": {"text": "é" * number}},
        "is_success": 1, "ai_org": "openai", "ai_model": "gpt-4o", "req_units": 6, "res_units": 4, "total_units": 10,
        "request_url": "https://api.openai.com/v1/chat/completions", "cost": 0.25, "cost_currency": "USD",
        "response_time": 100 + number, "response_status_code": 200, "mode": "SINGLE", "config": "pc-1",
        "prompt_slug": "pp-1",
        "metadata": {"team": "search", "_user": f"u-{number}"}, "workspace_slug": "search",
    }


RECORDS = [record(number) for number in range(12)]


@pytest.fixture
def acme(server):
    """A server with an organisation, its key, and records of it and of another one."""
    server.key = server.key_of("acme", workspaces=["search"])
    headers = {"x-portkey-api-key": server.key}
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    assert json.loads(server.request("POST", "/v1/ingest", lines.encode(), headers))["accepted"] == 12
    other = {"id": "other", "created_at": "2026-11-01T12:00:00Z", "organisation_id": "umbrella", "ai_model": "gpt-4o"}
    assert json.loads(server.request("POST", "/v1/ingest", json.dumps(other).encode()))["accepted"] == 1
    return server


def fill(server, count):
    """Adds so many large records that exporting them takes a while."""
    text = "what is it? " * 700
    for start in range(0, count, 500):
        lines = "".join(
            json.dumps({"created_at": "2026-11-02T12:00:00Z", "request": {"body": {"text": f"{text}{number}"}}}) + "\n"
            for number in range(start, start + 500))
        headers = {"x-portkey-api-key": server.key}
        assert json.loads(server.request("POST", "/v1/ingest", lines.encode(), headers))["accepted"] == 500


def plain(answer):
    return json.loads(answer.model_dump_json())


def is_uuid(text):
    return str(uuid.UUID(text)) == text


def check_item(item, **expected):
    names = [
        "id", "organisation_id", "filters", "requested_data", "status", "description", "created_at", "last_updated_at",
        "created_by", "workspace_id", "object",
    ]
    assert set(names) <= set(item), item
    assert item["object"] == "export" and item["organisation_id"] == "acme" and item["created_by"], item
    assert item["created_at"] <= item["last_updated_at"] and item["created_at"][10] == "T"
    assert {name: item[name] for name in expected} == expected


def check_lines(lines):
    in_order = sorted(RECORDS, key=lambda record: record["created_at"])
    assert [line["id"] for line in lines] == [record["id"] for record in in_order]
    for line in lines:
        sent = next(record for record in RECORDS if record["id"] == line["id"])
        assert list(line) == FIELDS
        assert line["created_at"][:19] == sent["created_at"][:19]
        assert (line["request"]["body"], line["response"]["body"]) == (sent["request"]["body"], sent["response"]["body"])
        same = [name for name in FIELDS if name not in ("created_at", "request", "response")]
        assert {name: line[name] for name in same} == {name: sent[name] for name in same}


def fetch(url, **headers):
    """The URL alone opens the file: no key goes with it."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        return answer.status, answer.headers, answer.read()


def check_file(told):
    assert told["signed_url"] == told["url"]
    status, headers, whole = fetch(told["signed_url"])
    assert status == 200 and headers["accept-ranges"] == "bytes" and int(headers["content-length"]) == len(whole)
    assert whole.endswith(b"\n") and "attachment" in headers["content-disposition"]
    # A download that broke off goes on where it ended.
    status, headers, rest = fetch(told["signed_url"], Range="bytes=100-", **{"If-Range": headers["etag"]})
    assert (status, rest) == (206, whole[100:])
    assert headers["content-range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
    for forged in [told["signed_url"][:-2] + "xx", told["signed_url"].split("?")[0][:-2] + "xx"]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(forged)
        assert refused.value.code in (401, 403, 404)
    return [json.loads(line) for line in whole.decode().splitlines()]


def ended(retrieve):
    deadline = time.monotonic() + 60
    while (item := plain(retrieve()))["status"] == "in_progress":
        assert time.monotonic() < deadline, item
        time.sleep(0.05)
    return item


def test_python_sdk(acme):
    exports = Portkey(api_key=acme.key, base_url=acme.base).logs.exports
    known = {name for name, _ in inspect.getmembers(logs.Exports, inspect.isfunction) if not name.startswith("_")}
    assert known == METHODS

    created = plain(exports.create(filters=FULL, requested_data=FIELDS, description="All of it"))
    assert is_uuid(created["id"]) and (created["total"], created["object"]) == (12, "export")
    export = {"export_id": created["id"]}
    check_item(
        plain(exports.retrieve(**export)), id=created["id"], status="draft", description="All of it", filters=FULL,
        requested_data=FIELDS, workspace_id=None)

    # Without `workspace_id` the SDK asks for `/logs/exports?`.
    listed = plain(exports.list())
    assert (listed["object"], listed["total"], [item["id"] for item in listed["data"]]) == ("list", 1, [created["id"]])
    assert plain(exports.list(workspace_id="search"))["total"] == 0

    narrower = {**FULL, "trace_id": "t-3, t-4"}
    updated = plain(exports.update(**export, filters=narrower, requested_data=["id"]))
    assert updated == {"id": created["id"], "total": 2, "object": "export"}
    check_item(plain(exports.retrieve(**export)), status="draft", filters=narrower, requested_data=["id"])
    exports.update(**export, filters=FULL, requested_data=FIELDS)

    with pytest.raises(exceptions.ConflictError, match="draft"):
        exports.cancel(**export)
    with pytest.raises(exceptions.ConflictError):
        exports.download(**export)
    started = plain(exports.start(**export))
    assert started["object"] == "export" and started["message"]
    check_item(ended(lambda: exports.retrieve(**export)), status="success", total_records=12)
    check_lines(check_file(plain(exports.download(**export))))

    with pytest.raises(exceptions.NotFoundError):
        exports.retrieve(export_id=str(uuid.uuid4()))
    with pytest.raises(exceptions.BadRequestError, match="nothing"):
        exports.create(filters=FRAME, requested_data=["nothing"])
    of_others = Portkey(api_key=acme.key_of("umbrella"), base_url=acme.base).logs.exports
    assert plain(of_others.list())["total"] == 0
    with pytest.raises(exceptions.NotFoundError):
        of_others.download(**export)


def test_python_sdk_cancels(acme):
    exports = Portkey(api_key=acme.key, base_url=acme.base).logs.exports
    fill(acme, 3000)
    # Jobs wait for their turn, so the last one cannot have ended yet.
    ids = [plain(exports.create(filters=FRAME, requested_data=["id", "request"]))["id"] for _ in range(6)]
    for export in ids:
        exports.start(export_id=export)
    cancelled = plain(exports.cancel(export_id=ids[-1]))
    assert cancelled["object"] == "export" and cancelled["message"]
    check_item(plain(exports.retrieve(export_id=ids[-1])), status="stopped", total_records=3012)
    others = [ended(lambda: exports.retrieve(export_id=export)) for export in ids[:-1]]
    assert {item["status"] for item in others} == {"success"}, [item["error"] for item in others]
    check_item(plain(exports.retrieve(export_id=ids[-1])), status="stopped")
    exports.start(export_id=ids[-1])
    assert ended(lambda: exports.retrieve(export_id=ids[-1]))["status"] == "success"
    _, _, whole = fetch(plain(exports.download(export_id=ids[-1]))["signed_url"])
    assert whole.count(b"\n") == 3012


def test_the_sdks_exports_survive_a_restart(acme, tmp_path):
    exports = Portkey(api_key=acme.key, base_url=acme.base).logs.exports
    made = plain(exports.create(filters=FRAME, workspace_id="search"))
    assert made["total"] == 12
    exports.start(export_id=made["id"])
    acme.stop()
    again = type(acme)(tmp_path)
    try:
        exports = Portkey(api_key=acme.key, base_url=again.base).logs.exports
        item = ended(lambda: exports.retrieve(export_id=made["id"]))
        check_item(item, status="success", workspace_id="search")
        # Without `requested_data` it is everything: Portkey's names and the columns.
        assert set(FIELDS) - {"request", "response"} <= set(item["requested_data"])
        lines = check_file(plain(exports.download(export_id=made["id"])))
        assert len(lines) == 12 and {"span_id", "retry_success_count"} <= set(lines[0])
    finally:
        again.stop()


def test_async_python_sdk(acme):
    async def drive():
        exports = AsyncPortkey(api_key=acme.key, base_url=acme.base).logs.exports
        made = plain(await exports.create(filters=FRAME, requested_data=FIELDS))
        await exports.update(export_id=made["id"], filters=FULL)
        assert plain(await exports.list(workspace_id="nowhere"))["total"] == 0
        await exports.start(export_id=made["id"])
        while plain(await exports.retrieve(export_id=made["id"]))["status"] == "in_progress":
            await asyncio.sleep(0.05)
        return plain(await exports.download(export_id=made["id"]))

    check_lines(check_file(asyncio.run(drive())))


def test_node_sdk(acme):
    fill(acme, 3000)
    script = Path(__file__).with_name("exports.cjs")
    asked = json.dumps({"filters": FULL, "narrower": {**FULL, "trace_id": "t-3"}, "fields": FIELDS, "large": FRAME})
    environment = {**os.environ, "GATELOG_BASE": acme.base, "GATELOG_KEY": acme.key, "ASKED": asked}
    done = subprocess.run(["node", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told["methods"]) == METHODS
    assert is_uuid(told["created"]["id"]) and (told["created"]["total"], told["created"]["object"]) == (12, "export")
    check_item(told["draft"], status="draft", description="All of it", filters=FULL, requested_data=FIELDS)
    assert (told["listed"]["total"], told["of_workspace"]["total"], told["of_another"]["total"]) == (2, 1, 0)
    assert told["updated"] == {"id": told["created"]["id"], "total": 1, "object": "export"}
    check_item(told["ended"], status="success", total_records=12)
    assert told["started"]["object"] == told["cancelled"]["object"] == "export"
    check_item(told["stopped"], status="stopped")
    assert told["missing"] == 404
    check_lines(check_file(told["download"]))
