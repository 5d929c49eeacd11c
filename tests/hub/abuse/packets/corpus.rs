//! Packets that no client library sends, written down.

use serde_json::json;

use crate::harness::{announcing, frame};

/// Text messages that break the protocol: the node closes the connection of a client that has joined the root
/// namespace.
pub fn closed_for() -> Vec<String> {
    let mut packets: Vec<String> = [
        // Engine.IO: no type, types that only the node uses, types that do not exist.
        "",
        "0",
        "0{}",
        "0{\"sid\":\"x\"}",
        "1",
        "1now",
        "2probe",
        "3probe",
        "5",
        "5probe",
        "6",
        "7",
        "8",
        "9",
        "a",
        "A",
        "-",
        " ",
        "\0",
        "é",
        "🙂",
        "\u{feff}4",
        "b",
        "bAAAA",
        "bAA==",
        "b=",
        "b!!!!",
        "b42[\"x\"]",
        // Socket.IO: nothing, what only the node says, types that do not exist.
        "4",
        "44",
        "44{}",
        "44{\"message\":\"x\"}",
        "44/,",
        "47",
        "48",
        "49",
        "4a",
        "4-",
        "4 ",
        "4é",
        "4\0",
        "4🙂",
        // Events without a name.
        "42",
        "42[]",
        "42{}",
        "42[1]",
        "42[null]",
        "42[{}]",
        "42[[]]",
        "42[",
        "42]",
        "42\"x\"",
        "42x",
        "42null",
        "42[true,\"get-online-users\"]",
        "42-1[\"get-online-users\"]",
        "42é[\"x\"]",
        "421",
        "42,",
        "42,[\"x\"]",
        "421-[\"x\"]",
        "42[\"",
        "42\0[\"x\"]",
        "42+1[\"x\"]",
        "420x1[\"x\"]",
        "42[\"\\ud800\"]",
        "42[\"\u{1}\"]",
        // Events that are no JSON.
        "42[\"get-online-users\",\0]",
        "42[\"watch-profile\",{]",
        "42[\"get-online-users\"",
        "42[\"watch-profile\",{\"userId\":1}",
        "42[\"get-online-users\" \"x\"]",
        "42[\"get-online-users\",]",
        "42[\"get-online-users\",",
        // Acknowledgements without a number that anybody could have given.
        "43",
        "43[]",
        "43-1[]",
        "43{}",
        "43[\"x\"]",
        "43x[]",
        "43é[]",
        "431",
        "431x",
        "43 1[]",
        "439223372036854775808[]",
        "4399999999999999999999999999999999999999[]",
        "43,1[]",
        // Binary packets without a number of parts, or with one that nobody would wait for.
        "45",
        "45[]",
        "45[\"x\"]",
        "45-",
        "45-[\"x\"]",
        "45é-[\"x\"]",
        "451",
        "451[\"x\"]",
        "45 1-[\"x\"]",
        "45-1-[\"x\"]",
        "45x-[\"x\"]",
        "4599999-[\"x\"]",
        "455999999999-[\"x\"]",
        "4518446744073709551616-[\"x\"]",
        "46",
        "46[]",
        "461-",
        "461-[]",
        "460-[]",
        "465999999999-1[]",
        "46-1[]",
        "4618446744073709551616-1[]",
        "450-",
        "450-[]",
        "450-[1]",
        "45/unknown",
        // Namespaces that were not joined.
        "42/socket.io/,[\"get-online-users\"]",
        "42/socket.io/,7[\"get-online-users\"]",
        "41/socket.io/,",
        "41/socket.io/",
        "43/socket.io/,1[]",
        "450-/socket.io/,[\"get-online-users\"]",
        // Nobody is there any more after leaving.
        "41",
        "41,",
        "41{}",
        "41/,",
        "41[\"x\"]",
    ]
    .map(str::to_owned)
    .into();
    // A packet that announces parts must be followed by them, not by text.
    for attachments in 1..=3 {
        packets.push(format!("45{attachments}-[\"get-online-users\"]"));
        packets.push(format!(
            "46{attachments}-1[{{\"_placeholder\":true,\"num\":0}}]"
        ));
    }
    packets
}

