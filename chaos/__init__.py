"""Proof by breaking: what shows that a cluster keeps its promises while everything around it fails."""
