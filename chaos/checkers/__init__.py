"""What may not be in a history. A file for each family of anomalies; `all.py` lists them.

A checker is a pure function from the evidence of a run to anomalies. Its docstring is its rule. Whatever a rule cannot
know (an outcome that nobody was told, a record that was trimmed, a replica that could not be read) speaks for the
cluster: an anomaly is a proof.
"""
