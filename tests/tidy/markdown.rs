//! Tables that are written by hand: each follows a line `<!-- table: NAME -->`, and each row begins with a name in
//! backticks.

use std::collections::BTreeSet;

/// The names in the first column of a table.
pub(crate) fn names(file: &str, text: &str, table: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for row in rows(file, text, table) {
        let name = row.split('`').nth(1);
        let name = name.unwrap_or_else(|| panic!("{file}: no name in backticks in {row}"));
        let is_new = names.insert(name.to_owned());
        assert!(is_new, "{file}, table \"{table}\": `{name}` has two rows");
    }
    names
}

/// The rows of a table, without its head.
pub(crate) fn rows<'a>(file: &str, text: &'a str, table: &str) -> Vec<&'a str> {
    let mark = format!("<!-- table: {table} -->");
    let after = text.split_once(&mark).map(|(_, after)| after);
    let after = after.unwrap_or_else(|| panic!("{file} has no line `{mark}` before that table"));
    let lines = after.trim_start().lines().skip(2);
    lines.take_while(|line| line.starts_with('|')).collect()
}
