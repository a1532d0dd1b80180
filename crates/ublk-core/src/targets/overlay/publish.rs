//! The end of a round: written blocks get their places in the history, and then in the index.

use ublk_overlay::extent::{Extent, MAX_COUNT, Place};

use super::super::Request;
use super::Live;
use super::history::Refused;
use super::sectors::whole_blocks;
use super::unused::segments;

impl Live {
    /// The blocks of the last round have been written: reads find them from now on.
    pub(super) fn publish_parts(&mut self, ticket: u64) -> Result<(), Refused> {
        if !self.keeps_fill(ticket) {
            return Ok(());
        }
        let layer = self.head.layer();
        let parts = &mut self.flights.get(ticket).parts;
        let fresh = || parts.iter().filter(|part| part.fresh);
        // A published place outlives this server.
        self.history.append(fresh().map(|part| part.extent(layer)))?;
        for part in fresh() {
            self.head.publish(part);
            segments(part.run, self.head.space().segment_blocks())
                .for_each(|segment| self.allocated.set(segment, true));
        }
        parts.clear();
        self.filled(ticket);
        Ok(())
    }

    /// The whole blocks of a request become zeros once the part before them has been written.
    pub(super) fn publish_whole(&mut self, ticket: u64, request: &Request) -> Result<(), Refused> {
        let (from, to) = whole_blocks(request);
        if self.flights.get(ticket).at == from && from < to {
            self.publish_zeros((from, to))?;
            self.flights.get(ticket).at = to;
        }
        Ok(())
    }

    /// The blocks of the range read as zeros from now on.
    pub(super) fn publish_zeros(&mut self, (from, to): (u64, u64)) -> Result<(), Refused> {
        if from >= to {
            // A discard of parts of blocks.
            return Ok(());
        }
        // Fits: a request is shorter than 4 GiB.
        let count = u32::try_from(to - from).unwrap_or(MAX_COUNT);
        self.history.append(std::iter::once(Extent::new(from, count, Place::Zero)))?;
        self.head.zero(from, to);
        Ok(())
    }

    /// The blocks of the last round could not be written: their new places are free again.
    pub(super) fn give_back(&mut self, ticket: u64) {
        for part in self.flights.get(ticket).parts.drain(..).filter(|part| part.fresh) {
            self.head.give_back(&part);
        }
    }
}
