"""Routing: which routes take a message, in which form, for which destinations.

`table`, `matching`, `route`, `strategies` and `transform` are pure: a message and compiled routes in, matches
out. `tasks` claims messages, asks them, and inserts the deliveries in one transaction, so that a worker killed
half-way leaves nothing behind and a message is never routed twice.
"""
