"""SQL and nothing else: the only package that speaks to PostgreSQL.

Two ways in, both from `Database`. `cursor()` lends a raw psycopg2 cursor in autocommit: one call of one SQL
function is one round trip and one transaction; the hot paths use it. `transaction()` lends a SQLAlchemy Core
connection inside a transaction; everything else uses that. No module here decides anything about messages or
workflows: it is told, and records.
"""
