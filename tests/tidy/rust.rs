//! Rust as these tests read it: without comments and texts, and without the tests inside it.

/// The source with every comment, text and character literal blanked out, line for line.
pub(crate) fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    let mut last = ' ';
    while let Some(next) = rest.chars().next() {
        let blank = match next {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest, '"'),
            'r' | 'b' if !is_word(last) && raw_text(rest).is_some() => {
                raw_text(rest).unwrap_or_default()
            }
            '\'' => character(rest),
            _ => 0,
        };
        if blank == 0 {
            code.push(next);
            last = next;
            rest = &rest[next.len_utf8()..];
        } else {
            code.extend(
                rest[..blank]
                    .chars()
                    .map(|c| if c == '\n' { c } else { ' ' }),
            );
            last = ' ';
            rest = &rest[blank..];
        }
    }
    code
}

/// Code without the items that are marked `#[cfg(test)]`, line for line.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = code.to_owned();
    while let Some(begin) = kept.find(MARK) {
        let item = &kept[begin + MARK.len()..];
        let end = match item.find(['{', ';']) {
            Some(at) if item[at..].starts_with('{') => at + block(&item[at..]),
            Some(at) => at + 1,
            None => item.len(),
        };
        let end = begin + MARK.len() + end;
        let blank: String = kept[begin..end]
            .chars()
            .map(|c| if c == '\n' { c } else { ' ' })
            .collect();
        kept.replace_range(begin..end, &blank);
    }
    kept
}

/// The block that begins with the first brace after `head`, braces included.
pub(crate) fn block_after<'a>(source: &'a str, head: &str) -> &'a str {
    let begin = source
        .find(head)
        .unwrap_or_else(|| panic!("there is no `{head}` any more"));
    let from = begin + source[begin..].find('{').expect("a block follows");
    &source[from..from + block(&source[from..])]
}

/// Where `name` stands in the code as a whole word, and what follows it.
pub(crate) fn words<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    code.match_indices(name).filter_map(move |(at, _)| {
        let after = &code[at + name.len()..];
        let alone = !code[..at].ends_with(is_word) && !after.starts_with(is_word);
        alone.then_some((line_of(code, at), after))
    })
}

/// The line of a place, counted from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// The identifier at the beginning.
pub(crate) fn identifier(code: &str) -> &str {
    &code[..code.find(|c| !is_word(c)).unwrap_or(code.len())]
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// How long the block is that begins here with `{`.
fn block(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of what begins with a quotation mark here and ends with the next one.
fn quoted(rest: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == mark => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a raw text such as `r#"…"#`, if one begins here.
fn raw_text(rest: &str) -> Option<usize> {
    let from_r = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r')?;
    let hashes = from_r.len() - from_r.trim_start_matches('#').len();
    let text = from_r[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = text.find(&end).map_or(text.len(), |at| at + end.len());
    Some(rest.len() - text.len() + length)
}

/// The length of a character literal; of the quotation mark alone where a lifetime begins.
fn character(rest: &str) -> usize {
    let mut inside = rest.chars().skip(1);
    let (first, second) = (inside.next(), inside.next());
    match (first, second) {
        (Some('\\'), _) | (_, Some('\'')) => quoted(rest, '\''),
        _ => 1,
    }
}

/// What the reading itself must get right, or the rules would pass over what they look for.
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_blank() {
        let source =
            "a // b\n/* c /* d */ e */ f(\"g\\\" h\", 'i', '\\'', b\"j\", r#\"k\"l\"#) &'m n";
        let letters: String = code_of(source)
            .chars()
            .filter(|c| c.is_alphabetic())
            .collect();
        assert_eq!(letters, "afbmn");
        assert_eq!(
            line_of(&code_of(source), code_of(source).find('f').expect("there")),
            2
        );
    }

    #[test]
    fn tests_are_left_out() {
        let code = "a;\n#[cfg(test)]\nmod tests { b { c } }\nd\n#[cfg(test)]\nuse e;\nf";
        let letters: Vec<_> = without_tests(code)
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        assert_eq!(letters, ["a;", "d", "f"]);
    }
}
