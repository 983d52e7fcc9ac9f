"""A statement as a tree.

An expression has an operator, a type (`int`, `float`, `text`, `bool`) and arguments, which are expressions or plain values.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Expr:
    op: str
    type: str
    args: tuple = ()

    def parts(self):
        """The expressions directly below."""
        return [arg for arg in flat(self.args) if isinstance(arg, Expr)]


def flat(args):
    for arg in args:
        if isinstance(arg, tuple):
            yield from flat(arg)
        else:
            yield arg


@dataclass(frozen=True)
class Table:
    """`logs` or `feedback` under an alias."""
    name: str
    alias: str


@dataclass(frozen=True)
class Derived:
    """A query in brackets under an alias."""
    query: object
    alias: str


@dataclass(frozen=True)
class Join:
    kind: str
    left: object
    right: object
    on: Expr | None


@dataclass(frozen=True)
class Order:
    expr: Expr
    descending: bool = False
    nulls_first: bool | None = None


@dataclass(frozen=True)
class Select:
    """One SELECT; `items` are its columns, named by a prefix that no other SELECT has."""
    items: tuple
    source: object
    prefix: str
    where: Expr | None = None
    group: tuple = ()
    having: Expr | None = None
    distinct: bool = False
    order: tuple = ()
    limit: int | None = None
    offset: int | None = None
    # Whether each row stands in a given place; otherwise rows are compared as a multiset.
    ordered: bool = False
    # Whether only the number of rows is given: a limit without an order.
    counted: bool = False

    def types(self):
        return [item.type for item in self.items]

    def names(self):
        return [f"{self.prefix}_{place}" for place in range(len(self.items))]


@dataclass(frozen=True)
class Combined:
    """UNION, INTERSECT or EXCEPT of two queries."""
    kind: str
    left: object
    right: object
    order: tuple = ()
    limit: int | None = None
    offset: int | None = None
    ordered: bool = False
    counted: bool = False

    def types(self):
        return self.left.types()

    def names(self):
        return self.left.names()


def lit(value):
    types = {bool: "bool", int: "int", float: "float", str: "text"}
    return Expr("lit", types[type(value)], (value,))


def null(kind):
    return Expr("null", kind)

