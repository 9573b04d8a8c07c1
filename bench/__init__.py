"""How fast the bus is, beside what a user would write instead, in one run on one machine.

`python -m bench` needs nothing but the `bench` extra. All traffic stays on loopback and is bounded.
"""
