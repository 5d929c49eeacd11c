//! The Lua scripts: headers say what bodies read and use, and no script is forgotten anywhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::tables::Row;
use crate::{files, keys, read, report};

/// More arguments than this mean that a script does two things; the name of a request may be one.
const ARGV_MAX: usize = 7;

/// The same for keys.
const KEYS_MAX: usize = 10;

/// Where the fragments are that scripts share.
const SHARED: &str = "lua/shared/";

/// Where scripts are compiled in.
const SCRIPTS: &str = "src/engine/redis/scripts.rs";

/// The types of a slot.
const TYPES: [&str; 6] = ["int", "string", "hash", "set", "zset", "list"];

/// Goal: the header of a script lists exactly the slots that its body reads.
/// Method: both are collected as text; the header's are numbered from 1 in order, each with a type. `[n…]` stands for a
/// variable number of slots after the others: those that the body computes.
#[test]
fn headers_list_the_slots_that_bodies_read() {
    let mut findings = Vec::new();
    for file in files("lua", "lua") {
        let text = read(&file);
        let (header, body) = parts(&text);
        for array in ["KEYS", "ARGV"] {
            let (listed, variable) = listed(header, array, &file, &mut findings);
            let (read, computes) = slots_read(&body, array);
            for (at, slot) in listed.iter().enumerate() {
                if *slot != at + 1 {
                    findings.push(format!(
                        "{file}: {array}[{slot}] is listed where {array}[{}] belongs",
                        at + 1
                    ));
                }
            }
            match variable {
                Some(first) if first != listed.len() + 1 => findings.push(format!(
                    "{file}: {array}[{first}…] is listed where {array}[{}…] belongs",
                    listed.len() + 1
                )),
                Some(first) if !computes => findings.push(format!(
                    "{file}: the header lists {array}[{first}…], the body reads numbered slots only"
                )),
                None if computes => findings.push(format!(
                    "{file}: the body computes slots of {array}, the header lists no {array}[n…]"
                )),
                _ => {}
            }
            let listed: BTreeSet<usize> = listed.into_iter().collect();
            let slots = body.matches(&format!("{array}[")).count();
            let lengths = body.matches(&format!("#{array}")).count()
                - body.matches(&format!("#{array}[")).count();
            let allowed = slots + if computes { lengths } else { 0 };
            if body.matches(array).count() > allowed {
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

/// The scripts, without the fragments that they share.
fn scripts() -> Vec<String> {
    let files = files("lua", "lua").into_iter();
    files.filter(|file| !file.starts_with(SHARED)).collect()
}

/// Goal: a header says what a script is for, answers, publishes and does when repeated, and the
/// script stays small. Method: the lines are there, and no more than seven arguments and ten keys; a variable number of
/// them counts as one.
#[test]
fn headers_are_complete() {
    let mut findings = Vec::new();
    for file in scripts() {
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
        let shared = |name: &String| owned_parts(&fragment(name)).1.contains("PUBLISH");
        let publishes = body.contains("PUBLISH") || uses(header).iter().any(shared);
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
        for (array, most) in [("ARGV", ARGV_MAX), ("KEYS", KEYS_MAX)] {
            let (slots, computes) = slots_read(&body, array);
            let slots = slots.len() + usize::from(computes);
            if slots > most {
                findings.push(format!(
                    "{file}: {slots} slots of {array}; more than {most} mean two scripts"
                ));
            }
        }
    }
    report(
        "Lua headers are complete, and scripts do one thing.",
        &findings,
    );
}

/// Goal: a script is compiled in with exactly the fragments that its header names, and needs each of them.
/// Method: the declarations in `scripts.rs` against the line `-- USES`; each fragment gives a name that the script, or a
/// fragment after it, calls, and comes after the fragments that it uses itself.
#[test]
fn scripts_have_the_fragments_that_they_use() {
    let declared = declared();
    let mut findings = Vec::new();
    for file in scripts() {
        let (header, body) = owned_parts(&file);
        let used = uses(&header);
        let name = script_name(&file);
        match declared.get(name) {
            None => findings.push(format!("{SCRIPTS} does not declare \"{name}\"")),
            Some(fragments) if *fragments != used => findings.push(format!(
                "{file}: the header uses {used:?}, {SCRIPTS} declares {fragments:?}"
            )),
            Some(_) => {}
        }
        for (at, fragment_name) in used.iter().enumerate() {
            let (header, _) = owned_parts(&fragment(fragment_name));
            let later = used[at + 1..].iter();
            let later = later.map(|name| owned_parts(&fragment(name)).1);
            let readers: Vec<String> = later.chain([body.clone()]).collect();
            let gives = gives(&header);
            let is_read = |name: &String| readers.iter().any(|text| has_word(text, name));
            if !gives.iter().any(is_read) {
                findings.push(format!("{file} uses {fragment_name} for nothing"));
            }
            for needed in uses(&header) {
                if !used[..at].contains(&needed) {
                    findings.push(format!(
                        "{file}: {fragment_name} uses {needed}, which must come before it"
                    ));
                }
            }
        }
    }
    report(
        "Scripts are compiled in with the fragments that they use.",
        &findings,
    );
}

/// Goal: a fragment says what it gives, and gives it; some script uses it, and it reads no slots of its own.
/// Method: the lines `-- GIVES` against the names that the body declares at its top level.
#[test]
fn fragments_say_what_they_give() {
    let used: BTreeSet<String> = declared().into_values().flatten().collect();
    let mut findings = Vec::new();
    for file in files("lua/shared", "lua") {
        let (header, body) = owned_parts(&file);
        let given: BTreeSet<String> = gives(&header).into_iter().collect();
        let locals = body.lines().filter_map(|line| line.strip_prefix("local "));
        let locals = locals.map(|rest| identifier(rest.strip_prefix("function ").unwrap_or(rest)));
        let locals: BTreeSet<String> = locals.collect();
        if given != locals {
            findings.push(format!(
                "{file}: the header gives {given:?}, the body declares {locals:?}"
            ));
        }
        if body.contains("KEYS") || body.contains("ARGV") {
            findings.push(format!(
                "{file}: a fragment takes what it needs as arguments"
            ));
        }
        if !used.iter().any(|name| fragment(name) == file) {
            findings.push(format!("{file}: no script uses it"));
        }
    }
    report("Fragments say what they give.", &findings);
}

/// Goal: every script is compiled in and tested. Method: each is named where it must be.
#[test]
fn no_script_is_forgotten() {
    let mut findings = Vec::new();
    let (scripts, declared) = (scripts(), declared());
    for file in &scripts {
        let name = script_name(file);
        let (folder, _) = name.split_once('/').unwrap_or((name, ""));
        let tests = format!("tests/hub/scripts/{folder}.rs");
        let tested = std::fs::read_to_string(crate::root().join(&tests)).unwrap_or_default();
        if !tested.contains(&format!("\"{name}\"")) {
            findings.push(format!("{tests} does not run {name}"));
        }
    }
    for name in declared.keys() {
        if !scripts.contains(&format!("lua/{name}.lua")) {
            findings.push(format!("{SCRIPTS}: there is no {name}"));
        }
    }
    report("Every script is compiled in and tested.", &findings);
}

/// The table of scripts: the purpose of each, what it returns and publishes, as its header says.
pub(crate) fn rows() -> Vec<Row> {
    let row = |file: &String| {
        let (header, _) = owned_parts(file);
        let name = format!("`{}.lua`", script_name(file));
        [
            vec![name],
            ["", "RETURNS ", "PUBLISHES "]
                .map(|mark| paragraph(&header, mark))
                .to_vec(),
        ]
        .concat()
    };
    scripts().iter().map(row).collect()
}

/// The text of a header from a mark at the beginning of a line to the next mark or empty line.
fn paragraph(header: &str, mark: &str) -> String {
    let lines = header.lines().map(|line| line.trim_start_matches('-'));
    let mut lines = lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .skip_while(|line| !line.starts_with(mark));
    let first = lines.next().unwrap_or_default();
    let is_mark =
        |line: &str| line.starts_with(|c: char| c.is_ascii_uppercase()) && !mark.is_empty();
    let more = lines.take_while(|line| !line.is_empty() && !is_mark(line));
    let words = [first.trim_start_matches(mark)].into_iter().chain(more);
    let text = words.map(str::trim).collect::<Vec<_>>().join(" ");
    text.replace('<', "&lt;")
}

/// The scripts that `scripts!` declares, each with its fragments: `field = "folder/name" (fragments);`.
fn declared() -> BTreeMap<String, Vec<String>> {
    let source = read(SCRIPTS);
    let (_, block) = source
        .split_once("\nscripts! {")
        .expect("scripts.rs declares scripts");
    let (block, _) = block.split_once("\n}").expect("the declaration ends");
    let declarations = block.split(';').filter_map(|declaration| {
        let (_, rest) = declaration.split_once("= \"")?;
        let (name, rest) = rest.split_once('"')?;
        let (_, fragments) = rest.trim_end().strip_suffix(')')?.split_once('(')?;
        Some((name.to_owned(), list(fragments)))
    });
    declarations.collect()
}

/// `lua/presence/register.lua` → `presence/register`.
fn script_name(file: &str) -> &str {
    file.trim_start_matches("lua/").trim_end_matches(".lua")
}

fn fragment(name: &str) -> String {
    format!("{SHARED}{name}.lua")
}

/// The fragments that a header names.
fn uses(header: &str) -> Vec<String> {
    let lines = header
        .lines()
        .filter_map(|line| line.strip_prefix("-- USES "));
    lines.flat_map(list).collect()
}

/// The names that the header of a fragment gives.
fn gives(header: &str) -> Vec<String> {
    let lines = header
        .lines()
        .filter_map(|line| line.strip_prefix("-- GIVES "));
    lines.map(|rest| identifier(rest.trim_start())).collect()
}

fn list(names: &str) -> Vec<String> {
    let names = names.split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn identifier(text: &str) -> String {
    let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    text.chars().take_while(is_part).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).any(|found| found == word)
}

/// Goal: a node that starts tries every command that it needs, so that a right that is missing is named at once.
/// Method: the commands of the other scripts, and the methods of the Redis client that `src/engine/redis` calls, are among
/// those of `meta/probe.lua`.
#[test]
fn every_command_is_tried() {
    let file = "lua/meta/probe.lua";
    let (_, body) = owned_parts(file);
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

/// Goal: the tables of keys and channels name the scripts that do write them. Method: every script named exists.
#[test]
fn the_writers_of_keys_exist() {
    let scripts = files("lua", "lua");
    let cells = keys::keys().into_iter().chain(keys::channels()).flatten();
    let mut findings = Vec::new();
    for cell in cells {
        for name in cell.split('`').filter(|name| name.ends_with(".lua")) {
            if !scripts.contains(&format!("lua/{name}")) {
                findings.push(format!("there is no `{name}`, named in {cell}"));
            }
        }
    }
    report("The writers of keys exist.", &findings);
}

fn owned_parts(file: &str) -> (String, String) {
    let text = read(file);
    let (header, body) = parts(&text);
    (header.to_owned(), body)
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

/// The slots that a header lists, in its order, and from which one on their number varies.
fn listed(
    header: &str,
    array: &str,
    file: &str,
    findings: &mut Vec<String>,
) -> (Vec<usize>, Option<usize>) {
    let (mut slots, mut variable) = (Vec::new(), None);
    for line in header.lines() {
        let Some(rest) = line
            .strip_prefix("-- ")
            .and_then(|line| line.strip_prefix(array))
        else {
            continue;
        };
        if variable.is_some() {
            findings.push(format!(
                "{file}: `{line}` comes after a variable number of slots"
            ));
        }
        let mut words = rest.split_whitespace();
        let slot = words
            .next()
            .and_then(|slot| slot.strip_prefix('[')?.strip_suffix(']'))
            .unwrap_or_default();
        let first = slot.strip_suffix('…');
        let words: Vec<&str> = words.collect();
        let is_told = match words.as_slice() {
            ["for", "each", _, ..] => first.is_some(),
            [known, _, ..] => first.is_none() && TYPES.contains(known),
            _ => false,
        };
        match first.unwrap_or(slot).parse::<usize>() {
            Ok(number) if is_told && first.is_some() => variable = Some(number),
            Ok(number) if is_told => slots.push(number),
            _ => findings.push(format!(
                "{file}: `{line}` should read `-- {array}[n]  type  what it is` or `-- {array}[n…]  for each …`"
            )),
        }
    }
    (slots, variable)
}

/// The slots that a body reads by their numbers, and whether it computes others.
fn slots_read(body: &str, array: &str) -> (BTreeSet<usize>, bool) {
    let opened = format!("{array}[");
    let reads = body.split(&opened).skip(1);
    let slots = reads.map(|after| after.split_once(']').map_or("", |(slot, _)| slot));
    let (numbers, computed): (Vec<_>, Vec<_>) =
        slots.map(str::parse::<usize>).partition(Result::is_ok);
    let numbers = numbers.into_iter().flatten().collect();
    (numbers, !computed.is_empty())
}
