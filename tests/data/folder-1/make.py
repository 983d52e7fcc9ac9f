"""Makes `data.tar.gz`, a data folder of one version of gatelog, and `answers.jsonl`, what that version answers from it; and
`bucket.tar.gz`, the objects of a bucket and the log of its node.

    GATELOG_BIN=… GATELOG_TEST_SEAWEEDFS=… python tests/data/folder-1/make.py

The folder and the log are left by `kill -9`, so a part of it lies in the write-ahead log only. `answers.jsonl` says when it was
recorded, and then has one request a line with the key that asks, the status and the answer; those with `is_change` come last. All
were written by commit b357fae. They stay as they are: a build of today has to read them. A later version gets a folder beside this one.
"""

import contextlib
import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow.fs

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "clients"))

from conftest import BINARY, KEY, Server

QUIET = {"flush_seconds": 86_400, "refresh_seconds": 1, "threads": 2, "share_links": "true",
         **{f"{job}_schedule": "never" for job in ["expire", "compact", "vacuum", "checkpoint", "clean_log"]}}
PLANS = """
[plans.tiny]
included = 3
over = "stop"
"""


class Folder:
    """The data folder, with a server in it at times."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "gatelog.toml").write_text(PLANS)
        self.server = None

    def start(self, **settings):
        self.server = Server(self.folder, **QUIET | settings)

    def stop(self):
        self.server.stop()

    def kill(self):
        self.server.process.kill()
        self.server.process.wait()

    def send(self, method, path, body=None, key=KEY):
        """The status and the answer, which is JSON, lines of JSON or a text."""
        headers = {"content-type": "application/json"} if isinstance(body, dict | list) else {}
        headers |= {"x-portkey-api-key": key} if key else {}
        body = json.dumps(body) if isinstance(body, dict | list) else body
        request = urllib.request.Request(self.server.url + path, body and body.encode(), headers, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, read(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.code, read(error.read().decode())

    def do(self, *args, **named):
        status, answer = self.send(*args, **named)
        assert status in (200, 201, 202), (args, status, answer)
        assert not (isinstance(answer, dict) and answer.get("rejected")), (args, answer)
        return answer

    def maintain(self, *jobs):
        environment = {name: value for name, value in os.environ.items() if name != "GATELOG_BIN"}
        for job in jobs:
            subprocess.run([BINARY.resolve(), "--quiet", "--data", self.folder / "data", "maintain", job], check=True,
                           cwd=self.folder, env=environment)


def read(text):
    for parse in [json.loads, lambda text: [json.loads(line) for line in text.splitlines()]]:
        try:
            return parse(text)
        except ValueError:
            pass
    return text


def record(organisation, place, **fields):
    workspace = ["search", "chat"][place % 2]
    return {
        "id": f"{organisation}-{place:02}", "organisation_id": organisation, "workspace_slug": workspace,
        "created_at": f"2026-11-{20 + place % 3}T10:{place:02}:00.000Z", "ai_org": "openai", "ai_model": "gpt-4o",
        "trace_id": f"t-{organisation}-{place // 2}", "req_units": 10 + place, "res_units": 5, "total_units": 15 + place,
        "cost": 0.25 * place, "response_status_code": 200 if place % 5 else 429, "response_time": 100 + place,
        "cache_status": "HIT" if place % 4 == 0 else "MISS",
        "metadata": {"_user": ["ana", "bo", "cy"][place % 3], "team": "search"},
        "request": {"body": {"model": "gpt-4o", "messages": [{"role": "user", "content": f"Question {place} of {organisation}"}]}},
        "response": {"body": {"choices": [{"message": {"role": "assistant", "content": f"Answer {place}: été, 日本"}}]}},
    } | fields


def lines(records):
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()


def ingest(folder, records):
    folder.do("POST", "/v1/ingest", lines(records).decode())


def figures(call):
    """One half of a call of Portkey's gateway 2.0."""
    row = {"id": call, "organisation_id": "acme", "workspace_slug": "search", "created_at": "2026-11-23 08:15:01.370",
           "is_success": True, "ai_org": "openai", "ai_model": "gpt-4o", "req_units": 13, "res_units": 21, "total_units": 34,
           "cost": 0.5, "cost_currency": "USD", "response_status_code": 200, "response_time": 61, "trace_id": f"t-{call}",
           "metadata.key": ["_user"], "metadata.value": ["ines"]}
    return "POST", "/v1/analytics/enterprise/analytics", {"table": "generations", "data": [row]}


