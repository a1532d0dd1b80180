//! How the bytes of a device lie on what is behind it, written down for its next server.
//!
//! The kernel keeps what clients see of a device; where the bytes are, only its server knows. So a
//! server of a device with recovery leaves a record: the layout of the target, and which files it
//! has, in their order. The next server compares. A device without a record (of a version of this
//! package that left none, or of another program) is recovered on trust.

use crate::driver::Driver;
use crate::error::{Code, Error, Result};
use crate::targets::Target;

/// The first line of a record. What begins otherwise belongs to somebody else, or to a later
/// version.
const VERSION: &str = "ublk layout 1";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    /// Of the device, so that a record that was left behind is no other device's.
    instance: String,
    /// Absent where the target cannot say.
    layout: Option<String>,
    /// What tells each file from others, as far as the system says.
    files: Vec<Option<String>>,
}

impl Record {
    /// Absent where devices cannot be told from each other.
    fn of<D: Driver>(driver: &D, id: u32, target: &impl Target) -> Option<Self> {
        let files = target.laid_out().iter().map(|&fd| driver.identity(fd)).collect();
        Some(Self {
            instance: driver.device_identity(id)?.to_string(),
            layout: target.layout(),
            files,
        })
    }

    fn write(&self) -> String {
        let mut text = format!("{VERSION}\ninstance {}\n", self.instance);
        if let Some(layout) = &self.layout {
            text += &format!("layout {layout}\n");
        }
        for file in &self.files {
            text += &format!("file {}\n", file.as_deref().unwrap_or_default());
        }
        text
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        lines.next().filter(|&first| first == VERSION)?;
        let mut record = Self::default();
        for line in lines {
            let (key, value) = line.split_once(' ')?;
            match key {
                "instance" => record.instance = value.into(),
                "layout" => record.layout = Some(value.into()),
                "file" if value.is_empty() => record.files.push(None),
                "file" => record.files.push(Some(value.into())),
                _ => return None,
            }
        }
        Some(record)
    }

    /// What of a layout is not as it was, in words.
    fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if let (Some(before), Some(now)) = (&self.layout, &now.layout)
            && before != now
        {
            found.push(format!("its layout was {before} and is {now}"));
        }
        for (at, file) in now.files.iter().enumerate().filter(|(_, file)| file.is_some()) {
            let before = self.files.iter().position(|one| one == file);
            if self.files.get(at) != Some(file)
                && let Some(before) = before
            {
                found.push(format!("its file {at} was file {before}, counted from 0"));
            }
        }
        found
    }
}

/// Writes down for the next server of a device how `target` lays its bytes out.
pub(super) fn keep<D: Driver>(driver: &D, id: u32, target: &impl Target) -> Result<()> {
    let Some(record) = Record::of(driver, id, target) else { return Ok(()) };
    driver.keep_record(id, &record.write()).map_err(|error| {
        let message = format!("cannot write down the layout of ublk device {id} in /run/ublk");
        Error::os(Code::Kernel, message, "open", &error)
            .hint("a device with recovery leaves its layout to its next server there")
    })
}

/// Compares `target` with what the last server of a device has written down; answers what is not as
/// it was.
pub(super) fn compare<D: Driver>(driver: &D, id: u32, target: &impl Target) -> Result<Vec<String>> {
    let unreadable = || {
        let message =
            format!("cannot read the layout of ublk device {id} in /run/ublk/{id}.layout");
        Error::new(Code::BadBackend, message).hint(
            "a later version of ublk may have written it: recover the device with that; without \
             the file the device is recovered on trust",
        )
    };
    let Some(now) = Record::of(driver, id, target) else { return Ok(Vec::new()) };
    let Some(text) = driver.record(id).map_err(|_| unreadable())? else { return Ok(Vec::new()) };
    let before = Record::read(&text).ok_or_else(unreadable)?;
    if before.instance != now.instance {
        return Ok(Vec::new());
    }
    Ok(before.differences(&now))
}

/// Forgets what was written down of a device that goes; what somebody else, or a later version, has
/// written stays.
pub(super) fn forget<D: Driver>(driver: &D, id: u32) {
    if let Ok(Some(text)) = driver.record(id)
        && Record::read(&text).is_some()
    {
        driver.forget_record(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(layout: &str, files: &[&str]) -> Record {
        let files = files.iter().map(|&file| Some(file.into())).collect();
        Record { instance: "boot/7".into(), layout: Some(layout.into()), files }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut whole = record("striped(chunks of 4096: file, file)", &["file/1/2", "block/3"]);
        assert_eq!(Record::read(&whole.write()), Some(whole.clone()));
        whole.layout = None;
        whole.files[0] = None;
        assert_eq!(Record::read(&whole.write()), Some(whole));
        for other in ["", "{\"version\":2}", "ublk layout 2\n", "ublk layout 1\ncolour red\n"] {
            assert_eq!(Record::read(other), None, "{other}");
        }
    }

    #[test]
    fn files_may_move_but_not_change_places() {
        let before = record("striped", &["a", "b", "c"]);
        assert_eq!(before.differences(&before), [""; 0]);
        assert_eq!(before.differences(&record("striped", &["a", "new", "c"])), [""; 0]);
        let swapped = before.differences(&record("striped", &["b", "a", "c"]));
        assert_eq!(swapped.len(), 2);
        assert_eq!(before.differences(&record("striped", &["new", "a", "c"])).len(), 1);
        let twice = record("striped", &["a", "a"]);
        assert_eq!(twice.differences(&twice), [""; 0]);
        let unknown = Record { layout: None, files: vec![None; 3], ..record("", &[]) };
        assert_eq!(before.differences(&unknown), [""; 0]);
        assert_eq!(before.differences(&record("linear", &["a", "b", "c"])).len(), 1);
    }
}
