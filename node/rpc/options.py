"""gRPC settings that all servers and channels of a node share; every limit is set on purpose."""

from __future__ import annotations

from typing import Final

MESSAGE_SIZE_BYTES_MAX: Final = 32 << 20
"""Of one gRPC message: a batch of the largest size that a topic can allow, and a packet of entries, fit with room."""

_COMMON: Final = (
    ("grpc.max_receive_message_length", MESSAGE_SIZE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_SIZE_BYTES_MAX),
    ("grpc.max_metadata_size", 16 << 10),
)

CHANNEL_OPTIONS: Final = (
    *_COMMON,
    # A link has its own pace of reconnecting; gRPC's would grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    # Bounds one attempt as a whole, handshake included: a peer under load needs its time.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
)

SERVER_OPTIONS: Final = (
    *_COMMON,
    # Two nodes on one port would share its connections in silence.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
