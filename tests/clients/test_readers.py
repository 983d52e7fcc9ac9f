"""The table is open: other engines read it as it stands, with the same counts and sums."""

import json
import tarfile

import duckdb
import polars
import pytest

from conftest import ROOT

QUERY = "select count(*) as records, sum(total_units) as units, count(distinct organisation_id) as organisations from logs"


@pytest.fixture
def table(filled):
    """The folder of the table after a clean stop, and what gatelog says is in it."""
    expected = filled.sql(QUERY)[0]
    assert expected["records"] == filled.accepted
    filled.stop()
    return str(filled.data / "logs"), expected


def test_polars_reads_the_same(table):
    path, expected = table
    frame = polars.scan_delta(path)
    units = frame.select(polars.len().alias("records"), polars.col("total_units").sum().alias("units"),
                         polars.col("organisation_id").n_unique().alias("organisations")).collect().to_dicts()[0]
    assert units == expected
    bodies = frame.select(polars.col("request").struct.field("body").is_not_null().sum()).collect().item()
    assert bodies > 0


def test_duckdb_reads_the_same(table):
    path, expected = table
    connection = duckdb.connect()
    import_delta(connection)
    row = connection.execute(QUERY.replace("from logs", f"from delta_scan('{path}')")).fetchone()
    assert dict(zip(("records", "units", "organisations"), map(int, row))) == expected
    users = connection.execute(f"select count(distinct metadata['_user']) from delta_scan('{path}')").fetchone()[0]
    assert users > 0


def import_delta(connection):
    """Loads DuckDB's Delta extension, from the PyPI package that carries it."""
    from duckdb_extensions import import_extension

    import_extension("delta", con=connection)
    connection.execute("load delta")


FORMER = ROOT / "tests/data/folder-1"


@pytest.fixture
def former(tmp_path):
    """The folder of a former version, and the records that it answered with."""
    with tarfile.open(FORMER / "data.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    answers = [json.loads(line) for line in (FORMER / "answers.jsonl").read_text().splitlines()[1:]]
    answer_to = {answer["body"]: answer["answer"] for answer in answers if isinstance(answer["body"], str)}
    stored = next(rows for query, rows in answer_to.items() if "from partitions" in query)
    return tmp_path / "data", {row["table_name"]: row["n"] for row in stored}, records(answer_to)


def records(answer_to):
    """What whole records hold. Some of them, and the rest of the others, lie in the log only."""
    rows = answer_to["select * from logs order by organisation_id, id"]
    return {row["id"]: (row["total_units"], row["cost"], row["request"]["body"]) for row in rows
            if row["organisation_id"] in row["id"]}


def same_as_before(rows, expected, wanted):
    """All rows of the files are read, and those that were answered are as they were."""
    assert len(rows) == wanted
    kept = {key: values for key, *values in rows if key in expected}
    assert len(kept) > wanted / 2
    assert kept == {key: list(expected[key]) for key in kept}


def test_polars_reads_files_of_a_former_version(former):
    data, stored, expected = former
    columns = ["id", "total_units", "cost", polars.col("request").struct.field("body")]
    frame = polars.scan_delta(str(data / "logs")).select(columns).collect()
    same_as_before(frame.rows(), expected, stored["logs"])
    assert polars.scan_delta(str(data / "feedback")).collect().height == stored["feedback"]


def test_duckdb_reads_files_of_a_former_version(former):
    data, stored, expected = former
    connection = duckdb.connect()
    import_delta(connection)
    scan = f"delta_scan('{data / 'logs'}')"
    rows = connection.execute(f"select id, total_units, cost, request.body from {scan}").fetchall()
    same_as_before(rows, expected, stored["logs"])
    count = connection.execute(f"select count(*) from delta_scan('{data / 'feedback'}')").fetchone()
    assert count == (stored["feedback"],)
