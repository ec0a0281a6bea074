//! Ports of the loopback that are free.

use std::net::{Ipv4Addr, TcpListener};

/// Where free ports are looked for: below the range from which systems take the ports of outgoing connections, so that nobody's connection
/// takes the port of a server that is down for a moment, and no connection to a server that is down can meet itself.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port that nobody listens on. Chosen by chance, so that tests that run at the same time do not choose the same one.
///
/// # Panics
/// When no port can be had.
pub fn free() -> u16 {
    for _ in 0..1_000 {
        let chance = getrandom::u32().expect("the system gives chance");
        let width = u32::from(RANGE.end - RANGE.start);
        let port = RANGE.start + u16::try_from(chance % width).expect("less than the width");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {} and {}", RANGE.start, RANGE.end);
}
