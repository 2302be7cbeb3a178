"""What a node keeps: one database for all groups, and the few small files beside it.

    interface      the ordered key-value store a node needs: write now, sync later, know what a sync covers
    rocks, memory  its two implementations; tests/conformance holds them together
    keys, entry    what stands in it, drawn byte by byte
    group_log      the log of one group: what the Raft core reads and the node appends, cuts, installs and mends
                   (log_view: what can be asked; log_opening, log_ends, epochs, sparse_index, tail_cache: its parts;
                   group_read: its reads for a thread), and configurations, who votes as its entries say
    files, ...     identity, votes and watermark, outside the database so that they can judge it, and the opening
                   (judging: the verdict; salvage, replacing, blob_files: what becomes of a damaged database)

The order of durability: changes of all groups of one loop turn go into one batch, `write` makes them readable, one
`sync` in a thread makes them durable, and only then do messages and acknowledgements that rest on them leave. Nothing
here sends.
"""
