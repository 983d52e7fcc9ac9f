"""Makes a statement that differs smaller, as long as it differs."""

from dataclasses import replace

from .tree import Combined, Derived, Expr, Join, Select, lit, null

MAX_TRIES = 400


def shrink(query, differs):
    """The smallest statement that was found."""
    tries = 0
    while True:
        for smaller in candidates(query):
            tries += 1
            if tries > MAX_TRIES:
                return query
            if valid(smaller) and differs(smaller) is not None:
                query = smaller
                break
        else:
            return query


def valid(query):
    return not isinstance(query, Select) or bool(query.items)


def candidates(query):
    """Statements that are smaller by one step."""
    if isinstance(query, Combined):
        if not query.order:
            yield from (query.left, query.right)
        else:
            yield replace(query, limit=None, offset=None)
            yield replace(query, order=(), limit=None, offset=None, ordered=False)
        yield from (replace(query, left=smaller) for smaller in candidates(query.left) if same_types(smaller, query.left))
        yield from (replace(query, right=smaller) for smaller in candidates(query.right) if same_types(smaller, query.right))
        return
    for name in ["where", "having", "offset", "limit"]:
        if getattr(query, name) is not None:
            yield replace(query, **{name: None})
    if query.order and query.limit is None and query.offset is None:
        yield replace(query, order=(), ordered=False)
    if query.distinct:
        yield replace(query, distinct=False)
    if len(query.items) > 1 and not query.distinct:
        for place, item in enumerate(query.items):
            if item not in query.group:
                yield replace(query, items=query.items[:place] + query.items[place + 1:])
    for source in sources(query.source):
        yield replace(query, source=source)
    if query.where is not None:
        yield from (replace(query, where=smaller) for smaller in smaller_exprs(query.where))
    if not query.group and not query.distinct:
        for place, item in enumerate(query.items):
            for smaller in smaller_exprs(item):
                yield replace(query, items=query.items[:place] + (smaller,) + query.items[place + 1:])


def same_types(one, other):
    return one.types() == other.types()


def sources(source):
    match source:
        case Join(kind, left, right, on):
            if on is not None and on.op == "and":
                yield replace(source, on=on.args[0])
            yield from (replace(source, right=smaller) for smaller in sources(right))
        case Derived(query, _):
            for smaller in candidates(query):
                if same_types(smaller, query):
                    yield replace(source, query=smaller)


def smaller_exprs(expr):
    """Expressions of the same type that are smaller."""
    for part in expr.parts():
        if part.type == expr.type and part.op != "aggregate":
            yield part
    if expr.op not in ("lit", "null", "column", "aggregate", "window", "exists", "->"):
        yield null(expr.type)
        if expr.type == "bool":
            yield lit(True)
    if expr.op in ("query", "exists", "in query"):
        place = 1 if expr.op == "in query" else 0
        for smaller in candidates(expr.args[place]):
            # A scalar subquery has one row as long as it aggregates.
            if same_types(smaller, expr.args[place]) and (expr.op != "query" or smaller.items[0].op == "aggregate"):
                yield replace(expr, args=expr.args[:place] + (smaller,) + expr.args[place + 1:])
    for place, arg in enumerate(expr.args):
        if isinstance(arg, Expr):
            for smaller in smaller_exprs(arg):
                yield replace(expr, args=expr.args[:place] + (smaller,) + expr.args[place + 1:])
        elif isinstance(arg, tuple):
            for inner, item in enumerate(arg):
                if isinstance(item, Expr):
                    for smaller in smaller_exprs(item):
                        changed = arg[:inner] + (smaller,) + arg[inner + 1:]
                        yield replace(expr, args=expr.args[:place] + (changed,) + expr.args[place + 1:])

