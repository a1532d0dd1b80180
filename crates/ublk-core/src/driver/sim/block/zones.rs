//! blk_revalidate_disk_zones and ublk_report_zones: START_DEV of a zoned device has all zones reported
//! by the server before the disk appears, and refuses a device whose report is wrong (trap 67).

use std::mem::offset_of;

use ublk_sys::{BLK_ZONE_TYPE_CONVENTIONAL, BLK_ZONE_TYPE_SEQWRITE_REQ, blk_zone};

use crate::driver::sim::model::Model;
use crate::driver::sim::ublk_drv::control::Pending;
use crate::driver::sim::ublk_drv::device::{Device, Starting};
use crate::driver::sim::ublk_drv::start::Stage;
use crate::driver::sim::users::op::ClientOp;

const RECORD: usize = size_of::<blk_zone>();

impl Device {
    /// ublk_get_nr_zones: a smaller zone at the end is not counted.
    fn zones(&self) -> u32 {
        let basic = &self.params.basic;
        u32::try_from(basic.dev_sectors / u64::from(basic.chunk_sectors)).unwrap_or(u32::MAX)
    }

    /// Zones in one report: ublk_alloc_report_buffer.
    fn zones_in_report(&self) -> u32 {
        let longest = (self.params.basic.max_sectors as usize) << 9;
        self.zones().min(u32::try_from(longest / RECORD).unwrap_or(u32::MAX))
    }

    /// blk_revalidate_zone_cb: whether `record` describes the zone with this index.
    fn is_zone(&self, index: u32, record: &[u8]) -> bool {
        let word = |at: usize| u64::from_ne_bytes(record[at..at + 8].try_into().expect("8 bytes"));
        let size = u64::from(self.params.basic.chunk_sectors);
        let length = word(offset_of!(blk_zone, len));
        let capacity = word(offset_of!(blk_zone, capacity));
        let capacities = match record[offset_of!(blk_zone, type_)] {
            BLK_ZONE_TYPE_CONVENTIONAL => length..=length,
            BLK_ZONE_TYPE_SEQWRITE_REQ => 1..=length,
            _ => return false,
        };
        let start = u64::from(index) * size;
        word(offset_of!(blk_zone, start)) == start
            && length == size
            && capacities.contains(&capacity)
    }
}

impl Model {
    /// Begins the report of all zones.
    pub(crate) fn revalidate_zones(&mut self, device: usize) -> Stage {
        self.devices[device].starting = Starting::Zones;
        match self.devices[device].zones() {
            0 => self.refuse_zones(device, libc::ENODEV),
            _ => self.ask_for_zones(device, 0),
        }
    }

    /// Asks the server for the zones from number `known` on.
    fn ask_for_zones(&mut self, device: usize, known: u32) -> Stage {
        let found = &self.devices[device];
        let count = found.zones_in_report().min(found.zones() - known);
        let first = (u64::from(found.params.basic.chunk_sectors) << 9) * u64::from(known);
        let queues = u64::from(found.info.nr_hw_queues);
        let queue = u16::try_from(self.rng.below(queues)).unwrap_or(0);
        let mut request = ClientOp::ReportZones { first, count }.to_request(device, queue);
        request.unasked = true;
        let next = self.next_request;
        self.note(|| format!("kernel: request {next} asks for {count} zones from {known} on"));
        let request = self.submit_request(request);
        Stage::Next(Pending::Zones { device, request, known })
    }

    /// The answer to a report; none while the request is in flight.
    pub(crate) fn zones_reported(
        &mut self,
        device: usize,
        request: u64,
        mut known: u32,
    ) -> Option<Stage> {
        let outcome = self.request(request).outcome?;
        let records = self.requests.remove(&request).map(|ended| ended.data).unwrap_or_default();
        if let Err(errno) = outcome {
            return Some(self.refuse_zones(device, errno));
        }
        for record in records.chunks_exact(RECORD) {
            let length = offset_of!(blk_zone, len);
            if record[length..length + 8] == [0; 8] {
                // The kernel asks again, for ever if need be.
                break;
            }
            if !self.devices[device].is_zone(known, record) {
                return Some(self.refuse_zones(device, libc::ENODEV));
            }
            known += 1;
        }
        let found = &self.devices[device];
        if known < found.zones() {
            return Some(self.ask_for_zones(device, known));
        }
        let basic = &found.params.basic;
        if u64::from(known) * u64::from(basic.chunk_sectors) != basic.dev_sectors {
            return Some(self.refuse_zones(device, libc::ENODEV));
        }
        self.devices[device].starting = Starting::No;
        Some(self.add_disk(device))
    }

    /// START_DEV fails; the device is as before, and its fetches stay.
    fn refuse_zones(&mut self, device: usize, errno: i32) -> Stage {
        self.note(|| format!("device {device} is not started: its zones are refused"));
        self.detach_disk(device);
        self.end_start(device);
        Stage::End(Err(errno))
    }
}
