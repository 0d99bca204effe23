//! The Go program that the script is compared with.
