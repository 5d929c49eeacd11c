//! The fields of log lines. A test holds the list against the macros that log.

/// Every field that a line of the hub's own may have, and its meaning.
pub const LOG_FIELDS: &[(&str, &str)] = &[
    ("timestamp", "RFC 3339, UTC, microseconds"),
    ("level", "`ERROR`, `WARN`, `INFO`, `DEBUG`, `TRACE`"),
    ("node", "`node.id`; in JSON only, first on every line"),
    ("target", "part of the hub"),
    ("message", "event, always in the same words"),
    ("error", "failure, in words"),
    (
        "reason",
        "reason for an action of the hub, in words or as a code that clients get",
    ),
    ("task", "loop of the hub that panicked"),
    ("user", "user concerned, a number"),
    (
        "connection",
        "number of the connection on this node, as text, as `vigie inspect user` shows it",
    ),
    ("peer", "address of the other side, sometimes with the port"),
    ("address", "address of a caller of the internal API"),
    (
        "caller",
        "name of the key that a caller of the internal API presented",
    ),
    ("method", "HTTP method of a call of the internal API"),
    ("route", "route of the call, without ids"),
    ("status", "status of the answer, a number"),
    (
        "left_out",
        "refused calls since the last such line that have no line of their own",
    ),
    ("incarnation", "incarnation of the node concerned"),
    (
        "released",
        "connections of a dead node that this one released",
    ),
    (
        "connections",
        "connections that are registered again, or that the node takes",
    ),
    ("channel", "channel of a message that cannot be read"),
    ("count", "number of things that the line is about"),
    (
        "lost",
        "messages that were lost because they were not read in time",
    ),
    ("topics", "topics to which the node is subscribed again"),
    ("applied", "migrations applied to the schema in Postgres"),
    ("limit", "number of files that the process may open"),
    ("partition", "partition concerned"),
    ("partitions", "partitions concerned"),
    ("server", "Redis server concerned"),
    (
        "side",
        "connection to that server: `Commands` or `Subscriptions`",
    ),
];