/// Text messages that mean nothing, or are refused: the session goes on.
pub fn ignored() -> Vec<String> {
    let mut packets: Vec<String> = [
        // Engine.IO's heartbeat, whoever begins.
        "2",
        "3",
        "2x",
        "3x",
        "2é",
        "2prob",
        "2probes",
        "3\0",
        // Joining again, leaving what was not joined, namespaces that do not exist.
        "40",
        "40{}",
        "40null",
        "40{",
        "40[1,2]",
        "40{\"token\":1}",
        "40/,{}",
        "40/unknown",
        "40/unknown,",
        "40/unknown,{}",
        "40/\0,",
        "40/../,",
        "40/socket.io,",
        "40/socket.io//,",
        "40/SOCKET.IO/,",
        "40/é™🙂,{\"token\":{}}",
        "40//,",
        "40/?a=b,",
        "40/%2fsocket.io,",
        "40/__proto__,",
        "41/unknown,",
        "41/unknown",
        "41/socket.io,",
        "42/unknown,[\"x\"]",
        "42/unknown,1[\"get-online-users\"]",
        "43/unknown,1[]",
        "40\u{1e}",
        // Acknowledgements that nobody waits for.
        "430[]",
        "431[]",
        "43987654321[\"x\"]",
        "439223372036854775807[]",
        "430{",
        "430[",
        "430[[[[",
        "430{\"a\":1}",
        "43000000000000000000000000000[]",
        "460-1[]",
        "460-0[{\"_placeholder\":true,\"num\":0}]",
        // Events whose name is known, with numbers, arguments and ends of all kinds.
        "420[\"get-online-users\"]",
        "429223372036854775807[\"get-online-users\"]",
        "429223372036854775808[\"get-online-users\"]",
        "4299999999999999999999999999[\"get-online-users\"]",
        "4200000000000000000001[\"get-online-users\"]",
        "42/,[\"get-online-users\"]",
        "42/,5[\"get-online-users\"]",
        "450-[\"get-online-users\"]",
        "450-1[\"watch-profile\",{\"userId\":{\"_placeholder\":true,\"num\":0}}]",
        "42[\"get-online-users\",{\"_placeholder\":true,\"num\":0}]",
        "42[\"get-online-users\"]]",
        "42[\"get-online-users\"]x",
        "42[ \"get-online-users\" ]",
        "42 [\"get-online-users\"]",
        // Events that there are not.
        "42[\"\"]",
        "42[\"x\"]",
        "42[\"__proto__\",{}]",
        "42[\"constructor\"]",
        "42[\"connect\"]",
        "42[\"disconnect\"]",
        "42[\"connect_error\",{\"message\":\"x\"}]",
        "42[\"kicked\",{}]",
        "42[\"exception\",{}]",
        "42[\"é🙂\"]",
    ]
    .map(str::to_owned)
    .into();
    packets.push(format!("42[\"{}\"]", "n".repeat(15_000)));
    packets.push(format!("40/{},", "n".repeat(15_000)));
    packets.push(format!("42/{},[\"x\"]", "é".repeat(7_000)));
    packets.push(format!(
        "42[\"x\",{}{}]",
        "[".repeat(7_000),
        "]".repeat(7_000)
    ));
    packets.push(format!("42[\"watch-profile\"{}]", ",1".repeat(7_000)));
    packets.push(format!("430{}", "[".repeat(15_000)));
    packets
}

