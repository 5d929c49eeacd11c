//! The contract as TypeScript, made from the types that the code uses, with their doc comments.

use std::fmt::Write;

use ts_rs::{Config, TS};

use super::events::Event;
use super::{
    ConnectErrorCode, Done, ErrorCode, Exception, Friend, FriendListUpdate, GameStatsUpdate,
    HandshakeAuth, KickCode, Kicked, KnownUser, Match, MatchFound, MatchHistoryUpdate, MatchResult,
    OnlineUsers, Opponent, ProfileUpdate, QueueStatus, Queued, Refusal, Revisions, Status,
    TokenExpiring, TokenRefreshed, TokenRequest, User, UserRequest, UserStatusChange, Watching,
    client_event, server_event,
};

/// What stands at the top.
const HEAD: &str = "// The events of Vigie, printed by `vigie types`: print them again rather than change them here.\n";

/// With optional arguments the official client does not know what `emitWithAck` and `timeout` answer.
const ACKNOWLEDGED: &str = "\
/**
 * The same events, each with its acknowledgement, so that `emitWithAck` and `timeout` know what the reply is:
 * `const asking: Socket<ServerToClientEvents, Acknowledged<ClientToServerEvents>> = socket;`
 */
export type Acknowledged<Events extends { [Name in keyof Events]: (...args: any[]) => void }> = {
  [Name in keyof Events]: (...args: Required<Parameters<Events[Name]>>) => void;
};
";

/// The contract: declarations of every payload and code, then the two interfaces that the official client takes as
/// type arguments.
pub fn typescript() -> String {
    let config = Config::default();
    let declarations = [
        declaration::<HandshakeAuth>(&config),
        codes(
            "ConnectErrorCode",
            ConnectErrorCode::ABOUT,
            ConnectErrorCode::ALL,
        ),
        codes("ErrorCode", ErrorCode::ABOUT, ErrorCode::ALL),
        declaration::<Refusal>(&config),
        declaration::<Exception>(&config),
        declaration::<Done>(&config),
        declaration::<OnlineUsers>(&config),
        declaration::<UserRequest>(&config),
        declaration::<User>(&config),
        declaration::<Friend>(&config),
        declaration::<MatchResult>(&config),
        declaration::<Match>(&config),
        declaration::<Revisions>(&config),
        declaration::<KnownUser>(&config),
        declaration::<Watching>(&config),
        declaration::<QueueStatus>(&config),
        declaration::<Queued>(&config),
        declaration::<TokenRequest>(&config),
        declaration::<TokenRefreshed>(&config),
        declaration::<Status>(&config),
        declaration::<UserStatusChange>(&config),
        declaration::<ProfileUpdate>(&config),
        declaration::<GameStatsUpdate>(&config),
        declaration::<FriendListUpdate>(&config),
        declaration::<MatchHistoryUpdate>(&config),
        declaration::<Opponent>(&config),
        declaration::<MatchFound>(&config),
        declaration::<TokenExpiring>(&config),
        codes("KickCode", KickCode::ABOUT, KickCode::ALL),
        declaration::<Kicked>(&config),
        interface(
            "ClientToServerEvents",
            "Events that the client sends; every acknowledgement is optional.",
            &client_event::all(&config),
        ),
        ACKNOWLEDGED.to_owned(),
        interface(
            "ServerToClientEvents",
            "Events that the hub sends.",
            &server_event::all(&config),
        ),
    ];
    format!("{HEAD}\n{}", declarations.join("\n"))
}

/// One type, with one field on each line.
fn declaration<T: TS>(config: &Config) -> String {
    let docs = T::docs().unwrap_or_default();
    let declared = format!("{docs}export {}", T::decl(config));
    let (mut text, mut comment, mut depth) = (String::new(), Vec::new(), 0);
    for line in declared.replace(", }", ",\n}").lines().map(str::trim) {
        match line {
            "/**" => {}
            "*/" => text += &documented(&std::mem::take(&mut comment), depth),
            _ if line.starts_with("* ") => comment.push(&line[1..]),
            _ => {
                depth -= usize::from(line.starts_with('}'));
                let line = line
                    .strip_suffix(',')
                    .map_or(line.to_owned(), |field| format!("{field};"));
                text += &format!("{}{line}\n", indent(depth));
                depth += usize::from(line.ends_with('{'));
            }
        }
    }
    text
}

/// A union of texts, each with what it means.
fn codes(name: &str, about: &[&str], codes: &[(&str, &[&str])]) -> String {
    let mut text = format!("{}export type {name} =", documented(about, 0));
    for (code, docs) in codes {
        // A string to write into never fails.
        let _ = write!(text, "\n{}  | \"{code}\"", documented(docs, 1));
    }
    text + ";\n"
}

fn interface(name: &str, about: &str, events: &[Event]) -> String {
    let mut text = format!("/** {about} */\nexport interface {name} {{\n");
    for event in events {
        let payload = event
            .payload
            .iter()
            .map(|payload| format!("payload: {payload}"));
        let reply = match event.reply.join(" | ") {
            none if none.is_empty() => None,
            reply => Some(format!("answer?: (reply: {reply}) => void")),
        };
        let arguments: Vec<String> = payload.chain(reply).collect();
        let _ = writeln!(
            text,
            "{}  \"{}\": ({}) => void;",
            documented(event.docs, 1),
            event.name,
            arguments.join(", ")
        );
    }
    text + "}\n"
}

/// A doc comment; its lines begin with a space, as in Rust.
fn documented(lines: &[&str], depth: usize) -> String {
    let indent = indent(depth);
    match lines {
        [line] => format!("{indent}/**{line} */\n"),
        lines => {
            let lines: String = lines
                .iter()
                .map(|line| format!("{indent} *{line}\n"))
                .collect();
            format!("{indent}/**\n{lines}{indent} */\n")
        }
    }
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_well() {
        let types = typescript();
        for part in [
            "/** Names a user. */\nexport type UserRequest = {\n  /** From 1 to 2^53 - 1. */\n  userId: number;\n};\n",
            "export type KickCode =\n  /** The token has expired; sign in again. */\n  | \"token_expired\"\n",
            "  /** Stop watching a profile. */\n  \"unwatch-profile\": (payload: UserRequest, answer?: (reply: Done | \
             Refusal) => void) => void;\n",
            "  \"get-online-users\": (answer?: (reply: OnlineUsers) => void) => void;\n",
            "  \"match-timeout\": () => void;\n",
        ] {
            assert!(types.contains(part), "{part}\nis not in\n{types}");
        }
    }
}
