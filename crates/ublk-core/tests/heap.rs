//! The heap of the addon as the heap of this program.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ublk_core::locked::Heap;

#[global_allocator]
static HEAP: Heap = Heap;

/// Memory of many sizes; some regions are given back.
fn use_memory(seed: usize) {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for step in 0..64 {
        let length = (seed * 31 + step * 977) % 4000 + if step % 16 == 0 { 300_000 } else { 1 };
        let mut bytes = vec![0; length];
        assert!(bytes.iter().all(|&byte| byte == 0), "memory that is asked for zeroed");
        bytes.fill(u8::try_from(step).unwrap());
        bytes.resize(length * 2, 1);
        assert!(bytes[..length].iter().all(|&byte| usize::from(byte) == step));
        kept.push(bytes);
        if step % 3 == 0 {
            kept.swap_remove(step % kept.len());
        }
    }
    black_box(kept);
}

#[test]
fn a_child_allocates_whatever_other_threads_were_doing() {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..3 {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    use_memory(seed);
                }
            });
        }
        for _ in 0..200 {
            // SAFETY: the child uses memory and ends; it takes no lock but that of the heap.
            let child = unsafe { libc::fork() };
            if child == 0 {
                use_memory(7);
                // SAFETY: runs nothing of the parent's.
                unsafe { libc::_exit(0) }
            }
            assert!(child > 0);
            if !ends(child) {
                over.store(true, Ordering::Relaxed);
                panic!("a child has not ended");
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Whether the child ends by itself, however slow the machine is; kills the child otherwise.
fn ends(child: libc::pid_t) -> bool {
    let begun = Instant::now();
    loop {
        let mut status = 0;
        // SAFETY: a child of this process.
        if unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == child {
            return status == 0;
        }
        if begun.elapsed() > Duration::from_secs(60) {
            // SAFETY: as above.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