/// Values of `auth` that make neither a guest nor a user of a client.
pub fn no_auth() -> Vec<String> {
    let mut auths: Vec<String> = [
        "-1",
        "true",
        "\"\"",
        "\"x\"",
        "[]",
        "[null]",
        "[{}]",
        "{",
        "}",
        "{}x",
        "{]",
        "nul",
        "null x",
        "é",
        "{\"token\"}",
        "{\"token\":}",
        "{\"token\":1}",
        "{\"token\":0}",
        "{\"token\":false}",
        "{\"token\":[]}",
        "{\"token\":[\"a.b.c\"]}",
        "{\"token\":{}}",
        "{\"token\":{\"token\":null}}",
        "{\"token\":\"x\"}",
        "{\"token\":\".\"}",
        "{\"token\":\"..\"}",
        "{\"token\":\"...\"}",
        "{\"token\":\"a.b.c\"}",
        "{\"token\":\" \"}",
        "{\"token\":\"\\u0000\"}",
        "{\"token\":\"\\ud800\"}",
        "{\"token\":\"null\"}",
        "{\"token\":null,\"token\":null}",
        "{\"token\":null,\"token\":\"x\"}",
        "{\"token\":\"x\",\"token\":null}",
        "{\"\\u0074oken\":\"x\"}",
        "{\"token\":9007199254740993}",
        "{\"token\":1e999}",
    ]
    .map(str::to_owned)
    .into();
    auths.push(json!({ "token": "x".repeat(15_000) }).to_string());
    auths.push(json!({ "token": ".".repeat(15_000) }).to_string());
    auths.push(format!(
        "{{\"token\":{}{}}}",
        "[".repeat(7_000),
        "]".repeat(7_000)
    ));
    auths
}

/// Bytes on a WebSocket that break its protocol: the node closes the connection.
pub fn broken_frames() -> Vec<Vec<u8>> {
    let ask: &[u8] = br#"42["get-online-users"]"#;
    let mut broken = Vec::new();
    // Bits and opcodes that mean nothing.
    for first in [0xc1, 0xa1, 0x91, 0xf1, 0x71, 0xc2, 0xc0, 0xc8, 0xc9, 0xca] {
        broken.push(frame(first, ask));
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        broken.push(frame(0x80 | opcode, ask));
        broken.push(frame(opcode, b""));
    }
    // Without a mask.
    for (first, payload) in [
        (0x81, ask),
        (0x81, b""),
        (0x82, b"x"),
        (0x89, b""),
        (0x01, b"4"),
    ] {
        broken.push([&[first, payload.len() as u8], payload].concat());
    }
    // Control frames that are long, or in pieces.
    for opcode in [8, 9, 0xa] {
        broken.push(frame(0x80 | opcode, &[b'x'; 126]));
        broken.push(frame(0x80 | opcode, &[b'x'; 4_000]));
        broken.push(frame(opcode, b"x"));
        broken.push(announcing(0x80 | opcode, u64::MAX));
    }
    // Pieces of no message, and a message inside another.
    broken.push(frame(0x80, ask));
    broken.push(frame(0x00, ask));
    broken.push([frame(0x01, b"4"), frame(0x81, ask)].concat());
    broken.push([frame(0x02, b"x"), frame(0x01, ask)].concat());
    broken.push([frame(0x81, b"2"), frame(0x80, b"2")].concat());
    // Text that is none.
    for text in [
        &b"\xff"[..],
        b"42\xc3",
        b"42[\"\xed\xa0\x80\"]",
        b"\xf5\x80\x80\x80",
        b"42[\"\xc0\x80\"]",
        b"4\x80",
    ] {
        broken.push(frame(0x81, text));
        broken.push([frame(0x01, text), frame(0x80, b"")].concat());
    }
    // A character that ends in another piece never, or wrongly.
    broken.push([frame(0x01, b"42\xc3"), frame(0x80, b"x")].concat());
    // Goodbyes that are none.
    broken.push(frame(0x88, b""));
    broken.push(frame(0x88, b"x"));
    for code in [
        0_u16, 999, 1000, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535,
    ] {
        broken.push(frame(0x88, &code.to_be_bytes()));
        broken.push(frame(
            0x88,
            &[&code.to_be_bytes()[..], b"\xff\xfe"].concat(),
        ));
    }
    // Parts that nothing has announced.
    broken.push(frame(0x82, b""));
    broken.push(frame(0x82, b"x"));
    broken.push(frame(0x82, &[0; 4_000]));
    broken
}

