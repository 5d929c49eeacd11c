//! Input of attackers, after which the hub has to be as before. One file for each kind of attack.

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
