//! What whoever means harm sends, and that the hub is as before afterwards. One file for each kind of harm.

mod aftermath;
mod callers;
mod connections;
mod events;
mod origins;
mod packets;
mod secrets;
mod sizes;
mod tokens;
mod values;

use aftermath::{Calm, assert_served, polling, two_nodes};
