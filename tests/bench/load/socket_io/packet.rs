//! Socket.IO packets in the namespace `/`: decodes those of a server, encodes those of a client.

use memchr::memmem::Finder;

/// Precedes the number of an update in its payload. The name is public, so every watcher receives it.
pub(crate) const NUMBER_MARK: &str = "\"username\":\"bench-";

#[derive(Debug, PartialEq)]
pub(crate) enum Packet<'a> {
    /// The Engine.IO handshake.
    Open,
    Ping,
    /// CONNECT: the namespace is connected.
    Connected,
    ConnectError(&'a [u8]),
    /// The acknowledgement of a query.
    Ack(&'a [u8]),
    Update {
        number: usize,
        /// 0 when the payload has none.
        revision: u64,
    },
    Status {
        user: u64,
        online: bool,
    },
    /// Another event: the JSON array of its name and arguments.
    Event(&'a [u8]),
    Closed,
    Other,
}

/// Decodes packets, with search tables prepared once per thread.
pub(crate) struct Reader {
    number: Finder<'static>,
    revision: Finder<'static>,
    user: Finder<'static>,
    online: Finder<'static>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            number: Finder::new(NUMBER_MARK),
            revision: Finder::new("\"revision\":"),
            user: Finder::new("\"userId\":"),
            online: Finder::new("\"online\""),
        }
    }

    pub(crate) fn read<'a>(&self, text: &'a [u8]) -> Packet<'a> {
        match text {
            [b'4', b'2', event @ ..] => self.event(event),
            [b'4', b'3', answer @ ..] => Packet::Ack(answer),
            [b'4', b'0', ..] => Packet::Connected,
            [b'4', b'1', ..] | [b'1', ..] => Packet::Closed,
            [b'4', b'4', reason @ ..] => Packet::ConnectError(reason),
            [b'2', ..] => Packet::Ping,
            [b'0', ..] => Packet::Open,
            _ => Packet::Other,
        }
    }

    fn event<'a>(&self, event: &'a [u8]) -> Packet<'a> {
        if event.starts_with(b"[\"user-status-change\",")
            && let Some(user) = number_after(&self.user, event)
        {
            return Packet::Status {
                user,
                online: self.online.find(event).is_some(),
            };
        }
        if event.starts_with(b"[\"profile-update\",")
            && let Some(number) = number_after(&self.number, event)
        {
            return Packet::Update {
                number: number as usize,
                revision: number_after(&self.revision, event).unwrap_or(0),
            };
        }
        Packet::Event(event)
    }
}

/// The number that follows the first occurrence of `mark`.
fn number_after(mark: &Finder<'_>, text: &[u8]) -> Option<u64> {
    let digits = &text[mark.find(text)? + mark.needle().len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// An event that clients send with an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Query {
    Watch(u64),
    OnlineUsers,
}

pub(crate) fn connect(token: Option<&str>) -> String {
    match token {
        Some(token) => format!(r#"40{{"token":"{token}"}}"#),
        None => r#"40{"token":null}"#.to_owned(),
    }
}

pub(crate) fn query(query: Query) -> String {
    match query {
        Query::Watch(user) => format!(r#"420["watch-profile",{{"userId":{user}}}]"#),
        Query::OnlineUsers => r#"420["get-online-users"]"#.to_owned(),
    }
}

pub(crate) const DISCONNECT: &str = "41";

pub(crate) const PONG: &str = "3";

/// Number of ids in an answer to [`Query::OnlineUsers`], such as `0[[1,2]]`; `None` for any other answer.
pub(crate) fn count_ids(answer: &[u8]) -> Option<u64> {
    let begin = answer.iter().position(|&byte| byte == b'[')?;
    let ids = answer[begin..].strip_prefix(b"[[")?.strip_suffix(b"]]")?;
    let commas = memchr::memchr_iter(b',', ids).count() as u64;
    Some(if ids.is_empty() { 0 } else { commas + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Packet<'_> {
        Reader::new().read(text.as_bytes())
    }

    #[test]
    fn what_opens_and_closes() {
        assert_eq!(read(r#"0{"sid":"a"}"#), Packet::Open);
        assert_eq!(read(r#"40{"sid":"a"}"#), Packet::Connected);
        assert_eq!(read("2"), Packet::Ping);
        assert_eq!(read("41"), Packet::Closed);
        assert_eq!(
            read(r#"44{"message":"no"}"#),
            Packet::ConnectError(br#"{"message":"no"}"#)
        );
        assert_eq!(read(r#"430[[1,2]]"#), Packet::Ack(b"0[[1,2]]"));
        assert_eq!(read("6"), Packet::Other);
        assert_eq!(read(""), Packet::Other);
    }

    #[test]
    fn updates_are_known_by_their_number_wherever_it_stands() {
        let update = |number, revision| Packet::Update { number, revision };
        assert_eq!(
            read(
                r#"42["profile-update",{"user":{"userID":1,"username":"bench-17","x":2},"revision":99}]"#
            ),
            update(17, 99)
        );
        assert_eq!(
            read(
                r#"42["profile-update",{"revision":99,"user":{"username":"bench-17","userID":1}}]"#
            ),
            update(17, 99)
        );
        assert_eq!(
            read(r#"42["profile-update",{"user":{"username":"bench-000"}}]"#),
            update(0, 0)
        );
        let of_nobody = r#"42["profile-update",{"user":{"username":"ada"},"revision":3}]"#;
        assert_eq!(read(of_nobody), Packet::Event(&of_nobody.as_bytes()[2..]));
    }

    #[test]
    fn who_comes_and_goes() {
        assert_eq!(
            read(r#"42["user-status-change",{"userId":7,"status":"online"}]"#),
            Packet::Status {
                user: 7,
                online: true
            }
        );
        assert_eq!(
            read(r#"42["user-status-change",{"status":"offline","userId":12345}]"#),
            Packet::Status {
                user: 12345,
                online: false
            }
        );
        for event in [
            r#"["user-status-change",{}]"#,
            r#"["something",{"userId":7}]"#,
        ] {
            assert_eq!(read(&format!("42{event}")), Packet::Event(event.as_bytes()));
        }
    }

    #[test]
    fn ids_are_counted() {
        assert_eq!(count_ids(b"0[[]]"), Some(0));
        assert_eq!(count_ids(b"0[[4]]"), Some(1));
        assert_eq!(count_ids(b"0[[4,5,6]]"), Some(3));
        assert_eq!(count_ids(br#"0[{"ok":true}]"#), None);
    }
}
