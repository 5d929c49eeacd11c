//! Updates about users, in the words of the domain: their kinds, and the last of each in both views.

pub(crate) use crate::engine::{Kind, Stored, Views};