def content(call):
    """The other half."""
    body = {"logObject": {
        "_id": call, "organisation_id": "acme", "created_at": "2026-11-23T08:15:01Z",
        "request": {"url": "http://127.0.0.1:9/v1/chat/completions", "method": "POST",
                    "portkeyHeaders": {"x-portkey-trace-id": f"t-{call}"}, "headers": {"accept": "*/*"},
                    "body": {"model": "gpt-4o", "messages": [{"role": "user", "content": f"Content of {call}"}]}},
        "response": {"status": 200, "headers": {}, "body": {"choices": [{"message": {"content": "Forty metres."}}]},
                     "responseTime": 61},
        "metrics": {"id": call, "organisation_id": "acme", "workspace_slug": "search"}}, "logOptions": {"organisationId": "acme"}}
    return "POST", "/v1/logs/enterprise/logs?organisation_id=acme", body


def event(number, name, text):
    """A log event of OpenTelemetry, which is a piece of a record."""
    body = {"kvlistValue": {"values": [{"key": "content", "value": {"stringValue": text}}]}}
    entry = {"traceId": f"{number:032x}", "spanId": f"{number:016x}", "eventName": name, "body": body,
             "timeUnixNano": "1795278400100000000"}
    return "POST", "/v1/logs/otel/v1/logs", {"resourceLogs": [{"scopeLogs": [{"logRecords": [entry]}]}]}


def span(number):
    """The end of such a record."""
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
    entry = {"traceId": f"{number:032x}", "spanId": f"{number:016x}", "name": "chat gpt-4o",
             "startTimeUnixNano": "1795278400000000000", "endTimeUnixNano": "1795278400250000000",
             "attributes": [{"key": name, "value": {"stringValue": value}} for name, value in attributes.items()]}
    return "POST", "/v1/logs/otel/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": [entry]}]}]}


def feedback(folder, organisation, trace, value, **fields):
    said = {"organisation_id": organisation, "trace_id": trace, "value": value} | fields
    return folder.do("POST", "/v1/feedback", said)["feedback_ids"][0]


def export(folder, key):
    """A job with its file, and the link to it."""
    frame = {"time_of_generation_min": "2026-11-20T00:00:00Z", "time_of_generation_max": "2026-11-22T00:00:00Z"}
    wanted = {"filters": frame, "requested_data": ["id", "created_at", "cost", "request", "response"]}
    job = folder.do("POST", "/v1/logs/exports", wanted, key)["id"]
    folder.do("POST", f"/v1/logs/exports/{job}/start", {}, key)
    deadline = time.monotonic() + 60
    while folder.do("GET", f"/v1/logs/exports/{job}", key=key)["status"] != "success":
        assert time.monotonic() < deadline, "the export does not end"
        time.sleep(0.1)
    return job, folder.do("GET", f"/v1/logs/exports/{job}/download", key=key)["signed_url"]


