"""For each code of partitions the smallest change that makes a legal history break that rule and no other.

Each takes a tape and returns whether it found something to break.
"""

from __future__ import annotations

from tests.chaos.tape import Op, Row, Tape


def wide(tape: Tape, tp: str) -> range:
    """Offsets that every replica has in the end, and that nobody was told to be trimmed."""
    starts = [dump.begin["start"] for dump in tape.dumps(tp)]
    starts += [op.end["start"] for op in tape.of("fetch", "list_offsets", tp=tp) if op.end is not None]
    return range(max(starts), min(dump.begin["hw"] for dump in tape.dumps(tp)))


def unnumbered(tape: Tape, tp: str) -> dict[int, str]:
    """Records without a producer id that stand at one offset alone: they can go without leaving a gap in sequences."""
    places: dict[str, set[int]] = {}
    numbered = set()
    for _, row in tape.rows(tp):
        places.setdefault(row.value, set()).add(row.offset)
        if row.pid is not None:
            numbered.add(row.value)
    last = {row.value for op, row in tape.rows(tp) if op.function == "final_read" and row.pid is None}
    return {min(at): value for value, at in places.items() if value in last - numbered and len(at) == 1}


def writer(tape: Tape, value: str) -> Op:
    """Who wrote a value."""
    return next(op for op in tape.ops if op.function == "produce" and value in op.begin["vals"])


def k1_lose(tape: Tape) -> bool:
    """A record that was acknowledged is nowhere."""
    for tp in tape.tps():
        for offset, value in unnumbered(tape, tp).items():
            if offset in wide(tape, tp) and writer(tape, value).ok:
                tape.drop_rows(tp, lambda _, row, value=value: row.value == value)  # type: ignore[misc]
                return True
    return False


def k1_lose_the_end(tape: Tape) -> bool:
    """All replicas end before a record that was acknowledged; nobody had read it."""
    for tp in tape.tps():
        dumps = tape.dumps(tp)
        end = max(dump.begin["hw"] for dump in dumps)
        offset = end - 1
        value = next(Row("final_read", dump.begin["recs"][-1]).value for dump in dumps if dump.begin["recs"])
        last = [row for op, row in tape.rows(tp) if op.function != "final_read" and row.offset == offset]
        op = writer(tape, value)
        if last or not op.ok or len(op.begin["vals"]) > 1 or not op.begin.get("idempotent", True):
            continue
        for dump in dumps:
            del dump.begin["recs"][-1]
            dump.begin["hw"] -= 1
            dump.begin["commit"] = None
        return True
    return False


def k2_double(tape: Tape) -> bool:
    """A record of an idempotent producer is there twice."""
    for tp in tape.tps():
        for op in tape.of("produce", tp=tp):
            if op.begin.get("idempotent", True) and op.end is not None and op.end["base_offset"] in wide(tape, tp):
                tape.append_to_dumps(tp, op.begin["vals"][0], None, None, None)
                return True
    return False


def k3_contradict(tape: Tape) -> bool:
    """A fetch has another value than an earlier one at the same offset."""
    for tp in tape.tps():
        seen: set[int] = set()
        for fetch in sorted(tape.of("fetch", tp=tp), key=lambda op: op.invoked):
            assert fetch.end is not None
            for raw in fetch.end["recs"]:
                if raw[0] in seen:
                    raw[1] = tape.ghost(tp, tape.began)
                    return True
                seen.add(raw[0])
    return False


def k4_append_what_was_refused(tape: Tape) -> bool:
    """A record whose writer was told that it was not appended is in the log."""
    for tp in tape.tps():
        tape.append_to_dumps(tp, tape.ghost(tp, tape.last, "fail"), None, None, None)
        return True
    return False


def k5_corrupt(tape: Tape) -> bool:
    """One character of a record is another one when it is fetched."""
    for fetch in tape.of("fetch"):
        assert fetch.end is not None
        for raw in fetch.end["recs"]:
            raw[1] = raw[1][:-1] + ("0" if raw[1][-1] != "0" else "1")
            return True
    return False


def k5_misroute(tape: Tape) -> bool:
    """A fetch returns a record of another partition."""
    values = {op.begin["tp"]: op.begin["vals"][0] for op in tape.of("produce")}
    for fetch in tape.of("fetch"):
        other = [value for tp, value in values.items() if tp != fetch.begin["tp"]]
        assert fetch.end is not None
        if fetch.end["recs"] and other:
            fetch.end["recs"][0][1] = other[0]
            return True
    return False


