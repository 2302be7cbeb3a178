"""What a node does for clients and peers, without threads and sockets."""
