"""Workflows: definitions, and the engine that runs them durably.

`definition` reads what an author wrote and names every fault in it; `model` is what it becomes. `state` is
where a run stands, rebuilt from its journal; `flow` decides what comes next; both are pure. `engine` does the
rest: it journals, calls, parks and joins. Step types are plug-ins, one file each in `steps/`.
"""
