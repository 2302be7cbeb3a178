"""Whole clusters in one thread under virtual time: the shipped brokers, replicas, storage rules and client cores over
disks in memory and a heap for a network, under faults that are drawn from a seed.

Nothing here is a model of the product. What a node does between a message and the answers to it is the shipped code;
what this package adds is what the machine adds: time, disks that lose what was not synced, a network that loses,
doubles and delays, and an eye on everything that must hold.
"""
