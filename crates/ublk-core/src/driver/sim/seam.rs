//! The model as a [`Driver`], and the files and mappings that the model gives out.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use ublk_sys::ublksrv_ctrl_cmd;

use crate::driver::sim::errands::SimErrands;
use crate::driver::sim::storage::files::FileRef;
use crate::driver::sim::ublk_drv::call::Call;
use crate::driver::sim::ublk_drv::device::Area;
use crate::driver::sim::{Sim, SimRing};
use crate::driver::{
    BlockNode, ControlAnswer, Deletions, Descriptors, DiskFacts, Driver, Errands, Identity,
    MemoryMap, OpenFile, RingSize, TargetMemory, User, Users,
};

impl Driver for Sim {
    type Ring = SimRing;

    fn reopen(&self, fd: RawFd) -> io::Result<OpenFile> {
        let again = self.lock().reopen(fd);
        match again {
            Some(fd) => Ok(OpenFile::new(fd, Arc::new(OpenFd { sim: self.clone(), fd }))),
            None => ublk_driver::reopen(fd),
        }
    }

    fn write_back(&self) -> io::Result<()> {
        self.write_back().map_err(io::Error::from_raw_os_error)
    }

    fn expect_memory(&self, memory: Arc<dyn TargetMemory>) {
        self.lock().target_memory.push(Arc::downgrade(&memory));
    }

    fn control(
        &self,
        operation: u32,
        command: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> io::Result<ControlAnswer> {
        let answer = self.carry_out(Call::new(operation, command, buffer), limit);
        self.wake();
        answer
    }

    fn deletions(&self) -> &Deletions {
        &self.0.deletions
    }

    fn devices(&self) -> Vec<u32> {
        self.lock().listed()
    }

    fn device_identity(&self, id: u32) -> Option<Identity> {
        self.lock().identity(id)
    }

    fn disk(&self, id: u32) -> Option<DiskFacts> {
        self.lock().disk(id)
    }

    fn open_char(&self, id: u32) -> io::Result<OpenFile> {
        let server = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let opened = self.lock().open_char(id, server);
        let fd = opened.map_err(io::Error::from_raw_os_error)?;
        Ok(OpenFile::new(fd, Arc::new(OpenFd { sim: self.clone(), fd })))
    }

    fn map_descriptors(
        &self,
        char_device: &OpenFile,
        queue: u16,
        depth: u16,
        stride: usize,
    ) -> io::Result<Descriptors> {
        let mut model = self.lock();
        let file = model.open_file(char_device.fd())?;
        let FileRef::Char(device) = file else { return Err(io::ErrorKind::InvalidInput.into()) };
        let info = &model.devices[device].info;
        if queue >= info.nr_hw_queues
            || depth != info.queue_depth
            || stride != model.devices[device].stride()
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let area = Arc::clone(&model.devices[device].queues[usize::from(queue)].area);
        model.hold(&file);
        drop(model);
        let base = area.base();
        let mapping = Mapping { sim: self.clone(), file, _area: area };
        // SAFETY: the area has `depth` descriptors of three aligned words each, `stride` bytes
        // apart, which change only by atomic stores; `mapping` keeps them.
        Ok(unsafe { Descriptors::new(base, stride, depth, Box::new(mapping)) })
    }

    fn open_zeros(&self) -> io::Result<OpenFile> {
        let fd = self.lock().install(FileRef::Zero);
        Ok(OpenFile::new(fd, Arc::new(OpenFd { sim: self.clone(), fd })))
    }

    fn map_memory(&self, fd: RawFd, _writable: bool) -> io::Result<MemoryMap> {
        let FileRef::Memory(memory) = self.lock().open_file(fd)? else {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        };
        // SAFETY: the memory is as long as it says, and `memory` keeps it.
        Ok(unsafe { MemoryMap::new(memory.base(), memory.length(), Box::new(Arc::clone(&memory))) })
    }

    fn block_node(&self, id: u32) -> BlockNode {
        self.lock().block_node(id)
    }

    fn counts_requests(&self, id: u32) -> bool {
        let model = self.lock();
        model.find_device(id).is_none_or(|device| model.devices[device].counts_requests())
    }

    fn set_queue(&self, id: u32, name: &str, value: &str) -> io::Result<()> {
        self.lock().set_queue(id, name, value)
    }

    fn requests_in_flight(&self, id: u32) -> u32 {
        let model = self.lock();
        let device = model.find_device(id);
        let of_it = model.requests.values().filter(|request| Some(request.device) == device);
        let counted = of_it.filter(|request| request.started && request.counted);
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    }

    fn identity(&self, fd: RawFd) -> Option<String> {
        self.lock().files.contains_key(&fd).then(|| fd.to_string())
    }

    fn record(&self, id: u32) -> io::Result<Option<String>> {
        Ok(self.lock().records.get(&id).cloned())
    }

    fn keep_record(&self, id: u32, text: &str) -> io::Result<()> {
        self.lock().records.insert(id, text.into());
        Ok(())
    }

    fn forget_record(&self, id: u32) {
        self.lock().records.remove(&id);
    }

    fn block_device_is_held(&self, id: u32) -> bool {
        let model = self.lock();
        model.find_device(id).is_some_and(|device| model.devices[device].openers > 0)
    }

    fn users(&self, id: u32) -> Users {
        let model = self.lock();
        let openers = model.find_device(id).map_or(0, |device| model.devices[device].openers);
        let client = |pid| User::Process { pid, name: "client".into() };
        Users { found: (1..=openers).map(client).collect(), complete: true }
    }

    fn ring(&self, entries: RingSize) -> io::Result<SimRing> {
        SimRing::new(self.clone(), entries)
    }

    fn errands(&self) -> io::Result<Box<dyn Errands>> {
        Ok(Box::new(SimErrands::new(self.clone())))
    }
}

/// An open descriptor of the model.
#[derive(Debug)]
pub(crate) struct OpenFd {
    pub(crate) sim: Sim,
    pub(crate) fd: RawFd,
}

impl Drop for OpenFd {
    fn drop(&mut self) {
        self.sim.lock().uninstall(self.fd);
        self.sim.wake();
    }
}

/// A mapping of `/dev/ublkcN`, which keeps it open.
#[derive(Debug)]
struct Mapping {
    sim: Sim,
    file: FileRef,
    _area: Arc<Area>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.sim.lock().put_file(&self.file);
        self.sim.wake();
    }
}
