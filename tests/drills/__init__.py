"""Fault drills: a whole bus, a fault, and proof from the receivers' own log that nothing was lost or doubled.

    python -m tests.drills                all of them
    python -m tests.drills kill-worker 7  some, by name or number
    python -m tests.drills --times 3      each several times in a row
    python -m tests.drills --list         what there is

Each drill starts `esb up` on ports and in a folder of its own, sends uniquely numbered messages from concurrent
senders, injects its fault, heals it, waits until nothing is under way any more, and has `checker` judge the history.
"""
