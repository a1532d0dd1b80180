//! The requests that are under way.

use ublk_overlay::head::Target as Part;

use super::fills::Fill;

/// A request under way.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// When the request began, by the clock of [`Flights`]; 0: the place is free.
    began: u64,
    /// The first block behind those of the rounds so far.
    pub(super) at: u64,
    /// Where the round under way writes.
    pub(super) parts: Vec<Part>,
    /// The round under way is of one block, of which the request has a part.
    pub(super) fill: Option<Fill>,
    /// The request runs the flush.
    pub(super) flushes: bool,
    /// The request is no read.
    writes: bool,
    /// The request has not begun: a snapshot is being taken.
    pub(super) waits: bool,
    /// The request has one round, and gives no block a new place: see `simple`.
    pub(super) simple: bool,
}

impl Flight {
    /// When the request began.
    pub(super) fn began(&self) -> u64 {
        self.began
    }
}

/// All requests under way. The ticket of a request is an index of this table.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: Vec<Flight>,
    free: Vec<u64>,
    /// Counts the requests.
    clock: u64,
    /// Some requests will never end, so no place in the file is safe to reuse.
    deserted: bool,
}

impl Flights {
    /// A request begins at this block; `writes`: no read. Answers the ticket.
    pub(super) fn begin(&mut self, at: u64, writes: bool) -> u64 {
        self.clock += 1;
        let ticket = self.free.pop().unwrap_or_else(|| {
            self.flights.push(Flight::default());
            self.flights.len() as u64 - 1
        });
        let began = self.clock;
        let flight = self.get(ticket);
        (flight.began, flight.at, flight.writes) = (began, at, writes);
        (flight.flushes, flight.waits, flight.simple) = (false, false, false);
        ticket
    }

    /// The request of this ticket.
    pub(super) fn get(&mut self, ticket: u64) -> &mut Flight {
        // Fits: a ticket is an index.
        &mut self.flights[usize::try_from(ticket).unwrap_or(usize::MAX)]
    }

    /// The request has ended.
    pub(super) fn end(&mut self, ticket: u64) {
        let flight = self.get(ticket);
        (flight.began, flight.fill) = (0, None);
        flight.parts.clear();
        self.free.push(ticket);
    }

    /// The time now, to be compared with [`oldest`](Self::oldest).
    pub(super) fn now(&self) -> u64 {
        self.clock
    }

    /// When the oldest request under way began: runs that became unused before may be reused. None: not
    /// known any more.
    pub(super) fn oldest(&self) -> Option<u64> {
        let began = self.flights.iter().map(|flight| flight.began).filter(|&began| began > 0);
        (!self.deserted).then(|| began.min().unwrap_or(u64::MAX))
    }

    /// Whether requests other than reads have begun and not ended.
    pub(super) fn any_writing(&self) -> bool {
        let under_way = |flight: &Flight| flight.began > 0 && flight.writes && !flight.waits;
        self.flights.iter().any(under_way)
    }

    /// Whether the end of some requests will never be reported.
    pub(super) fn is_deserted(&self) -> bool {
        self.deserted
    }

    /// A reactor is gone, and the end of some requests will never be reported.
    pub(super) fn desert(&mut self) {
        self.deserted = true;
    }
}
