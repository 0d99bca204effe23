//! The real disk, clocks and entropy.
