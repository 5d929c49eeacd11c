//! Tables in our Markdown: each follows a line `<!-- table: NAME -->`, and each row begins with a
//! name in backticks.

use std::collections::BTreeSet;

const MARK: &str = "<!-- table: ";

/// The names in the first column of a table.
pub(crate) fn names(file: &str, text: &str, table: &str) -> BTreeSet<String> {
    let rows = rows(file, text, table);
    let mut names = BTreeSet::new();
    for row in rows {
        let name = row.trim_start_matches('|').trim_start().strip_prefix('`');
        let name = name.and_then(|name| Some(name.split_once('`')?.0));
        let name = name.unwrap_or_else(|| {
            panic!("{file}, table \"{table}\": a row begins with a name in backticks, not {row}")
        });
        let new = names.insert(name.to_owned());
        assert!(new, "{file}, table \"{table}\": `{name}` has two rows");
    }
    assert!(!names.is_empty(), "{file}, table \"{table}\" has no rows");
    names
}

/// The rows of a table, without its head.
pub(crate) fn rows<'a>(file: &str, text: &'a str, table: &str) -> Vec<&'a str> {
    let mark = format!("{MARK}{table} -->");
    let (_, after) = text
        .split_once(&mark)
        .unwrap_or_else(|| panic!("{file} has no line `{mark}` before that table"));
    let lines = after
        .lines()
        .map(str::trim)
        .skip_while(|line| line.is_empty());
    lines
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .collect()
}

/// The tables that a text has.
pub(crate) fn tables(text: &str) -> BTreeSet<&str> {
    let marks = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(MARK));
    marks.filter_map(|rest| rest.strip_suffix(" -->")).collect()
}
