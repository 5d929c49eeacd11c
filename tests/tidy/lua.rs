//! The Lua scripts: headers say what bodies read, and no script is forgotten anywhere.

use std::collections::BTreeSet;

use crate::{files, markdown, read, report};

/// More arguments than this mean that a script does two things.
const ARGV_MAX: usize = 6;

/// What a slot may hold.
const TYPES: [&str; 6] = ["int", "string", "hash", "set", "zset", "list"];

/// Goal: the header of a script lists exactly the slots that its body reads.
/// Method: both are collected as text; the header's are numbered from 1 in order, each with a type.
#[test]
fn headers_list_the_slots_that_bodies_read() {
    let mut findings = Vec::new();
    for file in files("lua", "lua") {
        let text = read(&file);
        let (header, body) = parts(&text);
        for array in ["KEYS", "ARGV"] {
            let listed = listed(header, array, &file, &mut findings);
            let read = slots_read(&body, array);
            for (at, slot) in listed.iter().enumerate() {
                if *slot != at + 1 {
                    findings.push(format!(
                        "{file}: {array}[{slot}] is listed where {array}[{}] belongs",
                        at + 1
                    ));
                }
            }
            let listed: BTreeSet<usize> = listed.into_iter().collect();
            if body.matches(array).count() > body.matches(&format!("{array}[")).count() {
                findings.push(format!("{file}: the body uses {array} as a whole"));
            }
            for slot in read.difference(&listed) {
                findings.push(format!(
                    "{file}: the body reads {array}[{slot}], the header does not list it"
                ));
            }
            for slot in listed.difference(&read) {
                findings.push(format!(
                    "{file}: the header lists {array}[{slot}], the body does not read it"
                ));
            }
        }
    }
    report(
        "Lua headers list exactly the slots that bodies read.",
        &findings,
    );
}

/// Goal: a header says what a script is for, answers, publishes and does when repeated, and the
/// script stays small. Method: the lines are there, and no more than six arguments.
#[test]
fn headers_are_complete() {
    let mut findings = Vec::new();
    for file in files("lua", "lua") {
        let text = read(&file);
        let (header, body) = parts(&text);
        if header
            .lines()
            .next()
            .is_none_or(|line| line.trim_start_matches('-').trim().is_empty())
        {
            findings.push(format!(
                "{file}: the first line says what the script is for"
            ));
        }
        for word in ["RETURNS", "PUBLISHES", "REPEAT"] {
            let lines = header
                .lines()
                .filter_map(|line| line.strip_prefix("-- ")?.strip_prefix(word));
            let told = lines.filter(|told| !told.trim().is_empty()).count();
            if told != 1 {
                findings.push(format!(
                    "{file}: the header has {told} lines `-- {word} …` instead of one"
                ));
            }
        }
        let publishes = body.contains("PUBLISH");
        if publishes == header.contains("PUBLISHES nothing") {
            let does = if publishes {
                "publishes"
            } else {
                "publishes nothing"
            };
            findings.push(format!(
                "{file}: the body {does}, the header says otherwise"
            ));
        }
        let arguments = slots_read(&body, "ARGV").len();
        if arguments > ARGV_MAX {
            findings.push(format!(
                "{file}: {arguments} arguments; more than {ARGV_MAX} mean two scripts"
            ));
        }
    }
    report(
        "Lua headers are complete, and scripts do one thing.",
        &findings,
    );
}

/// Goal: every script is compiled in, tested and described. Method: each is named where it must be.
#[test]
fn no_script_is_forgotten() {
    let compiled_in = "src/engine/redis/scripts.rs";
    let description = "lua/README.md";
    let described = markdown::names(description, &read(description), "scripts");
    let mut findings = Vec::new();
    let scripts = files("lua", "lua");
    for file in &scripts {
        let name = file.trim_start_matches("lua/");
        let (folder, _) = name.split_once('/').unwrap_or((name, ""));
        let tests = format!("tests/hub/scripts/{folder}.rs");
        for place in [compiled_in, tests.as_str()] {
            let included = std::fs::read_to_string(crate::root().join(place)).unwrap_or_default();
            if !included.contains(&format!("include_str!(\"../../../{file}\")")) {
                findings.push(format!("{place} does not include {file}"));
            }
        }
        if !described.contains(name) {
            findings.push(format!(
                "{description}: the table of scripts does not have `{name}`"
            ));
        }
    }
    for name in &described {
        if !scripts.contains(&format!("lua/{name}")) {
            findings.push(format!("{description}: there is no `{name}` any more"));
        }
    }
    report(
        "Every script is compiled in, tested and described.",
        &findings,
    );
}

