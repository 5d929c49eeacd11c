//! Frames of RFC 6455, section 5.2: headers read, whole frames written. No extension is ever negotiated, so the reserved
//! bits are always zero. Frames of a server are not masked, those of a client always are.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of the longest header: of a masked frame whose length takes 64 bits.
pub(super) const HEADER_LEN_MAX: usize = 14;

/// Most bytes in the payload of a control frame.
pub(crate) const CONTROL_LEN_MAX: usize = 125;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// The kind of a frame. The discriminants are those of the RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn read(byte: u8) -> Option<Self> {
        let opcodes = [
            Self::Continuation,
            Self::Text,
            Self::Binary,
            Self::Close,
            Self::Ping,
            Self::Pong,
        ];
        opcodes.into_iter().find(|opcode| *opcode as u8 == byte)
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A reason to fail the connection, with the close code of RFC 6455, section 7.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The other side breaks the protocol.
    #[error("{0}")]
    Protocol(&'static str),
    /// A text message, or the reason of a close frame, is not UTF-8.
    #[error("the text is not valid UTF-8")]
    InvalidUtf8,
    /// A message is larger than the limit.
    #[error("the message is too large")]
    TooLarge,
}

impl Fault {
    /// The code for the close frame.
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::InvalidUtf8 => 1007,
            Self::TooLarge => 1009,
        }
    }
}

/// The header of a client's frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) is_final: bool,
    pub(super) opcode: Opcode,
    pub(super) len: u64,
    pub(super) mask: [u8; 4],
}

impl Header {
    /// Reads a header and how many bytes it takes; `None` while it is incomplete. A fault is reported as soon as its byte
    /// is there. As in tungstenite, a length may be written in more bytes than it needs.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Fault> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & RESERVED != 0 {
            return Err(Fault::Protocol("reserved bits are set"));
        }
        let opcode = Opcode::read(first & 0x0F).ok_or(Fault::Protocol("unknown opcode"))?;
        let is_final = first & FINAL != 0;
        if second & MASKED == 0 {
            return Err(Fault::Protocol("frames of a client must be masked"));
        }
        let short_len = second & !MASKED;
        if opcode.is_control() && !is_final {
            return Err(Fault::Protocol("control frames must not be fragmented"));
        }
        let (len, rest) = match short_len {
            126 => match rest.split_first_chunk() {
                Some((len, rest)) => (u16::from_be_bytes(*len).into(), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((len, rest)) => (u64::from_be_bytes(*len), rest),
                None => return Ok(None),
            },
            len => (len.into(), rest),
        };
        if opcode.is_control() && len > CONTROL_LEN_MAX as u64 {
            return Err(Fault::Protocol("control frames hold at most 125 bytes"));
        }
        let Some((mask, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let header = Self {
            is_final,
            opcode,
            len,
            mask: *mask,
        };
        Ok(Some((header, bytes.len() - rest.len())))
    }
}

/// Removes the mask from bytes that begin at `offset` of a payload.
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mask: [u8; 8] = std::array::from_fn(|index| mask[(offset + index) % 4]);
    let word = u64::from_ne_bytes(mask);
    let (words, rest) = bytes.as_chunks_mut();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// A text message in one frame, given in parts.
pub(crate) fn text(parts: &[&[u8]]) -> Bytes {
    write(Opcode::Text, parts)
}

/// The answer to a ping. `payload` has at most [`CONTROL_LEN_MAX`] bytes.
pub(crate) fn pong(payload: &[u8]) -> Bytes {
    write(Opcode::Pong, &[payload])
}

/// A close frame; without a code it has no payload. `reason` has at most [`CONTROL_LEN_MAX`] - 2 bytes.
pub(crate) fn close(code: Option<u16>, reason: &str) -> Bytes {
    match code {
        Some(code) => write(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()]),
        None => write(Opcode::Close, &[]),
    }
}

fn write(opcode: Opcode, parts: &[&[u8]]) -> Bytes {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut frame = BytesMut::with_capacity(HEADER_LEN_MAX + len);
    frame.put_u8(FINAL | opcode as u8);
    match len {
        0..126 => frame.put_u8(len as u8),
        126..=0xFFFF => {
            frame.put_u8(126);
            frame.put_u16(len as u16);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(len as u64);
        }
    }
    for part in parts {
        frame.put_slice(part);
    }
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_header_names_kind_and_length() {
        assert_eq!(&text(&[b"42", b"[]"])[..], b"\x81\x0442[]");
        assert_eq!(&pong(b"x")[..], b"\x8a\x01x");
        assert_eq!(&close(Some(1000), "bye")[..], b"\x88\x05\x03\xe8bye");
        assert_eq!(&close(None, "")[..], b"\x88\x00");
        for (len, header) in [
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (0xFFFF, vec![0x81, 126, 0xFF, 0xFF]),
            (0x1_0000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = text(&[&vec![b'x'; len]]);
            assert_eq!(frame[..header.len()], header);
            assert_eq!(frame.len(), header.len() + len);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn unmasking_in_pieces_is_unmasking_byte_by_byte(
            mut bytes: Vec<u8>,
            mask: [u8; 4],
            cut in 0..100_usize,
        ) {
            let expected: Vec<u8> = bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            let cut = cut.min(bytes.len());
            let (head, tail) = bytes.split_at_mut(cut);
            unmask(head, mask, 0);
            unmask(tail, mask, cut);
            prop_assert_eq!(bytes, expected);
        }
    }
}
