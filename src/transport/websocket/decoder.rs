//! Bytes of a client, cut anywhere, become messages (RFC 6455, for a server without extensions).
//!
//! A message that arrives whole is unmasked in the caller's buffer and borrowed from it: nothing is allocated, and
//! between messages the decoder holds nothing. An incomplete one is buffered, never beyond the limit, which is checked
//! as soon as the length of a frame is known.

use std::borrow::Cow;

use super::frame::{Fault, HEADER_LEN_MAX, Header, Opcode, close, unmask};

/// The code that answers a close frame without one, so that the client reads a clean close.
const NORMAL_CLOSURE: u16 = 1000;

/// One complete message or control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<'i> {
    /// A text message.
    Text(Cow<'i, str>),
    /// A binary message.
    Binary(Cow<'i, [u8]>),
    /// A ping; the same payload goes back in a pong.
    Ping(Cow<'i, [u8]>),
    /// A pong.
    Pong(Cow<'i, [u8]>),
    /// The client closes the WebSocket; nothing that follows counts.
    Close(Option<u16>),
}

impl Received<'_> {
    /// The close frame that answers one with this code.
    pub fn close_answer(code: Option<u16>) -> bytes::Bytes {
        close(Some(code.unwrap_or(NORMAL_CLOSURE)), "")
    }
}

/// Decodes the frames of one client. After a [`Fault`] or [`Received::Close`] it is of no more use.
#[derive(Debug)]
pub struct Decoder {
    message_len_max: usize,
    partial: Option<Box<Partial>>,
}

/// The received part of a header, a frame and a message that are incomplete.
#[derive(Debug, Default)]
struct Partial {
    header: Vec<u8>,
    frame: Option<Frame>,
    control: Vec<u8>,
    message: Option<Message>,
}

/// A frame, and how much of its payload was taken.
#[derive(Clone, Copy, Debug)]
struct Frame {
    header: Header,
    taken: usize,
}

impl Frame {
    fn left(&self) -> usize {
        // Checked against the limit, a `usize`, when the header was read.
        self.header.len as usize - self.taken
    }
}

/// A data message of which some has come.
#[derive(Debug)]
struct Message {
    is_text: bool,
    bytes: Vec<u8>,
    /// How much of a text is known to be UTF-8.
    valid_len: usize,
}

impl Message {
    fn new(is_text: bool) -> Self {
        Self {
            is_text,
            bytes: Vec::new(),
            valid_len: 0,
        }
    }

    /// Adds a part. Invalid text is found at once, however much of the message is still to come.
    fn extend(&mut self, part: &[u8]) -> Result<(), Fault> {
        self.bytes.extend_from_slice(part);
        if self.is_text {
            self.valid_len += match std::str::from_utf8(&self.bytes[self.valid_len..]) {
                Ok(text) => text.len(),
                // A character that goes on in the next part.
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => return Err(Fault::InvalidUtf8),
            };
        }
        Ok(())
    }

    fn finish(self) -> Result<Received<'static>, Fault> {
        if self.is_text {
            let text = String::from_utf8(self.bytes).map_err(|_| Fault::InvalidUtf8)?;
            Ok(Received::Text(Cow::Owned(text)))
        } else {
            Ok(Received::Binary(Cow::Owned(self.bytes)))
        }
    }
}

impl Decoder {
    /// A decoder for messages of at most `message_len_max` bytes.
    pub fn new(message_len_max: usize) -> Self {
        Self {
            message_len_max,
            partial: None,
        }
    }

    /// Whether nothing is incomplete, and so nothing is buffered.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Takes from `input` up to the end of the next message. `None` when `input` is used up; then it goes on with more.
    ///
    /// # Errors
    /// The connection fails, and is closed with the code of the fault.
    pub fn next<'i>(&mut self, input: &mut &'i mut [u8]) -> Result<Option<Received<'i>>, Fault> {
        while let Some(frame) = self.frame(input)? {
            if input.is_empty() && frame.left() > 0 {
                self.partial.get_or_insert_default().frame = Some(frame);
                return Ok(None);
            }
            let count = frame.left().min(input.len());
            let (payload, rest) = std::mem::take(input).split_at_mut(count);
            *input = rest;
            unmask(payload, frame.header.mask, frame.taken);
            let is_whole = frame.left() == count;
            let event = if is_whole && frame.taken == 0 && self.stands_alone(&frame.header) {
                Some(read(frame.header.opcode, payload)?)
            } else {
                self.add(frame, payload, is_whole)?
            };
            self.drop_empty_partial();
            if event.is_some() || !is_whole {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// The frame that is incomplete, or the next one, once its header is complete.
    fn frame(&mut self, input: &mut &mut [u8]) -> Result<Option<Frame>, Fault> {
        if let Some(frame) = self
            .partial
            .as_mut()
            .and_then(|partial| partial.frame.take())
        {
            return Ok(Some(frame));
        }
        if input.is_empty() {
            return Ok(None);
        }
        let begun = self
            .partial
            .as_ref()
            .map_or(0, |partial| partial.header.len());
        // The whole header is read at once, or together with what came of it before.
        let mut joined = [0; HEADER_LEN_MAX];
        let bytes = if begun == 0 {
            &input[..]
        } else {
            let partial = self.partial.get_or_insert_default();
            let added = input.len().min(HEADER_LEN_MAX - begun);
            joined[..begun].copy_from_slice(&partial.header);
            joined[begun..begun + added].copy_from_slice(&input[..added]);
            &joined[..begun + added]
        };
        let Some((header, len)) = Header::read(bytes)? else {
            let all = std::mem::take(input);
            let partial = self.partial.get_or_insert_default();
            partial.header.extend_from_slice(all);
            return Ok(None);
        };
        if let Some(partial) = &mut self.partial {
            partial.header = Vec::new();
        }
        *input = &mut std::mem::take(input)[len - begun..];
        self.check(&header)?;
        Ok(Some(Frame { header, taken: 0 }))
    }

    /// Whether a frame may come now, and is small enough.
    fn check(&self, header: &Header) -> Result<(), Fault> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let begun = self
            .partial
            .as_ref()
            .and_then(|partial| partial.message.as_ref());
        match (header.opcode == Opcode::Continuation, begun) {
            (true, None) => return Err(Fault::Protocol("there is no message to continue")),
            (false, Some(_)) => return Err(Fault::Protocol("the last message is not finished")),
            _ => {}
        }
        let buffered = begun.map_or(0, |message| message.bytes.len());
        // The buffer never exceeds the limit.
        let room = self.message_len_max - buffered;
        if header.len > room as u64 {
            return Err(Fault::TooLarge);
        }
        Ok(())
    }

    /// Whether a frame is a message of its own.
    fn stands_alone(&self, header: &Header) -> bool {
        header.opcode.is_control() || header.is_final && header.opcode != Opcode::Continuation
    }

    /// Adds a part of a payload to what is buffered.
    fn add(
        &mut self,
        mut frame: Frame,
        payload: &[u8],
        is_whole: bool,
    ) -> Result<Option<Received<'static>>, Fault> {
        let partial = self.partial.get_or_insert_default();
        let Header {
            opcode, is_final, ..
        } = frame.header;
        if opcode.is_control() {
            partial.control.extend_from_slice(payload);
        } else {
            let message = || Message::new(opcode == Opcode::Text);
            partial
                .message
                .get_or_insert_with(message)
                .extend(payload)?;
        }
        if !is_whole {
            frame.taken += payload.len();
            partial.frame = Some(frame);
            return Ok(None);
        }
        if opcode.is_control() {
            let payload = std::mem::take(&mut partial.control);
            return read(opcode, &payload).map(Received::into_owned).map(Some);
        }
        match partial.message.take_if(|_| is_final) {
            Some(message) => message.finish().map(Some),
            None => Ok(None),
        }
    }

    fn drop_empty_partial(&mut self) {
        self.partial
            .take_if(|partial| partial.frame.is_none() && partial.message.is_none());
    }
}

