"""The rows that are asked for, laid out as real ones are, in gatelog and in DuckDB.

Several files, some with columns that are null throughout, and rows in memory; nulls everywhere; JSON texts as bodies;
integers beyond 2^53; texts with `%`, `_`, `\\`, quotes and letters beyond ASCII.
"""

import datetime
import json
import random

import duckdb

# No name that has a price, which would give a cost.
TEXTS = ["gpx-4o", "gpx_4o", "gpx-4", "a%b", "a_b", "a\\b", "a\\%b", "it's", "été", "ÜBER", "über", "日本", "",
         " lead", "trail ", "A", "a", "100%", "x!y", "abc", "ABC", "b,c"]
KEYS = ["t-1", "t-2", "t-3", "t-4", "t-5", "t-6"]
INTEGERS = [0, 1, 2, 3, 5, 7, 10, 42, 100, 999, 1_000_000]
BIG = [10**9 - 2, 10**9 - 1, 10**9]
BIG_IN_BODIES = [2**53 + 1, 1753200000000000000, 2**63 - 1, -(2**63)]
STATUS = [200, 200, 201, 404, 429, 500]

COLUMNS = {
    "id": "text", "organisation_id": "text", "workspace_slug": "text", "ai_model": "text", "virtual_key": "text",
    "trace_id": "text", "user_id": "text", "req_units": "int", "total_units": "int", "response_time": "int",
    "response_status_code": "int", "is_success": "int", "cost": "float", "stream_mode": "bool",
    "request.body": "text", "response.body": "text",
}
FEEDBACK = {"id": "text", "trace_id": "text", "log_id": "text", "user_id": "text", "value": "float", "weight": "float"}
SQL_TYPES = {"int": "bigint", "float": "double", "text": "varchar", "bool": "boolean"}


def some(rng, values, nulls=0.3):
    return None if rng.random() < nulls else rng.choice(values)


def body(rng):
    if rng.random() < 0.25:
        return None
    whole = {}
    for name, value in [
        ("model", some(rng, TEXTS, 0.2)),
        ("n", some(rng, INTEGERS + BIG_IN_BODIES, 0.2)),
        ("flag", some(rng, [True, False], 0.2)),
        ("s", some(rng, ["7", "-12", "x", "007", ""], 0.2)),
        ("t", {"a": some(rng, INTEGERS), "m": some(rng, TEXTS)}),
        ("l", [rng.choice(INTEGERS) for _ in range(rng.randrange(4))]),
    ]:
        if rng.random() < 0.75:
            whole[name] = value
    return whole


def log(rng, place, start, bare):
    """A record; `bare` names columns that are null in all of its file."""
    metadata = {name: rng.choice(TEXTS) for name in ["k", "_user", "odd key"] if rng.random() < 0.5}
    record = {
        "id": f"l-{place:04}", "organisation_id": rng.choice(["acme", "globex"]),
        "created_at": start + place * 1_234_567 % 80_000_000_000,
        "workspace_slug": some(rng, ["search", "chat", "Ops"]), "ai_model": some(rng, TEXTS),
        "virtual_key": some(rng, TEXTS), "trace_id": some(rng, KEYS), "req_units": some(rng, INTEGERS),
        "total_units": some(rng, INTEGERS), "response_time": some(rng, INTEGERS),
        "response_status_code": some(rng, STATUS), "cost": some(rng, [0.0, 0.25, 1.5, 2.0, 10.125, 900.0]),
        "stream_mode": some(rng, [True, False]), "request.body": body(rng), "response.body": body(rng),
        "metadata": metadata,
    }
    for name in bare:
        record[name] = {} if name == "metadata" else None
    return record


def logs(seed=7):
    """The records of each file, and last those in memory."""
    rng = random.Random(seed)
    start = int(datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC).timestamp() * 1_000_000)
    files = [
        (50, []),
        (40, ["cost", "response_time", "ai_model", "request.body", "stream_mode"]),
        (25, ["req_units", "total_units", "trace_id", "virtual_key", "response.body", "metadata"]),
        (35, []),
    ]
    place, parts = 0, []
    for rows, bare in files:
        parts.append([log(rng, place + row, start, bare) for row in range(rows)])
        place += rows
    for part, value in zip(parts, BIG, strict=False):
        part[0]["total_units"] = value
    return parts


def sent(record):
    """A record as gatelog takes it."""
    fields = {name: value for name, value in record.items() if "." not in name and value is not None}
    for side in ["request", "response"]:
        if record[f"{side}.body"] is not None:
            fields[side] = {"body": record[f"{side}.body"]}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def expected(record):
    """A record as it is in the table."""
    row = {name: record.get(name) for name in COLUMNS}
    status = row["response_status_code"]
    row["is_success"] = None if status is None else int(200 <= status < 300)
    row["user_id"] = record["metadata"].get("_user")
    for name in ["request.body", "response.body"]:
        if row[name] is not None:
            row[name] = json.dumps(row[name], ensure_ascii=False, separators=(",", ":"))
    return row


def feedback(rng):
    return {"trace_id": rng.choice(KEYS + ["t-9"]), "value": rng.choice([-10, -1, 0, 1, 5, 10]),
            "weight": rng.choice([0, 0.5, 1]), "metadata": {"_user": rng.choice(TEXTS[:6])} if rng.random() < 0.6 else {}}


def duck(parts, said):
    """DuckDB with the same rows; `said` is the feedback as gatelog shows it."""
    base = duckdb.connect()
    base.execute("set threads = 1; set default_null_order = 'nulls_last_on_asc_first_on_desc'")
    # DuckDB 1.5 moves what a join found below ORDER BY … LIMIT, which then gives other rows.
    base.execute("set disabled_optimizers = 'join_filter_pushdown'")
    columns = [f"{name.replace('.', '_')} {SQL_TYPES[kind]}" for name, kind in COLUMNS.items()]
    base.execute(f"create table logs ({', '.join(columns)}, created_at bigint, metadata map(varchar, varchar))")
    for record in (record for part in parts for record in part):
        row = expected(record)
        values = list(row.values()) + [record["created_at"], record["metadata"]]
        base.execute(f"insert into logs values ({', '.join('?' * len(values))})", values)
    columns = [f"{name} {SQL_TYPES[kind]}" for name, kind in FEEDBACK.items()]
    base.execute(f"create table feedback ({', '.join(columns)})")
    for row in said:
        base.execute(f"insert into feedback values ({', '.join('?' * len(FEEDBACK))})", [row.get(name) for name in FEEDBACK])
    return base
