//! Configuration, listeners, threads and shutdown of a member.
