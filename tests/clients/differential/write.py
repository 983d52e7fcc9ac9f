"""Writes a tree twice: for gatelog with the fewest brackets that PostgreSQL needs, for DuckDB with all of them."""

from .tree import Combined, Derived, Expr, Join, Table

# PostgreSQL's ranks of operators.
OR, AND, NOT, IS, COMPARE, LIKE, OTHER, ADD, MULTIPLY, MINUS, CAST, WHOLE = range(12)

BINARY = {"or": OR, "and": AND, "=": COMPARE, "<>": COMPARE, "<": COMPARE, "<=": COMPARE, ">": COMPARE, ">=": COMPARE,
          "||": OTHER, "~": OTHER, "->": OTHER, "->>": OTHER, "+": ADD, "-": ADD, "*": MULTIPLY, "/": MULTIPLY,
          "%": MULTIPLY}
SQL_TYPES = {"int": "bigint", "float": "double", "text": "varchar", "bool": "boolean"}
WILD = {"%": "any text", "_": "any character"}


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def pattern(tokens, escape):
    """A pattern of LIKE out of tokens: a text is itself, `None` is `%`, `1` is `_`."""
    written = []
    for token in tokens:
        if token is None:
            written.append("%")
        elif token == 1:
            written.append("_")
        else:
            written += [escape + c if escape and (c in WILD or c == escape) else c for c in token]
    return "".join(written)


class Writer:
    """What both forms have in common."""

    def literal(self, value):
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            return quoted(value)
        if isinstance(value, float):
            return repr(value) if "e" in repr(value) else f"{value!r}"
        return str(value)

    def statement(self, query):
        if isinstance(query, Combined):
            text = f"({self.statement(query.left)}) {query.kind} ({self.statement(query.right)})"
        else:
            text = self.select(query)
        if query.order:
            text += " order by " + ", ".join(self.order(item) for item in query.order)
        if query.limit is not None:
            text += f" limit {query.limit}"
        if query.offset is not None:
            text += f" offset {query.offset}"
        return text

    def select(self, query):
        items = ", ".join(f"{self.free(item)} as {name}" for item, name in zip(query.items, query.names(), strict=True))
        text = f"select {'distinct ' if query.distinct else ''}{items} from {self.source(query.source)}"
        if query.where is not None:
            text += f" where {self.free(query.where)}"
        if query.group:
            text += " group by " + ", ".join(self.free(key) for key in query.group)
        if query.having is not None:
            text += f" having {self.free(query.having)}"
        return text

    def order(self, item):
        nulls = {None: "", True: " nulls first", False: " nulls last"}[item.nulls_first]
        return self.free(item.expr) + (" desc" if item.descending else "") + nulls

    def source(self, source):
        match source:
            case Table(name, alias):
                return f"{name} as {alias}"
            case Derived(query, alias):
                return f"({self.statement(query)}) as {alias}"
            case Join(kind, left, right, on):
                condition = "" if on is None else f" on {self.free(on)}"
                return f"{self.source(left)} {kind} join {self.source(right)}{condition}"

    def call(self, name, *args):
        return f"{name}({', '.join(self.free(arg) for arg in args)})"

    def window(self, function, partition, order, frame):
        parts = []
        if partition:
            parts.append("partition by " + ", ".join(self.free(key) for key in partition))
        if order:
            parts.append("order by " + ", ".join(self.order(key) for key in order))
        if frame:
            parts.append(frame)
        return f"{self.free(function)} over ({' '.join(parts)})"

    def aggregate(self, name, args, distinct, where, order):
        inner = ", ".join("*" if arg == "*" else self.free(arg) for arg in args)
        if distinct:
            inner = "distinct " + inner
        if order:
            inner += " order by " + ", ".join(self.order(key) for key in order)
        text = f"{name}({inner})"
        return text if where is None else f"{text} filter (where {self.free(where)})"

    def case(self, branches, otherwise):
        text = "case"
        for condition, value in branches:
            text += f" when {self.free(condition)} then {self.free(value)}"
        if otherwise is not None:
            text += f" else {self.free(otherwise)}"
        return text + " end"

    def free(self, expr):
        """An expression where nothing binds tighter."""
        return self.at(expr, OR)

    def at(self, expr, rank):
        raise NotImplementedError