def fill(folder):
    """Fills the folder; gives the keys, and what the requests of `answers.jsonl` name."""
    folder.start(join_seconds=1)
    admin = lambda what, body: folder.do("POST", f"/v1/admin/{what}", body)
    admin("organisations", {"id": "acme", "plan": "production", "name": "Acme Ltd", "workspaces": ["search", "chat"]})
    admin("organisations", {"id": "globex", "plan": "enterprise", "retention_days": 0, "workspaces": ["search", "chat"]})
    admin("organisations", {"id": "tiny", "plan": "tiny"})
    made = {
        "acme": {"organisation": "acme", "scopes": ["admin"], "name": "all of Acme"},
        "acme search": {"organisation": "acme", "workspace": "search", "scopes": ["logs.view", "analytics.view"]},
        "globex": {"organisation": "globex", "scopes": ["logs.write", "logs.view", "logs.read", "logs.export"],
                   "expires_at": "2036-01-01T00:00:00Z"},
        "revoked": {"organisation": "acme", "scopes": ["admin"]},
    }
    made = {name: admin("keys", body) for name, body in made.items()}
    keys = {name: key["key"] for name, key in made.items()}
    folder.do("DELETE", f"/v1/admin/keys/{made['revoked']['id']}")
    admin("archived-providers", {"organisation": "globex", "provider": "openai-old"})
    # Files that are merged below.
    ingest(folder, [record("acme", place) for place in range(8)])
    first = feedback(folder, "acme", "t-acme-0", 5, weight=0.5, metadata={"_user": "ana"})
    feedback(folder, "globex", "t-globex-1", -3)
    folder.stop()
    folder.start(join_seconds=1)
    ingest(folder, [record("globex", place) for place in range(8)] + [record("acme", 8, metadata={"_user": "gone"})])
    ingest(folder, [record("tiny", place) for place in range(5)])
    admin("erasures", {"organisation": "acme", "user": "gone"})
    # Parts that are stored alone, and completed below.
    folder.do(*figures("late-content"))
    folder.do(*content("late-figures"))
    folder.do(*event(7, "gen_ai.user.message", "A question to be answered late"), key=keys["acme"])
    time.sleep(1.5)
    folder.stop()
    folder.maintain("expire", "compact", "checkpoint")
    # A file that is not merged.
    folder.start()
    ingest(folder, [record("acme", place) for place in range(10, 14)])
    folder.do("PUT", f"/v1/feedback/{first}", {"value": -2})
    second = feedback(folder, "acme", "t-acme-5", 8)
    erased_later = feedback(folder, "acme", "t-acme-6", 1)
    folder.stop()

    folder.start()
    folder.do("PATCH", "/v1/admin/organisations/acme",
              {"plan": "enterprise", "retention_days": 3650, "denied_fields": ["request_url"]})
    # It flushes, so it comes before what is to stay in the log. Upkeep has not ended it.
    admin("erasures", {"organisation": "acme", "ids": ["acme-11", erased_later]})
    time.sleep(2)
    folder.do("PUT", "/v1/logs/filters/dear", {"query": "cost_min=1&ai_model=gpt-4o"}, keys["acme"])
    shared = folder.do("POST", "/v1/logs/acme-02/share", {}, keys["acme"])
    job, download = export(folder, keys["globex"])
    folder.do("POST", "/v1/logs/exports", {"filters": {"cost_min": 1}, "requested_data": ["id"]}, keys["acme"])
    # From here on in the log only, a frame of each kind.
    ingest(folder, [record("acme", place) for place in range(20, 23)] + [record("globex", 20)])
    folder.do("PUT", f"/v1/feedback/{second}", {"value": 9})
    feedback(folder, "acme", "t-acme-10", 4)
    folder.do(*figures("wait-content"))
    folder.do(*content("wait-figures"))
    folder.do(*event(8, "gen_ai.user.message", "A question that waits"), key=keys["acme"])
    folder.do(*content("late-content"))
    folder.do(*figures("late-figures"))
    folder.do(*event(7, "gen_ai.choice", "A late answer"), key=keys["acme"])
    ingest(folder, [record("tiny", 9)])
    # Refused: listed, and written within seconds.
    folder.send("POST", "/v1/ingest", {"organisation_id": "acme", "cost": "much"})
    time.sleep(8)
    folder.kill()
    places = {name: "/" + url.split("/", 3)[3] for name, url in [("shared", shared["url"]), ("download", download)]}
    return keys, {"feedback": first, "job": job, **places}


