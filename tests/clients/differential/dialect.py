"""Where gatelog and DuckDB differ on purpose; the grammar keeps away from these.

Each difference has a statement with what either engine says: rows, or a part of the error's text. When one of them says
something else, the difference is gone or has changed, and its line here goes with it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    name: str
    gatelog: str
    gatelog_says: list | str
    duckdb: str
    duckdb_says: list | str


def same(name, statement, gatelog_says, duckdb_says):
    return Difference(name, statement, gatelog_says, statement, duckdb_says)


LARGEST = 2**63 - 1
ONE = "from logs where id = 'l-0000'"

DIFFERENCES = [
    # PostgreSQL's sum of bigints is a numeric.
    Difference("a sum of integers beyond 64 bits is refused",
               f"select sum(v) as v from (select {LARGEST} as v union all select 1 as v) as t", "does not fit 64 bits",
               f"select sum(v) as v from (select {LARGEST} as v union all select 1 as v) as t", [(2**63,)]),
    # DuckDB computes it of the first row only.
    Difference("an error counts in rows that a limit cuts off",
               "select abs(json_get_int(response['body'], 'n')) as v from logs order by id limit 1", "overflow on abs",
               "select abs(case when json_type(response_body -> 'n') = 'BIGINT' then cast(response_body ->> 'n' as bigint) end)"
               " as v from logs order by id limit 1", [(None,)]),
    # DuckDB gives null; PostgreSQL refuses, too.
    Difference("division by 0 is refused", f"select length(id) / (length(id) - 6) as v {ONE}", "ivide by zero",
               f"select length(id) // (length(id) - 6) as v {ONE}", [(None,)]),
    Difference("integers are divided without a rest, as in PostgreSQL", f"select 7 / 2 as v {ONE}", [(3,)],
               f"select 7 / 2 as v {ONE}", [(3.5,)]),
    Difference("^ is the exclusive or of bits", f"select 6 ^ 3 as v {ONE}", [(5,)], f"select 6 ^ 3 as v {ONE}", [(216.0,)]),
    same("minus 0.0 and 0.0 are not the same to COUNT (DISTINCT …) and to joins",
         f"select count(distinct t.v) as v, count(*) as w from (select cast(0 as double) * (length(id) - 7) as v {ONE}"
         " union all select cast(0 as double) as v) as t", [(2, 2)], [(1, 2)]),
    # PostgreSQL has the escape character `\\` where none is named, as gatelog does.
    Difference("LIKE escapes with a backslash where ESCAPE names nothing", rf"select 'a%' like 'a\%' as v {ONE}", [(True,)],
               rf"select 'a%' like 'a\%' as v {ONE}", [(False,)]),
    # PostgreSQL refuses it only where a text matches up to there.
    same("a pattern that ends with its escape character is refused", f"select 'b' like 'a!' escape '!' as v {ONE}",
         "ends with its escape character", [(False,)]),
    Difference("~ finds a match anywhere, as in PostgreSQL", f"select 'abc' ~ 'b' as v {ONE}", [(True,)],
               f"select 'abc' ~ 'b' as v {ONE}", [(False,)]),
    same("-> binds tighter than IS, as in PostgreSQL", """select '{"a":null}' -> 'a' is null as v """ + ONE, [(True,)],
         "Binder Error"),
    same("-> of a JSON null is null", """select ('{"a":null}' -> 'a') is null as v """ + ONE, [(True,)], [(False,)]),
    same("->> keeps a number as it is written", """select '{"a":1e3}' ->> 'a' as v """ + ONE, [("1e3",)], [("1000.0",)]),
    Difference("json_get_int of an integer past 64 bits is null",
               f"""select json_get_int('{{"a":{2**64}}}', 'a') as v {ONE}""", [(None,)],
               f"""select cast('{{"a":{2**64}}}' ->> 'a' as hugeint) as v {ONE}""", [(2**64,)]),
    same("EXCEPT ALL and INTERSECT ALL are refused",
         "select v from (select 1 as v union all select 1 as v) as t except all select 1 as v", "EXCEPT ALL is not supported",
         [(1,)]),
    same("EXISTS and IN (SELECT …) stand in conditions only", f"select exists (select 1 from feedback) as v {ONE}",
         "Physical plan does not support", [(True,)]),
    same("NOT IN (SELECT …) takes no outer columns as a condition of its own",
         "select id as v from logs l where ai_model not in (select k.ai_model from logs k where k.trace_id = l.user_id)"
         " and id = 'none'", "null_aware anti join only supports", []),
    # DuckDB moves the condition to the other side, whose text is no JSON.
    Difference("a condition on one side of INTERSECT or EXCEPT stays there",
               "select request['body'] as v from logs where request['body'] ->> 'flag' ~ 'x$' intersect select 't-6' as v from logs",
               [], "select request_body as v from logs where regexp_matches(request_body ->> 'flag', 'x$') intersect"
               " select 't-6' as v from logs", "Malformed JSON"),
    same("DISTINCT is sorted by its columns or their names only",
         "select distinct req_units + total_units as v from logs where id = 'none' order by req_units + total_units",
         "must appear in select list", []),
    same("the columns of a SELECT have names of their own", f"select id, id {ONE}", "unique expression names",
         [("l-0000", "l-0000")]),
]

assert len(DIFFERENCES) <= 20
