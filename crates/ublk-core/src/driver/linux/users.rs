//! Looks for the users of a block device in `/proc` and `/sys`. The search opens no device, so that
//! it waits for no request and no udev rule runs.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::super::{User, Users};

/// How many entries of `/proc` a search looks at: some 30,000 processes' files in half a second.
const MOST_LOOKS: usize = 200_000;

/// A block device and its partitions.
struct Disk {
    /// `ublkb0`, `ublkb0p1`, …
    names: HashSet<String>,
    /// `259:0`, …
    numbers: HashSet<String>,
}

/// The users of `/dev/ublkbN`, with `/proc` and `/sys` below `root`.
pub(super) fn find(root: &Path, id: u32) -> Users {
    let folder = root.join(format!("sys/class/block/ublkb{id}"));
    let Some(disk) = Disk::at(&folder) else { return Users { found: vec![], complete: true } };
    let mut search = Search { disk, looks: 0, found: vec![], complete: true };
    search.devices(&root.join("sys/class/block"));
    search.swaps(&root.join("proc/swaps"));
    search.processes(&root.join("proc"));
    search.found.sort_unstable();
    search.found.dedup();
    Users { found: search.found, complete: search.complete }
}

impl Disk {
    fn at(folder: &Path) -> Option<Self> {
        let whole = folder.file_name()?.to_str()?.to_owned();
        let number = |path: PathBuf| fs::read_to_string(path).ok().map(|text| text.trim().into());
        let mut numbers = HashSet::from([number(folder.join("dev"))?]);
        let mut names = HashSet::from([whole.clone()]);
        for name in names_in(folder).filter(|name| name.starts_with(&whole)) {
            numbers.extend(number(folder.join(&name).join("dev")));
            names.insert(name);
        }
        Some(Self { names, numbers })
    }

    fn has_path(&self, path: &str) -> bool {
        path.strip_prefix("/dev/").is_some_and(|name| self.names.contains(name))
    }
}

struct Search {
    disk: Disk,
    looks: usize,
    found: Vec<User>,
    complete: bool,
}

impl Search {
    fn devices(&mut self, block: &Path) {
        for name in &self.disk.names {
            let holders = names_in(&block.join(name).join("holders"));
            self.found.extend(holders.map(|name| User::Device { name }));
        }
        // The kernel names no holder for a loop device.
        for name in names_in(block).filter(|name| name.starts_with("loop")) {
            let file = fs::read_to_string(block.join(&name).join("loop/backing_file"));
            if file.is_ok_and(|path| self.disk.has_path(path.trim_end())) {
                self.found.push(User::Device { name });
            }
        }
    }

    fn swaps(&mut self, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut paths = text.lines().filter_map(|line| line.split_whitespace().next());
        if paths.any(|path| self.disk.has_path(path)) {
            self.found.push(User::Swap);
        }
    }

    fn processes(&mut self, proc: &Path) {
        let mut namespaces = HashSet::new();
        for pid in names_in(proc).filter_map(|name| name.parse::<u32>().ok()) {
            let folder = proc.join(pid.to_string());
            let namespace = fs::read_link(folder.join("ns/mnt"));
            if namespace.map_or(true, |namespace| namespaces.insert(namespace)) {
                self.mounts(&folder.join("mountinfo"));
            }
            if self.has_it_open(&folder.join("fd")) {
                let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
                self.found.push(User::Process { pid, name: name.trim_end().into() });
            }
            if self.looks > MOST_LOOKS {
                self.complete = false;
                return;
            }
        }
    }

    fn mounts(&mut self, path: &Path) {
        // Bytes: a mount point may have any name.
        let bytes = fs::read(path).unwrap_or_default();
        for line in String::from_utf8_lossy(&bytes).lines() {
            self.looks += 1;
            let fields: Vec<&str> = line.split(' ').collect();
            let &[_, _, number, _, at, ..] = fields.as_slice() else { continue };
            // btrfs and others show a number of their own, but name the device.
            let source = fields.iter().position(|&field| field == "-").and_then(|at| {
                let source = fields.get(at + 2)?;
                Some(unescape(source))
            });
            if self.disk.numbers.contains(number)
                || source.is_some_and(|path| self.disk.has_path(&path))
            {
                self.found.push(User::Mount { at: unescape(at) });
            }
        }
    }

    fn has_it_open(&mut self, folder: &Path) -> bool {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                // A process that has ended meanwhile hides nothing.
                self.complete &= error.kind() == std::io::ErrorKind::NotFound;
                return false;
            }
        };
        entries.flatten().any(|entry| {
            self.looks += 1;
            self.is_it(&entry.path())
        })
    }

    /// Only what lies below `/dev` is asked for its number: a file system of the network might not
    /// answer.
    fn is_it(&self, fd: &Path) -> bool {
        let Ok(link) = fs::read_link(fd) else { return false };
        let Some(path) = link.to_str().filter(|path| path.starts_with("/dev/")) else {
            return false;
        };
        self.disk.has_path(path)
            || fs::metadata(fd).is_ok_and(|file| {
                let number = format!("{}:{}", libc::major(file.rdev()), libc::minor(file.rdev()));
                file.file_type().is_block_device() && self.disk.numbers.contains(&number)
            })
    }
}

