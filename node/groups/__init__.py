"""Consumer groups: the state machine of a `__groups` partition, and the coordinator that its leader runs.

Rebalancing is incremental, by epochs (KIP-848 in spirit). `group_epoch` rises when members or subscriptions change; the
leader writes a *target* for it, made by the `assignor`; members move towards the target one partition at a time. A
member that owns a partition outside its target is asked to release it, and the partition reaches its new owner in the
same command that applies the release, or the removal of the old owner. Partitions that do not move never pause.

`state` is what all replicas agree on; `coordinator` is the leader alone: streams, pings, timeouts, and what to propose.
Everything is pure: `now`, randomness, proposing and sending are passed in.
"""
