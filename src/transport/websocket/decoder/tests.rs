use super::properties::frame;
use super::*;

const LEN_MAX: usize = 1000;

/// Decodes pieces one after the other.
fn decode(pieces: &[&[u8]]) -> Result<Vec<Received<'static>>, Fault> {
    let (mut decoder, mut events) = (Decoder::new(LEN_MAX), Vec::new());
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        while let Some(event) = decoder.next(&mut input)? {
            events.push(event.into_owned());
        }
    }
    Ok(events)
}

fn text(text: &str) -> Received<'_> {
    Received::Text(text.into())
}

#[test]
fn a_message_that_arrives_whole_is_borrowed() {
    let mut bytes = [frame(0x81, "é42".as_bytes(), 0), frame(0x89, b"x", 0)].concat();
    let (mut decoder, mut input) = (Decoder::new(LEN_MAX), &mut bytes[..]);
    let event = decoder.next(&mut input).expect("valid");
    assert!(matches!(event, Some(Received::Text(Cow::Borrowed("é42")))));
    let event = decoder.next(&mut input).expect("valid");
    assert!(matches!(event, Some(Received::Ping(Cow::Borrowed(b"x")))));
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert!(decoder.is_idle());
}

#[test]
fn nothing_is_held_between_messages() {
    let bytes = [
        frame(0x01, b"4", 0),
        frame(0x89, b"ping", 0),
        frame(0x80, b"2", 0),
    ]
    .concat();
    let (mut decoder, mut events) = (Decoder::new(LEN_MAX), Vec::new());
    for byte in bytes {
        assert_eq!(decoder.is_idle(), events.is_empty() && byte == 0x01);
        let mut input = &mut [byte][..];
        if let Some(event) = decoder.next(&mut input).expect("valid") {
            events.push(event.into_owned());
        }
    }
    assert_eq!(events, [Received::Ping(b"ping".into()), text("42")]);
    assert!(decoder.is_idle());
}

#[test]
fn too_much_is_refused_before_it_arrives() {
    let announced = frame(0x81, &[b'x'; LEN_MAX + 1], 0);
    assert_eq!(decode(&[&announced[..8]]), Err(Fault::TooLarge));
    let mut announced = frame(0x82, &[], 8);
    announced[2..10].copy_from_slice(&u64::MAX.to_be_bytes());
    assert_eq!(decode(&[&announced]), Err(Fault::TooLarge));
    let fragments = [
        frame(0x01, &[b'x'; LEN_MAX - 1], 0),
        frame(0x00, b"x", 0),
        frame(0x80, b"x", 0)[..6].to_vec(),
    ];
    assert_eq!(decode(&[&fragments.concat()]), Err(Fault::TooLarge));
    let most = frame(0x81, &[b'x'; LEN_MAX], 0);
    assert_eq!(
        decode(&[&most[..100], &most[100..]]).map(|events| events.len()),
        Ok(1)
    );
}

#[test]
fn invalid_text_is_refused_before_the_message_ends() {
    let begun = frame(0x01, "aé".as_bytes(), 0);
    assert_eq!(
        decode(&[&begun, &frame(0x00, b"\xff", 0)]),
        Err(Fault::InvalidUtf8)
    );
    let character = "🙂".as_bytes();
    let (head, tail) = (
        frame(0x01, &character[..2], 0),
        frame(0x80, &character[2..], 0),
    );
    assert_eq!(decode(&[&head, &tail]), Ok(vec![text("🙂")]));
    assert_eq!(
        decode(&[&head, &frame(0x80, b"", 0)]),
        Err(Fault::InvalidUtf8)
    );
}

#[test]
fn a_message_that_arrives_in_two_pieces_is_finished() {
    let bytes = [
        frame(0x82, b"a", 0),
        frame(0x89, b"", 0),
        frame(0x82, b"xyz", 0),
    ]
    .concat();
    let events = [
        Received::Binary(b"a".into()),
        Received::Ping(b"".into()),
        Received::Binary(b"xyz".into()),
    ];
    for cut in 0..bytes.len() {
        assert_eq!(
            decode(&[&bytes[..cut], &bytes[cut..]]),
            Ok(events.to_vec()),
            "{cut}"
        );
    }
}

#[test]
fn faults_have_their_codes() {
    for (bytes, code) in [
        (&b"\x81\x01x"[..], 1002),
        (b"\xc1\x80", 1002),
        (b"\x83\x80", 1002),
        (b"\x8b\x80", 1002),
        (b"\x09\x80", 1002),
        (b"\x89\xfe\0\x7e", 1002),
        (b"\x80\x80\0\0\0\0", 1002),
        (b"\x01\x80\0\0\0\0\x81\x80\0\0\0\0", 1002),
        (b"\x88\x81\0\0\0\0\x03", 1002),
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),
        (b"\x88\x83\0\0\0\0\x03\xe8\xff", 1007),
        (b"\x81\x81\0\0\0\0\xff", 1007),
        (b"\x81\xfe\x03\xe9\0\0\0\0", 1009),
    ] {
        let fault = decode(&[bytes]).expect_err("a fault");
        assert_eq!(fault.close_code(), code, "{bytes:?}");
    }
}

#[test]
fn a_close_frame_is_answered_with_its_code() {
    let closed = frame(0x88, b"\x0f\xa0bye", 0);
    assert_eq!(decode(&[&closed]), Ok(vec![Received::Close(Some(4000))]));
    assert_eq!(
        decode(&[&frame(0x88, b"", 0)]),
        Ok(vec![Received::Close(None)])
    );
    assert_eq!(&Received::close_answer(Some(4000))[..], b"\x88\x02\x0f\xa0");
    assert_eq!(&Received::close_answer(None)[..], b"\x88\x02\x03\xe8");
}
