//! Which CPUs the threads of a device run on.

use std::fs;
use std::io;

use ublk_sys::UBLK_S_DEV_LIVE;

use crate::control::Control;
use crate::driver::Driver;
use crate::error::{Code, Error, Result};

/// As many as a kernel can be built for.
const MAX_CPUS: u16 = 8192;

/// CPUs as the bit mask that the kernel reads: words of the machine's size and byte order.
pub(super) fn mask(cpus: &[u16]) -> Box<[u8]> {
    let bits = usize::BITS as usize;
    let words = cpus.iter().max().map_or(0, |&last| usize::from(last) / bits + 1);
    let mut mask = vec![0_usize; words];
    for &cpu in cpus {
        mask[usize::from(cpu) / bits] |= 1 << (usize::from(cpu) % bits);
    }
    mask.into_iter().flat_map(usize::to_ne_bytes).collect()
}

/// Checks a list of CPUs as far as this machine's are not needed.
pub(super) fn validate(cpus: &[u16]) -> Result<()> {
    let refuse = |message: String| Err(Error::new(Code::InvalidArgument, message));
    if cpus.is_empty() {
        return refuse("affinity names no CPU".into());
    }
    match cpus.iter().find(|&&cpu| cpu >= MAX_CPUS) {
        Some(cpu) => refuse(format!("CPU {cpu} cannot be; they count from 0 to {}", MAX_CPUS - 1)),
        None => Ok(()),
    }
}

/// Moves all threads that serve a device, and nothing else, to these CPUs, in whatever process they
/// are: one for each queue, or those that share the tags, both of each with rings apart. They are
/// found by their names, so the server must be one of this package. Answers how many there are.
///
/// # Errors
/// [`Code::InvalidArgument`] without a CPU that this machine has; [`Code::NoDevice`];
/// [`Code::Unsupported`] when no thread serves this device alone; [`Code::Permission`].
pub fn set_affinity<D: Driver>(driver: D, id: u32, cpus: &[u16]) -> Result<usize> {
    validate(cpus)?;
    let info = Control::new(driver).info(id)?;
    if info.state != UBLK_S_DEV_LIVE || info.ublksrv_pid <= 0 {
        let message = format!("ublk device {id} has no server");
        return Err(Error::new(Code::Closed, message).hint("`ublk recover` gives it one"));
    }
    let threads = threads(info.ublksrv_pid, id);
    if threads.is_empty() {
        let message = format!(
            "process {} has no thread that serves ublk device {id} alone",
            info.ublksrv_pid
        );
        return Err(Error::new(Code::Unsupported, message)
            .hint("it may be served by a pool, or by a server of another kind: try taskset(1)"));
    }
    let mask = mask(cpus);
    for &thread in &threads {
        bind(thread, &mask).map_err(|error| failed(id, &error))?;
    }
    Ok(threads.len())
}

fn threads(process: i32, id: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks
        .filter(|task| {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            serves(name.trim_end(), id)
        })
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether a thread of this name serves the device: a queue of it, or a share of all, or the back
/// of either (see `staff`).
fn serves(name: &str, id: u32) -> bool {
    let rest = name.strip_prefix(&format!("ublk{id}")).unwrap_or_default();
    let number = rest.strip_prefix(['q', 't']).unwrap_or_default();
    number.strip_suffix('b').unwrap_or(number).parse::<u16>().is_ok()
}

fn bind(thread: i32, mask: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `mask.len()` bytes.
    match unsafe { libc::sched_setaffinity(thread, mask.len(), mask.as_ptr().cast()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn failed(id: u32, error: &io::Error) -> Error {
    let (code, hint) = match error.raw_os_error() {
        Some(libc::EINVAL) => (
            Code::InvalidArgument,
            "this machine, or its cgroup, has none of these CPUs; see nproc",
        ),
        Some(libc::EPERM) => (Code::Permission, "the server belongs to another user: run as root"),
        _ => (Code::Kernel, "did its server end meanwhile?"),
    };
    let tried = format!("cannot move the threads of ublk device {id}");
    Error::os(code, tried, "sched_setaffinity", error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_a_bit_for_each_cpu_and_whole_words() {
        let mask = mask(&[0, 3, 65]);
        assert_eq!(mask.len() % size_of::<usize>(), 0);
        let words: Vec<_> = mask
            .chunks_exact(size_of::<usize>())
            .map(|word| usize::from_ne_bytes(word.try_into().unwrap()))
            .collect();
        let bits = usize::BITS as usize;
        for cpu in 0..words.len() * bits {
            let set = words[cpu / bits] >> (cpu % bits) & 1 == 1;
            assert_eq!(set, [0, 3, 65].contains(&cpu), "CPU {cpu}");
        }
    }

    #[test]
    fn threads_of_a_device_are_known_by_their_names() {
        let of = |id| {
            ["ublk1", "ublk1q0", "ublk1t12", "ublk1q3b", "ublk1start", "ublk11q0", "ublk-pool0"]
                .map(|name| serves(name, id))
        };
        assert_eq!(of(1), [false, true, true, true, false, false, false]);
        assert_eq!(of(11), [false, false, false, false, false, true, false]);
    }

    #[test]
    fn cpus_that_cannot_be_are_refused() {
        assert_eq!(validate(&[]).unwrap_err().code, Code::InvalidArgument);
        assert_eq!(validate(&[8192]).unwrap_err().code, Code::InvalidArgument);
        validate(&[0, 8191]).unwrap();
    }
}
