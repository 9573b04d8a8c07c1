"""The languages of the bus: topic patterns, event patterns, CEL, templates, JSON Schema.

Pure: nothing here reads a clock, a socket or a database. Everything a caller writes in one of these languages
is compiled when it is saved, so that a fault is refused with its position, and evaluated later without parsing.
"""
