//! What a program writes: kept, bounded, cut into lines for progress, and logged.

use std::path::{Path, PathBuf};

use tokio::io::AsyncWriteExt;

/// Takes the lines of a program as they come. It runs in the task that reads the program's output,
/// so it must be quick and must not block.
pub type OnLine = Box<dyn FnMut(Line<'_>) + Send>;

/// Which of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that a program wrote, without its newline.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Where it was written to.
    pub stream: Stream,
    /// Its bytes; they need not be UTF-8.
    pub bytes: &'a [u8],
    /// It was longer than [`Capture::line_bytes_max`], and this is its beginning.
    pub cut: bool,
}

/// How much of a program's output is kept, and who else hears of it.
pub struct Capture {
    /// Bytes of standard output; a program that writes more is ended, since a result that is cut is no result.
    pub stdout_bytes_max: usize,
    /// Bytes of standard error; the last ones are kept, and what goes before is dropped and counted.
    pub stderr_bytes_max: usize,
    /// Bytes of one line for `on_line` and the log; the rest of a longer line is left out there.
    pub line_bytes_max: usize,
    /// A file that keeps both outputs.
    pub log: Option<LogFile>,
    /// Called for each line.
    pub on_line: Option<OnLine>,
}

impl Default for Capture {
    /// 16 MiB of output, the last 64 KiB of errors, lines of 1 MiB, no log.
    fn default() -> Self {
        Self {
            stdout_bytes_max: 16 << 20,
            stderr_bytes_max: 64 << 10,
            line_bytes_max: 1 << 20,
            log: None,
            on_line: None,
        }
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("stdout_bytes_max", &self.stdout_bytes_max)
            .field("stderr_bytes_max", &self.stderr_bytes_max)
            .field("line_bytes_max", &self.line_bytes_max)
            .field("log", &self.log)
            .field("on_line", &self.on_line.is_some())
            .finish()
    }
}

/// A log file with a bound. Lines of standard error begin with `stderr: `.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// Where it is; it is made with its folder at the first line, and appended to.
    pub path: PathBuf,
    /// Bytes this attempt may add, the mark that says where it was cut not counted.
    pub bytes_max: u64,
}

/// What became of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKept {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of output in it.
    pub bytes: u64,
    /// Bytes of output that it had no room for.
    pub dropped_bytes: u64,
    /// Why it could not be written, if so; the program ran on.
    pub error: Option<String>,
}

/// Takes in what the pipes bring.
pub(super) struct Taker {
    capture: Capture,
    stdout: Vec<u8>,
    stdout_bytes: u64,
    stderr: Vec<u8>,
    stderr_bytes: u64,
    lines: [Splitter; 2],
    log: Option<Log>,
}

/// What was kept in the end.
pub(super) struct Taken {
    pub stdout: Vec<u8>,
    pub stdout_bytes: u64,
    pub stderr: Vec<u8>,
    pub stderr_bytes: u64,
    pub log: Option<LogKept>,
}

impl Taker {
    pub(super) fn new(mut capture: Capture) -> Self {
        let log = capture.log.take().map(Log::new);
        Self {
            capture,
            stdout: Vec::new(),
            stdout_bytes: 0,
            stderr: Vec::new(),
            stderr_bytes: 0,
            lines: [Splitter::default(), Splitter::default()],
            log,
        }
    }

    /// Whether standard output has passed its limit.
    pub(super) fn too_large(&self) -> bool {
        self.stdout_bytes > self.capture.stdout_bytes_max as u64
    }

