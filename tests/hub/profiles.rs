//! Accounts in Postgres, as their users and back ends meet them.

mod http;
