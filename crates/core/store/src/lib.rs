//! Multi-version key-value store over bolt: key index, revision log, views.
mod index;
