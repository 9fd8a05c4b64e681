//! What client and server say. A request is one byte and, for [`ADD`], a row; answers have a fixed size, too.

use std::io::{self, Read, Write};

use super::row::{ROW_BYTES, Row};

/// Request: add the row that follows.
pub const ADD: u8 = b'A';
/// Request: send all rows, as a count (u64, little endian) and the stored rows.
pub const READ_ALL: u8 = b'R';
/// Bytes of the answer to [`ADD`].
pub const ANSWER_BYTES: usize = 9;
/// Most rows that a reader accepts.
pub const ROWS_MAX: u64 = 16 << 20;

/// The answer to an added row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable.
    Durable,
    /// Another row has this number.
    Conflict,
}

/// The answer's bytes: verdict and the row's number.
pub fn encode_answer(verdict: Verdict, number: u64) -> [u8; ANSWER_BYTES] {
    let mut bytes = [0; ANSWER_BYTES];
    bytes[0] = match verdict {
        Verdict::Durable => b'K',
        Verdict::Conflict => b'C',
    };
    bytes[1..].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Reads an answer.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_answer(bytes: &[u8; ANSWER_BYTES]) -> io::Result<(Verdict, u64)> {
    let [verdict, number @ ..] = *bytes;
    let verdict = match verdict {
        b'K' => Verdict::Durable,
        b'C' => Verdict::Conflict,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not an answer of a ledger",
            ));
        }
    };
    Ok((verdict, u64::from_le_bytes(number)))
}

/// Reads the rows that follow a [`READ_ALL`].
///
/// # Errors
/// When the stream ends early or a row is damaged.
pub fn read_rows(mut stream: impl Read) -> io::Result<Vec<Row>> {
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    let count = u64::from_le_bytes(count);
    if count > ROWS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "more rows than a ledger has",
        ));
    }
    let mut rows = Vec::new();
    for _ in 0..count {
        let mut bytes = [0; ROW_BYTES];
        stream.read_exact(&mut bytes)?;
        rows.push(Row::decode(&bytes).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "row with a wrong checksum")
        })?);
    }
    Ok(rows)
}

/// Writes the answer to a [`READ_ALL`].
///
/// # Errors
/// When the stream does not take it.
pub fn write_rows(mut stream: impl Write, stored: &[u8]) -> io::Result<()> {
    let count = u64::try_from(stored.len() / ROW_BYTES).map_err(io::Error::other)?;
    stream.write_all(&count.to_le_bytes())?;
    stream.write_all(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back() {
        for verdict in [Verdict::Durable, Verdict::Conflict] {
            assert_eq!(
                decode_answer(&encode_answer(verdict, 9)).unwrap(),
                (verdict, 9)
            );
        }
        assert!(decode_answer(&[0; ANSWER_BYTES]).is_err());
    }

    #[test]
    fn rows_come_back_and_damaged_ones_do_not() {
        let stored: Vec<u8> = (1..4)
            .flat_map(|number| Row::new(1, number).encode())
            .collect();
        let mut sent = Vec::new();
        write_rows(&mut sent, &stored).unwrap();
        assert_eq!(read_rows(&sent[..]).unwrap().len(), 3);
        assert!(read_rows(&sent[..sent.len() - 1]).is_err());
        sent[200] ^= 1;
        assert!(read_rows(&sent[..]).is_err());
        assert!(read_rows(&u64::MAX.to_le_bytes()[..]).is_err());
    }
}
