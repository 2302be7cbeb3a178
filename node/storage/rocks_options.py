"""How RocksDB is tuned: little memory when idle, space given back after retention, stalls that can be seen coming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options

from quorumlog.node.storage.interface import Family

LEVEL_ZERO_SLOWDOWN_FILES: Final = 20
"""RocksDB slows writes down at this many files in level 0, which under no_slowdown means that it refuses them."""

PENDING_COMPACTION_SLOWDOWN_BYTES: Final = 8 << 30
"""The same for data that waits for compaction."""

_MEMTABLES_MAX: Final = 5
MEMTABLES_FULL_MAX: Final = _MEMTABLES_MAX - 1
"""The same for full memtables that wait for their flush."""

_LEVEL_ZERO_COMPACTION_FILES: Final = 4
_LEVEL_ZERO_STOP_FILES: Final = 36
_BLOB_BYTES_MIN: Final = 4096
"""Values from this size on go to blob files, which compaction does not rewrite: a small batch is cheap to rewrite, and
reading many of them back to back is faster from a table."""

_BLOB_FILE_BYTES: Final = 64 << 20
BLOB_GARBAGE_AGE: Final = 0.5
"""Background compaction moves what lives in the older half of the blob files, so that one group's old entries do not
keep a file that all others have left."""

BLOB_GARBAGE_AGE_OPTION: Final = "blob_garbage_collection_age_cutoff"
"""RocksDB's name of that share, which can be changed while the database is open."""

_INFO_LOG_BYTES: Final = 1 << 20
_INFO_LOG_FILES: Final = 3
_MANIFEST_BYTES: Final = 4 << 20
_OPEN_FILES_MAX: Final = 512
_SMOOTHING_BYTES: Final = 1 << 20
_BACKGROUND_JOBS: Final = 2


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """What RocksDB may use. Memtables are allotted as they fill, so an idle node has next to none of it."""

    log_memtable_bytes: int = 16 << 20
    """One memtable of the LOG family, of up to five: the size of a level 0 file and of a blob file's portion. Of META
    as well, which gets the end of a log with every append: all families are flushed when one memtable is full."""

    other_memtable_bytes: int = 4 << 20
    """One memtable of another family."""

    memtables_bytes: int = 96 << 20
    """All memtables together; beyond it the fullest one is flushed."""

    wal_bytes: int = 128 << 20
    """Write-ahead log that may wait; beyond it the family with the oldest unflushed write is flushed. Without a bound a
    family that is hardly written would keep every log file alive."""

    block_cache_bytes: int = 16 << 20
    """Blocks, indexes and filters of all families."""


DEFAULT_MEMORY: Final = MemoryBudget()


def database_options(memory: MemoryBudget, recovery: DBRecoveryMode) -> Options:
    """Options of the database as a whole."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_wal_recovery_mode(recovery)
    options.set_paranoid_checks(True)
    # All families are flushed at one point of the write order: when the log is lost or cut by damage, what is left is
    # still a prefix of the batches, and the opening does not stumble over one family that is ahead of the log.
    options.set_atomic_flush(True)
    options.set_db_write_buffer_size(memory.memtables_bytes)
    options.set_max_total_wal_size(memory.wal_bytes)
    options.set_max_background_jobs(_BACKGROUND_JOBS)
    options.set_max_open_files(_OPEN_FILES_MAX)
    options.set_bytes_per_sync(
        _SMOOTHING_BYTES
    )  # a large flush must not make the next sync of the log wait for all of it
    options.set_avoid_unnecessary_blocking_io(True)
    options.set_keep_log_file_num(_INFO_LOG_FILES)
    options.set_max_log_file_size(_INFO_LOG_BYTES)
    options.set_max_manifest_file_size(_MANIFEST_BYTES)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    options.set_is_fd_close_on_exec(True)
    return options


def family_options(family: Family, memory: MemoryBudget, cache: Cache) -> Options:
    """Options of one column family; all share `cache`."""
    options = Options(raw_mode=True)
    is_log = family is Family.LOG
    grows_with_appends = family in (Family.LOG, Family.META)
    options.set_write_buffer_size(memory.log_memtable_bytes if grows_with_appends else memory.other_memtable_bytes)
    options.set_max_write_buffer_number(_MEMTABLES_MAX)
    options.set_level_zero_file_num_compaction_trigger(_LEVEL_ZERO_COMPACTION_FILES)
    options.set_level_zero_slowdown_writes_trigger(LEVEL_ZERO_SLOWDOWN_FILES)
    options.set_level_zero_stop_writes_trigger(_LEVEL_ZERO_STOP_FILES)
    options.set_soft_pending_compaction_bytes_limit(PENDING_COMPACTION_SLOWDOWN_BYTES)
    options.set_hard_pending_compaction_bytes_limit(4 * PENDING_COMPACTION_SLOWDOWN_BYTES)
    # Payloads are compressed by clients; rows of the other families compress well and are many.
    options.set_compression_type(DBCompressionType.none() if is_log else DBCompressionType.lz4())
    tables = BlockBasedOptions()
    tables.set_block_cache(cache)
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options.set_block_based_table_factory(tables)
    if is_log:
        options.set_enable_blob_files(True)
        options.set_min_blob_size(_BLOB_BYTES_MIN)
        options.set_blob_file_size(_BLOB_FILE_BYTES)
        options.set_blob_compression_type(DBCompressionType.none())
        options.set_enable_blob_gc(True)
        options.set_blob_gc_age_cutoff(BLOB_GARBAGE_AGE)
        options.set_blob_gc_force_threshold(BLOB_GARBAGE_AGE)
    return options
