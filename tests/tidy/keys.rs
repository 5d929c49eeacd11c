//! The tables of keys and channels, from `src/engine/redis/keys.rs`: the names are what its functions spell, the other
//! columns are their doc comments.

use std::collections::BTreeMap;

use syn::parse::ParseStream;
use syn::{Attribute, Expr, ImplItem, ImplItemFn, Item, Lit, Meta, ReturnType, Stmt, Visibility};

use crate::read;
use crate::tables::Row;

const FILE: &str = "src/engine/redis/keys.rs";

/// Spells a pattern, no name.
const PATTERN: &str = "pattern";

/// How a doc comment marks what becomes a column.
const MARKS: [&str; 5] = ["KEY", "LIVES", "WRITTEN BY", "CHANNEL", "PUBLISHED BY"];

/// A name and the marked parts of its doc comment.
type Named = (String, BTreeMap<&'static str, String>);

pub(crate) fn keys() -> Vec<Row> {
    let keys = named().into_iter().filter_map(|(name, docs)| {
        let (of_type, holds) = docs.get("KEY")?.split_once(": ")?;
        let column = |mark: &str| {
            docs.get(mark)
                .cloned()
                .unwrap_or_else(|| lacks(&name, mark))
        };
        let row = [
            of_type.to_owned(),
            holds.to_owned(),
            column("LIVES"),
            column("WRITTEN BY"),
        ];
        Some([vec![format!("`{name}`")], row.to_vec()].concat())
    });
    keys.collect()
}

pub(crate) fn channels() -> Vec<Row> {
    let channels = named().into_iter().filter_map(|(name, docs)| {
        let carries = docs.get("CHANNEL")?.clone();
        let publishers = docs.get("PUBLISHED BY").cloned();
        let publishers = publishers.unwrap_or_else(|| lacks(&name, "PUBLISHED BY"));
        Some(vec![format!("`{name}`"), carries, publishers])
    });
    channels.collect()
}

fn lacks(name: &str, mark: &str) -> ! {
    panic!("{FILE}: the doc comment of `{name}` has no line `{mark} …`")
}

/// Every key and channel. What ends with a colon is the beginning of keys that are spelled elsewhere.
fn named() -> Vec<Named> {
    let functions = functions();
    let helpers = functions.iter().filter(|function| !is_public(function));
    let helpers = helpers.filter_map(|function| {
        let spelled = spelled(tail(function)?, &BTreeMap::new())?;
        Some((function.sig.ident.to_string(), spelled))
    });
    let helpers: BTreeMap<String, String> = helpers.collect();
    let mut named = Vec::new();
    for function in functions
        .iter()
        .filter(|function| is_public(function) && spells(function))
    {
        let spelled = tail(function).and_then(|expression| spelled(expression, &helpers));
        let name = &function.sig.ident;
        let spelled = spelled
            .unwrap_or_else(|| panic!("{FILE}: `{name}` spells no name in a way known here"));
        let docs = docs(&function.attrs);
        let is_beginning = spelled.ends_with(':');
        let is_documented = docs.contains_key("KEY") || docs.contains_key("CHANNEL");
        assert!(
            is_beginning || is_documented,
            "{FILE}: the doc comment of `{name}` has no line `KEY TYPE: …` or `CHANNEL …`"
        );
        named.push((shown(&spelled), docs));
    }
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    named
}

fn functions() -> Vec<ImplItemFn> {
    let file = syn::parse_file(&read(FILE)).expect("it is Rust");
    let implementations = file.items.into_iter().filter_map(|item| match item {
        Item::Impl(implementation) => Some(implementation.items),
        _ => None,
    });
    let functions = implementations.flatten().filter_map(|item| match item {
        ImplItem::Fn(function) => Some(function),
        _ => None,
    });
    functions.collect()
}

fn is_public(function: &ImplItemFn) -> bool {
    !matches!(function.vis, Visibility::Inherited)
}

fn spells(function: &ImplItemFn) -> bool {
    let returns_text = matches!(&function.sig.output, ReturnType::Type(_, of_type)
        if matches!(&**of_type, syn::Type::Path(path) if path.path.is_ident("String")));
    returns_text && function.sig.ident != PATTERN
}

/// The expression that a function returns.
fn tail(function: &ImplItemFn) -> Option<&Expr> {
    match function.block.stmts.last()? {
        Stmt::Expr(expression, None) => Some(expression),
        _ => None,
    }
}

/// The format of the name that an expression spells: a literal, `format!`, or a helper's with the rest of the name.
fn spelled(expression: &Expr, helpers: &BTreeMap<String, String>) -> Option<String> {
    match expression {
        Expr::Lit(literal) => text(&literal.lit),
        Expr::Reference(reference) => spelled(&reference.expr, helpers),
        Expr::Macro(call) => {
            let format = |input: ParseStream<'_>| {
                let format: Lit = input.parse()?;
                let _arguments: proc_macro2::TokenStream = input.parse()?;
                Ok(format)
            };
            text(&call.mac.parse_body_with(format).ok()?)
        }
        Expr::MethodCall(call) => {
            let helper = helpers.get(&call.method.to_string())?;
            let name = spelled(call.args.last()?, helpers)?;
            Some(helper.replace("{name}", &name))
        }
        _ => None,
    }
}

fn text(literal: &Lit) -> Option<String> {
    match literal {
        Lit::Str(text) => Some(text.value()),
        _ => None,
    }
}

/// A format as documentation shows it: `{}:{{{partition}}}:conns:{user}` as `vigie:{p}:conns:<user>`.
fn shown(format: &str) -> String {
    let tagged = format.replace("{{{partition}}}", "[p]");
    let tagged = tagged.replace("{{", "[").replace("}}", "]");
    let varying = tagged
        .replace("{}", "vigie")
        .replace('{', "<")
        .replace('}', ">");
    varying.replace('[', "{").replace(']', "}")
}

/// The marked parts of a doc comment; a line without a mark continues the one before.
fn docs(attributes: &[Attribute]) -> BTreeMap<&'static str, String> {
    let mut docs: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut current = None;
    for attribute in attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
    {
        let Meta::NameValue(doc) = &attribute.meta else {
            continue;
        };
        let Expr::Lit(doc) = &doc.value else { continue };
        let line = text(&doc.lit).unwrap_or_default();
        let line = line.trim();
        let marked = MARKS
            .iter()
            .find_map(|mark| Some((*mark, line.strip_prefix(mark)?.strip_prefix(' ')?)));
        if let Some((mark, rest)) = marked {
            docs.insert(mark, rest.to_owned());
            current = Some(mark);
        } else if let Some(part) = current.and_then(|mark| docs.get_mut(mark)) {
            *part += &format!(" {line}");
        }
    }
    docs
}
