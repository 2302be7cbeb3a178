"""Cluster metadata: the state machine of `__cluster`, and the decisions that its leader writes into it.

`catalogue` holds what is; `decisions` turns requests into commands, with `placement` and `configs` for the two hard
parts. Everything is pure: state, randomness and time are passed in.
"""
