//! Tests of the connection, from the client's side: frames in, frames out.

mod hostile;
mod kit;
mod reactions;
mod sending;
