"""Consumer groups under random trouble and seeds drawn now: `python -m tests.mutants.random_groups SECONDS [SEED]`.
Exit code 1 when a promise was broken.
"""

from __future__ import annotations

import sys

from tests.mutants.searching import search
from tests.node.groups.test_random_groups import (
    test_whatever_happens_to_a_group_it_reads_everything_under_one_owner_at_a_time as read_everything,
)

if __name__ == "__main__":
    sys.exit(search(read_everything))
