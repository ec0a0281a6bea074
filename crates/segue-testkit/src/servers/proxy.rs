//! A line to a server that can be cut, held up and slowed down.

use super::{STARTS, port};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Bytes that are passed on at a time.
const CHUNK: usize = 16 * 1024;

/// Chunks that are under way at a time in one direction of a connection: as much as a slow line holds. Whoever writes more waits.
const UNDER_WAY_MAX: usize = 256;

/// Connections through one proxy. More wait to be let in.
const CONNECTIONS_MAX: usize = 4_096;

/// How the line is at the moment.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// From the client to the server, and back.
    ways: [Way; 2],
    /// Each cut ends the connections that were there before it.
    cuts: u64,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    held: bool,
    delay: Duration,
}

/// From the client to the server.
const UP: usize = 0;
/// From the server to the client.
const DOWN: usize = 1;

/// What has gone through.
#[derive(Default)]
struct Counts {
    bytes: [AtomicU64; 2],
    open: AtomicUsize,
}

struct Order {
    change: Change,
    done: oneshot::Sender<()>,
}

enum Change {
    Cut { refuse: bool },
    Hold([bool; 2]),
    Delay([Duration; 2]),
    Heal,
}

/// A line to a server on an address of its own. It runs on a thread of its own, and ends when this is dropped: like a server that is killed.
pub struct Proxy {
    address: SocketAddr,
    counts: Arc<Counts>,
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Proxy {
    /// A line to the server that listens on `address`, e.g. `127.0.0.1:5432`, now or later.
    ///
    /// # Panics
    /// When `address` is none, or no port is free.
    pub async fn to(address: &str) -> Proxy {
        let server: SocketAddr =
            address.parse().unwrap_or_else(|error| panic!("{address} is no address: {error}"));
        let counts = Arc::new(Counts::default());
        let (orders, taken) = mpsc::channel(1);
        let (tell, listening) = oneshot::channel();
        let counted = counts.clone();
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(async {
                let listener = listen().await;
                let address = listener.local_addr().expect("it listens");
                // Nobody waits for it any more when the test was given up.
                let _ = tell.send(address);
                Desk::new(server, address, counted).run(listener, taken).await;
            });
        });
        let thread = Some(thread.expect("a thread starts"));
        let address = listening.await.expect("a proxy listens");
        Proxy { address, counts, orders: Some(orders), thread }
    }

    /// Its own address, `127.0.0.1:PORT`, which a client is given instead of the server's.
    pub fn addr(&self) -> String {
        self.address.to_string()
    }

    /// Cuts the line: connections are reset, new ones refused, until [`Proxy::heal`].
    pub async fn cut(&self) {
        self.order(Change::Cut { refuse: true }).await;
    }

    /// Resets the connections that are there; new ones are let through.
    pub async fn reset(&self) {
        self.order(Change::Cut { refuse: false }).await;
    }

    /// Goes silent: connections stay open, new ones open as well, and nothing gets through in either direction until [`Proxy::heal`]. Then what was
    /// held arrives, as after a break in a network.
    pub async fn hold(&self) {
        self.order(Change::Hold([true, true])).await;
    }

    /// Holds what the server says; what it is told still arrives. So an answer is missing to something that was done.
    pub async fn hold_answers(&self) {
        self.order(Change::Hold([false, true])).await;
    }

    /// Lets everything through again. Delays stay as they are.
    pub async fn heal(&self) {
        self.order(Change::Heal).await;
    }

    /// Delays everything by so many milliseconds in each direction from now on; 0 ends it.
    pub async fn delay(&self, ms: u64) {
        self.delay_each(ms, ms).await;
    }

    /// Delays by so many milliseconds what goes to the server, and what comes from it.
    pub async fn delay_each(&self, to_server_ms: u64, from_server_ms: u64) {
        let delays = [to_server_ms, from_server_ms].map(Duration::from_millis);
        self.order(Change::Delay(delays)).await;
    }

    /// Bytes that have got through so far to the server, and from it.
    pub fn bytes(&self) -> (u64, u64) {
        let count = |way: usize| self.counts.bytes[way].load(Ordering::SeqCst);
        (count(UP), count(DOWN))
    }

    /// Connections that are open through it.
    pub fn connections(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    async fn order(&self, change: Change) {
        let (done, is_done) = oneshot::channel();
        let orders = self.orders.as_ref().expect("it runs until it is dropped");
        orders.send(Order { change, done }).await.expect("a proxy takes orders");
        is_done.await.expect("a proxy does as it is told");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // It has shown its panic itself.
            let _ = thread.join();
        }
    }
}

