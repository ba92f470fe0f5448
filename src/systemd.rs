//! Notifications for systemd: one datagram each to the socket in `NOTIFY_SOCKET`.
//!
//! States go in, such as `READY=1`. Without a socket nothing happens.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

/// Sends a state, if this process is a service that notifies. A failure is logged: the service goes on.
pub fn notify(state: &str) {
    if let Some(socket) = env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket, state)
    {
        log::error!("cannot notify systemd: {error}");
    }
}

/// The pause between signs of life, `WATCHDOG=1`: half of the time that systemd waits for one. `None` if it waits for none.
#[must_use]
pub fn watchdog_pause() -> Option<Duration> {
    let of = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    pause(of("WATCHDOG_USEC"), of("WATCHDOG_PID"), process::id().into())
}

fn pause(time: Option<u64>, meant: Option<u64>, own: u64) -> Option<Duration> {
    let is_ours = meant.is_none_or(|meant| meant == own);
    // A pause of no time would leave time for nothing else.
    time.filter(|time| is_ours && *time > 1).map(|time| Duration::from_micros(time / 2))
}

/// Sends `state` to `socket`: a path, or `@` and a name in the abstract namespace.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    // systemd does not answer, so the socket needs no address of its own.
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_arrives_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("fifogate-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let abstract_name = format!("@{name}");
        for (socket, given) in [(by_path, path.as_os_str()), (by_name, abstract_name.as_ref())] {
            send(given, "READY=1").unwrap();
            let mut buffer = [0; 32];
            let count = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..count], b"READY=1");
        }
    }

    #[test]
    fn sign_of_life_is_given_twice_in_the_time_for_one_by_the_process_that_is_meant() {
        assert_eq!(pause(Some(30_000_000), Some(7), 7), Some(Duration::from_secs(15)));
        assert_eq!(pause(Some(30_000_000), None, 7), Some(Duration::from_secs(15)));
        assert_eq!(pause(Some(30_000_000), Some(8), 7), None);
        assert_eq!((pause(None, None, 7), pause(Some(0), None, 7)), (None, None));
    }
}
