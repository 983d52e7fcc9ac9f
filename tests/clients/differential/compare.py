"""Asks both engines one statement and compares what they say."""

import http.client
import json
import math
import urllib.parse
from dataclasses import dataclass

import duckdb

from .write import DUCKDB, GATELOG

SMALLEST, LARGEST = -(2**63), 2**63 - 1


@dataclass
class Outcome:
    """What both said; `difference` is none if it is the same."""
    gatelog: str
    duckdb: str
    difference: str | None = None
    refused: bool = False
    rows: int = 0


class Asker:
    """One connection to a server, and one to DuckDB."""

    def __init__(self, url, key, base):
        self.address = urllib.parse.urlsplit(url).netloc
        self.headers = {"x-portkey-api-key": key, "content-type": "text/plain"}
        self.base = base.cursor()
        self.connection = None

    def gatelog(self, text):
        """The rows, or the error."""
        for _ in range(2):
            try:
                self.connection = self.connection or http.client.HTTPConnection(self.address, timeout=120)
                self.connection.request("POST", "/v1/sql?format=json", text.encode(), self.headers)
                answer = self.connection.getresponse()
                body = answer.read()
                break
            except (http.client.HTTPException, ConnectionError) as error:
                self.connection, failure = None, error
        else:
            return None, f"the connection broke: {failure!r}"
        if answer.status != 200:
            return None, f"{answer.status} {body.decode()}"
        return json.loads(body), None

    def duckdb(self, text):
        try:
            return self.base.execute(text).fetchall(), None
        except duckdb.Error as error:
            return None, str(error)

    def ask(self, query):
        outcome = Outcome(GATELOG.statement(query), DUCKDB.statement(query))
        ours, our_error = self.gatelog(outcome.gatelog)
        theirs, their_error = self.duckdb(outcome.duckdb)
        outcome.refused = our_error is not None and their_error is not None
        too_large = their_error is not None and "Out of Range" in their_error or theirs and beyond(theirs)
        # A condition on one side of EXCEPT or INTERSECT, on the other: see `dialect.DIFFERENCES`.
        sides = " except " in outcome.duckdb or " intersect " in outcome.duckdb
        moved = our_error is None and their_error is not None and "Malformed JSON" in their_error and sides
        if moved or too_large or is_overflow(our_error, outcome.gatelog):
            # Integers past 64 bits: see `dialect.DIFFERENCES`.
            outcome.refused = True
        elif our_error is not None or their_error is not None:
            if not outcome.refused:
                outcome.difference = f"gatelog: {our_error or 'an answer'}\nduckdb: {their_error or 'an answer'}"
        else:
            ours = [tuple(row.get(name) for name in query.names()) for row in ours]
            outcome.rows = len(ours)
            outcome.difference = difference(query, ours, theirs)
        return outcome


def is_overflow(error, text):
    """A sum or an absolute value past 64 bits; one that fails after the first rows were sent breaks the answer off."""
    broke = error is not None and error.startswith("the connection broke") and ("sum(" in text or "abs(" in text)
    return broke or error is not None and ("does not fit 64 bits" in error or "overflow on abs" in error)


def beyond(rows):
    return any(isinstance(value, int) and not SMALLEST <= value <= LARGEST for row in rows for value in row)


def difference(query, ours, theirs):
    """How two answers differ, or none."""
    if getattr(query, "counted", False):
        ours, theirs = len(ours), len(theirs)
        return None if ours == theirs else f"gatelog: {ours} rows\nduckdb: {theirs} rows"
    kinds = query.types()
    ours, theirs = [tidy(row, kinds) for row in ours], [tidy(row, kinds) for row in theirs]
    if not query.ordered:
        ours, theirs = sorted(ours, key=repr), sorted(theirs, key=repr)
    if ours == theirs:
        return None
    only_ours = [row for row in ours if row not in theirs][:3]
    only_theirs = [row for row in theirs if row not in ours][:3]
    return (f"gatelog: {len(ours)} rows, first {ours[:3]}, not in the other {only_ours}\n"
            f"duckdb: {len(theirs)} rows, first {theirs[:3]}, not in the other {only_theirs}")


def tidy(row, kinds):
    """Values that compare: sums of floats depend on the order, in the last digits."""
    return tuple(float(f"{value:.9g}") + 0.0 if kind == "float" and value is not None and math.isfinite(value) else value
                 for value, kind in zip(row, kinds, strict=True))

