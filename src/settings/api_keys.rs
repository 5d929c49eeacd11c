//! Named keys of the internal API: `name=key`.
//!
//! Errors never quote the input, which may be a key.

use std::fmt;

use serde::{Deserializer, Serialize, Serializer, de};

use super::values::{self, Secret};
use super::{InternalSettings, validate};

/// Caller name of the holder of `internal.api_key`.
pub const DEFAULT_CALLER: &str = "default";

const NAME_LEN_MAX: usize = 64;

/// A key with the name of its holder; printed and serialised as `name=***`.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedKey {
    /// 1 to 64 of `A-Za-z0-9_.-`.
    pub name: String,
    /// Key that the caller presents.
    pub key: Secret,
}

impl InternalSettings {
    /// Every accepted key with the name of its holder.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &Secret)> {
        let default = self.api_key.iter().map(|key| (DEFAULT_CALLER, key));
        let named = self.api_keys.iter();
        default.chain(named.map(|named| (named.name.as_str(), &named.key)))
    }
}

impl fmt::Display for NamedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={:?}", self.name, self.key)
    }
}

impl fmt::Debug for NamedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for NamedKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Parses an array of `name=key`, or one string with commas.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NamedKey>, D::Error> {
    let items = values::list(deserializer)?;
    let keys = (1..).zip(&items).map(|(number, item)| {
        read(item).map_err(|problem| de::Error::custom(format!("item {number} {problem}")))
    });
    keys.collect()
}

/// Parses the lines of a file; ignores empty lines and those that begin with `#`.
pub(super) fn lines(text: &str) -> Result<Vec<NamedKey>, String> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let entries = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let keys = entries.map(|(number, line)| {
        read(line).map_err(|problem| format!("names a file whose line {number} {problem}"))
    });
    keys.collect()
}

fn read(item: &str) -> Result<NamedKey, String> {
    let (name, key) = item.split_once('=').unwrap_or(("", item));
    let (name, key) = (name.trim(), key.trim());
    if !(1..=NAME_LEN_MAX).contains(&name.len()) || !name.chars().all(validate::is_node_id_char) {
        return Err(format!(
            "does not begin with a name: write name=key, the name 1 to {NAME_LEN_MAX} of letters, digits, \"_\", \
             \".\" and \"-\""
        ));
    }
    // Base64 padding: the part before it is the key then, not a name.
    if key.bytes().all(|byte| byte == b'=') {
        return Err("has no key behind the name: write name=key".to_owned());
    }
    Ok(NamedKey {
        name: name.to_owned(),
        key: Secret::new(key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_name() {
        for (item, name, key) in [
            ("billing=k3y", "billing", "k3y"),
            (" a.b_c-D9 = k=3=y== ", "a.b_c-D9", "k=3=y=="),
        ] {
            let named = read(item).expect(item);
            assert_eq!((named.name.as_str(), named.key.expose()), (name, key));
        }
        let too_long = format!("{}=k3y", "n".repeat(NAME_LEN_MAX + 1));
        for item in [
            "", "k3y", "=k3y", "k3y=", "k3y==", "a b=k3y", "é=k3y", &too_long,
        ] {
            let problem = read(item).expect_err(item);
            assert!(!problem.contains("k3y"), "{problem}");
        }
    }

    #[test]
    fn a_file_has_one_on_each_line() {
        let keys = lines("# who pays\nbilling=k3y\r\n\n  games = pa55  \n").expect("it is one");
        let shown = format!("{keys:?} {}", serde_json::to_string(&keys).expect("JSON"));
        assert_eq!(
            shown,
            r#"[billing=***, games=***] ["billing=***","games=***"]"#
        );
        let problem = lines("billing=k3y\n#\npa55").expect_err("no name");
        assert!(
            problem.starts_with("names a file whose line 3 does"),
            "{problem}"
        );
        assert!(!problem.contains("pa55"), "{problem}");
    }
}
