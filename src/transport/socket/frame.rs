//! Ready-made WebSocket frames of Socket.IO packets, for connections that the hub writes to itself.

use bytes::{BufMut, Bytes, BytesMut};

/// Final, text (RFC 6455, 5.2).
const TEXT: u8 = 0x81;

/// Bytes of the longest header of a frame that is not masked.
const HEADER_LEN_MAX: usize = 10;

/// A frame of one text, given in parts.
pub(super) fn text(parts: &[&[u8]]) -> Bytes {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut frame = BytesMut::with_capacity(HEADER_LEN_MAX + length);
    frame.put_u8(TEXT);
    match length {
        0..126 => frame.put_u8(length as u8),
        126..=0xFFFF => {
            frame.put_u8(126);
            frame.put_u16(length as u16);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
    for part in parts {
        frame.put_slice(part);
    }
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_tells_the_length() {
        assert_eq!(&text(&[b"42", b"[]"])[..], b"\x81\x0442[]");
        for (length, header) in [
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (0xFFFF, vec![0x81, 126, 0xFF, 0xFF]),
            (0x1_0000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = text(&[&vec![b'x'; length]]);
            assert_eq!(frame[..header.len()], header);
            assert_eq!(frame.len(), header.len() + length);
        }
    }
}
