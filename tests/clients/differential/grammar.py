"""Makes a statement out of a seed.

The grammar: SELECT with filters, joins of `logs` and `feedback` (inner, left, right, full, cross), derived tables,
subqueries (scalar, IN, EXISTS, correlated or not), GROUP BY, HAVING, window functions, DISTINCT, UNION, INTERSECT, EXCEPT,
ORDER BY, LIMIT and OFFSET, over expressions with three-valued logic, integers, texts and JSON. Where a statement is cut off,
its order is total, so that its rows are given.
"""

import contextlib
import random
from dataclasses import replace

from .rows import COLUMNS, FEEDBACK, KEYS, TEXTS
from .tree import Combined, Derived, Expr, Join, Order, Select, Table, lit, null

TYPES = ["int", "text", "bool", "float"]
NAMES = {"logs": COLUMNS, "feedback": FEEDBACK}
BODIES = ["request.body", "response.body"]
# Their values are the same texts.
ALIKE = ["ai_model", "virtual_key", "user_id"]
COMPARE = ["=", "<>", "<", "<=", ">", ">="]
DEEPEST = 3
WHOLE_FRAMES = [None, "rows between unbounded preceding and current row", "rows between 2 preceding and 1 following",
                "rows between unbounded preceding and unbounded following"]


