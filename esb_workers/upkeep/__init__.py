"""What must happen although nobody asks for it: timers, lost leases, expiry, partitions, retention.

All of it is SQL that any number of processes may run at once: rows are taken with SKIP LOCKED, so each timer fires
once however many schedulers tick. Nothing here goes through the broker.
"""