impl Received<'_> {
    fn into_owned(self) -> Received<'static> {
        match self {
            Self::Text(text) => Received::Text(Cow::Owned(text.into_owned())),
            Self::Binary(bytes) => Received::Binary(Cow::Owned(bytes.into_owned())),
            Self::Ping(bytes) => Received::Ping(Cow::Owned(bytes.into_owned())),
            Self::Pong(bytes) => Received::Pong(Cow::Owned(bytes.into_owned())),
            Self::Close(code) => Received::Close(code),
        }
    }
}

/// Reads the payload of a frame that stands alone.
fn read(opcode: Opcode, payload: &[u8]) -> Result<Received<'_>, Fault> {
    match opcode {
        Opcode::Text => match std::str::from_utf8(payload) {
            Ok(text) => Ok(Received::Text(Cow::Borrowed(text))),
            Err(_) => Err(Fault::InvalidUtf8),
        },
        Opcode::Binary | Opcode::Continuation => Ok(Received::Binary(Cow::Borrowed(payload))),
        Opcode::Ping => Ok(Received::Ping(Cow::Borrowed(payload))),
        Opcode::Pong => Ok(Received::Pong(Cow::Borrowed(payload))),
        Opcode::Close => read_close(payload).map(Received::Close),
    }
}

/// Reads the code of a close frame, and checks its reason.
fn read_close(payload: &[u8]) -> Result<Option<u16>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => Err(Fault::Protocol("a close code has two bytes")),
        };
    };
    let code = u16::from_be_bytes(*code);
    // Of the rest, some must never be sent and the others are not assigned.
    if !matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999) {
        return Err(Fault::Protocol("the close code is not valid"));
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Fault::InvalidUtf8),
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests;
