"""The official Portkey SDKs insert logs, unmodified."""

import os
import subprocess
from pathlib import Path

from portkey_ai import Portkey

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


def test_node_sdk_inserts_a_log(server):
    script = Path(__file__).with_name("insert.cjs")
    environment = {**os.environ, "GATELOG_BASE": server.base, "GATELOG_KEY": server.key}
    done = subprocess.run(["node", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    row = the_one(server)
    assert (row["ai_model"], row["total_units"], row["trace_id"]) == ("gpt-4o", 13, "t-2")