/// Bodies that a polling client may post; the session may go on or end.
pub fn bodies() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = closed_for().into_iter().map(String::into_bytes).collect();
    bodies.extend(ignored().into_iter().map(String::into_bytes));
    let separated: [&[u8]; 24] = [
        b"\x1e",
        b"\x1e\x1e",
        b"\x1e\x1e\x1e\x1e",
        b"40\x1e",
        b"\x1e40",
        b"\x1e40\x1e",
        b"2\x1e3\x1e2",
        b"40\x1e40\x1e40",
        b"40\x1e41\x1e40\x1e41",
        b"42[\"x\"]\x1e\x1e42[\"x\"]",
        b"1\x1e42[\"get-online-users\"]",
        b"1\x1e1\x1e1",
        b"451-[\"x\"]\x1ebAAAA",
        b"451-[\"x\"]\x1eb",
        b"452-[\"x\"]\x1ebAAAA\x1e40",
        b"451-[\"x\"]\x1ebAAA",
        b"bAAAA",
        b"b====",
        b"bAAAA\x1ebAAAA",
        b"\xff",
        b"4\xff\xfe",
        b"42[\"\xed\xa0\x80\"]",
        b"\x00\x04\xff4",
        b"2:40",
    ];
    bodies.extend(separated.map(<[u8]>::to_vec));
    for (packet, times) in [
        ("2", 4_000),
        ("40", 4_000),
        ("40/x,", 2_000),
        ("41", 4_000),
        ("43 1[]", 2_000),
        ("", 10_000),
    ] {
        bodies.push(vec![packet; times].join("\u{1e}").into_bytes());
    }
    bodies
}

/// Queries that a request to `/socket.io/` may have.
pub fn queries() -> Vec<String> {
    let mut queries: Vec<String> = [
        "",
        "&",
        "=",
        "EIO",
        "EIO=",
        "EIO=4",
        "EIO=3&transport=polling",
        "EIO=3&transport=websocket",
        "EIO=5&transport=polling",
        "EIO=0&transport=polling",
        "EIO=-4&transport=polling",
        "EIO=4.0&transport=polling",
        "EIO=04&transport=polling",
        "EIO=99999999999999999999&transport=polling",
        "EIO=%34&transport=polling",
        "eio=4&transport=polling",
        "EIO=4&transport=",
        "EIO=4&transport",
        "EIO=4&transport=flashsocket",
        "EIO=4&transport=webtransport",
        "EIO=4&transport=POLLING",
        "EIO=4&transport=polling%00",
        "EIO=4&transport=polling&sid=",
        "EIO=4&transport=polling&sid=x",
        "EIO=4&transport=polling&sid=../../etc",
        "EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA",
        "EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAAA",
        "EIO=4&transport=websocket&sid=AAAAAAAAAAAAAAAAAAAA",
        "EIO=4&transport=websocket&sid=%00",
        "EIO=4&transport=polling&sid=__proto__",
        "EIO=4&transport=polling&sid=x&sid=AAAAAAAAAAAAAAAAAAAA",
        "EIO=4&EIO=3&transport=polling&sid=x",
        "EIO=4&transport=websocket&transport=polling&sid=x",
        "EIO=4&transport=polling&b64=1&sid=x",
        "EIO=4&transport=polling&j=0&sid=x",
        "EIO=4;transport=polling",
        "EIO=4&transport=polling&sid=%ff%fe",
        "EIO[]=4&transport[]=polling",
        "EIO=4&transport=polling&sid=+",
    ]
    .map(str::to_owned)
    .into();
    queries.push(format!("EIO=4&transport=polling&sid={}", "A".repeat(8_000)));
    queries.push(format!(
        "EIO=4&transport=websocket&sid={}",
        "A".repeat(8_000)
    ));
    queries.push(format!(
        "{}EIO=4&transport=polling&sid=x",
        "a=b&".repeat(2_000)
    ));
    queries
}
