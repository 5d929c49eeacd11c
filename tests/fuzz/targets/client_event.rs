//! Events as a stranger may write them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vigie::internals::Request;

/// Bytes of what was sent that a refusal may repeat, and the sign that something is left out.
const ECHO_LEN_MAX: usize = 128 + '…'.len_utf8();

fuzz_target!(|text: &str| {
    for has_binary in [false, true] {
        let (name, request) = Request::decode(text, has_binary);
        assert!(name.len() <= ECHO_LEN_MAX);
        match request {
            // An id is written as it is read.
            Ok(Request::Watch(user) | Request::Unwatch(user)) => {
                assert!(!has_binary && text.contains(&user.to_string()));
            }
            Ok(Request::RefreshToken(token)) => assert!(!has_binary && token.len() <= text.len()),
            Ok(_) => {}
            Err((_, message)) => assert!(!message.is_empty() && message.len() <= ECHO_LEN_MAX),
        }
    }
});