    /// Takes in what one pipe brought.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => {
                self.stdout_bytes += bytes.len() as u64;
                let room = self.capture.stdout_bytes_max - self.stdout.len();
                self.stdout.extend_from_slice(&bytes[..room.min(bytes.len())]);
            }
            Stream::Stderr => {
                self.stderr_bytes += bytes.len() as u64;
                self.stderr.extend_from_slice(bytes);
                // Cut only now and then: to move the tail at every read would cost more than to keep it.
                if self.stderr.len() > self.capture.stderr_bytes_max.saturating_mul(2) {
                    self.cut_stderr();
                }
            }
        }
        self.split(stream, bytes);
    }

    fn cut_stderr(&mut self) {
        let excess = self.stderr.len().saturating_sub(self.capture.stderr_bytes_max);
        self.stderr.drain(..excess);
    }

    fn split(&mut self, stream: Stream, bytes: &[u8]) {
        let Self { capture, lines, log, .. } = self;
        if log.is_none() && capture.on_line.is_none() {
            return;
        }
        lines[stream as usize].push(bytes, capture.line_bytes_max, |bytes, cut| {
            let line = Line { stream, bytes, cut };
            if let Some(log) = log {
                log.add(line);
            }
            if let Some(on_line) = &mut capture.on_line {
                on_line(line);
            }
        });
    }

    /// Brings the log to its file, as far as it has come.
    pub(super) async fn write_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.write().await;
        }
    }

    /// Hands on the last lines, which have no newline, and closes the log.
    pub(super) async fn finish(mut self) -> Taken {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if self.lines[stream as usize].has_rest() {
                self.split(stream, b"\n");
            }
        }
        self.cut_stderr();
        let log = match self.log {
            Some(log) => log.finish().await,
            None => None,
        };
        Taken {
            stdout: self.stdout,
            stdout_bytes: self.stdout_bytes,
            stderr: self.stderr,
            stderr_bytes: self.stderr_bytes,
            log,
        }
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
struct Splitter {
    partial: Vec<u8>,
    cut: bool,
}

impl Splitter {
    fn has_rest(&self) -> bool {
        !self.partial.is_empty() || self.cut
    }

    fn push(&mut self, bytes: &[u8], line_bytes_max: usize, mut line: impl FnMut(&[u8], bool)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            if whole && !self.has_rest() && text.len() <= line_bytes_max {
                line(text, false);
                continue;
            }
            let room = line_bytes_max - self.partial.len();
            self.cut |= text.len() > room;
            self.partial.extend_from_slice(&text[..room.min(text.len())]);
            if whole {
                line(&self.partial, self.cut);
                self.partial.clear();
                self.cut = false;
            }
        }
    }
}

/// The log while it is written.
struct Log {
    file: LogFile,
    open: Option<tokio::fs::File>,
    pending: Vec<u8>,
    bytes: u64,
    dropped_bytes: u64,
    error: Option<String>,
}

impl Log {
    fn new(file: LogFile) -> Self {
        Self { file, open: None, pending: Vec::new(), bytes: 0, dropped_bytes: 0, error: None }
    }

    fn add(&mut self, line: Line<'_>) {
        let before = self.pending.len();
        if line.stream == Stream::Stderr {
            self.pending.extend_from_slice(b"stderr: ");
        }
        self.pending.extend_from_slice(line.bytes);
        if line.cut {
            self.pending.extend_from_slice(b" [segue: the line goes on]");
        }
        self.pending.push(b'\n');
        let length = (self.pending.len() - before) as u64;
        if self.dropped_bytes > 0 || self.bytes + length > self.file.bytes_max {
            self.pending.truncate(before);
            if self.dropped_bytes == 0 {
                let mark = format!(
                    "[segue: the log ends here, at its limit of {} bytes]\n",
                    self.file.bytes_max
                );
                self.pending.extend_from_slice(mark.as_bytes());
            }
            self.dropped_bytes += length;
        } else {
            self.bytes += length;
        }
    }

    async fn write(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if self.error.is_none()
            && let Err(error) = self.write_pending().await
        {
            self.error = Some(format!("{}: {error}", self.file.path.display()));
        }
        self.pending.clear();
    }

    async fn write_pending(&mut self) -> std::io::Result<()> {
        let file = match &mut self.open {
            Some(file) => file,
            None => self.open.insert(open_log(&self.file.path).await?),
        };
        file.write_all(&self.pending).await
    }

    async fn finish(mut self) -> Option<LogKept> {
        if self.dropped_bytes > 0 {
            self.pending.extend_from_slice(
                format!("[segue: {} more bytes came]\n", self.dropped_bytes).as_bytes(),
            );
        }
        self.write().await;
        if let Some(file) = &mut self.open
            && let Err(error) = file.flush().await
        {
            self.error.get_or_insert_with(|| format!("{}: {error}", self.file.path.display()));
        }
        let nothing = self.bytes == 0 && self.dropped_bytes == 0;
        (!nothing).then_some(LogKept {
            path: self.file.path,
            bytes: self.bytes,
            dropped_bytes: self.dropped_bytes,
            error: self.error,
        })
    }
}

