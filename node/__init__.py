"""One server process of the cluster."""