def _swap(tape: Tape, *, same_process: bool) -> bool:
    for tp in tape.tps():
        offsets = unnumbered(tape, tp)
        at: dict[int, Op] = {}
        for op in tape.of("produce", tp=tp):
            assert op.end is not None
            if len(op.begin["vals"]) == 1:
                at[op.end["base_offset"]] = op
        for offset in offsets:
            for one, two in ((offset, offset + 1), (offset - 1, offset)):
                if one not in at or two not in at or one not in wide(tape, tp) or two not in wide(tape, tp):
                    continue
                first, second = at[one], at[two]
                if first.completed < second.invoked and (first.process == second.process) is same_process:
                    if same_process and not {one, two} <= offsets.keys():
                        continue  # their sequences would be in disorder as well
                    if _exchange(tape, tp, first, second):
                        return True
    return False


def _exchange(tape: Tape, tp: str, first: Op, second: Op) -> bool:
    """Let two neighbours have each other's place everywhere. Who could have told them apart earlier has not looked."""
    assert first.end is not None
    assert second.end is not None
    one, two = first.end["base_offset"], second.end["base_offset"]
    early = [op for op in tape.of("fetch", "list_offsets", tp=tp) if op.invoked < second.completed]
    polled = [op for op, row in tape.rows(tp) if op.function == "poll" and row.offset in (one, two)]
    if any(op.invoked < second.completed for op in polled):
        return False
    tape.forget(early)
    first.end["base_offset"], second.end["base_offset"] = two, one
    by_read: dict[int, dict[int, Row]] = {}
    for op, row in tape.rows(tp):
        if row.offset in (one, two):
            by_read.setdefault(id(op), {})[row.offset] = row
    rows = {
        row.offset: {name: getattr(row, name) for name in ("value", "pid", "epoch", "sequence", "digest")}
        for op, row in tape.rows(tp)
        if op.function == "final_read" and row.offset in (one, two)
    }
    for found in by_read.values():
        for offset, row in found.items():
            row.put(**rows[two if offset == one else one])
    return True


def k6_reorder(tape: Tape) -> bool:
    """A record stands before one that was acknowledged before its writing began."""
    return _swap(tape, same_process=False)


def k7_reorder_a_process(tape: Tape) -> bool:
    """Two records of one process stand in the wrong order."""
    return _swap(tape, same_process=True)


def k8_swap_inside(tape: Tape) -> bool:
    """Records of one batch, which was not acknowledged, stand in another order."""
    for tp in tape.tps():
        there = {row.value for _, row in tape.rows(tp)}
        for op in tape.ops:
            if op.function == "produce" and op.begin["batch"] and op.outcome == "info":
                values = op.begin["vals"]
                if len(values) > 1 and values[0] in there and values[1] in there:
                    for _, row in tape.rows(tp):
                        if row.value in values[:2]:
                            row.put(value=values[1 - values.index(row.value)])
                    return True
    return False


def k8_change_term_inside(tape: Tape) -> bool:
    """The last record of the log, which belongs to a batch, has a later term than the rest of it."""
    for tp in tape.tps():
        end = max(dump.begin["hw"] for dump in tape.dumps(tp))
        value = next(row.value for _, row in tape.rows(tp) if row.offset == end - 1)
        op = writer(tape, value)
        if op.begin["batch"] and len(op.begin["vals"]) > 1 and end - 2 in wide(tape, tp):
            for _, row in tape.rows(tp):
                if row.offset == end - 1 and row.term is not None:
                    row.put(term=row.term + 1)
            return True
    return False


