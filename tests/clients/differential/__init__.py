"""Asks gatelog and DuckDB the same generated statements over the same rows.

`grammar` makes a statement as a tree from a seed, `write` writes it for either engine, `rows` puts the same rows into both,
`compare` asks both and compares, `shrink` makes a statement that differs smaller, `dialect` lists where the two differ on
purpose. `python -m differential --help` (in `tests/clients`) runs as many statements as one likes.
"""
