//! Tests of the connection, from the client's side: frames in, frames out.

mod hostile;
mod kit;
mod random;
mod reactions;
mod sending;
