//! What goes out over a connection that carries a WebSocket: the library's frames, and ready-made ones of the hub in
//! between. It knows where the library's frames begin and end, so that no other stands in the middle of one, and when
//! the library has written that a namespace is connected, before which nothing may be told in it.
//!
//! The hub's frames go out in the order in which they are put here. What the socket does not take waits; the rest of a
//! frame that it took in part goes out before anything else.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Slices written at once.
const SLICES_MAX: usize = 64;

/// How a connected namespace is told: the Engine.IO message and the Socket.IO packet, then the namespace.
const CONNECT: &[u8] = b"40";

/// Bytes of a payload that are looked at: the packet's type and the namespace.
const OPENING_LEN: usize = 16;

/// A namespace, by its place among those that there are.
pub type Namespace = usize;

/// How many namespaces there are.
pub const NAMESPACES_LEN: usize = 2;

/// What is told after `CONNECT` for each namespace: the root has no name in packets.
const NAMES: [&[u8]; NAMESPACES_LEN] = [b"{", b"/socket.io/,"];

/// Tells one life of a namespace from those before, where it is left and joined again.
pub(super) type Life = u32;

/// The frames of one connection.
#[derive(Default)]
pub(super) struct Outbound {
    library: Frames,
    /// Namespaces that the library has told to be connected.
    connected: [bool; NAMES.len()],
    lives: [Life; NAMES.len()],
    /// For namespaces that are not, yet.
    held: VecDeque<(Namespace, Bytes)>,
    pending: VecDeque<(Namespace, Bytes)>,
    /// Some of the first pending frame is written.
    is_begun: bool,
}

impl Outbound {
    /// From now on a namespace has to be told to be connected, before anything is told in it. What waits from its
    /// life before is forgotten, but for the rest of a frame.
    pub(super) fn expect(&mut self, namespace: Namespace) -> Life {
        self.connected[namespace] = false;
        self.held.retain(|(held_for, _)| *held_for != namespace);
        let begun = self.is_begun.then(|| self.pending.pop_front()).flatten();
        self.pending.retain(|(of, _)| *of != namespace);
        self.pending.extend(begun);
        self.pending.rotate_right(usize::from(self.is_begun));
        self.lives[namespace] = self.lives[namespace].wrapping_add(1);
        self.lives[namespace]
    }

    /// Whether this is the life that a namespace has now.
    pub(super) fn is_alive(&self, namespace: Namespace, life: Life) -> bool {
        self.lives[namespace] == life
    }

    /// Puts a frame at the end of those that wait.
    pub(super) fn put(&mut self, namespace: Namespace, frame: Bytes) {
        match self.connected[namespace] {
            true => self.pending.push_back((namespace, frame)),
            false => self.held.push_back((namespace, frame)),
        }
    }

    /// Whether a frame for `namespace` may go out now, before any that waits.
    pub(super) fn may_pass(&self, namespace: Namespace) -> bool {
        self.connected[namespace] && self.pending.is_empty() && self.library.is_between()
    }

    /// The rest of a frame that went out in part.
    pub(super) fn put_rest(&mut self, namespace: Namespace, rest: Bytes) {
        self.pending.push_front((namespace, rest));
        self.is_begun = true;
    }

    /// Frames that wait.
    pub(super) fn len(&self) -> usize {
        self.pending.len() + self.held.len()
    }

    /// Whether the library's bytes have to wait until the rest of a frame is out.
    pub(super) fn blocks_library(&self) -> bool {
        self.is_begun
    }

    /// What is to be written now, in as many slices as there is room for; nothing where the library is in the middle of
    /// a frame.
    pub(super) fn next<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        if !self.library.is_between() {
            return 0;
        }
        let mut count = 0;
        for (slice, (_, frame)) in slices.iter_mut().zip(&self.pending) {
            *slice = IoSlice::new(frame);
            count += 1;
        }
        count
    }

    /// So many bytes of it are written.
    pub(super) fn written(&mut self, mut count: usize) {
        while let Some((_, first)) = self.pending.front_mut() {
            if count < first.len() {
                first.advance(count);
                self.is_begun |= count > 0;
                return;
            }
            count -= first.len();
            self.pending.pop_front();
            self.is_begun = false;
        }
    }

    /// The library has written these bytes.
    pub(super) fn passed(&mut self, bytes: &[u8]) {
        let Self {
            library,
            connected,
            held,
            pending,
            ..
        } = self;
        library.pass(bytes, |opening| {
            let Some(namespace) = connected_namespace(opening) else {
                return;
            };
            connected[namespace] = true;
            let (free, rest): (VecDeque<_>, _) = std::mem::take(held)
                .into_iter()
                .partition(|(held_for, _)| *held_for == namespace);
            *held = rest;
            pending.extend(free);
        });
    }
}

/// Slices to fill.
pub(super) fn slices<'a>() -> [IoSlice<'a>; SLICES_MAX] {
    [IoSlice::new(&[]); SLICES_MAX]
}

fn connected_namespace(opening: &[u8]) -> Option<Namespace> {
    let rest = opening.strip_prefix(CONNECT)?;
    NAMES.iter().position(|name| rest.starts_with(name))
}

/// Where the library is in what it writes: the head of the HTTP response, then frames (RFC 6455, 5.2), which a server
/// does not mask.
struct Frames {
    place: Place,
    opening: [u8; OPENING_LEN],
    opening_len: usize,
}

enum Place {
    /// So many bytes of the empty line that ends the head.
    Head(usize),
    /// So many bytes of a frame's header, and what they say.
    Header(usize, u64),
    /// So many bytes of a payload are left.
    Payload(u64),
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            place: Place::Head(0),
            opening: [0; OPENING_LEN],
            opening_len: 0,
        }
    }
}

