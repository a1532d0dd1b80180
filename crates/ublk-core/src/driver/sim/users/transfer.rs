//! Reads and writes of `/dev/ublkbN` of any length, cut into requests by the block layer.

use ublk_sys::ublk_params;

use crate::driver::sim::model::Model;
use crate::driver::sim::users::client::Client;
use crate::driver::sim::users::op::ClientOp;

/// The bytes read, or an errno.
pub type Outcome = Result<Vec<u8>, i32>;

/// A [`ClientOp`] of any length on its way.
#[derive(Debug)]
#[must_use = "its requests are forgotten only by `Client::finish`"]
pub struct Transfer {
    tickets: Vec<u64>,
}

impl Client {
    /// Submits all requests at once, without requests of others between. With `cut_power`, the power goes off
    /// while the requests are under way, at a random moment.
    ///
    /// # Panics
    /// When an operation is not aligned to the device's blocks.
    pub fn begin(&self, ops: &[ClientOp], cut_power: bool) -> Vec<Transfer> {
        let mut model = self.sim.lock();
        let params = model.devices[self.device].params;
        let begin = |op: &ClientOp, model: &mut Model| {
            let pieces = cut(op, &params);
            Transfer {
                tickets: pieces.iter().map(|op| self.enter(model, op, None, None)).collect(),
            }
        };
        let transfers = ops.iter().map(|op| begin(op, &mut model)).collect();
        if cut_power {
            model.begin_power_cut();
        }
        drop(model);
        self.sim.wake();
        transfers
    }

    /// Waits until all transfers have ended, and reports the end of each, by place: the bytes read, or the errno of
    /// the first failed piece. Ends are reported only when nothing moves any more: the next step then finds the
    /// same state, however threads are scheduled. For [`Waiting::Blocking`] only.
    ///
    /// [`Waiting::Blocking`]: crate::driver::sim::Waiting::Blocking
    pub fn finish(&self, transfers: Vec<Transfer>, mut tell: impl FnMut(Vec<(usize, Outcome)>)) {
        let mut open: Vec<_> = transfers.into_iter().enumerate().collect();
        while !open.is_empty() {
            let mut model = self.sim.lock();
            while !(model.is_quiet() && open.iter().any(|(_, one)| one.has_ended(&model))) {
                model = self.sim.sleep(model);
            }
            let ended = open.extract_if(.., |(_, one)| one.has_ended(&model)).collect::<Vec<_>>();
            let outcomes = ended.into_iter().map(|(at, one)| (at, one.take(&mut model))).collect();
            drop(model);
            tell(outcomes);
        }
    }
}

impl Transfer {
    fn has_ended(&self, model: &Model) -> bool {
        self.tickets.iter().all(|ticket| model.requests[ticket].outcome.is_some())
    }

    fn take(self, model: &mut Model) -> Outcome {
        let mut result = Ok(Vec::new());
        for ticket in self.tickets {
            let Some(request) = model.requests.remove(&ticket) else { continue };
            match (request.outcome, &mut result) {
                (Some(Err(errno)), Ok(_)) => result = Err(errno),
                (_, Ok(bytes)) => bytes.extend(request.into_read()),
                _ => {}
            }
        }
        result
    }
}

/// bio_split_to_limits, and blkdev_issue_zeroout where the device cannot write zeros.
fn cut(op: &ClientOp, params: &ublk_params) -> Vec<ClientOp> {
    let bytes = |sectors: u32| u64::from(sectors) << 9;
    let data_limit = bytes(params.basic.max_sectors);
    let chunk = bytes(params.basic.chunk_sectors);
    let data_pieces = |offset, length| {
        let chunks = chunks(offset, length, chunk);
        chunks.flat_map(move |(offset, length)| pieces(offset, length, data_limit))
    };
    match *op {
        ClientOp::Flush
        | ClientOp::Append { .. }
        | ClientOp::ReportZones { .. }
        | ClientOp::Zone { .. } => vec![op.clone()],
        ClientOp::Read { offset, length } => data_pieces(offset, length)
            .map(|(offset, length)| ClientOp::Read { offset, length })
            .collect(),
        ClientOp::Write { offset, ref data, fua } => {
            let length = u32::try_from(data.len()).expect("no longer than its caller checked");
            let piece = |(at, length): (u64, u32)| {
                let from = usize::try_from(at - offset).unwrap_or(0);
                let data = data[from..from + length as usize].to_vec();
                ClientOp::Write { offset: at, data, fua }
            };
            data_pieces(offset, length).map(piece).collect()
        }
        ClientOp::Discard { offset, length } => {
            let limit = match params.discard.max_discard_sectors {
                // One request, to be refused.
                0 => u64::from(length.max(1)),
                sectors => bytes(sectors),
            };
            pieces(offset, length, limit)
                .map(|(offset, length)| ClientOp::Discard { offset, length })
                .collect()
        }
        ClientOp::WriteZeroes { offset, length, no_unmap } => {
            match params.discard.max_write_zeroes_sectors {
                0 => data_pieces(offset, length)
                    .map(|(offset, length)| {
                        let data = vec![0; length as usize];
                        ClientOp::Write { offset, data, fua: false }
                    })
                    .collect(),
                sectors => pieces(offset, length, bytes(sectors))
                    .map(|(offset, length)| ClientOp::WriteZeroes { offset, length, no_unmap })
                    .collect(),
            }
        }
    }
}

/// The parts between multiples of `chunk`; 0: the whole.
fn chunks(offset: u64, length: u32, chunk: u64) -> impl Iterator<Item = (u64, u32)> {
    let end = offset + u64::from(length);
    let mut next = offset;
    std::iter::from_fn(move || {
        let at = next;
        next = at.checked_div(chunk).map_or(end, |chunks| end.min((chunks + 1) * chunk));
        (at < end).then(|| (at, u32::try_from(next - at).unwrap_or(u32::MAX)))
    })
}

fn pieces(offset: u64, length: u32, limit: u64) -> impl Iterator<Item = (u64, u32)> {
    let end = offset + u64::from(length);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).max(1);
    (offset..end).step_by(limit).map(move |at| {
        let length = (end - at).min(limit as u64);
        (at, u32::try_from(length).unwrap_or(u32::MAX))
    })
}

#[cfg(test)]
mod tests {
    use ublk_sys::ublk_param_basic;

    use crate::driver::sim::users::transfer::*;

    #[test]
    fn reads_end_where_chunks_and_the_longest_request_do() {
        let basic = ublk_param_basic { max_sectors: 16, chunk_sectors: 24, ..Default::default() };
        let params = ublk_params { basic, ..Default::default() };
        let read = ClientOp::Read { offset: 4096, length: 20480 };
        let pieces = cut(&read, &params).into_iter().map(|op| match op {
            ClientOp::Read { offset, length } => (offset, length),
            other => panic!("{other:?}"),
        });
        assert_eq!(pieces.collect::<Vec<_>>(), [(4096, 8192), (12288, 8192), (20480, 4096)]);
    }
}