async fn listen() -> TcpListener {
    for _ in 0..STARTS {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port::free())).await {
            return listener;
        }
    }
    panic!("a proxy found no free port");
}

/// Where a proxy's orders and connections come in.
struct Desk {
    server: SocketAddr,
    address: SocketAddr,
    counts: Arc<Counts>,
    line: watch::Sender<Line>,
    connections: JoinSet<()>,
}

impl Desk {
    fn new(server: SocketAddr, address: SocketAddr, counts: Arc<Counts>) -> Desk {
        let way = Way { held: false, delay: Duration::ZERO };
        let (line, _) = watch::channel(Line { ways: [way, way], cuts: 0 });
        Desk { server, address, counts, line, connections: JoinSet::new() }
    }

    async fn run(mut self, listener: TcpListener, mut orders: mpsc::Receiver<Order>) {
        let mut listener = Some(listener);
        loop {
            let room = self.connections.len() < CONNECTIONS_MAX;
            tokio::select! {
                order = orders.recv() => {
                    let Some(Order { change, done }) = order else { return };
                    self.change(change, &mut listener).await;
                    // Whoever gave the order may have been given up.
                    let _ = done.send(());
                }
                accepted = accept(listener.as_ref()), if listener.is_some() && room => {
                    if let Ok((client, _)) = accepted {
                        let connection = connection(client, self.server, self.line.subscribe(), self.counts.clone());
                        self.connections.spawn(connection);
                    }
                }
                _ = self.connections.join_next(), if !self.connections.is_empty() => {}
            }
        }
    }

