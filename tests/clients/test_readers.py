"""The table is open: other engines read it as it stands, with the same counts and sums."""

import duckdb
import polars
import pytest

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
