//! The bytes that a client has sent and that no request has taken yet.

use std::ptr;

use ublk_nbd::{Headers, Request};

/// How much is received at once, in bytes: dozens of requests, or a few small writes.
const CAPACITY: usize = 32 << 10;

/// The client and the server differ in where the next request begins: the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfStep;

/// A connection's buffer for received bytes.
#[derive(Debug)]
pub(super) struct Receiving {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The operation writes to this buffer, or to the buffer of a tag.
    pub(super) in_flight: bool,
}

impl Receiving {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; CAPACITY].into(), start: 0, end: 0, in_flight: false }
    }

    fn length(&self) -> usize {
        self.end - self.start
    }

    /// Takes `N` bytes, if there are as many.
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.buffer[self.start..self.end].first_chunk::<N>()?;
        self.start += N;
        Some(bytes)
    }

    /// Takes the header of the next request. `Ok(None)`: more bytes are needed.
    ///
    /// # Errors
    /// When the bytes begin no request with such headers.
    pub(super) fn take_request(&mut self, headers: Headers) -> Result<Option<Request>, OutOfStep> {
        let request = match headers {
            Headers::Simple | Headers::Structured => self.take().map(|all| Request::decode(&all)),
            Headers::Extended => self.take().map(|all| Request::decode_extended(&all)),
        };
        match request {
            Some(None) => Err(OutOfStep),
            // The client may wait for the reply to a shorter header.
            None if !Request::may_begin(&self.buffer[self.start..self.end], headers) => {
                Err(OutOfStep)
            }
            other => Ok(other.flatten()),
        }
    }

    /// Drops up to `most` bytes; the number of dropped bytes.
    pub(super) fn skip(&mut self, most: u32) -> u32 {
        let count = self.length().min(most as usize);
        self.start += count;
        #[expect(clippy::cast_possible_truncation, reason = "at most `most`")]
        {
            count as u32
        }
    }

    /// Moves up to `most` bytes to `place`; the number of moved bytes.
    ///
    /// # Safety
    /// `place` must have room for `most` bytes.
    pub(super) unsafe fn move_to(&mut self, place: *mut u8, most: u32) -> u32 {
        let from = self.start;
        let count = self.skip(most);
        // SAFETY: `count` bytes lie behind `from`, and there is room by our contract; a buffer of a
        // tag is no part of this buffer.
        unsafe { ptr::copy_nonoverlapping(self.buffer[from..].as_ptr(), place, count as usize) };
        count
    }

    /// The room for bytes to be received. No operation is in flight.
    pub(super) fn room(&mut self) -> (*mut u8, u32) {
        // A rest is shorter than a header here, as a rule.
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.length());
        let room = &mut self.buffer[self.end..];
        #[expect(clippy::cast_possible_truncation, reason = "at most CAPACITY")]
        (room.as_mut_ptr(), room.len() as u32)
    }

    /// `count` bytes have been received into the [`room`](Self::room).
    pub(super) fn received(&mut self, count: u32) {
        self.end = (self.end + count as usize).min(self.buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(receiving: &mut Receiving, bytes: &[u8]) {
        let (place, room) = receiving.room();
        assert!(bytes.len() <= room as usize);
        // SAFETY: there is room.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        receiving.received(u32::try_from(bytes.len()).unwrap());
    }

    #[test]
    fn bytes_are_taken_in_order_across_calls() {
        let mut receiving = Receiving::new();
        receive(&mut receiving, &[1, 2, 3]);
        assert_eq!(receiving.take::<4>(), None);
        receive(&mut receiving, &[4, 5, 6, 7, 8]);
        assert_eq!(receiving.take::<4>(), Some([1, 2, 3, 4]));
        assert_eq!(receiving.skip(1), 1);
        let mut place = [0; 8];
        // SAFETY: there is room for 8 bytes.
        assert_eq!(unsafe { receiving.move_to(place.as_mut_ptr(), 8) }, 3);
        assert_eq!(place[..3], [6, 7, 8]);
        assert_eq!(receiving.skip(9), 0);
    }

    #[test]
    fn a_header_of_the_other_kind_is_not_waited_for() {
        let flush = Request { flags: 0, command: 3, cookie: 7, offset: 0, length: 0 };
        let kinds = [Headers::Simple, Headers::Structured, Headers::Extended];
        for (headers, sent) in kinds.into_iter().flat_map(|one| kinds.map(|other| (one, other))) {
            let bytes = flush.encode_as(sent);
            for (count, whole) in [(bytes.len(), Some(flush)), (3, None)] {
                let mut receiving = Receiving::new();
                receive(&mut receiving, &bytes[..count]);
                let same = bytes == flush.encode_as(headers);
                let expected = if same { Ok(whole) } else { Err(OutOfStep) };
                assert_eq!(receiving.take_request(headers), expected, "{headers:?}, {sent:?}");
            }
        }
    }

    #[test]
    fn a_full_buffer_has_room_again_when_bytes_are_taken() {
        let mut receiving = Receiving::new();
        receive(&mut receiving, &vec![9; CAPACITY]);
        assert_eq!(receiving.room().1, 0);
        receiving.take::<28>().unwrap();
        assert_eq!(receiving.room().1, 28);
    }
}
