"""schemathesis calls every operation of `/openapi.json` with what its document allows, and with what it does not.

Whatever comes back must be no 5xx, have a status, a content type, headers and a body that the document has, refuse what it
says is wrong, and ask for a key where it says so. What the test of a server may destroy, it destroys: each run has its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import schemathesis
from conftest import Server

# What schemathesis is told; each exception says why it is one.
CONFIG = r"""
seed = 20261121
# One at a time, so that a seed gives the same run.
workers = 1
continue-on-failure = true
# A debug build on a busy machine takes its time.
request-timeout = 60
generation.max-examples = EXAMPLES
generation.database = "none"
phases.coverage.enabled = COVERAGE
warnings = false

# What a schema allows may yet be refused for what stands beside it or is there already: a frame whose end is before its
# start, an id that is taken, a cursor of another list, SQL. That examples are taken, tests/it/http/openapi.rs checks.
[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 414, 415, 422]

# Each value of each filter is varied in the summary of the cache, each parameter of a report in one of them. The others have
# the same.
[[operations]]
include-operation-id-regex = "^(listLogs$|graph_|group_|logGroups|report_(?!status$))"
phases.coverage.enabled = false

# Planning a statement with all of the filters takes a debug build a tenth of a second: what is right comes from fuzzing.
[[operations]]
include-operation-id = "cacheSummary"
phases.coverage.generation.mode = "negative"

[[operations]]
include-operation-id = "listLogs"
generation.max-examples = 20

# Clients must not break because of a log: whatever the body is, the answer is 200 and counts what was no record.
[[operations]]
include-operation-id-regex = "^(insertLog|ingestLitellm|ingestGatewayHook)$"
checks.negative_data_rejection.enabled = false

# One good record is enough for 200; the receipt names the others.
[[operations]]
include-operation-id = "ingest"
checks.negative_data_rejection.enabled = false

# Logs and spans come by one path: the field that is not there for the request is not looked at.
[[operations]]
include-operation-id = "exportEither"
checks.negative_data_rejection.enabled = false

# Fields of the body win over those of the query string, which are not looked at then.
[[operations]]
include-operation-id = "sqlPost"
checks.negative_data_rejection.enabled = false
"""


def as_it_is(context, value):
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def protobuf(context, value):
    # An export of nothing, or bytes that are none.
    return b"" if isinstance(value, dict) else json.dumps(value).encode()


schemathesis.serializer("application/x-ndjson")(as_it_is)
schemathesis.serializer("application/sql")(as_it_is)
schemathesis.serializer("application/x-protobuf")(protobuf)


def fill(server):
    """An organisation with a log, feedback, and a key of its own."""
    def call(path, body):
        return json.loads(server.request("POST", path, json.dumps(body).encode()))

    call("/v1/admin/organisations", {"id": "acme", "plan": "production", "workspaces": ["search"]})
    record = {"id": "one", "organisation_id": "acme", "trace_id": "t-1", "ai_org": "openai", "ai_model": "gpt-4o", "cost": 0.5,
              "request_url": "https://api.openai.com/v1/chat/completions", "request": {"body": {"model": "gpt-4o"}}}
    call("/v1/ingest", [record, {**record, "id": "two", "response_status_code": 429}])
    call("/v1/feedback", {"log_id": "one", "value": 5})
    scopes = ["logs.write", "logs.view", "logs.read", "logs.export", "analytics.view"]
    return call("/v1/admin/keys", {"organisation": "acme", "scopes": scopes})["key"]


# Values are varied by the operator alone: what a key sees does not change what a parameter may be.
@pytest.mark.parametrize("who, examples, coverage", [("an organisation", 2, "false"), ("the operator", 3, "true")])
def test_schemathesis(tmp_path, who, examples, coverage):
    server = Server(tmp_path, share_links="true")
    try:
        own = fill(server)
        (tmp_path / "schemathesis.toml").write_text(CONFIG.replace("EXAMPLES", str(examples)).replace("COVERAGE", coverage))
        run = subprocess.run(
            [Path(sys.executable).parent / "schemathesis", "run", f"{server.url}/openapi.json", "--no-color",
             "--header", f"x-portkey-api-key: {own if who == 'an organisation' else server.key}"],
            cwd=tmp_path, capture_output=True, text=True, timeout=600,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "test_openapi", "PYTHONPATH": str(Path(__file__).parent)})
        assert run.returncode == 0, run.stdout[:20_000] + run.stdout[-20_000:] + run.stderr[-5_000:]
    finally:
        server.stop()
