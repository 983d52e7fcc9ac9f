"""What a user would pick instead, on the same records: ClickHouse (chDB, MergeTree) and DuckDB (its own format).

Both load from a local file, without HTTP and without an fsync before an ack; gatelog's figures include both where they say so.
"""

import os
import shutil
import time

# name, ClickHouse type, DuckDB type
COLUMNS = [
    ("id", "String", "VARCHAR"), ("organisation_id", "LowCardinality(String)", "VARCHAR"),
    ("created_at", "DateTime64(3,'UTC')", "TIMESTAMP"), ("request", "String", "JSON"), ("response", "String", "JSON"),
    ("is_success", "UInt8", "TINYINT"), ("ai_org", "LowCardinality(String)", "VARCHAR"),
    ("ai_model", "LowCardinality(String)", "VARCHAR"), ("req_units", "UInt32", "BIGINT"), ("res_units", "UInt32", "BIGINT"),
    ("total_units", "UInt32", "BIGINT"), ("cost", "Float64", "DOUBLE"), ("cost_currency", "LowCardinality(String)", "VARCHAR"),
    ("request_url", "LowCardinality(String)", "VARCHAR"), ("request_method", "LowCardinality(String)", "VARCHAR"),
    ("response_status_code", "UInt16", "INTEGER"), ("response_time", "UInt32", "BIGINT"),
    ("cache_status", "LowCardinality(String)", "VARCHAR"), ("cache_type", "LowCardinality(Nullable(String))", "VARCHAR"),
    ("stream_mode", "Bool", "BOOLEAN"), ("retry_success_count", "Int8", "INTEGER"), ("trace_id", "String", "VARCHAR"),
    ("mode", "LowCardinality(String)", "VARCHAR"), ("virtual_key", "LowCardinality(String)", "VARCHAR"),
    ("runtime", "LowCardinality(String)", "VARCHAR"), ("runtime_version", "LowCardinality(String)", "VARCHAR"),
    ("sdk_version", "LowCardinality(String)", "VARCHAR"), ("config", "LowCardinality(Nullable(String))", "VARCHAR"),
    ("prompt_slug", "LowCardinality(Nullable(String))", "VARCHAR"), ("prompt_version_id", "Nullable(String)", "VARCHAR"),
    ("metadata", "Map(LowCardinality(String),String)", "MAP(VARCHAR,VARCHAR)")]
# Random or long text gains nothing from a dictionary; a stronger codec is what a ClickHouse user would set for it.
PACKED = {"id", "request", "response", "trace_id"}

DAY = "created_at >= '{day} 00:00:00' and created_at < '{next_day} 00:00:00'"
QUERIES = {
    "count": "select count(*) from logs",
    "status_codes": "select ai_model, response_status_code, count(*) n from logs group by 1, 2 order by n desc",
    "hourly": "select date_trunc('hour', created_at) h, sum(cost), sum(total_units), {p95} p95 from logs group by 1 order by 1",
    "org_day": "select count(*), sum(cost), avg(response_time) from logs where organisation_id = '{org}' and " + DAY,
    "cache": "select cache_status, count(*), avg(response_time) from logs group by 1",
    "top_users": "select metadata['_user'] u, count(*) n, sum(cost) from logs group by 1 order by n desc limit 10",
    "by_id": "select * from logs where id = '{id}'",
    "search": "select count(*) from logs where {body} like '%elephants%'",
    "latest": "select id, created_at, ai_model, cost from logs where organisation_id = '{org}' order by created_at desc limit 50",
    "status_page": "select cache_status, retry_success_count, mode, count(*) n from logs where organisation_id = '{org}' "
                   "group by 1, 2, 3 order by n desc"}
EXPORT = ("select created_at, request, response, ai_model, cost, total_units, response_time, trace_id, metadata from logs "
          "where created_at >= '{from_day} 00:00:00' and created_at < '{to_day} 00:00:00'")


def best_ms(run, times=5):
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append((time.perf_counter() - start) * 1e3)
    return min(taken)


def size_of(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def clickhouse(source, work, facts, threads):
    from chdb import session

    shutil.rmtree(f"{work}/clickhouse", ignore_errors=True)
    chdb = session.Session(f"{work}/clickhouse")
    settings = f" settings max_threads={threads}"
    chdb.query("create database b engine=Atomic")
    columns = ", ".join(f"{name} {kind}{' codec(ZSTD(3))' if name in PACKED else ''}" for name, kind, _ in COLUMNS)
    chdb.query(f"create table b.logs ({columns}) engine=MergeTree order by (organisation_id, created_at) "
               "partition by toDate(created_at)")
    plain = ", ".join(f"{name} {kind}" for name, kind, _ in COLUMNS)
    start = time.perf_counter()
    chdb.query(f"insert into b.logs select * from file('{source}', 'JSONEachRow', $${plain}$$){settings}, "
               "input_format_json_read_objects_as_strings=1, max_partitions_per_insert_block=1000, "
               "date_time_input_format='best_effort'")
    load = time.perf_counter() - start
    chdb.query("optimize table b.logs final")
    chdb.query("use b")
    disk = int(str(chdb.query("select sum(bytes_on_disk) from system.parts where table = 'logs' and active")).strip())
    text = lambda query: query.format(p95="quantile(0.95)(response_time)", body="request", **facts)
    queries = {name: best_ms(lambda: chdb.query(text(query) + settings, "Native")) for name, query in QUERIES.items()}
    out = f"{work}/clickhouse.jsonl"
    start = time.perf_counter()
    chdb.query(f"{text(EXPORT)} into outfile '{out}' format JSONEachRow{settings}")
    export = time.perf_counter() - start
    figures = {"load_s": load, "bytes": disk, "queries_ms": queries, "export_mb_s": size_of(out) / export / 1e6}
    os.remove(out)
    return figures


def duckdb(source, work, facts, threads):
    import duckdb as engine

    path = f"{work}/duck.db"
    if os.path.exists(path):
        os.remove(path)
    connection = engine.connect(path)
    connection.execute(f"set threads={threads}")
    connection.execute("set TimeZone='UTC'")
    columns = "{" + ", ".join(f"{name}: '{kind}'" for name, _, kind in COLUMNS) + "}"
    start = time.perf_counter()
    connection.execute(f"create table logs as select * from read_json('{source}', format='newline_delimited', "
                       f"columns={columns}, maximum_object_size=67108864)")
    load = time.perf_counter() - start
    connection.execute("checkpoint")
    text = lambda query: query.format(p95="approx_quantile(response_time, 0.95)", body="request::varchar", **facts)
    queries = {name: best_ms(lambda: connection.execute(text(query)).fetchall()) for name, query in QUERIES.items()}
    out = f"{work}/duck.jsonl"
    start = time.perf_counter()
    connection.execute(f"copy ({text(EXPORT)}) to '{out}' (format json)")
    export = time.perf_counter() - start
    connection.close()
    figures = {"load_s": load, "bytes": size_of(path), "queries_ms": queries, "export_mb_s": size_of(out) / export / 1e6}
    os.remove(out)
    return figures
