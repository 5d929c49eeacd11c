//! What whoever means harm sends, and that the hub is as before afterwards. One file for each kind of harm.

mod callers;
mod origins;
mod secrets;
mod tokens;
