//! One test of one target, over a connection of the master's own.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::policy::Probe;

/// A target that has not answered by then never will in time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the first line of an HTTP answer must have ended.
const STATUS_LINE: usize = 256;

/// Tests `target`; the error says in a few words what is wrong.
pub(super) async fn test(probe: &Probe, target: SocketAddr, interval: Duration) -> Result<(), String> {
    let patience = interval.min(PATIENCE);
    match timeout(patience, ask(probe, target)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {}s", patience.as_secs())),
    }
}

async fn ask(probe: &Probe, target: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(target).await.map_err(|error| words(&error))?;
    match probe {
        Probe::Tcp => Ok(()),
        Probe::Http(path) => page(&mut stream, path, target).await,
        Probe::Banner(wanted) => {
            let said = beginning(&mut stream, wanted.len(), |_| false).await?;
            if said == wanted.as_bytes() { Ok(()) } else { Err(format!("began with {}", quoted(&said))) }
        }
    }
}

async fn page(stream: &mut TcpStream, path: &str, target: SocketAddr) -> Result<(), String> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: netfw\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| words(&error))?;
    let answer = beginning(stream, STATUS_LINE, |so_far| so_far.contains(&b'\n')).await?;
    match status(&answer) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("answered {status}")),
        None => Err(format!("answered {} and not in HTTP", quoted(&answer))),
    }
}

/// Code in the status line (RFC 9112 §4).
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|&byte| byte == b'\r' || byte == b'\n').next()?;
    let mut words = str::from_utf8(line).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/"))?;
    words.next()?.parse().ok()
}

/// The first bytes that come: `most` of them, or fewer if `enough` says so or the other end closes.
async fn beginning(
    stream: &mut TcpStream,
    most: usize,
    enough: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while bytes.len() < most && !enough(&bytes) {
        let mut room = vec![0; most - bytes.len()];
        match stream.read(&mut room).await.map_err(|error| words(&error))? {
            0 => break,
            count => bytes.extend_from_slice(&room[..count]),
        }
    }
    Ok(bytes)
}

fn quoted(bytes: &[u8]) -> String {
    if bytes.is_empty() { "nothing".into() } else { format!("\"{}\"", bytes.escape_ascii()) }
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::HostUnreachable => "host unreachable".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Tests a server that says `words` to everybody, once it has heard something if `asked`.
    async fn test_server(probe: Probe, asked: bool, words: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                if asked {
                    let _ = stream.read(&mut [0; 1024]).await;
                }
                let _ = stream.write_all(words.as_bytes()).await;
            }
        });
        test(&probe, address, Duration::from_secs(60)).await
    }

    #[tokio::test]
    async fn a_page_must_be_there() {
        let page = |words| test_server(Probe::Http("/health".into()), true, words);
        assert_eq!(page("HTTP/1.1 200 OK\r\n\r\nall well").await, Ok(()));
        assert_eq!(page("HTTP/1.0 302 Found\r\n\r\n").await, Ok(()));
        assert_eq!(page("HTTP/1.1 503 Service Unavailable\r\n\r\n").await, Err("answered 503".into()));
        assert_eq!(page("SSH-2.0\r\n").await, Err("answered \"SSH-2.0\\r\\n\" and not in HTTP".into()));
        assert_eq!(page("").await, Err("answered nothing and not in HTTP".into()));
    }

    #[tokio::test]
    async fn a_banner_must_begin_as_said() {
        let banner = |words| test_server(Probe::Banner("SSH-".into()), false, words);
        assert_eq!(banner("SSH-2.0-OpenSSH\r\n").await, Ok(()));
        assert_eq!(banner("220 mail\r\n").await, Err("began with \"220 \"".into()));
        assert_eq!(banner("").await, Err("began with nothing".into()));
    }

    #[tokio::test]
    async fn somebody_must_listen() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        assert_eq!(test(&Probe::Tcp, address, Duration::from_secs(60)).await, Ok(()));
        drop(listener);
        assert_eq!(
            test(&Probe::Tcp, address, Duration::from_secs(60)).await,
            Err("connection refused".into())
        );
        Ok(())
    }

    #[tokio::test]
    async fn who_stays_silent_fails_in_time() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let banner = Probe::Banner("SSH-".into());
        let outcome = test(&banner, listener.local_addr()?, Duration::from_secs(1)).await;
        assert_eq!(outcome, Err("no answer within 1s".into()));
        Ok(())
    }
}
