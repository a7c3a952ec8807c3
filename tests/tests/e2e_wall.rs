//! The wall: nobody outside can open a connection into the cluster, also while a command runs in it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use invoke_tests::bed::bed;
use invoke_tests::wait;

#[test]
fn the_cluster_cannot_be_reached_while_a_command_runs_in_it() {
    let bed = bed();
    let id = bed
        .ran(&["--no-wait", "kubectl get --raw /readyz; sleep 5"])
        .stdout_text()
        .trim()
        .to_owned();
    wait::until(
        "the command to reach the API server",
        Duration::from_secs(60),
        || {
            bed.ran(&["logs", &id])
                .stdout_text()
                .contains("ok")
                .then_some(())
        },
    );
    // 6443 is the API server, 10250 the kubelet; both are alive, as the command has just proved.
    for port in [6443, 10250] {
        let address: SocketAddr = format!("{}:{port}", bed.cluster_ip).parse().unwrap();
        let error = TcpStream::connect_timeout(&address, Duration::from_secs(2))
            .expect_err("the wall let a connection in");
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::TimedOut,
            "{address}: {error}"
        );
    }
    assert_eq!(bed.ran(&["logs", "-f", &id]).code, 0);
}

/// The dispatcher's door is where the test says it is: else the test above would prove nothing.
#[test]
fn the_hub_itself_is_reachable() {
    let address: SocketAddr = format!("{}:8443", bed().hub_ip).parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).unwrap();
    stream.write_all(b"no TLS\r\n\r\n").unwrap();
}
