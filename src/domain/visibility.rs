//! Which view of a user somebody gets, and what the public one holds.
//!
//! The public view lets through what is listed; it never lists what to hold back.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::ids::UserId;

/// How much of a user somebody may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The public fields.
    Public,
    /// All fields.
    Full,
}

/// The rules, as configured.
#[derive(Clone, Debug)]
pub struct Visibility {
    public_fields: HashSet<String>,
}

impl Visibility {
    /// Lets the fields named through to everybody.
    pub fn new(public_fields: &[String]) -> Self {
        Self {
            public_fields: public_fields.iter().cloned().collect(),
        }
    }

    /// Whether everybody may see the field.
    pub fn is_public(&self, field: &str) -> bool {
        self.public_fields.contains(field)
    }

    /// The public fields of a JSON object.
    ///
    /// # Errors
    /// When it is none.
    pub fn public_view(&self, full: &RawValue) -> Result<Arc<RawValue>, serde_json::Error> {
        let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(full.get())?;
        fields.retain(|field, _| self.is_public(field));
        serde_json::value::to_raw_value(&fields).map(Arc::from)
    }
}

/// The view of `user` that somebody signed in as `viewer`, or a guest, may have. Where it is not known who the
/// user's friends are, nobody is one.
pub fn view_of(user: UserId, viewer: Option<UserId>, friends: Option<&HashSet<UserId>>) -> View {
    let is_friend = |viewer: &UserId| friends.is_some_and(|friends| friends.contains(viewer));
    match viewer {
        Some(viewer) if viewer == user || is_friend(&viewer) => View::Full,
        Some(_) | None => View::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public_view(full: &str) -> String {
        let visibility = Visibility::new(&["username".to_owned(), "avatar".to_owned()]);
        let full = RawValue::from_string(full.to_owned()).expect("valid JSON");
        visibility
            .public_view(&full)
            .expect("an object")
            .get()
            .to_owned()
    }

    #[test]
    fn only_listed_fields_pass() {
        let full = r#"{"username":"ada","email":"a@b","avatar":{"email":1},"Username":"x","__proto__":{}}"#;
        assert_eq!(
            public_view(full),
            r#"{"avatar":{"email":1},"username":"ada"}"#
        );
    }

    #[test]
    fn values_pass_to_the_letter() {
        assert_eq!(
            public_view(r#"{"username":12345678901234567890.10}"#),
            r#"{"username":12345678901234567890.10}"#
        );
    }

    #[test]
    fn what_is_no_object_has_no_public_view() {
        let visibility = Visibility::new(&["username".to_owned()]);
        for full in ["[]", "1", "\"username\"", "null"] {
            let full = RawValue::from_string(full.to_owned()).expect("valid JSON");
            assert!(visibility.public_view(&full).is_err(), "{full}");
        }
    }

    #[test]
    fn friends_and_the_user_see_everything() {
        let [ada, bob, eve] = [1, 2, 3].map(|id| UserId::try_from(id).expect("a valid id"));
        let friends = HashSet::from([bob]);
        for known in [Some(&friends), None] {
            assert_eq!(view_of(ada, Some(ada), known), View::Full);
            assert_eq!(view_of(ada, Some(eve), known), View::Public);
            assert_eq!(view_of(ada, None, known), View::Public);
        }
        assert_eq!(view_of(ada, Some(bob), Some(&friends)), View::Full);
        assert_eq!(view_of(ada, Some(bob), None), View::Public);
    }
}
