//! What stands before a dispatcher and can break: every connection passes through here.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// A front that listens.
pub(crate) struct Front {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    passing: Vec<TcpStream>,
    /// How many connections are still to meet somebody else.
    strangers: usize,
}

impl Front {
    /// Passes connections on to a dispatcher.
    pub(crate) fn before(dispatcher: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::default(),
        };
        let state = Arc::clone(&front.state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), dispatcher, &state);
            }
        });
        front
    }

    /// Cuts all connections, and answers the next few itself, without TLS.
    pub(crate) fn break_for(&self, connections: usize) {
        let mut state = lock(&self.state);
        state.strangers = connections;
        for stream in state.passing.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections are still to meet somebody else.
    pub(crate) fn strangers(&self) -> usize {
        lock(&self.state).strangers
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

fn serve(mut client: TcpStream, dispatcher: SocketAddr, state: &Mutex<State>) {
    let mut state = lock(state);
    if state.strangers > 0 {
        state.strangers -= 1;
        let _ = client.read(&mut [0; 4096]);
        let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    let server = TcpStream::connect(dispatcher).unwrap();
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
    state.passing.extend([client, server]);
}
