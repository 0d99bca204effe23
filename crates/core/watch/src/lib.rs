//! Watchers as cursors over the revision log.
