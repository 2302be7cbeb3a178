"""`quorumlog bench`: what a cluster does per second, and how long one record takes.

The payloads are random bytes, so that nothing on the way is spared work by compressing them. Rates count acknowledged
records between the first send and the last acknowledgement.
"""
