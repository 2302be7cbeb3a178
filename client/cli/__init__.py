"""The `quorumlog` program: one file per noun.

Each verb is a function that adds its arguments to an `argparse` parser and sets `run`, which takes the parsed arguments
and returns the exit code; packages of their own add verbs through the entry-point group `quorumlog.commands`.

Exit codes: 0 done, 1 failed, 2 the command itself is wrong (or needs something that is not installed), 130 interrupted
by Ctrl-C, 141 whoever read the output has gone away. Results go to standard output; errors, hints and progress to
standard error, progress only where that is a terminal.
"""
