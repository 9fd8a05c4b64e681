//! The TCP socket below a mirror's connection.

use super::{StreamError, Tuning};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

pub(super) fn start_connect(
    to: SocketAddr,
    from: Option<IpAddr>,
    tuning: Tuning,
) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    let socket = TcpStream::from(socket);
    tune(&socket, tuning)?;
    if let Some(from) = from {
        rustix::net::bind(&socket, &SocketAddr::new(from, 0))?;
    }
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(e.into()),
    }
}

pub(super) fn is_connected(socket: &TcpStream, to: SocketAddr) -> Result<bool, StreamError> {
    let fail = |source| StreamError::Connect { to, source };
    match sockopt::socket_error(socket).map_err(|e| fail(e.into()))? {
        Ok(()) => {}
        Err(e) => return Err(fail(e.into())),
    }
    match rustix::net::getpeername(socket) {
        Ok(_) => Ok(true),
        Err(Errno::NOTCONN) => Ok(false),
        Err(e) => Err(fail(e.into())),
    }
}

pub(super) fn tune(socket: &TcpStream, tuning: Tuning) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    let millis = u32::try_from(tuning.user_timeout.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(socket, millis)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, tuning.keepalive)?;
    sockopt::set_tcp_keepintvl(socket, tuning.keepalive)?;
    if tuning.buffer_bytes > 0 {
        set_buffers(socket, tuning.buffer_bytes)?;
    }
    Ok(())
}

/// Beyond the system's limit if that is allowed, else as far as the limit goes.
fn set_buffers(socket: &TcpStream, bytes: usize) -> io::Result<()> {
    if sockopt::set_socket_send_buffer_size_force(socket, bytes).is_err() {
        sockopt::set_socket_send_buffer_size(socket, bytes)?;
    }
    if sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, bytes)?;
    }
    Ok(())
}
