//! A supervisor's end of the socket to its node.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;

use super::os;
use super::wire::Report;

/// The socket to the node.
pub(super) struct Control {
    pub(super) socket: UnixStream,
    unread: Vec<u8>,
    /// The node is there, as far as is known.
    pub(super) open: bool,
}

impl Control {
    /// Moves the socket away from descriptor 0, which the program must not inherit it as.
    pub(super) fn take() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        let kind = File::from(socket.try_clone()?).metadata()?.file_type();
        if !kind.is_socket() {
            return Err(io::Error::other(
                "this command is for Segue's own use: it waits for a node at the other end of its standard input",
            ));
        }
        os::dup_null_over_stdin()?;
        Ok(Self { socket: UnixStream::from(socket), unread: Vec::new(), open: true })
    }

    /// The next line, waiting for it; nothing at the end of the stream.
    pub(super) fn line(&mut self) -> io::Result<Option<String>> {
        let mut from = 0;
        loop {
            if let Some(line) = self.buffered_line(from) {
                return Ok(Some(line));
            }
            from = self.unread.len();
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    pub(super) fn buffered_line(&mut self, from: usize) -> Option<String> {
        let end = from + self.unread[from..].iter().position(|byte| *byte == b'\n')?;
        let rest = self.unread.split_off(end + 1);
        let line = std::mem::replace(&mut self.unread, rest);
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    /// Reads once; says whether anything came. An error is the same as the end: nobody is there.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0_u8; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    self.unread.extend_from_slice(&buffer[..length]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.open = false;
                    return Ok(false);
                }
            }
        }
    }

    /// Moves `length` bytes that follow the last line into a file without a name.
    pub(super) fn bytes(&mut self, length: u64) -> io::Result<File> {
        let mut file = os::anonymous_file()?;
        let buffered = usize::try_from(length).unwrap_or(usize::MAX).min(self.unread.len());
        file.write_all(&self.unread[..buffered])?;
        self.unread.drain(..buffered);
        let missing = length - buffered as u64;
        if io::copy(&mut (&self.socket).take(missing), &mut file)? != missing {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.rewind()?;
        Ok(file)
    }

    /// Tells the node; a node that is gone need not know.
    pub(super) fn report(&mut self, report: &Report) {
        if let Ok(mut line) = serde_json::to_vec(report) {
            line.push(b'\n');
            let _ = self.socket.write_all(&line);
        }
    }
}