class Gatelog(Writer):
    """PostgreSQL's SQL with the fewest brackets."""

    def at(self, expr, rank):
        text, own = self.ranked(expr)
        return text if own >= rank else f"({text})"

    def ranked(self, expr):
        op, args = expr.op, expr.args
        if op in BINARY:
            rank = BINARY[op]
            # Comparisons do not chain; everything else goes from left to right.
            left = rank + 1 if rank == COMPARE else rank
            return f"{self.at(args[0], left)} {op} {self.at(args[1], rank + 1)}", rank
        match op:
            case "lit":
                negative = isinstance(args[0], (int, float)) and not isinstance(args[0], bool) and args[0] < 0
                return self.literal(args[0]), MINUS if negative else WHOLE
            case "null":
                return f"null::{SQL_TYPES[expr.type]}", CAST
            case "not":
                return f"not {self.at(args[0], NOT)}", NOT
            case "is":
                return f"{self.at(args[0], IS + 1)} is {args[1]}", IS
            case "distinct":
                word = "is not distinct from" if args[2] else "is distinct from"
                return f"{self.at(args[0], IS + 1)} {word} {self.at(args[1], IS + 1)}", IS
            case "between":
                word = "not between" if args[3] else "between"
                low, high = self.at(args[1], LIKE + 1), self.at(args[2], LIKE + 1)
                return f"{self.at(args[0], LIKE + 1)} {word} {low} and {high}", LIKE
            case "in":
                items = ", ".join(self.free(item) for item in args[1])
                return f"{self.at(args[0], LIKE + 1)} {'not in' if args[2] else 'in'} ({items})", LIKE
            case "in query":
                return f"{self.at(args[0], LIKE + 1)} {'not in' if args[2] else 'in'} ({self.statement(args[1])})", LIKE
            case "like":
                return self.like(*args), LIKE
            case "neg":
                inner = self.at(args[0], MINUS)
                return f"- {inner}" if inner.startswith("-") else f"-{inner}", MINUS
            case "::":
                return f"{self.at(args[0], CAST)}::{SQL_TYPES[expr.type]}", CAST
            case "cast":
                return f"cast({self.free(args[0])} as {SQL_TYPES[expr.type]})", WHOLE
            case "column":
                return self.column(*args), WHOLE
            case "tag":
                return f"{args[0]}.metadata[{quoted(args[1])}]", WHOLE
            case "json int":
                path = ", ".join(self.literal(step) for step in args[1])
                return f"json_get_int({self.free(args[0])}, {path})", WHOLE
            case _:
                return self.shared(expr), WHOLE

    def like(self, subject, wanted, escape, negated, ignoring_case):
        if isinstance(wanted, Expr):
            wanted = self.at(wanted, LIKE + 1)
        else:
            wanted = quoted(pattern(wanted, "\\" if escape is None else escape))
        word = ("not " if negated else "") + ("ilike" if ignoring_case else "like")
        tail = "" if escape is None else f" escape {quoted(escape)}"
        return f"{self.at(subject, LIKE + 1)} {word} {wanted}{tail}"

    def column(self, alias, name):
        return f"{alias}.{name.split('.')[0]}['body']" if name.endswith(".body") else f"{alias}.{name}"

    def shared(self, expr):
        args = expr.args
        match expr.op:
            case "call":
                return self.call(args[0], *args[1])
            case "aggregate":
                return self.aggregate(*args)
            case "window":
                return self.window(*args)
            case "case":
                return self.case(*args)
            case "exists":
                return f"exists ({self.statement(args[0])})"
            case "query":
                return f"({self.statement(args[0])})"
            case "output":
                return args[0]
        raise ValueError(expr.op)


class DuckDb(Gatelog):
    """DuckDB's SQL with all brackets."""

    def at(self, expr, rank):
        text, own = self.ranked(expr)
        return text if own == WHOLE else f"({text})"

    def ranked(self, expr):
        op, args = expr.op, expr.args
        match op:
            case "/":
                # Both engines cut off, as PostgreSQL does; DuckDB's `//` is taken where nothing is left over.
                dividend, divisor = self.at(args[0], WHOLE), self.at(args[1], WHOLE)
                return f"({dividend} - ({dividend} % {divisor})) // {divisor}", MULTIPLY
            case "~":
                return self.call("regexp_matches", *args), WHOLE
            case "call" if args[0] == "octet_length":
                return self.call("strlen", *args[1]), WHOLE
            case "null":
                return f"cast(null as {SQL_TYPES[expr.type]})", WHOLE
            case "::":
                return f"cast({self.free(args[0])} as {SQL_TYPES[expr.type]})", WHOLE
            case "tag":
                return f"map_extract_value({args[0]}.metadata, {quoted(args[1])})", WHOLE
            case "json int":
                value = self.at(args[0], WHOLE)
                for step in args[1]:
                    value = f"({value} -> {self.literal(step)})"
                # Whole numbers, and texts of them.
                return (f"(case when json_type({value}) in ('BIGINT', 'UBIGINT')"
                        f" or regexp_full_match({value} ->> '$', '[+-]?[0-9]+') then try_cast({value} ->> '$' as bigint)"
                        " end)"), WHOLE
        return super().ranked(expr)

    def like(self, subject, wanted, escape, negated, ignoring_case):
        if isinstance(wanted, Expr):
            wanted = self.at(wanted, WHOLE)
            escape = "\\" if escape is None else escape
        else:
            escape = "\\"
            wanted = quoted(pattern(wanted, escape))
        word = ("not " if negated else "") + ("ilike" if ignoring_case else "like")
        tail = f" escape {quoted(escape)}" if escape else ""
        return f"{self.at(subject, WHOLE)} {word} {wanted}{tail}"

    def column(self, alias, name):
        return f"{alias}.{name.replace('.', '_')}"


GATELOG, DUCKDB = Gatelog(), DuckDb()
