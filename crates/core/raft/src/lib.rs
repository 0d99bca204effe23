//! The Raft consensus algorithm with the behaviour of etcd's raft v3.7, without I/O.
