"""The server in little memory: nothing that many clients do at once gets it killed."""

import importlib.machinery
import importlib.util
import json
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
from conftest import BINARY, ROOT

BENCH = ROOT / "benches/memory"
# Queries have 37 MiB where `memory` is 128 MiB. The rest is for the allocator.
MOST_MB = 96


def bench():
    loader = importlib.machinery.SourceFileLoader("memory_bench", str(BENCH))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("memory_bench", loader))
    loader.exec_module(module)
    return module


def test_writers_statements_and_exports_pass_in_a_container_of_256_mb(tmp_path):
    told = subprocess.run(
        [sys.executable, BENCH, "--limits", "256", "--rounds", "4", "--work", tmp_path, "--binary", BINARY.resolve()],
        capture_output=True, text=True, timeout=500)
    assert told.returncode == 0, told.stderr
    cells = dict(line.strip("| ").split(" | ") for line in told.stdout.splitlines() if not line.startswith("|---"))
    assert cells["end"] != "killed", told.stdout
    # What finds no room is sent again, and passes in the end.
    assert cells["writers"].split(", ")[0] == "32 passed", told.stdout
    assert "broken off" not in cells["writers"], told.stdout
    # A statement may also be refused, or end in the middle when it meets its limit of memory.
    for name in [*bench().STATEMENTS, "export"]:
        assert cells[name].split(", ")[0].endswith("passed"), (name, told.stdout)
    # Where no control group can be made, nothing but this tells.
    assert int(cells["peak of anonymous memory, MB"]) < 256, told.stdout


ARGUMENTS = {
    "approx_percentile_cont": ", 0.5", "approx_percentile_cont_with_weight": ", 1, 0.5", "percentile_cont": ", 0.5",
    "quantile_cont": ", 0.5", "nth_value": ", 1", "string_agg": ", ','",
}


@pytest.fixture
def server(tmp_path):
    module = bench()
    arguments = type("Arguments", (), {"work": str(tmp_path), "binary": BINARY.resolve()})
    # No group: a server that is killed does not tell which function took the memory.
    module.Group = lambda _: type("Group", (), {"folder": None, "enter": lambda: None, "peak": lambda: "-"})
    server = module.Server(arguments, 256)
    yield server
    server.end()


def test_every_aggregate_by_many_groups_stays_within_the_memory_of_queries(server):
    key = server.keys["acme"]
    for start in range(0, 20_000, 4_000):
        lines = [json.dumps({"id": f"r{place}", "user_id": f"u{place}", "trace_id": f"t{place}", "total_units": place,
                             "cost": place * 0.5}) for place in range(start, start + 4_000)]
        status, _ = server.call("POST", "/v1/ingest", key, "\n".join(lines).encode(), [("content-type", "application/x-ndjson")])
        assert status == 200

    def ask(statement):
        return server.call("GET", "/v1/sql?" + urllib.parse.urlencode({"query": statement, "format": "jsonl"}), key)

    status, rows = ask("select distinct routine_name as name from information_schema.routines where function_type = 'AGGREGATE'")
    assert status == 200
    names = sorted(json.loads(row)["name"] for row in rows.decode().splitlines())
    assert {"count", "sum", "array_agg", "string_agg"} < set(names)
    memory, passed = Path(f"/proc/{server.process.pid}"), set()
    for name in names:
        for values in ["trace_id", "distinct trace_id", "distinct total_units", "distinct cost"]:
            others = ", total_units" if re.match("corr|cov|regr", name) else ARGUMENTS.get(name, "")
            # Start of a new peak.
            (memory / "clear_refs").write_text("5")
            before = server.status_mb("VmRSS")
            status, answer = ask(f"select count(v) from (select user_id, {name}({values}{others}) as v from logs group by 1)")
            taken = server.status_mb("VmHWM") - before
            assert status in (200, 400, 422), (name, values, answer)
            assert taken < MOST_MB, f"{name}({values}{others}) took {taken} MB: {status}"
            if status == 200:
                passed.add((name, values))
    assert ("count", "distinct trace_id") in passed and len(passed) > 60, passed