/// The names of a folder's entries; none of a folder that is not there.
fn names_in(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// A field of mountinfo, where space, tab, newline and backslash are `\040` and the like.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match byte {
            Some(byte) => {
                text.push(byte.into());
                text.push_str(&part[3..]);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    static MACHINES: AtomicU32 = AtomicU32::new(0);

    struct Machine(PathBuf);

    impl Machine {
        fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    /// `/proc` and `/sys` of a machine with `ublkb3`, number 259:7, and its partition 259:8.
    fn machine() -> Machine {
        let number = MACHINES.fetch_add(1, Ordering::Relaxed);
        let name = format!("ublk-users-{}-{number}", std::process::id());
        let root = Machine(std::env::temp_dir().join(name));
        let files = [
            ("sys/class/block/ublkb3/dev", "259:7\n"),
            ("sys/class/block/ublkb3/ublkb3p1/dev", "259:8\n"),
            ("sys/class/block/ublkb3/queue/depth", ""),
            ("sys/class/block/ublkb33/dev", "259:9\n"),
            ("proc/swaps", "Filename Type Size\n/dev/ublkb33 partition 4\n"),
            ("proc/1/comm", "init\n"),
            ("proc/1/mountinfo", "22 1 259:9 / / rw - ext4 /dev/ublkb33 rw\n"),
            ("proc/1/fd/none", ""),
        ];
        for (path, text) in files {
            put(root.path(), path, text);
        }
        root
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn found(root: &Path) -> Vec<User> {
        find(root, 3).found
    }

    #[test]
    fn the_users_of_another_device_are_not_its_own() {
        let root = machine();
        assert_eq!(find(root.path(), 3), Users { found: vec![], complete: true });
        assert_eq!(find(root.path(), 4), Users { found: vec![], complete: true });
    }

    #[test]
    fn a_mount_is_found_by_number_in_every_namespace() {
        let root = machine();
        let line = "30 1 259:7 / /mnt/a\\040b\\134c rw shared:1 - ext4 /dev/whatever rw\n";
        put(root.path(), "proc/20/mountinfo", line);
        put(root.path(), "proc/20/fd/none", "");
        let at = "/mnt/a b\\c".to_owned();
        assert_eq!(found(root.path()), [User::Mount { at }]);
    }

    #[test]
    fn a_mount_with_a_number_of_its_own_is_found_by_its_device() {
        let root = machine();
        let line = "30 1 0:45 /sub /data rw - btrfs /dev/ublkb3p1 rw\n";
        put(root.path(), "proc/1/mountinfo", line);
        assert_eq!(found(root.path()), [User::Mount { at: "/data".into() }]);
    }

    #[test]
    fn namespaces_are_looked_at_once() {
        let root = machine();
        let line = "30 1 259:7 / /mnt rw - ext4 /dev/ublkb3 rw\n";
        for pid in [20, 21] {
            put(root.path(), &format!("proc/{pid}/mountinfo"), line);
            put(root.path(), &format!("proc/{pid}/fd/none"), "");
            fs::create_dir(root.path().join(format!("proc/{pid}/ns"))).unwrap();
            symlink("mnt:[7]", root.path().join(format!("proc/{pid}/ns/mnt"))).unwrap();
        }
        assert_eq!(found(root.path()), [User::Mount { at: "/mnt".into() }]);
    }

    #[test]
    fn devices_swap_and_processes_are_found_on_partitions_too() {
        let root = machine();
        put(root.path(), "sys/class/block/ublkb3p1/holders/dm-0", "");
        put(root.path(), "sys/class/block/loop4/loop/backing_file", "/dev/ublkb3\n");
        put(root.path(), "sys/class/block/loop5/loop/backing_file", "/srv/ublkb3\n");
        put(root.path(), "proc/swaps", "Filename Type\n/dev/ublkb3p1 partition\n");
        put(root.path(), "proc/77/comm", "fio\n");
        fs::create_dir(root.path().join("proc/77/fd")).unwrap();
        symlink("/dev/ublkb3p1", root.path().join("proc/77/fd/9")).unwrap();
        let users = find(root.path(), 3);
        let text = "part of dm-0, part of loop4, used as swap space, open in process 77 (fio)";
        assert_eq!(users.to_string(), text);
        assert!(users.complete);
    }

    #[test]
    fn a_process_that_hides_its_files_makes_the_search_incomplete() {
        let root = machine();
        // Not a folder: what the kernel says of a process of another user is an error too.
        put(root.path(), "proc/99/fd", "");
        assert_eq!(find(root.path(), 3), Users { found: vec![], complete: false });
    }

    #[test]
    fn many_users_are_counted_and_not_all_named() {
        let mount = |at: usize| User::Mount { at: format!("/{at}") };
        let users = Users { found: (0..10).map(mount).collect(), complete: true };
        assert!(users.to_string().ends_with("mounted on /7, and 2 more"), "{users}");
    }
}