def k9_leave_out(tape: Tape) -> bool:
    """A fetch leaves out a record from its middle."""
    for fetch in tape.of("fetch"):
        assert fetch.end is not None
        if len(fetch.end["recs"]) > 2:
            gone = fetch.end["recs"].pop(len(fetch.end["recs"]) // 2)
            if any(row.offset == gone[0] for _, row in tape.rows(fetch.begin["tp"])):
                return True
            fetch.end["recs"].insert(len(fetch.end["recs"]) // 2, gone)
    return False


def k9_begin_late(tape: Tape) -> bool:
    """A fetch begins after the offset that it was asked for."""
    for fetch in tape.of("fetch"):
        assert fetch.end is not None
        if len(fetch.end["recs"]) > 1:
            gone = fetch.end["recs"].pop(0)
            if any(row.offset == gone[0] for _, row in tape.rows(fetch.begin["tp"])):
                return True
            fetch.end["recs"].insert(0, gone)
    return False


def k9_leave_out_of_a_poll(tape: Tape) -> bool:
    """A poll leaves out a record that another member was given long ago."""
    for poll in sorted(tape.of("poll"), key=lambda op: op.invoked, reverse=True):
        assert poll.end is not None
        for place, raw in enumerate(poll.end["recs"][:-1]):
            tp, offset = raw[0], raw[1]
            if poll.end["recs"][place + 1][0] != tp or offset not in wide_or_none(tape, tp):
                continue
            first = place == 0 or poll.end["recs"][place - 1][0] != tp
            given = [
                op
                for op, row in tape.rows(tp)
                if op.function == "poll" and row.offset == offset and op.completed < poll.invoked
            ]
            if given and not first:
                del poll.end["recs"][place]
                return True
    return False


def wide_or_none(tape: Tape, tp: str) -> range:
    """As `wide`; nothing where not all replicas could be read."""
    return wide(tape, tp) if tape.dumps(tp) else range(0)


def k10_list_too_little(tape: Tape) -> bool:
    """A leader lists an end below what was acknowledged before."""
    for listing in tape.of("list_offsets"):
        assert listing.end is not None
        known = [
            op.end["base_offset"] + len(op.begin["vals"])
            for op in tape.of("produce", tp=listing.begin["tp"])
            if op.completed < listing.invoked and op.end is not None and op.begin.get("idempotent", True)
        ]
        if known and max(known) - 1 >= listing.end["start"]:
            listing.end["hw"] = max(known) - 1
            return True
    return False


def k10_go_back_in_a_session(tape: Tape) -> bool:
    """A replica says that its log ends before where it said that it ends."""
    for fetch in tape.of("fetch"):
        assert fetch.end is not None
        if fetch.begin["consistency"] == "follower" and not fetch.end["recs"]:
            before = [
                op.end["hw"]
                for op in tape.of("fetch")
                if op.begin["session"] == fetch.begin["session"] and op.completed < fetch.invoked and op.end is not None
            ]
            if before and max(before) - 1 >= max(fetch.end["start"], fetch.begin["from"]):
                fetch.end["hw"] = max(before) - 1
                return True
    return False


def k10_leader_forgets(tape: Tape) -> bool:
    """A leader says less than it said and acknowledged itself in the same term."""
    for fetch in tape.of("fetch"):
        assert fetch.end is not None
        if fetch.begin["consistency"] == "leader" and not fetch.end["recs"]:
            leadership = (fetch.begin["node"], fetch.end["leader_term"])
            before = [
                op.end["hw"]
                for op in tape.of("list_offsets", tp=fetch.begin["tp"])
                if op.end is not None
                and (op.end["node"], op.end["term"]) == leadership
                and op.completed < fetch.invoked
            ]
            if before and max(before) - 1 >= fetch.end["start"]:
                fetch.end["hw"] = max(before) - 1
                return True
    return False


def k11_read_past_the_end(tape: Tape) -> bool:
    """The first fetch of a session returns a record at the end that it tells."""
    sessions = set()
    for fetch in sorted(tape.of("fetch"), key=lambda op: op.invoked):
        assert fetch.end is not None
        new = fetch.begin["session"] not in sessions
        sessions.add(fetch.begin["session"])
        if new and fetch.begin["consistency"] == "follower" and len(fetch.end["recs"]) > 1:
            fetch.end["hw"] = fetch.end["recs"][-1][0]
            return True
    return False


def k12_lose_what_was_read(tape: Tape) -> bool:
    """A record that was read is in no replica."""
    for tp in tape.tps():
        read = {row.value for op, row in tape.rows(tp) if op.function != "final_read"}
        for offset, value in unnumbered(tape, tp).items():
            if offset in wide(tape, tp) and value in read:
                tape.drop_rows(tp, lambda op, row, value=value: op.function == "final_read" and row.value == value)  # type: ignore[misc]
                return True
    return False


def k13_two_leaders(tape: Tape) -> bool:
    """Another node acknowledges in the same term."""
    for op in tape.of("produce"):
        assert op.end is not None
        if op.end.get("node") is None or op.end["dup"]:
            continue
        for other in tape.of("list_offsets", tp=op.begin["tp"]):
            if other.end is not None and other.end["term"] == op.end["term"]:
                op.end["node"] = other.end["node"] % 3 + 1
                return True
    return False


def k13_two_terms(tape: Tape) -> bool:
    """A record has another term when it is fetched again."""
    for tp in tape.tps():
        seen: set[int] = set()
        for fetch in sorted(tape.of("fetch", tp=tp), key=lambda op: op.invoked):
            assert fetch.end is not None
            for raw in fetch.end["recs"]:
                if raw[0] in seen:
                    raw[2] += 1
                    return True
                seen.add(raw[0])
    return False


def k14_trim_early(tape: Tape) -> bool:
    """A log begins later although everything is kept."""
    if tape.run["retention"] is not None:
        return False
    latest = max(tape.of("list_offsets"), key=lambda op: op.invoked)
    assert latest.end is not None
    if latest.end["hw"] < 1:
        return False
    latest.end["start"] = 1
    return True


def k14_trim_young(tape: Tape) -> bool:
    """A log begins after a record that is younger than what is kept."""
    if tape.run["retention"] is None or set(tape.run["retention"]) != {"ms"}:
        return False
    tape.run["retention"] = {"ms": 1000}
    return any(dump.begin["start"] > 0 for tp in tape.tps() for dump in tape.dumps(tp))


def k14_begin_earlier_again(tape: Tape) -> bool:
    """A leader lists a beginning below the one that was listed before."""
    listings = sorted(tape.of("list_offsets"), key=lambda op: op.invoked, reverse=True)
    for later in listings:
        for earlier in listings:
            assert earlier.end is not None
            assert later.end is not None
            same = earlier.begin["tp"] == later.begin["tp"]
            if same and earlier.completed < later.invoked and earlier.end["start"] > 0:
                later.end["start"] = earlier.end["start"] - 1
                return True
    return False


def k15_stay_behind(tape: Tape) -> bool:
    """A replica lacks the last record after everything was healed."""
    for tp in tape.tps():
        line = tape.rng.choice(tape.dumps(tp)).begin
        if len(line["recs"]) > 1:
            del line["recs"][-1]
            line["hw"] -= 1
            line["commit"] = None
            return True
    return False


def k15_never_commit(tape: Tape) -> bool:
    """All replicas have the last record, which was acknowledged, and none counts it as committed."""
    for tp in tape.tps():
        dumps = tape.dumps(tp)
        end = max(dump.begin["hw"] for dump in dumps)
        read = [row for op, row in tape.rows(tp) if op.function != "final_read" and row.offset == end - 1]
        value = next(row.value for _, row in tape.rows(tp) if row.offset == end - 1)
        op = writer(tape, value)
        if read or not op.ok or not op.begin.get("idempotent", True):
            continue
        for dump in dumps:
            dump.begin["hw"] -= 1
            dump.begin["commit"] = None
        return True
    return False


def k16_differ(tape: Tape) -> bool:
    """The bytes of a record are others on one replica."""
    for tp in tape.tps():
        line = tape.rng.choice(tape.dumps(tp)).begin
        tape.rng.choice(line["recs"])[6] = "another digest"
        return True
    return False


def k16_lack(tape: Tape) -> bool:
    """One replica lacks a record from its middle."""
    for tp in tape.tps():
        dump = tape.rng.choice(tape.dumps(tp))
        for offset in unnumbered(tape, tp):
            if offset in wide(tape, tp):
                line = dump.begin
                line["recs"] = [raw for raw in line["recs"] if raw[0] != offset]
                return True
    return False


def k17_skip_a_sequence(tape: Tape) -> bool:
    """The last record of a producer has not the sequence that is due."""
    for tp in tape.tps():
        numbered = [raw for raw in tape.dumps(tp)[0].begin["recs"] if raw[2] is not None]
        if len(numbered) < 2 or not any(raw[2:4] == numbered[-1][2:4] for raw in numbered[:-1]):
            continue
        for dump in tape.dumps(tp):
            for raw in dump.begin["recs"]:
                if raw[0] == numbered[-1][0]:
                    raw[4] += 1
        return True
    return False


def k18_write_as_zombie(tape: Tape) -> bool:
    """A producer's former self appends after its later self."""
    for tp in tape.tps():
        recs = tape.dumps(tp)[0].begin["recs"]
        for _, _, pid, epoch, _, _, _ in recs:
            if epoch:
                earlier = [raw[4] for raw in recs if raw[2] == pid and raw[3] == epoch - 1]
                value = tape.ghost(tp, tape.last)
                tape.append_to_dumps(tp, value, pid, epoch - 1, max(earlier, default=-1) + 1)
                return True
    return False


def k19_acknowledge_elsewhere(tape: Tape) -> bool:
    """An acknowledgement has not the offset at which the record stands."""
    for tp in tape.tps():
        for op in tape.of("produce", tp=tp):
            assert op.end is not None
            if op.begin.get("idempotent", True) and op.end["base_offset"] - 1 in wide(tape, tp):
                op.end["base_offset"] -= 1
                return True
    return False


def k23_read_before_it_was_written(tape: Tape) -> bool:
    """A record is read by a fetch that is completed before its writing begins."""
    for tp in tape.tps():
        for fetch in tape.of("fetch", tp=tp):
            assert fetch.end is not None
            if not fetch.end["recs"]:
                continue
            offset, value = fetch.end["recs"][-1][:2]
            op = writer(tape, value)
            late = fetch.completed + 1
            further = [one for one, row in tape.rows(tp) if row.offset > offset and one.completed < late]
            acknowledged = [
                one
                for one in tape.of("produce", tp=tp)
                if one.end is not None
                and one.end["base_offset"] + len(one.begin["vals"]) > offset
                and one.completed < late
            ]
            if len(op.begin["vals"]) == 1 and op.completed > late and not further and not acknowledged:
                op.begin["t"] = late
                return True
    return False
