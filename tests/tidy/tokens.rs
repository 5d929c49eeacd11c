//! Rust as these tests read it: the tokens of a file, also those inside macros.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

use crate::read;

/// The macros that log.
const LOGGING: [&str; 6] = ["error", "warn", "info", "debug", "trace", "warn_seldom"];

/// A path of several names, such as `crate::ids::UserId`; lists in braces are spelled out.
pub(crate) struct Path {
    pub(crate) names: Vec<String>,
    /// How many modules the path is in within its file.
    pub(crate) modules: usize,
}

/// The tokens of a file; comments are none.
pub(crate) fn tokens_of(file: &str) -> TokenStream {
    let tokens = read(file).parse();
    tokens.unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every path in the tokens.
pub(crate) fn paths(tokens: TokenStream) -> Vec<Path> {
    let mut found = Vec::new();
    collect(tokens, 0, &[], &mut found);
    found
}

/// `prefix`: where this is a list in braces, the names before it.
fn collect(tokens: TokenStream, modules: usize, prefix: &[String], found: &mut Vec<Path>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => {
                let is_module = at >= 2 && is_ident(&tokens[at - 2], "mod");
                collect(group.stream(), modules + usize::from(is_module), &[], found);
            }
            TokenTree::Ident(first) => {
                let mut names = [prefix, &[first.to_string()]].concat();
                while tokens.get(at + 1..).is_some_and(begins_with_colons) {
                    match tokens.get(at + 3) {
                        Some(TokenTree::Ident(name)) => names.push(name.to_string()),
                        Some(TokenTree::Group(list)) if list.delimiter() == Delimiter::Brace => {
                            collect(list.stream(), modules, &names, found);
                        }
                        _ => break,
                    }
                    at += 3;
                }
                if names.len() > 1 {
                    found.push(Path { names, modules });
                }
            }
            _ => {}
        }
        at += 1;
    }
}

fn begins_with_colons(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [TokenTree::Punct(first), TokenTree::Punct(second), ..]
        if first.as_char() == ':' && first.spacing() == Spacing::Joint && second.as_char() == ':')
}

fn is_ident(token: &TokenTree, name: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == name)
}

/// The names of the fields in every call of a macro that logs.
pub(crate) fn logged_fields(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut fields = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else {
            continue;
        };
        fields.extend(logged_fields(group.stream()));
        let is_call = at >= 2 && LOGGING.iter().any(|name| is_ident(&tokens[at - 2], name));
        if is_call && matches!(&tokens[at - 1], TokenTree::Punct(mark) if mark.as_char() == '!') {
            fields.extend(fields_of(group.stream()));
        }
    }
    fields
}

/// The names in `target: …, name = value, %name, ?name, name, "message", …`.
fn fields_of(call: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = call.into_iter().collect();
    let arguments = tokens.split(|token| is_punct(token, ','));
    let mut fields = Vec::new();
    for argument in arguments {
        let marked = argument
            .first()
            .is_some_and(|token| is_punct(token, '%') || is_punct(token, '?'));
        match &argument[usize::from(marked)..] {
            [TokenTree::Ident(_), TokenTree::Punct(colon), ..] if colon.as_char() == ':' => {}
            [TokenTree::Ident(name), ..] => fields.push(name.to_string()),
            _ => break,
        }
    }
    fields
}

fn is_punct(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

/// Goal: the rules that read tokens see what they are to see. Method: lists, nested lists, paths and calls inside macros,
/// modules inside a file.
#[test]
fn paths_and_fields_are_found() {
    let code = r#"
        use crate::{a::{b, c}, d};
        select! { x => { e::f::<g::h>(y: u8, ::i::j) } }
        mod tests { use super::k; }
        select! { _ = z => warn!(target: "t", user, peer = %self.peer, ?side, "text", other = 1) }
    "#;
    let tokens: TokenStream = code.parse().expect("tokens");
    let paths = paths(tokens.clone());
    let paths: Vec<_> = paths
        .iter()
        .map(|path| (path.names.join("::"), path.modules))
        .collect();
    let expected = [
        ("crate::a::b", 0),
        ("crate::a::c", 0),
        ("crate::a", 0),
        ("crate::d", 0),
        ("e::f", 0),
        ("g::h", 0),
        ("i::j", 0),
        ("super::k", 1),
    ];
    let expected = expected.map(|(path, modules)| (path.to_owned(), modules));
    assert_eq!(paths, expected);
    assert_eq!(logged_fields(tokens), ["user", "peer", "side"]);
}
