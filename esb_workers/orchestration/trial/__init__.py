"""Trials of definitions: the engine's own interpreter over mocked results and a clock that does not wait.

Nothing here touches a database or the network. `run.try_out` is the way in.
"""
