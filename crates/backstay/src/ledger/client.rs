//! The ledger's client: one connection, with time limits that keep an outage measurable.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::protocol::{ADD, ANSWER_BYTES, READ_ALL, Verdict, decode_answer, read_rows};
use super::row::Row;

/// Longest wait for the next bytes while all rows are read.
const READ_ALL_MAX: Duration = Duration::from_secs(10);

/// A connection to a ledger.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
}

impl Client {
    /// Connects within `connect_max`; an answer then may take `answer_max`.
    ///
    /// # Errors
    /// When the server does not accept in time.
    pub fn connect(
        to: SocketAddr,
        connect_max: Duration,
        answer_max: Duration,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, connect_max)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(answer_max))?;
        stream.set_write_timeout(Some(answer_max))?;
        Ok(Self { stream })
    }

    /// Adds a row and waits until it is durable.
    ///
    /// # Errors
    /// When there is no answer in time: then the row may be stored or not, and must be added again on a new connection.
    pub fn add(&mut self, row: &Row) -> io::Result<Verdict> {
        let mut request = vec![ADD];
        request.extend_from_slice(&row.encode());
        self.stream.write_all(&request)?;
        let mut answer = [0; ANSWER_BYTES];
        self.stream.read_exact(&mut answer)?;
        let (verdict, number) = decode_answer(&answer)?;
        if number == row.number {
            return Ok(verdict);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "answer to another row",
        ))
    }

    /// Reads every row, in the order of the numbers.
    ///
    /// # Errors
    /// When the stream breaks or a row is damaged.
    pub fn read_all(&mut self) -> io::Result<Vec<Row>> {
        self.stream.set_read_timeout(Some(READ_ALL_MAX))?;
        self.stream.write_all(&[READ_ALL])?;
        read_rows(io::BufReader::new(&self.stream))
    }
}
