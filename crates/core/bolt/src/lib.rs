//! The bbolt file format: one writer, many snapshot readers.
