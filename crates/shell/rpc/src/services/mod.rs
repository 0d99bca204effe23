//! The services: validate, hand over to the member, render the answer.

pub mod validate;
