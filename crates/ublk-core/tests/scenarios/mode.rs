//! Modes of scenarios: how the bytes of requests reach the server, and what is special about requests.

use ublk_core::driver::sim::Rng;
use ublk_core::reactor::{ExchangeMode, Transfer};

/// How the server reaches the data of requests, and how often the registration of buffers fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Auto,
    AutoOftenFails,
    AutoAlwaysFails,
    Register,
    RegisterSplit,
    Copy,
    UserCopy,
    GetData,
    /// The client shares memory with the server, over any of the other transfers.
    Shared,
    /// Requests take several rounds, over any of the other transfers.
    Rounds,
    /// Slots rotate.
    Rotating,
    /// The device has metadata, over any transfer that supports metadata.
    Integrity,
    /// The device has zones, over any transfer that supports zones.
    Zoned,
    /// A peer beyond a bridge maps requests to the disk, over any of the other transfers.
    Asked,
}

const MODES: [Mode; COUNT] = [
    Mode::Auto,
    Mode::AutoOftenFails,
    Mode::AutoAlwaysFails,
    Mode::Register,
    Mode::RegisterSplit,
    Mode::Copy,
    Mode::UserCopy,
    Mode::GetData,
    Mode::Shared,
    Mode::Rounds,
    Mode::Rotating,
    Mode::Integrity,
    Mode::Zoned,
    Mode::Asked,
];
const COUNT: usize = 14;

impl Mode {
    pub(crate) fn of(seed: u64) -> Self {
        MODES[usize::try_from(seed).unwrap() % COUNT]
    }

    /// The seed of scenario number `round` of this mode and exchange.
    pub(crate) fn seed(self, exchange: ExchangeMode, round: u64) -> u64 {
        let mode = MODES.iter().position(|&mode| mode == self).unwrap();
        let exchange = if exchange == ExchangeMode::Batch { COUNT } else { 0 };
        round * 2 * COUNT as u64 + (exchange + mode) as u64
    }

    pub(crate) fn transfer(self, exchange: ExchangeMode, rng: &mut Rng) -> Transfer {
        const ALL: [Transfer; 6] = [
            Transfer::Auto,
            Transfer::Register { split: false },
            Transfer::Register { split: true },
            Transfer::Copy,
            Transfer::UserCopy,
            // Batches have no get-data, so get-data is last.
            Transfer::GetData,
        ];
        const SPECIAL: [Transfer; 4] = [
            Transfer::Auto,
            Transfer::Register { split: false },
            Transfer::Register { split: true },
            Transfer::UserCopy,
        ];
        let count = if exchange == ExchangeMode::Batch { 5 } else { 6 };
        match self {
            Self::Auto | Self::AutoOftenFails | Self::AutoAlwaysFails => Transfer::Auto,
            Self::Register => Transfer::Register { split: false },
            Self::RegisterSplit => Transfer::Register { split: true },
            Self::Copy => Transfer::Copy,
            Self::UserCopy => Transfer::UserCopy,
            Self::GetData => Transfer::GetData,
            Self::Shared | Self::Rounds | Self::Asked => ALL[rng.index(count)],
            Self::Rotating => ALL[rng.index(3)],
            Self::Integrity => SPECIAL[rng.index(4)],
            // Linux 7.3 does not report the place of an append of a batch with automatic registration.
            Self::Zoned if exchange == ExchangeMode::Batch => SPECIAL[1 + rng.index(3)],
            Self::Zoned => SPECIAL[rng.index(4)],
        }
    }
}

/// Which exchange a scenario is about.
pub(crate) fn exchange_of(seed: u64) -> ExchangeMode {
    let count = COUNT as u64;
    if seed % (2 * count) < count { ExchangeMode::PerIo } else { ExchangeMode::Batch }
}