class Grammar:
    """One statement's choices."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.aliases = 0
        # DataFusion takes EXISTS and IN (SELECT …) in WHERE and HAVING only.
        self.filtering = False
        # Not within a key of a group, nor in another subquery.
        self.subqueries = True

    def chance(self, share):
        return self.rng.random() < share

    def pick(self, *choices):
        """One of pairs of a weight and a function, called."""
        weights = [weight for weight, _ in choices]
        return self.rng.choices([make for _, make in choices], weights)[0]()

    def alias(self):
        self.aliases += 1
        return f"s{self.aliases}"

    def select(self, items, source, *args, **named):
        return Select(items, source, self.alias().replace("s", "c"), *args, **named)

    # Statements.

    def statement(self):
        return self.pick(
            (10, lambda: self.query(2)),
            (1, self.bounds),
            (1, self.counted),
            (1, self.sorted_again),
            (1, self.names_of_two),
            (1, self.keys_of_two),
            (1, self.places_of_queries),
            (1, self.constants_in_order),
            (1, self.constants_below_offset),
            (1, self.functions_of_constants),
            (1, self.counts_of_counts),
            (2, self.combined),
        )

    def bounds(self):
        """MIN and MAX of several columns at once, over files of which some have nulls only."""
        table = Table("logs", self.alias())
        columns = [column for column in self.scope(table) if column.type in ("int", "float", "text")]
        items = [self.plain_aggregate(self.rng.choice(["min", "max"]), self.rng.choice(columns))
                 for _ in range(self.rng.randrange(2, 5))]
        where = self.boolean(2, self.scope(table)) if self.chance(0.3) else None
        return self.select(tuple(items), table, where)

    def counted(self):
        """A limit without an order, below an order: only how many rows there are is given."""
        inner = replace(self.plain(1, self.table()), order=(), limit=self.rng.randrange(1, 9), offset=self.some_offset())
        outer = Derived(replace(inner, ordered=False), self.alias())
        scope = self.scope(outer)
        items = tuple(scope[:3])
        order = tuple(Order(item) for item in self.rng.sample(items, self.rng.randrange(1, len(items) + 1)))
        return self.select(items, outer, order=order, counted=True)

    def sorted_again(self):
        """A query that is cut off, sorted again by the same keys and further ones."""
        inner = self.cut_off(self.plain(1, self.table()))
        kept = [(place, item) for place, item in enumerate(inner.items)]
        alias = self.alias()
        columns = {item: Expr("column", item.type, (alias, inner.names()[place])) for place, item in kept}
        order = [replace(key, expr=columns[key.expr]) for key in inner.order if key.expr in columns]
        rest = [column for column in columns.values() if all(column != key.expr for key in order)]
        self.rng.shuffle(rest)
        order += [Order(column) for column in rest]
        outer = self.select(tuple(columns.values()), Derived(inner, alias), order=tuple(order), ordered=True)
        return replace(outer, limit=self.rng.randrange(1, 9)) if self.chance(0.2) else outer

    def names_of_two(self):
        """A join of columns that have one name, with a condition on one of them."""
        left, right = Table("logs", self.alias()), Table(self.rng.choice(["logs", "feedback"]), self.alias())
        pairs = [(one, other) for one in ALIKE for other in ALIKE if right.name == "logs" or other == "user_id"]
        one, other = self.rng.choice([("trace_id", "trace_id"), *pairs])
        on = Expr("=", "bool", (text_column(left, one), text_column(right, other)))
        name = self.rng.choice(["id", "trace_id", "user_id"])
        named = [text_column(left, name), text_column(right, name)]
        with self.without_subqueries():
            where = self.boolean(2, [self.rng.choice(named)])
        query = self.select(tuple(named), Join(self.rng.choice(["inner", "left", "right", "full"]), left, right, on), where)
        return self.cut_off(query) if self.chance(0.5) else query

    def keys_of_two(self):
        """Rows with a match by a key, joined by that key again; the match has a column with the key's name."""
        left, right, few = [Table("logs", self.alias()) for _ in range(3)]
        name, partner = self.rng.sample(ALIKE, 2)
        key = text_column(left, name)
        match = Expr("=", "bool", (text_column(right, partner), key))
        with self.without_subqueries():
            beside = Expr(self.rng.choice(COMPARE), "bool", (text_column(right, name), self.column("text", self.scope(left))))
        exists = Expr("exists", "bool", (self.select((lit(1),), right, Expr("and", "bool", (match, beside))),))
        kept = Derived(self.select((text_column(left, "id"), key), left, exists), self.alias())
        few = Derived(self.cut_off(self.select((text_column(few, self.rng.choice(ALIKE)),), few)), self.alias())
        source = Join("inner", kept, few, Expr("=", "bool", (self.scope(kept)[1], self.scope(few)[0])))
        query = self.select(tuple(self.scope(source)), source)
        return self.cut_off(query) if self.chance(0.3) else query

    def places_of_queries(self):
        """A scalar subquery with outer columns, anywhere but among the columns and in WHERE and HAVING."""
        table = Table("logs", self.alias())
        scope = self.scope(table)
        queries = [self.query_of_outer(scope) for _ in range(self.rng.randrange(1, 3))]
        with self.without_subqueries():
            where, value = self.boolean(1, scope), self.with_queries(queries, scope)
            query = self.select((text_column(table, "id"), self.expr("text", 1, scope)), table, where)
        return self.pick(
            (2, lambda: self.ordered_by(query, value)),
            (1, lambda: replace(query, items=(value, self.aggregate("int", scope)), group=(value,))),
            (1, lambda: replace(query, items=(self.plain_aggregate(self.rng.choice(["sum", "min", "max", "count"]), value),
                                              Expr("aggregate", "int", ("count", ("*",), False, self.over(value), ()))))),
            (1, lambda: replace(query, items=(text_column(table, "id"), self.window_over(table, value)))),
            (1, lambda: self.joined_on(query, value)),
        )

    def query_of_outer(self, scope):
        table = Table(self.rng.choice(["logs", "feedback"]), self.alias())
        inner = self.scope(table)
        with self.without_subqueries():
            where, value = self.boolean(1, inner), self.aggregate("int", inner)
        where = Expr("and", "bool", (self.correlated(inner, scope), where)) if self.chance(0.5) else self.correlated(inner, scope)
        return Expr("query", "int", (self.select((value,), table, where),))

    def with_queries(self, queries, scope):
        """An integer with all of these in it."""
        value = queries[0] if self.chance(0.5) else Expr("-", "int", (self.column("int", scope), queries[0]))
        for query in queries[1:]:
            value = Expr("call", "int", (self.rng.choice(["coalesce", "least"]), (value, query)))
        return value

    def over(self, value):
        return Expr(self.rng.choice(COMPARE), "bool", (value, lit(self.rng.choice([0, 1, 3, 42]))))

    def ordered_by(self, query, value):
        items = (*query.items, value) if self.chance(0.5) else query.items
        if items != query.items and self.chance(0.4):
            query = replace(query, items=(*items, *(column for column in value.parts() if column.op == "column")))
        else:
            query = replace(query, items=items)
        order = (self.order_of(value), *(self.order_of(key) for key in self.unique(query.source, ())))
        return replace(query, order=order, ordered=True, limit=self.rng.randrange(1, 12), offset=self.some_offset())

    def window_over(self, table, value):
        keys = tuple(self.order_of(key) for key in self.unique(table, ()))
        row = Expr("call", "int", ("row_number", ()))
        return self.pick(
            (1, lambda: Expr("window", "int", (row, (), (self.order_of(value), *keys), None))),
            (1, lambda: Expr("window", "int", (row, (value,), keys, None))),
            (1, lambda: Expr("window", "int", (self.plain_aggregate("max", value), (), keys, self.rng.choice(WHOLE_FRAMES)))),
        )

    def joined_on(self, query, value):
        """A join with the value in its condition; DuckDB takes it in an inner join only."""
        few = Table("feedback", self.alias())
        on = Expr("=", "bool", (text_column(query.source, "trace_id"), text_column(few, "trace_id")))
        on = Expr("and", "bool", (on, self.over(value)))
        return replace(query, source=Join("inner", query.source, few, on))

    def constants_in_order(self):
        """First rows of an order by a column beside a constant that is a column of the answer."""
        table = Table("logs", self.alias())
        scope = self.scope(table)
        kind = self.rng.choice(["int", "text", "float", "bool"])
        columns = [column for column in scope if column.type == kind and column.args[1] not in BODIES]
        key, constant = self.rng.choice(columns), self.leaf(kind, [])
        beside = [self.rng.choice(scope) for _ in range(self.rng.randrange(5))]
        last = text_column(table, "id")
        items = [constant, last, *beside]
        self.rng.shuffle(items)
        where = self.condition(1, scope) if self.chance(0.5) else None
        source = table
        if self.chance(0.5):
            # The constant is a column to what is around.
            source = Derived(self.select((*items, key), table, where), self.alias())
            scope, where = self.scope(source), None
            constant, key, last = scope[items.index(constant)], scope[-1], scope[items.index(last)]
            items = scope[:-1]
        compared = Expr(self.rng.choice(COMPARE), "bool", (key, constant))
        if self.chance(0.5):
            items.append(compared)
        order = (self.order_of(compared), self.order_of(key), self.order_of(last))
        return self.select(tuple(items), source, where, order=order, ordered=True, limit=self.rng.randrange(1, 12),
                           offset=self.some_offset())

    def constants_below_offset(self):
        """Constants of a query that is cut off, in the order of the one around it."""
        table = Table(self.rng.choice(["logs", "feedback"]), self.alias())
        items = [self.column("float", self.scope(table)), *(self.leaf(self.kind(), []) for _ in range(self.rng.randrange(1, 3)))]
        self.rng.shuffle(items)
        inner = replace(self.cut_off(self.select(tuple(items), table)), offset=self.rng.randrange(1, 6))
        source = Derived(inner, self.alias())
        columns = self.scope(source)
        kept = [column for column in columns if column.type == "float"] + [lit(self.rng.choice(TEXTS))]
        return self.select(tuple(kept), source, order=tuple(self.order_of(column) for column in columns), ordered=True)

    def functions_of_constants(self):
        """An order by a function of constants that are columns of the answer."""
        table = Table("logs", self.alias())
        scope = self.scope(table)
        body = self.body(scope)
        place = self.rng.randrange(3)
        key = Expr("json int", "int", (body, ("l", place)))
        items = [lit(place), lit("l"), self.column("text", scope)]
        order = (self.order_of(key), *(self.order_of(key) for key in self.unique(table, scope)))
        return self.select(tuple(self.rng.sample(items, self.rng.randrange(1, 4))), table, self.condition(1, scope), order=order,
                           ordered=True)

    def counts_of_counts(self):
        """Aggregates with a condition over an aggregate that needs no rows."""
        table = Table("logs", self.alias())
        column = self.rng.choice([column for column in self.scope(table) if column.type == "int"])
        counts = [Expr("aggregate", "int", ("count", (arg,), self.chance(0.5) and arg != "*", None, ())) for arg in ("*", column)]
        where = lit(False) if self.chance(0.5) else None
        inner = Derived(self.select((self.rng.choice(counts),), table, where), self.alias())
        value = self.scope(inner)[0]
        items = [Expr("aggregate", "int", (name, args, False, self.over(value), ()))
                 for name, args in (("count", ("*",)), (self.rng.choice(["sum", "min", "max"]), (value,)))]
        return self.select(tuple(self.rng.sample(items, self.rng.randrange(1, 3))), inner)

    def combined(self):
        """Two queries of the same types, put together."""
        kind = self.rng.choice(["union", "union all", "intersect", "except"])
        kinds = [self.rng.choice(["int", "text", "bool"]) for _ in range(self.rng.randrange(1, 4))]
        sides = [self.plain(1, self.table(), kinds, order=False) for _ in range(2)]
        query = Combined(kind, *sides)
        if self.chance(0.4):
            query = replace(query, order=tuple(self.by_name(query)), ordered=True)
            if self.chance(0.5):
                query = replace(query, limit=self.rng.randrange(9), offset=self.some_offset())
        return query

    def query(self, depth):
        source = self.source(depth)
        return self.pick(
            (5, lambda: self.plain(depth, source)),
            (3, lambda: self.grouped(depth, source)),
            # What windows say of rows that are alike is not given.
            (1 if tables_only(source) else 0, lambda: self.windowed(depth, source)),
            (1, lambda: self.distinct(depth, source)),
        )

    def plain(self, depth, source, kinds=None, order=True):
        scope = self.scope(source)
        kinds = kinds or [self.rng.choice(TYPES) for _ in range(self.rng.randrange(1, 4))]
        items = tuple(self.expr(kind, depth, scope) for kind in kinds)
        query = self.select(items, source, self.condition(depth, scope))
        return self.cut_off(query) if order and self.chance(0.4) else query

    def distinct(self, depth, source):
        query = replace(self.plain(depth, source, order=False), distinct=True)
        if not self.chance(0.5):
            return query
        query = replace(query, order=tuple(self.by_name(query)), ordered=True)
        return replace(query, limit=self.rng.randrange(9), offset=self.some_offset()) if self.chance(0.6) else query

    def by_name(self, query):
        """An order by all columns, by their names: DISTINCT takes no expressions in its order."""
        return [self.order_of(Expr("output", kind, (name,))) for name, kind in zip(query.names(), query.types(), strict=True)]

    def grouped(self, depth, source):
        scope = self.scope(source)
        with self.without_subqueries():
            keys = [self.expr(self.rng.choice(["int", "text", "bool"]), depth - 1, scope) for _ in range(self.rng.randrange(3))]
            aggregates = [self.aggregate(self.rng.choice(TYPES), scope) for _ in range(self.rng.randrange(1, 4))]
        keys = tuple(key for key in dict.fromkeys(keys) if has_column(key))
        query = self.select(keys + tuple(aggregates), source, self.condition(depth, scope), keys)
        if self.chance(0.3):
            with self.without_subqueries():
                query = replace(query, having=self.condition_over([self.aggregate("int", scope)]))
        elif not keys and self.subqueries and self.chance(0.4):
            # A condition without columns.
            query = replace(query, having=self.over(self.scalar_query("int", ())))
        if keys and self.chance(0.4):
            query = replace(query, order=tuple(self.order_of(key) for key in keys), ordered=True)
            if self.chance(0.6):
                query = replace(query, limit=self.rng.randrange(9), offset=self.some_offset())
        return query

    def windowed(self, depth, source):
        scope = self.scope(source)
        items = [self.expr("text", 1, scope), self.window(scope, source), self.window(scope, source)]
        if self.chance(0.3):
            items[1] = Expr("-", "int", (items[1], self.window(scope, source)))
        elif self.chance(0.3):
            items[1] = Expr("-", "int", (self.window(scope, source, ranks=True), self.window(scope, source, ranks=True)))
        query = self.select(tuple(items[:self.rng.randrange(2, 4)]), source, self.condition(depth, scope))
        return self.cut_off(query) if self.chance(0.3) else query

    def cut_off(self, query):
        """The query with a total order, and cut off there."""
        scope = self.scope(query.source)
        first = [self.order_of(self.rng.choice(list(query.items))) for _ in range(self.rng.randrange(2))]
        first = [key for key in first if has_column(key.expr) and key.expr.op != "window"]
        keys = [self.order_of(key) for key in self.unique(query.source, scope)]
        query = replace(query, order=tuple(first + keys), ordered=True)
        if self.chance(0.7):
            query = replace(query, limit=self.rng.randrange(12), offset=self.some_offset())
        elif self.chance(0.2):
            query = replace(query, offset=self.rng.randrange(12))
        return query

    def some_offset(self):
        return self.rng.randrange(6) if self.chance(0.5) else None

    def order_of(self, expr):
        return Order(expr, self.chance(0.4), self.rng.choice([None, None, True, False]))

    # Sources.

    def source(self, depth):
        return self.pick(
            (6, self.table),
            (3 if depth > 1 else 0, self.join),
            (3 if depth > 1 else 0, lambda: Derived(self.query(depth - 1), self.alias())),
        )

    def table(self):
        return Table("logs" if self.chance(0.85) else "feedback", self.alias())

    def join(self):
        left = Table("logs", self.alias())
        right = Table(self.rng.choice(["feedback", "feedback", "logs"]), self.alias())
        if right.name == "logs" or self.chance(0.3):
            right = Derived(self.cut_off(self.columns_of(right)), self.alias())
        kind = self.rng.choice(["inner", "left", "right", "full"])
        left_scope, right_scope = self.scope(left), self.scope(right)
        pairs = [(mine, other) for mine in left_scope for other in right_scope
                 if mine.type == other.type == "text" and mine.args[1] in ("trace_id", "user_id", "id")]
        if not pairs:
            return Join("cross", left, right, None) if self.chance(0.5) else left
        mine, other = self.rng.choice(pairs)
        on = Expr("=", "bool", (mine, other))
        if kind != "full" and self.chance(0.4):
            on = Expr("and", "bool", (on, self.boolean(1, left_scope + right_scope)))
        return Join(kind, left, right, on)

    def columns_of(self, table):
        scope = self.scope(table)
        keys = [column for column in scope if column.args[1] in ("trace_id", "user_id")]
        return self.select((*keys, self.rng.choice(scope)), table, self.condition(1, scope))

    def scope(self, source):
        """The columns that a source gives."""
        match source:
            case Table(name, alias):
                return [Expr("column", kind, (alias, column)) for column, kind in NAMES[name].items()]
            case Derived(query, alias):
                return [Expr("column", kind, (alias, name)) for name, kind in zip(query.names(), query.types(), strict=True)]
            case Join(_, left, right, _):
                return self.scope(left) + self.scope(right)

    def unique(self, source, scope):
        """Columns that tell the rows of a source apart, as far as they are told apart at all."""
        match source:
            case Table(_, alias):
                return [Expr("column", "text", (alias, "id"))]
            case Derived():
                return self.scope(source)
            case Join(_, left, right, _):
                return self.unique(left, scope) + self.unique(right, scope)

    # Expressions.

    def condition(self, depth, scope):
        if not self.chance(0.7):
            return None
        self.filtering = True
        condition = self.boolean(depth + 1, scope)
        self.filtering = False
        return condition

    def condition_over(self, scope):
        return self.comparison(1, scope, "int")

    def expr(self, kind, depth, scope):
        columns = [column for column in scope if column.type == kind]
        if depth <= 0 or self.chance(0.25):
            return self.leaf(kind, columns)
        return {"int": self.integer, "text": self.text, "bool": self.boolean, "float": self.float}[kind](depth, scope)

    def leaf(self, kind, columns):
        if columns and self.chance(0.75):
            return self.rng.choice(columns)
        if self.chance(0.1):
            return null(kind)
        values = {"int": [-7, -1, 0, 1, 2, 3, 7, 42, 200, 2**53 + 1], "text": TEXTS + KEYS, "bool": [True, False],
                  "float": [-1.5, 0.0, 0.25, 1.5, 900.0]}
        return lit(self.rng.choice(values[kind]))

    def column(self, kind, scope):
        return self.leaf(kind, [column for column in scope if column.type == kind])

    def float(self, depth, scope):
        return self.pick(
            (2, lambda: self.column("float", scope)),
            (1, lambda: Expr("cast", "float", (self.column("int", scope),))),
            (1, lambda: self.either("float", depth, scope)),
            (1, lambda: Expr(self.rng.choice(["+", "-"]), "float",
                             (self.column("float", scope), self.column("float", scope)))),
        )

    def integer(self, depth, scope):
        def inner():
            return self.expr("int", depth - 1, scope)

        return self.pick(
            (3, lambda: Expr(self.rng.choice(["+", "-"]), "int", (inner(), inner()))),
            (1, lambda: Expr("*", "int", (inner(), lit(self.rng.choice([-1, 0, 2, 3]))))),
            (1, lambda: Expr(self.rng.choice(["/", "%"]), "int", (inner(), lit(self.rng.choice([-3, 2, 7, 10]))))),
            (1, lambda: Expr("neg", "int", (inner(),))),
            (1, lambda: Expr("call", "int", ("abs", (inner(),)))),
            (1, lambda: Expr("call", "int", (self.rng.choice(["length", "char_length", "octet_length", "ascii"]),
                                             (self.expr("text", depth - 1, scope),)))),
            (1, lambda: Expr("call", "int", ("strpos", (self.expr("text", depth - 1, scope), self.some_text())))),
            (1, lambda: Expr(self.rng.choice(["cast", "::"]), "int", (self.expr("bool", depth - 1, scope),))),
            (2, lambda: self.json_int(scope)),
            (2, lambda: self.either("int", depth, scope)),
            (1 if self.subqueries else 0, lambda: self.scalar_query("int", scope)),
        )

    def text(self, depth, scope):
        def inner():
            return self.expr("text", depth - 1, scope)

        def count():
            return lit(self.rng.randrange(5))

        return self.pick(
            (3, lambda: Expr("||", "text", (inner(), inner()))),
            (1, lambda: Expr("call", "text", (self.rng.choice(["upper", "lower", "trim", "ltrim", "rtrim", "reverse"]),
                                              (inner(),)))),
            (1, lambda: Expr("call", "text", ("substr", (inner(), lit(self.rng.randrange(1, 4)), count())))),
            (1, lambda: Expr("call", "text", (self.rng.choice(["left", "right"]), (inner(), count())))),
            (1, lambda: Expr("call", "text", ("replace", (inner(), self.some_text(), inner())))),
            (1, lambda: Expr("call", "text", ("split_part", (inner(), self.some_text(), lit(self.rng.randrange(1, 4)))))),
            (1, lambda: Expr("call", "text", ("concat", (inner(), inner())))),
            (1, lambda: self.concat_of_nulls(scope)),
            (1, lambda: Expr(self.rng.choice(["cast", "::"]), "text", (self.expr("int", depth - 1, scope),))),
            (3, lambda: self.json_text(scope)),
            (1, lambda: self.tag(scope)),
            (2, lambda: self.either("text", depth, scope)),
        )

    def concat_of_nulls(self, scope):
        """Null texts put together, of which one is found to be null only later."""
        branches = ((lit(True), null("text")), (self.column("bool", scope), self.column("text", scope)))
        later = Expr("case", "text", (branches, None))
        return Expr("call", "text", ("concat", (null("text"), later)))

    def some_text(self):
        """A text that is not empty."""
        return lit(self.rng.choice(["a", "g", "-", "_", "%", "\\", "'", "é", "4o", "ab", " "]))

    def boolean(self, depth, scope):
        if depth <= 0:
            return self.leaf("bool", [column for column in scope if column.type == "bool"])

        def inner():
            return self.boolean(depth - 1, scope)

        return self.pick(
            (5, lambda: self.comparison(depth, scope)),
            (3, lambda: Expr("and", "bool", (inner(), inner()))),
            (3, lambda: Expr("or", "bool", (inner(), inner()))),
            (2, lambda: Expr("not", "bool", (inner(),))),
            (2, lambda: Expr("is", "bool", (self.expr(self.kind(), depth - 1, scope),
                                            self.rng.choice(["null", "not null"])))),
            (1, lambda: Expr("is", "bool", (inner(), self.rng.choice(
                ["true", "not true", "false", "not false", "unknown", "not unknown"])))),
            (2, lambda: self.differs(depth, scope)),
            (1, lambda: self.between(depth, scope)),
            (2, lambda: self.member(depth, scope)),
            (2, lambda: self.like(depth, scope)),
            (1, lambda: self.matches(depth, scope)),
            (1, lambda: Expr("call", "bool", (self.rng.choice(["starts_with", "contains"]),
                                              (self.expr("text", depth - 1, scope), self.some_text())))),
            (1, lambda: self.either("bool", depth, scope)),
            (1, lambda: self.column("bool", scope)),
            (1, lambda: self.negation_cast(scope)),
            (1, lambda: self.two_lists(scope)),
            (1, lambda: self.exactly(scope)),
            (1 if self.filtering and self.subqueries else 0, lambda: self.member_of_query(depth, scope)),
            (1 if self.filtering and self.subqueries else 0, lambda: self.exists(scope)),
        )

    def negation_cast(self, scope):
        negated = Expr("not", "bool", (self.column("bool", scope),))
        return Expr(self.rng.choice(COMPARE), "bool", (Expr("cast", "int", (negated,)), lit(self.rng.randrange(2))))

    @contextlib.contextmanager
    def without_subqueries(self):
        before, self.subqueries = self.subqueries, False
        yield
        self.subqueries = before

    def kind(self):
        return self.rng.choice(TYPES)

    def comparison(self, depth, scope, kind=None):
        kind = kind or self.kind()
        sides = (self.expr(kind, depth - 1, scope), self.expr(kind, depth - 1, scope))
        return Expr(self.rng.choice(COMPARE), "bool", sides)

    def differs(self, depth, scope):
        kind = self.kind()
        sides = (self.expr(kind, depth - 1, scope), self.expr(kind, depth - 1, scope))
        return Expr("distinct", "bool", (*sides, self.chance(0.4)))

    def between(self, depth, scope):
        kind = self.rng.choice(["int", "text", "float"])
        sides = tuple(self.expr(kind, depth - 1, scope) for _ in range(3))
        return Expr("between", "bool", (*sides, self.chance(0.3)))

    def member(self, depth, scope):
        kind = self.kind()
        items = tuple(self.leaf(kind, []) for _ in range(self.rng.randrange(1, 5)))
        return Expr("in", "bool", (self.expr(kind, depth - 1, scope), items, self.chance(0.4)))

    def two_lists(self, scope):
        """Two lists of one column, whose values overlap or not."""
        kind = self.rng.choice(["int", "text", "float"])
        columns = [column for column in scope if column.type == kind]
        column = self.rng.choice(columns) if columns else self.leaf(kind, [])

        def one():
            items = tuple(self.leaf(kind, []) for _ in range(self.rng.randrange(1, 4)))
            member = Expr("in", "bool", (column, items, self.chance(0.5)))
            return Expr("not", "bool", (member,)) if self.chance(0.2) else member

        return Expr(self.rng.choice(["and", "or"]), "bool", (one(), one()))

    def exactly(self, scope):
        """A column is a constant, said twice."""
        kind = self.rng.choice(["int", "text", "float"])
        column, value = self.column(kind, scope), self.leaf(kind, [])
        once = Expr("=", "bool", self.rng.choice([(column, value), (value, column)]))
        again = self.rng.choice([(value, column, column, False), (column, value, value, False)])
        return Expr("and", "bool", (once, Expr("between", "bool", again)))

    def like(self, depth, scope):
        subject = self.expr("text", depth - 1, scope)
        escape = self.rng.choice([None, None, "\\", "!", "", "é", "a"])
        if self.chance(0.2):
            # Ends with no escape character, whichever it is.
            wanted = Expr("||", "text", (self.expr("text", depth - 1, scope), lit("%")))
            escape = self.rng.choice(["!", "", "#"])
        else:
            # Without an escape character, wildcards cannot be meant as themselves.
            texts = ["a", "g", "b", "4", "é", "-", "\\", "!", "gpx", "'"] + (["%", "_", "a%b"] if escape != "" else [])
            wanted = tuple(self.rng.choice([None, None, 1, self.rng.choice(texts), self.rng.choice(texts)])
                           for _ in range(self.rng.randrange(4)))
        return Expr("like", "bool", (subject, wanted, escape, self.chance(0.3), self.chance(0.3)))

    def matches(self, depth, scope):
        wanted = lit(self.rng.choice(["^g", "o$", "a.b", "[a-c]", "gpx|A", "\\d+", "^$"]))
        return Expr("~", "bool", (self.expr("text", depth - 1, scope), wanted))

    def either(self, kind, depth, scope):
        def inner():
            return self.expr(kind, depth - 1, scope)

        return self.pick(
            (1, lambda: Expr("call", kind, ("coalesce", (inner(), inner())))),
            (1, lambda: Expr("call", kind, ("nullif", (inner(), inner())))),
            (1 if kind in ("int", "text") else 0,
             lambda: Expr("call", kind, (self.rng.choice(["greatest", "least"]), (inner(), inner())))),
            (2, lambda: Expr("case", kind, (
                tuple((self.boolean(depth - 1, scope), inner()) for _ in range(self.rng.randrange(1, 3))),
                inner() if self.chance(0.6) else None))),
        )

    def body(self, scope):
        bodies = [column for column in scope if column.args[1] in BODIES]
        return self.rng.choice(bodies) if bodies else None

    def json_text(self, scope):
        body = self.body(scope)
        if body is None:
            return self.column("text", scope)
        path = self.rng.choice([["model"], ["s"], ["n"], ["flag"], ["t"], ["l"], ["t", "a"], ["t", "m"], ["l", 0],
                                ["l", 2], ["none"], ["none", "a"]])
        value = body
        for step in path[:-1]:
            value = Expr("->", "json", (value, lit(step)))
        return Expr("->>", "text", (value, lit(path[-1])))

    def json_int(self, scope):
        body = self.body(scope)
        if body is None:
            return self.column("int", scope)
        path = self.rng.choice([("n",), ("s",), ("t", "a"), ("l", 0), ("l", 1), ("model",), ("none",)])
        return Expr("json int", "int", (body, path))

    def tag(self, scope):
        aliases = [column.args[0] for column in scope if column.args[1] in BODIES]
        if not aliases:
            return self.column("text", scope)
        return Expr("tag", "text", (self.rng.choice(aliases), self.rng.choice(["k", "_user", "odd key", "none"])))

    # Subqueries.

    def scalar_query(self, kind, scope):
        table = Table(self.rng.choice(["logs", "feedback"]), self.alias())
        inner = self.scope(table)
        with self.without_subqueries():
            where, value = self.boolean(1, inner), self.aggregate(kind, inner)
        if self.chance(0.5):
            where = Expr("and", "bool", (self.correlated(inner, scope), where))
        return Expr("query", kind, (self.select((value,), table, where),))

    def member_of_query(self, depth, scope):
        kind = self.rng.choice(["text", "int"])
        table = Table(self.rng.choice(["logs", "feedback"]) if kind == "text" else "logs", self.alias())
        inner = self.scope(table)
        with self.without_subqueries():
            query = self.select((self.column(kind, inner),), table, self.boolean(1, inner))
        return Expr("in query", "bool", (self.column(kind, scope), query, self.chance(0.5)))

    def exists(self, scope):
        table = Table(self.rng.choice(["logs", "feedback"]), self.alias())
        inner = self.scope(table)
        with self.without_subqueries():
            where = self.boolean(1, inner)
        if self.chance(0.7):
            where = Expr("and", "bool", (self.correlated(inner, scope), where))
        found = Expr("exists", "bool", (self.select((lit(1),), table, where),))
        if self.chance(0.2):
            known = self.rng.choice(["null", "not null", "true", "not false"])
            return Expr("not", "bool", (Expr("is", "bool", (found, known)),))
        return found

    def correlated(self, inner, outer):
        mine = [column for column in inner if column.args[1] in ("trace_id", "user_id")]
        others = [column for column in outer if column.type == "text" and column.op == "column"]
        if not others:
            return lit(True)
        return Expr("=", "bool", (self.rng.choice(mine), self.rng.choice(others)))

    # Aggregates and windows.

    def plain_aggregate(self, name, *args):
        return Expr("aggregate", args[0].type if args else "int", (name, args, False, None, ()))

    def aggregate(self, kind, scope):
        where = self.boolean(1, scope) if self.chance(0.2) else None
        return self.pick(*{
            "int": [
                (2, lambda: Expr("aggregate", "int", ("count", ("*",), False, where, ()))),
                (1, lambda: Expr("aggregate", "int", ("count", (self.expr(self.kind(), 1, scope),), self.chance(0.5), where,
                                                      ()))),
                (2, lambda: Expr("aggregate", "int", (self.rng.choice(["sum", "min", "max"]), (self.expr("int", 1, scope),),
                                                      False, where, ()))),
            ],
            "float": [
                (1, lambda: Expr("aggregate", "float", ("avg", (self.column("int", scope),), False, where, ()))),
                (1, lambda: Expr("aggregate", "float", (self.rng.choice(["sum", "min", "max", "avg"]),
                                                        (self.column("float", scope),), False, where, ()))),
            ],
            "text": [
                (2, lambda: Expr("aggregate", "text", (self.rng.choice(["min", "max"]), (self.expr("text", 1, scope),),
                                                       False, where, ()))),
            ],
            "bool": [
                (1, lambda: Expr("aggregate", "bool", (self.rng.choice(["bool_and", "bool_or"]),
                                                       (self.boolean(1, scope),), False, where, ()))),
            ],
        }[kind])

    def window(self, scope, source, ranks=False):
        keys = [self.order_of(key) for key in self.unique(source, scope)]
        if self.chance(0.4):
            keys.insert(0, self.order_of(self.column(self.rng.choice(["int", "text"]), scope)))
        keys = tuple(key for key in keys if key.expr.op not in ("lit", "null"))
        columns = [column for column in scope if column.op == "column" and column.type in ("int", "text", "bool")]
        partition = tuple(self.rng.sample(columns, min(len(columns), self.rng.randrange(2))))
        value = self.column("int", scope)
        function, framed = self.pick(
            (2, lambda: (Expr("call", "int", (self.rng.choice(["row_number", "rank", "dense_rank"]), ())), False)),
            (1, lambda: (Expr("call", "int", ("ntile", (lit(self.rng.randrange(1, 5)),))), False)),
            (0 if ranks else 1, lambda: (Expr("call", "int", (self.rng.choice(["lag", "lead"]),
                                                              (value, lit(self.rng.randrange(1, 3))))), False)),
            (0 if ranks else 1, lambda: (Expr("call", "int", (self.rng.choice(["first_value", "last_value"]), (value,))), True)),
            (0 if ranks else 2, lambda: (self.plain_aggregate(self.rng.choice(["sum", "min", "max", "count"]), value), True)),
        )
        frame = self.rng.choice(WHOLE_FRAMES) if framed else None
        return Expr("window", "int", (function, partition, keys, frame))


def text_column(table, name):
    return Expr("column", "text", (table.alias, name))


def tables_only(source):
    match source:
        case Join(_, left, right, _):
            return tables_only(left) and tables_only(right)
    return isinstance(source, Table)


def has_column(expr):
    return expr.op in ("column", "tag") or any(has_column(part) for part in expr.parts())


def statement(seed):
    """The statement of a seed."""
    return Grammar(seed).statement()
