//! Nesting depth of JSON, without parsing and without recursion.

/// Whether arrays and objects are nested more than `levels` deep. The result is meaningless for bytes that are not JSON,
/// which the parser refuses anyway.
pub(super) fn is_deeper_than(levels: usize, json: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > levels {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: usize = 64;

    fn is_too_deep(json: &[u8]) -> bool {
        is_deeper_than(LEVELS, json)
    }

    fn nested(levels: usize) -> String {
        format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn levels_are_counted_where_they_are_open_at_once() {
        assert!(!is_too_deep(nested(LEVELS).as_bytes()));
        assert!(is_too_deep(nested(LEVELS + 1).as_bytes()));
        let objects = format!("{}1{}", r#"{"a":"#.repeat(65), "}".repeat(65));
        assert!(is_too_deep(objects.as_bytes()));
        let side_by_side = format!("[{}1]", "[[]],{},".repeat(1000));
        assert!(!is_too_deep(side_by_side.as_bytes()));
    }

    #[test]
    fn texts_are_not_levels() {
        let text = "[".repeat(100);
        for json in [
            format!(r#""{text}""#),
            format!(r#"["\"{text}"]"#),
            format!(r#"["\\", "{text}"]"#),
            format!(r#"{{"{text}": "{text}"}}"#),
        ] {
            assert!(!is_too_deep(json.as_bytes()), "{json}");
        }
        let after_a_text = format!(r#"["\\",{}]"#, nested(64));
        assert!(is_too_deep(after_a_text.as_bytes()));
    }

    #[test]
    fn what_is_no_json_does_no_harm() {
        for bytes in [&b""[..], b"]]]]", b"\"[[", b"\\", &[0xff; 9]] {
            assert!(!is_too_deep(bytes));
        }
        assert!(is_too_deep(&[b'['; 1_000_000]));
    }
}