async fn open_log(path: &Path) -> std::io::Result<tokio::fs::File> {
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let mut file =
        tokio::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).await?;
    file.set_max_buf_size(256 << 10);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Seen = Arc<Mutex<Vec<(Stream, Vec<u8>, bool)>>>;

    fn recorder() -> (Seen, OnLine) {
        let seen = Seen::default();
        let to = Arc::clone(&seen);
        let on_line = move |line: Line<'_>| {
            to.lock().expect("unpoisoned").push((line.stream, line.bytes.to_vec(), line.cut));
        };
        (seen, Box::new(on_line))
    }

    #[tokio::test]
    async fn lines_are_the_same_however_the_bytes_arrive() {
        let text = b"one\n\ntwo\xff\0\nfour";
        for step in 1..=text.len() {
            let (seen, on_line) = recorder();
            let mut taker = Taker::new(Capture { on_line: Some(on_line), ..Capture::default() });
            for chunk in text.chunks(step) {
                taker.take(Stream::Stdout, chunk);
            }
            assert_eq!(taker.finish().await.stdout, text);
            let lines: Vec<Vec<u8>> =
                seen.lock().expect("unpoisoned").iter().map(|(_, line, _)| line.clone()).collect();
            assert_eq!(lines, [&b"one"[..], b"", b"two\xff\0", b"four"], "in steps of {step}");
        }
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_says_so() {
        for step in [1, 3, 100] {
            let (seen, on_line) = recorder();
            let capture =
                Capture { line_bytes_max: 4, on_line: Some(on_line), ..Capture::default() };
            let mut taker = Taker::new(capture);
            for chunk in b"12345678\n1234\nx\n".chunks(step) {
                taker.take(Stream::Stderr, chunk);
            }
            taker.finish().await;
            let seen = seen.lock().expect("unpoisoned");
            let lines: Vec<(&[u8], bool)> =
                seen.iter().map(|(_, line, cut)| (line.as_slice(), *cut)).collect();
            assert_eq!(
                lines,
                [(&b"1234"[..], true), (b"1234", false), (b"x", false)],
                "in steps of {step}"
            );
        }
    }

    #[tokio::test]
    async fn stdout_has_a_limit_and_stderr_a_tail() {
        let mut taker =
            Taker::new(Capture { stdout_bytes_max: 5, stderr_bytes_max: 4, ..Capture::default() });
        taker.take(Stream::Stdout, b"12345");
        assert!(!taker.too_large());
        for _ in 0..9 {
            taker.take(Stream::Stderr, b"abc");
        }
        taker.take(Stream::Stdout, b"6");
        assert!(taker.too_large());
        let taken = taker.finish().await;
        assert_eq!((taken.stdout.as_slice(), taken.stdout_bytes), (&b"12345"[..], 6));
        assert_eq!((taken.stderr.as_slice(), taken.stderr_bytes), (&b"cabc"[..], 27));
    }

    #[tokio::test]
    async fn the_log_keeps_both_streams_up_to_its_bound() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("deep/attempt.log");
        let log = LogFile { path: path.clone(), bytes_max: 20 };
        let mut taker = Taker::new(Capture { log: Some(log), ..Capture::default() });
        taker.take(Stream::Stdout, b"out\n");
        taker.take(Stream::Stderr, b"err\n");
        taker.write_log().await;
        taker.take(Stream::Stdout, b"too long for it\nx\n");
        let kept = taker.finish().await.log.expect("a log");
        assert_eq!((kept.bytes, kept.dropped_bytes, kept.error), (16, 18, None));
        let text = std::fs::read_to_string(&path).expect("written");
        assert_eq!(
            text,
            "out\nstderr: err\n[segue: the log ends here, at its limit of 20 bytes]\n[segue: 18 more bytes came]\n"
        );
    }

    #[tokio::test]
    async fn a_silent_program_leaves_no_log_and_a_bad_path_is_told() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("silent.log");
        let log = |path: PathBuf| Some(LogFile { path, bytes_max: 100 });
        let taker = Taker::new(Capture { log: log(path.clone()), ..Capture::default() });
        assert_eq!(taker.finish().await.log, None);
        assert!(!path.exists());
        let mut taker =
            Taker::new(Capture { log: log(folder.path().to_owned()), ..Capture::default() });
        taker.take(Stream::Stdout, b"x\n");
        let kept = taker.finish().await.log.expect("told");
        assert!(kept.error.expect("an error").contains(&folder.path().display().to_string()));
    }
}
