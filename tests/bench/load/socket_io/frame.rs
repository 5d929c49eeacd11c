//! WebSocket frames (RFC 6455), as far as these clients need them: reads complete, unmasked frames of a server,
//! writes short masked ones.

/// The RFC demands random keys to protect intermediaries from crafted payloads; there are none here.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x3c, 0xa5];

/// Longer than any answer to a client of this program.
const LENGTH_MAX: u64 = 64 * 1024 * 1024;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

#[derive(Debug, PartialEq)]
pub(crate) enum Frame<'a> {
    Text(&'a [u8]),
    /// To be returned in a pong.
    Ping(&'a [u8]),
    Close,
    Other,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a masked frame")]
    Masked,
    /// No server under test fragments its short messages.
    #[error("a message in several frames")]
    Fragmented,
    #[error("a frame of an extension, which was not asked for")]
    Extension,
    #[error("a frame of {0} bytes")]
    TooLong(u64),
}

/// The first frame of `bytes` and its length in bytes; `None` when it is incomplete.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let [first, second, ..] = *bytes else {
        return Ok(None);
    };
    match (first & 0x80 != 0, first & 0x70, second & 0x80) {
        (_, _, masked) if masked != 0 => return Err(FrameError::Masked),
        (_, extension, _) if extension != 0 => return Err(FrameError::Extension),
        (false, ..) => return Err(FrameError::Fragmented),
        _ => {}
    }
    let Some((length, begin)) = length(bytes) else {
        return Ok(None);
    };
    if length > LENGTH_MAX {
        return Err(FrameError::TooLong(length));
    }
    let end = begin + length as usize;
    let Some(payload) = bytes.get(begin..end) else {
        return Ok(None);
    };
    let frame = match first & 0x0f {
        TEXT => Frame::Text(payload),
        CLOSE => Frame::Close,
        PING => Frame::Ping(payload),
        _ => Frame::Other,
    };
    Ok(Some((frame, end)))
}

/// Length of the payload, and its offset.
fn length(bytes: &[u8]) -> Option<(u64, usize)> {
    match bytes.get(1)? & 0x7f {
        126 => {
            let length = bytes.get(2..4)?.try_into().ok()?;
            Some((u16::from_be_bytes(length).into(), 4))
        }
        127 => {
            let length = bytes.get(2..10)?.try_into().ok()?;
            Some((u64::from_be_bytes(length), 10))
        }
        length => Some((length.into(), 2)),
    }
}

pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    write(out, TEXT, text.as_bytes());
}

pub(crate) fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, PONG, payload);
}

pub(crate) fn write_close(out: &mut Vec<u8>) {
    write(out, CLOSE, &1000_u16.to_be_bytes());
}

fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ ..126 => out.push(0x80 | length as u8),
        length @ ..=0xffff => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ ..126 => frame.push(length as u8),
            length @ ..=0xffff => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_of_every_length_are_read_whole_or_not_at_all() {
        for length in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, 70_000] {
            let payload = vec![b'x'; length];
            let mut bytes = frame(0x81, &payload);
            let end = bytes.len();
            assert_eq!(read(&bytes), Ok(Some((Frame::Text(&payload), end))));
            for cut in (0..end).step_by(1 + end / 50) {
                assert_eq!(read(&bytes[..cut]), Ok(None), "{cut} of {end}");
            }
            bytes.extend(frame(0x88, b""));
            assert_eq!(read(&bytes), Ok(Some((Frame::Text(&payload), end))));
            assert_eq!(read(&bytes[end..]), Ok(Some((Frame::Close, 2))));
        }
    }

    #[test]
    fn pings_are_distinguished_from_other_frames() {
        let ping = frame(0x89, b"now");
        assert_eq!(read(&ping), Ok(Some((Frame::Ping(b"now"), 5))));
        for opcode in [2, 10] {
            let other = frame(0x80 | opcode, b"now");
            assert_eq!(read(&other), Ok(Some((Frame::Other, 5))));
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_an_error() {
        assert_eq!(read(&frame(0x01, b"a")), Err(FrameError::Fragmented));
        assert_eq!(read(&frame(0xc1, b"a")), Err(FrameError::Extension));
        assert_eq!(read(&[0x81, 0x81, 1, 2, 3, 4, 0]), Err(FrameError::Masked));
        let mut long = vec![0x81, 127];
        long.extend(u64::MAX.to_be_bytes());
        assert_eq!(read(&long), Err(FrameError::TooLong(u64::MAX)));
    }

    #[test]
    fn what_is_written_is_masked() {
        for length in [0, 5, 125, 126, 300] {
            let text = "x".repeat(length);
            let mut out = Vec::new();
            write_text(&mut out, &text);
            assert_eq!(out[0], 0x81);
            assert_eq!(out[1] & 0x80, 0x80);
            let begin = out.len() - length;
            assert_eq!(out[begin - 4..begin], MASK);
            let unmasked: Vec<u8> = out[begin..]
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(a, b)| a ^ b)
                .collect();
            assert_eq!(unmasked, text.as_bytes());
        }
    }
}
