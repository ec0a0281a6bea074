//! One request over the socket of a node that may die at any moment, in the plainest HTTP.

use serde_json::Value;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// A node that has not answered by then is asked again, or another one is.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longer answers are of no use here.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;

/// Asks for something, and returns the status with the answer.
pub async fn get(socket: &Path, path: &str) -> Result<(u16, Value)> {
    ask(socket, &format!("GET {path} HTTP/1.1\r\nhost: segue\r\nconnection: close\r\n\r\n")).await
}

/// Submits something under an idempotency key. Where there is no answer it is not known whether it was taken in.
pub async fn submit(socket: &Path, key: &str, body: &Value) -> Result<(u16, Value)> {
    let body = body.to_string();
    let length = body.len();
    ask(
        socket,
        &format!(
            "POST /v1/tasks HTTP/1.1\r\nhost: segue\r\nconnection: close\r\ncontent-type: application/json\r\n\
             idempotency-key: {key}\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
    )
    .await
}

async fn ask(socket: &Path, request: &str) -> Result<(u16, Value)> {
    let answered = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        read(&answer)
    };
    tokio::time::timeout(PATIENCE, answered)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::TimedOut, "no answer")))
}

fn read(answer: &[u8]) -> Result<(u16, Value)> {
    let wrong = |why: &str| Error::new(ErrorKind::InvalidData, why.to_owned());
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.ok_or_else(|| wrong("the answer was cut off"))?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| wrong("the answer has no status"))?;
    let body = &answer[end + 4..];
    let body = match head.contains("transfer-encoding: chunked") {
        true => unchunked(body).ok_or_else(|| wrong("the answer was cut off"))?,
        false => body.to_vec(),
    };
    let value = serde_json::from_slice(&body).map_err(|error| wrong(&error.to_string()))?;
    Ok((status, value))
}

fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|bytes| bytes == b"\r\n")?;
        let size = std::str::from_utf8(&body[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(end + 2..end + 2 + size)?);
        body = body.get(end + 2 + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let plain = b"HTTP/1.1 201 Created\r\nContent-Length: 8\r\n\r\n{\"a\": 1}";
        assert_eq!(read(plain).unwrap(), (201, serde_json::json!({ "a": 1 })));
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n4\r\n: 2}\r\n0\r\n\r\n";
        assert_eq!(read(chunked).unwrap(), (200, serde_json::json!({ "a": 2 })));
        for cut in [10, 30, 50, 55, 60] {
            assert!(read(&chunked[..cut]).is_err(), "{cut}");
        }
    }
}
