"""What clients asked and were told during a run: the events, their writing, their reading.

A history is one file of JSON lines for each client process, `history/PROCESS.jsonl`. An operation is an `invoke` line
and at most one completion:

    {"t": nanoseconds, "p": process, "s": number, "e": "invoke" | "ok" | "fail" | "info", "f": function, ...}

`t` is CLOCK_MONOTONIC of one machine, `s` counts the operations of a process, one of which is open at a time. **ok**:
done. **fail**: certainly not done. **info**: nobody knows, at once or ever; so is an operation without a completion.
After info a process is retired and its thread goes on under another name. A read that fails leaves no trace. Lines
with any other `e` are for people. By function:

    produce       invoke: tp, vals[], acks, batch (they are one batch), [idempotent (true)], [pid, epoch, base_seq]
                  ok: base_offset, term, dup, [pid, epoch, base_seq, node]
    fetch         invoke: tp, from, max, node, consistency ("leader" | "follower"), session
                  ok: recs[[off, val, term, pid, epoch, seq]], hw, start, leader_term, [node]
    list_offsets  invoke: tp, node    ok: start, hw, term, [node]
    poll          invoke: group, member    ok: gen, tps[], recs[[tp, off, val]]
    assign        a line with "ok" alone: group, member, gen, tps[], as is `revoke`
    commit        invoke: group, member, gen, offsets {tp: [off, tag]}, a tag being used once
    committed     invoke: group    ok: offsets {tp: [off, tag]}
    init_pid      ok: pid, epoch
    meta          invoke: cmd, id, args    ok: result
    final_read    a line with "ok" alone: node, tp, recs[[off, term, pid, epoch, seq, val, digest]], start, hw, commit;
                  with "fail" alone (node, tp) where it could not be read
    nemesis       invoke, when a fault begins: kind, targets, params, seed    ok, when it ends: bit

Offsets of a log are contiguous; `hw` and `commit` are exclusive. A `session` of fetches stays with one process of one
node. `tp` is topic/partition with the topic's life in it: "orders/0", and "orders@2/0" after the topic was deleted
and made again. Topics are made and deleted by meta with cmd "create_topic" and "delete_topic" and args
{"topic": "orders", "life": 2}; ok has as its result "created", "exists", "deleted" or "missing". Terms, producers,
sequences and digests may be null where they are not known.
"""
