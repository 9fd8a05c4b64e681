//! A minimal client of PostgreSQL: plain SQL with time limits on every step, which no client library of ours offers.
//!
//! Messages: PostgreSQL's documentation, "Frontend/Backend Protocol", simple query protocol, trust authentication.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::ledger::row::{ROW_BYTES, Row};

/// Protocol version 3.0.
const VERSION: u32 = 3 << 16;
/// Longest message that is read, in bytes.
const MESSAGE_MAX: usize = 1 << 20;
/// Longest wait for the next bytes while all rows are read.
const READ_ALL_MAX: Duration = Duration::from_secs(10);

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    stream: TcpStream,
}

/// One message from the server.
struct Message {
    kind: u8,
    body: Vec<u8>,
}

impl Session {
    /// Connects within `connect_max`; each answer then may take `answer_max`.
    ///
    /// # Errors
    /// When the server does not accept in time, or refuses.
    pub(super) fn connect(
        to: SocketAddr,
        connect_max: Duration,
        answer_max: Duration,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, connect_max)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(answer_max))?;
        stream.set_write_timeout(Some(answer_max))?;
        let mut session = Self { stream };
        let parameters = b"user\0postgres\0database\0postgres\0\0";
        let mut startup = VERSION.to_be_bytes().to_vec();
        startup.extend(parameters);
        session.send(None, &startup)?;
        session.until_ready(|_| Ok(()))?;
        Ok(session)
    }

    /// Makes the table; one that is there is kept.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    pub(super) fn create_table(&mut self) -> io::Result<()> {
        self.query(
            "CREATE TABLE IF NOT EXISTS ledger (number bigint PRIMARY KEY, stored bytea NOT NULL)",
            |_| Ok(()),
        )
    }

    /// Inserts a row and waits until it is committed. A row that is there already stays as it is.
    ///
    /// # Errors
    /// When there is no answer in time: then the row may be stored or not, and must be added again in a new session.
    pub(super) fn add(&mut self, row: &Row) -> io::Result<()> {
        let stored: String = row
            .encode()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let number = row.number;
        self.query(
            &format!("INSERT INTO ledger VALUES ({number}, '\\x{stored}') ON CONFLICT DO NOTHING"),
            |_| Ok(()),
        )
    }

    /// Reads every row, in the order of the numbers.
    ///
    /// # Errors
    /// When the session breaks or a row is damaged.
    pub(super) fn read_all(&mut self) -> io::Result<Vec<Row>> {
        self.stream.set_read_timeout(Some(READ_ALL_MAX))?;
        let mut rows = Vec::new();
        self.query("SELECT stored FROM ledger ORDER BY number", |column| {
            rows.push(decode(column).ok_or_else(|| malformed("row with a wrong checksum"))?);
            Ok(())
        })?;
        Ok(rows)
    }

    fn query(&mut self, sql: &str, each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        self.send(Some(b'Q'), &body)?;
        self.until_ready(each)
    }

    /// Reads messages up to ReadyForQuery, hands the first column of each data row to `each`, and gives the first error.
    fn until_ready(&mut self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut result = Ok(());
        loop {
            let message = self.receive()?;
            match message.kind {
                b'Z' => return result,
                b'E' => {
                    result = Err(io::Error::other(error_text(&message.body)));
                    // An error before the first query ends the session without a ReadyForQuery.
                    if error_is_fatal(&message.body) {
                        return result;
                    }
                }
                b'D' => each(first_column(&message.body).ok_or_else(|| malformed("data row"))?)?,
                b'R' if message.body != [0; 4] => {
                    return Err(io::Error::other(
                        "server wants a password; the lab's trusts its network",
                    ));
                }
                // Parameters, notices, row descriptions, completed commands.
                _ => {}
            }
        }
    }

    fn send(&mut self, kind: Option<u8>, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
        let mut message: Vec<u8> = kind.into_iter().collect();
        message.extend(length.to_be_bytes());
        message.extend(body);
        self.stream.write_all(&message)
    }

    fn receive(&mut self) -> io::Result<Message> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
        if !(4..=MESSAGE_MAX).contains(&length) {
            return Err(malformed("length"));
        }
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body)?;
        Ok(Message { kind, body })
    }
}

/// The first column of a data row.
fn first_column(body: &[u8]) -> Option<&[u8]> {
    let (_columns, rest) = body.split_first_chunk::<2>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// Reads a row from a bytea in hexadecimal form.
fn decode(column: &[u8]) -> Option<Row> {
    let digits = std::str::from_utf8(column).ok()?.strip_prefix("\\x")?;
    let mut bytes = [0; ROW_BYTES];
    if digits.len() != 2 * ROW_BYTES || !digits.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Row::decode(&bytes)
}

/// The fields of an error are a letter and a text each: S severity, M message.
fn error_field(body: &[u8], field: u8) -> Option<String> {
    let texts = body.split(|byte| *byte == 0);
    let text = texts
        .into_iter()
        .find_map(|text| text.strip_prefix(&[field]))?;
    Some(String::from_utf8_lossy(text).into_owned())
}

fn error_text(body: &[u8]) -> String {
    error_field(body, b'M').unwrap_or_else(|| "unknown error".to_owned())
}

fn error_is_fatal(body: &[u8]) -> bool {
    matches!(error_field(body, b'V').as_deref(), Some("FATAL" | "PANIC"))
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not PostgreSQL's protocol: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_from_hexadecimal_text() {
        let row = Row::new(1, 2);
        let text: String = row
            .encode()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(decode(format!("\\x{text}").as_bytes()), Some(row));
        for bad in ["", "\\x", "\\xzz", &text] {
            assert_eq!(decode(bad.as_bytes()), None);
        }
    }

    #[test]
    fn errors_are_told_in_the_servers_words() {
        let body = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
        assert_eq!(error_text(body), "the database system is starting up");
        assert!(error_is_fatal(body));
        assert!(!error_is_fatal(b"VERROR\0\0"));
    }

    #[test]
    fn short_data_rows_are_no_rows() {
        assert_eq!(first_column(&[0, 1, 0, 0, 0, 2, 7]), None);
        assert_eq!(first_column(&[0, 1, 0, 0, 0, 1, 7]), Some(&[7][..]));
    }
}