def questions(names):
    """Requests that only read: the key, the path, and the statement of `/v1/sql`."""
    sql = lambda key, text: (key, "POST", "/v1/sql?format=json", text)
    get = lambda key, path: (key, "GET", path, None)
    frame = "time_of_generation_min=2026-11-01&time_of_generation_max=2026-12-31"
    yield sql("operator", "select * from logs order by organisation_id, id")
    yield sql("acme search", "select * from logs order by id")
    yield sql("globex", "select id, request['body'], response['body'], metadata from logs order by id")
    yield sql("operator", "select count(*) as n, sum(total_units) as units, sum(cost) as cost from logs")
    yield sql("operator", "select id from logs where request['body'] ->> 'model' = 'gpt-4o' order by id")
    for table in ["feedback", "feedback_history"]:
        yield sql("operator", f"select * from {table} order by id, updated_at")
        yield sql("globex", f"select * from {table} order by id, updated_at")
    for table in ["organisations", "plans", "usage"]:
        yield sql("operator", f"select * from {table} order by 1, 2")
        yield sql("acme", f"select * from {table} order by 1, 2")
    yield sql("operator", "select table_name, sum(rows) as n, sum(files) as files from partitions group by 1 order by 1")
    for path in ["organisations", "organisations/acme", "keys", "erasures", "plans", "archived-providers"]:
        yield get("operator", f"/v1/admin/{path}")
    yield get("acme", "/v1/admin/keys")
    yield get("revoked", "/v1/logs")
    yield get("acme", "/v1/logs?page_size=5&include_total=true")
    yield get("acme", "/v1/logs?saved=dear&page_size=100")
    yield get("acme", "/v1/logs/filters")
    yield get("acme", "/v1/logs/acme-02")
    yield get("globex", "/v1/logs/acme-02")
    yield get("acme", "/v1/logs/acme-11")
    yield get("acme", "/v1/shares")
    yield get(None, names["shared"])
    yield get("globex", "/v1/logs/exports")
    yield get("acme", "/v1/logs/exports")
    yield get("globex", f"/v1/logs/exports/{names['job']}")
    yield get(None, names["download"])
    yield get("acme", "/v1/logs/exports/field-restrictions")
    yield get("acme", "/v1/feedback?page_size=100")
    yield get("acme", f"/v1/feedback/{names['feedback']}")
    yield get("acme", f"/v1/analytics/graphs/requests?{frame}")
    yield get("acme", f"/v1/analytics/graphs/feedbacks/scores?{frame}")
    yield get("acme", f"/v1/analytics/groups/users?{frame}")
    yield get("operator", "/v1/reports/status_counts?format=json")
    yield get("acme", "/v1/refusals")
    yield get("acme", "/v1/export?columns=id,cost,request.body")


def changes(names):
    """Requests that change something, and those that look at it."""
    sql = lambda text: ("operator", "POST", "/v1/sql?format=json", text)
    waited = "select * from logs where id like 'wait-%' or id like 'late-%' or ai_model is null or trace_id like '0000%' order by id"
    # What waits in the log meets the rest.
    yield ("operator", *content("wait-content"))
    yield ("operator", *figures("wait-figures"))
    yield ("acme", *event(8, "gen_ai.choice", "An answer that was waited for"))
    yield ("acme", *span(8))
    yield sql(waited)
    # Records that are known, in a file and in the log, add nothing.
    for place in [1, 20]:
        yield "operator", "POST", "/v1/ingest", json.dumps(record("acme", place))
    yield "operator", "POST", "/v1/ingest", json.dumps(record("tiny", 10))
    yield "operator", "POST", "/v1/ingest", json.dumps(record("globex", 21))
    yield "acme", "PUT", f"/v1/feedback/{names['feedback']}", {"value": 7}
    yield sql("select value, weight, metadata from feedback where trace_id = 't-acme-0'")
    yield sql("select * from usage order by 1, 2")
    yield sql("select organisation_id, count(*) as n from logs group by 1 order by 1")


