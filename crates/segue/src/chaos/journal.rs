//! The journal that the agents write, read while it grows.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// What stands in the journal so far.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    read_bytes: u64,
    /// Attempts that began.
    pub starts: u64,
    /// Attempts that did their work.
    pub ends: u64,
}

impl Journal {
    /// The journal at this path; it need not be there yet.
    pub fn new(path: PathBuf) -> Journal {
        Journal { path, read_bytes: 0, starts: 0, ends: 0 }
    }

    /// Reads what was added.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn refresh(&mut self) -> io::Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.read_bytes))?;
        let mut added = Vec::new();
        file.read_to_end(&mut added)?;
        // A line that is not whole yet is read the next time.
        let whole = added.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read_bytes += whole as u64;
        for line in added[..whole].split(|byte| *byte == b'\n') {
            self.starts += u64::from(line.ends_with(b" start"));
            self.ends += u64::from(line.ends_with(b" end"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_count_once_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::new(path.clone());
        journal.refresh().unwrap();
        let mut file = File::create(path).unwrap();
        file.write_all(b"a 1 start\na 1 end\nb 2 st").unwrap();
        journal.refresh().unwrap();
        assert_eq!((journal.starts, journal.ends), (1, 1));
        file.write_all(b"art\nc 3 fail\n").unwrap();
        journal.refresh().unwrap();
        assert_eq!((journal.starts, journal.ends), (2, 1));
    }
}