/// Goal: a node that starts tries every command that it needs, so that a right that is missing is named at once.
/// Method: the commands of the other scripts, and the methods of the Redis client that `src/engine/redis` calls, are among
/// those of `meta/probe.lua`.
#[test]
fn every_command_is_tried() {
    let file = "lua/meta/probe.lua";
    let (_, body) = parts(&read(file)).clone();
    let tried: BTreeSet<String> = body.split("{ '").skip(1).map(word).collect();
    let mut findings = Vec::new();
    let mut called = BTreeSet::new();
    for script in files("lua", "lua") {
        let text = read(&script);
        let (_, body) = parts(&text);
        for call in ["redis.call('", "redis.pcall('"] {
            called.extend(
                body.split(call)
                    .skip(1)
                    .map(|rest| (word(rest), script.clone())),
            );
        }
    }
    for source in files("src/engine/redis", "rs") {
        // Tools of operators, which have users of their own.
        if source.contains("/doctor") || source.ends_with("/inspect.rs") {
            continue;
        }
        called.extend(client_calls(&read(&source)).map(|name| (name, source.clone())));
    }
    called.extend(
        client_calls(&read("src/engine/redis.rs"))
            .map(|name| (name, "src/engine/redis.rs".to_owned())),
    );
    for (command, place) in &called {
        if !tried.contains(command) && !NOT_IN_SCRIPTS.contains(&command.as_str()) {
            findings.push(format!(
                "{place} calls {command}, which {file} does not try"
            ));
        }
    }
    let called: BTreeSet<&String> = called.iter().map(|(command, _)| command).collect();
    for command in tried.iter().filter(|command| !called.contains(command)) {
        findings.push(format!("{file} tries {command}, which no code calls"));
    }
    report("A node tries every command that it needs.", &findings);
}

/// Commands that no script can call; `src/engine/redis/preflight.rs` tries them, apart from `SUNSUBSCRIBE`.
const NOT_IN_SCRIPTS: [&str; 6] = [
    "EVAL",
    "EVALSHA",
    "SSUBSCRIBE",
    "SUNSUBSCRIBE",
    // Of a Redis Cluster alone; without them nothing is ever reached there.
    "CLUSTER",
    "ASKING",
];

/// The first word of a text, as far as it is a command's name.
fn word(text: &str) -> String {
    text.chars().take_while(char::is_ascii_uppercase).collect()
}

/// The commands that a source sends: a name in capitals, first among the arguments of a call, or after the slot that it
/// goes to.
fn client_calls(source: &str) -> impl Iterator<Item = String> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut names = BTreeSet::new();
    for rest in ["(\"", "slot, \""]
        .iter()
        .flat_map(|call| source.split(call).skip(1))
    {
        let name = word(rest);
        if name.len() > 2 && rest[name.len()..].starts_with("\", ") {
            names.insert(name);
        }
    }
    names.into_iter()
}

/// Goal: the tables of keys and channels in `lua/README.md` name the scripts that do write them.
/// Method: every script named in a row exists.
#[test]
fn the_writers_of_keys_exist() {
    let description = "lua/README.md";
    let text = read(description);
    let scripts = files("lua", "lua");
    let mut findings = Vec::new();
    for table in ["keys", "channels"] {
        for row in markdown::rows(description, &text, table) {
            for name in row.split('`').filter(|name| name.ends_with(".lua")) {
                if !scripts.contains(&format!("lua/{name}")) {
                    findings.push(format!(
                        "{description}: there is no `{name}`, named in {row}"
                    ));
                }
            }
        }
    }
    report("Whoever is said to write a key exists.", &findings);
}

/// The header, and the body without comments.
fn parts(text: &str) -> (&str, String) {
    let header = text
        .split_inclusive('\n')
        .take_while(|line| line.starts_with("--"));
    let (header, body) = text.split_at(header.map(str::len).sum());
    let code = body
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default());
    (header, code.collect::<Vec<_>>().join("\n"))
}

/// The slots that a header lists, in its order.
fn listed(header: &str, array: &str, file: &str, findings: &mut Vec<String>) -> Vec<usize> {
    let mut slots = Vec::new();
    for line in header.lines() {
        let Some(rest) = line
            .strip_prefix("-- ")
            .and_then(|line| line.strip_prefix(array))
        else {
            continue;
        };
        let mut words = rest.split_whitespace();
        let slot = words
            .next()
            .and_then(|slot| slot.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
        let known = words.next().is_some_and(|word| TYPES.contains(&word));
        match slot {
            Some(slot) if known && words.next().is_some() => slots.push(slot),
            _ => findings.push(format!(
                "{file}: `{line}` should read `-- {array}[n]  type  what it is`"
            )),
        }
    }
    slots
}

/// The slots that a body reads. A slot that is computed counts as 0, which no header lists.
fn slots_read(body: &str, array: &str) -> BTreeSet<usize> {
    let opened = format!("{array}[");
    let reads = body.split(&opened).skip(1);
    let slots = reads.map(|after| after.split_once(']').map_or("", |(slot, _)| slot));
    slots.map(|slot| slot.parse().unwrap_or(0)).collect()
}