impl Frames {
    /// Whether one frame has ended and the next has not begun.
    fn is_between(&self) -> bool {
        matches!(self.place, Place::Header(0, _))
    }

    /// Calls `ended` with the beginning of the payload of each frame that ends in `bytes`.
    fn pass(&mut self, mut bytes: &[u8], mut ended: impl FnMut(&[u8])) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.place {
                Place::Head(matched) => {
                    self.place = after_head(matched, byte);
                    bytes = rest;
                }
                Place::Header(read, length) => {
                    self.place = after_header(read, length, byte);
                    self.opening_len = 0;
                    bytes = rest;
                }
                Place::Payload(left) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (payload, rest) = bytes.split_at(count);
                    self.keep_opening(payload);
                    self.place = Place::Payload(left - count as u64);
                    bytes = rest;
                }
            }
            if let Place::Payload(0) = self.place {
                ended(&self.opening[..self.opening_len]);
                self.place = Place::Header(0, 0);
            }
        }
    }

    fn keep_opening(&mut self, payload: &[u8]) {
        let room = &mut self.opening[self.opening_len..];
        let count = payload.len().min(room.len());
        room[..count].copy_from_slice(&payload[..count]);
        self.opening_len += count;
    }
}

fn after_head(matched: usize, byte: u8) -> Place {
    const END: &[u8] = b"\r\n\r\n";
    match matched {
        3 if byte == b'\n' => Place::Header(0, 0),
        _ if byte == END[matched.min(3)] => Place::Head(matched + 1),
        _ => Place::Head(usize::from(byte == b'\r')),
    }
}

/// `length` is what the second byte said while it is read on, and then what the bytes after it add up to.
fn after_header(read: usize, length: u64, byte: u8) -> Place {
    match (read, length) {
        (0, _) => Place::Header(1, 0),
        (1, _) => match byte & 0x7F {
            126 => Place::Header(8, 0),
            127 => Place::Header(2, 0),
            short => Place::Payload(u64::from(short)),
        },
        // Two bytes or eight, the last of which is the tenth of a header that is as long as can be.
        (9, length) => Place::Payload(length << 8 | u64::from(byte)),
        (read, length) => Place::Header(read + 1, length << 8 | u64::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x81];
        match payload.len() {
            short @ 0..126 => frame.push(short as u8),
            long @ 126..65_536 => {
                frame.push(126);
                frame.extend((long as u16).to_be_bytes());
            }
            longest => {
                frame.push(127);
                frame.extend((longest as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    fn waiting(outbound: &Outbound) -> Vec<u8> {
        let mut slices = slices();
        let count = outbound.next(&mut slices);
        slices[..count]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    }

    #[test]
    fn nothing_is_told_in_a_namespace_before_it_is_connected() {
        let mut outbound = Outbound::default();
        outbound.passed(HEAD);
        outbound.passed(&frame(br#"0{"sid":"x"}"#));
        outbound.put(1, Bytes::from_static(b"second"));
        outbound.put(0, Bytes::from_static(b"first"));
        assert_eq!(waiting(&outbound), b"");
        outbound.passed(&frame(br#"40{"sid":"y"}"#));
        assert_eq!(waiting(&outbound), b"first");
        outbound.written(5);
        assert!(outbound.may_pass(0) && !outbound.may_pass(1));
        outbound.passed(&frame(br#"40/socket.io/,{"sid":"y"}"#));
        assert_eq!(waiting(&outbound), b"second");
        let life = outbound.expect(1);
        assert!(outbound.is_alive(1, life) && !outbound.is_alive(1, life - 1));
        outbound.put(1, Bytes::from_static(b"third"));
        assert_eq!(waiting(&outbound), b"", "the second was of another life");
    }

    #[test]
    fn a_frame_that_went_out_in_part_goes_on_first() {
        let mut outbound = Outbound::default();
        outbound.passed(HEAD);
        outbound.passed(&frame(b"40{}"));
        outbound.put_rest(0, Bytes::from_static(b"rest"));
        outbound.put(0, Bytes::from_static(b"next"));
        assert!(outbound.blocks_library());
        outbound.written(2);
        assert!(outbound.blocks_library());
        assert_eq!(waiting(&outbound), b"stnext");
        outbound.written(2);
        assert!(!outbound.blocks_library(), "the next has not begun");
        outbound.written(1);
        assert!(outbound.blocks_library());
        outbound.put(0, Bytes::from_static(b"more"));
        outbound.expect(0);
        assert_eq!(waiting(&outbound), b"ext", "what is begun goes on");
        outbound.written(3);
        assert!(!outbound.blocks_library() && outbound.len() == 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(512)
        })]

        /// However the library's bytes are cut, each frame ends where it ends.
        #[test]
        fn frames_end_where_they_end(
            lengths in proptest::collection::vec(prop_oneof![0..200_usize, 65_000..66_000_usize], 1..6),
            cuts in proptest::collection::vec(1..5000_usize, 1..20),
        ) {
            let mut stream = HEAD.to_vec();
            let mut ends = Vec::new();
            for (number, length) in lengths.iter().enumerate() {
                let payload: Vec<u8> = (0..*length).map(|at| (at + number) as u8).collect();
                stream.extend(frame(&payload));
                ends.push(stream.len());
            }
            let (mut frames, mut at, mut ended) = (Frames::default(), 0, 0);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(stream.len());
                frames.pass(&stream[at..end], |_| ended += 1);
                at = end;
                prop_assert_eq!(ended, ends.iter().filter(|end| **end <= at).count());
                prop_assert_eq!(frames.is_between(), at == HEAD.len() || ends.contains(&at));
                if at == stream.len() {
                    break;
                }
            }
        }
    }
}
