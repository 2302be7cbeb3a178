"""For each code of groups and metadata the smallest change that breaks that rule and no other."""

from __future__ import annotations

from tests.chaos.tape import Op, Tape


def _commits(tape: Tape, tp: str) -> list[Op]:
    return sorted((op for op in tape.of("commit") if tp in op.begin["offsets"]), key=lambda op: op.invoked)


def k28_read_what_was_replaced(tape: Tape) -> bool:
    """An offset is read that was replaced before the read began."""
    for read in tape.of("committed"):
        assert read.end is not None
        for tp in sorted(read.end["offsets"]):
            done = [op for op in _commits(tape, tp) if op.completed < read.invoked]
            for one in done:
                if any(one.completed < two.invoked for two in done):
                    read.end["offsets"][tp] = one.begin["offsets"][tp]
                    return True
    return False


def k28_read_what_failed(tape: Tape) -> bool:
    """An offset is read whose commit was refused."""
    for failed in tape.ops:
        if failed.function == "commit" and failed.outcome == "fail":
            for read in tape.of("committed"):
                assert read.end is not None
                for tp in failed.begin["offsets"]:
                    if tp in read.end["offsets"] and failed.invoked < read.completed:
                        read.end["offsets"][tp] = failed.begin["offsets"][tp]
                        return True
    return False


def k28_forget(tape: Tape) -> bool:
    """No offset is read although one was committed before."""
    for read in tape.of("committed"):
        assert read.end is not None
        for tp in sorted(read.end["offsets"]):
            if any(op.completed < read.invoked for op in _commits(tape, tp)):
                del read.end["offsets"][tp]
                return True
    return False


def k29_commit_after_the_next_owner(tape: Tape) -> bool:
    """Another member got the partition under a later generation, and the commit of the earlier one is taken."""
    for commit in tape.of("commit"):
        tp = min(commit.begin["offsets"])
        # Far beyond the others, so that no real owner has the generation of this one.
        told = {"group": commit.begin["group"], "member": "intruder", "gen": commit.begin["gen"] + 1000, "tps": [tp]}
        tape.tell("assign", commit.invoked - 1, "intruder", told)
        return True
    return False


def k30_own_both(tape: Tape) -> bool:
    """A partition is given to a second member in the same generation."""
    for given in tape.of("assign"):
        told = {**{name: given.begin[name] for name in ("group", "gen", "tps")}, "member": "intruder"}
        tape.tell("assign", given.invoked + 1, "intruder", told)
        return True
    return False


def k31_commit_too_far(tape: Tape) -> bool:
    """An offset is committed beyond what anybody was given."""
    for tp in tape.tps():
        visible = {row.offset for _, row in tape.rows(tp)}
        for commit in _commits(tape, tp):
            given = {
                row.offset for op, row in tape.rows(tp) if op.function == "poll" and op.completed <= commit.invoked
            }
            beyond = {offset for offset in visible - given if given and offset > max(given)}
            trimmed = max(op.begin["start"] for op in tape.dumps(tp))
            if beyond and max(beyond) >= trimmed:
                old, tag = commit.begin["offsets"][tp]
                position = [max(beyond) + 1, tag]
                commit.begin["offsets"][tp] = position
                for read in tape.of("committed"):
                    if read.end is not None and read.end["offsets"].get(tp) == [old, tag]:
                        read.end["offsets"][tp] = position
                return True
    return False


def k32_give_again(tape: Tape) -> bool:
    """A member is given the same records twice in a row."""
    for poll in tape.of("poll"):
        if poll.end is not None and poll.end["recs"]:
            told = {name: poll.end[name] for name in ("gen", "tps", "recs")}
            asked = {name: poll.begin[name] for name in ("group", "member")}
            tape.add("poll", poll.completed, poll.process, asked, told)
            return True
    return False


def k33_give_an_id_twice(tape: Tape) -> bool:
    """Two producers get the same id and epoch."""
    given = tape.of("init_pid")
    if len(given) < 2:
        return False
    one, two = (op.end for op in given[:2])
    assert one is not None
    assert two is not None
    two["pid"], two["epoch"] = one["pid"], one["epoch"]
    return True


def k33_go_back_to_an_epoch(tape: Tape) -> bool:
    """A producer gets an epoch below one that it got before."""
    for op in tape.of("init_pid"):
        assert op.end is not None
        if op.end["epoch"] == 0 and op.invoked > tape.began + 1_000_000:
            begin = tape.began
            tape.add("init_pid", begin, "earlier", {}, {"pid": op.end["pid"], "epoch": 7})
            return True
    return False


def k33_make_twice(tape: Tape) -> bool:
    """A topic that is there is made."""
    for op in tape.of("meta"):
        if op.begin["cmd"] == "create_topic" and op.begin["args"] == {"topic": "m", "life": 1}:
            args = {name: op.begin[name] for name in ("cmd", "args")}
            tape.add("meta", op.completed, "second", args | {"id": "again"}, {"result": "created"})
            return True
    return False
