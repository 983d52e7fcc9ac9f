"""gatelog's answers beside DuckDB's: generated statements, and the differences that are meant.

`GATELOG_TEST_STATEMENTS` and `GATELOG_TEST_SEED` change how many statements are asked and which.
"""

import os
import shutil

import pytest

from conftest import BINARY
from differential import dialect, grammar, rows, serve, workarounds
from differential.compare import Asker
from differential.run import Ending, run

SEED = os.environ.get("GATELOG_TEST_SEED", "1")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A folder with the files, and the rows."""
    folder, parts = tmp_path_factory.mktemp("differential"), rows.logs()
    serve.import_files(BINARY, folder, parts)
    return folder, parts


@pytest.fixture(scope="module")
def both(imported, tmp_path_factory):
    """A server and DuckDB with the same rows."""
    folder = tmp_path_factory.mktemp("both")
    shutil.copytree(imported[0] / "data", folder / "data")
    with serve.both(folder, imported[1]) as both:
        yield both


def test_generated_statements(both):
    server, base = both
    count = int(os.environ.get("GATELOG_TEST_STATEMENTS", "20000"))
    tally = run(server, base, SEED, 0, count)
    assert not tally.found, f"{len(tally.found)} statements of seed {SEED} differ; they are shown above"
    assert tally.asked == count
    # Statements that both refuse, or that find nothing, tell nothing.
    assert tally.refused < count / 20 and tally.empty < count * 0.6


@pytest.mark.parametrize("name", ["aggregate_bounds", "fence", "filter_names", "distinct_from", "precedence", "correlated",
                                  "sort_filters", "in_lists", "literal_sides", "sort_constants"])
def test_generated_statements_find_what_is_not_worked_around(both, imported, tmp_path, name):
    shutil.copytree(imported[0] / "data", tmp_path / "data")
    with serve.both(tmp_path, imported[1], workarounds.without(name)) as (server, base):
        tally = run(server, base, SEED, 0, 4_000, ending=Ending(enough=1), out=None)
    assert tally.found, f"none of {tally.asked} statements of seed {SEED} differs"
    server, base = both
    asker = Asker(server.url, server.key, base)
    for seed in tally.found:
        assert asker.ask(grammar.statement(seed)).difference is None, f"{seed} differs anyway"


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
