"""Puts the rows into a server of this build, and into DuckDB."""

import contextlib
import json
import os
import random
import subprocess

from conftest import Server

from . import rows

QUIET = {"flush_seconds": 86_400, "expire_schedule": "never", "compact_schedule": "never", "vacuum_schedule": "never"}


def import_files(binary, folder, parts):
    """All but the last part, each as a file of its own."""
    for place, part in enumerate(parts[:-1]):
        path = folder / f"{place}.jsonl"
        path.write_text("\n".join(rows.sent(record) for record in part))
        subprocess.run([binary, "--quiet", "--data", folder / "data", "import", path], check=True,
                       env={name: value for name, value in os.environ.items() if name != "GATELOG_BIN"})


@contextlib.contextmanager
def both(folder, parts, variables=None):
    """A server on the imported files with the rest of the rows, and DuckDB with all of them."""
    server = Server(folder, variables, **QUIET)
    try:
        yield server, fill(server, parts)
    finally:
        server.stop()


def fill(server, parts):
    """The last part and the feedback, which stay in memory; gives DuckDB with the same rows."""
    sent = "\n".join(rows.sent(record) for record in parts[-1])
    receipt = json.loads(server.request("POST", "/v1/ingest", sent.encode()))
    assert receipt["accepted"] == len(parts[-1]), receipt
    rng = random.Random(11)
    said = json.dumps([rows.feedback(rng) for _ in range(40)]).encode()
    server.request("POST", "/v1/feedback", said, {"content-type": "application/json"})
    names = ", ".join(rows.FEEDBACK)
    base = rows.duck(parts, server.sql(f"select {names} from feedback"))
    check(server, base, parts)
    return base


def check(server, base, parts):
    """The rows are in both as they were made."""
    columns = [name if "." not in name else f"{name.split('.')[0]}['body'] as {name.replace('.', '_')}" for name in rows.COLUMNS]
    stored = server.sql(f"select {', '.join(columns)}, cast(created_at as bigint) as created_at from logs order by id")
    made = [rows.expected(record) | {"created_at": record["created_at"]} for part in parts for record in part]
    made = [{name.replace(".", "_"): value for name, value in row.items()} for row in sorted(made, key=lambda row: row["id"])]
    stored = [{name: row.get(name) for name in made[0]} for row in stored]
    assert len(stored) == len(made)
    for ours, theirs in zip(stored, made, strict=True):
        assert ours == theirs, (ours, theirs)
    count = base.execute("select count(*) from feedback").fetchone()
    assert count == (40,), count
