"""gatelog's answers beside DuckDB's: generated statements, and the differences that are meant.

`GATELOG_TEST_STATEMENTS` and `GATELOG_TEST_SEED` change how many statements are asked and which.
"""

import os

import pytest

from conftest import BINARY, Server
from differential import dialect, rows, serve
from differential.compare import Asker
from differential.run import run


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A server and DuckDB with the same rows."""
    folder, parts = tmp_path_factory.mktemp("differential"), rows.logs()
    serve.import_files(BINARY, folder, parts)
    server = Server(folder, **serve.QUIET)
    yield server, serve.fill(server, parts)
    server.stop()


def test_generated_statements(both):
    server, base = both
    seed, count = os.environ.get("GATELOG_TEST_SEED", "1"), int(os.environ.get("GATELOG_TEST_STATEMENTS", "4000"))
    tally = run(server, base, seed, 0, count)
    assert not tally.found, f"{len(tally.found)} statements of seed {seed} differ; they are shown above"
    assert tally.asked == count
    # Statements that both refuse, or that find nothing, tell nothing.
    assert tally.refused < count / 20 and tally.empty < count * 0.6


@pytest.mark.parametrize("difference", dialect.DIFFERENCES, ids=lambda difference: difference.name)
def test_difference(both, difference):
    server, base = both
    asker = Asker(server.url, server.key, base)
    ours, our_error = asker.gatelog(difference.gatelog)
    ours = ours if ours is None else [tuple(row.values()) or (None,) for row in ours]
    expect(ours, our_error, difference.gatelog_says)
    expect(*asker.duckdb(difference.duckdb), difference.duckdb_says)


def expect(said, error, wanted):
    if isinstance(wanted, str):
        assert error is not None and wanted in error, (said, error)
    else:
        assert said == wanted, (said, error)