    async fn change(&mut self, change: Change, listener: &mut Option<TcpListener>) {
        match change {
            Change::Cut { refuse } => {
                if refuse {
                    *listener = None;
                }
                self.line.send_modify(|line| line.cuts += 1);
                while self.connections.join_next().await.is_some() {}
            }
            Change::Hold(held) => self.line.send_modify(|line| {
                line.ways[UP].held = held[UP];
                line.ways[DOWN].held = held[DOWN];
            }),
            Change::Delay(delays) => self.line.send_modify(|line| {
                line.ways[UP].delay = delays[UP];
                line.ways[DOWN].delay = delays[DOWN];
            }),
            Change::Heal => {
                if listener.is_none() {
                    let again = TcpListener::bind(self.address).await;
                    *listener = Some(again.expect("a proxy gets its port again"));
                }
                self.line.send_modify(|line| line.ways.iter_mut().for_each(|way| way.held = false));
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// One connection, until one side ends it or the line is cut.
async fn connection(
    client: TcpStream,
    server: SocketAddr,
    mut line: watch::Receiver<Line>,
    counts: Arc<Counts>,
) {
    let cuts = line.borrow_and_update().cuts;
    counts.open.fetch_add(1, Ordering::SeqCst);
    // Runs also when the proxy ends in the middle.
    let _open = Open(counts.clone());
    let cut = {
        let mut line = line.clone();
        async move {
            // An error is the end of the proxy.
            let _ = line.wait_for(|line| line.cuts != cuts).await;
        }
    };
    let mut cut = std::pin::pin!(cut);
    let held = {
        let mut line = line.clone();
        async move {
            // What a client of a silent line tries to reach is reached when the line is healed.
            let _ = line.wait_for(|line| !line.ways[UP].held).await;
            TcpStream::connect(server).await
        }
    };
    let connected = tokio::select! {
        () = &mut cut => None,
        connected = held => connected.ok(),
    };
    let Some(server) = connected else {
        let _ = client.set_zero_linger();
        return;
    };
    // Small letters must not wait for each other.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let was_cut = tokio::select! {
        () = &mut cut => true,
        whole = async {
            tokio::try_join!(
                pump(UP, &mut from_client, &mut to_server, line.clone(), &counts),
                pump(DOWN, &mut from_server, &mut to_client, line.clone(), &counts),
            )
        } => whole.is_err(),
    };
    if was_cut {
        // Both sides see a reset instead of an orderly end.
        for (read, write) in [(from_client, to_client), (from_server, to_server)] {
            if let Ok(whole) = read.reunite(write) {
                let _ = whole.set_zero_linger();
            }
        }
    }
}

/// Counts a connection out.
struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Passes one direction on until its end.
async fn pump(
    way: usize,
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    line: watch::Receiver<Line>,
    counts: &Counts,
) -> std::io::Result<()> {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY_MAX);
    let mut gate = line.clone();
    let read = async move {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk).await?;
            let due = Instant::now() + line.borrow().ways[way].delay;
            // The end is passed on like everything else: an empty chunk.
            let is_end = length == 0;
            let sent = sender.send((due, chunk[..length].to_vec())).await;
            if is_end || sent.is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        while let Some((due, bytes)) = under_way.recv().await {
            tokio::time::sleep_until(due).await;
            // An error is the end of the proxy.
            let _ = gate.wait_for(|line| !line.ways[way].held).await;
            if bytes.is_empty() {
                return to.shutdown().await;
            }
            // Counted before whoever hears it can ask for the count.
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            counts.bytes[way].fetch_add(length, Ordering::SeqCst);
            to.write_all(&bytes).await?;
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    /// A server that sends back what it is sent.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn say(stream: &mut TcpStream, text: &[u8]) {
        stream.write_all(text).await.unwrap();
        hear(stream, text).await;
    }

    async fn hear(stream: &mut TcpStream, text: &[u8]) {
        let mut heard = vec![0; text.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, text);
    }

    /// Nothing has come, and a poll of the socket says so.
    fn nothing_came(stream: &TcpStream) -> bool {
        let mut byte = [0];
        stream.try_read(&mut byte).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    #[tokio::test]
    async fn what_is_said_gets_through_whole_and_is_counted() {
        let proxy = Proxy::to(&echo().await).await;
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        let long: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (mut read, mut write) = client.split();
        let mut heard = vec![0; long.len()];
        let (sent, got) = tokio::join!(write.write_all(&long), read.read_exact(&mut heard));
        assert!(sent.is_ok() && got.is_ok() && heard == long);
        assert_eq!(proxy.bytes(), (1_000_000, 1_000_000));
        assert_eq!(proxy.connections(), 1);
        write.shutdown().await.unwrap();
        assert_eq!(read.read(&mut [0]).await.unwrap(), 0, "its end gets through as well");
    }

    #[tokio::test]
    async fn a_cut_resets_and_refuses_until_it_is_healed() {
        let proxy = Proxy::to(&echo().await).await;
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        say(&mut client, b"before").await;
        proxy.cut().await;
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(proxy.connections(), 0);
        let error = TcpStream::connect(proxy.addr()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        proxy.heal().await;
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        say(&mut client, b"after").await;
        proxy.reset().await;
        assert!(client.read(&mut [0]).await.is_err());
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        say(&mut client, b"again").await;
    }

    #[tokio::test]
    async fn what_is_held_arrives_when_the_line_is_healed() {
        let proxy = Proxy::to(&echo().await).await;
        let mut old = TcpStream::connect(proxy.addr()).await.unwrap();
        say(&mut old, b"before").await;
        proxy.hold().await;
        let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
        old.write_all(b"old").await.unwrap();
        new.write_all(b"new").await.unwrap();
        let before = proxy.bytes();
        // A second line has gone through by then.
        let other = Proxy::to(&echo().await).await;
        let mut client = TcpStream::connect(other.addr()).await.unwrap();
        say(&mut client, b"meanwhile").await;
        assert!(nothing_came(&old) && nothing_came(&new) && proxy.bytes() == before);
        proxy.heal().await;
        hear(&mut old, b"old").await;
        hear(&mut new, b"new").await;
        proxy.hold_answers().await;
        old.write_all(b"told").await.unwrap();
        while proxy.bytes().0 < before.0 + 10 {
            tokio::task::yield_now().await;
        }
        assert!(nothing_came(&old));
        proxy.heal().await;
        hear(&mut old, b"told").await;
    }

    #[tokio::test]
    async fn a_delay_holds_both_directions_up() {
        let proxy = Proxy::to(&echo().await).await;
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        say(&mut client, b"quick").await;
        proxy.delay_each(40, 20).await;
        let began = std::time::Instant::now();
        say(&mut client, b"slow").await;
        assert!(began.elapsed() >= Duration::from_millis(60), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_server_that_is_away_resets_who_wants_to_speak_to_it() {
        let nobody = format!("127.0.0.1:{}", port::free());
        let proxy = Proxy::to(&nobody).await;
        // The reset may already have come when the client has hardly connected.
        if let Ok(mut client) = TcpStream::connect(proxy.addr()).await {
            assert!(client.read(&mut [0]).await.is_err());
        }
    }
}
