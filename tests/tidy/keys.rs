//! The tables of keys and channels, from `src/engine/redis/keys.rs`: the names are what its functions spell, the other
//! columns are their doc comments.

use std::collections::BTreeMap;

use syn::parse::ParseStream;
use syn::{
    Attribute, Expr, ImplItem, ImplItemFn, Item, Lit, LitStr, ReturnType, Stmt, Type, Visibility,
};

use crate::read;
use crate::tables::Row;

const FILE: &str = "src/engine/redis/keys.rs";

/// Returns text that is no name.
const PATTERN: &str = "pattern";

/// How a doc comment marks what becomes a column.
const MARKS: [&str; 5] = ["KEY", "LIVES", "WRITTEN BY", "CHANNEL", "PUBLISHED BY"];

pub(crate) fn keys() -> Vec<Row> {
    let mut rows = rows(&["KEY", "LIVES", "WRITTEN BY"]);
    for row in &mut rows {
        let (of_type, holds) = row[1]
            .split_once(": ")
            .expect("KEY is followed by a type and a colon");
        row.splice(1..2, [of_type.to_owned(), holds.to_owned()]);
    }
    rows
}

pub(crate) fn channels() -> Vec<Row> {
    rows(&["CHANNEL", "PUBLISHED BY"])
}

/// The names whose doc comment has the first mark, with what follows each mark.
fn rows(marks: &[&str]) -> Vec<Row> {
    let functions = functions();
    let (offered, helpers): (Vec<_>, Vec<_>) = functions
        .iter()
        .partition(|function| !matches!(function.vis, Visibility::Inherited));
    let helpers = helpers.into_iter().filter_map(|function| {
        let format = format_of(returned(function)?, &BTreeMap::new())?;
        Some((function.sig.ident.to_string(), format))
    });
    let helpers: BTreeMap<String, String> = helpers.collect();
    let mut rows = Vec::new();
    for function in offered
        .into_iter()
        .filter(|function| returns_text(function))
    {
        let place = format!("{FILE}, `{}`", function.sig.ident);
        let format = returned(function).and_then(|expression| format_of(expression, &helpers));
        let format =
            format.unwrap_or_else(|| panic!("{place}: spells no name in a way known here"));
        let docs = docs(&function.attrs);
        if docs.contains_key(marks[0]) {
            let column = |mark: &&str| docs.get(*mark).cloned();
            let columns: Option<Row> = marks.iter().map(column).collect();
            let columns =
                columns.unwrap_or_else(|| panic!("{place}: document {}", marks.join(", ")));
            rows.push([vec![format!("`{}`", shown(&format))], columns].concat());
        }
        // A name that ends with a colon is the beginning of keys that are spelled elsewhere.
        let is_documented = docs.contains_key("KEY") || docs.contains_key("CHANNEL");
        assert!(
            is_documented || format.ends_with(':'),
            "{place}: document `KEY TYPE: …` or `CHANNEL …`"
        );
    }
    rows.sort();
    rows
}

fn functions() -> Vec<ImplItemFn> {
    let file = syn::parse_file(&read(FILE)).expect("it is Rust");
    let items = file.items.into_iter().flat_map(|item| match item {
        Item::Impl(implementation) => implementation.items,
        _ => Vec::new(),
    });
    let functions = items.filter_map(|item| match item {
        ImplItem::Fn(function) => Some(function),
        _ => None,
    });
    functions.collect()
}

fn returns_text(function: &ImplItemFn) -> bool {
    let is_text = matches!(&function.sig.output, ReturnType::Type(_, of_type)
        if matches!(&**of_type, Type::Path(path) if path.path.is_ident("String")));
    is_text && function.sig.ident != PATTERN
}

/// The expression that a function returns.
fn returned(function: &ImplItemFn) -> Option<&Expr> {
    match function.block.stmts.last()? {
        Stmt::Expr(expression, None) => Some(expression),
        _ => None,
    }
}

/// The format of the name that an expression spells: a literal, `format!`, or a helper's with the rest of the name.
fn format_of(expression: &Expr, helpers: &BTreeMap<String, String>) -> Option<String> {
    match expression {
        Expr::Lit(literal) => text(&literal.lit),
        Expr::Reference(reference) => format_of(&reference.expr, helpers),
        Expr::Macro(call) => {
            let first = |input: ParseStream<'_>| {
                let format: LitStr = input.parse()?;
                input
                    .parse::<proc_macro2::TokenStream>()
                    .map(|_| format.value())
            };
            call.mac.parse_body_with(first).ok()
        }
        Expr::MethodCall(call) => {
            let helper = helpers.get(&call.method.to_string())?;
            let name = format_of(call.args.last()?, helpers)?;
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
    let tagged = format
        .replace("{{{partition}}}", "[p]")
        .replace("{{mm}}", "[mm]");
    let named = tagged
        .replace("{}", "vigie")
        .replace('{', "<")
        .replace('}', ">");
    named.replace('[', "{").replace(']', "}")
}

/// The marked parts of a doc comment; a line without a mark continues the one before.
fn docs(attributes: &[Attribute]) -> BTreeMap<&'static str, String> {
    let mut docs: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut current = None;
    for attribute in attributes {
        let value = attribute
            .meta
            .require_name_value()
            .ok()
            .map(|doc| &doc.value);
        let Some(line) = value.and_then(|value| format_of(value, &BTreeMap::new())) else {
            continue;
        };
        let line = line.trim();
        let marked = MARKS
            .iter()
            .find_map(|mark| Some((*mark, line.strip_prefix(mark)?)));
        if let Some((mark, rest)) = marked {
            docs.insert(mark, rest.trim().to_owned());
            current = Some(mark);
        } else if let Some(part) = current.and_then(|mark| docs.get_mut(mark)) {
            *part += &format!(" {line}");
        }
    }
    docs
}
