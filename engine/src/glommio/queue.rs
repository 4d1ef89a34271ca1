//! What waits to be sent on one connection.

use std::collections::VecDeque;

use crate::shard::SendData;

/// Bytes sent by one call at most: beyond, larger calls save nothing and report progress later.
const SEND_BYTES: usize = 1 << 20;
/// Pieces below this are copied together: a copy costs less than a call.
const SMALL_BYTES: usize = 16 * 1024;
/// Bytes copied together at most.
const TOGETHER_BYTES: usize = 64 * 1024;

/// Bytes to send, in order. The front piece may have been sent in part.
#[derive(Default)]
pub(super) struct SendQueue {
    pieces: VecDeque<SendData>,
    /// Bytes of the front piece that are sent.
    front_done: usize,
}

impl SendQueue {
    /// Queues a piece; false for a span, which this driver cannot send.
    pub(super) fn push(&mut self, data: SendData) -> bool {
        let possible = !matches!(data, SendData::Span(_));
        if possible {
            self.pieces.push_back(data);
        }
        possible
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.front_done = 0;
    }

    /// What to send next: the rest of the front piece, or several small pieces copied into `together`.
    pub(super) fn next<'a>(&'a self, together: &'a mut Vec<u8>) -> &'a [u8] {
        let mut rest = self.rests();
        let Some(front) = rest.next() else {
            return &[];
        };
        if front.len() >= SMALL_BYTES || self.pieces.len() == 1 {
            return &front[..front.len().min(SEND_BYTES)];
        }
        together.clear();
        together.extend_from_slice(front);
        for piece in rest {
            let room = TOGETHER_BYTES - together.len();
            if piece.len() >= SMALL_BYTES || piece.len() > room {
                break;
            }
            together.extend_from_slice(piece);
        }
        together
    }

    /// The unsent bytes, piece by piece.
    fn rests(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.front_done;
        self.pieces.iter().map(move |piece| {
            let bytes: &[u8] = match piece {
                SendData::Bytes(bytes) => bytes,
                SendData::Slice(slice) => slice,
                SendData::Span(_) => unreachable!("spans are not queued"),
            };
            &bytes[std::mem::take(&mut skip)..]
        })
    }

    /// Drops `bytes` sent bytes from the front.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.front_done += bytes;
        while let Some(front) = self.pieces.front() {
            if self.front_done < front.len() {
                return;
            }
            self.front_done -= front.len();
            self.pieces.pop_front();
        }
        debug_assert_eq!(self.front_done, 0, "more sent than queued");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn small_pieces_leave_together_and_in_order() {
        let mut queue = SendQueue::default();
        let mut expected = Vec::new();
        for (n, len) in [3, 5, SMALL_BYTES, 7, 1, 2 * SEND_BYTES, 9]
            .into_iter()
            .enumerate()
        {
            let piece = vec![n as u8; len];
            expected.extend_from_slice(&piece);
            assert!(queue.push(SendData::Bytes(Bytes::from(piece))));
        }
        let (mut sent, mut sizes, mut together) = (Vec::new(), Vec::new(), Vec::new());
        while !queue.is_empty() {
            let next = queue.next(&mut together);
            // As if the socket took all but one byte of whatever is longer than two.
            let taken = if next.len() > 2 {
                next.len() - 1
            } else {
                next.len()
            };
            sent.extend_from_slice(&next[..taken]);
            sizes.push(taken);
            queue.consume(taken);
        }
        assert!(sent == expected);
        assert_eq!(sizes[0], 7, "the first two pieces but one byte");
        assert!(sizes.iter().all(|&size| size <= SEND_BYTES));
        assert!(queue.next(&mut together).is_empty());
    }
}
