//! What hostile bytes, pages and callers do: nothing. One file for each kind of hostility.

mod callers;
mod origins;