class Recorder:
    """Asks, and notes down what is answered."""

    def __init__(self, folder, keys):
        self.folder, self.keys = folder, keys | {"operator": KEY, None: None}
        self.lines = [json.dumps({"recorded_at": datetime.datetime.now(datetime.UTC).isoformat()})]

    def ask(self, is_change, key, method, path, body):
        status, answer = self.folder.send(method, path, body, self.keys[key])
        is_json = isinstance(body, dict)
        line = {"key": self.keys[key], "method": method, "path": path, "body": json.dumps(body) if is_json else body,
                "is_json": is_json, "is_change": is_change, "status": status, "answer": answer}
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        self.lines.append(text.replace(self.folder.server.url, "http://HOST"))


@contextlib.contextmanager
def s3(folder):
    """SeaweedFS, by its address and the settings of a server on it."""
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(8)]
    ports = [one.getsockname()[1] for one in free]
    for one in free:
        one.close()
    named = zip(["master", "volume", "filer", "s3"], ports[::2], ports[1::2], strict=True)
    identity = {"name": "test", "credentials": [{"accessKey": "test", "secretKey": "secret"}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    process = subprocess.Popen(
        [os.environ["GATELOG_TEST_SEAWEEDFS"], "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}",
         f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-volume.max=0",
         "-master.volumeSizeLimitMB=64", "-master.telemetry=false"]
        + [part for name, port, grpc in named for part in (f"-{name}.port={port}", f"-{name}.port.grpc={grpc}")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{ports[6]}"
    finally:
        process.kill()
        process.wait()


def node(folder, address, **settings):
    """A server on the bucket."""
    keys = {"s3_endpoint": f"http://{address}", "s3_access_key_id": "test", "s3_secret_access_key": "secret"}
    return Server(folder, data="s3://bucket/state", wal=folder / "wal", **QUIET | keys | settings)


def fill_bucket(folder, address):
    """Fills the bucket. Its node is killed while it holds its log and the lease of upkeep."""
    files = pyarrow.fs.S3FileSystem(access_key="test", secret_key="secret", endpoint_override=address, scheme="http",
                                    region="us-east-1", allow_bucket_creation=True)
    deadline = time.monotonic() + 60
    while True:
        try:
            files.create_dir("bucket")
            break
        except OSError:
            assert time.monotonic() < deadline, "no bucket can be made"
            time.sleep(0.5)
    server = node(folder, address)
    server.admin("organisations", {"id": "acme", "plan": "enterprise", "workspaces": ["search", "chat"]})
    server.request("POST", "/v1/ingest", lines(record("acme", place) for place in range(4)))
    server.stop()
    server = node(folder, address, checkpoint_schedule="1h")
    server.request("POST", "/v1/ingest", lines(record("acme", place) for place in range(4, 6)))
    time.sleep(5)
    server.process.kill()
    server.process.wait()
    for found in files.get_file_info(pyarrow.fs.FileSelector("bucket", recursive=True)):
        if found.type == pyarrow.fs.FileType.File:
            path = folder / found.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files.open_input_file(found.path).readall())


def make_bucket():
    with tempfile.TemporaryDirectory() as weed, tempfile.TemporaryDirectory() as made:
        with s3(Path(weed)) as address:
            fill_bucket(Path(made), address)
        with tarfile.open(HERE / "bucket.tar.gz", "w:gz") as archive:
            archive.add(Path(made) / "bucket", "bucket")
            archive.add(Path(made) / "wal", "wal", filter=lambda entry: None if "cache" in entry.name else entry)


def main():
    make_bucket()
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as copied:
        folder = Folder(Path(made))
        keys, names = fill(folder)
        shutil.copytree(folder.folder / "data", Path(copied) / "data")
        with tarfile.open(HERE / "data.tar.gz", "w:gz") as archive:
            archive.add(folder.folder / "data", "data")
        copy = Folder(Path(copied))
        copy.start()
        recorder = Recorder(copy, keys)
        for question in questions(names):
            recorder.ask(False, *question)
        for change in changes(names):
            recorder.ask(True, *change)
        copy.stop()
        text = "\n".join(recorder.lines) + "\n"
        (HERE / "answers.jsonl").write_text(text)


if __name__ == "__main__":
    main()
